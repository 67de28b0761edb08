//! Epilogues of matrix products: accumulators of a tile become rows of the output.

use super::arch::{Isa, per_isa, strided_mut};
use super::columns::{array_at, array_at_mut, column_chunks};
use super::quantize::Row;

/// The epilogue of an int8 tile: `(acc - zero point * column sum) * row scale * column scale + bias + residual`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// The sum of the weights of each column.
    pub sums: &'a [i32],
    /// The scale of each column.
    pub column_scales: &'a [f32],
    /// The bias of each column.
    pub bias: &'a [f32],
}

/// The accumulators of a tile and where they go: rows of `nr` values to rows that are `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Int8Tile<'a> {
    /// Columns of the tile.
    pub nr: usize,
    /// Row-major.
    pub acc: &'a [i32],
    /// Scale and zero point of each row; there may be fewer rows than the tile has.
    pub rows: &'a [Row],
    /// Values from the start of an output row to the start of the next.
    pub stride: usize,
}

impl<'a> Int8Tile<'a> {
    /// One value of the tile, as a tile.
    #[inline(always)]
    fn one(&self, row: usize, column: usize) -> Int8Tile<'a> {
        let acc = &self.acc[row * self.nr + column..][..1];
        Int8Tile { nr: 1, acc, rows: &self.rows[row..=row], stride: self.stride }
    }
}

/// Writes a tile to `to`, as many columns as the epilogue has; whole tiles of 16 and 32 have [`Isa::finish_int8`]. `residual` is empty or laid out as `to`.
#[inline(always)]
pub fn int8_epilogue(isa: Isa, tile: &Int8Tile, epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) {
    match (tile.nr, epilogue.bias.len()) {
        (4, 4) => int8_epilogue_whole::<4>(tile, epilogue, residual, to),
        (8, 8) => int8_epilogue_whole::<8>(tile, epilogue, residual, to),
        _ => int8_epilogue_part(isa, tile, epilogue, residual, to),
    }
}

/// [`int8_epilogue`] of a tile at the right edge, value by value.
#[inline(always)]
fn int8_epilogue_part_body(tile: &Int8Tile, epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) {
    let columns = epilogue.bias.len();
    for (r, c) in (0..tile.rows.len()).flat_map(|r| (0..columns).map(move |c| (r, c))) {
        let epilogue = Epilogue { sums: &epilogue.sums[c..=c], column_scales: &epilogue.column_scales[c..=c], bias: &epilogue.bias[c..=c] };
        let at = r * tile.stride + c;
        let residual = residual.get(at..=at).unwrap_or(&[]);
        int8_epilogue_whole::<1>(&tile.one(r, c), &epilogue, residual, &mut to[at..]);
    }
}

per_isa! {
    fn int8_epilogue_part(tile: &Int8Tile, epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) = int8_epilogue_part_body;
}

/// [`int8_epilogue`] of a whole tile.
#[inline(always)]
fn int8_epilogue_whole<const NR: usize>(tile: &Int8Tile, epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) {
    let (sums, scales) = (array_at::<_, NR>(epilogue.sums, 0), array_at::<_, NR>(epilogue.column_scales, 0));
    let bias = array_at::<_, NR>(epilogue.bias, 0);
    let to = strided_mut::<_, NR>(to, tile.stride, tile.rows.len());
    for (((r, row), acc), to) in tile.rows.iter().enumerate().zip(tile.acc.as_chunks::<NR>().0).zip(to) {
        let mut values = [0f32; NR];
        for i in 0..NR {
            let exact = acc[i].wrapping_sub(sums[i].wrapping_mul(row.zero));
            values[i] = (exact as f32 * row.scale).mul_add(scales[i], bias[i]);
        }
        if !residual.is_empty() {
            let residual = array_at::<_, NR>(residual, r * tile.stride);
            for i in 0..NR {
                values[i] += residual[i];
            }
        }
        *to = values;
    }
}

/// Writes the first `rows` rows of an f32 tile to `to`: `acc + bias + residual`, laid out as in [`int8_epilogue`].
#[inline(always)]
pub fn f32_epilogue(nr: usize, acc: &[f32], rows: usize, bias: &[f32], residual: &[f32], to: &mut [f32], stride: usize) {
    for (r, acc) in acc.chunks_exact(nr).take(rows).enumerate() {
        let at = r * stride;
        let residual = if residual.is_empty() { residual } else { &residual[at..] };
        column_chunks!(bias.len(), |start, W| {
            let (acc, bias) = (array_at::<_, W>(acc, start), array_at::<_, W>(bias, start));
            let mut values = [0f32; W];
            for i in 0..W {
                values[i] = acc[i] + bias[i];
            }
            finish(values, residual, start, &mut to[at..]);
        });
    }
}

#[inline(always)]
fn finish<const W: usize>(mut values: [f32; W], residual: &[f32], at: usize, to: &mut [f32]) {
    if !residual.is_empty() {
        let residual = array_at::<_, W>(residual, at);
        for i in 0..W {
            values[i] += residual[i];
        }
    }
    *array_at_mut::<_, W>(to, at) = values;
}

/// Writes a tile of int8 scores to `to`: `(acc - zero point * sum) * row scale * scale * column scale`; there are as many columns as
/// `scales`.
#[inline(always)]
pub fn int8_scores(tile: &Int8Tile, scale: f32, sums: &[i32], scales: &[f32], to: &mut [f32]) {
    match tile.nr {
        4 => int8_scores_whole::<4>(tile, scale, sums, scales, to),
        8 => int8_scores_whole::<8>(tile, scale, sums, scales, to),
        nr => unreachable!("tiles of {nr} columns have `Isa::finish_int8`"),
    }
}

#[inline(always)]
fn int8_scores_whole<const NR: usize>(tile: &Int8Tile, scale: f32, sums: &[i32], scales: &[f32], to: &mut [f32]) {
    let (sums, scales) = (array_at::<_, NR>(sums, 0), array_at::<_, NR>(scales, 0));
    let to = strided_mut::<_, NR>(to, tile.stride, tile.rows.len());
    for ((row, acc), to) in tile.rows.iter().zip(tile.acc.as_chunks::<NR>().0).zip(to) {
        let factor = row.scale * scale;
        // first all, then stored: nothing says that `to` is not one of the others
        let mut values = [0f32; NR];
        for i in 0..NR {
            values[i] = (acc[i].wrapping_sub(sums[i].wrapping_mul(row.zero)) as f32 * factor) * scales[i];
        }
        *to = values;
    }
}
