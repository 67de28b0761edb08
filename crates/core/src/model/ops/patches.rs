//! Patch embedding: a convolution whose stride is its kernel is a linear layer on patches.

use std::sync::Arc;

use tract_onnx::prelude::{Tensor, TractResult};

use super::engine::with_scratch;
use super::linear::{Columns, LinearSpec, Matrix};
use super::{Engine, Kernel, Memory};
use crate::kernels::linear::FusedMlp;

/// `[1, channels, height, width]` pixel values to `[patches, n]` tokens; an optional second input is added to them.
#[derive(Debug, Clone)]
pub struct PatchesSpec {
    /// `[n, channels * patch height * patch width]`.
    pub kernel: Arc<Tensor>,
    pub bias: Arc<Vec<f32>>,
    /// Pixels.
    pub size: (usize, usize),
    pub patch: (usize, usize),
}

/// A packed [`PatchesSpec`].
#[derive(Debug)]
pub struct PatchesKernel {
    pub fused: FusedMlp,
    pub spec: PatchesSpec,
}

impl PatchesSpec {
    /// Patches per column and row; what does not fill a patch is left out.
    pub fn grid(&self) -> (usize, usize) {
        (self.size.0 / self.patch.0, self.size.1 / self.patch.1)
    }
}

impl PatchesKernel {
    pub fn pack(spec: &PatchesSpec, engine: &Engine) -> TractResult<PatchesKernel> {
        let mut engine = engine.clone();
        engine.bf16 |= engine.half_pixels;
        let matrix = Matrix { values: Arc::clone(&spec.kernel), transposed: true, scales: None };
        let fused = LinearSpec::layer(Columns { matrix, bias: Some(Arc::clone(&spec.bias)) }).fused(&engine)?;
        Ok(PatchesKernel { fused, spec: spec.clone() })
    }

    /// Patch number `index` into `to`, `[channels, patch height, patch width]`.
    pub fn gather(&self, pixels: &[f32], index: usize, to: &mut [f32]) {
        let ((height, width), (ph, pw)) = (self.spec.size, self.spec.patch);
        let columns = self.spec.grid().1;
        let (top, left) = (index / columns * ph, index % columns * pw);
        for (line, to) in to.chunks_exact_mut(pw).enumerate() {
            let (channel, y) = (line / ph, line % ph);
            to.copy_from_slice(&pixels[(channel * height + top + y) * width + left..][..pw]);
        }
    }
}

impl Kernel for PatchesKernel {
    fn name(&self) -> &'static str {
        "PatchEmbedding"
    }

    /// The grid is fixed.
    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let (isa, fused) = (engine.isa, &self.fused);
        let (k, n) = (fused.k(), fused.n());
        let residual = inputs.get(1).copied().unwrap_or(&[]);
        engine.workers.rows(out, n, isa.tile_rows(), fused.block_rows(isa), &|first, out| {
            let count = out.len() / n;
            let residual = residual.get(first * n..first * n + out.len()).unwrap_or(&[]);
            with_scratch(|scratch| {
                let patches = &mut scratch.patches;
                patches.resize(patches.len().max(count * k), 0.0);
                patches.chunks_exact_mut(k).take(count).enumerate().for_each(|(i, to)| self.gather(inputs[0], first + i, to));
                fused.run(isa, count, |i| &patches[i * k..][..k], residual, out, &mut scratch.fused);
            });
        });
    }

    fn macs(&self) -> (usize, usize) {
        let (rows, columns) = self.spec.grid();
        (0, rows * columns * self.fused.k() * self.fused.n())
    }
}
