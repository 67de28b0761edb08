//! Outlier channels: SmoothQuant (Xiao et al. 2022, "SmoothQuant: accurate and efficient post-training quantization for large language
//! models"), with the strength of the migration chosen per group of layers.
//!
//! A large input channel coarsens the step of its whole token, a large weight that of its output row. A factor `t` per channel moves
//! magnitude from one to the other, `(x / t) (t W)`, exactly. SmoothQuant takes `t = max|x|^a / max|w|^(1 - a)` with one `a` for the
//! network. Here `t = max|x|^a / max|w|^b` for a few pairs (a, b), and each group of layers with the same input takes the pair with the
//! least noise on the calibration rows ([`noise`]), or none. The producer of the input divides by the factor: a norm, the values of an
//! attention, the linear branch of a gated MLP. The input of a plain MLP's second layer comes out of a non-linearity and keeps its scale.
//!
//! [`balance`] does the same between queries and keys, whose product is int8 at run time.

use super::fold::{divide_norm, inverse, scale_inputs, scale_inputs_of_up, scale_outputs};
use super::layers::{self, in_block};
use super::quantize::{level, power, products, scale_of};
use super::samples::{Calibration, Samples, divided};
use crate::checkpoint::{Array, Block, Linear, Mlp, Network, Position};

/// The pairs (a, b): exponents of the magnitudes of activations and weights.
const CANDIDATES: [(f32, f32); 7] = [(0.3, 0.0), (0.5, 0.0), (0.7, 0.0), (0.3, 0.3), (0.5, 0.5), (0.7, 0.3), (1.0, 0.0)];
/// Bound of the factors, relative to their geometric mean. Larger ones gain nothing and cost range.
const FACTOR_MAX: f32 = 1e3;

/// Smooths every group of layers of `network`, whose norms are folded, and changes `calibration` with the weights.
pub(super) fn smooth(network: &mut Network, calibration: &mut Calibration) {
    let rotary = matches!(network.position, Position::Rotary { .. });
    let head_dim = network.hidden / network.heads;
    for (index, block) in network.blocks.iter_mut().enumerate() {
        smooth_attention(index, block, calibration);
        balance(index, block, calibration, head_dim, rotary);
        smooth_mlp(index, block, calibration);
    }
    smooth_upscaling(network, calibration);
}

fn smooth_attention(index: usize, block: &mut Block, calibration: &mut Calibration) {
    let [q, k, v, out] = ["q", "k", "v", "out"].map(|layer| in_block(index, &format!("attention.{layer}")));
    if let Some(factors) = choose(calibration.get(&q), &[&block.q.weight, &block.k.weight, &block.v.weight]) {
        divide_norm(&mut block.norm1, &factors);
        [&mut block.q, &mut block.k, &mut block.v].into_iter().for_each(|linear| scale_inputs(&mut linear.weight, &factors));
        calibration.divide(&[&q, &k, &v], &factors);
    }
    if let Some(factors) = choose(calibration.get(&out), &[&block.out.weight]) {
        scale_outputs(&mut block.v, &inverse(&factors));
        scale_inputs(&mut block.out.weight, &factors);
        calibration.divide(&[&out], &factors);
    }
}

fn smooth_mlp(index: usize, block: &mut Block, calibration: &mut Calibration) {
    let [gate, up, down] = ["gate", "up", "down"].map(|layer| in_block(index, &format!("mlp.{layer}")));
    match &mut block.mlp {
        Mlp::Plain { up: linear, .. } => {
            if let Some(factors) = choose(calibration.get(&up), &[&linear.weight]) {
                divide_norm(&mut block.norm2, &factors);
                scale_inputs(&mut linear.weight, &factors);
                calibration.divide(&[&up], &factors);
            }
        }
        Mlp::Gated { gate: gating, up: linear, down: last, .. } => {
            if let Some(factors) = choose(calibration.get(&up), &[&gating.weight, &linear.weight]) {
                divide_norm(&mut block.norm2, &factors);
                scale_inputs(&mut gating.weight, &factors);
                scale_inputs(&mut linear.weight, &factors);
                calibration.divide(&[&gate, &up], &factors);
            }
            if let Some(factors) = choose(calibration.get(&down), &[&last.weight]) {
                scale_outputs(linear, &inverse(&factors));
                scale_inputs(&mut last.weight, &factors);
                calibration.divide(&[&down], &factors);
            }
        }
    }
}

