//! Rows in sixteen lanes: the same order of additions, and so the same bits, whatever the width of a register.
//!
//! Intrinsics, because compilers turn the plain form of such loops into shuffles or keep the lanes in memory.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use super::super::activation::{EXP, EXP_ROUGH, exp_by, gelu_rough};
use super::{Isa, Kind, to_half};

/// A number, or sixteen.
pub trait Arithmetic: Copy {
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, factor: Self) -> Self;
    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// What is below `low` becomes `low`; NaN stays.
    fn clamp_min(self, low: f32) -> Self;
    /// What is above `high` becomes `high`; NaN stays.
    fn clamp_max(self, high: f32) -> Self;
    /// `self * 2^n`, where n stands in the lowest mantissa bits of `exponent`.
    fn ldexp(self, exponent: Self) -> Self;
}

/// Sixteen numbers.
trait Lanes: Arithmetic {
    fn load(values: &[f32; 16]) -> Self;
    fn store(self) -> [f32; 16];
    /// The smaller of each pair; `other` where `self` is NaN.
    fn min(self, other: Self) -> Self;
    /// The larger of each pair; `other` where `self` is NaN.
    fn max(self, other: Self) -> Self;
    /// The sum of the lanes, pairwise.
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        self.reduce_pairwise(|a, b| a + b)
    }
    /// The smallest lane; none is NaN.
    #[inline(always)]
    fn reduce_min(self) -> f32 {
        self.reduce_pairwise(|a, b| if a < b { a } else { b })
    }
    /// The largest lane; none is NaN.
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        self.reduce_pairwise(|a, b| if a > b { a } else { b })
    }
    /// Lane i and lane i + 8 become one, then those 4 apart, 2, 1.
    #[inline(always)]
    fn reduce_pairwise(self, operation: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = self.store();
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                lanes[i] = operation(lanes[i], lanes[i + width]);
            }
        }
        lanes[0]
    }
    /// To the nearest i8, ties to even; what is outside saturates, NaN becomes 0. The bits of `FLIP` are inverted.
    fn round_i8<const FLIP: u8>(self) -> [u8; 16];
    /// As [`to_half`]; numbers below 2^-126 may become zero.
    #[inline(always)]
    fn store_half(self, to: &mut [u16; 16]) {
        to_half(&self.store(), to);
    }
}

impl Arithmetic for f32 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    fn mul(self, factor: Self) -> Self {
        self * factor
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        f32::mul_add(self, factor, term)
    }
    #[inline(always)]
    fn clamp_min(self, low: f32) -> Self {
        if self < low { low } else { self }
    }
    #[inline(always)]
    fn clamp_max(self, high: f32) -> Self {
        if self > high { high } else { self }
    }
    #[inline(always)]
    fn ldexp(self, exponent: Self) -> Self {
        f32::from_bits(self.to_bits().wrapping_add(exponent.to_bits() << 23))
    }
}

impl Arithmetic for [f32; 16] {
    fn splat(value: f32) -> Self {
        [value; 16]
    }
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }
    fn mul(self, factor: Self) -> Self {
        std::array::from_fn(|i| self[i] * factor[i])
    }
    fn mul_add(self, factor: Self, term: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(factor[i], term[i]))
    }
    fn clamp_min(self, low: f32) -> Self {
        self.map(|value| value.clamp_min(low))
    }
    fn clamp_max(self, high: f32) -> Self {
        self.map(|value| value.clamp_max(high))
    }
    fn ldexp(self, exponent: Self) -> Self {
        std::array::from_fn(|i| self[i].ldexp(exponent[i]))
    }
}

impl Lanes for [f32; 16] {
    fn load(values: &[f32; 16]) -> Self {
        *values
    }
    fn store(self) -> [f32; 16] {
        self
    }
    fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
    fn round_i8<const FLIP: u8>(self) -> [u8; 16] {
        self.map(|value| value.round_ties_even() as i8 as u8 ^ FLIP)
    }
}

/// Calls `step` with sixteen values after the other, the last ones filled up with `fill`.
#[inline(always)]
fn fold<L: Lanes, S>(row: &[f32], fill: f32, start: S, step: impl Fn(S, L) -> S) -> S {
    let (chunks, rest) = row.as_chunks::<16>();
    let mut state = start;
    for chunk in chunks {
        state = step(state, L::load(chunk));
    }
    if !rest.is_empty() {
        let mut last = [fill; 16];
        last[..rest.len()].copy_from_slice(rest);
        state = step(state, L::load(&last));
    }
    state
}

