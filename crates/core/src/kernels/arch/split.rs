//! Products of f32 in matrix registers, which multiply bfloat16 only: each factor is the sum of two bfloat16, an upper and a lower part.
//!
//! ```text
//! x = upper + lower + error      upper = bf16(x), lower = bf16(x - upper), |error| <= 2^-17 |x|
//! a b = a_lower b_upper + a_upper b_upper + a_upper b_lower + error      |error| <= 2^-15 |a b|
//! ```
//!
//! Sums are f32. Parts below 2^-126 count as zero. A factor that is not finite, or that bfloat16 rounds to infinity (from 3.39e38 on), has NaN as its
//! lower part: what it is multiplied with becomes NaN.
//! Source: Henry, Tang and Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations".

#[cfg(target_arch = "x86_64")]
use super::isa::Kind;
use super::multiply::Products;
use super::tile::{Lines, SPLIT_LINES, SPLIT_STEP, Side, split_len};
#[cfg(target_arch = "x86_64")]
use super::{amx, split_x86_64};

impl Products {
    /// The panel of `lines`, [`split_len`] values; lines that are missing and what lies behind their ends are zero. Panics on an instruction set without
    /// [`Isa::has_matrix_registers`](super::Isa::has_matrix_registers): a bug of the caller.
    #[inline]
    pub fn pack_split(&self, lines: Lines, side: Side, to: &mut [u16]) {
        let Lines { values, count, depth, strides, .. } = lines;
        assert!(count <= SPLIT_LINES && strides.contains(&1) && to.len() == split_len(depth));
        assert!(count == 0 || depth == 0 || (count - 1) * strides[0] + (depth - 1) * strides[1] < values.len());
        match self.isa().kind() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Amx` token exists only where the CPU has AVX-512 F, BW and BF16; the assertions above hold for the lengths.
            Kind::Amx(_) => unsafe { split_x86_64::pack(&lines, side, to) },
            _ => unreachable!("an instruction set without matrix registers: {side:?}"),
        }
    }

    /// The product of 32 rows and 32 columns into rows of `to` that are `stride` values apart, in place of what is there or `onto` it. `left` and
    /// `right` hold two panels each. Panics as [`Products::pack_split`].
    #[inline]
    pub fn split(&self, left: &[u16], right: &[u16], onto: bool, to: &mut [f32], stride: usize) {
        let rows = 2 * SPLIT_LINES;
        assert!(left.len() == right.len() && left.len().is_multiple_of(2 * SPLIT_STEP));
        assert!(stride >= rows && to.len() >= (rows - 1) * stride + rows);
        match self.isa().kind() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Amx` token exists only where the CPU and the kernel permit AMX, and `self` has set the registers; the assertions above
            // hold for the lengths.
            Kind::Amx(_) => unsafe { amx::split(left, right, left.len() / (2 * SPLIT_STEP), onto, to.as_mut_ptr(), stride) },
            _ => unreachable!("an instruction set without matrix registers: {onto}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::half::{HalfFormat, bf16_instruction};
    use super::*;
    use crate::kernels::suite::{self, Bits};
    use crate::kernels::testing::numbers;

    /// Upper and lower part.
    fn parts(value: f32) -> [u16; 2] {
        let upper = HalfFormat::Bf16.round(value);
        [upper, HalfFormat::Bf16.round(value - HalfFormat::Bf16.widen(upper))]
    }

    fn sum(parts: [u16; 2]) -> f64 {
        parts.iter().map(|part| f64::from(HalfFormat::Bf16.widen(*part))).sum()
    }

    /// The definition of a panel.
    fn panel(lines: Lines, side: Side) -> Vec<u16> {
        let place = |at: usize| {
            let (step, lower, at) = (at / SPLIT_STEP, at / 512 % 2, at % 512);
            let (line, pair) = if side == Side::Left { (at / 32, at / 2 % 16) } else { (at / 2 % 16, at / 32) };
            (line, 32 * step + pair + 16 * (at % 2), lower)
        };
        let value = |(line, i, lower): (usize, usize, usize)| {
            if line >= lines.count || i >= lines.depth {
                return 0;
            }
            parts(lines.values[line * lines.strides[0] + i * lines.strides[1]] * lines.factor)[lower]
        };
        (0..split_len(lines.depth)).map(place).map(value).collect()
    }

    /// The definition of an element of a product of two panels each, to the bit.
    fn product(left: &[u16], right: &[u16], start: f32, row: usize, column: usize) -> f32 {
        let half = left.len() / 2;
        let (left, right) = (&left[row / 16 * half..], &right[column / 16 * half..]);
        let steps = half / SPLIT_STEP;
        (0..steps).fold(start, |sum, step| {
            let a = |lower: usize| &left[step * SPLIT_STEP + lower * 512 + row % 16 * 32..][..32];
            let b = |lower: usize| -> Vec<u16> {
                (0..32).map(|i| right[step * SPLIT_STEP + lower * 512 + i / 2 * 32 + column % 16 * 2 + i % 2]).collect()
            };
            [(1, 0), (0, 0), (0, 1)].into_iter().fold(sum, |sum, (of_a, of_b)| bf16_instruction(sum, a(of_a), &b(of_b)))
        })
    }

    #[test]
    fn two_parts_hold_17_bits() {
        for value in suite::tails(1.0).concat().into_iter().chain(suite::tails(1e30).concat()) {
            assert!((sum(parts(value)) - f64::from(value)).abs() <= 2f64.powi(-17) * f64::from(value.abs()), "{value:e}");
        }
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            assert!(sum(parts(value)).is_nan(), "{value:e}");
        }
    }

    /// Panels of every number of lines and length, of both strides, and their products.
    #[test]
    fn panels_and_products_conform() {
        suite::each_isa(|isa| {
            for (count, depth) in [(16, 32), (16, 64), (1, 1), (7, 31), (15, 17), (16, 100), (3, 16), (0, 40), (5, 0)] {
                let mut values = numbers(17 * 103, depth as u32);
                values[..3].copy_from_slice(&[f32::INFINITY, f32::NAN, -f32::MAX]);
                for (strides, factor) in [([103, 1], 1.0), ([1, 17], 0.3)] {
                    let lines = Lines { values: &values[..], count, depth, strides, factor };
                    for side in [Side::Left, Side::Right] {
                        let expected = panel(lines, side);
                        if !isa.has_matrix_registers() {
                            continue;
                        }
                        let mut ours = vec![7; expected.len()];
                        isa.products().pack_split(lines, side, &mut ours);
                        let wrong = ours.iter().zip(&expected).position(|(a, b)| {
                            let [a, b] = [a, b].map(|part| HalfFormat::Bf16.widen(*part));
                            !a.same(&b)
                        });
                        assert_eq!(wrong, None, "{count} lines of {depth}, {strides:?}, {side:?}");
                    }
                }
            }
        });
    }

    /// The definition is near the product of the values, and matrix registers give its bits.
    #[test]
    fn products_conform() {
        for (depth, onto) in [(1, false), (32, true), (77, false), (300, true)] {
            let (a, b) = (numbers(32 * depth, 1), numbers(32 * depth, 2));
            let two = |values: &[f32], side: Side| -> Vec<u16> {
                let of = |values| panel(Lines { values, count: 16, depth, strides: [depth, 1], factor: 1.0 }, side);
                values.chunks(16 * depth).flat_map(of).collect()
            };
            let (left, right) = (two(&a, Side::Left), two(&b, Side::Right));
            let before = numbers(32 * 40, 3);
            let start = |at: usize| if onto { before[at] } else { 0.0 };
            let expected: Vec<f32> =
                (0..32 * 32).map(|at| product(&left, &right, start(at / 32 * 40 + at % 32), at / 32, at % 32)).collect();
            for (at, ours) in expected.iter().enumerate() {
                let (a, b) = (&a[at / 32 * depth..][..depth], &b[at % 32 * depth..][..depth]);
                let products = || a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let exact = f64::from(start(at / 32 * 40 + at % 32)) + products().sum::<f64>();
                // of each product 2^-15, and f32 sums of 3 * depth products below 1
                let bound = 2f64.powi(-15) * products().map(f64::abs).sum::<f64>() + 1e-6 * depth as f64;
                assert!((f64::from(*ours) - exact).abs() < bound, "{depth}: {ours} instead of {exact}");
            }
            suite::each_isa(|isa| {
                if isa.has_matrix_registers() {
                    let mut ours = before.clone();
                    isa.products().split(&left, &right, onto, &mut ours, 40);
                    for (at, (ours, before)) in ours.iter().zip(&before).enumerate() {
                        let expected = if at % 40 < 32 { expected[at / 40 * 32 + at % 40] } else { *before };
                        assert!(ours.same(&expected), "{depth}, value {at}: {ours} instead of {expected}");
                    }
                }
            });
        }
    }
}
