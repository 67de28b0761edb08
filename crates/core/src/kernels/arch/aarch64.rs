//! Tiles for 64-bit ARM.
//!
//! The dot product and the 8-bit matrix multiply have no stable intrinsics, so single instructions stand in `asm!`; the compiler
//! still allocates their registers and schedules around them.

use std::arch::aarch64::*;
use std::arch::asm;

use super::starts::starts;
use super::tile::{F16_RUN, LinearTile, MAGIC, TileOf};

/// 8 x 8 for cores without a dot product, as four tiles of 4 x 4: 16 values along k at once.
///
/// `smull` and `smlal2` add two products of i8 in 16 bits, which cannot overflow since no weight is -128; `sadalp` adds neighbours
/// into 32 bits. The four partial sums of each accumulator are added at the end.
///
/// # Safety
/// `k * 8` interleaved bytes in `a`, `k * 8` in `panel`; `k` a multiple of 16.
pub unsafe fn dot_neon(a: &[u8], panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    for (row, column) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
        // SAFETY: the caller's lengths cover every access below; NEON is part of every aarch64 target.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); 4]; 4];
            let (mut a, mut b) = (a.as_ptr().cast::<i8>().add(row * 16), panel.as_ptr().add(column * 16));
            for _ in 0..k / 16 {
                let columns = [vld1q_s8(b), vld1q_s8(b.add(16)), vld1q_s8(b.add(32)), vld1q_s8(b.add(48))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let row = vld1q_s8(a.add(r * 16));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        let products = vmull_s8(vget_low_s8(row), vget_low_s8(column));
                        let products = vmlal_high_s8(products, row, column);
                        *sum = vpadalq_s16(*sum, products);
                    }
                }
                a = a.add(128);
                b = b.add(128);
            }
            for (r, [s0, s1, s2, s3]) in sums.into_iter().enumerate() {
                let sums = vpaddq_s32(vpaddq_s32(s0, s1), vpaddq_s32(s2, s3));
                vst1q_s32(acc.0.as_mut_ptr().add((row + r) * 8 + column), sums);
            }
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
/// The dot product; `k * 8` interleaved bytes in `a`, `k * 8` in `panel`; `k` a multiple of 16.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn dot_dotprod(a: &[u8], panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    // SAFETY: the caller's lengths are those of `sums_dotprod`; the tile has 8 x 8 values.
    unsafe {
        for (r, sum) in sums_dotprod(a, panel, k, vdupq_n_s32(0)).into_iter().enumerate() {
            vst1q_s32(acc.0.as_mut_ptr().add(r * 8), sum[0]);
            vst1q_s32(acc.0.as_mut_ptr().add(r * 8 + 4), sum[1]);
        }
    }
}

/// The sums of [`dot_dotprod`] in registers, each added to `start`.
///
/// # Safety
/// As [`dot_dotprod`], into which it is compiled.
#[inline(always)]
pub unsafe fn sums_dotprod(a: &[u8], panel: &[i8], k: usize, start: int32x4_t) -> [[int32x4_t; 2]; 8] {
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        let mut sums = [[start; 2]; 8];
        let (mut a, mut b) = (a.as_ptr().cast::<i8>(), panel.as_ptr());
        macro_rules! sixteen {
            ($at:literal) => {
                let rows: [int8x16_t; 8] = std::array::from_fn(|r| vld1q_s8(a.add($at + r * 16)));
                sixteen!($at, rows, 0);
                sixteen!($at, rows, 1);
                sixteen!($at, rows, 2);
                sixteen!($at, rows, 3);
            };
            ($at:literal, $rows:ident, $lane:literal) => {
                let (b0, b1) = (vld1q_s8(b.add($at + $lane * 32)), vld1q_s8(b.add($at + $lane * 32 + 16)));
                for (sum, row) in sums.iter_mut().zip($rows) {
                    sdot!(sum[0], b0, row, $lane);
                    sdot!(sum[1], b1, row, $lane);
                }
            };
        }
        for _ in 0..k / 32 {
            sixteen!(0);
            sixteen!(128);
            a = a.add(256);
            b = b.add(256);
        }
        if !k.is_multiple_of(32) {
            sixteen!(0);
        }
        sums
    }
}

