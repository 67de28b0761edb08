//! Rows in sixteen lanes: the same order of additions, and so the same bits, whatever the width of a register.
//!
//! Intrinsics, because compilers turn the plain form of such loops into shuffles or keep the lanes in memory.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use super::arithmetic::Arithmetic;
use super::functions::{EXP, EXP_ROUGH, exp_by, gelu_rough};
use super::isa::{Isa, Kind, Level};
use super::simd::{Lanes, Simd};
use super::token::Scalar;
#[cfg(target_arch = "x86_64")]
use super::token::{Avx2, Avx512Bf16, Avx512Vnni};
use crate::kernels::columns::{array_at, array_at_mut};

/// Calls `step` with sixteen values after the other, the last ones filled up with `fill`.
#[inline(always)]
fn fold<S: Simd, R>(simd: S, row: &[f32], fill: f32, start: R, step: impl Fn(R, S::Vector) -> R) -> R {
    let (chunks, rest) = row.as_chunks::<16>();
    let mut state = start;
    for chunk in chunks {
        state = step(state, simd.load(chunk));
    }
    if !rest.is_empty() {
        let mut last = [fill; 16];
        last[..rest.len()].copy_from_slice(rest);
        state = step(state, simd.load(&last));
    }
    state
}

/// The same with two states in turns, sixteen values for one, sixteen for the other: a step need not wait for the one before it.
#[inline(always)]
fn fold_two<S: Simd, R: Copy>(simd: S, row: &[f32], fill: f32, start: R, step: impl Fn(R, S::Vector) -> R) -> [R; 2] {
    let (pairs, rest) = row.as_chunks::<32>();
    let [mut even, mut odd] = [start; 2];
    for [low, high] in pairs.iter().map(|pair| pair.as_chunks::<16>().0).map(|halves| [&halves[0], &halves[1]]) {
        even = step(even, simd.load(low));
        odd = step(odd, simd.load(high));
    }
    [fold(simd, rest, fill, even, step), odd]
}

#[inline(always)]
fn sum<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let [even, odd] = fold_two(simd, row, 0.0, simd.splat(0.0), |sum, values: S::Vector| sum.add(values));
    even.add(odd).reduce_add()
}

#[inline(always)]
fn moments<S: Simd>(simd: S, row: &[f32]) -> (f32, f32) {
    let mean = sum(simd, row) / row.len() as f32;
    let [even, odd] = fold_two(simd, row, mean, simd.splat(0.0), |sum, values: S::Vector| {
        let difference = values.sub(simd.splat(mean));
        difference.mul_add(difference, sum)
    });
    (mean, even.add(odd).reduce_add() / row.len() as f32)
}

/// The smallest and the largest of the values so far.
type Bounds<S> = (<S as Simd>::Vector, <S as Simd>::Vector);

#[inline(always)]
fn widen<S: Simd>((low, high): Bounds<S>, values: S::Vector) -> Bounds<S> {
    (values.min(low), values.max(high))
}

#[inline(always)]
fn reduce<S: Simd>([(low, high), (lower, higher)]: [Bounds<S>; 2]) -> (f32, f32) {
    (low.min(lower).reduce_min(), high.max(higher).reduce_max())
}

