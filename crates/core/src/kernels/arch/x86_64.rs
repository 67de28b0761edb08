//! Tiles for x86-64.
//!
//! All follow one plan: the accumulators of the whole tile stay in registers; for each step along k, load the panel's vectors, then
//! broadcast one activation group per row and multiply-accumulate. With 32 registers the tile is 12 rows times 2 vectors (24
//! accumulators), with 16 registers 6 rows times 2 (12).

use std::arch::x86_64::*;
use std::mem::transmute;

use super::starts::starts;
use super::tile::TileOf;

/// 12 x 32, `vpdpbusd`: u8 activations times i8 weights.
///
/// # Safety
/// AVX-512 VNNI; 12 rows of `k` bytes in `a`, `k * 32` in `panel`; `k` a multiple of 4.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn dot_avx512vnni(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    const MR: usize = 12;
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); 2]; MR];
        let (mut a, mut b) = (a.as_ptr(), panel.as_ptr());
        for _ in 0..k / 4 {
            let b0 = _mm512_loadu_si512(b.cast());
            let b1 = _mm512_loadu_si512(b.add(64).cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(a.add(r * stride).cast::<i32>().read_unaligned());
                sum[0] = _mm512_dpbusd_epi32(sum[0], x, b0);
                sum[1] = _mm512_dpbusd_epi32(sum[1], x, b1);
            }
            a = a.add(4);
            b = b.add(128);
        }
        for (r, sum) in sums.iter().enumerate() {
            _mm512_store_si512(acc.0.as_mut_ptr().add(r * 32).cast(), sum[0]);
            _mm512_store_si512(acc.0.as_mut_ptr().add(r * 32 + 16).cast(), sum[1]);
        }
    }
}

/// 6 x 16, the VEX form of `vpdpbusd`.
///
/// # Safety
/// AVX2 and AVX-VNNI; 6 rows of `k` bytes in `a`, `k * 16` in `panel`; `k` a multiple of 4.
#[target_feature(enable = "avx2,avxvnni")]
pub unsafe fn dot_avxvnni(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    const MR: usize = 6;
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 2]; MR];
        let (mut a, mut b) = (a.as_ptr(), panel.as_ptr());
        for _ in 0..k / 4 {
            let b0 = _mm256_loadu_si256(b.cast());
            let b1 = _mm256_loadu_si256(b.add(32).cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(a.add(r * stride).cast::<i32>().read_unaligned());
                sum[0] = _mm256_dpbusd_avx_epi32(sum[0], x, b0);
                sum[1] = _mm256_dpbusd_avx_epi32(sum[1], x, b1);
            }
            a = a.add(4);
            b = b.add(64);
        }
        for (r, sum) in sums.iter().enumerate() {
            _mm256_store_si256(acc.0.as_mut_ptr().add(r * 16).cast(), sum[0]);
            _mm256_store_si256(acc.0.as_mut_ptr().add(r * 16 + 8).cast(), sum[1]);
        }
    }
}

/// 6 x 16, `vpmaddwd` on i16 activations and sign-extended weights: exact, where `vpmaddubsw` would saturate.
///
/// # Safety
/// AVX2; 6 rows of `k` i16 values in `a`, `k * 16` in `panel`; `k` a multiple of 2.
#[target_feature(enable = "avx2")]
pub unsafe fn dot_avx2(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    const MR: usize = 6;
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 2]; MR];
        let (rows, mut b) = (starts::<_, MR>(a.as_ptr(), stride), panel.as_ptr());
        for step in 0..k / 2 {
            let b0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.cast()));
            let b1 = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(16).cast()));
            for (sum, row) in sums.iter_mut().zip(rows) {
                let x = _mm256_set1_epi32(row.add(step * 4).cast::<i32>().read_unaligned());
                sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(x, b0));
                sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(x, b1));
            }
            b = b.add(32);
        }
        for (r, sum) in sums.iter().enumerate() {
            _mm256_store_si256(acc.0.as_mut_ptr().add(r * 16).cast(), sum[0]);
            _mm256_store_si256(acc.0.as_mut_ptr().add(r * 16 + 8).cast(), sum[1]);
        }
    }
}

/// `MR` x 32 f32.
///
/// # Safety
/// AVX-512 F; `MR` rows of `k` values in `a`, `k * 32` in `panel`.
#[target_feature(enable = "avx512f")]
pub unsafe fn fma_avx512<const MR: usize>(a: &[f32], stride: usize, panel: &[f32], k: usize, acc: &mut TileOf<f32>) {
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        let (mut a, mut b) = (a.as_ptr(), panel.as_ptr());
        for _ in 0..k {
            let b0 = _mm512_loadu_ps(b);
            let b1 = _mm512_loadu_ps(b.add(16));
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(r * stride));
                sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
            }
            a = a.add(1);
            b = b.add(32);
        }
        for (r, sum) in sums.iter().enumerate() {
            _mm512_store_ps(acc.0.as_mut_ptr().add(r * 32), sum[0]);
            _mm512_store_ps(acc.0.as_mut_ptr().add(r * 32 + 16), sum[1]);
        }
    }
}

/// 6 x 16 f32.
///
/// # Safety
/// AVX2 and FMA; 6 rows of `k` values in `a`, `k * 16` in `panel`.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn fma_avx2(a: &[f32], stride: usize, panel: &[f32], k: usize, acc: &mut TileOf<f32>) {
    const MR: usize = 6;
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; MR];
        let (rows, mut b) = (starts::<_, MR>(a.as_ptr(), stride), panel.as_ptr());
        for step in 0..k {
            let b0 = _mm256_loadu_ps(b);
            let b1 = _mm256_loadu_ps(b.add(8));
            for (sum, row) in sums.iter_mut().zip(rows) {
                let x = _mm256_set1_ps(*row.add(step));
                sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
            }
            b = b.add(16);
        }
        for (r, sum) in sums.iter().enumerate() {
            _mm256_store_ps(acc.0.as_mut_ptr().add(r * 16), sum[0]);
            _mm256_store_ps(acc.0.as_mut_ptr().add(r * 16 + 8), sum[1]);
        }
    }
}

/// 12 x 32, `vdpbf16ps`: pairs of bfloat16, summed in f32.
///
/// # Safety
/// AVX-512 BF16; 12 rows of `k` values in `a`, `k * 32` in `panel`; `k` a multiple of 2.
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn half_avx512bf16(a: &[u16], stride: usize, panel: &[u16], k: usize, acc: &mut TileOf<f32>) {
    const MR: usize = 12;
    // SAFETY: the caller's lengths cover every access below; vectors of bfloat16 are 512 bits like those of integers.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        let (mut a, mut b) = (a.as_ptr(), panel.as_ptr());
        for _ in 0..k / 2 {
            let b0: __m512bh = transmute(_mm512_loadu_si512(b.cast()));
            let b1: __m512bh = transmute(_mm512_loadu_si512(b.add(32).cast()));
            for (r, sum) in sums.iter_mut().enumerate() {
                let x: __m512bh = transmute(_mm512_set1_epi32(a.add(r * stride).cast::<i32>().read_unaligned()));
                sum[0] = _mm512_dpbf16_ps(sum[0], x, b0);
                sum[1] = _mm512_dpbf16_ps(sum[1], x, b1);
            }
            a = a.add(2);
            b = b.add(64);
        }
        for (r, sum) in sums.iter().enumerate() {
            _mm512_store_ps(acc.0.as_mut_ptr().add(r * 32), sum[0]);
            _mm512_store_ps(acc.0.as_mut_ptr().add(r * 32 + 16), sum[1]);
        }
    }
}
