//! Layer norm and activations that stand alone.

use std::sync::Arc;

use super::{Engine, Kernel, Memory};
use crate::kernels::activation::{Activation, activate};
use crate::kernels::layer_norm::layer_norm;
use crate::kernels::linear::Norm;

/// Layer norm over the last axis.
#[derive(Debug, Clone)]
pub struct NormSpec(pub Arc<Norm>);

/// An element-wise function.
#[derive(Debug, Clone)]
pub struct ActivationSpec {
    pub activation: Activation,
}

impl Kernel for NormSpec {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }

    fn out_len(&self, _planned: usize, inputs: &[&[f32]]) -> usize {
        inputs[0].len()
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let Norm { scale, shift, eps } = self.0.as_ref();
        let width = scale.len();
        engine.workers.rows(out, width, 1, 64, &|first, out| {
            for (row, to) in inputs[0][first * width..].chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                layer_norm(engine.isa, row, scale, shift, *eps, to);
            }
        });
    }

    fn macs(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// Values that one thread takes at a time.
const STRIP: usize = 4096;

impl Kernel for ActivationSpec {
    fn name(&self) -> &'static str {
        "Activation"
    }

    fn out_len(&self, _planned: usize, inputs: &[&[f32]]) -> usize {
        inputs[0].len()
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        engine.workers.rows(out, 1, STRIP, STRIP, &|first, out| {
            out.copy_from_slice(&inputs[0][first..first + out.len()]);
            activate(engine.isa, self.activation, out);
        });
    }

    fn macs(&self) -> (usize, usize) {
        (0, 0)
    }
}
