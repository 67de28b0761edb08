//! Self-attention of a block with its norm, LayerScale and residual.
//!
//! ```text
//! for each image, head, some queries:                           backward
//!     S = q kᵀ / sqrt(width) + mask                                 E, 1 / sum as before
//!     E = e^(S - max)                                               dV += Eᵀ (dO / sum)
//!     O = E v / sum                                                 dP = dO vᵀ;  dS = P * (dP - P · dP)
//!                                                                   dQ = dS k / sqrt(width);  dK += dSᵀ q / sqrt(width)
//! ```
//!
//! Probabilities are computed twice and never kept; their gradient takes the sum of `P dP` along a row (Dao et al. 2022, "FlashAttention", appendix B.2).

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{Linear, Norm, Residual, rows, taken};
use crate::operators::{values, with_values};
use crate::product::{Sum, Target, View, multiply, scaled};
use crate::workspace::{Buffer, Workspace};

/// Scores that are computed at once: with as many gradients they stay in a core's second cache.
const SCORES: usize = 1 << 15;

/// The weights: `x + scale * (attention(norm(x)) Wᵀ + b)`.
pub(crate) struct Attention {
    pub heads: usize,
    pub norm: Norm,
    /// Of queries, keys, values, all of the width of a token.
    pub inputs: [Linear; 3],
    pub out: Residual,
    pub mask: Option<Arc<QueryMask>>,
    pub rotation: Option<Arc<Rotation>>,
}

/// `[B, Q, N]` to add to the scores of the first Q tokens and the last N.
pub(crate) struct QueryMask {
    pub queries: usize,
    pub patches: usize,
    pub values: Vec<f32>,
}

/// Rotary positions of the patches, the last N tokens: cosines and signed sines, `[N, D / heads]`.
pub(crate) struct Rotation {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Rotation {
    /// Rotates the heads of one token: `x cos + swapped sin`, the halves of `x` being swapped; `backward`, the transpose of that.
    fn turn(&self, patch: usize, token: &mut [f32], width: usize, backward: bool) {
        let (cos, sin) = (&self.cos[patch * width..][..width], &self.sin[patch * width..][..width]);
        let half = width / 2;
        for head in token.chunks_exact_mut(width) {
            let (left, right) = head.split_at_mut(half);
            for i in 0..half {
                let (a, b) = (left[i], right[i]);
                let (of_b, of_a) = if backward { (sin[i + half], sin[i]) } else { (sin[i], sin[i + half]) };
                (left[i], right[i]) = (a * cos[i] + b * of_b, b * cos[i + half] + a * of_a);
            }
        }
    }
}

/// `[B, T, D]` → `[B, T, D]`
pub(crate) fn attention(x: &Tensor, layer: Attention, workspace: &Arc<Workspace>) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Branch { layer, workspace: workspace.clone(), saved: Mutex::default() })
}

/// Moments of the norm; queries, keys and values, `[B, T, 3, D]`; what the heads give, `[B, T, D]`.
struct Saved {
    moments: Buffer,
    inputs: Buffer,
    mixed: Buffer,
}

struct Branch {
    layer: Attention,
    workspace: Arc<Workspace>,
    saved: Mutex<Option<Saved>>,
}

/// One head of one image: T tokens of D values, `width` of them the head's.
#[derive(Clone, Copy)]
struct Head {
    image: usize,
    head: usize,
    tokens: usize,
    d: usize,
    width: usize,
}

impl Head {
    /// Where the head of `token` starts in `[B, T, 3, D]`, of queries (0), keys (1) or values (2).
    fn input(self, token: usize, part: usize) -> usize {
        (self.image * self.tokens + token) * 3 * self.d + part * self.d + self.head * self.width
    }

    /// Where it starts in `[B, T, D]`.
    fn output(self, token: usize) -> usize {
        (self.image * self.tokens + token) * self.d + self.head * self.width
    }

