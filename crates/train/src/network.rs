//! The network of the paper (section 3.2) as a differentiable graph, with a prediction before each of the last L2 blocks and one after.
//!
//! Tokens are `[B, T, D]`: queries, class token, registers, patches. Images of a batch are independent.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use eomt_edge_tools::convert::rotary_tables;

use super::fused::{self, Attention, Linear, Masks, Mlp, Norm, QueryMask, Residual, Rotation, ScaleBlock};
use super::matmul::matmul_transposed;
use super::operators::{add_bias, gelu, layer_norm, silu};
use super::parameters::{Activation, Parameters, Positions, Sizes};
use super::points;
use super::workspace::Workspace;

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
    /// Where the gradients of the weights of blocks and ScaleBlocks go.
    pub workspace: &'a Arc<Workspace>,
}

/// Angles as in DINOv3; none for learned positions. transformers draws other coordinates at random in training (`pos_embed_rescale`); here they
/// are those of inference.
fn rotation(sizes: &Sizes) -> Option<Arc<Rotation>> {
    let Positions::Rotary { theta, .. } = sizes.positions else { return None };
    let (cos, sin) = rotary_tables(0, [sizes.grid(); 2], sizes.hidden / sizes.heads, theta);
    Some(Arc::new(Rotation { cos, sin }))
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
        let rotation = rotation(sizes);
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
                    mask = Some(Arc::new(self.attention_mask(&logits.masks, &masked)?));
                }
                predictions.push(logits);
            }
            tokens = self.block(block, &tokens, mask, rotation.clone())?;
        }
        predictions.push(self.predict(&tokens)?);
        Ok(predictions)
    }

    /// Tokens `[B, 1 + R + N, D]` behind all blocks and the last norm, without queries, as a backbone gives them.
    #[cfg(test)]
    pub(super) fn encode(&self, patches: &Tensor) -> Result<Tensor> {
        let (mut tokens, rotation) = (self.embed(patches)?, rotation(self.sizes));
        for block in 0..self.sizes.blocks {
            tokens = self.block(block, &tokens, None, rotation.clone())?;
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
        let product = matmul_transposed(&x.reshape((rows, from))?, weight)?;
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
        let tokens = matmul_transposed(&patches.reshape((batch * count, width))?, &weight)?;
        let tokens = add_bias(&tokens, bias)?.reshape((batch, count, d))?;
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

    pub(super) fn block(&self, index: usize, x: &Tensor, mask: Option<Arc<QueryMask>>, rotation: Option<Arc<Rotation>>) -> Result<Tensor> {
        let sizes = self.sizes;
        let name = |part: &str| format!("layers.{index}.{part}");
        let input = |part: &str| self.held_linear(&name(&format!("attention.{part}")), part != "k_proj" || sizes.key_bias());
        let residual = |part: &str, scale: &str| -> Result<Residual> {
            Ok(Residual { linear: self.held_linear(&name(part), true)?, scale: self.weight(&name(scale))?.clone() })
        };
        let attention = Attention {
            heads: sizes.heads,
            norm: self.held_norm(&name("norm1"), sizes.eps)?,
            inputs: [input("q_proj")?, input("k_proj")?, input("v_proj")?],
            out: residual(&format!("attention.{}", sizes.attention_out()), "layer_scale1.lambda1")?,
            mask,
            rotation,
        };
        let x = fused::attention(x, attention, self.workspace)?;
        let [into, out] = sizes.mlp();
        let mlp = Mlp {
            norm: self.held_norm(&name("norm2"), sizes.eps)?,
            up: self.held_linear(&name(&format!("mlp.{into}")), true)?,
            gate: sizes.gated.then(|| self.held_linear(&name("mlp.gate_proj"), true)).transpose()?,
            activation: if sizes.gated { sizes.gate_activation() } else { sizes.activation },
            down: residual(&format!("mlp.{out}"), "layer_scale2.lambda1")?,
        };
        fused::mlp(&x, mlp, self.workspace)
    }

    fn held_norm(&self, name: &str, eps: f32) -> Result<Norm> {
        Ok(Norm { scale: self.weight(&format!("{name}.weight"))?.clone(), shift: self.weight(&format!("{name}.bias"))?.clone(), eps })
    }

    fn held_linear(&self, name: &str, has_bias: bool) -> Result<Linear> {
        let bias = has_bias.then(|| self.weight(&format!("{name}.bias")).cloned()).transpose()?;
        Ok(Linear { weight: self.weight(&format!("{name}.weight"))?.clone(), bias })
    }

    /// The heads on the state before or after a block.
    pub(super) fn predict(&self, tokens: &Tensor) -> Result<Logits> {
        let sizes = self.sizes;
        let tokens = self.norm(tokens, "layernorm", sizes.eps)?;
        let queries = tokens.narrow(1, 0, sizes.queries)?.contiguous()?;
        let classes = self.linear(&queries, "class_predictor")?;
        let hidden = activate(sizes.activation, &self.linear(&queries, "mask_head.fc1")?)?;
        let hidden = activate(sizes.activation, &self.linear(&hidden, "mask_head.fc2")?)?;
        let hidden = self.linear(&hidden, "mask_head.fc3")?;
        let blocks = (0..sizes.scale_blocks).map(|block| self.scale_block(block)).collect::<Result<Vec<_>>>()?;
        let layer = Masks { blocks, activation: sizes.activation, grid: sizes.grid() };
        let masks = fused::masks(&tokens, &hidden, layer, self.workspace)?;
        Ok(Logits { classes, masks })
    }

    fn scale_block(&self, block: usize) -> Result<ScaleBlock> {
        let name = |part: &str| format!("upscale_block.block.{block}.{part}");
        Ok(ScaleBlock {
            up: self.weight(&name("conv1.weight"))?.clone(),
            bias: self.weight(&name("conv1.bias"))?.clone(),
            depthwise: self.weight(&name("conv2.weight"))?.clone(),
            norm: self.held_norm(&name("layernorm2d"), SCALE_BLOCK_EPS)?,
        })
    }

    /// To add to scores: a masked query does not see a patch where its own mask logit, brought to the patches' grid as PyTorch's bilinear
    /// `interpolate` does, is not above 0. Without gradient, as in the reference.
    fn attention_mask(&self, masks: &Tensor, masked: &[bool]) -> Result<QueryMask> {
        let (sizes, (batch, queries, pixels)) = (self.sizes, masks.dims3()?);
        let (grid, side) = (sizes.grid(), sizes.mask_side());
        let centre = |at: usize| (at as f32 + 0.5) / grid as f32;
        let centres: Vec<[f32; 2]> = (0..grid * grid).map(|patch| [centre(patch % grid), centre(patch / grid)]).collect();
        let taps = points::taps(&centres, [side, side]);
        let mut blocked = vec![0.0f32; batch * queries * grid * grid];
        let values = masks.detach().flatten_all()?.to_vec1::<f32>()?;
        let rows = values.chunks_exact(pixels).zip(masked).zip(blocked.chunks_exact_mut(grid * grid));
        for ((plane, _), row) in rows.filter(|((_, masked), _)| **masked) {
            for (score, logit) in row.iter_mut().zip(points::sample(plane, &taps)) {
                *score = if logit > 0.0 { 0.0 } else { BLOCKED };
            }
        }
        Ok(QueryMask { queries, patches: grid * grid, values: blocked })
    }
}
