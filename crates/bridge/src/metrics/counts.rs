//! What frames add up to.
//!
//! Invariants: totals only grow, over reloads and restarts of the daemon; at most [`CLASSES_MAX`] classes are told apart, and no two have the
//! same name. Refuses: to guess; frames that this reader was too slow for count by the gap in the ring's numbers and are in no histogram.

use std::collections::HashMap;

use eomt_edge_client::MaskFrame;
use prometheus_client::metrics::histogram::Histogram;

use crate::masks::RingFacts;

/// Most classes with a line of their own: the largest known sets of labels have 1203 (LVIS).
pub const CLASSES_MAX: usize = 2048;
/// The name of what has none, or no line of its own.
pub const OTHER: &str = "(other)";
/// Most characters of a label.
const LABEL_CHARS_MAX: usize = 100;

/// Stages as the ring counts them.
pub const STAGES: [&str; 4] = ["preprocess", "infer", "segment", "publish"];
/// Upper bounds, seconds: from a fast machine's preprocessing to a large network on a small board.
const STAGE_BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Upper bounds, seconds: a frame waits for the one before, so its age has another range than a stage.
const AGE_BUCKETS: [f64; 14] = [0.005, 0.01, 0.02, 0.033, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

/// A counter of the daemon's, followed over its restarts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Total {
    last: u64,
    sum: u64,
}

impl Total {
    fn follow(&mut self, value: u64) {
        // a value that went back counts anew
        self.sum += if value < self.last { value } else { value - self.last };
        self.last = value;
    }

    /// The next value counts from 0.
    fn anew(&mut self) {
        self.last = 0;
    }

    /// So many in all.
    pub fn get(self) -> u64 {
        self.sum
    }
}

/// Frames that were dropped, by cause, and those that failed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Losses {
    /// Causes and their totals. `unknown`: a daemon of ABI 1 tells none.
    pub dropped: [(&'static str, Total); 4],
    /// `None` until a daemon that counts them was there.
    pub failed: Option<Total>,
}

/// A class of the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassCount {
    /// Its name.
    pub label: String,
    /// Segments of it in the newest frame.
    pub segments: u64,
    /// Frames that had one.
    pub frames: u64,
}

/// What the newest frame says.
#[derive(Debug, Clone, Default)]
pub struct Newest {
    /// When its picture was taken, CLOCK_MONOTONIC nanoseconds; 0 = no picture yet.
    pub captured_ns: u64,
    /// The source gives frames.
    pub signal: bool,
    /// Its picture was too old.
    pub stale: bool,
    /// Columns and rows.
    pub size: (u32, u32),
    /// First half of the model file's SHA-256.
    pub model_hash: String,
}

/// All counts.
#[derive(Debug)]
pub struct Counts {
    connection: u64,
    up: bool,
    facts: RingFacts,
    heartbeat_ns: u64,
    published: Total,
    skipped: u64,
    last_sequence: u64,
    losses: Losses,
    stages: [Histogram; 4],
    age: Histogram,
    newest: Option<Newest>,
    classes: Vec<ClassCount>,
    /// Index into `classes` of each class of the model's.
    line_of: Vec<usize>,
}

impl Default for Counts {
    fn default() -> Counts {
        let losses = Losses { dropped: ["busy", "source", "corrupt", "unknown"].map(|cause| (cause, Total::default())), failed: None };
        Counts {
            connection: 0,
            up: false,
            facts: RingFacts::default(),
            heartbeat_ns: 0,
            published: Total::default(),
            skipped: 0,
            last_sequence: 0,
            losses,
            stages: STAGES.map(|_| Histogram::new(STAGE_BUCKETS)),
            age: Histogram::new(AGE_BUCKETS),
            newest: None,
            classes: Vec::new(),
            line_of: Vec::new(),
        }
    }
}

impl Counts {
    /// No daemon is there.
    pub fn away(&mut self) {
        self.up = false;
    }

    /// A daemon is there; `connection` tells one from the next.
    pub fn ring(&mut self, connection: u64, facts: &RingFacts) {
        self.up = true;
        if connection == self.connection {
            return;
        }
        self.connection = connection;
        self.published.anew();
        self.last_sequence = 0;
        if self.facts.writer_pid != facts.writer_pid {
            self.losses.dropped.iter_mut().for_each(|(_, total)| total.anew());
            self.losses.failed.iter_mut().for_each(Total::anew);
        }
        if self.facts.labels != facts.labels || self.line_of.is_empty() {
            (self.classes, self.line_of) = lines(&facts.labels, &self.classes);
        }
        self.facts = facts.clone();
        // until this ring's first frame nothing is known of it
        self.newest = None;
    }

    /// The daemon lived at this time.
    pub fn heartbeat(&mut self, heartbeat_ns: u64) {
        self.heartbeat_ns = heartbeat_ns;
    }

