//! Finds a camera again after its device number has changed.
//!
//! A USB camera that is plugged in again may come as another `/dev/videoN`. What stays is its serial number, its place (the bus path
//! that VIDIOC_QUERYCAP gives) and which of its nodes it is. These are what udev makes `/dev/v4l/by-id` and `by-path` of; they are
//! read where udev reads them, since its links come after the node, and cameras without a serial number share one name by id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eomt_edge_host::{bounds, files};

use super::sys::{Capability, Device};

/// Where devices are found.
#[derive(Debug, Clone)]
pub struct DeviceDirectory {
    /// `/dev`, or a test's stand-in.
    pub(super) nodes: PathBuf,
    /// `/sys/class/video4linux`, the kernel's `Documentation/ABI/stable/sysfs-class-video4linux` and `sysfs-bus-usb`.
    pub(super) class: PathBuf,
}

impl Default for DeviceDirectory {
    fn default() -> Self {
        DeviceDirectory { nodes: PathBuf::from("/dev"), class: PathBuf::from("/sys/class/video4linux") }
    }
}

/// Identifies a camera across reconnections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where it was.
    node: PathBuf,
    traits: Traits,
}

impl Identity {
    /// One line that stays the same for as long as it is the same camera: with a serial number, wherever it is plugged in; without one,
    /// in its place.
    pub fn text(&self) -> String {
        let Traits { card, bus, index, serial } = &self.traits;
        let (what, which) = serial.as_ref().map_or(("at", bus), |serial| ("serial", serial));
        format!("{card}, {what} {which}, node {}", index.as_deref().unwrap_or("?"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Traits {
    card: String,
    bus: String,
    /// Which of the device's nodes it is; `None` without sysfs.
    index: Option<String>,
    /// Of a USB device that has one, and no other camera the same.
    serial: Option<String>,
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
    /// Opens a node by its path.
    pub fn open(&self, path: &Path) -> io::Result<Found> {
        Found::open(path)
    }

    /// Opens a node; `None` when it captures no video, or only what a board's own image pipeline puts in.
    pub fn open_camera(&self, path: &Path) -> io::Result<Option<Found>> {
        Found::open(path).map(|found| is_camera(&found.capability).then_some(found))
    }

    /// The identity of an open camera.
    pub fn identify(&self, found: &Found) -> Identity {
        Identity { node: found.path.clone(), traits: self.traits(&found.path, &found.capability) }
    }

    /// The same camera, wherever it is now; else another of its kind in its place.
    ///
    /// # Errors
    /// What opening the node where it was gave, or `NotFound`.
    pub fn find(&self, identity: &Identity) -> io::Result<Found> {
        let mut reason = io::Error::from(io::ErrorKind::NotFound);
        let mut second: Option<(Likeness, Found)> = None;
        let others = self.nodes().into_iter().filter(|node| *node != identity.node);
        for path in std::iter::once(identity.node.clone()).chain(others) {
            let found = match self.open_camera(&path) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    // an error of another device does not concern this camera
                    reason = if path == identity.node && error.kind() != io::ErrorKind::NotFound { error } else { reason };
                    continue;
                }
            };
            match identity.traits.likeness(&self.traits(&found.path, &found.capability)) {
                Some(Likeness::Same) => return Ok(found),
                Some(likeness) if second.as_ref().is_none_or(|(best, _)| likeness < *best) => second = Some((likeness, found)),
                _ => {}
            }
        }
        second.map(|(_, found)| found).ok_or(reason)
    }

    /// `/dev/video0`, `/dev/video1`, … in the order of their numbers.
    pub fn nodes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.nodes).into_iter().flatten().flatten();
        let number = |name: &str| name.strip_prefix("video")?.parse::<u32>().ok();
        let mut nodes: Vec<(u32, PathBuf)> =
            entries.filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path()))).collect();
        nodes.sort();
        nodes.into_iter().map(|(_, path)| path).collect()
    }

    fn traits(&self, node: &Path, capability: &Capability) -> Traits {
        let class = self.class.join(node.file_name().unwrap_or_default());
        let index = files::read_text(&class.join("index"), &bounds::SYSTEM).ok().map(|index| index.trim().to_owned());
        Traits { card: capability.card.clone(), bus: capability.bus.clone(), index, serial: self.serial(&class) }
    }

    /// The serial number of the USB device that a class entry belongs to, unless a second device has the same: many cheap cameras do.
    fn serial(&self, class: &Path) -> Option<String> {
        let (device, serial) = usb_serial(class)?;
        let entries = fs::read_dir(&self.class).ok()?.flatten();
        let is_twin = |(other, number): (PathBuf, String)| other != device && number == serial;
        let shared = entries.filter_map(|entry| usb_serial(&entry.path())).any(is_twin);
        (!shared).then_some(serial)
    }
}

/// The USB device of a class entry and its serial number. The entry's `device` is one of the USB device's interfaces.
fn usb_serial(class: &Path) -> Option<(PathBuf, String)> {
    let interface = fs::canonicalize(class.join("device")).ok()?;
    let device = interface.parent()?.to_owned();
    let serial = files::read_text(&device.join("serial"), &bounds::SYSTEM).ok()?.trim().to_owned();
    (!serial.is_empty()).then_some((device, serial))
}

/// From the most alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// Its place, and no other serial number.
    Same,
    /// Its serial number at another place.
    Moved,
    /// One of its kind in its place, with another serial number.
    Replaced,
}

