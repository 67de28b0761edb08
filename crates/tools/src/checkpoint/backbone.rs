//! The names under which the authors' training code stores a network, and the type that a backbone's reader returns.
//!
//! The readers of all backbones under those names build on this file: [`super::timm`] (DINOv2), [`super::dinov3`] and
//! [`super::lightly`]. Refuses: to read a file.

use super::common;
use super::error::CheckpointError;
use super::hints::Hints;
use super::network::{Activation, Array, Block, Masking, Network, Position};
use super::tensors::Tensors;

/// Prefix of every tensor of the backbone.
pub(super) const BACKBONE: &str = "network.encoder.backbone.";
/// The query embeddings, `[Q, D]`.
pub(super) const QUERY: &str = "network.q.weight";
/// The class head, `[classes + 1, D]`.
pub(super) const CLASS_HEAD: &str = "network.class_head.weight";
/// The standard deviation with which the network normalizes its input, `[1, 3, 1, 1]`; 0 in a delta checkpoint.
pub(super) const PIXEL_STD: &str = "network.encoder.pixel_std";

/// The layer that carries the queries of a network for video (VidEoMT) to the next frame.
const QUERY_UPDATER: &str = "network.query_updater";

/// Whether queries go on from frame to frame.
pub(super) fn is_video(tensors: &Tensors) -> bool {
    tensors.entries.keys().any(|name| name.strip_prefix(QUERY_UPDATER).is_some_and(|rest| rest.starts_with('.')))
}

/// A backbone, as its reader returns it. The fields are those of a [`Network`].
#[derive(Debug, Clone, PartialEq)]
pub struct Backbone {
    /// Height, width of a patch in pixels.
    pub patch_size: [usize; 2],
    /// Height, width of its input in pixels; multiples of `patch_size`, or nearly.
    pub image_size: [usize; 2],
    /// `[D]`, with its position added.
    pub cls_token: Vec<f32>,
    /// `[R, D]`, R may be 0.
    pub register_tokens: Array,
    /// `[D, 3, P, P]`
    pub patch_weight: Array,
    /// `[D]`
    pub patch_bias: Vec<f32>,
    /// Of the patches.
    pub position: Position,
    /// All of them, in order.
    pub blocks: Vec<Block>,
    /// Added to the variance in its norms.
    pub eps: f32,
    /// Attention heads.
    pub heads: usize,
}

/// The number of heads: those of the published backbones are 64 wide (a width of 192 is LightlyTrain's).
///
/// # Errors
/// For another width without a hint.
pub(super) fn heads(tensors: &Tensors, hints: &Hints, hidden: usize, rotary: bool) -> Result<usize, CheckpointError> {
    let usual = [192, 384, 768, 1024, 1280, 1536].contains(&hidden).then_some(hidden / 64);
    let heads = hints.heads.or(usual).ok_or_else(|| {
        let problem = format!("is needed in the hints: the weights do not tell the heads of a network of width {hidden}");
        CheckpointError::key(&tensors.path, "num_attention_heads", problem)
    })?;
    common::check_heads(&hints.file, heads, hidden, rotary, QUERY)?;
    Ok(heads)
}

/// Adds queries and heads to a backbone; `scale_eps` is that of the norms of the scale blocks.
pub(super) fn network(
    tensors: &mut Tensors,
    backbone: Backbone,
    masking: Vec<Masking>,
    [queries, hidden, rows]: [usize; 3],
    scale_eps: f32,
) -> Result<Network, CheckpointError> {
    let scale_blocks = common::scale_blocks(tensors.count("network.upscale."), backbone.patch_size);
    let scale =
        |tensors: &mut Tensors, index| common::scale_block(tensors, &format!("network.upscale.{index}"), ("norm", scale_eps), hidden);
    Ok(Network {
        hidden,
        heads: backbone.heads,
        patch_size: backbone.patch_size,
        image_size: backbone.image_size,
        cls_token: backbone.cls_token,
        register_tokens: backbone.register_tokens,
        patch_weight: backbone.patch_weight,
        patch_bias: backbone.patch_bias,
        position: backbone.position,
        blocks: backbone.blocks,
        num_blocks: masking.len(),
        masking,
        queries: tensors.array(QUERY, &[queries, hidden])?,
        query_updater: is_video(tensors).then(|| tensors.linear(QUERY_UPDATER, hidden, hidden, true)).transpose()?,
        norm: tensors.norm(&format!("{BACKBONE}norm"), hidden, backbone.eps)?,
        class_head: tensors.linear("network.class_head", rows, hidden, true)?,
        mask_head: [
            tensors.linear("network.mask_head.0", hidden, hidden, true)?,
            tensors.linear("network.mask_head.2", hidden, hidden, true)?,
            tensors.linear("network.mask_head.4", hidden, hidden, true)?,
        ],
        head_activation: Activation::Gelu,
        scale_blocks: (0..scale_blocks).map(|index| scale(tensors, index)).collect::<Result<_, _>>()?,
    })
}
