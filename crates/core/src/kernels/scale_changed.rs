//! A ScaleBlock of which only some tokens have changed: computes the pixels that depend on them, and leaves the others as they are.
//!
//! ```text
//! enlarge_changed:  what the linear layer makes of a changed token, its 2x2 pixels before the depthwise convolution, into a map that stays
//! finish_changed:   the 4x4 pixels whose 3x3 neighbourhood touches them: depthwise convolution, norm
//! ```
//!
//! Values are those of [`ScaleBlock::run`], bit by bit: both compute each pixel from the same rows.
//!
//! Refuses: remembering. What the maps held before is the caller's.

use super::arch::{Aligned, Isa};
use super::depthwise::depthwise;
use super::layer_norm::layer_norm;
use super::linear::FusedMlpScratch;
use super::scale_block::ScaleBlock;

/// The buffers of one thread. They grow to the largest batch, then stay.
#[derive(Debug, Default)]
pub struct ChangedScratch {
    mlp: FusedMlpScratch,
    /// What the linear layer gave for a batch, `[tokens, 4 D]`.
    batch: Aligned<f32>,
    /// Numbers of the tokens of a batch.
    tokens: Vec<usize>,
    zeros: Vec<f32>,
    pixel: Vec<f32>,
}

/// Tokens that the linear layer takes at once.
const BATCH: usize = 96;

/// Which tokens have changed, and which pixels of the enlarged map follow from that ([`enlarge`]).
#[derive(Debug, Clone, Copy)]
pub struct Changed<'a> {
    /// (height, width) of the tokens.
    pub grid: (usize, usize),
    /// `[height, width]`
    pub tokens: &'a [bool],
    /// `[2 height, 2 width]`
    pub pixels: &'a [bool],
}

/// Pixels of a map of twice the size that depend on changed tokens, into `pixels`: those in whose 3x3 neighbourhood a changed token's are.
pub fn enlarge((height, width): (usize, usize), tokens: &[bool], pixels: &mut [bool]) {
    for (index, pixel) in pixels.iter_mut().enumerate() {
        let around = |at: usize, size: usize| at.saturating_sub(1) / 2..(at.div_ceil(2) + 1).min(size);
        let (rows, columns) = (around(index / (2 * width), height), around(index % (2 * width), width));
        *pixel = rows.into_iter().any(|y| tokens[y * width..][..width][columns.clone()].contains(&true));
    }
}

