//! `evaluate`: how good a model's masks are, by the measures of the field, over the pipeline that the daemon runs.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge_tools::datasets::CocoPanoptic;
//! use eomt_edge_tools::evaluate::{EvaluateOptions, Predictions, evaluate};
//! let dataset = CocoPanoptic { json: "val/panoptic.json".into(), directory: "val/panoptic".into() };
//! let model = Predictions::Models(vec!["models/eomt-nano-scenes.onnx".into()]);
//! evaluate(&EvaluateOptions::new(dataset, model, Some("val/images".into())))?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! for each image:  ground truth (datasets)  +  prediction (predict)  →  how they fit (panoptic, semantic, instance)  →  sums
//! then:            scores (table, JSON), differences of two models (compare), pictures of the worst images (report)
//! ```
//!
//! | measure | defined by | computed by |
//! |---|---|---|
//! | PQ, SQ, RQ | the COCO panoptic API | hotcoco's matching and averaging |
//! | mIoU | one confusion matrix over the dataset | hotcoco's pixel counts |
//! | mask AP | pycocotools | hotcoco; candidates as the EoMT authors take them |
//! | AP, FPR@95 of anomalies | scikit-learn's definitions | `anomaly` |
//!
//! Invariants: values are 0 to 1, or absent when there was nothing to score; images are read one at a time; predictions that contradict
//! themselves are errors, as in the COCO panoptic API; areas are counted from pixels. Refuses: to guess which label belongs to which class.

mod anomaly;
mod compare;
mod instance;
mod matching;
mod panoptic;
mod pictures;
mod predict;
mod report;
mod run;
mod scores;
mod semantic;
pub mod video;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use eomt_edge_core::data::{Exif, Normalization, Task, TokenMerging};
use eomt_edge_core::model::ReuseConfig;
use eomt_edge_core::segment::Anomaly;
use eomt_edge_host::bags::{self, BagName};
use eomt_edge_host::files;
use eomt_edge_host::output::{say, usage};

pub use matching::MatchBy;

use crate::datasets::Format;
use run::Run;

/// The predictions to evaluate.
#[derive(Debug, Clone)]
pub enum Predictions {
    /// One model, or two to compare.
    Models(Vec<PathBuf>),
    /// Predictions that lie in files.
    Files {
        /// A directory, or a file of COCO results.
        path: PathBuf,
        /// The JSON of COCO panoptic predictions, whose PNGs lie in `path`.
        json: Option<PathBuf>,
    },
}

/// Options of [`evaluate`].
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// The ground truth.
    pub dataset: Arc<dyn Format>,
    /// Models or files.
    pub predictions: Predictions,
    /// Directory or bag of the pictures; `None` where the dataset locates them, or nothing looks at them.
    pub images: Option<PathBuf>,
    /// `None`: the dataset's task, else the model's.
    pub task: Option<Task>,
    /// How labels and classes are paired.
    pub match_by: MatchBy,
    /// Score threshold, 0 to 1; `None`: the model's.
    pub threshold: Option<f64>,
    /// Mask threshold, 0 to 1; `None`: the model's.
    pub mask_threshold: Option<f64>,
    /// Overlap threshold, 0 to 1; `None`: the model's.
    pub overlap_threshold: Option<f64>,
    /// Semantic: overlapping square windows instead of padding, as the EoMT authors evaluate.
    pub windows: bool,
    /// Pictures are frames of one clip, and patches that do not change keep what they had.
    pub reuse: Option<ReuseConfig>,
    /// The anomaly score of a pixel (anomaly masks only).
    pub anomaly: Anomaly,
    /// Values of normal and of anomalous pixels in anomaly masks: 0 and 1 in SegmentMeIfYouCan, Fishyscapes and RoadAnomaly.
    pub anomaly_values: [u16; 2],
    /// Only the pictures that training held out: of so many in the order of the annotations the last one, 2 or more.
    pub held_out: Option<usize>,
    /// Only the first images.
    pub limit: Option<usize>,
    /// 0: one per core.
    pub threads: usize,
    /// How pictures are normalized for a third-party export.
    pub normalization: Normalization,
    /// Compute what the file has in f32 in bfloat16 where the CPU has such products.
    pub bf16: bool,
    /// Patch tokens that are merged away.
    pub merging: TokenMerging,
    /// Pictures with more pixels are refused.
    pub max_pixels: u64,
    /// Whether the EXIF orientation of pictures counts.
    pub exif: Exif,
    /// Print JSON instead of tables.
    pub json: bool,
    /// Directory of an HTML report.
    pub report: Option<PathBuf>,
    /// Images that the report shows, and that a comparison names.
    pub shown: usize,
}

