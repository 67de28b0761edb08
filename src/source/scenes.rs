//! Procedural scenes as a camera.

use std::time::Duration;

use eomt_edge_core::data::{Frame, GroundTruth};
use eomt_edge_core::pipeline::{Captured, Source, SourceError};
use eomt_edge_core::scenes::Scene;

use super::kind::{SourceKind, SourceSpec};
use super::options::SourceOptions;

/// `scenes:`, an entry of the table of sources.
pub const SCENES: SourceKind = SourceKind {
    scheme: "scenes",
    usage: &["scenes[:seed]"],
    summary: "moving procedural scenes with known ground truth",
    uses_view: false,
    uses_source_size: true,
    parse: |rest| match rest {
        None | Some("") => Ok(Box::new(Scenes { seed: 0 })),
        Some(seed) => match seed.parse() {
            Ok(seed) => Ok(Box::new(Scenes { seed })),
            Err(_) => Err(format!("the seed '{seed}' is not a number")),
        },
    },
};

#[derive(Debug)]
struct Scenes {
    seed: u64,
}

impl SourceSpec for Scenes {
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(ScenesSource::new(self.seed, options.size, options.interval(None))))
    }
}

/// One moving scene, seen at the source's rate; frames carry their ground truth.
pub struct ScenesSource {
    scene: Scene,
    seed: u64,
    size: (u32, u32),
    interval: Duration,
    sequence: u64,
}

/// Seconds of scene time between frames of a source that has no rate.
const FREE_RUNNING_STEP: f64 = 1.0 / 15.0;

impl ScenesSource {
    /// `size` = (width, height); an `interval` of zero gives frames as fast as they are wanted.
    pub fn new(seed: u64, size: (u32, u32), interval: Duration) -> ScenesSource {
        ScenesSource { scene: Scene::new(seed, size.0, size.1), seed, size, interval, sequence: 0 }
    }
}

impl Source for ScenesSource {
    fn describe(&self) -> String {
        format!("procedural scene {} of {}x{}", self.seed, self.size.0, self.size.1)
    }

    fn max_size(&self) -> (u32, u32) {
        self.size
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn next(&mut self, now_ns: u64, mut buffer: Vec<u8>) -> Result<Captured, SourceError> {
        let (width, height) = self.size;
        let pixels = width as usize * height as usize;
        buffer.resize(pixels * 3, 0);
        let step = if self.interval.is_zero() { FREE_RUNNING_STEP } else { self.interval.as_secs_f64() };
        let mut ids = vec![0; pixels];
        let classes = self.scene.render(self.sequence as f64 * step, &mut buffer, &mut ids);
        self.sequence += 1;
        Ok(Captured::Frame(Frame {
            sequence: self.sequence,
            captured_ns: now_ns,
            truth: Some(Box::new(GroundTruth { ids, classes })),
            ..Frame::rgb(width, height, buffer)
        }))
    }
}
