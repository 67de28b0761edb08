//! `train`: EoMT from scratch or from a checkpoint, with mask annealing, on this machine's CPU.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge_train::{Pictures, Start, TrainOptions, train};
//! let start = Start::Checkpoint { path: "eomt-nano-scenes".into(), patch: None, image: None, heads: Default::default() };
//! train(&TrainOptions::new("run".into(), start, Pictures::Scenes { seed: 1 }))?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! samples ─▶ network ─▶ loss (at L2 + 1 places) ─▶ step (sum of shards) ─▶ optimizer ─▶ state, curves, checkpoint
//! ```
//!
//! candle holds the graph and differentiates it: its operators can be replaced one by one (`operators`), and its weights are plain tensors.
//! Loss, matching and points are those of Mask2Former (Cheng et al. 2022) as transformers' `EomtLoss` computes them; mask annealing and the
//! schedules follow the EoMT paper (Kerssies et al. 2025, sections 3.3 and 4.1).
//!
//! Networks with Mask2Former's decoder take the place of EoMT (`chain`); all else is the same for them.
//!
//! Invariants: the same recipe gives the same weights, for any number of threads and after any number of interruptions.
//! Networks for video learn from clips (`video`).
//!
//! Refuses: single pictures for networks for video; a state of another recipe.

#![warn(missing_docs)]

mod adopt;
mod chain;
mod curves;
mod depthwise;
mod fused;
mod initial;
mod isa;
mod loss;
mod matmul;
mod network;
mod operators;
mod optimizer;
mod parameters;
mod points;
mod product;
mod recipe;
mod resize;
mod rows;
mod samples;
mod schedule;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod validation;
mod video;
mod workspace;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use eomt_edge_core::data::Exif;
use eomt_edge_host::files;
use eomt_edge_host::model_file::ISA_VARIABLE;
use eomt_edge_host::output::{say, usage};

pub use eomt_edge_tools::chain::{Architecture, Sizes as ChainSizes};
pub use loss::LossOptions;
pub use parameters::{Activation, Positions, Sizes};
pub use samples::{Augmentation, Pictures};
pub use schedule::{Annealing, Masking, RateOptions};

use adopt::Source;
use curves::{Curves, Row};
use optimizer::Moments;
use parameters::{Depth, Parameters};
use recipe::prepare;
use samples::Supply;
use state::State;
use step::{Stepper, Workers};
use validation::Validation;

/// The weights with which a run starts.
#[derive(Debug, Clone)]
pub enum Start {
    /// Random weights of these sizes. The number of classes follows from the data.
    Scratch(Sizes),
    /// A checkpoint, or a backbone without heads (DINOv2, DINOv3). When the labels of a checkpoint differ from those of the data, the class head keeps
    /// the rows of the same names only. A backbone gets random queries, heads and ScaleBlocks.
    Checkpoint {
        /// As `convert` takes it, or as [`eomt_edge_tools::checkpoint::read_headless`] does.
        path: PathBuf,
        /// Pixels along a side of a patch; `None`: the checkpoint's own.
        patch: Option<usize>,
        /// Pixels along a side of the input; `None`: the checkpoint's own.
        image: Option<usize>,
        /// Of a backbone only.
        heads: Heads,
    },
}

/// What a backbone gets in front of its last blocks. `None`: what the paper has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Heads {
    /// Queries, Q; the paper's 200 otherwise.
    pub queries: Option<usize>,
    /// Blocks at the end in which the queries take part, L2; the paper's 3 of 12 blocks, 4 of 24, 5 of more otherwise.
    pub query_blocks: Option<usize>,
}

/// Frames of a window: the graph of all of them is in memory.
const FRAMES_MAX: usize = 64;

