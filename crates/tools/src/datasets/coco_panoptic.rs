//! COCO panoptic, as COCO, cityscapesScripts, datumaro and this program write it.
//!
//! Areas are counted from the PNG's pixels; those in the JSON are only compared. datumaro 1.13 writes `isthing` 0 for every category. A
//! set of stuff looks the same, so pictures that show two segments of one class tell the two apart.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::Task;
use eomt_edge_host::{bounds, files};

use super::coco::{self, Id, ImageJson};
use super::find::{Finder, some_of};
use super::format::{Format, GroundTruth, Image, Once, Opening};
use super::labels::{Class, ClassMap, Labels, PanopticMap, PanopticSegment};
use super::maps;

/// A COCO panoptic dataset.
#[derive(Debug, Clone)]
pub struct CocoPanoptic {
    /// The list of images, segments and categories.
    pub json: PathBuf,
    /// The folder of the PNGs.
    pub directory: PathBuf,
}

/// The PNG of an image and its segments as the JSON lists them.
struct Masks {
    png: PathBuf,
    segments: Vec<PanopticSegment>,
}

struct Opened {
    json: PathBuf,
    classes: Vec<Class>,
    images: Vec<Image>,
    masks: Vec<Masks>,
    max_pixels: u64,
    warned: Once,
}

impl Format for CocoPanoptic {
    fn open(&self, opening: &Opening) -> Result<Box<dyn GroundTruth>> {
        let json = &self.json;
        let list = coco::panoptic(json)?;
        let (pictures, pngs) = (Finder::new(opening.images), Finder::new(&self.directory));
        let places = coco::places(&list.classes);
        let mut annotations: HashMap<Id, Masks> = HashMap::new();
        for annotation in list.annotations {
            let id = annotation.image_id.clone();
            let (png, segments) = coco::segments(json, annotation, &places)?;
            let (png, _) = pngs.find(&png.to_string_lossy()).with_context(|| format!("{}", json.display()))?;
            if annotations.insert(id.clone(), Masks { png, segments }).is_some() {
                bail!("{}: image {} has two annotations", json.display(), id.0);
            }
        }
        let (mut images, mut masks, mut without) = (Vec::new(), Vec::new(), Vec::new());
        for ImageJson { id, file_name, .. } in list.images {
            let Some(found) = annotations.remove(&id) else {
                without.push(file_name);
                continue;
            };
            let (path, name) = pictures.find(&file_name).with_context(|| format!("{}", json.display()))?;
            images.push(Image { path, id: id.0, name });
            masks.push(found);
        }
        if let Some(id) = annotations.keys().next() {
            bail!("{}: an annotation belongs to image {}, which is not among the images", json.display(), id.0);
        }
        if !without.is_empty() && !images.is_empty() {
            log::warn!("{}: pictures without an annotation are skipped: {}", json.display(), some_of(&without));
        }
        check_content(json, &masks)?;
        let classes = things(json, list.classes, &masks);
        let (json, max_pixels) = (json.clone(), opening.max_pixels);
        Ok(Box::new(Opened { json, classes, images, masks, max_pixels, warned: Once::default() }))
    }

    fn takes_panoptic_predictions(&self) -> bool {
        true
    }
}

impl GroundTruth for Opened {
    fn source(&self) -> &Path {
        &self.json
    }

