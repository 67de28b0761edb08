//! What the readers of all layouts share: blocks with separate q, k and v, heads, masks, classes, and the check of a preset.

use std::path::Path;

use eomt_edge_core::data::Task;

use super::error::CheckpointError;
use super::hints::Hints;
use super::labels::{self, Dataset};
use super::network::{Activation, Array, Block, Linear, Masking, Mlp, Network, ScaleBlock};
use super::presets::Preset;
use super::tensors::Tensors;

/// Mean of the training data of every published backbone; RGB, in units of pixel value / 255.
pub(super) const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Its standard deviation.
pub(super) const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Epsilon of the norms in scale blocks, in timm and transformers; `layer_norm_eps` does not change it.
pub(super) const SCALE_BLOCK_EPS: f32 = 1e-6;

/// The contents of a checkpoint, as the reader of its layout returns them.
pub(super) struct Contents {
    pub network: Network,
    pub classes: Classes,
    pub image_mean: [f32; 3],
    pub image_std: [f32; 3],
    pub warnings: Vec<String>,
}

pub(super) struct Classes {
    pub labels: Vec<String>,
    pub stuff: Option<Vec<usize>>,
    pub task: Option<Task>,
    /// The published model, if it is one.
    pub preset: Option<&'static Preset>,
}

/// Names and options of the attention of one block.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    /// Name of the output projection.
    pub out: &'static str,
    /// Whether q, k, v and the output have one.
    pub bias: [bool; 4],
}

/// Reads a block under transformers' names, all but its MLP.
pub(super) fn block(
    tensors: &mut Tensors,
    prefix: &str,
    hidden: usize,
    eps: f32,
    attention: Attention,
    mlp: impl FnOnce(&mut Tensors) -> Result<Mlp, CheckpointError>,
) -> Result<Block, CheckpointError> {
    let mut project = |name: &str, bias: bool| tensors.linear(&format!("{prefix}.attention.{name}"), hidden, hidden, bias);
    let [q, k, v, out] = attention.bias;
    let (q, k, v, out) = (project("q_proj", q)?, project("k_proj", k)?, project("v_proj", v)?, project(attention.out, out)?);
    Ok(Block {
        norm1: tensors.norm(&format!("{prefix}.norm1"), hidden, eps)?,
        q,
        k,
        v,
        out,
        scale1: Some(tensors.vector(&format!("{prefix}.layer_scale1.lambda1"), hidden)?),
        norm2: tensors.norm(&format!("{prefix}.norm2"), hidden, eps)?,
        mlp: mlp(tensors)?,
        scale2: Some(tensors.vector(&format!("{prefix}.layer_scale2.lambda1"), hidden)?),
    })
}

/// Reads the MLP of DINOv3: `up_proj`, `down_proj` and, when gated, `gate_proj`.
pub(super) fn projected_mlp(
    tensors: &mut Tensors,
    prefix: &str,
    [hidden, inner]: [usize; 2],
    gated: bool,
    bias: bool,
    activation: Activation,
) -> Result<Mlp, CheckpointError> {
    let up = tensors.linear(&format!("{prefix}.up_proj"), inner, hidden, bias)?;
    let down = tensors.linear(&format!("{prefix}.down_proj"), hidden, inner, bias)?;
    Ok(if gated {
        Mlp::Gated { gate: tensors.linear(&format!("{prefix}.gate_proj"), inner, hidden, bias)?, up, down, activation }
    } else {
        Mlp::Plain { up, down, activation }
    })
}

/// Cuts a linear layer into layers of equal height: fused q, k, v, or a packed gate and value.
pub(super) fn split_rows<const N: usize>(fused: Linear) -> [Linear; N] {
    let [rows, columns] = [fused.weight.shape[0] / N, fused.weight.shape[1]];
    std::array::from_fn(|part| Linear {
        weight: Array { shape: vec![rows, columns], data: fused.weight.data[part * rows * columns..(part + 1) * rows * columns].to_vec() },
        bias: fused.bias.as_ref().map(|bias| bias[part * rows..(part + 1) * rows].to_vec()),
    })
}

