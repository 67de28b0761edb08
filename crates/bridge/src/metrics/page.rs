//! The page: counts and facts as Prometheus or OpenMetrics text.
//!
//! Invariants: a metric without a value has no lines at all; units are seconds, bytes and degrees Celsius; names never change their meaning.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, GaugeValueEncoder, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::counts::{Counts, STAGES};
use super::machine::Facts;

/// Most characters of a value of `eomt_model_info`.
const INFO_CHARS_MAX: usize = 200;

/// What a scraper asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// By the request's `Accept`.
    pub fn from_accept(accept: &str) -> Format {
        let wanted = accept.split(',').any(|kind| {
            let mut parts = kind.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let refused = parts.any(|part| part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0));
            name.eq_ignore_ascii_case("application/openmetrics-text") && !refused
        });
        if wanted { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The answer's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The page of `counts` and `facts` at `now_ns`, CLOCK_MONOTONIC.
pub fn render(counts: &Counts, facts: &Facts, now_ns: u64, format: Format) -> String {
    // a registry keeps what it encodes; this one lives as long as the page, so what the counts say is written down first
    let mut registry = Registry::with_prefix("eomt");
    registry.register_collector(Box::new(Lines(lines(counts, facts, now_ns))));
    let mut page = String::with_capacity(16 << 10);
    let written = match format {
        Format::Prometheus => prometheus_text::encode(&mut page, &registry),
        Format::OpenMetrics => text::encode(&mut page, &registry),
    };
    // a String takes everything
    debug_assert!(written.is_ok());
    page
}

/// Labels of a line.
type Labels = Vec<(&'static str, String)>;

/// All lines of a metric.
#[derive(Debug)]
enum Rows {
    Counter(Vec<(Labels, u64)>),
    Gauge(Vec<(Labels, Value)>),
    Histogram(Vec<(Labels, Histogram)>),
}

/// A gauge's value, written as what it is: bytes and counts without a point.
#[derive(Debug, Clone, Copy)]
enum Value {
    Whole(u64),
    Real(f64),
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Value::Whole(value) => value.encode(encoder),
            Value::Real(value) => value.encode(encoder),
        }
    }
}

#[derive(Debug)]
struct Line {
    name: &'static str,
    help: &'static str,
    rows: Rows,
}

#[derive(Debug)]
struct Lines(Vec<Line>);

impl Collector for Lines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| line.encode(&mut encoder))
    }
}

impl Line {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut write = |kind, rows: &mut dyn Iterator<Item = (&Labels, Box<dyn EncodeMetric>)>| {
            let mut rows = rows.peekable();
            if rows.peek().is_none() {
                return Ok(());
            }
            let mut encoder = encoder.encode_descriptor(self.name, self.help, None, kind)?;
            for (labels, metric) in rows {
                metric.encode(encoder.encode_family(labels)?)?;
            }
            Ok(())
        };
        match &self.rows {
            Rows::Counter(rows) => write(MetricType::Counter, &mut rows.iter().map(|(l, v)| (l, Box::new(ConstCounter::new(*v)) as _))),
            Rows::Gauge(rows) => write(MetricType::Gauge, &mut rows.iter().map(|(l, v)| (l, Box::new(ConstGauge::new(*v)) as _))),
            Rows::Histogram(rows) => write(MetricType::Histogram, &mut rows.iter().map(|(l, v)| (l, Box::new(v.clone()) as _))),
        }
    }
}

fn lines(counts: &Counts, facts: &Facts, now_ns: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    daemon(&mut lines, counts, now_ns);
    frames(&mut lines, counts);
    classes(&mut lines, counts);
    machine(&mut lines, facts);
    lines
}

/// A gauge without labels; none without a value.
fn one(value: Option<Value>) -> Rows {
    Rows::Gauge(value.map(|value| (Labels::new(), value)).into_iter().collect())
}

fn flag(value: bool) -> Value {
    Value::Whole(value.into())
}