    fn images(&self) -> &[Image] {
        &self.images
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn natural_task(&self) -> Option<Task> {
        None
    }

    fn file(&self, image: usize) -> Option<&Path> {
        Some(&self.masks[image].png)
    }

    fn size(&self, image: usize) -> Result<(u32, u32)> {
        maps::size(&self.masks[image].png)
    }

    fn labels(&self, image: usize, task: Task) -> Result<Labels> {
        let map = self.segments(image)?;
        Ok(match task {
            Task::Panoptic => Labels::Panoptic(map),
            Task::Semantic => Labels::Semantic(map.class_map()),
            Task::Instance => Labels::Instances(map.instances(&self.classes)),
        })
    }

    /// Pixels of ids that the JSON does not name belong to no segment, so that a list may name some classes only and keep the PNGs.
    fn segments(&self, image: usize) -> Result<PanopticMap> {
        let Masks { png, segments } = &self.masks[image];
        checked_map(png, segments, &self.warned, self.max_pixels)
    }

    fn has_masks(&self, image: usize) -> bool {
        self.masks[image].segments.iter().any(|segment| !segment.crowd)
    }

    fn check_task(&self, task: Task) -> Result<()> {
        if task == Task::Instance && self.classes.iter().all(|class| class.is_thing == Some(false)) {
            let json = self.json.display();
            bail!("{json}: isthing is 0 for every category, so there is no object to find: --task instance has nothing to score");
        }
        Ok(())
    }

    fn fingerprint(&self) -> Result<Vec<u8>> {
        files::read(&self.json, &bounds::ANNOTATIONS)
    }

    fn predicted_classes(&self, png: &Path) -> Result<ClassMap> {
        coco::class_map(png, &self.classes, self.max_pixels)
    }
}

/// Refuses a list without a segment to find, whose scores would mean nothing.
fn check_content(json: &Path, masks: &[Masks]) -> Result<()> {
    let all: Vec<&PanopticSegment> = masks.iter().flat_map(|masks| &masks.segments).collect();
    if !masks.is_empty() && all.is_empty() {
        bail!("{}: no image has a segment, so there is nothing to find", json.display());
    }
    if !all.is_empty() && all.iter().all(|segment| segment.crowd) {
        bail!("{}: all {} segments are crowds (iscrowd 1), which no prediction has to find", json.display(), all.len());
    }
    Ok(())
}

/// The classes. When none is a thing, the writer may not have known which are.
fn things(json: &Path, mut classes: Vec<Class>, masks: &[Masks]) -> Vec<Class> {
    if classes.iter().any(|class| class.is_thing != Some(false)) {
        return classes;
    }
    let twice = masks.iter().any(|masks| {
        let mut seen = vec![false; classes.len()];
        masks.segments.iter().filter(|segment| !segment.crowd).any(|segment| std::mem::replace(&mut seen[segment.class], true))
    });
    if twice {
        log::warn!(
            "{}: isthing is 0 for every category, and pictures show several segments of one class: that cannot be right, so all are things",
            json.display()
        );
        classes.iter_mut().for_each(|class| class.is_thing = None);
    } else {
        log::warn!("{}: isthing is 0 for every category (datumaro 1.13 always writes that): all are treated as stuff", json.display());
    }
    classes
}

/// The map of a PNG with its `segments`, whose areas are counted.
///
/// # Errors
/// When the PNG is missing, broken or larger than `max_pixels`.
pub fn map(png: &Path, mut segments: Vec<PanopticSegment>, max_pixels: u64) -> Result<PanopticMap> {
    let map = maps::panoptic_ids(png, max_pixels)?;
    let mut pixels: HashMap<u32, u64> = HashMap::new();
    for run in map.values.chunk_by(|a, b| a == b) {
        *pixels.entry(run[0]).or_default() += run.len() as u64;
    }
    segments.iter_mut().for_each(|segment| segment.area = pixels.get(&segment.id).copied().unwrap_or(0));
    Ok(PanopticMap { width: map.width, height: map.height, ids: map.values, segments })
}

/// The map of a ground truth. Warns once when the PNG and the JSON disagree.
fn checked_map(png: &Path, listed: &[PanopticSegment], once: &Once, max_pixels: u64) -> Result<PanopticMap> {
    let map = map(png, listed.to_vec(), max_pixels)?;
    let file = png.display();
    let differs = |(counted, listed): &(&PanopticSegment, &PanopticSegment)| listed.area != u64::MAX && counted.area != listed.area;
    if let Some((counted, listed)) = map.segments.iter().zip(listed).find(differs)
        && once.first("area")
    {
        log::warn!(
            "{file}: segment {} has {} pixels, and its area in the JSON is {}: pixels are counted (warned once)",
            counted.id,
            counted.area,
            listed.area
        );
    }
    if let Some(id) = map.check(&file.to_string(), true)?
        && once.first("unlisted")
    {
        log::warn!("{file}: segment {id} is in the PNG and not in the JSON: its pixels have no class (warned once)");
    }
    Ok(map)
}
