//! The weights in training: named and shaped as transformers stores them, each with its place in the depth of the network.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor, Var};
use eomt_edge_core::scenes::Rng;
use eomt_edge_tools::chain as networks;
use eomt_edge_tools::checkpoint::Array;

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
    /// Queries go on from frame to frame (VidEoMT).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub video: bool,
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
            video: false,
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
            if self.video {
                bail!("queries go on from frame to frame in EoMT only, not in a network with Mask2Former's decoder");
            }
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
        if self.video && self.is_rotary() {
            bail!("queries go on from frame to frame in networks with learned positions only: transformers' VidEoMT has no DINOv3");
        }
        if !self.image.is_multiple_of(self.patch) {
            bail!("an input of {} pixels is no multiple of the patch of {}", self.image, self.patch);
        }
        Ok(())
    }
}

/// ScaleBlocks that the paper's code puts before the masks: `log2(patch) - 2`, at least one.
pub(super) fn usual_scale_blocks(patch: usize) -> usize {
    (patch.max(1).ilog2() as usize).saturating_sub(2).max(1)
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
    if sizes.video {
        add("query_updater.weight".into(), &[d, d]);
        add("query_updater.bias".into(), &[d]);
    }
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
