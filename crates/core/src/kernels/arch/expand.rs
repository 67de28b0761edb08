//! From int8 weights to half precision.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::isa::Kind;
#[cfg(target_arch = "x86_64")]
use super::token::Avx512Bf16;

impl Isa {
    /// A panel of int8 weights, `[k / 4][32][4]`, as one of half precision, `[k / 2][32][2]`: exactly, as bfloat16 has 8 digits.
    ///
    /// Panics on an instruction set whose tiles are others: a bug of the caller.
    #[inline(always)]
    pub fn expand(self, panel: &[i8], to: &mut [u16]) {
        assert!(panel.len().is_multiple_of(128) && to.len() >= panel.len());
        match self.kind() {
            // SAFETY: an `Avx512Bf16` token exists only where the CPU has these features; the assertion above holds for the lengths.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16(token) => unsafe { expand(token, panel, to) },
            // SAFETY: an `Amx` token exists only where the CPU has these features; the assertion above holds for the lengths.
            #[cfg(target_arch = "x86_64")]
            Kind::Amx(token) => unsafe { expand(token.into(), panel, to) },
            _ => unreachable!("an instruction set whose tiles of int8 and half precision have other shapes"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn expand(_: Avx512Bf16, panel: &[i8], to: &mut [u16]) {
    // of a column's four values, the first two and the last two
    let first = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let last = _mm512_add_epi32(first, _mm512_set1_epi32(1));
    for (from, to) in panel.as_chunks::<128>().0.iter().zip(to.as_chunks_mut::<128>().0) {
        let (upper, lower) = to.split_at_mut(64);
        for half in 0..2 {
            let mut numbers = [_mm512_setzero_si512(); 2];
            for (quarter, numbers) in numbers.iter_mut().enumerate() {
                let at: &[i8; 32] = from[64 * half + 32 * quarter..][..32].try_into().expect("as long");
                // SAFETY: two loads of sixteen bytes at any alignment; 512 bits are 32 numbers of bfloat16.
                *numbers = unsafe {
                    let f32s = |at: &[i8]| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at[..16].as_ptr().cast())));
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(f32s(&at[16..]), f32s(&at[..16])))
                };
            }
            let [low, high] = numbers;
            for (to, index) in [(&mut *upper, first), (&mut *lower, last)] {
                let to: &mut [u16; 32] = (&mut to[32 * half..][..32]).try_into().expect("as long");
                // SAFETY: a store of 32 values of 16 bits at any alignment.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_permutex2var_epi32(low, index, high)) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::half::HalfFormat;
    use crate::kernels::suite;

    #[test]
    fn integers_stay_as_they_are() {
        suite::each_isa(|isa| {
            let (dot, Some(half)) = (isa.dot_tile(), isa.half_tile()) else { return };
            if (dot.nr, dot.kr, half.nr, half.kr) != (32, 4, 32, 2) {
                return;
            }
            let weight = |k: usize, c: usize| ((k * 37 + c * 11) % 255) as i32 - 127;
            let panel: Vec<i8> = (0..8 * 32).map(|at| weight(at / 128 * 4 + at % 4, at / 4 % 32) as i8).collect();
            let mut ours = vec![0x7777; panel.len()];
            isa.expand(&panel, &mut ours);
            for (at, ours) in ours.iter().enumerate() {
                assert_eq!(HalfFormat::NATIVE.widen(*ours), weight(at / 64 * 2 + at % 2, at / 2 % 32) as f32, "{}, value {at}", isa.name());
            }
        });
    }
}
