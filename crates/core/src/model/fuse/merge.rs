//! Joins recognized operators with their neighbours.

use std::sync::Arc;

use tract_onnx::prelude::TractResult;
use tract_onnx::prelude::{OutletId, TypedModel, TypedModelPatch, TypedNode, tvec};
use tract_onnx::tract_core::internal::{AxisOp, DimLike, Op, Rewriter};
use tract_onnx::tract_core::ops::array::{Slice, TypedConcat};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::source::TypedSource;

use super::rule::{Context, Patch, replace};
use super::view::{konst, konst_floats, only_successor, shape, split_inputs};
use crate::kernels::activation::Activation;
use crate::model::ops::{AttentionSpec, ConcatSpec, LayerSpec, Lifted, LinearSpec, OffsetSpec, Part, Spec};

/// Applies the rules in an order in which each finds what the ones before it made.
pub(super) fn merge(context: &Context, model: &mut TypedModel) -> TractResult<()> {
    Rewriter::default()
        .with_rule_for("reshape before", reshape_before)
        .with_rule_for("reshape after", reshape_after)
        .rewrite(context, model)?;
    Rewriter::default()
        .with_rule_for("q, k and v", qkv)
        .with_rule_for("concat", concat)
        .with_rule_for("offset", offset)
        .rewrite(context, model)?;
    Rewriter::default().with_rule_for("rows", slice_then).rewrite(context, model)?;
    Rewriter::default().with_rule_for("norm, then", norm_then).with_rule_for("then activation", then_activation).rewrite(context, model)?;
    Rewriter::default().with_rule_for("layer scale", layer_scale).rewrite(context, model)?;
    Rewriter::default().with_rule_for("gate", gate).rewrite(context, model)?;
    Rewriter::default().with_rule_for("layers", layers).rewrite(context, model)?;
    Rewriter::default().with_rule_for("residual", residual).rewrite(context, model)
}

/// The recognized linear layers at `outlet`.
fn linear(model: &TypedModel, outlet: OutletId) -> Option<(&TypedNode, &LinearSpec)> {
    let node = model.node(outlet.node);
    match node.op_as::<Lifted>()?.spec.as_ref() {
        Spec::Linear(spec) => Some((node, spec)),
        _ => None,
    }
}

impl LinearSpec {
    /// One layer on all rows with nothing around it.
    fn bare(&self) -> Option<&LayerSpec> {
        let [layer] = &self.layers[..] else { return None };
        (self.norm.is_none() && self.start == 0 && self.rows.is_none() && !self.residual && !layer.gated).then_some(layer)
    }
}

/// Whether the operator takes rows one by one, whatever axes there are before the last.
fn by_rows(op: &Lifted) -> bool {
    matches!(op.spec.as_ref(), Spec::Linear(_) | Spec::Norm(_) | Spec::Activation(_))
}

/// What a reshape that keeps rows whole reads.
fn unshaped(model: &TypedModel, outlet: OutletId) -> Option<OutletId> {
    let node = model.node(outlet.node);
    let input = *node.inputs.first()?;
    let moves_nothing = matches!(node.op_as::<AxisOp>()?, AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..));
    (moves_nothing && shape(model, input).last()? == shape(model, outlet).last()?).then_some(input)
}

/// Rows lie as they did before a reshape, as around Gemm, which takes two axes only.
fn reshape_before(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Lifted) -> Patch {
    let Some(input) = node.inputs.first().filter(|_| by_rows(op) && node.inputs.len() == 1) else { return Ok(None) };
    let Some(rows) = unshaped(model, *input) else { return Ok(None) };
    let mut patch = TypedModelPatch::default();
    let rows = patch.tap_model(model, rows)?;
    let output = patch.wire_node(name, Lifted { engine: context.engine.clone(), ..op.clone() }, &[rows])?;
    patch.shunt_outside(model, node.id.into(), output[0])?;
    Ok(Some(patch))
}

