//! The DINOv3 backbone of the authors' checkpoints, and the weights of Meta to which their published ones are a difference.
//!
//! It is transformers' DINOv3ViTModel with three prefixes renamed: `embeddings` is `patch_embed`, `layer` is `blocks`, and the
//! mask token is missing. A delta checkpoint holds `trained - base` for the encoder and all the rest whole, because the
//! authors' loader sets everything outside of the encoder to 0 and adds the two.

use std::path::{Path, PathBuf};

use super::backbone::{BACKBONE, Backbone, PIXEL_STD, heads};
use super::common::{self, Attention};
use super::error::CheckpointError;
use super::hints::Hints;
use super::json::Object;
use super::network::{Activation, Block, Position};
use super::tensors::Tensors;
use super::weights;

/// The configuration of the base.
pub(super) struct Base {
    file: PathBuf,
    heads: usize,
    patch: [usize; 2],
    eps: f32,
    theta: f32,
    activation: Activation,
}

pub(super) fn recognizes(tensors: &Tensors) -> bool {
    let (patch, query) = (format!("{BACKBONE}patch_embed.patch_embeddings.weight"), format!("{BACKBONE}blocks.0.attention.q_proj.weight"));
    tensors.has(&patch) || tensors.has(&query)
}

/// Adds the base to a delta checkpoint; `None`: the checkpoint is whole.
///
/// `pixel_std` tells the two apart: the encoder of a delta holds `trained - base`, so its standard deviation is 0.
///
/// # Errors
/// For a delta without a base, a base for a whole checkpoint, one that does not fit, or a hint that says otherwise.
pub(super) fn attach_base(
    tensors: &mut Tensors,
    hints: &Hints,
    base: Option<&Path>,
    dinov3: bool,
) -> Result<Option<Base>, CheckpointError> {
    if !dinov3 && hints.delta == Some(true) {
        let found = "is not a DINOv3 backbone's; only those are published as a difference";
        return Err(CheckpointError::contradiction(&hints.file, "delta", true, &format!("{BACKBONE}patch_embed.proj.weight"), found));
    }
    let std = tensors.peek(PIXEL_STD, &[1, 3, 1, 1])?;
    let is_delta = dinov3 && std == [0.0; 3];
    if let Some(delta) = hints.delta.filter(|delta| *delta != is_delta) {
        let found = format!("is {std:?}, which is that of a {} checkpoint", if is_delta { "delta" } else { "whole" });
        return Err(CheckpointError::contradiction(&hints.file, "delta", delta, PIXEL_STD, found));
    }
    match (is_delta, base) {
        (false, None) => Ok(None),
        (true, None) => {
            let problem = format!(
                "it holds only the difference to the DINOv3 weights of Meta (tensor '{PIXEL_STD}' is 0); give their folder with --base"
            );
            Err(CheckpointError::layout(&tensors.path, problem))
        }
        (false, Some(base)) => {
            let said = format!("(tensor '{PIXEL_STD}' is {std:?}, in a difference it is 0)");
            Err(CheckpointError::layout(&tensors.path, format!("{} {said}", whole_with_base(base))))
        }
        (true, Some(dir)) => {
            let (store, base) = open(dir)?;
            let is_backbone = |name: &&String| name.starts_with(BACKBONE);
            if let Some(name) = tensors.entries.keys().filter(is_backbone).find(|name| !store.has(name)) {
                return Err(store.missing(&base_name(name)));
            }
            tensors.base = Some(Box::new(store));
            Ok(Some(base))
        }
    }
}

/// The message for a base that the checkpoint does not need.
pub(super) fn whole_with_base(base: &Path) -> String {
    format!("it is a whole checkpoint, which needs no --base ({}); leave it out", base.display())
}

/// The name in transformers' model of the tensor that the authors call `name`.
fn base_name(name: &str) -> String {
    let name = name.strip_prefix(BACKBONE).unwrap_or(name);
    match (name.strip_prefix("patch_embed."), name.strip_prefix("blocks.")) {
        (Some(rest), _) => format!("embeddings.{rest}"),
        (_, Some(rest)) => format!("layer.{rest}"),
        _ => name.to_string(),
    }
}

/// Opens the base under the authors' names. Newer versions of transformers put `model.` before some names or all.
fn open(dir: &Path) -> Result<(Tensors, Base), CheckpointError> {
    if !dir.is_dir() {
        return Err(CheckpointError::layout(dir, "--base is not a folder with config.json and model.safetensors"));
    }
    let object = Object::read(&dir.join("config.json"))?;
    if object.text("model_type")? != Some("dinov3_vit") {
        return Err(object.wrong("model_type", "dinov3_vit"));
    }
    let mut store = weights::open(&weights::find(dir)?, None)?;
    let rename = |name: &str| {
        let mut name = name;
        while let Some(rest) = ["model.", "dinov3_vit.", "backbone."].iter().find_map(|prefix| name.strip_prefix(prefix)) {
            name = rest;
        }
        match (name.strip_prefix("embeddings."), name.strip_prefix("layer.")) {
            (Some(rest), _) => format!("{BACKBONE}patch_embed.{rest}"),
            (_, Some(rest)) => format!("{BACKBONE}blocks.{rest}"),
            _ => format!("{BACKBONE}{name}"),
        }
    };
    store.rename(rename);
    store.ignore(|name| name.ends_with(".mask_token") || name.ends_with("inv_freq"));
    let activation = object.text("hidden_act")?.unwrap_or("gelu");
    let base = Base {
        heads: object.positive("num_attention_heads")?.unwrap_or(6),
        patch: object.pair("patch_size")?.unwrap_or([16, 16]),
        eps: object.float("layer_norm_eps")?.unwrap_or(1e-5),
        theta: object.float("rope_theta")?.unwrap_or(100.0),
        activation: Activation::named(activation).ok_or_else(|| object.wrong("hidden_act", "a known activation"))?,
        file: object.file,
    };
    Ok((store, base))
}

