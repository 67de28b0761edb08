//! Scores of attention, `q k^T` of one head: `[count, tokens]` from a block of queries and packed keys, in the precision of the keys.

use super::arch::{Isa, TILE_MAX, TileOf};
use super::columns::{array_at, array_at_mut, column_chunks};
use super::epilogue::{Int8Tile, int8_scores};
use super::packed::{HalfRows, PackedF32, PackedHalf, PackedI8};
use super::quantize::Activations;

/// int8 products of quantized queries and keys, times `scale`.
#[inline(always)]
pub fn scores_int8(isa: Isa, scale: f32, count: usize, queries: &Activations, keys: &PackedI8, scores: &mut [f32]) {
    let (tile, tokens, k) = (isa.dot_tile(), keys.n(), super::packed::padded(keys.k()));
    let mut acc = TileOf([0; TILE_MAX]);
    for (index, left) in (0..tokens).step_by(tile.nr).enumerate() {
        let columns = tile.nr.min(tokens - left);
        let panel = keys.panel(index);
        let (sums, scales) = (&keys.sums()[left..left + columns], &keys.scales()[left..left + columns]);
        for row in (0..count).step_by(tile.mr) {
            let (bytes, stride) = queries.rows(row);
            isa.dot(bytes, stride, panel, k, &mut acc);
            let rows = queries.parameters(row, tile.mr.min(count - row));
            let tile = Int8Tile { nr: tile.nr, acc: &acc.0, rows, stride: tokens };
            int8_scores(isa, &tile, scale, sums, scales, &mut scores[row * tokens + left..]);
        }
    }
}

/// Products in half precision; `queries` are scaled.
#[inline(always)]
pub fn scores_half(isa: Isa, count: usize, queries: &HalfRows, keys: &PackedHalf, scores: &mut [f32]) {
    let (tile, tokens, depth) = (isa.half_tile().expect("it packed the keys"), keys.n(), keys.depth());
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, left) in (0..tokens).step_by(tile.nr).enumerate() {
        let columns = tile.nr.min(tokens - left);
        for row in (0..count).step_by(tile.mr) {
            let (values, stride) = queries.rows(row);
            isa.half(values, stride, keys.panel(index), depth, &mut acc);
            scores_of_tile(&acc.0, tile.nr, columns, tile.mr.min(count - row), tokens, &mut scores[row * tokens + left..]);
        }
    }
}

/// `columns` of the `nr` columns of a tile, to rows that are `tokens` values apart.
#[inline(always)]
fn scores_of_tile(acc: &[f32], nr: usize, columns: usize, rows: usize, tokens: usize, scores: &mut [f32]) {
    for r in 0..rows {
        let (from, to) = (&acc[r * nr..][..columns], &mut scores[r * tokens..][..columns]);
        column_chunks!(columns, |start, W| *array_at_mut::<_, W>(to, start) = *array_at::<_, W>(from, start));
    }
}

/// Products in f32; `queries` are scaled.
#[inline(always)]
pub fn scores_f32(isa: Isa, count: usize, queries: &[f32], keys: &PackedF32, scores: &mut [f32]) {
    let (tile, tokens, dim) = (isa.fma_tile(), keys.n(), keys.k());
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, left) in (0..tokens).step_by(tile.nr).enumerate() {
        let columns = tile.nr.min(tokens - left);
        for row in (0..count).step_by(tile.mr) {
            isa.fma(&queries[row * dim..], dim, keys.panel(index), dim, &mut acc);
            scores_of_tile(&acc.0, tile.nr, columns, tile.mr.min(count - row), tokens, &mut scores[row * tokens + left..]);
        }
    }
}
