//! One evaluation: image by image, one or two predictions against the ground truth.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Frame, Task};
use eomt_edge_core::model::Model;
use eomt_edge_core::pipeline::Pipeline;
use eomt_edge_core::segment::PostProcessConfig;
use eomt_edge_host::model_file::{self, Compute};
use eomt_edge_host::output::usage;
use eomt_edge_host::pictures::read_annotated;

use super::instance::Objects;
use super::matching::{MatchBy, match_labels};
use super::panoptic::{Fit, PanopticSums};
use super::predict::{FileSource, ModelSource};
use super::scores::Scores;
use super::semantic::{self, Confusion};
use super::{EvaluateOptions, Predictions};
use crate::datasets::labels::{Labels, NO_CLASS};
use crate::datasets::{Dataset, NamedBy};
use crate::progress;

/// Where predictions come from.
enum Source {
    Model(Box<ModelSource>),
    Files(FileSource),
}

/// The scores of one image.
pub struct ImageResult {
    pub name: String,
    /// Of each prediction: PQ, mIoU or AP of the image alone.
    pub scores: Vec<Option<f64>>,
    /// Of two predictions: the share of pixels at which they differ.
    pub disagreement: Option<f64>,
}

/// The result of an evaluation.
pub struct Outcome {
    /// Names of the predictions.
    pub names: Vec<String>,
    pub scores: Vec<Scores>,
    pub images: Vec<ImageResult>,
}

/// Sums of one prediction over images.
enum Sums {
    Panoptic(PanopticSums),
    Semantic(Confusion),
    Instances(Objects),
}

/// Dataset and predictions, opened.
pub struct Run<'a> {
    pub options: &'a EvaluateOptions,
    pub dataset: Dataset,
    pub task: Task,
    sources: Vec<Source>,
    names: Vec<String>,
}

/// An object is painted into the map of a picture from this score on.
const PAINTED_SCORE_MIN: f64 = 0.5;

