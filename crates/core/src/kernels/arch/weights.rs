//! From a tile of scores to weights of attention, while the scores are still in the first-level cache.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::isa::Kind;
#[cfg(target_arch = "x86_64")]
use super::token::Avx512Bf16;

/// Columns of a tile of scores.
pub const WEIGHT_COLUMNS: usize = 32;

/// Coefficients of `2^r` for r from 0 to 1, highest power first: our own fit of least relative error, 7.5e-5.
#[cfg(target_arch = "x86_64")]
const EXP2: [f32; 4] = [0.078_024_54, 0.226_067_2, 0.695_833_5, 0.999_925_26];

/// Scores `[rows][WEIGHT_COLUMNS]`, in powers of two, of which `columns` count.
#[derive(Debug, Clone, Copy)]
pub struct ScoreTile<'a> {
    /// Row-major.
    pub scores: &'a [f32],
    /// Columns that are keys; the weights of the others are zero.
    pub columns: usize,
    /// Values from the start of a row of weights to the start of the next.
    pub stride: usize,
}

impl Isa {
    /// Whether there is [`Isa::tile_weights`].
    #[inline(always)]
    pub fn has_tile_weights(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self.kind(), Kind::Avx512Bf16(_) | Kind::Amx(_));
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// `2^score` in bfloat16, cut off after its 8 digits, of as many rows as `sums` has; the weights of a row are added to the sixteen lanes of its sum
    /// as they are, so that what was cut off is no error of `weight / sum`. A weight below 2^-126 is zero, NaN stays NaN.
    ///
    /// Panics on an instruction set without [`Isa::has_tile_weights`]: a bug of the caller.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub fn tile_weights(self, tile: &ScoreTile, sums: &mut [[f32; 16]], to: &mut [u16]) {
        match self.kind() {
            // SAFETY: an `Avx512Bf16` token exists only where the CPU has these features.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16(token) => unsafe { weights(token, tile, sums, to) },
            // SAFETY: an `Amx` token exists only where the CPU has these features.
            #[cfg(target_arch = "x86_64")]
            Kind::Amx(token) => unsafe { weights(token.into(), tile, sums, to) },
            _ => unreachable!("an instruction set without weights of tiles"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16")]
fn weights(_: Avx512Bf16, tile: &ScoreTile, sums: &mut [[f32; 16]], to: &mut [u16]) {
    let keys = if tile.columns < WEIGHT_COLUMNS { (1 << tile.columns) - 1 } else { u32::MAX };
    // the upper halves of sixteen numbers, then of sixteen others
    let upper: [u16; 32] = std::array::from_fn(|at| 2 * at as u16 + 1);
    // SAFETY: 32 values of 16 bits at any alignment.
    let upper = unsafe { _mm512_loadu_si512(upper.as_ptr().cast()) };
    // SAFETY: 512 bits are 32 numbers of bfloat16: ones.
    let ones = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi16(0x3f80)) };
    for (row, sum) in sums.iter_mut().enumerate() {
        let [low, high] = &tile.scores[row * WEIGHT_COLUMNS..][..WEIGHT_COLUMNS].as_chunks::<16>().0 else {
            unreachable!("two times sixteen")
        };
        let to: &mut [u16; WEIGHT_COLUMNS] = (&mut to[row * tile.stride..][..WEIGHT_COLUMNS]).try_into().expect("as long");
        // SAFETY: loads and stores of sixteen numbers, and of 32 of 16 bits, at any alignment; 512 bits are 32 numbers of bfloat16.
        unsafe {
            let (low, high) = (exp2(_mm512_loadu_ps(low.as_ptr())), exp2(_mm512_loadu_ps(high.as_ptr())));
            let cut = _mm512_maskz_permutex2var_epi16(keys, _mm512_castps_si512(low), upper, _mm512_castps_si512(high));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), cut);
            let weights = std::mem::transmute::<__m512i, __m512bh>(cut);
            _mm512_storeu_ps(sum.as_mut_ptr(), _mm512_dpbf16_ps(_mm512_loadu_ps(sum.as_ptr()), weights, ones));
        }
    }
}

/// `2^x`: of its fraction by a polynomial, of its integer by the exponent.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2(x: __m512) -> __m512 {
    const DOWN: i32 = 1;
    let rest = _mm512_reduce_ps::<DOWN>(x);
    let mut p = _mm512_set1_ps(EXP2[0]);
    for c in &EXP2[1..] {
        p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(*c));
    }
    _mm512_scalef_ps(p, x)
}
