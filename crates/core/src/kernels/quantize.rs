//! Activations to int8, one scale per token.

use super::arch::{ActivationForm, Aligned, DotTile, Isa, K_STEP, per_isa};
use super::packed::padded;

/// Smallest and largest value of `row` and zero; NaN counts as nothing, infinities as 1e38.
#[inline(always)]
fn range(isa: Isa, row: &[f32]) -> (f32, f32) {
    let (lowest, highest) = isa.range(row, (0.0, 0.0));
    (lowest.max(-1e38), highest.min(1e38))
}

/// How the values of one row became integers: `value = scale * (integer - zero)`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Row {
    pub scale: f32,
    pub zero: i32,
}

/// Integers from -128 to 127 cover the row from its smallest to its largest value, and zero exactly: what follows a GELU is hardly
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
    let (low, high) = range(isa, row);
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
    /// Zero points count the offset of the form.
    parameters: Vec<Row>,
}

impl Activations {
    /// Makes room for `rows` rows of `k` values, rounded up to whole tiles.
    pub fn resize(&mut self, isa: Isa, rows: usize, k: usize) {
        let tile = isa.dot_tile();
        let rows = rows.next_multiple_of(tile.mr);
        self.stride = padded(k) * tile.form.bytes();
        self.bytes.resize(rows * self.stride);
        self.row.resize(padded(k));
        self.parameters.resize(rows, Row::default());
    }

    /// Quantizes `values` into row `row`.
    pub fn set_row(&mut self, isa: Isa, row: usize, values: &[f32]) {
        let DotTile { mr, form, interleaved, .. } = isa.dot_tile();
        let (Row { scale, zero }, inverse) = asymmetric(range(isa, values));
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
        self.parameters[row] = Row { scale, zero: zero + form.offset() };
    }

    /// The tile of rows from `row` on, a multiple of its rows, and the bytes between rows that are not interleaved.
    pub fn rows(&self, row: usize) -> (&[u8], usize) {
        (&self.bytes[row * self.stride..], self.stride)
    }

    /// Scale and zero point of the rows from `row` on.
    pub fn parameters(&self, row: usize, count: usize) -> &[Row] {
        &self.parameters[row..row + count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut state = 7u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let mut rows: Vec<Vec<f32>> = (0..70).map(|len| (0..len).map(|_| random() * 3.0).collect()).collect();
        rows.push(vec![0.0; 40]);
        rows.push(vec![-0.0, 1e-40, -1e-38, 0.0]); // subnormal
        rows.push(vec![f32::NAN, 1.0, -2.0, 0.5, f32::NAN]);
        rows.push(vec![f32::INFINITY, -1.0, f32::NEG_INFINITY]);
        rows.push(vec![f32::MAX, -f32::MAX, 1.0]);
        rows.push((-127..=127).map(|i| i as f32 + 0.5).collect()); // ties
        rows
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

    #[test]
    fn every_form_is_the_definition_on_every_instruction_set() {
        for isa in Isa::available() {
            let (rows, mut quantized) = (rows(), Activations::default());
            let longest = rows.iter().map(Vec::len).max().unwrap();
            quantized.resize(isa, rows.len(), longest);
            rows.iter().enumerate().for_each(|(i, row)| quantized.set_row(isa, i, row));
            for (i, row) in rows.iter().enumerate() {
                let (expected, parameters) = naive(row);
                let expected = expected.into_iter().map(i32::from).collect();
                assert_eq!(read(isa, &quantized, i, row.len()), (expected, parameters), "{} {row:?}", isa.name());
            }
        }
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
    fn symmetric_rows_hold_no_minus_128() {
        for isa in Isa::available() {
            for row in rows() {
                let mut to = vec![0x55i8; row.len() + 1];
                let scale = quantize_symmetric(isa, &row, &mut to);
                let known = row.iter().filter(|v| !v.is_nan());
                let largest = known.fold(0f32, |max, v| max.max(v.abs())).min(1e38);
                assert_eq!(scale, if largest < 1e-30 { 0.0 } else { largest / 127.0 });
                for (value, quantized) in row.iter().zip(&to) {
                    let inverse = if largest < 1e-30 { 0.0 } else { 127.0 / largest };
                    let known = if value.is_nan() { 0.0 } else { value * inverse };
                    let expected = known.clamp(-127.0, 127.0).round_ties_even();
                    assert_eq!(f32::from(*quantized), expected, "{} {row:?}", isa.name());
                }
                assert_eq!(to.last(), Some(&0x55));
            }
        }
    }
}
