//! `v4l2:`, also in builds without cameras, which name the reason.

use std::path::PathBuf;

use eomt_edge_core::pipeline::{Source, SourceError};

use super::kind::{SourceKind, SourceSpec};
use super::options::SourceOptions;

/// A camera.
pub const V4L2: SourceKind = SourceKind {
    scheme: "v4l2",
    usage: &["v4l2:/dev/video0", "v4l2:"],
    summary: "a camera: the named one, or the one that works (feature `camera`)",
    uses_view: true,
    uses_source_size: false,
    parse: |rest| {
        let device = rest.ok_or_else(String::new)?;
        Ok(Box::new(V4l2 { device: (!device.is_empty() && device != "auto").then(|| device.into()) }))
    },
};

#[derive(Debug)]
struct V4l2 {
    /// `None` = the one that works.
    device: Option<PathBuf>,
}

#[cfg(feature = "camera")]
impl SourceSpec for V4l2 {
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        use super::v4l2::{CameraOptions, V4l2Source};
        let options = CameraOptions { request: options.camera.clone(), max_pixels: options.max_pixels };
        Ok(Box::new(V4l2Source::open(self.device.as_deref(), options)?))
    }

    fn check(&self, options: &SourceOptions) -> Result<(), String> {
        let request = &options.camera.format;
        match &self.device {
            Some(path) if !path.exists() => Err(format!("{} is not there; the service waits for it", path.display())),
            Some(path) => super::v4l2::usable(path, request).map_err(|reason| format!("{}: {reason}", path.display())),
            None => match super::v4l2::pick(request) {
                Ok(_) => Ok(()),
                Err(reason) => Err(format!("v4l2: {reason}; the service waits for a camera")),
            },
        }
    }
}

#[cfg(not(feature = "camera"))]
impl SourceSpec for V4l2 {
    fn open(&self, _: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        let subject = format!("v4l2:{}", self.device.clone().unwrap_or_default().display());
        Err(SourceError::fatal(subject, "this program was built without cameras; feed frames through pipe:- (rpicam-vid, ffmpeg)"))
    }

    fn check(&self, _: &SourceOptions) -> Result<(), String> {
        match &self.device {
            Some(path) if !path.exists() => Err(format!("{} is not there; the service waits for it", path.display())),
            _ => Err("this program was built without cameras".to_owned()),
        }
    }
}
