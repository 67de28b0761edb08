//! Attention between tokens that lie row by row.

use super::engine::with_scratch;
use super::{Engine, Kernel};
use crate::kernels::attention::{Block, Head, ScorePrecision, Shape, Strided, attend, block_rows};

/// Where queries, keys or values lie: row i of input `slot` starts at `i * stride + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub slot: usize,
    pub stride: usize,
    pub offset: usize,
}

/// `softmax(q k^T scale + mask) v` per head.
#[derive(Debug, Clone)]
pub struct AttentionSpec {
    pub shape: Shape,
    pub q: Part,
    pub k: Part,
    pub v: Part,
    /// The input that is added to the scores, `[queries, tokens]`.
    pub mask: Option<usize>,
}

impl Kernel for AttentionSpec {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn run(&self, engine: &Engine, inputs: &[&[f32]], out: &mut [f32]) {
        let (isa, shape) = (engine.isa, &self.shape);
        let part = |part: Part| Strided { values: inputs[part.slot], stride: part.stride, offset: part.offset };
        let (q, k, v) = (part(self.q), part(self.k), part(self.v));
        let mask = self.mask.map_or(&[][..], |slot| inputs[slot]);
        let width = shape.heads * shape.head_dim;
        engine.with_heads(|heads| {
            heads.resize_with(shape.heads.max(heads.len()), || Head::new(isa, shape.scores));
            let heads = &mut heads[..shape.heads];
            engine.workers.each(heads, &|index, head| {
                with_scratch(|scratch| head.prepare(isa, shape, index, k, v, &mut scratch.attention));
            });
            engine.workers.rows(out, width, isa.tile_rows(), block_rows(isa), &|first, out| {
                let block = Block { first, count: out.len() / width, q, heads, mask };
                with_scratch(|scratch| attend(isa, shape, &block, out, &mut scratch.attention));
            });
        });
    }

    fn macs(&self) -> (usize, usize) {
        let Shape { queries, tokens, heads, head_dim, scores, .. } = self.shape;
        let product = queries * tokens * heads * head_dim;
        match scores {
            ScorePrecision::Int8 => (product, product),
            ScorePrecision::F32 => (0, 2 * product),
        }
    }
}