/// The input of each scale block comes from a norm. That of the first one also feeds the heads.
fn smooth_upscaling(network: &mut Network, calibration: &mut Calibration) {
    for index in 0..network.scale_blocks.len() {
        let name = layers::up(index);
        let weight = layers::up_linear(&network.scale_blocks[index]).weight;
        let Some(factors) = choose(calibration.get(&name), &[&weight]) else { continue };
        scale_inputs_of_up(&mut network.scale_blocks[index].up_weight, &factors);
        calibration.divide(&[&name], &factors);
        if index > 0 {
            divide_norm(&mut network.scale_blocks[index - 1].norm, &factors);
            continue;
        }
        divide_norm(&mut network.norm, &factors);
        scale_inputs(&mut network.class_head.weight, &factors);
        scale_inputs(&mut network.mask_head[0].weight, &factors);
        calibration.divide(&[layers::CLASS_HEAD, &layers::mask_head(0)], &factors);
    }
}

/// The factors with the least noise; `None` when no pair beats the weights as they are.
fn choose(samples: Option<&Samples>, weights: &[&Array]) -> Option<Vec<f32>> {
    let samples = samples?;
    let columns = samples.columns;
    let x = samples.held_out();
    let signals: Vec<f64> = weights.iter().map(|weight| power(&products(&x, &weight.data, columns))).collect();
    let inputs = largest(&samples.values, columns);
    // each output has its own step, so a weight counts relative to its row
    let relative = |row: &[f32]| {
        let scale = scale_of(row.iter().copied());
        row.iter().map(|w| w / scale).collect::<Vec<_>>()
    };
    let rows = weights.iter().flat_map(|weight| weight.data.chunks_exact(columns));
    let outputs = largest(&rows.flat_map(relative).collect::<Vec<_>>(), columns);
    let cost = |factors: &[f32]| -> f64 {
        let x = divided(&x, factors);
        let each = weights.iter().zip(&signals).map(|(weight, signal)| {
            let mut weight = (*weight).clone();
            scale_inputs(&mut weight, factors);
            noise(&x, &weight.data, columns) / signal.max(f64::MIN_POSITIVE)
        });
        each.sum()
    };
    let mut best = (cost(&vec![1.0; columns]), None);
    for (of_inputs, of_weights) in CANDIDATES {
        let raw = inputs.iter().zip(&outputs).map(|(x, w)| x.powf(of_inputs) / w.powf(of_weights));
        let factors = normalized(raw.collect());
        let cost = cost(&factors);
        if cost < best.0 {
            best = (cost, Some(factors));
        }
    }
    best.1
}

/// Expected mean square of the quantization noise of `x W^T`, `[rows, columns]` times `[outputs, columns]`. Assumes that rounding errors
/// of different channels are independent, so it computes no product.
fn noise(x: &[f32], w: &[f32], columns: usize) -> f64 {
    let rows = (x.len() / columns) as f64;
    let outputs = (w.len() / columns) as f64;
    let ((x_power, x_error), (w_power, w_error)) = (powers(x, columns), powers(w, columns));
    let each = (0..columns).map(|c| f64::from(x_error[c]) * f64::from(w_power[c]) + f64::from(x_power[c]) * f64::from(w_error[c]));
    each.sum::<f64>() / (rows * outputs)
}

/// Per column, the sums of squares of the values, and of their rounding errors when each row has a scale of its own.
fn powers(data: &[f32], columns: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut values, mut errors) = (vec![0f32; columns], vec![0f32; columns]);
    for row in data.chunks_exact(columns) {
        let scale = scale_of(row.iter().copied());
        let inverse = 1.0 / scale;
        for ((x, value), error) in row.iter().zip(&mut values).zip(&mut errors) {
            let difference = x - level(x * inverse) * scale;
            *value += x * x;
            *error += difference * difference;
        }
    }
    (values, errors)
}

/// Largest magnitude of each column.
fn largest(data: &[f32], columns: usize) -> Vec<f32> {
    let mut largest = vec![0f32; columns];
    for row in data.chunks_exact(columns) {
        row.iter().zip(&mut largest).for_each(|(value, max)| *max = max.max(value.abs()));
    }
    largest
}

/// Scales the factors to a geometric mean of 1. Factors that are 0 or not finite (of a channel that is always 0) become 1.
fn normalized(mut factors: Vec<f32>) -> Vec<f32> {
    let usable = |factor: &f32| factor.is_normal() && *factor > 0.0;
    let (sum, count) = factors.iter().filter(|f| usable(f)).fold((0.0, 0), |(sum, count), f| (sum + f64::from(f.ln()), count + 1));
    let mean = (sum / f64::from(count.max(1))).exp() as f32;
    factors.iter_mut().for_each(|f| *f = if usable(f) { (*f / mean).clamp(1.0 / FACTOR_MAX, FACTOR_MAX) } else { 1.0 });
    factors
}

