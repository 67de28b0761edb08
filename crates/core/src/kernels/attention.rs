//! Attention without a tokens x tokens tensor: `softmax(q k^T scale + mask + bias) v`, per head and block of queries.
//!
//! ```text
//! prepare, per head:   k -> panels (int8, one scale per token, half or f32);  v -> half or f32 panels
//! per block of queries, per head:
//!     scores[block, tokens] = q k^T               int8 dot products, half precision or f32
//!     scores = e^(scores - row max), 1 / sums
//!     out[block, head] = (scores v) / sums        half precision unless scores are f32, on a CPU that has it, else f32
//! ```
//!
//! Where half precision is binary16, int8 scores stay in 16 bits from one product to the other: see [`super::fixed_scores`].

use super::arch::{Aligned, Isa, TILE_MAX, TileOf, per_isa, prefetch};
use super::elementwise::{add_body, scale};
use super::fixed_scores::{FixedKeys, FixedRows, fixed_scores};
use super::packed::{HalfRows, PackedF32, PackedHalf, PackedI8};
use super::quantize::{Activations, quantize_symmetric};
use super::scores::{score_stride, scores_f32, scores_half, scores_int8, weights_half};

/// How the products of queries and keys are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScorePrecision {
    /// Queries and keys quantized per token and head.
    Int8,
    /// Half precision, sums in f32; on an instruction set without such products, [`ScorePrecision::F32`].
    Half,
    /// Single precision throughout.
    F32,
}

/// Sizes of one attention; `q`, `k` and `v` are `[tokens, heads * head_dim]` with a row stride.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Rows of `q` and of the output.
    pub queries: usize,
    /// Keys and values.
    pub tokens: usize,
    /// Number of heads.
    pub heads: usize,
    /// Values of a head in a row of `q`, `k` and `v`.
    pub head_dim: usize,
    /// Factor of the products, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Precision of the products of queries and keys.
    pub scores: ScorePrecision,
}

/// Rows of a matrix with a stride: row i is `values[i * stride + offset ..]`.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a> {
    /// The whole matrix.
    pub values: &'a [f32],
    /// Values from the start of a row to the start of the next.
    pub stride: usize,
    /// Column at which the rows begin.
    pub offset: usize,
}

impl<'a> Strided<'a> {
    /// `len` values of row `row`, from column `column` on.
    #[inline]
    pub fn row(&self, row: usize, column: usize, len: usize) -> &'a [f32] {
        &self.values[row * self.stride + self.offset + column..][..len]
    }

    /// [`Strided::row`], and the row eight further on is on its way.
    #[inline]
    fn row_and_next(&self, row: usize, column: usize, len: usize) -> &'a [f32] {
        let ahead = (row + 8) * self.stride + self.offset + column;
        prefetch(self.values.get(ahead..ahead + len).unwrap_or_default());
        self.row(row, column, len)
    }
}

/// Which tokens the rows of a matrix are that has some of them only: the first `leading` ones, then `leading + c` for each c of `chosen`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Tokens that always have a row.
    pub leading: usize,
    /// Of the tokens behind these, ascending.
    pub chosen: &'a [u32],
}

impl Rows<'_> {
    /// Number of rows.
    pub fn count(&self) -> usize {
        self.leading + self.chosen.len()
    }

    /// The token of each row.
    #[inline(always)]
    pub fn tokens(&self) -> impl Iterator<Item = usize> {
        let leading = self.leading;
        (0..leading).chain(self.chosen.iter().map(move |index| leading + *index as usize))
    }
}

/// Keys and values of one head, packed.
#[derive(Debug, Clone)]
pub struct Head {
    scores: ScorePrecision,
    keys: Keys,
    fixed: FixedKeys,
    values: Values,
    /// Of each token's values, where their power of two depends on them.
    ranges: Vec<(f32, f32)>,
}

#[derive(Debug, Clone)]
enum Keys {
    Int8(PackedI8),
    Half(PackedHalf),
    F32(PackedF32),
}

