//! Video panoptic quality (Kim et al., CVPR 2020), as the published `eval_vpq.py` computes it.
//!
//! ```text
//! for each window of k frames, one frame apart:  the segments of one id over the window are a tube
//!     tubes are matched as segments are in PQ: same class, IoU > 0.5, void taken out of the union, crowds free
//! VPQ of k = PQ of all windows' tubes, per class;  VPQ = the mean over k = 1, 2, 3, 4
//! ```
//!
//! A tube has the class that its id has in the window's first frame with it. A clip shorter than k has no window of k.

use std::collections::BTreeMap;

use hotcoco::metrics::panoptic::PqCounts;

use super::overlap::{FrameOverlap, Seen};

/// Lengths of windows.
pub const WINDOWS: [usize; 4] = [1, 2, 3, 4];

/// Adds the windows of `length` frames of one clip to `counts`, by class.
pub fn add(counts: &mut [PqCounts], clip: &[FrameOverlap], length: usize) {
    clip.windows(length).for_each(|window| add_window(counts, window));
}

fn tubes<'a>(frames: impl Iterator<Item = &'a BTreeMap<u32, Seen>>) -> BTreeMap<u32, Seen> {
    let mut tubes: BTreeMap<u32, Seen> = BTreeMap::new();
    for (id, seen) in frames.flatten() {
        tubes.entry(*id).and_modify(|tube| tube.area += seen.area).or_insert(*seen);
    }
    tubes
}

fn add_window(counts: &mut [PqCounts], window: &[FrameOverlap]) {
    let mut ground_truth = tubes(window.iter().map(|frame| &frame.ground_truth));
    let mut prediction = tubes(window.iter().map(|frame| &frame.prediction));
    let mut pairs: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (pair, pixels) in window.iter().flat_map(|frame| &frame.pairs) {
        *pairs.entry(*pair).or_default() += pixels;
    }
    let shared = |gt: u32, pred: u32| pairs.get(&(gt, pred)).copied().unwrap_or(0);
    let mut matched = Vec::new();
    for (&(gt, pred), &pixels) in &pairs {
        let (Some(a), Some(b)) = (ground_truth.get(&gt), prediction.get(&pred)) else { continue };
        if a.crowd || a.class != b.class {
            continue;
        }
        let union = a.area + b.area - pixels - shared(0, pred);
        // more than a half: at most one of each, so the order does not matter
        if 2 * pixels > union {
            counts[a.class].add(&PqCounts { iou: pixels as f64 / union as f64, tp: 1, ..PqCounts::default() });
            matched.push((gt, pred));
        }
    }
    for (gt, pred) in matched {
        ground_truth.remove(&gt);
        prediction.remove(&pred);
    }
    // of several crowds of a class the last one counts, as published
    let mut crowds = BTreeMap::new();
    for (&gt, tube) in &ground_truth {
        if tube.crowd {
            crowds.insert(tube.class, gt);
        } else {
            counts[tube.class].add(&PqCounts { fn_: 1, ..PqCounts::default() });
        }
    }
    for (&pred, tube) in &prediction {
        let free = shared(0, pred) + crowds.get(&tube.class).map_or(0, |crowd| shared(*crowd, pred));
        if 2 * free <= tube.area {
            counts[tube.class].add(&PqCounts { fp: 1, ..PqCounts::default() });
        }
    }
}
