//! Checkpoints of the EoMT authors' training code: names under `network.`, the backbone as timm (DINOv2) or transformers
//! (DINOv3, see [`super::dinov3`]) calls it, and no configuration.
//!
//! The authors' VidEoMT has the same names under `backbone.` and two differences: `query_updater` carries the queries to the next frame, and
//! mean and standard deviation are detectron2's business, so the file does not have them. It never masks.
//!
//! Shapes tell almost everything; hints and the name of a published model tell the rest. Masks follow the authors' inference: a block of
//! probability 0 removes the mask of the block before.

use std::path::Path;

use super::backbone::{self, BACKBONE, CLASS_HEAD, PIXEL_STD, QUERY, heads};
use super::common::{self, Contents, Facts};
use super::dinov3;
use super::error::CheckpointError;
use super::hints::Hints;
use super::labels;
use super::lightning;
use super::network::{Masking, Resampling};
use super::tensors::Tensors;
use super::timm::{self, Place};

const MASK_PROBS: &str = "network.attn_mask_probs";

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
    let video = backbone::is_video(&tensors);
    let base = match (video, base) {
        (false, base) => dinov3::attach_base(&mut tensors, &hints, base, facts.dinov3)?,
        (true, None) => {
            hints.agree("delta", hints.delta, false, "VidEoMT, whose weights are whole,")?;
            None
        }
        (true, Some(base)) => return Err(CheckpointError::layout(&tensors.path, dinov3::whole_with_base(base))),
    };
    let classes = common::classes(&hints, None, classes, CLASS_HEAD)?;
    if labels::are_unnamed(&classes.labels) && hints.labels.is_none() {
        warnings.push("the checkpoint does not name its classes; give them as 'labels' in the hints".to_string());
    }
    let is_delta = base.is_some();
    let (image_mean, image_std) =
        if video { (common::IMAGENET_MEAN, common::IMAGENET_STD) } else { normalization(&mut tensors, is_delta)? };
    let masking = match video {
        true => never_masking(&mut tensors, &hints, num_blocks)?,
        false => masking(&mut tensors, &hints, num_blocks, is_delta, &mut warnings)?,
    };
    let size = [hidden, depth];
    let backbone = if facts.dinov3 {
        dinov3::backbone(&mut tensors, &hints, size, base)?
    } else {
        let heads = heads(&tensors, &hints, hidden, false)?;
        let place = place(&tensors, &hints)?;
        timm::backbone(&mut tensors, &hints, size, heads, place)?
    };
    let network = backbone::network(&mut tensors, backbone, masking, [queries, hidden, rows], common::SCALE_BLOCK_EPS)?;
    tensors.finish()?;
    Ok(Contents { network, classes, image_mean, image_std, warnings })
}

/// Mean and standard deviation of the network's input. A delta holds differences to ImageNet's, which are 0.
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

/// Masked attention of each block. The probabilities in a delta are a difference too, to unknown ones, so only the hint counts there.
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

/// A VidEoMT has probabilities too, which nothing reads.
fn never_masking(tensors: &mut Tensors, hints: &Hints, num_blocks: usize) -> Result<Vec<Masking>, CheckpointError> {
    tensors.vector(MASK_PROBS, num_blocks)?;
    hints.agree("masked_attention", hints.masked_attention, false, "VidEoMT, which never masks,")?;
    Ok(vec![Masking::Off; num_blocks])
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
