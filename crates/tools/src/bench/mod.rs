//! `bench`: what a frame costs. Times the stages of the frame path as the daemon runs it, and memory; on request also the network operator
//! by operator, or against ONNX Runtime, or with markers for an instruction counter.
//!
//! Invariants: every number is measured in this run; times are of a warm network. `--json` keeps its keys; new ones are added.

mod compare;
mod marks;
mod memory;
mod operators;
mod peak;
mod stages;
mod summary;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Frame, Normalization, PixelFormat, Tensor, TokenMerging};
use eomt_edge_core::model::{Metadata, ReuseConfig, ReuseCounts};
use eomt_edge_core::preprocess::Preprocessor;
use eomt_edge_core::scenes::Scene;
use eomt_edge_host::model_file::Compute;
use eomt_edge_host::model_file::threads_or_cores;
use eomt_edge_host::output::say;
use eomt_edge_host::pictures::read_picture;
use serde_json::{Map, Value, json};

use crate::datasets::pictures;
use compare::Comparison;
use operators::OperatorTable;
use stages::StageSummaries;
use summary::{Summary, round};

/// Options of [`bench()`].
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// 0 = one per core.
    pub threads: usize,
    /// How pictures are normalized for a third-party export.
    pub normalization: Normalization,
    /// Compute what the file has in f32 in bfloat16 where the CPU has such products.
    pub bf16: bool,
    /// Patch tokens that are merged away.
    pub merging: TokenMerging,
    /// Frames to time, after the warm-up.
    pub frames: usize,
    /// A picture instead of a procedural scene, or a directory of frames.
    pub image: Option<PathBuf>,
    /// (width, height) of the scene, pixels.
    pub size: (u32, u32),
    /// Score threshold, 0 to 1; `None`: the model's.
    pub threshold: Option<f64>,
    /// Print one JSON object instead of tables.
    pub json: bool,
    /// Pictures with more pixels are refused.
    pub max_pixels: u64,
    /// The instruction set by name; `None`: that of the environment, else the best.
    pub isa: Option<String>,
    /// Compute the masks of all queries, also of those that cannot survive.
    pub all_queries: bool,
    /// Also the table of operators.
    pub operators: bool,
    /// Also a comparison with this ONNX Runtime library.
    pub compare_ort: Option<PathBuf>,
    /// Keep what patches had that have not changed since the frame before.
    pub reuse: Option<ReuseConfig>,
    /// Instead of all that, bare inferences with markers for an instruction counter.
    pub mark: bool,
}

/// Frames of warm-up, which are not timed.
const WARM_UP: usize = 3;

/// What was measured.
struct Findings {
    precision: &'static str,
    isa: &'static str,
    /// What the file has in f32 is computed in bfloat16.
    bf16: bool,
    threads: usize,
    /// Answers depend on earlier frames.
    remembers: bool,
    frame_size: (u32, u32),
    stages: StageSummaries,
    load_ms: f64,
    first_inference_ms: f64,
    rss_after_load_mib: f64,
    peak_rss_mib: f64,
    operators: Option<OperatorTable>,
    comparison: Option<Comparison>,
    reuse: Option<ReuseCounts>,
}

/// Runs frames through the pipeline into the null sink and prints minimum, median and 95th percentile of the stages, milliseconds.
///
/// # Errors
/// When the model, the picture or the library to compare with is unusable.
pub fn bench(path: &Path, options: &BenchOptions) -> Result<()> {
    if options.mark {
        return marks::run(path, options);
    }
    options.compare_ort.as_deref().map(compare::check_library).transpose()?;
    let findings = measure(path, options)?;
    if options.json { say(json(path, options, &findings)) } else { print(path, options, &findings) }
}

fn measure(path: &Path, options: &BenchOptions) -> Result<Findings> {
    let frames = inputs(options)?;
    let frame = &frames[0];
    let stages::Loaded { model, load_ms, first_inference_ms, rss_after_load_mib } = stages::load(path, options)?;
    let (mut model, stages) = stages::measure(model, &frames, options)?;
    let reuse = model.reuse_counts();
    // before the table and ONNX Runtime add their memory
    let peak_rss_mib = memory::peak_rss_mib()?;
    let threads = threads_or_cores(options.threads);
    let metadata = model.metadata();
    let tensor = pixel_values(metadata, frame);
    let precision = metadata.precision.name();
    let operators = options.operators.then(|| OperatorTable::measure(&mut model, &tensor, threads, options)).transpose()?;
    let comparing = options.compare_ort.is_some();
    let comparison = comparing.then(|| Comparison::measure(&mut model, &tensor, path, threads, options)).transpose()?;
    Ok(Findings {
        precision,
        isa: model.isa().name(),
        bf16: model.origin().bf16,
        threads,
        remembers: model.remembers(),
        frame_size: (frame.width, frame.height),
        stages,
        load_ms,
        first_inference_ms,
        rss_after_load_mib,
        peak_rss_mib,
        operators,
        comparison,
        reuse,
    })
}

