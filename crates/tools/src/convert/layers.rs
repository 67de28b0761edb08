//! The linear layers of a network under the names of their weights in the graph.

use std::borrow::Cow;

use crate::checkpoint::{Array, Linear, Mlp, Network, ScaleBlock};

/// The patch projection, an `[hidden, 3 * patch area]` linear on flattened patches.
pub(super) const PATCH_EMBED: &str = "patch_embed";
/// The class head, on query tokens.
pub(super) const CLASS_HEAD: &str = "head.class";
/// From the query tokens of a frame to what the next frame adds to its queries.
pub(super) const QUERY_UPDATER: &str = "query_updater";
/// The factor of the mask product that comes from the patches.
pub(super) const MASK_FEATURES: &str = "mask_product.features";
/// The factor of the mask product that comes from the queries.
pub(super) const MASK_QUERIES: &str = "mask_product.queries";

/// A layer of a block: `block.3.attention.q`.
pub(super) fn in_block(index: usize, layer: &str) -> String {
    format!("block.{index}.{layer}")
}

/// A layer of the mask head, 0 to 2.
pub(super) fn mask_head(index: usize) -> String {
    format!("mask_head.{index}")
}

/// The transposed convolution of a scale block.
pub(super) fn up(index: usize) -> String {
    format!("scale_block.{index}.up")
}

/// Weights `[out, in]` of every linear in the order of execution.
pub(super) fn weights(network: &Network) -> Vec<(String, Cow<'_, Array>)> {
    let flat = vec![network.hidden, network.patch_weight.data.len() / network.hidden];
    let patch = Array { shape: flat, data: network.patch_weight.data.clone() };
    let mut layers = vec![(PATCH_EMBED.to_owned(), Cow::Owned(patch))];
    for (index, block) in network.blocks.iter().enumerate() {
        let attention = [("attention.q", &block.q), ("attention.k", &block.k), ("attention.v", &block.v), ("attention.out", &block.out)];
        let mlp = match &block.mlp {
            Mlp::Plain { up, down, .. } => vec![("mlp.up", up), ("mlp.down", down)],
            Mlp::Gated { gate, up, down, .. } => vec![("mlp.gate", gate), ("mlp.up", up), ("mlp.down", down)],
        };
        layers.extend(attention.into_iter().chain(mlp).map(|(name, linear)| (in_block(index, name), Cow::Borrowed(&linear.weight))));
    }
    layers.push((CLASS_HEAD.to_owned(), Cow::Borrowed(&network.class_head.weight)));
    layers.extend(network.mask_head.iter().enumerate().map(|(index, linear)| (mask_head(index), Cow::Borrowed(&linear.weight))));
    layers.extend(network.query_updater.iter().map(|linear| (QUERY_UPDATER.to_owned(), Cow::Borrowed(&linear.weight))));
    layers.extend(network.scale_blocks.iter().enumerate().map(|(index, block)| (up(index), Cow::Owned(up_linear(block).weight))));
    layers
}

/// The transposed convolution (2x2, stride 2) as a linear layer on tokens. Outputs have the order (dy, dx, channel), and each of the four
/// pixels gets a copy of the bias.
pub(super) fn up_linear(block: &ScaleBlock) -> Linear {
    let (inputs, outputs) = (block.up_weight.shape[0], block.up_weight.shape[1]);
    let mut data = vec![0.0; 4 * outputs * inputs];
    for (i, of_input) in block.up_weight.data.chunks_exact(4 * outputs).enumerate() {
        for (o, pixels) in of_input.chunks_exact(4).enumerate() {
            pixels.iter().enumerate().for_each(|(pixel, w)| data[(pixel * outputs + o) * inputs + i] = *w);
        }
    }
    Linear { weight: Array { shape: vec![4 * outputs, inputs], data }, bias: Some(block.up_bias.repeat(4 * outputs / block.up_bias.len())) }
}