#[inline(always)]
fn range<S: Simd>(simd: S, row: &[f32], start: (f32, f32)) -> (f32, f32) {
    let start = (simd.splat(start.0), simd.splat(start.1));
    reduce::<S>(fold_two(simd, row, f32::NAN, start, |bounds, values| widen::<S>(bounds, values)))
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
fn gelu<S: Simd>(simd: S, values: &mut [f32]) {
    let (chunks, rest) = values.as_chunks_mut::<16>();
    for chunk in chunks {
        gelu_rough(simd.load(chunk)).write(chunk);
    }
    for value in rest {
        *value = gelu_rough(*value);
    }
}

#[inline(always)]
fn round<S: Simd, const FLIP: u8>(simd: S, values: &[f32; 16], inverse: S::Vector, zero: S::Vector) -> [u8; 16] {
    simd.load(values).mul_add(inverse, zero).round_i8::<FLIP>()
}

#[inline(always)]
fn round_signed<S: Simd>(simd: S, row: &[f32], inverse: f32, zero: f32, to: &mut [u8], apart: usize) {
    let (inverse, zero) = (simd.splat(inverse), simd.splat(zero));
    let (chunks, rest) = row.as_chunks::<16>();
    let mut slots = to.as_chunks_mut::<16>().0.iter_mut().step_by(apart);
    assert!(slots.len() >= row.len().div_ceil(16));
    for (chunk, slot) in chunks.iter().zip(&mut slots) {
        *slot = round::<S, 0>(simd, chunk, inverse, zero);
    }
    if let (false, Some(slot)) = (rest.is_empty(), slots.next()) {
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        *slot = round::<S, 0>(simd, &last, inverse, zero);
    }
}

#[inline(always)]
fn round_offset<S: Simd>(simd: S, row: &[f32], inverse: f32, zero: f32, to: &mut [u8]) {
    let (inverse, zero) = (simd.splat(inverse), simd.splat(zero));
    map(
        row,
        to,
        #[inline(always)]
        |values| round::<S, 128>(simd, values, inverse, zero),
    );
}

#[inline(always)]
fn round_symmetric<S: Simd>(simd: S, row: &[f32], inverse: f32, to: &mut [i8]) {
    let inverse = simd.splat(inverse);
    map(
        row,
        to,
        #[inline(always)]
        |values| simd.load(values).mul(inverse).clamp_min(-127.0).round_i8::<0>().map(u8::cast_signed),
    );
}

/// The two bounds of [`fold_two`] when nothing has been seen but zero.
#[inline(always)]
fn at_zero<S: Simd>(simd: S) -> [Bounds<S>; 2] {
    [(simd.splat(0.0), simd.splat(0.0)); 2]
}

#[inline(always)]
fn gelu_range<S: Simd>(simd: S, values: &mut [f32]) -> (f32, f32) {
    #[inline(always)]
    fn sixteen<S: Simd>(simd: S, values: &mut [f32; 16], bounds: Bounds<S>) -> Bounds<S> {
        let results = gelu_rough(simd.load(values));
        results.write(values);
        widen::<S>(bounds, results)
    }
    let [mut even, mut odd] = at_zero(simd);
    let (pairs, rest) = values.as_chunks_mut::<32>();
    for pair in pairs {
        let [low, high] = pair.as_chunks_mut().0 else { unreachable!("two times sixteen") };
        (even, odd) = (sixteen(simd, low, even), sixteen(simd, high, odd));
    }
    let (chunks, rest) = rest.as_chunks_mut();
    for chunk in chunks {
        even = sixteen(simd, chunk, even);
    }
    for value in rest {
        *value = gelu_rough(*value);
        odd = widen::<S>(odd, simd.splat(*value));
    }
    reduce::<S>([even, odd])
}

#[inline(always)]
fn layer_norm<S: Simd>(simd: S, row: &[f32], scale: &[f32], shift: &[f32], eps: f32, to: &mut [f32]) -> (f32, f32) {
    let len = row.len();
    assert!(scale.len() == len && shift.len() == len && to.len() == len);
    let (mean, variance) = moments(simd, row);
    let inverse = 1.0 / (variance + eps).sqrt();
    let sixteen = NormOf { simd, mean: simd.splat(mean), inverse: simd.splat(inverse) };
    let [mut even, mut odd] = at_zero(simd);
    let mut at = 0;
    while at + 32 <= len {
        even = sixteen.apply([row, scale, shift], to, at, even);
        odd = sixteen.apply([row, scale, shift], to, at + 16, odd);
        at += 32;
    }
    if at + 16 <= len {
        even = sixteen.apply([row, scale, shift], to, at, even);
        at += 16;
    }
    for i in at..len {
        to[i] = ((row[i] - mean) * inverse).mul_add(scale[i], shift[i]);
        odd = widen::<S>(odd, simd.splat(to[i]));
    }
    reduce::<S>([even, odd])
}

/// Layer norm of sixteen values whose mean and deviation are known.
struct NormOf<S: Simd> {
    simd: S,
    mean: S::Vector,
    inverse: S::Vector,
}

impl<S: Simd> NormOf<S> {
    #[inline(always)]
    fn apply(&self, [row, scale, shift]: [&[f32]; 3], to: &mut [f32], at: usize, bounds: Bounds<S>) -> Bounds<S> {
        let simd = self.simd;
        let centred = simd.load(array_at(row, at)).sub(self.mean).mul(self.inverse);
        let values = centred.mul_add(simd.load(array_at(scale, at)), simd.load(array_at(shift, at)));
        values.write(array_at_mut(to, at));
        widen::<S>(bounds, values)
    }
}

/// Softmax of one row, sixteen values at a time: `e^(value - max)` to the precision of the coefficients, and the sum of all.
struct Softmax<S: Simd, const N: usize> {
    simd: S,
    max: S::Vector,
    coefficients: [f32; N],
    sum: S::Vector,
}

impl<S: Simd, const N: usize> Softmax<S, N> {
    /// The largest value is that of the numbers; NaN is left out.
    #[inline(always)]
    fn of(simd: S, row: &[f32], coefficients: [f32; N]) -> Self {
        let [even, odd] = fold_two(simd, row, f32::NAN, simd.splat(f32::NEG_INFINITY), |max, values: S::Vector| values.max(max));
        let max = even.max(odd).reduce_max();
        Softmax { simd, max: simd.splat(max), coefficients, sum: simd.splat(0.0) }
    }

    #[inline(always)]
    fn next(&mut self, values: &[f32; 16]) -> S::Vector {
        let values = exp_by(self.simd.load(values).sub(self.max), self.coefficients);
        self.sum = self.sum.add(values);
        values
    }

    /// The last values, fewer than sixteen, and zeros.
    #[inline(always)]
    fn rest(&mut self, rest: &[f32]) -> [f32; 16] {
        let mut values = [f32::NEG_INFINITY; 16];
        values[..rest.len()].copy_from_slice(rest);
        let mut values = exp_by(self.simd.load(&values).sub(self.max), self.coefficients).store();
        values[rest.len()..].fill(0.0);
        self.sum = self.sum.add(self.simd.load(&values));
        values
    }

    #[inline(always)]
    fn inverse_sum(self) -> f32 {
        1.0 / self.sum.reduce_add()
    }
}

#[inline(always)]
fn softmax<S: Simd, const N: usize>(simd: S, row: &mut [f32], coefficients: [f32; N]) -> f32 {
    let mut softmax = Softmax::<S, N>::of(simd, row, coefficients);
    let (chunks, rest) = row.as_chunks_mut::<16>();
    for chunk in chunks {
        softmax.next(chunk).write(chunk);
    }
    let last = softmax.rest(rest);
    rest.copy_from_slice(&last[..rest.len()]);
    softmax.inverse_sum()
}

#[inline(always)]
fn softmax_exact<S: Simd>(simd: S, row: &mut [f32]) -> f32 {
    softmax(simd, row, EXP)
}

#[inline(always)]
fn softmax_rough<S: Simd>(simd: S, row: &mut [f32]) -> f32 {
    softmax(simd, row, EXP_ROUGH)
}

#[inline(always)]
fn softmax_half<S: Simd>(simd: S, row: &[f32], to: &mut [u16]) -> f32 {
    let mut softmax = Softmax::<S, _>::of(simd, row, EXP_ROUGH);
    let (chunks, rest) = row.as_chunks::<16>();
    let (to, rest_to) = to.split_at_mut(chunks.len() * 16);
    for (chunk, to) in chunks.iter().zip(to.as_chunks_mut::<16>().0) {
        let values = softmax.next(chunk);
        simd.store_half(values, to);
    }
    let mut last = [0; 16];
    let values = softmax.rest(rest);
    simd.store_half(simd.load(&values), &mut last);
    rest_to.fill(0);
    rest_to[..rest.len()].copy_from_slice(&last[..rest.len()]);
    softmax.inverse_sum()
}

/// `to = function(row)` in half precision, then zeros.
#[inline(always)]
fn map_half<S: Simd>(simd: S, row: &[f32], to: &mut [u16], function: impl Fn(S::Vector) -> S::Vector) {
    let (chunks, rest) = row.as_chunks::<16>();
    let (to, rest_to) = to.split_at_mut(chunks.len() * 16);
    for (chunk, to) in chunks.iter().zip(to.as_chunks_mut::<16>().0) {
        simd.store_half(function(simd.load(chunk)), to);
    }
    rest_to.fill(0);
    if !rest.is_empty() {
        let (mut last, mut half) = ([0.0; 16], [0; 16]);
        last[..rest.len()].copy_from_slice(rest);
        simd.store_half(function(simd.load(&last)), &mut half);
        rest_to[..rest.len()].copy_from_slice(&half[..rest.len()]);
    }
}

#[inline(always)]
fn round_half<S: Simd>(simd: S, row: &[f32], factor: f32, to: &mut [u16]) {
    let factor = simd.splat(factor);
    map_half(
        simd,
        row,
        to,
        #[inline(always)]
        |values: S::Vector| values.mul(factor),
    );
}

#[inline(always)]
fn gelu_half<S: Simd>(simd: S, row: &[f32], to: &mut [u16]) {
    map_half(
        simd,
        row,
        to,
        #[inline(always)]
        |values: S::Vector| gelu_rough(values),
    );
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
                fn with_avx2(simd: Avx2, $($arg: $type),*) $(-> $result)? {
                    $generic(simd, $($arg),*)
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f")]
                fn with_avx512(simd: Avx512Vnni, $($arg: $type),*) $(-> $result)? {
                    $generic(simd, $($arg),*)
                }
                match self.level() {
                    Level::Scalar => $generic(Scalar, $($arg),*),
                    // SAFETY: an `Avx2` token exists only where the CPU has AVX2 and FMA.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2(simd) => unsafe { with_avx2(simd, $($arg),*) },
                    // SAFETY: an `Avx512Vnni` token exists only where the CPU has AVX-512 F.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512(simd) => unsafe { with_avx512(simd, $($arg),*) },
                    #[cfg(target_arch = "aarch64")]
                    Level::Neon(simd) => $generic(simd, $($arg),*),
                }
            }
        }
    };
}

