//! Sixteen lanes in the registers of AVX-512 and AVX2.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::super::arithmetic::Arithmetic;
use super::super::simd::{Lanes, Simd};
use super::super::token::{Avx2, Avx512Bf16, Avx512Vnni};

/// One register. Only tokens that include AVX-512 F make one, so a value proves that the CPU has it.
#[derive(Clone, Copy)]
pub struct Zmm(__m512);

/// Two registers. Only an [`Avx2`] token makes one, so a value proves that the CPU has AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct Ymms([__m256; 2]);

/// An intrinsic of AVX-512 F that touches registers only.
macro_rules! zmm {
    ($operation:path, $($operand:expr),+) => {
        // SAFETY: the operands are values of `Zmm`, which exist only where the CPU has AVX-512 F; no memory is touched.
        Zmm(unsafe { $operation($($operand.0),+) })
    };
}

/// The same intrinsic of AVX2 or FMA on both registers; it touches registers only.
macro_rules! ymms {
    ($operation:path, $($operand:expr),+) => {
        // SAFETY: the operands are values of `Ymms`, which exist only where the CPU has AVX2 and FMA; no memory is touched.
        Ymms(unsafe { [$operation($($operand.0[0]),+), $operation($($operand.0[1]),+)] })
    };
}

/// Rows become columns: pairs of lanes, pairs of those, then quarters of registers, twice.
///
/// # Safety
/// The CPU has AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(block: &mut [[f32; 16]; 16]) {
    let mut rows = [_mm512_setzero_ps(); 16];
    for (row, values) in rows.iter_mut().zip(&*block) {
        // SAFETY: sixteen values at any alignment.
        *row = unsafe { _mm512_loadu_ps(values.as_ptr()) };
    }
    let mut pairs = rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for i in (0..16).step_by(4) {
        let [a, b, c, d] = [pairs[i], pairs[i + 1], pairs[i + 2], pairs[i + 3]].map(|pair| _mm512_castps_pd(pair));
        rows[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        rows[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        rows[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        rows[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for i in 0..4 {
        for half in [0, 8] {
            pairs[half + i] = _mm512_shuffle_f32x4::<0x88>(rows[half + i], rows[half + i + 4]);
            pairs[half + i + 4] = _mm512_shuffle_f32x4::<0xdd>(rows[half + i], rows[half + i + 4]);
        }
    }
    for i in 0..8 {
        rows[i] = _mm512_shuffle_f32x4::<0x88>(pairs[i], pairs[i + 8]);
        rows[i + 8] = _mm512_shuffle_f32x4::<0xdd>(pairs[i], pairs[i + 8]);
    }
    for (row, values) in rows.iter().zip(block) {
        // SAFETY: sixteen values at any alignment.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), *row) };
    }
}

/// How a token with AVX-512 F makes its vectors.
macro_rules! makes_zmm {
    () => {
        type Vector = Zmm;
        #[inline(always)]
        fn splat(self, value: f32) -> Zmm {
            // SAFETY: `self` exists only where the CPU has AVX-512 F.
            Zmm(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        fn load(self, values: &[f32; 16]) -> Zmm {
            // SAFETY: `self` exists only where the CPU has AVX-512 F; the load reads sixteen values at any alignment.
            Zmm(unsafe { _mm512_loadu_ps(values.as_ptr()) })
        }
        #[inline(always)]
        fn load_difference(self, integers: &[i32; 16], subtracted: &[i32; 16], factor: i32) -> Zmm {
            // SAFETY: `self` exists only where the CPU has AVX-512 F; the loads read sixteen values each at any alignment.
            Zmm(unsafe {
                let product = _mm512_mullo_epi32(_mm512_loadu_si512(subtracted.as_ptr().cast()), _mm512_set1_epi32(factor));
                _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_loadu_si512(integers.as_ptr().cast()), product))
            })
        }
        #[inline(always)]
        fn transpose(self, block: &mut [[f32; 16]; 16]) {
            // SAFETY: `self` exists only where the CPU has AVX-512 F.
            unsafe { transpose(block) }
        }
    };
}

impl Simd for Avx512Vnni {
    makes_zmm!();
}

impl Simd for Avx512Bf16 {
    makes_zmm!();
    #[inline(always)]
    fn store_half(self, vector: Zmm, to: &mut [u16; 16]) {
        // SAFETY: `self` exists only where the CPU has AVX-512 BF16; the store writes sixteen values of 16 bits at any alignment.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(vector.0))) }
    }
}

impl Arithmetic for Zmm {
    #[inline(always)]
    fn splat(self, value: f32) -> Self {
        // SAFETY: `self` exists only where the CPU has AVX-512 F.
        Zmm(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        zmm!(_mm512_add_ps, self, other)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        zmm!(_mm512_sub_ps, self, other)
    }
    #[inline(always)]
    fn mul(self, factor: Self) -> Self {
        zmm!(_mm512_mul_ps, self, factor)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        zmm!(_mm512_fmadd_ps, self, factor, term)
    }
    #[inline(always)]
    fn clamp_min(self, low: f32) -> Self {
        // the second operand is the result where there is a NaN
        zmm!(_mm512_max_ps, self.splat(low), self)
    }
    #[inline(always)]
    fn clamp_max(self, high: f32) -> Self {
        // as in `clamp_min`
        zmm!(_mm512_min_ps, self.splat(high), self)
    }
    #[inline(always)]
    fn ldexp(self, exponent: Self) -> Self {
        // SAFETY: both values exist only where the CPU has AVX-512 F; registers only.
        Zmm(unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(exponent.0));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), exponent))
        })
    }
}

