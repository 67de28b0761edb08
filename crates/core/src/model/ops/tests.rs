//! Operators with other row counts than planned, and operators that remember: against their definitions in doubles.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{EvalContext, EvalOp};

use super::*;
use crate::kernels::activation::Activation;
use crate::kernels::arch::Isa;
use crate::kernels::attention::{ScorePrecision, Shape};
use crate::kernels::linear::Norm;
use crate::kernels::workers::Workers;

/// Values between -1 and 1 that repeat late.
fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|at| ((at + seed) * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

/// A graph of `spec` alone on inputs of these shapes, packed: its only operator of ours.
fn packed(spec: Spec, inputs: &[&[usize]], output: &[usize]) -> Fused {
    let mut model = TypedModel::default();
    let sources: Vec<OutletId> = inputs
        .iter()
        .enumerate()
        .map(|(index, shape)| model.add_source(format!("input{index}"), f32::fact(*shape)).expect("a source"))
        .collect();
    let engine = Engine::new(Isa::detect(), Workers::one());
    let lifted = Lifted::new(spec, output, &engine);
    let outlets = model.wire_node("ours", lifted, &sources).expect("wires");
    model.select_output_outlets(&outlets).expect("an output");
    let model = model.into_optimized().expect("optimizes");
    let mut found = model.nodes().iter().filter_map(|node| node.op_as::<Fused>());
    found.next().expect("code is generated").clone()
}

/// Shape and values of one evaluation.
fn eval(op: &Fused, inputs: &[(&[usize], &[f32])]) -> (Vec<usize>, Vec<f32>) {
    let inputs = inputs.iter().map(|(shape, values)| Tensor::from_shape(shape, values).expect("fits").into_tvalue()).collect();
    let outputs = op.eval(&EvalContext::out_of_plan(), inputs).expect("evaluates");
    let plain = outputs[0].try_as_plain_ram().expect("in memory");
    (outputs[0].shape().to_vec(), plain.as_slice::<f32>().expect("f32").to_vec())
}

fn close(ours: &[f32], definition: &[f64]) {
    assert_eq!(ours.len(), definition.len());
    for (at, (a, b)) in ours.iter().zip(definition).enumerate() {
        assert!((f64::from(*a) - b).abs() < 1e-5, "value {at}: {a}, not {b}");
    }
}

/// `gelu(norm(x) W + b) + residual` on the rows from `start` on.
#[test]
fn a_fused_linear_runs_with_other_row_counts() {
    const K: usize = 24;
    const N: usize = 40;
    let (scale, shift, weights, bias) = (values(K, 3), values(K, 5), values(K * N, 7), values(N, 11));
    let norm = Norm { scale: scale.clone(), shift: shift.clone(), eps: 1e-6 };
    let matrix = Matrix { values: Arc::new(Tensor::from_shape(&[K, N], &weights).expect("fits")), transposed: false, scales: None };
    let columns = Columns { matrix, bias: Some(Arc::new(bias.clone())) };
    let layer = LayerSpec { columns: vec![columns], activation: Activation::Relu, gated: false };
    let spec = |start, rows| {
        let layers = vec![layer.clone()];
        Spec::Linear(LinearSpec { norm: Some(Arc::new(norm.clone())), layers, start, rows, residual: true })
    };
    let definition = |x: &[f32], residual: &[f32]| {
        let mut out = Vec::new();
        for (row, residual) in x.chunks_exact(K).zip(residual.chunks_exact(N)) {
            let row: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            let mean = row.iter().sum::<f64>() / K as f64;
            let deviation = (row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / K as f64 + 1e-6).sqrt();
            let normed = |i: usize| (row[i] - mean) / deviation * f64::from(scale[i]) + f64::from(shift[i]);
            out.extend((0..N).map(|n| {
                let sum = (0..K).map(|i| normed(i) * f64::from(weights[i * N + n])).sum::<f64>() + f64::from(bias[n]);
                sum.max(0.0) + f64::from(residual[n])
            }));
        }
        out
    };
    for (start, rows, planned) in [(0, None, 9), (2, None, 7), (1, Some(4), 4), (3, Some(6), 6)] {
        let op = packed(spec(start, rows), &[&[1, 9, K], &[1, planned, N]], &[1, planned, N]);
        for tokens in [9, 5, 4, 14, 9] {
            let expected = rows.unwrap_or(usize::MAX).min(tokens - start);
            let (x, residual) = (values(tokens * K, 13), values(expected * N, 17));
            let (shape, out) = eval(&op, &[(&[1, tokens, K], &x), (&[1, expected, N], &residual)]);
            assert_eq!(shape, [1, expected, N], "rows {rows:?} from {start} of {tokens}");
            close(&out, &definition(&x[start * K..(start + expected) * K], &residual));
        }
    }
}

/// Keys and values of fewer tokens than a moment ago, too: nothing of the longer run is left.
#[test]
fn attention_runs_with_other_token_counts() {
    const HEADS: usize = 2;
    const DIM: usize = 8;
    const WIDTH: usize = HEADS * DIM;
    let shape = Shape { queries: 11, tokens: 11, heads: HEADS, head_dim: DIM, scale: 0.5, scores: ScorePrecision::F32 };
    let part = |offset: usize| Part { slot: 0, stride: 3 * WIDTH, offset };
    let spec = Spec::Attention(AttentionSpec { shape, q: part(0), k: part(WIDTH), v: part(2 * WIDTH), mask: None, bias: None });
    let op = packed(spec, &[&[11, 3 * WIDTH]], &[11, WIDTH]);
    for tokens in [11, 6, 1, 17, 11] {
        let qkv = values(tokens * 3 * WIDTH, tokens);
        let at = |token: usize, part: usize, head: usize, d: usize| f64::from(qkv[token * 3 * WIDTH + part * WIDTH + head * DIM + d]);
        let mut definition = vec![0.0; tokens * WIDTH];
        for (query, head) in (0..tokens).flat_map(|query| (0..HEADS).map(move |head| (query, head))) {
            let score = |token: usize| 0.5 * (0..DIM).map(|d| at(query, 0, head, d) * at(token, 1, head, d)).sum::<f64>();
            let exps: Vec<f64> = (0..tokens).map(|token| score(token).exp()).collect();
            let sum = exps.iter().sum::<f64>();
            for d in 0..DIM {
                definition[query * WIDTH + head * DIM + d] = (0..tokens).map(|token| exps[token] / sum * at(token, 2, head, d)).sum();
            }
        }
        let (shape, out) = eval(&op, &[(&[tokens, 3 * WIDTH], &qkv)]);
        assert_eq!(shape, [tokens, WIDTH]);
        close(&out, &definition);
    }
}

#[test]
fn rows_follow_the_input_through_norms_activations_and_concats() {
    let norm = Arc::new(Norm { scale: vec![1.0; 4], shift: vec![0.0; 4], eps: 0.0 });
    let op = packed(Spec::Norm(NormSpec(norm)), &[&[1, 3, 4]], &[1, 3, 4]);
    let (shape, out) = eval(&op, &[(&[1, 2, 4], &[1.0, 1.0, -1.0, -1.0, 2.0, -2.0, 2.0, -2.0])]);
    assert_eq!((shape, out), (vec![1, 2, 4], vec![1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0, -1.0]));
    let op = packed(Spec::Activation(ActivationSpec { activation: Activation::Relu }), &[&[3, 2]], &[3, 2]);
    assert_eq!(eval(&op, &[(&[1, 2], &[-1.0, 2.0])]), (vec![1, 2], vec![0.0, 2.0]));
    let op = packed(Spec::Concat(ConcatSpec), &[&[1, 3, 2], &[1, 3, 2]], &[1, 6, 2]);
    let (shape, out) = eval(&op, &[(&[1, 1, 2], &[1.0, 2.0]), (&[1, 2, 2], &[3.0, 4.0, 5.0, 6.0])]);
    assert_eq!((shape, out), (vec![1, 3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
}

/// Adds up all inputs since the model was loaded or reset.
#[derive(Debug)]
pub struct Sum;

impl Kernel for Sum {
    fn name(&self) -> &'static str {
        "Sum"
    }

    fn out_len(&self, _planned: usize, inputs: &[&[f32]]) -> usize {
        inputs[0].len()
    }

    fn remembers(&self) -> bool {
        true
    }

    fn run(&self, _engine: &Engine, memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        if memory.runs == 0 {
            memory.values = vec![0.0; inputs[0].len()];
        }
        memory.values.iter_mut().zip(inputs[0]).for_each(|(sum, value)| *sum += value);
        out.copy_from_slice(&memory.values);
    }

    fn macs(&self) -> (usize, usize) {
        (0, 0)
    }
}

impl Fused {
    /// A node of [`Sum`], whose input and output have this shape.
    pub fn sum(shape: &[usize], engine: &Engine) -> Fused {
        Fused { kernel: Arc::new(Sum), shape: shape.into(), engine: engine.clone() }
    }
}
