//! Cameras for `doctor`; nothing is started or changed.

use std::path::Path;

use super::camera::Camera;
use super::choice::FormatCandidate;
use super::error::CameraError;
use super::identity::DeviceDirectory;
use super::layout::code_name;
use super::{controls, search};
use crate::source::FormatRequest;

/// A camera for `doctor`: its name, and its formats as lines, or why it cannot be asked. `None` when the node is no camera.
pub fn describe(path: &Path, request: &FormatRequest) -> Option<Result<(String, Vec<String>), String>> {
    let devices = DeviceDirectory::default();
    let ask = || -> Result<Option<(String, Vec<String>)>, CameraError> {
        let found = devices.open(path)?;
        if found.capability.capture.is_none() {
            return Ok(None);
        }
        let camera = Camera::ask(found, request)?;
        let (mut lines, mut unread) = (Vec::new(), Vec::new());
        for code in &camera.formats.codes {
            let of_code: Vec<&FormatCandidate> = camera.formats.usable.iter().filter(|candidate| candidate.fourcc == *code).collect();
            let size = |candidate: &&FormatCandidate| match candidate.fps {
                Some(fps) => format!("{}x{}@{fps:.0}", candidate.width, candidate.height),
                None => format!("{}x{}", candidate.width, candidate.height),
            };
            match of_code.as_slice() {
                [] => unread.push(code_name(*code)),
                candidates => lines.push(format!("{}: {}", code_name(*code), candidates.iter().map(size).collect::<Vec<_>>().join(" "))),
            }
        }
        if !unread.is_empty() {
            lines.push(format!("not read: {}", unread.join(", ")));
        }
        if camera.found.capability.media_centric {
            lines.push("media-controller-centric: it streams once its pipeline is configured (media-ctl)".to_owned());
        }
        let names: Vec<String> = camera.found.device.controls()?.iter().map(|control| controls::key(&control.name)).collect();
        lines.push(format!("controls: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        Ok(Some((camera.found.capability.card, lines)))
    };
    ask().map_err(|error| error.reason).transpose()
}

/// For `doctor`: whether a camera has what is asked of it, as far as can be known before it streams.
///
/// # Errors
/// Why not, as a sentence.
pub fn usable(path: &Path, request: &FormatRequest) -> Result<(), String> {
    let ask = || -> Result<(), CameraError> {
        let found = DeviceDirectory::default().open(path)?;
        if found.capability.capture.is_none() {
            return Err(CameraError::fatal("it captures no video"));
        }
        Camera::ask(found, request)?.choose(request).map(|_| ())
    };
    ask().map_err(|error| error.reason)
}

/// For `doctor`: what `v4l2:` would try first and why, then what it would pass over, as lines; nothing is started.
///
/// # Errors
/// When none would work: a sentence with all that were asked.
pub fn pick(request: &FormatRequest) -> Result<Vec<String>, String> {
    pick_among(&DeviceDirectory::default(), request)
}

pub(super) fn pick_among(devices: &DeviceDirectory, request: &FormatRequest) -> Result<Vec<String>, String> {
    let (cameras, others) = search::candidates(devices, request);
    let Some((camera, candidate)) = cameras.first().and_then(|camera| Some((camera, camera.choose(request).ok()?))) else {
        return Err(search::none_works(&others).reason);
    };
    let why = match (camera.found.capability.media_centric, candidate.format.is_grey()) {
        (true, _) => "no other one offers a format that is read; its media pipeline must be configured (media-ctl)",
        (false, true) => "no other one offers colour without a media pipeline to be configured",
        (false, false) => "the first one that offers a format that is read and needs no media pipeline to be configured",
    };
    let rate = candidate.fps.map_or_else(String::new, |fps| format!(" at {fps:.0} frames a second"));
    let what = format!("{}x{} {}{rate}", candidate.width, candidate.height, code_name(candidate.fourcc));
    let mut lines = vec![format!("v4l2: alone would take {}, {what}: {why}", camera.found.name())];
    if cameras.len() > 1 {
        let names: Vec<String> = cameras[1..].iter().map(|camera| camera.found.name()).collect();
        lines.push(format!("when that does not stream: {}", names.join(", ")));
    }
    if !others.is_empty() {
        lines.push(format!("passed over: {}", search::list(&others)));
    }
    Ok(lines)
}
