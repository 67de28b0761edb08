//! The recipe of a run: everything that decides the weights that come out, and the weights it begins with.

use anyhow::{Context, Result};
use eomt_edge_host::output::usage;
use eomt_edge_tools::checkpoint::{Array, Checkpoint, Headless, Position, Resampling};
use serde::{Deserialize, Serialize};

use super::adopt::{self, Source};
use super::loss::LossOptions;
use super::parameters::{self, Sizes};
use super::resize::resize;
use super::samples::{Augmentation, Order, Supply};
use super::schedule::{Annealing, Masking, RateOptions};
use super::{Heads, Start, TrainOptions};

/// ImageNet's mean per channel (RGB), in units of pixel value / 255, as transformers has it.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation per channel (RGB).
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// What decides the weights that come out. Part of the state on disk, so that a run does not go on with another recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub sizes: Sizes,
    pub labels: Vec<String>,
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub data: String,
    pub start: String,
    /// Of the weights with which the run begins; it goes on with what comes out.
    #[serde(default)]
    pub licence: Option<String>,
    pub steps: u64,
    pub batch: usize,
    pub seed: u64,
    pub rates: RateOptions,
    pub weight_decay: f64,
    pub clip: f64,
    pub masking: Masking,
    pub annealing: Annealing,
    pub loss: LossOptions,
    pub augmentation: Augmentation,
}

impl Recipe {
    /// What decides which sample comes when.
    pub fn order(&self) -> Order {
        Order {
            seed: self.seed,
            batch: self.batch,
            side: self.sizes.image,
            patch: self.sizes.patch,
            mean: self.mean,
            std: self.std,
            augmentation: self.augmentation,
        }
    }

    /// Probabilities of masked attention after `step` steps, one per block with queries.
    pub fn probabilities(&self, step: u64) -> Vec<f32> {
        (0..self.sizes.query_blocks).map(|place| self.masking.probability(&self.annealing, place, step) as f32).collect()
    }

    /// The first field in which two recipes differ.
    pub fn difference(&self, other: &Recipe) -> Option<String> {
        let value = |recipe: &Recipe| serde_json::to_value(recipe).unwrap_or_default();
        let (mine, others) = (value(self), value(other));
        let (mine, others) = (mine.as_object()?, others.as_object()?);
        mine.iter().find(|(key, value)| others.get(*key) != Some(value)).map(|(key, _)| key.clone())
    }
}

/// The weights with which a run begins, and what they bring.
struct Beginning {
    sizes: Sizes,
    weights: Vec<(String, Array)>,
    /// For the recipe.
    start: String,
    mean: [f32; 3],
    std: [f32; 3],
    /// Probability of masked attention by block with queries.
    masks: Vec<f32>,
    licence: Option<String>,
}

/// `video`: queries go on from frame to frame.
fn beginning(options: &TrainOptions, labels: &[String], source: Option<Source>, video: bool) -> Result<Beginning> {
    let (path, patch, image, heads) = match &options.start {
        Start::Scratch(sizes) => {
            let sizes = Sizes { video, ..sizes.with_classes(labels.len()) };
            sizes.check()?;
            let (weights, masks) = (parameters::random(&sizes, options.seed), vec![1.0; sizes.query_blocks]);
            let start = format!("scratch, seed {}", options.seed);
            return Ok(Beginning { sizes, weights, start, mean: MEAN, std: STD, masks, licence: None });
        }
        Start::Checkpoint { path, patch, image, heads } => (path, patch, image, *heads),
    };
    let unfit = || format!("{}: this checkpoint cannot be trained", path.display());
    let mut beginning = match source.context("the checkpoint has been read")? {
        Source::Whole(checkpoint) => {
            if heads != Heads::default() {
                let network = &checkpoint.network;
                let (queries, blocks) = (network.queries.shape[0], network.num_blocks);
                let said = format!("{} has its own {queries} queries in {blocks} blocks", path.display());
                return usage(format!("--queries, --query-blocks: {said}; they are for random weights and for backbones without heads"));
            }
            of_checkpoint(*checkpoint, (*patch, *image), labels, options.seed).with_context(unfit)?
        }
        Source::Backbone(headless) => of_backbone(*headless, (*patch, *image), heads, labels.len(), options.seed).with_context(unfit)?,
    };
    match (beginning.sizes.video, video) {
        (true, false) => {
            let said = "is a network for video (VidEoMT), which learns from clips";
            return usage(format!("{} {said}: give them with --video", path.display()));
        }
        (false, true) => {
            beginning.sizes.video = true;
            let heads = adopt::heads(&beginning.sizes, options.seed);
            beginning.weights.extend(heads.into_iter().filter(|(name, _)| name.starts_with("query_updater.")));
        }
        _ => {}
    }
    beginning.sizes.check().with_context(unfit)?;
    Ok(beginning)
}

