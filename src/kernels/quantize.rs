//! Activations to int8, one scale per token.

use super::arch::{ActivationForm, Aligned, Isa, per_isa};
use super::panels::padded;

/// Adding it rounds an f32 below 2^22 to the nearest integer, ties to even, which then sits in the low mantissa bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

/// Largest magnitude of `row`; NaN counts as nothing.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            let magnitude = value.abs();
            *lane = if magnitude > *lane { magnitude } else { *lane };
        }
    }
    let mut largest = 0f32;
    for value in lanes.iter().chain(rest) {
        let magnitude = value.abs();
        largest = if magnitude > largest { magnitude } else { largest };
    }
    largest
}

/// The scale of a row whose largest magnitude is `largest`, and its inverse. Rows of zeros, or too small to divide by, become
/// zeros; infinite ones saturate.
#[inline(always)]
fn scale(largest: f32) -> (f32, f32) {
    let largest = if largest > f32::MAX { f32::MAX } else { largest };
    if largest < 1e-30 { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) }
}

/// One value in [-127, 127]; NaN gives zero.
#[inline(always)]
fn round(value: f32, inverse: f32) -> i32 {
    let scaled = value * inverse;
    let scaled = if scaled > 127.0 { 127.0 } else { scaled };
    let scaled = if scaled >= -127.0 {
        scaled
    } else if scaled < -127.0 {
        -127.0
    } else {
        0.0
    };
    (scaled + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
}

/// `row` as `round(row / scale)` with `scale = max |row| / 127`, ties to even; returns the scale.
///
/// No value is -128, so the range is symmetric. The rest of `to` is left alone.
#[inline(always)]
fn quantize_signed_body(row: &[f32], to: &mut [u8]) -> f32 {
    let (scale, inverse) = scale(largest(row));
    for (to, value) in to.iter_mut().zip(row) {
        *to = round(*value, inverse) as u8;
    }
    scale
}

#[inline(always)]
fn quantize_offset_body(row: &[f32], to: &mut [u8]) -> f32 {
    let (scale, inverse) = scale(largest(row));
    for (to, value) in to.iter_mut().zip(row) {
        *to = (round(*value, inverse) + 128) as u8;
    }
    scale
}

#[inline(always)]
fn quantize_wide_body(row: &[f32], to: &mut [u8]) -> f32 {
    let (scale, inverse) = scale(largest(row));
    for (to, value) in to.as_chunks_mut::<2>().0.iter_mut().zip(row) {
        *to = (round(*value, inverse) as i16).to_ne_bytes();
    }
    scale
}

per_isa! {
    /// [`ActivationForm::Signed`].
    fn quantize_signed(row: &[f32], to: &mut [u8]) -> f32 = quantize_signed_body;
}
per_isa! {
    /// [`ActivationForm::Offset`].
    fn quantize_offset(row: &[f32], to: &mut [u8]) -> f32 = quantize_offset_body;
}
per_isa! {
    /// [`ActivationForm::Wide`].
    fn quantize_wide(row: &[f32], to: &mut [u8]) -> f32 = quantize_wide_body;
}

/// `row` as plain i8 with its scale: how keys become panels.
pub fn quantize_row(isa: Isa, row: &[f32], to: &mut [i8], bytes: &mut Aligned<u8>) -> f32 {
    bytes.resize(row.len());
    let scale = quantize_signed(isa, row, bytes);
    to.iter_mut().zip(bytes.iter()).for_each(|(to, byte)| *to = *byte as i8);
    scale
}

/// Quantized rows as the tiles of one instruction set take them, with one scale per row.
#[derive(Debug, Default)]
pub struct Activations {
    bytes: Aligned<u8>,
    stride: usize,
    scales: Vec<f32>,
}

impl Activations {
    /// Makes room for `rows` rows of `k` values, rounded up to whole tiles.
    pub fn resize(&mut self, isa: Isa, rows: usize, k: usize) {
        let tile = isa.dot_tile();
        let rows = rows.next_multiple_of(tile.mr);
        self.stride = padded(k) * tile.form.bytes();
        self.bytes.resize(rows * self.stride);
        self.scales.resize(rows, 0.0);
    }

    /// Quantizes `values` into row `row`.
    pub fn set_row(&mut self, isa: Isa, row: usize, values: &[f32]) {
        let to = &mut self.bytes[row * self.stride..][..self.stride];
        self.scales[row] = match isa.dot_tile().form {
            ActivationForm::Signed => quantize_signed(isa, values, to),
            ActivationForm::Offset => quantize_offset(isa, values, to),
            ActivationForm::Wide => quantize_wide(isa, values, to),
        };
    }

    /// Bytes from `row` on, and the bytes between rows.
    pub fn rows(&self, row: usize) -> (&[u8], usize) {
        (&self.bytes[row * self.stride..], self.stride)
    }

    pub fn scales(&self) -> &[f32] {
        &self.scales
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition.
    fn naive(row: &[f32]) -> (Vec<i8>, f32) {
        let largest = row.iter().filter(|v| !v.is_nan()).fold(0f32, |max, v| max.max(v.abs()));
        if largest < 1e-30 {
            return (vec![0; row.len()], 0.0);
        }
        let largest = largest.min(f32::MAX);
        let inverse = 127.0 / largest;
        let quantized = |v: &f32| if v.is_nan() { 0 } else { (v * inverse).clamp(-127.0, 127.0).round_ties_even() as i8 };
        (row.iter().map(quantized).collect(), largest / 127.0)
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
                let (expected, expected_scale) = naive(&row);
                let mut to = vec![0x55u8; row.len() * 2 + 3];
                let scale = quantize_signed(isa, &row, &mut to);
                assert_eq!(scale, expected_scale, "{} {row:?}", isa.name());
                assert!(to.iter().zip(&expected).all(|(a, b)| *a as i8 == *b), "{} {row:?}", isa.name());
                assert!(expected.iter().all(|v| *v != -128));
                quantize_offset(isa, &row, &mut to);
                assert!(to.iter().zip(&expected).all(|(a, b)| i32::from(*a) == i32::from(*b) + 128), "{} {row:?}", isa.name());
                quantize_wide(isa, &row, &mut to);
                let wide = to.as_chunks::<2>().0.iter().map(|bytes| i16::from_ne_bytes(*bytes));
                assert!(wide.zip(&expected).all(|(a, b)| a == i16::from(*b)), "{} {row:?}", isa.name());
                assert_eq!(to.last(), Some(&0x55), "nothing is written behind the row");
            }
        }
    }
}
