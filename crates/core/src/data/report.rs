//! What happened to one frame on its way.

/// The stages of the frame path, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Preprocess,
    Infer,
    Segment,
    Publish,
}

impl Stage {
    pub const ALL: [Stage; 4] = [Stage::Preprocess, Stage::Infer, Stage::Segment, Stage::Publish];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Preprocess => "preprocess",
            Stage::Infer => "infer",
            Stage::Segment => "segment",
            Stage::Publish => "publish",
        }
    }
}

/// Microseconds per stage of one frame, indexed by [`Stage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    pub micros: [u32; 4],
}

impl StageTimes {
    pub fn total_us(&self) -> u64 {
        self.micros.iter().map(|&us| u64::from(us)).sum()
    }
}

/// One frame's accounts: published beside its masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameReport {
    /// The source's frame counter.
    pub sequence: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub captured_ns: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub published_ns: u64,
    /// Frames that the source produced and nobody processed since the daemon started.
    pub dropped: u64,
    pub times: StageTimes,
    /// At its publication the frame was older than the configuration allows. The sink decides it.
    pub stale: bool,
    /// The source gives no frames; the id map is empty.
    pub no_signal: bool,
}
