//! Panoptic quality as the COCO panoptic API defines it (Kirillov et al., CVPR 2019; cocodataset/panopticapi, `evaluation.py`).
//!
//! ```text
//! a segment of the ground truth and one of the prediction match when their class is the same, the first is no crowd, and
//!     IoU > 0.5, the union being without the prediction's pixels on void
//! an unmatched prediction does not count when void and the crowd of its class cover more than half of it
//! per class:  SQ = mean IoU of the matches,  RQ = TP / (TP + FP / 2 + FN / 2),  PQ = SQ * RQ
//! all, things, stuff: the mean over the classes of which anything was seen
//! ```

use std::collections::HashSet;

use hotcoco::metrics::panoptic::{PqCounts, pq_average};
use hotcoco::primitives::panoptic::{Overlaps, Segment, VOID, match_segments};

use super::scores::{Row, Scores};
use crate::datasets::labels::{Class, PanopticMap, PanopticSegment};

/// How the prediction for one image fits its ground truth.
pub struct Fit {
    /// Place of the class with its counts, of classes that occur.
    pub counts: Vec<(usize, PqCounts)>,
    /// Ids (ground truth, prediction) that match.
    matched: HashSet<(u32, u32)>,
}

impl Fit {
    /// Maps of one size.
    pub fn of(ground_truth: &PanopticMap, prediction: &PanopticMap) -> Fit {
        let overlaps = Overlaps::compute(&ground_truth.ids, &prediction.ids);
        let areas = overlaps.pred_areas();
        let segment = |segment: &PanopticSegment, area: u64| Segment {
            label: segment.id,
            category_id: segment.class as u64,
            area,
            iscrowd: segment.crowd,
        };
        let ground_truth: Vec<Segment> = ground_truth.segments.iter().map(|row| segment(row, row.area)).collect();
        let found = |id: u32| areas.binary_search_by_key(&id, |(id, _)| *id).ok().map(|place| areas[place].1);
        let prediction: Vec<Segment> = prediction.segments.iter().filter_map(|row| Some(segment(row, found(row.id)?))).collect();
        let matches = match_segments(&ground_truth, &prediction, &overlaps);
        let mut counts: Vec<(usize, PqCounts)> = Vec::new();
        let mut add = |class: u64, more: PqCounts| match counts.iter_mut().find(|(seen, _)| *seen == class as usize) {
            Some((_, counts)) => counts.add(&more),
            None => counts.push((class as usize, more)),
        };
        for &(gt, _, iou) in &matches.matched {
            add(ground_truth[gt].category_id, PqCounts { iou, tp: 1, ..PqCounts::default() });
        }
        for &gt in &matches.missed {
            add(ground_truth[gt].category_id, PqCounts { fn_: 1, ..PqCounts::default() });
        }
        for &pred in &matches.false_positives {
            add(prediction[pred].category_id, PqCounts { fp: 1, ..PqCounts::default() });
        }
        let matched = matches.matched.iter().map(|&(gt, pred, _)| (ground_truth[gt].label, prediction[pred].label)).collect();
        Fit { counts, matched }
    }

    /// Panoptic quality of the image alone, all classes together; `None` when there is nothing to find and nothing was found.
    pub fn quality(&self) -> Option<f64> {
        let mut sum = PqCounts::default();
        self.counts.iter().for_each(|(_, counts)| sum.add(counts));
        sum.scores().map(|scores| scores.pq)
    }

    /// Pixels whose two segments do not match. Void and crowds of the ground truth do not count, unless `ground_truth` is another
    /// prediction, where nothing against something is a difference too.
    pub fn wrong(&self, ground_truth: &PanopticMap, prediction: &PanopticMap, void_counts: bool) -> Vec<bool> {
        let free = |id: u32| !void_counts && (id == VOID || ground_truth.segments.iter().any(|segment| segment.id == id && segment.crowd));
        let mut wrong = Vec::with_capacity(ground_truth.ids.len());
        let pairs: Vec<(u32, u32)> = ground_truth.ids.iter().copied().zip(prediction.ids.iter().copied()).collect();
        for run in pairs.chunk_by(|a, b| a == b) {
            let (gt, pred) = run[0];
            let fine = free(gt) || self.matched.contains(&run[0]) || (gt == VOID && pred == VOID);
            wrong.extend(std::iter::repeat_n(!fine, run.len()));
        }
        wrong
    }
}

/// Sums over images, per class.
pub struct PanopticSums(Vec<PqCounts>);

impl PanopticSums {
    pub fn new(classes: usize) -> PanopticSums {
        PanopticSums(vec![PqCounts::default(); classes])
    }

    pub fn add(&mut self, fit: &Fit) {
        fit.counts.iter().for_each(|(class, counts)| self.0[*class].add(counts));
    }

    pub fn scores(&self, classes: &[Class], images: usize) -> Scores {
        let values = |counts: &mut dyn Iterator<Item = &PqCounts>| {
            let (scores, seen) = pq_average(counts);
            [scores.pq, scores.sq, scores.rq].map(|value| (seen > 0).then_some(value)).to_vec()
        };
        let group = |name: &str, is_thing: Option<bool>| {
            let belongs = |class: &Class| is_thing.is_none() || class.is_thing == is_thing;
            let mut counts = self.0.iter().zip(classes).filter(|(_, class)| belongs(class)).map(|(counts, _)| counts);
            Row { name: name.to_owned(), values: values(&mut counts) }
        };
        let per_class = self.0.iter().zip(classes);
        Scores {
            task: "panoptic",
            images,
            columns: vec!["pq", "sq", "rq"],
            overall: vec![group("all", None), group("things", Some(true)), group("stuff", Some(false))],
            class_columns: vec!["pq", "sq", "rq"],
            classes: per_class
                .map(|(counts, class)| Row { name: class.name.clone(), values: values(&mut std::iter::once(counts)) })
                .collect(),
        }
    }
}
