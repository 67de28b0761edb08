//! Loops over rows of numbers that the operators share, compiled for the CPU that runs them.
//!
//! Sums have a fixed order: sixteen lanes along a row, one row after the other down a column. So the bits do not depend on the CPU's registers.

use eomt_edge_core::kernels::activation::exp;

pub(super) use super::isa::ISA;
use super::parameters::Activation;
use super::product::Sum;

/// Defines a function that runs `body`, an `#[inline(always)]` function of the same arguments, compiled for this CPU.
macro_rules! vectorized {
    ($(#[$meta:meta])* $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:path) => {
        $(#[$meta])*
        pub(super) fn $name($($arg: $type),*) $(-> $result)? {
            ISA.vectorize(
                #[inline(always)]
                || $body($($arg),*),
            )
        }
    };
}

/// In sixteen lanes, so that the compiler may vectorize.
#[inline(always)]
fn total(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        for lane in 0..16 {
            lanes[lane] += chunk[lane];
        }
    }
    let mut sum = pairwise(lanes);
    for x in rest {
        sum += x;
    }
    sum
}

/// The sum of squares of the distances to `centre`.
#[inline(always)]
fn squares(row: &[f32], centre: f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        for lane in 0..16 {
            lanes[lane] += (chunk[lane] - centre) * (chunk[lane] - centre);
        }
    }
    let mut sum = pairwise(lanes);
    for x in rest {
        sum += (x - centre) * (x - centre);
    }
    sum
}

/// The sum of the lanes: those 8 apart, 4, 2, 1.
#[inline(always)]
fn pairwise(mut lanes: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// Mean of a row and the inverse of its deviation.
#[inline(always)]
fn moments(row: &[f32], eps: f32) -> [f32; 2] {
    let n = row.len() as f32;
    let mean = total(row) / n;
    let variance = squares(row, mean) / n;
    [mean, 1.0 / (variance + eps).sqrt()]
}

/// Scale, shift and epsilon of a layer norm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub eps: f32,
}

vectorized! {
    /// `(x - mean) / sqrt(var + eps) * scale + shift` of every row; `moments` gets mean and 1 / deviation of each.
    normalize(x: &[f32], norm: Norm, moments: &mut [f32], out: &mut [f32]) = normalize_body
}

#[inline(always)]
fn normalize_body(x: &[f32], norm: Norm, stats: &mut [f32], out: &mut [f32]) {
    let d = norm.scale.len();
    for ((row, out), stats) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(stats.as_chunks_mut::<2>().0) {
        *stats = moments(row, norm.eps);
        normalize_row(row, norm, *stats, out);
    }
}

#[inline(always)]
fn normalize_row(row: &[f32], norm: Norm, [mean, inverse]: [f32; 2], out: &mut [f32]) {
    for (((y, &x), &scale), &shift) in out.iter_mut().zip(row).zip(norm.scale).zip(norm.shift) {
        *y = (x - mean) * inverse * scale + shift;
    }
}

vectorized! {
    /// [`normalize`] again, with the moments that it gave.
    normalize_again(x: &[f32], norm: Norm, moments: &[f32], out: &mut [f32]) = normalize_again_body
}

#[inline(always)]
fn normalize_again_body(x: &[f32], norm: Norm, stats: &[f32], out: &mut [f32]) {
    let d = norm.scale.len();
    for ((row, out), stats) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(stats.as_chunks::<2>().0) {
        normalize_row(row, norm, *stats, out);
    }
}

vectorized! {
    /// The moments of rows of `width` values, as [`normalize`] gives them.
    all_moments(x: &[f32], width: usize, eps: f32) -> Vec<f32> = all_moments_body
}

#[inline(always)]
fn all_moments_body(x: &[f32], width: usize, eps: f32) -> Vec<f32> {
    let mut all = vec![0.0; 2 * x.len() / width];
    for (stats, row) in all.as_chunks_mut::<2>().0.iter_mut().zip(x.chunks_exact(width)) {
        *stats = moments(row, eps);
    }
    all
}

