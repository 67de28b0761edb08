//! What annotators say of pictures, for `train` and `evaluate` alike: one reader per format behind one type.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge::tools::truth::{Crowds, TruthFiles};
//! let truth = TruthFiles::Instances { json: "instances.json".into(), crowds: Crowds::Apart };
//! # Ok(())
//! # }
//! ```
//!
//! | format | reader | exported by |
//! |---|---|---|
//! | COCO panoptic | [`coco_panoptic`] | COCO, cityscapesScripts, datumaro, `scenes` |
//! | COCO instances | [`coco_instances`] | CVAT, Roboflow, Label Studio, LabelMe's converters, datumaro |
//! | class maps | [`class_maps`] | VOC, ADE20K, Cityscapes, mmsegmentation, labelme2voc, CVAT |
//! | YOLO segmentation | [`yolo`] | Ultralytics, Roboflow, CVAT, Label Studio |
//!
//! Invariants: lists and names are read when the set is opened, masks image by image; pixels decide what areas are; what is left out
//! is said by name, and a set that is left with nothing is an error. Refuses: to guess between two files, or what a colour means.

mod class_maps;
pub mod coco;
mod coco_instances;
mod coco_panoptic;
mod dataset;
mod find;
pub mod labels;
pub mod maps;
mod yolo;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Exif, Task};
use eomt_edge_host::output::usage;

pub use class_maps::names_of;
pub use coco_instances::result as object_of_result;
pub use coco_panoptic::map as panoptic_map;

use class_maps::Naming;
use coco_instances::Object;
use labels::PanopticMap;
use labels::{Class, ClassMap, Labels, NO_CLASS, PanopticSegment};

/// Where the truth lies.
#[derive(Debug, Clone)]
pub enum TruthFiles {
    Panoptic {
        json: PathBuf,
        directory: PathBuf,
    },
    Instances {
        json: PathBuf,
        crowds: Crowds,
    },
    ClassMaps {
        directory: PathBuf,
        values: ClassValues,
        /// In the order of the classes; `None`: what lies beside the maps says it, else the model.
        names: Option<Vec<String>>,
        /// How the names of pictures and of their maps end.
        suffixes: Option<[String; 2]>,
    },
    /// `data.yaml`, and which of its sets.
    Yolo {
        yaml: PathBuf,
        split: String,
    },
    /// Binary masks of what the model was not trained on ([`crate::evaluate::anomaly`]).
    Anomalies {
        directory: PathBuf,
    },
}

/// What objects with `iscrowd` 1 are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crowds {
    /// Groups: nobody has to find them, and what lies on them is neither right nor wrong.
    #[default]
    Apart,
    /// Objects like others.
    Objects,
}

/// What the values of a class map mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassValues {
    /// Pixels of these values do not count.
    pub ignore: Vec<u16>,
    /// Class 0 has this value, class 1 the next.
    pub offset: u16,
    /// The value of each class, in their order, instead of `offset`; pixels of other values do not count.
    pub listed: Option<Vec<u16>>,
}

impl ClassValues {
    /// The class of a value, [`NO_CLASS`] when it does not count, `None` when it is none.
    fn class(&self, value: u16, classes: usize) -> Option<u16> {
        if self.ignore.contains(&value) {
            return Some(NO_CLASS);
        }
        if let Some(listed) = &self.listed {
            return Some(listed.iter().position(|known| *known == value).map_or(NO_CLASS, |class| class as u16));
        }
        value.checked_sub(self.offset).filter(|class| usize::from(*class) < classes)
    }
}

/// What is said once for a whole set.
#[derive(Default)]
pub struct Once(Mutex<Vec<&'static str>>);

impl Once {
    /// Whether `what` has not been said.
    pub fn first(&self, what: &'static str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = !said.contains(&what);
        if first {
            said.push(what);
        }
        first
    }
}

pub struct Image {
    pub id: String,
    /// For people and for names of predictions: the path below the images' directory.
    pub name: String,
    pub path: PathBuf,
    record: Record,
}

impl Image {
    /// The PNG that holds the truth, where one does.
    fn map(&self) -> Option<&Path> {
        match &self.record {
            Record::Panoptic { png, .. } | Record::Classes { png } | Record::Anomalies { png } => Some(png),
            Record::Objects { .. } => None,
        }
    }
}

enum Record {
    Panoptic { png: PathBuf, segments: Vec<PanopticSegment> },
    Objects { size: (u32, u32), list: Vec<Object> },
    Classes { png: PathBuf },
    Anomalies { png: PathBuf },
}

/// Who says what the classes of a set are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The truth's own files, or the user.
    Truth,
    /// Cityscapes' names, taken from how the files are called.
    Convention,
    /// The model: its labels are the classes, in their order.
    Model,
    /// Nobody, nor how many there are.
    Nobody,
}

