//! The commands beside the daemon: arguments to options.

mod dataset;
#[cfg(feature = "train")]
mod train;

use std::path::PathBuf;
use std::process::ExitCode;

use eomt_edge::cli::{
    AnomalyArg, BenchArgs, Command, ConvertArgs, EvaluateArgs, MatchArg, PostprocessArgs, PrecisionArg, ScenesArgs, SegmentArgs,
    ThresholdArgs, TrackerArg,
};
use eomt_edge_core::data::Thresholds;
use eomt_edge_core::model::Precision;
use eomt_edge_core::segment::Anomaly;
use eomt_edge_host::model_file::Compute;
use eomt_edge_host::output::usage;
use eomt_edge_tools::bench::{BenchOptions, bench};
use eomt_edge_tools::clip::{ClipOptions, clip};
use eomt_edge_tools::convert::{ConvertOptions, convert};
use eomt_edge_tools::evaluate::video::{TrackerKind, VideoOptions, evaluate_video};
use eomt_edge_tools::evaluate::{EvaluateOptions, MatchBy, Predictions, evaluate};
use eomt_edge_tools::logits::logits;
use eomt_edge_tools::postprocess::{PostprocessOptions, postprocess};
use eomt_edge_tools::preprocess::preprocess;
use eomt_edge_tools::scenes::{ScenesOptions, scenes};
use eomt_edge_tools::segment::{SegmentOptions, segment};

use dataset::refuse_stray;

/// Runs the commands of a desk.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Convert(args) => run_convert(args)?,
        Command::Segment(args) => run_segment(&args)?,
        Command::Evaluate(args) => run_evaluate(*args)?,
        Command::Logits(args) => {
            let compute =
                Compute::threads(args.threads).with_normalization(args.normalization).with_bf16(args.bf16).with_merging(args.merge);
            logits(&args.model, &args.inputs, &args.output, &compute)?
        }
        Command::Preprocess(args) => preprocess(&args.image, (args.size.0, args.size.1), &args.output, (args.max_pixels, args.exif))?,
        Command::Postprocess(args) => run_postprocess(&args)?,
        Command::Bench(args) => run_bench(args)?,
        Command::Scenes(args) => run_scenes(args)?,
        #[cfg(feature = "train")]
        Command::Train(args) => train::run(*args)?,
        _ => unreachable!("main runs the others"),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_convert(args: ConvertArgs) -> anyhow::Result<()> {
    let options = ConvertOptions {
        size: args.size.map(|size| (size.0, size.1)),
        task: args.task,
        stuff: args.stuff,
        hints: args.hints,
        base: args.base,
        precision: match args.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
            PrecisionArg::Int8 => Precision::Int8,
        },
        calibrate: args.calibrate,
        threshold: args.thresholds.threshold,
        mask_threshold: args.thresholds.mask_threshold,
        overlap_threshold: args.thresholds.overlap_threshold,
        licence: args.licence,
        skip_check: args.no_check,
        ..ConvertOptions::default()
    };
    convert(&args.checkpoint, &args.output, &options)
}

fn run_scenes(args: ScenesArgs) -> anyhow::Result<()> {
    let ScenesArgs { output, count, seed, size, classes, degrade, clip: is_clip, fps, pan, noise, cuts } = args;
    if is_clip {
        return clip(&ClipOptions { output, frames: count, seed, size: (size, (size * 3 / 4).max(1)), fps, pan, noise, cuts });
    }
    scenes(&ScenesOptions { output, count, seed, size, classes, degrade })
}

fn run_bench(args: BenchArgs) -> anyhow::Result<()> {
    let options = BenchOptions {
        threads: args.threads,
        normalization: args.normalization,
        bf16: args.bf16,
        merging: args.merge,
        frames: args.frames as usize,
        image: args.image,
        size: (640, 480),
        threshold: args.threshold,
        json: args.json,
        max_pixels: 64 << 20,
        isa: args.isa,
        all_queries: args.all_queries,
        operators: args.operators,
        compare_ort: args.compare_ort,
        mark: args.mark,
        reuse: args.reuse,
    };
    bench(&args.model, &options)
}

/// The given thresholds; the reference's where none is given.
fn thresholds(args: &ThresholdArgs) -> Thresholds {
    Thresholds::default().with(args.threshold, args.mask_threshold, args.overlap_threshold)
}

