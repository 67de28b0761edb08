//! Recognizes GridSample as deformable attention uses it (bilinear, zeros outside, corners not aligned), and the deformable attention around it.

use tract_onnx::prelude::{OutletId, TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::internal::AxisOp;
use tract_onnx::tract_core::ops::array::{Slice, TypedConcat};
use tract_onnx::tract_core::ops::nn::grid_sample::{GridSample, InterpolationMode, PaddingMode};
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer, Softmax};

use super::lift_convolution::reaches;
use super::rule::{Context, Patch, replace};
use super::view::{binary, laid_out, only_successor, shape, split_inputs};
use crate::kernels::deformable::DeformableShape;
use crate::kernels::grid_sample::MapShape;
use crate::model::ops::{DeformableSpec, GridSampleSpec, LEVELS_MAX, Lifted, Spec};

fn is_ours(op: &GridSample) -> bool {
    op.mode == InterpolationMode::Bilinear && op.padding_mode == PaddingMode::Zeros && !op.align_corners
}

/// The general operator computes one value at a time.
pub(super) fn grid_sample(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &GridSample) -> Patch {
    let (map, grid) = (shape(model, node.inputs[0]), shape(model, node.inputs[1]));
    let ([images, channels, height, width], [_, rows, columns, 2]) = (&map[..], &grid[..]) else { return Ok(None) };
    if !is_ours(op) || map.contains(&0) || grid.contains(&0) {
        return Ok(None);
    }
    let shape = MapShape { channels: *channels, height: *height, width: *width };
    let spec = Spec::GridSample(GridSampleSpec { images: *images, shape, places: rows * columns });
    replace(context, model, name, spec, &node.inputs, node.id.into())
}

struct Found {
    spec: DeformableSpec,
    /// Maps, places, scores.
    inputs: Vec<OutletId>,
    /// `[queries, heads, head_dim]`
    last: OutletId,
}

/// `sum over the last axis (samples * softmax(scores))`, where samples are those of GridSample on each map, one image for each head.
pub(super) fn deformable(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Reduce) -> Patch {
    let Some(Found { spec, inputs, last }) = find(model, node, op) else { return Ok(None) };
    let DeformableShape { heads, head_dim, queries, .. } = spec.shape;
    let mut patch = TypedModelPatch::default();
    let inputs = patch.taps(model, &inputs)?;
    let own = [queries, heads, head_dim];
    let output = patch.wire_node(name, Lifted::new(Spec::Deformable(spec), &own, &context.engine), &inputs)?;
    patch.shunt_outside(model, last, output[0])?;
    Ok(Some(patch))
}

fn find(model: &TypedModel, node: &TypedNode, op: &Reduce) -> Option<Found> {
    let [heads, head_dim, queries, places] = shape(model, node.inputs[0])[..] else { return None };
    (op.reducer == Reducer::Sum && op.axes[..] == [3]).then_some(())?;
    let product = binary(model, node.inputs[0].node, "Mul")?;
    let (samples, weights) = split_inputs(product, |input| !samplers(model, input).is_empty())?;
    (shape(model, weights) == [heads, 1, queries, places]).then_some(())?;
    let samplers = samplers(model, samples);
    let points = places / samplers.len();
    let (mut inputs, mut levels, mut grid) = (Vec::new(), Vec::new(), None);
    for (index, sampler) in samplers.iter().enumerate() {
        let [.., height, width] = shape(model, sampler.inputs[0])[..] else { return None };
        inputs.push(laid_out(model, sampler.inputs[0], &['h', 'd', 'p', 'p'], &['p', 'h', 'd'])?);
        levels.push([height, width]);
        let from = part(model, sampler.inputs[1], [index * points, (index + 1) * points]);
        (*grid.get_or_insert(from) == from).then_some(())?;
    }
    let grid = grid.filter(|grid| shape(model, *grid) == [heads, queries, places, 2])?;
    let softmax = laid_out(model, weights, &['h', '1', 't', 'p'], &['t', 'h', 'p'])?;
    let softmax = model.node(softmax.node);
    let sizes = shape(model, softmax.id.into());
    let over_last = softmax.op_as::<Softmax>()?.axes[..] == [sizes.len().checked_sub(1)?];
    (over_last && sizes.last() == Some(&places)).then_some(())?;
    inputs.extend([grid, softmax.inputs[0]]);
    let shape = DeformableShape { heads, head_dim, queries, points };
    Some(Found { spec: DeformableSpec { shape, levels }, inputs, last: tokens_first(model, node, shape)? })
}

