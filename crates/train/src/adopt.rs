//! What a checkpoint or a backbone holds, in names and sizes of training.
//!
//! A checkpoint brings everything; a backbone ([`Headless`]) its encoder only, and [`heads`] draws the rest. Refuses: what the configuration of
//! a checkpoint could not say afterwards.

#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Result, bail};
use eomt_edge_core::scenes::Rng;
use eomt_edge_tools::checkpoint::{
    self, Activation as Function, Array, Block, Checkpoint, CheckpointError, Headless, Linear, Masking, Mlp, Network, Norm, Position,
};

use super::parameters::{Activation, Depth, Positions, Sizes, shapes};

/// What `--from` names.
pub(super) enum Source {
    /// A network with its heads.
    Whole(Box<Checkpoint>),
    /// An encoder alone.
    Backbone(Box<Headless>),
}

impl Source {
    /// Reads a checkpoint, or a backbone without heads.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn read(path: &Path) -> Result<Source, CheckpointError> {
        match checkpoint::read_headless(path)? {
            Some(headless) => Ok(Source::Backbone(Box::new(headless))),
            None => Ok(Source::Whole(Box::new(checkpoint::read(path, &checkpoint::Options::default())?))),
        }
    }

    /// The class names; a backbone has none.
    pub fn labels(&self) -> Option<&[String]> {
        match self {
            Source::Whole(checkpoint) => Some(&checkpoint.labels),
            Source::Backbone(_) => None,
        }
    }
}

/// The encoder of either.
struct Encoder<'a> {
    heads: usize,
    patch_size: [usize; 2],
    image_size: [usize; 2],
    cls_token: &'a [f32],
    register_tokens: &'a Array,
    patch_weight: &'a Array,
    patch_bias: &'a [f32],
    position: &'a Position,
    blocks: &'a [Block],
    norm: &'a Norm,
    /// Of the heads, too.
    activation: Function,
}

/// What a checkpoint holds, in names and sizes of training.
///
/// # Errors
/// When the network is of a kind that cannot be trained here: other activations than GELU and SiLU, inputs or patches that are not square.
pub(super) fn of_network(network: &Network) -> Result<(Sizes, Vec<(String, Array)>)> {
    let (encoder, mut arrays) = encoder(&Encoder {
        heads: network.heads,
        patch_size: network.patch_size,
        image_size: network.image_size,
        cls_token: &network.cls_token,
        register_tokens: &network.register_tokens,
        patch_weight: &network.patch_weight,
        patch_bias: &network.patch_bias,
        position: &network.position,
        blocks: &network.blocks,
        norm: &network.norm,
        activation: network.head_activation,
    })?;
    let sizes = Sizes {
        query_blocks: network.num_blocks,
        queries: network.queries.shape[0],
        classes: network.class_head.weight.shape[0] - 1,
        scale_blocks: network.scale_blocks.len(),
        video: network.query_updater.is_some(),
        ..encoder
    };
    if let Some(updater) = &network.query_updater {
        push_linear(&mut arrays, "query_updater", updater);
    }
    arrays.push(("query.weight".into(), network.queries.clone()));
    push_linear(&mut arrays, "class_predictor", &network.class_head);
    for (layer, linear) in ["fc1", "fc2", "fc3"].into_iter().zip(&network.mask_head) {
        push_linear(&mut arrays, &format!("mask_head.{layer}"), linear);
    }
    for (index, block) in network.scale_blocks.iter().enumerate() {
        let prefix = format!("upscale_block.block.{index}");
        arrays.push((format!("{prefix}.conv1.weight"), block.up_weight.clone()));
        arrays.push((format!("{prefix}.conv1.bias"), Array { shape: vec![block.up_bias.len()], data: block.up_bias.clone() }));
        arrays.push((format!("{prefix}.conv2.weight"), block.depthwise.clone()));
        push_norm(&mut arrays, &format!("{prefix}.layernorm2d"), &block.norm);
    }
    Ok((sizes, arrays))
}

/// A backbone without heads: its weights, and sizes that have no queries, classes and ScaleBlocks yet.
///
/// # Errors
/// As [`of_network`].
pub(super) fn of_backbone(headless: &Headless) -> Result<(Sizes, Vec<(String, Array)>)> {
    let backbone = &headless.backbone;
    encoder(&Encoder {
        heads: backbone.heads,
        patch_size: backbone.patch_size,
        image_size: backbone.image_size,
        cls_token: &backbone.cls_token,
        register_tokens: &backbone.register_tokens,
        patch_weight: &backbone.patch_weight,
        patch_bias: &backbone.patch_bias,
        position: &backbone.position,
        blocks: &backbone.blocks,
        norm: &headless.norm,
        activation: headless.activation,
    })
}

