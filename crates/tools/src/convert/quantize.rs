//! int8 as this program's own matrix product defines it: one scale per row, rounded to the nearest.
//!
//! A row is an output channel of a weight matrix, whose values are symmetric, -127..=127 with ties to even, or the activations of a token,
//! which have a zero point ([`restored_tokens`]). The noise figures of a conversion use both.

use eomt_edge_core::kernels::arch::Isa;
use eomt_edge_core::kernels::quantize::{Activations, Row};

/// Largest magnitude: -128 has no counterpart, and leaving it out keeps every product of two values within 14 bits.
const LEVEL_MAX: f32 = 127.0;

/// A quantized matrix.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Int8Rows {
    /// `[rows, columns]`
    pub values: Vec<i8>,
    pub columns: usize,
    /// One per row, above 0.
    pub scales: Vec<f32>,
}

impl Int8Rows {
    /// Quantizes `data`, `[rows, columns]`; all values are finite.
    pub fn quantize(data: &[f32], columns: usize) -> Int8Rows {
        let mut quantized = Int8Rows { values: Vec::with_capacity(data.len()), columns, scales: Vec::with_capacity(data.len() / columns) };
        for row in data.chunks_exact(columns) {
            let scale = scale_of(row.iter().copied());
            let inverse = 1.0 / scale;
            quantized.values.extend(row.iter().map(|value| level(value * inverse) as i8));
            quantized.scales.push(scale);
        }
        quantized
    }

    /// The values as `[columns, rows]`.
    pub fn transposed(&self) -> Vec<i8> {
        let rows = self.scales.len();
        let mut transposed = vec![0; self.values.len()];
        for (r, row) in self.values.chunks_exact(self.columns).enumerate() {
            row.iter().enumerate().for_each(|(c, value)| transposed[c * rows + r] = *value);
        }
        transposed
    }

    /// The values that the integers stand for, `[rows, columns]`.
    pub fn restored(&self) -> Vec<f32> {
        let rows = self.values.chunks_exact(self.columns).zip(&self.scales);
        rows.flat_map(|(row, scale)| row.iter().map(move |value| f32::from(*value) * scale)).collect()
    }
}

/// An int8 layer: its weights `[outputs, inputs]`, and the correction to add to its bias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Int8Layer {
    pub weights: Int8Rows,
    pub correction: Vec<f32>,
}

/// Tokens `x`, `[rows, columns]`, quantized to 8 bits by the kernel that does it at run time, and back.
pub(super) fn restored_tokens(x: &[f32], columns: usize) -> Vec<f32> {
    let isa = Isa::SCALAR; // the same integers on every instruction set, and here in their own order
    let mut quantized = Activations::default();
    quantized.resize(isa, 1, columns);
    let mut restored = x.to_vec();
    for row in restored.chunks_exact_mut(columns) {
        quantized.set_row(isa, 0, row);
        let Row { scale, zero } = quantized.parameters(0, 1)[0];
        row.iter_mut().zip(quantized.rows(0).0).for_each(|(value, byte)| *value = scale * (i32::from(*byte as i8) - zero) as f32);
    }
    restored
}

/// Scale of a row. It is 1 for a row of zeros, so that nothing divides by zero, and for a row whose scale would be subnormal.
pub(super) fn scale_of(row: impl Iterator<Item = f32>) -> f32 {
    let scale = row.fold(0f32, |max, value| max.max(value.abs())) / LEVEL_MAX;
    if scale.is_normal() { scale } else { 1.0 }
}

/// The level nearest to `value`, which is in units of the scale.
pub(super) fn level(value: f32) -> f32 {
    // adding 1.5 * 2^23 leaves no bits for a fraction, and the addition rounds to even; unlike a call to `round` it vectorizes
    const NO_FRACTION: f32 = 12_582_912.0;
    (value.clamp(-LEVEL_MAX, LEVEL_MAX) + NO_FRACTION) - NO_FRACTION
}

