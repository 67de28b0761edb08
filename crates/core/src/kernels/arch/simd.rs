//! Sixteen lanes of f32 and the tokens that make them.

use super::arithmetic::Arithmetic;
use super::half::to_half;
use super::token::Scalar;

/// Sixteen numbers.
pub trait Lanes: Arithmetic {
    /// The lanes, in order.
    fn store(self) -> [f32; 16];
    /// The lanes into `to`, in order.
    #[inline(always)]
    fn write(self, to: &mut [f32; 16]) {
        *to = self.store();
    }
    /// The smaller of each pair; `other` where `self` is NaN.
    fn min(self, other: Self) -> Self;
    /// The larger of each pair; `other` where `self` is NaN.
    fn max(self, other: Self) -> Self;
    /// The sum of the lanes, pairwise.
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        self.reduce_pairwise(|a, b| a + b)
    }
    /// The smallest lane; none is NaN.
    #[inline(always)]
    fn reduce_min(self) -> f32 {
        self.reduce_pairwise(|a, b| if a < b { a } else { b })
    }
    /// The largest lane; none is NaN.
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        self.reduce_pairwise(|a, b| if a > b { a } else { b })
    }
    /// Lane i and lane i + 8 become one, then those 4 apart, 2, 1.
    #[inline(always)]
    fn reduce_pairwise(self, operation: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = self.store();
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                lanes[i] = operation(lanes[i], lanes[i + width]);
            }
        }
        lanes[0]
    }
    /// To the nearest i8, ties to even; what is outside saturates, NaN becomes 0. The bits of `FLIP` are inverted.
    fn round_i8<const FLIP: u8>(self) -> [u8; 16];
}

/// The token of an instruction set: its vectors come from nowhere else, so a vector proves the instruction set as the token does.
pub trait Simd: Copy {
    /// Sixteen numbers in registers of this instruction set.
    type Vector: Lanes;
    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::Vector;
    /// The lanes, in order.
    fn load(self, values: &[f32; 16]) -> Self::Vector;
    /// `integers - subtracted * factor`, as f32.
    #[inline(always)]
    fn load_difference(self, integers: &[i32; 16], subtracted: &[i32; 16], factor: i32) -> Self::Vector {
        let mut values = [0.0; 16];
        for ((value, integer), subtracted) in values.iter_mut().zip(integers).zip(subtracted) {
            *value = integer.wrapping_sub(subtracted.wrapping_mul(factor)) as f32;
        }
        self.load(&values)
    }
    /// Rows become columns.
    #[inline(always)]
    fn transpose(self, block: &mut [[f32; 16]; 16]) {
        *block = std::array::from_fn(|column| std::array::from_fn(|row| block[row][column]));
    }
    /// As [`to_half`]; numbers below 2^-126 may become zero.
    #[inline(always)]
    fn store_half(self, vector: Self::Vector, to: &mut [u16; 16]) {
        to_half(&vector.store(), to);
    }
}

impl Arithmetic for [f32; 16] {
    fn splat(self, value: f32) -> Self {
        [value; 16]
    }
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }
    fn mul(self, factor: Self) -> Self {
        std::array::from_fn(|i| self[i] * factor[i])
    }
    fn mul_add(self, factor: Self, term: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(factor[i], term[i]))
    }
    fn clamp_min(self, low: f32) -> Self {
        self.map(|value| value.clamp_min(low))
    }
    fn clamp_max(self, high: f32) -> Self {
        self.map(|value| value.clamp_max(high))
    }
    fn ldexp(self, exponent: Self) -> Self {
        std::array::from_fn(|i| self[i].ldexp(exponent[i]))
    }
}

impl Lanes for [f32; 16] {
    fn store(self) -> [f32; 16] {
        self
    }
    fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
    fn round_i8<const FLIP: u8>(self) -> [u8; 16] {
        self.map(|value| value.round_ties_even() as i8 as u8 ^ FLIP)
    }
}

impl Simd for Scalar {
    type Vector = [f32; 16];
    fn splat(self, value: f32) -> [f32; 16] {
        [value; 16]
    }
    fn load(self, values: &[f32; 16]) -> [f32; 16] {
        *values
    }
}
