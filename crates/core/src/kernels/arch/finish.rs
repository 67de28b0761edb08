//! From the integers of an int8 tile to its outputs, sixteen columns at a time.

use super::Arithmetic;
use super::functions::gelu_rough;
use super::isa::{Isa, Kind, Level};
use super::lanes::{half_row_function, row_function};
use super::simd::{Lanes, Simd};
use super::token::Scalar;
#[cfg(target_arch = "x86_64")]
use super::token::{Avx2, Avx512Bf16, Avx512Vnni};

/// How the values of one row became integers: `value = scale * (integer - zero)`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Row {
    /// The size of a step; 0 for a row of zeros.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero: i32,
}

/// A tile of integers, and what makes outputs of them.
#[derive(Debug, Clone, Copy)]
pub struct IntegerTile<'a> {
    /// Row-major; as many values a row as there are columns.
    pub acc: &'a [i32],
    /// There may be fewer than the tile has.
    pub rows: &'a [Row],
    /// What the scales of the rows are multiplied by.
    pub factor: f32,
    /// Per column, 16 or 32 of them: the sum of its weights.
    pub sums: &'a [i32],
    /// Per column.
    pub column_scales: &'a [f32],
    /// Per column.
    pub bias: &'a [f32],
    /// Values from the start of an output row to the start of the next.
    pub stride: usize,
}

/// `GROUPS` times sixteen columns. Plain indices: iterators over strides keep their state in memory, and reading it back waits for all stores.
#[inline(always)]
fn finish_groups<S: Simd, const GROUPS: usize>(simd: S, tile: &IntegerTile, residual: &[f32], to: &mut [f32]) {
    let columns = 16 * GROUPS;
    let sums: [&[i32; 16]; GROUPS] = std::array::from_fn(|group| &tile.sums.as_chunks().0[group]);
    let constants = |values: &[f32]| -> [S::Vector; GROUPS] { std::array::from_fn(|group| simd.load(&values.as_chunks().0[group])) };
    let (scales, bias) = (constants(tile.column_scales), constants(tile.bias));
    for (index, row) in tile.rows.iter().enumerate() {
        let acc = tile.acc[index * columns..][..columns].as_chunks().0;
        let at = index * tile.stride;
        let to = to[at..at + columns].as_chunks_mut().0;
        let scale = simd.splat(row.scale * tile.factor);
        for group in 0..GROUPS {
            let exact = simd.load_difference(&acc[group], sums[group], row.zero);
            let mut values = exact.mul(scale).mul_add(scales[group], bias[group]);
            if !residual.is_empty() {
                values = values.add(simd.load(&residual[at..at + columns].as_chunks().0[group]));
            }
            values.write(&mut to[group]);
        }
    }
}

#[inline(always)]
fn finish<S: Simd>(simd: S, tile: &IntegerTile, residual: &[f32], to: &mut [f32]) {
    match tile.sums.len() {
        16 => finish_groups::<S, 1>(simd, tile, residual, to),
        32 => finish_groups::<S, 2>(simd, tile, residual, to),
        columns => unreachable!("no tile has {columns} columns that are groups of sixteen"),
    }
}

/// A tile of sums in f32, and what is added to them.
#[derive(Debug, Clone, Copy)]
pub struct FloatTile<'a> {
    /// Row-major; as many values a row as there are columns. There may be more rows than are written.
    pub acc: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Per column, or empty: what the sums are multiplied by.
    pub scales: &'a [f32],
    /// Per column, 16 or 32 of them.
    pub bias: &'a [f32],
    /// Values from the start of an output row to the start of the next.
    pub stride: usize,
}

/// Factors and biases of a tile's columns.
#[inline(always)]
fn of_columns<S: Simd, const GROUPS: usize>(simd: S, tile: &FloatTile) -> [[S::Vector; GROUPS]; 2] {
    let load = |values: &[f32]| std::array::from_fn(|group| simd.load(&values.as_chunks().0[group]));
    [if tile.scales.is_empty() { [simd.splat(1.0); GROUPS] } else { load(tile.scales) }, load(tile.bias)]
}

#[inline(always)]
fn finish_float_groups<S: Simd, const GROUPS: usize>(simd: S, tile: &FloatTile, residual: &[f32], to: &mut [f32]) {
    let columns = 16 * GROUPS;
    let [scales, bias] = of_columns::<S, GROUPS>(simd, tile);
    for index in 0..tile.rows {
        let acc = tile.acc[index * columns..][..columns].as_chunks().0;
        let at = index * tile.stride;
        let to = to[at..at + columns].as_chunks_mut().0;
        for group in 0..GROUPS {
            let mut values = simd.load(&acc[group]).mul_add(scales[group], bias[group]);
            if !residual.is_empty() {
                values = values.add(simd.load(&residual[at..at + columns].as_chunks().0[group]));
            }
            values.write(&mut to[group]);
        }
    }
}

#[inline(always)]
fn finish_float<S: Simd>(simd: S, tile: &FloatTile, residual: &[f32], to: &mut [f32]) {
    match tile.bias.len() {
        16 => finish_float_groups::<S, 1>(simd, tile, residual, to),
        32 => finish_float_groups::<S, 2>(simd, tile, residual, to),
        columns => unreachable!("no tile has {columns} columns that are groups of sixteen"),
    }
}

row_function! {
    /// `(acc - zero sums) scale factor column_scales + bias + residual` of every row. `residual` is empty or laid out as `to`.
    finish_int8 = finish(tile: &IntegerTile, residual: &[f32], to: &mut [f32])
}

#[inline(always)]
fn finish_gelu<S: Simd, const GROUPS: usize>(simd: S, tile: &FloatTile, to: &mut [u16]) {
    let columns = 16 * GROUPS;
    let [scales, bias] = of_columns::<S, GROUPS>(simd, tile);
    for index in 0..tile.rows {
        let acc = tile.acc[index * columns..][..columns].as_chunks().0;
        let at = index * tile.stride;
        let to = to[at..at + columns].as_chunks_mut().0;
        for group in 0..GROUPS {
            simd.store_half(gelu_rough(simd.load(&acc[group]).mul_add(scales[group], bias[group])), &mut to[group]);
        }
    }
}

#[inline(always)]
fn finish_gelu_half<S: Simd>(simd: S, tile: &FloatTile, to: &mut [u16]) {
    match tile.bias.len() {
        16 => finish_gelu::<S, 1>(simd, tile, to),
        32 => finish_gelu::<S, 2>(simd, tile, to),
        columns => unreachable!("no tile has {columns} columns that are groups of sixteen"),
    }
}

half_row_function! {
    /// GELU ([`Isa::gelu_rough`]) of `acc scales + bias` of every row in half precision.
    finish_gelu_half = finish_gelu_half(tile: &FloatTile, to: &mut [u16])
}

row_function! {
    /// `acc scales + bias + residual` of every row. `residual` is empty or laid out as `to`.
    finish_f32 = finish_float(tile: &FloatTile, residual: &[f32], to: &mut [f32])
}
