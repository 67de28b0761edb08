//! Recognizes layer norms and activations, and runs the other recognizers in order.

use std::sync::Arc;

use tract_onnx::prelude::{OutletId, SpecialOps, TractResult, TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::internal::{Op, Rewriter, TypedOp, tensor0};
use tract_onnx::tract_core::ops::array::StridedSlice;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::mul;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};

use super::rule::{Context, Patch, replace};
use super::view::{binary, konst_floats, only_successor, scalar, shape, split_inputs};
use super::{lift_attention, lift_convolution, lift_factor, lift_linear, lift_sample};
use crate::kernels::activation::Activation;
use crate::kernels::linear::Norm;
use crate::model::ops::{ActivationSpec, Lifted, NormSpec, Spec};

/// Replaces what it recognizes by [`Lifted`] operators.
pub(super) fn lift(context: &Context, model: &mut TypedModel) -> TractResult<()> {
    Rewriter::default().with_rule_for("no-op cast", no_op_cast).with_rule_for("slice", strided_slice).rewrite(context, model)?;
    Rewriter::default()
        .with_rule_for("layer norm", layer_norm)
        .with_rule_for("activation", activation)
        .with_rule_for("activation by maximum", relu)
        .rewrite(context, model)?;
    Rewriter::default()
        .with_rule_for("factor before a convolution", lift_factor::convolution)
        .with_rule_for("factor before a product", lift_factor::product)
        .with_rule_for("columns", lift_factor::columns)
        .rewrite(context, model)?;
    Rewriter::default().with_rule_for("quantized convolution", lift_convolution::dequantize).rewrite(context, model)?;
    Rewriter::default().with_rule_for("linear", lift_linear::linear).rewrite(context, model)?;
    Rewriter::default()
        .with_rule_for("attention", lift_attention::attention)
        .with_rule_for("patch embedding", lift_convolution::patches)
        .with_rule_for("scale block", lift_convolution::scale_block)
        .with_rule_for("deformable attention", lift_sample::deformable)
        .rewrite(context, model)?;
    Rewriter::default().with_rule_for("samples", lift_sample::grid_sample).rewrite(context, model)
}

fn no_op_cast(_: &Context, model: &TypedModel, node: &TypedNode, _: &str, op: &Cast) -> Patch {
    if model.outlet_fact(node.inputs[0])?.datum_type != op.to {
        return Ok(None);
    }
    TypedModelPatch::shunt_one_op(model, node)
}

/// Slices with constant bounds become plain ones, as tract's declutter does.
fn strided_slice(_: &Context, model: &TypedModel, node: &TypedNode, _: &str, op: &StridedSlice) -> Patch {
    op.declutter(model, node)
}

/// Whether the node is the element-wise operator of this name.
fn unary<'a>(model: &'a TypedModel, outlet: OutletId, name: &str) -> Option<&'a TypedNode> {
    let node = model.node(outlet.node);
    (node.op_is::<ElementWiseOp>() && node.op.name() == name).then_some(node)
}

/// `x` of `mean(x)` over the last axis: a sum divided by, or multiplied with the inverse of, its length.
fn mean(model: &TypedModel, outlet: OutletId) -> Option<OutletId> {
    let node = model.node(outlet.node);
    let over_last = |node: &TypedNode, reducer: Reducer| {
        let reduce = node.op_as::<Reduce>()?;
        let rank = shape(model, node.inputs[0]).len();
        (reduce.reducer == reducer && reduce.axes[..] == [rank.checked_sub(1)?]).then_some(node.inputs[0])
    };
    let (sum, factor) = match node.op.name().as_ref() {
        "Div" => (node.inputs[0], 1.0 / scalar(model, node.inputs[1])?),
        "Mul" => {
            let (factor, sum) = split_inputs(node, |input| scalar(model, input).is_some())?;
            (sum, scalar(model, factor)?)
        }
        _ => return None,
    };
    let x = over_last(model.node(sum.node), Reducer::Sum)?;
    let count = *shape(model, x).last()? as f32;
    ((factor * count - 1.0).abs() < 1e-5).then_some(x)
}

