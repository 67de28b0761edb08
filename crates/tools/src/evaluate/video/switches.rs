//! Identity switches, as CLEAR MOT counts them (Bernardin and Stiefelhagen 2008) and TrackEval computes them, on masks, class by class.
//!
//! ```text
//! for each frame:  pairs of a thing and a prediction of its class with IoU >= 0.5 may match
//!     as many pairs of the frame before as possible stay together, then the sum of IoU is the largest (an optimal assignment)
//!     a thing whose prediction has another id than at its last match, however long ago, is a switch
//! ```

use std::collections::BTreeMap;

use eomt_edge_core::track::{Assignment, PROFIT_MAX};

use super::overlap::FrameOverlap;

/// Counts of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switches {
    pub switches: u64,
    /// Things of the ground truth that were matched, frame by frame.
    pub matched: u64,
    /// All of them.
    pub things: u64,
}

/// Adds a clip to the counts by class.
pub fn add(counts: &mut [Switches], clip: &[FrameOverlap], is_thing: &[bool]) {
    let mut assignment = Assignment::default();
    for class in (0..counts.len()).filter(|class| is_thing[*class]) {
        // id of the prediction at each thing's last match, and in the frame before
        let (mut last, mut before) = (BTreeMap::new(), BTreeMap::new());
        for frame in clip {
            let of_class = |map: &BTreeMap<u32, super::overlap::Seen>| -> Vec<u32> {
                map.iter().filter(|(_, seen)| seen.class == class && !seen.crowd).map(|(id, _)| *id).collect()
            };
            let (things, found) = (of_class(&frame.ground_truth), of_class(&frame.prediction));
            let profit = |gt: &u32, pred: &u32| {
                let iou = iou(frame, *gt, *pred);
                let bonus = if before.get(gt) == Some(pred) { PROFIT_MAX / 2 } else { 0 };
                // so that even many small gains never part a pair
                if iou < 0.5 { 0 } else { bonus + (iou * f64::from(PROFIT_MAX / 256)) as i32 }
            };
            let profits: Vec<i32> =
                things.iter().flat_map(|gt| found.iter().map(move |pred| (gt, pred))).map(|(gt, pred)| profit(gt, pred)).collect();
            assignment.solve(things.len(), found.len(), &profits);
            counts[class].things += things.len() as u64;
            before.clear();
            for (gt, column) in things.iter().zip(&assignment.column_of) {
                let Some(pred) = column.map(|column| found[column]) else { continue };
                counts[class].matched += 1;
                counts[class].switches += u64::from(last.insert(*gt, pred).is_some_and(|other| other != pred));
                before.insert(*gt, pred);
            }
        }
    }
}

/// Void does not count in the union.
fn iou(frame: &FrameOverlap, gt: u32, pred: u32) -> f64 {
    let shared = |gt: u32| frame.pairs.get(&(gt, pred)).copied().unwrap_or(0);
    let union = frame.ground_truth[&gt].area + frame.prediction[&pred].area - shared(gt) - shared(0);
    shared(gt) as f64 / union as f64
}
