//! Scores of attention, `q k^T` of one head: `[count, tokens]` from a block of queries and packed keys, in the precision of the keys.

use std::ops::RangeInclusive;

use super::arch::{IntegerTile, Isa, ScoreTile, TILE_MAX, TileOf, WEIGHT_COLUMNS};
use super::columns::{array_at, array_at_mut, column_chunks};
use super::epilogue::{Int8Tile, int8_scores};
use super::packed::{HalfRows, PackedF32, PackedHalf, PackedI8};
use super::quantize::Activations;

/// Values from the start of a row of scores to the start of the next: whole tiles write past the last key.
pub fn score_stride(tokens: usize) -> usize {
    tokens.next_multiple_of(32)
}

/// int8 products of quantized queries and keys, times `scale`.
#[inline(always)]
pub fn scores_int8(isa: Isa, scale: f32, count: usize, queries: &Activations, keys: &PackedI8, scores: &mut [f32]) {
    let (tile, tokens, k) = (isa.dot_tile(), keys.n(), isa.dot_tile().padded(keys.k()));
    let products = isa.products();
    let mut acc = TileOf([0; TILE_MAX]);
    let stride = score_stride(tokens);
    for (index, left) in (0..tokens).step_by(tile.nr).enumerate() {
        let panel = keys.panel(index);
        let (sums, scales) = (&keys.sums()[left..left + tile.nr], &keys.scales()[left..left + tile.nr]);
        for row in (0..count).step_by(tile.mr) {
            let (bytes, apart) = queries.rows(row);
            products.dot(bytes, apart, panel, k, &mut acc);
            let (here, to) = (tile.mr.min(count - row), &mut scores[row * stride + left..]);
            let rows = queries.parameters(row, here);
            if tile.nr.is_multiple_of(16) {
                let bias = &[0.0; 32][..tile.nr];
                let tile = IntegerTile { acc: &acc.0, rows, factor: scale, sums, column_scales: scales, bias, stride };
                isa.finish_int8(&tile, &[], to);
            } else {
                int8_scores(&Int8Tile { nr: tile.nr, acc: &acc.0, rows, stride }, scale, sums, scales, to);
            }
        }
    }
}

/// Products in half precision; `queries` are scaled, `scores` has whole tiles of rows.
#[inline(always)]
pub fn scores_half(isa: Isa, count: usize, queries: &HalfRows, keys: &PackedHalf, scores: &mut [f32]) {
    let (tile, tokens, depth) = (isa.half_tile().expect("it packed the keys"), keys.n(), keys.depth());
    let stride = score_stride(tokens);
    let products = isa.products();
    for (index, left) in (0..tokens).step_by(tile.nr).enumerate() {
        for row in (0..count).step_by(tile.mr) {
            let (values, apart) = queries.rows(row);
            products.half_rows(values, apart, keys.panel(index), depth, &mut scores[row * stride + left..], stride);
        }
    }
}

/// Sums of weights that [`weights_half`] takes for exact: below, the largest weights may have lost digits or become zero, above, products with the values
/// might overflow.
const SUMS: RangeInclusive<f32> = 1e-30..=1e20;

/// `2^score` of all keys in half precision, `weights` with `depth` of the values' panels a row and rows `stride` apart, and one over the sum of each row. Gives whether
/// the sums of all rows are within [`SUMS`]; else scores are to be compared with the largest of their row first.
///
/// `queries` are scaled, so that scores are powers of two; `weights` has whole tiles of rows.
#[inline(always)]
pub fn weights_half(isa: Isa, queries: &HalfRows, keys: &PackedHalf, (weights, stride): (&mut [u16], usize), sums: &mut [f32]) -> bool {
    let (tile, tokens, depth) = (isa.half_tile().expect("it packed the keys"), keys.n(), keys.depth());
    let products = isa.products();
    let (mut acc, mut lanes) = (TileOf([0.0; TILE_MAX]), [[0.0; 16]; TILE_MAX / WEIGHT_COLUMNS]);
    for (row, sums) in (0..).step_by(tile.mr).zip(sums.chunks_mut(tile.mr)) {
        let (values, apart) = queries.rows(row);
        let lanes = &mut lanes[..sums.len()];
        lanes.fill([0.0; 16]);
        for (index, left) in (0..tokens).step_by(tile.nr).enumerate() {
            products.half(values, apart, keys.panel(index), depth, &mut acc);
            let tile = ScoreTile { scores: &acc.0, columns: tile.nr.min(tokens - left), stride };
            isa.tile_weights(&tile, lanes, &mut weights[row * stride + left..]);
        }
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            let all = isa.sum(lanes);
            if !SUMS.contains(&all) {
                return false;
            }
            *sum = 1.0 / all;
        }
    }
    true
}

/// `columns` of the `nr` columns of a tile, to rows that are `stride` values apart.
#[inline(always)]
fn scores_of_tile(acc: &[f32], nr: usize, columns: usize, rows: usize, stride: usize, scores: &mut [f32]) {
    for r in 0..rows {
        let (from, to) = (&acc[r * nr..][..columns], &mut scores[r * stride..][..columns]);
        column_chunks!(columns, |start, W| *array_at_mut::<_, W>(to, start) = *array_at::<_, W>(from, start));
    }
}

/// Products in f32; `queries` are scaled.
#[inline(always)]
pub fn scores_f32(isa: Isa, count: usize, queries: &[f32], keys: &PackedF32, scores: &mut [f32]) {
    let (tile, tokens, dim) = (isa.fma_tile(), keys.n(), keys.k());
    let stride = score_stride(tokens);
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, left) in (0..tokens).step_by(tile.nr).enumerate() {
        let columns = tile.nr.min(tokens - left);
        for row in (0..count).step_by(tile.mr) {
            isa.fma(&queries[row * dim..], dim, keys.panel(index), dim, &mut acc);
            scores_of_tile(&acc.0, tile.nr, columns, tile.mr.min(count - row), stride, &mut scores[row * stride + left..]);
        }
    }
}
