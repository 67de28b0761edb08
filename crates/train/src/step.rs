//! The gradient of one batch, on several threads.
//!
//! The batch is cut into shards of a fixed size. Each shard has a graph of its own and runs on one thread, so that all cores work even in
//! operators that the framework runs on one. Shards are added in their order, so the sum does not depend on the number of threads.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use eomt_edge_core::scenes::Rng;

use super::chain;
use super::loss::{Batch, Points, Prediction, Purpose, Terms, image_loss};
use super::network::{Forward, Logits, MaskChance};
use super::operators::with_values;
use super::parameters::Parameters;
use super::recipe::Recipe;
use super::rows;
use super::samples::{Order, Sample, Supply};
use super::workspace::{Buffer, Workspace};

/// Images of a shard: enough for the matrix products, few enough that two threads share a small batch.
const SHARD: usize = 4;

/// One-thread pools, which keep the framework from starting threads of its own, each with its memory.
pub(super) struct Workers(Vec<(rayon::ThreadPool, Arc<Workspace>)>);

impl Workers {
    pub(super) fn new(threads: usize) -> Result<Workers> {
        let one = || rayon::ThreadPoolBuilder::new().num_threads(1).build().context("a thread cannot be started");
        Ok(Workers((0..threads.max(1)).map(|_| Ok((one()?, Arc::default()))).collect::<Result<_>>()?))
    }

    /// Calls `task(0), task(1) ..` on all threads; whoever is free takes the next one. Gives the error of the first that failed.
    fn each(&self, count: usize, task: impl Fn(usize, &Arc<Workspace>) -> Result<()> + Sync) -> Result<()> {
        let (task, next) = (&task, &AtomicUsize::new(0));
        let mut failed: Vec<(usize, anyhow::Error)> = std::thread::scope(|scope| -> io::Result<_> {
            let run = |(pool, workspace): &'_ (rayon::ThreadPool, Arc<Workspace>)| {
                let indices = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < count));
                pool.install(|| indices.filter_map(|index| Some((index, task(index, workspace).err()?))).collect::<Vec<_>>())
            };
            let start = |worker| std::thread::Builder::new().spawn_scoped(scope, move || run(worker));
            let handles = self.0.iter().map(start).collect::<io::Result<Vec<_>>>()?;
            Ok(handles.into_iter().flat_map(|handle| handle.join().expect("a worker does not panic")).collect())
        })
        .context("a thread cannot be started")?;
        failed.sort_by_key(|(index, _)| *index);
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// `task(0), task(1) ..`, in this order, whatever thread they ran on.
    pub(super) fn map<T: Send>(&self, count: usize, task: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        let done = Mutex::new(BTreeMap::new());
        self.each(count, |index, _| {
            let result = task(index)?;
            done.lock().expect("no panic").insert(index, result);
            Ok(())
        })?;
        Ok(done.into_inner().expect("no panic").into_values().collect())
    }

    /// The sum of `task(0), task(1) ..`, added in this order; `None` of none.
    pub(super) fn sum(&self, count: usize, task: impl Fn(usize, &Arc<Workspace>) -> Result<Gradient> + Sync) -> Result<Option<Gradient>> {
        let sum = Mutex::new(Sum { next: 0, early: BTreeMap::new(), sum: None });
        self.each(count, |index, workspace| {
            let part = task(index, workspace)?;
            sum.lock().expect("no panic").add(index, part);
            Ok(())
        })?;
        Ok(sum.into_inner().expect("no panic").sum)
    }
}

/// A sum whose parts come in any order and are added in theirs.
struct Sum {
    next: usize,
    /// Parts that came before their turn.
    early: BTreeMap<usize, Gradient>,
    sum: Option<Gradient>,
}

impl Sum {
    fn add(&mut self, index: usize, part: Gradient) {
        self.early.insert(index, part);
        while let Some(part) = self.early.remove(&self.next) {
            self.next += 1;
            match &mut self.sum {
                None => self.sum = Some(part),
                Some(sum) => sum.add(&part),
            }
        }
    }
}

