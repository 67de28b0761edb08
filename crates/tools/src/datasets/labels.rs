//! What an image shows, as the truth or as a prediction: in one form for each task.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use hotcoco::Rle;

/// A class of the dataset; classes are known by their place in [`super::Dataset::classes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// `category_id` in the dataset's files.
    pub id: u64,
    pub name: String,
    /// `None` where the dataset does not say.
    pub is_thing: Option<bool>,
}

/// Pixels of no class: the ignore label of a truth, nothing in a prediction.
pub const NO_CLASS: u16 = u16::MAX;

/// Every pixel at most one segment.
#[derive(Debug, Clone, PartialEq)]
pub struct PanopticMap {
    pub width: u32,
    pub height: u32,
    /// `[height, width]` segment ids, 0 = void.
    pub ids: Vec<u32>,
    pub segments: Vec<PanopticSegment>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PanopticSegment {
    pub id: u32,
    pub class: usize,
    /// Pixels in the map; as the file says it (`u64::MAX`: it does not) until they are counted.
    pub area: u64,
    pub crowd: bool,
    /// For people only; `None` where there is none.
    pub score: Option<f32>,
}

/// Every pixel one class or [`NO_CLASS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    pub width: u32,
    pub height: u32,
    /// `[height, width]`.
    pub classes: Vec<u16>,
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub class: usize,
    /// 1 in a truth.
    pub score: f64,
    pub mask: Rle,
    pub area: f64,
    pub crowd: bool,
}

/// Objects, whose masks may overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Instances {
    pub width: u32,
    pub height: u32,
    pub list: Vec<Instance>,
}

/// One image's labels.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    Panoptic(PanopticMap),
    Semantic(ClassMap),
    Instances(Instances),
}

impl PanopticMap {
    /// Whether map and segments agree. Returns an id that only the map has, if there is one and `is_truth`.
    ///
    /// The COCO panoptic API demands of predictions that every id of the map is a segment and the other way round. A truth's segment
    /// without a pixel is one that nobody finds, and its pixels without a segment count neither as void nor as anything's.
    ///
    /// # Errors
    /// A sentence that names the image and the segment.
    pub fn check(&self, image: &str, is_truth: bool) -> Result<Option<u32>> {
        let ids: BTreeSet<u32> = self.ids.chunk_by(|a, b| a == b).map(|run| run[0]).collect();
        let mut known: Vec<u32> = self.segments.iter().map(|segment| segment.id).collect();
        known.sort_unstable();
        if let Some(twice) = known.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("{image}: segment {} stands twice in the JSON", twice[0]);
        }
        let unlisted = ids.iter().copied().find(|id| *id != 0 && known.binary_search(id).is_err());
        if let Some(id) = unlisted.filter(|_| !is_truth) {
            bail!("{image}: segment {id} is in the PNG and not in the JSON");
        }
        if known.first() == Some(&0) {
            bail!("{image}: segment 0 is in the JSON, and 0 means nothing");
        }
        match known.iter().find(|id| !ids.contains(id)) {
            Some(id) if !is_truth => bail!("{image}: segment {id} is in the JSON and not in the PNG"),
            _ => Ok(unlisted),
        }
    }

    /// Every segment painted with its class, crowds included.
    pub fn class_map(&self) -> ClassMap {
        let class_of = |id: u32| self.segments.iter().find(|segment| segment.id == id).map_or(NO_CLASS, |segment| segment.class as u16);
        let mut classes = Vec::with_capacity(self.ids.len());
        for run in self.ids.chunk_by(|a, b| a == b) {
            classes.extend(std::iter::repeat_n(class_of(run[0]), run.len()));
        }
        ClassMap { width: self.width, height: self.height, classes }
    }

    /// The segments of classes that are things.
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
    /// Calls `visit` with the row-major index of every pixel of the mask.
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
    /// Painted in the order of their scores, the best on top; those below `threshold` are left out.
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
    /// (width, height).
    pub fn size(&self) -> (u32, u32) {
        match self {
            Labels::Panoptic(map) => (map.width, map.height),
            Labels::Semantic(map) => (map.width, map.height),
            Labels::Instances(instances) => (instances.width, instances.height),
        }
    }
}

/// Run lengths, column by column, of the pixels (row-major index) that `inside` names.
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
