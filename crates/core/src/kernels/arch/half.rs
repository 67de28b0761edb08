//! Half-precision formats, and the definitions of the tiles that multiply them.
//!
//! x86-64 multiplies bfloat16, 64-bit ARM IEEE binary16. [`HalfSums`] names the format and the order of the additions of a tile;
//! [`multiply`] defines its result to the last bit.
//!
//! Tested here against the instructions of AVX-512 BF16 and of Armv8.2 half precision. The order of `tdpbf16ps` is from the manual: a CPU
//! with AMX checks it when it runs the tests.

use super::isa::Isa;
use super::tile::{F16_RUN, HalfSums, HalfTile, TileOf};

#[cfg(target_arch = "aarch64")]
pub use super::aarch64::to_half;

/// A 16-bit floating-point format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfFormat {
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE 754 binary16.
    F16,
}

impl HalfFormat {
    /// The format of half-precision tiles on this target.
    pub const NATIVE: HalfFormat = if cfg!(target_arch = "aarch64") { HalfFormat::F16 } else { HalfFormat::Bf16 };

    /// `value` rounded to nearest, ties to even. NaN gives a quiet NaN, values beyond the largest number infinity.
    #[inline(always)]
    pub fn round(self, value: f32) -> u16 {
        match self {
            HalfFormat::Bf16 => round_bf16(value),
            HalfFormat::F16 => round_f16(value),
        }
    }

    /// The value of `half`, exactly.
    pub fn widen(self, half: u16) -> f32 {
        match self {
            HalfFormat::Bf16 => f32::from_bits(u32::from(half) << 16),
            HalfFormat::F16 => widen_f16(half),
        }
    }
}

impl Isa {
    /// Whether tiles are computed by matrix registers (AMX): products are cheap there against what is around them.
    pub fn has_matrix_registers(self) -> bool {
        self.half_tile().is_some_and(|tile| tile.sums == HalfSums::EvenAndOdd)
    }

    /// Whether the half-precision tile multiplies bfloat16, whose range is that of f32.
    pub fn has_bf16(self) -> bool {
        self.half_tile().is_some() && HalfFormat::NATIVE == HalfFormat::Bf16
    }
}

#[inline(always)]
fn round_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { 0x7fc0 } else { rounded as u16 }
}

fn round_f16(value: f32) -> u16 {
    if value.is_nan() {
        return 0x7e00 | sign(value);
    }
    // as a multiple of 2^-149, the smallest f32, which i128 cannot hold for large values: those are infinite before that
    if value.abs() >= 65_520.0 {
        return 0x7c00 | sign(value);
    }
    // a multiple of 2^-48, rounded to odd below that: far below half of the smallest f16
    let scaled = f64::from(value.abs()) * 2f64.powi(48);
    let whole = scaled.trunc() as i128;
    f16_of_fixed(whole | i128::from(scaled.fract() != 0.0)) | sign(value)
}

fn sign(value: f32) -> u16 {
    if value.is_sign_negative() { 0x8000 } else { 0 }
}

/// The f16 nearest to `fixed * 2^-48`, ties to even; `fixed` is not negative.
fn f16_of_fixed(fixed: i128) -> u16 {
    if fixed == 0 {
        return 0;
    }
    // the highest bit counts 2^exponent; below 2^-14 the numbers are subnormal, steps of 2^-24
    let exponent = (127 - fixed.leading_zeros() as i32 - 48).max(-14);
    let dropped = (exponent - 10 + 48) as u32;
    let (kept, rest, tie) = (fixed >> dropped, fixed & ((1 << dropped) - 1), 1i128 << (dropped - 1));
    let rounded = kept + i128::from(rest > tie || (rest == tie && kept & 1 == 1));
    // a carry moves into the exponent, and from the largest number to infinity
    let bits = i128::from(exponent + 14) * 1024 + rounded;
    bits.min(0x7c00) as u16
}

fn widen_f16(half: u16) -> f32 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f32::from(half & 1023));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if half & 0x8000 == 0 { size } else { -size }
}

/// `from` in the format of half-precision tiles, here bfloat16: [`HalfFormat::round`] of each value. `to` is at least as long.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
pub fn to_half(from: &[f32], to: &mut [u16]) {
    for (to, value) in to.iter_mut().zip(from) {
        *to = round_bf16(*value);
    }
}

/// The definition of [`Products::half`](super::Products::half) for tiles of this shape: the same bits, but for the payload of a NaN.
///
/// `a` holds `mr` rows, `stride` values apart; `panel` is `[k / kr][nr][kr]`; `acc` gets `[mr][nr]`.
pub fn multiply(tile: HalfTile, a: &[u16], stride: usize, panel: &[u16], k: usize, acc: &mut TileOf<f32>) {
    let HalfTile { mr, nr, kr, sums, .. } = tile;
    for (r, c) in (0..mr).flat_map(|r| (0..nr).map(move |c| (r, c))) {
        let left = &a[r * stride..][..k];
        let right: Vec<u16> = (0..k).map(|i| panel[i / kr * kr * nr + c * kr + i % kr]).collect();
        acc.0[r * nr + c] = match sums {
            HalfSums::Pairs => bf16_pairs(left, &right),
            HalfSums::EvenAndOdd => bf16_even_and_odd(left, &right),
            HalfSums::Runs => f16_runs(left, &right),
        };
    }
}

