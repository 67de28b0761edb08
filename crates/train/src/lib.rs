//! `train`: EoMT from scratch or from a checkpoint, with mask annealing, on this machine's CPU.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge::tools::train::{Pictures, Start, TrainOptions, train};
//! let start = Start::Checkpoint("eomt-nano-scenes".into());
//! train(&TrainOptions::new("run".into(), start, Pictures::Scenes { seed: 1 }))?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! samples ─▶ network ─▶ loss (at L2 + 1 places) ─▶ step (sum of shards) ─▶ optimizer ─▶ state, curves, checkpoint
//! ```
//!
//! The graph and its gradients are candle's; it was chosen because its operators can be replaced one by one ([`operators`]) and its
//! weights are plain tensors. Loss, matching, points and schedules follow the paper and transformers' `EomtLoss`.
//! Invariants: the same recipe gives the same weights, whatever the number of threads and however often the run was interrupted.
//! Refuses: DINOv3 and gated MLPs; a state of another recipe.

mod curves;
mod loss;
mod network;
mod operators;
mod optimizer;
mod parameters;
mod points;
mod samples;
mod schedule;
mod state;
mod step;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use eomt_edge_core::data::Exif;
use eomt_edge_host::files;
use eomt_edge_host::output::{say, usage};
use eomt_edge_tools::checkpoint::{self, Array, Checkpoint};
use serde::{Deserialize, Serialize};

pub use curves::Row;
pub use loss::{LossOptions, Terms};
pub use parameters::Sizes;
pub use samples::{Augmentation, Pictures};
pub use schedule::{Annealing, Masking, RateOptions};

use curves::Curves;
use optimizer::Moments;
use parameters::{Depth, Parameters};
use samples::{Order, Supply};
use state::State;
use step::{Stepper, Workers};

/// ImageNet's, as transformers has them.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// What a run starts with.
#[derive(Debug, Clone)]
pub enum Start {
    /// Random weights of these sizes; the number of classes is the data's.
    Scratch(Sizes),
    /// A checkpoint: everything but the class head when its labels are others, of which rows of the same name are kept.
    Checkpoint(PathBuf),
}

/// What `train` can be told.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Directory of the run: state, curves, checkpoint. A run that is found there goes on.
    pub output: PathBuf,
    pub start: Start,
    pub pictures: Pictures,
    pub steps: u64,
    pub batch: usize,
    pub seed: u64,
    pub rates: RateOptions,
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub clip: f64,
    /// `None`: never for a checkpoint that needs no masks, annealed otherwise.
    pub masking: Option<Masking>,
    /// `None`: [`Annealing::even`].
    pub annealing: Option<Annealing>,
    pub loss: LossOptions,
    pub augmentation: Augmentation,
    pub exif: Exif,
    /// Steps between two states on disk.
    pub save_every: u64,
    /// 0: all cores.
    pub threads: usize,
}

impl TrainOptions {
    /// With nothing said.
    pub fn new(output: PathBuf, start: Start, pictures: Pictures) -> TrainOptions {
        let scratch = matches!(start, Start::Scratch(_));
        TrainOptions {
            output,
            start,
            pictures,
            steps: if scratch { 5000 } else { 400 },
            batch: 16,
            seed: 0,
            rates: RateOptions {
                rate: if scratch { 5e-4 } else { 1e-4 },
                warmup: if scratch { [100, 0] } else { [50, 50] },
                power: 0.9,
                layer_decay: if scratch { 1.0 } else { 0.8 },
            },
            weight_decay: 0.05,
            clip: 1.0,
            masking: None,
            annealing: None,
            loss: LossOptions::default(),
            augmentation: Augmentation::default(),
            exif: Exif::Apply,
            save_every: 100,
            threads: 0,
        }
    }
}

/// What decides the weights that come out. Part of the state, so that a run cannot go on as another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    sizes: Sizes,
    labels: Vec<String>,
    mean: [f32; 3],
    std: [f32; 3],
    data: String,
    start: String,
    steps: u64,
    batch: usize,
    seed: u64,
    rates: RateOptions,
    weight_decay: f64,
    clip: f64,
    masking: Masking,
    annealing: Annealing,
    loss: LossOptions,
    augmentation: Augmentation,
}

impl Recipe {
    /// The first field in which two recipes differ.
    fn difference(&self, other: &Recipe) -> Option<String> {
        let value = |recipe: &Recipe| serde_json::to_value(recipe).unwrap_or_default();
        let (mine, others) = (value(self), value(other));
        let (mine, others) = (mine.as_object()?, others.as_object()?);
        mine.iter().find(|(key, value)| others.get(*key) != Some(value)).map(|(key, _)| key.clone())
    }
}