/// Queries, heads and ScaleBlocks for a pre-trained encoder, as the paper's code and transformers start them: queries normal, layers and convolutions
/// uniform within `1 / sqrt(fan in)`, their biases too, norms 1 and 0. The same seed gives the same weights.
pub(super) fn heads(sizes: &Sizes, seed: u64) -> Vec<(String, Array)> {
    let mut rng = Rng::new(seed, 5);
    let d = sizes.hidden;
    let mut one = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let fan_in = match name.rsplit('.').nth(1) {
            Some("conv1") => 4 * d,
            Some("conv2") => 9,
            _ => d,
        };
        let bound = 1.0 / (fan_in as f64).sqrt();
        let data = match name.as_str() {
            "query.weight" => (0..count).map(|_| rng.normal() as f32).collect(),
            name if name.contains("layernorm2d") => vec![if name.ends_with("weight") { 1.0 } else { 0.0 }; count],
            _ => (0..count).map(|_| rng.uniform(-bound, bound) as f32).collect(),
        };
        (name, Array { shape, data })
    };
    shapes(sizes).into_iter().filter(|(name, _)| Depth::of(name) == Depth::Head).map(&mut one).collect()
}

/// Sizes and weights of the encoder alone.
fn encoder(encoder: &Encoder) -> Result<(Sizes, Vec<(String, Array)>)> {
    let sizes = sizes_of(encoder)?;
    let d = sizes.hidden;
    let vector = |data: &[f32]| Array { shape: vec![data.len()], data: data.to_vec() };
    let mut arrays: Vec<(String, Array)> = vec![];
    arrays.push(("embeddings.cls_token".into(), Array { shape: vec![1, 1, d], data: encoder.cls_token.to_vec() }));
    let registers = Array { shape: vec![1, sizes.registers, d], data: encoder.register_tokens.data.clone() };
    arrays.push(("embeddings.register_tokens".into(), registers));
    arrays.push((format!("{}.weight", sizes.patch_embedding()), encoder.patch_weight.clone()));
    arrays.push((format!("{}.bias", sizes.patch_embedding()), vector(encoder.patch_bias)));
    if let Position::Learned { table, .. } = encoder.position {
        arrays.push(("embeddings.position_embeddings.weight".into(), table.clone()));
    }
    for (index, block) in encoder.blocks.iter().enumerate() {
        push_block(&mut arrays, &format!("layers.{index}"), block, &sizes);
    }
    push_norm(&mut arrays, "layernorm", encoder.norm);
    Ok((sizes, arrays))
}

fn sizes_of(encoder: &Encoder) -> Result<Sizes> {
    let positions = match *encoder.position {
        Position::Learned { grid, .. } => {
            check_table(encoder, grid)?;
            Positions::Learned
        }
        Position::Rotary { theta } => Positions::Rotary { theta, key_bias: encoder.blocks.iter().any(|block| block.k.bias.is_some()) },
    };
    let [[height, width], [tall, wide]] = [encoder.image_size, encoder.patch_size];
    if height != width || tall != wide || !height.is_multiple_of(tall) {
        bail!("its input of {height}x{width} pixels with patches of {tall}x{wide} is not square, or no multiple of the patch");
    }
    let (inner, gated) = mlp_of(encoder, positions)?;
    Ok(Sizes {
        hidden: encoder.cls_token.len(),
        heads: encoder.heads,
        blocks: encoder.blocks.len(),
        query_blocks: 0,
        queries: 0,
        classes: 0,
        registers: encoder.register_tokens.shape[0],
        patch: tall,
        image: height,
        inner,
        gated,
        activation: trained(encoder.activation)?,
        positions,
        scale_blocks: 0,
        eps: encoder.norm.eps,
        video: false,
        chain: None,
    })
}

fn check_table(encoder: &Encoder, grid: [usize; 2]) -> Result<()> {
    let [[height, width], [tall, wide]] = [encoder.image_size, encoder.patch_size];
    let own = [height / tall, width / wide];
    if own != grid {
        let [[rows, columns], [own_rows, own_columns]] = [grid, own];
        bail!(
            "its table of positions is of {rows}x{columns} patches, and `train` knows tables of the input's own grid only, {own_rows}x{own_columns}"
        );
    }
    Ok(())
}

