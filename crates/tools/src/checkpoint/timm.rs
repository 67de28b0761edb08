//! The DINOv2 backbone under the names of timm's `VisionTransformer`, as the authors' networks and LightlyTrain's store it.

use super::backbone::{BACKBONE, Backbone};
use super::common;
use super::error::CheckpointError;
use super::hints::Hints;
use super::network::{Activation, Array, Block, Linear, Mlp, Position, Resampling};
use super::tensors::Tensors;

/// The layout of a table of positions.
pub(super) struct Place {
    pub grid: [usize; 2],
    /// Positions before those of the grid, of the class token and the registers: 0, 1 or 1 + R.
    pub prefix: usize,
    pub image_size: [usize; 2],
    pub resampling: Resampling,
}

/// Reads a DINOv2 backbone.
pub(super) fn backbone(
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
    let blocks = (0..depth).map(|index| block(tensors, &name(&format!("blocks.{index}")), hidden, eps, [scaled, biased]));
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

fn block(tensors: &mut Tensors, prefix: &str, hidden: usize, eps: f32, [scaled, biased]: [bool; 2]) -> Result<Block, CheckpointError> {
    let name = |part: &str| format!("{prefix}.{part}");
    let norm1 = tensors.norm(&name("norm1"), hidden, eps)?;
    let [q, k, v] = common::split_rows(tensors.linear(&name("attn.qkv"), 3 * hidden, hidden, biased)?);
    let out = tensors.linear(&name("attn.proj"), hidden, hidden, true)?;
    let norm2 = tensors.norm(&name("norm2"), hidden, eps)?;
    let [rows, _] = tensors.dims(&name("mlp.fc1.weight"))?;
    let [_, inner] = tensors.dims(&name("mlp.fc2.weight"))?;
    // timm's SwiGLUPacked computes gate and value in one layer of twice the width, the gate first.
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
