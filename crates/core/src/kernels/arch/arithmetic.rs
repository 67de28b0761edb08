//! Arithmetic on one number or on sixteen.

/// One number or sixteen.
///
/// All implementations round as IEEE 754 says, so an expression has the same bits in each.
pub trait Arithmetic: Copy {
    /// `value` in every lane.
    fn splat(self, value: f32) -> Self;
    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// `self - other`
    fn sub(self, other: Self) -> Self;
    /// `self * factor`
    fn mul(self, factor: Self) -> Self;
    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// What is below `low` becomes `low`; NaN stays.
    fn clamp_min(self, low: f32) -> Self;
    /// What is above `high` becomes `high`; NaN stays.
    fn clamp_max(self, high: f32) -> Self;
    /// `self * 2^n`, where n stands in the lowest mantissa bits of `exponent`.
    fn ldexp(self, exponent: Self) -> Self;
}

impl Arithmetic for f32 {
    #[inline(always)]
    fn splat(self, value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    fn mul(self, factor: Self) -> Self {
        self * factor
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        f32::mul_add(self, factor, term)
    }
    #[inline(always)]
    fn clamp_min(self, low: f32) -> Self {
        if self < low { low } else { self }
    }
    #[inline(always)]
    fn clamp_max(self, high: f32) -> Self {
        if self > high { high } else { self }
    }
    #[inline(always)]
    fn ldexp(self, exponent: Self) -> Self {
        f32::from_bits(self.to_bits().wrapping_add(exponent.to_bits() << 23))
    }
}
