//! Checks a driver's time stamps against the clock.
//!
//! A driver stamps its frames with CLOCK_MONOTONIC (<https://docs.kernel.org/userspace-api/media/v4l/buffer.html>), but some stamp with
//! another clock under that flag, with a camera's own badly converted one, or not at all. A stamp in the
//! future, or long before the frame could have been waiting, is wrong; the time of the frame's arrival replaces it.

/// A stamp that is ahead by less was rounded or interpolated; it is replaced without a warning.
const AHEAD_NS: u64 = 100_000_000;

/// Checks the stamps of one stream.
#[derive(Debug)]
pub(super) struct Stamps {
    /// The longest way of a frame: exposure, transfer, the driver's work.
    patience_ns: u64,
    /// When the stream was last emptied, and the time before.
    turns_ns: [u64; 2],
    /// Whether the warning was logged.
    told: bool,
}

impl Stamps {
    pub fn new(patience_ns: u64, now_ns: u64) -> Stamps {
        Stamps { patience_ns, turns_ns: [now_ns; 2], told: false }
    }

    /// The stream was emptied at `now_ns`: later frames were not there yet. After a pause of this program frames are old, and their
    /// stamps are still right.
    pub fn turn(&mut self, now_ns: u64) {
        self.turns_ns = [self.turns_ns[1], now_ns];
    }

    /// The capture time of a frame that was found at `now_ns`: its stamp if that is plausible, else its arrival. Warns once, with `name`.
    pub fn validate(&mut self, stamp_ns: Option<u64>, now_ns: u64, name: &str) -> u64 {
        let Some(stamp_ns) = stamp_ns else { return now_ns };
        let oldest_ns = self.turns_ns[0].saturating_sub(self.patience_ns);
        if (oldest_ns..=now_ns).contains(&stamp_ns) {
            return stamp_ns;
        }
        let (apart, word) = if stamp_ns > now_ns { (stamp_ns - now_ns, "ahead") } else { (now_ns - stamp_ns, "behind") };
        if (stamp_ns < now_ns || apart > AHEAD_NS) && !std::mem::replace(&mut self.told, true) {
            let seconds = apart as f64 / 1e9;
            log::warn!(
                "camera {name}: its time stamps are {seconds:.1} s {word} of the clock; such frames carry the time of their arrival"
            );
        }
        now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_cannot_be_is_replaced_by_the_arrival_and_told_once() {
        for (stamp, expected, told) in [
            (Some(99 * SECOND), 99 * SECOND, false),
            (Some(100 * SECOND), 100 * SECOND, false),
            (Some(97 * SECOND), 97 * SECOND, false),
            (None, 100 * SECOND, false),
            (Some(100 * SECOND + 5_000_000), 100 * SECOND, false),
            (Some(101 * SECOND), 100 * SECOND, true),
            (Some(u64::MAX), 100 * SECOND, true),
            (Some(96 * SECOND), 100 * SECOND, true),
            (Some(0), 100 * SECOND, true),
        ] {
            let mut stamps = Stamps::new(3 * SECOND, 100 * SECOND);
            stamps.turn(100 * SECOND);
            assert_eq!((stamps.validate(stamp, 100 * SECOND, "C"), stamps.told), (expected, told), "{stamp:?}");
        }
    }

    #[test]
    fn frames_that_waited_for_us_keep_their_time() {
        let mut stamps = Stamps::new(3 * SECOND, 100 * SECOND);
        // stopped for a minute (SIGSTOP), the buffers were filled at its beginning
        stamps.turn(160 * SECOND);
        assert_eq!(stamps.validate(Some(101 * SECOND), 160 * SECOND, "C"), 101 * SECOND);
        stamps.turn(161 * SECOND);
        assert_eq!(stamps.validate(Some(102 * SECOND), 161 * SECOND, "C"), 161 * SECOND, "it was not there a second ago");
    }
}