impl Lanes for Zmm {
    #[inline(always)]
    fn store(self) -> [f32; 16] {
        let mut values = [0.0; 16];
        // SAFETY: `self` exists only where the CPU has AVX-512 F; the store writes sixteen values at any alignment.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) };
        values
    }
    #[inline(always)]
    fn write(self, to: &mut [f32; 16]) {
        // SAFETY: `self` exists only where the CPU has AVX-512 F; the store writes sixteen values at any alignment.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) };
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        zmm!(_mm512_min_ps, self, other)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        zmm!(_mm512_max_ps, self, other)
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        // SAFETY: `self` exists only where the CPU has AVX-512 F, which includes AVX2 and SSE3; registers only.
        unsafe {
            let eight =
                _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0))));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn reduce_min(self) -> f32 {
        // SAFETY: `self` exists only where the CPU has AVX-512 F; registers only.
        unsafe { _mm512_reduce_min_ps(self.0) }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        // SAFETY: `self` exists only where the CPU has AVX-512 F; registers only.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    #[inline(always)]
    fn round_i8<const FLIP: u8>(self) -> [u8; 16] {
        // SAFETY: `self` exists only where the CPU has AVX-512 F; registers only, and 128 bits are sixteen bytes.
        unsafe {
            // the conversion makes the smallest integer of NaN and of what is too large
            let known = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            let integers = _mm512_maskz_cvtps_epi32(known, self.clamp_max(127.0).0);
            transmute(_mm_xor_si128(_mm512_cvtsepi32_epi8(integers), _mm_set1_epi8(FLIP as i8)))
        }
    }
}

