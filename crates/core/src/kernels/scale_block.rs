//! ScaleBlock: doubles the grid of patch tokens (EoMT paper, section 3.2): transposed convolution 2x2 as a linear layer with four
//! times the channels, activation, depthwise 3x3, layer norm over channels. All maps are `[height, width, channels]`.
//!
//! Rows of the enlarged map exist only while the three-row window of the depthwise convolution passes over them. The linear layer
//! takes the tokens of several rows at once, since those of one seldom fill whole tiles.

use super::arch::{Aligned, Isa};
use super::depthwise::depthwise;
#[cfg(doc)]
use super::depthwise::depthwise_taps;
use super::layer_norm::layer_norm;
use super::linear::{FusedMlp, FusedMlpScratch, Norm};

/// Weights of one ScaleBlock with D channels.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleBlock {
    /// One layer `[D, 4 D]` with the activation, output columns (dy, dx, channel); may start with a norm.
    pub up: FusedMlp,
    /// `[9, D]` in the order of [`depthwise_taps`].
    pub taps: Vec<f32>,
    /// `[D]`.
    pub bias: Vec<f32>,
    /// Over the channels of each pixel.
    pub norm: Norm,
}

/// The buffers of one thread. They grow to the largest map, then stay.
#[derive(Debug, Default)]
pub struct ScaleScratch {
    mlp: FusedMlpScratch,
    /// Source rows in flight, each `[width, 4 D]`: two batches of [`BATCH`] rows.
    window: Aligned<f32>,
    /// Which batch each half of the window holds.
    held: [Option<usize>; 2],
    zeros: Vec<f32>,
    pixel: Vec<f32>,
}

impl ScaleScratch {
    /// The next rows are of another map.
    pub fn forget(&mut self) {
        self.held.fill(None);
    }
}

/// Source rows that the linear layer takes at once.
const BATCH: usize = 3;

impl ScaleBlock {
    /// D.
    pub fn channels(&self) -> usize {
        self.bias.len()
    }