impl Keys {
    fn new(isa: Isa, scores: ScorePrecision) -> Keys {
        match scores {
            ScorePrecision::Int8 => Keys::Int8(PackedI8::zeros(isa, 0, 0)),
            ScorePrecision::Half => PackedHalf::new(isa).map_or_else(|| Keys::F32(PackedF32::zeros(isa, 0, 0)), Keys::Half),
            ScorePrecision::F32 => Keys::F32(PackedF32::zeros(isa, 0, 0)),
        }
    }

    /// Values of a key.
    fn k(&self) -> usize {
        match self {
            Keys::Int8(panels) => panels.k(),
            Keys::Half(panels) => panels.k(),
            Keys::F32(panels) => panels.k(),
        }
    }
}

#[derive(Debug, Clone)]
enum Values {
    /// Divided by the power of two.
    Half(PackedHalf, f32),
    F32(PackedF32),
}

impl Head {
    /// Empty; [`Head::prepare`] makes room.
    pub fn new(isa: Isa, scores: ScorePrecision) -> Head {
        let keys = Keys::new(isa, scores);
        let values = match PackedHalf::new(isa).filter(|_| scores != ScorePrecision::F32) {
            Some(panels) => Values::Half(panels, 1.0),
            None => Values::F32(PackedF32::zeros(isa, 0, 0)),
        };
        Head { scores, keys, fixed: FixedKeys::default(), values, ranges: Vec::new() }
    }

    /// Packs keys and values of head `index`.
    pub fn prepare(&mut self, isa: Isa, shape: &Shape, index: usize, k: Strided, v: Strided, scratch: &mut AttentionScratch) {
        if self.scores != shape.scores {
            *self = Head::new(isa, shape.scores);
        }
        let AttentionScratch { key, rows, .. } = scratch;
        prepare(isa, self, shape, index, k, v, key, rows);
    }