fn trained(activation: Function) -> Result<Activation> {
    match activation {
        Function::Gelu => Ok(Activation::Gelu),
        Function::Silu => Ok(Activation::Silu),
        Function::GeluTanh | Function::Relu | Function::QuickGelu => {
            bail!("its activation is {activation:?}, and `train` knows GELU (with the error function) and SiLU only")
        }
    }
}

/// Width of the MLPs, and whether they are gated: all alike, and as transformers' configuration can say it.
fn mlp_of(encoder: &Encoder, positions: Positions) -> Result<(usize, bool)> {
    let kind = |block: &Block| match &block.mlp {
        Mlp::Plain { up, activation, .. } => (up.weight.shape[0], false, *activation),
        Mlp::Gated { up, activation, .. } => (up.weight.shape[0], true, *activation),
    };
    let Some((inner, gated, activation)) = encoder.blocks.first().map(kind) else { bail!("it has no blocks") };
    if encoder.blocks.iter().any(|block| kind(block) != (inner, gated, activation)) {
        bail!("its MLPs are not all of one width and one kind");
    }
    let learned = positions == Positions::Learned;
    let expected = if gated && learned { Function::Silu } else { encoder.activation };
    if activation != expected {
        bail!("its MLPs have the activation {activation:?} where one of its kind has {expected:?}");
    }
    let said = !learned || if gated { inner.is_multiple_of(8) } else { inner.is_multiple_of(encoder.cls_token.len()) };
    if !said {
        bail!(
            "its MLPs have a width of {inner}, which the configuration of a checkpoint cannot say for a width of {}",
            encoder.cls_token.len()
        );
    }
    trained(activation)?;
    Ok((inner, gated))
}

fn push_norm(arrays: &mut Vec<(String, Array)>, prefix: &str, norm: &Norm) {
    for (end, data) in [("weight", &norm.scale), ("bias", &norm.shift)] {
        arrays.push((format!("{prefix}.{end}"), Array { shape: vec![data.len()], data: data.clone() }));
    }
}

/// A layer without bias starts with one of zeros, as transformers' layout has it.
fn push_linear(arrays: &mut Vec<(String, Array)>, prefix: &str, linear: &Linear) {
    let rows = linear.weight.shape[0];
    let bias = linear.bias.clone().unwrap_or_else(|| vec![0.0; rows]);
    arrays.push((format!("{prefix}.weight"), linear.weight.clone()));
    arrays.push((format!("{prefix}.bias"), Array { shape: vec![rows], data: bias }));
}

fn push_block(arrays: &mut Vec<(String, Array)>, prefix: &str, block: &Block, sizes: &Sizes) {
    push_norm(arrays, &format!("{prefix}.norm1"), &block.norm1);
    push_norm(arrays, &format!("{prefix}.norm2"), &block.norm2);
    for (name, linear) in [("q_proj", &block.q), ("v_proj", &block.v), (sizes.attention_out(), &block.out)] {
        push_linear(arrays, &format!("{prefix}.attention.{name}"), linear);
    }
    if sizes.key_bias() {
        push_linear(arrays, &format!("{prefix}.attention.k_proj"), &block.k);
    } else {
        arrays.push((format!("{prefix}.attention.k_proj.weight"), block.k.weight.clone()));
    }
    let [into, out] = sizes.mlp();
    let (gate, up, down) = match &block.mlp {
        Mlp::Plain { up, down, .. } => (None, up, down),
        Mlp::Gated { gate, up, down, .. } => (Some(("gate_proj", gate)), up, down),
    };
    for (name, linear) in gate.into_iter().chain([(into, up), (out, down)]) {
        push_linear(arrays, &format!("{prefix}.mlp.{name}"), linear);
    }
    let width = block.norm1.scale.len();
    for (name, scale) in [("layer_scale1", &block.scale1), ("layer_scale2", &block.scale2)] {
        let data = scale.clone().unwrap_or_else(|| vec![1.0; width]);
        arrays.push((format!("{prefix}.{name}.lambda1"), Array { shape: vec![width], data }));
    }
}

/// The probability that each of the query blocks masks, as a checkpoint says it.
pub(super) fn mask_probabilities(network: &Network) -> Vec<f32> {
    network.masking.iter().map(|masking| if *masking == Masking::Off { 0.0 } else { 1.0 }).collect()
}
