//! This engine against ONNX Runtime as the reference runtime: the same file, tensor and number of threads, in turns.
//!
//! ```text
//! warm up both
//! repeat: wait until nothing runs, ours; wait, theirs; wait, ours with the surviving queries only
//! ```
//! Only the network is compared, with the masks of all queries, since ONNX Runtime computes all of them. Its threads spin for a while after
//! a run by default, so each turn waits until this process is idle.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::model::{Model, names};
use eomt_edge_host::output::say;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::summary::{Summary, round};
use super::{BenchOptions, WARM_UP, stages};
use crate::ort::{Library, OrtError, Outputs, Session};
use crate::progress;

/// How far two sets of values lie apart, relative to the mean magnitude of ONNX Runtime's.
struct Difference {
    mean: f64,
    largest: f64,
}

impl Difference {
    fn between(ours: &[f32], theirs: &[f32]) -> Difference {
        let magnitude: f64 = theirs.iter().map(|value| f64::from(value.abs())).sum::<f64>() / theirs.len() as f64;
        let differences = || ours.iter().zip(theirs).map(|(a, b)| f64::from((a - b).abs()));
        let mean = differences().sum::<f64>() / theirs.len() as f64;
        Difference { mean: mean / magnitude, largest: differences().fold(0.0, f64::max) / magnitude }
    }
}

/// The results of all turns.
pub(super) struct Comparison {
    library_version: String,
    threads: usize,
    ours: Summary,
    ort: Summary,
    pruned: Summary,
    class: Difference,
    masks: Difference,
}

/// Fails before anything is measured when the path cannot be a library.
pub(super) fn check_library(path: &Path) -> Result<()> {
    let refuse = |reason: String| OrtError::NoLibrary { path: path.to_owned(), reason };
    let metadata = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
    if !metadata.is_file() {
        return Err(refuse("it is not a regular file".to_owned()).into());
    }
    Ok(())
}

/// The model in ONNX Runtime, with the indices of its two outputs.
struct OrtModel {
    session: Session,
    shape: [i64; 4],
    /// Of a network for video, which is compared on first frames.
    state: Option<([i64; 3], Vec<f32>)>,
    class: usize,
    masks: usize,
}

impl OrtModel {
    fn open(library: &'static Library, path: &Path, model: &Model, threads: usize) -> Result<OrtModel> {
        let session = Session::open(library, path, threads)?;
        let (height, width) = model.metadata().input_size;
        let shape = [1, 3, height as i64, width as i64];
        let state = model.metadata().state.as_ref().map(|state| {
            let shape = state.shape.map(|dim| dim as i64);
            (shape, vec![0.0; state.shape.iter().product()])
        });
        let named = session.output(names::CLASS_LOGITS).zip(session.output(names::MASK_LOGITS));
        let (class, masks) =
            named.with_context(|| format!("{}: its outputs are not called as ours, so they cannot be compared", path.display()))?;
        Ok(OrtModel { session, shape, state, class, masks })
    }

    fn run(&self, tensor: &Tensor, path: &Path) -> Result<Outputs<'_>> {
        let mut inputs: Vec<(&[i64], &[f32])> = vec![(&self.shape, &tensor.values)];
        inputs.extend(self.state.iter().map(|(shape, values)| (shape.as_slice(), values.as_slice())));
        self.session.run(&inputs).map_err(|error| match error {
            OrtError::Call { reason, .. } => OrtError::Model { path: path.to_owned(), action: "run", reason }.into(),
            other => other.into(),
        })
    }
}

