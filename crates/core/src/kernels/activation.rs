//! The non-linearities of the network, element by element.

use super::arch::{Arithmetic, Isa, per_isa, vectorization_barrier};

/// What happens to the output of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    Identity,
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    Relu,
    /// `x sigmoid(x)`.
    Silu,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
}

/// `e^x` for softmax and sigmoids: relative error below 5e-7 down to e^-20; x is limited to -87..=88, NaN stays.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_by(if x > 88.0 { 88.0 } else { x }, EXP)
}

/// Coefficients for [`exp_by`], our own fits of least relative error: 9e-8.
pub const EXP: [f32; 5] = [1.326_472_7e-3, 9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, std::f32::consts::LN_2];

/// To 1.1e-4.
pub const EXP_ROUGH: [f32; 3] = [5.500_893_3e-2, 2.422_109_7e-1, 6.932_829e-1];

/// `e^x` for x up to 88: `x log2(e)` splits into an integer, which goes into the exponent, and a rest in -1/2..=1/2, of which
/// `1 + rest polynomial(rest)` gives `2^rest`.
#[inline(always)]
pub fn exp_by<A: Arithmetic, const N: usize>(x: A, coefficients: [f32; N]) -> A {
    let (log2e, round) = (A::splat(std::f32::consts::LOG2_E), A::splat(12_582_912.0)); // 1.5 * 2^23
    let x = x.clamp_min(-87.0);
    let shifted = x.mul_add(log2e, round);
    let rest = x.mul_add(log2e, round.sub(shifted));
    let mut p = A::splat(coefficients[0]);
    for c in &coefficients[1..] {
        p = p.mul_add(rest, A::splat(*c));
    }
    p.mul_add(rest, A::splat(1.0)).ldexp(shifted)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function as an odd rational function of degree 13/8 on -4..=4, the minimax fit that Eigen and XLA use; error below 4e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = if x < -4.0 { -4.0 } else { x };
    let x = if x > 4.0 { 4.0 } else { x };
    let z = x * x;
    let mut p = -2.726_142_3e-10_f32;
    for c in [2.770_681_4e-8, -2.101_024_e-6, -5.692_506_3e-5, -7.349_906_3e-4, -2.954_6e-3, -0.016_096_034] {
        p = p.mul_add(z, c);
    }
    let mut q = -1.456_607_2e-5_f32;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        q = q.mul_add(z, c);
    }
    x * p / q
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    let half = 0.5 * x;
    half.mul_add(erf(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// GELU without a division, for values that come from int8 products: off by at most 3.2e-4, where a step of such values is larger
/// than 1e-2. `Φ(x) = 1/2 + x g(x^2)` with our own fit of degree 6 to g on -4..=4, in the variable that maps x^2 to -1..=1.
#[inline(always)]
pub fn gelu_rough<A: Arithmetic>(x: A) -> A {
    let bounded = x.clamp_min(-4.0);
    let near = bounded.clamp_max(4.0);
    let t = near.mul(near).mul_add(A::splat(0.125), A::splat(-1.0));
    let mut g = A::splat(5.971_986e-3);
    for c in [-1.655_088_7e-2, 2.409_110_8e-2, -3.546_235e-2, 5.541_017_7e-2, -8.442_662e-2, 1.759_702_1e-1] {
        g = g.mul_add(t, A::splat(c));
    }
    bounded.mul(near.mul_add(g, A::splat(0.5)))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // 0.5 (1 + tanh y) = sigmoid(2 y) with y = sqrt(2 / pi) (x + 0.044715 x^3)
    let cubic = (x * x).mul_add(0.044_715, 1.0) * x;
    x * sigmoid(1.595_769_2 * cubic)
}

/// `function` of every value, sixteen at a time: several chains of dependent operations hide each other's latency.
#[inline(always)]
pub fn map(values: &mut [f32], function: impl Fn(f32) -> f32) {
    let (chunks, rest) = values.as_chunks_mut::<16>();
    for chunk in chunks {
        vectorization_barrier();
        for value in chunk.iter_mut() {
            *value = function(*value);
        }
    }
    for value in rest {
        *value = function(*value);
    }
}

#[inline(always)]
fn apply(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Gelu => map(values, gelu),
        Activation::GeluTanh => map(values, gelu_tanh),
        Activation::Relu => map(
            values,
            #[inline(always)]
            |x| if x > 0.0 { x } else { x * 0.0 },
        ),
        Activation::Silu => map(
            values,
            #[inline(always)]
            |x| x * sigmoid(x),
        ),
        Activation::QuickGelu => map(
            values,
            #[inline(always)]
            |x| x * sigmoid(1.702 * x),
        ),
    }
}

per_isa! {
    /// Applies `activation` to every value of `values`.
    pub fn activate(activation: Activation, values: &mut [f32]) = apply;
}
/// [`activate`] for values that come from int8 products, where a faster GELU is exact enough.
pub fn activate_int8(isa: Isa, activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Gelu => isa.gelu_rough(values),
        other => activate(isa, other, values),
    }
}

