//! Tiles for 64-bit ARM.
//!
//! The dot product and the 8-bit matrix multiply have no stable intrinsics, so single instructions stand in `asm!`; the compiler
//! still allocates their registers and schedules around them.

use std::arch::aarch64::*;
use std::arch::asm;

use super::TileOf;

/// 4 x 4 for cores without a dot product: 16 values along k at once.
///
/// `smull` and `smlal2` add two products of i8 in 16 bits, which cannot overflow since no weight is -128; `sadalp` adds neighbours
/// into 32 bits. The four partial sums of each accumulator are added at the end.
///
/// # Safety
/// 4 rows of `k` bytes in `a`, `k * 4` in `panel`; `k` a multiple of 16.
pub unsafe fn dot_neon(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    // SAFETY: the caller's lengths cover every access below; NEON is part of every aarch64 target.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 4]; 4];
        let (mut a, mut b) = (a.as_ptr().cast::<i8>(), panel.as_ptr());
        for _ in 0..k / 16 {
            let columns = [vld1q_s8(b), vld1q_s8(b.add(16)), vld1q_s8(b.add(32)), vld1q_s8(b.add(48))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let row = vld1q_s8(a.add(r * stride));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    let products = vmull_s8(vget_low_s8(row), vget_low_s8(column));
                    let products = vmlal_high_s8(products, row, column);
                    *sum = vpadalq_s16(*sum, products);
                }
            }
            a = a.add(16);
            b = b.add(64);
        }
        for (r, [s0, s1, s2, s3]) in sums.into_iter().enumerate() {
            let row = vpaddq_s32(vpaddq_s32(s0, s1), vpaddq_s32(s2, s3));
            vst1q_s32(acc.0.as_mut_ptr().add(r * 4), row);
        }
    }
}

/// `acc += four dot products of b's four columns with the four bytes in lane LANE of a`.
macro_rules! sdot {
    ($acc:expr, $b:expr, $a:expr, $lane:literal) => {
        asm!(
            concat!("sdot {acc:v}.4s, {b:v}.16b, {a:v}.4b[", $lane, "]"),
            acc = inout(vreg) $acc,
            b = in(vreg) $b,
            a = in(vreg) $a,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
}

/// 8 x 8, `sdot` by lane: 16 values along k at once.
///
/// # Safety
/// The dot product; 8 rows of `k` bytes in `a`, `k * 8` in `panel`; `k` a multiple of 16.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn dot_dotprod(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 2]; 8];
        let (mut a, mut b) = (a.as_ptr().cast::<i8>(), panel.as_ptr());
        for _ in 0..k / 16 {
            let mut rows = [vdupq_n_s8(0); 8];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = vld1q_s8(a.add(r * stride));
            }
            macro_rules! step {
                ($lane:literal) => {
                    let (b0, b1) = (vld1q_s8(b.add($lane * 32)), vld1q_s8(b.add($lane * 32 + 16)));
                    for (sum, row) in sums.iter_mut().zip(rows) {
                        sdot!(sum[0], b0, row, $lane);
                        sdot!(sum[1], b1, row, $lane);
                    }
                };
            }
            step!(0);
            step!(1);
            step!(2);
            step!(3);
            a = a.add(16);
            b = b.add(128);
        }
        for (r, sum) in sums.into_iter().enumerate() {
            vst1q_s32(acc.0.as_mut_ptr().add(r * 8), sum[0]);
            vst1q_s32(acc.0.as_mut_ptr().add(r * 8 + 4), sum[1]);
        }
    }
}

/// 8 x 8, `smmla`: two rows times two columns, 8 values along k at once.
///
/// # Safety
/// The 8-bit matrix multiply; 8 rows of `k` bytes in `a`, `k * 8` in `panel`; `k` a multiple of 16.
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn dot_i8mm(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        // sums[p][q]: rows 2p, 2p + 1 times columns 2q, 2q + 1
        let mut sums = [[vdupq_n_s32(0); 4]; 4];
        let (mut a, mut b) = (a.as_ptr().cast::<i8>(), panel.as_ptr());
        for _ in 0..k / 16 {
            let mut pairs = [[vdupq_n_s8(0); 2]; 4];
            for (p, pair) in pairs.iter_mut().enumerate() {
                let upper = vreinterpretq_s64_s8(vld1q_s8(a.add(2 * p * stride)));
                let lower = vreinterpretq_s64_s8(vld1q_s8(a.add((2 * p + 1) * stride)));
                *pair = [vreinterpretq_s8_s64(vzip1q_s64(upper, lower)), vreinterpretq_s8_s64(vzip2q_s64(upper, lower))];
            }
            for half in 0..2 {
                for q in 0..4 {
                    let columns = vld1q_s8(b.add(half * 64 + q * 16));
                    for (p, pair) in pairs.iter().enumerate() {
                        asm!(
                            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
                            acc = inout(vreg) sums[p][q],
                            a = in(vreg) pair[half],
                            b = in(vreg) columns,
                            options(pure, nomem, nostack, preserves_flags)
                        );
                    }
                }
            }
            a = a.add(16);
            b = b.add(128);
        }
        for (p, sums) in sums.into_iter().enumerate() {
            let sums = sums.map(|sum| vreinterpretq_s64_s32(sum));
            for q in [0, 2] {
                let upper = vreinterpretq_s32_s64(vzip1q_s64(sums[q], sums[q + 1]));
                let lower = vreinterpretq_s32_s64(vzip2q_s64(sums[q], sums[q + 1]));
                vst1q_s32(acc.0.as_mut_ptr().add(2 * p * 8 + q * 2), upper);
                vst1q_s32(acc.0.as_mut_ptr().add((2 * p + 1) * 8 + q * 2), lower);
            }
        }
    }
}

/// 8 x 8 f32, `fmla` by lane: four values along k at once.
///
/// # Safety
/// 8 rows of `k` values in `a`, `k * 8` in `panel`.
pub unsafe fn fma_neon(a: &[f32], stride: usize, panel: &[f32], k: usize, acc: &mut TileOf<f32>) {
    // SAFETY: the caller's lengths cover every access below; NEON is part of every aarch64 target.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); 2]; 8];
        let (mut a, mut b) = (a.as_ptr(), panel.as_ptr());
        for _ in 0..k / 4 {
            let mut rows = [vdupq_n_f32(0.0); 8];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = vld1q_f32(a.add(r * stride));
            }
            macro_rules! step {
                ($lane:literal) => {
                    let (b0, b1) = (vld1q_f32(b.add($lane * 8)), vld1q_f32(b.add($lane * 8 + 4)));
                    for (sum, row) in sums.iter_mut().zip(rows) {
                        sum[0] = vfmaq_laneq_f32::<$lane>(sum[0], b0, row);
                        sum[1] = vfmaq_laneq_f32::<$lane>(sum[1], b1, row);
                    }
                };
            }
            step!(0);
            step!(1);
            step!(2);
            step!(3);
            a = a.add(4);
            b = b.add(32);
        }
        for _ in 0..k % 4 {
            let (b0, b1) = (vld1q_f32(b), vld1q_f32(b.add(4)));
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = *a.add(r * stride);
                sum[0] = vfmaq_n_f32(sum[0], b0, x);
                sum[1] = vfmaq_n_f32(sum[1], b1, x);
            }
            a = a.add(1);
            b = b.add(8);
        }
        for (r, sum) in sums.into_iter().enumerate() {
            vst1q_f32(acc.0.as_mut_ptr().add(r * 8), sum[0]);
            vst1q_f32(acc.0.as_mut_ptr().add(r * 8 + 4), sum[1]);
        }
    }
}
