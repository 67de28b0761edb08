//! The network of the paper (section 3.2) as a differentiable graph, with a prediction before each of the last L2 blocks and one after.
//!
//! Tokens are `[B, T, D]`: queries, class token, registers, patches. Images of a batch are independent.

use candle_core::{Device, Result, Tensor};

use eomt_edge_tools::convert::rotary_tables;

use super::operators::{add_bias, depthwise, gelu, layer_norm, scaled_add, silu, softmax};
use super::parameters::{Activation, Parameters, Positions, Sizes};
use super::points;

/// Class logits `[B, Q, C + 1]` and mask logits `[B, Q, h w]`.
pub(super) struct Logits {
    pub classes: Tensor,
    pub masks: Tensor,
}

/// Decides which queries of a block keep their mask: `[B, Q]`, row-major, for the place of the block among the last L2.
pub(super) trait MaskChance {
    /// `None`: this block masks nothing.
    fn masked(&mut self, block: usize) -> Option<Vec<bool>>;
}

/// Epsilon of the norms in scale blocks (transformers' EomtLayerNorm2d).
const SCALE_BLOCK_EPS: f32 = 1e-6;
/// Added to the scores of masked pairs.
const BLOCKED: f32 = -1e9;

pub(super) struct Forward<'a> {
    pub sizes: &'a Sizes,
    pub parameters: &'a Parameters,
}

/// Rotary positions of the patches, the last tokens: cosines and signed sines, `[N, D / heads]`.
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Angles as in DINOv3; none for learned positions. transformers draws other coordinates at random in training (`pos_embed_rescale`); here they
    /// are those of inference.
    fn new(sizes: &Sizes) -> Result<Option<Rotation>> {
        let Positions::Rotary { theta, .. } = sizes.positions else { return Ok(None) };
        let shape = (sizes.grid().pow(2), sizes.hidden / sizes.heads);
        let (cos, sin) = rotary_tables(0, [sizes.grid(); 2], shape.1, theta);
        let table = |values| Tensor::from_vec(values, shape, &Device::Cpu);
        Ok(Some(Rotation { cos: table(cos)?, sin: table(sin)? }))
    }

    /// `[B, heads, T, D / heads]`: patches rotated, the tokens before them as they are.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (patches, width) = self.cos.dims2()?;
        let others = x.dim(2)? - patches;
        let rotated = x.narrow(2, others, patches)?;
        let swapped = Tensor::cat(&[&rotated.narrow(3, width / 2, width / 2)?, &rotated.narrow(3, 0, width / 2)?], 3)?;
        let rotated = (rotated.broadcast_mul(&self.cos)? + swapped.broadcast_mul(&self.sin)?)?;
        Tensor::cat(&[&x.narrow(2, 0, others)?, &rotated], 2)
    }
}

fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Gelu => gelu(x),
        Activation::Silu => silu(x),
    }
}