/// Gradients of a layer norm's scale and shift, to which rows are added.
#[derive(Debug)]
pub(super) struct NormSlopes {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl NormSlopes {
    pub(super) fn new(width: usize) -> NormSlopes {
        NormSlopes { scale: vec![0.0; width], shift: vec![0.0; width] }
    }
}

vectorized! {
    /// The gradient of [`normalize`]: that of `x` as `into` says, those of scale and shift added to `slopes`.
    normalize_backward(x: &[f32], scale: &[f32], moments: &[f32], grad: &[f32], slopes: &mut NormSlopes, into: (&mut [f32], Sum)) = normalize_backward_body
}

#[inline(always)]
fn normalize_backward_body(x: &[f32], scale: &[f32], stats: &[f32], grad: &[f32], slopes: &mut NormSlopes, (dx, sum): (&mut [f32], Sum)) {
    let d = scale.len();
    let (dscale, dshift) = (&mut slopes.scale[..d], &mut slopes.shift[..d]);
    let (mut normal, mut scaled) = (vec![0.0; d], vec![0.0; d]);
    let rows = x.chunks_exact(d).zip(grad.chunks_exact(d)).zip(stats.as_chunks::<2>().0);
    for (((row, grad), [mean, inverse]), dx) in rows.zip(dx.chunks_exact_mut(d)) {
        for i in 0..d {
            normal[i] = (row[i] - mean) * inverse;
            scaled[i] = grad[i] * scale[i];
            dscale[i] += grad[i] * normal[i];
            dshift[i] += grad[i];
        }
        let along = dot_body(&scaled, &normal) / d as f32;
        let offset = total(&scaled) / d as f32;
        if sum == Sum::Fresh {
            dx.fill(0.0);
        }
        for i in 0..d {
            dx[i] += inverse * (scaled[i] - offset - normal[i] * along);
        }
    }
}

/// `erf(|z|)` and `e^(-z²)`; Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
#[inline(always)]
fn erf_parts(z: f32) -> (f32, f32) {
    let bell = exp(-z * z);
    let t = 1.0 / z.mul_add(0.327_591_1, 1.0);
    let series = 1.061_405_4f32.mul_add(t, -1.453_152_1).mul_add(t, 1.421_413_8).mul_add(t, -0.284_496_72).mul_add(t, 0.254_829_6) * t;
    (1.0 - series * bell, bell)
}

/// `x Φ(x)` and its slope.
#[inline(always)]
fn gelu(x: f32) -> [f32; 2] {
    let (erf, bell) = erf_parts(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
    let below = 0.5 + 0.5 * erf.copysign(x);
    [x * below, below + x * bell * 0.398_942_3]
}

/// `x sigmoid(x)` and its slope.
#[inline(always)]
fn silu(x: f32) -> [f32; 2] {
    let open = 1.0 / (1.0 + exp(-x));
    [x * open, open + x * open * (1.0 - open)]
}

vectorized! {
    /// `x += bias` in every row, and `out` the activation of that.
    add_activate(activation: Activation, x: &mut [f32], bias: &[f32], out: &mut [f32]) = add_activate_body
}

#[inline(always)]
fn add_activate_body(activation: Activation, x: &mut [f32], bias: &[f32], out: &mut [f32]) {
    #[inline(always)]
    fn each(x: &mut [f32], bias: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32) {
        for (x, out) in x.chunks_exact_mut(bias.len()).zip(out.chunks_exact_mut(bias.len())) {
            for ((x, bias), out) in x.iter_mut().zip(bias).zip(out) {
                *x += bias;
                *out = f(*x);
            }
        }
    }
    match activation {
        Activation::Gelu => each(
            x,
            bias,
            out,
            #[inline(always)]
            |x| gelu(x)[0],
        ),
        Activation::Silu => each(
            x,
            bias,
            out,
            #[inline(always)]
            |x| silu(x)[0],
        ),
    }
}

vectorized! {
    /// `out` the activation of `x`.
    activate(activation: Activation, x: &[f32], out: &mut [f32]) = activate_body
}

#[inline(always)]
fn activate_body(activation: Activation, x: &[f32], out: &mut [f32]) {
    match activation {
        Activation::Gelu => {
            for (x, out) in x.iter().zip(out) {
                *out = gelu(*x)[0];
            }
        }
        Activation::Silu => {
            for (x, out) in x.iter().zip(out) {
                *out = silu(*x)[0];
            }
        }
    }
}

vectorized! {
    /// `out` the activation of `x`, and `x` the activation's slope there.
    activate_slopes(activation: Activation, x: &mut [f32], out: &mut [f32]) = activate_slopes_body
}

#[inline(always)]
fn activate_slopes_body(activation: Activation, x: &mut [f32], out: &mut [f32]) {
    #[inline(always)]
    fn each(x: &mut [f32], out: &mut [f32], f: impl Fn(f32) -> [f32; 2]) {
        for (x, out) in x.iter_mut().zip(out) {
            [*out, *x] = f(*x);
        }
    }
    match activation {
        Activation::Gelu => each(x, out, gelu),
        Activation::Silu => each(x, out, silu),
    }
}

vectorized! {
    /// `a *= b`.
    times(a: &mut [f32], b: &[f32]) = times_body
}

#[inline(always)]
fn times_body(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a *= b;
    }
}

vectorized! {
    /// `a *= factor`.
    scale(a: &mut [f32], factor: f32) = scale_body
}

#[inline(always)]
fn scale_body(a: &mut [f32], factor: f32) {
    for a in a {
        *a *= factor;
    }
}

vectorized! {
    /// `out = a * b`.
    product(a: &[f32], b: &[f32], out: &mut [f32]) = product_body
}

#[inline(always)]
fn product_body(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a * b;
    }
}

