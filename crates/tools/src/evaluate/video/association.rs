//! Segmentation and tracking quality (Weber et al., STEP, NeurIPS 2021), as `segmentation_and_tracking_quality.py` of deeplab2 computes it.
//!
//! ```text
//! STQ = sqrt(AQ x SQ)
//! SQ  = mean IoU of the classes; void of the ground truth does not count, a prediction of nothing is a class of its own
//! AQ  = mean over tracks g of things:  1 / |g| * sum over predicted tracks p:  TPA(p, g) * IoU(p, g)      in pixels of the whole clip
//! ```
//!
//! A predicted track is an id with a class: one that changes its class is another. Pixels of crowds do not count in AQ.

use std::collections::BTreeMap;

use super::overlap::FrameOverlap;

/// Pixels of a track or of what two share.
type Sizes<K> = BTreeMap<K, u64>;

/// Sums over clips.
#[derive(Debug)]
pub struct Association {
    /// `[classes + 1, classes + 1]` pixels (ground truth, prediction); the last is void or nothing.
    confusion: Vec<u64>,
    is_thing: Vec<bool>,
    /// Sum of the qualities of tracks, and their number, by class.
    tracks: Vec<(f64, u64)>,
}

/// One result; `None` where nothing was there to be scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    pub stq: Option<f64>,
    pub aq: Option<f64>,
    pub sq: Option<f64>,
}

impl Association {
    pub fn new(is_thing: Vec<bool>) -> Association {
        let size = is_thing.len() + 1;
        Association { confusion: vec![0; size * size], tracks: vec![(0.0, 0); is_thing.len()], is_thing }
    }

    /// Adds a clip.
    pub fn add(&mut self, clip: &[FrameOverlap]) {
        let void = self.is_thing.len();
        let mut ground_truth: Sizes<(usize, u32)> = BTreeMap::new();
        let mut prediction: Sizes<(usize, u32)> = BTreeMap::new();
        let mut shared: Sizes<((usize, u32), (usize, u32))> = BTreeMap::new();
        for frame in clip {
            for (&(gt, pred), &pixels) in &frame.pairs {
                let (a, b) = (frame.ground_truth.get(&gt), frame.prediction.get(&pred));
                let (class, found) = (a.map_or(void, |seen| seen.class), b.map_or(void, |seen| seen.class));
                self.confusion[class * (void + 1) + found] += pixels;
                let thing = |class: usize| self.is_thing.get(class).copied().unwrap_or(false);
                if thing(class) && a.is_some_and(|seen| seen.crowd) {
                    continue;
                }
                if thing(class) {
                    *ground_truth.entry((class, gt)).or_default() += pixels;
                }
                if thing(found) {
                    *prediction.entry((found, pred)).or_default() += pixels;
                }
                if thing(class) && thing(found) {
                    *shared.entry(((class, gt), (found, pred))).or_default() += pixels;
                }
            }
        }
        for (gt, &size) in &ground_truth {
            let of_track = shared.range((*gt, (0, 0))..=(*gt, (usize::MAX, u32::MAX)));
            let sum: f64 = of_track.map(|((_, pred), &tpa)| tpa as f64 * tpa as f64 / (size + prediction[pred] - tpa) as f64).sum();
            self.tracks[gt.0].0 += sum / size as f64;
            self.tracks[gt.0].1 += 1;
        }
    }

    pub fn quality(&self) -> Quality {
        let (sum, count) = self.tracks.iter().fold((0.0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        let aq = (count > 0).then(|| sum / count as f64);
        let ious: Vec<f64> = (0..=self.is_thing.len()).filter_map(|class| self.iou(class)).collect();
        let sq = (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64);
        Quality { stq: aq.zip(sq).map(|(aq, sq)| (aq * sq).sqrt()), aq, sq }
    }

    /// Of one class: its tracks, its IoU.
    pub fn of_class(&self, class: usize) -> Quality {
        let (sum, count) = self.tracks[class];
        let (aq, sq) = ((count > 0).then(|| sum / count as f64), self.iou(class));
        Quality { stq: aq.zip(sq).map(|(aq, sq)| (aq * sq).sqrt()), aq, sq }
    }

    /// Void of the ground truth is left out.
    fn iou(&self, class: usize) -> Option<f64> {
        let (classes, size) = (self.is_thing.len(), self.is_thing.len() + 1);
        let row: u64 = if class == classes { 0 } else { self.confusion[class * size..][..size].iter().sum() };
        let column: u64 = (0..classes).map(|other| self.confusion[other * size + class]).sum();
        let both = if class == classes { 0 } else { self.confusion[class * size + class] };
        let union = row + column - both;
        (union > 0).then(|| both as f64 / union as f64)
    }
}