    /// A frame of the ring that [`Counts::ring`] named last.
    pub fn frame(&mut self, frame: &MaskFrame, heartbeat_ns: u64) {
        self.heartbeat_ns = heartbeat_ns;
        let sequence = frame.sequence();
        self.published.follow(sequence);
        if self.last_sequence != 0 {
            self.skipped += sequence.saturating_sub(self.last_sequence + 1);
        }
        self.last_sequence = sequence;
        self.lost(frame);
        if !frame.no_signal() {
            self.times(frame);
        }
        self.newest = Some(Newest {
            captured_ns: frame.info.captured_ns,
            signal: !frame.no_signal(),
            stale: frame.stale(),
            size: (frame.width(), frame.height()),
            model_hash: eomt_edge_files::files::hex(&frame.info.model_hash),
        });
        self.seen(frame);
    }

    fn lost(&mut self, frame: &MaskFrame) {
        let drops = frame.drops();
        let known = drops.busy.saturating_add(drops.source).saturating_add(drops.corrupt);
        let values = [drops.busy, drops.source, drops.corrupt, drops.total.saturating_sub(known)];
        for ((_, total), value) in self.losses.dropped.iter_mut().zip(values) {
            total.follow(value);
        }
        if self.facts.abi_version >= 2 {
            self.losses.failed.get_or_insert_default().follow(frame.failed());
        }
    }

    fn times(&mut self, frame: &MaskFrame) {
        for (histogram, us) in self.stages.iter().zip(frame.info.stage_us) {
            histogram.observe(f64::from(us) / 1e6);
        }
        self.age.observe(frame.info.published_ns.saturating_sub(frame.info.captured_ns) as f64 / 1e9);
    }

    fn seen(&mut self, frame: &MaskFrame) {
        self.classes.iter_mut().for_each(|class| class.segments = 0);
        for segment in &frame.segments {
            let line = match self.line_of.get(usize::from(segment.class)) {
                Some(&line) => line,
                None => other(&mut self.classes),
            };
            self.classes[line].segments += 1;
        }
        self.classes.iter_mut().filter(|class| class.segments > 0).for_each(|class| class.frames += 1);
    }

    /// Whether a daemon is there.
    pub fn up(&self) -> bool {
        self.up
    }

    /// What the newest ring says of itself.
    pub fn facts(&self) -> &RingFacts {
        &self.facts
    }

    /// The daemon's process, while one is there.
    pub fn writer_pid(&self) -> Option<u32> {
        self.up.then_some(self.facts.writer_pid)
    }

    /// CLOCK_MONOTONIC nanoseconds.
    pub fn heartbeat_ns(&self) -> u64 {
        self.heartbeat_ns
    }

    /// Maps that were published, those without signal included.
    pub fn published(&self) -> u64 {
        self.published.get()
    }

    /// Maps that this reader was too slow for.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What was dropped or failed; `None` before the first frame.
    pub fn losses(&self) -> Option<&Losses> {
        (self.published.get() > 0).then_some(&self.losses)
    }

    /// Of each of [`STAGES`].
    pub fn stages(&self) -> &[Histogram; 4] {
        &self.stages
    }

    /// From capture to publication.
    pub fn age(&self) -> &Histogram {
        &self.age
    }

    /// The newest frame of the newest ring.
    pub fn newest(&self) -> Option<&Newest> {
        self.newest.as_ref()
    }

    /// In the model's order.
    pub fn classes(&self) -> &[ClassCount] {
        &self.classes
    }

    /// One line for people.
    pub fn status(&self) -> String {
        let state = if self.up { "masks arrive" } else { "no daemon" };
        format!("{state}; {} maps counted", self.published())
    }
}

/// A line for each name, with the frames it had before, and the line of each class.
fn lines(labels: &[String], before: &[ClassCount]) -> (Vec<ClassCount>, Vec<usize>) {
    let frames: HashMap<&str, u64> = before.iter().map(|class| (class.label.as_str(), class.frames)).collect();
    let mut classes: Vec<ClassCount> = Vec::new();
    let mut line_by_name: HashMap<String, usize> = HashMap::new();
    let line_of = labels.iter().map(|label| {
        let name: String = label.chars().take(LABEL_CHARS_MAX).collect();
        // Prometheus takes an empty label for none
        let name = if name.is_empty() { OTHER.to_owned() } else { name };
        if let Some(&line) = line_by_name.get(&name) {
            return line;
        }
        if classes.len() >= CLASSES_MAX {
            return other(&mut classes);
        }
        let frames = frames.get(name.as_str()).copied().unwrap_or(0);
        line_by_name.insert(name.clone(), classes.len());
        classes.push(ClassCount { label: name, segments: 0, frames });
        classes.len() - 1
    });
    let line_of = line_of.collect();
    (classes, line_of)
}

