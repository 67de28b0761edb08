//! Checkpoints of the EoMT authors' training code: names under `network.`, the backbone as timm (DINOv2) or transformers
//! (DINOv3, see [`super::dinov3`]) calls it, and no configuration.
//!
//! Shapes tell almost everything; hints and the name of a published model tell the rest. Masks follow the authors' inference:
//! a block of probability 0 opens its mask again.

use std::path::Path;

use super::common::{self, Contents, Facts};
use super::dinov3;
use super::error::CheckpointError;
use super::hints::Hints;
use super::labels;
use super::lightning;
use super::network::{Activation, Array, Block, Linear, Masking, Mlp, Network, Position, Resampling};
use super::tensors::Tensors;

pub(super) const BACKBONE: &str = "network.encoder.backbone.";
pub(super) const QUERY: &str = "network.q.weight";
pub(super) const CLASS_HEAD: &str = "network.class_head.weight";
const MASK_PROBS: &str = "network.attn_mask_probs";
pub(super) const PIXEL_STD: &str = "network.encoder.pixel_std";

/// What a backbone's reader returns.
pub(super) struct Backbone {
    pub patch_size: [usize; 2],
    pub image_size: [usize; 2],
    pub cls_token: Vec<f32>,
    pub register_tokens: Array,
    pub patch_weight: Array,
    pub patch_bias: Vec<f32>,
    pub position: Position,
    pub blocks: Vec<Block>,
    pub eps: f32,
    pub heads: usize,
}

/// Reads the network. `base` is the folder of the DINOv3 weights to which a delta checkpoint is a difference.
pub(super) fn read(mut tensors: Tensors, mut hints: Hints, base: Option<&Path>) -> Result<Contents, CheckpointError> {
    tensors.rename(|name| format!("network.{name}"));
    tensors.ignore(|name| name.starts_with("network.criterion.") || name.ends_with("inv_freq"));
    lightning::fill(&mut hints, &tensors.meta)?;
    let [queries, hidden] = tensors.dims(QUERY)?;
    let [rows, _] = tensors.dims(CLASS_HEAD)?;
    let [num_blocks] = tensors.dims(MASK_PROBS)?;
    let classes = rows - 1;
    let depth = tensors.count(&format!("{BACKBONE}blocks."));
    if num_blocks > depth {
        let problem = format!("tensor '{MASK_PROBS}' is for {num_blocks} blocks, but the backbone has {depth}");
        return Err(CheckpointError::layout(&tensors.path, problem));
    }
    let mut warnings = std::mem::take(&mut tensors.warnings);
    let facts = Facts {
        dinov3: dinov3::recognizes(&tensors),
        hidden,
        blocks: depth,
        num_blocks,
        queries,
        classes,
        query_tensor: QUERY,
        class_tensor: CLASS_HEAD,
        mask_tensor: MASK_PROBS,
    };
    common::check_preset(&mut hints, &facts, &mut warnings)?;
    hints.agree("num_blocks", hints.num_blocks, num_blocks, MASK_PROBS)?;
    hints.agree("num_queries", hints.num_queries, queries, QUERY)?;
    let base = dinov3::attach_base(&mut tensors, &hints, base, facts.dinov3)?;
    let classes = common::classes(&hints, None, classes, CLASS_HEAD)?;
    if labels::are_unnamed(&classes.labels) && hints.labels.is_none() {
        warnings.push("the checkpoint does not name its classes; give them as 'labels' in the hints".to_string());
    }
    let is_delta = base.is_some();
    let (image_mean, image_std) = normalization(&mut tensors, is_delta)?;
    let masking = masking(&mut tensors, &hints, num_blocks, is_delta, &mut warnings)?;
    let size = [hidden, depth];
    let backbone = if facts.dinov3 {
        dinov3::backbone(&mut tensors, &hints, size, base)?
    } else {
        let heads = heads(&tensors, &hints, hidden, false)?;
        let place = place(&tensors, &hints)?;
        timm(&mut tensors, &hints, size, heads, place)?
    };
    let network = network(&mut tensors, backbone, masking, [queries, hidden, rows], common::SCALE_BLOCK_EPS)?;
    tensors.finish()?;
    Ok(Contents { network, classes, image_mean, image_std, warnings })
}

/// Heads of the published backbones are 64 wide; of those, 192 is LightlyTrain's. Errors: another width and no hint.
pub(super) fn heads(tensors: &Tensors, hints: &Hints, hidden: usize, rotary: bool) -> Result<usize, CheckpointError> {
    let usual = [192, 384, 768, 1024, 1280, 1536].contains(&hidden).then_some(hidden / 64);
    let heads = hints.heads.or(usual).ok_or_else(|| {
        let problem = format!("is needed in the hints: the weights do not tell the heads of a network of width {hidden}");
        CheckpointError::key(&tensors.path, "num_attention_heads", problem)
    })?;
    common::check_heads(&hints.file, heads, hidden, rotary, QUERY)?;
    Ok(heads)
}

