//! The truth: COCO panoptic, COCO instances, or a folder of class maps. Files are opened image by image.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use hotcoco::Segmentation;

use super::coco::{self, Id, ImageJson, InstanceJson};
use super::labels::{Class, ClassMap, Instance, Instances, Labels, NO_CLASS, PanopticMap, PanopticSegment};
use super::maps;
use crate::data::{Exif, Task};
use crate::tools::usage;

/// Where the truth lies.
#[derive(Debug, Clone)]
pub enum TruthFiles {
    Panoptic {
        json: PathBuf,
        directory: PathBuf,
    },
    Instances {
        json: PathBuf,
    },
    ClassMaps {
        directory: PathBuf,
        values: ClassValues,
    },
    /// Binary masks of what the model was not trained on ([`super::anomaly`]).
    Anomalies {
        directory: PathBuf,
    },
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

pub struct Image {
    pub id: String,
    /// For people and for names of predictions: the path below the images' directory.
    pub name: String,
    pub path: PathBuf,
    record: Record,
}

enum Record {
    Panoptic { png: PathBuf, segments: Vec<PanopticSegment> },
    Instances { size: (u32, u32), list: Vec<InstanceJson> },
    Classes { png: PathBuf },
    Anomalies { png: PathBuf },
}

pub struct Dataset {
    pub classes: Vec<Class>,
    /// Whether nobody says what the classes are and how many.
    pub unnamed: bool,
    pub images: Vec<Image>,
    values: ClassValues,
    max_pixels: u64,
    /// For those who read the pictures.
    pub exif: Exif,
    told_of_unlisted: AtomicBool,
}

/// Classes of a folder of class maps of which no model tells the number: those that do not occur count nowhere.
const UNNAMED_CLASSES: usize = 256;

impl Dataset {
    /// Reads the JSON or the directory. `labels` name the classes of class maps.
    pub fn open(truth: &TruthFiles, images: Option<&Path>, labels: Option<&[String]>, max_pixels: u64) -> Result<Dataset> {
        let root = images.unwrap_or(Path::new(""));
        let (classes, images, values) = match truth {
            TruthFiles::Panoptic { json, directory } => {
                let truth = coco::panoptic(json)?;
                let places = coco::places(&truth.classes);
                let mut annotations: HashMap<Id, _> = HashMap::new();
                for annotation in truth.annotations {
                    let id = annotation.image_id.clone();
                    if annotations.insert(id.clone(), coco::segments(json, annotation, &places)?).is_some() {
                        bail!("{}: image {} has two annotations", json.display(), id.0);
                    }
                }
                let image = |ImageJson { id, file_name, .. }: ImageJson| {
                    let (png, segments) = annotations.remove(&id)?; // images without annotation are no part of the truth
                    let record = Record::Panoptic { png: directory.join(png), segments };
                    Some(Image { path: root.join(&file_name), id: id.0, name: file_name, record })
                };
                let images: Vec<Image> = truth.images.into_iter().filter_map(image).collect();
                if let Some(id) = annotations.keys().next() {
                    bail!("{}: an annotation belongs to image {}, which is not among the images", json.display(), id.0);
                }
                (truth.classes, images, ClassValues::default())
            }
            TruthFiles::Instances { json } => {
                let truth = coco::instances(json)?;
                (truth.classes.clone(), instance_images(json, truth, root)?, ClassValues::default())
            }
            TruthFiles::ClassMaps { directory, values } => {
                let name = |class: usize| labels.map_or_else(|| format!("class {class}"), |labels| labels[class].clone());
                let count = values.listed.as_ref().map_or(labels.map_or(UNNAMED_CLASSES, <[String]>::len), Vec::len);
                if labels.is_some_and(|labels| labels.len() != count) {
                    let known = labels.map_or(0, <[String]>::len);
                    return usage(format!("--class-values lists {count} classes, and the model has {known}"));
                }
                let classes = (0..count).map(|class| Class { id: class as u64, name: name(class), is_thing: None }).collect();
                let record = |png| Record::Classes { png };
                (classes, paired_images(directory, root, record)?, values.clone())
            }
            TruthFiles::Anomalies { directory } => {
                (Vec::new(), paired_images(directory, root, |png| Record::Anomalies { png })?, ClassValues::default())
            }
        };
        if images.is_empty() {
            bail!("there is no image to evaluate on: the ground truth is empty");
        }
        let unnamed = labels.is_none() && matches!(truth, TruthFiles::ClassMaps { .. });
        Ok(Dataset { classes, unnamed, images, values, max_pixels, exif: Exif::Apply, told_of_unlisted: AtomicBool::new(false) })
    }