/// The line of what has none of its own.
fn other(classes: &mut Vec<ClassCount>) -> usize {
    classes.iter().position(|class| class.label == OTHER).unwrap_or_else(|| {
        classes.push(ClassCount { label: OTHER.to_owned(), segments: 0, frames: 0 });
        classes.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use eomt_edge_client::layout::{SegmentRow, SlotInfo};

    use super::*;

    fn facts(pid: u32, labels: &[&str]) -> RingFacts {
        RingFacts { labels: labels.iter().map(ToString::to_string).collect(), writer_pid: pid, abi_version: 2, ..RingFacts::default() }
    }

    fn frame(sequence: u64, classes: &[u16]) -> MaskFrame {
        let info = SlotInfo {
            sequence,
            dropped: 6 * sequence,
            dropped_busy: sequence,
            dropped_source: 2 * sequence,
            dropped_corrupt: 3 * sequence,
            failed: 4 * sequence,
            stage_us: [1000, 20_000, 3000, 100],
            captured_ns: 1_000_000_000,
            published_ns: 1_040_000_000,
            ..SlotInfo::default()
        };
        let segments = classes.iter().map(|&class| SegmentRow { class, ..SegmentRow::default() }).collect();
        MaskFrame { info, segments, ..MaskFrame::default() }
    }

    fn totals(counts: &Counts) -> ([u64; 4], u64) {
        let losses = counts.losses().unwrap();
        (losses.dropped.map(|(_, total)| total.get()), losses.failed.unwrap().get())
    }

    #[test]
    fn totals_grow_over_gaps_reloads_and_restarts() {
        let mut counts = Counts::default();
        assert!(counts.losses().is_none(), "nothing is known yet");
        counts.ring(1, &facts(7, &["a"]));
        counts.frame(&frame(10, &[]), 5);
        counts.frame(&frame(15, &[]), 6);
        assert_eq!((counts.published(), counts.skipped()), (15, 4));
        assert_eq!(totals(&counts), ([15, 30, 45, 0], 60));
        // a reload: another ring of the same process, whose drops go on
        counts.ring(2, &facts(7, &["a"]));
        assert!(counts.newest().is_none());
        let mut after = frame(2, &[]);
        after.info = SlotInfo { dropped: 96, dropped_busy: 16, dropped_source: 32, dropped_corrupt: 48, failed: 64, ..after.info };
        counts.frame(&after, 7);
        assert_eq!((counts.published(), counts.skipped()), (17, 4));
        assert_eq!(totals(&counts), ([16, 32, 48, 0], 64));
        // a restart, whose numbers are larger by chance
        counts.away();
        assert!(!counts.up() && counts.writer_pid().is_none());
        counts.ring(3, &facts(8, &["a"]));
        counts.frame(&frame(100, &[]), 8);
        assert_eq!(counts.published(), 117);
        assert_eq!(totals(&counts), ([116, 232, 348, 0], 464));
    }

    #[test]
    fn an_old_daemon_tells_neither_causes_nor_failures() {
        let mut counts = Counts::default();
        counts.ring(1, &RingFacts { abi_version: 1, ..facts(7, &[]) });
        let mut old = frame(1, &[]);
        old.info = SlotInfo { dropped: 9, dropped_busy: 0, dropped_source: 0, dropped_corrupt: 0, failed: 0, ..old.info };
        counts.frame(&old, 1);
        let losses = counts.losses().unwrap();
        assert_eq!(losses.dropped.map(|(_, total)| total.get()), [0, 0, 0, 9]);
        assert!(losses.failed.is_none());
    }

    #[test]
    fn classes_are_counted_by_name() {
        let mut counts = Counts::default();
        counts.ring(1, &facts(7, &["cup", "", "cup", "dog"]));
        counts.frame(&frame(1, &[0, 2, 3, 3, 3, 900]), 1);
        counts.frame(&frame(2, &[0]), 1);
        let rows = |counts: &Counts| counts.classes().iter().map(|c| (c.label.clone(), c.segments, c.frames)).collect::<Vec<_>>();
        let row = |label: &str, segments, frames| (label.to_owned(), segments, frames);
        assert_eq!(rows(&counts), [row("cup", 1, 2), row(OTHER, 0, 1), row("dog", 0, 1)]);
        // another model: what has the same name goes on, what is gone has no line
        counts.ring(2, &facts(7, &["dog", "cat"]));
        assert_eq!(rows(&counts), [row("dog", 0, 1), row("cat", 0, 0)]);
        let many: Vec<String> = (0..CLASSES_MAX + 5).map(|i| i.to_string()).collect();
        let (classes, line_of) = lines(&many, &[]);
        assert_eq!(classes.len(), CLASSES_MAX + 1);
        assert!(line_of[CLASSES_MAX..].iter().all(|&line| classes[line].label == OTHER));
    }
}