/// Mean and standard deviation inside the network. A delta holds differences to ImageNet's, which are 0.
fn normalization(tensors: &mut Tensors, is_delta: bool) -> Result<([f32; 3], [f32; 3]), CheckpointError> {
    let mut read = |name: &str| -> Result<[f32; 3], CheckpointError> {
        let data = tensors.array(name, &[1, 3, 1, 1])?.data;
        Ok([data[0], data[1], data[2]])
    };
    let name = PIXEL_STD;
    let (mean, std) = (read("network.encoder.pixel_mean")?, read(name)?);
    if std.iter().all(|std| *std > 0.0) {
        return Ok((mean, std));
    }
    if is_delta && std == [0.0; 3] {
        return Ok((std::array::from_fn(|i| common::IMAGENET_MEAN[i] + mean[i]), common::IMAGENET_STD));
    }
    let problem =
        format!("tensor '{name}' is {std:?}, expected three numbers above 0 (they are 0 in a delta checkpoint, which needs --base)");
    Err(CheckpointError::layout(&tensors.path, problem))
}

/// The probabilities in a delta are a difference too, to whatever the trainer began with: there, only the hint counts.
fn masking(
    tensors: &mut Tensors,
    hints: &Hints,
    num_blocks: usize,
    is_delta: bool,
    warnings: &mut Vec<String>,
) -> Result<Vec<Masking>, CheckpointError> {
    let probs = tensors.vector(MASK_PROBS, num_blocks)?;
    if is_delta {
        // From 1 to 0, the end of every training with annealing, is -1.
        if hints.masked_attention.is_none() && probs.iter().any(|prob| *prob != -1.0) {
            let unsure =
                "it is read as a network without masks; if it was trained without annealing, say 'masked_attention': true in the hints";
            warnings.push(format!("'{MASK_PROBS}' of the delta is not -1 for every block: {unsure}"));
        }
        let masking = if hints.masked_attention == Some(true) { Masking::Own } else { Masking::Off };
        return Ok(vec![masking; num_blocks]);
    }
    if hints.masked_attention != Some(false) {
        common::warn_of_fractions(&probs, warnings);
    }
    let own = || probs.iter().map(|prob| if *prob > 0.0 { Masking::Own } else { Masking::Off }).collect();
    Ok(common::masking(hints, num_blocks, own))
}

/// The backbone with queries and heads; `scale_eps` is that of the norms of the scale blocks.
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

/// Where the positions of a table are.
pub(super) struct Place {
    pub grid: [usize; 2],
    /// How many positions before those of the grid belong to the class token and the registers: 0, 1 or 1 + R.
    pub prefix: usize,
    pub image_size: [usize; 2],
    pub resampling: Resampling,
}

/// The DINOv2 backbone as timm names it.
pub(super) fn timm(
    tensors: &mut Tensors,
    hints: &Hints,
    [hidden, depth]: [usize; 2],
    heads: usize,
    place: Place,
) -> Result<Backbone, CheckpointError> {
    let name = |part: &str| format!("{BACKBONE}{part}");
    let eps = hints.eps.unwrap_or(1e-6);
    let patch_name = name("patch_embed.proj.weight");
    let [_, _, height, width] = tensors.dims(&patch_name)?;
    let patch_size = [height, width];
    hints.agree("patch_size", hints.patch_size, patch_size, &patch_name)?;
    let registers = if tensors.has(&name("reg_token")) { tensors.dims::<3>(&name("reg_token"))?[1] } else { 0 };
    let expected = hints.registers.or(hints.preset.map(|_| 4));
    if registers == 0 && expected.is_some_and(|expected| expected > 0) {
        return Err(tensors.missing(&name("reg_token")));
    }
    hints.agree("num_register_tokens", expected, registers, &name("reg_token"))?;

    let mut cls_token = common::tokens(tensors, &name("cls_token"), 1, hidden)?.data;
    let mut register_tokens = Array { shape: vec![0, hidden], data: vec![] };
    if registers > 0 {
        register_tokens = common::tokens(tensors, &name("reg_token"), registers, hidden)?;
    }
    let Place { grid, prefix, image_size, resampling } = place;
    let mut table = common::tokens(tensors, &name("pos_embed"), prefix + grid[0] * grid[1], hidden)?;
    // Positions of the class token and of the registers are the same in every image: add them once, here.
    let rest = table.data.split_off(prefix * hidden);
    let tokens = cls_token.iter_mut().chain(&mut register_tokens.data);
    tokens.zip(&table.data).for_each(|(token, position)| *token += position);
    table = Array { shape: vec![grid[0] * grid[1], hidden], data: rest };

    // In every block or in none: one that is missing in some blocks only is an error that names it.
    let any = |tensors: &Tensors, suffix: &str| tensors.entries.keys().any(|name| name.starts_with(BACKBONE) && name.ends_with(suffix));
    let (scaled, biased) = (any(tensors, ".ls1.gamma") || any(tensors, ".ls2.gamma"), any(tensors, ".attn.qkv.bias"));
    let blocks = (0..depth).map(|index| timm_block(tensors, &name(&format!("blocks.{index}")), hidden, eps, [scaled, biased]));
    let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
    Ok(Backbone {
        patch_size,
        image_size,
        cls_token,
        register_tokens,
        patch_weight: tensors.array(&patch_name, &[hidden, 3, height, width])?,
        patch_bias: tensors.vector(&name("patch_embed.proj.bias"), hidden)?,
        position: Position::Learned { grid, table, resampling },
        blocks,
        eps,
        heads,
    })
}

