//! The JSON files of COCO: panoptic segments, instances, results.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_host::{bounds, files};
use hotcoco::Segmentation;
use serde::de::{IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

use super::labels::{Class, ClassMap, NO_CLASS, PanopticSegment};
use super::maps::{self, Colours};

/// An id: a number, or a text as in Cityscapes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id(pub String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

/// Takes what it expects and refuses all else where it begins: a list of millions takes no memory.
struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an id, which is a number or a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Id, E> {
        Ok(Id(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Id, E> {
        Ok(Id(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Id, E> {
        Ok(Id(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Id, E> {
        // 1.0 is 1: tables turn numbers into decimals
        let whole = number.fract() == 0.0 && number.abs() < 1e15;
        Ok(Id(if whole { format!("{number:.0}") } else { number.to_string() }))
    }
}

/// `true`, or 1 as COCO writes it.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    deserializer.deserialize_any(FlagVisitor)
}

/// As [`IdVisitor`].
struct FlagVisitor;

impl Visitor<'_> for FlagVisitor {
    type Value = Option<bool>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a flag, which is 0 or 1")
    }

    fn visit_unit<E>(self) -> Result<Option<bool>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Option<bool>, E> {
        Ok(Some(flag))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Option<bool>, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Option<bool>, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Option<bool>, E> {
        match number {
            0.0 => Ok(Some(false)),
            1.0 => Ok(Some(true)),
            _ => Err(E::invalid_value(serde::de::Unexpected::Float(number), &self)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_flags_are_what_tools_write() {
        let id = |text: &str| serde_json::from_str::<Id>(text).map(|id| id.0).map_err(|error| error.to_string());
        let big = u64::MAX.to_string();
        for (text, expected) in [("7", "7"), ("-7", "-7"), ("7.0", "7"), ("7.5", "7.5"), ("\"a b\"", "a b"), (&big, &big)] {
            assert_eq!(id(text).as_deref(), Ok(expected));
        }
        assert!(id("[1]").unwrap_err().contains("an id, which is a number or a text"));
        let flag = |text: &str| {
            let segment = format!("{{\"id\": 1, \"category_id\": 1, \"iscrowd\": {text}}}");
            serde_json::from_str::<SegmentJson>(&segment).map(|segment| segment.iscrowd).map_err(|error| error.to_string())
        };
        for (text, expected) in [("0", Some(false)), ("1", Some(true)), ("1.0", Some(true)), ("true", Some(true)), ("null", None)] {
            assert_eq!(flag(text), Ok(expected));
        }
        for text in ["2", "-1", "\"yes\"", "[]"] {
            assert!(flag(text).unwrap_err().contains("a flag, which is 0 or 1"));
        }
    }

    #[test]
    fn another_tools_file_is_recognized_without_being_held() {
        for (text, words) in [
            ("{\"annotations\": [{\"segments_info\": []}]}", "--panoptic-json"),
            ("{\"images\": [{}], \"annotations\": [{\"category_id\": 1, \"image_id\": 1}]}", "--instances"),
            ("{\"shapes\": [{}], \"imageData\": null}", "LabelMe"),
            ("[{\"data\": {}}]", "Label Studio"),
        ] {
            assert!(other_kind(text.as_bytes()).is_some_and(|kind| kind.contains(words)), "{text}");
        }
        for text in ["{}", "[]", "[1]", "1", "{", "{\"annotations\": {}}"] {
            assert_eq!(other_kind(text.as_bytes()), None, "{text}");
        }
        assert_eq!(size_of::<Keys>(), 4, "a list of them has the size of its file at most");
    }
}