#[inline(always)]
fn sum<L: Lanes>(row: &[f32]) -> f32 {
    fold(row, 0.0, L::splat(0.0), |sum, values: L| sum.add(values)).reduce_add()
}

#[inline(always)]
fn moments<L: Lanes>(row: &[f32]) -> (f32, f32) {
    let mean = sum::<L>(row) / row.len() as f32;
    let squares = fold(row, mean, L::splat(0.0), |sum, values: L| {
        let difference = values.sub(L::splat(mean));
        difference.mul_add(difference, sum)
    });
    (mean, squares.reduce_add() / row.len() as f32)
}

#[inline(always)]
fn range<L: Lanes>(row: &[f32], start: (f32, f32)) -> (f32, f32) {
    let start = (L::splat(start.0), L::splat(start.1));
    let (low, high) = fold(row, f32::NAN, start, |(low, high), values: L| (values.min(low), values.max(high)));
    (low.reduce_min(), high.reduce_max())
}

/// `to = function(row)`, sixteen values at a time; the last ones are filled up with zeros.
#[inline(always)]
fn map<T: Copy>(row: &[f32], to: &mut [T], function: impl Fn(&[f32; 16]) -> [T; 16]) {
    let (chunks, rest) = row.as_chunks::<16>();
    let (slots, rest_slots) = to[..row.len()].as_chunks_mut::<16>();
    for (chunk, slot) in chunks.iter().zip(slots) {
        *slot = function(chunk);
    }
    if !rest.is_empty() {
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        rest_slots.copy_from_slice(&function(&last)[..rest.len()]);
    }
}

#[inline(always)]
fn gelu<L: Lanes>(values: &mut [f32]) {
    let (chunks, rest) = values.as_chunks_mut::<16>();
    for chunk in chunks {
        *chunk = gelu_rough(L::load(chunk)).store();
    }
    for value in rest {
        *value = gelu_rough(*value);
    }
}

#[inline(always)]
fn round<L: Lanes, const FLIP: u8>(values: &[f32; 16], inverse: L, zero: L) -> [u8; 16] {
    L::load(values).mul_add(inverse, zero).round_i8::<FLIP>()
}

#[inline(always)]
fn round_signed<L: Lanes>(row: &[f32], inverse: f32, zero: f32, to: &mut [u8], apart: usize) {
    let (inverse, zero) = (L::splat(inverse), L::splat(zero));
    let (chunks, rest) = row.as_chunks::<16>();
    let mut slots = to.as_chunks_mut::<16>().0.iter_mut().step_by(apart);
    assert!(slots.len() >= row.len().div_ceil(16));
    for (chunk, slot) in chunks.iter().zip(&mut slots) {
        *slot = round::<L, 0>(chunk, inverse, zero);
    }
    if let (false, Some(slot)) = (rest.is_empty(), slots.next()) {
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        *slot = round::<L, 0>(&last, inverse, zero);
    }
}

#[inline(always)]
fn round_offset<L: Lanes>(row: &[f32], inverse: f32, zero: f32, to: &mut [u8]) {
    let (inverse, zero) = (L::splat(inverse), L::splat(zero));
    map(
        row,
        to,
        #[inline(always)]
        |values| round::<L, 128>(values, inverse, zero),
    );
}

#[inline(always)]
fn as_signed(bytes: [u8; 16]) -> [i8; 16] {
    // SAFETY: all bits are values of both.
    unsafe { std::mem::transmute(bytes) }
}

#[inline(always)]
fn round_symmetric<L: Lanes>(row: &[f32], inverse: f32, to: &mut [i8]) {
    let inverse = L::splat(inverse);
    map(
        row,
        to,
        #[inline(always)]
        |values| as_signed(L::load(values).mul(inverse).clamp_min(-127.0).round_i8::<0>()),
    );
}

/// Softmax of one row, sixteen values at a time: `e^(value - max)` to the precision of the coefficients, and the sum of all.
struct Softmax<L, const N: usize> {
    max: L,
    coefficients: [f32; N],
    sum: L,
}

impl<L: Lanes, const N: usize> Softmax<L, N> {
    /// NaN counts as nothing for the largest value.
    #[inline(always)]
    fn of(row: &[f32], coefficients: [f32; N]) -> Self {
        let max = fold(row, f32::NAN, L::splat(f32::NEG_INFINITY), |max, values: L| values.max(max)).reduce_max();
        Softmax { max: L::splat(max), coefficients, sum: L::splat(0.0) }
    }

