//! Out-of-distribution scores: does the network know where it does not know?
//!
//! Every pixel gets a score of how foreign it is, from the class scores of semantic inference (sum over queries of class probability
//! times mask probability), and all pixels of all images are ranked by it against binary masks of what is foreign. The EoMT
//! paper's out-of-distribution table gives these two numbers; its published code has no evaluation of it, so the scores follow the
//! literature on mask classification ([`crate::segment::Anomaly`]).
//!
//! ```text
//! AP     = sum over thresholds of (recall - recall before) * precision     (scikit-learn, average_precision_score)
//! FPR@95 = the smallest false positive rate at which at least 95 % of the foreign pixels are found
//! ```
//! Pixels of one score are taken together. Memory: 4 bytes a pixel of the whole dataset.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;

use super::dataset::{Dataset, TruthFiles};
use super::{EvaluateOptions, Predictions, maps, scores};
use crate::data::Task;
use crate::model_file::{self, Compute};
use crate::pipeline::Pipeline;
use crate::segment::Rules;
use crate::source::read_picture;
use crate::tools::{progress, say, usage};

/// Values of a mask, as SegmentMeIfYouCan, Fishyscapes and RoadAnomaly publish them.
const NORMAL: u16 = 0;
const FOREIGN: u16 = 1;
const IGNORED: u16 = 255;

/// Scores of pixels, apart by what they show.
#[derive(Debug, Default)]
pub struct Ranking {
    normal: Vec<f32>,
    foreign: Vec<f32>,
}

impl Ranking {
    pub fn push(&mut self, score: f32, is_foreign: bool) {
        if is_foreign { self.foreign.push(score) } else { self.normal.push(score) }
    }

    /// AP and FPR@95; `None` when pixels of one of the two kinds are missing.
    pub fn measure(mut self) -> Option<(f64, f64)> {
        if self.normal.is_empty() || self.foreign.is_empty() {
            return None;
        }
        self.normal.sort_unstable_by(|a, b| b.total_cmp(a));
        self.foreign.sort_unstable_by(|a, b| b.total_cmp(a));
        let (mut found, mut false_alarms) = (0, 0);
        let (mut precision_sum, mut rate) = (0.0, None);
        let all = self.foreign.len() as f64;
        // normal pixels that outscore all foreign ones left change no recall, so thresholds at foreign scores suffice
        while found < self.foreign.len() {
            let threshold = self.foreign[found];
            let same = self.foreign[found..].iter().take_while(|score| **score == threshold).count();
            found += same;
            false_alarms += self.normal[false_alarms..].iter().take_while(|score| **score >= threshold).count();
            precision_sum += same as f64 / all * (found as f64 / (found + false_alarms) as f64);
            if rate.is_none() && found as f64 / all >= 0.95 {
                rate = Some(false_alarms as f64 / self.normal.len() as f64);
            }
        }
        Some((precision_sum, rate.unwrap_or(1.0)))
    }
}

/// `--anomaly-dir`.
pub(super) fn evaluate(directory: &Path, options: &EvaluateOptions) -> Result<()> {
    if options.report.is_some() {
        return usage("--report shows classes, and --anomaly-dir has none");
    }
    let truth = TruthFiles::Anomalies { directory: directory.to_owned() };
    let mut dataset = Dataset::open(&truth, options.images.as_deref(), None, options.max_pixels)?;
    dataset.images.truncate(options.limit.unwrap_or(usize::MAX));
    let mut results = Vec::new();
    match &options.predictions {
        Predictions::Models(paths) => {
            for path in paths {
                let (model, _) = model_file::load(path, &Compute::threads(options.threads))?;
                let (height, width) = model.metadata().input_size;
                if options.windows && height != width {
                    return usage(format!("--windows needs a square input, and {} takes {height}x{width}", path.display()));
                }
                let mut pipeline = Pipeline::new(model, Rules { task: Task::Semantic, ..Rules::default() });
                let score = |index: usize, size| model_scores(&mut pipeline, &dataset, index, size, options);
                results.push((path.display().to_string(), rank(&dataset, score)?));
            }
        }
        Predictions::Files { path, .. } => {
            let score = |index: usize, size| file_scores(path, &dataset, index, size, options.max_pixels);
            results.push((path.display().to_string(), rank(&dataset, score)?));
        }
    }
    print(&dataset, results, options)
}

