//! How good the network is on pictures that it does not learn from: while it learns, and of its best checkpoint at the end.
//!
//! | in the run's directory | holds |
//! |---|---|
//! | `validation.csv` | the score after each state: PQ, or mIoU of class maps |
//! | `best/` | the checkpoint with the best score so far |
//! | `index.html`, `validation/` | curves, scores, and the worst predictions of the best checkpoint |
//! | `held-out/` | of procedural scenes: those that are kept away |
//!
//! The scores are those of `evaluate` on a converted file: what a user will measure.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use eomt_edge_core::data::{Exif, Task};
use eomt_edge_host::output::{say, usage};
use eomt_edge_host::{bounds, files};
use eomt_edge_tools::convert::{ConvertOptions, convert};
use eomt_edge_tools::datasets::{CocoPanoptic, Format};
use eomt_edge_tools::evaluate::{EvaluateOptions, Predictions, evaluate, headline};
use eomt_edge_tools::scenes::{ScenesOptions, scenes};

use super::samples::{Pictures, SCENE_SIDE, Supply};
use super::{TrainOptions, state};

/// Set apart from the seed of the scenes to learn from.
const HELD_OUT_SEED: u64 = 0x5e7_0a5d;

/// Pictures that the run does not learn from, and the scores on them so far.
pub(super) struct Validation {
    directory: PathBuf,
    dataset: Arc<dyn Format>,
    images: Option<PathBuf>,
    /// Of a dataset that is split: of so many pictures the last one.
    every: Option<usize>,
    exif: Exif,
    threads: usize,
    task: Option<Task>,
    /// Names of stuff.
    stuff: Vec<String>,
    /// Steps, and the score after them, 0 to 1.
    scores: Vec<(u64, f64)>,
    measure: &'static str,
}

impl Validation {
    /// As the options ask; `None` when they do not. Scores after `steps` are dropped: a crash undid those steps.
    ///
    /// # Errors
    /// When held-out scenes cannot be drawn, or `validation.csv` is broken.
    pub fn open(options: &TrainOptions, supply: &Supply, steps: u64) -> Result<Option<Validation>> {
        let Some(count) = options.validate else { return Ok(None) };
        let directory = options.output.clone();
        let (dataset, images, every): (Arc<dyn Format>, _, _) = match &options.pictures {
            Pictures::Annotated { images, dataset } => (Arc::clone(dataset), images.clone(), Some(count)),
            Pictures::Clips { .. } => {
                return usage("--validate: it is for single pictures; keep clips away and score the checkpoint with `evaluate --video`");
            }
            Pictures::Scenes { seed } => {
                let output = directory.join("held-out");
                let dataset = CocoPanoptic { json: output.join("panoptic.json"), directory: output.join("panoptic") };
                // the JSON comes last: without it a run was killed while it drew
                if !dataset.json.exists() {
                    if output.exists() {
                        std::fs::remove_dir_all(&output).with_context(|| format!("{}: cannot be removed", output.display()))?;
                    }
                    let (count, seed, size) = (count as u64, seed ^ HELD_OUT_SEED, SCENE_SIDE);
                    scenes(&ScenesOptions { output: output.clone(), count, seed, size, classes: Vec::new(), degrade: 0.0 })?;
                }
                (Arc::new(dataset), Some(output.join("images")), None)
            }
        };
        let (labels, stuff) = supply.labels();
        let mut validation = Validation {
            dataset,
            images,
            every,
            exif: options.exif,
            threads: options.threads,
            task: supply.is_semantic().then_some(Task::Semantic),
            stuff: stuff.into_iter().map(|index| labels[index].clone()).collect(),
            scores: Vec::new(),
            measure: "score",
            directory,
        };
        if steps > 0 && validation.csv().exists() {
            validation.scores = read(&validation.csv())?.into_iter().filter(|(step, _)| *step <= steps).collect();
        }
        Ok(Some(validation))
    }

    fn csv(&self) -> PathBuf {
        self.directory.join("validation.csv")
    }