pub(super) fn scale_block(
    tensors: &mut Tensors,
    prefix: &str,
    (norm, eps): (&str, f32),
    hidden: usize,
) -> Result<ScaleBlock, CheckpointError> {
    Ok(ScaleBlock {
        up_weight: tensors.array(&format!("{prefix}.conv1.weight"), &[hidden, hidden, 2, 2])?,
        up_bias: tensors.vector(&format!("{prefix}.conv1.bias"), hidden)?,
        depthwise: tensors.array(&format!("{prefix}.conv2.weight"), &[hidden, 1, 3, 3])?,
        norm: tensors.norm(&format!("{prefix}.{norm}"), hidden, eps)?,
    })
}

/// How many scale blocks a network with this patch has, of which the file holds `found`. They lead to about a quarter of
/// the input: the authors round the number down, LightlyTrain up, and both have at least one.
pub(super) fn scale_blocks(found: usize, patch: [usize; 2]) -> usize {
    let side = patch[0].max(patch[1]);
    let blocks = |log2: u32| (log2 as usize).saturating_sub(2).max(1);
    // Clamped, so that a missing or superfluous block is named by its tensor.
    found.clamp(blocks(side.ilog2()), blocks(side.next_power_of_two().ilog2()))
}

/// `[1, count, D]` tokens as `[count, D]`.
pub(super) fn tokens(tensors: &mut Tensors, name: &str, count: usize, hidden: usize) -> Result<Array, CheckpointError> {
    let array = tensors.array(name, &[1, count, hidden])?;
    Ok(Array { shape: vec![count, hidden], data: array.data })
}

/// Warns about probabilities between 0 and 1: in training they drop masks at random, which no file can reproduce.
pub(super) fn warn_of_fractions(probabilities: &[f32], warnings: &mut Vec<String>) {
    if let Some(p) = probabilities.iter().find(|p| **p > 0.0 && **p < 1.0) {
        warnings
            .push(format!("attn_mask_probs holds {p}, a probability that training had not yet annealed; those blocks always mask here"));
    }
}

/// Masks as the layout decides, unless `masked_attention` in the hints is false (true changes nothing for a whole checkpoint).
pub(super) fn masking(hints: &Hints, num_blocks: usize, own: impl FnOnce() -> Vec<Masking>) -> Vec<Masking> {
    match hints.masked_attention {
        Some(false) => vec![Masking::Off; num_blocks],
        _ => own(),
    }
}

/// Checks the number of heads.
///
/// # Errors
/// When they do not divide the width, or with rotary positions, when the width of a head is not a multiple of four.
pub(super) fn check_heads(file: &Path, heads: usize, hidden: usize, rotary: bool, tensor: &str) -> Result<(), CheckpointError> {
    let key = "num_attention_heads";
    if !hidden.is_multiple_of(heads) {
        let found = format!("has {hidden} columns, which {heads} heads cannot share evenly");
        return Err(CheckpointError::contradiction(file, key, heads, tensor, found));
    }
    if rotary && !(hidden / heads).is_multiple_of(4) {
        let found = format!("has {hidden} columns, so that a head is {} wide, and rotary positions need a multiple of 4", hidden / heads);
        return Err(CheckpointError::contradiction(file, key, heads, tensor, found));
    }
    Ok(())
}

/// Rows and columns of whole patches in an image. The network never sees the rest at the right and the bottom, as in the reference.
///
/// # Errors
/// When the image is smaller than a patch.
pub(super) fn check_grid(file: &Path, image: [usize; 2], patch: [usize; 2]) -> Result<[usize; 2], CheckpointError> {
    if image.iter().zip(patch).all(|(image, patch)| *image >= patch) {
        return Ok([image[0] / patch[0], image[1] / patch[1]]);
    }
    Err(CheckpointError::key(file, "image_size", format!("is {image:?}, which is less than a patch of {patch:?}")))
}

