//! Checkpoints of LightlyTrain: `train_model` with names below `model.`, Meta's names for the backbone, and
//! `model_init_args` with the facts that the weights lack.
//!
//! As in the sources of version 0.18. Unlike in the authors' networks, inference never masks (there are no
//! probabilities), the norms of the scale blocks have an epsilon of 1e-5, the table of DINOv2 is that of pre-training and is
//! resampled at run time, and an input that is no multiple of DINOv2's patch is resized up to one.
//!
//! Refuses: models of other tasks, rotary periods that no base makes.

use eomt_edge_core::data::Task;

use super::backbone::{self, BACKBONE, Backbone, CLASS_HEAD, QUERY};
use super::common::{self, Contents};
use super::error::CheckpointError;
use super::hints::{self, Hints};
use super::labels;
use super::meta::Meta;
use super::network::{Activation, Array, Block, Linear, Masking, Mlp, Position, Resampling};
use super::tensors::Tensors;
use super::timm::{self, Place};

const ARGS: &str = "model_init_args";
const SCALE_BLOCK_EPS: f32 = 1e-5;
/// Epsilon of the norms of DINOv3 ("layernormbf16"), as in every published one.
const DINOV3_EPS: f32 = 1e-5;
/// Relative error of periods in bfloat16.
const PERIOD_TOLERANCE: f32 = 5e-3;

/// Reads the network.
///
/// # Errors
/// See [`CheckpointError`]; each names the key or tensor.
pub(super) fn read(mut tensors: Tensors, mut hints: Hints) -> Result<Contents, CheckpointError> {
    let meta = tensors.meta.clone();
    check_class(&meta)?;
    // w12 and w3 are DINOv2's gated MLP; w1, w2 and w3 are DINOv3's.
    let packed = tensors.entries.keys().any(|name| name.contains(".mlp.w12."));
    tensors.rename(|name| authors_name(name, packed));
    let unused = ["mask_token", "cls_norm.", "local_cls_norm.", "head."].map(|name| format!("{BACKBONE}{name}"));
    tensors.ignore(|name| unused.iter().any(|unused| name.starts_with(unused)) || name.starts_with("network.criterion."));
    let [queries, hidden] = tensors.dims(QUERY)?;
    let [rows, _] = tensors.dims(CLASS_HEAD)?;
    let depth = tensors.count(&format!("{BACKBONE}blocks."));
    let mut warnings = std::mem::take(&mut tensors.warnings);
    hints.preset = None;
    fill(&mut hints, &meta)?;
    hints.agree("num_queries", hints.num_queries, queries, QUERY)?;
    let needed = |key: &str| {
        let problem = format!("is needed in the hints: the file has no '{ARGS}', and the weights do not tell it");
        CheckpointError::key(&tensors.path, key, problem)
    };
    let num_blocks = hints.num_blocks.ok_or_else(|| needed("num_blocks"))?;
    let image_size = hints.image_size.ok_or_else(|| needed("image_size"))?;
    if num_blocks > depth {
        let problem = format!("is {num_blocks}, but the backbone has {depth} blocks");
        return Err(CheckpointError::key(&meta.file, "num_blocks", problem));
    }
    let classes = common::classes(&hints, None, rows.saturating_sub(1), CLASS_HEAD)?;
    if labels::are_unnamed(&classes.labels) {
        warnings.push("the checkpoint does not name its classes; give them as 'labels' in the hints".to_string());
    }
    let size = [hidden, depth];
    let backbone = match tensors.has(&format!("{BACKBONE}rope_embed.periods")) {
        true => dinov3(&mut tensors, &hints, size, image_size)?,
        false => {
            let heads = heads(&mut hints, &tensors, &meta, hidden)?;
            let place = place(&tensors, &meta, image_size, &mut warnings)?;
            timm::backbone(&mut tensors, &hints, size, heads, place)?
        }
    };
    if hints.masked_attention == Some(true) {
        return Err(CheckpointError::key(&hints.file, "masked_attention", "is true, but LightlyTrain's networks never mask in inference"));
    }
    let masking = vec![Masking::Off; num_blocks];
    let network = backbone::network(&mut tensors, backbone, masking, [queries, hidden, rows], SCALE_BLOCK_EPS)?;
    tensors.finish()?;
    let image_mean = meta.triple(&format!("{ARGS}.image_normalize.mean"))?.unwrap_or(common::IMAGENET_MEAN);
    let std = format!("{ARGS}.image_normalize.std");
    let image_std = meta.triple(&std)?.unwrap_or(common::IMAGENET_STD);
    if image_std.iter().any(|std| *std <= 0.0) {
        return Err(meta.wrong(&std, "three numbers above 0"));
    }
    Ok(Contents { network, classes, image_mean, image_std, warnings })
}

