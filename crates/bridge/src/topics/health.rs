//! How the daemon is doing, as diagnostic_msgs tells it: once a second, whether frames come or not.
//!
//! Invariants: no frame is no news about the last one: a daemon that is away, and one that is silent, are errors, not the state before.

use std::path::Path;

use eomt_edge_client::MaskFrame;
use eomt_edge_files::files::hex;
use eomt_edge_ros::Message;
use eomt_edge_ros::messages::builtin_interfaces::Time;
use eomt_edge_ros::messages::diagnostic_msgs::{DiagnosticArray, DiagnosticStatus, ERROR, KeyValue, OK, WARN};
use eomt_edge_ros::messages::std_msgs::Header;

use crate::masks::Masks;

const SECOND_NS: u64 = 1_000_000_000;
/// A daemon that publishes nothing for so long does not even tell that it has no signal.
const SILENT_NS: u64 = 5 * SECOND_NS;

/// Counts frames between two reports.
#[derive(Debug)]
pub struct Health {
    /// What the report is about: `eomt_edge: masks`.
    name: String,
    socket: String,
    frames: u64,
    last: Option<Last>,
    reported_ns: Option<u64>,
}

/// The last frame.
#[derive(Debug)]
struct Last {
    at_ns: u64,
    no_signal: bool,
    stale: bool,
    latency_ns: u64,
    values: Vec<(&'static str, String)>,
    source: u32,
}

impl Health {
    /// `node`: the reporter's name.
    pub fn new(node: &str, socket: &Path) -> Health {
        let (name, socket) = (format!("{node}: masks"), socket.display().to_string());
        Health { name, socket, frames: 0, last: None, reported_ns: None }
    }

    /// A frame came. Times: CLOCK_MONOTONIC, nanoseconds.
    pub fn frame(&mut self, frame: &MaskFrame, now_ns: u64) {
        let (info, drops) = (&frame.info, frame.drops());
        self.frames += 1;
        self.last = Some(Last {
            at_ns: now_ns,
            no_signal: frame.no_signal(),
            stale: frame.stale(),
            latency_ns: info.published_ns.saturating_sub(info.captured_ns),
            values: vec![
                ("sequence", info.sequence.to_string()),
                ("segments", frame.segments.len().to_string()),
                ("dropped", drops.total.to_string()),
                ("dropped_busy", drops.busy.to_string()),
                ("dropped_source", drops.source.to_string()),
                ("dropped_corrupt", drops.corrupt.to_string()),
                ("failed", frame.failed().to_string()),
                ("model_sha256", hex(&info.model_hash)),
            ],
            source: frame.source_id(),
        });
    }

    /// Whether a second has passed since the last report.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.reported_ns.is_none_or(|at| now_ns.saturating_sub(at) >= SECOND_NS)
    }

    /// The report, as CDR. `stamp_ns`: nanoseconds since 1970.
    pub fn report(&mut self, masks: &Masks, now_ns: u64, stamp_ns: u64) -> Vec<u8> {
        let status = self.status(masks.is_connected(), now_ns);
        let mut status =
            DiagnosticStatus { hardware_id: self.last.as_ref().map_or_else(String::new, |last| format!("{:08x}", last.source)), ..status };
        let facts = masks.facts();
        for (key, value) in [("model", facts.text("name")), ("program", facts.text("program"))] {
            status.values.push(KeyValue { key: key.into(), value: value.into() });
        }
        status.values.push(KeyValue { key: "bridge_skipped".into(), value: masks.skipped().to_string() });
        let header = Header { stamp: Time::from_ns(stamp_ns), frame_id: String::new() };
        DiagnosticArray { header, status: vec![status] }.to_cdr()
    }

    fn status(&mut self, connected: bool, now_ns: u64) -> DiagnosticStatus {
        let seconds = self.reported_ns.map_or(1.0, |at| now_ns.saturating_sub(at) as f64 / 1e9);
        let rate = self.frames as f64 / seconds.max(0.001);
        (self.frames, self.reported_ns) = (0, Some(now_ns));
        let mut status = DiagnosticStatus { name: self.name.clone(), ..Default::default() };
        (status.level, status.message) = self.verdict(connected, now_ns);
        status.values.push(KeyValue { key: "rate_hz".into(), value: format!("{rate:.2}") });
        if let Some(last) = &self.last {
            status.values.push(KeyValue { key: "latency_ms".into(), value: format!("{:.1}", last.latency_ns as f64 / 1e6) });
            status.values.extend(last.values.iter().map(|(key, value)| KeyValue { key: (*key).into(), value: value.clone() }));
        }
        status
    }

    fn verdict(&self, connected: bool, now_ns: u64) -> (u8, String) {
        let Some(last) = self.last.as_ref().filter(|_| connected) else {
            let what = if connected { "no frame yet from the daemon at" } else { "no daemon at" };
            return (ERROR, format!("{what} {}", self.socket));
        };
        let silent = now_ns.saturating_sub(last.at_ns);
        if silent >= SILENT_NS {
            (ERROR, format!("the daemon has published nothing for {} s", silent / SECOND_NS))
        } else if last.no_signal {
            (ERROR, "no signal: the source gives no frames".into())
        } else if last.stale {
            (WARN, "stale: pictures are old when their masks are published".into())
        } else {
            (OK, "masks are published".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use eomt_edge_client::layout::{SLOT_NO_SIGNAL, SLOT_STALE};

    use super::*;

    fn health() -> Health {
        Health::new("eomt_edge", Path::new("/run/x.sock"))
    }

    fn frame(flags: u32) -> MaskFrame {
        let mut frame = MaskFrame::default();
        (frame.info.flags, frame.info.captured_ns, frame.info.published_ns) = (flags, 1_000_000, 31_500_000);
        frame
    }

    #[test]
    fn each_state_has_its_level_and_words() {
        let mut health = health();
        assert_eq!(health.verdict(false, 0), (ERROR, "no daemon at /run/x.sock".into()));
        assert_eq!(health.verdict(true, 0), (ERROR, "no frame yet from the daemon at /run/x.sock".into()));
        for (flags, level) in [(0, OK), (SLOT_STALE, WARN), (SLOT_NO_SIGNAL, ERROR), (SLOT_STALE | SLOT_NO_SIGNAL, ERROR)] {
            health.frame(&frame(flags), 7);
            assert_eq!(health.verdict(true, SECOND_NS).0, level, "{flags}");
        }
        health.frame(&frame(0), 7);
        assert_eq!(health.verdict(true, 7 + 6 * SECOND_NS), (ERROR, "the daemon has published nothing for 6 s".into()));
        assert_eq!(health.verdict(false, 8).0, ERROR);
    }

    #[test]
    fn the_rate_counts_since_the_last_report() {
        let mut health = health();
        assert!(health.is_due(0));
        health.status(true, 10 * SECOND_NS);
        assert!(!health.is_due(11 * SECOND_NS - 1) && health.is_due(11 * SECOND_NS));
        (0..30).for_each(|_| health.frame(&frame(0), 12 * SECOND_NS));
        let values = health.status(true, 12 * SECOND_NS).values;
        let value = |key: &str| values.iter().find(|pair| pair.key == key).map(|pair| pair.value.as_str());
        assert_eq!((value("rate_hz"), value("latency_ms"), value("failed")), (Some("15.00"), Some("30.5"), Some("0")));
    }
}
