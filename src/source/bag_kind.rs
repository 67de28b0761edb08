//! `bag:`, also in builds without bags, which name the reason.

use eomt_edge_core::pipeline::{Source, SourceError};

use super::kind::{SourceKind, SourceSpec};
use super::options::SourceOptions;
use super::replay::rate;

/// A recording.
pub const BAG: SourceKind = SourceKind {
    scheme: "bag",
    usage: &["bag:FILE[:TOPIC][@fps]"],
    summary: "the pictures of a ROS 2 bag, at the rate at which they were recorded (feature `bag`)",
    uses_view: true,
    uses_source_size: false,
    parse: |rest| match rest.filter(|rest| !rest.is_empty()) {
        Some(rest) => {
            let (name, fps) = rate(rest)?;
            Ok(Box::new(BagUri { name: name.to_owned(), fps }))
        }
        None => Err(String::new()),
    },
};

#[derive(Debug)]
struct BagUri {
    /// `FILE[:TOPIC]`.
    name: String,
    /// `None` = as it was recorded.
    fps: Option<f64>,
}

#[cfg(feature = "bag")]
impl SourceSpec for BagUri {
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        let name = eomt_edge_host::bags::BagName::parse(&self.name);
        let interval = self.fps.map(|fps| options.interval(Some(fps)));
        let options = super::bag::BagOptions { interval, end: options.end, max_pixels: options.max_pixels, view: options.camera.view };
        Ok(Box::new(super::bag::BagSource::open(name, options)?))
    }

    fn check(&self, options: &SourceOptions) -> Result<(), String> {
        let name = eomt_edge_host::bags::BagName::parse(&self.name);
        eomt_edge_host::bags::BagPictures::open(&name, options.max_pixels).map(|_| ()).map_err(|error| error.to_string())
    }
}

#[cfg(not(feature = "bag"))]
impl SourceSpec for BagUri {
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        let reason = self.check(options).err().unwrap_or_default();
        Err(SourceError::fatal(format!("bag:{}", self.name), reason))
    }

    fn check(&self, _: &SourceOptions) -> Result<(), String> {
        let fps = self.fps.map_or("its own rate".to_owned(), |fps| format!("{fps} frames a second"));
        Err(format!("this program was built without bags, so none is played at {fps}; make pictures of it for replay:"))
    }
}
