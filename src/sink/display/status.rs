//! Frames per second and temperature.

use std::path::Path;

use eomt_edge_host::{bounds, files};

/// Rate over about a second of frames.
#[derive(Debug, Default)]
pub struct Meter {
    /// (frames published, nanoseconds) at the start of the current second.
    start: Option<(u64, u64)>,
    rate: Option<f64>,
}

const SECOND: u64 = 1_000_000_000;

impl Meter {
    /// Frames per second after `published` frames at `now_ns`, once that is known.
    pub fn rate(&mut self, published: u64, now_ns: u64) -> Option<f64> {
        let (frames, ns) = *self.start.get_or_insert((published, now_ns));
        let elapsed = now_ns.saturating_sub(ns);
        if elapsed >= SECOND {
            self.rate = Some(published.saturating_sub(frames) as f64 * SECOND as f64 / elapsed as f64);
            self.start = Some((published, now_ns));
        }
        self.rate
    }
}

/// Degrees Celsius of the processor, if the kernel tells (Documentation/driver-api/thermal/sysfs-api.rst: millidegrees).
pub fn temperature(zone: &Path) -> Option<f64> {
    let millidegrees: f64 = files::read_text(zone, &bounds::SYSTEM).ok()?.trim().parse().ok()?;
    Some(millidegrees / 1000.0)
}

/// One line for people; empty when nothing is known.
pub fn line(rate: Option<f64>, degrees: Option<f64>) -> String {
    let rate = rate.map(|rate| if rate < 10.0 { format!("{rate:.1} fps") } else { format!("{rate:.0} fps") });
    let degrees = degrees.map(|degrees| format!("{degrees:.0}\u{b0}C"));
    [rate, degrees].into_iter().flatten().collect::<Vec<_>>().join(" ")
}
