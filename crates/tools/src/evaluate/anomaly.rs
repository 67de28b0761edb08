//! Out-of-distribution (OOD) scores: how well the model finds pixels of what it was not trained on.
//!
//! Every pixel gets an anomaly score from the class scores of semantic inference (the sum over queries of class probability times mask
//! probability). All pixels of all images are ranked by it against binary masks of anomalous pixels. The EoMT paper's out-of-distribution
//! table gives the same two numbers, but its published code does not compute them, so the scores follow the literature on mask
//! classification: the maximum, and RbA (Nayal et al. 2023); see [`eomt_edge_core::segment::Anomaly`].
//!
//! ```text
//! AP     = sum over thresholds of (recall - recall before) * precision     (scikit-learn, average_precision_score)
//! FPR@95 = the smallest false positive rate at which at least 95 % of the anomalous pixels are found
//! ```
//! Pixels with equal scores enter together. Memory: 4 bytes per pixel of the whole dataset.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Frame, Task};
use eomt_edge_core::pipeline::Pipeline;
use eomt_edge_core::segment::PostProcessConfig;
use eomt_edge_host::files;
use eomt_edge_host::model_file::{self, Compute};
use eomt_edge_host::output::{say, usage};
use eomt_edge_host::pictures::read_annotated;
use serde_json::json;

use super::{EvaluateOptions, Predictions, scores};
use crate::datasets::{Dataset, maps};
use crate::progress;

mod report;

/// Pixels of this value do not count, unless it is one of the two values that do.
const IGNORED: u16 = 255;

/// Scores of normal and of anomalous pixels.
#[derive(Debug, Default)]
struct Ranking {
    normal: Vec<f32>,
    anomalous: Vec<f32>,
}

impl Ranking {
    fn push(&mut self, score: f32, is_anomalous: bool) {
        if is_anomalous { self.anomalous.push(score) } else { self.normal.push(score) }
    }

