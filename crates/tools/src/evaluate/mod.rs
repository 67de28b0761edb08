//! `evaluate`: how good a model's masks are, by the measures of the field, over the pipeline that the daemon runs.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge::tools::evaluate::{EvaluateOptions, Predictions, evaluate};
//! use eomt_edge::tools::truth::TruthFiles;
//! let truth = TruthFiles::Panoptic { json: "val/panoptic.json".into(), directory: "val/panoptic".into() };
//! let model = Predictions::Models(vec!["models/eomt-nano-scenes.onnx".into()]);
//! evaluate(&EvaluateOptions::new(truth, model, Some("val/images".into())))?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! for each image:  truth (tools::truth)  +  prediction (predict)  →  how they fit (panoptic, semantic, instance)  →  sums
//! then:            scores (table, JSON), differences of two models (compare), pictures of the worst images (report)
//! ```
//!
//! | measure | defined by | computed by |
//! |---|---|---|
//! | PQ, SQ, RQ | the COCO panoptic API | hotcoco's matching and averaging |
//! | mIoU | one confusion matrix over the dataset | hotcoco's pixel counts |
//! | mask AP | pycocotools | hotcoco; candidates as the EoMT authors take them |
//! | AP, FPR@95 of anomalies | scikit-learn's definitions | [`anomaly`] |
//!
//! Invariants: values are 0 to 1, or absent when there was nothing to score; images are read one at a time; predictions
//! that contradict themselves are errors, as in the COCO panoptic API; areas are counted from pixels. Refuses: to guess which label is which class.

pub mod anomaly;
pub mod panoptic;
pub mod semantic;

mod compare;
pub mod instance;
mod matching;
mod pictures;
mod predict;
mod report;
mod run;
pub mod scores;

use std::path::PathBuf;

use anyhow::Result;
use eomt_edge_core::data::{Exif, Normalization, Task};
use eomt_edge_core::segment::Anomaly;
use eomt_edge_host::files;
use eomt_edge_host::output::{say, usage};

pub use matching::MatchBy;

use crate::datasets::TruthFiles;
use run::Run;

/// What is evaluated.
#[derive(Debug, Clone)]
pub enum Predictions {
    /// One model, or two to compare.
    Models(Vec<PathBuf>),
    /// What somebody wrote: a directory or file, and the JSON of COCO panoptic predictions.
    Files { path: PathBuf, json: Option<PathBuf> },
}

/// What `evaluate` can be told.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    pub truth: TruthFiles,
    pub predictions: Predictions,
    pub images: Option<PathBuf>,
    /// `None`: what the truth is made for, else what the model is made for.
    pub task: Option<Task>,
    pub match_by: MatchBy,
    pub threshold: Option<f64>,
    pub mask_threshold: Option<f64>,
    pub overlap_threshold: Option<f64>,
    /// Semantic: overlapping windows instead of padding.
    pub windows: bool,
    /// Which score of a pixel says that it is foreign (binary anomaly masks only).
    pub anomaly: Anomaly,
    /// Values of normal and of foreign pixels in the masks: 0 and 1 as SegmentMeIfYouCan, Fishyscapes and RoadAnomaly publish them.
    pub anomaly_values: [u16; 2],
    /// Only the first images.
    pub limit: Option<usize>,
    pub threads: usize,
    /// Of a foreign export.
    pub normalization: Normalization,
    pub max_pixels: u64,
    pub exif: Exif,
    pub json: bool,
    /// Directory of an HTML report.
    pub report: Option<PathBuf>,
    /// Images that the report shows, and that a comparison names.
    pub shown: usize,
}

impl EvaluateOptions {
    /// With nothing said.
    pub fn new(truth: TruthFiles, predictions: Predictions, images: Option<PathBuf>) -> EvaluateOptions {
        EvaluateOptions {
            truth,
            predictions,
            images,
            task: None,
            match_by: MatchBy::default(),
            threshold: None,
            mask_threshold: None,
            overlap_threshold: None,
            windows: false,
            anomaly: Anomaly::default(),
            anomaly_values: [0, 1],
            limit: None,
            threads: 0,
            normalization: Normalization::Auto,
            max_pixels: 64 << 20,
            exif: Exif::Apply,
            json: false,
            report: None,
            shown: 12,
        }
    }
}

/// Evaluates and prints; writes the report when one is asked for.
///
/// # Errors
/// When a file is missing or broken, sizes differ, classes do not match, or the options contradict each other.
pub fn evaluate(options: &EvaluateOptions) -> Result<()> {
    check(options)?;
    if let TruthFiles::Anomalies { directory } = &options.truth {
        return anomaly::evaluate(directory, options);
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

/// Options that contradict each other.
fn check(options: &EvaluateOptions) -> Result<()> {
    let models = matches!(options.predictions, Predictions::Models(_));
    let unseen = options.images.is_none() && !matches!(options.truth, TruthFiles::Yolo { .. });
    if models && unseen {
        return usage("--images is needed: a model has to see the pictures");
    }
    if options.report.is_some() && unseen {
        return usage("--images is needed: a report shows the pictures");
    }
    if let Predictions::Files { json: Some(_), .. } = options.predictions
        && !matches!(options.truth, TruthFiles::Panoptic { .. })
    {
        return usage("--predictions-json is for a COCO panoptic ground truth");
    }
    if options.windows && options.task.is_some_and(|task| task != Task::Semantic) {
        return usage("--windows is for the semantic task");
    }
    Ok(())
}