fn run_segment(args: &SegmentArgs) -> anyhow::Result<()> {
    let options = SegmentOptions {
        task: args.task,
        threshold: args.thresholds.threshold,
        mask_threshold: args.thresholds.mask_threshold,
        overlap_threshold: args.thresholds.overlap_threshold,
        windows: args.windows,
        video: args.video,
        all_queries: args.all_queries,
        threads: args.threads,
        normalization: args.normalization,
        bf16: args.bf16,
        merging: args.merge,
        max_pixels: args.max_pixels,
        exif: args.exif,
    };
    segment(&args.model, &args.images, &args.output, &options)
}

fn run_evaluate(args: EvaluateArgs) -> anyhow::Result<()> {
    refuse_stray(args.stray())?;
    if let Some(directory) = args.video.clone() {
        return run_video(directory, args);
    }
    let images = args.dataset.images.clone();
    let dataset = dataset::format(args.dataset, args.anomaly_dir, "val")?.expect("clap demands one format");
    let predictions = predictions(args.model, args.compare, args.predictions, args.predictions_json);
    evaluate(&EvaluateOptions {
        task: args.task,
        match_by: match_by(args.match_by),
        threshold: args.thresholds.threshold,
        mask_threshold: args.thresholds.mask_threshold,
        overlap_threshold: args.thresholds.overlap_threshold,
        windows: args.windows,
        reuse: args.reuse,
        anomaly: match args.anomaly_score {
            AnomalyArg::Max => Anomaly::Max,
            AnomalyArg::Rba => Anomaly::Rba,
        },
        anomaly_values: args.anomaly_values,
        held_out: args.held_out.map(|every| every as usize),
        limit: args.limit.map(|limit| limit as usize),
        threads: args.threads,
        normalization: args.normalization,
        bf16: args.bf16,
        merging: args.merge,
        max_pixels: args.max_pixels,
        exif: args.exif,
        json: args.json,
        report: args.report,
        shown: args.shown,
        ..EvaluateOptions::of_format(dataset, predictions, images)
    })
}

fn predictions(model: Option<PathBuf>, compare: Option<Vec<PathBuf>>, path: Option<PathBuf>, json: Option<PathBuf>) -> Predictions {
    match (model, compare, path) {
        (Some(model), ..) => Predictions::Models(vec![model]),
        (_, Some(models), _) => Predictions::Models(models),
        (_, _, Some(path)) => Predictions::Files { path, json },
        _ => unreachable!("clap demands one of them"),
    }
}

fn match_by(arg: MatchArg) -> MatchBy {
    match arg {
        MatchArg::Name => MatchBy::Name,
        MatchArg::Id => MatchBy::Id,
        MatchArg::Order => MatchBy::Order,
    }
}

fn run_video(directory: PathBuf, args: EvaluateArgs) -> anyhow::Result<()> {
    if let Some(option) = args.not_of_video() {
        return usage(format!("{option} does not go with --video, whose clips have their pictures and are panoptic"));
    }
    evaluate_video(&VideoOptions {
        tracker: args.tracker.map(|tracker| match tracker {
            TrackerArg::Lasting => TrackerKind::Lasting,
            TrackerArg::Iou => TrackerKind::Iou,
            TrackerArg::None => TrackerKind::None,
        }),
        memory: args.memory,
        fps: args.fps,
        match_by: match_by(args.match_by),
        thresholds: [args.thresholds.threshold, args.thresholds.mask_threshold, args.thresholds.overlap_threshold],
        limit: args.limit.map(|limit| limit as usize),
        threads: args.threads,
        normalization: args.normalization,
        bf16: args.bf16,
        merging: args.merge,
        reuse: args.reuse,
        max_pixels: args.max_pixels,
        json: args.json,
        save: args.save,
        ..VideoOptions::new(directory, predictions(args.model, args.compare, args.predictions, None))
    })
}

fn run_postprocess(args: &PostprocessArgs) -> anyhow::Result<()> {
    let options = PostprocessOptions {
        task: args.task,
        frame: (args.height as usize, args.width as usize),
        input: (args.input_size.0, args.input_size.1),
        stuff_classes: args.stuff.0.clone(),
        thresholds: thresholds(&args.thresholds),
        unpad: args.unpad,
    };
    postprocess(&args.input, &args.output, &options)
}