    #[inline(always)]
    fn next(&mut self, values: &[f32; 16]) -> L {
        let values = exp_by(L::load(values).sub(self.max), self.coefficients);
        self.sum = self.sum.add(values);
        values
    }

    /// The last values, fewer than sixteen, and zeros.
    #[inline(always)]
    fn rest(&mut self, rest: &[f32]) -> [f32; 16] {
        let mut values = [f32::NEG_INFINITY; 16];
        values[..rest.len()].copy_from_slice(rest);
        let mut values = exp_by(L::load(&values).sub(self.max), self.coefficients).store();
        values[rest.len()..].fill(0.0);
        self.sum = self.sum.add(L::load(&values));
        values
    }

    #[inline(always)]
    fn inverse_sum(self) -> f32 {
        1.0 / self.sum.reduce_add()
    }
}

#[inline(always)]
fn softmax<L: Lanes, const N: usize>(row: &mut [f32], coefficients: [f32; N]) -> f32 {
    let mut softmax = Softmax::<L, N>::of(row, coefficients);
    let (chunks, rest) = row.as_chunks_mut::<16>();
    for chunk in chunks {
        *chunk = softmax.next(chunk).store();
    }
    let last = softmax.rest(rest);
    rest.copy_from_slice(&last[..rest.len()]);
    softmax.inverse_sum()
}

#[inline(always)]
fn softmax_exact<L: Lanes>(row: &mut [f32]) -> f32 {
    softmax::<L, _>(row, EXP)
}

#[inline(always)]
fn softmax_rough<L: Lanes>(row: &mut [f32]) -> f32 {
    softmax::<L, _>(row, EXP_ROUGH)
}

#[inline(always)]
fn softmax_half<L: Lanes>(row: &[f32], to: &mut [u16]) -> f32 {
    let mut softmax = Softmax::<L, _>::of(row, EXP_ROUGH);
    let (chunks, rest) = row.as_chunks::<16>();
    let (to, rest_to) = to.split_at_mut(chunks.len() * 16);
    for (chunk, to) in chunks.iter().zip(to.as_chunks_mut::<16>().0) {
        softmax.next(chunk).store_half(to);
    }
    let mut last = [0; 16];
    L::load(&softmax.rest(rest)).store_half(&mut last);
    rest_to.fill(0);
    rest_to[..rest.len()].copy_from_slice(&last[..rest.len()]);
    softmax.inverse_sum()
}

