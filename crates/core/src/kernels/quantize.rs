//! Activations to int8, one scale per token.

pub use super::arch::Row;
use super::arch::{ActivationForm, Aligned, DotTile, Isa, K_STEP, per_isa};

/// A range limited to 1e38.
#[inline(always)]
fn limited((low, high): (f32, f32)) -> (f32, f32) {
    (low.max(-1e38), high.min(1e38))
}

/// Integers from -128 to 127 cover the row from its smallest to its largest value, and zero exactly: the output of a GELU is hardly
/// ever negative, and a range around zero would waste half of them. Rows too small to divide by become zeros.
#[inline(always)]
fn asymmetric((low, high): (f32, f32)) -> (Row, f32) {
    let width = high - low;
    if width < 1e-30 {
        return (Row { scale: 0.0, zero: 0 }, 0.0);
    }
    let inverse = 255.0 / width;
    (Row { scale: width / 255.0, zero: (-128.0 - low * inverse).round_ties_even() as i32 }, inverse)
}

/// `to = round(row / scale)` in -127..=127 with `scale = max |row| / 127`: no zero point, for the right-hand side of a product.
pub fn quantize_symmetric(isa: Isa, row: &[f32], to: &mut [i8]) -> f32 {
    let (low, high) = limited(isa.range(row, (0.0, 0.0)));
    let largest = if -low > high { -low } else { high };
    if largest < 1e-30 {
        to[..row.len()].fill(0);
        return 0.0;
    }
    isa.round_symmetric(row, 127.0 / largest, to);
    largest / 127.0
}

/// i8 to [`ActivationForm::Wide`].
#[inline(always)]
fn widen_body(bytes: &[u8], to: &mut [u8]) {
    for (to, byte) in to.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *to = i16::from(*byte as i8).to_ne_bytes();
    }
}

per_isa! {
    fn widen(bytes: &[u8], to: &mut [u8]) = widen_body;
}

