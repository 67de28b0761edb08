//! The non-linearities of the network, element by element.

use super::arch::{EXP, Isa, exp_by, per_isa, vectorization_barrier};

/// The activation function of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x`
    Identity,
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `max(x, 0)`
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

/// [`activate`] for the results of int8 products, for which a faster GELU is exact enough.
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
    /// `gate = activation(gate) * up`: the inner half of a gated MLP (Shazeer, "GLU Variants Improve Transformer", 2020).
    pub fn gate(activation: Activation, gate: &mut [f32], up: &[f32]) = gate_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::arch::EXP_ROUGH;
    use crate::kernels::suite;

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

    fn reference(activation: Activation, x: f64) -> f64 {
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

    /// Ordinary and extreme rows, and a fine grid.
    fn rows(grid: std::ops::RangeInclusive<i32>, steps: f32) -> Vec<Vec<f32>> {
        [suite::tails(8.0), suite::extremes(), vec![grid.map(|i| i as f32 / steps).collect()]].concat()
    }

    /// NaN stays, and what is large stays large or vanishes.
    fn check_extremes(x: f32, y: f32) {
        assert_eq!(x.is_nan(), y.is_nan(), "{x} {y}");
        assert!(x != 1e30 || y > 9e29, "{x} {y}");
        assert!(x != 0.0 || y == 0.0, "{x} {y}");
    }

    #[test]
    fn activations_conform() {
        for activation in ALL {
            let rows = rows(-2000..=2003, 100.0);
            suite::in_place(
                &rows,
                |isa, values| activate(isa, activation, values),
                |row, ours, ()| {
                    for (x, y) in row.iter().zip(ours).filter(|(x, _)| !x.is_infinite() && x.abs() < 1e38) {
                        check_extremes(*x, *y);
                        assert!(*x != -1e30 || *y <= 0.0, "{activation:?}({x}) = {y}");
                        let expected = reference(activation, f64::from(*x));
                        // the error of erf (4e-7) and of sigmoid (5e-7), times x
                        let bound = 1e-6 * f64::from(x.abs()).max(1.0);
                        let near = (f64::from(*y) - expected).abs() < bound;
                        assert!(near || x.is_nan() || x.abs() > 20.03, "{activation:?}({x}) = {y}, not {expected}");
                    }
                },
            );
        }
    }

    #[test]
    fn the_rough_gelu_conforms() {
        let rows = rows(-90_000..=90_001, 10_000.0);
        suite::in_place(
            &rows,
            |isa, values| activate_int8(isa, Activation::Gelu, values),
            |row, ours, ()| {
                for (x, y) in row.iter().zip(ours).filter(|(x, _)| !x.is_infinite() && x.abs() < 1e38) {
                    check_extremes(*x, *y);
                    assert!(*x != -1e30 || y.abs() < 3.2e-4, "{x}: {y}");
                    let near = (f64::from(*y) - reference(Activation::Gelu, f64::from(*x))).abs() < 3.2e-4;
                    assert!(near || x.is_nan() || x.abs() > 9.1, "{x}: {y}");
                }
            },
        );
    }

    #[test]
    fn gates_conform() {
        let kernel = |isa: Isa, values: &mut [f32]| {
            let up: Vec<f32> = values.iter().map(|value| 1.0 - value).collect();
            gate(isa, Activation::Silu, values, &up);
        };
        suite::in_place(&rows(-800..=800, 100.0), kernel, |row, ours, ()| {
            let mut activated = row.to_vec();
            activate(Isa::SCALAR, Activation::Silu, &mut activated);
            for ((x, y), ours) in row.iter().zip(activated).zip(ours) {
                let expected = y * (1.0 - x);
                assert!(*ours == expected || (ours.is_nan() && expected.is_nan()), "{x}: {ours}, not {expected}");
            }
        });
    }

    #[test]
    fn exp_agrees_with_the_library() {
        for i in -20_000..20_000 {
            let x = i as f32 / 1000.0;
            let (ours, reference) = (f64::from(exp(x)), f64::from(x).exp());
            // 20 log2(e) is 29: half a unit of its last place is 1e-6 of the result
            assert!((ours / reference - 1.0).abs() < 2e-6, "e^{x}: {ours}, not {reference}");
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