#[inline(always)]
fn gate_body(activation: Activation, gate: &mut [f32], up: &[f32]) {
    apply(activation, gate);
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up);
}

per_isa! {
    /// `gate = activation(gate) * up`, the inner half of a gated MLP.
    pub fn gate(activation: Activation, gate: &mut [f32], up: &[f32]) = gate_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its series and continued fraction, in f64.
    fn erf64(x: f64) -> f64 {
        if x.abs() > 4.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn truth(activation: Activation, x: f64) -> f64 {
        let sigmoid = |y: f64| 1.0 / (1.0 + (-y).exp());
        match activation {
            Activation::Identity => x,
            Activation::Gelu => 0.5 * x * (1.0 + erf64(x / 2f64.sqrt())),
            Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x * sigmoid(x),
            Activation::QuickGelu => x * sigmoid(1.702 * x),
        }
    }

    const ALL: [Activation; 6] =
        [Activation::Identity, Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::QuickGelu];

    #[test]
    fn agree_with_their_definitions_and_are_the_same_bits_everywhere() {
        let values: Vec<f32> = (-2000..=2003).map(|i| i as f32 / 100.0).collect();
        for activation in ALL {
            let mut reference = values.clone();
            activate(Isa::SCALAR, activation, &mut reference);
            for (x, y) in values.iter().zip(&reference) {
                let expected = truth(activation, f64::from(*x));
                // the error of erf (4e-7) and of sigmoid (5e-7), times x
                let bound = 1e-6 * f64::from(x.abs()).max(1.0);
                assert!((f64::from(*y) - expected).abs() < bound, "{activation:?}({x}) = {y}, not {expected}");
            }
            for isa in Isa::available() {
                let mut ours = values.clone();
                activate(isa, activation, &mut ours);
                assert_eq!(ours, reference, "{activation:?} {}", isa.name());
            }
        }
    }

    #[test]
    fn the_rough_gelu_is_near_the_exact_one() {
        let values: Vec<f32> = (-90_000..=90_001).map(|i| i as f32 / 10_000.0).collect();
        let mut reference = values.clone();
        activate_int8(Isa::SCALAR, Activation::Gelu, &mut reference);
        for (x, y) in values.iter().zip(&reference) {
            assert!((f64::from(*y) - truth(Activation::Gelu, f64::from(*x))).abs() < 3.2e-4, "{x}: {y}");
        }
        for isa in Isa::available() {
            let mut ours = values.clone();
            activate_int8(isa, Activation::Gelu, &mut ours);
            assert_eq!(ours, reference, "{}", isa.name());
            let mut extremes = [[f32::NAN, 1e30, -1e30, 0.0]; 5];
            activate_int8(isa, Activation::Gelu, extremes.as_flattened_mut());
            for [nan, large, small, zero] in extremes {
                assert!(nan.is_nan() && large > 9e29 && small.abs() < 3.2e-4 && zero == 0.0, "{}", isa.name());
            }
        }
    }

    #[test]
    fn nan_stays_and_extremes_are_finite_or_themselves() {
        for isa in Isa::available() {
            for activation in ALL {
                let mut values = [f32::NAN, 1e30, -1e30, 0.0, -0.0, 1e-40];
                activate(isa, activation, &mut values);
                assert!(values[0].is_nan(), "{activation:?} {}", isa.name());
                assert!(values[1] > 9e29 && values[2] <= 0.0 && values[3] == 0.0, "{activation:?} {values:?}");
            }
        }
    }

    #[test]
    fn exp_agrees_with_the_library() {
        for i in -20_000..20_000 {
            let x = i as f32 / 1000.0;
            let (ours, truth) = (f64::from(exp(x)), f64::from(x).exp());
            // 20 log2(e) is 29: half a unit of its last place is 1e-6 of the result
            assert!((ours / truth - 1.0).abs() < 2e-6, "e^{x}: {ours}, not {truth}");
        }
        for i in -20_000..=0 {
            let x = i as f32 / 1000.0;
            let rough = exp_by(x, EXP_ROUGH);
            assert!((f64::from(rough) / f64::from(x).exp() - 1.0).abs() < 1.1e-4, "e^{x}, roughly: {rough}");
        }
        assert!(exp_by(f32::NAN, EXP_ROUGH).is_nan());
        assert!(exp(-1e30) > 0.0 && exp(-1e30) < 1e-37 && exp(1e30).is_finite());
        assert_eq!(exp(0.0), 1.0);
    }
}