    /// The truth of an image in the form that `task` compares.
    pub fn labels(&self, index: usize, task: Task) -> Result<Labels> {
        let image = &self.images[index];
        match (&image.record, task) {
            (Record::Panoptic { png, segments }, task) => {
                let map = panoptic_map(png, segments.clone(), self.max_pixels)?;
                if let Some(id) = map.check(&png.display().to_string(), true)?
                    && !self.told_of_unlisted.swap(true, Ordering::Relaxed)
                {
                    let png = png.display();
                    log::warn!("{png}: segment {id} is in the PNG and not in the JSON: its pixels are no class's (said once)");
                }
                Ok(match task {
                    Task::Panoptic => Labels::Panoptic(map),
                    Task::Semantic => Labels::Semantic(map.class_map()),
                    Task::Instance => Labels::Instances(map.instances(&self.classes)),
                })
            }
            (Record::Instances { size: (width, height), list }, Task::Instance) => {
                let places = coco::places(&self.classes);
                let list = list.iter().map(|json| instance(json, (*width, *height), &places, &image.name)).collect::<Result<_>>()?;
                Ok(Labels::Instances(Instances { width: *width, height: *height, list }))
            }
            (Record::Classes { png }, Task::Semantic) => Ok(Labels::Semantic(self.class_map(png)?)),
            (Record::Instances { .. }, _) => usage("--instances is a truth for --task instance only"),
            (Record::Classes { .. }, _) => usage("--class-maps is a truth for --task semantic only"),
            (Record::Anomalies { .. }, _) => usage("--anomaly-dir knows no classes"),
        }
    }

    /// The segments of an image as training takes them: pixels of ids that the JSON does not name are nobody's, so that a list may be
    /// cut down to some classes without touching the PNGs.
    ///
    /// # Errors
    /// When the truth is not panoptic, or the PNG is missing or broken.
    #[cfg(feature = "train")]
    pub fn panoptic(&self, index: usize) -> Result<PanopticMap> {
        match &self.images[index].record {
            Record::Panoptic { png, segments } => panoptic_map(png, segments.clone(), self.max_pixels),
            _ => usage("a panoptic truth is needed (--panoptic-json and --panoptic-dir)"),
        }
    }

    /// The task that the truth is made for; a model's own is preferred where the truth allows all.
    pub fn natural_task(&self) -> Option<Task> {
        match self.images[0].record {
            Record::Panoptic { .. } => None,
            Record::Instances { .. } => Some(Task::Instance),
            Record::Classes { .. } | Record::Anomalies { .. } => Some(Task::Semantic),
        }
    }

    /// The values of an image's anomaly mask, and the file they stand in.
    pub fn anomalies(&self, index: usize) -> Result<(&Path, maps::Map<u16>)> {
        match &self.images[index].record {
            Record::Anomalies { png } => Ok((png, maps::values(png, self.max_pixels)?)),
            _ => usage("--anomaly-dir is the ground truth of anomalies"),
        }
    }

