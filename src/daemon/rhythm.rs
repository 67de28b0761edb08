//! When the next frame of a source without a rhythm of its own is due.

use std::time::{Duration, Instant};

/// Beats at a fixed interval. Who comes late starts the rhythm anew instead of catching up with a burst.
#[derive(Debug)]
pub struct Rhythm {
    interval: Duration,
    due: Instant,
}

impl Rhythm {
    /// The first beat is at `now`.
    pub fn new(interval: Duration, now: Instant) -> Rhythm {
        Rhythm { interval, due: now }
    }

    /// The beat to wait for, asked for at `now`.
    pub fn next(&mut self, now: Instant) -> Instant {
        if self.due + self.interval < now {
            self.due = now;
        }
        let beat = self.due;
        self.due += self.interval;
        beat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_an_interval_apart_however_long_the_work_takes() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut rhythm = Rhythm::new(Duration::from_millis(100), start);
        // (asked at, beat): in time, a little late, in time again
        for (asked, beat) in [(0, 0), (10, 100), (150, 200), (299, 300)] {
            assert_eq!(rhythm.next(at(asked)), at(beat), "asked at {asked} ms");
        }
    }

    #[test]
    fn who_is_late_by_a_beat_starts_anew_and_makes_no_burst() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut rhythm = Rhythm::new(Duration::from_millis(100), start);
        for (asked, beat) in [(0, 0), (950, 950), (960, 1050), (1051, 1150)] {
            assert_eq!(rhythm.next(at(asked)), at(beat), "asked at {asked} ms");
        }
    }
}
