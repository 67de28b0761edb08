//! What happened to one frame on its way.

/// The stages of the frame path, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// JPEG decoding, crop, rotation, colour, resize, normalization.
    Preprocess,
    /// The network.
    Infer,
    /// Logits to ids and table, and the temporal stage if there is one.
    Segment,
    /// From the last id to the readers' notification.
    Publish,
}

impl Stage {
    /// In the order of the frame path.
    pub const ALL: [Stage; 4] = [Stage::Preprocess, Stage::Infer, Stage::Segment, Stage::Publish];

    /// The key in `bench --json`.
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
    /// In the order of [`Stage::ALL`].
    pub micros: [u32; 4],
}

impl StageTimes {
    /// Microseconds of all stages.
    pub fn total_us(&self) -> u64 {
        self.micros.iter().map(|&us| u64::from(us)).sum()
    }
}

/// Frames of the source that gave no masks, since the daemon started, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpublished {
    /// A newer one took their place before the network was free: in the mailbox, or in the driver's queue.
    pub busy: u64,
    /// Lost before the daemon saw them: gaps in the source's own numbers.
    pub source: u64,
    /// They arrived damaged.
    pub corrupt: u64,
    /// The network, its segments or their publication failed.
    pub failed: u64,
}

impl Unpublished {
    /// Those whose processing did not begin: all but the failed ones.
    pub fn dropped(&self) -> u64 {
        self.busy + self.source + self.corrupt
    }
}

/// One frame's accounts: published beside its masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameReport {
    /// The source's frame counter.
    pub sequence: u64,
    /// When the picture was taken: CLOCK_MONOTONIC, nanoseconds.
    pub captured_ns: u64,
    /// When the masks were complete: CLOCK_MONOTONIC, nanoseconds.
    pub published_ns: u64,
    /// The source's own time stamp of the picture: [`Frame::stamp_ns`](super::Frame::stamp_ns).
    pub stamp_ns: u64,
    /// What became of frames without masks.
    pub unpublished: Unpublished,
    /// Microseconds per stage.
    pub times: StageTimes,
    /// At its publication the frame was older than the configuration allows. The sink decides it.
    pub stale: bool,
    /// The source gives no frames; the id map is empty.
    pub no_signal: bool,
}