    /// A PNG of class values as the truth has them (folder of class maps), else of category ids.
    pub fn class_map(&self, path: &Path) -> Result<ClassMap> {
        let map = maps::values(path, self.max_pixels)?;
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

/// The map of a PNG with its segments; areas that are not given are counted.
pub fn panoptic_map(png: &Path, mut segments: Vec<PanopticSegment>, max_pixels: u64) -> Result<PanopticMap> {
    let map = maps::panoptic_ids(png, max_pixels)?;
    for segment in segments.iter_mut().filter(|segment| segment.area == u64::MAX) {
        segment.area = map.values.iter().filter(|id| **id == segment.id).count() as u64;
    }
    Ok(PanopticMap { width: map.width, height: map.height, ids: map.values, segments })
}

/// An object on an image of (width, height).
pub fn instance(json: &InstanceJson, (width, height): (u32, u32), places: &HashMap<u64, usize>, image: &str) -> Result<Instance> {
    let unknown = || format!("{image}: an object has the unknown category {}", json.category_id);
    let class = *places.get(&json.category_id).with_context(unknown)?;
    let segmentation: &Segmentation = json.segmentation.as_ref().with_context(|| format!("{image}: an object has no segmentation"))?;
    let mask = segmentation.to_rle(height, width).with_context(|| format!("{image}: an object's segmentation is broken"))?;
    if (mask.w, mask.h) != (width, height) {
        bail!("{image}: a mask of {}x{} pixels lies on an image of {width}x{height}", mask.w, mask.h);
    }
    let score = json.score.unwrap_or(1.0);
    if !score.is_finite() {
        bail!("{image}: an object's score is not a number");
    }
    let area = json.area.unwrap_or_else(|| hotcoco::mask::area(&mask) as f64);
    Ok(Instance { class, score, mask, area, crowd: json.iscrowd.unwrap_or(false) })
}

fn instance_images(json: &Path, truth: coco::Truth<InstanceJson>, root: &Path) -> Result<Vec<Image>> {
    let mut lists: HashMap<Id, Vec<InstanceJson>> = HashMap::new();
    for annotation in truth.annotations {
        lists.entry(annotation.image_id.clone()).or_default().push(annotation);
    }
    let mut images = Vec::with_capacity(truth.images.len());
    for ImageJson { id, file_name, width, height } in truth.images {
        let size = width.zip(height).with_context(|| format!("{}: image {} has no width and height", json.display(), id.0))?;
        let record = Record::Instances { size, list: lists.remove(&id).unwrap_or_default() };
        images.push(Image { path: root.join(&file_name), id: id.0, name: file_name, record });
    }
    if let Some(id) = lists.keys().next() {
        bail!("{}: an annotation belongs to image {}, which is not among the images", json.display(), id.0);
    }
    Ok(images)
}

/// Cityscapes calls picture and map of a scene by different endings.
const RENAMED: [(&str, &str); 2] = [("_leftImg8bit", "_gtFine_labelTrainIds"), ("_leftImg8bit", "_gtFine_labelIds")];

/// The pictures below `root` with their maps: `directory/a/b.png` is the map of `root/a/b.jpg`.
fn paired_images(directory: &Path, root: &Path, record: impl Fn(PathBuf) -> Record) -> Result<Vec<Image>> {
    let pictures_known = !root.as_os_str().is_empty();
    let mut found = Vec::new();
    let from = if pictures_known { root } else { directory };
    walk(from, &mut found)?;
    found.sort();
    let mut images = Vec::with_capacity(found.len());
    for path in found {
        let below = path.strip_prefix(from).unwrap_or(&path);
        let stem = below.with_extension("").to_string_lossy().into_owned();
        let renamed = RENAMED.iter().filter_map(|(picture, map)| Some(format!("{}{map}", stem.strip_suffix(picture)?)));
        let candidates = std::iter::once(stem.clone()).chain(renamed).map(|stem| directory.join(format!("{stem}.png")));
        let name = below.to_string_lossy().into_owned();
        let png = candidates.into_iter().find(|png| png.is_file());
        let png = png.with_context(|| format!("{name}: {} has no {stem}.png", directory.display()))?;
        images.push(Image { id: name.clone(), name, path, record: record(png) });
    }
    Ok(images)
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || format!("{}: the directory cannot be read", directory.display());
    for entry in std::fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let picture = path
            .extension()
            .and_then(|end| end.to_str())
            .is_some_and(|end| ["png", "jpg", "jpeg"].contains(&end.to_ascii_lowercase().as_str()));
        if path.is_dir() {
            walk(&path, found)?;
        } else if picture {
            found.push(path);
        }
    }
    Ok(())
}
