//! Activations to int8, one scale per token.

use super::arch::{ActivationForm, Aligned, Isa, K_STEP, per_isa};
use super::panels::padded;

/// Adding it rounds an f32 below 2^22 to the nearest integer, ties to even, which then sits in the low mantissa bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

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

/// One value in LOWEST..=127 around `zero`, ties to even. The integer saturates, so infinities do, and NaN does by its sign: the bits
/// above those of [`ROUND`] count as a large number.
#[inline(always)]
fn round<const LOWEST: i32>(value: f32, inverse: f32, zero: f32) -> i32 {
    let integer = (value.mul_add(inverse, zero) + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    integer.clamp(LOWEST, 127)
}

/// `to = store(round(row / scale + zero))`, ties to even.
#[inline(always)]
fn quantize<'a, T: 'a>(isa: Isa, row: &[f32], to: impl Iterator<Item = &'a mut T>, store: impl Fn(i32) -> T) -> Row {
    let (result, inverse) = asymmetric(range(isa, row));
    let zero = result.zero as f32;
    for (to, value) in to.zip(row) {
        *to = store(round::<-128>(*value, inverse, zero));
    }
    result
}

#[inline(always)]
fn quantize_signed_body(isa: Isa, row: &[f32], to: &mut [u8]) -> Row {
    quantize(isa, row, to.iter_mut(), |integer| integer as u8)
}

#[inline(always)]
fn quantize_offset_body(isa: Isa, row: &[f32], to: &mut [u8]) -> Row {
    quantize(isa, row, to.iter_mut(), |integer| (integer + 128) as u8)
}

#[inline(always)]
fn quantize_wide_body(isa: Isa, row: &[f32], to: &mut [u8]) -> Row {
    quantize(isa, row, to.as_chunks_mut::<2>().0.iter_mut(), |integer| (integer as i16).to_ne_bytes())
}

/// `to = round(row / scale)` in -127..=127 with `scale = max |row| / 127`: no zero point, for the right-hand side of a product.
#[inline(always)]
pub fn quantize_symmetric_body(isa: Isa, row: &[f32], to: &mut [i8]) -> f32 {
    let (low, high) = range(isa, row);
    let largest = if -low > high { -low } else { high };
    let inverse = if largest < 1e-30 { 0.0 } else { 127.0 / largest };
    for (to, value) in to.iter_mut().zip(row) {
        *to = round::<-127>(*value, inverse, 0.0) as i8;
    }
    if largest < 1e-30 { 0.0 } else { largest / 127.0 }
}

per_isa! {
    /// [`ActivationForm::Signed`].
    fn quantize_signed[isa](row: &[f32], to: &mut [u8]) -> Row = quantize_signed_body;
}
per_isa! {
    /// [`ActivationForm::Offset`].
    fn quantize_offset[isa](row: &[f32], to: &mut [u8]) -> Row = quantize_offset_body;
}
per_isa! {
    /// [`ActivationForm::Wide`].
    fn quantize_wide[isa](row: &[f32], to: &mut [u8]) -> Row = quantize_wide_body;
}
#[cfg(test)]
per_isa! {
    fn quantize_symmetric[isa](row: &[f32], to: &mut [i8]) -> f32 = quantize_symmetric_body;
}

/// Quantized rows as the tiles of one instruction set take them.
#[derive(Debug, Default)]
pub struct Activations {
    bytes: Aligned<u8>,
    stride: usize,
    /// One row before it is interleaved.
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
        self.row.resize(self.stride);
        self.parameters.resize(rows, Row::default());
    }

    /// Quantizes `values` into row `row`.
    pub fn set_row(&mut self, isa: Isa, row: usize, values: &[f32]) {
        let tile = isa.dot_tile();
        let to = match tile.interleaved {
            true => &mut self.row[..],
            false => &mut self.bytes[row * self.stride..][..self.stride],
        };
        let Row { scale, zero } = match tile.form {
            ActivationForm::Signed => quantize_signed(isa, values, to),
            ActivationForm::Offset => quantize_offset(isa, values, to),
            ActivationForm::Wide => quantize_wide(isa, values, to),
        };
        self.parameters[row] = Row { scale, zero: zero + tile.form.offset() };
        if tile.interleaved {
            let slots = self.bytes[row / tile.mr * tile.mr * self.stride..][..tile.mr * self.stride].as_chunks_mut::<K_STEP>().0;
            slots.iter_mut().skip(row % tile.mr).step_by(tile.mr).zip(self.row.as_chunks().0).for_each(|(to, from)| *to = *from);
        }
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
            true => i8::MAX * i8::from(v.is_sign_positive()) + i8::MIN * i8::from(v.is_sign_negative()),
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

    #[test]
    fn every_form_is_the_definition_on_every_instruction_set() {
        for isa in Isa::available() {
            for row in rows() {
                let (expected, parameters) = naive(&row);
                let mut to = vec![0x55u8; row.len() * 2 + 3];
                assert_eq!(quantize_signed(isa, &row, &mut to), parameters, "{} {row:?}", isa.name());
                assert!(to.iter().zip(&expected).all(|(a, b)| *a as i8 == *b), "{} {row:?}", isa.name());
                quantize_offset(isa, &row, &mut to);
                assert!(to.iter().zip(&expected).all(|(a, b)| i32::from(*a) == i32::from(*b) + 128), "{} {row:?}", isa.name());
                quantize_wide(isa, &row, &mut to);
                let wide = to.as_chunks::<2>().0.iter().map(|bytes| i16::from_ne_bytes(*bytes));
                assert!(wide.zip(&expected).all(|(a, b)| a == i16::from(*b)), "{} {row:?}", isa.name());
                assert_eq!(to.last(), Some(&0x55), "nothing is written behind the row");
            }
        }
    }

    #[test]
    fn rounding_costs_half_a_step_at_most() {
        for row in rows().into_iter().filter(|row| row.iter().all(|v| v.abs() < 1e30)) {
            let mut to = vec![0u8; row.len()];
            let Row { scale, zero } = quantize_signed(Isa::SCALAR, &row, &mut to);
            for (value, byte) in row.iter().zip(&to) {
                let back = scale * (i32::from(*byte as i8) - zero) as f32;
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
                    let saturated = if value.is_nan() { f32::INFINITY.copysign(*value) } else { value * inverse };
                    let expected = saturated.clamp(-127.0, 127.0).round_ties_even();
                    assert_eq!(f32::from(*quantized), expected, "{} {row:?}", isa.name());
                }
                assert_eq!(to.last(), Some(&0x55));
            }
        }
    }
}
