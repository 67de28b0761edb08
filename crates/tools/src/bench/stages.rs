//! The frame path as the daemon runs it, stage by stage.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use eomt_edge_core::data::{ClassLogits, Frame, Logits, PixelFormat, Stage, Unpublished};
use eomt_edge_core::model::Model;
use eomt_edge_core::pipeline::{NullSink, Pipeline};
use eomt_edge_core::preprocess::{FrameDecoder, JpegDecoder};
use eomt_edge_core::segment::{PostProcessConfig, survivors};
use eomt_edge_host::MonotonicClock;
use eomt_edge_host::model_file;
use eomt_edge_host::{bounds, files};

use super::summary::Summary;
use super::{BenchOptions, WARM_UP, fixed_tensor, memory};
use crate::progress;

/// A loaded model, and the cost of loading it.
pub(super) struct Loaded {
    pub model: Model,
    pub load_ms: f64,
    /// From the start of reading the file to the end of the first inference.
    pub first_inference_ms: f64,
    pub rss_after_load_mib: f64,
}

pub(super) fn load(path: &Path, options: &BenchOptions) -> Result<Loaded> {
    let started = Instant::now();
    let mut model = model_file::load(path, &super::compute(options))?;
    let load_ms = started.elapsed().as_secs_f64() * 1000.0;
    let rss_after_load_mib = memory::rss_mib()?;
    let config = config(&model, options);
    let tensor = fixed_tensor(model.metadata().input_size);
    model.run(&tensor, |class, kept| keep(class, &config, options.all_queries, kept), &mut Logits::default())?;
    model.reset();
    let first_inference_ms = started.elapsed().as_secs_f64() * 1000.0;
    Ok(Loaded { model, load_ms, first_inference_ms, rss_after_load_mib })
}

/// The post-processing config of the model, with the threshold of the command line.
pub(super) fn config(model: &Model, options: &BenchOptions) -> PostProcessConfig {
    let metadata = model.metadata();
    let mut config = PostProcessConfig { task: metadata.task, thresholds: metadata.thresholds, ..PostProcessConfig::default() }
        .with_stuff(&metadata.stuff_classes);
    config.thresholds.score = options.threshold.unwrap_or(config.thresholds.score);
    config
}

/// The queries whose masks are computed.
pub(super) fn keep(class: &ClassLogits, config: &PostProcessConfig, all: bool, kept: &mut Vec<usize>) {
    if all { kept.extend(0..class.queries) } else { survivors(class, config, kept) }
}

/// Times of every stage and of the whole frame, milliseconds.
pub(super) struct StageSummaries {
    pub stages: Vec<(Stage, Summary)>,
    pub total: Summary,
}

/// The JPEG picture of which `frame` was made, as a camera sends it: its decoding is part of preprocessing. `None` when the file is of
/// another kind, or `frame` was turned upright.
fn compressed(path: &Path, frame: &Frame) -> Option<Frame> {
    let data = files::read_bytes(path, &bounds::PICTURE).ok()?;
    let fits = |width, height| (width, height) == (frame.width as usize, frame.height as usize);
    JpegDecoder::default().decode(&data, fits, &mut Vec::new()).ok()?;
    Some(Frame { format: PixelFormat::Mjpg, data, ..frame.clone() })
}

/// Runs `frames`, over and over, through the pipeline into the null sink; returns the warm model.
pub(super) fn measure(model: Model, frames: &[Frame], options: &BenchOptions) -> Result<(Model, StageSummaries)> {
    let config = config(&model, options);
    let mut pipeline = Pipeline::new(model, config).keep_all_queries(options.all_queries);
    let compressed = options.image.as_deref().filter(|path| path.is_file()).and_then(|path| compressed(path, &frames[0]));
    let frames = compressed.as_slice().iter().chain(frames).take(if compressed.is_some() { 1 } else { frames.len() });
    let mut frames = frames.cycle();
    let (mut sink, mut decoder, mut copy) = (NullSink::default(), FrameDecoder::default(), Frame::rgb(0, 0, Vec::new()));
    let mut times = Vec::with_capacity(options.frames);
    let bar = progress::bar((options.frames + WARM_UP) as u64, "frames");
    for index in 0..options.frames + WARM_UP {
        copy.copy_from(frames.next().expect("at least one, again and again"));
        let (result, used) = pipeline.process_captured(copy, &mut decoder, Unpublished::default(), &mut sink, &MonotonicClock);
        copy = used;
        let report = result?;
        if index >= WARM_UP {
            times.push(report.times);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let milliseconds = |micros: u64| micros as f64 / 1000.0;
    let stage = |stage: Stage| Summary::of(times.iter().map(|times| milliseconds(times.micros[stage as usize].into())).collect());
    let stages = Stage::ALL.into_iter().map(|name| (name, stage(name))).collect();
    let total = Summary::of(times.iter().map(|times| milliseconds(times.total_us())).collect());
    Ok((pipeline.into_model(), StageSummaries { stages, total }))
}
