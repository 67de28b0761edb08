//! The mask product: a few query embeddings times many pixels.

use super::arch::{Isa, TILE_MAX, TileOf, per_isa};
use super::panels::F32Panels;
use super::workers::Workers;

/// Buffers that are kept from call to call.
#[derive(Debug)]
pub struct MaskProductScratch {
    panels: F32Panels,
    /// `[strips, rows, STRIP]`.
    strips: Vec<f32>,
}

impl MaskProductScratch {
    pub fn new(isa: Isa) -> MaskProductScratch {
        MaskProductScratch { panels: F32Panels::zeros(isa, 0, 0), strips: Vec::new() }
    }
}

/// Pixels whose features stay in the second-level cache while all queries pass: a multiple of every tile's rows.
const STRIP: usize = 96;

/// `out[r, p] = sum_c embeddings[kept[r], c] * features[p, c]`: each sum in ascending order of c, whatever rows are kept.
///
/// `embeddings` is `[queries, channels]`, `features` is `[pixels, channels]`, `out` is `[kept.len(), pixels]`.
#[allow(clippy::too_many_arguments)]
pub fn mask_product(
    isa: Isa,
    workers: &Workers,
    embeddings: &[f32],
    features: &[f32],
    channels: usize,
    kept: &[usize],
    out: &mut [f32],
    scratch: &mut MaskProductScratch,
) {
    let (rows, pixels) = (kept.len(), features.len() / channels);
    assert_eq!(out.len(), rows * pixels);
    if out.is_empty() {
        return;
    }
    let MaskProductScratch { panels, strips } = scratch;
    panels.resize(channels, rows);
    for (row, query) in kept.iter().enumerate() {
        panels.set_column(row, &embeddings[query * channels..(query + 1) * channels]);
    }
    strips.resize(pixels.div_ceil(STRIP) * rows * STRIP, 0.0);
    workers.rows(strips, rows * STRIP, 1, 1, &|strip, to| {
        for (index, to) in to.chunks_exact_mut(rows * STRIP).enumerate() {
            one_strip(isa, features, (strip + index) * STRIP, panels, to);
        }
    });
    workers.rows(out, pixels, 1, 1, &|row, to| {
        for (to, strip) in to.chunks_mut(STRIP).zip(strips.chunks_exact(rows * STRIP)) {
            to.copy_from_slice(&strip[row * STRIP..][..to.len()]);
        }
    });
}

/// Pixels `first ..` as the rows of tiles, queries as panels; into `to`, `[queries, STRIP]`.
#[inline(always)]
fn one_strip_body(isa: Isa, features: &[f32], first: usize, panels: &F32Panels, to: &mut [f32]) {
    let (tile, channels, rows) = (isa.fma_tile(), panels.k(), panels.n());
    let pixels = features.len() / channels;
    let count = STRIP.min(pixels - first);
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, left) in (0..rows).step_by(tile.nr).enumerate() {
        let columns = tile.nr.min(rows - left);
        for pixel in (0..count).step_by(tile.mr) {
            // a tile at the end starts earlier, so that it reads no further than the features
            let start = (first + pixel).min(pixels.saturating_sub(tile.mr));
            multiply(isa, &features[start * channels..], channels, panels.panel(index), &mut acc);
            let skipped = first + pixel - start;
            for column in 0..columns {
                let to = &mut to[(left + column) * STRIP + pixel..][..tile.mr.min(count - pixel)];
                for (r, to) in to.iter_mut().enumerate() {
                    *to = acc.0[(skipped + r) * tile.nr + column];
                }
            }
        }
    }
}

per_isa! {
    fn one_strip[isa](features: &[f32], first: usize, panels: &F32Panels, to: &mut [f32]) = one_strip_body;
}

/// One tile; fewer pixels than a tile has rows are padded.
fn multiply(isa: Isa, features: &[f32], channels: usize, panel: &[f32], acc: &mut TileOf<f32>) {
    let rows = isa.fma_tile().mr;
    if features.len() >= rows * channels {
        return isa.fma(features, channels, panel, channels, acc);
    }
    let mut padded = features.to_vec();
    padded.resize(rows * channels, 0.0);
    isa.fma(&padded, channels, panel, channels, acc);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn equals_the_definition_for_any_rows_and_threads() {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap());
        for (queries, channels, pixels) in [(1, 1, 1), (5, 7, 3), (40, 24, 1000), (3, 16, 1031)] {
            let (embeddings, features) = (numbers(queries * channels, 1), numbers(pixels * channels, 2));
            let mut all = None;
            for isa in Isa::available() {
                for workers in [Workers::one(), Workers::pool(Arc::clone(&pool))] {
                    let mut scratch = MaskProductScratch::new(isa);
                    let mut run = |kept: &[usize]| {
                        let mut out = vec![f32::NAN; kept.len() * pixels];
                        mask_product(isa, &workers, &embeddings, &features, channels, kept, &mut out, &mut scratch);
                        out
                    };
                    let ours = run(&(0..queries).collect::<Vec<_>>());
                    let all = all.get_or_insert_with(|| ours.clone());
                    assert_eq!(ours, *all, "{}: the same bits", isa.name());
                    let kept: Vec<usize> = (0..queries).step_by(2).collect();
                    for (row, query) in run(&kept).chunks(pixels).zip(&kept) {
                        assert_eq!(row, &all[query * pixels..(query + 1) * pixels], "bit for bit");
                    }
                    assert!(run(&[]).is_empty());
                }
            }
            for (index, ours) in all.expect("ran").iter().enumerate() {
                let (q, p) = (index / pixels, index % pixels);
                let products = (0..channels).map(|c| f64::from(embeddings[q * channels + c]) * f64::from(features[p * channels + c]));
                // f32 sums of at most 24 terms below 1
                assert!((f64::from(*ours) - products.sum::<f64>()).abs() < 1e-5);
            }
        }
    }
}
