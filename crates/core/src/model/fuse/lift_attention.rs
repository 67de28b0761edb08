//! Recognizes attention around its softmax, and finds where queries, keys and values lie token by token.

use tract_onnx::prelude::{OutletId, TypedModel, TypedModelPatch, TypedNode, tvec};
use tract_onnx::tract_core::internal::AxisOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::nn::Softmax;

use super::rule::{Context, Patch};
use super::view::{binary, laid_out, only_successor, reshape, scalar, shape, split_inputs};
use crate::kernels::attention::Shape;
use crate::model::ops::{AttentionSpec, Lifted, Part, Spec};

/// One of q, k, v: where its values lie as `[tokens, heads * head_dim]`, or how to bring them there.
struct Operand {
    outlet: OutletId,
    /// Axes of `outlet` that must move, in order, to make it token by token.
    moves: Vec<AxisOp>,
    /// Of constants that were multiplied in on the way.
    factor: f32,
}

/// `softmax(q k^T) v` with a scale and an additive mask in between.
pub(super) fn attention(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Softmax) -> Patch {
    let Some(found) = find(model, node, op) else { return Ok(None) };
    let Found { q, k, v, mask, mut shape, product } = found;
    shape.scale *= q.factor * k.factor;
    if v.factor != 1.0 {
        return Ok(None);
    }
    shape.scores = context.scores;
    let width = shape.heads * shape.head_dim;
    let mut patch = TypedModelPatch::default();
    let mut inputs = tvec![];
    for (label, operand) in [("q", &q), ("k", &k), ("v", &v)] {
        let mut outlet = patch.tap_model(model, operand.outlet)?;
        for (index, op) in operand.moves.iter().enumerate() {
            outlet = patch.wire_node(format!("{name}.{label}.{index}"), op.clone(), &[outlet])?[0];
        }
        inputs.push(outlet);
    }
    if let Some(mask) = mask {
        inputs.push(patch.tap_model(model, mask)?);
    }
    let part = |slot: usize| Part { slot, stride: width, offset: 0 };
    let spec = AttentionSpec { shape, q: part(0), k: part(1), v: part(2), mask: mask.map(|_| 3), bias: None };
    let (last, wanted) = merged(model, product, &shape);
    let target = super::view::shape(model, last.into());
    // the shape that is wanted, with its axes of 1: a reshape would copy
    let own = if wanted { target.clone() } else { vec![shape.queries, width] };
    let mut output = patch.wire_node(name, Lifted::new(Spec::Attention(spec), &own, &context.engine), &inputs)?[0];
    if !wanted {
        // a consumer reads it head by head
        let split = [shape.queries, shape.heads, shape.head_dim];
        output = patch.wire_node(format!("{name}.split"), reshape(&[shape.queries, width], &split)?, &[output])?[0];
        output = patch.wire_node(format!("{name}.heads"), AxisOp::Move(0, 1), &[output])?[0];
        let heads = [shape.heads, shape.queries, shape.head_dim];
        if target[..] != heads {
            output = patch.wire_node(format!("{name}.shape"), reshape(&heads, &target)?, &[output])?[0];
        }
    }
    patch.shunt_outside(model, last.into(), output)?;
    Ok(Some(patch))
}

struct Found<'a> {
    q: Operand,
    k: Operand,
    v: Operand,
    mask: Option<OutletId>,
    shape: Shape,
    product: &'a TypedNode,
}

fn find<'a>(model: &'a TypedModel, node: &TypedNode, op: &Softmax) -> Option<Found<'a>> {
    let sizes = shape(model, node.inputs[0]);
    let rank = sizes.len();
    if rank < 3 || op.axes[..] != [rank - 1] || sizes[..rank - 3].iter().any(|size| *size != 1) {
        return None;
    }
    let (heads, queries, tokens) = (sizes[rank - 3], sizes[rank - 2], sizes[rank - 1]);
    let (mut scores, mut mask, mut scale) = (node.inputs[0], None, 1.0);
    let product = loop {
        let node = model.node(scores.node);
        if node.op_is::<EinSum>() {
            break node;
        }
        scores = match node.op.name().as_ref() {
            "Add" if mask.is_none() => {
                let flat = |outlet: OutletId| shape(model, outlet).iter().product::<usize>() == queries * tokens;
                let (added, rest) = split_inputs(node, |input| flat(input) && (heads > 1 || !model.node(input.node).op_is::<EinSum>()))?;
                mask = Some(added);
                rest
            }
            // the mask is not scaled, so a scale after it (seen from here: before) does not commute
            "Mul" => {
                let (factor, rest) = split_inputs(node, |input| scalar(model, input).is_some())?;
                scale *= scalar(model, factor)?;
                rest
            }
            "Div" => {
                scale /= scalar(model, node.inputs[1])?;
                node.inputs[0]
            }
            _ => return None,
        };
    };
    if mask.is_some() && scale != 1.0 && !scale_is_below_mask(model, node) {
        return None;
    }
    let pv = only_successor(model, node).filter(|next| next.op_is::<EinSum>() && next.inputs[0].node == node.id)?;
    let plain = |node: &TypedNode| node.op_as::<EinSum>().is_some_and(|op| op.q_params.is_none()) && node.inputs.len() == 2;
    if !plain(product) || !plain(pv) || !is_matmul(model, product) || !is_matmul(model, pv) {
        return None;
    }
    let head_dim = *shape(model, product.inputs[0]).last()?;
    let q = operand(model, product.inputs[0], ['h', 't', 'd'], [heads, queries, head_dim])?;
    let k = operand(model, product.inputs[1], ['h', 'd', 't'], [heads, head_dim, tokens])?;
    let v = operand(model, pv.inputs[1], ['h', 't', 'd'], [heads, tokens, head_dim])?;
    let scores = crate::kernels::attention::ScorePrecision::F32;
    let shape = Shape { queries, tokens, heads, head_dim, scale, scores };
    Some(Found { q, k, v, mask, shape, product: pv })
}