/// The GridSample nodes whose outputs lie side by side along the last axis; none when it is something else.
fn samplers(model: &TypedModel, outlet: OutletId) -> Vec<&TypedNode> {
    let node = model.node(outlet.node);
    let nodes: Vec<&TypedNode> = match node.op_as::<TypedConcat>() {
        Some(concat) if concat.axis == 3 => node.inputs.iter().map(|input| model.node(input.node)).collect(),
        _ => vec![node],
    };
    let columns = |node: &TypedNode| shape(model, node.id.into()).last().copied();
    let alike = nodes.iter().all(|node| node.op_as::<GridSample>().is_some_and(is_ours) && columns(node) == columns(nodes[0]));
    if alike && nodes.len() <= LEVELS_MAX { nodes } else { Vec::new() }
}

/// What `outlet` is columns `start..end` of; `outlet` itself when it is no such slice.
fn part(model: &TypedModel, outlet: OutletId, [start, end]: [usize; 2]) -> OutletId {
    let node = model.node(outlet.node);
    match node.op_as::<Slice>() {
        Some(slice) if slice.axis == 2 && slice.start == start.into() && slice.end == end.into() => node.inputs[0],
        _ => outlet,
    }
}

/// The node behind `node` at which the sum lies query by query.
fn tokens_first(model: &TypedModel, node: &TypedNode, wanted: DeformableShape) -> Option<OutletId> {
    let DeformableShape { heads, head_dim, queries, .. } = wanted;
    let mut last = node;
    for _ in 0..4 {
        last = only_successor(model, last).filter(|next| next.op_is::<AxisOp>())?;
        let outlet = OutletId::from(last.id);
        if shape(model, outlet) == [queries, heads, head_dim] {
            let origin = laid_out(model, outlet, &['t', 'h', 'd'], &['h', 'd', 't']);
            return origin.filter(|origin| reaches(model, *origin, node.id)).map(|_| outlet);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::{DatumExt, SpecialOps, tvec};
    use tract_onnx::tract_core::ops::math::mul;

    use super::*;

    fn lifted(model: &mut TypedModel) -> Vec<String> {
        super::super::lift::lift(&Context::default(), model).expect("lifts");
        model.nodes().iter().map(|node| node.op.name().into_owned()).collect()
    }

    /// Samples of a map, weighed by an input and summed over the points: as deformable attention, but for the softmax.
    fn weighed(align_corners: bool) -> TypedModel {
        let mut model = TypedModel::default();
        let map = model.add_source("map", f32::fact([2, 3, 4, 5])).expect("a source");
        let grid = model.add_source("grid", f32::fact([2, 6, 4, 2])).expect("a source");
        let weights = model.add_source("weights", f32::fact([2, 1, 6, 4])).expect("a source");
        let op = GridSample { mode: InterpolationMode::Bilinear, padding_mode: PaddingMode::Zeros, align_corners };
        let samples = model.wire_node("samples", op, &[map, grid]).expect("wires")[0];
        let product = model.wire_node("product", mul(), &[samples, weights]).expect("wires")[0];
        let sum = model.wire_node("sum", Reduce::new(tvec![3], Reducer::Sum), &[product]).expect("wires");
        model.select_output_outlets(&sum).expect("an output");
        model
    }

    #[test]
    fn samples_without_a_softmax_stay_samples() {
        let names = lifted(&mut weighed(false));
        assert_eq!(names.iter().filter(|name| *name == "Lifted").count(), 1, "{names:?}");
        assert!(names.iter().any(|name| name == "Reduce<Sum>") && !names.iter().any(|name| name == "GridSample"), "{names:?}");
    }

    #[test]
    fn samples_of_another_kind_are_left_alone() {
        let names = lifted(&mut weighed(true));
        assert!(names.iter().any(|name| name == "GridSample") && !names.iter().any(|name| name == "Lifted"), "{names:?}");
    }
}
