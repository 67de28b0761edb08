//! Recognizes the convolutions of EoMT: the patch embedding and the ScaleBlocks.

use std::sync::Arc;

use tract_onnx::prelude::{OutletId, SpecialOps, Tensor, TypedModel, TypedModelPatch, TypedNode, tvec};
use tract_onnx::tract_core::internal::AxisOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv, PaddingSpec};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::dynamic_int8::{DYNAMIC_QUANTIZE, rescaled};
use super::rule::{Context, Patch};
use super::view::{behind_reshapes, binary, floats, konst, konst_floats, laid_out, only_successor, reshape, scalar, shape};
use crate::kernels::activation::Activation;
use crate::model::ops::{Columns, LayerSpec, Lifted, Matrix, PatchesSpec, ScaleBlockSpec, Spec};

/// A convolution of ONNX Runtime's dynamic int8 becomes one in f32 on the rounded weights: these are a few percent of the work, and
/// the other rules then see them.
pub(super) fn dequantize(_: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Conv) -> Patch {
    let found = || {
        op.q_params.as_ref()?;
        let quantize = model.node(node.inputs[0].node);
        let zero_points = konst_floats(model, *node.inputs.get(5)?)?;
        (quantize.op.name() == DYNAMIC_QUANTIZE && scalar(model, node.inputs[2]) == Some(0.0)).then_some(())?;
        let cast = only_successor(model, node).filter(|next| next.op_is::<Cast>())?;
        let (last, scales) = rescaled(model, cast, quantize)?;
        let kernel = konst(model, node.inputs[1])?;
        let outputs = kernel.shape()[0];
        let mut values = floats(&kernel)?;
        let per_output = values.len() / outputs;
        let of = |all: &[f32], output: usize| if all.len() == 1 { Some(all[0]) } else { all.get(output).copied() };
        for (output, values) in values.chunks_exact_mut(per_output).enumerate() {
            let (zero, scale) = (of(&zero_points, output)?, of(&scales, output)?);
            values.iter_mut().for_each(|value| *value = (*value - zero) * scale);
        }
        Some((quantize.inputs[0], Tensor::from_shape(kernel.shape(), &values).ok()?, last))
    };
    let Some((x, kernel, last)) = found() else { return Ok(None) };
    let outputs = kernel.shape()[0];
    let mut patch = TypedModelPatch::default();
    let x = patch.tap_model(model, x)?;
    let kernel = patch.add_const(format!("{name}.kernel"), kernel)?;
    let bias = patch.add_const(format!("{name}.bias"), Tensor::zero::<f32>(&[outputs])?)?;
    let float = Conv { q_params: None, ..op.clone() };
    let output = patch.wire_node(name, float, &[x, kernel, bias])?;
    patch.shunt_outside(model, last.into(), output[0])?;
    Ok(Some(patch))
}

/// Whether the convolution is f32, channels first, with this group count and without dilation.
fn plain(op: &Conv, group: usize) -> bool {
    let pool = &op.pool_spec;
    op.q_params.is_none()
        && op.group == group
        && pool.data_format == DataFormat::NCHW
        && pool.dilations.as_ref().is_none_or(|dilations| dilations.iter().all(|d| *d == 1))
}

fn pads(padding: &PaddingSpec) -> Option<Vec<usize>> {
    match padding {
        PaddingSpec::Explicit(before, after) => Some(before.iter().chain(after).copied().collect()),
        PaddingSpec::Valid => Some(vec![0; 4]),
        _ => None,
    }
}

/// Per output channel: the convolution's bias, plus a constant that is added right after it.
fn bias_of(model: &TypedModel, node: &TypedNode, outputs: usize) -> Option<Vec<f32>> {
    let bias = konst_floats(model, *node.inputs.get(2)?)?;
    match bias.len() {
        1 => Some(vec![bias[0]; outputs]),
        n if n == outputs => Some(bias),
        _ => None,
    }
}

/// A constant with one value per channel of `[1, channels, h, w]`, added to `node`.
fn added_per_channel<'a>(model: &'a TypedModel, node: &TypedNode, channels: usize) -> Option<(&'a TypedNode, Vec<f32>)> {
    let sum = only_successor(model, node).filter(|next| binary(model, next.id, "Add").is_some())?;
    let constant = sum.inputs.iter().find_map(|input| konst(model, *input))?;
    (constant.shape() == [1, channels, 1, 1]).then_some((sum, floats(&constant)?))
}

