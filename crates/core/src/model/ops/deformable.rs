//! Multi-scale deformable attention on tokens.

use super::engine::with_scratch;
use super::{Engine, INPUTS_MAX, Kernel, Memory};
use crate::kernels::deformable::{DeformableInputs, DeformableShape, deformable};

/// From the values of each map `[height * width, heads * head_dim]`, then places, then scores, to `[queries, heads * head_dim]`.
#[derive(Debug, Clone)]
pub struct DeformableSpec {
    pub shape: DeformableShape,
    /// Height and width of each map.
    pub levels: Vec<[usize; 2]>,
}

/// Maps that one can have: places and scores are inputs, too.
pub const LEVELS_MAX: usize = INPUTS_MAX - 2;

impl Kernel for DeformableSpec {
    fn name(&self) -> &'static str {
        "DeformableAttention"
    }

    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let count = self.levels.len();
        let inputs = DeformableInputs { maps: &inputs[..count], levels: &self.levels, places: inputs[count], scores: inputs[count + 1] };
        engine.workers.rows(out, self.shape.heads * self.shape.head_dim, 1, 32, &|first, out| {
            with_scratch(|scratch| deformable(&inputs, self.shape, first, out, &mut scratch.weights));
        });
    }

    /// Four pixels for each value and place.
    fn macs(&self) -> (usize, usize) {
        let DeformableShape { heads, head_dim, queries, points } = self.shape;
        (0, 4 * queries * heads * head_dim * points * self.levels.len())
    }
}
