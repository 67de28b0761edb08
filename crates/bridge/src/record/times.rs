//! Times of a frame on the wall clock.

use eomt_edge_client::MaskFrame;

use crate::clock::StampClock;

/// When a frame was taken and when its masks were complete, nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Of the source where it has one (a bag's), else the daemon's.
    pub stamp_ns: u64,
    /// Always the daemon's.
    pub published_ns: u64,
}

impl Times {
    pub fn of(frame: &MaskFrame, clock: &mut StampClock) -> Times {
        let captured_ns = clock.stamp(frame.info.captured_ns);
        let published_ns = captured_ns.saturating_add(frame.info.published_ns.saturating_sub(frame.info.captured_ns));
        Times { stamp_ns: frame.stamp_ns().unwrap_or(captured_ns), published_ns }
    }
}
