//! Static quantization of activations: pairs of QuantizeLinear and DequantizeLinear around every operator.
//!
//! Between two operators that become one there is no tensor that could be rounded, so in a network with attention the pairs are left
//! out: it is computed at a higher precision than the file asks for. What else a pair does is kept: one whose integers hold no
//! negative value is a ReLU, which quantizers leave out for it. Any other graph keeps its pairs.

use tract_onnx::prelude::{OutletId, TractResult, TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::internal::{AxisOp, Rewriter};
use tract_onnx::tract_core::ops::array::{Slice, TypedConcat};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::nn::Softmax;

use super::Rules;
use super::lift::{Patch, replace};
use super::view::{konst, scalar};
use crate::kernels::activation::Activation;
use crate::model::onnx::Rounding;
use crate::model::ops::{ActivationSpec, Spec};

/// Leaves out the pairs of a network with attention; returns how many there were.
pub(super) fn leave_out(rules: &Rules, model: &mut TypedModel) -> TractResult<usize> {
    if !model.nodes().iter().any(|node| is_attention(model, node)) {
        return Ok(0);
    }
    let pairs = |model: &TypedModel| model.nodes().iter().filter(|node| pair(model, node).is_some()).count();
    let before = pairs(model);
    Rewriter::default().with_rule_for("rounding", left_out).rewrite(rules, model)?;
    model.compact()?;
    Ok(before - pairs(model))
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

fn left_out(rules: &Rules, model: &TypedModel, node: &TypedNode, name: &str, _: &Rounding) -> Patch {
    let Some((x, quantize)) = pair(model, node) else { return Ok(None) };
    let bounded_below = quantize.zero.iter().any(|zero| *zero <= quantize.low);
    let bounded_above = quantize.zero.iter().any(|zero| *zero >= quantize.high);
    if bounded_above || (bounded_below && quantize.zero.len() > 1) {
        return Ok(None);
    }
    if bounded_below && may_be_negative(model, x, 8) {
        return replace(
            rules,
            model,
            name,
            Spec::Activation(ActivationSpec { activation: Activation::Relu, len: 0 }),
            &[x],
            node.id.into(),
        );
    }
    let mut patch = TypedModelPatch::default();
    let tap = patch.tap_model(model, x)?;
    patch.shunt_outside(model, node.id.into(), tap)?;
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
