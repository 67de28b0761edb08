//! Binary masks of anomalous pixels: PNGs of 0 (normal), 1 (anomalous) and 255 (does not count), as SegmentMeIfYouCan, Fishyscapes and
//! RoadAnomaly publish them. A mask has the name of its picture, or an ending by which datasets call maps (see [`super::pairs`]).
//!
//! Refuses: everything that needs classes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use eomt_edge_core::data::Task;
use eomt_edge_host::output::usage;

use super::format::{Format, GroundTruth, Image, Opening};
use super::labels::{Class, ClassMap, Labels, PanopticMap};
use super::maps::{self, Colours, Map};
use super::pairs;

/// A folder of anomaly masks.
#[derive(Debug, Clone)]
pub struct AnomalyMasks {
    /// The folder, which may have folders inside.
    pub directory: PathBuf,
}

struct Opened {
    directory: PathBuf,
    images: Vec<Image>,
    masks: Vec<PathBuf>,
    max_pixels: u64,
}

impl Format for AnomalyMasks {
    fn open(&self, opening: &Opening) -> Result<Box<dyn GroundTruth>> {
        let (images, masks) = pairs::paired(&self.directory, opening.images, None)?;
        Ok(Box::new(Opened { directory: self.directory.clone(), images, masks, max_pixels: opening.max_pixels }))
    }

    fn marks_anomalies(&self) -> bool {
        true
    }
}

fn no_classes<T>() -> Result<T> {
    usage("--anomaly-dir knows no classes")
}

impl GroundTruth for Opened {
    fn source(&self) -> &Path {
        &self.directory
    }

    fn images(&self) -> &[Image] {
        &self.images
    }

    fn classes(&self) -> &[Class] {
        &[]
    }

    fn natural_task(&self) -> Option<Task> {
        Some(Task::Semantic)
    }

    fn file(&self, image: usize) -> Option<&Path> {
        Some(&self.masks[image])
    }

    fn size(&self, image: usize) -> Result<(u32, u32)> {
        maps::size(&self.masks[image])
    }

    fn labels(&self, _image: usize, _task: Task) -> Result<Labels> {
        no_classes()
    }

    fn segments(&self, _image: usize) -> Result<PanopticMap> {
        no_classes()
    }

    fn fingerprint(&self) -> Result<Vec<u8>> {
        no_classes()
    }

    fn predicted_classes(&self, _png: &Path) -> Result<ClassMap> {
        no_classes()
    }

    fn anomaly_mask(&self, image: usize) -> Result<Map<u16>> {
        maps::values(&self.masks[image], &Colours::new(), self.max_pixels)
    }
}
