//! Values and gradients of the fused parts against compositions of the framework's operators.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

use super::*;
use crate::isa::ISA;
use crate::operators::tests::random;
use crate::operators::{add_bias, depthwise, gelu, layer_norm, silu, softmax};
use crate::parameters::Activation;

const EPS: f32 = 1e-5;

/// Values of both, and gradients of a random weighing of them by `inputs` and `weights`; those of the fused part by its weights are in the workspace.
fn compare(fused: impl Fn(&Arc<Workspace>) -> Result<Tensor>, composed: impl Fn() -> Result<Tensor>, inputs: &[&Var], weights: &[&Var]) {
    let workspace = Arc::default();
    let (ours, theirs) = (fused(&workspace).unwrap(), composed().unwrap());
    let close = |ours: &[f32], theirs: &Tensor, what: &str| {
        let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
        let largest = theirs.iter().fold(1e-2f32, |most, x| most.max(x.abs()));
        let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        assert_eq!(ours.len(), theirs.len(), "{what}");
        // f32 sums of some hundred terms in another order; in matrix registers each term is off by at most 2^-15 of itself, mostly by a quarter of that
        let bound = if ISA.has_matrix_registers() { 5e-5 } else { 2e-5 };
        assert!(apart < bound * largest, "{what}: {apart} apart of {largest}");
    };
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    close(&flat(&ours), &theirs, "values");
    let factors = random(ours.dims(), 500);
    let gradient = |of: &Tensor| (of * factors.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    let (ours, theirs) = (gradient(&ours), gradient(&theirs));
    for (place, input) in inputs.iter().enumerate() {
        close(&flat(ours.get(input).unwrap()), theirs.get(input).unwrap(), &format!("input {place}"));
    }
    for (place, weight) in weights.iter().enumerate() {
        close(&workspace.harvest(weight).unwrap(), theirs.get(weight).unwrap(), &format!("weight {place}"));
    }
}

fn linear(weight: &Var, bias: &Var) -> Linear {
    Linear { weight: weight.as_tensor().clone(), bias: Some(bias.as_tensor().clone()) }
}

fn norm([scale, shift]: [&Var; 2]) -> Norm {
    Norm { scale: scale.as_tensor().clone(), shift: shift.as_tensor().clone(), eps: EPS }
}

/// `[B, T, from]` → `[B, T, to]`
fn product(x: &Tensor, weight: &Var, bias: &Var) -> Result<Tensor> {
    let (batch, tokens, from) = x.dims3()?;
    add_bias(&x.reshape((batch * tokens, from))?.matmul(&weight.t()?)?, bias)?.reshape((batch, tokens, weight.dim(0)?))
}

fn residual(x: &Tensor, y: &Tensor, weight: &Var, bias: &Var, scale: &Var) -> Result<Tensor> {
    x + product(y, weight, bias)?.broadcast_mul(scale)?
}

#[test]
fn mlps_conform() {
    let x = random(&[2, 7, 12], 1);
    let [scale, shift, layer_scale, out_bias] = [2, 3, 4, 5].map(|seed| random(&[12], seed));
    let (up, up_bias, gate, gate_bias) = (random(&[20, 12], 6), random(&[20], 7), random(&[20, 12], 8), random(&[20], 9));
    let out = random(&[12, 20], 10);
    for (gated, activation) in [(false, Activation::Gelu), (false, Activation::Silu), (true, Activation::Silu), (true, Activation::Gelu)] {
        let ours = |workspace: &Arc<Workspace>| {
            let down = Residual { linear: linear(&out, &out_bias), scale: layer_scale.as_tensor().clone() };
            let gate = gated.then(|| linear(&gate, &gate_bias));
            mlp(&x, Mlp { norm: norm([&scale, &shift]), up: linear(&up, &up_bias), gate, activation, down }, workspace)
        };
        let composed = || {
            let activate = |x: &Tensor| if activation == Activation::Gelu { gelu(x) } else { silu(x) };
            let normed = layer_norm(&x, &scale, &shift, EPS)?;
            let inner = product(&normed, &up, &up_bias)?;
            let inner = if gated { (activate(&product(&normed, &gate, &gate_bias)?)? * inner)? } else { activate(&inner)? };
            residual(&x, &inner, &out, &out_bias, &layer_scale)
        };
        let mut weights = vec![&scale, &shift, &up, &up_bias, &out, &out_bias, &layer_scale];
        if gated {
            weights.extend([&gate, &gate_bias]);
        }
        compare(ours, composed, &[&x], &weights);
    }
}

/// Few tokens, and so many that the queries are cut into parts; with and without a mask, rotary positions, a bias of the keys.
#[test]
fn attention_conforms() {
    const D: usize = 16;
    const HEADS: usize = 2;
    for (tokens, special) in [(9, false), (9, true), (300, true)] {
        let (queries, patches) = (3, 4);
        let x = random(&[2, tokens, D], 1);
        let vectors: Vec<Var> = (2..9).map(|seed| random(&[D], seed)).collect();
        let matrices: Vec<Var> =
            (20..24).map(|seed| (random(&[D, D], seed).as_tensor() * 0.3).and_then(|t| Var::from_tensor(&t)).unwrap()).collect();
        let [scale, shift, q_bias, k_bias, v_bias, out_bias, layer_scale] = &vectors[..] else { panic!() };
        let blocked: Vec<f32> = (0..2 * queries * patches).map(|at| if special && at % 3 == 0 { -1e9 } else { 0.0 }).collect();
        let table = |seed| random(&[patches, D / HEADS], seed).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (cos, sin) = (table(30), table(31));
        let ours = |workspace: &Arc<Workspace>| {
            let mask = special.then(|| Arc::new(QueryMask { queries, patches, values: blocked.clone() }));
            let rotation = special.then(|| Arc::new(Rotation { cos: cos.clone(), sin: sin.clone() }));
            let mut inputs = [linear(&matrices[0], q_bias), linear(&matrices[1], k_bias), linear(&matrices[2], v_bias)];
            if special {
                inputs[1].bias = None;
            }
            let out = Residual { linear: linear(&matrices[3], out_bias), scale: layer_scale.as_tensor().clone() };
            attention(&x, Attention { heads: HEADS, norm: norm([scale, shift]), inputs, out, mask, rotation }, workspace)
        };
        let composed = || {
            let normed = layer_norm(&x, scale, shift, EPS)?;
            let split = |weight: &Var, bias: &Var| {
                product(&normed, weight, bias)?.reshape((2, tokens, HEADS, D / HEADS))?.transpose(1, 2)?.contiguous()
            };
            let turn = |x: Tensor| -> Result<Tensor> {
                let table = |values: &[f32]| Tensor::from_vec(values.to_vec(), (patches, D / HEADS), &Device::Cpu);
                let (first, last) = (x.narrow(2, 0, tokens - patches)?, x.narrow(2, tokens - patches, patches)?);
                let half = D / HEADS / 2;
                let swapped = Tensor::cat(&[&last.narrow(3, half, half)?, &last.narrow(3, 0, half)?], 3)?;
                Tensor::cat(&[&first, &(last.broadcast_mul(&table(&cos)?)? + swapped.broadcast_mul(&table(&sin)?)?)?], 2)
            };
            let (mut q, mut k, v) = (split(&matrices[0], q_bias)?, split(&matrices[1], k_bias)?, split(&matrices[2], v_bias)?);
            if special {
                k = product(&normed, &matrices[1], &Var::zeros(D, candle_core::DType::F32, &Device::Cpu)?)?
                    .reshape((2, tokens, HEADS, D / HEADS))?
                    .transpose(1, 2)?
                    .contiguous()?;
                (q, k) = (turn(q)?, turn(k)?);
            }
            let mut scores = (q.matmul(&k.transpose(2, 3)?)? * (1.0 / ((D / HEADS) as f64).sqrt()))?;
            let mut mask = vec![0.0f32; 2 * tokens * tokens];
            for (at, value) in blocked.iter().enumerate() {
                let (row, patch) = (at / patches, at % patches);
                mask[(row / queries * tokens + row % queries) * tokens + tokens - patches + patch] = *value;
            }
            scores = scores.broadcast_add(&Tensor::from_vec(mask, (2, 1, tokens, tokens), &Device::Cpu)?)?;
            let mixed = softmax(&scores)?.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((2, tokens, D))?;
            residual(&x, &mixed, &matrices[3], out_bias, layer_scale)
        };
        let mut weights = vec![scale, shift, q_bias, v_bias, out_bias, layer_scale];
        weights.extend(&matrices);
        compare(ours, composed, &[&x], &weights);
    }
}

#[test]
fn mask_logits_conform() {
    const D: usize = 10;
    let (tokens, queries) = (random(&[2, 11, D], 1), random(&[2, 3, D], 2));
    let matrices: Vec<Var> = (20..22).map(|seed| random(&[D, D, 2, 2], seed)).collect();
    let kernels: Vec<Var> = (22..24).map(|seed| random(&[D, 1, 3, 3], seed)).collect();
    let vectors: Vec<Var> = (3..9).map(|seed| random(&[D], seed)).collect();
    for count in 0..3 {
        let ours = |workspace: &Arc<Workspace>| {
            let block = |at: usize| ScaleBlock {
                up: matrices[at].as_tensor().clone(),
                bias: vectors[3 * at].as_tensor().clone(),
                depthwise: kernels[at].as_tensor().clone(),
                norm: norm([&vectors[3 * at + 1], &vectors[3 * at + 2]]),
            };
            masks(&tokens, &queries, Masks { blocks: (0..count).map(block).collect(), activation: Activation::Gelu, grid: 3 }, workspace)
        };
        let composed = || {
            let mut pixels = tokens.narrow(1, 2, 9)?.contiguous()?.reshape((2, 3, 3, D))?;
            for at in 0..count {
                let side = pixels.dim(1)?;
                let weight = matrices[at].permute((0, 2, 3, 1))?.reshape((D, 4 * D))?;
                let up = pixels.reshape((2 * side * side, D))?.matmul(&weight)?.reshape((2, side, side, 2, 2, D))?;
                let up = up.permute((0, 1, 3, 2, 4, 5))?.reshape((2, 2 * side, 2 * side, D))?;
                let up = gelu(&add_bias(&up, &vectors[3 * at])?)?;
                let taps = kernels[at].reshape((D, 9))?.t()?.contiguous()?;
                pixels = layer_norm(&depthwise(&up, &taps)?, &vectors[3 * at + 1], &vectors[3 * at + 2], EPS)?;
            }
            queries.matmul(&pixels.flatten(1, 2)?.transpose(1, 2)?)
        };
        let weights: Vec<&Var> = matrices[..count].iter().chain(&kernels[..count]).chain(&vectors[..3 * count]).collect();
        compare(ours, composed, &[&tokens, &queries], &weights);
    }
}