vectorized! {
    /// `a += factor * b`.
    add_scaled(a: &mut [f32], factor: f32, b: &[f32]) = add_scaled_body
}

#[inline(always)]
fn add_scaled_body(a: &mut [f32], factor: f32, b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += factor * b;
    }
}

vectorized! {
    /// The sum of `a * b`.
    dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

#[inline(always)]
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    let ((left, a_rest), (right, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut lanes = [0.0f32; 16];
    for (x, y) in left.iter().zip(right) {
        for lane in 0..16 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let mut sum = pairwise(lanes);
    for (x, y) in a_rest.iter().zip(b_rest) {
        sum += x * y;
    }
    sum
}

vectorized! {
    /// Adds `bias` to every row.
    add_bias(x: &mut [f32], bias: &[f32]) = add_bias_body
}

#[inline(always)]
fn add_bias_body(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        for (x, bias) in row.iter_mut().zip(bias) {
            *x += bias;
        }
    }
}

vectorized! {
    /// Adds every row to `sums`: the gradient of a bias.
    add_rows(x: &[f32], sums: &mut [f32]) = add_rows_body
}

#[inline(always)]
fn add_rows_body(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

vectorized! {
    /// `grad *= slopes`, and adds every row of that to `sums`: the gradient of a bias behind an activation.
    times_add_rows(grad: &mut [f32], slopes: &[f32], sums: &mut [f32]) = times_add_rows_body
}

#[inline(always)]
fn times_add_rows_body(grad: &mut [f32], slopes: &[f32], sums: &mut [f32]) {
    let d = sums.len();
    for (grad, slopes) in grad.chunks_exact_mut(d).zip(slopes.chunks_exact(d)) {
        for ((grad, slope), sum) in grad.iter_mut().zip(slopes).zip(sums.iter_mut()) {
            *grad *= slope;
            *sum += *grad;
        }
    }
}

vectorized! {
    /// The sigmoids of `x`, and the sum of `ln(1 + e^x)`.
    sigmoids(x: &[f32], out: &mut [f32]) -> f64 = sigmoids_body
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)`, and the sum of logarithms is that of a product: of 64 factors of 1 to 2.
#[inline(always)]
fn sigmoids_body(x: &[f32], out: &mut [f32]) -> f64 {
    #[inline(always)]
    fn one(x: f32) -> [f32; 3] {
        let e = exp(-x.abs());
        let (open, above) = (1.0 / (1.0 + e), x > 0.0);
        [if above { open } else { e * open }, 1.0 + e, if above { x } else { 0.0 }]
    }
    let mut sum = 0.0;
    for (x, out) in x.chunks(64 * 16).zip(out.chunks_mut(64 * 16)) {
        let (mut products, mut above) = ([1.0f32; 16], [0.0f32; 16]);
        let ((chunks, rest), (slots, rest_slots)) = (x.as_chunks::<16>(), out.as_chunks_mut::<16>());
        for (chunk, slot) in chunks.iter().zip(slots) {
            for lane in 0..16 {
                let [open, factor, positive] = one(chunk[lane]);
                slot[lane] = open;
                products[lane] *= factor;
                above[lane] += positive;
            }
        }
        for (x, slot) in rest.iter().zip(rest_slots) {
            let [open, factor, positive] = one(*x);
            *slot = open;
            sum += f64::from(factor).ln() + f64::from(positive);
        }
        for lane in 0..16 {
            sum += f64::from(products[lane]).ln() + f64::from(above[lane]);
        }
    }
    sum
}

/// Softmax of a row without the division: `row = e^(row - max)`; gives 1 / sum.
pub(super) fn softmax(row: &mut [f32]) -> f32 {
    ISA.softmax(row)
}

vectorized! {
    /// The gradient of a softmax `row * inverse` of scores, in place of that of its results: `along` is the sum of these times the results.
    softmax_backward(row: &[f32], inverse: f32, along: f32, grad: &mut [f32]) = softmax_backward_body
}

#[inline(always)]
fn softmax_backward_body(row: &[f32], inverse: f32, along: f32, grad: &mut [f32]) {
    for (row, grad) in row.iter().zip(grad) {
        *grad = row * inverse * (*grad - along);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|at| 2.0 * (at as f32 * step).sin()).collect()
    }

    /// Functions and slopes against f64 and central differences in it.
    #[test]
    fn activations_and_slopes_conform() {
        // erf by its series
        let erf = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..120 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            2.0 / std::f64::consts::PI.sqrt() * sum
        };
        let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let check = |activation, of: &dyn Fn(f64) -> f64| {
            let x = numbers(100, 0.37);
            let (mut slopes, mut out, mut also) = (x.clone(), vec![0.0; 100], vec![0.0; 100]);
            activate_slopes(activation, &mut slopes, &mut out);
            let mut moved: Vec<f32> = x.iter().map(|x| x - 0.5).collect();
            add_activate(activation, &mut moved, &[0.5; 10], &mut also);
            for at in 0..100 {
                let wide = f64::from(x[at]);
                let slope = (of(wide + 1e-5) - of(wide - 1e-5)) / 2e-5;
                assert!((f64::from(out[at]) - of(wide)).abs() < 1e-6, "{wide}");
                assert!((f64::from(also[at]) - of(wide)).abs() < 1e-6, "{wide}");
                assert!((f64::from(slopes[at]) - slope).abs() < 2e-6, "{wide}: {} {slope}", slopes[at]);
            }
        };
        check(Activation::Gelu, &gelu);
        check(Activation::Silu, &silu);
    }

    #[test]
    fn sigmoids_and_logarithms_conform() {
        let x: Vec<f32> = (0..3001).map(|at| 30.0 * (at as f32 * 0.37).sin()).collect();
        let mut open = vec![0.0; x.len()];
        let sum = sigmoids(&x, &mut open);
        let exact: f64 = x.iter().map(|x| f64::from(*x).exp().ln_1p()).sum();
        assert!((sum - exact).abs() < 1e-6 * exact, "{sum} {exact}");
        assert!(x.iter().zip(open).all(|(x, open)| (f64::from(open) - 1.0 / (1.0 + f64::from(-*x).exp())).abs() < 1e-6));
    }

    #[test]
    fn small_loops_do_what_they_say() {
        let (a, b) = (numbers(66, 0.3), numbers(66, 0.7));
        let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-4);
        let (mut grad, mut sums, mut plain) = (a.clone(), vec![1.0; 22], vec![1.0; 22]);
        times_add_rows(&mut grad, &b, &mut sums);
        add_rows(&grad, &mut plain);
        let (mut times_too, mut product_too) = (a.clone(), vec![0.0; 66]);
        times(&mut times_too, &b);
        product(&a, &b, &mut product_too);
        assert!(grad == times_too && grad == product_too && sums == plain);
        assert_eq!(sums[3], 1.0 + grad[3] + grad[25] + grad[47]);
        let mut moved = a.clone();
        add_bias(&mut moved, &b[..22]);
        add_scaled(&mut moved[..22], -1.0, &b[..22]);
        assert!((moved[5] - a[5]).abs() < 1e-6 && moved[30] == a[30] + b[8]);
    }

    /// `e^x / sum` of a row, and its gradient against the definition `p (g - sum of p g)`.
    #[test]
    fn softmax_and_its_gradient() {
        let (mut row, grad) = (numbers(37, 0.9), numbers(37, 0.21));
        let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        let exact: Vec<f64> = row.iter().map(|x| f64::from(*x).exp() / total).collect();
        let inverse = softmax(&mut row);
        let along: f64 = exact.iter().zip(&grad).map(|(p, g)| p * f64::from(*g)).sum();
        let mut slopes = grad.clone();
        softmax_backward(&row, inverse, along as f32, &mut slopes);
        for at in 0..37 {
            assert!((f64::from(row[at] * inverse) - exact[at]).abs() < 1e-6);
            assert!((f64::from(slopes[at]) - exact[at] * (f64::from(grad[at]) - along)).abs() < 1e-6);
        }
    }
}