impl ScaleBlock {
    /// The first step for the changed ones of the tokens from `first` on, `input(token)`, into `map`, `[tokens, 4 D]`.
    pub fn enlarge_changed<'a>(
        &self,
        isa: Isa,
        changed: &Changed,
        first: usize,
        input: impl Fn(usize) -> &'a [f32],
        map: &mut [f32],
        scratch: &mut ChangedScratch,
    ) {
        let row = 4 * self.channels();
        let ChangedScratch { mlp, batch, tokens, .. } = scratch;
        let mut rest = (first..first + map.len() / row).filter(|token| changed.tokens[*token]);
        loop {
            tokens.clear();
            tokens.extend(rest.by_ref().take(BATCH));
            if tokens.is_empty() {
                return;
            }
            batch.resize(BATCH * row);
            self.up.run(isa, tokens.len(), |i| input(tokens[i]), &[], &mut batch[..tokens.len() * row], mlp);
            for (token, from) in tokens.iter().zip(batch.chunks_exact(row)) {
                map[(token - first) * row..][..row].copy_from_slice(from);
            }
        }
    }

    /// The changed ones of the pixels from row `2 * first` on into `out`; `map` is that of [`ScaleBlock::enlarge_changed`], whole.
    pub fn finish_changed(&self, isa: Isa, changed: &Changed, first: usize, map: &[f32], out: &mut [f32], scratch: &mut ChangedScratch) {
        let (d, (height, width)) = (self.channels(), changed.grid);
        let ChangedScratch { zeros, pixel, .. } = scratch;
        zeros.resize(d, 0.0);
        pixel.resize(d, 0.0);
        let zeros = &zeros[..d];
        let source = |row: usize, column: usize| -> &[f32] {
            // both are one more than the pixel's, so that the border needs no negative numbers
            if row == 0 || column == 0 || row > 2 * height || column > 2 * width {
                return zeros;
            }
            let (row, column) = (row - 1, column - 1);
            &map[((row / 2 * width + column / 2) * 4 + row % 2 * 2 + column % 2) * d..][..d]
        };
        let before = 4 * first * width;
        for (index, to) in out.chunks_exact_mut(d).enumerate().filter(|(index, _)| changed.pixels[before + index]) {
            let (y, x) = ((before + index) / (2 * width), (before + index) % (2 * width));
            let pixels: [&[f32]; 9] = std::array::from_fn(|t| source(y + t / 3, x + t % 3));
            depthwise(isa, &self.taps, &self.bias, &pixels, &mut pixel[..d]);
            layer_norm(isa, &pixel[..d], &self.norm.scale, &self.norm.shift, self.norm.eps, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::activation::Activation;
    use super::super::depthwise::depthwise_taps;
    use super::super::linear::{FusedMlp, Linear, Norm, Weights};
    use super::super::packed::PackedF32;
    use super::super::scale_block::ScaleScratch;
    use super::super::suite;
    use super::*;
    use crate::kernels::testing::numbers;

    /// What changes when a token changes, found by changing it: no pixel more, and its value is that of the whole map.
    #[test]
    fn changed_pixels_are_those_of_the_whole_map_and_the_others_stay() {
        for (height, width, d) in [(1, 1, 4), (3, 5, 8), (40, 7, 8), (9, 40, 4)] {
            let map = numbers(height * width * d, 1);
            let norm = Norm { scale: numbers(d, 5), shift: numbers(d, 6), eps: 1e-6 };
            for (share, seed) in [(0.0, 1), (0.03, 2), (0.3, 3), (1.0, 4)] {
                let draws = numbers(height * width, seed);
                let tokens: Vec<bool> = draws.iter().map(|draw| (draw + 1.0) / 2.0 < share).collect();
                let mut pixels = vec![false; 4 * tokens.len()];
                enlarge((height, width), &tokens, &mut pixels);
                let mut other = map.clone();
                for (token, values) in other.chunks_exact_mut(d).enumerate().filter(|(token, _)| tokens[*token]) {
                    values.copy_from_slice(&numbers(d, 100 + token as u32));
                }
                suite::everywhere((height, width, d, seed), |isa| {
                    let weights = Weights::F32(PackedF32::pack(isa, &numbers(d * 4 * d, 2), d, 4 * d));
                    let layer = Linear::new(weights, numbers(4 * d, 3), Activation::Gelu, false);
                    let up = FusedMlp { norm: None, layers: vec![layer] };
                    let block = ScaleBlock { up, taps: depthwise_taps(&numbers(9 * d, 4)), bias: numbers(d, 8), norm: norm.clone() };
                    let whole = |map: &[f32]| {
                        let mut out = vec![f32::NAN; 4 * map.len()];
                        let input = |y: usize, x: usize| &map[(y * width + x) * d..][..d];
                        block.run(isa, (height, width), 0, input, &mut out, &mut ScaleScratch::default());
                        out
                    };
                    let (before, after) = (whole(&map), whole(&other));
                    for (pixel, (a, b)) in before.chunks_exact(d).zip(after.chunks_exact(d)).enumerate() {
                        assert!(pixels[pixel] || a == b, "pixel {pixel} changed");
                    }
                    let all = Changed { grid: (height, width), tokens: &vec![true; tokens.len()], pixels: &vec![true; pixels.len()] };
                    let changed = Changed { grid: (height, width), tokens: &tokens, pixels: &pixels };
                    let mut scratch = ChangedScratch::default();
                    for rows in [1, 2, height] {
                        let (mut enlarged, mut out) = (vec![f32::NAN; 4 * map.len()], vec![f32::NAN; before.len()]);
                        for (changed, map, expected) in [(&all, &map, &before), (&changed, &other, &after)] {
                            let input = |token: usize| &map[token * d..][..d];
                            for (index, part) in enlarged.chunks_mut(rows * 4 * width * d).enumerate() {
                                block.enlarge_changed(isa, changed, index * rows * width, input, part, &mut scratch);
                            }
                            for (index, part) in out.chunks_mut(rows * 4 * width * d).enumerate() {
                                block.finish_changed(isa, changed, index * rows, &enlarged, part, &mut scratch);
                            }
                            assert!(out == *expected, "{} in parts of {rows}", isa.name());
                        }
                    }
                    after
                });
            }
        }
    }
}