pub(super) use row_function;

row_function! {
    /// The sum of a row.
    sum = sum(row: &[f32]) -> f32
}
row_function! {
    /// Mean and variance of a row, the mean first.
    moments = moments(row: &[f32]) -> (f32, f32)
}
row_function! {
    /// The smallest and the largest of the row's values and `start`; NaN is left out.
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
    /// [`Isa::gelu_rough`], and the smallest and the largest of zero and the results; NaN is left out.
    gelu_rough_range = gelu_range(values: &mut [f32]) -> (f32, f32)
}
row_function! {
    /// `to = (row - mean) / sqrt(variance + eps) * scale + shift`, as [`Isa::moments`] has them; gives the smallest and the largest of zero and
    /// the results, NaN left out. The four slices have one length.
    layer_norm = layer_norm(row: &[f32], scale: &[f32], shift: &[f32], eps: f32, to: &mut [f32]) -> (f32, f32)
}
row_function! {
    /// Softmax without the division: `row = e^(row - max)`; gives 1 / sum. NaN stays NaN and makes the sum NaN.
    softmax = softmax_exact(row: &mut [f32]) -> f32
}
row_function! {
    /// [`Isa::softmax`] to 1.1e-4, for scores of int8 products, whose steps change `e^x` by a hundredth.
    softmax_rough = softmax_rough(row: &mut [f32]) -> f32
}

