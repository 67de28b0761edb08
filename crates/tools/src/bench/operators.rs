//! The network operator by operator: time, work, and the share of the machine's peak.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::model::{Model, Observer, Operator};
use eomt_edge_host::output::say;
use serde_json::{Value, json};

use super::peak::Peak;
use super::summary::{Summary, round};
use super::{BenchOptions, stages};
use crate::progress;

/// The time of each operator of one run, in order of execution.
#[derive(Default)]
struct Stopwatch {
    started: Option<Instant>,
    seen: Vec<(Operator, f64)>,
}

impl Observer for Stopwatch {
    fn before(&mut self) {
        self.started = Some(Instant::now());
    }

    fn after(&mut self, operator: &Operator) {
        let Some(started) = self.started.take() else { return };
        let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        self.seen.push((operator.clone(), milliseconds));
    }
}

/// All operators of one kind, together.
#[derive(Debug, Default)]
struct Kind {
    count: usize,
    ms: f64,
    int8_macs: u64,
    f32_macs: u64,
}

/// The kinds of one run.
fn by_kind(seen: Vec<(Operator, f64)>) -> BTreeMap<String, Kind> {
    let mut kinds = BTreeMap::<String, Kind>::new();
    for (operator, ms) in seen {
        let kind = kinds.entry(operator.kind).or_default();
        kind.count += 1;
        kind.ms += ms;
        kind.int8_macs += operator.int8_macs;
        kind.f32_macs += operator.f32_macs;
    }
    kinds
}

/// The operators of a run, by kind.
pub(super) struct OperatorTable {
    isa: &'static str,
    threads: usize,
    /// The machine's peak on one thread, and on as many as the network has.
    peaks: [Peak; 2],
    /// Time of the observed network.
    frame: Summary,
    /// The longest first.
    kinds: Vec<(String, Kind)>,
}

impl OperatorTable {
    pub fn measure(model: &mut Model, tensor: &Tensor, threads: usize, options: &BenchOptions) -> Result<OperatorTable> {
        let config = stages::config(model, options);
        let (mut times, mut logits) = (Vec::with_capacity(options.frames), Logits::default());
        let mut kinds = BTreeMap::<String, Kind>::new();
        let bar = progress::bar(options.frames as u64, "operators");
        for _ in 0..options.frames {
            let mut watch = Stopwatch::default();
            let started = Instant::now();
            model.run_observed(tensor, |class, kept| stages::keep(class, &config, options.all_queries, kept), &mut logits, &mut watch)?;
            times.push(started.elapsed().as_secs_f64() * 1000.0);
            for (name, seen) in by_kind(watch.seen) {
                let kind = kinds.entry(name).or_insert(Kind { ms: f64::INFINITY, ..Kind::default() });
                *kind = Kind { ms: kind.ms.min(seen.ms), ..seen };
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by(|(_, a), (_, b)| b.ms.total_cmp(&a.ms));
        let isa = model.isa();
        let one = Peak::measure(isa, 1)?;
        let all = if threads > 1 { Peak::measure(isa, threads)? } else { one };
        Ok(OperatorTable { isa: isa.name(), threads, peaks: [one, all], frame: Summary::of(times), kinds })
    }

    /// Share of the frame, GOP/s and share of the peak; the last two only for operators that state their work.
    fn rates(&self, kind: &Kind) -> (f64, Option<(f64, f64)>) {
        let macs = kind.int8_macs + kind.f32_macs;
        let share = kind.ms / self.frame.min;
        let least_ms = self.peaks[1].least_ms(kind.f32_macs, kind.int8_macs);
        (share, (macs > 0 && kind.ms > 0.0).then(|| (2e-6 * macs as f64 / kind.ms, least_ms / kind.ms)))
    }

    pub fn json(&self) -> Value {
        let kinds = self.kinds.iter().map(|(name, kind)| {
            let (share, rates) = self.rates(kind);
            json!({
                "kind": name, "count": kind.count, "ms": round(kind.ms, 4), "share": round(share, 4),
                "int8_macs": kind.int8_macs, "f32_macs": kind.f32_macs,
                "gops": rates.map(|(gops, _)| round(gops, 2)), "share_of_peak": rates.map(|(_, share)| round(share, 4)),
            })
        });
        kinds.collect()
    }

    /// The machine's peak, and the time of the observed network.
    pub fn json_beside(&self) -> [(&'static str, Value); 2] {
        let peak = json!({ "isa": self.isa, "one_thread": self.peaks[0].json(), "all_threads": self.peaks[1].json() });
        [("peak", peak), ("operators_frame", self.frame.json())]
    }

    pub fn print(&self) -> Result<()> {
        say("")?;
        say(format_args!("{:<24}{:>6}{:>10}{:>9}{:>10}{:>10}", "operator", "count", "ms", "share", "GOP/s", "of peak"))?;
        for (name, kind) in &self.kinds {
            let (share, rates) = self.rates(kind);
            let (gops, of_peak) = match rates {
                Some((gops, of_peak)) => (format!("{gops:.1}"), format!("{:.1} %", of_peak * 100.0)),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let share = format!("{:.1} %", share * 100.0);
            say(format_args!("{name:<24}{:>6}{:>10.3}{share:>9}{gops:>10}{of_peak:>10}", kind.count, kind.ms))?;
        }
        let sum: f64 = self.kinds.iter().map(|(_, kind)| kind.ms).sum();
        let count: usize = self.kinds.iter().map(|(_, kind)| kind.count).sum();
        let share = format!("{:.1} %", 100.0 * sum / self.frame.min);
        say(format_args!("{:<24}{count:>6}{sum:>10.3}{share:>9}", "sum"))?;
        say(format_args!("{:<24}{:>16.3}   the fastest whole run; above, the fastest of each kind", "network", self.frame.min))?;
        let [one, all] = &self.peaks;
        say(format_args!("peak of {}, GOP/s, one thread: f32 {:.0}, int8 {:.0}", self.isa, one.f32_gops, one.int8_gops))?;
        match self.threads {
            1 => Ok(()),
            n => say(format_args!("peak of {}, GOP/s, {n} threads: f32 {:.0}, int8 {:.0}", self.isa, all.f32_gops, all.int8_gops)),
        }
    }
}
