//! `bench`: times of the stages of the frame path, as the daemon runs it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{progress, say};
use crate::data::{Frame, PixelFormat, Stage};
use crate::kernels::arch::Isa;
use crate::model::Model;
use crate::model_file::{self, Compute, threads_or_cores};
use crate::pipeline::{MonotonicClock, NullSink, Pipeline};
use crate::segment::Rules;
use crate::source::{read_picture, scenes::Scene};

/// What `bench` can be told.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// 0 = one per core.
    pub threads: usize,
    /// Frames that count; warm-up comes on top.
    pub frames: usize,
    /// A picture instead of a procedural scene.
    pub image: Option<PathBuf>,
    /// (width, height) of the scene.
    pub size: (u32, u32),
    pub threshold: Option<f64>,
    pub json: bool,
    pub max_pixels: u64,
}

/// Frames before the first that counts.
const WARM_UP: usize = 3;

/// Minimum, median and 95th percentile in milliseconds.
struct Summary {
    min: f64,
    median: f64,
    p95: f64,
}

impl Summary {
    /// Of at least one time in microseconds.
    fn of(mut micros: Vec<u64>) -> Summary {
        micros.sort_unstable();
        let at = |share: f64| micros[((micros.len() - 1) as f64 * share).round() as usize] as f64 / 1000.0;
        Summary { min: at(0.0), median: at(0.5), p95: at(0.95) }
    }

    fn json(&self) -> Value {
        let round = |ms: f64| (ms * 1000.0).round() / 1000.0;
        json!({ "min_ms": round(self.min), "median_ms": round(self.median), "p95_ms": round(self.p95) })
    }
}

/// Runs `frames` frames through the pipeline into the null sink and prints the times.
pub fn bench(path: &Path, options: &BenchOptions) -> Result<()> {
    let frame = input(options)?;
    let started = Instant::now();
    let (model, _) = model_file::load(path, &Compute::threads(options.threads))?;
    let load_ms = started.elapsed().as_secs_f64() * 1000.0;
    let precision = model.metadata().precision.name();
    let reports = measure(model, &frame, options)?;
    let peak_rss_mib = peak_rss_mib()?;

    let stages: Vec<(Stage, Summary)> = Stage::ALL
        .into_iter()
        .map(|stage| (stage, Summary::of(reports.iter().map(|micros| u64::from(micros[stage as usize])).collect())))
        .collect();
    let total = Summary::of(reports.iter().map(|micros| micros.iter().map(|&us| u64::from(us)).sum()).collect());
    let threads = threads_or_cores(options.threads);
    if options.json {
        let stages: Map<String, Value> = stages.iter().map(|(stage, summary)| (stage.name().to_owned(), summary.json())).collect();
        let document = json!({
            "model": path.display().to_string(), "precision": precision, "isa": Isa::detect().name(), "threads": threads,
            "frames": options.frames, "stages": stages, "total": total.json(),
            "load_ms": (load_ms * 10.0).round() / 10.0, "peak_rss_mib": (peak_rss_mib * 10.0).round() / 10.0,
        });
        return say(document);
    }
    let (width, height) = (frame.width, frame.height);
    let title = format!("{} ({precision}), {}, {threads} threads", path.display(), Isa::detect().name());
    say(format_args!("{title}, {} frames of {width}x{height}", options.frames))?;
    say(format_args!("{:<12}{:>10}{:>10}{:>10}   milliseconds", "stage", "min", "median", "p95"))?;
    for (name, Summary { min, median, p95 }) in stages.iter().map(|(stage, s)| (stage.name(), s)).chain([("total", &total)]) {
        say(format_args!("{name:<12}{min:>10.2}{median:>10.2}{p95:>10.2}"))?;
    }
    say(format_args!("load {load_ms:.0} ms, peak memory {peak_rss_mib:.0} MiB"))
}

fn input(options: &BenchOptions) -> Result<Frame> {
    if let Some(image) = &options.image {
        return Ok(read_picture(image, options.max_pixels)?);
    }
    let (width, height) = options.size;
    let pixels = PixelFormat::Rgb24.frame_len(width, height).context("the picture is too large")? / 3;
    let (mut rgb, mut ids) = (vec![0; pixels * 3], vec![0; pixels]);
    Scene::new(1, width, height).render(0.0, &mut rgb, &mut ids);
    Ok(Frame::rgb(width, height, rgb))
}

fn measure(model: Model, frame: &Frame, options: &BenchOptions) -> Result<Vec<[u32; 4]>> {
    let metadata = model.metadata();
    let mut rules = Rules { task: metadata.task, thresholds: metadata.thresholds, ..Rules::default() }.with_stuff(&metadata.stuff_classes);
    rules.thresholds.score = options.threshold.unwrap_or(rules.thresholds.score);
    let mut pipeline = Pipeline::new(model, rules);
    let mut sink = NullSink::default();
    let mut times = Vec::with_capacity(options.frames);
    let bar = progress::bar((options.frames + WARM_UP) as u64, "frames");
    for index in 0..options.frames + WARM_UP {
        let report = pipeline.process(frame, 0, &mut sink, &MonotonicClock)?;
        if index >= WARM_UP {
            times.push(report.times.micros);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(times)
}

/// VmHWM of `/proc/self/status` (proc(5)).
fn peak_rss_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status: cannot be read")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("/proc/self/status: there is no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("/proc/self/status: VmHWM is no number")?;
    Ok(kib / 1024.0)
}
