//! What an image shows, as ground truth or as a prediction: one form for each task.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hotcoco::Rle;

use super::maps::Map;

/// A class of the dataset. Classes are known by their place in [`super::Dataset::classes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// `category_id` in the dataset's files.
    pub id: u64,
    /// As the dataset or the model names it.
    pub name: String,
    /// Whether its objects are counted one by one (a thing) or it is stuff; `None` where the dataset does not say.
    pub is_thing: Option<bool>,
}

/// Pixels of no class: the ignore label in a ground truth, nothing in a prediction.
pub const NO_CLASS: u16 = u16::MAX;

/// A map in which every pixel belongs to at most one segment (COCO panoptic).
#[derive(Debug, Clone, PartialEq)]
pub struct PanopticMap {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `[height, width]` segment ids, 0 = void.
    pub ids: Vec<u32>,
    /// In the order of the file.
    pub segments: Vec<PanopticSegment>,
}

/// One segment of a [`PanopticMap`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PanopticSegment {
    /// Above 0, unique in the map.
    pub id: u32,
    /// Place of its class.
    pub class: usize,
    /// Pixels in the map; as the file says it (`u64::MAX`: it does not) until they are counted.
    pub area: u64,
    /// A group of objects (`iscrowd`), which no prediction has to find.
    pub crowd: bool,
    /// For the report only; `None` where there is none.
    pub score: Option<f32>,
}

/// A map in which every pixel has one class or [`NO_CLASS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `[height, width]` places of classes.
    pub classes: Vec<u16>,
}

impl ClassMap {
    /// The map of a PNG's values, where `class` gives the class of a value or `None` for one that no class has.
    ///
    /// # Errors
    /// A sentence that names the PNG and the value that is none of the `count` classes.
    pub(super) fn of_values(png: &Path, map: &Map<u16>, count: usize, class: impl Fn(u16) -> Option<u16>) -> Result<ClassMap> {
        let mut classes = Vec::with_capacity(map.values.len());
        for run in map.values.chunk_by(|a, b| a == b) {
            let value = run[0];
            let unknown = || format!("{}: the value {value} is none of the {count} classes and is not ignored", png.display());
            classes.extend(std::iter::repeat_n(class(value).with_context(unknown)?, run.len()));
        }
        Ok(ClassMap { width: map.width, height: map.height, classes })
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Place of its class.
    pub class: usize,
    /// 0 to 1; 1 in a ground truth.
    pub score: f64,
    /// Its pixels, run lengths column by column as in COCO.
    pub mask: Rle,
    /// Pixels.
    pub area: f64,
    /// A group of objects (`iscrowd`), which no prediction has to find.
    pub crowd: bool,
}

/// The objects of an image. Their masks may overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Instances {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// In no order.
    pub list: Vec<Instance>,
}

/// The labels of one image.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// For panoptic quality.
    Panoptic(PanopticMap),
    /// For mean intersection over union.
    Semantic(ClassMap),
    /// For mask average precision.
    Instances(Instances),
}

impl PanopticMap {
    /// Checks that map and segments agree. Returns an id that only the map has, which a ground truth (`is_truth`) may have.
    ///
    /// The COCO panoptic API demands of predictions that every id of the map is a segment and the other way round. In a ground truth, a
    /// segment without a pixel is one that no prediction finds, and pixels without a segment are neither void nor part of a class.
    ///
    /// # Errors
    /// A sentence that names the image and the segment.
    pub fn check(&self, image: &str, is_truth: bool) -> Result<Option<u32>> {
        let ids: BTreeSet<u32> = self.ids.chunk_by(|a, b| a == b).map(|run| run[0]).collect();
        let mut known: Vec<u32> = self.segments.iter().map(|segment| segment.id).collect();
        known.sort_unstable();
        if let Some(twice) = known.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("{image}: segment {} is in the JSON twice", twice[0]);
        }
        let unlisted = ids.iter().copied().find(|id| *id != 0 && known.binary_search(id).is_err());
        if let Some(id) = unlisted.filter(|_| !is_truth) {
            bail!("{image}: segment {id} is in the PNG and not in the JSON");
        }
        if known.first() == Some(&0) {
            bail!("{image}: segment 0 is in the JSON, and 0 means void");
        }
        match known.iter().find(|id| !ids.contains(id)) {
            Some(id) if !is_truth => bail!("{image}: segment {id} is in the JSON and not in the PNG"),
            _ => Ok(unlisted),
        }
    }

    /// The class of every pixel, crowds included.
    pub fn class_map(&self) -> ClassMap {
        let class_of = |id: u32| self.segments.iter().find(|segment| segment.id == id).map_or(NO_CLASS, |segment| segment.class as u16);
        let mut classes = Vec::with_capacity(self.ids.len());
        for run in self.ids.chunk_by(|a, b| a == b) {
            classes.extend(std::iter::repeat_n(class_of(run[0]), run.len()));
        }
        ClassMap { width: self.width, height: self.height, classes }
    }

    /// The segments of thing classes (and of classes that may be either), as objects.
    pub fn instances(&self, classes: &[Class]) -> Instances {
        let things = self.segments.iter().filter(|segment| classes[segment.class].is_thing != Some(false));
        let instance = |segment: &PanopticSegment| {
            let mask = mask_of(self.width, self.height, |pixel| self.ids[pixel] == segment.id);
            Instance { class: segment.class, score: 1.0, mask, area: segment.area as f64, crowd: segment.crowd }
        };
        Instances { width: self.width, height: self.height, list: things.map(instance).collect() }
    }
}

impl Instance {
    /// Calls `visit` with the row-major index of each pixel of the mask.
    pub fn each_pixel(&self, mut visit: impl FnMut(usize)) {
        let (width, height) = (self.mask.w as usize, self.mask.h as usize);
        let mut at = 0;
        for (index, &run) in self.mask.counts.iter().enumerate() {
            let end = (at + run as usize).min(width * height);
            if index % 2 == 1 {
                (at..end).for_each(|pixel| visit(pixel % height * width + pixel / height));
            }
            at = end;
        }
    }
}

impl Instances {
    /// The class of every pixel: objects with scores from `threshold` on, the best on top. Leaves crowds out.
    pub fn class_map(&self, threshold: f64) -> ClassMap {
        let mut order: Vec<&Instance> = self.list.iter().filter(|instance| instance.score >= threshold && !instance.crowd).collect();
        order.sort_by(|a, b| a.score.total_cmp(&b.score));
        let mut classes = vec![NO_CLASS; self.width as usize * self.height as usize];
        for instance in order {
            instance.each_pixel(|pixel| classes[pixel] = instance.class as u16);
        }
        ClassMap { width: self.width, height: self.height, classes }
    }
}

impl Labels {
    /// (width, height), pixels.
    pub fn size(&self) -> (u32, u32) {
        match self {
            Labels::Panoptic(map) => (map.width, map.height),
            Labels::Semantic(map) => (map.width, map.height),
            Labels::Instances(instances) => (instances.width, instances.height),
        }
    }
}

/// Run lengths, column by column, of the pixels for which `inside` (row-major index) holds.
pub fn mask_of(width: u32, height: u32, inside: impl Fn(usize) -> bool) -> Rle {
    let mut counts = Vec::new();
    let (mut value, mut run) = (false, 0);
    for x in 0..width as usize {
        for y in 0..height as usize {
            if inside(y * width as usize + x) != value {
                counts.push(run);
                (value, run) = (!value, 0);
            }
            run += 1;
        }
    }
    counts.push(run);
    Rle { h: height, w: width, counts }
}
