//! Rewrites of the graph before tract optimizes it.
//!
//! ```text
//! ONNX as tract types it ──lift──▶ our operators, one by one ──merge──▶ fused operators ──code generation──▶ packed
//! ```
//!
//! [`lift`] recognizes operators by their structure, whoever exported them, in f32 and in the dynamic int8 form of ONNX Runtime's
//! quantizer. [`merge`] joins neighbours: q, k and v; layer norm, layers, activation, residual. [`MaskProduct`] cuts the final
//! product of query embeddings and pixel features out of the plan, so that only the masks of surviving queries are computed.
//!
//! A rule looks at one node and its neighbours and returns a patch, or nothing. What no rule recognizes stays tract's. The rules
//! run before tract's own declutter, which would turn these patterns into others.

mod dynamic_int8;
mod lift;
mod lift_attention;
mod lift_convolution;
mod lift_factor;
mod lift_linear;
mod lift_sample;
mod mask_product;
mod merge;
mod rounding;
mod rule;
mod view;

pub use mask_product::MaskProduct;
pub use rounding::LeftOut;

use std::sync::Arc;

use tract_onnx::prelude::{TractResult, TypedModel};
use tract_onnx::tract_core::optim::Optimizer;

use super::ops::Engine;
use crate::kernels::attention::ScorePrecision;
use rule::{Context, IntegerWeights};

/// What the rules made of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewritten {
    /// Layers are computed in int8, and so half precision is good enough for what is not.
    pub quantized: bool,
    /// Roundings of activations that are not computed.
    pub roundings: usize,
}

/// Applies all rules.
pub fn rewrite(model: &mut TypedModel, engine: &Engine) -> TractResult<Rewritten> {
    let dynamic = model.nodes().iter().any(|node| node.op.name() == dynamic_int8::DYNAMIC_QUANTIZE);
    let (left_out, weights) = without_roundings(model)?;
    let weights = if left_out.pairs > 0 && left_out.int8 { weights } else { Vec::new() };
    let quantized = dynamic || !weights.is_empty();
    let scores = match (quantized, engine.bf16) {
        // quantizing queries and keys takes longer there than products of twice the bytes
        (true, _) if engine.isa.has_matrix_registers() => ScorePrecision::Half,
        (true, _) => ScorePrecision::Int8,
        (false, true) => ScorePrecision::Half,
        (false, false) => ScorePrecision::F32,
    };
    let mut engine = engine.clone();
    engine.half_pixels = quantized && engine.isa.has_bf16();
    let context = Context { engine, scores, weights: Arc::new(weights) };
    lift::lift(&context, model)?;
    merge::merge(&context, model)?;
    Ok(Rewritten { quantized, roundings: left_out.pairs })
}

/// Folds constants, and leaves out the roundings of a statically quantized network.
pub fn without_roundings(model: &mut TypedModel) -> TractResult<(LeftOut, Vec<IntegerWeights>)> {
    let weights = rounding::fold_weights(model)?;
    fold_constants(model)?;
    Ok((rounding::leave_out(model)?, weights))
}

/// Evaluates what depends on constants only, and nothing else.
fn fold_constants(model: &mut TypedModel) -> TractResult<()> {
    let mut optimizer = Optimizer::declutter();
    optimizer.passes.retain(|pass| format!("{pass:?}").starts_with("PropConst"));
    optimizer.optimize(model)
}
