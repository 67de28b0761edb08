//! The ViT: DINOv2's blocks on class token, registers and patches (Dosovitskiy et al. 2021; Oquab et al. 2024), under the names of
//! transformers' EoMT.

use super::backend::{Activation, Attention, Backend, Conv, Init, Linear, Map, Norm, Tokens, Weight};
use super::{PATCH, Sizes};

/// Deviation of random weights of a ViT.
pub(super) const SMALL: Init = Init::Normal(0.02);

/// Pixels to a map at a sixteenth of the input, behind the last norm.
pub(super) fn run<B: Backend>(backend: &mut B, sizes: &Sizes, pixels: &Map<B::Value>) -> Result<Map<B::Value>, B::Error> {
    let (prefix, patches, grid) = embed(backend, sizes, pixels)?;
    let mut tokens = backend.concat(&[&prefix, &patches])?;
    for index in 0..sizes.blocks {
        tokens = block(backend, sizes, &tokens, index)?;
    }
    let tokens = backend.norm(&tokens, &Norm::new("layernorm", sizes.hidden, sizes.eps))?;
    let patches = backend.slice(&tokens, prefix.count, patches.count)?;
    backend.to_map(&patches, grid)
}

/// Class token and registers; patches with their positions; rows and columns of them.
#[expect(clippy::type_complexity, reason = "three named nouns in one line of documentation")]
pub(super) fn embed<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    pixels: &Map<B::Value>,
) -> Result<(Tokens<B::Value>, Tokens<B::Value>, [usize; 2]), B::Error> {
    let d = sizes.hidden;
    let name = "embeddings.patch_embeddings.projection";
    let conv = Conv {
        weight: Weight::new(format!("{name}.weight"), &[d, 3, PATCH, PATCH], SMALL),
        bias: Some(Weight::new(format!("{name}.bias"), &[d], Init::Constant(0.0))),
        norm: None,
        stride: PATCH,
        padding: 0,
    };
    let map = backend.conv(pixels, &conv)?;
    let patches = backend.to_tokens(&map)?;
    let positions = backend.learned(&Weight::new("embeddings.position_embeddings.weight", &[patches.count, d], SMALL))?;
    let sum = backend.add(&patches.value, &positions.value)?;
    let patches = patches.with(sum);
    let mut prefix = backend.learned(&Weight::new("embeddings.cls_token", &[1, 1, d], SMALL))?;
    if sizes.registers > 0 {
        let registers = backend.learned(&Weight::new("embeddings.register_tokens", &[1, sizes.registers, d], SMALL))?;
        prefix = backend.concat(&[&prefix, &registers])?;
    }
    Ok((prefix, patches, map.size))
}

/// One pre-norm block with LayerScale.
pub(super) fn block<B: Backend>(backend: &mut B, sizes: &Sizes, x: &Tokens<B::Value>, index: usize) -> Result<Tokens<B::Value>, B::Error> {
    let d = sizes.hidden;
    let name = |part: &str| format!("layers.{index}.{part}");
    let scale = |part: &str| Weight::new(name(&format!("{part}.lambda1")), &[d], Init::Constant(1.0));
    let layer = |part: &str, from, to| Linear::new(&name(part), from, to, SMALL);
    let normed = backend.norm(x, &Norm::new(&name("norm1"), d, sizes.eps))?;
    let layers = ["q_proj", "k_proj", "v_proj"].map(|part| layer(&format!("attention.{part}"), d, d));
    let attended = backend.attention(&Attention {
        queries: &normed,
        keys: &normed,
        values: &normed,
        layers: layers.each_ref(),
        heads: sizes.heads,
        mask: None,
    })?;
    let x = backend.residual(x, &attended, &layer("attention.out_proj", d, d), Some(&scale("layer_scale1")))?;
    let normed = backend.norm(&x, &Norm::new(&name("norm2"), d, sizes.eps))?;
    let inner = backend.linear(&normed, &layer("mlp.fc1", d, sizes.inner))?;
    let active = backend.activate(&inner.value, Activation::Gelu)?;
    backend.residual(&x, &inner.with(active), &layer("mlp.fc2", sizes.inner, d), Some(&scale("layer_scale2")))
}
