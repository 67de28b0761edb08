//! The mask product: a few query embeddings times many pixels.

use super::arch::{Isa, TILE_MAX, TileOf};
use super::panels::F32Panels;
use super::workers::Workers;

/// Buffers that are kept from call to call.
#[derive(Debug)]
pub struct MaskProductScratch {
    panels: F32Panels,
    /// `[pixels, rows]`.
    transposed: Vec<f32>,
}

impl MaskProductScratch {
    pub fn new(isa: Isa) -> MaskProductScratch {
        MaskProductScratch { panels: F32Panels::zeros(isa, 0, 0), transposed: Vec::new() }
    }
}

/// Pixels that one thread takes at a time.
const STRIP: usize = 512;

/// `out[r, p] = sum_c embeddings[kept[r], c] * features[p, c]`: each sum in ascending order of c, whatever rows are kept.
///
/// `embeddings` is `[queries, channels]`, `features` is `[pixels, channels]`, `out` is `[kept.len(), pixels]`.
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
    if rows == 0 {
        return;
    }
    let MaskProductScratch { panels, transposed } = scratch;
    panels.resize(channels, rows);
    for (row, query) in kept.iter().enumerate() {
        panels.set_column(row, &embeddings[query * channels..(query + 1) * channels]);
    }
    let tile = isa.fma_tile();
    transposed.resize(rows * pixels, 0.0);
    // pixels are the rows of the tiles: for each strip of pixels, for each panel of queries
    workers.rows(transposed, rows, tile.mr, STRIP, &|first, to| {
        let mut acc = TileOf([0.0; TILE_MAX]);
        let count = to.len() / rows;
        for (index, left) in (0..rows).step_by(tile.nr).enumerate() {
            let columns = tile.nr.min(rows - left);
            for pixel in (0..count).step_by(tile.mr) {
                // a tile at the end starts earlier, so that it reads no further than the features
                let start = (first + pixel).min(pixels.saturating_sub(tile.mr));
                multiply(isa, &features[start * channels..], channels, panels.panel(index), &mut acc);
                for r in 0..tile.mr.min(count - pixel) {
                    let from = (first + pixel - start + r) * tile.nr;
                    to[(pixel + r) * rows + left..][..columns].copy_from_slice(&acc.0[from..from + columns]);
                }
            }
        }
    });
    workers.rows(out, pixels, 1, 1, &|row, to| {
        to.iter_mut().zip(transposed[row..].iter().step_by(rows)).for_each(|(to, from)| *to = *from);
    });
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