/// `[rows of x, rows of w]`: every row of `x` times every row of `w`, both `[_, columns]`.
pub(super) fn products(x: &[f32], w: &[f32], columns: usize) -> Vec<f32> {
    let outputs = w.len() / columns;
    let mut result = vec![0.0; x.len() / columns * outputs];
    for (o, w) in w.chunks_exact(columns).enumerate() {
        for (row, x) in x.chunks_exact(columns).enumerate() {
            result[row * outputs + o] = dot(x, w);
        }
    }
    result
}

/// Scalar product.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16; // independent sums, so that the loop vectorizes
    let mut sums = [0f32; LANES];
    let (mut a_chunks, mut b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in a_chunks.by_ref().zip(b_chunks.by_ref()) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Mean square of `values`.
pub(super) fn power(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>() / values.len().max(1) as f64
}

/// Mean of each column of `x`.
pub(super) fn column_means(x: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0f64; columns];
    x.chunks_exact(columns).for_each(|row| row.iter().zip(&mut sums).for_each(|(value, sum)| *sum += f64::from(*value)));
    let rows = (x.len() / columns).max(1) as f64;
    sums.iter().map(|sum| (sum / rows) as f32).collect()
}

/// Bias correction (Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction"): the mean that
/// `x W^T` loses when `w` becomes `rounded`, per output, `(W - W_rounded) mean(x)`.
///
/// Tokens share much, so most of the error of the weights is this constant, and the bias can restore it.
pub(super) fn bias_correction(x: &[f32], w: &[f32], rounded: &[f32], columns: usize) -> Vec<f32> {
    let mean = column_means(x, columns);
    let each_output = w.chunks_exact(columns).zip(rounded.chunks_exact(columns));
    let lost = |(exact, rounded): (&[f32], &[f32])| {
        let each = exact.iter().zip(rounded).zip(&mean);
        each.map(|((exact, rounded), mean)| f64::from(exact - rounded) * f64::from(*mean)).sum::<f64>() as f32
    };
    each_output.map(lost).collect()
}

/// Signal to quantization noise in decibels of `x W^T` when the rows of `x` are int8, the weights are `rounded`, and `correction` is
/// added to every row of the result; infinite when nothing is lost.
pub(super) fn signal_to_noise_db(x: &[f32], w: &[f32], rounded: &[f32], columns: usize, correction: &[f32]) -> f64 {
    let exact = products(x, w, columns);
    let rounded = products(&restored_tokens(x, columns), rounded, columns);
    let each = rounded.iter().zip(&exact).zip(correction.iter().cycle());
    let noise: Vec<f32> = each.map(|((rounded, exact), correction)| rounded + correction - exact).collect();
    decibels(power(&exact), power(&noise))
}

