//! Layer norm of one row.

use super::arch::Isa;

/// Layer norm of one row (two passes: the mean first); the four slices have one length. Gives the smallest and the largest of zero and the results.
pub fn layer_norm(isa: Isa, row: &[f32], scale: &[f32], shift: &[f32], eps: f32, to: &mut [f32]) -> (f32, f32) {
    isa.layer_norm(row, scale, shift, eps, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        crate::kernels::testing::numbers(n, seed).iter().map(|v| v * 2.0).collect()
    }

    #[test]
    fn layer_norm_conforms() {
        let weights = |n: usize| (numbers(n, 2), numbers(n, 3));
        let rows = [suite::tails(2.0), suite::extremes()].concat();
        let kernel = |isa: Isa, row: &[f32], to: &mut [f32]| {
            let (scale, shift) = weights(row.len());
            layer_norm(isa, row, &scale, &shift, 1e-6, to)
        };
        suite::rows(
            &rows,
            7.0,
            |n| n,
            kernel,
            |row, to, (low, high)| {
                let range = to.iter().fold((0.0, 0.0), |(low, high), value| (f32::min(low, *value), f32::max(high, *value)));
                assert_eq!((*low, *high), range, "the range of the results, without NaN");
                if row.iter().any(|value| !value.is_finite()) {
                    return assert!(to.iter().all(|value| value.is_nan()), "{row:?}: {to:?}");
                }
                if row.iter().any(|value| value.abs() > 2.0) {
                    return; // the variance may overflow
                }
                let ((scale, shift), n) = (weights(row.len()), row.len() as f64);
                let wide: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
                let mean = wide.iter().sum::<f64>() / n;
                let variance = wide.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                for i in 0..row.len() {
                    let expected = (wide[i] - mean) / (variance + 1e-6).sqrt() * f64::from(scale[i]) + f64::from(shift[i]);
                    // a few units of the last place of values up to 8; a single value has nothing but eps under the root
                    assert!((f64::from(to[i]) - expected).abs() < 1e-5, "{}: {} {expected}", row.len(), to[i]);
                }
            },
        );
    }
}