/// One function of a row whose results are in the format of half-precision tiles.
macro_rules! half_row_function {
    ($(#[$meta:meta])* $name:ident = $generic:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        impl Isa {
            $(#[$meta])*
            #[inline]
            pub fn $name(self, $($arg: $type),*) $(-> $result)? {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx512bf16")]
                fn with_avx512bf16(simd: Avx512Bf16, $($arg: $type),*) $(-> $result)? {
                    $generic(simd, $($arg),*)
                }
                match self.kind() {
                    // SAFETY: an `Avx512Bf16` token exists only where the CPU has AVX-512 F and BF16.
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512Bf16(simd) => unsafe { with_avx512bf16(simd, $($arg),*) },
                    // SAFETY: an `Amx` token exists only where the CPU has AVX-512 F and BF16.
                    #[cfg(target_arch = "x86_64")]
                    Kind::Amx(simd) => unsafe { with_avx512bf16(simd.into(), $($arg),*) },
                    #[cfg(target_arch = "aarch64")]
                    Kind::Dotprod(simd) => $generic(super::token::Neon::from(simd), $($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Kind::I8mm(simd) => $generic(super::token::Neon::from(simd), $($arg),*),
                    _ => $generic(Scalar, $($arg),*),
                }
            }
        }
    };
}

pub(super) use half_row_function;

half_row_function! {
    /// [`Isa::softmax_rough`] in the format of half-precision tiles; `to` gets zeros where the row has ended.
    softmax_half = softmax_half(row: &[f32], to: &mut [u16]) -> f32
}
half_row_function! {
    /// `to = row * factor` in the format of half-precision tiles; `to` gets zeros where the row has ended. Numbers below 2^-126 may become zero.
    round_half = round_half(row: &[f32], factor: f32, to: &mut [u16])
}
half_row_function! {
    /// [`Isa::gelu_rough`] as [`Isa::round_half`] writes it.
    gelu_half = gelu_half(row: &[f32], to: &mut [u16])
}

#[cfg(test)]
mod tests {
    use super::super::half::HalfFormat;
    use super::*;
    use crate::kernels::suite;

    type Softmax = fn(Isa, &mut [f32]) -> f32;

    fn rows() -> Vec<Vec<f32>> {
        let lone = (0..40).map(|at| if at == 20 { -3.0 } else { f32::NEG_INFINITY }).collect();
        [suite::tails(40.0), suite::extremes(), vec![lone]].concat()
    }

    #[test]
    fn softmax_conforms() {
        // probabilities in f32, and the error of the rough one
        let functions: [(Softmax, f64); 2] = [(Isa::softmax, 1e-6), (Isa::softmax_rough, 2.2e-4)];
        for (softmax, tolerance) in functions {
            suite::in_place(&rows(), softmax, |row, ours, inverse| {
                if row.iter().any(|value| value.is_nan()) {
                    assert!(inverse.is_nan(), "{row:?}: {inverse}");
                    return row.iter().zip(ours).for_each(|(x, y)| assert!(!x.is_nan() || y.is_nan(), "NaN stays"));
                }
                let max = row.iter().copied().fold(f32::MIN, f32::max);
                if max == f32::INFINITY {
                    return assert!(inverse.is_nan(), "{row:?}: {inverse}");
                }
                let values: Vec<f64> = row.iter().map(|v| (f64::from(*v) - f64::from(max)).exp()).collect();
                let sum: f64 = values.iter().sum();
                for (ours, value) in ours.iter().zip(values) {
                    assert!((f64::from(ours * inverse) - value / sum).abs() < tolerance, "{row:?}: {ours} {value}");
                }
            });
        }
        let mut lone = rows().pop().expect("the last");
        assert_eq!(Isa::SCALAR.softmax(&mut lone), 1.0);
        let mut ones = [1.0; 40];
        ones[3] = f32::NAN;
        Isa::SCALAR.softmax(&mut ones);
        assert!(ones[3].is_nan() && ones[2] == 1.0, "the other values stay");
    }

    #[test]
    fn softmax_in_half_precision_is_the_rough_one_rounded() {
        let half = HalfFormat::NATIVE;
        let kernel = |isa: Isa, row: &[f32], to: &mut [u16]| {
            let inverse = isa.softmax_half(row, to);
            // every NaN is one
            to.iter_mut().filter(|half_value| half.widen(**half_value).is_nan()).for_each(|value| *value = half.round(f32::NAN));
            inverse
        };
        suite::rows(
            &rows(),
            7,
            |n| n + 3,
            kernel,
            |row, ours, inverse| {
                let mut wide = row.to_vec();
                let expected = Isa::SCALAR.softmax_rough(&mut wide);
                assert!(*inverse == expected || inverse.is_nan() && expected.is_nan());
                let expected = wide.iter().map(|value| half.round(if value.is_nan() { f32::NAN } else { *value })).chain([0; 3]);
                assert!(ours.iter().copied().eq(expected), "{row:?}: {ours:?}");
            },
        );
    }

    #[test]
    fn moments_and_ranges_conform() {
        let rows = [suite::tails(3.0), suite::extremes()].concat();
        suite::rows(
            &rows,
            0.0,
            |_| 0,
            |isa, row, _| isa.moments(row),
            |row, _, (mean, variance)| {
                if row.iter().all(|value| value.abs() <= 3.0) {
                    let n = row.len() as f64;
                    let expected = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
                    let squares = row.iter().map(|v| (f64::from(*v) - expected).powi(2)).sum::<f64>() / n;
                    assert!(
                        (f64::from(*mean) - expected).abs() < 2e-6 && (f64::from(*variance) - squares).abs() < 2e-5,
                        "{mean} {variance}"
                    );
                }
            },
        );
        let range = |isa: Isa, row: &[f32], _: &mut [f32]| {
            let (low, high) = isa.range(row, (0.0, 0.0));
            (low + 0.0, high + 0.0) // zeros have no order: one sign for both
        };
        suite::rows(
            &rows,
            0.0,
            |_| 0,
            range,
            |row, _, (low, high)| {
                let known = || row.iter().copied().filter(|value| !value.is_nan());
                assert_eq!((*low, *high), (known().fold(0.0, f32::min), known().fold(0.0, f32::max)), "{row:?}");
            },
        );
    }
}