fn decibels(signal: f64, noise: f64) -> f64 {
    if noise > 0.0 { 10.0 * (signal / noise).log10() } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eomt_edge_core::kernels::testing::numbers;

    #[test]
    fn the_largest_value_is_the_last_level() {
        let rows = Int8Rows::quantize(&[0.5, -2.0, 1.0, 3.0, 0.0, -0.1], 3);
        assert_eq!(rows.values, [32, -127, 64, 127, 0, -4]); // 31.75, 63.5 (tie to even), 4.2
        assert_eq!(rows.scales, [2.0 / 127.0, 3.0 / 127.0]);
        assert_eq!(rows.transposed(), [32, 127, -127, 0, 64, -4]);
    }

    #[test]
    fn minus_128_never_appears_and_errors_stay_within_half_a_step() {
        for seed in 0..50 {
            let magnitude = 10f32.powi(seed as i32 % 60 - 30);
            let data: Vec<f32> = numbers(7 * 33, seed).iter().map(|v| v * magnitude).collect();
            let rows = Int8Rows::quantize(&data, 33);
            assert!(rows.values.iter().all(|v| *v != i8::MIN));
            for ((restored, value), row) in rows.restored().iter().zip(&data).zip((0..).map(|i| i / 33)) {
                // half a step, and the rounding of the scale and its inverse
                assert!((restored - value).abs() <= rows.scales[row] * 0.5001, "{restored} for {value}");
            }
        }
    }

    #[test]
    fn rows_of_nothing_divide_nothing() {
        for row in [[0.0, -0.0], [1e-45, -1e-45], [f32::MIN_POSITIVE, 0.0]] {
            let rows = Int8Rows::quantize(&row, 2);
            assert_eq!((rows.values, rows.scales), (vec![0, 0], vec![1.0]));
        }
        let rows = Int8Rows::quantize(&[f32::MAX, -f32::MAX, 1.0], 3);
        assert_eq!(rows.values, [127, -127, 0]);
    }

    #[test]
    fn ties_go_to_even() {
        for (value, expected) in
            [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-0.5, 0.0), (-3.5, -4.0), (126.5, 126.0), (200.0, 127.0), (-200.0, -127.0)]
        {
            assert_eq!(level(value), expected, "{value}");
        }
    }

    #[test]
    fn products_equal_the_definition() {
        let (x, w) = (numbers(3 * 37, 1), numbers(5 * 37, 2));
        for (index, product) in products(&x, &w, 37).iter().enumerate() {
            let (row, output) = (index / 5, index % 5);
            let ground_truth: f64 = (0..37).map(|c| f64::from(x[row * 37 + c]) * f64::from(w[output * 37 + c])).sum();
            assert!((f64::from(*product) - ground_truth).abs() < 1e-5); // f32 sums of 37 terms below 1
        }
    }

    #[test]
    fn bias_correction_removes_the_error_of_the_shared_part() {
        let (columns, w) = (96, numbers(40 * 96, 6));
        let shared = numbers(columns, 7);
        let x: Vec<f32> = numbers(50 * columns, 8).iter().zip(shared.iter().cycle()).map(|(own, shared)| 0.1 * own + shared).collect();
        let rounded = Int8Rows::quantize(&w, columns).restored();
        let correction = bias_correction(&x, &w, &rounded, columns);
        let noise = |correction: &[f32]| signal_to_noise_db(&x, &w, &rounded, columns, correction);
        let (before, after) = (noise(&[0.0; 40]), noise(&correction));
        assert!(after > before + 1.5, "{before} dB, then {after} dB");
        assert_eq!(bias_correction(&x, &w, &w, columns), [0.0; 40], "nothing to correct");
    }

    #[test]
    fn tokens_keep_255_steps_and_zero() {
        let x = [-1.0, 254.0, 0.0, 7.4, 0.0, 0.0, 0.0, 0.0, -3.0, -2.0, -1.0, 0.0];
        assert_eq!(restored_tokens(&x, 4)[..8], [-1.0, 254.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0]);
        let last = &restored_tokens(&x, 4)[8..]; // steps of 3/255
        assert!(last.iter().zip(&x[8..]).all(|(restored, exact)| (restored - exact).abs() <= 1.5 / 255.0 + 1e-6) && last[3] == 0.0);
    }

    /// Uniform values: the noise of a product is that of both factors, each 1/12 of a squared step of 1/127.
    #[test]
    fn noise_is_as_theory_says() {
        let (x, w) = (numbers(64 * 256, 3), numbers(64 * 256, 4));
        let theory = 10.0 * ((1.0 / 3.0) / (2.0 / 12.0 / (127.0 * 127.0f64))).log10();
        let rounded = Int8Rows::quantize(&w, 256).restored();
        assert!((signal_to_noise_db(&x, &w, &rounded, 256, &[0.0; 64]) - theory).abs() < 0.5);
        assert_eq!(signal_to_noise_db(&[255.0, 1.0], &[0.0, 127.0], &[0.0, 127.0], 2, &[0.0]), f64::INFINITY);
    }
}