/// A convolution whose stride is its kernel, transposed to tokens.
pub(super) fn patches(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Conv) -> Patch {
    let found = || {
        let kernel = konst(model, node.inputs[1])?;
        let [n, channels, ph, pw] = kernel.shape()[..] else { return None };
        let [1, _, height, width] = shape(model, node.inputs[0])[..] else { return None };
        let strides = op.pool_spec.strides.as_ref()?;
        (plain(op, 1) && strides[..] == [ph, pw] && pads(&op.pool_spec.padding)?.iter().all(|p| *p == 0)).then_some(())?;
        let mut bias = bias_of(model, node, n)?;
        let mut last = node;
        if let Some((sum, values)) = added_per_channel(model, node, n) {
            bias.iter_mut().zip(values).for_each(|(bias, value)| *bias += value);
            last = sum;
        }
        let mut flat = kernel.as_ref().clone();
        flat.set_shape(&[n, channels * ph * pw]).ok()?;
        let spec = PatchesSpec { kernel: Arc::new(flat), bias: Arc::new(bias), size: (height, width), patch: (ph, pw) };
        let tokens = spec.grid().0 * spec.grid().1;
        // behind the transpose to tokens
        let mut end = last;
        for _ in 0..5 {
            end = only_successor(model, end).filter(|next| next.op_is::<AxisOp>())?;
            let sizes = shape(model, end.id.into());
            let labels: Vec<char> = std::iter::repeat_n('1', sizes.len().saturating_sub(2)).chain(['p', 'c']).collect();
            if sizes.len() >= 2
                && sizes[sizes.len() - 2..] == [tokens, n]
                && (tokens == 1 || n == 1 || moved_last(model, end, last, &labels))
            {
                return Some((spec, tokens, n, end));
            }
        }
        None
    };
    let Some((spec, tokens, n, end)) = found() else { return Ok(None) };
    let target = shape(model, end.id.into());
    let mut patch = TypedModelPatch::default();
    let mut inputs = tvec![patch.tap_model(model, node.inputs[0])?];
    let (mut last, mut sizes) = (end, target);
    // position embeddings
    if let Some(sum) = only_successor(model, end).filter(|next| binary(model, next.id, "Add").is_some())
        && let Some(table) = sum.inputs.iter().find_map(|input| konst(model, *input)).filter(|table| table.len() == tokens * n)
    {
        inputs.push(patch.add_const(format!("{name}.positions"), table)?);
        (last, sizes) = (sum, shape(model, sum.id.into()));
    }
    let lifted = Lifted::new(Spec::Patches(spec), &sizes, &context.engine);
    let output = patch.wire_node(name, lifted, &inputs)?;
    patch.shunt_outside(model, last.id.into(), output[0])?;
    Ok(Some(patch))
}

/// Whether between `first`, `[1, c, h, w]`, and `node`, `[.., p, c]`, the channels moved behind the pixels.
fn moved_last(model: &TypedModel, node: &TypedNode, first: &TypedNode, labels: &[char]) -> bool {
    // seen from the end, the same memory must be found in the order (c, p) at the convolution
    laid_out(model, node.id.into(), labels, &['c', 'p']).is_some_and(|outlet| reaches(model, outlet, first.id))
}

/// Whether `outlet` is `target` or a reshape of it.
pub(super) fn reaches(model: &TypedModel, outlet: OutletId, target: usize) -> bool {
    let mut node = model.node(outlet.node);
    loop {
        if node.id == target {
            return true;
        }
        if !matches!(node.op_as::<AxisOp>(), Some(AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..))) {
            return false;
        }
        node = model.node(node.inputs[0].node);
    }
}

/// Depthwise 3x3, layer norm over channels; before it an activation and the enlargement, as a transposed convolution or as a linear
/// layer with a pixel shuffle.
pub(super) fn scale_block(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &Conv) -> Patch {
    let Some(found) = find_scale_block(model, node, op) else { return Ok(None) };
    let (spec, tokens, last) = found;
    let (height, width) = (2 * spec.grid.0, 2 * spec.grid.1);
    let d = spec.bias.len();
    let mut patch = TypedModelPatch::default();
    let input = patch.tap_model(model, tokens)?;
    let lifted = Lifted::new(Spec::ScaleBlock(spec), &[height * width, d], &context.engine);
    let mut output = patch.wire_node(name, lifted, &[input])?[0];
    let target = shape(model, last);
    output = patch.wire_node(format!("{name}.map"), reshape(&[height * width, d], &target)?, &[output])?[0];
    patch.shunt_outside(model, last, output)?;
    Ok(Some(patch))
}

