//! Sixteen lanes in the registers of AVX-512 and AVX2.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Arithmetic, Lanes};

/// Only made where the CPU has AVX-512F.
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

/// Only made where the CPU has AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct Avx2([__m256; 2]);

// SAFETY of every block: the functions that name these types are compiled for, and called on, CPUs with the features.
impl Arithmetic for Avx512 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Avx512(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Avx512(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, factor: Self) -> Self {
        // SAFETY: see above.
        Avx512(unsafe { _mm512_mul_ps(self.0, factor.0) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        Avx512(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }
    #[inline(always)]
    fn clamp_min(self, low: f32) -> Self {
        // SAFETY: see above; the second operand is the result where there is a NaN.
        Avx512(unsafe { _mm512_max_ps(_mm512_set1_ps(low), self.0) })
    }
    #[inline(always)]
    fn clamp_max(self, high: f32) -> Self {
        // SAFETY: as `clamp_min`.
        Avx512(unsafe { _mm512_min_ps(_mm512_set1_ps(high), self.0) })
    }
    #[inline(always)]
    fn ldexp(self, exponent: Self) -> Self {
        // SAFETY: see above.
        Avx512(unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(exponent.0));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), exponent))
        })
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    fn load(values: &[f32; 16]) -> Self {
        // SAFETY: see above; sixteen values.
        Avx512(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }
    #[inline(always)]
    fn store(self) -> [f32; 16] {
        let mut values = [0.0; 16];
        // SAFETY: see above; sixteen values.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) };
        values
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Avx512(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Avx512(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        // SAFETY: see above.
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
        // SAFETY: see above.
        unsafe { _mm512_reduce_min_ps(self.0) }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    #[inline(always)]
    fn round_i8<const FLIP: u8>(self) -> [u8; 16] {
        // SAFETY: see above; 128 bits are sixteen bytes.
        unsafe {
            // the conversion makes the smallest integer of NaN and of what is too large
            let known = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            let integers = _mm512_maskz_cvtps_epi32(known, self.clamp_max(127.0).0);
            transmute(_mm_xor_si128(_mm512_cvtsepi32_epi8(integers), _mm_set1_epi8(FLIP as i8)))
        }
    }
    /// Only called where the CPU has AVX-512 BF16.
    #[inline(always)]
    fn store_half(self, to: &mut [u16; 16]) {
        // SAFETY: see above; sixteen values of 16 bits are 256 bits.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0))) }
    }
}

/// The same operation on both registers.
macro_rules! each {
    ($operation:path, $($operand:expr),+) => {
        // SAFETY: see above.
        Avx2(unsafe { [$operation($($operand.0[0]),+), $operation($($operand.0[1]),+)] })
    };
}

impl Arithmetic for Avx2 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Avx2([unsafe { _mm256_set1_ps(value) }; 2])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each!(_mm256_add_ps, self, other)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each!(_mm256_sub_ps, self, other)
    }
    #[inline(always)]
    fn mul(self, factor: Self) -> Self {
        each!(_mm256_mul_ps, self, factor)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        each!(_mm256_fmadd_ps, self, factor, term)
    }
    #[inline(always)]
    fn clamp_min(self, low: f32) -> Self {
        // the second operand is the result where there is a NaN
        each!(_mm256_max_ps, Self::splat(low), self)
    }
    #[inline(always)]
    fn clamp_max(self, high: f32) -> Self {
        each!(_mm256_min_ps, Self::splat(high), self)
    }
    #[inline(always)]
    fn ldexp(self, exponent: Self) -> Self {
        // a function, not a closure: closures are not always compiled into their callers, nor with their features
        #[inline(always)]
        fn scale(value: __m256, exponent: __m256) -> __m256 {
            // SAFETY: see above.
            unsafe {
                let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(exponent));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), exponent))
            }
        }
        Avx2([scale(self.0[0], exponent.0[0]), scale(self.0[1], exponent.0[1])])
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn load(values: &[f32; 16]) -> Self {
        // SAFETY: see above; sixteen values.
        Avx2(unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] })
    }
    #[inline(always)]
    fn store(self) -> [f32; 16] {
        let mut values = [0.0; 16];
        // SAFETY: see above; sixteen values.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), self.0[1]);
        }
        values
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        each!(_mm256_min_ps, self, other)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        each!(_mm256_max_ps, self, other)
    }
    #[inline(always)]
    fn round_i8<const FLIP: u8>(self) -> [u8; 16] {
        #[inline(always)]
        fn integers(values: __m256) -> __m128i {
            // SAFETY: see above. The conversion makes the smallest integer of NaN.
            unsafe {
                let known = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(values, values));
                let integers = _mm256_and_si256(_mm256_cvtps_epi32(values), known);
                _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256::<1>(integers))
            }
        }
        let [low, high] = self.clamp_min(-128.0).clamp_max(127.0).0;
        // SAFETY: see above; 128 bits are sixteen bytes.
        unsafe { transmute(_mm_xor_si128(_mm_packs_epi16(integers(low), integers(high)), _mm_set1_epi8(FLIP as i8))) }
    }
}
