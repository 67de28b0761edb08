//! Polynomials that vector code and scalar code share.

use super::arithmetic::Arithmetic;

/// Coefficients for [`exp_by`], our own fits of least relative error: 9e-8.
pub const EXP: [f32; 5] = [1.326_472_7e-3, 9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, std::f32::consts::LN_2];

/// Coefficients for [`exp_by`] with a relative error of 1.1e-4.
pub const EXP_ROUGH: [f32; 3] = [5.500_893_3e-2, 2.422_109_7e-1, 6.932_829e-1];

/// `e^x` for x up to 88: `x log2(e)` splits into an integer, which goes into the exponent, and a rest in -1/2..=1/2, of which
/// `1 + rest polynomial(rest)` gives `2^rest`.
#[inline(always)]
pub fn exp_by<A: Arithmetic, const N: usize>(x: A, coefficients: [f32; N]) -> A {
    let (log2e, round) = (x.splat(std::f32::consts::LOG2_E), x.splat(12_582_912.0)); // 1.5 * 2^23
    let x = x.clamp_min(-87.0);
    let shifted = x.mul_add(log2e, round);
    let rest = x.mul_add(log2e, round.sub(shifted));
    let mut p = x.splat(coefficients[0]);
    for c in &coefficients[1..] {
        p = p.mul_add(rest, x.splat(*c));
    }
    p.mul_add(rest, x.splat(1.0)).ldexp(shifted)
}

/// GELU without a division, for the results of int8 products: its error is 3.2e-4 at most, and a step of such values exceeds 1e-2. `Φ(x) = 1/2 + x g(x^2)` with our own fit of degree 6 to g on -4..=4, in the variable that maps x^2 to -1..=1.
#[inline(always)]
pub fn gelu_rough<A: Arithmetic>(x: A) -> A {
    let bounded = x.clamp_min(-4.0);
    let near = bounded.clamp_max(4.0);
    let t = near.mul(near).mul_add(x.splat(0.125), x.splat(-1.0));
    let mut g = x.splat(5.971_986e-3);
    for c in [-1.655_088_7e-2, 2.409_110_8e-2, -3.546_235e-2, 5.541_017_7e-2, -8.442_662e-2, 1.759_702_1e-1] {
        g = g.mul_add(t, x.splat(c));
    }
    bounded.mul(near.mul_add(g, x.splat(0.5)))
}
