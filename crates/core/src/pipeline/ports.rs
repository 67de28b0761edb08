//! What the pipeline needs from the outside.

use std::fmt::Debug;
use std::time::Duration;

use crate::data::{Frame, FrameReport, Segment};

/// Why a source gives no frames. The sentence names the directory, file or device.
#[derive(Debug, thiserror::Error)]
#[error("{subject}: {reason}")]
pub struct SourceError {
    /// The directory, file or device.
    pub subject: String,
    /// The rest of the sentence.
    pub reason: String,
    /// False when the next frame may be fine: the caller counts and goes on.
    pub fatal: bool,
}

impl SourceError {
    /// No frame will come any more.
    pub fn fatal(subject: impl Into<String>, reason: impl ToString) -> SourceError {
        SourceError { subject: subject.into(), reason: reason.to_string(), fatal: true }
    }

    /// The next frame may be fine.
    pub fn passing(subject: impl Into<String>, reason: impl ToString) -> SourceError {
        SourceError { subject: subject.into(), reason: reason.to_string(), fatal: false }
    }
}

/// What [`Source::next`] has.
#[derive(Debug, PartialEq)]
pub enum Captured {
    /// The next frame.
    Frame(Frame),
    /// Nothing for now, and the memory that was not needed; ask again.
    NotYet(Vec<u8>),
    /// There will be no more.
    End,
}

/// Frames of a source that reached no stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// The device counted them and never handed them over.
    pub missed: u64,
    /// Ready, but older than another ready one.
    pub stale: u64,
    /// Flagged as corrupted, or incomplete.
    pub broken: u64,
}

/// Where frames come from.
pub trait Source: Send {
    /// For people: what it is.
    fn describe(&self) -> String;

    /// (width, height) that no frame exceeds.
    fn max_size(&self) -> (u32, u32);

    /// Time between frames when the source has no rhythm of its own; `None` when [`Source::next`] waits by itself, zero when
    /// frames come as fast as they are processed.
    fn interval(&self) -> Option<Duration>;

    /// The next frame, taken at `now_ns` unless the device knows better. Returns within a fraction of a second, with a frame or
    /// without, also when it waits for another process. `buffer` is an old frame's memory to reuse.
    fn next(&mut self, now_ns: u64, buffer: Vec<u8>) -> Result<Captured, SourceError>;

    /// What tells the device that gave the last frame apart from others, the same text at each start: a camera's kind, place and serial
    /// number. `None` where the source's name says it all.
    fn device(&self) -> Option<&str> {
        None
    }

    /// Since the start.
    fn losses(&self) -> Losses {
        Losses::default()
    }
}

/// Why a frame could not be published.
#[derive(Debug, thiserror::Error)]
#[error("the masks cannot be published: {0}")]
pub struct SinkError(pub String);

/// What a sink publishes beside the id map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Publication {
    /// Number, times and losses of the frame.
    pub report: FrameReport,
    /// One row per id of the id map.
    pub table: Vec<Segment>,
}

/// Where masks go.
pub trait Sink {
    /// Offers an id map of the frame's size to `fill`, which writes all of it and the publication (an old one, for its memory), then
    /// publishes both.
    fn publish(&mut self, frame: &Frame, fill: &mut dyn FnMut(&mut [u16], &mut Publication)) -> Result<(), SinkError>;
}

/// The sink of tools and tests: keeps the last publication, shows nothing.
#[derive(Debug, Default)]
pub struct NullSink {
    /// `[height, width]` of the last frame.
    pub ids: Vec<u16>,
    /// Of the last frame.
    pub last: Publication,
}

impl Sink for NullSink {
    fn publish(&mut self, frame: &Frame, fill: &mut dyn FnMut(&mut [u16], &mut Publication)) -> Result<(), SinkError> {
        self.ids.resize(frame.width as usize * frame.height as usize, 0);
        fill(&mut self.ids, &mut self.last);
        Ok(())
    }
}

/// CLOCK_MONOTONIC or a stand-in.
pub trait Clock: Send + Sync + Debug {
    /// Nanoseconds since an arbitrary start.
    fn now_ns(&self) -> u64;
}

/// A clock that stands still: for tests and examples.
#[derive(Debug, Clone, Copy, Default)]
pub struct FixedClock(pub u64);

impl Clock for FixedClock {
    fn now_ns(&self) -> u64 {
        self.0
    }
}