    /// Rows `2 * first ..` of the enlarged map into `out`, `[rows, 2 width, D]`; `input(y, x)` is a source token.
    pub fn run<'a>(
        &self,
        isa: Isa,
        (height, width): (usize, usize),
        first: usize,
        input: impl Fn(usize, usize) -> &'a [f32],
        out: &mut [f32],
        scratch: &mut ScaleScratch,
    ) {
        scratch.forget();
        self.go_on(isa, (height, width), first, input, out, scratch);
    }

    /// [`ScaleBlock::run`] with a scratch that has served the rows before these of the same map, or was told to forget.
    pub fn go_on<'a>(
        &self,
        isa: Isa,
        (height, width): (usize, usize),
        first: usize,
        input: impl Fn(usize, usize) -> &'a [f32],
        out: &mut [f32],
        scratch: &mut ScaleScratch,
    ) {
        let d = self.channels();
        let ScaleScratch { mlp, window, held, zeros, pixel } = scratch;
        zeros.resize(d, 0.0);
        pixel.resize(d, 0.0);
        let row_len = width * 4 * d;
        window.resize(2 * BATCH * row_len);
        for (index, line) in out.chunks_exact_mut(2 * width * d).enumerate() {
            let y = 2 * first + index;
            // the source rows that the rows y - 1, y, y + 1 come from
            for source in [y.wrapping_sub(1) / 2, y / 2, y.div_ceil(2)] {
                let batch = source / BATCH;
                if source < height && held[batch % 2] != Some(batch) {
                    let (from, rows) = (batch * BATCH, BATCH.min(height - batch * BATCH));
                    let to = &mut window[batch % 2 * BATCH * row_len..][..rows * row_len];
                    self.up.run(isa, rows * width, |i| input(from + i / width, i % width), &[], to, mlp);
                    held[batch % 2] = Some(batch);
                }
            }
            let at = |row: usize, column: usize| -> &[f32] {
                // `row` and `column` are one more than the pixel's, so that the border needs no negative numbers
                if row == 0 || column == 0 || row > 2 * height || column > 2 * width {
                    return zeros;
                }
                let (row, column) = (row - 1, column - 1);
                let slot = row / 2 % (2 * BATCH);
                &window[slot * row_len + (column / 2 * 4 + row % 2 * 2 + column % 2) * d..][..d]
            };
            for (x, to) in line.chunks_exact_mut(d).enumerate() {
                let pixels: [&[f32]; 9] = std::array::from_fn(|t| at(y + t / 3, x + t % 3));
                depthwise(isa, &self.taps, &self.bias, &pixels, pixel);
                layer_norm(isa, pixel, &self.norm.scale, &self.norm.shift, self.norm.eps, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::activation::{Activation, activate};
    use super::super::depthwise::depthwise_taps;
    use super::super::linear::{Linear, Weights};
    use super::super::packed::PackedF32;
    use super::*;
    use crate::kernels::suite;
    use crate::kernels::testing::numbers;

    #[test]
    fn equals_the_definition_in_any_split() {
        for (height, width, d) in [(1, 1, 4), (2, 3, 5), (4, 3, 16)] {
            let (map, weights, bias) = (numbers(height * width * d, 1), numbers(d * 4 * d, 2), numbers(4 * d, 3));
            let norm = Norm { scale: numbers(d, 5), shift: numbers(d, 6), eps: 1e-6 };
            let (taps, channel_bias) = (numbers(9 * d, 4), numbers(d, 8));
            // transposed convolution and activation, pixel by pixel
            let mut large = vec![0f32; 4 * height * width * d];
            for (y, x) in (0..2 * height).flat_map(|y| (0..2 * width).map(move |x| (y, x))) {
                for c in 0..d {
                    let column = (y % 2 * 2 + x % 2) * d + c;
                    let products = (0..d).map(|i| map[(y / 2 * width + x / 2) * d + i] * weights[i * 4 * d + column]);
                    large[(y * 2 * width + x) * d + c] = bias[column] + products.sum::<f32>();
                }
            }
            activate(Isa::SCALAR, Activation::Gelu, &mut large);
            let mut expected = vec![0f32; large.len()];
            for (y, x) in (0..2 * height).flat_map(|y| (0..2 * width).map(move |x| (y, x))) {
                let mut pixel = channel_bias.clone();
                for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                    let (row, column) = ((y + dy).wrapping_sub(1), (x + dx).wrapping_sub(1));
                    if row < 2 * height && column < 2 * width {
                        for c in 0..d {
                            pixel[c] += taps[(dy * 3 + dx) * d + c] * large[(row * 2 * width + column) * d + c];
                        }
                    }
                }
                let to = &mut expected[(y * 2 * width + x) * d..][..d];
                layer_norm(Isa::SCALAR, &pixel, &norm.scale, &norm.shift, norm.eps, to);
            }
            let ours = suite::everywhere((height, width, d), |isa| {
                let layer = Linear::new(Weights::F32(PackedF32::pack(isa, &weights, d, 4 * d)), bias.clone(), Activation::Gelu, false);
                let up = FusedMlp { norm: None, layers: vec![layer] };
                let block = ScaleBlock { up, taps: depthwise_taps(&taps), bias: channel_bias.clone(), norm: norm.clone() };
                let split = |rows: usize| {
                    let mut out = vec![f32::NAN; large.len()];
                    let mut scratch = ScaleScratch::default();
                    for (index, part) in out.chunks_mut(rows * 4 * width * d).enumerate() {
                        let input = |y: usize, x: usize| &map[(y * width + x) * d..][..d];
                        block.run(isa, (height, width), index * rows, input, part, &mut scratch);
                    }
                    out
                };
                let whole = split(height);
                (1..height).for_each(|rows| assert_eq!(split(rows), whole, "{} in parts of {rows}", isa.name()));
                whole
            });
            for (ours, expected) in ours.iter().zip(&expected) {
                // sums of 16 and 9 products below 3, then a norm that may enlarge them tenfold
                assert!((ours - expected).abs() < 1e-3, "{height}x{width}x{d}: {ours} {expected}");
            }
        }
    }
}