/// Reads the backbone; with a base attached, each tensor is their sum.
pub(super) fn backbone(
    tensors: &mut Tensors,
    hints: &Hints,
    [hidden, depth]: [usize; 2],
    base: Option<Base>,
) -> Result<Backbone, CheckpointError> {
    let name = |part: &str| format!("{BACKBONE}{part}");
    let heads = match &base {
        Some(base) => {
            common::check_heads(&base.file, base.heads, hidden, true, &name("norm.weight"))?;
            hints.agree("num_attention_heads", hints.heads, base.heads, "config.json of the base")?;
            base.heads
        }
        None => heads(tensors, hints, hidden, true)?,
    };
    let patch_name = name("patch_embed.patch_embeddings.weight");
    let [_, _, height, width] = tensors.dims(&patch_name)?;
    let patch_size = [height, width];
    hints.agree("patch_size", hints.patch_size, patch_size, &patch_name)?;
    if let Some(base) = base.as_ref().filter(|base| base.patch != patch_size) {
        let found = format!("has patches of {patch_size:?}");
        return Err(CheckpointError::contradiction(&base.file, "patch_size", format!("{:?}", base.patch), &patch_name, found));
    }
    let image_size = hints.image_size.or(hints.preset.map(|preset| [preset.input, preset.input])).ok_or_else(|| {
        CheckpointError::key(&tensors.path, "image_size", "is needed in the hints: rotary positions do not tell the size of the input")
    })?;
    common::check_grid(&hints.file, image_size, patch_size)?;
    let register_name = name("patch_embed.register_tokens");
    let registers = tensors.shape(&register_name)?.get(1).copied().unwrap_or(0);
    hints.agree("num_register_tokens", hints.registers, registers, &register_name)?;
    if let Some(base) = &base {
        hints.agree("layer_norm_eps", hints.eps, base.eps, "config.json of the base")?;
        hints.agree("rope_theta", hints.theta, base.theta, "config.json of the base")?;
    }
    // Without a base, the defaults of DINOv3ViTConfig, which every published backbone keeps.
    let eps = hints.eps.or(base.as_ref().map(|base| base.eps)).unwrap_or(1e-5);
    let theta = hints.theta.or(base.as_ref().map(|base| base.theta)).unwrap_or(100.0);
    Ok(Backbone {
        patch_size,
        image_size,
        cls_token: common::tokens(tensors, &name("patch_embed.cls_token"), 1, hidden)?.data,
        register_tokens: common::tokens(tensors, &register_name, registers, hidden)?,
        blocks: blocks(tensors, [hidden, depth], eps, base.map(|base| base.activation))?,
        patch_weight: tensors.array(&patch_name, &[hidden, 3, height, width])?,
        patch_bias: tensors.vector(&name("patch_embed.patch_embeddings.bias"), hidden)?,
        position: Position::Rotary { theta },
        eps,
        heads,
    })
}

fn blocks(
    tensors: &mut Tensors,
    [hidden, depth]: [usize; 2],
    eps: f32,
    activation: Option<Activation>,
) -> Result<Vec<Block>, CheckpointError> {
    // In every block or in none: one that is missing in some blocks only is an error that names it.
    let any = |suffix: &str| tensors.entries.keys().any(|name| name.starts_with(BACKBONE) && name.ends_with(suffix));
    let bias = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|part| any(&format!(".attention.{part}.bias")));
    let (gated, mlp_bias) = (any(".mlp.gate_proj.weight"), any(".mlp.up_proj.bias"));
    let activation = activation.unwrap_or(if gated { Activation::Silu } else { Activation::Gelu });
    let attention = Attention { out: "o_proj", bias };
    let block = |tensors: &mut Tensors, index: usize| {
        let prefix = format!("{BACKBONE}blocks.{index}");
        let mlp_prefix = format!("{prefix}.mlp");
        let [inner, _] = tensors.dims(&format!("{mlp_prefix}.up_proj.weight"))?;
        let mlp = |tensors: &mut Tensors| common::projected_mlp(tensors, &mlp_prefix, [hidden, inner], gated, mlp_bias, activation);
        common::block(tensors, &prefix, hidden, eps, attention, mlp)
    };
    (0..depth).map(|index| block(tensors, index)).collect()
}