/// The gradient of a batch, and its loss.
pub(super) struct Gradient {
    /// By weight, in the order of [`Parameters::iter`].
    pub values: Vec<Buffer>,
    /// Weighted sum over all predictions.
    pub loss: f64,
    /// Unweighted terms of the last prediction.
    pub last: Terms,
}

impl Gradient {
    /// That of `surrogate`, a sum of logits times the slopes of the loss.
    pub(super) fn of(
        surrogate: &Tensor,
        parameters: &Parameters,
        workspace: &Workspace,
        loss: f64,
        last: Terms,
    ) -> candle_core::Result<Gradient> {
        Ok(Gradient { values: gradients(parameters, &surrogate.backward()?, workspace)?, loss, last })
    }

    fn add(&mut self, other: &Gradient) {
        self.values.iter_mut().zip(&other.values).for_each(|(sum, part)| rows::add_scaled(sum, 1.0, part));
        self.loss += other.loss;
        self.last.add(&other.last);
    }
}

/// The gradients of all weights: those that the graph found and those in the workspace, which it gives away.
pub(super) fn gradients(parameters: &Parameters, graph: &GradStore, workspace: &Workspace) -> candle_core::Result<Vec<Buffer>> {
    let one = |(_, var): (&str, &Var)| {
        let mut sum = workspace.harvest(var).unwrap_or_else(|| workspace.zeros(var.elem_count()));
        if let Some(gradient) = graph.get(var) {
            with_values([gradient], |[gradient]| rows::add_scaled(&mut sum, 1.0, gradient))?;
        }
        Ok(sum)
    };
    parameters.iter().map(one).collect()
}

/// The sum of `logits` times `slopes`: its gradient is that of the loss, and the graph needs no more.
pub(super) fn along(logits: &Tensor, slopes: Vec<f32>) -> candle_core::Result<Tensor> {
    (logits * Tensor::from_vec(slopes, logits.shape(), logits.device())?)?.sum_all()
}

/// Everything that a step needs besides the weights.
pub(super) struct Stepper<'a> {
    pub recipe: &'a Recipe,
    pub supply: &'a Supply,
    pub order: &'a Order,
    pub workers: &'a Workers,
}

