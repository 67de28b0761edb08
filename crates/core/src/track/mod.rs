//! Ids that last: gives the segments of each frame the [`track_id`](crate::data::Segment::track_id) that they had before.
//!
//! ```
//! use eomt_edge_core::data::{Frame, Logits, Segment};
//! use eomt_edge_core::pipeline::{SegmentedFrame, TemporalStage};
//! use eomt_edge_core::track::{TrackConfig, TrackIds, Tracker};
//! let mut tracker = Tracker::new(TrackConfig::default(), TrackIds::default());
//! for left in 0..4 {
//!     let frame = Frame { captured_ns: u64::from(left) * 33_000_000, ..Frame::rgb(16, 4, vec![90; 16 * 4 * 3]) };
//!     let mut ids: Vec<u16> = (0..64).map(|at| u16::from((left..left + 4).contains(&(at % 16)))).collect();
//!     let mut table = vec![Segment { id: 1, category_id: 0, score: 0.9, area: 16, bbox: [left, 0, 4, 4], track_id: 0 }];
//!     tracker.update(SegmentedFrame { frame: &frame, logits: &Logits::default(), queries: &[], ids: &mut ids, table: &mut table });
//!     assert_eq!(table[0].track_id, 1);
//! }
//! ```
//!
//! ```text
//! observer    things of the frame on a coarse grid: place, size, colours; class probabilities and the query that answered
//! affinity    how well each fits each track: masks overlap after the track's motion, colours, classes, nearness, the same query
//! assignment  the best assignment of all things to tracks at once
//! then        a thing without a track gets a new id at once; a track without a thing is lost, and remembered for a while
//! ```
//!
//! A cut to another picture ends all tracks of things. A track is remembered as long as [`TrackConfig::memory_ns`] says, but no longer than a few times as long as it was seen: what the network
//! saw by mistake in one frame is forgotten soon, and does not take the place of what has been there. Stuff has one id per class.
//!
//! Invariants: two segments of a frame never share an id; the same frames give the same ids on every machine (whole numbers, and single
//! IEEE operations in a fixed order); at most [`TRACKS_MAX`] tracks, the longest lost making room, and [`THINGS_MAX`] things of a frame;
//! nothing is allocated after the first frame. An id is never given twice: [`Tracker::reset`](TemporalStage::reset), a frame of another size, and a
//! capture time that goes back forget all tracks, and ids count on. After the last number, 2^32 - 1, segments get 0, "not tracked".
//!
//! Refuses: to change ids, classes or masks; to delay a frame; to hide a segment until it is confirmed.

mod affinity;
mod assignment;
mod colour;
mod cut;
mod observer;
#[cfg(test)]
mod tests;
mod tracks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::pipeline::{SegmentedFrame, TemporalStage};
use affinity::Pair;
pub use assignment::{Assignment, PROFIT_MAX};
use cut::CutDetector;
pub use observer::THINGS_MAX;
use observer::{Grid, Observer};
use tracks::{Track, follow_classes, seconds};

/// Tracks, lost ones included.
pub const TRACKS_MAX: usize = 256;

/// A lost track is remembered for so many times as long as it was seen.
const TRUST: u64 = 4;

/// And in any case for so many frames.
const MISSED_MIN: u64 = 2;

/// The longest pause between two frames of one scene where nothing is remembered, nanoseconds.
const PAUSE_MIN_NS: u64 = 1_000_000_000;

/// What a [`Tracker`] can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackConfig {
    /// How long a thing that is not seen keeps its id, nanoseconds of capture time. 0: only from frame to frame.
    pub memory_ns: u64,
    /// `stuff[class]`: all segments of the class have one id. May be shorter than the list of classes.
    pub stuff: Vec<bool>,
}

impl Default for TrackConfig {
    /// Five seconds, and no stuff.
    fn default() -> TrackConfig {
        TrackConfig { memory_ns: 5_000_000_000, stuff: Vec::new() }
    }
}

/// The numbers that are still to be given, shared by all trackers that follow each other before one reader.
#[derive(Debug, Clone, Default)]
pub struct TrackIds(Arc<AtomicU32>);

impl TrackIds {
    /// Counts on from `last`.
    pub fn after(last: u32) -> TrackIds {
        TrackIds(Arc::new(AtomicU32::new(last)))
    }

    /// A number that nobody had; 0 when there is none left.
    fn next(&self) -> u32 {
        let update = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| last.checked_add(1));
        update.map_or(0, |last| last + 1)
    }
}