/// The block, its tokens `[.., h * w, D]`, and the outlet `[1, 2h, 2w, D]` that it gives.
fn find_scale_block(model: &TypedModel, node: &TypedNode, op: &Conv) -> Option<(ScaleBlockSpec, OutletId, OutletId)> {
    let kernel = konst(model, node.inputs[1])?;
    let [d, 1, 3, 3] = kernel.shape()[..] else { return None };
    let pool = &op.pool_spec;
    let unit_stride = pool.strides.as_ref().is_none_or(|strides| strides.iter().all(|s| *s == 1));
    (plain(op, d) && unit_stride && pads(&pool.padding)?.iter().all(|p| *p == 1)).then_some(())?;
    let mut bias = bias_of(model, node, d)?;
    let mut convolution = node;
    if let Some((sum, values)) = added_per_channel(model, node, d) {
        bias.iter_mut().zip(values).for_each(|(bias, value)| *bias += value);
        convolution = sum;
    }
    let [1, _, height, width] = shape(model, node.id.into())[..] else { return None };
    let grid = (height / 2, width / 2);
    // forward: channels last, norm
    let moved = only_successor(model, convolution).filter(|next| next.op_is::<AxisOp>())?;
    (shape(model, moved.id.into())[..] == [1, height, width, d]).then_some(())?;
    let last = only_successor(model, moved)?;
    let Spec::Norm(norm) = last.op_as::<Lifted>()?.spec.as_ref() else { return None };
    // backward: activation, enlargement
    let (up, tokens) = enlargement(model, node.inputs[0], grid, d)?;
    let values = floats(&kernel)?;
    let taps = (0..9).flat_map(|t| (0..d).map(move |c| (c, t))).map(|(c, t)| values[c * 9 + t]).collect();
    let spec =
        ScaleBlockSpec { up, input_norm: None, taps: Arc::new(taps), bias: Arc::new(bias), norm: Arc::clone(&norm.0), grid, start: 0 };
    Some((spec, tokens, last.id.into()))
}

/// What enlarges `[h * w, D]` tokens to the map `[1, D, 2h, 2w]` at `map`.
fn enlargement(model: &TypedModel, map: OutletId, grid: (usize, usize), d: usize) -> Option<(LayerSpec, OutletId)> {
    let (mut outlet, mut activation, mut axes) = (map, Activation::Identity, Vec::new());
    loop {
        let node = model.node(outlet.node);
        if node.op_is::<AxisOp>() {
            axes.push(node);
            outlet = node.inputs[0];
        } else if let Some(Spec::Activation(spec)) = node.op_as::<Lifted>().map(|lifted| lifted.spec.as_ref())
            && activation == Activation::Identity
        {
            activation = spec.activation;
            outlet = node.inputs[0];
        } else {
            break;
        }
    }
    let node = model.node(outlet.node);
    if let Some(op) = node.op_as::<Deconv>() {
        return axes.is_empty().then(|| transposed_convolution(model, node, op, grid, d, activation))?;
    }
    let lifted = node.op_as::<Lifted>()?;
    let Spec::Linear(spec) = lifted.spec.as_ref() else { return None };
    let [layer] = &spec.layers[..] else { return None };
    let alone = spec.norm.is_none() && spec.start == 0 && spec.rows.is_none() && !spec.residual && layer.activation == Activation::Identity;
    let fits = lifted.shape.iter().product::<usize>() == grid.0 * grid.1 * 4 * d;
    if !alone || !fits || !is_pixel_shuffle(model, &axes, grid, d) {
        return None;
    }
    Some((LayerSpec { activation, ..layer.clone() }, behind_reshapes(model, node.inputs[0])))
}

/// Whether the transposes and reshapes `axes` (the last one first) make `[1, D, 2h, 2w]` of patches (y, x) with columns (dy, dx,
/// channel): each axis of the map is a list of these factors, and every step back must keep factors whole.
fn is_pixel_shuffle(model: &TypedModel, axes: &[&TypedNode], (height, width): (usize, usize), d: usize) -> bool {
    let [y, x, dy, dx, channel] = [('y', height), ('x', width), ('i', 2), ('j', 2), ('c', d)];
    let mut factors: Vec<Vec<(char, usize)>> = vec![vec![], vec![channel], vec![y, dy], vec![x, dx]];
    for node in axes {
        match node.op_as::<AxisOp>() {
            Some(AxisOp::Move(from, to)) => {
                let axis = factors.remove(*to);
                factors.insert(*from, axis);
            }
            Some(AxisOp::Add(axis)) => {
                factors.remove(*axis);
            }
            Some(AxisOp::Rm(axis)) => factors.insert(*axis, vec![]),
            Some(AxisOp::Reshape(at, from, to)) => {
                let group: Vec<(char, usize)> = factors.drain(*at..at + to.len()).flatten().filter(|(_, size)| *size != 1).collect();
                let sizes = shape(model, node.inputs[0]);
                let Some(split) = split_factors(&group, &sizes[*at..at + from.len()]) else { return false };
                factors.splice(*at..*at, split);
            }
            None => return false,
        }
    }
    let wide = |factors: &mut dyn Iterator<Item = (char, usize)>| factors.filter(|(_, size)| *size != 1).collect::<Vec<_>>();
    wide(&mut factors.into_iter().flatten()) == wide(&mut [y, x, dy, dx, channel].into_iter())
}

