//! The weights in training: named and shaped as transformers stores them, each with its place in the depth of the network.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor, Var};
use eomt_edge_core::scenes::Rng;
use eomt_edge_tools::chain as networks;
use eomt_edge_tools::checkpoint::{Activation as Function, Array, Block, Linear, Masking, Mlp, Network, Norm, Position};

use super::initial;

/// Sizes of an EoMT, and the kind of its encoder.
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
    /// Width of the MLP, F.
    pub inner: usize,
    /// `down(act(gate x) * up x)` instead of `down(act(up x))` (SwiGLU, Shazeer 2020).
    pub gated: bool,
    /// In MLPs that are not gated, heads and ScaleBlocks; in gated MLPs of DINOv3.
    pub activation: Activation,
    /// DINOv2's positions or DINOv3's; also decides what transformers calls the weights.
    pub positions: Positions,
    /// Scale blocks, each of which doubles the grid of the masks.
    pub scale_blocks: usize,
    /// Added to the variance in the norms.
    pub eps: f32,
    /// A network with Mask2Former's decoder instead of EoMT; what is said twice is the same there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<networks::Sizes>,
}

/// How the network encodes the position of a patch.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Positions {
    /// A table that is added to the patches (DINOv2).
    Learned,
    /// Queries and keys of patches are rotated (DINOv3; Su et al. 2021).
    Rotary {
        /// Base of the frequencies.
        theta: f32,
        /// Keys have a bias, which rotates with them.
        key_bias: bool,
    },
}

/// The activation functions that have gradients here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Activation {
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// `x sigmoid(x)`
    Silu,
}

impl Activation {
    /// The name in transformers' `hidden_act`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "gelu",
            Activation::Silu => "silu",
        }
    }
}

impl Sizes {
    /// Those of a network with Mask2Former's decoder, for inputs of `chain.image` pixels. Every layer of its transformer decoder counts as a block
    /// with queries.
    pub fn of_chain(chain: networks::Sizes) -> Sizes {
        Sizes {
            hidden: chain.hidden,
            heads: chain.heads,
            blocks: chain.blocks,
            query_blocks: chain.decoder_layers,
            queries: chain.queries,
            classes: chain.classes,
            registers: chain.registers,
            patch: networks::PATCH,
            image: chain.image,
            inner: chain.inner,
            gated: false,
            activation: Activation::Gelu,
            positions: Positions::Learned,
            scale_blocks: 2, // masks at a quarter of the input
            eps: chain.eps,
            chain: Some(chain),
        }
    }

    /// With so many classes.
    pub(super) fn with_classes(&self, classes: usize) -> Sizes {
        let chain = self.chain.clone().map(|chain| networks::Sizes { classes, ..chain });
        Sizes { classes, chain, ..self.clone() }
    }

    /// Positions are rotary.
    pub(super) fn is_rotary(&self) -> bool {
        matches!(self.positions, Positions::Rotary { .. })
    }