    /// The kind of pixels that is missing, without which nothing can be measured.
    fn missing(&self) -> Option<&'static str> {
        match (self.normal.is_empty(), self.anomalous.is_empty()) {
            (_, true) => Some("anomalous"),
            (true, _) => Some("normal"),
            _ => None,
        }
    }

    /// AP and FPR@95 of all pixels pushed.
    fn measure(mut self) -> Measure {
        if self.missing().is_some() {
            return None;
        }
        self.normal.sort_unstable_by(|a, b| b.total_cmp(a));
        self.anomalous.sort_unstable_by(|a, b| b.total_cmp(a));
        let (mut found, mut false_alarms) = (0, 0);
        let (mut precision_sum, mut rate) = (0.0, None);
        let all = self.anomalous.len() as f64;
        // normal pixels that outscore all remaining anomalous ones do not change the recall, so thresholds at anomalous scores suffice
        while found < self.anomalous.len() {
            let threshold = self.anomalous[found];
            let same = self.anomalous[found..].iter().take_while(|score| **score == threshold).count();
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

/// AP and FPR@95; `None` when pixels of one of the two kinds are missing.
type Measure = Option<(f64, f64)>;

/// The source of the scores.
enum Scorer {
    Model(Box<Pipeline>),
    Files(PathBuf),
}

struct Run<'a> {
    options: &'a EvaluateOptions,
    dataset: Dataset,
    scorers: Vec<Scorer>,
    names: Vec<String>,
}

struct Outcome {
    /// All pixels of all images that count, one per scorer.
    overall: Vec<Measure>,
    /// Each image alone.
    images: Vec<Vec<Measure>>,
}

/// Evaluates a dataset of anomaly masks.
pub(super) fn evaluate(options: &EvaluateOptions) -> Result<()> {
    if let Some(report) = &options.report {
        files::make_directory(report)?; // early: the work before it may take long
    }
    let mut run = Run::open(options)?;
    let outcome = run.measure()?;
    if let Some(report) = &options.report {
        report::write(report, &mut run, &outcome)?;
    }
    print(&run, &outcome)
}

impl Run<'_> {
    fn open(options: &EvaluateOptions) -> Result<Run<'_>> {
        let mut dataset = Dataset::open(&*options.dataset, options.images.as_deref(), None, (options.max_pixels, options.exif))?;
        dataset.truncate(options.limit.unwrap_or(usize::MAX));
        let (paths, scorers) = match &options.predictions {
            Predictions::Models(paths) => (&paths[..], paths.iter().map(|path| Scorer::load(path, options)).collect::<Result<_>>()?),
            Predictions::Files { path, .. } => (std::slice::from_ref(path), vec![Scorer::Files(path.clone())]),
        };
        let names = paths.iter().map(|path| path.display().to_string()).collect();
        Ok(Run { options, dataset, scorers, names })
    }

    fn measure(&mut self) -> Result<Outcome> {
        let new = |scorers: &[Scorer]| -> Vec<Ranking> { scorers.iter().map(|_| Ranking::default()).collect() };
        let mut rankings = new(&self.scorers);
        let mut images = Vec::with_capacity(self.dataset.len());
        let bar = progress::bar(self.dataset.len() as u64, "evaluating");
        for index in 0..self.dataset.len() {
            let mask = self.mask(index)?;
            let mut alone = new(&self.scorers);
            let [normal, anomalous] = self.options.anomaly_values;
            let kind = |value: u16| if value == anomalous { Some(true) } else { (value == normal).then_some(false) };
            for (scores, (all, alone)) in self.scores(index, &mask)?.into_iter().zip(rankings.iter_mut().zip(&mut alone)) {
                for (score, is_anomalous) in scores.into_iter().zip(&mask.values).filter_map(|(score, value)| Some((score, kind(*value)?)))
                {
                    all.push(score, is_anomalous);
                    alone.push(score, is_anomalous);
                }
            }
            images.push(alone.into_iter().map(Ranking::measure).collect());
            bar.inc(1);
        }
        bar.finish_and_clear();
        if let Some(missing) = rankings.first().and_then(Ranking::missing) {
            let [normal, anomalous] = self.options.anomaly_values;
            bail!("no pixel of the masks is {missing}: normal is {normal} and anomalous {anomalous}; --anomaly-values says otherwise");
        }
        Ok(Outcome { overall: rankings.into_iter().map(Ranking::measure).collect(), images })
    }

    /// The image's anomaly mask.
    fn mask(&self, index: usize) -> Result<maps::Map<u16>> {
        let (png, mask) = self.dataset.anomaly_mask(index)?;
        let [normal, anomalous] = self.options.anomaly_values;
        if let Some(value) = mask.values.iter().find(|value| ![normal, anomalous, IGNORED].contains(value)) {
            let png = png.display();
            bail!("{png}: an anomaly mask has {normal} (normal), {anomalous} (anomalous) and {IGNORED} (does not count), not {value}");
        }
        Ok(mask)
    }

    /// The image, of the mask's size.
    fn frame(&self, index: usize, mask: &maps::Map<u16>) -> Result<Frame> {
        let image = self.dataset.image(index);
        Ok(read_annotated(&image.path, self.options.max_pixels, self.options.exif, (mask.width, mask.height))?)
    }

    /// The anomaly score of each pixel (row-major, larger = more anomalous), one map per scorer.
    fn scores(&mut self, index: usize, mask: &maps::Map<u16>) -> Result<Vec<Vec<f32>>> {
        let name = self.dataset.image(index).name.clone();
        let seen = self.scorers.iter().any(|scorer| matches!(scorer, Scorer::Model(_)));
        let frame = seen.then(|| self.frame(index, mask)).transpose()?;
        let options = self.options;
        let score = |scorer: &mut Scorer| {
            let scores = match scorer {
                Scorer::Model(pipeline) => {
                    let frame = frame.as_ref().context("a model needs the picture")?;
                    pipeline.reset();
                    pipeline.anomalies(frame, options.windows, options.anomaly)?
                }
                Scorer::Files(path) => file_scores(path, &name, (mask.width, mask.height), options.max_pixels)?,
            };
            match scores.iter().any(|score| score.is_nan()) {
                true => bail!("{name}: the network returns values that are not numbers"),
                false => Ok(scores),
            }
        };
        self.scorers.iter_mut().map(score).collect()
    }
}

