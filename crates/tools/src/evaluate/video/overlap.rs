//! One frame of a clip: what the ground truth and the prediction share. All measures are sums over these, so no pixels are kept.

use std::collections::BTreeMap;

use crate::datasets::labels::{PanopticMap, PanopticSegment};

/// A segment of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Place of its class.
    pub class: usize,
    /// A group of objects, which no prediction has to find.
    pub crowd: bool,
    pub area: u64,
}

/// One frame. Id 0 is void in a ground truth, and nothing in a prediction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameOverlap {
    /// By id.
    pub ground_truth: BTreeMap<u32, Seen>,
    /// By id.
    pub prediction: BTreeMap<u32, Seen>,
    /// Pixels of each pair of ids (ground truth, prediction).
    pub pairs: BTreeMap<(u32, u32), u64>,
}

impl FrameOverlap {
    /// Of maps of one size.
    pub fn of(ground_truth: &PanopticMap, prediction: &PanopticMap) -> FrameOverlap {
        let mut frame = FrameOverlap { ground_truth: table(ground_truth), prediction: table(prediction), pairs: BTreeMap::new() };
        let ids: Vec<(u32, u32)> = ground_truth.ids.iter().copied().zip(prediction.ids.iter().copied()).collect();
        for run in ids.chunk_by(|a, b| a == b) {
            let (gt, pred) = run[0];
            // what no list names belongs to nothing
            let gt = if frame.ground_truth.contains_key(&gt) { gt } else { 0 };
            let pred = if frame.prediction.contains_key(&pred) { pred } else { 0 };
            *frame.pairs.entry((gt, pred)).or_default() += run.len() as u64;
        }
        for (&(gt, pred), &pixels) in &frame.pairs {
            frame.ground_truth.entry(gt).and_modify(|seen| seen.area += pixels);
            frame.prediction.entry(pred).and_modify(|seen| seen.area += pixels);
        }
        frame.ground_truth.retain(|_, seen| seen.area > 0);
        frame.prediction.retain(|_, seen| seen.area > 0);
        frame
    }
}

fn table(map: &PanopticMap) -> BTreeMap<u32, Seen> {
    let row = |segment: &PanopticSegment| (segment.id, Seen { class: segment.class, crowd: segment.crowd, area: 0 });
    map.segments.iter().filter(|segment| segment.id != 0).map(row).collect()
}
