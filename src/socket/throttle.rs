//! Keeps out of the log what clients can provoke at will: of each kind the first line at once, then one in ten seconds at most,
//! which tells how many were left out.
//!
//! Invariant: each event is in a line or in the count of a later one. The clock is handed in.

use std::time::{Duration, Instant};

/// From line to line.
pub const PERIOD: Duration = Duration::from_secs(10);

/// One kind of lines.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// An event at `now`. `Some(n)`: write it down, and that `n` before it were not.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        if !self.is_open(now) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }

    /// Without an event, for the end of a flood: how many lines were left out, once it is time for a line.
    pub fn overdue(&mut self, now: Instant) -> Option<u64> {
        if self.left_out == 0 || !self.is_open(now) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }

    /// Warns with `line` unless it is too early.
    pub fn warn(&mut self, now: Instant, line: impl FnOnce() -> String) {
        match self.admit(now) {
            Some(0) => log::warn!("{}", line()),
            Some(more) => log::warn!("{} ({more} more like it before)", line()),
            None => {}
        }
    }

    fn is_open(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_ten_seconds_and_none_of_it_is_lost() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let mut lines = Vec::new();
        // 110,116 events within 30 seconds.
        for event in 0..110_116u64 {
            let now = start + Duration::from_nanos(event * 30_000_000_000 / 110_116);
            lines.extend(throttle.overdue(now).map(|left_out| (false, left_out)));
            lines.extend(throttle.admit(now).map(|left_out| (true, left_out)));
        }
        lines.extend(throttle.overdue(start + Duration::from_secs(60)).map(|left_out| (false, left_out)));
        assert!(lines.len() <= 4 && lines[0] == (true, 0), "{lines:?}");
        let told: u64 = lines.iter().map(|&(event, left_out)| u64::from(event) + left_out).sum();
        assert_eq!(told, 110_116);
        assert_eq!(throttle.overdue(start + Duration::from_secs(120)), None);
    }

    #[test]
    fn rare_events_are_all_written_down() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert!((0..5).all(|event| throttle.admit(start + event * PERIOD) == Some(0)));
    }
}
