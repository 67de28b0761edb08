//! The weights in training: named and shaped as transformers stores them, each with its place in the depth of the network.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor, Var};
use eomt_edge_core::scenes::Rng;
use eomt_edge_tools::checkpoint::{Activation, Array, Block, Linear, Masking, Mlp, Network, Norm, Position};

/// Sizes of an EoMT with learned positions.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Width of a token, D.
    pub hidden: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Transformer blocks.
    pub blocks: usize,
    /// Blocks at the end that also process the queries, L2.
    pub query_blocks: usize,
    /// Queries, Q.
    pub queries: usize,
    /// Classes, C.
    pub classes: usize,
    /// Register tokens (Darcet et al. 2024).
    pub registers: usize,
    /// Side of a square patch, pixels.
    pub patch: usize,
    /// Side of the square input, pixels; a multiple of `patch`.
    pub image: usize,
    /// Width of the MLP divided by D.
    pub mlp_ratio: usize,
    /// Scale blocks, each of which doubles the grid of the masks.
    pub scale_blocks: usize,
    /// Added to the variance in the norms.
    pub eps: f32,
}

impl Sizes {
    /// Patches along a side.
    pub(super) fn grid(&self) -> usize {
        self.image / self.patch
    }

    /// Pixels along a side of the mask logits.
    pub(super) fn mask_side(&self) -> usize {
        self.grid() << self.scale_blocks
    }

    /// # Errors
    /// A sentence when no network has these sizes.
    pub(super) fn check(&self) -> Result<()> {
        let counts = [self.hidden, self.heads, self.blocks, self.query_blocks, self.queries, self.classes, self.patch, self.image];
        if counts.contains(&0) || self.mlp_ratio == 0 {
            bail!("a network needs a width, heads, blocks, queries, classes, a patch size and an input size above 0");
        }
        if !self.hidden.is_multiple_of(self.heads) {
            bail!("a width of {} cannot be shared by {} heads", self.hidden, self.heads);
        }
        if self.query_blocks > self.blocks {
            bail!("queries cannot join for the last {} of {} blocks", self.query_blocks, self.blocks);
        }
        if !self.image.is_multiple_of(self.patch) {
            bail!("an input of {} pixels is no multiple of the patch of {}", self.image, self.patch);
        }
        Ok(())
    }
}

/// The place of a weight in the depth of the network, which decides its learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Patch embedding, positions, class and register tokens.
    Embedding,
    Block(usize),
    /// Final norm of the encoder, part of the pre-trained backbone.
    Norm,
    /// Queries, heads and scale blocks: they start at random.
    Head,
}

impl Depth {
    pub(super) fn of(name: &str) -> Depth {
        match name.split('.').collect::<Vec<_>>()[..] {
            ["embeddings", ..] => Depth::Embedding,
            ["layers", index, ..] => Depth::Block(index.parse().expect("our own name")),
            ["layernorm", ..] => Depth::Norm,
            _ => Depth::Head,
        }
    }

    /// Whether it came with the encoder.
    pub(super) fn is_backbone(self) -> bool {
        self != Depth::Head
    }
}

/// The weights by name, in the order of names.
#[derive(Debug, Clone)]
pub(super) struct Parameters(BTreeMap<String, Var>);

impl Parameters {
    pub(super) fn new(arrays: impl IntoIterator<Item = (String, Array)>) -> candle_core::Result<Parameters> {
        let var = |(name, array): (String, Array)| Ok((name, Var::from_vec(array.data, array.shape, &Device::Cpu)?));
        Ok(Parameters(arrays.into_iter().map(var).collect::<candle_core::Result<_>>()?))
    }

    pub(super) fn get(&self, name: &str) -> candle_core::Result<&Tensor> {
        self.0.get(name).map(Var::as_tensor).ok_or_else(|| candle_core::Error::Msg(format!("there is no weight '{name}'")))
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Var)> {
        self.0.iter().map(|(name, var)| (name.as_str(), var))
    }

    pub(super) fn arrays(&self) -> candle_core::Result<Vec<(String, Array)>> {
        let array =
            |(name, var): (&String, &Var)| Ok((name.clone(), Array { shape: var.dims().to_vec(), data: var.flatten_all()?.to_vec1()? }));
        self.0.iter().map(array).collect()
    }
}