/// Moves magnitude between queries and keys, `(q u) (k / u)`, so that int8 scores lose the least.
/// Rotated channels come in pairs (c, c + head_dim / 2), which share a factor.
fn balance(index: usize, block: &mut Block, calibration: &Calibration, head_dim: usize, rotary: bool) {
    let Some(samples) = calibration.get(&in_block(index, "attention.q")) else { return };
    let (q, k) = (outputs(&block.q, samples), outputs(&block.k, samples));
    let hidden = block.q.weight.shape[0];
    let (mut q_max, mut k_max) = (largest(&q, hidden), largest(&k, hidden));
    if rotary {
        [&mut q_max, &mut k_max].into_iter().for_each(|maxima| share_in_pairs(maxima, head_dim));
    }
    let ratio: Vec<f32> = q_max.iter().zip(&k_max).map(|(q, k)| (k / q).sqrt()).collect();
    let cost = |factors: &[f32]| score_noise(&divided(&q, &inverse(factors)), &divided(&k, factors), hidden, head_dim);
    let mut best = (cost(&vec![1.0; hidden]), None);
    for exponent in [0.5, 1.0] {
        let factors = normalized(ratio.iter().map(|ratio| ratio.powf(exponent)).collect());
        let cost = cost(&factors);
        if cost < best.0 {
            best = (cost, Some(factors));
        }
    }
    if let Some(factors) = best.1 {
        scale_outputs(&mut block.q, &factors);
        scale_outputs(&mut block.k, &inverse(&factors));
    }
}

fn outputs(linear: &Linear, samples: &Samples) -> Vec<f32> {
    let mut result = products(&samples.held_out(), &linear.weight.data, samples.columns);
    if let Some(bias) = &linear.bias {
        result.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias));
    }
    result
}

fn share_in_pairs(maxima: &mut [f32], head_dim: usize) {
    for head in maxima.chunks_exact_mut(head_dim) {
        let (first, second) = head.split_at_mut(head_dim / 2);
        for (a, b) in first.iter_mut().zip(second) {
            let max = a.max(*b);
            (*a, *b) = (max, max);
        }
    }
}

/// Noise of the scores `q k^T`, summed over all heads, when each head quantizes its part of a token with a scale of its own.
fn score_noise(q: &[f32], k: &[f32], hidden: usize, head_dim: usize) -> f64 {
    let part = |data: &[f32], first: usize| -> Vec<f32> {
        data.chunks_exact(hidden).flat_map(|row| row[first..first + head_dim].iter().copied()).collect()
    };
    (0..hidden).step_by(head_dim).map(|first| noise(&part(q, first), &part(k, first), head_dim)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::quantize::{Int8Rows, signal_to_noise_db};
    use eomt_edge_core::kernels::testing::numbers;

    #[test]
    fn estimated_noise_is_that_of_the_product() {
        let (x, w, columns) = (numbers(40 * 96, 1), numbers(50 * 96, 2), 96);
        let estimate = 10.0 * (power(&products(&x, &w, columns)) / noise(&x, &w, columns)).log10();
        assert!(
            (estimate - signal_to_noise_db(&x, &w, &Int8Rows::quantize(&w, columns).restored(), columns, &[0.0; 50])).abs() < 0.3,
            "{estimate}"
        );
    }

    #[test]
    fn an_outlier_channel_moves_into_the_weights() {
        let columns = 64;
        let mut x = numbers(60 * columns, 3);
        x.chunks_exact_mut(columns).for_each(|row| row[5] *= 50.0);
        let mut weight = Array { shape: vec![32, columns], data: numbers(32 * columns, 4) };
        let plain = |w: &[f32]| Int8Rows::quantize(w, columns).restored();
        let before = signal_to_noise_db(&x, &weight.data, &plain(&weight.data), columns, &[0.0; 32]);
        let samples = Samples { columns, values: x };
        let factors = choose(Some(&samples), &[&weight]).expect("a pair that helps");
        assert!(factors[5] > 3.0 * factors[6]);
        scale_inputs(&mut weight, &factors);
        let after = signal_to_noise_db(&divided(&samples.values, &factors), &weight.data, &plain(&weight.data), columns, &[0.0; 32]);
        assert!(after > before + 3.0, "{before} dB, then {after} dB");
    }

    #[test]
    fn dead_channels_keep_their_scale() {
        assert_eq!(normalized(vec![0.0, 2.0, f32::INFINITY, 8.0, f32::NAN]), [1.0, 0.5, 1.0, 2.0, 1.0]);
        let samples = Samples { columns: 3, values: vec![0.0; 6] };
        assert_eq!(choose(Some(&samples), &[&Array { shape: vec![1, 3], data: vec![0.0; 3] }]), None);
    }

    #[test]
    fn rotated_channels_share_a_factor() {
        let mut maxima = [1.0, 5.0, 3.0, 2.0, 1.0, 1.0, 1.0, 7.0];
        share_in_pairs(&mut maxima, 4);
        assert_eq!(maxima, [3.0, 5.0, 3.0, 5.0, 1.0, 7.0, 1.0, 7.0]);
    }
}