/// Subnormal numbers become zero, as AVX-512 BF16 does whatever the thread's control register says.
fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// `sum + a * b` of bfloat16, rounded once; subnormal numbers are zero on the way in and out.
fn bf16_fma(a: u16, b: u16, sum: f32) -> f32 {
    let [a, b] = [a, b].map(|half| flush(HalfFormat::Bf16.widen(half)));
    flush(a.mul_add(b, sum))
}

/// `vdpbf16ps` (Intel SDM, volume 2): of each pair of products, that of the upper element is added first.
fn bf16_pairs(left: &[u16], right: &[u16]) -> f32 {
    left.as_chunks::<2>().0.iter().zip(right.as_chunks::<2>().0).fold(0.0, |sum, (a, b)| bf16_fma(a[0], b[0], bf16_fma(a[1], b[1], sum)))
}

/// `tdpbf16ps` (Intel SDM, volume 2): of the up to 32 products of an instruction, those of the even and of the odd elements are summed
/// apart, then together, then added to the accumulator.
fn bf16_even_and_odd(left: &[u16], right: &[u16]) -> f32 {
    left.chunks(32).zip(right.chunks(32)).fold(0.0, |sum, (left, right)| bf16_instruction(sum, left, right))
}

/// One element of `tdpbf16ps`: see [`bf16_even_and_odd`].
pub(super) fn bf16_instruction(sum: f32, left: &[u16], right: &[u16]) -> f32 {
    let [even, odd] = [0, 1].map(|first| {
        let pairs = left.iter().zip(right).skip(first).step_by(2);
        pairs.fold(0.0, |sum, (a, b)| bf16_fma(*a, *b, sum))
    });
    flush(sum + flush(even + odd))
}

/// `fmla` of half precision: each product is added with one rounding to f16; the sums of [`F16_RUN`] products are added in f32.
fn f16_runs(left: &[u16], right: &[u16]) -> f32 {
    left.chunks(F16_RUN).zip(right.chunks(F16_RUN)).fold(0.0, |total, (left, right)| {
        let run = left.iter().zip(right).fold(0, |sum, (a, b)| f16_fma(*a, *b, sum));
        total + HalfFormat::F16.widen(run)
    })
}

/// `sum + a * b`, rounded once to f16. All finite numbers are multiples of 2^-24, so the exact result is a multiple of 2^-48.
fn f16_fma(a: u16, b: u16, sum: u16) -> u16 {
    let [a, b, sum] = [a, b, sum].map(|half| HalfFormat::F16.widen(half));
    if !(a.is_finite() && b.is_finite() && sum.is_finite()) {
        return HalfFormat::F16.round(a.mul_add(b, sum));
    }
    let fixed = |value: f32, bits: i32| (f64::from(value) * 2f64.powi(bits)) as i128;
    let exact = fixed(a, 24) * fixed(b, 24) + fixed(sum, 48);
    match exact {
        // the sign of a zero: negative only when both terms are
        0 => sign(a * b + sum),
        _ => f16_of_fixed(exact.abs()) | if exact < 0 { 0x8000 } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_number_survives_the_way_there_and_back() {
        for format in [HalfFormat::Bf16, HalfFormat::F16] {
            for half in 0..=u16::MAX {
                let value = format.widen(half);
                match value.is_nan() {
                    true => assert!(format.widen(format.round(value)).is_nan(), "{format:?} {half:#06x}"),
                    false => assert_eq!(format.round(value), half, "{format:?} {half:#06x}"),
                }
            }
        }
    }

    /// Between two neighbours the nearer one, in the middle the even one: by comparison, without arithmetic on bits.
    #[test]
    fn rounding_gives_the_nearest_and_ties_the_even_one() {
        for (format, largest) in [(HalfFormat::Bf16, 0x7f7f_u16), (HalfFormat::F16, 0x7bff)] {
            for half in (0..largest).step_by(7) {
                let (low, high) = (f64::from(format.widen(half)), f64::from(format.widen(half + 1)));
                let middle = ((low + high) / 2.0) as f32; // exact: one bit more than either
                let even = if half % 2 == 0 { half } else { half + 1 };
                for (value, expected) in [(middle, even), (middle.next_down(), half), (middle.next_up(), half + 1)] {
                    assert_eq!(format.round(value), expected, "{format:?} {value:e}");
                    assert_eq!(format.round(-value), expected | 0x8000, "{format:?} {:e}", -value);
                }
            }
        }
        let f16 = |value: f32| HalfFormat::F16.round(value);
        assert_eq!([f16(65_519.9), f16(65_520.0), f16(f32::MAX), f16(f32::INFINITY), f16(1e-30)], [0x7bff, 0x7c00, 0x7c00, 0x7c00, 0]);
        assert_eq!([HalfFormat::Bf16.round(f32::MAX), HalfFormat::Bf16.round(-f32::INFINITY)], [0x7f80, 0xff80]);
    }
}
