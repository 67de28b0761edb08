//! Peak arithmetic rate of this machine, measured in the same run: [`eomt_edge_core::kernels::peak`] with a clock and threads.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context;
use eomt_edge_core::kernels::arch::Isa;
use eomt_edge_core::kernels::peak::{f32_macs, int8_macs};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::{Value, json};

use super::summary::round;

/// Operations per second, in units of 1e9; a multiply-accumulate is two operations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peak {
    pub f32_gops: f64,
    pub int8_gops: f64,
}

impl Peak {
    /// # Errors
    /// When the system does not give so many threads.
    pub fn measure(isa: Isa, threads: usize) -> anyhow::Result<Peak> {
        let threads =
            ThreadPoolBuilder::new().num_threads(threads).build().with_context(|| format!("{threads} threads cannot be started"))?;
        let gops = |loop_: fn(Isa, u64) -> u64| gops(&|iterations| loop_(isa, iterations), &threads);
        Ok(Peak { f32_gops: gops(f32_macs), int8_gops: gops(int8_macs) })
    }

    /// The shortest time for so many multiply-accumulates, milliseconds.
    pub fn least_ms(&self, f32_macs: u64, int8_macs: u64) -> f64 {
        2e-6 * (f32_macs as f64 / self.f32_gops + int8_macs as f64 / self.int8_gops)
    }

    pub fn json(&self) -> Value {
        json!({ "f32_gops": round(self.f32_gops, 1), "int8_gops": round(self.int8_gops, 1) })
    }
}

/// Shortest measurement: long enough that the start of a thread does not matter, short enough to fit into one time slice.
const ENOUGH: Duration = Duration::from_millis(8);
/// Measurements, of which the best is taken.
const REPETITIONS: usize = 20;

fn gops(work: &(dyn Fn(u64) -> u64 + Sync), threads: &ThreadPool) -> f64 {
    let mut iterations = 1000;
    while one(work, iterations).0 < ENOUGH {
        iterations *= 2;
    }
    let best = (0..REPETITIONS).map(|_| together(work, iterations, threads)).fold(0.0, f64::max);
    2e-9 * best
}

fn one(work: &(dyn Fn(u64) -> u64 + Sync), iterations: u64) -> (Duration, u64) {
    let started = Instant::now();
    let macs = work(iterations);
    (started.elapsed(), macs)
}

/// Multiply-accumulates per second of `threads` threads at the same time, by the slowest.
fn together(work: &(dyn Fn(u64) -> u64 + Sync), iterations: u64, threads: &ThreadPool) -> f64 {
    let barrier = Barrier::new(threads.current_num_threads());
    let results: Vec<(Duration, u64)> = threads.broadcast(|_| {
        barrier.wait();
        one(work, iterations)
    });
    let slowest = results.iter().map(|(time, _)| *time).max().unwrap_or(ENOUGH);
    results.iter().map(|(_, macs)| *macs as f64).sum::<f64>() / slowest.as_secs_f64()
}
