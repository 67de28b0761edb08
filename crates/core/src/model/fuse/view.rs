//! Reading a typed graph: constants, neighbours, and what transposes and reshapes do to a memory layout.

use std::sync::Arc;

use tract_onnx::prelude::{OutletId, Tensor, TractResult, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::{AxisOp, ToDim};
use tract_onnx::tract_core::ops::binary::TypedBinOp;

/// The constant behind `outlet`.
pub fn konst(model: &TypedModel, outlet: OutletId) -> Option<Arc<Tensor>> {
    model.outlet_fact(outlet).ok()?.konst.clone()
}

/// A constant's values as f32, if it is numbers in memory.
pub fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    let tensor = tensor.cast_to::<f32>().ok()?;
    tensor.try_as_plain_ram().ok()?.as_slice::<f32>().ok().map(<[f32]>::to_vec)
}

/// The f32 values of the constant behind `outlet`.
pub fn konst_floats(model: &TypedModel, outlet: OutletId) -> Option<Vec<f32>> {
    floats(konst(model, outlet)?.as_ref())
}

/// The value of a constant with one element.
pub fn scalar(model: &TypedModel, outlet: OutletId) -> Option<f32> {
    let tensor = konst(model, outlet)?;
    if tensor.len() == 1 { floats(&tensor)?.first().copied() } else { None }
}

/// Shape in numbers; empty when it is not fixed.
pub fn shape(model: &TypedModel, outlet: OutletId) -> Vec<usize> {
    model.outlet_fact(outlet).ok().and_then(|fact| fact.shape.as_concrete().map(<[usize]>::to_vec)).unwrap_or_default()
}

/// The node, if it is the binary operator of this name.
pub fn binary<'a>(model: &'a TypedModel, node: usize, name: &str) -> Option<&'a TypedNode> {
    let node = model.node(node);
    (node.op_is::<TypedBinOp>() && node.op.name() == name).then_some(node)
}

/// For a binary node: the one of its inputs that satisfies `matches`, then the other.
pub fn split_inputs(node: &TypedNode, matches: impl Fn(OutletId) -> bool) -> Option<(OutletId, OutletId)> {
    let [a, b] = node.inputs[..] else { return None };
    if matches(a) {
        Some((a, b))
    } else if matches(b) {
        Some((b, a))
    } else {
        None
    }
}

/// The only consumer of the node's only output, unless that is an output of the graph.
pub fn only_successor<'a>(model: &'a TypedModel, node: &TypedNode) -> Option<&'a TypedNode> {
    model.single_succ(node.id).ok().flatten()
}

/// The same values in the same order, before any reshape.
pub fn behind_reshapes(model: &TypedModel, mut outlet: OutletId) -> OutletId {
    while matches!(model.node(outlet.node).op_as::<AxisOp>(), Some(AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..))) {
        outlet = model.node(outlet.node).inputs[0];
    }
    outlet
}

/// Follows `outlet` back through transposes and reshapes to where the same values lie in the order `wanted` of the labels.
///
/// `labels` are those of `outlet`'s axes. Axes of size 1 lie anywhere. Axes may share a label when their order among themselves
/// never changes; a reshape may split such a group or, at the very end, merge neighbouring axes that are already in order.
/// Returns the deepest outlet whose memory is in that order.
pub fn laid_out(model: &TypedModel, outlet: OutletId, labels: &[char], wanted: &[char]) -> Option<OutletId> {
    let (mut outlet, mut labels) = (outlet, labels.to_vec());
    let mut found = None;
    loop {
        let sizes = shape(model, outlet);
        if sizes.len() != labels.len() {
            return found;
        }
        let mut order: Vec<char> = labels.iter().zip(&sizes).filter(|(_, size)| **size != 1).map(|(label, _)| *label).collect();
        order.dedup();
        let present: Vec<char> = wanted.iter().copied().filter(|label| order.contains(label)).collect();
        if order == present {
            found = Some(outlet);
        }
        let node = model.node(outlet.node);
        let Some(op) = node.op_as::<AxisOp>() else { return found };
        let input = node.inputs[0];
        match *op {
            AxisOp::Move(from, to) => {
                let label = labels.remove(to);
                labels.insert(from, label);
            }
            AxisOp::Add(axis) => {
                labels.remove(axis);
            }
            AxisOp::Rm(axis) => labels.insert(axis, '1'),
            AxisOp::Reshape(at, ref from, ref to) => {
                if found == Some(outlet) {
                    // in order already: a reshape moves nothing, but hides the labels
                    return Some(behind_reshapes(model, input));
                }
                let group = &labels[at..at + to.len()];
                let Some(&label) = group.first() else { return found };
                if group.iter().any(|other| *other != label) {
                    return found;
                }
                labels.splice(at..at + to.len(), std::iter::repeat_n(label, from.len()));
            }
        }
        outlet = input;
    }
}

/// A reshape of a whole tensor: removes or adds axes of size 1, splits or merges, as needed from `from` to `to`.
pub fn reshape(from: &[usize], to: &[usize]) -> TractResult<AxisOp> {
    let dims = |sizes: &[usize]| sizes.iter().map(|size| size.to_dim()).collect();
    Ok(AxisOp::Reshape(0, dims(from), dims(to)))
}