    /// Replaces keys and values of some tokens in what [`Head::prepare`] packed for the same shape: row i of `k` and `v` is the i-th
    /// token of `rows`.
    pub fn update(&mut self, isa: Isa, index: usize, rows: Rows, k: Strided, v: Strided, scratch: &mut AttentionScratch) {
        let AttentionScratch { key, rows: scaled, .. } = scratch;
        update(isa, self, index, rows, k, v, key, scaled);
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn prepare_body(
    isa: Isa,
    head: &mut Head,
    shape: &Shape,
    index: usize,
    k: Strided,
    v: Strided,
    key: &mut Vec<i8>,
    rows: &mut Aligned<f32>,
) {
    let (dim, column) = (shape.head_dim, index * shape.head_dim);
    match &mut head.keys {
        Keys::Int8(panels) => {
            panels.resize(dim, shape.tokens);
            key.resize(dim, 0);
            for token in 0..shape.tokens {
                let scale = quantize_symmetric(isa, k.row_and_next(token, column, dim), key);
                panels.set_column(token, key, scale);
            }
            if isa.has_fixed_scores(dim) {
                head.fixed.set(panels);
            }
        }
        Keys::Half(panels) => {
            panels.resize(dim, shape.tokens);
            (0..shape.tokens).for_each(|token| panels.set_column(token, k.row_and_next(token, column, dim)));
        }
        Keys::F32(panels) => {
            panels.resize(dim, shape.tokens);
            (0..shape.tokens).for_each(|token| panels.set_column(token, k.row_and_next(token, column, dim)));
        }
    }
    match &mut head.values {
        Values::Half(panels, size) => {
            panels.resize(shape.tokens, dim);
            let row = |token: usize| v.row_and_next(token, column, dim);
            if !isa.has_fixed_scores(dim) {
                for token in (0..shape.tokens).step_by(2) {
                    panels.set_rows(token, row(token), (token + 1 < shape.tokens).then(|| row(token + 1)));
                }
                return;
            }
            // weights are up to a hundred there: products of values up to 1 leave room for their sums
            head.ranges.clear();
            head.ranges.extend((0..shape.tokens).map(|token| isa.range(row(token), (0.0, 0.0))));
            *size = power_of_two_above(joined(&head.ranges));
            rows.resize(2 * dim);
            let (upper, lower) = rows.split_at_mut(dim);
            for token in (0..shape.tokens).step_by(2) {
                let next = token + 1 < shape.tokens;
                scale(row(token), 1.0 / *size, upper);
                if next {
                    scale(row(token + 1), 1.0 / *size, lower);
                }
                panels.set_rows(token, upper, next.then_some(&*lower));
            }
        }
        Values::F32(panels) => {
            panels.resize(shape.tokens, dim);
            for token in 0..shape.tokens {
                panels.set_row(token, v.row_and_next(token, column, dim));
            }
        }
    }
}

/// Keys and values of some tokens; the values' power of two is that of all tokens again.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn update_body(isa: Isa, head: &mut Head, index: usize, rows: Rows, k: Strided, v: Strided, key: &mut Vec<i8>, scaled: &mut Aligned<f32>) {
    let dim = head.keys.k();
    let column = index * dim;
    key.resize(dim, 0);
    for (row, token) in rows.tokens().enumerate() {
        let from = k.row(row, column, dim);
        match &mut head.keys {
            Keys::Int8(panels) => {
                let scale = quantize_symmetric(isa, from, key);
                panels.set_column(token, key, scale);
            }
            Keys::Half(panels) => panels.set_column(token, from),
            Keys::F32(panels) => panels.set_column(token, from),
        }
    }
    let fixed = isa.has_fixed_scores(dim);
    if let (Keys::Int8(panels), true) = (&head.keys, fixed) {
        head.fixed.set(panels);
    }
    if let (Values::Half(panels, size), true) = (&mut head.values, fixed) {
        for (row, token) in rows.tokens().enumerate() {
            head.ranges[token] = isa.range(v.row(row, column, dim), (0.0, 0.0));
        }
        let wanted = power_of_two_above(joined(&head.ranges));
        if wanted != *size {
            panels.scale(*size / wanted);
            *size = wanted;
        }
    }
    scaled.resize(dim);
    for (row, token) in rows.tokens().enumerate() {
        let values = v.row(row, column, dim);
        match &mut head.values {
            Values::Half(panels, size) if fixed => {
                scale(values, 1.0 / *size, scaled);
                panels.set_row(token, scaled);
            }
            Values::Half(panels, _) => panels.set_row(token, values),
            Values::F32(panels) => panels.set_row(token, values),
        }
    }
}

per_isa! {
    fn update[isa](head: &mut Head, index: usize, rows: Rows, k: Strided, v: Strided, key: &mut Vec<i8>, scaled: &mut Aligned<f32>) = update_body;
}

/// The range of all ranges.
fn joined(ranges: &[(f32, f32)]) -> (f32, f32) {
    ranges.iter().fold((0.0, 0.0), |(low, high), range| (f32::min(low, range.0), f32::max(high, range.1)))
}

/// A power of two that is no smaller than the larger of two magnitudes, between 2^-100 and 2^100.
fn power_of_two_above((low, high): (f32, f32)) -> f32 {
    let largest = if -low > high { -low } else { high };
    let exponent = (largest.to_bits() >> 23).clamp(26, 226) + 1;
    f32::from_bits(exponent << 23)
}

per_isa! {
    fn prepare[isa](head: &mut Head, shape: &Shape, index: usize, k: Strided, v: Strided, key: &mut Vec<i8>, rows: &mut Aligned<f32>) = prepare_body;
}

/// The buffers of one thread. They grow to the largest shape, then stay.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    key: Vec<i8>,
    queries: Activations,
    rows: Aligned<f32>,
    scores: Aligned<f32>,
    /// Scores in half precision.
    half: Aligned<u16>,
    /// Queries in half precision.
    half_queries: HalfRows,
    fixed: FixedRows,
    /// One over the sum of each row of scores.
    sums: Vec<f32>,
}

/// Number of queries to compute together: the keys and values of a head pass through the cache once for all of them.
pub fn block_rows(isa: Isa) -> usize {
    if isa.has_matrix_registers() { 512 } else { part_rows(isa) }
}

