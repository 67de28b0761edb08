//! Objects whose masks may overlap: COCO instances, as CVAT, Roboflow, Label Studio, LabelMe's converters and datumaro write them.
//!
//! Masks are drawn as pycocotools draws them. Ids of annotations are not looked at, so that 0 and repeated ones lose nothing.
//! Where a map of one segment per pixel is needed (training), larger objects lie below smaller ones, and of equal ones the later
//! on top. Annotations without a mask (boxes, keypoints) are left out by name; a list of nothing else is refused, and so is one of
//! crowds only, unless crowds are to be objects: CVAT and datumaro write `iscrowd` 1 for every brush mask.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::Exif;
use hotcoco::Segmentation;

use super::coco::{self, Id, ImageJson, InstanceJson};
use super::find::{self, Finder, some_of};
use super::labels::{Class, Instance, Instances};
use super::labels::{PanopticMap, PanopticSegment};
use super::{Crowds, Image, Once, Record};

/// An annotated object.
#[derive(Debug, Clone)]
pub struct Object {
    /// Place of its class.
    pub class: usize,
    pub shape: Segmentation,
    /// Pixels, as the file says.
    pub area: Option<f64>,
    pub crowd: bool,
}

/// Classes and images of `--instances`.
pub fn open(json: &Path, crowds: Crowds, root: &Path, exif: Exif) -> Result<(Vec<Class>, Vec<Image>)> {
    let truth = coco::instances(json)?;
    let file = json.display();
    if truth.annotations.is_empty() {
        bail!("{file}: there are no annotations");
    }
    let places = coco::places(&truth.classes);
    let names: HashMap<&Id, &str> = truth.images.iter().map(|image| (&image.id, image.file_name.as_str())).collect();
    let mut lists: HashMap<Id, Vec<Object>> = HashMap::new();
    let mut tally = Tally { all: truth.annotations.len(), ..Tally::default() };
    for annotation in truth.annotations {
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
    tally.judge(json, crowds)?;
    let finder = Finder::new(root);
    let mut images = Vec::with_capacity(truth.images.len());
    for ImageJson { id, file_name, width, height } in &truth.images {
        let (path, name) = finder.find(file_name).with_context(|| format!("{file}"))?;
        let size = match width.zip(*height) {
            Some(size) => size,
            None if path.is_file() => find::size(&path, exif)?.shown,
            None => bail!("{file}: image {} ({name}) has no width and height", id.0),
        };
        let record = Record::Objects { size, list: lists.remove(id).unwrap_or_default() };
        images.push(Image { path, id: id.0.clone(), name, record });
    }
    Ok((truth.classes, images))
}

/// What was met among annotations.
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
                    bail!("a polygon has {} numbers, and they are x and y in turn", odd.len());
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

    fn judge(&self, json: &Path, crowds: Crowds) -> Result<()> {
        let (file, masked) = (json.display(), self.all - self.unmasked);
        if masked == 0 && self.keypoints == self.all {
            bail!("{file}: its {} annotations are keypoints without a mask: export polygons or masks", self.all);
        }
        if masked == 0 {
            bail!("{file}: none of its {} annotations has a mask (their segmentation is empty: boxes): export polygons or masks", self.all);
        }
        let mark = "CVAT and datumaro mark brush masks so; --crowds objects takes them for objects";
        if crowds == Crowds::Apart && self.crowds == masked {
            bail!("{file}: all {masked} objects are crowds (iscrowd 1), which nobody has to find: {mark}");
        }
        if crowds == Crowds::Apart && 10 * self.crowds > masked {
            log::warn!("{file}: {} of {masked} objects are crowds (iscrowd 1), which nobody has to find: {mark}", self.crowds);
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

/// An object of a list of results, on an image of (width, height).
pub fn result(json: &InstanceJson, size: (u32, u32), places: &HashMap<u64, usize>, image: &str) -> Result<Instance> {
    let unknown = || format!("{image}: an object has the unknown category {}", json.category_id);
    let class = *places.get(&json.category_id).with_context(unknown)?;
    let shape = json.segmentation.as_ref().with_context(|| format!("{image}: an object has no segmentation"))?;
    let score = json.score.with_context(|| format!("{image}: a predicted object has no score"))?;
    if !score.is_finite() {
        bail!("{image}: an object's score is not a number");
    }
    let mask = mask(shape, size, image)?;
    let area = hotcoco::mask::area(&mask) as f64;
    Ok(Instance { class, score, mask, area, crowd: false })
}

/// The pixels of a shape.
fn mask(shape: &Segmentation, (width, height): (u32, u32), image: &str) -> Result<hotcoco::Rle> {
    let mask = shape.to_rle(height, width).with_context(|| format!("{image}: an object's segmentation is broken"))?;
    if (mask.w, mask.h) != (width, height) {
        bail!("{image}: a mask of {}x{} pixels lies on an image of {width}x{height}", mask.w, mask.h);
    }
    let covered: u64 = mask.counts.iter().map(|run| u64::from(*run)).sum();
    if covered != u64::from(width) * u64::from(height) {
        bail!("{image}: the runs of a mask are of {covered} pixels, and the image has {width}x{height}");
    }
    Ok(mask)
}

/// The objects of an image. Areas are counted; where the file's puts an object among others (small, medium, large), that is told once.
pub fn instances(image: &str, size: (u32, u32), list: &[Object], once: &Once) -> Result<Instances> {
    let rank = |area: f64| (area > 32.0 * 32.0) as u8 + (area > 96.0 * 96.0) as u8;
    let mut found = Vec::with_capacity(list.len());
    for object in list {
        let mask = mask(&object.shape, size, image)?;
        let area = hotcoco::mask::area(&mask) as f64;
        if area == 0.0 && once.first("empty") {
            log::warn!("{image}: an object's mask has no pixel on the picture, so that nothing can find it (said once)");
        }
        if let Some(listed) = object.area.filter(|listed| rank(*listed) != rank(area))
            && once.first("area")
        {
            log::warn!("{image}: an object has {area} pixels, and its area in the file is {listed}: pixels are counted (said once)");
        }
        found.push(Instance { class: object.class, score: 1.0, mask, area, crowd: object.crowd });
    }
    Ok(Instances { width: size.0, height: size.1, list: found })
}

/// One segment per pixel: the largest object is painted first, of equal ones the first. Crowds are nobody's.
pub fn painted(image: &str, instances: &Instances, once: &Once) -> PanopticMap {
    let mut order: Vec<&Instance> = instances.list.iter().filter(|instance| !instance.crowd).collect();
    order.sort_by(|a, b| b.area.total_cmp(&a.area));
    let mut ids = vec![0; instances.width as usize * instances.height as usize];
    let mut segments = Vec::with_capacity(order.len());
    for (id, instance) in (1..).zip(&order) {
        instance.each_pixel(|pixel| ids[pixel] = id);
        segments.push(PanopticSegment { id, class: instance.class, area: 0, crowd: false, score: None });
    }
    let mut areas = vec![0u64; order.len() + 1];
    ids.iter().for_each(|id| areas[*id as usize] += 1);
    segments.iter_mut().for_each(|segment| segment.area = areas[segment.id as usize]);
    let hidden = order.iter().zip(&segments).filter(|(instance, segment)| instance.area > 0.0 && segment.area == 0).count();
    if hidden > 0 && once.first("hidden") {
        log::warn!("{image}: {hidden} objects lie wholly below smaller ones and are not seen (said once)");
    }
    segments.retain(|segment| segment.area > 0);
    PanopticMap { width: instances.width, height: instances.height, ids, segments }
}
