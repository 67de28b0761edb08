//! Objects whose masks may overlap: what COCO instances and YOLO share.
//!
//! Masks are drawn as pycocotools draws them. In a map of one segment per pixel (training), larger objects lie below smaller ones, and of
//! equal ones the later on top.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::Task;
use eomt_edge_host::output::usage;
use hotcoco::Segmentation;

use super::coco::{self, InstanceJson};
use super::format::{GroundTruth, Image, Once};
use super::labels::{Class, ClassMap, Instance, Instances, Labels, PanopticMap, PanopticSegment};

/// An annotated object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// Place of its class.
    pub class: usize,
    /// Polygons or run lengths.
    pub shape: Segmentation,
    /// Pixels, as the file has it.
    pub area: Option<f64>,
    /// A group of objects (`iscrowd`), which no prediction has to find.
    pub crowd: bool,
}

/// The objects of a dataset's images.
#[derive(Default)]
pub(super) struct ObjectLists {
    lists: Vec<((u32, u32), Vec<Object>)>,
    warned: Once,
}

impl ObjectLists {
    /// Adds the objects of the next image, of `size` = (width, height).
    pub fn push(&mut self, size: (u32, u32), objects: Vec<Object>) {
        self.lists.push((size, objects));
    }

    /// Width and height of an image, and its objects.
    pub fn get(&self, image: usize) -> &((u32, u32), Vec<Object>) {
        &self.lists[image]
    }

    /// Whether an image shows an object to find.
    pub fn has_masks(&self, image: usize) -> bool {
        self.lists[image].1.iter().any(|object| !object.crowd)
    }

    /// See [`super::GroundTruth::labels`].
    pub fn labels(&self, image: usize, name: &str, task: Task) -> Result<Labels> {
        match task {
            Task::Instance => self.instances(image, name).map(Labels::Instances),
            _ => usage("--instances and --yolo are ground truth for --task instance only"),
        }
    }

    /// See [`super::GroundTruth::segments`].
    pub fn segments(&self, image: usize, name: &str) -> Result<PanopticMap> {
        Ok(painted(name, &self.instances(image, name)?, &self.warned))
    }

    fn instances(&self, image: usize, name: &str) -> Result<Instances> {
        let (size, objects) = &self.lists[image];
        instances(name, *size, objects, &self.warned)
    }
}

/// An opened dataset of objects.
pub(super) struct ObjectGroundTruth {
    /// The file or folder that messages name.
    pub source: PathBuf,
    pub classes: Vec<Class>,
    pub images: Vec<Image>,
    /// One list per image, in the same order.
    pub objects: ObjectLists,
    pub max_pixels: u64,
    /// See [`GroundTruth::fingerprint`].
    pub fingerprint: Fingerprint,
}

/// Computes the fingerprint of an opened dataset.
type Fingerprint = Box<dyn Fn(&ObjectGroundTruth) -> Result<Vec<u8>> + Send + Sync>;

impl GroundTruth for ObjectGroundTruth {
    fn source(&self) -> &Path {
        &self.source
    }

    fn images(&self) -> &[Image] {
        &self.images
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn natural_task(&self) -> Option<Task> {
        Some(Task::Instance)
    }

    fn size(&self, image: usize) -> Result<(u32, u32)> {
        Ok(self.objects.get(image).0)
    }

    fn labels(&self, image: usize, task: Task) -> Result<Labels> {
        self.objects.labels(image, &self.images[image].name, task)
    }

    fn segments(&self, image: usize) -> Result<PanopticMap> {
        self.objects.segments(image, &self.images[image].name)
    }

    fn has_masks(&self, image: usize) -> bool {
        self.objects.has_masks(image)
    }

    fn is_empty(&self, image: usize) -> bool {
        self.objects.get(image).1.is_empty()
    }

    fn fingerprint(&self) -> Result<Vec<u8>> {
        (self.fingerprint)(self)
    }

    fn predicted_classes(&self, png: &Path) -> Result<ClassMap> {
        coco::class_map(png, &self.classes, self.max_pixels)
    }
}

/// A predicted object from a list of COCO results, on an image of `size` = (width, height).
///
/// # Errors
/// When its category is unknown, it has no mask or score, or its mask does not fit the image.
pub fn of_result(json: &InstanceJson, size: (u32, u32), places: &HashMap<u64, usize>, image: &str) -> Result<Instance> {
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

/// The objects of an image of `size` = (width, height). Areas are counted; warns once when the area in the file belongs to another of
/// COCO's ranges (small, medium, large).
///
/// # Errors
/// When a mask is broken or of another size.
fn instances(image: &str, size: (u32, u32), list: &[Object], warned: &Once) -> Result<Instances> {
    let rank = |area: f64| (area > 32.0 * 32.0) as u8 + (area > 96.0 * 96.0) as u8;
    let mut found = Vec::with_capacity(list.len());
    for object in list {
        let mask = mask(&object.shape, size, image)?;
        let area = hotcoco::mask::area(&mask) as f64;
        if area == 0.0 && warned.first("empty") {
            log::warn!("{image}: an object's mask has no pixel on the picture, so no prediction can match it (warned once)");
        }
        if let Some(listed) = object.area.filter(|listed| rank(*listed) != rank(area))
            && warned.first("area")
        {
            log::warn!("{image}: an object has {area} pixels, and its area in the file is {listed}: pixels are counted (warned once)");
        }
        found.push(Instance { class: object.class, score: 1.0, mask, area, crowd: object.crowd });
    }
    Ok(Instances { width: size.0, height: size.1, list: found })
}

/// One segment per pixel: paints the largest object first, and of equal ones the first. Leaves crowds out. Warns once about hidden objects.
fn painted(image: &str, instances: &Instances, warned: &Once) -> PanopticMap {
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
    if hidden > 0 && warned.first("hidden") {
        log::warn!("{image}: {hidden} objects lie wholly below smaller ones and are invisible (warned once)");
    }
    segments.retain(|segment| segment.area > 0);
    PanopticMap { width: instances.width, height: instances.height, ids, segments }
}
