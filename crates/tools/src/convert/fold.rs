//! Rewrites of a network that change its weights and not its function.
//!
//! A per-channel operation between two linear layers can move into them: the scale and shift of a norm, LayerScale ([`fold`]), and any
//! positive factor that one side multiplies by and the other divides by ([`scale_inputs`], [`scale_outputs`]).
//! Exact in real numbers; f32 rounds each weight once more.

use crate::checkpoint::{Array, Linear, Mlp, Network, Norm};

/// Folds the scale and shift of each block's norms into the layers after them, and LayerScale into the projection before it. The norms
/// before the heads and in the scale blocks keep theirs: nothing would become faster there.
pub(super) fn fold(network: &mut Network) {
    for block in &mut network.blocks {
        fold_norm(&mut block.norm1, &mut [&mut block.q, &mut block.k, &mut block.v]);
        match &mut block.mlp {
            Mlp::Plain { up, down, .. } => {
                fold_norm(&mut block.norm2, &mut [up]);
                fold_layer_scale(down, block.scale2.take());
            }
            Mlp::Gated { gate, up, down, .. } => {
                fold_norm(&mut block.norm2, &mut [gate, up]);
                fold_layer_scale(down, block.scale2.take());
            }
        }
        fold_layer_scale(&mut block.out, block.scale1.take());
    }
}

/// `W (x * scale + shift) + b = (W diag(scale)) x + (b + W shift)`
fn fold_norm(norm: &mut Norm, linears: &mut [&mut Linear]) {
    for linear in linears {
        shift_inputs(linear, &norm.shift);
        scale_inputs(&mut linear.weight, &norm.scale);
    }
    norm.scale.fill(1.0);
    norm.shift.fill(0.0);
}

fn fold_layer_scale(linear: &mut Linear, scale: Option<Vec<f32>>) {
    if let Some(scale) = scale {
        scale_outputs(linear, &scale);
    }
}

/// Adds `W shift` to the bias: `W (x + shift) + b = W x + (b + W shift)`, for inputs from which `shift` was subtracted.
pub(super) fn shift_inputs(linear: &mut Linear, shift: &[f32]) {
    let outputs = linear.weight.shape[0];
    let bias = linear.bias.get_or_insert_with(|| vec![0.0; outputs]);
    for (bias, row) in bias.iter_mut().zip(linear.weight.data.chunks_exact(shift.len())) {
        let shift: f64 = row.iter().zip(shift).map(|(w, shift)| f64::from(*w) * f64::from(*shift)).sum();
        *bias = (f64::from(*bias) + shift) as f32;
    }
}

/// Multiplies the columns of weights `[out, in]` by `factors`, for inputs divided by them.
pub(super) fn scale_inputs(weight: &mut Array, factors: &[f32]) {
    for row in weight.data.chunks_exact_mut(factors.len()) {
        row.iter_mut().zip(factors).for_each(|(w, factor)| *w *= factor);
    }
}

/// [`scale_inputs`] for the weights of a transposed convolution, `[in, out, 2, 2]`.
pub(super) fn scale_inputs_of_up(weight: &mut Array, factors: &[f32]) {
    let size = weight.data.len() / factors.len();
    for (input, factor) in weight.data.chunks_exact_mut(size).zip(factors) {
        input.iter_mut().for_each(|w| *w *= factor);
    }
}

/// Multiplies every output channel, weights and bias, by its factor.
pub(super) fn scale_outputs(linear: &mut Linear, factors: &[f32]) {
    let inputs = linear.weight.shape[1];
    for (row, factor) in linear.weight.data.chunks_exact_mut(inputs).zip(factors) {
        row.iter_mut().for_each(|w| *w *= factor);
    }
    if let Some(bias) = &mut linear.bias {
        bias.iter_mut().zip(factors).for_each(|(b, factor)| *b *= factor);
    }
}

/// Divides the output of a norm by `factors`.
pub(super) fn divide_norm(norm: &mut Norm, factors: &[f32]) {
    for values in [&mut norm.scale, &mut norm.shift] {
        values.iter_mut().zip(factors).for_each(|(value, factor)| *value /= factor);
    }
}

/// One over each factor.
pub(super) fn inverse(factors: &[f32]) -> Vec<f32> {
    factors.iter().map(|factor| 1.0 / factor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use eomt_edge_core::kernels::testing::numbers;

    fn apply(linear: &Linear, x: &[f32]) -> Vec<f32> {
        let rows = linear.weight.data.chunks_exact(x.len());
        let zero = vec![0.0; linear.weight.shape[0]];
        let bias = linear.bias.as_ref().unwrap_or(&zero);
        rows.zip(bias).map(|(row, b)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + b).collect()
    }

    /// f32 sums of a dozen terms around 1, in another order.
    fn assert_same(a: &[f32], b: &[f32]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    }

    #[test]
    fn a_norm_moves_into_the_linears_behind() {
        for bias in [None, Some(numbers(5, 1))] {
            let before = Linear { weight: Array { shape: vec![5, 7], data: numbers(35, 2) }, bias };
            let mut norm = Norm { scale: numbers(7, 3), shift: numbers(7, 4), eps: 1e-6 };
            let normalized = numbers(7, 5);
            let input: Vec<f32> =
                normalized.iter().zip(&norm.scale).zip(&norm.shift).map(|((x, scale), shift)| x * scale + shift).collect();
            let mut after = before.clone();
            fold_norm(&mut norm, &mut [&mut after]);
            assert_eq!((norm.scale, norm.shift), (vec![1.0; 7], vec![0.0; 7]));
            assert_same(&apply(&before, &input), &apply(&after, &normalized));
        }
    }

    #[test]
    fn factors_cancel() {
        let factors: Vec<f32> = numbers(7, 6).iter().map(|v| v.abs() + 0.1).collect();
        let x = numbers(4, 7);
        let mut first = Linear { weight: Array { shape: vec![7, 4], data: numbers(28, 8) }, bias: Some(numbers(7, 9)) };
        let mut second = Linear { weight: Array { shape: vec![3, 7], data: numbers(21, 10) }, bias: None };
        let before = apply(&second, &apply(&first, &x));
        scale_outputs(&mut first, &inverse(&factors));
        scale_inputs(&mut second.weight, &factors);
        assert_same(&before, &apply(&second, &apply(&first, &x)));
    }
}
