//! The mask product (EoMT, mask logits = query embeddings times pixel features): a few queries, many pixels.

use std::cell::RefCell;

use super::arch::{Aligned, Isa, Matrix, TILE_MAX, TileOf, per_isa};
use super::packed::{PackedF32, PackedHalf};
use super::workers::Workers;

/// Buffers that are reused from call to call.
#[derive(Debug)]
pub struct MaskProductScratch {
    pub(super) panels: Panels,
    /// `[strips, rows, STRIP]`.
    strips: Vec<f32>,
}

/// The kept embeddings as columns.
#[derive(Debug)]
pub(super) enum Panels {
    Half(PackedHalf),
    F32(PackedF32),
}

impl MaskProductScratch {
    /// Empty buffers; `half` asks for half precision where the CPU has fast products of it.
    pub fn new(isa: Isa, half: bool) -> MaskProductScratch {
        let panels = match PackedHalf::new(isa).filter(|_| half) {
            Some(panels) => Panels::Half(panels),
            None => Panels::F32(PackedF32::zeros(isa, 0, 0)),
        };
        MaskProductScratch { panels, strips: Vec::new() }
    }
}

thread_local! {
    /// A strip of features in half precision.
    static HALF: RefCell<Aligned<u16>> = RefCell::default();
}

/// Pixels whose features stay in the second-level cache while all queries pass: a multiple of every tile's rows.
const STRIP: usize = 96;

impl Panels {
    /// Packs the rows `kept` of `embeddings`, `[queries, channels]`.
    pub(super) fn pack(&mut self, embeddings: &[f32], channels: usize, kept: &[usize]) {
        let columns = kept.iter().map(|query| &embeddings[query * channels..(query + 1) * channels]).enumerate();
        match self {
            Panels::Half(panels) => {
                panels.resize(channels, kept.len());
                columns.for_each(|(row, values)| panels.set_column(row, values));
            }
            Panels::F32(panels) => {
                panels.resize(channels, kept.len());
                columns.for_each(|(row, values)| panels.set_column(row, values));
            }
        }
    }

    /// The products of the pixels from `first` on, at most [`STRIP`], of `features`, `[pixels, channels]`, into `to`: a row for each query, `stride` values apart.
    fn strip(&self, isa: Isa, features: &[f32], channels: usize, first: usize, to: &mut [f32], stride: usize) {
        let pixels = Pixels { features, channels, first };
        match self {
            Panels::Half(panels) => HALF.with_borrow_mut(|half| half_strip(isa, pixels, panels, half, to, stride)),
            Panels::F32(panels) => f32_strip(isa, pixels, panels, to, stride),
        }
    }

    /// [`Panels::strip`] of all pixels.
    pub(super) fn multiply(&self, isa: Isa, features: &[f32], channels: usize, to: &mut [f32], stride: usize) {
        for first in (0..features.len() / channels).step_by(STRIP) {
            self.strip(isa, features, channels, first, &mut to[first..], stride);
        }
    }
}

/// `out[r, p] = sum_c embeddings[kept[r], c] * features[p, c]`, each sum in ascending order of c: which rows are kept does not change
/// the bits of the others.
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
    panels.pack(embeddings, channels, kept);
    let panels = &*panels;
    if workers.count() == 1 {
        return panels.multiply(isa, features, channels, out, pixels);
    }
    // threads get whole strips, which are no rows of `out`
    strips.resize(pixels.div_ceil(STRIP) * rows * STRIP, 0.0);
    workers.rows(strips, rows * STRIP, 1, 1, &|first, to| {
        let strips = to.chunks_exact_mut(rows * STRIP).enumerate();
        strips.for_each(|(index, to)| panels.strip(isa, features, channels, (first + index) * STRIP, to, STRIP));
    });
    workers.rows(out, pixels, 1, 1, &|row, to| {
        for (to, strip) in to.chunks_mut(STRIP).zip(strips.chunks_exact(rows * STRIP)) {
            to.copy_from_slice(&strip[row * STRIP..][..to.len()]);
        }
    });
}

/// Features of the pixels `first ..`, at most [`STRIP`] of them.
#[derive(Clone, Copy)]
struct Pixels<'a> {
    features: &'a [f32],
    channels: usize,
    first: usize,
}

