//! Clips: the queries that a frame leaves join the next one (VidEoMT), and the loss of all frames goes back through them.
//!
//! ```text
//! frame 1: learned queries                                   ─▶ blocks ─▶ predictions, query tokens ─┐
//! frame 2: learned queries + query_updater(query tokens of 1) ◀───────────────────────────────────────┘ ─▶ blocks ..
//! ```
//!
//! transformers' VideomtForUniversalSegmentation has no loss over clips, so this is that of the authors' repository in transformers' terms: its VideomtLoss
//! of every frame, with one assignment of queries to objects for the whole clip. An object is matched in the frame in which it appears, among the
//! queries that no earlier one has; in frames without it, its query must say its class and an empty mask. As everywhere, there is a prediction
//! before each block with queries, matched by itself, and it passes the last norm; the authors' code leaves the norm out there. No block masks.
//!
//! Refuses: single pictures.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::loss::{Batch, Points, Prediction, Purpose, Targets, Terms, match_queries, matched_loss};
use super::network::{Forward, Logits};
use super::parameters::Parameters;
use super::samples::{Clips, Sample};
use super::step::{Chance, Gradient, Stepper, along};
use super::workspace::Workspace;

impl Forward<'_> {
    /// From the patches `[T, N, 3 P P]` of the frames of one clip to predictions by place (before each block with queries, and after the last)
    /// and frame, each of a batch of one.
    pub(super) fn run_clip(&self, patches: &Tensor) -> candle_core::Result<Vec<Vec<Logits>>> {
        let sizes = self.sizes;
        let (frames, first) = (patches.dim(0)?, sizes.blocks - sizes.query_blocks);
        let mut tokens = self.embed(patches)?;
        for block in 0..first {
            tokens = self.block(block, &tokens, None, None)?;
        }
        let learned = self.weight("query.weight")?.unsqueeze(0)?;
        let mut carried: Option<Tensor> = None;
        let mut predictions: Vec<Vec<Logits>> = (0..=sizes.query_blocks).map(|_| Vec::with_capacity(frames)).collect();
        for frame in 0..frames {
            let queries = match &carried {
                None => learned.clone(),
                Some(carried) => (self.linear(carried, "query_updater")? + &learned)?,
            };
            let mut tokens = Tensor::cat(&[&queries, &tokens.narrow(0, frame, 1)?], 1)?;
            for (place, predictions) in predictions.iter_mut().enumerate() {
                predictions.push(self.predict(&tokens)?);
                if place < sizes.query_blocks {
                    tokens = self.block(first + place, &tokens, None, None)?;
                }
            }
            carried = Some(tokens.narrow(1, 0, sizes.queries)?.contiguous()?);
        }
        Ok(predictions)
    }
}

/// The assignment of queries to objects for a whole clip, by query. `targets` has all objects in every frame, with empty masks where they are not.
/// Points are drawn for each frame in which an object appears.
fn match_clip(
    predictions: &[Prediction],
    targets: &[Targets],
    options: &super::LossOptions,
    points: &mut impl Points,
) -> Vec<(usize, usize)> {
    let objects = targets.first().map_or(0, |targets| targets.classes.len());
    let mask = |frame: &'_ Targets, object: usize| -> std::ops::Range<usize> {
        let area = frame.plane[0] * frame.plane[1];
        object * area..(object + 1) * area
    };
    let is_there = |frame: &Targets, object: usize| frame.masks[mask(frame, object)].iter().any(|value| *value > 0.0);
    let first: Vec<Option<usize>> = (0..objects).map(|object| targets.iter().position(|frame| is_there(frame, object))).collect();
    let (mut used, mut matches): (Vec<usize>, Vec<(usize, usize)>) = (vec![], vec![]);
    for (number, (prediction, frame)) in predictions.iter().zip(targets).enumerate() {
        let new: Vec<usize> = (0..objects).filter(|object| first[*object] == Some(number)).collect();
        if new.is_empty() {
            continue;
        }
        let appearing = Targets {
            classes: new.iter().map(|object| frame.classes[*object]).collect(),
            plane: frame.plane,
            masks: new.iter().flat_map(|object| frame.masks[mask(frame, *object)].iter().copied()).collect(),
        };
        for (query, place) in match_queries(prediction, &appearing, options, &points.draw(Purpose::Match, options.points), &used) {
            // With more objects than queries, the last ones have none.
            if !matches.iter().any(|(taken, _)| *taken == query) {
                matches.push((query, new[place]));
            }
        }
        used = matches.iter().map(|(query, _)| *query).collect();
    }
    matches.sort_unstable();
    matches
}

