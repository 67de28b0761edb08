//! The mask product: a few rows times many pixels.

/// How pixel features lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureLayout {
    /// `[channels, pixels]`.
    ChannelsFirst,
    /// `[pixels, channels]`.
    ChannelsLast,
}

/// Pixels per tile: a tile of output rows stays in the first-level cache while all channels pass.
const TILE: usize = 1024;

/// `out[r, p] = sum_c rows[r, c] * features[c, p]`, channels summed in ascending order whatever the number of rows.
///
/// `rows` is `[n, channels]`, `out` is `[n, pixels]`.
pub fn rows_times_features(rows: &[f32], features: &[f32], layout: FeatureLayout, channels: usize, pixels: usize, out: &mut [f32]) {
    assert_eq!(features.len(), channels * pixels);
    assert_eq!(rows.len() * pixels, out.len() * channels);
    match layout {
        FeatureLayout::ChannelsFirst => channels_first(rows, features, channels, pixels, out),
        FeatureLayout::ChannelsLast => channels_last(rows, features, channels, pixels, out),
    }
}

fn channels_first(rows: &[f32], features: &[f32], channels: usize, pixels: usize, out: &mut [f32]) {
    // for each tile of pixels, for each channel, for each row: out[row, tile] += w * features[channel, tile]
    out.fill(0.0);
    for start in (0..pixels).step_by(TILE) {
        let end = (start + TILE).min(pixels);
        for channel in 0..channels {
            let feature = &features[channel * pixels + start..channel * pixels + end];
            for (row, out) in rows.chunks_exact(channels).zip(out.chunks_exact_mut(pixels)) {
                let weight = row[channel];
                for (value, feature) in out[start..end].iter_mut().zip(feature) {
                    *value += weight * feature;
                }
            }
        }
    }
}

fn channels_last(rows: &[f32], features: &[f32], channels: usize, pixels: usize, out: &mut [f32]) {
    for (row, out) in rows.chunks_exact(channels).zip(out.chunks_exact_mut(pixels)) {
        for (value, feature) in out.iter_mut().zip(features.chunks_exact(channels)) {
            *value = row.iter().zip(feature).map(|(w, f)| w * f).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    #[test]
    fn both_layouts_equal_the_definition() {
        for (n, channels, pixels) in [(0, 3, 5), (1, 1, 1), (3, 7, 1025), (5, 16, 2048)] {
            let (rows, features) = (numbers(n * channels, 1), numbers(channels * pixels, 2));
            let mut transposed = vec![0.0; features.len()];
            for c in 0..channels {
                for p in 0..pixels {
                    transposed[p * channels + c] = features[c * pixels + p];
                }
            }
            let (mut first, mut last) = (vec![f32::NAN; n * pixels], vec![f32::NAN; n * pixels]);
            rows_times_features(&rows, &features, FeatureLayout::ChannelsFirst, channels, pixels, &mut first);
            rows_times_features(&rows, &transposed, FeatureLayout::ChannelsLast, channels, pixels, &mut last);
            for r in 0..n {
                for p in 0..pixels {
                    let truth: f64 = (0..channels).map(|c| f64::from(rows[r * channels + c]) * f64::from(features[c * pixels + p])).sum();
                    // f32 sums of at most 16 terms below 1
                    assert!((f64::from(first[r * pixels + p]) - truth).abs() < 1e-5);
                    assert!((f64::from(last[r * pixels + p]) - truth).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let (channels, pixels) = (24, 3000);
        let (rows, features) = (numbers(4 * channels, 3), numbers(channels * pixels, 4));
        let mut all = vec![0.0; 4 * pixels];
        rows_times_features(&rows, &features, FeatureLayout::ChannelsFirst, channels, pixels, &mut all);
        let mut one = vec![0.0; pixels];
        rows_times_features(&rows[2 * channels..3 * channels], &features, FeatureLayout::ChannelsFirst, channels, pixels, &mut one);
        assert_eq!(one, all[2 * pixels..3 * pixels], "bit for bit");
    }
}