/// Refuses a file that names another kind of model than EoMT.
fn check_class(meta: &Meta) -> Result<(), CheckpointError> {
    match meta.text("model_class_path")? {
        Some(class) if !class.contains("EoMT") => Err(meta.wrong("model_class_path", "one of LightlyTrain's EoMT models")),
        _ => Ok(()),
    }
}

/// The authors' name of the tensor that LightlyTrain (and Meta) call `name`, if there is one.
pub(super) fn authors_name(name: &str, packed: bool) -> String {
    let Some(name) = name.strip_prefix("backbone.") else {
        return format!("network.{}", if name == "queries.weight" { "q.weight" } else { name });
    };
    let name = match name {
        "register_tokens" => "reg_token".to_string(),
        name if packed => name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."),
        name => name.to_string(),
    };
    // Numbers run on over chunks of blocks: `blocks.2.13.norm1` is block 13.
    let mut parts: Vec<&str> = name.split('.').collect();
    if let ["blocks", _, block, ..] = parts[..]
        && block.parse::<usize>().is_ok()
    {
        parts.remove(1);
    }
    format!("{BACKBONE}{}", parts.join("."))
}

/// Fills the hints in with `model_init_args`.
fn fill(hints: &mut Hints, meta: &Meta) -> Result<(), CheckpointError> {
    let file = hints.file.clone();
    let key = |name: &str| format!("{ARGS}.{name}");
    hints::fill(&file, &mut hints.image_size, "image_size", meta.pair(&key("image_size"))?, &key("image_size"))?;
    hints::fill(&file, &mut hints.num_queries, "num_queries", meta.positive(&key("num_queries"))?, &key("num_queries"))?;
    let blocks = key("num_joint_blocks");
    hints::fill(&file, &mut hints.num_blocks, "num_blocks", meta.positive(&blocks)?, &blocks)?;
    // The classes of the head are numbered in the order of the dictionaries, things first.
    let (things, stuff) = (meta.names(&key("thing_classes"))?, meta.names(&key("stuff_classes"))?);
    let stuff_classes = stuff.as_ref().map(|stuff| {
        let first = things.as_ref().map_or(0, Vec::len);
        (first..first + stuff.len()).collect::<Vec<_>>()
    });
    let panoptic = things.is_some() || stuff.is_some();
    let all = if panoptic { Some([things, stuff].into_iter().flatten().flatten().collect()) } else { meta.names(&key("classes"))? };
    let names = all.map(|all: Vec<(usize, String)>| all.into_iter().map(|(_, name)| name).collect::<Vec<_>>());
    hints::fill(&file, &mut hints.labels, "labels", names, if panoptic { "thing_classes" } else { "classes" })?;
    hints::fill(&file, &mut hints.stuff_classes, "stuff_classes", stuff_classes, &key("stuff_classes"))?;
    let class = meta.text("model_class_path")?.unwrap_or_default();
    let tasks = [("Panoptic", Task::Panoptic), ("Instance", Task::Instance), ("Semantic", Task::Semantic)];
    let task = tasks.into_iter().find(|(name, _)| class.contains(name)).map(|(_, task)| task);
    hints::fill(&file, &mut hints.task, "task", task, "model_class_path")
}

/// DINOv2's heads: by the backbone's arguments, its name, its width.
fn heads(hints: &mut Hints, tensors: &Tensors, meta: &Meta, hidden: usize) -> Result<usize, CheckpointError> {
    let file = hints.file.clone();
    let key = format!("{ARGS}.backbone_args.num_heads");
    hints::fill(&file, &mut hints.heads, "num_attention_heads", meta.positive(&key)?, &key)?;
    let name = meta.text(&format!("{ARGS}.model_name"))?.unwrap_or_default();
    // (part of the name, width, heads) of the backbones whose heads are not 64 wide.
    let odd = [("vitso400m", 1152, 16), ("_vittest", 8, 2)];
    let known = odd.into_iter().find(|(part, width, _)| name.contains(part) && *width == hidden).map(|(_, _, heads)| heads);
    hints::fill(&file, &mut hints.heads, "num_attention_heads", known, &format!("{ARGS}.model_name"))?;
    backbone::heads(tensors, hints, hidden, false)
}

