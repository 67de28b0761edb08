//! Depthwise 3x3 convolution, channels last.

use super::arch::per_isa;
use super::columns::{array_at, array_at_mut};

/// Taps `[9, channels]` in the order in which [`depthwise`] reads them: sixteen channels of all nine, then the next sixteen.
pub fn depthwise_taps(taps: &[f32]) -> Vec<f32> {
    let channels = taps.len() / 9;
    let mut blocks = vec![0.0; channels.div_ceil(16) * 9 * 16];
    for (index, value) in taps.iter().enumerate() {
        let (tap, channel) = (index / channels, index % channels);
        blocks[(channel / 16 * 9 + tap) * 16 + channel % 16] = *value;
    }
    blocks
}

#[inline(always)]
fn depthwise_body(taps: &[f32], bias: &[f32], pixels: &[&[f32]; 9], to: &mut [f32]) {
    let whole = to.len() / 16 * 16;
    for (block, taps) in taps.chunks_exact(9 * 16).enumerate().take(to.len() / 16) {
        let mut sum = *array_at::<_, 16>(bias, block * 16);
        for (tap, pixel) in taps.as_chunks::<16>().0.iter().zip(pixels) {
            let pixel = array_at::<_, 16>(pixel, block * 16);
            for i in 0..16 {
                sum[i] = tap[i].mul_add(pixel[i], sum[i]);
            }
        }
        *array_at_mut::<_, 16>(to, block * 16) = sum;
    }
    for c in whole..to.len() {
        let taps = taps[whole * 9 + c % 16..].iter().step_by(16);
        to[c] = taps.zip(pixels).fold(bias[c], |sum, (tap, pixel)| tap.mul_add(pixel[c], sum));
    }
}

per_isa! {
    /// Depthwise 3x3 convolution at one pixel, channels last: `to[c] = bias[c] + sum_t taps[t][c] * pixels[t][c]`; `taps` are of
    /// [`depthwise_taps`], `pixels` are the nine neighbours in the order of the taps (a pixel outside of the map is zeros).
    pub fn depthwise(taps: &[f32], bias: &[f32], pixels: &[&[f32]; 9], to: &mut [f32]) = depthwise_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::arch::Isa;
    use crate::kernels::suite;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        crate::kernels::testing::numbers(n, seed).iter().map(|v| v * 2.0).collect()
    }

    #[test]
    fn depthwise_conforms() {
        let neighbours =
            |row: &[f32]| -> Vec<Vec<f32>> { (0..9).map(|t| row.iter().map(|v| v * (1.0 - 0.1 * t as f32)).collect()).collect() };
        let kernel = |isa: Isa, row: &[f32], to: &mut [f32]| {
            let (n, pixels) = (row.len(), neighbours(row));
            let pixels: [&[f32]; 9] = std::array::from_fn(|t| &pixels[t][..]);
            depthwise(isa, &depthwise_taps(&numbers(9 * n, 1)), &numbers(n, 2), &pixels, to);
        };
        let rows = [suite::tails(2.0), suite::extremes()].concat();
        suite::rows(
            &rows,
            7.0,
            |n| n,
            kernel,
            |row, to, ()| {
                let (n, pixels) = (row.len(), neighbours(row));
                let (taps, bias) = (numbers(9 * n, 1), numbers(n, 2));
                for c in 0..n {
                    let products = (0..9).map(|t| f64::from(taps[t * n + c]) * f64::from(pixels[t][c]));
                    let expected = f64::from(bias[c]) + products.sum::<f64>();
                    match row[c] {
                        value if value.is_nan() => assert!(to[c].is_nan()),
                        value if value.abs() <= 2.0 => assert!((f64::from(to[c]) - expected).abs() < 1e-5, "nine products below 4 in f32"),
                        _ => {}
                    }
                }
            },
        );
    }
}
