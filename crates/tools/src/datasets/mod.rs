//! Annotated pictures for `train` and `evaluate`: one file per format behind one trait.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge_core::data::{Exif, Task};
//! use eomt_edge_tools::datasets::{CocoInstances, Crowds, Dataset};
//! let format = CocoInstances { json: "instances.json".into(), crowds: Crowds::Apart };
//! let dataset = Dataset::open(&format, Some("images".as_ref()), None, (64 << 20, Exif::Apply))?;
//! let objects = dataset.labels(0, Task::Instance)?;
//! # Ok(())
//! # }
//! ```
//!
//! | format | type | exported by |
//! |---|---|---|
//! | COCO panoptic | [`CocoPanoptic`] | COCO, cityscapesScripts, datumaro, `scenes` |
//! | COCO instances | [`CocoInstances`] | CVAT, Roboflow, Label Studio, LabelMe's converters, datumaro |
//! | class maps | [`ClassMaps`] | VOC, ADE20K, Cityscapes, mmsegmentation, labelme2voc, CVAT |
//! | YOLO segmentation | [`Yolo`] | Ultralytics, Roboflow, CVAT, Label Studio |
//! | anomaly masks | [`AnomalyMasks`] | SegmentMeIfYouCan, Fishyscapes, RoadAnomaly |
//!
//! A new format is a file that implements [`Format`] and [`GroundTruth`], and a line here and in the table of the command line.
//!
//! ```text
//! format (traits) ◀── coco_panoptic, coco_instances, yolo, class_maps, anomaly_masks ◀── dataset (checks) ◀── train, evaluate
//!                     below them: coco, objects, pairs, naming, find, maps, labels
//! ```
//!
//! Invariants: lists and names are read when a dataset opens, masks image by image; areas are counted from pixels; a warning names what is
//! left out, and a dataset with nothing left is an error. Refuses: to choose between two files, or to guess what a colour means.

mod anomaly_masks;
mod class_maps;
pub(crate) mod coco;
mod coco_instances;
mod coco_panoptic;
mod dataset;
mod find;
mod fingerprint;
mod format;
pub mod labels;
pub mod maps;
mod naming;
mod objects;
mod pairs;
mod yolo;

pub use anomaly_masks::AnomalyMasks;
pub use class_maps::ClassMaps;
pub use coco_instances::{CocoInstances, Crowds};
pub use coco_panoptic::CocoPanoptic;
pub use dataset::Dataset;
pub use find::pictures;
pub use format::{Format, GroundTruth, Image, NamedBy, Opening};
pub use naming::{ClassValues, names_of};
pub use yolo::Yolo;

pub(crate) use coco_panoptic::map as panoptic_map;
pub(crate) use objects::of_result as object_of_result;