/// `x` of `x * x`.
fn square(model: &TypedModel, outlet: OutletId) -> Option<OutletId> {
    let node = model.node(outlet.node);
    match node.op.name().as_ref() {
        "Square" => Some(node.inputs[0]),
        "Mul" if node.inputs.len() == 2 && node.inputs[0] == node.inputs[1] => Some(node.inputs[0]),
        "Pow" if scalar(model, *node.inputs.get(1)?) == Some(2.0) => Some(node.inputs[0]),
        _ => None,
    }
}

/// LayerNorm (Ba et al. 2016): `(x - mean x) / sqrt(mean (x - mean x)^2 + eps)`, then times a constant plus a constant.
fn layer_norm(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &TypedBinOp) -> Patch {
    let Some((x, eps)) = normalized(model, node, op.name().as_ref()) else { return Ok(None) };
    let Some(&width) = shape(model, x).last() else { return Ok(None) };
    let (mut last, mut scale, mut shift) = (node, vec![1.0; width], vec![0.0; width]);
    for (kind, values) in [("Mul", &mut scale), ("Add", &mut shift)] {
        let Some(next) = only_successor(model, last).filter(|next| binary(model, next.id, kind).is_some()) else { continue };
        let constants = next.inputs.iter().find_map(|input| konst_floats(model, *input));
        if let Some(constants) = constants.filter(|constants| constants.len() == width) {
            *values = constants;
            last = next;
        }
    }
    let spec = Spec::Norm(NormSpec(Arc::new(Norm { scale, shift, eps })));
    replace(context, model, name, spec, &[x], last.id.into())
}

/// What is normalized, and epsilon.
fn normalized(model: &TypedModel, node: &TypedNode, name: &str) -> Option<(OutletId, f32)> {
    let (distance, variance) = match name {
        "Mul" => {
            let (inverse, distance) = split_inputs(node, |input| unary(model, input, "Rsqrt").is_some())?;
            (distance, model.node(inverse.node).inputs[0])
        }
        "Div" => (node.inputs[0], unary(model, node.inputs[1], "Sqrt")?.inputs[0]),
        _ => return None,
    };
    let sum = binary(model, variance.node, "Add")?;
    let (eps, variance) = split_inputs(sum, |input| scalar(model, input).is_some())?;
    let subtraction = binary(model, distance.node, "Sub")?;
    let x = subtraction.inputs[0];
    (mean(model, subtraction.inputs[1])? == x && square(model, mean(model, variance)?)? == distance).then_some(())?;
    Some((x, scalar(model, eps)?))
}

/// `outlet` times a constant, either way round; the constant.
fn scaled(model: &TypedModel, outlet: OutletId) -> Option<(OutletId, f32)> {
    let node = model.node(outlet.node);
    match node.op.name().as_ref() {
        "Mul" => {
            let (factor, x) = split_inputs(node, |input| scalar(model, input).is_some())?;
            Some((x, scalar(model, factor)?))
        }
        "Div" => Some((node.inputs[0], 1.0 / scalar(model, node.inputs[1])?)),
        _ => None,
    }
}

/// Equal but for the rounding of a constant, of bfloat16 at most (2^-9).
fn near(value: f32, target: f32) -> bool {
    (value - target).abs() <= 2e-3 * target.abs()
}

/// GELU (Hendrycks and Gimpel 2016) by the error function or tanh, SiLU and its relatives by the sigmoid.
fn activation(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &ElementWiseOp) -> Patch {
    let found = match op.name().as_ref() {
        "Erf" => gelu(model, node),
        "Tanh" => gelu_tanh(model, node),
        "Sigmoid" => sigmoid_gate(model, node),
        _ => None,
    };
    let Some(Found { x, last, activation, multiple }) = found else { return Ok(None) };
    let spec = Spec::Activation(ActivationSpec { activation });
    if multiple == 1.0 {
        return replace(context, model, name, spec, &[x], last);
    }
    let sizes = shape(model, last);
    let mut patch = TypedModelPatch::default();
    let x = patch.tap_model(model, x)?;
    let output = patch.wire_node(name, Lifted::new(spec, &sizes, &context.engine), &[x])?[0];
    let factor = patch.add_const(format!("{name}.factor"), tensor0(multiple).broadcast_into_rank(sizes.len())?)?;
    let output = patch.wire_node(format!("{name}.multiple"), mul(), &[output, factor])?;
    patch.shunt_outside(model, last, output[0])?;
    Ok(Some(patch))
}