/// Trains; prints progress; leaves state, curves and checkpoint in the output directory.
///
/// # Errors
/// When options contradict each other, a file is missing or broken, the checkpoint is of a kind that cannot be trained, or the loss
/// is no number any more.
pub fn train(options: &TrainOptions) -> Result<()> {
    check(options)?;
    let checkpoint = match &options.start {
        Start::Scratch(_) => None,
        Start::Checkpoint(path) => Some(checkpoint::read(path, &checkpoint::Options::default())?),
    };
    let labels = checkpoint.as_ref().map(|checkpoint| checkpoint.labels.as_slice());
    let supply = Supply::open(&options.pictures, options.exif, labels)?;
    let (recipe, weights) = prepare(options, &supply, checkpoint)?;
    files::make_directory(&options.output)?;
    let mut state = match state::load(&options.output, &recipe)? {
        Some(state) => state,
        None => {
            let parameters = Parameters::new(weights)?;
            State { step: 0, moments: Moments::new(&parameters), parameters }
        }
    };
    let mut curves = Curves::open(&options.output, state.step)?;
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let count: usize = state.parameters.iter().map(|(_, var)| var.elem_count()).sum();
    say(format!("{:.2} million weights, {}, from {}", count as f64 / 1e6, recipe.data, recipe.start))?;
    say(format!("steps {} to {}, {} images each, {threads} threads", state.step, recipe.steps, recipe.batch))?;
    let order = order(&recipe);
    let workers = Workers::new(threads)?;
    let stepper = Stepper { recipe: &recipe, supply: &supply, order: &order, workers: &workers };
    run(options, &stepper, &mut state, &mut curves)?;
    let (_, stuff) = supply.labels();
    let mut convert = format!("eomt-edge convert {} -o MODEL.onnx", options.output.display());
    if supply.is_semantic() {
        convert += " --task semantic";
    } else if !stuff.is_empty() {
        let names: Vec<&str> = stuff.iter().map(|&index| recipe.labels[index].as_str()).collect();
        convert += &format!(" --stuff '{}'", names.join(","));
    }
    say(format!("the checkpoint is in {}; next: {convert}", options.output.display()))
}

fn order(recipe: &Recipe) -> Order {
    Order {
        seed: recipe.seed,
        batch: recipe.batch,
        side: recipe.sizes.image,
        patch: recipe.sizes.patch,
        mean: recipe.mean,
        std: recipe.std,
        augmentation: recipe.augmentation,
    }
}

fn run(options: &TrainOptions, stepper: &Stepper, state: &mut State, curves: &mut Curves) -> Result<()> {
    let recipe = stepper.recipe;
    if state.step == recipe.steps {
        // the run that wrote the last state may have been killed before its checkpoint
        return state::export(&options.output, state, recipe);
    }
    let mut since = (Instant::now(), state.step);
    while state.step < recipe.steps {
        let step = state.step;
        let row = advance(stepper, state)?;
        curves.push(row);
        state.step = step + 1;
        let (done, due) = (state.step == recipe.steps, state.step.is_multiple_of(options.save_every.max(1)));
        if done || due || state.step.is_multiple_of(20) {
            let passed = since.0.elapsed().as_secs_f64();
            let images = (state.step - since.1) as f64 * recipe.batch as f64 / passed;
            let (loss, last) = curves.recent((state.step - since.1) as usize);
            say(format!(
                "step {}/{}: loss {loss:.3} (last prediction: class {:.3}, mask {:.3}, dice {:.3}), masked {:.2}, {images:.1} images/s",
                state.step, recipe.steps, last.cross_entropy, last.mask, last.dice, row.masked,
            ))?;
            since = (Instant::now(), state.step);
        }
        if done || due {
            // Curves before the state: rows beyond it are forgotten, rows that lack could not be made up.
            curves.save()?;
            state::save(&options.output, state, recipe)?;
            state::export(&options.output, state, recipe)?;
        }
    }
    Ok(())
}

/// One step of the optimizer.
fn advance(stepper: &Stepper, state: &mut State) -> Result<Row> {
    let (recipe, step) = (stepper.recipe, state.step);
    let probabilities = state::probabilities(recipe, step);
    let mut gradient = stepper.gradient(&state.parameters, step, &probabilities)?;
    let norm = optimizer::clip(&mut gradient.values, recipe.clip);
    if !gradient.loss.is_finite() || !norm.is_finite() {
        anyhow::bail!("step {step}: the loss is no number any more; a smaller --lr may help. The last state on disk is sound");
    }
    let rate = |depth| recipe.rates.at(depth, recipe.sizes.blocks, step, recipe.steps);
    let rates: Vec<f64> = state.parameters.iter().map(|(name, _)| rate(Depth::of(name))).collect();
    optimizer::update(&state.parameters, &gradient.values, &mut state.moments, step, &rates, recipe.weight_decay)?;
    let masked = probabilities.iter().map(|p| f64::from(*p)).sum::<f64>() / probabilities.len() as f64;
    Ok(Row { step, loss: gradient.loss, last: gradient.last, gradient_norm: norm, rate: rate(Depth::Head), masked })
}

