//! Masks from the tokens before the last ScaleBlock. What it makes of them, four times as large and the largest map of the network, is never there as
//! a whole: the product with the queries takes the pixels of a row of tokens as soon as they are computed.

use super::arch::{Aligned, Isa};
use super::product::{MaskProductScratch, Panels};
use super::scale_block::{ScaleBlock, ScaleScratch};
use super::workers::Workers;

/// Rows of tokens after which what the threads have computed is copied to where it belongs.
const ROUND: usize = 3;

/// Buffers that are reused from call to call.
#[derive(Debug, Default)]
pub struct ScaleMasksScratch {
    pieces: Vec<Piece>,
}

/// What one thread needs for its part of the map.
#[derive(Debug, Default)]
struct Piece {
    scale: ScaleScratch,
    /// Of the pixels of a row of tokens, `[4 width, channels]`.
    features: Aligned<f32>,
    /// `[kept queries, pixels of a round]`.
    masks: Vec<f32>,
}

/// The tokens before the last ScaleBlock, `[height * width, channels]`.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// Row by row.
    pub values: &'a [f32],
    /// (height, width).
    pub grid: (usize, usize),
}

/// A ScaleBlock on a map, and the queries that see what it gives.
struct Work<'a> {
    isa: Isa,
    block: &'a ScaleBlock,
    tokens: Tokens<'a>,
    panels: &'a Panels,
}

impl Work<'_> {
    /// Masks of the pixels of the token rows `rows`, which follow those that `piece` has done, into `to`: a row for each query, `stride` values apart.
    fn run(&self, rows: std::ops::Range<usize>, scale: &mut ScaleScratch, features: &mut Aligned<f32>, to: &mut [f32], stride: usize) {
        let (Tokens { values, grid }, d) = (self.tokens, self.block.channels());
        let pixels = 4 * grid.1;
        features.resize(pixels * d);
        for (index, y) in rows.enumerate() {
            let token = |y: usize, x: usize| &values[(y * grid.1 + x) * d..][..d];
            self.block.go_on(self.isa, grid, y, token, features, scale);
            self.panels.multiply(self.isa, features, d, &mut to[index * pixels..], stride);
        }
    }
}

/// `out[r, p] = sum_c embeddings[kept[r], c] * block(tokens)[p, c]`, to the bit what [`mask_product`](super::product::mask_product) makes of
/// [`ScaleBlock::run`]. `embeddings` is `[queries, channels]`, `out` is `[kept.len(), 4 height width]`.
#[allow(clippy::too_many_arguments)]
pub fn scale_block_masks(
    isa: Isa,
    workers: &Workers,
    embeddings: &[f32],
    block: &ScaleBlock,
    tokens: Tokens,
    kept: &[usize],
    out: &mut [f32],
    scratch: (&mut MaskProductScratch, &mut ScaleMasksScratch),
) {
    let ((height, width), threads) = (tokens.grid, workers.count());
    let row = 4 * width;
    assert_eq!(out.len(), kept.len() * height * row);
    if out.is_empty() {
        return;
    }
    let (MaskProductScratch { panels, .. }, ScaleMasksScratch { pieces }) = scratch;
    panels.pack(embeddings, block.channels(), kept);
    let work = Work { isa, block, tokens, panels };
    pieces.resize_with(threads, Piece::default);
    pieces.iter_mut().for_each(|piece| piece.scale.forget());
    if let [Piece { scale, features, .. }] = &mut pieces[..] {
        return work.run(0..height, scale, features, out, height * row);
    }
    // threads get parts of the map, which are no rows of `out`
    let share = height.div_ceil(threads);
    for start in (0..share).step_by(ROUND) {
        let rows = |index: usize| {
            let end = height.min((index + 1) * share);
            (index * share + start).min(end)..(index * share + start + ROUND).min(end)
        };
        workers.each(pieces, &|index, Piece { scale, features, masks }| {
            masks.resize(kept.len() * ROUND * row, 0.0);
            work.run(rows(index), scale, features, masks, ROUND * row);
        });
        workers.rows(out, height * row, 1, 1, &|query, to| {
            for (index, piece) in pieces.iter().enumerate() {
                let (from, rows) = (&piece.masks[query * ROUND * row..][..ROUND * row], rows(index));
                to[rows.start * row..rows.end * row].copy_from_slice(&from[..rows.len() * row]);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::activation::Activation;
    use super::super::linear::{FusedMlp, Linear, Norm, Weights};
    use super::super::packed::PackedF32;
    use super::super::product::mask_product;
    use super::*;
    use crate::kernels::suite;
    use crate::kernels::testing::numbers;

    /// For maps of fewer rows than threads, and of rows that are no whole rounds.
    #[test]
    fn the_bits_are_those_of_both_parts() {
        let pool = Workers::pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap()));
        for (height, width, d, queries) in [(1, 1, 4, 1), (2, 3, 5, 7), (7, 5, 16, 40), (20, 9, 8, 3)] {
            let (map, embeddings) = (numbers(height * width * d, 1), numbers(queries * d, 9));
            let (weights, bias) = (numbers(d * 4 * d, 2), numbers(4 * d, 3));
            suite::each_isa(|isa| {
                let layer = Linear::new(Weights::F32(PackedF32::pack(isa, &weights, d, 4 * d)), bias.clone(), Activation::Gelu, false);
                let norm = Norm { scale: numbers(d, 5), shift: numbers(d, 6), eps: 1e-6 };
                let up = FusedMlp { norm: None, layers: vec![layer] };
                let block = ScaleBlock { up, taps: numbers(9 * d, 4), bias: numbers(d, 8), norm };
                let (mut features, pixels) = (vec![f32::NAN; 4 * map.len()], 4 * height * width);
                let token = |y: usize, x: usize| &map[(y * width + x) * d..][..d];
                block.run(isa, (height, width), 0, token, &mut features, &mut ScaleScratch::default());
                for half in [false, true] {
                    let mut product = MaskProductScratch::new(isa, half);
                    let mut scratch = ScaleMasksScratch::default();
                    for kept in [(0..queries).collect::<Vec<_>>(), (0..queries).step_by(3).collect(), vec![]] {
                        let (mut expected, tokens) = (vec![f32::NAN; kept.len() * pixels], Tokens { values: &map, grid: (height, width) });
                        mask_product(isa, &Workers::one(), &embeddings, &features, d, &kept, &mut expected, &mut product);
                        for workers in [&Workers::one(), &pool] {
                            let mut out = vec![f32::NAN; expected.len()];
                            scale_block_masks(isa, workers, &embeddings, &block, tokens, &kept, &mut out, (&mut product, &mut scratch));
                            assert_eq!(out, expected, "{height}x{width}x{d}, half {half}, on {}", isa.name());
                        }
                    }
                }
            });
        }
    }
}
