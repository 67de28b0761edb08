//! Recognizes linear layers: a product with a constant matrix, in f32 or as ONNX Runtime's dynamic int8, and its bias.

use std::sync::Arc;

use tract_onnx::prelude::{Datum, OutletId, Tensor, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::InOut;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::einsum::EinSum;

use super::dynamic_int8::{DYNAMIC_QUANTIZE, rescaled};
use super::rule::{Context, Patch, replace};
use super::view::{binary, konst, konst_floats, only_successor, shape};
use crate::model::ops::{Columns, LinearSpec, Matrix, Spec};

/// What a product was recognized as.
struct Product {
    x: OutletId,
    matrix: Matrix,
    /// The node that ends it.
    last: usize,
}

/// A product with a constant matrix, then a bias if one follows.
pub(super) fn linear(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &EinSum) -> Patch {
    let found = if op.q_params.is_some() { quantized(model, node, op) } else { plain(context, model, node, op) };
    let Some(Product { x, matrix, last }) = found else { return Ok(None) };
    let (mut last, mut bias) = (model.node(last), None);
    if let Some(sum) = only_successor(model, last).filter(|next| binary(model, next.id, "Add").is_some()) {
        let values = sum.inputs.iter().find_map(|input| konst(model, *input).filter(|k| k.shape().last() == Some(&k.len())));
        let values = values.and_then(|values| super::view::floats(&values));
        if let Some(values) = values.filter(|values| values.len() == matrix.n()) {
            (last, bias) = (sum, Some(Arc::new(values)));
        }
    }
    let spec = Spec::Linear(LinearSpec::layer(Columns { matrix, bias }));
    replace(context, model, name, spec, &[x], last.id.into())
}

/// Which slot is the activation, and whether the matrix in the other is `[n, k]`; `None` when this is no linear layer.
fn roles(model: &TypedModel, node: &TypedNode, op: &EinSum) -> Option<(usize, bool)> {
    let weight = (0..2).find(|slot| konst(model, node.inputs[*slot]).is_some_and(|k| is_matrix(k.shape())))?;
    let (x, weight_rank) = (1 - weight, konst(model, node.inputs[weight])?.rank());
    if konst(model, node.inputs[x]).is_some() {
        return None;
    }
    let rank = shape(model, node.inputs[x]).len();
    let label = |io: InOut, position: usize| op.axes.axis((io, position)).ok().map(|axis| axis.repr);
    let k = label(InOut::In(x), rank.checked_sub(1)?)?;
    let n = label(InOut::Out(0), rank - 1)?;
    let leading = (0..rank - 1).all(|position| label(InOut::In(x), position) == label(InOut::Out(0), position));
    let matrix = [label(InOut::In(weight), weight_rank - 2)?, label(InOut::In(weight), weight_rank - 1)?];
    match matrix {
        _ if !leading => None,
        [a, b] if a == k && b == n => Some((x, false)),
        [a, b] if a == n && b == k => Some((x, true)),
        _ => None,
    }
}

/// Two axes, perhaps behind some of size 1 that make the rank equal to that of the activations.
fn is_matrix(shape: &[usize]) -> bool {
    shape.len() >= 2 && shape[..shape.len() - 2].iter().all(|size| *size == 1)
}

/// A matrix without leading axes.
fn matrix(values: Arc<Tensor>) -> Option<Arc<Tensor>> {
    if values.rank() == 2 {
        return Some(values);
    }
    let mut flat = values.as_ref().clone();
    let shape = flat.shape()[flat.rank() - 2..].to_vec();
    flat.set_shape(&shape).ok()?;
    Some(Arc::new(flat))
}

fn plain(context: &Context, model: &TypedModel, node: &TypedNode, op: &EinSum) -> Option<Product> {
    let (x, transposed) = roles(model, node, op)?;
    let values = matrix(konst(model, node.inputs[1 - x])?)?;
    if values.datum_type() != f32::datum_type() || model.outlet_fact(node.inputs[x]).ok()?.datum_type != f32::datum_type() {
        return None;
    }
    let matrix = as_integers(context, &values, transposed).unwrap_or(Matrix { values, transposed, scales: None });
    Some(Product { x: node.inputs[x], matrix, last: node.id })
}

/// The matrix as the integers that a statically quantized file has for it.
fn as_integers(context: &Context, values: &Tensor, transposed: bool) -> Option<Matrix> {
    let floats = |tensor: &Tensor| Some(tensor.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?.to_vec());
    let wanted = if context.weights.is_empty() { return None } else { floats(values)? };
    let same = |tensor: &Tensor| {
        let plain = tensor.try_as_plain_ram();
        tensor.len() == wanted.len() && plain.is_ok_and(|plain| plain.as_slice::<f32>().is_ok_and(|values| values == wanted))
    };
    let found = context.weights.iter().find(|weights| weights.floats.shape() == values.shape() && same(&weights.floats))?;
    let along_n = usize::from(!transposed);
    (found.rounding.scale.len() == 1 || found.rounding.axis == along_n).then_some(())?;
    let (values, scales) = symmetric(&found.integers, transposed, &found.rounding.zero, &found.rounding.scale)?;
    Some(Matrix { values, transposed, scales: Some(Arc::new(scales)) })
}

/// `DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul(activation scale * weight scales)`.
fn quantized(model: &TypedModel, node: &TypedNode, op: &EinSum) -> Option<Product> {
    let (0, transposed) = roles(model, node, op)? else { return None };
    let quantize = model.node(node.inputs[0].node);
    // inputs: a, b, bias, then zero point and scale of each of a, b and the output
    let zero_points = konst_floats(model, *node.inputs.get(5)?)?;
    if quantize.op.name() != DYNAMIC_QUANTIZE || node.inputs[0].slot != 0 || node.inputs[3].node != quantize.id {
        return None;
    }
    let cast = only_successor(model, node).filter(|next| next.op_is::<Cast>())?;
    let (last, weight_scales) = rescaled(model, cast, quantize)?;
    let (values, scales) = symmetric(&matrix(konst(model, node.inputs[1])?)?, transposed, &zero_points, &weight_scales)?;
    let matrix = Matrix { values, transposed, scales: Some(Arc::new(scales)) };
    Some(Product { x: quantize.inputs[0], matrix, last })
}

/// Weights around their zero points as i8 with one scale per column. Exact when they fit; else rounded once more.
fn symmetric(values: &Arc<Tensor>, transposed: bool, zero_points: &[f32], scales: &[f32]) -> Option<(Arc<Tensor>, Vec<f32>)> {
    let [rows, columns] = values.shape()[..] else { return None };
    let n = if transposed { rows } else { columns };
    let column = |index: usize| if transposed { index / columns } else { index % columns };
    let per_column = |values: &[f32], c: usize| if values.len() == 1 { Some(values[0]) } else { values.get(c).copied() };
    let mut scales: Vec<f32> = (0..n).map(|c| per_column(scales, c)).collect::<Option<_>>()?;
    if zero_points.iter().all(|zero| *zero == 0.0) && is_symmetric(values) {
        return Some((Arc::clone(values), scales)); // as our converter writes them: nothing to copy
    }
    let plain = super::view::floats(values)?;
    let centres: Vec<f32> = (0..n).map(|c| per_column(zero_points, c)).collect::<Option<_>>()?;
    let mut largest = vec![0f32; n];
    for (index, value) in plain.iter().enumerate() {
        let c = column(index);
        largest[c] = largest[c].max((value - centres[c]).abs());
    }
    let factors: Vec<f32> = largest.iter().map(|&largest| if largest > 127.0 { 127.0 / largest } else { 1.0 }).collect();
    let centred = |(index, value): (usize, &f32)| ((value - centres[column(index)]) * factors[column(index)]).round() as i8;
    let packed: Vec<i8> = plain.iter().enumerate().map(centred).collect();
    scales.iter_mut().zip(&factors).for_each(|(scale, factor)| *scale /= factor);
    Some((Arc::new(Tensor::from_shape(&tvec![rows, columns], &packed).ok()?), scales))
}

/// Whether these are i8 without -128.
fn is_symmetric(values: &Tensor) -> bool {
    let plain = values.try_as_plain_ram();
    plain.is_ok_and(|plain| plain.as_slice::<i8>().is_ok_and(|values| !values.contains(&i8::MIN)))
}