/// The stage. See the [module](self).
#[derive(Debug)]
pub struct Tracker {
    config: TrackConfig,
    ids: TrackIds,
    /// Width and height of the frames, and when the last one was taken.
    last: Option<((u32, u32), u64)>,
    /// Counts frames.
    frame: u64,
    tracks: Vec<Track>,
    /// `[tracks, classes]` probabilities.
    shares: Vec<f32>,
    /// Ids of stuff, by class; 0 = not seen yet.
    stuff_ids: Vec<u32>,
    observer: Observer,
    cuts: CutDetector,
    /// Where tracks were in the last frame: places in `tracks` from 1.
    grid: Grid,
    /// `[things, tracks]`: cells that a thing shares with a track.
    common: Vec<u32>,
    profits: Vec<i32>,
    assignment: Assignment,
    /// Place of each thing's track from 1, 0 = it has none.
    places: Vec<u16>,
}

impl Tracker {
    /// Without tracks; new ones get numbers of `ids`.
    pub fn new(config: TrackConfig, ids: TrackIds) -> Tracker {
        let (pairs, stuff_ids) = (THINGS_MAX * TRACKS_MAX, vec![0; config.stuff.len()]);
        Tracker {
            config,
            ids,
            last: None,
            frame: 0,
            tracks: Vec::with_capacity(TRACKS_MAX),
            shares: Vec::new(),
            stuff_ids,
            observer: Observer::new(),
            cuts: CutDetector::default(),
            grid: Grid::new(),
            common: Vec::with_capacity(pairs),
            profits: Vec::with_capacity(pairs),
            assignment: Assignment::with_capacity(THINGS_MAX, TRACKS_MAX),
            places: Vec::with_capacity(THINGS_MAX),
        }
    }

    fn forget(&mut self) {
        self.tracks.clear();
        self.shares.clear();
        self.stuff_ids.fill(0);
        self.grid.cells.clear();
        self.cuts.forget();
        self.last = None;
    }

    /// Forgets everything when the frame cannot belong to the same scene.
    fn begin(&mut self, segmented: &SegmentedFrame) {
        let (size, now_ns) = ((segmented.frame.width, segmented.frame.height), segmented.frame.captured_ns);
        let classes = segmented.logits.class.classes.saturating_sub(1);
        if self.last.is_some_and(|(seen, ns)| seen != size || now_ns < ns) || classes != self.observer.classes {
            self.forget();
        }
        self.shares.reserve(TRACKS_MAX * classes - self.shares.len());
        self.last = Some((size, now_ns));
        self.frame += 1;
    }

    /// Removes tracks that have been lost for too long, and the longest lost ones when room is needed for `things`.
    fn expire(&mut self, now_ns: u64) {
        let mut at = 0;
        while at < self.tracks.len() {
            let Track { first_ns, seen_ns, frame, .. } = self.tracks[at];
            let (gap, missed) = (now_ns.saturating_sub(seen_ns), self.frame - frame - 1);
            let trusted = gap <= seen_ns.saturating_sub(first_ns).saturating_mul(TRUST) || missed <= MISSED_MIN;
            let limit = if missed == 0 { self.config.memory_ns.max(PAUSE_MIN_NS) } else { self.config.memory_ns };
            if gap > limit || !trusted {
                self.remove(at);
            } else {
                at += 1;
            }
        }
    }

    fn make_room(&mut self) {
        while self.tracks.len() + self.observer.things.len() > TRACKS_MAX {
            let longest = self.tracks.iter().enumerate().min_by_key(|(_, track)| track.frame);
            let Some((at, _)) = longest else { return };
            self.remove(at);
        }
    }

    /// The last track takes the place of the removed one, in the last grid, too.
    fn remove(&mut self, at: usize) {
        let (last, classes) = (self.tracks.len() - 1, self.observer.classes);
        self.tracks.swap_remove(at);
        self.shares.copy_within(last * classes..(last + 1) * classes, at * classes);
        self.shares.truncate(last * classes);
        let (removed, moved) = (at as u16 + 1, last as u16 + 1);
        for cell in &mut self.grid.cells {
            *cell = if *cell == removed { 0 } else { *cell };
            *cell = if *cell == moved { removed } else { *cell };
        }
    }

    /// One id for all segments of a class of stuff.
    fn name_stuff(&mut self, segmented: &mut SegmentedFrame) {
        for segment in segmented.table.iter_mut() {
            let class = usize::from(segment.category_id);
            segment.track_id = 0;
            if !self.config.stuff.get(class).copied().unwrap_or(false) {
                continue;
            }
            if self.stuff_ids[class] == 0 {
                self.stuff_ids[class] = self.ids.next();
            }
            segment.track_id = self.stuff_ids[class];
        }
    }