/// 8 x 8 of a linear layer, see [`Isa::linear_tile`](super::Isa::linear_tile). Sums start at 1.5 * 2^23 and so are numbers of f32 without a conversion;
/// integers below 2^24 are exact there, and one fused operation rounds as a conversion would.
///
/// # Safety
/// The dot product; `k * 8` interleaved bytes in `a`, `k * 8` in `panel`; `k` a multiple of 16; `to` and a residual hold the tile.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn linear_dotprod(a: &[u8], panel: &[i8], k: usize, tile: &LinearTile, residual: &[f32], to: &mut [f32]) {
    // SAFETY: the caller's lengths are those of `sums_dotprod`, and cover every access below.
    unsafe {
        let sums = sums_dotprod(a, panel, k, vdupq_n_s32(MAGIC.to_bits().cast_signed()));
        let magic = vdupq_n_f32(MAGIC);
        let pair = |values: &[f32; 8]| [vld1q_f32(values.as_ptr()), vld1q_f32(values.as_ptr().add(4))];
        let (scales, zeros, offsets) = (pair(tile.scales), pair(tile.zeros), pair(tile.sums));
        let (columns, bias) = (pair(tile.column_scales), pair(tile.bias));
        macro_rules! row {
            ($row:literal, $half:literal, $lane:literal, $residual:expr) => {
                for i in 0..2 {
                    let product = vsubq_f32(vreinterpretq_f32_s32(sums[$row][i]), magic);
                    let exact = vfmsq_laneq_f32::<$lane>(product, offsets[i], zeros[$half]);
                    let value = vfmaq_f32(bias[i], vmulq_laneq_f32::<$lane>(exact, scales[$half]), columns[i]);
                    let at = $row * tile.stride + i * 4;
                    vst1q_f32(to.as_mut_ptr().add(at), $residual(value, at));
                }
            };
        }
        macro_rules! rows {
            ($residual:expr) => {
                row!(0, 0, 0, $residual);
                row!(1, 0, 1, $residual);
                row!(2, 0, 2, $residual);
                row!(3, 0, 3, $residual);
                row!(4, 1, 0, $residual);
                row!(5, 1, 1, $residual);
                row!(6, 1, 2, $residual);
                row!(7, 1, 3, $residual);
            };
        }
        if residual.is_empty() {
            rows!(|value, _| value);
        } else {
            rows!(|value, at| vaddq_f32(value, vld1q_f32(residual.as_ptr().add(at))));
        }
    }
}