impl Simd for Avx2 {
    type Vector = Ymms;
    #[inline(always)]
    fn splat(self, value: f32) -> Ymms {
        // SAFETY: `self` exists only where the CPU has AVX2.
        Ymms([unsafe { _mm256_set1_ps(value) }; 2])
    }
    #[inline(always)]
    fn load(self, values: &[f32; 16]) -> Ymms {
        // SAFETY: `self` exists only where the CPU has AVX2; two loads of eight values each, at any alignment.
        Ymms(unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] })
    }
    #[inline(always)]
    fn load_difference(self, integers: &[i32; 16], subtracted: &[i32; 16], factor: i32) -> Ymms {
        // a function, not a closure, as in `round_i8`
        #[inline(always)]
        fn eight(_: Avx2, integers: &[i32], subtracted: &[i32], factor: i32) -> __m256 {
            let (integers, subtracted) = (&integers[..8], &subtracted[..8]);
            // SAFETY: the token exists only where the CPU has AVX2; two loads of eight values each, at any alignment.
            unsafe {
                let product = _mm256_mullo_epi32(_mm256_loadu_si256(subtracted.as_ptr().cast()), _mm256_set1_epi32(factor));
                _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_loadu_si256(integers.as_ptr().cast()), product))
            }
        }
        Ymms([eight(self, &integers[..8], &subtracted[..8], factor), eight(self, &integers[8..], &subtracted[8..], factor)])
    }
}

impl Arithmetic for Ymms {
    #[inline(always)]
    fn splat(self, value: f32) -> Self {
        // SAFETY: `self` exists only where the CPU has AVX2.
        Ymms([unsafe { _mm256_set1_ps(value) }; 2])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        ymms!(_mm256_add_ps, self, other)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        ymms!(_mm256_sub_ps, self, other)
    }
    #[inline(always)]
    fn mul(self, factor: Self) -> Self {
        ymms!(_mm256_mul_ps, self, factor)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        ymms!(_mm256_fmadd_ps, self, factor, term)
    }
    #[inline(always)]
    fn clamp_min(self, low: f32) -> Self {
        // the second operand is the result where there is a NaN
        ymms!(_mm256_max_ps, self.splat(low), self)
    }
    #[inline(always)]
    fn clamp_max(self, high: f32) -> Self {
        ymms!(_mm256_min_ps, self.splat(high), self)
    }
    #[inline(always)]
    fn ldexp(self, exponent: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, exponent.0);
        // SAFETY: both values exist only where the CPU has AVX2; registers only.
        Ymms(unsafe {
            let (c, d) = (_mm256_slli_epi32::<23>(_mm256_castps_si256(c)), _mm256_slli_epi32::<23>(_mm256_castps_si256(d)));
            [
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), c)),
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(b), d)),
            ]
        })
    }
}

impl Lanes for Ymms {
    #[inline(always)]
    fn store(self) -> [f32; 16] {
        let mut values = [0.0; 16];
        // SAFETY: `self` exists only where the CPU has AVX2; two stores of eight values each, at any alignment.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), self.0[1]);
        }
        values
    }
    #[inline(always)]
    fn write(self, to: &mut [f32; 16]) {
        // SAFETY: `self` exists only where the CPU has AVX2; two stores of eight values each, at any alignment.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.0[1]);
        }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        ymms!(_mm256_min_ps, self, other)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        ymms!(_mm256_max_ps, self, other)
    }
    #[inline(always)]
    fn round_i8<const FLIP: u8>(self) -> [u8; 16] {
        // a function, not a closure: closures are not always compiled into their callers, nor with their features
        #[inline(always)]
        fn integers(register: usize, Ymms(values): Ymms) -> __m128i {
            let values = values[register];
            // SAFETY: the argument exists only where the CPU has AVX2; registers only. The conversion makes the smallest integer of NaN.
            unsafe {
                let known = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(values, values));
                let integers = _mm256_and_si256(_mm256_cvtps_epi32(values), known);
                _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256::<1>(integers))
            }
        }
        let values = self.clamp_min(-128.0).clamp_max(127.0);
        // SAFETY: `self` exists only where the CPU has AVX2; registers only, and 128 bits are sixteen bytes.
        unsafe { transmute(_mm_xor_si128(_mm_packs_epi16(integers(0, values), integers(1, values)), _mm_set1_epi8(FLIP as i8))) }
    }
}