/// One function of a row for every instruction set.
macro_rules! row_function {
    ($(#[$meta:meta])* $name:ident = $generic:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        impl Isa {
            $(#[$meta])*
            #[inline]
            pub fn $name(self, $($arg: $type),*) $(-> $result)? {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                fn with_avx2($($arg: $type),*) $(-> $result)? {
                    $generic::<x86_64::Avx2>($($arg),*)
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f")]
                fn with_avx512($($arg: $type),*) $(-> $result)? {
                    $generic::<x86_64::Avx512>($($arg),*)
                }
                match self.kind() {
                    Kind::Scalar => $generic::<[f32; 16]>($($arg),*),
                    // SAFETY: the token proves that the CPU has these features.
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx2 | Kind::AvxVnni => unsafe { with_avx2($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512Vnni | Kind::Avx512Bf16 | Kind::Amx => unsafe { with_avx512($($arg),*) },
                    #[cfg(target_arch = "aarch64")]
                    Kind::Neon | Kind::Dotprod | Kind::I8mm => $generic::<aarch64::Neon>($($arg),*),
                }
            }
        }
    };
}

row_function! {
    /// Mean and variance of a row, the mean first.
    moments = moments(row: &[f32]) -> (f32, f32)
}
row_function! {
    /// Smallest and largest of the row's values and `start`; NaN counts as nothing.
    range = range(row: &[f32], start: (f32, f32)) -> (f32, f32)
}
row_function! {
    /// `to = row * inverse + zero` as i8: to the nearest, ties to even; what is outside saturates, NaN becomes 0. Sixteen bytes, then
    /// room for `apart - 1` times as many, and so on; the last sixteen are written whole.
    round_signed = round_signed(row: &[f32], inverse: f32, zero: f32, to: &mut [u8], apart: usize)
}
row_function! {
    /// As [`Isa::round_signed`] plus 128, without gaps and only as many bytes as the row has values.
    round_offset = round_offset(row: &[f32], inverse: f32, zero: f32, to: &mut [u8])
}
row_function! {
    /// `to = row * inverse` as i8 from -127 on, rounded as [`Isa::round_signed`].
    round_symmetric = round_symmetric(row: &[f32], inverse: f32, to: &mut [i8])
}
row_function! {
    /// GELU for values that come from int8 products, see [`gelu_rough`].
    gelu_rough = gelu(values: &mut [f32])
}
row_function! {
    /// Softmax without the division: `row = e^(row - max)`; gives 1 / sum. NaN stays NaN and makes the sum NaN.
    softmax = softmax_exact(row: &mut [f32]) -> f32
}
row_function! {
    /// [`Isa::softmax`] to 1.1e-4, for scores of int8 products, whose steps change `e^x` by a hundredth.
    softmax_rough = softmax_rough(row: &mut [f32]) -> f32
}

impl Isa {
    /// [`Isa::softmax_rough`] in the format of half-precision tiles; `to` gets zeros where the row has ended.
    #[inline]
    pub fn softmax_half(self, row: &[f32], to: &mut [u16]) -> f32 {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bf16")]
        fn with_avx512bf16(row: &[f32], to: &mut [u16]) -> f32 {
            softmax_half::<x86_64::Avx512>(row, to)
        }
        match self.kind() {
            // SAFETY: the token proves that the CPU has these features.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16 | Kind::Amx => unsafe { with_avx512bf16(row, to) },
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod | Kind::I8mm => softmax_half::<aarch64::Neon>(row, to),
            _ => softmax_half::<[f32; 16]>(row, to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::numbers;

    type Softmax = fn(Isa, &mut [f32]) -> f32;

    /// Rows of scores, and softmax of each in f64.
    fn rows() -> Vec<(Vec<f32>, Vec<f64>)> {
        let softmax = |n: usize| {
            let row: Vec<f32> = numbers(n, 4).iter().map(|v| v * 40.0).collect();
            let max = row.iter().copied().fold(f32::MIN, f32::max);
            let values: Vec<f64> = row.iter().map(|v| f64::from(v - max).exp()).collect();
            let sum: f64 = values.iter().sum();
            (row, values.iter().map(|value| value / sum).collect())
        };
        (1..70).chain([405, 1605]).map(softmax).collect()
    }

    #[test]
    fn softmax_is_a_distribution_and_the_same_everywhere() {
        // probabilities in f32, and what the rough one is off by
        let functions: [(Softmax, f64); 2] = [(Isa::softmax, 1e-6), (Isa::softmax_rough, 2.2e-4)];
        for ((row, expected), (softmax, tolerance)) in rows().iter().flat_map(|row| functions.map(|function| (row, function))) {
            let mut reference = row.clone();
            let inverse = softmax(Isa::SCALAR, &mut reference);
            for (ours, expected) in reference.iter().zip(expected) {
                assert!((f64::from(ours * inverse) - expected).abs() < tolerance, "{}: {ours} {expected}", row.len());
            }
            for isa in Isa::available() {
                let mut ours = row.clone();
                assert_eq!(softmax(isa, &mut ours), inverse, "{} {}", row.len(), isa.name());
                assert_eq!(ours, reference, "{} {}", row.len(), isa.name());
            }
        }
    }

    #[test]
    fn softmax_in_half_precision_is_the_rough_one_rounded() {
        for (row, _) in rows() {
            for isa in Isa::available() {
                let mut wide = row.clone();
                let inverse = isa.softmax_rough(&mut wide);
                let mut expected = vec![0; row.len() + 3];
                to_half(&wide, &mut expected[..row.len()]);
                let mut ours = vec![7; row.len() + 3];
                assert_eq!(isa.softmax_half(&row, &mut ours), inverse, "{} {}", row.len(), isa.name());
                assert_eq!(ours, expected, "{} {}", row.len(), isa.name());
            }
        }
    }

    #[test]
    fn softmax_of_what_is_no_number() {
        for isa in Isa::available() {
            for at in [0, 15, 16, 39] {
                let mut row = vec![1.0; 40];
                row[at] = f32::NAN;
                assert!(isa.softmax_half(&row, &mut [0; 40]).is_nan(), "{at} {}", isa.name());
                assert!(isa.softmax(&mut row).is_nan() && row[at].is_nan() && row[at ^ 1] == 1.0, "{at} {}", isa.name());
            }
            let mut row = vec![f32::NEG_INFINITY; 40];
            row[20] = -3.0;
            assert_eq!(isa.softmax(&mut row), 1.0, "{}", isa.name());
        }
    }
}