/// Scores of an image in a file: grey values, larger = more foreign.
fn file_scores(path: &Path, dataset: &Dataset, index: usize, size: (u32, u32), max_pixels: u64) -> Result<Vec<f32>> {
    let name = Path::new(&dataset.images[index].name).with_extension("png");
    let path = path.join(&name);
    let map = maps::values(&path, max_pixels)?;
    check_size(&path.display().to_string(), (map.width, map.height), size)?;
    Ok(map.values.into_iter().map(f32::from).collect())
}

fn model_scores(pipeline: &mut Pipeline, dataset: &Dataset, index: usize, size: (u32, u32), options: &EvaluateOptions) -> Result<Vec<f32>> {
    let image = &dataset.images[index];
    let frame = read_picture(&image.path, options.max_pixels)?;
    check_size(&image.name, (frame.width, frame.height), size)?;
    Ok(pipeline.anomalies(&frame, options.windows, options.anomaly)?)
}

fn check_size(name: &str, (width, height): (u32, u32), truth: (u32, u32)) -> Result<()> {
    if (width, height) != truth {
        bail!("{name}: {width}x{height} pixels, and the anomaly mask has {}x{}", truth.0, truth.1);
    }
    Ok(())
}

/// All pixels of all images that count.
fn rank(dataset: &Dataset, mut score: impl FnMut(usize, (u32, u32)) -> Result<Vec<f32>>) -> Result<Option<(f64, f64)>> {
    let mut ranking = Ranking::default();
    let bar = progress::bar(dataset.images.len() as u64, "evaluating");
    for index in 0..dataset.images.len() {
        let (png, mask) = dataset.anomalies(index)?;
        if let Some(value) = mask.values.iter().find(|value| ![NORMAL, FOREIGN, IGNORED].contains(value)) {
            bail!("{}: an anomaly mask has 0 (normal), 1 (foreign) and 255 (does not count), not {value}", png.display());
        }
        let scores = score(index, (mask.width, mask.height))?;
        for (score, value) in scores.into_iter().zip(&mask.values).filter(|(_, value)| **value != IGNORED) {
            if score.is_nan() {
                bail!("{}: the network gives no numbers here", dataset.images[index].name);
            }
            ranking.push(score, *value == FOREIGN);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(ranking.measure())
}

fn print(dataset: &Dataset, results: Vec<(String, Option<(f64, f64)>)>, options: &EvaluateOptions) -> Result<()> {
    let object = |result: &Option<(f64, f64)>| {
        let (ap, fpr) = (result.map(|result| result.0), result.map(|result| result.1));
        json!({ "task": "anomaly", "images": dataset.images.len(), "ap": ap, "fpr95": fpr })
    };
    match &results[..] {
        [(_, result)] if options.json => say(object(result)),
        [(a, first), (b, second), ..] if options.json => {
            let models =
                json!({ "task": "anomaly", "images": dataset.images.len(), "a": object(first), "b": object(second), "models": [a, b] });
            say(models)
        }
        _ => {
            say(format_args!("{:<40} {:>8} {:>8}", "", "AP", "FPR@95"))?;
            results.iter().try_for_each(|(name, result)| {
                let [ap, fpr] = [result.map(|result| result.0), result.map(|result| result.1)].map(scores::percent);
                say(format_args!("{name:<40} {ap:>8} {fpr:>8}"))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(scores: &[(f32, bool)]) -> Option<(f64, f64)> {
        let mut ranking = Ranking::default();
        scores.iter().for_each(|(score, foreign)| ranking.push(*score, *foreign));
        ranking.measure()
    }

    #[test]
    fn perfect_and_hopeless_rankings() {
        assert_eq!(ranked(&[(0.9, true), (0.1, false)]), Some((1.0, 0.0)));
        assert_eq!(ranked(&[(0.9, false), (0.1, true)]), Some((0.5, 1.0)));
        assert_eq!(ranked(&[(0.5, false), (0.5, true), (0.5, false), (0.5, true)]), Some((0.5, 1.0)));
        assert_eq!(ranked(&[(0.5, false)]), None);
    }
}