    /// `count` rows of `inputs` from `token` on.
    fn view(self, inputs: &[f32], token: usize, count: usize, part: usize) -> View<'_> {
        View::apart(&inputs[self.input(token, part)..], [count, self.width], 3 * self.d)
    }

    fn target(self, inputs: &mut [f32], token: usize, count: usize, part: usize) -> Target<'_> {
        Target::apart(&mut inputs[self.input(token, part)..], [count, self.width], 3 * self.d)
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Queries at once: (first, count) of equal parts.
    fn parts(self) -> impl Iterator<Item = (usize, usize)> {
        let each = (SCORES / self.tokens).clamp(16, self.tokens.max(16));
        let each = self.tokens.div_ceil(self.tokens.div_ceil(each).max(1));
        (0..self.tokens).step_by(each.max(1)).map(move |first| (first, each.min(self.tokens - first)))
    }

    /// `scores = e^(S - max)` of `count` queries from `first` on, `inverses` one over their sums.
    fn exponentials(
        self,
        inputs: &[f32],
        (first, count): (usize, usize),
        mask: Option<&QueryMask>,
        scores: &mut [f32],
        inverses: &mut [f32],
    ) {
        let keys = self.view(inputs, 0, self.tokens, 1).transposed();
        let target = Target::rows(scores, self.tokens);
        scaled(target, self.view(inputs, first, count, 0), keys, Sum::Fresh, self.scale());
        for (at, (row, inverse)) in scores.chunks_exact_mut(self.tokens).zip(inverses).enumerate() {
            if let Some(mask) = mask.filter(|mask| first + at < mask.queries) {
                let of_query = &mask.values[(self.image * mask.queries + first + at) * mask.patches..][..mask.patches];
                rows::add_scaled(&mut row[self.tokens - mask.patches..], 1.0, of_query);
            }
            *inverse = rows::softmax(row);
        }
    }

    fn forward(self, inputs: &[f32], mask: Option<&QueryMask>, mixed: &mut [f32], workspace: &Workspace) {
        for (first, count) in self.parts() {
            let (mut scores, mut inverses) = (workspace.take(count * self.tokens), workspace.take(count));
            self.exponentials(inputs, (first, count), mask, &mut scores, &mut inverses);
            let target = Target::apart(&mut mixed[self.output(first)..], [count, self.width], self.d);
            multiply(target, View::rows(&scores, self.tokens), self.view(inputs, 0, self.tokens, 2), Sum::Fresh);
            for (at, inverse) in inverses.iter().enumerate() {
                mixed[self.output(first + at)..][..self.width].iter_mut().for_each(|value| *value *= inverse);
            }
        }
    }

    /// The gradients of queries, keys and values from that of `mixed`; those of keys and values are added to what is there.
    fn backward(self, saved: &Saved, mask: Option<&QueryMask>, dmixed: &[f32], dinputs: &mut [f32], workspace: &Workspace) {
        let (inputs, tokens) = (&saved.inputs, self.tokens);
        for (first, count) in self.parts() {
            let sum = if first == 0 { Sum::Fresh } else { Sum::Onto };
            let (mut scores, mut inverses) = (workspace.take(count * tokens), workspace.take(count));
            self.exponentials(inputs, (first, count), mask, &mut scores, &mut inverses);
            let grad = View::apart(&dmixed[self.output(first)..], [count, self.width], self.d);
            let mut dscores = workspace.take(count * tokens);
            multiply(Target::rows(&mut dscores, tokens), grad, self.view(inputs, 0, tokens, 2).transposed(), Sum::Fresh);
            let mut divided = workspace.take(count * self.width);
            for (at, (row, dscores)) in scores.chunks_exact(tokens).zip(dscores.chunks_exact_mut(tokens)).enumerate() {
                // not dO · O: the sum of the row's own numbers leaves 0 of their gradients' sum, whatever the products' error
                let along = rows::dot(row, dscores) * inverses[at];
                rows::softmax_backward(row, inverses[at], along, dscores);
                let grad = &dmixed[self.output(first + at)..][..self.width];
                divided[at * self.width..][..self.width].iter_mut().zip(grad).for_each(|(to, grad)| *to = grad * inverses[at]);
            }
            let (scores, dscores) = (View::rows(&scores, tokens), View::rows(&dscores, tokens));
            multiply(self.target(dinputs, 0, tokens, 2), scores.transposed(), View::rows(&divided, self.width), sum);
            scaled(self.target(dinputs, first, count, 0), dscores, self.view(inputs, 0, tokens, 1), Sum::Fresh, self.scale());
            scaled(self.target(dinputs, 0, tokens, 1), dscores.transposed(), self.view(inputs, first, count, 0), sum, self.scale());
        }
    }
}

