//! The contract between a format of annotations and the commands that use it.
//!
//! [`Format`] says where a dataset lies and opens it; [`GroundTruth`] is an opened dataset. `train` and `evaluate` know these two traits
//! only (through [`super::Dataset`]). To add a format, write one file that implements both, and add its options to the table in the
//! program's `commands/dataset.rs`.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Result;
use eomt_edge_core::data::{Exif, Task};
use eomt_edge_host::output::usage;

use super::labels::{Class, ClassMap, Labels, PanopticMap};
use super::maps::Map;

/// What every format needs to open a dataset.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The directory of the pictures; empty when the user named none.
    pub images: &'a Path,
    /// Labels of the model, which name the classes where nothing else does.
    pub labels: Option<&'a [String]>,
    /// PNGs with more pixels are refused.
    pub max_pixels: u64,
    /// Whether the EXIF orientation of a picture counts for its size.
    pub exif: Exif,
}

/// Where a dataset of one format lies.
pub trait Format: Debug + Send + Sync {
    /// Reads lists and names, not the masks.
    ///
    /// # Errors
    /// A sentence that names the file, when it is missing, of another kind, or contradicts itself.
    fn open(&self, opening: &Opening) -> Result<Box<dyn GroundTruth>>;

    /// Whether the files say where the pictures lie, so that no directory of pictures is needed.
    fn locates_pictures(&self) -> bool {
        false
    }

    /// Whether predictions may come as the JSON file and the PNGs of COCO panoptic.
    fn takes_panoptic_predictions(&self) -> bool {
        false
    }

    /// Whether the masks mark anomalous (out-of-distribution) pixels instead of classes.
    fn marks_anomalies(&self) -> bool {
        false
    }
}

/// One picture of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// As the dataset's files and predictions name it.
    pub id: String,
    /// For messages and for names of predictions: the path below the directory of pictures.
    pub name: String,
    /// The picture's file.
    pub path: PathBuf,
}

/// Where the names of a dataset's classes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The dataset's own files, or the user.
    Dataset,
    /// Cityscapes, by the names of the files.
    Convention,
    /// The model: its labels are the classes, in their order.
    Model,
    /// Nowhere: neither the names nor the number of classes is known.
    Unknown,
}

/// An opened dataset. Images are known by their place in [`GroundTruth::images`].
pub trait GroundTruth: Send + Sync {
    /// The file or folder that the user named, for messages.
    fn source(&self) -> &Path;

    /// All images.
    fn images(&self) -> &[Image];

    /// All classes; empty for anomaly masks.
    fn classes(&self) -> &[Class];

    /// Where the names of the classes come from.
    fn named_by(&self) -> NamedBy {
        NamedBy::Dataset
    }

    /// The task that the format is for; `None` when it serves all.
    fn natural_task(&self) -> Option<Task>;

    /// The PNG of an image's masks, where it has one of its own.
    fn file(&self, _image: usize) -> Option<&Path> {
        None
    }

    /// Width and height of an image as its annotations have them, pixels.
    ///
    /// # Errors
    /// When the file with the masks cannot be read.
    fn size(&self, image: usize) -> Result<(u32, u32)>;

    /// The ground truth of an image in the form that `task` compares.
    ///
    /// # Errors
    /// When the masks are missing or broken, or the format does not serve the task.
    fn labels(&self, image: usize, task: Task) -> Result<Labels>;

    /// The segments of an image as training takes them, at most one per pixel.
    ///
    /// # Errors
    /// When the masks are missing, broken or of another size than the image, or the format has no segments.
    fn segments(&self, image: usize) -> Result<PanopticMap>;

    /// Whether an image has anything to learn from, by the dataset's lists.
    fn has_masks(&self, _image: usize) -> bool {
        true
    }

    /// Whether the list of an image's objects is empty, perhaps because it is not annotated yet.
    fn is_empty(&self, _image: usize) -> bool {
        false
    }

    /// Refuses a task for which the dataset shows nothing.
    ///
    /// # Errors
    /// A sentence that names the file and says what is missing.
    fn check_task(&self, _task: Task) -> Result<()> {
        Ok(())
    }

    /// Bytes that identify the contents: a run of training goes on only with the same.
    ///
    /// # Errors
    /// When a file cannot be read.
    fn fingerprint(&self) -> Result<Vec<u8>>;

    /// The classes of a predicted PNG, whose values mean what those of the dataset mean.
    ///
    /// # Errors
    /// When the PNG is missing or broken, or has a value that is no class.
    fn predicted_classes(&self, png: &Path) -> Result<ClassMap>;

    /// The anomaly mask of an image: its values as they are in the file.
    ///
    /// # Errors
    /// When the PNG is missing or broken, or the format marks no anomalies.
    fn anomaly_mask(&self, _image: usize) -> Result<Map<u16>> {
        usage("--anomaly-dir is the ground truth of anomalies")
    }
}

/// Remembers which warnings a dataset has already printed.
#[derive(Default)]
pub(super) struct Once(Mutex<Vec<&'static str>>);

impl Once {
    /// Whether this is the first call for `warning`.
    pub fn first(&self, warning: &'static str) -> bool {
        let mut printed = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = !printed.contains(&warning);
        if first {
            printed.push(warning);
        }
        first
    }
}