struct Found {
    x: OutletId,
    last: OutletId,
    activation: Activation,
    /// `last` is so many times the activation.
    multiple: f32,
}

fn gelu(model: &TypedModel, erf: &TypedNode) -> Option<Found> {
    let (x, factor) = scaled(model, erf.inputs[0])?;
    near(factor, std::f32::consts::FRAC_1_SQRT_2).then_some(())?;
    let (last, multiple) = half_of_x_times_one_plus(model, erf, x)?;
    Some(Found { x, last, activation: Activation::Gelu, multiple })
}

fn gelu_tanh(model: &TypedModel, tanh: &TypedNode) -> Option<Found> {
    // sqrt(2 / pi) * x * (1 + 0.044715 x^2), as our converter writes it
    let (inner, factor) = scaled(model, tanh.inputs[0])?;
    near(factor, (2.0 / std::f32::consts::PI).sqrt()).then_some(())?;
    let product = binary(model, inner.node, "Mul")?;
    let plus_one = |outlet: OutletId| {
        let sum = binary(model, outlet.node, "Add")?;
        let (one, cubic) = split_inputs(sum, |input| scalar(model, input) == Some(1.0))?;
        (scalar(model, one)? == 1.0).then_some(cubic)
    };
    let (sum, x) = split_inputs(product, |input| plus_one(input).is_some())?;
    let (squared, factor) = scaled(model, plus_one(sum)?)?;
    (near(factor, 0.044_715) && square(model, squared)? == x).then_some(())?;
    let (last, multiple) = half_of_x_times_one_plus(model, tanh, x)?;
    Some(Found { x, last, activation: Activation::GeluTanh, multiple })
}

/// The end of `0.5 * x * (1 + curve)`, whatever the order of the factors, and how many times that it is: onnxsim multiplies the 0.5
/// into the weights of the next layer.
fn half_of_x_times_one_plus(model: &TypedModel, curve: &TypedNode, x: OutletId) -> Option<(OutletId, f32)> {
    let sum = only_successor(model, curve).filter(|sum| binary(model, sum.id, "Add").is_some())?;
    sum.inputs.iter().find(|input| scalar(model, **input) == Some(1.0))?;
    let (mut last, mut factor, mut times_x) = (sum, 1.0, false);
    let next_factor = |last: &TypedNode, times_x: bool| {
        let next = only_successor(model, last).filter(|next| binary(model, next.id, "Mul").is_some())?;
        let (_, other) = split_inputs(next, |input| input.node == last.id)?;
        match (scalar(model, other), scaled(model, other)) {
            (Some(constant), _) => Some((next, constant, times_x)),
            _ if other == x && !times_x => Some((next, 1.0, true)),
            (None, Some((inner, constant))) if inner == x && !times_x => Some((next, constant, true)),
            _ => None,
        }
    };
    while !(times_x && near(factor, 0.5)) {
        let Some((next, constant, with_x)) = next_factor(last, times_x) else { break };
        (last, factor, times_x) = (next, factor * constant, with_x);
    }
    let multiple = if near(factor, 0.5) { 1.0 } else { factor * 2.0 };
    times_x.then_some((last.id.into(), multiple))
}

/// `x * sigmoid(slope * x)`.
fn sigmoid_gate(model: &TypedModel, sigmoid: &TypedNode) -> Option<Found> {
    let product = only_successor(model, sigmoid).filter(|next| binary(model, next.id, "Mul").is_some())?;
    let (_, x) = split_inputs(product, |input| input.node == sigmoid.id)?;
    let argument = sigmoid.inputs[0];
    if argument == x {
        return Some(Found { x, last: product.id.into(), activation: Activation::Silu, multiple: 1.0 });
    }
    let (inner, slope) = scaled(model, argument)?;
    let last = product.id.into();
    (inner == x && near(slope, 1.702)).then_some(Found { x, last, activation: Activation::QuickGelu, multiple: 1.0 })
}

/// `max(x, 0)`.
fn relu(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &TypedBinOp) -> Patch {
    if op.name() != "Max" {
        return Ok(None);
    }
    let Some((_, x)) = split_inputs(node, |input| scalar(model, input) == Some(0.0)) else { return Ok(None) };
    let spec = Spec::Activation(ActivationSpec { activation: Activation::Relu });
    replace(context, model, name, spec, &[x], node.id.into())
}