/// Options of [`train`].
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Directory of the run: state, curves, checkpoint. An unfinished run in it goes on.
    pub output: PathBuf,
    /// The weights to begin with.
    pub start: Start,
    /// The pictures to learn from.
    pub pictures: Pictures,
    /// Steps of the optimizer; 0: the random weights are written as they are.
    pub steps: u64,
    /// Images per step; of clips: windows.
    pub batch: usize,
    /// Of the weights, the order and every other random choice.
    pub seed: u64,
    /// Learning rates.
    pub rates: RateOptions,
    /// AdamW's weight decay, of matrices.
    pub weight_decay: f64,
    /// Largest norm of the gradient; a larger one is scaled down.
    pub clip: f64,
    /// Masked attention; `None`: never for a checkpoint that needs no masks, annealed otherwise.
    pub masking: Option<Masking>,
    /// When blocks lose their masks; `None`: [`Annealing::even`].
    pub annealing: Option<Annealing>,
    /// Weights and points of the loss.
    pub loss: LossOptions,
    /// Random changes of the pictures.
    pub augmentation: Augmentation,
    /// Whether the EXIF orientation of pictures counts.
    pub exif: Exif,
    /// Steps between two states on disk.
    pub save_every: u64,
    /// Of so many annotated pictures the last one is held out, or so many scenes are; each state is scored on them, and the best checkpoint kept.
    pub validate: Option<usize>,
    /// 0: one per core.
    pub threads: usize,
}

impl TrainOptions {
    /// The defaults of the command line.
    pub fn new(output: PathBuf, start: Start, pictures: Pictures) -> TrainOptions {
        let scratch = matches!(start, Start::Scratch(_));
        let video = matches!(pictures, Pictures::Clips { .. });
        TrainOptions {
            output,
            start,
            pictures,
            steps: if scratch { 5000 } else { 400 },
            batch: if video { 4 } else { 16 },
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
            validate: None,
            threads: 0,
        }
    }
}

/// Trains, prints progress, and writes state, curves and checkpoint to the output directory.
///
/// # Errors
/// When options contradict each other, a file is missing or broken, the checkpoint is of a kind that cannot be trained, or the loss
/// becomes infinite or NaN.
pub fn train(options: &TrainOptions) -> Result<()> {
    check(options)?;
    let source = match &options.start {
        Start::Scratch(_) => None,
        Start::Checkpoint { path, .. } => Some(Source::read(path)?),
    };
    let labels = source.as_ref().and_then(Source::labels);
    let supply = Supply::open(&options.pictures, options.exif, labels, options.validate)?;
    let (recipe, weights) = prepare(options, &supply, source)?;
    files::make_directory(&options.output)?;
    let mut state = match state::load(&options.output, &recipe)? {
        Some(state) => state,
        None => {
            let parameters = Parameters::new(weights)?;
            State { step: 0, moments: Moments::new(&parameters), parameters }
        }
    };
    let mut curves = Curves::open(&options.output, state.step)?;
    let mut validation = Validation::open(options, &supply, state.step)?;
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let count: usize = state.parameters.iter().map(|(_, var)| var.elem_count()).sum();
    say(format!("{:.2} million weights, {}, from {}", count as f64 / 1e6, recipe.data, recipe.start))?;
    say(format!("steps {} to {}, {} {} each, {threads} threads", state.step, recipe.steps, recipe.batch, supply.unit()))?;
    let order = recipe.order();
    let workers = Workers::new(threads)?;
    let stepper = Stepper { recipe: &recipe, supply: &supply, order: &order, workers: &workers };
    run(options, &stepper, &mut state, &mut curves, &mut validation)?;
    let mut checkpoint = options.output.clone();
    if let Some(validation) = &mut validation
        && validation.summary()?
    {
        checkpoint.push("best");
    }
    let (_, stuff) = supply.labels();
    let mut convert = format!("eomt-edge convert {} -o MODEL.onnx", checkpoint.display());
    if supply.is_semantic() {
        convert += " --task semantic";
    } else if !stuff.is_empty() {
        let names: Vec<&str> = stuff.iter().map(|&index| recipe.labels[index].as_str()).collect();
        convert += &format!(" --stuff '{}'", names.join(","));
    }
    if let (Some(every), Pictures::Annotated { .. }) = (options.validate, &options.pictures) {
        convert += &format!("; then evaluate --held-out {every}");
    }
    say(format!("the checkpoint is in {}; next: {convert}", checkpoint.display()))
}