pub struct Dataset {
    pub classes: Vec<Class>,
    pub named_by: NamedBy,
    pub images: Vec<Image>,
    /// The file or folder that the user named, for sentences.
    source: PathBuf,
    values: ClassValues,
    colours: maps::Colours,
    max_pixels: u64,
    /// For those who read the pictures.
    pub exif: Exif,
    once: Once,
}

/// Classes of a folder of class maps of which no model tells the number: those that do not occur count nowhere.
const UNNAMED_CLASSES: usize = 256;

impl Dataset {
    /// Reads the list or the directory. `labels` name the classes of class maps where nothing else does.
    ///
    /// # Errors
    /// A sentence that names the file, when it is missing, of another kind, or says nothing of any picture.
    pub fn open(truth: &TruthFiles, images: Option<&Path>, labels: Option<&[String]>, (max_pixels, exif): (u64, Exif)) -> Result<Dataset> {
        let root = images.unwrap_or(Path::new(""));
        let mut set = Dataset {
            classes: Vec::new(),
            named_by: NamedBy::Truth,
            images: Vec::new(),
            source: PathBuf::new(),
            values: ClassValues::default(),
            colours: maps::Colours::new(),
            max_pixels,
            exif,
            once: Once::default(),
        };
        match truth {
            TruthFiles::Panoptic { json, directory } => {
                set.source.clone_from(json);
                (set.classes, set.images) = coco_panoptic::open(json, directory, root)?;
            }
            TruthFiles::Instances { json, crowds } => {
                set.source.clone_from(json);
                (set.classes, set.images) = coco_instances::open(json, *crowds, root, exif)?;
            }
            TruthFiles::Yolo { yaml, split } => {
                set.source.clone_from(yaml);
                (set.classes, set.images) = yolo::open(yaml, split, exif)?;
            }
            TruthFiles::ClassMaps { directory, values, names, suffixes } => {
                set.source.clone_from(directory);
                set.images = class_maps::paired(directory, root, suffixes.as_ref(), |png| Record::Classes { png })?;
                set.name_classes(directory, values, names.as_deref(), labels)?;
            }
            TruthFiles::Anomalies { directory } => {
                set.source.clone_from(directory);
                set.images = class_maps::paired(directory, root, None, |png| Record::Anomalies { png })?;
            }
        }
        if set.images.is_empty() {
            bail!("{}: there is no image to work on: the ground truth is empty", set.source.display());
        }
        let mut seen = std::collections::HashMap::new();
        let files = set
            .images
            .iter()
            .flat_map(|image| [Some(image.path.as_path()), image.map()].into_iter().flatten().map(move |file| (image, file)));
        for (image, file) in files {
            if let Some(other) = seen.insert(file, image.id.as_str()).filter(|other| *other != image.id) {
                bail!("{}: images {other} and {} are both {}", set.source.display(), image.id, file.display());
            }
        }
        Ok(set)
    }

    /// The classes of a folder of class maps.
    fn name_classes(&mut self, directory: &Path, values: &ClassValues, names: Option<&[String]>, labels: Option<&[String]>) -> Result<()> {
        self.values = values.clone();
        let mut known = names.map(<[String]>::to_vec);
        let beside = class_maps::naming(directory, &self.images, values)?;
        // names that the user gives are of another dataset than Cityscapes, whatever the files are called
        if let Some(Naming { names, values, colours, assumed }) = beside.filter(|beside| !beside.assumed || known.is_none()) {
            // names of another dataset, whatever the files are called, when the model has none of them and as many
            let plain = |name: &String| name.trim().to_lowercase();
            let foreign = |labels: &[String]| !labels.iter().any(|label| names.iter().any(|name| plain(name) == plain(label)));
            let believed = !assumed || labels.is_none_or(|labels| labels.len() != names.len() || !foreign(labels));
            if known.is_none() && believed {
                self.named_by = if assumed { NamedBy::Convention } else { NamedBy::Truth };
                known = Some(names);
            }
            (self.values, self.colours) = (values, colours);
        }
        if known.is_none() {
            self.named_by = if labels.is_some() { NamedBy::Model } else { NamedBy::Nobody };
            known = labels.map(<[String]>::to_vec);
        }
        if self.colours.is_empty() {
            self.colours = names.map(class_maps::colours_of).unwrap_or_default();
        }
        let listed = self.values.listed.as_ref().map(Vec::len);
        let count = listed.unwrap_or(known.as_ref().map_or(UNNAMED_CLASSES, Vec::len));
        if let Some(known) = known.as_ref().filter(|known| known.len() != count) {
            let who = if self.named_by == NamedBy::Model { "the model has" } else { "there are names of" };
            return usage(format!("--class-values lists {count} classes, and {who} {}", known.len()));
        }
        let name = |class: usize| known.as_ref().map_or_else(|| format!("class {class}"), |known| known[class].clone());
        self.classes = (0..count).map(|class| Class { id: class as u64, name: name(class), is_thing: None }).collect();
        Ok(())
    }