/// The same behind an operator: its output has the later shape at once.
fn reshape_after(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, _: &AxisOp) -> Patch {
    let Some(rows) = unshaped(model, node.id.into()) else { return Ok(None) };
    let before = model.node(rows.node);
    let Some(op) = before.op_as::<Lifted>().filter(|op| by_rows(op) && only_successor(model, before).is_some()) else { return Ok(None) };
    replace(context, model, name, op.spec.as_ref().clone(), &before.inputs, node.id.into())
}

/// Three layers on the same tokens that only this attention reads become one.
fn qkv(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Lifted) -> Patch {
    let Spec::Attention(attention) = op.spec.as_ref() else { return Ok(None) };
    let [q, k, v] = [attention.q, attention.k, attention.v].map(|part| node.inputs[part.slot]);
    let found = || {
        (q != k && k != v).then_some(())?; // else they are one already
        let parts = [linear(model, q)?, linear(model, k)?, linear(model, v)?];
        let x = parts[0].0.inputs[0];
        let mut columns = Vec::new();
        let mut ends = Vec::new();
        for (part, spec) in parts {
            let layer = spec.bare().filter(|layer| layer.activation == Activation::Identity)?;
            let alone = part.inputs[0] == x && only_successor(model, part)?.id == node.id;
            (alone && layer.is_int8() == parts[0].1.is_int8()).then_some(())?;
            columns.extend(layer.columns.iter().cloned());
            ends.push(columns.iter().map(|columns| columns.matrix.n()).sum::<usize>());
        }
        Some((x, columns, [0, ends[0], ends[1]], ends[2]))
    };
    let Some((x, columns, offsets, stride)) = found() else { return Ok(None) };
    let spec = LinearSpec { layers: vec![LayerSpec { columns, activation: Activation::Identity, gated: false }], ..LinearSpec::all_rows() };
    let mut sizes = shape(model, x);
    *sizes.last_mut().expect("a layer has an axis") = stride;
    let mut patch = TypedModelPatch::default();
    let x = patch.tap_model(model, x)?;
    let together = patch.wire_node(format!("{name}.qkv"), Lifted::new(Spec::Linear(spec), &sizes, &context.engine), &[x])?[0];
    let part = |index: usize| Part { slot: 0, stride, offset: offsets[index] };
    let mask = attention.mask.map(|_| 1);
    let joined = AttentionSpec { shape: attention.shape, q: part(0), k: part(1), v: part(2), mask, bias: None };
    let mut inputs = tvec![together];
    if let Some(slot) = attention.mask {
        inputs.push(patch.tap_model(model, node.inputs[slot])?);
    }
    let output = patch.wire_node(name, Lifted::new(Spec::Attention(joined), &op.shape, &context.engine), &inputs)?;
    patch.shunt_outside(model, node.id.into(), output[0])?;
    Ok(Some(patch))
}

/// Tokens one after the other.
fn concat(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &TypedConcat) -> Patch {
    let sizes = shape(model, node.id.into());
    if sizes.len() < 2 || op.axis + 2 != sizes.len() || sizes[..op.axis].iter().any(|size| *size != 1) || node.inputs.len() > 4 {
        return Ok(None);
    }
    if model.outlet_fact(node.id.into())?.datum_type != tract_onnx::prelude::DatumType::F32 {
        return Ok(None);
    }
    replace(context, model, name, Spec::Concat(ConcatSpec), &node.inputs, node.id.into())
}

/// A constant of the same shape added to an input of the graph: learned queries to what a network for video carries.
fn offset(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &TypedBinOp) -> Patch {
    let source = |outlet: OutletId| model.node(outlet.node).op_is::<TypedSource>();
    let Some((carried, constant)) = split_inputs(node, source).filter(|_| op.name() == "Add") else { return Ok(None) };
    let sizes = shape(model, node.id.into());
    let fits = [carried, constant].iter().all(|outlet| shape(model, *outlet) == sizes);
    let Some(values) = konst_floats(model, constant).filter(|_| fits) else { return Ok(None) };
    replace(context, model, name, Spec::Offset(OffsetSpec(Arc::new(values))), &[carried], node.id.into())
}

