//! Position embeddings at another input size than that of training.
//!
//! Learned ones (DINOv2) are resampled bicubically, as `torch.nn.functional.interpolate(mode="bicubic")` does with or without
//! `antialias=True`, depending on the network's own code. Rotary ones (DINOv3) follow from the patch centres.

use std::f32::consts::TAU;

use crate::checkpoint::Resampling;

/// Parameter of cubic convolution with antialiasing, in torch and Pillow.
const A_ANTIALIASED: f64 = -0.5;
/// The same without antialiasing, in torch.
const A_PLAIN: f64 = -0.75;

/// The kernel of cubic convolution (Keys 1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// For each of `to` outputs: first source index and normalized weights.
fn taps(from: usize, to: usize, resampling: Resampling) -> Vec<(usize, Vec<f64>)> {
    match resampling {
        Resampling::Antialiased => antialiased(from, to),
        Resampling::Plain { offset } => plain(from, to, offset),
    }
}

/// Four taps; those beyond an edge fall on the edge.
fn plain(from: usize, to: usize, offset: f64) -> Vec<(usize, Vec<f64>)> {
    let scale = from as f64 / (to as f64 + offset);
    (0..to)
        .map(|i| {
            let center = scale * (i as f64 + 0.5) - 0.5;
            let at = |tap: i64| (center.floor() as i64 + tap).clamp(0, from as i64 - 1) as usize;
            let first = at(-1);
            let mut weights = vec![0.0; at(2) - first + 1];
            for tap in -1..=2 {
                weights[at(tap) - first] += cubic(center - center.floor() - tap as f64, A_PLAIN);
            }
            (first, weights)
        })
        .collect()
}

fn antialiased(from: usize, to: usize) -> Vec<(usize, Vec<f64>)> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0); // shrinking widens the filter, which is the antialiasing
    let support = 2.0 * stretch;
    (0..to)
        .map(|i| {
            let center = scale * (i as f64 + 0.5);
            let first = (center - support + 0.5).max(0.0) as usize;
            let last = ((center + support + 0.5) as usize).min(from);
            let mut weights: Vec<f64> = (first..last).map(|j| cubic((j as f64 - center + 0.5) / stretch, A_ANTIALIASED)).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
            (first, weights)
        })
        .collect()
}

/// Resamples a `[from[0] * from[1], dim]` table of embeddings to `[to[0] * to[1], dim]` (rows, then columns).
pub fn interpolate(table: &[f32], from: [usize; 2], to: [usize; 2], dim: usize, resampling: Resampling) -> Vec<f32> {
    assert_eq!(table.len(), from[0] * from[1] * dim);
    if from == to {
        return table.to_vec();
    }
    let mut wide = vec![0f32; from[0] * to[1] * dim];
    for (x, (first, weights)) in taps(from[1], to[1], resampling).iter().enumerate() {
        for y in 0..from[0] {
            let out = &mut wide[(y * to[1] + x) * dim..][..dim];
            accumulate(out, weights, |j| &table[(y * from[1] + first + j) * dim..][..dim]);
        }
    }
    let mut result = vec![0f32; to[0] * to[1] * dim];
    for (y, (first, weights)) in taps(from[0], to[0], resampling).iter().enumerate() {
        for x in 0..to[1] {
            let out = &mut result[(y * to[1] + x) * dim..][..dim];
            accumulate(out, weights, |j| &wide[((first + j) * to[1] + x) * dim..][..dim]);
        }
    }
    result
}

fn accumulate<'a>(out: &mut [f32], weights: &[f64], row: impl Fn(usize) -> &'a [f32]) {
    for (d, value) in out.iter_mut().enumerate() {
        *value = weights.iter().enumerate().map(|(j, w)| w * f64::from(row(j)[d])).sum::<f64>() as f32;
    }
}

