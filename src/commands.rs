//! The tool commands: arguments to options.

use std::process::ExitCode;
use std::time::Duration;

use eomt_edge::cli::{
    AnomalyArg, BenchArgs, Command, ConvertArgs, CrowdsArg, EvaluateArgs, MatchArg, PostprocessArgs, PrecisionArg, ScenesArgs, SegmentArgs,
    ThresholdArgs, TruthArgs,
};
use eomt_edge::doctor::{DoctorOptions, doctor};
use eomt_edge::view::{ViewOptions, view};
use eomt_edge_core::data::Thresholds;
use eomt_edge_core::model::Precision;
use eomt_edge_core::segment::Anomaly;
use eomt_edge_host::model_file::Compute;
use eomt_edge_host::output::usage;
use eomt_edge_tools::bench::{BenchOptions, bench};
use eomt_edge_tools::convert::{ConvertOptions, convert};
use eomt_edge_tools::datasets::{self, ClassValues, Crowds, TruthFiles};
use eomt_edge_tools::evaluate::{EvaluateOptions, MatchBy, Predictions, evaluate};
use eomt_edge_tools::logits::logits;
use eomt_edge_tools::postprocess::{PostprocessOptions, postprocess};
use eomt_edge_tools::preprocess::preprocess;
use eomt_edge_tools::scenes::{ScenesOptions, scenes};
use eomt_edge_tools::segment::{SegmentOptions, segment};

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
        Command::View(args) => view(&ViewOptions {
            socket: args.socket,
            frames: args.frames,
            save: args.save,
            json: args.json,
            timeout: Duration::from_secs(args.timeout),
        })?,
        Command::Doctor(args) => {
            let problems = doctor(&DoctorOptions { config: args.config, model: args.model, socket: args.socket })?;
            return Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Scenes(args) => {
            let ScenesArgs { output, count, seed, size, classes, degrade } = args;
            scenes(&ScenesOptions { output, count, seed, size, classes, degrade })?;
        }
        #[cfg(feature = "train")]
        Command::Train(args) => run_train(*args)?,
        Command::Run(_) | Command::ReapSocket { .. } | Command::ExecSource { .. } => unreachable!("main runs these itself"),
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

/// Training gives each of its threads a part of the batch. candle would start threads for every operator besides, which wait for each
/// other most of the time, and takes their number from the environment only: the program starts itself again with it.
#[cfg(feature = "train")]
fn one_thread_per_operator() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    const KEY: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(KEY).is_some() {
        return Ok(());
    }
    let failed = std::process::Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(KEY, "1").exec();
    Err(anyhow::Error::new(failed).context("the program cannot start itself again for training"))
}

#[cfg(feature = "train")]
fn run_train(args: eomt_edge::cli::TrainArgs) -> anyhow::Result<()> {
    use eomt_edge::cli::MaskingArg;
    use eomt_edge_train::{Annealing, Augmentation, LossOptions, Masking, Pictures, RateOptions, Sizes, Start, TrainOptions, train};
    refuse_stray(args.truth.stray())?;
    one_thread_per_operator()?;
    let start = match args.from {
        Some(path) => Start::Checkpoint(path),
        None => Start::Scratch(Sizes {
            hidden: args.width,
            heads: args.heads,
            blocks: args.blocks,
            query_blocks: args.query_blocks,
            queries: args.queries,
            classes: 0, // as the data has it
            registers: 4,
            patch: args.patch,
            image: args.size,
            mlp_ratio: 4,
            scale_blocks: args.patch.ilog2().saturating_sub(2) as usize,
            eps: 1e-6,
        }),
    };
    let images = args.truth.images.clone();
    let pictures = match (args.scenes, truth_files(args.truth, "train")?) {
        (None, Some(truth)) => Pictures::Annotated { images, truth },
        (seed, _) => Pictures::Scenes { seed: seed.unwrap_or_default() },
    };
    let defaults = TrainOptions::new(args.output, start, pictures);
    train(&TrainOptions {
        steps: args.steps.unwrap_or(defaults.steps),
        batch: args.batch,
        seed: args.seed,
        rates: RateOptions {
            rate: args.lr.unwrap_or(defaults.rates.rate),
            warmup: args.warmup.unwrap_or(defaults.rates.warmup),
            layer_decay: args.layer_decay.unwrap_or(defaults.rates.layer_decay),
            ..defaults.rates
        },
        weight_decay: args.weight_decay,
        clip: args.clip,
        exif: args.exif,
        masking: args.masking.map(|masking| match masking {
            MaskingArg::Annealed => Masking::Annealed,
            MaskingArg::Kept => Masking::Kept,
            MaskingArg::Never => Masking::Never,
        }),
        annealing: args.anneal.map(|spans| Annealing { spans: spans.0, power: args.anneal_power }),
        loss: LossOptions { points: args.points, ..LossOptions::default() },
        augmentation: Augmentation { flip: !args.no_flip, scale: args.scale, colour: args.colour, degrade: args.degrade },
        save_every: args.save_every,
        threads: usize::from(args.threads),
        ..defaults
    })
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
    };
    bench(&args.model, &options)
}

/// With the reference's defaults.
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

/// Where annotations lie; `split` is what a file of several sets is read for.
/// An option that needs another one, which is not given.
fn refuse_stray(stray: Option<[&str; 2]>) -> anyhow::Result<()> {
    match stray {
        Some([option, owner]) => usage(format!("{option} needs {owner}, which is not given")),
        None => Ok(()),
    }
}

fn truth_files(args: TruthArgs, split: &str) -> anyhow::Result<Option<TruthFiles>> {
    let values = ClassValues { ignore: args.ignore_label.0, offset: args.label_offset, listed: args.class_values.map(|values| values.0) };
    Ok(match (args.panoptic_json.zip(args.panoptic_dir), args.instances, args.class_maps, args.yolo) {
        (Some((json, directory)), ..) => Some(TruthFiles::Panoptic { json, directory }),
        (_, Some(json), ..) => {
            let crowds = match args.crowds {
                CrowdsArg::Apart => Crowds::Apart,
                CrowdsArg::Objects => Crowds::Objects,
            };
            Some(TruthFiles::Instances { json, crowds })
        }
        (_, _, Some(directory), _) => {
            let names = args.class_names.map(|names| datasets::names_of(&names)).transpose()?;
            Some(TruthFiles::ClassMaps { directory, values, names, suffixes: args.suffixes })
        }
        (_, _, _, Some(yaml)) => Some(TruthFiles::Yolo { yaml, split: args.split.unwrap_or_else(|| split.to_owned()) }),
        _ => None,
    })
}

fn run_evaluate(args: EvaluateArgs) -> anyhow::Result<()> {
    let images = args.truth.images.clone();
    refuse_stray(args.stray())?;
    let truth = match (truth_files(args.truth, "val")?, args.anomaly_dir) {
        (Some(truth), _) => truth,
        (_, Some(directory)) => TruthFiles::Anomalies { directory },
        _ => unreachable!("clap demands one of them"),
    };
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
        ..EvaluateOptions::new(truth, predictions, images)
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
