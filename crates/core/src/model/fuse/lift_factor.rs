//! Constants that optimizers of ONNX files (onnxsim, ONNX Runtime's basic level) moved between neighbouring operators.

use tract_onnx::prelude::{Datum, OutletId, SpecialOps, Tensor, TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::internal::{AxesMapping, DimLike, InOut};
use tract_onnx::tract_core::ops::array::Slice;
use tract_onnx::tract_core::ops::cnn::Conv;
use tract_onnx::tract_core::ops::einsum::EinSum;

use super::rule::{Context, Patch};
use super::view::{binary, konst, konst_floats, only_successor, scalar, shape, split_inputs};

/// `x` and the constant of `x * constant` that only the asker reads.
fn factor(model: &TypedModel, outlet: OutletId) -> Option<(OutletId, f32)> {
    let node = binary(model, outlet.node, "Mul")?;
    only_successor(model, node)?;
    let (constant, x) = split_inputs(node, |input| scalar(model, input).is_some())?;
    (shape(model, x) == shape(model, outlet)).then_some((x, scalar(model, constant)?))
}

/// The constant at `outlet`, times `factor`.
fn multiplied(model: &TypedModel, outlet: OutletId, factor: f32) -> Option<Tensor> {
    let constant = konst(model, outlet)?;
    let values: Vec<f32> = konst_floats(model, outlet)?.iter().map(|value| value * factor).collect();
    (constant.datum_type() == f32::datum_type()).then(|| Tensor::from_shape(constant.shape(), &values).ok())?
}

/// A constant before a convolution: multiplied into its kernel.
pub(super) fn convolution(_: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Conv) -> Patch {
    let found = || {
        let (x, factor) = factor(model, node.inputs[0])?;
        op.q_params.is_none().then_some(())?;
        Some((x, multiplied(model, node.inputs[1], factor)?))
    };
    let Some((x, kernel)) = found() else { return Ok(None) };
    let mut patch = TypedModelPatch::default();
    let mut inputs = patch.taps(model, &node.inputs)?;
    inputs[0] = patch.tap_model(model, x)?;
    inputs[1] = patch.add_const(format!("{name}.scaled"), kernel)?;
    let output = patch.wire_node(name, op.clone(), &inputs)?;
    patch.shunt_outside(model, node.id.into(), output[0])?;
    Ok(Some(patch))
}

/// A constant before a product with a matrix: multiplied into that.
pub(super) fn product(_: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &EinSum) -> Patch {
    let found = || {
        (op.q_params.is_none() && node.inputs.len() == 2).then_some(())?;
        let slot = (0..2).find(|slot| konst(model, node.inputs[*slot]).is_some_and(|constant| constant.rank() >= 2))?;
        let (x, factor) = factor(model, node.inputs[1 - slot])?;
        Some((slot, x, multiplied(model, node.inputs[slot], factor)?))
    };
    let Some((slot, x, matrix)) = found() else { return Ok(None) };
    let mut patch = TypedModelPatch::default();
    let mut inputs = [OutletId::new(0, 0); 2];
    inputs[1 - slot] = patch.tap_model(model, x)?;
    inputs[slot] = patch.add_const(format!("{name}.scaled"), matrix)?;
    let output = patch.wire_node(name, op.clone(), &inputs)?;
    patch.shunt_outside(model, node.id.into(), output[0])?;
    Ok(Some(patch))
}

/// Some columns of a product with a matrix, where queries, keys and values were made one: a product with these columns. The rules for
/// attention join them again, with the biases that stand behind each.
pub(super) fn columns(_: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Slice) -> Patch {
    let found = || {
        let product = model.node(node.inputs[0].node);
        let einsum = product.op_as::<EinSum>().filter(|einsum| einsum.q_params.is_none() && product.inputs.len() == 2)?;
        let slot = (0..2).find(|slot| konst(model, product.inputs[*slot]).is_some_and(|constant| constant.rank() >= 2))?;
        let matrix = konst(model, product.inputs[slot])?;
        (op.axis + 1 == shape(model, node.inputs[0]).len() && konst(model, product.inputs[1 - slot]).is_none()).then_some(())?;
        let axis = column_axis(&einsum.axes, op.axis, slot)?;
        let part = matrix.slice(axis, op.start.to_usize().ok()?, op.end.to_usize().ok()?).ok()?;
        Some((product, einsum, slot, part))
    };
    let Some((product, einsum, slot, part)) = found() else { return Ok(None) };
    let mut patch = TypedModelPatch::default();
    let mut inputs = patch.taps(model, &product.inputs)?;
    inputs[slot] = patch.add_const(format!("{name}.columns"), part)?;
    let output = patch.wire_node(name, einsum.clone(), &inputs)?;
    patch.shunt_outside(model, node.id.into(), output[0])?;
    Ok(Some(patch))
}

/// The axis of input `slot` that becomes the axis `output` of the product, and of no other input.
fn column_axis(axes: &AxesMapping, output: usize, slot: usize) -> Option<usize> {
    let axis = axes.axis((InOut::Out(0), output)).ok()?;
    (axis.inputs[1 - slot].is_empty() && axis.inputs[slot].len() == 1).then(|| axis.inputs[slot][0])
}