/// Number of queries whose weights lie in the cache at a time.
fn part_rows(isa: Isa) -> usize {
    if isa.has_matrix_registers() { isa.tile_rows() } else { 4 * isa.tile_rows() }
}

/// Some queries of all heads.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// The first query of the block.
    pub first: usize,
    /// Number of queries.
    pub count: usize,
    /// All queries.
    pub q: Strided<'a>,
    /// Keys and values, prepared.
    pub heads: &'a [Head],
    /// Empty, or `[queries, tokens]` and added to the scores of every head.
    pub mask: &'a [f32],
    /// Of the last keys, as many as it has values: added to the scores of every query and head. The logarithm of a token's size makes
    /// it count as that many equal tokens (proportional attention: Bolya et al. 2023, section 3, equation 1). Empty: nothing is added.
    pub bias: &'a [f32],
}

per_isa! {
    /// Attention of `block` into `out`, `[count, heads * head_dim]`.
    pub fn attend[isa](shape: &Shape, block: &Block, out: &mut [f32], scratch: &mut AttentionScratch) = attend_body;
}

#[inline(always)]
fn attend_body(isa: Isa, shape: &Shape, block: &Block, out: &mut [f32], scratch: &mut AttentionScratch) {
    let width = shape.heads * shape.head_dim;
    assert!(block.bias.len() <= shape.tokens, "a bias of each key at most");
    for (index, head) in block.heads.iter().enumerate() {
        for (out, first) in out.chunks_mut(part_rows(isa) * width).zip((block.first..).step_by(part_rows(isa))) {
            attend_head(isa, shape, &Block { first, count: out.len() / width, ..*block }, (index, head), out, scratch);
        }
    }
}

/// Attention of one head.
#[inline(always)]
fn attend_head(isa: Isa, shape: &Shape, block: &Block, (index, head): (usize, &Head), out: &mut [f32], scratch: &mut AttentionScratch) {
    let (dim, tokens) = (shape.head_dim, shape.tokens);
    let Block { count, mask, bias, .. } = *block;
    let padded_rows = count.next_multiple_of(isa.tile_rows());
    let products = isa.products();
    scratch.sums.resize(count, 0.0);
    let column = index * dim;
    let depth = if let Values::Half(values, _) = &head.values { values.depth() } else { 0 };
    // each row at a cache line: matrix registers load 64 bytes at a time
    let half_stride = depth.next_multiple_of(32);
    scratch.half.resize(padded_rows * half_stride);
    match &head.keys {
        Keys::Int8(keys) if depth > 0 && mask.is_empty() && isa.has_fixed_scores(dim) => {
            let AttentionScratch { queries, half, fixed, sums, .. } = &mut *scratch;
            quantize_queries(isa, block, column, dim, queries);
            fixed_scores(isa, shape.scale, (count, dim), queries, keys, &head.fixed, fixed, bias, (&mut *half, half_stride), sums);
        }
        Keys::Half(keys) if depth > 0 && mask.is_empty() && bias.is_empty() && isa.has_tile_weights() => {
            let AttentionScratch { half_queries, half, sums, .. } = &mut *scratch;
            // powers of two
            set_queries(isa, block, column, dim, keys.depth(), shape.scale * std::f32::consts::LOG2_E, half_queries);
            if !weights_half(isa, half_queries, keys, (&mut *half, half_stride), sums) {
                plain_scores(isa, shape, block, head, column, depth, scratch);
            }
        }
        _ => plain_scores(isa, shape, block, head, column, depth, scratch),
    }
    let AttentionScratch { scores, half, sums, .. } = &*scratch;
    let weighted = |factor: f32| Weighted { count, sums, factor, width: shape.heads * dim, column };
    match &head.values {
        Values::Half(values, size) => {
            let tile = isa.half_tile().expect("it packed the values");
            let multiply = |row: usize, index: usize, acc: &mut TileOf<f32>| {
                products.half(&half[row * half_stride..], half_stride, values.panel(index), depth, acc)
            };
            weighted(*size).sum(dim, (tile.mr, tile.nr), multiply, out);
        }
        Values::F32(values) => {
            let tile = isa.fma_tile();
            let multiply = |row: usize, index: usize, acc: &mut TileOf<f32>| {
                isa.fma(&scores[row * score_stride(tokens)..], score_stride(tokens), values.panel(index), tokens, acc)
            };
            weighted(1.0).sum(dim, (tile.mr, tile.nr), multiply, out);
        }
    }
}