impl Run<'_> {
    pub fn open(options: &EvaluateOptions) -> Result<Run<'_>> {
        let (models, names) = load_models(options)?;
        let labels = models.first().map(|model| model.metadata().labels.clone());
        let labels = labels.as_deref();
        let mut dataset = Dataset::open(&*options.dataset, options.images.as_deref(), labels, (options.max_pixels, options.exif))?;
        if let Some(every) = options.held_out {
            dataset.hold_out(every, true);
        }
        dataset.truncate(options.limit.unwrap_or(usize::MAX));
        let own = models.first().map(|model| model.metadata().task);
        let task = options.task.or(dataset.natural_task()).or(own).unwrap_or_default();
        dataset.check_task(task)?;
        dataset.warn_of_empty();
        if labels.is_some() || options.report.is_some() {
            dataset.check_pictures()?;
        }
        // the model's labels are the classes, or no names are known: values of maps are numbers of labels
        let by_number = matches!(dataset.named_by(), NamedBy::Model | NamedBy::Unknown);
        let by = if by_number { MatchBy::Id } else { options.match_by };
        let mut sources = Vec::new();
        for (model, name) in models.into_iter().zip(&names) {
            let classes = match_labels(&model.metadata().labels, dataset.classes(), by, name)?;
            sources.push(Source::Model(Box::new(model_source(model, name, classes, task, options)?)));
        }
        if let Predictions::Files { path, json } = &options.predictions {
            sources.push(Source::Files(FileSource::open(path, json.as_deref(), by, &dataset)?));
        }
        Ok(Run { options, dataset, task, sources, names })
    }

    /// Goes through all images.
    pub fn measure(&mut self) -> Result<Outcome> {
        let classes = self.dataset.classes().len();
        let new = || match self.task {
            Task::Panoptic => Sums::Panoptic(PanopticSums::new(classes)),
            Task::Semantic => Sums::Semantic(Confusion::new(classes)),
            Task::Instance => Sums::Instances(Objects::default()),
        };
        let mut sums: Vec<Sums> = self.sources.iter().map(|_| new()).collect();
        let mut images = Vec::with_capacity(self.dataset.len());
        let bar = progress::bar(self.dataset.len() as u64, "evaluating");
        let mut counted = false;
        for index in 0..self.dataset.len() {
            let ground_truth = self.ground_truth(index)?;
            let frame = self.frame_if_needed(index, &ground_truth)?;
            let predictions = self.predictions(index, &ground_truth, frame.as_ref())?;
            counted |= counts(&ground_truth);
            let scores = sums.iter_mut().zip(&predictions).map(|(sums, prediction)| add(sums, &ground_truth, prediction, classes));
            let scores = scores.collect::<Result<_>>()?;
            let disagreement = match &predictions[..] {
                [a, b] => Some(share(&wrong(a, b, true))),
                _ => None,
            };
            images.push(ImageResult { name: self.dataset.image(index).name.clone(), scores, disagreement });
            bar.inc(1);
        }
        bar.finish_and_clear();
        if !counted {
            return Err(self.dataset.nothing());
        }
        let finish = |sums: Sums| match sums {
            Sums::Panoptic(sums) => Ok(sums.scores(self.dataset.classes(), images.len())),
            Sums::Semantic(sums) => Ok(sums.scores(self.dataset.classes(), images.len())),
            Sums::Instances(objects) => objects.scores(self.dataset.classes()),
        };
        let mut scores: Vec<Scores> = sums.into_iter().map(finish).collect::<Result<_>>()?;
        if self.dataset.named_by() == NamedBy::Unknown {
            scores.iter_mut().for_each(|scores| scores.classes.retain(|row| row.values.iter().any(Option::is_some)));
        }
        Ok(Outcome { names: self.names.clone(), scores, images })
    }

    pub fn ground_truth(&self, index: usize) -> Result<Labels> {
        self.dataset.labels(index, self.task)
    }

    /// The picture, whose size must be that of the ground truth.
    pub fn frame(&self, index: usize, ground_truth: &Labels) -> Result<Frame> {
        let image = self.dataset.image(index);
        Ok(read_annotated(&image.path, self.options.max_pixels, self.options.exif, ground_truth.size())?)
    }

    fn frame_if_needed(&self, index: usize, ground_truth: &Labels) -> Result<Option<Frame>> {
        let needed = self.sources.iter().any(|source| matches!(source, Source::Model(_)));
        if needed { self.frame(index, ground_truth).map(Some) } else { Ok(None) }
    }

    /// One per source. `frame` may be missing when no source is a model.
    pub fn predictions(&mut self, index: usize, ground_truth: &Labels, frame: Option<&Frame>) -> Result<Vec<Labels>> {
        let Run { dataset, sources, task, options, .. } = self;
        let name = &dataset.image(index).name;
        let mut predictions = Vec::with_capacity(sources.len());
        for source in sources {
            let labels = match source {
                Source::Model(model) => {
                    let frame = frame.context("a model needs the picture")?;
                    model.labels(frame, *task).with_context(|| format!("{name}: cannot be segmented"))?
                }
                Source::Files(files) => files.labels(dataset, index, *task, ground_truth.size(), options.max_pixels)?,
            };
            let ((width, height), (w, h)) = (ground_truth.size(), labels.size());
            if (w, h) != (width, height) {
                bail!("{name}: the prediction has {w}x{h} pixels, and the ground truth {width}x{height}");
            }
            predictions.push(labels);
        }
        Ok(predictions)
    }
}

/// Whether a ground truth shows anything to find.
fn counts(ground_truth: &Labels) -> bool {
    match ground_truth {
        Labels::Panoptic(map) => map.segments.iter().any(|segment| segment.area > 0 && !segment.crowd),
        Labels::Semantic(map) => map.classes.iter().any(|class| *class != NO_CLASS),
        Labels::Instances(instances) => instances.list.iter().any(|object| !object.crowd),
    }
}