/// Neighbouring factors that make up each of `sizes`; `None` when that would cut one.
fn split_factors(factors: &[(char, usize)], sizes: &[usize]) -> Option<Vec<Vec<(char, usize)>>> {
    let mut rest = factors.iter().copied();
    let mut axis = |size: usize| {
        let (mut factors, mut product) = (Vec::new(), 1);
        while product < size {
            let factor = rest.next()?;
            product *= factor.1;
            factors.push(factor);
        }
        (product == size).then_some(factors)
    };
    sizes.iter().map(|size| axis(*size)).collect()
}

/// ConvTranspose 2x2, stride 2: its kernel `[in, out, 2, 2]` (tract: `[out, in, 2, 2]`) as `[in, (dy, dx, out)]`.
fn transposed_convolution(
    model: &TypedModel,
    node: &TypedNode,
    op: &Deconv,
    grid: (usize, usize),
    d: usize,
    activation: Activation,
) -> Option<(LayerSpec, OutletId)> {
    let pool = &op.pool_spec;
    let two = |sizes: &[usize]| sizes == [2, 2];
    let simple = op.group == 1
        && pool.data_format == DataFormat::NCHW
        && two(&pool.kernel_shape)
        && pool.strides.as_ref().is_some_and(|strides| two(strides))
        && pads(&pool.padding)?.iter().all(|p| *p == 0)
        && op.adjustments.iter().all(|a| *a == 0);
    let kernel = konst(model, node.inputs[1])?;
    if !simple || kernel.shape() != [d, d, 2, 2] {
        return None;
    }
    let values = floats(&kernel)?;
    let mut matrix = vec![0f32; values.len()];
    for output in 0..d {
        for input in 0..d {
            for tap in 0..4 {
                matrix[input * 4 * d + tap * d + output] = values[(output * d + input) * 4 + tap];
            }
        }
    }
    let bias = bias_of(model, node, d)?;
    let values = Arc::new(Tensor::from_shape(&[d, 4 * d], &matrix).ok()?);
    let columns = Columns { matrix: Matrix { values, transposed: false, scales: None }, bias: Some(Arc::new(bias.repeat(4))) };
    let labels = ['1', 'c', 'p', 'p'];
    let map = node.inputs[0];
    (shape(model, map)[..] == [1, d, grid.0, grid.1]).then_some(())?;
    let tokens = laid_out(model, map, &labels, &['p', 'c'])?;
    Some((LayerSpec { columns: vec![columns], activation, gated: false }, tokens))
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::DatumExt;

    use super::*;

    /// `[h * w, 4 D]` through `ops`; whether that is taken for a pixel shuffle.
    fn taken(ops: &[AxisOp]) -> bool {
        let (height, width, d) = (3, 5, 7);
        let mut model = TypedModel::default();
        let mut outlet = model.add_source("tokens", f32::fact([height * width, 4 * d])).expect("a source");
        for (index, op) in ops.iter().enumerate() {
            outlet = model.wire_node(format!("{index}"), op.clone(), &[outlet]).expect("fits")[0];
        }
        let axes: Vec<&TypedNode> = (1..=ops.len()).rev().map(|id| model.node(id)).collect();
        is_pixel_shuffle(&model, &axes, (height, width), d)
    }

    #[test]
    fn only_the_pixel_shuffle_is_taken_for_one() {
        let split = reshape(&[15, 28], &[3, 5, 2, 2, 7]).expect("fits");
        let merge = reshape(&[3, 2, 5, 2, 7], &[1, 6, 10, 7]).expect("fits");
        let dy_behind_y = AxisOp::Move(2, 1);
        assert!(taken(&[split.clone(), dy_behind_y.clone(), merge.clone(), AxisOp::Move(3, 1)]));
        // dx and dy exchanged
        assert!(!taken(&[split.clone(), AxisOp::Move(3, 1), merge.clone(), AxisOp::Move(3, 1)]));
        // no transpose at all, and factors that a reshape cuts
        let straight = reshape(&[15, 28], &[1, 6, 10, 7]).expect("fits");
        assert!(!taken(&[straight, AxisOp::Move(3, 1)]));
        // channels before the offsets
        let channels_first = reshape(&[15, 28], &[3, 5, 7, 2, 2]).expect("fits");
        let to_map = [AxisOp::Move(3, 1), AxisOp::Move(3, 4), reshape(&[3, 2, 5, 2, 7], &[1, 6, 10, 7]).expect("fits"), AxisOp::Move(3, 1)];
        assert!(!taken(&[&[channels_first][..], &to_map].concat()));
    }
}