    /// The truth of an image in the form that `task` compares.
    pub fn labels(&self, index: usize, task: Task) -> Result<Labels> {
        let image = &self.images[index];
        match (&image.record, task) {
            (Record::Panoptic { png, segments }, task) => {
                let map = coco_panoptic::truth_map(png, segments, &self.once, self.max_pixels)?;
                Ok(match task {
                    Task::Panoptic => Labels::Panoptic(map),
                    Task::Semantic => Labels::Semantic(map.class_map()),
                    Task::Instance => Labels::Instances(map.instances(&self.classes)),
                })
            }
            (Record::Objects { size, list }, Task::Instance) => {
                coco_instances::instances(&image.name, *size, list, &self.once).map(Labels::Instances)
            }
            (Record::Classes { png }, Task::Semantic) => Ok(Labels::Semantic(self.class_map(png)?)),
            (Record::Objects { .. }, _) => usage("--instances and --yolo are a truth for --task instance only"),
            (Record::Classes { .. }, _) => usage("--class-maps is a truth for --task semantic only"),
            (Record::Anomalies { .. }, _) => usage("--anomaly-dir knows no classes"),
        }
    }

    /// The segments of an image as training takes them, one per pixel: pixels of ids that the JSON does not name are nobody's, so that a
    /// list may be cut down to some classes without touching the PNGs. Overlapping objects are painted the largest first; of a class map
    /// every class is one segment.
    ///
    /// # Errors
    /// When the file of its masks is missing or broken, or a mask is not of the picture's size.
    pub fn segments(&self, index: usize) -> Result<PanopticMap> {
        let image = &self.images[index];
        match &image.record {
            Record::Panoptic { png, segments } => coco_panoptic::truth_map(png, segments, &self.once, self.max_pixels),
            Record::Objects { size, list } => {
                let instances = coco_instances::instances(&image.name, *size, list, &self.once)?;
                Ok(coco_instances::painted(&image.name, &instances, &self.once))
            }
            Record::Classes { png } => {
                let map = self.class_map(png)?;
                let mut areas = vec![0; self.classes.len()];
                map.classes.iter().filter(|class| **class != NO_CLASS).for_each(|class| areas[usize::from(*class)] += 1);
                let id = |class: usize| class as u32 + 1;
                let segment =
                    |(class, area): (usize, &u64)| PanopticSegment { id: id(class), class, area: *area, crowd: false, score: None };
                let segments = areas.iter().enumerate().filter(|(_, area)| **area > 0).map(segment).collect();
                let ids = map.classes.iter().map(|class| if *class == NO_CLASS { 0 } else { id(usize::from(*class)) }).collect();
                Ok(PanopticMap { width: map.width, height: map.height, ids, segments })
            }
            Record::Anomalies { .. } => usage("--anomaly-dir knows no classes"),
        }
    }

    /// The task that the truth is made for; a model's own is preferred where the truth allows all.
    pub fn natural_task(&self) -> Option<Task> {
        match self.images[0].record {
            Record::Panoptic { .. } => None,
            Record::Objects { .. } => Some(Task::Instance),
            Record::Classes { .. } | Record::Anomalies { .. } => Some(Task::Semantic),
        }
    }

    /// The values of an image's anomaly mask, and the file they stand in.
    pub fn anomalies(&self, index: usize) -> Result<(&Path, maps::Map<u16>)> {
        match &self.images[index].record {
            Record::Anomalies { png } => Ok((png, maps::values(png, &self.colours, self.max_pixels)?)),
            _ => usage("--anomaly-dir is the ground truth of anomalies"),
        }
    }

    /// A PNG of class values as the truth has them (folder of class maps), else of category ids.
    pub fn class_map(&self, path: &Path) -> Result<ClassMap> {
        let map = maps::values(path, &self.colours, self.max_pixels)?;
        let places = coco::places(&self.classes);
        let is_folder = matches!(self.images[0].record, Record::Classes { .. });
        let mut classes = Vec::with_capacity(map.values.len());
        for run in map.values.chunk_by(|a, b| a == b) {
            let value = run[0];
            let class = if is_folder {
                self.values.class(value, self.classes.len())
            } else {
                places.get(&u64::from(value)).map(|place| *place as u16).or((value == u16::MAX || value == 255).then_some(NO_CLASS))
            };
            let count = self.classes.len();
            let unknown = || format!("{}: the value {value} is none of the {count} classes and is not ignored", path.display());
            classes.extend(std::iter::repeat_n(class.with_context(unknown)?, run.len()));
        }
        Ok(ClassMap { width: map.width, height: map.height, classes })
    }
}