/// Adds an image and scores it alone.
fn add(sums: &mut Sums, ground_truth: &Labels, prediction: &Labels, classes: usize) -> Result<Option<f64>> {
    match (sums, ground_truth, prediction) {
        (Sums::Panoptic(sums), Labels::Panoptic(ground_truth), Labels::Panoptic(prediction)) => {
            let fit = Fit::of(ground_truth, prediction);
            sums.add(&fit);
            Ok(fit.quality())
        }
        (Sums::Semantic(sums), Labels::Semantic(ground_truth), Labels::Semantic(prediction)) => {
            let mut alone = Confusion::new(classes);
            alone.add(ground_truth, prediction);
            sums.sum(&alone);
            Ok(alone.miou())
        }
        (Sums::Instances(objects), Labels::Instances(ground_truth), Labels::Instances(prediction)) => {
            objects.add(ground_truth, prediction);
            let mut alone = Objects::default();
            alone.add(ground_truth, prediction);
            alone.average_precision()
        }
        _ => bail!("the prediction is not of the task's kind"),
    }
}

/// Pixels at which a prediction is wrong or, when `both_predicted`, at which two predictions differ.
pub fn wrong(ground_truth: &Labels, prediction: &Labels, both_predicted: bool) -> Vec<bool> {
    match (ground_truth, prediction) {
        (Labels::Panoptic(ground_truth), Labels::Panoptic(prediction)) => {
            Fit::of(ground_truth, prediction).wrong(ground_truth, prediction, both_predicted)
        }
        (Labels::Semantic(ground_truth), Labels::Semantic(prediction)) => semantic::wrong(ground_truth, prediction, both_predicted),
        (Labels::Instances(ground_truth), Labels::Instances(prediction)) => {
            let found = prediction.class_map(PAINTED_SCORE_MIN);
            let mut expected = ground_truth.class_map(if both_predicted { PAINTED_SCORE_MIN } else { 0.0 });
            for crowd in ground_truth.list.iter().filter(|object| object.crowd) {
                // predictions on a crowd are neither right nor wrong
                crowd.each_pixel(|pixel| expected.classes[pixel] = found.classes[pixel]);
            }
            semantic::wrong(&expected, &found, true)
        }
        _ => Vec::new(),
    }
}

/// Share of pixels that are set.
pub fn share(pixels: &[bool]) -> f64 {
    pixels.iter().filter(|set| **set).count() as f64 / pixels.len().max(1) as f64
}

/// The models and what they are called.
fn load_models(options: &EvaluateOptions) -> Result<(Vec<Model>, Vec<String>)> {
    let compute = Compute::threads(options.threads).with_normalization(options.normalization);
    let compute = compute.with_bf16(options.bf16).with_merging(options.merging).with_reuse(options.reuse);
    match &options.predictions {
        Predictions::Models(paths) => {
            let load = |path: &PathBuf| Ok(model_file::load_checked(path, &compute)?);
            Ok((paths.iter().map(load).collect::<Result<_>>()?, paths.iter().map(|path| path.display().to_string()).collect()))
        }
        Predictions::Files { path, .. } => Ok((Vec::new(), vec![path.display().to_string()])),
    }
}

fn model_source(model: Model, name: &str, classes: Vec<Option<usize>>, task: Task, options: &EvaluateOptions) -> Result<ModelSource> {
    let metadata = model.metadata();
    let (height, width) = metadata.input_size;
    if options.windows && task != Task::Semantic {
        return usage("--windows is for the semantic task");
    }
    if options.windows && height != width {
        return usage(format!("--windows needs a square input, and {name} takes {height}x{width}"));
    }
    let thresholds = metadata.thresholds.with(options.threshold, options.mask_threshold, options.overlap_threshold);
    let config = PostProcessConfig { task, thresholds, ..PostProcessConfig::default() }.with_stuff(&metadata.stuff_classes);
    // average precision ranks all candidates, so only a threshold from the user leaves any out
    let score_min = options.threshold.unwrap_or(0.0);
    let in_order = options.reuse.is_some();
    Ok(ModelSource { pipeline: Pipeline::new(model, config), classes, windows: options.windows, in_order, score_min })
}