fn run(
    options: &TrainOptions,
    stepper: &Stepper,
    state: &mut State,
    curves: &mut Curves,
    validation: &mut Option<Validation>,
) -> Result<()> {
    let recipe = stepper.recipe;
    if state.step == recipe.steps {
        // whoever asks again gets the checkpoint again
        return state::export(&options.output, state, recipe);
    }
    if let Some(validation) = validation
        && state.step == 0
    {
        state::export(&options.output, state, recipe)?;
        say(format!("before the first step{}", validation.score(0)?))?;
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
            let progress = format!(
                "step {}/{}: loss {loss:.3} (last prediction: class {:.3}, mask {:.3}, dice {:.3}), masked {:.2}, {images:.1} {}/s",
                state.step,
                recipe.steps,
                last.cross_entropy,
                last.mask,
                last.dice,
                row.masked,
                stepper.supply.unit(),
            );
            let mut score = String::new();
            if done || due {
                // Curves before the state: rows beyond it are dropped on resume, missing ones could not be restored.
                curves.save()?;
                state::export(&options.output, state, recipe)?;
                // The score before the state, too: a run that is killed between the two repeats the steps, and scores them again.
                if let Some(validation) = validation {
                    score = validation.score(state.step)?;
                }
                state::save(&options.output, state, recipe)?;
            }
            say(progress + &score)?;
            since = (Instant::now(), state.step);
        }
    }
    Ok(())
}

/// One step of the optimizer.
fn advance(stepper: &Stepper, state: &mut State) -> Result<Row> {
    let (recipe, step) = (stepper.recipe, state.step);
    let probabilities = recipe.probabilities(step);
    let mut gradient = stepper.gradient(&state.parameters, step, &probabilities)?;
    let norm = optimizer::clip(&mut gradient.values, recipe.clip);
    if !gradient.loss.is_finite() || !norm.is_finite() {
        anyhow::bail!("step {step}: the loss is no longer a finite number; a smaller --lr may help. The last state on disk is sound");
    }
    let rate = |depth| recipe.rates.at(depth, recipe.sizes.blocks, step, recipe.steps);
    let rates: Vec<f64> = state.parameters.iter().map(|(name, _)| rate(Depth::of(name))).collect();
    optimizer::update(&state.parameters, &gradient.values, &mut state.moments, step, &rates, recipe.weight_decay)?;
    let masked = probabilities.iter().map(|p| f64::from(*p)).sum::<f64>() / probabilities.len() as f64;
    Ok(Row { step, loss: gradient.loss, last: gradient.last, gradient_norm: norm, rate: rate(Depth::Head), masked })
}

/// Refuses options without a meaning.
fn check(options: &TrainOptions) -> Result<()> {
    let [low, high] = options.augmentation.scale;
    if let Err(error) = isa::named() {
        return usage(format!("{ISA_VARIABLE}: {error}"));
    }
    if options.batch == 0 || options.loss.points == 0 {
        return usage("batch and points must be above 0");
    }
    if options.steps == 0 && (options.validate.is_some() || matches!(options.start, Start::Checkpoint { .. })) {
        return usage("--steps 0 writes random weights, so that neither --from nor --validate goes with it");
    }
    if let Pictures::Clips { frames, .. } = options.pictures
        && !(2..=FRAMES_MAX).contains(&frames)
    {
        return usage(format!("--frames {frames}: 2 to {FRAMES_MAX} frames are learned from together"));
    }
    if !(low > 0.0 && low <= high && high <= 8.0) {
        return usage(format!("--scale {low},{high}: two factors above 0, the smaller one first, at most 8"));
    }
    Ok(())
}
