//! The choice of a camera when the URI names none: the first one that works.
//!
//! A board has nodes that capture video and give none: a receiver whose media pipeline is not configured (Raspberry Pi 5:
//! rp1-cfe), a sensor's raw data (Jetson: tegra-video). So every node is asked, the likeliest is started first, and the next one when
//! it does not stream.
//!
//! ```text
//! asked         nodes that capture video and are no stage of a board's image processor, by number
//! passed over   cameras that offer no supported format, or cannot be asked (taken, no signal at its input)
//! in this order colour; grey only; media-controller-centric ones, which stream if their pipeline is configured
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::CameraOptions;
use super::camera::{Camera, Started};
use super::error::{CameraError, Kind};
use super::identity::DeviceDirectory;
use crate::source::FormatRequest;

/// A camera that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassedOver {
    pub card: String,
    pub path: PathBuf,
    pub error: CameraError,
}

/// The cameras that may work, the likeliest first, and the others.
pub(super) fn candidates(devices: &DeviceDirectory, request: &FormatRequest) -> (Vec<Camera>, Vec<PassedOver>) {
    let (mut cameras, mut others) = (Vec::new(), Vec::new());
    for path in devices.nodes() {
        let found = match devices.open_camera(&path) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => {
                let error = CameraError::from(error);
                // a file that is no device is not reported
                if error.kind != Kind::Fatal {
                    others.push(PassedOver { card: String::new(), path, error });
                }
                continue;
            }
        };
        let card = found.capability.card.clone();
        let asked = Camera::ask(found, request).and_then(|camera| camera.choose(request).map(|_| ()).map(|()| camera));
        match asked {
            Ok(camera) => cameras.push(camera),
            Err(error) => others.push(PassedOver { card, path, error }),
        }
    }
    // stable: by number among equals
    cameras.sort_by_key(|camera| {
        let grey = camera.formats.usable.iter().all(|candidate| candidate.format.is_grey());
        (camera.found.capability.media_centric, grey)
    });
    (cameras, others)
}

/// Starts the first camera that streams; those in `silent` have streamed and given nothing, so they come last.
pub(super) fn start_one(
    devices: &DeviceDirectory,
    options: &CameraOptions,
    silent: &[PathBuf],
) -> Result<(Camera, Started, Vec<PassedOver>), CameraError> {
    let (mut cameras, mut passed_over) = candidates(devices, &options.request.format);
    cameras.sort_by_key(|camera| silent.iter().position(|path| path == camera.path()).map_or(0, |at| at + 1));
    for camera in cameras {
        match camera.start(options) {
            Ok(started) => return Ok((camera, started, passed_over)),
            Err(error) => {
                passed_over.push(PassedOver { card: camera.found.capability.card.clone(), path: camera.path().clone(), error });
            }
        }
    }
    Err(none_works(&passed_over))
}

/// The error that no camera works, with all that were tried.
pub(super) fn none_works(passed_over: &[PassedOver]) -> CameraError {
    CameraError::passing(match passed_over {
        [] => "there is none (no /dev/video* captures video)".to_owned(),
        tried => format!("none works: {}", list(tried)),
    })
}

/// Cameras as part of a sentence. Those of one kind with the same error stand together, since a board may have eight of them.
pub(super) fn list(passed_over: &[PassedOver]) -> String {
    let mut groups: Vec<(Vec<&Path>, &PassedOver)> = Vec::new();
    for one in passed_over {
        match groups.iter_mut().find(|(_, first)| (&first.card, &first.error) == (&one.card, &one.error)) {
            Some((paths, _)) => paths.push(&one.path),
            None => groups.push((vec![&one.path], one)),
        }
    }
    let mut text = String::new();
    for (at, (paths, first)) in groups.iter().enumerate() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let card = if first.card.is_empty() { String::new() } else { format!(" ({})", first.card) };
        // a String takes everything
        let _ = write!(text, "{}{}{card}: {}", if at > 0 { "; " } else { "" }, paths.join(", "), first.error.reason);
    }
    text
}
