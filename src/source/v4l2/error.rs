//! Why a camera cannot be used, in a sentence that says what to do.

use std::io;

use rustix::io::Errno;

use super::sys::Capability;

/// The advice for cameras that V4L2 alone does not serve.
const ANOTHER_WAY: &str = "take its pictures through exec: or pipe: (libcamera, GStreamer)";

/// What kind of reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Waiting will not help: it is no camera.
    Fatal,
    /// The bus has no bandwidth left for the format.
    Bandwidth,
    /// The pipeline in front of the node is not configured, or not for this format.
    Pipeline,
    /// It is a camera, but none of its formats is read here.
    Unreadable,
    /// Anything else, which may pass by itself.
    Other,
}

/// Why a camera cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CameraError {
    pub reason: String,
    pub kind: Kind,
}

impl CameraError {
    pub fn passing(reason: impl Into<String>) -> CameraError {
        CameraError { reason: reason.into(), kind: Kind::Other }
    }

    pub fn fatal(reason: impl Into<String>) -> CameraError {
        CameraError { reason: reason.into(), kind: Kind::Fatal }
    }

    pub fn unreadable(reason: impl Into<String>) -> CameraError {
        CameraError { reason: reason.into(), kind: Kind::Unreadable }
    }

    /// A camera that offers `codes`, none of which is read.
    pub fn no_format(codes: &[String]) -> CameraError {
        CameraError::unreadable(match codes {
            [] => "it offers no format at all".to_owned(),
            codes => format!("it offers no format that is read, only {}; {ANOTHER_WAY}", codes.join(", ")),
        })
    }

    /// What VIDIOC_STREAMON's error means (<https://docs.kernel.org/userspace-api/media/v4l/vidioc-streamon.html>) at a node that was
    /// to stream `what`: "640x480 YUYV".
    pub fn of_streamon(error: io::Error, capability: &Capability, what: &str) -> CameraError {
        // drivers of on-board cameras that are older than the flag have pipelines, too
        let on_board = capability.media_centric || capability.bus.starts_with("platform:");
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC) => CameraError {
                reason: format!(
                    "the USB bandwidth does not suffice for {what} (ENOSPC): ask for a smaller size or rate, or for mjpg, or use another port"
                ),
                kind: Kind::Bandwidth,
            },
            Some(errno @ (Errno::PIPE | Errno::NOLINK)) => CameraError::of_pipeline(errno, what),
            Some(errno @ Errno::INVAL) if on_board => CameraError::of_pipeline(errno, what),
            Some(Errno::NODEV | Errno::BUSY) => error.into(),
            _ => CameraError::passing(format!("it does not stream {what}: {error}")),
        }
    }

    fn of_pipeline(errno: Errno, what: &str) -> CameraError {
        let name = match errno {
            Errno::PIPE => "EPIPE",
            Errno::NOLINK => "ENOLINK",
            _ => "EINVAL",
        };
        let reason = format!("it does not stream {what} ({name}): configure its media pipeline (media-ctl), or {ANOTHER_WAY}");
        CameraError { reason, kind: Kind::Pipeline }
    }
}

impl From<io::Error> for CameraError {
    fn from(error: io::Error) -> CameraError {
        match Errno::from_io_error(&error) {
            // unplugged, and not plugged in again: one state
            Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => CameraError::passing("it is not there"),
            Some(Errno::NOLINK | Errno::NOLCK | Errno::RANGE) => CameraError::passing("there is no signal at its input"),
            Some(Errno::BUSY) => CameraError::passing("another program uses it"),
            Some(Errno::ACCESS | Errno::PERM) => CameraError::passing("this user may not open it (is the user in the group video?)"),
            Some(Errno::NOTTY | Errno::ISDIR) => CameraError::fatal("it is no V4L2 device"),
            None if error.kind() == io::ErrorKind::NotFound => CameraError::passing("it is not there"),
            _ => CameraError::passing(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::v4l2::sys::Api;

    #[test]
    fn a_driver_that_does_not_stream_is_told_with_what_to_do() {
        let node = |media_centric, bus: &str| Capability {
            driver: String::new(),
            card: String::new(),
            bus: bus.to_owned(),
            capture: Some(Api::Single),
            media_centric,
        };
        let (usb, board, old) = (node(false, "usb-0000:01:00.0-1"), node(true, "platform:1f00128000.csi"), node(false, "platform:unicam"));
        for (errno, camera, kind, words) in [
            (Errno::NOSPC, &usb, Kind::Bandwidth, "USB bandwidth"),
            (Errno::PIPE, &board, Kind::Pipeline, "EPIPE): configure its media pipeline (media-ctl)"),
            (Errno::PIPE, &usb, Kind::Pipeline, "configure its media pipeline"),
            (Errno::NOLINK, &board, Kind::Pipeline, "ENOLINK"),
            (Errno::INVAL, &board, Kind::Pipeline, "exec: or pipe:"),
            (Errno::INVAL, &old, Kind::Pipeline, "media pipeline"),
            (Errno::INVAL, &usb, Kind::Other, "it does not stream 640x480 YUYV: Invalid argument"),
            (Errno::NODEV, &usb, Kind::Other, "it is not there"),
            (Errno::IO, &board, Kind::Other, "640x480 YUYV"),
        ] {
            let error = CameraError::of_streamon(errno.into(), camera, "640x480 YUYV");
            assert!(error.kind == kind && error.reason.contains(words), "{errno:?}: {error:?}");
        }
    }
}
