//! The product at the end of the network, taken out of the plan.
//!
//! `masks[q, p] = sum_d embeddings[q, d] * features[d, p]`. Cut before it, the plan ends in the two factors, and the caller
//! computes the rows it wants.

use tract_onnx::prelude::{OutletId, TractResult, TypedModel};
use tract_onnx::tract_core::internal::{AxisOp, InOut};
use tract_onnx::tract_core::ops::einsum::EinSum;

use crate::kernels::product::{FeatureLayout, rows_times_features};

/// How the two factors lie in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskProduct {
    channels: usize,
    queries: usize,
    /// Embeddings are `[queries, channels]`, else the transpose.
    queries_first: bool,
    features: FeatureLayout,
}

/// What stands before the reshapes at the output.
struct Product {
    embeddings: OutletId,
    features: OutletId,
    layout: MaskProduct,
}

impl MaskProduct {
    /// Replaces output 1 of `model`, the mask logits `[1, Q, h, w]`, by the two factors (outputs 1 and 2).
    /// `Ok(Err(reason))` leaves the model as it is, because its end has another form.
    pub fn split(model: &mut TypedModel) -> TractResult<Result<MaskProduct, String>> {
        let outputs = model.output_outlets()?.to_vec();
        let product = match find(model, outputs[1])? {
            Ok(product) => product,
            Err(reason) => return Ok(Err(reason)),
        };
        model.select_output_outlets(&[outputs[0], product.embeddings, product.features])?;
        Ok(Ok(product.layout))
    }

    /// Multiply-accumulates of `queries` masks.
    pub fn macs(&self, queries: usize, pixels: usize) -> u64 {
        queries as u64 * self.channels as u64 * pixels as u64
    }

    /// Mask logits of the queries `kept`, `[kept.len(), pixels]`, into `masks`; `rows` is scratch.
    pub fn compute(&self, embeddings: &[f32], features: &[f32], kept: &[usize], rows: &mut Vec<f32>, masks: &mut [f32]) {
        let pixels = features.len() / self.channels;
        let element = |query: usize, channel: usize| match self.queries_first {
            true => embeddings[query * self.channels + channel],
            false => embeddings[channel * self.queries + query],
        };
        rows.clear();
        rows.extend(kept.iter().flat_map(|&query| (0..self.channels).map(move |channel| element(query, channel))));
        rows_times_features(rows, features, self.features, self.channels, pixels, masks);
    }
}

/// Walks back from the mask output to the product.
fn find(model: &TypedModel, mut outlet: OutletId) -> TractResult<Result<Product, String>> {
    let mask_shape = model.outlet_fact(outlet)?.shape.as_concrete().map(<[usize]>::to_vec).unwrap_or_default();
    let [1, queries, height, width] = mask_shape[..] else { return Ok(Err(format!("masks of shape {mask_shape:?}"))) };
    loop {
        let node = model.node(outlet.node);
        if let Some(op) = node.op_as::<AxisOp>() {
            let shape = model.outlet_fact(node.inputs[0])?.shape.as_concrete().map(<[usize]>::to_vec).unwrap_or_default();
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

/// One factor's axes without those of size 1, in memory order: label and size.
fn axes_of(model: &TypedModel, product: &EinSum, slot: usize, outlet: OutletId) -> TractResult<Vec<(char, usize)>> {
    let shape = model.outlet_fact(outlet)?.shape.as_concrete().map(<[usize]>::to_vec).unwrap_or_default();
    let label = |position: usize| product.axes.axis((InOut::In(slot), position)).map(|axis| axis.repr);
    (0..shape.len()).filter(|&position| shape[position] != 1).map(|position| Ok((label(position)?, shape[position]))).collect()
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
        let Some(&(channel, channels)) = left.iter().find(|(label, _)| summed.contains(label)) else { continue };
        let queries_first = match left[..] {
            [(_, q), (last, _)] if last == channel && q == queries => true,
            [(first, _), (_, q)] if first == channel && q == queries => false,
            _ => continue,
        };
        let pixels: usize = right.iter().filter(|(label, _)| *label != channel).map(|(_, size)| size).product();
        let features_layout = match (right.first(), right.last()) {
            (Some((label, _)), _) if *label == channel => FeatureLayout::ChannelsFirst,
            (_, Some((label, _))) if *label == channel => FeatureLayout::ChannelsLast,
            _ => continue,
        };
        if pixels != height * width || !pixels_in_order(product, &right, features, channel) {
            continue;
        }
        let layout = MaskProduct { channels, queries, queries_first, features: features_layout };
        return Ok(Ok(Product { embeddings: inputs[embeddings], features: inputs[features], layout }));
    }
    Ok(Err(format!("the product '{name}' ({}) is not of the form queries x pixels", product.axes)))
}

/// The pixel axes appear in the output in the order in which the features hold them.
fn pixels_in_order(product: &EinSum, features: &[(char, usize)], slot: usize, channel: char) -> bool {
    let positions: Vec<usize> = features
        .iter()
        .filter(|(label, _)| *label != channel)
        .filter_map(|(label, _)| product.axes.iter_all_axes().find(|axis| axis.repr == *label && !axis.inputs[slot].is_empty()))
        .filter_map(|axis| axis.outputs[0].first().copied())
        .collect();
    positions.is_sorted() && positions.len() + 1 == features.len()
}
