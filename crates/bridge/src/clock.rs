//! From the ring's clock (CLOCK_MONOTONIC) to that of messages (CLOCK_REALTIME).
//!
//! Invariants: both clocks are read within `BRACKET_NS`, or as close together as several attempts give; a step of the wall clock (NTP's first, a
//! person's) is told once and changes no stamp that was given before.

use eomt_edge_client::MaskFrame;
use rustix::time::{ClockId, clock_gettime};

/// Two readings of the monotonic clock this close around one of the wall clock are close enough: nanoseconds.
const BRACKET_NS: u64 = 20_000;
const ATTEMPTS: usize = 5;
/// A change of the difference that is no drift, nanoseconds: NTP slews by less than a millisecond a second.
const STEP_NS: i64 = 10_000_000;

/// Gives stamps to frames.
#[derive(Debug, Default)]
pub struct StampClock {
    offset_ns: Option<i64>,
}

impl StampClock {
    /// When a frame's picture was taken: the source's own stamp where it has one (a recording's), else by the wall clock. A frame without a
    /// picture (no signal) tells about the moment of its publication.
    pub fn of(&mut self, frame: &MaskFrame) -> u64 {
        let info = &frame.info;
        match frame.stamp_ns() {
            Some(stamp) if !frame.no_signal() => stamp,
            _ => self.stamp(if frame.no_signal() { info.published_ns } else { info.captured_ns }),
        }
    }

    /// The wall clock's time of `monotonic_ns`: nanoseconds since 1970. To be called once for each frame.
    pub fn stamp(&mut self, monotonic_ns: u64) -> u64 {
        let offset = self.take(read_offset());
        u64::try_from(monotonic_ns.cast_signed().saturating_add(offset)).unwrap_or(0)
    }

    fn take(&mut self, offset: i64) -> i64 {
        if let Some(before) = self.offset_ns.replace(offset)
            && (offset - before).abs() > STEP_NS
        {
            let seconds = (offset - before) as f64 / 1e9;
            log::warn!("the wall clock was set by {seconds:+.3} s: stamps from here on follow it");
        }
        offset
    }
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds, by the closest of some readings.
fn read_offset() -> i64 {
    let mut best = (u64::MAX, 0);
    for _ in 0..ATTEMPTS {
        let before = now(ClockId::Monotonic);
        let wall = now(ClockId::Realtime);
        let after = now(ClockId::Monotonic);
        let width = after.saturating_sub(before);
        if width < best.0 {
            best = (width, wall.cast_signed() - (before + width / 2).cast_signed());
        }
        if width <= BRACKET_NS {
            break;
        }
    }
    best.1
}

fn now(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CLOCK_MONOTONIC, nanoseconds.
pub fn monotonic_ns() -> u64 {
    now(ClockId::Monotonic)
}

/// CLOCK_REALTIME, nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    now(ClockId::Realtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_the_wall_clock_s_time() {
        let mut clock = StampClock::default();
        let low = realtime_ns();
        let stamp = clock.stamp(monotonic_ns());
        let high = realtime_ns();
        // the middle of the bracket is off by half its width at most
        assert!(stamp + BRACKET_NS * 1000 >= low && stamp <= high + BRACKET_NS * 1000, "{low} {stamp} {high}");
    }

    #[test]
    fn a_source_s_own_stamp_stays() {
        let mut clock = StampClock::default();
        let mut frame = MaskFrame::default();
        (frame.info.stamp_ns, frame.info.published_ns) = (1_600_000_000_000_000_000, monotonic_ns());
        assert_eq!(clock.of(&frame), 1_600_000_000_000_000_000);
        // nothing was taken: now
        frame.info.flags = eomt_edge_client::layout::SLOT_NO_SIGNAL;
        assert!(clock.of(&frame) > 1_600_000_000_000_000_000);
    }

    #[test]
    fn a_step_changes_later_stamps_only() {
        let mut clock = StampClock::default();
        assert_eq!(clock.take(5), 5);
        assert_eq!(clock.take(5 + 3_600_000_000_000), 5 + 3_600_000_000_000);
        assert_eq!(clock.offset_ns, Some(5 + 3_600_000_000_000));
    }
}