fn of_checkpoint(
    checkpoint: Checkpoint,
    (patch, image): (Option<usize>, Option<usize>),
    labels: &[String],
    seed: u64,
) -> Result<Beginning> {
    let (mut sizes, mut weights) = adopt::of_network(&checkpoint.network)?;
    let wanted = (patch.unwrap_or(sizes.patch), image.unwrap_or(sizes.image));
    resize(&mut sizes, &mut weights, wanted, resampling(&checkpoint.network.position))?;
    if checkpoint.labels != labels {
        adopt_classes(&mut weights, &checkpoint.labels, labels, sizes.hidden, seed);
        sizes.classes = labels.len();
    }
    Ok(Beginning {
        sizes,
        weights,
        start: format!("checkpoint {}", checkpoint.source_sha256),
        mean: checkpoint.image_mean,
        std: checkpoint.image_std,
        masks: adopt::mask_probabilities(&checkpoint.network),
        licence: checkpoint.licence,
    })
}

/// An encoder, with random queries, heads and ScaleBlocks behind it.
fn of_backbone(
    headless: Headless,
    (patch, image): (Option<usize>, Option<usize>),
    heads: Heads,
    classes: usize,
    seed: u64,
) -> Result<Beginning> {
    let (mut sizes, mut weights) = adopt::of_backbone(&headless)?;
    let wanted = (patch.unwrap_or(sizes.patch), image.unwrap_or(sizes.image));
    resize(&mut sizes, &mut weights, wanted, resampling(&headless.backbone.position))?;
    let papers = match sizes.blocks {
        0..=12 => 3,
        13..=24 => 4,
        _ => 5,
    };
    sizes.queries = heads.queries.unwrap_or(200);
    sizes.query_blocks = heads.query_blocks.unwrap_or(papers.min(sizes.blocks));
    sizes.classes = classes;
    sizes.scale_blocks = parameters::usual_scale_blocks(sizes.patch);
    sizes.check()?;
    weights.extend(adopt::heads(&sizes, seed));
    Ok(Beginning {
        masks: vec![1.0; sizes.query_blocks],
        sizes,
        weights,
        start: format!("backbone {}, heads of seed {seed}", headless.source_sha256),
        mean: headless.image_mean,
        std: headless.image_std,
        licence: headless.licence,
    })
}

/// How a learned table of positions is resampled.
fn resampling(position: &Position) -> Option<Resampling> {
    match position {
        Position::Learned { resampling, .. } => Some(*resampling),
        Position::Rotary { .. } => None,
    }
}

/// The recipe of `options`, and the weights with which its run begins.
pub(super) fn prepare(options: &TrainOptions, supply: &Supply, source: Option<Source>) -> Result<(Recipe, Vec<(String, Array)>)> {
    let (labels, _) = supply.labels();
    let Beginning { sizes, weights, start, mean, std, masks, licence } = beginning(options, &labels, source, supply.is_video())?;
    let masked = masks.iter().any(|probability| *probability > 0.0);
    if sizes.chain.is_some() && (options.masking.is_some() || options.annealing.is_some()) {
        return usage("--masking, --anneal: a network with Mask2Former's decoder always attends through masks");
    }
    if sizes.video && (options.masking.is_some_and(|masking| masking != Masking::Never) || options.annealing.is_some()) {
        return usage("--masking, --anneal: no block of a network for video attends through masks");
    }
    let own = if sizes.video { Some(Masking::Never) } else { sizes.chain.is_some().then_some(Masking::Kept) };
    let masking = options.masking.or(own).unwrap_or(if masked || options.annealing.is_some() { Masking::Annealed } else { Masking::Never });
    let annealing = annealing(options, &sizes, &masks)?;
    let recipe = Recipe {
        sizes,
        labels,
        mean,
        std,
        data: supply.describe(),
        start,
        licence,
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

/// The spans of `options`; else even ones, where blocks that the checkpoint has already annealed stay without masks.
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

/// Changes the class head to the labels `new`: keeps the rows of classes with the same name and the row for "no object", and draws small
/// random rows for the others.
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