/// Seen from the softmax, the first operator is the addition of the mask: the scale applies to the product alone.
fn scale_is_below_mask(model: &TypedModel, softmax: &TypedNode) -> bool {
    binary(model, softmax.inputs[0].node, "Add").is_some()
}

/// `[.., m, k] x [.., k, n] -> [.., m, n]` with equal leading axes.
fn is_matmul(model: &TypedModel, node: &TypedNode) -> bool {
    let (a, b, c) = (shape(model, node.inputs[0]), shape(model, node.inputs[1]), shape(model, node.id.into()));
    let Some(op) = node.op_as::<EinSum>() else { return false };
    let rank = c.len();
    if a.len() != rank || b.len() != rank || rank < 3 {
        return false;
    }
    let text = op.axes.to_string();
    let Some((inputs, output)) = text.split_once("->") else { return false };
    let Some((left, right)) = inputs.split_once(',') else { return false };
    let (left, right, output): (Vec<char>, Vec<char>, Vec<char>) =
        (left.chars().collect(), right.chars().collect(), output.chars().collect());
    left.len() == rank
        && left[..rank - 2] == right[..rank - 2]
        && left[..rank - 2] == output[..rank - 2]
        && left[rank - 1] == right[rank - 2]
        && left[rank - 2] == output[rank - 2]
        && right[rank - 1] == output[rank - 1]
}

/// Finds the operand token by token; `labels` and `sizes` are of its last three axes.
fn operand(model: &TypedModel, outlet: OutletId, labels: [char; 3], sizes: [usize; 3]) -> Option<Operand> {
    let (mut source, mut factor) = (outlet, 1.0);
    loop {
        let rank = shape(model, source).len();
        if rank < 3 || shape(model, source)[rank - 3..] != sizes {
            return None;
        }
        let all: Vec<char> = std::iter::repeat_n('1', rank - 3).chain(labels).collect();
        if let Some(found) = laid_out(model, source, &all, &['t', 'h', 'd']) {
            return Some(Operand { outlet: found, moves: Vec::new(), factor });
        }
        // a constant factor hides the layout
        let node = model.node(source.node);
        let Some((constant, rest)) =
            binary(model, node.id, "Mul").and_then(|node| split_inputs(node, |input| scalar(model, input).is_some()))
        else {
            break;
        };
        factor *= scalar(model, constant)?;
        source = rest;
    }
    let mut moves: Vec<AxisOp> = (0..shape(model, source).len() - 3).map(|_| AxisOp::Rm(0)).collect();
    match labels {
        ['h', 'd', 't'] => moves.push(AxisOp::Move(2, 0)),
        _ => moves.push(AxisOp::Move(0, 1)),
    }
    Some(Operand { outlet: source, moves, factor })
}

/// The node after which the product lies token by token, and whether there is one: transposed, then heads merged.
fn merged(model: &TypedModel, product: &TypedNode, want: &Shape) -> (usize, bool) {
    let width = want.heads * want.head_dim;
    let mut node = product;
    for _ in 0..4 {
        let Some(next) = only_successor(model, node).filter(|next| next.op_is::<AxisOp>()) else { break };
        node = next;
        let sizes = shape(model, node.id.into());
        let rank = sizes.len();
        if rank >= 2 && sizes[rank - 2..] == [want.queries, width] {
            return (node.id, came_from(model, node, product));
        }
    }
    (product.id, false)
}

/// The last axis of `node` is (head, head_dim) of `product`: between the two there is one transpose, `[h, t, d]` to `[t, h, d]`.
fn came_from(model: &TypedModel, node: &TypedNode, product: &TypedNode) -> bool {
    let mut axes = Vec::new();
    let mut current = node;
    while current.id != product.id {
        let Some(op) = current.op_as::<AxisOp>() else { return false };
        axes.push(op.clone());
        current = model.node(current.inputs[0].node);
    }
    let rank = shape(model, product.id.into()).len();
    let mut labels: Vec<char> = std::iter::repeat_n('1', rank - 3).chain(['h', 't', 'd']).collect();
    for op in axes.iter().rev() {
        match op {
            AxisOp::Move(from, to) => {
                let label = labels.remove(*from);
                labels.insert(*to, label);
            }
            AxisOp::Add(axis) => labels.insert(*axis, '1'),
            AxisOp::Rm(axis) => {
                labels.remove(*axis);
            }
            AxisOp::Reshape(..) => {
                labels.retain(|label| *label != '1');
                return labels == ['t', 'h', 'd'];
            }
        }
    }
    false
}