/// Classes from the checkpoint (`own`), the hints, the preset, and known datasets.
/// `tensor` is the class head, `classes` its rows without "no object".
pub(super) fn classes(hints: &Hints, own: Option<Vec<String>>, classes: usize, tensor: &str) -> Result<Classes, CheckpointError> {
    let disagree = |key: &str, count: usize| {
        let found = format!("has {} rows, one for each of {classes} classes and one for none", classes + 1);
        CheckpointError::contradiction(&hints.file, key, format!("for {count} classes"), tensor, found)
    };
    if classes == 0 {
        return Err(CheckpointError::layout(
            &hints.file,
            format!("tensor '{tensor}' has one row, which is for \"no object\", and none for a class"),
        ));
    }
    if let Some(count) = hints.num_labels.filter(|count| *count != classes) {
        return Err(disagree("num_labels", count));
    }
    if let Some(labels) = hints.labels.as_ref().filter(|labels| labels.len() != classes) {
        return Err(disagree("labels", labels.len()));
    }
    let own = own.filter(|labels| !labels::are_unnamed(labels));
    if let (Some(own), Some(hint)) = (&own, &hints.labels)
        && own != hint
    {
        return Err(CheckpointError::key(&hints.file, "labels", "names other classes than the checkpoint does"));
    }
    let published = hints.preset.map(|preset| preset.dataset.labels(preset.task).iter().map(|label| label.to_string()).collect());
    let labels = own.or(hints.labels.clone()).or(published).unwrap_or_else(|| labels::unnamed(classes));
    let dataset = match hints.preset {
        Some(preset) => Some((preset.dataset, Some(preset.task))),
        None => Dataset::of(&labels),
    };
    let task = hints.task.or(dataset.and_then(|(_, task)| task));
    let stuff = match &hints.stuff_classes {
        Some(stuff) => Some(checked_stuff(hints, stuff, classes)?),
        None => dataset.map(|(dataset, task)| dataset.stuff(task.or(hints.task).unwrap_or_default())),
    };
    Ok(Classes { labels, stuff: stuff.filter(|stuff| stuff.iter().all(|class| *class < classes)), task, preset: hints.preset })
}

fn checked_stuff(hints: &Hints, stuff: &[usize], classes: usize) -> Result<Vec<usize>, CheckpointError> {
    if let Some(class) = stuff.iter().find(|class| **class >= classes) {
        return Err(CheckpointError::key(&hints.file, "stuff_classes", format!("names class {class}, there are {classes} (from 0)")));
    }
    let mut stuff = stuff.to_vec();
    stuff.sort_unstable();
    stuff.dedup();
    Ok(stuff)
}

/// Facts that the weights tell about the network, and the tensors that tell them.
pub(super) struct Facts<'a> {
    pub dinov3: bool,
    pub hidden: usize,
    pub blocks: usize,
    pub num_blocks: usize,
    pub queries: usize,
    pub classes: usize,
    pub query_tensor: &'a str,
    pub class_tensor: &'a str,
    pub mask_tensor: &'a str,
}

/// Compares the preset with the weights. One that was only guessed from the path is dropped, with a warning.
///
/// # Errors
/// When the user chose it and it does not fit.
pub(super) fn check_preset(hints: &mut Hints, facts: &Facts, warnings: &mut Vec<String>) -> Result<(), CheckpointError> {
    let Some(preset) = hints.preset else { return Ok(()) };
    let generation = |dinov3: bool| if dinov3 { 3 } else { 2 };
    let pairs = [
        ("DINOv", facts.query_tensor, generation(facts.dinov3), generation(preset.dinov3)),
        ("width ", facts.query_tensor, facts.hidden, preset.size.hidden()),
        ("block count ", facts.query_tensor, facts.blocks, preset.size.blocks()),
        ("query count ", facts.query_tensor, facts.queries, preset.queries),
        ("class count ", facts.class_tensor, facts.classes, preset.dataset.labels(preset.task).len()),
        ("query block count ", facts.mask_tensor, facts.num_blocks, preset.size.query_blocks()),
    ];
    let Some((what, tensor, found, expected)) = pairs.into_iter().find(|(_, _, found, expected)| found != expected) else { return Ok(()) };
    let name = preset.names[0];
    if hints.guessed {
        hints.preset = None;
        warnings.push(format!(
            "the path names the published model {name}, but the weights have {what}{found}, not {expected}; the name is ignored"
        ));
        return Ok(());
    }
    let found = format!("belongs to a network of {what}{found}, that model has {what}{expected}");
    Err(CheckpointError::contradiction(&hints.file, "preset", name, tensor, found))
}