/// The terms of one place in the network over a clip, and the slopes of its logits by frame: classes, masks.
fn clip_loss(
    predictions: &[Prediction],
    targets: &[Targets],
    batch: Batch,
    options: &super::LossOptions,
    points: &mut impl Points,
) -> (Terms, Vec<[Vec<f32>; 2]>) {
    let matches = match_clip(predictions, targets, options, points);
    let mut terms = Terms::default();
    let frame = |(prediction, targets): (&Prediction, &Targets)| {
        let (own, gradients) = matched_loss(prediction, targets, matches.clone(), batch, options, points);
        terms.add(&own);
        [gradients.classes, gradients.masks]
    };
    let slopes = predictions.iter().zip(targets).map(frame).collect();
    (terms, slopes)
}

impl Stepper<'_> {
    /// The gradient at `parameters` of the clips of `step`: a clip is a shard.
    pub(super) fn clip_gradient(&self, clips: &Clips, parameters: &Parameters, step: u64) -> Result<Gradient> {
        let count = self.recipe.batch;
        let samples: Vec<Vec<Sample>> = self.workers.map(count, |place| clips.sample(self.order, step, place))?;
        let objects: Vec<usize> = samples.iter().flatten().map(|sample| sample.targets.classes.len()).collect();
        let batch = Batch::new(&objects, self.recipe.sizes.queries, &self.recipe.loss);
        let sum = self.workers.sum(count, |place, workspace| {
            let chance = Chance { recipe: self.recipe, step, first: place, count: 1, probabilities: &[] };
            Ok(self.clip(parameters, &samples[place], &chance, batch, workspace)?)
        })?;
        sum.context("a batch of no clips")
    }

    fn clip(
        &self,
        parameters: &Parameters,
        samples: &[Sample],
        chance: &Chance,
        batch: Batch,
        workspace: &Arc<Workspace>,
    ) -> candle_core::Result<Gradient> {
        let (sizes, options) = (&self.recipe.sizes, &self.recipe.loss);
        let pixels: Vec<f32> = samples.iter().flat_map(|sample| sample.patches.iter().copied()).collect();
        let shape = (samples.len(), sizes.grid().pow(2), 3 * sizes.patch * sizes.patch);
        let patches = Tensor::from_vec(pixels, shape, &Device::Cpu)?;
        let places = Forward { sizes, parameters, workspace }.run_clip(&patches)?;
        let targets: Vec<Targets> = samples.iter().map(|sample| sample.targets.clone()).collect();
        let (mut surrogates, mut loss, mut last) = (vec![], 0.0, Terms::default());
        for (place, frames) in places.iter().enumerate() {
            let (terms, surrogate) = place_loss(frames, &targets, batch, options, sizes.mask_side(), &mut chance.points(0, place))?;
            loss += terms.total(options);
            last = terms;
            surrogates.push(surrogate);
        }
        Gradient::of(&Tensor::stack(&surrogates, 0)?.sum_all()?, parameters, workspace, loss, last)
    }
}

/// The terms of one place in the network, and the sum of its logits times their slopes.
fn place_loss(
    frames: &[Logits],
    targets: &[Targets],
    batch: Batch,
    options: &super::LossOptions,
    side: usize,
    points: &mut impl Points,
) -> candle_core::Result<(Terms, Tensor)> {
    let values = |logits: &Tensor| logits.flatten_all()?.to_vec1::<f32>();
    let logits: Vec<[Vec<f32>; 2]> =
        frames.iter().map(|frame| Ok([values(&frame.classes)?, values(&frame.masks)?])).collect::<candle_core::Result<_>>()?;
    let queries = frames.first().map_or(Ok(0), |frame| frame.classes.dim(1))?;
    let predictions: Vec<Prediction> =
        logits.iter().map(|[classes, masks]| Prediction { classes, masks, queries, plane: [side; 2] }).collect();
    let (terms, slopes) = clip_loss(&predictions, targets, batch, options, points);
    let mut surrogates = vec![];
    for (frame, [classes, masks]) in frames.iter().zip(slopes) {
        surrogates.push((along(&frame.classes, classes)? + along(&frame.masks, masks)?)?);
    }
    Ok((terms, Tensor::stack(&surrogates, 0)?.sum_all()?))
}