    /// Moves the masks of the last frame by the motion of their tracks, and counts the cells on each thing.
    fn count_common(&mut self, now_ns: u64) {
        let (tracks, things) = (self.tracks.len(), self.observer.things.len());
        self.common.clear();
        self.common.resize(tracks * things, 0);
        let (last, now) = (&self.grid, &self.observer.grid);
        let mut shift = ([0; 2], 0);
        for (y, row) in last.cells.chunks_exact(last.width.max(1)).enumerate() {
            for (x, &place) in row.iter().enumerate().filter(|(_, place)| **place > 0) {
                if shift.1 != place {
                    let track = &self.tracks[usize::from(place) - 1];
                    let motion = track.motion(seconds(track.seen_ns, now_ns));
                    shift = (motion.map(|pixels| (pixels / now.step as f32).round() as isize), place);
                }
                let (x, y) = (x as isize + shift.0[0], y as isize + shift.0[1]);
                if x < 0 || y < 0 || x >= now.width as isize || y >= now.height as isize {
                    continue;
                }
                let number = usize::from(now.cells[y as usize * now.width + x as usize]);
                if number > 0 {
                    self.common[(number - 1) * tracks + usize::from(place) - 1] += 1;
                }
            }
        }
    }

    /// Whether hardly anything is where things were in the last frame.
    fn is_elsewhere(&self) -> bool {
        let (mut fresh, mut found) = (0, 0);
        for (place, track) in self.tracks.iter().enumerate().filter(|(_, track)| track.frame + 1 == self.frame) {
            fresh += 1;
            let covers = |(number, thing): (usize, &observer::Observation)| {
                let common = self.common[number * self.tracks.len() + place];
                2 * common > track.cells.max(thing.cells) && self.alike(number, place) > 0.5
            };
            found += usize::from(self.observer.things.iter().enumerate().any(covers));
        }
        3 * found <= fresh
    }

    /// Similarity of the class probabilities of a thing and a track, 0 to 1.
    fn alike(&self, number: usize, place: usize) -> f32 {
        let classes = self.observer.classes;
        let (seen, known) = (&self.observer.shares[number * classes..][..classes], &self.shares[place * classes..][..classes]);
        seen.iter().zip(known).map(|(a, b)| a.min(*b)).sum()
    }

    fn assign(&mut self, now_ns: u64) {
        self.profits.clear();
        for (number, thing) in self.observer.things.iter().enumerate() {
            for (place, track) in self.tracks.iter().enumerate() {
                let (alike, gap) = (self.alike(number, place), seconds(track.seen_ns, now_ns));
                let common = self.common[number * self.tracks.len() + place];
                let is_fresh = track.frame + 1 == self.frame;
                self.profits.push(Pair { track, thing, common, classes: alike, gap, is_fresh }.profit());
            }
        }
        self.assignment.solve(self.observer.things.len(), self.tracks.len(), &self.profits);
    }

    /// Tracks go on and begin.
    fn follow(&mut self, segmented: &mut SegmentedFrame, now_ns: u64) {
        let classes = self.observer.classes;
        self.places.clear();
        for (number, thing) in self.observer.things.iter().enumerate() {
            let seen = &self.observer.shares[number * classes..][..classes];
            let place = match self.assignment.column_of[number] {
                Some(place) => {
                    self.tracks[place].follow(thing, now_ns, self.frame);
                    follow_classes(&mut self.shares[place * classes..][..classes], seen);
                    Some(place)
                }
                None => match self.ids.next() {
                    0 => None,
                    id => {
                        self.tracks.push(Track::born(id, thing, now_ns, self.frame));
                        self.shares.extend_from_slice(seen);
                        Some(self.tracks.len() - 1)
                    }
                },
            };
            segmented.table[thing.row].track_id = place.map_or(0, |place| self.tracks[place].id);
            self.places.push(place.map_or(0, |place| place as u16 + 1));
        }
        std::mem::swap(&mut self.grid, &mut self.observer.grid);
        for cell in self.grid.cells.iter_mut().filter(|cell| **cell > 0) {
            *cell = self.places[usize::from(*cell) - 1];
        }
    }
}

impl TemporalStage for Tracker {
    fn update(&mut self, mut segmented: SegmentedFrame) {
        let now_ns = segmented.frame.captured_ns;
        self.begin(&segmented);
        self.expire(now_ns);
        self.name_stuff(&mut segmented);
        self.observer.look(&segmented, &self.config.stuff);
        self.make_room();
        self.count_common(now_ns);
        if self.cuts.look(segmented.frame) && self.is_elsewhere() {
            self.tracks.clear();
            self.shares.clear();
        }
        self.assign(now_ns);
        self.follow(&mut segmented, now_ns);
    }

    fn reset(&mut self) {
        self.forget();
    }
}