impl Branch {
    fn heads(&self, [batch, tokens, d]: [usize; 3]) -> impl Iterator<Item = Head> {
        let heads = self.layer.heads;
        (0..batch).flat_map(move |image| (0..heads).map(move |head| Head { image, head, tokens, d, width: d / heads }))
    }

    /// Rotates queries and keys of all patches.
    fn rotate(&self, inputs: &mut [f32], [_, tokens, d]: [usize; 3], backward: bool) {
        let Some(rotation) = &self.layer.rotation else { return };
        let width = d / self.layer.heads;
        let patches = rotation.cos.len() / width;
        for image in inputs.chunks_exact_mut(tokens * 3 * d) {
            for (patch, token) in image[(tokens - patches) * 3 * d..].chunks_exact_mut(3 * d).enumerate() {
                rotation.turn(patch, &mut token[..2 * d], width, backward);
            }
        }
    }

    fn forward(&self, x: &[f32], shape: [usize; 3]) -> Result<Vec<f32>> {
        let (layer, workspace, d) = (&self.layer, &*self.workspace, shape[2]);
        let (normed, moments) = layer.norm.forward(x, workspace)?;
        let mut inputs = workspace.take(3 * x.len());
        let mut biases = Vec::with_capacity(3 * d);
        for (part, linear) in layer.inputs.iter().enumerate() {
            linear.multiply(&normed, &mut inputs[part * d..], 3 * d)?;
            biases.extend(linear.bias()?);
        }
        drop(normed);
        rows::add_bias(&mut inputs, &biases);
        self.rotate(&mut inputs, shape, false);
        let mut mixed = workspace.take(x.len());
        self.heads(shape).for_each(|head| head.forward(&inputs, layer.mask.as_deref(), &mut mixed, workspace));
        let out = layer.out.forward(x, &mixed, workspace)?;
        *self.saved.lock().expect("a pass does not panic") = Some(Saved { moments, inputs, mixed });
        Ok(out)
    }

    fn backward(&self, x: &[f32], grad: &[f32], shape: [usize; 3]) -> Result<Vec<f32>> {
        let (layer, workspace, d) = (&self.layer, &*self.workspace, shape[2]);
        let saved = taken(&self.saved)?;
        let mut dmixed = workspace.take(x.len());
        dmixed.copy_from_slice(&saved.mixed);
        layer.out.backward(&mut dmixed, grad, workspace)?;
        let mut dinputs = workspace.take(3 * x.len());
        self.heads(shape).for_each(|head| head.backward(&saved, layer.mask.as_deref(), &dmixed, &mut dinputs, workspace));
        drop(dmixed);
        self.rotate(&mut dinputs, shape, true);
        let mut sums = vec![0.0; 3 * d];
        rows::add_rows(&dinputs, &mut sums);
        let normed = layer.norm.again(x, &saved.moments, workspace)?;
        let mut dnormed = workspace.take(x.len());
        for (part, linear) in layer.inputs.iter().enumerate() {
            let sum = if part == 0 { Sum::Fresh } else { Sum::Onto };
            linear.add_bias(&sums[part * d..][..d], workspace);
            linear.backward(&normed, &dinputs[part * d..], 3 * d, (&mut dnormed, sum), workspace)?;
        }
        let mut dx = grad.to_vec();
        layer.norm.backward(x, &saved.moments, &dnormed, (&mut dx, Sum::Onto), workspace)?;
        Ok(dx)
    }
}

impl CustomOp1 for Branch {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = <[usize; 3]>::from(layout.shape().dims3()?);
        Ok((CpuStorage::F32(self.forward(values(x, layout)?, shape)?), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let shape = <[usize; 3]>::from(x.dims3()?);
        let dx = with_values([x, grad], |[x, grad]| self.backward(x, grad, shape))??;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