/// Pixels as the rows of tiles, queries as panels; into `to`, a row for each query, `stride` values apart.
#[inline(always)]
fn f32_strip_body(isa: Isa, Pixels { features, channels, first }: Pixels, panels: &PackedF32, to: &mut [f32], stride: usize) {
    let (tile, rows) = (isa.fma_tile(), panels.n());
    let pixels = features.len() / channels;
    let count = STRIP.min(pixels - first);
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, left) in (0..rows).step_by(tile.nr).enumerate() {
        for pixel in (0..count).step_by(tile.mr) {
            // a tile at the end starts earlier, so that it reads no further than the features
            let start = (first + pixel).min(pixels.saturating_sub(tile.mr));
            multiply(isa, &features[start * channels..], channels, panels.panel(index), &mut acc);
            let acc = &acc.0[(first + pixel - start) * tile.nr..];
            let shape = (tile.mr.min(count - pixel), tile.nr.min(rows - left));
            isa.transpose(Matrix { values: acc, stride: tile.nr, shape }, &mut to[left * stride + pixel..], stride);
        }
    }
}

/// [`f32_strip_body`] in half precision.
#[inline(always)]
fn half_strip_body(
    isa: Isa,
    Pixels { features, channels, first }: Pixels,
    panels: &PackedHalf,
    half: &mut Aligned<u16>,
    to: &mut [f32],
    stride: usize,
) {
    let (tile, rows, depth) = (isa.half_tile().expect("it packed the embeddings"), panels.n(), panels.depth());
    let count = STRIP.min(features.len() / channels - first);
    let products = isa.products();
    half.resize(STRIP.next_multiple_of(tile.mr) * depth);
    for (pixel, to) in features[first * channels..].chunks_exact(channels).take(count).zip(half.chunks_exact_mut(depth)) {
        isa.round_half(pixel, 1.0, to);
    }
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, left) in (0..rows).step_by(tile.nr).enumerate() {
        for pixel in (0..count).step_by(tile.mr) {
            products.half(&half[pixel * depth..], depth, panels.panel(index), depth, &mut acc);
            let shape = (tile.mr.min(count - pixel), tile.nr.min(rows - left));
            isa.transpose(Matrix { values: &acc.0, stride: tile.nr, shape }, &mut to[left * stride + pixel..], stride);
        }
    }
}

per_isa! {
    fn f32_strip[isa](pixels: Pixels, panels: &PackedF32, to: &mut [f32], stride: usize) = f32_strip_body;
}
per_isa! {
    fn half_strip[isa](pixels: Pixels, panels: &PackedHalf, half: &mut Aligned<u16>, to: &mut [f32], stride: usize) = half_strip_body;
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
    use crate::kernels::suite;
    use crate::kernels::testing::numbers;
    use std::sync::Arc;

    #[test]
    fn equals_the_definition_for_any_rows_and_threads() {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap());
        for (queries, channels, pixels) in [(1, 1, 1), (5, 7, 3), (40, 24, 1000), (3, 16, 1031)] {
            let (embeddings, features) = (numbers(queries * channels, 1), numbers(pixels * channels, 2));
            let all = suite::everywhere((queries, channels, pixels), |isa| {
                half_is_near(isa, &embeddings, &features, channels, queries);
                let on = |workers: &Workers| {
                    let mut scratch = MaskProductScratch::new(isa, false);
                    let mut run = |kept: &[usize]| {
                        let mut out = vec![f32::NAN; kept.len() * pixels];
                        mask_product(isa, workers, &embeddings, &features, channels, kept, &mut out, &mut scratch);
                        out
                    };
                    let all = run(&(0..queries).collect::<Vec<_>>());
                    let kept: Vec<usize> = (0..queries).step_by(2).collect();
                    for (row, query) in run(&kept).chunks(pixels).zip(&kept) {
                        assert_eq!(row, &all[query * pixels..(query + 1) * pixels], "bit for bit");
                    }
                    assert!(run(&[]).is_empty());
                    all
                };
                let alone = on(&Workers::one());
                assert_eq!(alone, on(&Workers::pool(Arc::clone(&pool))), "threads do not matter");
                alone
            });
            for (index, ours) in all.iter().enumerate() {
                let (q, p) = (index / pixels, index % pixels);
                let products = (0..channels).map(|c| f64::from(embeddings[q * channels + c]) * f64::from(features[p * channels + c]));
                // f32 sums of at most 24 terms below 1
                assert!((f64::from(*ours) - products.sum::<f64>()).abs() < 1e-5);
            }
        }
    }

    fn half_is_near(isa: Isa, embeddings: &[f32], features: &[f32], channels: usize, queries: usize) {
        let kept: Vec<usize> = (0..queries).collect();
        let run = |half: bool| {
            let mut out = vec![f32::NAN; queries * features.len() / channels];
            mask_product(isa, &Workers::one(), embeddings, features, channels, &kept, &mut out, &mut MaskProductScratch::new(isa, half));
            out
        };
        for (half, full) in run(true).iter().zip(run(false)) {
            // 24 products below 1, each factor off by at most 2^-9 of itself
            assert!((half - full).abs() < 24.0 * 2.0 / 512.0, "{}: {half} {full}", isa.name());
        }
    }
}
