//! Attention between tokens that lie row by row.

use super::engine::with_scratch;
use super::{Engine, Kernel, Memory};
use crate::kernels::attention::{Block, Head, ScorePrecision, Shape, Strided, attend, block_rows};

/// Where queries, keys or values lie: row i of input `slot` starts at `i * stride + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Number of the input.
    pub slot: usize,
    /// Values from one row to the next.
    pub stride: usize,
    /// Values before the part in each row.
    pub offset: usize,
}

/// `softmax(q k^T scale + mask + bias) v` per head (scaled dot-product attention, Vaswani et al. 2017, section 3.2.1).
///
/// `[queries, heads * head_dim]`; queries and tokens are as many as the inputs have at run time, those of `shape` are the plan's.
#[derive(Debug, Clone)]
pub struct AttentionSpec {
    pub shape: Shape,
    /// Queries.
    pub q: Part,
    /// Keys.
    pub k: Part,
    /// Values.
    pub v: Part,
    /// The input that is added to the scores, `[queries, tokens]`.
    pub mask: Option<usize>,
    /// What is added to the scores of the last keys, whatever the query.
    pub bias: Option<KeyBias>,
}

/// One value for each of the last `keys` keys: the last values of input `slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyBias {
    /// Number of the input.
    pub slot: usize,
    /// Number of values.
    pub keys: usize,
}

impl AttentionSpec {
    /// The shape with the rows that queries, keys and values have now.
    fn rows(&self, inputs: &[&[f32]]) -> Shape {
        let rows = |part: Part| inputs[part.slot].len() / part.stride;
        Shape { queries: rows(self.q), tokens: rows(self.k), ..self.shape }
    }
}

impl Kernel for AttentionSpec {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn out_len(&self, _planned: usize, inputs: &[&[f32]]) -> usize {
        self.rows(inputs).queries * self.shape.heads * self.shape.head_dim
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let (isa, shape) = (engine.isa, &self.rows(inputs));
        let part = |part: Part| Strided { values: inputs[part.slot], stride: part.stride, offset: part.offset };
        let (q, k, v) = (part(self.q), part(self.k), part(self.v));
        let mask = self.mask.map_or(&[][..], |slot| inputs[slot]);
        assert!(self.mask.is_none() || mask.len() == shape.queries * shape.tokens, "a mask has one value for each score");
        let bias = self.bias.map_or(&[][..], |KeyBias { slot, keys }| &inputs[slot][inputs[slot].len() - keys..]);
        let width = shape.heads * shape.head_dim;
        engine.with_heads(|heads| {
            heads.resize_with(shape.heads.max(heads.len()), || Head::new(isa, shape.scores));
            let heads = &mut heads[..shape.heads];
            engine.workers.each(heads, &|index, head| {
                with_scratch(|scratch| head.prepare(isa, shape, index, k, v, &mut scratch.attention));
            });
            engine.workers.rows(out, width, isa.tile_rows(), block_rows(isa), &|first, out| {
                let block = Block { first, count: out.len() / width, q, heads, mask, bias };
                with_scratch(|scratch| attend(isa, shape, &block, out, &mut scratch.attention));
            });
        });
    }

    fn macs(&self) -> (usize, usize) {
        let Shape { queries, tokens, heads, head_dim, scores, .. } = self.shape;
        let product = queries * tokens * heads * head_dim;
        match scores {
            ScorePrecision::Int8 => (product, product),
            ScorePrecision::Half | ScorePrecision::F32 => (0, 2 * product),
        }
    }
}
