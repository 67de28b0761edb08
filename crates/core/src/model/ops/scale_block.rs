//! ScaleBlocks on tokens that lie row by row.

use std::sync::Arc;

use tract_onnx::prelude::TractResult;

use super::engine::with_scratch;
use super::linear::{LayerSpec, LinearSpec};
use super::{Engine, Kernel, Memory};
use crate::kernels::depthwise::depthwise_taps;
use crate::kernels::linear::{Norm, Weights};
use crate::kernels::scale_block::ScaleBlock;

/// Tokens `start ..` of the input, a grid of (height, width), to `[4 * height * width, D]`.
#[derive(Debug, Clone)]
pub struct ScaleBlockSpec {
    /// Columns (dy, dx, channel).
    pub up: LayerSpec,
    /// Of the tokens, before anything else.
    pub input_norm: Option<Arc<Norm>>,
    /// `[9, D]`.
    pub taps: Arc<Vec<f32>>,
    /// `[D]`.
    pub bias: Arc<Vec<f32>>,
    pub norm: Arc<Norm>,
    pub grid: (usize, usize),
    pub start: usize,
}

/// A packed [`ScaleBlockSpec`].
#[derive(Debug)]
pub struct ScaleBlockKernel {
    pub block: ScaleBlock,
    pub grid: (usize, usize),
    pub start: usize,
}

impl ScaleBlockKernel {
    pub fn pack(spec: &ScaleBlockSpec, engine: &Engine) -> TractResult<ScaleBlockKernel> {
        let layers = vec![spec.up.clone()];
        let up = LinearSpec { norm: spec.input_norm.clone(), layers, ..LinearSpec::all_rows() }.fused(engine)?;
        let block = ScaleBlock { up, taps: depthwise_taps(&spec.taps), bias: spec.bias.to_vec(), norm: spec.norm.as_ref().clone() };
        Ok(ScaleBlockKernel { block, grid: spec.grid, start: spec.start })
    }
}

impl Kernel for ScaleBlockKernel {
    fn name(&self) -> &'static str {
        "ScaleBlock"
    }

    /// The grid is fixed.
    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let (d, width) = (self.block.channels(), self.grid.1);
        let tokens = &inputs[0][self.start * d..];
        let token = |y: usize, x: usize| &tokens[(y * width + x) * d..][..d];
        // a unit is what one row of tokens becomes; a block of them computes one row more at either end
        engine.workers.rows(out, 4 * width * d, 1, usize::MAX, &|first, out| {
            with_scratch(|scratch| self.block.run(engine.isa, self.grid, first, token, out, &mut scratch.scale));
        });
    }

    fn macs(&self) -> (usize, usize) {
        let (tokens, d) = (self.grid.0 * self.grid.1, self.block.channels());
        let up = tokens * d * 4 * d;
        let depthwise = 4 * tokens * d * 9;
        match self.block.up.layers[0].weights() {
            Weights::Int8(_) => (up, depthwise),
            Weights::Half(_) | Weights::Expanded(_) | Weights::F32(_) => (0, up + depthwise),
        }
    }
}
