//! Sixteen lanes in four registers of NEON.

use std::arch::aarch64::*;

use super::super::aarch64::convert;
use super::super::arithmetic::Arithmetic;
use super::super::simd::{Lanes, Simd};
use super::super::token::Neon;

/// Four registers of four lanes.
#[derive(Clone, Copy)]
pub struct Quads([float32x4_t; 4]);

impl Simd for Neon {
    type Vector = Quads;
    #[inline(always)]
    fn splat(self, value: f32) -> Quads {
        // SAFETY: NEON is part of every aarch64 target.
        Quads([unsafe { vdupq_n_f32(value) }; 4])
    }
    #[inline(always)]
    fn load(self, values: &[f32; 16]) -> Quads {
        let at = values.as_ptr();
        // SAFETY: NEON is part of every aarch64 target; four loads of four values each.
        Quads(unsafe { [vld1q_f32(at), vld1q_f32(at.add(4)), vld1q_f32(at.add(8)), vld1q_f32(at.add(12))] })
    }
    #[inline(always)]
    fn store_half(self, vector: Quads, to: &mut [u16; 16]) {
        for (to, [low, high]) in to.as_chunks_mut().0.iter_mut().zip(vector.0.as_chunks().0) {
            *to = convert(*low, *high);
        }
    }
}

/// The same operation on each of the four registers.
macro_rules! each {
    ($operation:path, $($operand:expr),+) => {
        // SAFETY: NEON is part of every aarch64 target.
        Quads(unsafe {
            [$operation($($operand.0[0]),+), $operation($($operand.0[1]),+), $operation($($operand.0[2]),+), $operation($($operand.0[3]),+)]
        })
    };
}

impl Arithmetic for Quads {
    #[inline(always)]
    fn splat(self, value: f32) -> Self {
        // SAFETY: NEON is part of every aarch64 target.
        Quads([unsafe { vdupq_n_f32(value) }; 4])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each!(vaddq_f32, self, other)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each!(vsubq_f32, self, other)
    }
    #[inline(always)]
    fn mul(self, factor: Self) -> Self {
        each!(vmulq_f32, self, factor)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        each!(vfmaq_f32, term, self, factor)
    }
    #[inline(always)]
    fn clamp_min(self, low: f32) -> Self {
        // `fmax`, unlike `fmaxnm`, gives NaN where there is one
        each!(vmaxq_f32, self, self.splat(low))
    }
    #[inline(always)]
    fn clamp_max(self, high: f32) -> Self {
        each!(vminq_f32, self, self.splat(high))
    }
    #[inline(always)]
    fn ldexp(self, exponent: Self) -> Self {
        #[inline(always)]
        fn scale(value: float32x4_t, exponent: float32x4_t) -> float32x4_t {
            // SAFETY: NEON is part of every aarch64 target.
            unsafe {
                let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(exponent));
                vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(value), exponent))
            }
        }
        let ([a, b, c, d], [e, f, g, h]) = (self.0, exponent.0);
        Quads([scale(a, e), scale(b, f), scale(c, g), scale(d, h)])
    }
}

impl Lanes for Quads {
    #[inline(always)]
    fn store(self) -> [f32; 16] {
        let mut values = [0.0; 16];
        self.write(&mut values);
        values
    }
    #[inline(always)]
    fn write(self, to: &mut [f32; 16]) {
        for (to, lanes) in to.chunks_exact_mut(4).zip(self.0) {
            // SAFETY: NEON is part of every aarch64 target; four values.
            unsafe { vst1q_f32(to.as_mut_ptr(), lanes) };
        }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        each!(vminnmq_f32, self, other)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        each!(vmaxnmq_f32, self, other)
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: NEON is part of every aarch64 target.
        unsafe {
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }
    #[inline(always)]
    fn reduce_min(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: NEON is part of every aarch64 target.
        unsafe { vminnmvq_f32(vminnmq_f32(vminnmq_f32(a, b), vminnmq_f32(c, d))) }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: NEON is part of every aarch64 target.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a, b), vmaxnmq_f32(c, d))) }
    }
    #[inline(always)]
    fn round_i8<const FLIP: u8>(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // SAFETY: NEON is part of every aarch64 target; sixteen bytes. The conversion saturates and makes 0 of NaN.
        unsafe {
            let [a, b, c, d] = self.0;
            let [a, b, c, d] = [vcvtnq_s32_f32(a), vcvtnq_s32_f32(b), vcvtnq_s32_f32(c), vcvtnq_s32_f32(d)];
            let (low, high) = (vqmovn_high_s32(vqmovn_s32(a), b), vqmovn_high_s32(vqmovn_s32(c), d));
            let integers = vreinterpretq_u8_s8(vqmovn_high_s16(vqmovn_s16(low), high));
            vst1q_u8(bytes.as_mut_ptr(), veorq_u8(integers, vdupq_n_u8(FLIP)));
        }
        bytes
    }
}