#[inline(always)]
fn quantize_queries(isa: Isa, block: &Block, column: usize, dim: usize, queries: &mut Activations) {
    queries.resize(isa, block.count, dim);
    (0..block.count).for_each(|i| queries.set_row(isa, i, block.q.row(block.first + i, column, dim)));
}

/// The queries of one head times `factor` in half precision.
#[inline(always)]
fn set_queries(isa: Isa, block: &Block, column: usize, dim: usize, depth: usize, factor: f32, queries: &mut HalfRows) {
    queries.resize(isa, block.count, depth);
    (0..block.count).for_each(|i| queries.set_scaled_row(isa, i, block.q.row_and_next(block.first + i, column, dim), factor));
}

/// Scores in f32, and their softmax: in half precision, `depth` values a row, if that is not 0.
#[inline(always)]
fn plain_scores(isa: Isa, shape: &Shape, block: &Block, head: &Head, column: usize, depth: usize, scratch: &mut AttentionScratch) {
    let (dim, tokens) = (shape.head_dim, shape.tokens);
    let Block { first, count, q, mask, bias, .. } = *block;
    let AttentionScratch { queries, rows, scores, half, half_queries, sums, .. } = scratch;
    let padded_rows = count.next_multiple_of(isa.tile_rows());
    let stride = score_stride(tokens);
    scores.resize(padded_rows * stride);
    match &head.keys {
        Keys::Int8(keys) => {
            quantize_queries(isa, block, column, dim, queries);
            scores_int8(isa, shape.scale, count, queries, keys, scores);
        }
        Keys::Half(keys) => {
            set_queries(isa, block, column, dim, keys.depth(), shape.scale, half_queries);
            scores_half(isa, count, half_queries, keys, scores);
        }
        Keys::F32(keys) => {
            rows.resize(padded_rows * dim);
            for (i, to) in rows.chunks_exact_mut(dim).take(count).enumerate() {
                scale(q.row(first + i, column, dim), shape.scale, to);
            }
            scores_f32(isa, count, rows, keys, scores);
        }
    }
    for (i, row) in scores.chunks_exact_mut(stride).take(count).enumerate() {
        let row = &mut row[..tokens];
        if !mask.is_empty() {
            add_body(&mask[(first + i) * tokens..][..tokens], row);
        }
        if !bias.is_empty() {
            add_body(bias, &mut row[tokens - bias.len()..]);
        }
        sums[i] = match shape.scores {
            _ if depth > 0 => isa.softmax_half(row, &mut half[i * depth.next_multiple_of(32)..][..depth]),
            ScorePrecision::Int8 => isa.softmax_rough(row),
            ScorePrecision::Half | ScorePrecision::F32 => isa.softmax(row),
        };
    }
}

/// `out[row, column ..] = (scores values) * (sums * factor)`; a row of `out` has `width` values.
struct Weighted<'a> {
    count: usize,
    sums: &'a [f32],
    factor: f32,
    width: usize,
    column: usize,
}

