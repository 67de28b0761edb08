//! What is remembered of things: one [`Track`] each.

use super::observer::{Look, Observation};

/// Motion goes on unseen for so many seconds.
const MOTION_MAX: f32 = 0.5;

/// How much the newest motion, colours and classes count.
const MOTION_SHARE: f32 = 0.5;
const LOOK_SHARE: f32 = 0.2;
const CLASS_SHARE: f32 = 0.2;

/// One thing over time; lengths in pixels, times in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Track {
    /// Never 0.
    pub id: u32,
    pub first_ns: u64,
    pub seen_ns: u64,
    /// Frames in which it was seen.
    pub hits: u32,
    /// Number of the frame in which it was seen last.
    pub frame: u64,
    pub query: u16,
    /// The largest area of late: what it has when nothing covers it.
    pub full_area: f32,
    pub corners: [f32; 4],
    pub centre: [f32; 2],
    /// Pixels per second.
    pub velocity: [f32; 2],
    pub cells: u32,
    pub look: Look,
}

impl Track {
    /// A thing seen for the first time.
    pub fn born(id: u32, thing: &Observation, now_ns: u64, frame: u64) -> Track {
        let Observation { query, area, corners, centre, cells, look, .. } = *thing;
        let (first_ns, seen_ns, velocity) = (now_ns, now_ns, [0.0; 2]);
        Track { id, first_ns, seen_ns, hits: 1, frame, query, full_area: area, corners, centre, velocity, cells, look }
    }

    /// It is seen again.
    pub fn follow(&mut self, thing: &Observation, now_ns: u64, frame: u64) {
        let seconds = seconds(self.seen_ns, now_ns);
        if seconds > 0.0 {
            // what comes out from behind something has not moved as far as its centre
            let share = if self.frame + 1 < frame || self.hits == 1 { 1.0 } else { MOTION_SHARE };
            for axis in 0..2 {
                let newest = (thing.centre[axis] - self.centre[axis]) / seconds;
                self.velocity[axis] += share * (newest - self.velocity[axis]);
            }
        }
        self.full_area = thing.area.max(0.98 * self.full_area + 0.02 * thing.area);
        self.look.follow(&thing.look, LOOK_SHARE);
        (self.seen_ns, self.hits, self.frame) = (now_ns, self.hits.saturating_add(1), frame);
        (self.query, self.corners, self.centre, self.cells) = (thing.query, thing.corners, thing.centre, thing.cells);
    }

    /// The side of a square of its area.
    pub fn size(&self) -> f32 {
        self.full_area.sqrt()
    }

    /// How far it moves in `gap` seconds.
    pub fn motion(&self, gap: f32) -> [f32; 2] {
        self.velocity.map(|velocity| velocity * gap.min(MOTION_MAX))
    }

    /// Its centre `gap` seconds after it was seen.
    pub fn predicted(&self, gap: f32) -> [f32; 2] {
        let [x, y] = self.motion(gap);
        [self.centre[0] + x, self.centre[1] + y]
    }

    /// Its box then: left, top, right, bottom.
    pub fn predicted_corners(&self, gap: f32) -> [f32; 4] {
        let ([x, y], [left, top, right, bottom]) = (self.motion(gap), self.corners);
        [left + x, top + y, right + x, bottom + y]
    }
}

/// Moves probabilities towards newer ones.
pub fn follow_classes(shares: &mut [f32], newer: &[f32]) {
    shares.iter_mut().zip(newer).for_each(|(share, newer)| *share += CLASS_SHARE * (newer - *share));
}

/// From one time to a later one.
pub fn seconds(from_ns: u64, to_ns: u64) -> f32 {
    to_ns.saturating_sub(from_ns) as f32 / 1e9
}