fn json(path: &Path, options: &BenchOptions, findings: &Findings) -> Value {
    let StageSummaries { stages, total } = &findings.stages;
    let stages: Map<String, Value> = stages.iter().map(|(stage, summary)| (stage.name().to_owned(), summary.json())).collect();
    let mut document = json!({
        "model": path.display().to_string(), "precision": findings.precision, "isa": findings.isa, "threads": findings.threads,
        "frames": options.frames, "all_queries": options.all_queries, "remembers": findings.remembers, "stages": stages, "total": total.json(),
        "load_ms": round(findings.load_ms, 1), "load_to_first_inference_ms": round(findings.first_inference_ms, 1),
        "rss_after_load_mib": round(findings.rss_after_load_mib, 1), "peak_rss_mib": round(findings.peak_rss_mib, 1),
    });
    if options.bf16 {
        document["bf16"] = json!(findings.bf16);
    }
    if !options.merging.is_off() {
        document["merge"] = json!(options.merging.to_string());
    }
    if let Some(operators) = &findings.operators {
        document["operators"] = operators.json();
        for (key, value) in operators.json_beside() {
            document[key] = value;
        }
    }
    if let Some(reuse) = &findings.reuse {
        document["reuse"] = json!({ "share": round(reuse.share(), 4), "frames": reuse.frames, "full_frames": reuse.full });
    }
    if let Some(comparison) = &findings.comparison {
        document["compare_ort"] = comparison.json();
    }
    document
}

fn print(path: &Path, options: &BenchOptions, findings: &Findings) -> Result<()> {
    let Findings { precision, isa, threads, frame_size: (width, height), .. } = findings;
    let threads = if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let queries = if options.all_queries { ", masks of all queries" } else { "" };
    let memory = if findings.remembers { ", each frame after the one before" } else { "" };
    let merging = if options.merging.is_off() { String::new() } else { format!(", tokens merged {}", options.merging) };
    let arithmetic = match (*precision, findings.bf16) {
        ("bf16", false) => " computed in f32",
        ("bf16", true) | (_, false) => "",
        (_, true) => " in bfloat16",
    };
    let title = format!("{} ({precision}{arithmetic}), {isa}, {threads}{queries}{merging}{memory}", path.display());
    say(format_args!("{title}, {} frames of {width}x{height}", options.frames))?;
    say(format_args!("{:<12}{:>10}{:>10}{:>10}   milliseconds", "stage", "min", "median", "p95"))?;
    let StageSummaries { stages, total } = &findings.stages;
    for (name, Summary { min, median, p95 }) in stages.iter().map(|(stage, s)| (stage.name(), s)).chain([("total", total)]) {
        say(format_args!("{name:<12}{min:>10.2}{median:>10.2}{p95:>10.2}"))?;
    }
    let Findings { load_ms, first_inference_ms, rss_after_load_mib, peak_rss_mib, .. } = findings;
    say(format_args!("load {load_ms:.0} ms, to the end of the first inference {first_inference_ms:.0} ms"))?;
    say(format_args!("memory after loading {rss_after_load_mib:.0} MiB, peak {peak_rss_mib:.0} MiB"))?;
    if let Some(ReuseCounts { frames, full, .. }) = findings.reuse {
        let share = 100.0 * findings.reuse.map_or(1.0, |counts| counts.share());
        say(format_args!("reuse: {share:.1} % of the patches computed, all of them in {full} of {frames} frames (warm-up included)"))?;
    }
    findings.operators.as_ref().map(OperatorTable::print).transpose()?;
    findings.comparison.as_ref().map(Comparison::print).transpose()?;
    Ok(())
}

/// On what a model is loaded.
fn compute(options: &BenchOptions) -> Compute {
    let BenchOptions { threads, normalization, bf16, merging, reuse, .. } = *options;
    Compute { threads, isa: options.isa.clone(), normalization, bf16, merging, reuse, ..Compute::default() }
}

/// `frame` as the network takes it.
fn pixel_values(metadata: &Metadata, frame: &Frame) -> Tensor {
    let (height, width) = metadata.input_size;
    let mut tensor = Tensor::zeros(height, width);
    Preprocessor::new(metadata.image_mean, metadata.image_std, metadata.input_size).run(frame, &mut tensor);
    tensor
}

/// The first pictures of a directory in the order of their names, as many as are used.
fn clip(directory: &Path, options: &BenchOptions) -> Result<Vec<PathBuf>> {
    let mut found = pictures(directory)?;
    if found.is_empty() {
        bail!("{}: there are no PNG or JPEG pictures in it", directory.display());
    }
    found.truncate(options.frames + WARM_UP);
    Ok(found)
}

/// At least one frame.
fn inputs(options: &BenchOptions) -> Result<Vec<Frame>> {
    if let Some(image) = &options.image {
        let pictures = if image.is_dir() { clip(image, options)? } else { vec![image.clone()] };
        let frames = pictures.iter().map(|path| Ok(read_picture(path, options.max_pixels)?)).collect::<Result<Vec<_>>>()?;
        if let Some(other) = frames.iter().find(|frame| (frame.width, frame.height) != (frames[0].width, frames[0].height)) {
            let (directory, Frame { width, height, .. }) = (image.display(), other);
            bail!("{directory}: frames of a clip have one size, and one has {width}x{height}");
        }
        return Ok(frames);
    }
    let (width, height) = options.size;
    let pixels = PixelFormat::Rgb24.frame_len(width, height).context("the picture is too large")? / 3;
    let (mut rgb, mut ids) = (vec![0; pixels * 3], vec![0; pixels]);
    Scene::new(1, width, height).render(0.0, &mut rgb, &mut ids);
    Ok(vec![Frame::rgb(width, height, rgb)])
}

/// Values between -2 and 2, always the same; `benches/a64count/ortrun.c` uses the same values.
fn fixed_tensor((height, width): (usize, usize)) -> Tensor {
    let mut tensor = Tensor::zeros(height, width);
    for (index, value) in tensor.values.iter_mut().enumerate() {
        *value = ((index % 251) as f32 - 125.0) / 60.0;
    }
    tensor
}
