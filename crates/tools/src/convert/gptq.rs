//! Rounding with error feedback (GPTQ, Frantar et al. 2022, "GPTQ: accurate post-training quantization for generative pre-trained
//! transformers").
//!
//! The rounding error of each weight moves into the weights after it, in proportion to the correlation of their inputs, so that the
//! errors of a product cancel instead of adding up. This is the form of QuIP's LDLQ (Chee et al. 2023), which is equivalent and inverts
//! no matrix. Scales and range are those of rounding to the nearest. On random ViT-S it cuts the error of int8 weights to a third or less.
//!
//! ```text
//! H = X^T X of the inputs = U D U^T, U unit upper triangular
//! for each output row w, for k in 0..columns:
//!     w8[k] = round(w[k] + sum over j < k of (w[j] - w8[j]) U[j, k])
//! ```

use super::quantize::{Int8Rows, dot, level, scale_of};

/// Damping: added to the diagonal of H, in units of its mean, for inputs that the calibration pictures did not show.
const DAMPING: f32 = 0.01;

/// The feedback coefficients of one set of inputs.
pub(super) struct ErrorFeedback {
    columns: usize,
    /// `[columns, columns]`; row k holds `U[j, k]` for j < k.
    feedback: Vec<f32>,
}

impl ErrorFeedback {
    /// Computes the coefficients from the inputs `x`, `[rows, columns]`.
    pub fn of_inputs(x: &[f32], columns: usize) -> ErrorFeedback {
        let by_channel = transposed(x, columns);
        let rows = x.len() / columns;
        let channel = |c: usize| &by_channel[c * rows..(c + 1) * rows];
        // the upper triangle of H, then of U in its place
        let mut h = vec![0f32; columns * columns];
        for i in 0..columns {
            for j in i..columns {
                h[i * columns + j] = dot(channel(i), channel(j));
            }
        }
        let mean = (0..columns).map(|c| h[c * columns + c]).sum::<f32>() / columns as f32;
        let damping = if mean.is_normal() { DAMPING * mean } else { 1.0 };
        (0..columns).for_each(|c| h[c * columns + c] += damping);
        decompose(&mut h, columns, damping);
        ErrorFeedback { columns, feedback: transposed(&h, columns) }
    }

    /// Quantizes weights `[outputs, columns]`, one scale per output.
    pub fn quantize(&self, weights: &[f32]) -> Int8Rows {
        let columns = self.columns;
        let mut quantized = Int8Rows { values: Vec::with_capacity(weights.len()), columns, scales: Vec::new() };
        let mut errors = vec![0f32; columns];
        for row in weights.chunks_exact(columns) {
            let scale = scale_of(row.iter().copied());
            let inverse = 1.0 / scale;
            for (k, weight) in row.iter().enumerate() {
                let wanted = weight + dot(&errors[..k], &self.feedback[k * columns..k * columns + k]);
                let rounded = level(wanted * inverse);
                errors[k] = weight - rounded * scale;
                quantized.values.push(rounded as i8);
            }
            quantized.scales.push(scale);
        }
        quantized
    }
}

/// Replaces the upper triangle of a symmetric positive matrix `[n, n]` by that of U in `U D U^T`. Pivots are at least `least`; without
/// this bound, rounding could make them smaller.
fn decompose(h: &mut [f32], n: usize, least: f32) {
    let mut pivots = vec![0f32; n];
    let mut scaled = vec![0f32; n];
    for j in (0..n).rev() {
        let after = j + 1..n;
        let (above, own) = h.split_at_mut(j * n);
        let own = &own[..n];
        after.clone().for_each(|k| scaled[k] = own[k] * pivots[k]);
        pivots[j] = (own[j] - dot(&own[after.clone()], &scaled[after.clone()])).max(least);
        for row in above.chunks_exact_mut(n) {
            row[j] = (row[j] - dot(&row[after.clone()], &scaled[after.clone()])) / pivots[j];
        }
    }
}

fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
    let rows = data.len() / columns;
    let mut result = vec![0.0; data.len()];
    for (r, row) in data.chunks_exact(columns).enumerate() {
        row.iter().enumerate().for_each(|(c, value)| result[c * rows + r] = *value);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::quantize::{power, products};
    use eomt_edge_core::kernels::testing::numbers;

    #[test]
    fn the_decomposition_gives_the_matrix_back() {
        let n = 5;
        let x = numbers(20 * n, 1);
        let columns = transposed(&x, n);
        let h = |i: usize, j: usize| dot(&columns[i * 20..][..20], &columns[j * 20..][..20]);
        let mut u: Vec<f32> = (0..n * n).map(|at| h(at / n, at % n)).collect();
        decompose(&mut u, n, 0.0);
        let unit = |i: usize, k: usize| {
            if i == k {
                1.0
            } else if k > i {
                u[i * n + k]
            } else {
                0.0
            }
        };
        let mut pivots = [0f32; 5];
        for j in (0..n).rev() {
            pivots[j] = h(j, j) - (j + 1..n).map(|k| unit(j, k) * unit(j, k) * pivots[k]).sum::<f32>();
        }
        for (i, j) in (0..n * n).map(|at| (at / n, at % n)) {
            let product: f32 = (0..n).map(|k| unit(i, k) * pivots[k] * unit(j, k)).sum();
            assert!((product - h(i, j)).abs() < 1e-4, "{product} for {}", h(i, j)); // sums of 20 terms below 1
        }
    }

    /// Correlated inputs: far less noise than rounding to the nearest, on rows that the coefficients were not computed from.
    #[test]
    fn errors_cancel() {
        let (columns, w) = (64, numbers(40 * 64, 2));
        let mixing = numbers(8 * columns, 3);
        let of_few = |seed: u32| -> Vec<f32> {
            let mixed = numbers(200 * 8, seed)
                .chunks_exact(8)
                .flat_map(|few| (0..columns).map(|c| (0..8).map(|i| few[i] * mixing[i * columns + c]).sum()))
                .collect::<Vec<f32>>();
            mixed.iter().zip(numbers(200 * columns, seed + 9)).map(|(mixed, own)| mixed + 0.05 * own).collect()
        };
        let quantized = ErrorFeedback::of_inputs(&of_few(4), columns).quantize(&w);
        let plain = Int8Rows::quantize(&w, columns);
        assert_eq!(quantized.scales, plain.scales);
        assert!(quantized.values.iter().all(|value| *value != i8::MIN));
        let seen = of_few(5);
        let noise = |rounded: &Int8Rows| {
            let errors: Vec<f32> = rounded.restored().iter().zip(&w).map(|(rounded, exact)| rounded - exact).collect();
            power(&products(&seen, &errors, columns))
        };
        assert!(noise(&quantized) < noise(&plain) / 3.0, "{} against {}", noise(&quantized), noise(&plain));
    }

    #[test]
    fn uncorrelated_and_dead_inputs_round_to_the_nearest() {
        let w = numbers(6 * 4, 7);
        let plain = Int8Rows::quantize(&w, 4);
        let mut identity = vec![0.0; 16];
        (0..4).for_each(|i| identity[5 * i] = 1.0);
        assert_eq!(ErrorFeedback::of_inputs(&identity, 4).quantize(&w), plain);
        assert_eq!(ErrorFeedback::of_inputs(&[0.0; 8], 4).quantize(&w), plain);
        assert_eq!(ErrorFeedback::of_inputs(&identity, 4).quantize(&[0.0; 4]).scales, [1.0]);
    }
}