impl EvaluateOptions {
    /// The defaults of the command line.
    pub fn new(dataset: impl Format + 'static, predictions: Predictions, images: Option<PathBuf>) -> EvaluateOptions {
        EvaluateOptions::of_format(Arc::new(dataset), predictions, images)
    }

    /// [`EvaluateOptions::new`] for a format that was chosen at run time.
    pub fn of_format(dataset: Arc<dyn Format>, predictions: Predictions, images: Option<PathBuf>) -> EvaluateOptions {
        EvaluateOptions {
            dataset,
            predictions,
            images,
            task: None,
            match_by: MatchBy::default(),
            threshold: None,
            mask_threshold: None,
            overlap_threshold: None,
            windows: false,
            reuse: None,
            anomaly: Anomaly::default(),
            anomaly_values: [0, 1],
            held_out: None,
            limit: None,
            threads: 0,
            normalization: Normalization::Auto,
            bf16: false,
            merging: TokenMerging::default(),
            max_pixels: 64 << 20,
            exif: Exif::Apply,
            json: false,
            report: None,
            shown: 12,
        }
    }
}

/// Evaluates, prints the scores to standard output, and writes the report when `options` name one.
///
/// # Errors
/// When a file is missing or broken, sizes differ, classes do not match, or the options contradict each other.
pub fn evaluate(options: &EvaluateOptions) -> Result<()> {
    check(options)?;
    if let Some(name) = options.images.as_deref().and_then(BagName::at) {
        let bag = bags::unpack(&name, options.max_pixels, |_| true)?;
        return evaluate_files(&EvaluateOptions { images: Some(bag.path().to_owned()), ..options.clone() });
    }
    evaluate_files(options)
}

/// The score that stands for all: PQ, mIoU or mask AP, its name and its value, 0 to 1; `None` where nothing was there to be scored. Prints nothing.
///
/// # Errors
/// As [`evaluate`].
pub fn headline(options: &EvaluateOptions) -> Result<(&'static str, Option<f64>)> {
    check(options)?;
    let outcome = Run::open(options)?.measure()?;
    let scores = outcome.scores.first().context("one model")?;
    Ok((scores.columns[0], scores.overall[0].values[0]))
}

/// [`evaluate`], where pictures are files.
fn evaluate_files(options: &EvaluateOptions) -> Result<()> {
    if options.dataset.marks_anomalies() {
        return anomaly::evaluate(options);
    }
    if let Some(directory) = &options.report {
        files::make_directory(directory)?; // early: the work before it may take long
    }
    let mut run = Run::open(options)?;
    let outcome = run.measure()?;
    if let Some(directory) = &options.report {
        report::write(directory, &mut run, &outcome)?;
    }
    match &outcome.scores[..] {
        [scores] if options.json => say(scores.json())?,
        [scores] => scores.table().iter().try_for_each(say)?,
        _ if options.json => say(compare::json(&outcome, options.shown))?,
        _ => compare::lines(&outcome, options.shown).iter().try_for_each(say)?,
    }
    match &options.report {
        Some(directory) if !options.json => say(format_args!("report: {}", directory.join("index.html").display())),
        _ => Ok(()),
    }
}

/// Refuses options that contradict each other.
fn check(options: &EvaluateOptions) -> Result<()> {
    let models = matches!(options.predictions, Predictions::Models(_));
    let unseen = options.images.is_none() && !options.dataset.locates_pictures();
    if models && unseen {
        return usage("--images is needed: a model has to see the pictures");
    }
    if options.report.is_some() && unseen {
        return usage("--images is needed: a report shows the pictures");
    }
    if let Predictions::Files { json: Some(_), .. } = options.predictions
        && !options.dataset.takes_panoptic_predictions()
    {
        return usage("--predictions-json is for a COCO panoptic ground truth");
    }
    let out_of_order = [
        (options.windows, "--windows"),
        (options.report.is_some(), "--report"),
        (options.dataset.marks_anomalies(), "--anomaly-dir"),
        (!models, "--predictions"),
    ];
    if let Some((_, option)) = out_of_order.iter().find(|(is_set, _)| *is_set && options.reuse.is_some()) {
        return usage(format!("--reuse needs one model run per frame, in order, and {option} has none"));
    }
    if options.windows && options.task.is_some_and(|task| task != Task::Semantic) {
        return usage("--windows is for the semantic task");
    }
    Ok(())
}
