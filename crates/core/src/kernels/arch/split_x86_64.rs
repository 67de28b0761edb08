//! Panels of factors in two bfloat16, for matrix registers.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::tile::{Lines, SPLIT_LINES, SPLIT_STEP, Side};

/// Sixteen pairs of lines, or lines of sixteen pairs.
type Square = [__m512i; SPLIT_LINES];

/// [`Products::pack_split`](super::Products::pack_split).
///
/// # Safety
/// AVX-512 F, BW and BF16; every value of `lines` lies in its slice, and one of its strides is 1; `to` holds whole steps.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack(lines: &Lines, side: Side, to: &mut [u16]) {
    for (step, to) in to.chunks_exact_mut(SPLIT_STEP).enumerate() {
        let first = step * SPLIT_STEP / (2 * SPLIT_LINES);
        let along = lines.strides[1] == 1;
        // SAFETY: the caller's promise.
        let [mut upper, mut lower] = unsafe { if along { along_lines(lines, first) } else { across_lines(lines, first) } };
        if along != (side == Side::Left) {
            (upper, lower) = (transposed(upper), transposed(lower));
        }
        for (at, (upper, lower)) in upper.into_iter().zip(lower).enumerate() {
            // SAFETY: a step has room for twice 16 rows of 32 values.
            unsafe {
                _mm512_storeu_si512(to.as_mut_ptr().add(32 * at).cast(), upper);
                _mm512_storeu_si512(to.as_mut_ptr().add(32 * (SPLIT_LINES + at)).cast(), lower);
            }
        }
    }
}

/// The first `count` of sixteen lanes.
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

/// 32 values along each of 16 lines from `first` on, where these lie side by side.
///
/// # Safety
/// As [`pack`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along_lines(lines: &Lines, first: usize) -> [Square; 2] {
    let (mut upper, mut lower) = ([_mm512_setzero_si512(); SPLIT_LINES], [_mm512_setzero_si512(); SPLIT_LINES]);
    let (factor, left) = (_mm512_set1_ps(lines.factor), lines.depth - first);
    let masks = [mask(left), mask(left.saturating_sub(16))];
    for line in 0..SPLIT_LINES {
        let masks = if line < lines.count { masks } else { [0; 2] };
        let start = lines.values.as_ptr().wrapping_add(line * lines.strides[0] + first);
        // SAFETY: lanes beyond the last line and its end are not read; the others are in the slice.
        let parts = unsafe { [_mm512_maskz_loadu_ps(masks[0], start), _mm512_maskz_loadu_ps(masks[1], start.wrapping_add(16))] };
        [upper[line], lower[line]] = split(parts, factor);
    }
    [upper, lower]
}

/// The pairs of [`along_lines`], where the same value of all lines lies side by side.
///
/// # Safety
/// As [`pack`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn across_lines(lines: &Lines, first: usize) -> [Square; 2] {
    let (mut upper, mut lower) = ([_mm512_setzero_si512(); SPLIT_LINES], [_mm512_setzero_si512(); SPLIT_LINES]);
    let (factor, all) = (_mm512_set1_ps(lines.factor), mask(lines.count));
    for pair in 0..SPLIT_LINES {
        // SAFETY: lanes beyond the last line and its end are not read; the others are in the slice.
        let parts = [first + pair, first + pair + 16].map(|at| unsafe {
            let mask = if at < lines.depth { all } else { 0 };
            _mm512_maskz_loadu_ps(mask, lines.values.as_ptr().wrapping_add(at * lines.strides[1]))
        });
        [upper[pair], lower[pair]] = split(parts, factor);
    }
    [upper, lower]
}

/// Pairs of the upper parts of `values * factor`, and pairs of the lower parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn split(values: [__m512; 2], factor: __m512) -> [__m512i; 2] {
    let [a, b] = [_mm512_mul_ps(values[0], factor), _mm512_mul_ps(values[1], factor)];
    let upper = pairs(a, b);
    let a_upper = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper));
    let b_upper = _mm512_castsi512_ps(_mm512_and_si512(upper, _mm512_set1_epi32(0xffff_0000_u32 as i32)));
    [upper, pairs(_mm512_sub_ps(a, a_upper), _mm512_sub_ps(b, b_upper))]
}

/// Of each lane, `a` rounded to bfloat16 and `b` behind it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pairs(a: __m512, b: __m512) -> __m512i {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut at = 0;
        while at < 32 {
            order[at] = (at / 2 + at % 2 * 16) as u16;
            at += 1;
        }
        order
    };
    // SAFETY: both are 512 bits without a forbidden pattern.
    let (halves, order) = unsafe { (transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a)), transmute::<[u16; 32], __m512i>(ORDER)) };
    _mm512_permutexvar_epi16(order, halves)
}

/// Rows become columns, of 32 bits each: first in squares of 4 x 4, then these squares.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: Square) -> Square {
    let (mut twos, mut fours, mut columns) = (rows, rows, rows);
    for at in (0..16).step_by(2) {
        twos[at] = _mm512_unpacklo_epi32(rows[at], rows[at + 1]);
        twos[at + 1] = _mm512_unpackhi_epi32(rows[at], rows[at + 1]);
    }
    for at in (0..16).step_by(4) {
        for half in 0..2 {
            fours[at + 2 * half] = _mm512_unpacklo_epi64(twos[at + half], twos[at + half + 2]);
            fours[at + 2 * half + 1] = _mm512_unpackhi_epi64(twos[at + half], twos[at + half + 2]);
        }
    }
    for at in 0..4 {
        let (a, b) = (fours[at], fours[at + 4]);
        let (c, d) = (fours[at + 8], fours[at + 12]);
        let even = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d)];
        let odd = [_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d)];
        columns[at] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        columns[at + 4] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        columns[at + 8] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        columns[at + 12] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}
