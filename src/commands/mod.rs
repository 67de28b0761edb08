//! The commands beside the daemon: arguments to options.

mod dataset;
#[cfg(feature = "train")]
mod train;

use std::process::ExitCode;

use eomt_edge::cli::{
    AnomalyArg, BenchArgs, Command, ConvertArgs, EvaluateArgs, MatchArg, PostprocessArgs, PrecisionArg, ScenesArgs, SegmentArgs,
    ThresholdArgs,
};
use eomt_edge_core::data::Thresholds;
use eomt_edge_core::model::Precision;
use eomt_edge_core::segment::Anomaly;
use eomt_edge_host::model_file::Compute;
use eomt_edge_tools::bench::{BenchOptions, bench};
use eomt_edge_tools::convert::{ConvertOptions, convert};
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
            logits(&args.model, &args.input, &args.output, &Compute::threads(args.threads).with_normalization(args.normalization))?
        }
        Command::Preprocess(args) => preprocess(&args.image, (args.size.0, args.size.1), &args.output, (args.max_pixels, args.exif))?,
        Command::Postprocess(args) => run_postprocess(&args)?,
        Command::Bench(args) => run_bench(args)?,
        Command::Scenes(args) => {
            let ScenesArgs { output, count, seed, size, classes, degrade } = args;
            scenes(&ScenesOptions { output, count, seed, size, classes, degrade })?;
        }
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
            PrecisionArg::Int8 => Precision::Int8,
        },
        calibrate: args.calibrate,
        threshold: args.thresholds.threshold,
        mask_threshold: args.thresholds.mask_threshold,
        overlap_threshold: args.thresholds.overlap_threshold,
        skip_check: args.no_check,
        ..ConvertOptions::default()
    };
    convert(&args.checkpoint, &args.output, &options)
}

fn run_bench(args: BenchArgs) -> anyhow::Result<()> {
    let options = BenchOptions {
        threads: args.threads,
        normalization: args.normalization,
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
        all_queries: args.all_queries,
        threads: args.threads,
        normalization: args.normalization,
        max_pixels: args.max_pixels,
        exif: args.exif,
    };
    segment(&args.model, &args.images, &args.output, &options)
}

fn run_evaluate(args: EvaluateArgs) -> anyhow::Result<()> {
    refuse_stray(args.stray())?;
    let images = args.dataset.images.clone();
    let dataset = dataset::format(args.dataset, args.anomaly_dir, "val")?.expect("clap demands one format");
    let predictions = match (args.model, args.compare, args.predictions) {
        (Some(model), ..) => Predictions::Models(vec![model]),
        (_, Some(models), _) => Predictions::Models(models),
        (_, _, Some(path)) => Predictions::Files { path, json: args.predictions_json },
        _ => unreachable!("clap demands one of them"),
    };
    evaluate(&EvaluateOptions {
        task: args.task,
        match_by: match args.match_by {
            MatchArg::Name => MatchBy::Name,
            MatchArg::Id => MatchBy::Id,
            MatchArg::Order => MatchBy::Order,
        },
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
        limit: args.limit.map(|limit| limit as usize),
        threads: args.threads,
        normalization: args.normalization,
        max_pixels: args.max_pixels,
        exif: args.exif,
        json: args.json,
        report: args.report,
        shown: args.shown,
        ..EvaluateOptions::of_format(dataset, predictions, images)
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