/// An operator on some of the tokens reads them from all.
fn slice_then(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Lifted) -> Patch {
    let Some(input) = node.inputs.first() else { return Ok(None) };
    let slice = model.node(input.node);
    let Some(range) = slice.op_as::<Slice>() else { return Ok(None) };
    let sizes = shape(model, slice.inputs[0]);
    let bounds = range.start.to_usize().ok().zip(range.end.to_usize().ok());
    let Some((start, end)) = bounds.filter(|_| range.axis + 2 == sizes.len() && sizes[..range.axis].iter().all(|size| *size == 1)) else {
        return Ok(None);
    };
    let spec = match op.spec.as_ref() {
        Spec::Linear(spec) => {
            let rows = spec.rows.unwrap_or(end - start - spec.start);
            Spec::Linear(LinearSpec { start: spec.start + start, rows: Some(rows), ..spec.clone() })
        }
        Spec::ScaleBlock(spec) => Spec::ScaleBlock(crate::model::ops::ScaleBlockSpec { start: spec.start + start, ..spec.clone() }),
        _ => return Ok(None),
    };
    let mut inputs = node.inputs.clone();
    inputs[0] = slice.inputs[0];
    replace(context, model, name, spec, &inputs, node.id.into())
}

/// Layer norm before layers: computed row by row where they read it.
fn norm_then(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Lifted) -> Patch {
    let Some(input) = node.inputs.first() else { return Ok(None) };
    let before = model.node(input.node);
    let Some(Spec::Norm(norm)) = before.op_as::<Lifted>().map(|lifted| lifted.spec.as_ref()) else { return Ok(None) };
    let norm = Some(Arc::clone(&norm.0));
    let spec = match op.spec.as_ref() {
        Spec::Linear(spec) if spec.norm.is_none() => Spec::Linear(LinearSpec { norm, ..spec.clone() }),
        Spec::ScaleBlock(spec) if spec.input_norm.is_none() => {
            Spec::ScaleBlock(crate::model::ops::ScaleBlockSpec { input_norm: norm, ..spec.clone() })
        }
        _ => return Ok(None),
    };
    let mut inputs = node.inputs.clone();
    inputs[0] = before.inputs[0];
    replace(context, model, name, spec, &inputs, node.id.into())
}

/// A layer and the activation that alone reads it.
fn then_activation(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Lifted) -> Patch {
    let Spec::Activation(activation) = op.spec.as_ref() else { return Ok(None) };
    let Some((before, spec)) = linear(model, node.inputs[0]) else { return Ok(None) };
    let last = spec.layers.last().expect("at least one layer");
    if only_successor(model, before).is_none() || spec.residual || last.gated || last.activation != Activation::Identity {
        return Ok(None);
    }
    let mut spec = spec.clone();
    spec.layers.last_mut().expect("at least one layer").activation = activation.activation;
    replace(context, model, name, Spec::Linear(spec), &before.inputs, node.id.into())
}

/// A constant factor per column, as LayerScale (Touvron et al. 2021) in third-party exports: folded into the weights.
fn layer_scale(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &TypedBinOp) -> Patch {
    let found = || {
        (op.name() == "Mul").then_some(())?;
        let (outlet, constant) = split_inputs(node, |input| linear(model, input).is_some())?;
        let (before, spec) = linear(model, outlet)?;
        only_successor(model, before)?;
        let factors = konst_floats(model, constant)?;
        let layer = spec.layers.last()?;
        let n = layer.columns.iter().map(|columns| columns.matrix.n()).sum::<usize>();
        let simple = !spec.residual && !layer.gated && layer.activation == Activation::Identity;
        (simple && factors.len() == n && konst(model, constant)?.shape().last() == Some(&n)).then_some(())?;
        let mut spec = spec.clone();
        let mut rest = &factors[..];
        for columns in &mut spec.layers.last_mut()?.columns {
            let (here, behind) = rest.split_at(columns.matrix.n());
            *columns = columns.scaled(here)?;
            rest = behind;
        }
        Some((spec, before))
    };
    let Some((spec, before)) = found() else { return Ok(None) };
    replace(context, model, name, Spec::Linear(spec), &before.inputs, node.id.into())
}

