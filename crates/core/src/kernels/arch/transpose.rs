//! Columns of a tile become rows, sixteen by sixteen values at a time.

use super::isa::{Isa, Level};
use super::lanes::row_function;
use super::simd::Simd;
use super::token::Scalar;
#[cfg(target_arch = "x86_64")]
use super::token::{Avx2, Avx512Vnni};
use crate::kernels::columns::{array_at, array_at_mut};

/// A matrix in rows that are `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// From the first value on.
    pub values: &'a [f32],
    /// Values from the start of a row to the start of the next.
    pub stride: usize,
    /// Rows, and values of a row.
    pub shape: (usize, usize),
}

#[inline(always)]
fn transpose<S: Simd>(simd: S, from: Matrix, to: &mut [f32], stride: usize) {
    let (rows, columns) = from.shape;
    let whole = (rows / 16 * 16, columns / 16 * 16);
    let mut block = [[0.0; 16]; 16];
    for (row, column) in (0..whole.0).step_by(16).flat_map(|row| (0..whole.1).step_by(16).map(move |column| (row, column))) {
        for (i, line) in block.iter_mut().enumerate() {
            *line = *array_at(from.values, (row + i) * from.stride + column);
        }
        simd.transpose(&mut block);
        for (i, line) in block.iter().enumerate() {
            *array_at_mut(to, (column + i) * stride + row) = *line;
        }
    }
    // right of the blocks, then below them
    for (columns, rows) in [(whole.1..columns, 0..rows), (0..whole.1, whole.0..rows)] {
        for column in columns {
            for row in rows.clone() {
                to[column * stride + row] = from.values[row * from.stride + column];
            }
        }
    }
}

row_function! {
    /// `to[column * stride + row] = from[row, column]`.
    transpose = transpose(from: Matrix, to: &mut [f32], stride: usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;
    use crate::kernels::testing::numbers;

    #[test]
    fn columns_become_rows_for_every_size() {
        suite::each_isa(|isa| {
            for (rows, columns) in [(0, 5), (1, 1), (16, 16), (12, 32), (32, 32), (17, 33), (40, 15), (15, 40)] {
                let (from_stride, stride) = (columns + 3, rows + 2);
                let values = numbers(rows * from_stride, 1);
                let mut to = vec![f32::NAN; columns * stride];
                isa.transpose(Matrix { values: &values, stride: from_stride, shape: (rows, columns) }, &mut to, stride);
                for (at, value) in to.iter().enumerate() {
                    let (column, row) = (at / stride, at % stride);
                    match row < rows {
                        true => {
                            assert_eq!(*value, values[row * from_stride + column], "{} of {rows}x{columns}: {row}, {column}", isa.name())
                        }
                        false => assert!(value.is_nan(), "nothing else is written"),
                    }
                }
            }
        });
    }
}