/// DINOv2's table is that of pre-training, square, after the position of the class token.
fn place(tensors: &Tensors, meta: &Meta, image: [usize; 2], warnings: &mut Vec<String>) -> Result<Place, CheckpointError> {
    let [_, _, height, width] = tensors.dims(&format!("{BACKBONE}patch_embed.proj.weight"))?;
    let name = format!("{BACKBONE}pos_embed");
    let [_, positions, _] = tensors.dims(&name)?;
    let side = (positions - 1).isqrt();
    if side == 0 || side * side != positions - 1 {
        let problem = format!("tensor '{name}' has {positions} positions, expected one more than a square number");
        return Err(CheckpointError::layout(&tensors.path, problem));
    }
    let image_size = [image[0].next_multiple_of(height), image[1].next_multiple_of(width)];
    if image_size != image {
        warnings.push(format!(
            "LightlyTrain resizes its input of {}x{} to whole patches inside of the network; here the input is {}x{} from the start",
            image[0], image[1], image_size[0], image_size[1]
        ));
    }
    // Backbones with registers were configured to be resampled the newer way.
    let newer = tensors.has(&format!("{BACKBONE}reg_token"));
    let key = |name: &str| format!("{ARGS}.backbone_args.{name}");
    let antialias = meta.flag(&key("interpolate_antialias"))?.unwrap_or(newer);
    let offset = meta.number(&key("interpolate_offset"))?.unwrap_or(if newer { 0.0 } else { 0.1 });
    let resampling = match (antialias, offset) {
        (true, 0.0) => Resampling::Antialiased,
        (true, _) => return Err(meta.wrong(&key("interpolate_offset"), "0, since interpolate_antialias is True")),
        (false, offset) => Resampling::Plain { offset },
    };
    Ok(Place { grid: [side, side], prefix: 1, image_size, resampling })
}

/// The DINOv3 backbone under Meta's names.
pub(super) fn dinov3(
    tensors: &mut Tensors,
    hints: &Hints,
    [hidden, depth]: [usize; 2],
    image: [usize; 2],
) -> Result<Backbone, CheckpointError> {
    let name = |part: &str| format!("{BACKBONE}{part}");
    let (heads, theta) = rotary(tensors, hints, hidden)?;
    let eps = hints.eps.unwrap_or(DINOV3_EPS);
    let patch_name = name("patch_embed.proj.weight");
    let [_, _, height, width] = tensors.dims(&patch_name)?;
    hints.agree("patch_size", hints.patch_size, [height, width], &patch_name)?;
    common::check_grid(&hints.file, image, [height, width])?;
    let mut register_tokens = Array { shape: vec![0, hidden], data: vec![] };
    if tensors.has(&name("storage_tokens")) {
        let [_, registers, _] = tensors.dims(&name("storage_tokens"))?;
        register_tokens = common::tokens(tensors, &name("storage_tokens"), registers, hidden)?;
    }
    hints.agree("num_register_tokens", hints.registers, register_tokens.shape[0], &name("storage_tokens"))?;
    // In every block or in none: one that is missing in some blocks only is an error that names it.
    let any = |tensors: &Tensors, suffix: &str| tensors.entries.keys().any(|name| name.starts_with(BACKBONE) && name.ends_with(suffix));
    let kinds = Kinds {
        scaled: any(tensors, ".ls1.gamma") || any(tensors, ".ls2.gamma"),
        biased: any(tensors, ".attn.qkv.bias"),
        masked: any(tensors, ".attn.qkv.bias_mask"),
        gated: any(tensors, ".mlp.w1.weight"),
    };
    let blocks = (0..depth).map(|index| dinov3_block(tensors, &name(&format!("blocks.{index}")), hidden, eps, kinds));
    let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
    Ok(Backbone {
        patch_size: [height, width],
        image_size: image,
        cls_token: common::tokens(tensors, &name("cls_token"), 1, hidden)?.data,
        register_tokens,
        patch_weight: tensors.array(&patch_name, &[hidden, 3, height, width])?,
        patch_bias: tensors.vector(&name("patch_embed.proj.bias"), hidden)?,
        position: Position::Rotary { theta },
        blocks,
        eps,
        heads,
    })
}