fn check(options: &TrainOptions) -> Result<()> {
    let [low, high] = options.augmentation.scale;
    if options.steps == 0 || options.batch == 0 || options.loss.points == 0 {
        return usage("steps, batch and points must be above 0");
    }
    if !(low > 0.0 && low <= high && high <= 8.0) {
        return usage(format!("--scale {low},{high}: two factors above 0, the smaller one first, at most 8"));
    }
    Ok(())
}

/// The recipe, and the weights of a run that has not begun.
fn prepare(options: &TrainOptions, supply: &Supply, checkpoint: Option<Checkpoint>) -> Result<(Recipe, Vec<(String, Array)>)> {
    let (labels, _) = supply.labels();
    let (sizes, weights, start, mean, std, masks) = match (&options.start, checkpoint) {
        (Start::Scratch(sizes), _) => {
            let sizes = Sizes { classes: labels.len(), ..sizes.clone() };
            sizes.check()?;
            let weights = parameters::random(&sizes, options.seed);
            let masks = vec![1.0; sizes.query_blocks];
            (sizes, weights, format!("scratch, seed {}", options.seed), MEAN, STD, masks)
        }
        (Start::Checkpoint(path), checkpoint) => {
            let checkpoint = checkpoint.context("the checkpoint has been read")?;
            let unfit = || format!("{}: this checkpoint cannot be trained", path.display());
            let (mut sizes, mut weights) = parameters::of_network(&checkpoint.network).with_context(unfit)?;
            sizes.check().with_context(unfit)?;
            if checkpoint.labels != labels {
                adopt_classes(&mut weights, &checkpoint.labels, &labels, sizes.hidden, options.seed);
                sizes.classes = labels.len();
            }
            let masks = parameters::mask_probabilities(&checkpoint.network);
            let start = format!("checkpoint {}", checkpoint.source_sha256);
            (sizes, weights, start, checkpoint.image_mean, checkpoint.image_std, masks)
        }
    };
    let masked = masks.iter().any(|probability| *probability > 0.0);
    let masking = options.masking.unwrap_or(if masked || options.annealing.is_some() { Masking::Annealed } else { Masking::Never });
    let annealing = annealing(options, &sizes, &masks)?;
    let recipe = Recipe {
        sizes,
        labels,
        mean,
        std,
        data: supply.describe(),
        start,
        steps: options.steps,
        batch: options.batch,
        seed: options.seed,
        rates: options.rates,
        weight_decay: options.weight_decay,
        clip: options.clip,
        masking,
        annealing,
        loss: options.loss,
        augmentation: options.augmentation,
    };
    Ok((recipe, weights))
}

/// The spans that were asked for; else even ones, in which blocks of a checkpoint that has annealed them already stay without masks.
fn annealing(options: &TrainOptions, sizes: &Sizes, masks: &[f32]) -> Result<Annealing> {
    let Some(annealing) = &options.annealing else {
        let mut even = Annealing::even(sizes.query_blocks, options.steps);
        let annealed = masks.iter().any(|probability| *probability > 0.0);
        let done = even.spans.iter_mut().zip(masks).filter(|(_, probability)| annealed && **probability == 0.0);
        done.for_each(|(span, _)| *span = [0.0, 0.0]);
        return Ok(even);
    };
    if options.masking.is_some_and(|masking| masking != Masking::Annealed) {
        return usage("--anneal is for --masking annealed");
    }
    match annealing.check(sizes.query_blocks, options.steps) {
        Ok(()) => Ok(annealing.clone()),
        Err(reason) => usage(format!("--anneal: {reason}")),
    }
}

/// A class head for other labels: rows of classes that had the same name, the row for "no object", and small random rows.
fn adopt_classes(weights: &mut [(String, Array)], old: &[String], new: &[String], hidden: usize, seed: u64) {
    let source: Vec<Option<usize>> = new.iter().map(|name| old.iter().position(|other| other == name)).chain([Some(old.len())]).collect();
    let mut rng = eomt_edge_core::scenes::Rng::new(seed, 4);
    for (name, array) in weights.iter_mut().filter(|(name, _)| name.starts_with("class_predictor.")) {
        let width = if name.ends_with("weight") { hidden } else { 1 };
        let mut data = Vec::with_capacity(source.len() * width);
        for row in &source {
            match row {
                Some(row) => data.extend_from_slice(&array.data[row * width..][..width]),
                None if width > 1 => data.extend((0..width).map(|_| (0.02 * rng.normal()) as f32)),
                None => data.push(0.0),
            }
        }
        array.shape[0] = source.len();
        array.data = data;
    }
}
