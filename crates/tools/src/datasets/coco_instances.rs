//! COCO instances, as CVAT, Roboflow, Label Studio, LabelMe's converters and datumaro write them.
//!
//! Ids of annotations are ignored, so that 0 and repeated ones lose nothing. Annotations without a mask (boxes, keypoints) are left out
//! with a warning; a list of nothing else is refused, and so is one of crowds only, unless crowds are objects: CVAT and datumaro write
//! `iscrowd` 1 for every brush mask.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_host::pictures::size as picture_size;
use eomt_edge_host::{bounds, files};
use hotcoco::Segmentation;

use super::coco::{self, Id, ImageJson, InstanceJson};
use super::find::{Finder, some_of};
use super::format::{Format, GroundTruth, Image, Opening};
use super::labels::Class;
use super::objects::{Object, ObjectGroundTruth, ObjectLists};

/// What objects with `iscrowd` 1 are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crowds {
    /// Groups: no prediction has to find them, and predictions on them are neither right nor wrong.
    #[default]
    Apart,
    /// Objects like others.
    Objects,
}

/// A COCO instances dataset.
#[derive(Debug, Clone)]
pub struct CocoInstances {
    /// The list of images, objects and categories.
    pub json: PathBuf,
    /// What objects with `iscrowd` 1 are.
    pub crowds: Crowds,
}

impl Format for CocoInstances {
    fn open(&self, opening: &Opening) -> Result<Box<dyn GroundTruth>> {
        let CocoInstances { json, crowds } = self;
        let file = json.display();
        let list = coco::instances(json)?;
        if list.annotations.is_empty() {
            bail!("{file}: there are no annotations");
        }
        let mut objects_of = objects_by_image(json, *crowds, &list.classes, &list.images, list.annotations)?;
        let finder = Finder::new(opening.images);
        let (mut images, mut objects) = (Vec::with_capacity(list.images.len()), ObjectLists::default());
        for ImageJson { id, file_name, width, height } in &list.images {
            let (path, name) = finder.find(file_name).with_context(|| format!("{file}"))?;
            let size = match width.zip(*height) {
                Some(size) => size,
                None if path.is_file() => picture_size(&path, opening.exif)?.shown,
                None => bail!("{file}: image {} ({name}) has no width and height", id.0),
            };
            let (across, down) = size;
            if across == 0 || down == 0 || u64::from(across) * u64::from(down) > opening.max_pixels {
                bail!("{file}: image {} ({name}) has {across}x{down} pixels: 1 to {} are allowed", id.0, opening.max_pixels);
            }
            objects.push(size, objects_of.remove(id).unwrap_or_default());
            images.push(Image { path, id: id.0.clone(), name });
        }
        let crowds = *crowds;
        Ok(Box::new(ObjectGroundTruth {
            source: json.clone(),
            classes: list.classes,
            images,
            objects,
            max_pixels: opening.max_pixels,
            fingerprint: Box::new(move |opened| {
                Ok([files::read(&opened.source, &bounds::ANNOTATIONS)?, format!("{crowds:?}").into_bytes()].concat())
            }),
        }))
    }
}

/// The objects of each image that has some.
fn objects_by_image(
    json: &Path,
    crowds: Crowds,
    classes: &[Class],
    images: &[ImageJson],
    annotations: Vec<InstanceJson>,
) -> Result<HashMap<Id, Vec<Object>>> {
    let file = json.display();
    let places = coco::places(classes);
    let names: HashMap<&Id, &str> = images.iter().map(|image| (&image.id, image.file_name.as_str())).collect();
    let mut lists: HashMap<Id, Vec<Object>> = HashMap::new();
    let mut tally = Tally { all: annotations.len(), ..Tally::default() };
    for annotation in annotations {
        let id = annotation.image_id.clone();
        let Some(name) = names.get(&id) else {
            bail!("{file}: an annotation belongs to image {}, which is not among the images", id.0);
        };
        if let Some(object) = tally.object(annotation, &places, crowds).with_context(|| format!("{file}: {name}"))? {
            lists.entry(id).or_default().push(object);
        } else if tally.without.last().is_none_or(|last| last != name) {
            tally.without.push((*name).to_owned());
        }
    }
    tally.check(json, crowds)?;
    Ok(lists)
}

/// Counts of annotations, for warnings and refusals.
#[derive(Default)]
struct Tally {
    all: usize,
    crowds: usize,
    keypoints: usize,
    unmasked: usize,
    small_polygons: usize,
    /// Pictures with annotations that have no mask.
    without: Vec<String>,
}

impl Tally {
    /// The object; `None` when it has no mask.
    fn object(&mut self, json: InstanceJson, places: &HashMap<u64, usize>, crowds: Crowds) -> Result<Option<Object>> {
        let class = *places.get(&json.category_id).with_context(|| format!("an object has the unknown category {}", json.category_id))?;
        let shape = match json.segmentation {
            Some(Segmentation::Polygon(mut polygons)) => {
                if let Some(odd) = polygons.iter().find(|polygon| polygon.len() % 2 == 1) {
                    bail!("a polygon has {} numbers, and x and y must alternate", odd.len());
                }
                let before = polygons.len();
                polygons.retain(|polygon| polygon.len() >= 6);
                self.small_polygons += before - polygons.len();
                Some(Segmentation::Polygon(polygons)).filter(|shape| shape.polygons().is_some_and(|polygons| !polygons.is_empty()))
            }
            other => other,
        };
        let Some(shape) = shape else {
            self.unmasked += 1;
            self.keypoints += usize::from(json.keypoints.is_some());
            return Ok(None);
        };
        let crowd = json.iscrowd.unwrap_or(false);
        self.crowds += usize::from(crowd);
        Ok(Some(Object { class, shape, area: json.area, crowd: crowd && crowds == Crowds::Apart }))
    }

    /// Refuses a list without a usable object; warns about those that are left out.
    fn check(&self, json: &Path, crowds: Crowds) -> Result<()> {
        let (file, masked) = (json.display(), self.all - self.unmasked);
        if masked == 0 && self.keypoints == self.all {
            bail!("{file}: its {} annotations are keypoints without a mask: export polygons or masks", self.all);
        }
        if masked == 0 {
            bail!("{file}: none of its {} annotations has a mask (their segmentation is empty: boxes): export polygons or masks", self.all);
        }
        let mark = "CVAT and datumaro mark brush masks that way; --crowds objects treats them as objects";
        if crowds == Crowds::Apart && self.crowds == masked {
            bail!("{file}: all {masked} objects are crowds (iscrowd 1), which no prediction has to find: {mark}");
        }
        if crowds == Crowds::Apart && 10 * self.crowds > masked {
            log::warn!("{file}: {} of {masked} objects are crowds (iscrowd 1), which no prediction has to find: {mark}", self.crowds);
        }
        if self.small_polygons > 0 {
            log::warn!("{file}: {} polygons have fewer than three corners and are left out", self.small_polygons);
        }
        if self.unmasked > 0 {
            let names = some_of(&self.without);
            log::warn!("{file}: {} annotations have no mask and are left out, in {names}", self.unmasked);
        }
        Ok(())
    }
}