impl Traits {
    /// `None`: another camera. Two of one kind without serial numbers differ in nothing but their place.
    fn likeness(&self, other: &Traits) -> Option<Likeness> {
        let other_index = self.index.is_some() && other.index.is_some() && self.index != other.index;
        if self.card != other.card || other_index {
            return None;
        }
        match (self.bus == other.bus, self.serial == other.serial) {
            (true, true) => Some(Likeness::Same),
            (false, true) if self.serial.is_some() => Some(Likeness::Moved),
            (true, false) => Some(Likeness::Replaced),
            (false, _) => None,
        }
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

    fn traits(card: &str, bus: &str, index: &str, serial: &str) -> Traits {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Traits { card: card.to_owned(), bus: bus.to_owned(), index: known(index), serial: known(serial) }
    }

    #[test]
    fn place_and_serial_number_decide_and_a_twin_is_another_camera() {
        let with = traits("C920", "usb-1", "0", "1234");
        let without = traits("C920", "usb-1", "0", "");
        for (camera, other, expected) in [
            (&with, traits("C920", "usb-1", "0", "1234"), Some(Likeness::Same)),
            (&with, traits("C920", "usb-2", "0", "1234"), Some(Likeness::Moved)),
            (&with, traits("C920", "usb-1", "0", "9"), Some(Likeness::Replaced)),
            (&with, traits("C920", "usb-2", "0", "9"), None),
            (&with, traits("C920", "usb-2", "0", ""), None),
            (&with, traits("C270", "usb-1", "0", "1234"), None),
            (&with, traits("C920", "usb-1", "2", "1234"), None),
            (&with, traits("C920", "usb-1", "", "1234"), Some(Likeness::Same)),
            (&without, traits("C920", "usb-1", "0", ""), Some(Likeness::Same)),
            (&without, traits("C920", "usb-2", "0", ""), None),
            (&without, traits("C920", "usb-2", "0", "1234"), None),
        ] {
            assert_eq!(camera.likeness(&other), expected, "{camera:?} and {other:?}");
        }
        let isp = Capability {
            driver: "bcm2835-isp".to_owned(),
            card: String::new(),
            bus: String::new(),
            capture: Some(Api::Single),
            media_centric: false,
        };
        assert!(!is_camera(&isp) && is_camera(&Capability { driver: "uvcvideo".to_owned(), ..isp.clone() }));
        assert!(!is_camera(&Capability { driver: "uvcvideo".to_owned(), capture: None, ..isp }), "a metadata node");
    }

    #[test]
    fn a_camera_keeps_its_text_where_it_keeps_its_serial_number() {
        let text = |card, bus, serial| Identity { node: PathBuf::new(), traits: traits(card, bus, "0", serial) }.text();
        assert_eq!(text("C920", "usb-1", "1234"), text("C920", "usb-2", "1234"), "it has moved");
        let others = [text("C920", "usb-1", "1234"), text("C920", "usb-1", "9"), text("C920", "usb-1", ""), text("C920", "usb-2", "")];
        for (at, other) in others.iter().enumerate() {
            assert!(!others[..at].contains(other), "{other} is another camera");
        }
    }

    /// A directory as sysfs has it: three USB cameras, two of which share a number, and one on the board.
    #[test]
    fn a_serial_number_that_two_cameras_share_is_none() {
        let dir = std::env::temp_dir().join(format!("eomt-serial-{}", std::process::id()));
        let class = dir.join("class");
        for (node, port, serial) in
            [("video0", "1-1", "SN0001\n"), ("video1", "1-1", "SN0001\n"), ("video2", "1-2", "SN0001\n"), ("video4", "1-3", "77\n")]
        {
            let interface = dir.join(port).join(format!("{port}:1.0"));
            fs::create_dir_all(&interface).unwrap();
            fs::write(dir.join(port).join("serial"), serial).unwrap();
            fs::create_dir_all(class.join(node)).unwrap();
            fs::write(class.join(node).join("index"), if node == "video1" { "1\n" } else { "0\n" }).unwrap();
            std::os::unix::fs::symlink(&interface, class.join(node).join("device")).unwrap();
        }
        fs::create_dir_all(class.join("video6")).unwrap();
        let devices = DeviceDirectory { nodes: dir.clone(), class };
        let capability = Capability {
            driver: "uvcvideo".to_owned(),
            card: "C".to_owned(),
            bus: "b".to_owned(),
            capture: Some(Api::Single),
            media_centric: false,
        };
        let of = |node: &str| devices.traits(Path::new(node), &capability);
        let found = ["/dev/video0", "/dev/video1", "/dev/video4", "/dev/video6"].map(of);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [traits("C", "b", "0", ""), traits("C", "b", "1", ""), traits("C", "b", "0", "77"), traits("C", "b", "", "")]);
    }

    #[test]
    fn nodes_come_in_the_order_of_their_numbers() {
        let dir = std::env::temp_dir().join(format!("eomt-identity-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for name in ["video10", "video2", "video", "videox", "vbi0"] {
            fs::write(dir.join(name), "").unwrap();
        }
        let devices = DeviceDirectory { nodes: dir.clone(), ..DeviceDirectory::default() };
        let nodes = devices.nodes();
        let first = devices.open_camera(&nodes[0]);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(nodes, ["video2", "video10"].map(|name| dir.join(name)));
        assert!(first.is_err(), "files are no cameras");
    }
}