impl Stepper<'_> {
    /// The gradient at `parameters` of the batch of `step`, with masks of these probabilities by block.
    pub(super) fn gradient(&self, parameters: &Parameters, step: u64, probabilities: &[f32]) -> Result<Gradient> {
        if let Supply::Clips(clips) = self.supply {
            return self.clip_gradient(clips, parameters, step);
        }
        let count = self.recipe.batch;
        let samples = self.workers.map(count, |place| self.supply.sample(self.order, step, place))?;
        let segments: Vec<usize> = samples.iter().map(|sample| sample.targets.classes.len()).collect();
        let batch = Batch::new(&segments, self.recipe.sizes.queries, &self.recipe.loss);
        let shards = count.div_ceil(SHARD);
        let sum = self.workers.sum(shards, |shard, workspace| {
            let first = shard * SHARD;
            let samples = &samples[first..(first + SHARD).min(count)];
            let chance = Chance { recipe: self.recipe, step, first, count: samples.len(), probabilities };
            Ok(self.shard(parameters, samples, chance, batch, workspace)?)
        })?;
        sum.context("a batch of no images")
    }

    fn shard(
        &self,
        parameters: &Parameters,
        samples: &[Sample],
        mut chance: Chance,
        batch: Batch,
        workspace: &Arc<Workspace>,
    ) -> candle_core::Result<Gradient> {
        let sizes = &self.recipe.sizes;
        let pixels: Vec<f32> = samples.iter().flat_map(|sample| sample.patches.iter().copied()).collect();
        let shape = (samples.len(), sizes.grid().pow(2), 3 * sizes.patch * sizes.patch);
        let patches = Tensor::from_vec(pixels, shape, &Device::Cpu)?;
        let predictions = match &sizes.chain {
            Some(network) => chain::forward(network, parameters, &patches)?,
            None => Forward { sizes, parameters, workspace }.run(&patches, &mut chance)?,
        };
        // A linear function of the logits with the gradient of the loss: the graph needs no more.
        let mut surrogate: Option<Tensor> = None;
        let (mut loss, mut last) = (0.0, Terms::default());
        let count = predictions.len();
        for (index, logits) in predictions.iter().enumerate() {
            let (terms, slope) = self.losses(logits, samples, &chance, index, batch)?;
            loss += terms.total(&self.recipe.loss);
            if index + 1 == count {
                last = terms;
            }
            surrogate = Some(match surrogate {
                Some(sum) => (sum + slope)?,
                None => slope,
            });
        }
        let surrogate = surrogate.ok_or_else(|| candle_core::Error::Msg("a network without predictions".into()))?;
        Gradient::of(&surrogate, parameters, workspace, loss, last)
    }

    /// The terms of one prediction over a shard, and the sum of its logits times their slopes.
    fn losses(
        &self,
        logits: &Logits,
        samples: &[Sample],
        chance: &Chance,
        index: usize,
        batch: Batch,
    ) -> candle_core::Result<(Terms, Tensor)> {
        let (sizes, options) = (&self.recipe.sizes, &self.recipe.loss);
        let (classes, masks) = (logits.classes.flatten_all()?.to_vec1::<f32>()?, logits.masks.flatten_all()?.to_vec1::<f32>()?);
        let (class_count, mask_count) = (classes.len() / samples.len(), masks.len() / samples.len());
        let mut terms = Terms::default();
        let (mut class_slopes, mut mask_slopes) = (Vec::with_capacity(classes.len()), Vec::with_capacity(masks.len()));
        for (place, sample) in samples.iter().enumerate() {
            let prediction = Prediction {
                classes: &classes[place * class_count..][..class_count],
                masks: &masks[place * mask_count..][..mask_count],
                queries: sizes.queries,
                plane: [sizes.mask_side(); 2],
            };
            let (image, slopes) = image_loss(&prediction, &sample.targets, batch, options, &mut chance.points(place, index));
            terms.add(&image);
            class_slopes.extend(slopes.classes);
            mask_slopes.extend(slopes.masks);
        }
        Ok((terms, (along(&logits.classes, class_slopes)? + along(&logits.masks, mask_slopes)?)?))
    }
}

/// The randomness of one shard: a stream for every purpose, image and step, so that shards are independent of each other.
pub(super) struct Chance<'a> {
    pub recipe: &'a Recipe,
    pub step: u64,
    /// Place of the shard's first image in the batch.
    pub first: usize,
    pub count: usize,
    pub probabilities: &'a [f32],
}

impl Chance<'_> {
    fn stream(&self, image: usize, purpose: u64) -> Rng {
        let position = self.step * self.recipe.batch as u64 + (self.first + image) as u64;
        Rng::new(Rng::new(self.recipe.seed, position).bits(), purpose)
    }

    pub(super) fn points(&self, image: usize, prediction: usize) -> impl Points + use<> {
        struct Stream(Rng);
        impl Points for Stream {
            fn draw(&mut self, _: Purpose, count: usize) -> Vec<[f32; 2]> {
                (0..count).map(|_| [self.0.uniform(0.0, 1.0) as f32, self.0.uniform(0.0, 1.0) as f32]).collect()
            }
        }
        Stream(self.stream(image, 100 + prediction as u64))
    }
}

impl MaskChance for Chance<'_> {
    fn masked(&mut self, block: usize) -> Option<Vec<bool>> {
        let probability = f64::from(self.probabilities[block]);
        (probability > 0.0).then(|| {
            let image = |image| {
                let mut rng = self.stream(image, block as u64);
                (0..self.recipe.sizes.queries).map(move |_| rng.chance(probability))
            };
            (0..self.count).flat_map(image).collect()
        })
    }
}
