//! The recipe of a run: everything that decides the weights that come out, and the weights it begins with.

use anyhow::{Context, Result};
use eomt_edge_host::output::usage;
use eomt_edge_tools::checkpoint::{Array, Checkpoint, Position};
use serde::{Deserialize, Serialize};

use super::loss::LossOptions;
use super::parameters::{self, Sizes};
use super::resize::resize;
use super::samples::{Augmentation, Order, Supply};
use super::schedule::{Annealing, Masking, RateOptions};
use super::{Start, TrainOptions};

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

/// The recipe of `options`, and the weights with which its run begins.
pub(super) fn prepare(options: &TrainOptions, supply: &Supply, checkpoint: Option<Checkpoint>) -> Result<(Recipe, Vec<(String, Array)>)> {
    let (labels, _) = supply.labels();
    let licence = checkpoint.as_ref().and_then(|checkpoint| checkpoint.licence.clone());
    let (sizes, weights, start, mean, std, masks) = match (&options.start, checkpoint) {
        (Start::Scratch(sizes), _) => {
            let sizes = sizes.with_classes(labels.len());
            sizes.check()?;
            let weights = parameters::random(&sizes, options.seed);
            let masks = vec![1.0; sizes.query_blocks];
            (sizes, weights, format!("scratch, seed {}", options.seed), MEAN, STD, masks)
        }
        (Start::Checkpoint { path, patch, image }, checkpoint) => {
            let checkpoint = checkpoint.context("the checkpoint has been read")?;
            let unfit = || format!("{}: this checkpoint cannot be trained", path.display());
            let (mut sizes, mut weights) = parameters::of_network(&checkpoint.network).with_context(unfit)?;
            sizes.check().with_context(unfit)?;
            let wanted = (patch.unwrap_or(sizes.patch), image.unwrap_or(sizes.image));
            let resampling = match checkpoint.network.position {
                Position::Learned { resampling, .. } => Some(resampling),
                Position::Rotary { .. } => None,
            };
            resize(&mut sizes, &mut weights, wanted, resampling).with_context(unfit)?;
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
    if sizes.chain.is_some() && (options.masking.is_some() || options.annealing.is_some()) {
        return usage("--masking, --anneal: a network with Mask2Former's decoder always attends through masks");
    }
    let own = sizes.chain.is_some().then_some(Masking::Kept);
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
