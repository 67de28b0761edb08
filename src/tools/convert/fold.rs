//! Rewrites of a network that change its weights and not its function.
//!
//! What stands between two linears and acts per channel can move into them: the scale and shift of a norm and LayerScale
//! ([`fold`]), and any positive factor that one side takes and the other gives back ([`scale_inputs`], [`scale_outputs`]).
//! Exact in real numbers; in f32 each weight is rounded once more.

use crate::tools::checkpoint::{Array, Linear, Mlp, Network, Norm};

/// Norm scale and shift into the linears behind, LayerScale into the projection before. The norms before the heads and in
/// the scale blocks keep theirs: the shift does not fit into a transposed convolution, whose bias is shared by four pixels.
pub fn fold(network: &mut Network) {
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
        let outputs = linear.weight.shape[0];
        let bias = linear.bias.get_or_insert_with(|| vec![0.0; outputs]);
        for (bias, row) in bias.iter_mut().zip(linear.weight.data.chunks_exact(norm.shift.len())) {
            let shift: f64 = row.iter().zip(&norm.shift).map(|(w, shift)| f64::from(*w) * f64::from(*shift)).sum();
            *bias = (f64::from(*bias) + shift) as f32;
        }
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

/// Weights `[out, in]` for inputs that arrive divided by `factors`.
pub fn scale_inputs(weight: &mut Array, factors: &[f32]) {
    for row in weight.data.chunks_exact_mut(factors.len()) {
        row.iter_mut().zip(factors).for_each(|(w, factor)| *w *= factor);
    }
}

/// Weights of a transposed convolution, `[in, out, 2, 2]`, for inputs that arrive divided by `factors`.
pub fn scale_inputs_of_up(weight: &mut Array, factors: &[f32]) {
    let size = weight.data.len() / factors.len();
    for (input, factor) in weight.data.chunks_exact_mut(size).zip(factors) {
        input.iter_mut().for_each(|w| *w *= factor);
    }
}

/// Multiplies every output channel by its factor.
pub fn scale_outputs(linear: &mut Linear, factors: &[f32]) {
    let inputs = linear.weight.shape[1];
    for (row, factor) in linear.weight.data.chunks_exact_mut(inputs).zip(factors) {
        row.iter_mut().for_each(|w| *w *= factor);
    }
    if let Some(bias) = &mut linear.bias {
        bias.iter_mut().zip(factors).for_each(|(b, factor)| *b *= factor);
    }
}

/// Divides what a norm gives by `factors`.
pub fn divide_norm(norm: &mut Norm, factors: &[f32]) {
    for values in [&mut norm.scale, &mut norm.shift] {
        values.iter_mut().zip(factors).for_each(|(value, factor)| *value /= factor);
    }
}

/// One over each factor.
pub fn inverse(factors: &[f32]) -> Vec<f32> {
    factors.iter().map(|factor| 1.0 / factor).collect()
}