    /// transformers' name of the patch embedding.
    pub(super) fn patch_embedding(&self) -> &'static str {
        if self.is_rotary() { "embeddings.patch_embeddings" } else { "embeddings.patch_embeddings.projection" }
    }

    /// transformers' name of attention's output layer.
    pub(super) fn attention_out(&self) -> &'static str {
        if self.is_rotary() { "o_proj" } else { "out_proj" }
    }

    /// transformers' names of the MLP's layers: into it, and out of it; a gate's is `gate_proj`.
    pub(super) fn mlp(&self) -> [&'static str; 2] {
        if self.is_rotary() || self.gated { ["up_proj", "down_proj"] } else { ["fc1", "fc2"] }
    }

    /// Of a gate: DINOv2's is always SiLU.
    pub(super) fn gate_activation(&self) -> Activation {
        if self.is_rotary() { self.activation } else { Activation::Silu }
    }

    /// Whether keys have a bias.
    pub(super) fn key_bias(&self) -> bool {
        match self.positions {
            Positions::Learned => true,
            Positions::Rotary { key_bias, .. } => key_bias,
        }
    }

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
        if let Some(chain) = &self.chain {
            if self.patch != networks::PATCH {
                bail!("patches of {} pixels: a network with Mask2Former's decoder takes {}", self.patch, networks::PATCH);
            }
            return chain.check().map_err(anyhow::Error::msg);
        }
        let counts = [self.hidden, self.heads, self.blocks, self.query_blocks, self.queries, self.classes, self.patch, self.image];
        if counts.contains(&0) || self.inner == 0 {
            bail!("a network needs a width, heads, blocks, queries, classes, a patch size and an input size above 0");
        }
        if !self.hidden.is_multiple_of(self.heads) {
            bail!("a width of {} cannot be shared by {} heads", self.hidden, self.heads);
        }
        if self.is_rotary() && !(self.hidden / self.heads).is_multiple_of(4) {
            bail!("rotary positions take heads whose width is a multiple of 4, not {}", self.hidden / self.heads);
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
    if let Some(chain) = &sizes.chain {
        return initial::shapes(chain);
    }
    let (d, inner) = (sizes.hidden, sizes.inner);
    let mut shapes: Vec<(String, Vec<usize>)> = vec![];
    let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
    add("embeddings.cls_token".into(), &[1, 1, d]);
    add("embeddings.register_tokens".into(), &[1, sizes.registers, d]);
    add(format!("{}.weight", sizes.patch_embedding()), &[d, 3, sizes.patch, sizes.patch]);
    add(format!("{}.bias", sizes.patch_embedding()), &[d]);
    if !sizes.is_rotary() {
        add("embeddings.position_embeddings.weight".into(), &[sizes.grid().pow(2), d]);
    }
    for block in 0..sizes.blocks {
        let mut add = |name: &str, shape: &[usize]| add(format!("layers.{block}.{name}"), shape);
        for norm in ["norm1", "norm2"] {
            add(&format!("{norm}.weight"), &[d]);
            add(&format!("{norm}.bias"), &[d]);
        }
        for name in ["q_proj", "k_proj", "v_proj", sizes.attention_out()] {
            add(&format!("attention.{name}.weight"), &[d, d]);
            if name != "k_proj" || sizes.key_bias() {
                add(&format!("attention.{name}.bias"), &[d]);
            }
        }
        let [into, out] = sizes.mlp();
        let gate = sizes.gated.then_some(("gate_proj", inner, d));
        for (name, out, from) in gate.into_iter().chain([(into, inner, d), (out, d, inner)]) {
            add(&format!("mlp.{name}.weight"), &[out, from]);
            add(&format!("mlp.{name}.bias"), &[out]);
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
    if let Some(chain) = &sizes.chain {
        return initial::random(chain, seed);
    }
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
/// When the network is of a kind that cannot be trained here: for video, other activations than GELU and SiLU, inputs or patches that are not
/// square.
pub(super) fn of_network(network: &Network) -> Result<(Sizes, Vec<(String, Array)>)> {
    let sizes = sizes_of(network)?;
    let d = sizes.hidden;
    let vector = |data: &[f32]| Array { shape: vec![data.len()], data: data.to_vec() };
    let mut arrays: Vec<(String, Array)> = vec![];
    arrays.push(("embeddings.cls_token".into(), Array { shape: vec![1, 1, d], data: network.cls_token.clone() }));
    let registers = Array { shape: vec![1, sizes.registers, d], data: network.register_tokens.data.clone() };
    arrays.push(("embeddings.register_tokens".into(), registers));
    arrays.push((format!("{}.weight", sizes.patch_embedding()), network.patch_weight.clone()));
    arrays.push((format!("{}.bias", sizes.patch_embedding()), vector(&network.patch_bias)));
    if let Position::Learned { table, .. } = &network.position {
        arrays.push(("embeddings.position_embeddings.weight".into(), table.clone()));
    }
    for (index, block) in network.blocks.iter().enumerate() {
        push_block(&mut arrays, &format!("layers.{index}"), block, &sizes);
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
    let positions = match network.position {
        Position::Learned { grid, .. } => {
            check_table(network, grid)?;
            Positions::Learned
        }
        Position::Rotary { theta } => Positions::Rotary { theta, key_bias: network.blocks.iter().any(|block| block.k.bias.is_some()) },
    };
    let [[height, width], [tall, wide]] = [network.image_size, network.patch_size];
    if height != width || tall != wide || !height.is_multiple_of(tall) {
        bail!("its input of {height}x{width} pixels with patches of {tall}x{wide} is not square, or no multiple of the patch");
    }
    let (inner, gated) = mlp_of(network, positions)?;
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
        inner,
        gated,
        activation: trained(network.head_activation)?,
        positions,
        scale_blocks: network.scale_blocks.len(),
        eps: network.norm.eps,
        chain: None,
    })
}

fn check_table(network: &Network, grid: [usize; 2]) -> Result<()> {
    let [[height, width], [tall, wide]] = [network.image_size, network.patch_size];
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
fn mlp_of(network: &Network, positions: Positions) -> Result<(usize, bool)> {
    let kind = |block: &Block| match &block.mlp {
        Mlp::Plain { up, activation, .. } => (up.weight.shape[0], false, *activation),
        Mlp::Gated { up, activation, .. } => (up.weight.shape[0], true, *activation),
    };
    let Some((inner, gated, activation)) = network.blocks.first().map(kind) else { bail!("it has no blocks") };
    if network.blocks.iter().any(|block| kind(block) != (inner, gated, activation)) {
        bail!("its MLPs are not all of one width and one kind");
    }
    let learned = positions == Positions::Learned;
    let expected = if gated && learned { Function::Silu } else { network.head_activation };
    if activation != expected {
        bail!("its MLPs have the activation {activation:?} where one of its kind has {expected:?}");
    }
    let said = !learned || if gated { inner.is_multiple_of(8) } else { inner.is_multiple_of(network.hidden) };
    if !said {
        bail!("its MLPs have a width of {inner}, which the configuration of a checkpoint cannot say for a width of {}", network.hidden);
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