/// Quantized rows as the tiles of one instruction set take them.
#[derive(Debug, Default)]
pub struct Activations {
    bytes: Aligned<u8>,
    stride: usize,
    /// One row before it is widened.
    row: Aligned<u8>,
    /// Zero points include the offset of the form.
    parameters: Vec<Row>,
    /// Scales and zero points once more, as vectors take them.
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl Activations {
    /// Makes room for `rows` rows of `k` values, rounded up to whole tiles.
    pub fn resize(&mut self, isa: Isa, rows: usize, k: usize) {
        let tile = isa.dot_tile();
        let rows = rows.next_multiple_of(tile.mr);
        self.stride = tile.padded(k) * tile.form.bytes();
        self.bytes.resize(rows * self.stride);
        self.row.resize(tile.padded(k));
        self.parameters.resize(rows, Row::default());
        self.scales.resize(rows, 0.0);
        self.zeros.resize(rows, 0.0);
    }

    /// Quantizes `values` into row `row`.
    pub fn set_row(&mut self, isa: Isa, row: usize, values: &[f32]) {
        self.set_row_within(isa, row, values, isa.range(values, (0.0, 0.0)));
    }

    /// [`Activations::set_row`] where the smallest and the largest of zero and the values, NaN left out, are known.
    pub fn set_row_within(&mut self, isa: Isa, row: usize, values: &[f32], range: (f32, f32)) {
        let DotTile { mr, form, interleaved, .. } = isa.dot_tile();
        let (Row { scale, zero }, inverse) = asymmetric(limited(range));
        let to = &mut self.bytes[row * self.stride..];
        match form {
            ActivationForm::Signed if interleaved => {
                let to = &mut self.bytes[row / mr * mr * self.stride + row % mr * K_STEP..];
                isa.round_signed(values, inverse, zero as f32, to, mr);
            }
            ActivationForm::Signed => isa.round_signed(values, inverse, zero as f32, to, 1),
            ActivationForm::Offset => isa.round_offset(values, inverse, zero as f32, to),
            ActivationForm::Wide => {
                isa.round_signed(values, inverse, zero as f32, &mut self.row, 1);
                widen(isa, &self.row[..values.len()], to);
            }
        }
        let zero = zero + form.offset();
        self.parameters[row] = Row { scale, zero };
        (self.scales[row], self.zeros[row]) = (scale, zero as f32);
    }

    /// The tile of rows from `row` on, a multiple of its rows, and the bytes between rows that are not interleaved.
    pub fn rows(&self, row: usize) -> (&[u8], usize) {
        (&self.bytes[row * self.stride..], self.stride)
    }

    /// Scales and zero points of all rows, padded to whole tiles.
    pub fn vectors(&self) -> (&[f32], &[f32]) {
        (&self.scales, &self.zeros)
    }

    /// Scale and zero point of the rows from `row` on.
    pub fn parameters(&self, row: usize, count: usize) -> &[Row] {
        &self.parameters[row..row + count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;

    /// The definition.
    fn naive(row: &[f32]) -> (Vec<i8>, Row) {
        let known = row.iter().filter(|v| !v.is_nan());
        let low = known.clone().fold(0f32, |min, v| min.min(*v)).max(-1e38);
        let high = known.fold(0f32, |max, v| max.max(*v)).min(1e38);
        if high - low < 1e-30 {
            return (vec![0; row.len()], Row::default());
        }
        let inverse = 255.0 / (high - low);
        let zero = (-128.0 - low * inverse).round_ties_even();
        let quantized = |v: &f32| match v.is_nan() {
            true => 0,
            false => v.mul_add(inverse, zero).clamp(-128.0, 127.0).round_ties_even() as i8,
        };
        (row.iter().map(quantized).collect(), Row { scale: (high - low) / 255.0, zero: zero as i32 })
    }

    fn rows() -> Vec<Vec<f32>> {
        [suite::tails(3.0), suite::extremes(), vec![Vec::new()]].concat()
    }

    /// Row `row` of `quantized` as integers of i8, `len` of them, and its parameters as if there were no offset.
    fn read(isa: Isa, quantized: &Activations, row: usize, len: usize) -> (Vec<i32>, Row) {
        let DotTile { mr, form, interleaved, .. } = isa.dot_tile();
        let (tile, stride) = quantized.rows(row / mr * mr);
        let at = |i: usize| match interleaved {
            true => (i / K_STEP * mr + row % mr) * K_STEP + i % K_STEP,
            false => row % mr * stride + i * form.bytes(),
        };
        let integer = |i: usize| match form {
            ActivationForm::Signed => i32::from(tile[at(i)] as i8),
            ActivationForm::Offset => i32::from(tile[at(i)]) - 128,
            ActivationForm::Wide => i32::from(i16::from_ne_bytes([tile[at(i)], tile[at(i) + 1]])),
        };
        let Row { scale, zero } = quantized.parameters(row, 1)[0];
        ((0..len).map(integer).collect(), Row { scale, zero: zero - form.offset() })
    }

    /// Every row at its place in a tile, as the instruction set's form and offset say.
    #[test]
    fn quantized_rows_conform() {
        let kernel = |isa: Isa, row: &[f32], to: &mut [i32]| {
            let mut quantized = Activations::default();
            quantized.resize(isa, 13, row.len() + 1);
            (0..13).for_each(|i| quantized.set_row(isa, i, row));
            let (values, Row { scale, zero }) = read(isa, &quantized, 0, row.len());
            for i in 1..13 {
                assert_eq!(read(isa, &quantized, i, row.len()).0, values, "row {i} of a tile");
            }
            to.copy_from_slice(&values);
            (scale, zero)
        };
        suite::rows(
            &rows(),
            77,
            |n| n,
            kernel,
            |row, to, (scale, zero)| {
                let (expected, parameters) = naive(row);
                assert_eq!(Row { scale: *scale, zero: *zero }, parameters, "{row:?}");
                assert!(to.iter().copied().eq(expected.into_iter().map(i32::from)), "{row:?}: {to:?}");
            },
        );
    }

    #[test]
    fn rounding_costs_half_a_step_at_most() {
        let mut quantized = Activations::default();
        for row in rows().into_iter().filter(|row| row.iter().all(|v| v.abs() < 1e30)) {
            quantized.resize(Isa::SCALAR, 1, row.len());
            quantized.set_row(Isa::SCALAR, 0, &row);
            let (integers, Row { scale, zero }) = read(Isa::SCALAR, &quantized, 0, row.len());
            for (value, integer) in row.iter().zip(integers) {
                let back = scale * (integer - zero) as f32;
                // the zero point was rounded too, so that the ends may miss half a step more
                assert!((back - value).abs() <= scale * 1.001 + 1e-30, "{value} became {back} in {row:?}");
            }
        }
    }

    #[test]
    fn symmetric_rows_conform_and_hold_no_minus_128() {
        suite::rows(
            &rows(),
            0x55,
            |n| n,
            quantize_symmetric,
            |row, to: &[i8], scale| {
                let known = row.iter().filter(|v| !v.is_nan());
                let largest = known.fold(0f32, |max, v| max.max(v.abs())).min(1e38);
                assert_eq!(*scale, if largest < 1e-30 { 0.0 } else { largest / 127.0 });
                let inverse = if largest < 1e-30 { 0.0 } else { 127.0 / largest };
                for (value, quantized) in row.iter().zip(to) {
                    let known = if value.is_nan() { 0.0 } else { value * inverse };
                    let known = if known.is_nan() { 0.0 } else { known };
                    assert_eq!(f32::from(*quantized), known.clamp(-127.0, 127.0).round_ties_even(), "{row:?}");
                }
            },
        );
    }
}