/// 8 x 8, `smmla`: two rows times two columns, 8 values along k at once.
///
/// # Safety
/// The 8-bit matrix multiply; `k * 8` interleaved bytes in `a`, `k * 8` in `panel`; `k` a multiple of 16.
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn dot_i8mm(a: &[u8], panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    // SAFETY: the caller's lengths cover every access below.
    unsafe {
        // sums[p][q]: rows 2p, 2p + 1 times columns 2q, 2q + 1
        let mut sums = [[vdupq_n_s32(0); 4]; 4];
        let (mut a, mut b) = (a.as_ptr().cast::<i8>(), panel.as_ptr());
        for _ in 0..k / 16 {
            let mut pairs = [[vdupq_n_s8(0); 2]; 4];
            for (p, pair) in pairs.iter_mut().enumerate() {
                let upper = vreinterpretq_s64_s8(vld1q_s8(a.add(2 * p * 16)));
                let lower = vreinterpretq_s64_s8(vld1q_s8(a.add((2 * p + 1) * 16)));
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
            a = a.add(128);
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
        let (a, mut b) = (starts::<_, 8>(a.as_ptr(), stride), panel.as_ptr());
        for step in 0..k / 4 {
            let rows = a.map(|a| vld1q_f32(a.add(step * 4)));
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
            b = b.add(32);
        }
        for step in k / 4 * 4..k {
            let (b0, b1) = (vld1q_f32(b), vld1q_f32(b.add(4)));
            for (sum, a) in sums.iter_mut().zip(a) {
                let x = *a.add(step);
                sum[0] = vfmaq_n_f32(sum[0], b0, x);
                sum[1] = vfmaq_n_f32(sum[1], b1, x);
            }
            b = b.add(8);
        }
        for (r, sum) in sums.into_iter().enumerate() {
            vst1q_f32(acc.0.as_mut_ptr().add(r * 8), sum[0]);
            vst1q_f32(acc.0.as_mut_ptr().add(r * 8 + 4), sum[1]);
        }
    }
}

/// 8 x 16 in half precision, `fmla` by lane.
///
/// # Safety
/// Half-precision arithmetic; 8 rows of `k` values in `a`, `k * 16` in `panel`.
#[target_feature(enable = "neon,fp16")]
pub unsafe fn half_fp16(a: &[u16], stride: usize, panel: &[u16], k: usize, acc: &mut TileOf<f32>) {
    acc.0[..128].fill(0.0);
    for start in (0..k).step_by(F16_RUN) {
        let run = F16_RUN.min(k - start);
        // SAFETY: the caller's lengths cover every access below.
        unsafe { half_run(a.as_ptr().add(start), stride, panel.as_ptr().add(start * 16), run, acc) };
    }
}

/// `acc += fmla by lane`, all of 16-bit floats.
macro_rules! fmla {
    ($acc:expr, $b:expr, $a:expr, $lane:literal) => {
        asm!(
            concat!("fmla {acc:v}.8h, {b:v}.8h, {a:v}.h[", $lane, "]"),
            acc = inout(vreg) $acc,
            b = in(vreg) $b,
            // an element of 16 bits can only be taken from the lower sixteen registers
            a = in(vreg_low16) $a,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
}

/// # Safety
/// Half-precision arithmetic; 8 rows of `run` values at `a`, `run * 16` at `b`.
#[target_feature(enable = "neon,fp16")]
unsafe fn half_run(a: *const u16, stride: usize, mut b: *const u16, run: usize, acc: &mut TileOf<f32>) {
    // SAFETY: the caller vouches for the pointers; the tile has 8 x 16 values.
    unsafe {
        let mut sums = [[vdupq_n_u16(0); 2]; 8];
        let a = starts::<_, 8>(a, stride);
        for step in 0..run / 8 {
            let rows = a.map(|a| vld1q_u16(a.add(step * 8)));
            macro_rules! step {
                ($lane:literal) => {
                    let (b0, b1) = (vld1q_u16(b.add($lane * 16)), vld1q_u16(b.add($lane * 16 + 8)));
                    for (sum, row) in sums.iter_mut().zip(rows) {
                        fmla!(sum[0], b0, row, $lane);
                        fmla!(sum[1], b1, row, $lane);
                    }
                };
            }
            step!(0);
            step!(1);
            step!(2);
            step!(3);
            step!(4);
            step!(5);
            step!(6);
            step!(7);
            b = b.add(128);
        }
        for step in run / 8 * 8..run {
            let (b0, b1) = (vld1q_u16(b), vld1q_u16(b.add(8)));
            for (sum, a) in sums.iter_mut().zip(a) {
                let row = vdupq_n_u16(*a.add(step));
                fmla!(sum[0], b0, row, 0);
                fmla!(sum[1], b1, row, 0);
            }
            b = b.add(16);
        }
        // a loop would be kept as one, with the sums in memory
        macro_rules! rows {
            ($($row:literal)+) => {$(
                add_widened(sums[$row][0], acc.0.as_mut_ptr().add($row * 16));
                add_widened(sums[$row][1], acc.0.as_mut_ptr().add($row * 16 + 8));
            )+};
        }
        rows!(0 1 2 3 4 5 6 7);
    }
}

/// Adds eight halves to eight values at `to`.
///
/// # Safety
/// Half-precision arithmetic; eight values at `to`.
#[inline(always)]
unsafe fn add_widened(halves: uint16x8_t, to: *mut f32) {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        let [low, high] = widen(halves);
        vst1q_f32(to, vaddq_f32(vld1q_f32(to), low));
        vst1q_f32(to.add(4), vaddq_f32(vld1q_f32(to.add(4)), high));
    }
}

/// Eight halves as f32.
#[inline(always)]
pub fn widen(halves: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: this conversion is part of every aarch64 target; registers only.
    unsafe {
        asm!(
            "fcvtl {low:v}.4s, {halves:v}.4h",
            "fcvtl2 {high:v}.4s, {halves:v}.8h",
            halves = in(vreg) halves,
            low = out(vreg) low,
            high = lateout(vreg) high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    [low, high]
}

/// f32 to the format of half-precision tiles, here IEEE binary16: rounded to nearest, ties to even; NaN stays NaN, what is too large
/// becomes infinite.
pub fn to_half(from: &[f32], to: &mut [u16]) {
    let (chunks, rest) = from.as_chunks::<8>();
    let (slots, rest_slots) = to[..from.len()].as_chunks_mut::<8>();
    for (slot, chunk) in slots.iter_mut().zip(chunks) {
        *slot = convert_chunk(chunk);
    }
    if !rest.is_empty() {
        let mut last = [0.0; 8];
        last[..rest.len()].copy_from_slice(rest);
        rest_slots.copy_from_slice(&convert_chunk(&last)[..rest.len()]);
    }
}

#[inline(always)]
fn convert_chunk(values: &[f32; 8]) -> [u16; 8] {
    // SAFETY: NEON is part of every aarch64 target; eight values.
    unsafe { convert(vld1q_f32(values.as_ptr()), vld1q_f32(values.as_ptr().add(4))) }
}

/// Eight values to half precision.
#[inline(always)]
pub fn convert(low: float32x4_t, high: float32x4_t) -> [u16; 8] {
    let mut halves = [0; 8];
    // SAFETY: NEON and this conversion are part of every aarch64 target; there is room for eight values.
    unsafe {
        let result: uint16x8_t;
        asm!(
            "fcvtn {half:v}.4h, {low:v}.4s",
            "fcvtn2 {half:v}.8h, {high:v}.4s",
            half = out(vreg) result,
            low = in(vreg) low,
            high = in(vreg) high,
            options(pure, nomem, nostack, preserves_flags)
        );
        vst1q_u16(halves.as_mut_ptr(), result);
    }
    halves
}