/// Rotary tables for `prefix` unrotated tokens followed by a `grid` of patches, two arrays `[prefix + patches, head_dim]`:
/// the cosines, and the sines with the sign that "rotate half" gives the first half.
///
/// `rotated = x * cos + swap_halves(x) * sin`; tokens of the prefix get cos 1 and sin 0, hence pass unchanged.
/// Angles as in DINOv3: 2 pi times the patch centre in [-1, 1], times `theta^(-4k / head_dim)`, first for y, then for x.
pub fn rotary_tables(prefix: usize, grid: [usize; 2], head_dim: usize, theta: f32) -> (Vec<f32>, Vec<f32>) {
    let quarter = head_dim / 4;
    let half = head_dim / 2;
    let tokens = prefix + grid[0] * grid[1];
    let (mut cos, mut sin) = (vec![1f32; tokens * head_dim], vec![0f32; tokens * head_dim]);
    let center = |i: usize, n: usize| 2.0 * ((i as f32 + 0.5) / n as f32) - 1.0;
    for y in 0..grid[0] {
        for x in 0..grid[1] {
            let token = (prefix + y * grid[1] + x) * head_dim;
            for k in 0..half {
                let coordinate = if k < quarter { center(y, grid[0]) } else { center(x, grid[1]) };
                let frequency = 1.0 / theta.powf((k % quarter) as f32 * 4.0 / head_dim as f32);
                let (s, c) = (TAU * coordinate * frequency).sin_cos();
                (cos[token + k], cos[token + half + k]) = (c, c);
                (sin[token + k], sin[token + half + k]) = (-s, s);
            }
        }
    }
    (cos, sin)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `F.interpolate(torch.arange(12.).view(1, 1, 3, 4), size=(5, 3), mode="bicubic", antialias=True)`.
    #[test]
    fn bicubic_equals_torch() {
        let table: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let torch: [f32; 15] = [
            -0.1119553, 1.198113, 2.508182, 1.413812, 2.723881, 4.033949, 4.189931, 5.5, 6.810069, 6.966051, 8.276119, 9.586188, 8.491817,
            9.801887, 11.11196,
        ];
        for (ours, torch) in interpolate(&table, [3, 4], [5, 3], 1, Resampling::Antialiased).iter().zip(torch) {
            // torch weighs in f32: a few roundings of values up to 11
            assert!((ours - torch).abs() < 1e-5, "{ours} against {torch}");
        }
    }

    /// The same without `antialias`, by `size=(5, 3)` and by `scale_factor=((5 + 0.1) / 3, (3 + 0.1) / 4)`.
    #[test]
    fn plain_bicubic_equals_torch() {
        let table: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let torch: [(f64, [f32; 15]); 2] = [
            (
                0.0,
                [
                    -0.25784254,
                    1.1160003,
                    2.4898434,
                    1.3901595,
                    2.7640018,
                    4.137845,
                    4.126158,
                    5.5,
                    6.873844,
                    6.862159,
                    8.236,
                    9.609845,
                    8.510159,
                    9.884001,
                    11.257848,
                ],
            ),
            (
                0.1,
                [
                    -0.2798678, 1.0618416, 2.3996973, 1.3125908, 2.6543007, 3.9921565, 3.9357347, 5.2774444, 6.6152983, 6.700237, 8.041947,
                    9.3798, 8.430599, 9.772311, 11.110163,
                ],
            ),
        ];
        for (offset, torch) in torch {
            let ours = interpolate(&table, [3, 4], [5, 3], 1, Resampling::Plain { offset });
            for (ours, torch) in ours.iter().zip(torch) {
                // torch weighs in f32: a few roundings of values up to 11
                assert!((ours - torch).abs() < 1e-5, "{ours} against {torch}");
            }
        }
    }

    #[test]
    fn a_constant_stays_constant() {
        for to in [[1, 1], [7, 3], [40, 30]] {
            for resampling in [Resampling::Antialiased, Resampling::Plain { offset: 0.0 }, Resampling::Plain { offset: 0.1 }] {
                let out = interpolate(&[2.5; 5 * 6], [5, 6], to, 1, resampling);
                assert!(out.iter().all(|v| (v - 2.5).abs() < 1e-6));
            }
        }
    }

    #[test]
    fn rotation_keeps_length() {
        let (cos, sin) = rotary_tables(3, [2, 5], 8, 100.0);
        for (token, (c, s)) in cos.chunks(8).zip(sin.chunks(8)).enumerate() {
            for k in 0..8 {
                assert!((c[k] * c[k] + s[k] * s[k] - 1.0).abs() < 1e-5, "token {token}");
                assert!(token >= 3 || s[k] == 0.0);
            }
        }
    }
}
