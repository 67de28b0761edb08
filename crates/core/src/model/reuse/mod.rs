//! Reuse over time: patches that look as they did when they were last computed keep what they had.
//!
//! ```text
//! pixels ──gate──▶ chosen patches ──every operator between patches and masks──▶ their rows only
//!                                    attention: queries of these rows, keys and values of all (kept, packed)
//!                                    ScaleBlocks: the pixels that depend on them; the rest of the map stays
//! class, register and query tokens: always
//! ```
//!
//! ```
//! use eomt_edge_core::model::ReuseConfig;
//! let config: ReuseConfig = "6,0.5,16".parse().unwrap();
//! assert_eq!((config.threshold, config.budget, config.refresh), (6.0, 0.5, 16));
//! ```
//!
//! One choice for all blocks, at the input: the rows of a frame then lie together from the patch embedding to the last block, products
//! run on fewer rows with the same kernels, and no block needs a memory of its activations but for keys and values. (Eventful
//! Transformers, Dutson et al. 2023, choose anew before every operator and keep the activations of each.)
//!
//! What equals what: on a frame whose patches are all chosen (the first, after a reset, beyond the budget), the outputs are those of the
//! same network without reuse, bit by bit. On a still scene they stay so. Else the tokens of chosen patches and the queries are computed
//! exactly as the definition has it, from keys and values of which those of patches that were not chosen are as old as these: they do
//! not know what changed elsewhere until it is their turn, once in `refresh` frames. Choices, and so results, do not depend on the
//! instruction set where the kernels' do not, nor on the number of threads.
//!
//! Refuses networks in which anything but our own operators reads the tokens of patches, and attention through masks ([`rewrite`]).

mod config;
mod gate;
mod kernels;
mod rewrite;
mod selection;

pub use config::{ReuseConfig, ReuseConfigError};

use tract_onnx::prelude::{TractResult, TypedModel};

use crate::data::Tensor;
use gate::Gate;
use rewrite::Rewritten;
use selection::Shared;

/// What was computed since the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReuseCounts {
    /// Frames.
    pub frames: u64,
    /// Of these, those that computed all patches.
    pub full: u64,
    /// Patches that were computed.
    pub computed: u64,
    /// Patches of a frame.
    pub patches: u64,
}

impl ReuseCounts {
    /// Share of the patches that were computed, 0 to 1; of no frames, 0.
    pub fn share(&self) -> f64 {
        self.computed as f64 / (self.frames * self.patches).max(1) as f64
    }
}

/// The gate before a plan, and what it tells the plan's operators.
#[derive(Debug)]
pub struct Reuse {
    gate: Gate,
    shared: Shared,
    counts: ReuseCounts,
}

impl Reuse {
    /// Rewrites `model`, lifted and not optimized yet; `std` is what pixel values from 0 to 1 are divided by. `Ok(Err(reason))`: it cannot
    /// be applied, and `model` is as it was.
    pub fn rewrite(model: &mut TypedModel, std: [f32; 3], config: ReuseConfig) -> TractResult<Result<Reuse, String>> {
        Ok(rewrite::rewrite(model)?.map(|Rewritten { shared, patch }| {
            let (rows, columns) = shared.read().grid;
            let counts = ReuseCounts { patches: (rows * columns) as u64, ..ReuseCounts::default() };
            Reuse { gate: Gate::new(config, patch, std), shared, counts }
        }))
    }

    /// Chooses the patches of the next run.
    pub fn before(&mut self, input: &Tensor) {
        let mut selection = self.shared.write();
        self.gate.choose(input, &mut selection);
        self.counts.frames += 1;
        self.counts.full += u64::from(selection.all);
        self.counts.computed += selection.chosen.len() as u64;
    }

    /// The run succeeded. Without this, the next one computes all patches.
    pub fn after(&mut self) {
        self.gate.done();
    }

    /// Forgets earlier frames.
    pub fn reset(&mut self) {
        self.gate.reset();
        self.counts = ReuseCounts { patches: self.counts.patches, ..ReuseCounts::default() };
    }

    pub fn counts(&self) -> ReuseCounts {
        self.counts
    }
}
