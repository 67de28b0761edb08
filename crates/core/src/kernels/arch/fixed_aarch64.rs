//! Scores in fixed point and their softmax for 64-bit ARM: the definitions are in [`fixed`](super::fixed).

use std::arch::aarch64::*;
use std::arch::asm;

use super::aarch64::{dot_i8mm, sums_dotprod, widen};
use super::tile::{BASE, FIXED_ROWS, FOUR, FRACTION, FixedBiases, FixedTile, MAGIC, SHIFT, SUM_RUN, TILE_MAX, TileOf};

/// # Safety
/// The dot product; `k * 8` interleaved bytes in `a`, `k * 8` in `panel`; `k` a multiple of 16, at most 256; `to` holds the tile.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn scores_dotprod(a: &[u8], panel: &[i8], k: usize, tile: &FixedTile, to: &mut [u16]) {
    // SAFETY: the caller's lengths are those that the two functions ask for.
    unsafe {
        let sums = sums_dotprod(a, panel, k, vdupq_n_s32(MAGIC.to_bits().cast_signed()));
        finish(sums, tile, to);
    }
}

/// # Safety
/// The 8-bit matrix multiply; else as [`scores_dotprod`].
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn scores_i8mm(a: &[u8], panel: &[i8], k: usize, tile: &FixedTile, to: &mut [u16]) {
    let mut acc = TileOf([0; TILE_MAX]);
    // SAFETY: the caller's lengths are those that the functions ask for; the tile has 8 x 8 values.
    unsafe {
        dot_i8mm(a, panel, k, &mut acc);
        let start = vdupq_n_s32(MAGIC.to_bits().cast_signed());
        let load = |at: usize| vaddq_s32(vld1q_s32(acc.0.as_ptr().add(at)), start);
        finish(std::array::from_fn(|r| [load(r * 8), load(r * 8 + 4)]), tile, to);
    }
}

/// Sums of products, as numbers of f32 plus [`MAGIC`], to fixed point.
///
/// # Safety
/// `to` has room for eight rows of eight values, `tile.stride` apart.
#[inline(always)]
unsafe fn finish(sums: [[int32x4_t; 2]; FIXED_ROWS], tile: &FixedTile, to: &mut [u16]) {
    // SAFETY: NEON is part of every aarch64 target; eight factors of each kind, and the caller vouches for `to`.
    unsafe {
        let magic = vdupq_n_f32(MAGIC);
        let pair = |values: &[f32; 8]| [vld1q_f32(values.as_ptr()), vld1q_f32(values.as_ptr().add(4))];
        let (factors, zeros, scales, offsets) = (pair(tile.factors), pair(tile.zeros), pair(tile.scales), pair(tile.sums));
        macro_rules! row {
            ($to:ident, $start:expr, $row:literal, $half:literal, $lane:literal) => {
                let [low, high] = [0, 1].map(|i| {
                    let product = vmulq_f32(vsubq_f32(vreinterpretq_f32_s32(sums[$row][i]), magic), scales[i]);
                    let score = vfmsq_laneq_f32::<$lane>(product, offsets[i], zeros[$half]);
                    vreinterpretq_u16_f32(vfmaq_laneq_f32::<$lane>($start(i), score, factors[$half]))
                });
                // the lower halves of eight numbers
                vst1q_u16($to, vuzp1q_u16(low, high));
                $to = $to.wrapping_add(tile.stride);
            };
        }
        macro_rules! rows {
            ($(($row:literal, $half:literal, $lane:literal)),*) => {
                let mut to = to.as_mut_ptr();
                match &tile.biases {
                    None => { $(row!(to, |_: usize| magic, $row, $half, $lane);)* }
                    Some(FixedBiases { keys, powers }) => {
                        let (keys, powers) = (pair(keys), pair(powers));
                        $(row!(to, |i: usize| vfmaq_laneq_f32::<$lane>(magic, keys[i], powers[$half]), $row, $half, $lane);)*
                    }
                }
                let _ = to;
            };
        }
        rows!((0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 0), (5, 1, 1), (6, 1, 2), (7, 1, 3));
    }
}

/// Half precision has no stable intrinsics.
macro_rules! half {
    ($instruction:literal, $a:expr, $b:expr) => {{
        let result: uint16x8_t;
        asm!(
            concat!($instruction, " {to:v}.8h, {a:v}.8h, {b:v}.8h"),
            to = lateout(vreg) result, a = in(vreg) $a, b = in(vreg) $b,
            options(pure, nomem, nostack, preserves_flags)
        );
        result
    }};
}