fn seconds_since(ns: u64, now_ns: u64) -> Value {
    Value::Real(now_ns.saturating_sub(ns) as f64 / 1e9)
}

fn daemon(lines: &mut Vec<Line>, counts: &Counts, now_ns: u64) {
    let mut add = |name, help, rows| lines.push(Line { name, help, rows });
    let newest = counts.newest().filter(|_| counts.up());
    add("up", "Whether the daemon serves its masks", one(Some(flag(counts.up()))));
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    add("build_info", "The program that serves these metrics", Rows::Gauge(vec![(version, Value::Whole(1))]));
    let info = newest.map(|newest| (model(counts, &newest.model_hash), Value::Whole(1)));
    add("model_info", "The model that runs", Rows::Gauge(info.into_iter().collect()));
    add("signal", "Whether the source gives frames", one(newest.map(|newest| flag(newest.signal))));
    add("stale", "Whether the newest picture was too old when its masks were published", one(newest.map(|newest| flag(newest.stale))));
    let captured = counts.newest().filter(|newest| newest.captured_ns != 0);
    let age = captured.map(|newest| seconds_since(newest.captured_ns, now_ns));
    add("last_frame_age_seconds", "Time since the newest picture with masks was taken", one(age));
    let heartbeat = counts.up().then(|| seconds_since(counts.heartbeat_ns(), now_ns));
    add("heartbeat_age_seconds", "Time since the daemon's last sign of life", one(heartbeat));
    add("frame_width_pixels", "Columns of the newest map", one(newest.map(|newest| Value::Whole(newest.size.0.into()))));
    add("frame_height_pixels", "Rows of the newest map", one(newest.map(|newest| Value::Whole(newest.size.1.into()))));
}

fn model(counts: &Counts, hash: &str) -> Labels {
    let facts = counts.facts();
    let short = |text: &str| text.chars().take(INFO_CHARS_MAX).collect::<String>();
    let fallback = facts.metadata.get("fallback").and_then(serde_json::Value::as_bool).unwrap_or(false);
    vec![
        ("name", short(facts.text("name"))),
        ("task", short(facts.text("task"))),
        ("sha256_begin", hash.to_owned()),
        ("classes", facts.labels.len().to_string()),
        ("program", short(facts.text("program"))),
        ("fallback", fallback.to_string()),
    ]
}

fn frames(lines: &mut Vec<Line>, counts: &Counts) {
    let mut add = |name, help, rows| lines.push(Line { name, help, rows });
    let total = |value| Rows::Counter(vec![(Labels::new(), value)]);
    add("frames_published", "Maps that the daemon published, empty ones without signal included", total(counts.published()));
    add("frames_skipped", "Published maps that this exporter was too slow to look at", total(counts.skipped()));
    let causes = counts.losses().into_iter().flat_map(|losses| losses.dropped);
    let causes = causes.map(|(cause, total)| (vec![("cause", cause.to_owned())], total.get())).collect();
    add("frames_dropped", "Frames that the daemon did not process", Rows::Counter(causes));
    let failed = counts.losses().and_then(|losses| losses.failed).map(|total| (Labels::new(), total.get()));
    add("frames_failed", "Frames whose processing came to nothing", Rows::Counter(failed.into_iter().collect()));
    let stages = STAGES.iter().zip(counts.stages());
    let stages = stages.map(|(stage, histogram)| (vec![("stage", (*stage).to_owned())], histogram.clone())).collect();
    add("stage_duration_seconds", "Time that a frame took in each stage", Rows::Histogram(stages));
    let age = vec![(Labels::new(), counts.age().clone())];
    add("frame_age_seconds", "Time from a picture's capture to the publication of its masks", Rows::Histogram(age));
}