/// The heads and the base of the frequencies, both from the periods: there are a quarter of a head's width of them, and
/// number k is `base^(k / count)`.
fn rotary(tensors: &mut Tensors, hints: &Hints, hidden: usize) -> Result<(usize, f32), CheckpointError> {
    let name = format!("{BACKBONE}rope_embed.periods");
    let [count] = tensors.dims(&name)?;
    let periods = tensors.vector(&name, count)?;
    let heads = hidden / (4 * count);
    if heads == 0 || heads * 4 * count != hidden {
        let problem = format!("tensor '{name}' has {count} periods, so that a head is {} wide, which does not divide {hidden}", 4 * count);
        return Err(CheckpointError::layout(&tensors.path, problem));
    }
    hints.agree("num_attention_heads", hints.heads, heads, &name)?;
    let fits = |base: f32| {
        let expected = |k: usize| base.powf(k as f32 / count as f32);
        periods.iter().enumerate().all(|(k, period)| (period / expected(k) - 1.0).abs() < PERIOD_TOLERANCE)
    };
    // The last period is the most precise; 100 is Meta's base.
    let implied = periods[count - 1].powf(count as f32 / (count - 1).max(1) as f32);
    match hints.theta.into_iter().chain([100.0, implied]).find(|base| *base > 0.0 && fits(*base)) {
        Some(theta) => {
            hints.agree("rope_theta", hints.theta, theta, &name)?;
            Ok((heads, theta))
        }
        None => {
            let problem =
                format!("tensor '{name}' holds periods that no base makes (those from a shortest to a longest one are not supported)");
            Err(CheckpointError::layout(&tensors.path, problem))
        }
    }
}

/// The optional tensors of every block.
#[derive(Clone, Copy)]
struct Kinds {
    scaled: bool,
    biased: bool,
    /// A mask that removes the bias of the keys.
    masked: bool,
    gated: bool,
}

fn dinov3_block(tensors: &mut Tensors, prefix: &str, hidden: usize, eps: f32, kinds: Kinds) -> Result<Block, CheckpointError> {
    let name = |part: &str| format!("{prefix}.{part}");
    let mut fused = tensors.linear(&name("attn.qkv"), 3 * hidden, hidden, kinds.biased)?;
    if kinds.masked {
        let mask = tensors.vector(&name("attn.qkv.bias_mask"), 3 * hidden)?;
        let bias = fused.bias.iter_mut().flatten();
        bias.zip(mask).for_each(|(bias, mask)| *bias *= mask);
    }
    let [q, mut k, v] = common::split_rows::<3>(fused);
    k.bias = k.bias.filter(|bias| bias.iter().any(|bias| *bias != 0.0));
    let part = if kinds.gated { "mlp.w1" } else { "mlp.fc1" };
    let [inner, _] = tensors.dims(&name(&format!("{part}.weight")))?;
    let mut linear = |part: &str, out, inputs| -> Result<Linear, CheckpointError> { tensors.linear(&name(part), out, inputs, true) };
    let mlp = if kinds.gated {
        let (gate, up, down) = (linear("mlp.w1", inner, hidden)?, linear("mlp.w2", inner, hidden)?, linear("mlp.w3", hidden, inner)?);
        Mlp::Gated { gate, up, down, activation: Activation::Silu }
    } else {
        let (up, down) = (linear("mlp.fc1", inner, hidden)?, linear("mlp.fc2", hidden, inner)?);
        Mlp::Plain { up, down, activation: Activation::Gelu }
    };
    let out = linear("attn.proj", hidden, hidden)?;
    let mut scale = |part: &str| if kinds.scaled { tensors.vector(&name(part), hidden).map(Some) } else { Ok(None) };
    let (scale1, scale2) = (scale("ls1.gamma")?, scale("ls2.gamma")?);
    let (norm1, norm2) = (tensors.norm(&name("norm1"), hidden, eps)?, tensors.norm(&name("norm2"), hidden, eps)?);
    Ok(Block { norm1, q, k, v, out, scale1, norm2, mlp, scale2 })
}