/// The table of the authors' networks is that of the training grid.
fn place(tensors: &Tensors, hints: &Hints) -> Result<Place, CheckpointError> {
    let [_, _, height, width] = tensors.dims(&format!("{BACKBONE}patch_embed.proj.weight"))?;
    let registers = tensors.shape(&format!("{BACKBONE}reg_token")).map_or(0, |shape| shape.get(1).copied().unwrap_or(0));
    let (grid, prefix) = grid(tensors, hints, [height, width], registers)?;
    Ok(Place { grid, prefix, image_size: [grid[0] * height, grid[1] * width], resampling: Resampling::Antialiased })
}

/// The training grid and the positions before it.
fn grid(tensors: &Tensors, hints: &Hints, patch: [usize; 2], registers: usize) -> Result<([usize; 2], usize), CheckpointError> {
    let name = format!("{BACKBONE}pos_embed");
    let [_, positions, _] = tensors.dims(&name)?;
    let mut prefixes = [0, 1, 1 + registers].into_iter();
    let published = hints.preset.map(|preset| [preset.input, preset.input]);
    if let Some(image) = hints.image_size.or(published.filter(|_| !hints.guessed)) {
        let grid = common::check_grid(&hints.file, image, patch)?;
        let prefix = prefixes.find(|prefix| positions.checked_sub(*prefix) == Some(grid[0] * grid[1])).ok_or_else(|| {
            let found = format!("has {positions} positions, not {} x {}", grid[0], grid[1]);
            CheckpointError::contradiction(&hints.file, "image_size", format!("{image:?}"), &name, found)
        })?;
        return Ok((grid, prefix));
    }
    let square = |prefix| {
        let patches: usize = positions.checked_sub(prefix).filter(|patches| *patches > 0)?;
        let side = patches.isqrt();
        (side * side == patches).then_some(([side, side], prefix))
    };
    prefixes.find_map(square).ok_or_else(|| {
        let problem = format!("is needed in the hints: the {positions} positions of tensor '{name}' are no square");
        CheckpointError::key(&tensors.path, "image_size", problem)
    })
}

fn timm_block(tensors: &mut Tensors, prefix: &str, hidden: usize, eps: f32, [scaled, biased]: [bool; 2]) -> Result<Block, CheckpointError> {
    let name = |part: &str| format!("{prefix}.{part}");
    let norm1 = tensors.norm(&name("norm1"), hidden, eps)?;
    let [q, k, v] = common::split_rows(tensors.linear(&name("attn.qkv"), 3 * hidden, hidden, biased)?);
    let out = tensors.linear(&name("attn.proj"), hidden, hidden, true)?;
    let norm2 = tensors.norm(&name("norm2"), hidden, eps)?;
    let [rows, _] = tensors.dims(&name("mlp.fc1.weight"))?;
    let [_, inner] = tensors.dims(&name("mlp.fc2.weight"))?;
    // timm's SwiGLUPacked makes gate and value in one layer of twice the width, the gate first.
    let packed = inner.checked_mul(2) == Some(rows);
    let fc1 = tensors.linear(&name("mlp.fc1"), if packed { rows } else { inner }, hidden, true)?;
    let down: Linear = tensors.linear(&name("mlp.fc2"), hidden, inner, true)?;
    let mlp = if packed {
        let [gate, up] = common::split_rows(fc1);
        Mlp::Gated { gate, up, down, activation: Activation::Silu }
    } else {
        Mlp::Plain { up: fc1, down, activation: Activation::Gelu }
    };
    let mut scale = |part: &str| if scaled { tensors.vector(&name(part), hidden).map(Some) } else { Ok(None) };
    let (scale1, scale2) = (scale("ls1.gamma")?, scale("ls2.gamma")?);
    Ok(Block { norm1, q, k, v, out, scale1, norm2, mlp, scale2 })
}