/// `act(gate x) * (up x)`, a gated linear unit (SwiGLU: Shazeer 2020): one layer with twice the columns.
fn gate(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &TypedBinOp) -> Patch {
    if op.name() != "Mul" {
        return Ok(None);
    }
    let found = || {
        let (a, b) = (linear(model, node.inputs[0])?, linear(model, node.inputs[1])?);
        let active = |spec: &LinearSpec| spec.layers.len() == 1 && spec.layers[0].activation != Activation::Identity;
        let (gate, up) = if active(a.1) { (a, b) } else { (b, a) };
        let same_rows = (gate.1.start, gate.1.rows, gate.1.residual) == (up.1.start, up.1.rows, up.1.residual);
        let same_norm = match (&gate.1.norm, &up.1.norm) {
            (None, None) => true,
            (Some(left), Some(right)) => Arc::ptr_eq(left, right),
            _ => false,
        };
        let fits = active(gate.1) && !active(up.1) && up.1.layers.len() == 1 && !gate.1.residual && same_rows && same_norm;
        let plain = !gate.1.layers[0].gated && !up.1.layers[0].gated && gate.1.is_int8() == up.1.is_int8();
        let alone = only_successor(model, gate.0).is_some() && only_successor(model, up.0).is_some();
        let same_size = shape(model, node.inputs[0]) == shape(model, node.inputs[1]);
        (fits && plain && alone && same_size && gate.0.inputs == up.0.inputs).then_some((gate, up))
    };
    let Some((gate, up)) = found() else { return Ok(None) };
    let mut spec = gate.1.clone();
    spec.layers[0].columns.extend(up.1.layers[0].columns.iter().cloned());
    spec.layers[0].gated = true;
    replace(context, model, name, Spec::Linear(spec), &gate.0.inputs, node.id.into())
}

/// Layers of which only the next one reads the result.
fn layers(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Lifted) -> Patch {
    let Spec::Linear(after) = op.spec.as_ref() else { return Ok(None) };
    let Some((before, spec)) = linear(model, node.inputs[0]) else { return Ok(None) };
    let alone = only_successor(model, before).is_some_and(|next| next.id == node.id);
    if !alone || spec.residual || after.residual || after.norm.is_some() || after.start != 0 || after.rows.is_some() {
        return Ok(None);
    }
    let mut spec = spec.clone();
    spec.layers.extend(after.layers.iter().cloned());
    replace(context, model, name, Spec::Linear(spec), &before.inputs, node.id.into())
}

/// What is added to the result of layers.
fn residual(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &TypedBinOp) -> Patch {
    if op.name() != "Add" {
        return Ok(None);
    }
    for (slot, other) in [(1, 0), (0, 1)] {
        let (outlet, added) = (node.inputs[slot], node.inputs[other]);
        let Some((layers, spec)) = linear(model, outlet) else { continue };
        let same = shape(model, outlet) == shape(model, node.id.into()) && shape(model, added) == shape(model, node.id.into());
        if !same || spec.residual || only_successor(model, layers).is_none() {
            continue;
        }
        let spec = Spec::Linear(LinearSpec { residual: true, ..spec.clone() });
        return replace(context, model, name, spec, &[layers.inputs[0], added], node.id.into());
    }
    Ok(None)
}