/// Shapes of all weights, by their names in transformers' layout.
pub(super) fn shapes(sizes: &Sizes) -> Vec<(String, Vec<usize>)> {
    let (d, inner) = (sizes.hidden, sizes.hidden * sizes.mlp_ratio);
    let mut shapes: Vec<(String, Vec<usize>)> = vec![];
    let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
    add("embeddings.cls_token".into(), &[1, 1, d]);
    add("embeddings.register_tokens".into(), &[1, sizes.registers, d]);
    add("embeddings.patch_embeddings.projection.weight".into(), &[d, 3, sizes.patch, sizes.patch]);
    add("embeddings.patch_embeddings.projection.bias".into(), &[d]);
    add("embeddings.position_embeddings.weight".into(), &[sizes.grid().pow(2), d]);
    for block in 0..sizes.blocks {
        let mut add = |name: &str, shape: &[usize]| add(format!("layers.{block}.{name}"), shape);
        for norm in ["norm1", "norm2"] {
            add(&format!("{norm}.weight"), &[d]);
            add(&format!("{norm}.bias"), &[d]);
        }
        for (name, out, from) in [
            ("attention.q_proj", d, d),
            ("attention.k_proj", d, d),
            ("attention.v_proj", d, d),
            ("attention.out_proj", d, d),
            ("mlp.fc1", inner, d),
            ("mlp.fc2", d, inner),
        ] {
            add(&format!("{name}.weight"), &[out, from]);
            add(&format!("{name}.bias"), &[out]);
        }
        add("layer_scale1.lambda1", &[d]);
        add("layer_scale2.lambda1", &[d]);
    }
    add("layernorm.weight".into(), &[d]);
    add("layernorm.bias".into(), &[d]);
    add("query.weight".into(), &[sizes.queries, d]);
    add("class_predictor.weight".into(), &[sizes.classes + 1, d]);
    add("class_predictor.bias".into(), &[sizes.classes + 1]);
    for layer in ["fc1", "fc2", "fc3"] {
        add(format!("mask_head.{layer}.weight"), &[d, d]);
        add(format!("mask_head.{layer}.bias"), &[d]);
    }
    for block in 0..sizes.scale_blocks {
        let mut add = |name: &str, shape: &[usize]| add(format!("upscale_block.block.{block}.{name}"), shape);
        add("conv1.weight", &[d, d, 2, 2]);
        add("conv1.bias", &[d]);
        add("conv2.weight", &[d, 1, 3, 3]);
        add("layernorm2d.weight", &[d]);
        add("layernorm2d.bias", &[d]);
    }
    shapes
}

/// Weights to start from scratch: normal with deviation 0.02 cut at two deviations, biases 0, norms and LayerScale 1; convolutions
/// uniform as PyTorch starts them. The same seed gives the same weights.
pub(super) fn random(sizes: &Sizes, seed: u64) -> Vec<(String, Array)> {
    let mut rng = Rng::new(seed, 3);
    let mut one = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let is = |end: &str| name.ends_with(end);
        let data: Vec<f32> = if is("conv1.weight") || is("conv2.weight") {
            let fan_in = if is("conv1.weight") { 4 * shape[1] } else { 9 };
            let bound = 1.0 / (fan_in as f64).sqrt();
            (0..count).map(|_| rng.uniform(-bound, bound) as f32).collect()
        } else if name.contains("norm") && is("weight") || is("lambda1") {
            vec![1.0; count]
        } else if is("bias") {
            vec![0.0; count]
        } else {
            (0..count).map(|_| small(&mut rng)).collect()
        };
        (name, Array { shape, data })
    };
    shapes(sizes).into_iter().map(&mut one).collect()
}

fn small(rng: &mut Rng) -> f32 {
    loop {
        let draw = rng.normal();
        if draw.abs() <= 2.0 {
            return (0.02 * draw) as f32;
        }
    }
}

