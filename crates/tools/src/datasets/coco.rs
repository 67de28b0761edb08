//! The JSON files of COCO: panoptic segments, instances, results.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_host::{bounds, files};
use hotcoco::Segmentation;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::labels::{Class, ClassMap, NO_CLASS, PanopticSegment};
use super::maps::{self, Colours};

/// An id: a number, or a text as in Cityscapes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id(pub String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Id(text)),
            // 1.0 is 1: tables turn numbers into decimals
            serde_json::Value::Number(number) => match number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15) {
                Some(whole) => Ok(Id(format!("{whole:.0}"))),
                None => Ok(Id(number.to_string())),
            },
            other => Err(serde::de::Error::custom(format!("an id is a number or a text, not {other}"))),
        }
    }
}

/// `true`, or 1 as COCO writes it.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::Bool(flag) => Ok(Some(flag)),
        serde_json::Value::Number(number) if number.as_f64() == Some(0.0) => Ok(Some(false)),
        serde_json::Value::Number(number) if number.as_f64() == Some(1.0) => Ok(Some(true)),
        other => Err(serde::de::Error::custom(format!("a flag is 0 or 1, not {other}"))),
    }
}

#[derive(Debug, Deserialize)]
pub struct ImageJson {
    pub id: Id,
    pub file_name: String,
    pub width: Option<u32>,
    pub height: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct CategoryJson {
    id: u64,
    name: String,
    supercategory: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    isthing: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SegmentJson {
    id: u32,
    category_id: u64,
    area: Option<f64>,
    #[serde(default, deserialize_with = "flag")]
    iscrowd: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct PanopticAnnotation {
    pub image_id: Id,
    pub file_name: String,
    pub segments_info: Vec<SegmentJson>,
}

#[derive(Debug, Deserialize)]
struct PanopticJson {
    #[serde(default)]
    images: Vec<ImageJson>,
    annotations: Vec<PanopticAnnotation>,
    #[serde(default)]
    categories: Vec<CategoryJson>,
}

/// An object of a ground truth, or of a list of results (which has a score).
#[derive(Debug, Deserialize)]
pub struct InstanceJson {
    pub image_id: Id,
    pub category_id: u64,
    pub segmentation: Option<Segmentation>,
    pub area: Option<f64>,
    #[serde(default, deserialize_with = "flag")]
    pub iscrowd: Option<bool>,
    pub score: Option<f64>,
    /// Only its presence counts: it explains an annotation without a mask.
    pub keypoints: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct InstancesJson {
    images: Vec<ImageJson>,
    #[serde(default)]
    annotations: Vec<InstanceJson>,
    categories: Vec<CategoryJson>,
}

/// Images, classes and annotations of a COCO file.
pub(super) struct Coco<A> {
    pub images: Vec<ImageJson>,
    pub classes: Vec<Class>,
    pub annotations: Vec<A>,
}

/// `--panoptic-json`.
pub(super) fn panoptic(path: &Path) -> Result<Coco<PanopticAnnotation>> {
    let PanopticJson { images, annotations, categories } = parse(path)?;
    Ok(Coco { classes: classes(path, categories)?, images: distinct(path, images)?, annotations })
}

/// `--instances`.
pub(super) fn instances(path: &Path) -> Result<Coco<InstanceJson>> {
    let InstancesJson { images, annotations, mut categories } = parse(path)?;
    drop_roots(path, &mut categories, &annotations);
    Ok(Coco { classes: classes(path, categories)?, images: distinct(path, images)?, annotations })
}

/// Removes categories that only name a group, or no object: Roboflow writes the project's name as category 0, the
/// supercategory of all others; converters of LabelMe write `_background_`.
fn drop_roots(path: &Path, categories: &mut Vec<CategoryJson>, annotations: &[InstanceJson]) {
    let used: HashSet<u64> = annotations.iter().map(|annotation| annotation.category_id).collect();
    let groups: HashSet<String> = categories.iter().filter_map(|category| category.supercategory.clone()).collect();
    let own = |category: &CategoryJson| category.supercategory.as_deref() == Some(&category.name);
    let is_root = |category: &CategoryJson| {
        let background = ["_background_", "__background__"].contains(&category.name.as_str());
        !used.contains(&category.id) && (background || (groups.contains(&category.name) && !own(category)))
    };
    for root in categories.iter().filter(|category| is_root(category)) {
        log::warn!("{}: category {} ({}) has no object and only names others: it is no class", path.display(), root.id, root.name);
    }
    if !categories.iter().all(is_root) {
        categories.retain(|category| !is_root(category));
    }
}

/// The annotations of a panoptic prediction.
pub fn panoptic_predictions(path: &Path) -> Result<Vec<PanopticAnnotation>> {
    Ok(parse::<PanopticJson>(path)?.annotations)
}

/// A list of results with masks and scores.
pub fn results(path: &Path) -> Result<Vec<InstanceJson>> {
    parse(path)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = files::read(path, &bounds::ANNOTATIONS)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(text).map_err(|error| match other_kind(text) {
        Some(kind) => anyhow::anyhow!("{}: this is {kind}", path.display()),
        None => anyhow::Error::new(error).context(format!("{}: this is not the JSON that is needed", path.display())),
    })
}

/// Of an annotation or task, which keys it has. A list of these takes no more memory than its file.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Keys {
    segments_info: Option<IgnoredAny>,
    category_id: Option<IgnoredAny>,
    image_id: Option<IgnoredAny>,
    data: Option<IgnoredAny>,
}

/// A file of any of these tools.
#[derive(Debug, Deserialize)]
struct AnyTool {
    #[serde(default)]
    annotations: Vec<Keys>,
    images: Option<Vec<IgnoredAny>>,
    shapes: Option<Vec<IgnoredAny>>,
}

/// What kind of JSON this is instead, and which option reads it.
fn other_kind(text: &[u8]) -> Option<&'static str> {
    if let Some(first) = serde_json::from_slice::<Vec<Keys>>(text).ok().and_then(|tasks| tasks.first().copied()) {
        return first.data.map(|_| "Label Studio's own JSON: export it as COCO, or brush masks as PNG");
    }
    let file: AnyTool = serde_json::from_slice(text).ok()?;
    let first = file.annotations.first();
    if first.is_some_and(|first| first.segments_info.is_some()) {
        return Some("a COCO panoptic file, which --panoptic-json reads, with the folder of its PNGs as --panoptic-dir");
    }
    if first.is_some_and(|first| first.category_id.is_some() && first.image_id.is_some()) && file.images.is_some() {
        return Some("not a COCO panoptic file: its annotations have no segments_info; --instances reads COCO instances");
    }
    file.shapes.map(|_| "one picture's LabelMe file: labelme2coco makes one COCO file of all of them")
}

fn classes(path: &Path, categories: Vec<CategoryJson>) -> Result<Vec<Class>> {
    if categories.is_empty() || categories.len() >= usize::from(u16::MAX) {
        bail!("{}: {} categories cannot be evaluated", path.display(), categories.len());
    }
    let mut seen = HashSet::new();
    if let Some(twice) = categories.iter().find(|category| !seen.insert(category.id)) {
        bail!("{}: category {} is listed twice", path.display(), twice.id);
    }
    Ok(categories.into_iter().map(|CategoryJson { id, name, isthing, .. }| Class { id, name, is_thing: isthing }).collect())
}

fn distinct(path: &Path, images: Vec<ImageJson>) -> Result<Vec<ImageJson>> {
    let (mut ids, mut names) = (HashSet::new(), HashMap::new());
    for image in &images {
        if !ids.insert(&image.id) {
            bail!("{}: image {} is listed twice", path.display(), image.id.0);
        }
        if let Some(other) = names.insert(&image.file_name, &image.id) {
            bail!("{}: images {} and {} have the same file_name {}", path.display(), other.0, image.id.0, image.file_name);
        }
    }
    Ok(images)
}

/// Places of classes by their category id.
pub fn places(classes: &[Class]) -> HashMap<u64, usize> {
    classes.iter().enumerate().map(|(place, class)| (class.id, place)).collect()
}

/// The PNG's name and the segments with classes for categories. An area that the file does not give is `u64::MAX`.
pub fn segments(path: &Path, annotation: PanopticAnnotation, places: &HashMap<u64, usize>) -> Result<(PathBuf, Vec<PanopticSegment>)> {
    let PanopticAnnotation { image_id, file_name, segments_info } = annotation;
    let segment = |SegmentJson { id, category_id, area, iscrowd }: SegmentJson| {
        let unknown = || format!("{}: image {}: segment {id} has the unknown category {category_id}", path.display(), image_id.0);
        let class = *places.get(&category_id).with_context(unknown)?;
        Ok(PanopticSegment { id, class, area: area.map_or(u64::MAX, |area| area as u64), crowd: iscrowd.unwrap_or(false), score: None })
    };
    Ok((PathBuf::from(file_name), segments_info.into_iter().map(segment).collect::<Result<_>>()?))
}

/// The classes of a PNG whose values are category ids. 255 and 65535 are no class.
pub(super) fn class_map(png: &Path, classes: &[Class], max_pixels: u64) -> Result<ClassMap> {
    let map = maps::values(png, &Colours::new(), max_pixels)?;
    let places = places(classes);
    let none = |value: u16| (value == u16::MAX || value == 255).then_some(NO_CLASS);
    ClassMap::of_values(png, &map, classes.len(), |value| places.get(&u64::from(value)).map(|place| *place as u16).or(none(value)))
}