fn classes(lines: &mut Vec<Line>, counts: &Counts) {
    let label = |name: &str| vec![("class", name.to_owned())];
    let now = counts.classes().iter().filter(|_| counts.up() && counts.newest().is_some());
    let now = now.map(|class| (label(&class.label), Value::Whole(class.segments))).collect();
    lines.push(Line { name: "segments", help: "Segments of the newest frame", rows: Rows::Gauge(now) });
    let ever = counts.classes().iter().map(|class| (label(&class.label), class.frames)).collect();
    lines.push(Line { name: "class_frames", help: "Frames in which the class was seen", rows: Rows::Counter(ever) });
}

fn machine(lines: &mut Vec<Line>, facts: &Facts) {
    let mut add = |name, help, rows| lines.push(Line { name, help, rows });
    add("daemon_memory_resident_bytes", "Memory of the daemon", one(facts.resident.map(Value::Whole)));
    add("daemon_memory_peak_bytes", "The most memory that the daemon had", one(facts.peak.map(Value::Whole)));
    let zones = facts.zones.iter().map(|zone| {
        let labels = vec![("zone", zone.zone.to_string()), ("type", zone.kind.clone())];
        (labels, Value::Real(zone.celsius))
    });
    add("temperature_celsius", "Temperature of a thermal zone", Rows::Gauge(zones.collect()));
    let device = |device: usize, kind: &str| vec![("device", device.to_string()), ("type", kind.to_owned())];
    let cooling = facts.cooling.iter().map(|cooling| (device(cooling.device, &cooling.kind), Value::Whole(cooling.state)));
    add("cooling_state", "How much a fan, or a processor's lower frequency, cools now", Rows::Gauge(cooling.collect()));
    let most = facts.cooling.iter().map(|cooling| (device(cooling.device, &cooling.kind), Value::Whole(cooling.most)));
    add("cooling_state_max", "The most that it can", Rows::Gauge(most.collect()));
    let limits = facts.limits.iter().map(|&(limit, now)| (vec![("limit", limit.to_owned())], flag(now)));
    add("throttled", "What the firmware of a Raspberry Pi limits now", Rows::Gauge(limits.collect()));
    let throttles = facts.throttles.iter().map(|&(cpu, scope, count)| {
        let labels = vec![("cpu", cpu.to_string()), ("scope", scope.to_owned())];
        (labels, count)
    });
    add("cpu_throttles", "How often a processor was too hot, since the machine started", Rows::Counter(throttles.collect()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use eomt_edge_client::MaskFrame;
    use eomt_edge_client::layout::{SLOT_NO_SIGNAL, SegmentRow, SlotInfo};

    use super::super::machine::{Cooling, Zone};
    use super::*;
    use crate::masks::RingFacts;

    fn full(format: Format) -> String {
        let mut counts = Counts::default();
        let metadata = serde_json::json!({ "name": "a \"b\"\n", "fallback": true });
        counts.ring(1, &RingFacts { labels: vec!["cup".to_owned()], metadata, writer_pid: 7, abi_version: 2 });
        let info = SlotInfo { sequence: 1, captured_ns: 1_000_000_000, published_ns: 1_100_000_000, ..SlotInfo::default() };
        counts.frame(&MaskFrame { info, segments: vec![SegmentRow::default()], ..MaskFrame::default() }, 1_500_000_000);
        let facts = Facts {
            zones: vec![Zone { zone: 0, kind: "cpu".to_owned(), celsius: 41.5 }],
            cooling: vec![Cooling { device: 0, kind: "fan".to_owned(), state: 1, most: 3 }],
            throttles: vec![(0, "core", 3)],
            limits: vec![("undervoltage", true)],
            resident: Some(1 << 20),
            peak: Some(1 << 21),
        };
        render(&counts, &facts, 2_000_000_000, format)
    }

    /// Words that begin with `eomt_`.
    fn names(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("eomt_")).map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_as_prometheus_reads_them() {
        let page = full(Format::Prometheus);
        for line in [
            "# TYPE eomt_up gauge",
            "eomt_up 1",
            "eomt_signal 1",
            "eomt_last_frame_age_seconds 1.0",
            "eomt_heartbeat_age_seconds 0.5",
            "# TYPE eomt_frames_published_total counter",
            "eomt_frames_published_total 1",
            "eomt_frames_dropped_total{cause=\"busy\"} 0",
            "eomt_stage_duration_seconds_bucket{stage=\"infer\",le=\"+Inf\"} 1",
            "eomt_frame_age_seconds_bucket{le=\"0.1\"} 1",
            "eomt_frame_age_seconds_bucket{le=\"0.075\"} 0",
            "eomt_segments{class=\"cup\"} 1",
            "eomt_temperature_celsius{zone=\"0\",type=\"cpu\"} 41.5",
            "eomt_throttled{limit=\"undervoltage\"} 1",
            "eomt_cpu_throttles_total{cpu=\"0\",scope=\"core\"} 3",
            "eomt_daemon_memory_resident_bytes 1048576",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
        assert!(page.contains("name=\"a \\\"b\\\"\\n\",task=\"\""), "{page}");
        assert!(full(Format::OpenMetrics).ends_with("\n# EOF\n"));
    }

    #[test]
    fn maps_without_signal_have_no_times() {
        let mut counts = Counts::default();
        counts.ring(1, &RingFacts::default());
        let info = SlotInfo { sequence: 1, captured_ns: 1, published_ns: 40_000_001, stage_us: [0, 20_000, 0, 0], ..SlotInfo::default() };
        counts.frame(&MaskFrame { info, ..MaskFrame::default() }, 1);
        let info = SlotInfo { sequence: 2, published_ns: 90_000_000, flags: SLOT_NO_SIGNAL, ..info };
        counts.frame(&MaskFrame { info, ..MaskFrame::default() }, 1);
        let page = render(&counts, &Facts::default(), 5, Format::Prometheus);
        for line in [
            "eomt_signal 0",
            "eomt_frames_published_total 2",
            "eomt_frame_age_seconds_count 1",
            "eomt_frame_age_seconds_sum 0.04",
            "eomt_stage_duration_seconds_count{stage=\"infer\"} 1",
            "eomt_stage_duration_seconds_sum{stage=\"infer\"} 0.02",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn what_is_unknown_has_no_line() {
        let page = render(&Counts::default(), &Facts::default(), 5, Format::Prometheus);
        assert!(page.contains("\neomt_up 0\n"), "{page}");
        let absent = [
            "signal",
            "segments",
            "last_frame",
            "heartbeat",
            "temperature",
            "daemon_memory",
            "frames_dropped",
            "frames_failed",
            "model_info",
        ];
        for name in absent {
            assert!(!page.contains(&format!("eomt_{name}")), "{name} in\n{page}");
        }
    }

    #[test]
    fn dashboard_and_documentation_name_what_is_exported() {
        let exported = names(&full(Format::Prometheus));
        for (file, text) in [
            ("eomt-edge.json", include_str!("../../../../packaging/grafana/eomt-edge.json")),
            ("metrics.md", include_str!("../../../../docs/metrics.md")),
        ] {
            let unknown: Vec<String> = names(text).difference(&exported).cloned().collect();
            assert!(
                unknown
                    .iter()
                    .all(|name| exported.iter().any(|have| have.strip_prefix(name.as_str()).is_some_and(|rest| matches!(rest, "_bucket")))),
                "{file}: {unknown:?}"
            );
        }
        let told = names(include_str!("../../../../docs/metrics.md"));
        let suffixes = ["_bucket", "_sum", "_count"];
        let missing = exported.iter().filter(|name| !told.contains(*name));
        let missing: Vec<&String> =
            missing.filter(|name| !suffixes.iter().any(|end| name.strip_suffix(end).is_some_and(|name| told.contains(name)))).collect();
        assert!(missing.is_empty(), "metrics.md does not tell of {missing:?}");
    }

    #[test]
    fn openmetrics_for_who_asks() {
        let both = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, format) in [
            (both, Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
            (",;,=;q=", Format::Prometheus),
        ] {
            assert_eq!(Format::from_accept(accept), format, "{accept}");
        }
    }
}