/// What a checkpoint holds, in names and sizes of training.
///
/// # Errors
/// When the network is of a kind that cannot be trained here: rotary positions, gated MLPs, other activations than GELU, inputs or
/// patches that are not square.
pub(super) fn of_network(network: &Network) -> Result<(Sizes, Vec<(String, Array)>)> {
    let sizes = sizes_of(network)?;
    let d = sizes.hidden;
    let vector = |data: &[f32]| Array { shape: vec![data.len()], data: data.to_vec() };
    let mut arrays: Vec<(String, Array)> = vec![];
    arrays.push(("embeddings.cls_token".into(), Array { shape: vec![1, 1, d], data: network.cls_token.clone() }));
    let registers = Array { shape: vec![1, sizes.registers, d], data: network.register_tokens.data.clone() };
    arrays.push(("embeddings.register_tokens".into(), registers));
    arrays.push(("embeddings.patch_embeddings.projection.weight".into(), network.patch_weight.clone()));
    arrays.push(("embeddings.patch_embeddings.projection.bias".into(), vector(&network.patch_bias)));
    let Position::Learned { table, .. } = &network.position else { unreachable!("sizes_of refuses others") };
    arrays.push(("embeddings.position_embeddings.weight".into(), table.clone()));
    for (index, block) in network.blocks.iter().enumerate() {
        push_block(&mut arrays, &format!("layers.{index}"), block);
    }
    push_norm(&mut arrays, "layernorm", &network.norm);
    arrays.push(("query.weight".into(), network.queries.clone()));
    push_linear(&mut arrays, "class_predictor", &network.class_head);
    for (layer, linear) in ["fc1", "fc2", "fc3"].into_iter().zip(&network.mask_head) {
        push_linear(&mut arrays, &format!("mask_head.{layer}"), linear);
    }
    for (index, block) in network.scale_blocks.iter().enumerate() {
        let prefix = format!("upscale_block.block.{index}");
        arrays.push((format!("{prefix}.conv1.weight"), block.up_weight.clone()));
        arrays.push((format!("{prefix}.conv1.bias"), vector(&block.up_bias)));
        arrays.push((format!("{prefix}.conv2.weight"), block.depthwise.clone()));
        push_norm(&mut arrays, &format!("{prefix}.layernorm2d"), &block.norm);
    }
    Ok((sizes, arrays))
}

fn sizes_of(network: &Network) -> Result<Sizes> {
    if network.query_updater.is_some() {
        bail!("it is a network for video (VidEoMT), whose queries go on from frame to frame, and `train` knows single pictures only");
    }
    let Position::Learned { grid, .. } = network.position else {
        bail!("its positions are rotary (DINOv3), and `train` knows learned positions (DINOv2) only");
    };
    let gelu = |block: &Block| matches!(&block.mlp, Mlp::Plain { activation: Activation::Gelu, .. });
    if !network.blocks.iter().all(gelu) || network.head_activation != Activation::Gelu {
        bail!("its MLPs are gated or have another activation than GELU, and `train` knows plain MLPs with GELU only");
    }
    let [[height, width], [tall, wide]] = [network.image_size, network.patch_size];
    if [height / tall, width / wide] != grid {
        bail!(
            "its table of positions is of {}x{} patches, and `train` knows tables of the input's own grid only, {}x{}",
            grid[0],
            grid[1],
            height / tall,
            width / wide
        );
    }
    if height != width || tall != wide || grid[0] * tall != height {
        bail!("its input of {height}x{width} pixels with patches of {tall}x{wide} is not square, or no multiple of the patch");
    }
    let mut inner = network.blocks.iter().map(|block| match &block.mlp {
        Mlp::Plain { up, .. } => up.weight.shape[0],
        Mlp::Gated { .. } => 0,
    });
    let first = inner.next().unwrap_or(0);
    if inner.any(|inner| inner != first) || !first.is_multiple_of(network.hidden) {
        bail!("its MLPs are not all of one width that is a multiple of {}", network.hidden);
    }
    Ok(Sizes {
        hidden: network.hidden,
        heads: network.heads,
        blocks: network.blocks.len(),
        query_blocks: network.num_blocks,
        queries: network.queries.shape[0],
        classes: network.class_head.weight.shape[0] - 1,
        registers: network.register_tokens.shape[0],
        patch: tall,
        image: height,
        mlp_ratio: first / network.hidden,
        scale_blocks: network.scale_blocks.len(),
        eps: network.norm.eps,
    })
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

fn push_block(arrays: &mut Vec<(String, Array)>, prefix: &str, block: &Block) {
    push_norm(arrays, &format!("{prefix}.norm1"), &block.norm1);
    push_norm(arrays, &format!("{prefix}.norm2"), &block.norm2);
    for (name, linear) in [("q_proj", &block.q), ("k_proj", &block.k), ("v_proj", &block.v), ("out_proj", &block.out)] {
        push_linear(arrays, &format!("{prefix}.attention.{name}"), linear);
    }
    let Mlp::Plain { up, down, .. } = &block.mlp else { unreachable!("sizes_of refuses others") };
    push_linear(arrays, &format!("{prefix}.mlp.fc1"), up);
    push_linear(arrays, &format!("{prefix}.mlp.fc2"), down);
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
