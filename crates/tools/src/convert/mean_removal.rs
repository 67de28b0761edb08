//! Mean removal: the part that all tokens share moves from a layer's input into its bias.
//!
//! The step of a quantized token follows the token's range, so a large constant per channel coarsens the values that tell tokens apart.
//! With `m` the mean of the input over the calibration rows, `W x + b = W (x - m) + (b + W m)`, exactly. This is the channel-wise
//! shifting of Outlier Suppression+ (Wei et al. 2023).
//!
//! The producer of the input subtracts `m` at no cost: a norm in its shift, the values of an attention in their bias, since the weights
//! of an attention sum to 1. The mean of the keys changes all scores of a query by the same amount, which softmax ignores
//! (SageAttention, Zhang et al. 2025), so it is dropped; rotated keys keep it.

use super::fold::shift_inputs;
use super::layers::{self, in_block};
use super::quantize::column_means;
use super::samples::{Calibration, Samples, subtract};
use crate::checkpoint::{Block, Mlp, Network, Position};

/// Removes the mean of every input whose producer can subtract it, and changes `calibration` with the weights.
pub(super) fn remove_means(network: &mut Network, calibration: &mut Calibration) {
    let rotary = matches!(network.position, Position::Rotary { .. });
    for (index, block) in network.blocks.iter_mut().enumerate() {
        let name = |layer: &str| in_block(index, layer);
        remove_attention_means(
            block,
            calibration,
            &["attention.q", "attention.k", "attention.v"].map(name),
            &name("attention.out"),
            rotary,
        );
        let (up, gate) = (name("mlp.up"), name("mlp.gate"));
        let Some(mean) = calibration.get(&up).map(mean) else { continue };
        subtract(&mut block.norm2.shift, &mean);
        match &mut block.mlp {
            Mlp::Plain { up: linear, .. } => shift_inputs(linear, &mean),
            Mlp::Gated { gate, up: linear, .. } => [gate, linear].into_iter().for_each(|linear| shift_inputs(linear, &mean)),
        }
        calibration.subtract(&[&up, &gate], &mean);
    }
    remove_upscaling_means(network, calibration);
}

/// The input of each scale block comes from a norm. That of the first one also feeds the heads: their inputs, the query tokens, shift by
/// the mean of the patch tokens, and keep a mean of their own.
fn remove_upscaling_means(network: &mut Network, calibration: &mut Calibration) {
    for index in 0..network.scale_blocks.len() {
        let name = layers::up(index);
        let Some(mean) = calibration.get(&name).map(mean) else { continue };
        let mut linear = layers::up_linear(&network.scale_blocks[index]);
        shift_inputs(&mut linear, &mean);
        network.scale_blocks[index].up_bias = linear.bias.unwrap_or_default();
        calibration.subtract(&[&name], &mean);
        if index > 0 {
            subtract(&mut network.scale_blocks[index - 1].norm.shift, &mean);
            continue;
        }
        subtract(&mut network.norm.shift, &mean);
        shift_inputs(&mut network.class_head, &mean);
        shift_inputs(&mut network.mask_head[0], &mean);
        calibration.subtract(&[layers::CLASS_HEAD, &layers::mask_head(0)], &mean);
    }
}

fn remove_attention_means(block: &mut Block, calibration: &mut Calibration, [q, k, v]: &[String; 3], out: &str, rotary: bool) {
    if let Some(mean) = calibration.get(q).map(mean) {
        subtract(&mut block.norm1.shift, &mean);
        [&mut block.q, &mut block.k, &mut block.v].into_iter().for_each(|linear| shift_inputs(linear, &mean));
        calibration.subtract(&[q, k, v], &mean);
        if !rotary && let Some(bias) = &mut block.k.bias {
            bias.fill(0.0); // the mean of the keys, since their inputs no longer have one
        }
    }
    if let Some(mean) = calibration.get(out).map(mean) {
        let values = block.v.bias.get_or_insert_with(|| vec![0.0; mean.len()]);
        subtract(values, &mean);
        shift_inputs(&mut block.out, &mean);
        calibration.subtract(&[out], &mean);
    }
}

/// Mean of each column over the rows to fit to.
fn mean(samples: &Samples) -> Vec<f32> {
    column_means(&samples.to_fit(), samples.columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Array, Linear};
    use crate::convert::quantize::{Int8Rows, power, products};
    use eomt_edge_core::kernels::testing::numbers;

    /// The shared part of these tokens is larger than their differences. The noise falls with their range, by more than a factor of four
    /// (16 in power).
    #[test]
    fn a_shared_mean_costs_no_precision() {
        let (columns, outputs) = (64, 16);
        let shared = numbers(columns, 1);
        let values: Vec<f32> = numbers(80 * columns, 2).iter().zip(shared.iter().cycle()).map(|(own, shared)| 0.1 * own + shared).collect();
        let mut linear = Linear { weight: Array { shape: vec![outputs, columns], data: numbers(outputs * columns, 3) }, bias: None };
        let weight = linear.weight.data.clone();
        let exact = products(&values, &weight, columns);
        let noise = |x: &[f32], bias: &[f32]| {
            let rounded = products(&Int8Rows::quantize(x, columns).restored(), &weight, columns);
            let each = rounded.iter().zip(bias.iter().cycle()).zip(&exact);
            power(&each.map(|((rounded, bias), exact)| rounded + bias - exact).collect::<Vec<f32>>())
        };
        let mean = mean(&Samples { columns, values: values.clone() });
        shift_inputs(&mut linear, &mean);
        let mut without = values.clone();
        without.chunks_exact_mut(columns).for_each(|row| subtract(row, &mean));
        let (before, after) = (noise(&values, &[0.0; 16]), noise(&without, linear.bias.as_deref().expect("given")));
        assert!(after < before / 16.0, "{after} after {before}");
    }
}