impl Weighted<'_> {
    #[inline(always)]
    fn sum(&self, dim: usize, (mr, nr): (usize, usize), multiply: impl Fn(usize, usize, &mut TileOf<f32>), out: &mut [f32]) {
        let mut acc = TileOf([0.0; TILE_MAX]);
        for (index, left) in (0..dim).step_by(nr).enumerate() {
            let columns = nr.min(dim - left);
            for row in (0..self.count).step_by(mr) {
                multiply(row, index, &mut acc);
                for r in 0..mr.min(self.count - row) {
                    let at = (row + r) * self.width + self.column + left;
                    scale(&acc.0[r * nr..][..columns], self.sums[row + r] * self.factor, &mut out[at..at + columns]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;
    use crate::kernels::testing::numbers;

    /// The definition in f64.
    fn naive(shape: &Shape, qkv: &[f32], mask: &[f32], bias: &[f32]) -> Vec<f64> {
        let width = shape.heads * shape.head_dim;
        let at = |part: usize, token: usize, c: usize| f64::from(qkv[token * 3 * width + part * width + c]);
        let mut out = Vec::new();
        for query in 0..shape.queries {
            for head in 0..shape.heads {
                let columns = head * shape.head_dim..(head + 1) * shape.head_dim;
                let score = |t: usize| {
                    let product: f64 = columns.clone().map(|c| at(0, query, c) * at(1, t, c)).sum();
                    let biased = (t + bias.len()).checked_sub(shape.tokens).map_or(0.0, |t| f64::from(bias[t]));
                    product * f64::from(shape.scale) + mask.get(query * shape.tokens + t).map_or(0.0, |m| f64::from(*m)) + biased
                };
                let weights: Vec<f64> = (0..shape.tokens).map(|t| score(t).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend(columns.map(|c| (0..shape.tokens).map(|t| weights[t] * at(2, t, c)).sum::<f64>() / sum));
            }
        }
        out
    }

    fn run(isa: Isa, shape: &Shape, qkv: &[f32], (mask, bias): (&[f32], &[f32]), block_size: usize) -> Vec<f32> {
        let width = shape.heads * shape.head_dim;
        let part = |index: usize| Strided { values: qkv, stride: 3 * width, offset: index * width };
        let mut scratch = AttentionScratch::default();
        let heads: Vec<Head> = (0..shape.heads)
            .map(|index| {
                let mut head = Head::new(isa, shape.scores);
                head.prepare(isa, shape, index, part(1), part(2), &mut scratch);
                head
            })
            .collect();
        let mut out = vec![f32::NAN; shape.queries * width];
        for first in (0..shape.queries).step_by(block_size) {
            let count = block_size.min(shape.queries - first);
            let block = Block { first, count, q: part(0), heads: &heads, mask, bias };
            attend(isa, shape, &block, &mut out[first * width..(first + count) * width], &mut scratch);
        }
        out
    }

    #[test]
    fn equals_the_definition_and_is_the_same_everywhere() {
        for (tokens, heads, head_dim, masked, biased) in [
            (1, 1, 8, false, 0),
            (5, 3, 16, true, 3),
            (41, 3, 16, false, 0),
            (41, 3, 16, false, 41),
            (77, 2, 64, true, 0),
            (33, 1, 100, false, 28),
        ] {
            // half precision: 2^-8 of q and k, up to 2, in sums of up to 100 products
            for (scores, tolerance) in [(ScorePrecision::F32, 1e-5), (ScorePrecision::Half, 0.03), (ScorePrecision::Int8, 0.02)] {
                let shape = Shape { queries: tokens, tokens, heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), scores };
                let qkv: Vec<f32> = numbers(tokens * 3 * heads * head_dim, 3).iter().map(|v| v * 2.0).collect();
                let mask: Vec<f32> = match masked {
                    true => numbers(tokens * tokens, 9).iter().map(|v| if *v > 0.0 { -1e9 } else { 0.0 }).collect(),
                    false => Vec::new(),
                };
                let bias: Vec<f32> = (0..biased).map(|at| ((at % 7 + 1) as f32).ln()).collect();
                let added = (&mask[..], &bias[..]);
                let expected = naive(&shape, &qkv, &mask, &bias);
                let check = |ours: &[f32], isa: Isa| {
                    for (ours, expected) in ours.iter().zip(&expected) {
                        // int8 scores: half a step of 1/127 in q and k, on values up to 2
                        assert!((f64::from(*ours) - expected).abs() < tolerance, "{} {tokens} {scores:?}: {ours} {expected}", isa.name());
                    }
                };
                let all = |isa: Isa| {
                    let ours = run(isa, &shape, &qkv, added, 1000);
                    assert_eq!(run(isa, &shape, &qkv, added, isa.tile_rows()), ours, "blocks do not matter");
                    check(&ours, isa);
                    ours
                };
                // half-precision products of the values differ from f32 ones
                let half = |isa: Isa| scores != ScorePrecision::F32 && isa.half_tile().is_some();
                suite::everywhere(shape, |isa| all(if half(isa) { Isa::SCALAR } else { isa }));
                suite::each_isa(|isa| drop(all(isa)));
            }
        }
    }

    /// Scores far from zero, whose powers of two leave what f32 has: the largest of a row counts then, whatever it is.
    #[test]
    fn scores_of_any_size_are_weighed() {
        let (tokens, head_dim) = (45, 32);
        let shape = Shape { queries: tokens, tokens, heads: 1, head_dim, scale: 1.0, scores: ScorePrecision::Half };
        for offset in [0.0, 60.0, -60.0, 200.0, -200.0, 600.0, -600.0] {
            // each key's first value is 1, so each query's first value is added to all of its scores
            let mut qkv = numbers(tokens * 3 * head_dim, 3);
            for row in qkv.chunks_exact_mut(3 * head_dim) {
                (row[0], row[head_dim]) = (offset, 1.0);
            }
            let expected = naive(&shape, &qkv, &[], &[]);
            suite::each_isa(|isa| {
                // half precision: 2^-8 of q and k, up to 1, in sums of 32 products; binary16 rounds the sums too, several times to 2^-11 of them
                let rounded = isa.half_tile().is_some() && !isa.has_bf16();
                let tolerance = 0.03 + if rounded { f64::from(offset.abs()) * 4.0 * 2f64.powi(-11) } else { 0.0 };
                for (ours, expected) in run(isa, &shape, &qkv, (&[], &[]), 1000).iter().zip(&expected) {
                    assert!((f64::from(*ours) - expected).abs() < tolerance, "{} {offset}: {ours} {expected}", isa.name());
                }
            });
        }
    }

    /// A key of size n is n equal keys with equal values.
    #[test]
    fn the_logarithm_of_a_size_counts_a_key_so_often() {
        let (heads, head_dim, sizes) = (2, 16, [1, 3, 1, 2, 5]);
        let width = heads * head_dim;
        let (once, scale) = (numbers(sizes.len() * 3 * width, 5), 0.25);
        let rows = once.chunks_exact(3 * width).zip(sizes);
        let repeated: Vec<f32> = rows.flat_map(|(row, size)| row.repeat(size)).collect();
        let bias: Vec<f32> = sizes.iter().map(|size| (*size as f32).ln()).collect();
        for (scores, tolerance) in [(ScorePrecision::F32, 1e-6), (ScorePrecision::Half, 0.02), (ScorePrecision::Int8, 0.02)] {
            let shape = |tokens: usize| Shape { queries: tokens, tokens, heads, head_dim, scale, scores };
            suite::each_isa(|isa| {
                let merged = run(isa, &shape(sizes.len()), &once, (&[], &bias), 1000);
                let plain = run(isa, &shape(12), &repeated, (&[], &[]), 1000);
                let mut at = 0;
                for (row, size) in merged.chunks_exact(width).zip(sizes) {
                    for (a, b) in row.iter().zip(&plain[at * width..]) {
                        assert!((a - b).abs() < tolerance, "{} {scores:?}: {a} {b}", isa.name());
                    }
                    at += size;
                }
            });
        }
    }

    /// Values that outgrow those that stay, and values that were larger than what is left.
    #[test]
    fn updated_values_have_the_power_of_two_of_all() {
        let (tokens, heads, head_dim, leading, chosen) = (33, 2, 20, 2, [1u32, 5, 30]);
        let (shape, width) =
            (Shape { queries: tokens, tokens, heads, head_dim, scale: 0.3, scores: ScorePrecision::Int8 }, heads * head_dim);
        let (small, large) =
            (numbers(tokens * 3 * width, 3), numbers(tokens * 3 * width, 5).iter().map(|v| v * 40.0).collect::<Vec<f32>>());
        let rows = Rows { leading, chosen: &chosen };
        for (grow, new) in [(true, &large), (false, &small)] {
            let (mut old, mut fewer) = (small.clone(), Vec::new());
            for token in rows.tokens() {
                // the values only: large scores leave one weight
                old[token * 3 * width + 2 * width..][..width].copy_from_slice(&large[token * 3 * width + 2 * width..][..width]);
                fewer.extend_from_slice(&small[token * 3 * width..][..2 * width]);
                fewer.extend_from_slice(&new[token * 3 * width + 2 * width..][..width]);
            }
            let mut mixed = old.clone(); // what is not chosen is small either way
            for (row, token) in rows.tokens().enumerate() {
                mixed[token * 3 * width..][..3 * width].copy_from_slice(&fewer[row * 3 * width..][..3 * width]);
            }
            suite::each_isa(|isa| {
                let part = |values, index: usize| Strided { values, stride: 3 * width, offset: index * width };
                let (mut scratch, mut out) = (AttentionScratch::default(), vec![f32::NAN; tokens * width]);
                let start = if grow { &small } else { &old };
                let updated = |index: usize| {
                    let mut head = Head::new(isa, shape.scores);
                    head.prepare(isa, &shape, index, part(start, 1), part(start, 2), &mut AttentionScratch::default());
                    head.update(isa, index, rows, part(&fewer, 1), part(&fewer, 2), &mut AttentionScratch::default());
                    head
                };
                let heads: Vec<Head> = (0..heads).map(updated).collect();
                let block = Block { first: 0, count: tokens, q: part(&mixed, 0), heads: &heads, mask: &[], bias: &[] };
                attend(isa, &shape, &block, &mut out, &mut scratch);
                // a value of 2^-14 of the largest loses bits when all are divided by more
                for (a, b) in out.iter().zip(run(isa, &shape, &mixed, (&[], &[]), 1000)) {
                    assert!((a - b).abs() < 1e-3, "{}: {a} {b}", isa.name());
                }
            });
        }
    }

    /// Packed from some rows or from all, the same bits.
    #[test]
    fn updated_heads_are_prepared_ones() {
        for (tokens, leading, chosen) in [(7, 2, vec![0u32, 3]), (41, 5, (0..36).collect()), (33, 0, vec![1, 2, 31, 32]), (9, 3, vec![])] {
            for scores in [ScorePrecision::F32, ScorePrecision::Half, ScorePrecision::Int8] {
                let (heads, head_dim) = (2, 20);
                let (shape, stride) = (Shape { queries: tokens, tokens, heads, head_dim, scale: 0.3, scores }, 3 * heads * head_dim);
                let (old, new) = (numbers(tokens * stride, 3), numbers(tokens * stride, 5));
                let rows = Rows { leading, chosen: &chosen };
                let (mut mixed, mut fewer) = (old.clone(), Vec::new());
                for token in rows.tokens() {
                    mixed[token * stride..][..stride].copy_from_slice(&new[token * stride..][..stride]);
                    fewer.extend_from_slice(&new[token * stride..][..stride]);
                }
                assert_eq!(fewer.len(), rows.count() * stride);
                suite::each_isa(|isa| {
                    let part = |values, index: usize| Strided { values, stride, offset: index * heads * head_dim };
                    let mut scratch = AttentionScratch::default();
                    let mut out = vec![f32::NAN; tokens * heads * head_dim];
                    let updated: Vec<Head> = (0..heads)
                        .map(|index| {
                            let mut head = Head::new(isa, scores);
                            head.prepare(isa, &shape, index, part(&old, 1), part(&old, 2), &mut scratch);
                            head.update(isa, index, rows, part(&fewer, 1), part(&fewer, 2), &mut scratch);
                            head
                        })
                        .collect();
                    let block = Block { first: 0, count: tokens, q: part(&mixed, 0), heads: &updated, mask: &[], bias: &[] };
                    attend(isa, &shape, &block, &mut out, &mut scratch);
                    assert_eq!(out, run(isa, &shape, &mixed, (&[], &[]), 1000), "{} {tokens} {scores:?}", isa.name());
                });
            }
        }
    }
}