    /// The network of a checkpoint as users will run it.
    fn convert(&self, checkpoint: &Path) -> Result<PathBuf> {
        let output = self.directory.join("validation.onnx");
        let stuff = Some(self.stuff.clone());
        let options = ConvertOptions { task: self.task, stuff, skip_check: true, quiet: true, ..ConvertOptions::default() };
        convert(checkpoint, &output, &options)?;
        Ok(output)
    }

    fn options(&self, model: PathBuf) -> EvaluateOptions {
        EvaluateOptions {
            held_out: self.every,
            exif: self.exif,
            threads: self.threads,
            ..EvaluateOptions::of_format(Arc::clone(&self.dataset), Predictions::Models(vec![model]), self.images.clone())
        }
    }

    /// Scores the checkpoint of the run's directory, which is that after `steps`, and keeps a copy when it is the best so far. Gives what to print.
    ///
    /// # Errors
    /// When the checkpoint or a picture cannot be read, or a file cannot be written.
    pub fn score(&mut self, steps: u64) -> Result<String> {
        let model = self.convert(&self.directory)?;
        let (measure, score) = headline(&self.options(model)).context("validation")?;
        let score = score.unwrap_or(0.0);
        self.measure = measure;
        let best = self.best().is_none_or(|(_, best)| score > best);
        self.scores.push((steps, score));
        if best {
            state::copy_checkpoint(&self.directory, &self.directory.join("best"))?;
        }
        let mut text = "step,score\n".to_owned();
        self.scores.iter().try_for_each(|(step, score)| writeln!(text, "{step},{score}"))?;
        files::write(&self.csv(), text.as_bytes())?;
        files::write(&self.directory.join("index.html"), self.page().as_bytes())?;
        Ok(format!(", {measure} {:.2} on pictures held out{}", 100.0 * score, if best { ", the best so far" } else { "" }))
    }

    /// Steps and score of the best checkpoint: of equal ones the first.
    fn best(&self) -> Option<(u64, f64)> {
        self.scores.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// Curves, scores, and the report of the best checkpoint, which is written at the end.
    fn page(&self) -> String {
        let row = |(step, score): &(u64, f64)| format!("<tr><td>{step}</td><td>{:.2}</td></tr>\n", 100.0 * score);
        let rows: String = self.scores.iter().map(row).collect();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Training</title>\n\
             <body style=\"font-family: sans-serif; margin: 2em\">\n<h1>Training</h1>\n<img src=\"curves.svg\" alt=\"loss by step\">\n\
             <h2>On pictures held out</h2>\n<table>\n<tr><th>step</th><th>{}, percent</th></tr>\n{rows}</table>\n\
             <p><a href=\"validation/index.html\">The worst predictions of the best checkpoint</a> (at the end of the run)</p>\n\
             <iframe src=\"validation/index.html\" title=\"predictions\" style=\"width: 100%; height: 70em; border: 0\"></iframe>\n</body></html>\n",
            self.measure
        )
    }

    /// Scores the best checkpoint with a report, and says where both are; false when no state was scored.
    ///
    /// # Errors
    /// As [`Validation::score`].
    pub fn summary(&mut self) -> Result<bool> {
        let Some((steps, score)) = self.best() else { return Ok(false) };
        let best = self.directory.join("best");
        let model = self.convert(&best)?;
        let report = Some(self.directory.join("validation"));
        evaluate(&EvaluateOptions { report, ..self.options(model.clone()) })?;
        std::fs::remove_file(&model).with_context(|| format!("{}: cannot be removed", model.display()))?;
        let page = self.directory.join("index.html");
        say(format!("best after {steps} steps, {:.2}: {}; curves and predictions: {}", 100.0 * score, best.display(), page.display()))?;
        Ok(true)
    }
}

fn read(path: &Path) -> Result<Vec<(u64, f64)>> {
    let text = files::read_text(path, &bounds::ANNOTATIONS).with_context(|| format!("{}: cannot be read", path.display()))?;
    let row = |line: &str| {
        let (step, score) = line.split_once(',')?;
        Some((step.parse().ok()?, score.parse().ok()?))
    };
    let rows =
        text.lines().skip(1).map(|line| row(line).with_context(|| format!("{}: '{line}' is not a step and its score", path.display())));
    rows.collect()
}
