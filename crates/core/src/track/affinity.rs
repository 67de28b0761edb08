//! How well something seen fits a track.
//!
//! ```text
//! a track of the last frame:   overlap of masks after the track's motion, and nearness, colours, classes, the query
//! a lost track:                colours above all, then nearness (which fades with time), classes, size
//! ```
//!
//! A pair beyond its gates scores 0: these two must not meet.

use super::assignment::PROFIT_MAX;
use super::observer::{NO_QUERY, Observation};
use super::tracks::Track;

/// Colours of a track of the last frame may differ by so many levels, and those of a lost one.
const LOOK_GATE: f32 = 64.0;
const LOOK_GATE_LOST: f32 = 30.0;

/// Fewest points of a pair, 0 to 1.
const POINTS_MIN: f32 = 0.3;
const POINTS_MIN_LOST: f32 = 0.45;

/// A lost track is still at its place from this nearness on, 0 to 1.
const NEAR_LOST: f32 = 0.7;

/// What a lost track's points count beside those of a track of the last frame.
const LOST_WEIGHT: f32 = 0.5;

/// A thing seen beside a track, as far as the two are compared by others.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    pub track: &'a Track,
    pub thing: &'a Observation,
    /// Cells of the track's mask, moved to now, that lie on the thing.
    pub common: u32,
    /// Similarity of the class probabilities, 0 to 1.
    pub classes: f32,
    /// Seconds since the track was seen.
    pub gap: f32,
    /// It was seen in the last frame.
    pub is_fresh: bool,
}

impl Pair<'_> {
    /// For [`Assignment`](super::assignment::Assignment).
    pub fn profit(&self) -> i32 {
        let (points, least, weight) = match self.is_fresh {
            true => (self.fresh(), POINTS_MIN, 1.0),
            false => (self.lost(), POINTS_MIN_LOST, LOST_WEIGHT),
        };
        if points < least { 0 } else { (points * weight * PROFIT_MAX as f32) as i32 }
    }

    fn fresh(&self) -> f32 {
        let Pair { track, thing, .. } = *self;
        let (look, near) = (self.look(LOOK_GATE), self.nearness(0.75 * (track.size() + thing.area.sqrt())));
        let overlap = self.overlap();
        if look <= 0.0 || !self.size_fits(8.0) || (overlap <= 0.0 && near <= 0.0) {
            return 0.0;
        }
        let query = if thing.query != NO_QUERY && thing.query == track.query { 1.0 } else { 0.0 };
        0.45 * overlap + 0.2 * look + 0.15 * self.classes + 0.15 * near + 0.05 * query
    }

    fn lost(&self) -> f32 {
        let Pair { track, thing, gap, .. } = *self;
        let look = self.look(LOOK_GATE_LOST);
        let near = self.nearness(track.size() * (2.0 + 4.0 * gap));
        // where it was a moment ago, a thing may be of another class for once
        let is_there = near > NEAR_LOST;
        if look <= 0.0 || !self.size_fits(3.0) || (self.classes < 0.1 && !is_there) {
            return 0.0;
        }
        let (small, large) = if thing.area < track.full_area { (thing.area, track.full_area) } else { (track.full_area, thing.area) };
        // what the border or another thing covers in part may be small
        let size = if thing.is_cut { 1.0 } else { (small / large).sqrt() };
        0.4 * look + 0.25 * near + 0.2 * self.classes + 0.15 * size
    }

    /// 1 for equal colours, 0 at the gate; in between where colours are not known.
    fn look(&self, gate: f32) -> f32 {
        let (a, b) = (&self.track.look, &self.thing.look);
        if a.cells == 0 || b.cells == 0 { 0.5 } else { 1.0 - a.distance(b) / gate }
    }

    fn nearness(&self, reach: f32) -> f32 {
        let ([x, y], [tx, ty]) = (self.track.predicted(self.gap), self.thing.centre);
        (1.0 - ((x - tx) * (x - tx) + (y - ty) * (y - ty)).sqrt() / reach.max(1.0)).max(0.0)
    }

    /// What is covered in part may be small, and what comes out from behind something grows fast.
    fn size_fits(&self, growth_max: f32) -> bool {
        self.thing.area <= growth_max * self.track.full_area.max(1.0)
    }

    /// The mean of intersection over union and intersection over the smaller one; of the boxes where masks have few cells.
    fn overlap(&self) -> f32 {
        let (track, thing) = (self.track, self.thing);
        let (common, a, b) = if track.cells.min(thing.cells) >= 8 {
            (self.common as f32, track.cells as f32, thing.cells as f32)
        } else {
            let area = |[left, top, right, bottom]: [f32; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
            let (p, q) = (track.predicted_corners(self.gap), thing.corners);
            let both = [p[0].max(q[0]), p[1].max(q[1]), p[2].min(q[2]), p[3].min(q[3])];
            (area(both), area(p), area(q))
        };
        if common <= 0.0 { 0.0 } else { 0.5 * common / (a + b - common).max(1.0) + 0.5 * common / a.min(b).max(1.0) }
    }
}