impl Forward<'_> {
    /// From patches `[B, N, 3 P P]` (channel, row, column; normalized) to L2 + 1 predictions, the last one after all blocks.
    pub(super) fn run(&self, patches: &Tensor, chance: &mut impl MaskChance) -> Result<Vec<Logits>> {
        let (sizes, batch) = (self.sizes, patches.dim(0)?);
        let mut tokens = self.embed(patches)?;
        let rotation = Rotation::new(sizes)?;
        let mut predictions = Vec::with_capacity(sizes.query_blocks + 1);
        for block in 0..sizes.blocks {
            let mut mask = None;
            if let Some(place) = (block + sizes.query_blocks).checked_sub(sizes.blocks) {
                if place == 0 {
                    let queries = self.parameters.get("query.weight")?.unsqueeze(0)?.broadcast_as((batch, sizes.queries, sizes.hidden))?;
                    tokens = Tensor::cat(&[&queries.contiguous()?, &tokens], 1)?;
                }
                let logits = self.predict(&tokens)?;
                if let Some(masked) = chance.masked(place) {
                    mask = Some(self.attention_mask(&logits.masks, &masked)?);
                }
                predictions.push(logits);
            }
            tokens = self.block(block, &tokens, mask.as_ref(), rotation.as_ref())?;
        }
        predictions.push(self.predict(&tokens)?);
        Ok(predictions)
    }

    /// Tokens `[B, 1 + R + N, D]` behind all blocks and the last norm, without queries, as a backbone gives them.
    #[cfg(test)]
    pub(super) fn encode(&self, patches: &Tensor) -> Result<Tensor> {
        let (mut tokens, rotation) = (self.embed(patches)?, Rotation::new(self.sizes)?);
        for block in 0..self.sizes.blocks {
            tokens = self.block(block, &tokens, None, rotation.as_ref())?;
        }
        self.norm(&tokens, "layernorm", self.sizes.eps)
    }

    pub(super) fn weight(&self, name: &str) -> Result<&Tensor> {
        self.parameters.get(name)
    }

    /// `[.., in]` → `[.., out]`
    pub(super) fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        self.product(x, name, Some(self.weight(&format!("{name}.bias"))?))
    }

    fn product(&self, x: &Tensor, name: &str, bias: Option<&Tensor>) -> Result<Tensor> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let mut shape = x.dims().to_vec();
        let from = shape.pop().unwrap_or(1);
        let rows: usize = shape.iter().product();
        shape.push(weight.dim(0)?);
        let product = x.reshape((rows, from))?.matmul(&weight.t()?)?;
        match bias {
            Some(bias) => add_bias(&product, bias)?.reshape(shape),
            None => product.reshape(shape),
        }
    }

    pub(super) fn norm(&self, x: &Tensor, name: &str, eps: f32) -> Result<Tensor> {
        layer_norm(x, self.weight(&format!("{name}.weight"))?, self.weight(&format!("{name}.bias"))?, eps)
    }

    /// Patches to tokens: class token, registers, patches with their positions.
    pub(super) fn embed(&self, patches: &Tensor) -> Result<Tensor> {
        let (batch, count, width) = patches.dims3()?;
        let d = self.sizes.hidden;
        let name = self.sizes.patch_embedding();
        let weight = self.weight(&format!("{name}.weight"))?.reshape((d, width))?;
        let bias = self.weight(&format!("{name}.bias"))?;
        let tokens = add_bias(&patches.reshape((batch * count, width))?.matmul(&weight.t()?)?, bias)?.reshape((batch, count, d))?;
        let tokens = match self.sizes.positions {
            Positions::Learned => tokens.broadcast_add(self.weight("embeddings.position_embeddings.weight")?)?,
            Positions::Rotary { .. } => tokens,
        };
        let spread = |tensor: &Tensor| tensor.broadcast_as((batch, tensor.dim(1)?, d))?.contiguous();
        let class_token = spread(self.weight("embeddings.cls_token")?)?;
        if self.sizes.registers == 0 {
            return Tensor::cat(&[&class_token, &tokens], 1);
        }
        Tensor::cat(&[&class_token, &spread(self.weight("embeddings.register_tokens")?)?, &tokens], 1)
    }

    pub(super) fn block(&self, index: usize, x: &Tensor, mask: Option<&Tensor>, rotation: Option<&Rotation>) -> Result<Tensor> {
        let name = |part: &str| format!("layers.{index}.{part}");
        let eps = self.sizes.eps;
        let attended = self.attention(&self.norm(x, &name("norm1"), eps)?, &name("attention"), mask, rotation)?;
        let x = scaled_add(x, &attended, self.weight(&name("layer_scale1.lambda1"))?)?;
        let fed = self.mlp(&self.norm(&x, &name("norm2"), eps)?, &name("mlp"))?;
        scaled_add(&x, &fed, self.weight(&name("layer_scale2.lambda1"))?)
    }

    fn mlp(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let [into, out] = self.sizes.mlp();
        let up = self.linear(x, &format!("{name}.{into}"))?;
        let inner = if self.sizes.gated {
            (activate(self.sizes.gate_activation(), &self.linear(x, &format!("{name}.gate_proj"))?)? * up)?
        } else {
            activate(self.sizes.activation, &up)?
        };
        self.linear(&inner, &format!("{name}.{out}"))
    }

    fn attention(&self, x: &Tensor, name: &str, mask: Option<&Tensor>, rotation: Option<&Rotation>) -> Result<Tensor> {
        let (batch, tokens, d) = x.dims3()?;
        let heads = self.sizes.heads;
        let split = |part: &str| {
            let name = format!("{name}.{part}");
            let bias = (part != "k_proj" || self.sizes.key_bias()).then(|| self.weight(&format!("{name}.bias"))).transpose()?;
            self.product(x, &name, bias)?.reshape((batch, tokens, heads, d / heads))?.transpose(1, 2)?.contiguous()
        };
        let (mut q, mut k, v) = (split("q_proj")?, split("k_proj")?, split("v_proj")?);
        if let Some(rotation) = rotation {
            (q, k) = (rotation.apply(&q)?, rotation.apply(&k)?);
        }
        let scale = 1.0 / ((d / heads) as f64).sqrt();
        let mut scores = (q * scale)?.matmul(&k.transpose(2, 3)?)?;
        if let Some(mask) = mask {
            scores = scores.broadcast_add(mask)?;
        }
        let mixed = softmax(&scores)?.matmul(&v)?.transpose(1, 2)?.reshape((batch, tokens, d))?;
        self.linear(&mixed, &format!("{name}.{}", self.sizes.attention_out()))
    }

    /// The heads on the state before or after a block.
    pub(super) fn predict(&self, tokens: &Tensor) -> Result<Logits> {
        let (sizes, (batch, _, d)) = (self.sizes, tokens.dims3()?);
        let tokens = self.norm(tokens, "layernorm", sizes.eps)?;
        let queries = tokens.narrow(1, 0, sizes.queries)?.contiguous()?;
        let classes = self.linear(&queries, "class_predictor")?;
        let hidden = activate(sizes.activation, &self.linear(&queries, "mask_head.fc1")?)?;
        let hidden = activate(sizes.activation, &self.linear(&hidden, "mask_head.fc2")?)?;
        let hidden = self.linear(&hidden, "mask_head.fc3")?;
        let patches = tokens.narrow(1, sizes.queries + 1 + sizes.registers, sizes.grid().pow(2))?;
        let mut pixels = patches.reshape((batch, sizes.grid(), sizes.grid(), d))?;
        for block in 0..sizes.scale_blocks {
            pixels = self.upscale(&pixels, block)?;
        }
        let masks = hidden.matmul(&pixels.flatten(1, 2)?.transpose(1, 2)?)?;
        Ok(Logits { classes, masks })
    }

    /// One ScaleBlock, channels last: `[B, h, w, D]` → `[B, 2h, 2w, D]`. A transposed convolution of 2x2 with stride 2 writes every
    /// output once, so it is a matrix product and a shuffle.
    fn upscale(&self, x: &Tensor, block: usize) -> Result<Tensor> {
        let (batch, height, width, d) = x.dims4()?;
        let name = |part: &str| format!("upscale_block.block.{block}.{part}");
        let weight = self.weight(&name("conv1.weight"))?.permute((0, 2, 3, 1))?.reshape((d, 4 * d))?;
        let up = x.reshape((batch * height * width, d))?.matmul(&weight)?;
        let up = up.reshape((batch, height, width, 2, 2, d))?.permute((0, 1, 3, 2, 4, 5))?.reshape((batch, 2 * height, 2 * width, d))?;
        let up = activate(self.sizes.activation, &add_bias(&up, self.weight(&name("conv1.bias"))?)?)?;
        let taps = self.weight(&name("conv2.weight"))?.reshape((d, 9))?.t()?.contiguous()?;
        self.norm(&depthwise(&up, &taps)?, &name("layernorm2d"), SCALE_BLOCK_EPS)
    }

    /// `[B, 1, T, T]` to add to scores: a masked query does not see a patch where its own mask logit, brought to the patches' grid as
    /// PyTorch's bilinear `interpolate` does, is not above 0. Without gradient, as in the reference.
    fn attention_mask(&self, masks: &Tensor, masked: &[bool]) -> Result<Tensor> {
        let (sizes, (batch, queries, pixels)) = (self.sizes, masks.dims3()?);
        let (grid, side) = (sizes.grid(), sizes.mask_side());
        let centre = |at: usize| (at as f32 + 0.5) / grid as f32;
        let centres: Vec<[f32; 2]> = (0..grid * grid).map(|patch| [centre(patch % grid), centre(patch / grid)]).collect();
        let taps = points::taps(&centres, [side, side]);
        let tokens = queries + 1 + sizes.registers + grid * grid;
        let mut mask = vec![0.0f32; batch * tokens * tokens];
        let values = masks.detach().flatten_all()?.to_vec1::<f32>()?;
        for (row, (plane, _)) in values.chunks_exact(pixels).zip(masked).enumerate().filter(|(_, (_, masked))| **masked) {
            let start = (row / queries * tokens + row % queries) * tokens + tokens - grid * grid;
            for (score, logit) in mask[start..].iter_mut().zip(points::sample(plane, &taps)) {
                *score = if logit > 0.0 { 0.0 } else { BLOCKED };
            }
        }
        Tensor::from_vec(mask, (batch, 1, tokens, tokens), masks.device())
    }
}
