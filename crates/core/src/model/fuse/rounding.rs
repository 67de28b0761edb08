//! Static quantization of activations: pairs of QuantizeLinear and DequantizeLinear around every operator.
//!
//! Between two operators that become one there is no tensor that could be rounded, so in a network with attention the pairs are left
//! out. What else a pair does is kept: one whose integers hold no negative value is a ReLU, which quantizers leave out for it. Any other
//! graph keeps its pairs. Weights of 8 bits stay integers where the activations before them have 8 bits too: our int8 layers then quantize
//! those anew, token by token, which rounds less than one scale for all tokens.

use std::sync::Arc;

use tract_onnx::prelude::{DatumType, OutletId, SpecialOps, TractResult, TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::internal::{AxisOp, Rewriter, tensor0};
use tract_onnx::tract_core::ops::array::{Slice, TypedConcat};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math::max;
use tract_onnx::tract_core::ops::nn::Softmax;

use super::rule::{IntegerWeights, Patch};
use super::view::{konst, scalar};
use crate::model::onnx::Rounding;

/// Folds what is dequantized from constants (tract does not fold a constant that grows by much); returns the matrices of 8 bits.
pub fn fold_weights(model: &mut TypedModel) -> TractResult<Vec<IntegerWeights>> {
    let mut weights = Vec::new();
    let mut patches = Vec::new();
    for node in model.nodes() {
        let Some(rounding) = node.op_as::<Rounding>() else { continue };
        let Some(integers) = konst(model, node.inputs[0]) else { continue };
        let floats = rounding.of(Arc::clone(&integers))?;
        let mut patch = TypedModelPatch::default();
        let folded = patch.add_const(format!("{}.folded", node.name), Arc::clone(&floats))?;
        patch.shunt_outside(model, node.id.into(), folded)?;
        patches.push(patch);
        if integers.rank() == 2 && matches!(integers.datum_type(), DatumType::I8 | DatumType::U8) {
            weights.push(IntegerWeights { floats, integers, rounding: rounding.clone() });
        }
    }
    for patch in patches {
        patch.apply(model)?;
    }
    Ok(weights)
}

/// What was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftOut {
    pub pairs: usize,
    /// All of them were of 8 bits.
    pub int8: bool,
}

/// Leaves out the pairs of a network with attention.
pub fn leave_out(model: &mut TypedModel) -> TractResult<LeftOut> {
    if !model.nodes().iter().any(|node| is_attention(model, node)) {
        return Ok(LeftOut::default());
    }
    let pairs = |model: &TypedModel| model.nodes().iter().filter_map(|node| Some(pair(model, node)?.1.is_int8())).collect::<Vec<bool>>();
    let before = pairs(model);
    Rewriter::default().with_rule_for("rounding", left_out).rewrite(&(), model)?;
    model.compact()?;
    Ok(LeftOut { pairs: before.len() - pairs(model).len(), int8: before.iter().all(|int8| *int8) })
}

/// Whether the node is the softmax of products of two activations.
fn is_attention(model: &TypedModel, node: &TypedNode) -> bool {
    if !node.op_is::<Softmax>() {
        return false;
    }
    let mut outlet = node.inputs[0];
    loop {
        let node = model.node(outlet.node);
        if node.op_is::<EinSum>() {
            return node.inputs.iter().all(|input| konst(model, *input).is_none());
        }
        let passed = node.op_is::<Rounding>() || node.op_is::<TypedBinOp>() || node.op_is::<AxisOp>();
        let Some(next) = node.inputs.iter().find(|input| konst(model, **input).is_none()).filter(|_| passed) else { return false };
        outlet = *next;
    }
}

/// What a pair that ends in `node` rounds, and the first of the two.
fn pair<'a>(model: &'a TypedModel, node: &TypedNode) -> Option<(OutletId, &'a Rounding)> {
    let dequantize = node.op_as::<Rounding>()?;
    let before = model.node(node.inputs[0].node);
    let quantize = before.op_as::<Rounding>()?;
    dequantize.is_inverse_of(quantize).then_some((before.inputs[0], quantize))
}

fn left_out(_: &(), model: &TypedModel, node: &TypedNode, name: &str, _: &Rounding) -> Patch {
    let Some((x, quantize)) = pair(model, node) else { return Ok(None) };
    let bounded_below = quantize.zero.iter().any(|zero| *zero <= quantize.low);
    let bounded_above = quantize.zero.iter().any(|zero| *zero >= quantize.high);
    if bounded_above || (bounded_below && quantize.zero.len() > 1) {
        return Ok(None);
    }
    let rank = model.outlet_fact(x)?.rank();
    let is_relu = bounded_below && may_be_negative(model, x, 8);
    let mut patch = TypedModelPatch::default();
    let mut output = patch.tap_model(model, x)?;
    if is_relu {
        let zero = patch.add_const(format!("{name}.zero"), tensor0(0f32).broadcast_into_rank(rank)?)?;
        output = patch.wire_node(name, max(), &[output, zero])?[0];
    }
    patch.shunt_outside(model, node.id.into(), output)?;
    Ok(Some(patch))
}

/// Whether a value of `outlet` can be below zero, as far as `depth` operators tell.
fn may_be_negative(model: &TypedModel, outlet: OutletId, depth: usize) -> bool {
    if let Some(constant) = konst(model, outlet) {
        return super::view::floats(&constant).is_none_or(|values| values.iter().any(|value| *value < 0.0));
    }
    let node = model.node(outlet.node);
    let Some(depth) = depth.checked_sub(1) else { return true };
    let any = || node.inputs.iter().any(|input| may_be_negative(model, *input, depth));
    if node.op_is::<AxisOp>() || node.op_is::<Rounding>() || node.op_is::<Slice>() || node.op_is::<TypedConcat>() || node.op_is::<Cast>() {
        return any();
    }
    match node.op.name().as_ref() {
        "Softmax" | "Sigmoid" | "Exp" | "Sqrt" | "Rsqrt" | "Abs" | "Square" => false,
        "Max" => node.inputs.iter().all(|input| may_be_negative(model, *input, depth)),
        "Mul" if node.inputs[0] == node.inputs[1] => false,
        // 1 + erf x and 1 + tanh x
        "Add" if node.inputs.iter().any(|input| scalar(model, *input).is_some_and(|one| one >= 1.0)) => {
            let bounded = |input: &OutletId| ["Erf", "Tanh"].contains(&model.node(behind_pairs(model, *input).node).op.name().as_ref());
            !node.inputs.iter().any(bounded) && any()
        }
        "Add" | "Mul" | "Div" | "Reduce<Sum>" | "Reduce<Max>" => any(),
        _ => true,
    }
}

/// Before the roundings at `outlet`.
fn behind_pairs(model: &TypedModel, mut outlet: OutletId) -> OutletId {
    while model.node(outlet.node).op_is::<Rounding>() {
        outlet = model.node(outlet.node).inputs[0];
    }
    outlet
}