impl Comparison {
    pub fn measure(model: &mut Model, tensor: &Tensor, path: &Path, threads: usize, options: &BenchOptions) -> Result<Comparison> {
        let library: PathBuf = options.compare_ort.clone().unwrap_or_default();
        let library = Library::open(&library)?;
        let reference = OrtModel::open(library, path, model, threads)?;
        let config = stages::config(model, options);
        let (mut all, mut kept) = (Logits::default(), Logits::default());
        let (mut ours, mut ort, mut pruned) = (Vec::new(), Vec::new(), Vec::new());
        let mut differences = None;
        let bar = progress::bar((WARM_UP + options.frames) as u64, "comparison");
        for index in 0..WARM_UP + options.frames {
            model.reset();
            let our_ms = timed(|| Ok(model.run(tensor, |class, kept| kept.extend(0..class.queries), &mut all)?))?.1;
            let (outputs, ort_ms) = timed(|| reference.run(tensor, path))?;
            let pruned_ms = timed(|| Ok(model.run(tensor, |class, kept| stages::keep(class, &config, false, kept), &mut kept)?))?.1;
            if index >= WARM_UP {
                ours.push(our_ms);
                ort.push(ort_ms);
                pruned.push(pruned_ms);
            } else {
                differences = Some(difference(&all, &outputs, &reference)?);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (class, masks) = differences.context("there was no warm-up")?;
        let [ours, ort, pruned] = [ours, ort, pruned].map(Summary::of);
        Ok(Comparison { library_version: library.version().to_owned(), threads, ours, ort, pruned, class, masks })
    }

    pub fn json(&self) -> Value {
        let side = |summary: &Summary| json!({ "min_ms": round(summary.min, 3), "median_ms": round(summary.median, 3) });
        json!({
            "library_version": self.library_version, "threads": self.threads,
            "ours": side(&self.ours), "ort": side(&self.ort), "ours_pruned": side(&self.pruned),
            "ratio_min": round(self.ours.min / self.ort.min, 4), "ratio_median": round(self.ours.median / self.ort.median, 4),
            "mean_relative_difference": { "class": self.class.mean, "masks": self.masks.mean },
            "largest_relative_difference": { "class": self.class.largest, "masks": self.masks.largest },
        })
    }

    pub fn print(&self) -> Result<()> {
        let Comparison { ours, ort, pruned, class, masks, .. } = self;
        say("")?;
        say(format_args!("{:<28}{:>10}{:>10}   milliseconds, network only, in turns", "all queries", "min", "median"))?;
        say(format_args!("{:<28}{:>10.2}{:>10.2}", "ours", ours.min, ours.median))?;
        say(format_args!("{:<28}{:>10.2}{:>10.2}", format!("ONNX Runtime {}", self.library_version), ort.min, ort.median))?;
        say(format_args!("{:<28}{:>10.3}{:>10.3}", "ratio", ours.min / ort.min, ours.median / ort.median))?;
        say(format_args!("{:<28}{:>10.2}{:>10.2}", "ours, surviving queries only", pruned.min, pruned.median))?;
        say(format_args!(
            "difference, relative to the mean magnitude: class logits mean {:.2e}, largest {:.2e}; mask logits mean {:.2e}, largest {:.2e}",
            class.mean, class.largest, masks.mean, masks.largest
        ))
    }
}

fn difference(ours: &Logits, theirs: &Outputs, reference: &OrtModel) -> Result<(Difference, Difference)> {
    let (class, masks) = (theirs.floats(reference.class)?, theirs.floats(reference.masks)?);
    if (class.len(), masks.len()) != (ours.class.values.len(), ours.masks.len()) {
        bail!(
            "ONNX Runtime's outputs have {} and {} values, ours {} and {}",
            class.len(),
            masks.len(),
            ours.class.values.len(),
            ours.masks.len()
        );
    }
    Ok((Difference::between(&ours.class.values, class), Difference::between(&ours.masks, masks)))
}

/// Milliseconds of `work`, on an idle process.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    wait_until_idle();
    let started = Instant::now();
    let result = work()?;
    Ok((result, started.elapsed().as_secs_f64() * 1000.0))
}

/// Sleeps until all threads of this process use less than a twentieth of a core; returns after a second at the latest.
fn wait_until_idle() {
    const PAUSE: Duration = Duration::from_millis(4);
    let used = || clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or(Duration::ZERO);
    for _ in 0..250 {
        let before: Duration = used();
        std::thread::sleep(PAUSE);
        if used().saturating_sub(before) < PAUSE / 20 {
            return;
        }
    }
}
