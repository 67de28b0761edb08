//! The product at the end of the network, taken out of the plan.
//!
//! `masks[q, p] = sum_d embeddings[q, d] * features[p, d]`. Cut before it, the plan ends in the two factors, and the caller
//! computes the rows it wants.

use tract_onnx::prelude::{OutletId, SpecialOps, TractResult, TypedModel};
use tract_onnx::tract_core::internal::{AxisOp, InOut};
use tract_onnx::tract_core::ops::einsum::EinSum;

use super::view::{behind_reshapes, laid_out, shape};
use crate::model::ops::{Lifted, ScaleBlockSpec, Spec};

/// The sizes of the two factors: embeddings are `[queries, channels]`, features `[pixels, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskProduct {
    pub channels: usize,
    pub queries: usize,
    pub pixels: usize,
}

/// What stands before the reshapes at the output.
struct Product {
    embeddings: OutletId,
    features: OutletId,
    sizes: MaskProduct,
    /// Axes of the embeddings and of the features: q, c and p.
    labels: [Vec<char>; 2],
}

impl MaskProduct {
    /// Replaces output 1 of `model`, the mask logits `[1, Q, h, w]`, by the two factors (outputs 1 and 2). Further outputs stay behind them.
    /// `Ok(Err(reason))` leaves the model as it is, because its end has another form.
    pub fn split(model: &mut TypedModel) -> TractResult<Result<MaskProduct, String>> {
        let outputs = model.output_outlets()?.to_vec();
        let product = match find(model, outputs[1])? {
            Ok(product) => product,
            Err(reason) => return Ok(Err(reason)),
        };
        let embeddings = rows(model, product.embeddings, &product.labels[0], 'q')?;
        let features = rows(model, product.features, &product.labels[1], 'p')?;
        // the caller knows the shape of the class logits; a reshape would copy them
        let class = behind_reshapes(model, outputs[0]);
        let ends: Vec<OutletId> = [class, embeddings, features].into_iter().chain(outputs[2..].iter().copied()).collect();
        model.select_output_outlets(&ends)?;
        Ok(Ok(product.sizes))
    }

    /// Takes the last ScaleBlock out of a model that was split, too: output 2 is its input then. `None`: the features come from something else.
    pub fn take_scale_block(self, model: &mut TypedModel) -> TractResult<Option<ScaleBlockSpec>> {
        let mut ends = model.output_outlets()?.to_vec();
        let node = model.node(behind_reshapes(model, ends[2]).node);
        let spec = match node.op_as::<Lifted>().map(|lifted| lifted.spec.as_ref()) {
            Some(Spec::ScaleBlock(spec)) if 4 * spec.grid.0 * spec.grid.1 == self.pixels && spec.bias.len() == self.channels => {
                spec.clone()
            }
            _ => return Ok(None),
        };
        ends[2] = node.inputs[0];
        model.select_output_outlets(&ends)?;
        Ok(Some(spec))
    }
}

/// `outlet` with the channels last: where it lies so already, else behind a transpose of our own.
fn rows(model: &mut TypedModel, outlet: OutletId, labels: &[char], rows: char) -> TractResult<OutletId> {
    if let Some(found) = laid_out(model, outlet, labels, &[rows, 'c']) {
        return Ok(found);
    }
    let channel = labels.iter().position(|label| *label == 'c').unwrap_or(0);
    let last = labels.len() - 1;
    let name = format!("{}.channels_last", model.node(outlet.node).name);
    Ok(model.wire_node(name, AxisOp::Move(channel, last), &[outlet])?[0])
}

/// Walks back from the mask output to the product.
fn find(model: &TypedModel, mut outlet: OutletId) -> TractResult<Result<Product, String>> {
    let mask_shape = shape(model, outlet);
    let [1, queries, height, width] = mask_shape[..] else { return Ok(Err(format!("masks of shape {mask_shape:?}"))) };
    loop {
        let node = model.node(outlet.node);
        if let Some(op) = node.op_as::<AxisOp>() {
            let shape = shape(model, node.inputs[0]);
            if let AxisOp::Move(from, to) = *op {
                let crossed = if from < to { &shape[from..=to] } else { &shape[to..=from] };
                if crossed.iter().filter(|&&dim| dim != 1).count() > 1 {
                    return Ok(Err(format!("the mask output is transposed by '{}'", node.name)));
                }
            }
            outlet = node.inputs[0];
            continue;
        }
        let Some(product) = node.op_as::<EinSum>() else {
            return Ok(Err(format!("the mask output ends in '{}' ({}), not in a product", node.name, node.op.name())));
        };
        if product.q_params.is_some() || node.inputs.len() != 2 {
            return Ok(Err(format!("the product '{}' is quantized", node.name)));
        }
        return describe(model, product, &node.inputs, &node.name, [queries, height, width]);
    }
}

/// One factor's axes: label and size.
fn axes_of(model: &TypedModel, product: &EinSum, slot: usize, outlet: OutletId) -> TractResult<Vec<(char, usize)>> {
    let label = |position: usize| product.axes.axis((InOut::In(slot), position)).map(|axis| axis.repr);
    shape(model, outlet).into_iter().enumerate().map(|(position, size)| Ok((label(position)?, size))).collect()
}

fn describe(
    model: &TypedModel,
    product: &EinSum,
    inputs: &[OutletId],
    name: &str,
    [queries, height, width]: [usize; 3],
) -> TractResult<Result<Product, String>> {
    let summed: Vec<char> = product.axes.iter_all_axes().filter(|axis| axis.outputs[0].is_empty()).map(|axis| axis.repr).collect();
    for (embeddings, features) in [(0, 1), (1, 0)] {
        let left = axes_of(model, product, embeddings, inputs[embeddings])?;
        let right = axes_of(model, product, features, inputs[features])?;
        let wide: Vec<(char, usize)> = left.iter().copied().filter(|(_, size)| *size != 1).collect();
        let Some(&(channel, channels)) = wide.iter().find(|(label, _)| summed.contains(label)) else { continue };
        let of_queries = |(label, size): (char, usize)| label != channel && size == queries;
        if !(wide.len() == 1 && queries == 1 || wide.len() == 2 && wide.iter().any(|axis| of_queries(*axis))) {
            continue;
        }
        let pixels: usize = right.iter().filter(|(label, _)| *label != channel).map(|(_, size)| size).product();
        if pixels != height * width || !pixels_in_order(product, &right, features, channel) {
            continue;
        }
        let named = |axes: &[(char, usize)], other: char| {
            let name = |(label, size): &(char, usize)| {
                if *label == channel {
                    'c'
                } else if *size == 1 {
                    '1'
                } else {
                    other
                }
            };
            axes.iter().map(name).collect()
        };
        let sizes = MaskProduct { channels, queries, pixels };
        let labels = [named(&left, 'q'), named(&right, 'p')];
        return Ok(Ok(Product { embeddings: inputs[embeddings], features: inputs[features], sizes, labels }));
    }
    Ok(Err(format!("the product '{name}' ({}) is not of the form queries x pixels", product.axes)))
}

/// The pixel axes appear in the output in the order in which the features hold them.
fn pixels_in_order(product: &EinSum, features: &[(char, usize)], slot: usize, channel: char) -> bool {
    let positions: Vec<usize> = features
        .iter()
        .filter(|(label, size)| *label != channel && *size != 1)
        .filter_map(|(label, _)| product.axes.iter_all_axes().find(|axis| axis.repr == *label && !axis.inputs[slot].is_empty()))
        .filter_map(|axis| axis.outputs[0].first().copied())
        .collect();
    positions.is_sorted()
}