/// The constants of [`weights`].
#[derive(Clone, Copy)]
struct Constants {
    max: int16x8_t,
    shift: int16x8_t,
    fraction: uint16x8_t,
    four: uint16x8_t,
    offset: uint16x8_t,
    base: uint16x8_t,
}

/// Eight weights of eight scores.
///
/// # Safety
/// Half-precision arithmetic.
#[inline(always)]
unsafe fn weights(of: &Constants, scores: uint16x8_t) -> uint16x8_t {
    // SAFETY: NEON is part of every aarch64 target, the caller vouches for half precision; no memory is touched.
    unsafe {
        let distance = vreinterpretq_u16_s16(vsubq_s16(of.max, vreinterpretq_s16_u16(scores)));
        let distance = vqshlq_u16(distance, of.shift);
        let base = half!("fadd", vbslq_u16(of.fraction, distance, of.four), of.offset);
        let mut weights = of.base;
        asm!(
            "fmla {to:v}.8h, {a:v}.8h, {a:v}.8h",
            to = inout(vreg) weights, a = in(vreg) base,
            options(pure, nomem, nostack, preserves_flags)
        );
        vqsubq_u16(weights, vbicq_u16(distance, of.fraction))
    }
}

/// # Safety
/// Half-precision arithmetic.
#[target_feature(enable = "neon,fp16")]
pub unsafe fn softmax(row: &mut [u16], shift: i32) -> f32 {
    let max = row_max(row);
    // SAFETY: NEON is part of every aarch64 target, the caller vouches for half precision; loads and stores are of arrays of eight.
    unsafe {
        let of = Constants {
            max: vdupq_n_s16(max),
            shift: vdupq_n_s16(shift as i16),
            fraction: vdupq_n_u16(FRACTION),
            four: vdupq_n_u16(FOUR),
            offset: vdupq_n_u16(SHIFT),
            base: vdupq_n_u16(BASE),
        };
        let mut total = vdupq_n_f32(0.0);
        for run in row.chunks_mut(SUM_RUN) {
            let mut sums = vdupq_n_u16(0);
            // 64 values hide the latency of a chain of dependent operations
            let (chunks, rest) = run.as_chunks_mut::<64>();
            for chunk in chunks {
                let at = chunk.as_mut_ptr();
                let values: [uint16x8_t; 8] = std::array::from_fn(|i| weights(&of, vld1q_u16(at.add(i * 8))));
                for (i, values) in values.into_iter().enumerate() {
                    vst1q_u16(at.add(i * 8), values);
                    sums = half!("fadd", sums, values);
                }
            }
            let (eights, rest) = rest.as_chunks_mut::<8>();
            for eight in eights {
                let values = weights(&of, vld1q_u16(eight.as_ptr()));
                vst1q_u16(eight.as_mut_ptr(), values);
                sums = half!("fadd", sums, values);
            }
            if !rest.is_empty() {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                vst1q_u16(last.as_mut_ptr(), weights(&of, vld1q_u16(last.as_ptr())));
                rest.copy_from_slice(&last[..rest.len()]);
                last[rest.len()..].fill(0);
                sums = half!("fadd", sums, vld1q_u16(last.as_ptr()));
            }
            let [low, high] = widen(sums);
            total = vaddq_f32(vaddq_f32(total, low), high);
        }
        let pairs = vpaddq_f32(total, total);
        1.0 / (vgetq_lane_f32::<0>(pairs) + vgetq_lane_f32::<1>(pairs))
    }
}

#[inline(always)]
fn row_max(row: &[u16]) -> i16 {
    let (chunks, rest) = row.as_chunks::<32>();
    // SAFETY: NEON is part of every aarch64 target; each load reads eight of a chunk's 32 values.
    let most = unsafe {
        let mut max = [vdupq_n_s16(i16::MIN); 4];
        for chunk in chunks {
            for (i, max) in max.iter_mut().enumerate() {
                *max = vmaxq_s16(*max, vld1q_s16(chunk.as_ptr().cast::<i16>().add(i * 8)));
            }
        }
        let [a, b, c, d] = max;
        vmaxvq_s16(vmaxq_s16(vmaxq_s16(a, b), vmaxq_s16(c, d)))
    };
    rest.iter().map(|score| score.cast_signed()).fold(most, i16::max)
}
