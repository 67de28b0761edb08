//! A ScaleBlock of which only some tokens have changed: computes the pixels that depend on them, and leaves the others as they are.
//!
//! ```text
//! a changed token   -> the 4x4 pixels whose 3x3 neighbourhood (depthwise convolution) touches its 2x2 pixels
//! those pixels read -> what the linear layer makes of the token and of the eight around it
//! ```
//!
//! The linear layer takes the tokens that are read in batches of whole rows; three batches are held at a time, since a pixel reads three
//! rows of the enlarged map. Values are those of [`ScaleBlock::run`], bit by bit: both compute each pixel from the same rows.
//!
//! Refuses: remembering. What the output held before is the caller's.

use super::arch::{Aligned, Isa};
use super::depthwise::depthwise;
use super::layer_norm::layer_norm;
use super::linear::FusedMlpScratch;
use super::scale_block::ScaleBlock;

/// The buffers of one thread. They grow to the largest map, then stay.
#[derive(Debug, Default)]
pub struct ChangedScratch {
    mlp: FusedMlpScratch,
    /// Three batches of what the linear layer gave, `[tokens, 4 D]`.
    batches: Aligned<f32>,
    /// (row, column) of the tokens of a batch.
    tokens: Vec<(usize, usize)>,
    /// Where in `batches` each token of the part's rows is.
    places: Vec<usize>,
    zeros: Vec<f32>,
    pixel: Vec<f32>,
}

/// A batch is full from so many tokens on.
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

impl Changed<'_> {
    /// Whether a changed pixel reads what the linear layer makes of this token.
    fn is_read(&self, y: usize, x: usize) -> bool {
        let (height, width) = self.grid;
        let (rows, columns) = (y.saturating_sub(1)..(y + 2).min(height), x.saturating_sub(1)..(x + 2).min(width));
        rows.into_iter().any(|y| self.tokens[y * width..][..width][columns.clone()].contains(&true))
    }
}

impl ScaleBlock {
    /// [`ScaleBlock::run`] for the pixels that have changed; `out` holds the others.
    pub fn run_changed<'a>(
        &self,
        isa: Isa,
        changed: &Changed,
        first: usize,
        input: impl Fn(usize, usize) -> &'a [f32],
        out: &mut [f32],
        scratch: &mut ChangedScratch,
    ) {
        let (d, (height, width)) = (self.channels(), changed.grid);
        let ChangedScratch { mlp, batches, tokens, places, zeros, pixel } = scratch;
        zeros.resize(d, 0.0);
        pixel.resize(d, 0.0);
        let rows = out.len() / (4 * width * d);
        // rows of tokens that this part reads
        let (low, high) = (first.saturating_sub(1), (first + rows + 1).min(height));
        places.clear();
        places.resize((high - low) * width, usize::MAX);
        let room = BATCH + width;
        batches.resize(3 * room * 4 * d);
        let (mut next, mut number, mut done) = (low, 0, first);
        while next < high {
            tokens.clear();
            while next < high && tokens.len() < BATCH {
                for x in (0..width).filter(|x| changed.is_read(next, *x)) {
                    places[(next - low) * width + x] = number % 3 * room + tokens.len();
                    tokens.push((next, x));
                }
                next += 1;
            }
            let to = &mut batches[number % 3 * room * 4 * d..][..tokens.len() * 4 * d];
            self.up.run(isa, tokens.len(), |i| input(tokens[i].0, tokens[i].1), &[], to, mlp);
            number += 1;
            // a row of tokens is finished when the one below it is there
            let ready = if next == high { first + rows } else { next - 1 };
            let source = |row: usize, column: usize| -> &[f32] {
                // both are one more than the pixel's, so that the border needs no negative numbers
                if row == 0 || column == 0 || row > 2 * height || column > 2 * width {
                    return zeros;
                }
                let (row, column) = (row - 1, column - 1);
                let place = places[(row / 2 - low) * width + column / 2];
                &batches[(place * 4 + row % 2 * 2 + column % 2) * d..][..d]
            };
            for y in 2 * done..2 * ready.max(done) {
                for x in (0..2 * width).filter(|x| changed.pixels[y * 2 * width + x]) {
                    let pixels: [&[f32]; 9] = std::array::from_fn(|t| source(y + t / 3, x + t % 3));
                    depthwise(isa, &self.taps, &self.bias, &pixels, pixel);
                    let to = &mut out[((y - 2 * first) * 2 * width + x) * d..][..d];
                    layer_norm(isa, pixel, &self.norm.scale, &self.norm.shift, self.norm.eps, to);
                }
            }
            done = done.max(ready);
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
                    let changed = Changed { grid: (height, width), tokens: &tokens, pixels: &pixels };
                    let input = |y: usize, x: usize| &other[(y * width + x) * d..][..d];
                    for rows in [1, 2, height] {
                        let mut out = before.clone();
                        for (index, part) in out.chunks_mut(rows * 4 * width * d).enumerate() {
                            block.run_changed(isa, &changed, index * rows, input, part, &mut ChangedScratch::default());
                        }
                        assert!(out == after, "{} in parts of {rows}", isa.name());
                    }
                    after
                });
            }
        }
    }
}
