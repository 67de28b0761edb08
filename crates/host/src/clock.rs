//! The clock of frames.

use eomt_edge_core::pipeline::Clock;
use rustix::time::{ClockId, clock_gettime};

/// The kernel's CLOCK_MONOTONIC (`clock_gettime(2)`), which V4L2 timestamps and readers of the ring share.
#[derive(Debug, Clone, Copy, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now_ns(&self) -> u64 {
        let time = clock_gettime(ClockId::Monotonic);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}
