//! Which camera is meant, when its device number changes.
//!
//! A USB camera that is plugged in again may come as another `/dev/videoN`. udev names it after its serial number
//! (`/dev/v4l/by-id`) and its place (`/dev/v4l/by-path`); without udev its card name and bus tell it apart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::sys::{Capability, Device};

/// Below this directory the names lie: `/dev`, or a test's stand-in.
#[derive(Debug, Clone)]
pub struct DeviceDirectory(pub PathBuf);

/// What a camera can be found again by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Names below `/dev/v4l/by-id`, then `by-path`, that led to it.
    links: Vec<PathBuf>,
    card: String,
    bus: String,
}

/// An open camera.
#[derive(Debug)]
pub struct Found {
    pub device: Device,
    /// The node itself.
    pub path: PathBuf,
    pub capability: Capability,
}

impl Found {
    fn open(path: &Path) -> io::Result<Found> {
        let device = Device::open(path)?;
        let capability = device.capability()?;
        Ok(Found { device, path: fs::canonicalize(path)?, capability })
    }

    /// For people: "HD Pro Webcam C920 (/dev/video0)".
    pub fn name(&self) -> String {
        format!("{} ({})", self.capability.card, self.path.display())
    }
}

impl DeviceDirectory {
    /// Opens a node by its path, or by its number: a first camera, of which nothing is known.
    pub fn open(&self, path: &Path) -> io::Result<Found> {
        Found::open(path)
    }

    /// The first node that captures video.
    pub fn first_camera(&self) -> io::Result<Found> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for path in self.nodes() {
            match Found::open(&path) {
                Ok(found) if is_camera(&found.capability) => return Ok(found),
                Ok(_) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What this camera can be found again by.
    pub fn identify(&self, found: &Found) -> Identity {
        let links = ["v4l/by-id", "v4l/by-path"].into_iter().flat_map(|directory| self.links_to(directory, &found.path)).collect();
        Identity { links, card: found.capability.card.clone(), bus: found.capability.bus.clone() }
    }

    /// The same camera, wherever it is now.
    ///
    /// # Errors
    /// What opening it gave, or `NotFound`.
    pub fn find(&self, identity: &Identity) -> io::Result<Found> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        // a name by serial number or place may lead to another camera by now: a name alone decides only by serial number
        let candidates = identity.links.iter().cloned().chain(self.nodes());
        for path in candidates {
            match Found::open(&path) {
                Ok(found) if identity.fits(&path, &found.capability) => return Ok(found),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// `/dev/video0`, `/dev/video1`, … in the order of their numbers.
    pub fn nodes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let number = |name: &str| name.strip_prefix("video")?.parse::<u32>().ok();
        let mut nodes: Vec<(u32, PathBuf)> =
            entries.filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path()))).collect();
        nodes.sort();
        nodes.into_iter().map(|(_, path)| path).collect()
    }

    fn links_to(&self, directory: &str, node: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join(directory)).into_iter().flatten().flatten();
        let mut links: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|link| fs::canonicalize(link).is_ok_and(|to| to == node)).collect();
        links.sort();
        links
    }
}

impl Identity {
    /// Whether the device that `path` led to is this camera: by its serial number wherever it is plugged in; else card and bus
    /// must both be the same, since two cameras of one kind differ in nothing but the bus.
    fn fits(&self, path: &Path, capability: &Capability) -> bool {
        let by_serial = self.links.iter().any(|link| link == path) && path.parent().is_some_and(|parent| parent.ends_with("by-id"));
        let same_card = capability.card == self.card;
        is_camera(capability) && same_card && (by_serial || capability.bus == self.bus)
    }
}

/// Captures video, and is no stage of a board's own image pipeline, which wants frames put in before any come out.
fn is_camera(capability: &Capability) -> bool {
    let stages = ["bcm2835-isp", "pispbe", "rkisp1", "mtk-mdp"];
    capability.capture.is_some() && !stages.iter().any(|stage| capability.driver.starts_with(stage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::v4l2::sys::Api;

    fn capability(card: &str, bus: &str) -> Capability {
        Capability { driver: "uvcvideo".to_owned(), card: card.to_owned(), bus: bus.to_owned(), capture: Some(Api::Single) }
    }

    #[test]
    fn a_serial_number_decides_and_else_card_and_bus() {
        let by_id = PathBuf::from("/dev/v4l/by-id/usb-046d_C920_1234-video-index0");
        let by_path = PathBuf::from("/dev/v4l/by-path/pci-usb-0:1:1.0-video-index0");
        let node = Path::new("/dev/video4");
        let identity = Identity { links: vec![by_id.clone(), by_path.clone()], card: "C920".to_owned(), bus: "usb-1".to_owned() };
        assert!(identity.fits(node, &capability("C920", "usb-1")), "the same place");
        assert!(identity.fits(&by_id, &capability("C920", "usb-2")), "the same serial number at another place");
        assert!(!identity.fits(&by_path, &capability("C920", "usb-2")), "a name by place does not decide");
        assert!(!identity.fits(node, &capability("C920", "usb-2")), "a twin");
        assert!(!identity.fits(&by_path, &capability("C270", "usb-1")), "another camera at its place");
        let metadata = Capability { capture: None, ..capability("C920", "usb-1") };
        assert!(!identity.fits(node, &metadata), "its metadata node");
        assert!(!is_camera(&Capability { driver: "bcm2835-isp".to_owned(), ..capability("", "") }));
    }

    #[test]
    fn nodes_come_in_the_order_of_their_numbers_and_links_are_followed() {
        let dir = std::env::temp_dir().join(format!("eomt-identity-{}", std::process::id()));
        fs::create_dir_all(dir.join("v4l/by-id")).unwrap();
        for name in ["video10", "video2", "video", "videox", "vbi0"] {
            fs::write(dir.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("../../video10", dir.join("v4l/by-id/usb-cam-index0")).unwrap();
        let devices = DeviceDirectory(fs::canonicalize(&dir).unwrap());
        let (nodes, links) = (devices.nodes(), devices.links_to("v4l/by-id", &devices.0.join("video10")));
        let first = devices.first_camera();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(nodes, ["video2", "video10"].map(|name| devices.0.join(name)));
        assert_eq!(links, [devices.0.join("v4l/by-id/usb-cam-index0")]);
        assert!(first.is_err(), "files are no cameras");
    }
}