impl Scorer {
    fn load(path: &Path, options: &EvaluateOptions) -> Result<Scorer> {
        let model = model_file::load_checked(
            path,
            &Compute::threads(options.threads)
                .with_normalization(options.normalization)
                .with_bf16(options.bf16)
                .with_merging(options.merging),
        )?;
        let (height, width) = model.metadata().input_size;
        if options.windows && height != width {
            return usage(format!("--windows needs a square input, and {} takes {height}x{width}", path.display()));
        }
        Ok(Scorer::Model(Box::new(Pipeline::new(model, PostProcessConfig { task: Task::Semantic, ..PostProcessConfig::default() }))))
    }
}

/// Scores of an image in a file: grey values, larger = more anomalous.
fn file_scores(path: &Path, name: &str, size: (u32, u32), max_pixels: u64) -> Result<Vec<f32>> {
    let path = path.join(Path::new(name).with_extension("png"));
    let map = maps::values(&path, &maps::Colours::new(), max_pixels)?;
    check_size(&path.display().to_string(), (map.width, map.height), size)?;
    Ok(map.values.into_iter().map(f32::from).collect())
}

fn check_size(name: &str, (width, height): (u32, u32), ground_truth: (u32, u32)) -> Result<()> {
    if (width, height) != ground_truth {
        bail!("{name}: {width}x{height} pixels, and the anomaly mask has {}x{}", ground_truth.0, ground_truth.1);
    }
    Ok(())
}

fn print(run: &Run, outcome: &Outcome) -> Result<()> {
    let images = run.dataset.len();
    let object = |measure: &Measure| {
        let [ap, fpr] = columns(measure);
        json!({ "task": "anomaly", "images": images, "ap": ap, "fpr95": fpr })
    };
    let name = |index: usize| run.dataset.image(index).name.as_str();
    let apart = report::shown(outcome, run.options.shown);
    match &outcome.overall[..] {
        [one] if run.options.json => return say(object(one)),
        [a, b, ..] if run.options.json => {
            let [ap, fpr] = difference(a, b);
            let image = |&index: &usize| {
                let [a, b] = [0, 1].map(|scorer| columns(&outcome.images[index][scorer])[0]);
                json!({ "image": name(index), "a": a, "b": b })
            };
            return say(json!({
                "task": "anomaly", "images": images, "a": object(a), "b": object(b), "models": run.names,
                "difference": { "ap": ap, "fpr95": fpr }, "most_different": apart.iter().map(image).collect::<Vec<_>>(),
            }));
        }
        _ => {}
    }
    let line = |name: &str, values: [Option<f64>; 2]| {
        let [ap, fpr] = values.map(scores::percent);
        say(format_args!("{name:<40} {ap:>8} {fpr:>8}"))
    };
    say(format_args!("{:<40} {:>8} {:>8}", "", "AP", "FPR@95"))?;
    for (name, measure) in run.names.iter().zip(&outcome.overall) {
        line(name, columns(measure))?;
    }
    if let [a, b, ..] = &outcome.overall[..] {
        line("difference", difference(a, b))?;
        say(format_args!("{:<40} {:>8} {:>8}", "most different images: AP", "A", "B"))?;
        for index in apart {
            line(name(index), [0, 1].map(|scorer| columns(&outcome.images[index][scorer])[0]))?;
        }
    }
    match &run.options.report {
        Some(directory) => say(format_args!("report: {}", directory.join("index.html").display())),
        None => Ok(()),
    }
}

/// The second minus the first.
fn difference(a: &Measure, b: &Measure) -> [Option<f64>; 2] {
    let ([ap, fpr], [other_ap, other_fpr]) = (columns(a), columns(b));
    [other_ap.zip(ap), other_fpr.zip(fpr)].map(|pair| pair.map(|(b, a)| b - a))
}

/// AP and FPR@95, each with or without a value.
fn columns(measure: &Measure) -> [Option<f64>; 2] {
    [measure.map(|measure| measure.0), measure.map(|measure| measure.1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(scores: &[(f32, bool)]) -> Option<(f64, f64)> {
        let mut ranking = Ranking::default();
        scores.iter().for_each(|(score, anomalous)| ranking.push(*score, *anomalous));
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
