//! The network as an ONNX graph, at one fixed input size.
//!
//! The encoder works on `[1, tokens, hidden]`: the first axis is for converters that take the first axis as the batch (pnnx, on the way to
//! ncnn). Tokens are queries (from block `depth - L2` on), class token,
//! registers, patches, in this order. Exact folds: the attention's 1/sqrt(head_dim) into the query projection and LayerScale
//! into the projection before it (EoMT paper, section 3; DINOv2 for LayerScale).
//!
//! A network for video (VidEoMT) adds its input `query_state`, zeros at the first frame, to the learned queries, and gives the next frame's
//! as an output: the updater on the query tokens behind the last block, before the norm.
//!
//! [`linear`] writes the products with weights, in f32 or int8; [`masks`] computes mask logits from tokens.

mod activation;
mod linear;
mod masks;

use std::collections::BTreeMap;

use eomt_edge_core::model::names;

use super::onnx::{Attr, GraphBuilder, Value};
use super::quantize::Int8Layer;
use super::{layers, position};
use crate::checkpoint::{Block, Linear, Masking, Mlp, Network, Norm, Position};

/// How the graph is written.
#[derive(Debug, Clone, Default)]
pub(super) enum Form {
    /// All in f32, the upscaling as transposed convolutions.
    #[default]
    Float,
    /// The upscaling as linears on tokens, which int8 needs; the linears with these names are int8.
    Tokens { int8: BTreeMap<String, Int8Layer> },
}

/// A graph under construction, complete but for its name and metadata.
pub(super) struct Built {
    pub graph: GraphBuilder,
    /// The names of all linears (see `layers`) and what each multiplies, `[rows, in]`; some run more than once.
    pub inputs: Vec<(String, Value)>,
}

/// Writes `network` for `[1, 3, height, width]` inputs. `size` = (height, width), multiples of the patch size.
pub(super) fn build(network: Network, size: (usize, usize), form: Form) -> Built {
    let grid = [size.0 / network.patch_size[0], size.1 / network.patch_size[1]];
    let mut writer = Writer::new(&network, grid, form);
    writer.write(network, size);
    Built { graph: writer.graph, inputs: writer.inputs }
}

struct Writer {
    graph: GraphBuilder,
    form: Form,
    inputs: Vec<(String, Value)>,
    /// Linears with the same input share its quantization.
    quantized: linear::QuantizedInputs,
    hidden: usize,
    heads: usize,
    grid: [usize; 2],
    queries: usize,
    /// Class token and registers.
    prefix: usize,
    /// ScaleBlocks double the grid this many times.
    upscales: usize,
}

/// Rotary tables of the current token set.
struct Rotary {
    cos: Value,
    sin: Value,
}

impl Writer {
    fn new(network: &Network, grid: [usize; 2], form: Form) -> Writer {
        Writer {
            graph: GraphBuilder::default(),
            form,
            inputs: Vec::new(),
            quantized: linear::QuantizedInputs::default(),
            hidden: network.hidden,
            heads: network.heads,
            grid,
            queries: network.queries.shape[0],
            prefix: 1 + network.register_tokens.shape[0],
            upscales: network.scale_blocks.len(),
        }
    }

    fn write(&mut self, mut network: Network, size: (usize, usize)) {
        let pixels = self.graph.input(names::INPUT, &[1, 3, size.0, size.1]);
        let mut x = self.embed(&pixels, &network);
        let depth = network.blocks.len();
        let joins_at = depth - network.num_blocks;
        let mut rotary = if joins_at > 0 { self.rotary("before_queries", self.prefix, &network) } else { None };
        let mut mask: Option<Value> = None;
        for (index, block) in std::mem::take(&mut network.blocks).into_iter().enumerate() {
            let name = format!("block.{index}");
            if index == joins_at {
                let queries = self.query_inputs(&network);
                x = self.graph.node("Concat", "tokens_with_queries", &[&queries, &x], &[Attr::Int("axis", 1)]);
                rotary = self.rotary("with_queries", self.queries + self.prefix, &network);
            }
            if index >= joins_at {
                match network.masking[index - joins_at] {
                    Masking::Off => mask = None,
                    Masking::Own => mask = Some(self.attention_mask(&format!("{name}.mask"), &x, &network)),
                    Masking::Previous => {}
                }
            }
            x = self.block(&name, &x, block, rotary.as_ref(), mask.as_ref());
        }
        self.outputs(&x, &network);
        if let Some(updater) = network.query_updater.take() {
            self.next_state(&x, updater);
        }
    }

    /// The tokens that join the patches: the learned queries, to which a network for video adds its state.
    fn query_inputs(&mut self, network: &Network) -> Value {
        let shape = [1, self.queries, self.hidden];
        let learned = self.graph.floats("queries", &shape, &network.queries.data);
        if network.query_updater.is_none() {
            return learned;
        }
        let state = self.graph.input(names::QUERY_STATE, &shape);
        self.graph.node("Add", "queries.carried", &[&state, &learned], &[])
    }

    /// What the next frame adds to the learned queries.
    fn next_state(&mut self, x: &Value, updater: Linear) {
        let queries = self.query_tokens("state", x);
        let state = self.linear_with(names::NEXT_QUERY_STATE, layers::QUERY_UPDATER, &queries, updater, None);
        self.graph.output(&state, &[1, self.queries, self.hidden]);
    }

    /// Patch projection, position embeddings, prefix tokens: `[1, prefix + patches, hidden]`.
    fn embed(&mut self, pixels: &Value, network: &Network) -> Value {
        let [ph, pw] = network.patch_size;
        let patches = self.grid[0] * self.grid[1];
        let weight = self.graph.floats("patch_embed.weight", &network.patch_weight.shape, &network.patch_weight.data);
        let bias = self.graph.floats("patch_embed.bias", &[self.hidden], &network.patch_bias);
        let kernel = [ph as i64, pw as i64];
        let attrs = [Attr::Ints("kernel_shape", &kernel), Attr::Ints("strides", &kernel)];
        let x = self.graph.node("Conv", "patch_embed", &[pixels, &weight, &bias], &attrs);
        let x = self.graph.reshape("patch_embed.flat", &x, &[1, self.hidden, patches]);
        let mut x = self.graph.transpose("patch_embed.tokens", &x, &[0, 2, 1]);
        if let Position::Learned { grid, table, resampling } = &network.position {
            let table = position::interpolate(&table.data, *grid, self.grid, self.hidden, *resampling);
            let table = self.graph.floats("position_embeddings", &[1, patches, self.hidden], &table);
            x = self.graph.node("Add", "patch_embed.positioned", &[&x, &table], &[]);
        }
        let mut prefix = network.cls_token.clone();
        prefix.extend_from_slice(&network.register_tokens.data);
        let prefix = self.graph.floats("prefix_tokens", &[1, self.prefix, self.hidden], &prefix);
        self.graph.node("Concat", "tokens", &[&prefix, &x], &[Attr::Int("axis", 1)])
    }

    fn rotary(&mut self, name: &str, unrotated: usize, network: &Network) -> Option<Rotary> {
        let Position::Rotary { theta } = network.position else { return None };
        let head_dim = self.hidden / self.heads;
        let (cos, sin) = position::rotary_tables(unrotated, self.grid, head_dim, theta);
        let shape = [cos.len() / head_dim, head_dim];
        Some(Rotary {
            cos: self.graph.floats(&format!("rotary.{name}.cos"), &shape, &cos),
            sin: self.graph.floats(&format!("rotary.{name}.sin"), &shape, &sin),
        })
    }

    /// Pre-norm transformer block.
    fn block(&mut self, name: &str, x: &Value, block: Block, rotary: Option<&Rotary>, mask: Option<&Value>) -> Value {
        let Block { norm1, q, k, v, out, scale1, norm2, mlp, scale2 } = block;
        let normed = self.norm(&format!("{name}.norm1"), x, &norm1);
        let attention = self.attention(&format!("{name}.attention"), &normed, [q, k, v], rotary, mask);
        let out = self.linear(&format!("{name}.attention.out"), &attention, out, scale1.as_deref());
        let x = self.graph.node("Add", &format!("{name}.attention.residual"), &[x, &out], &[]);
        let normed = self.norm(&format!("{name}.norm2"), &x, &norm2);
        let out = self.mlp(&format!("{name}.mlp"), &normed, mlp, scale2.as_deref());
        self.graph.node("Add", &format!("{name}.mlp.residual"), &[&x, &out], &[])
    }

    /// `softmax(q k^T + mask) v` per head; `[1, tokens, hidden]` in and out.
    fn attention(&mut self, name: &str, x: &Value, qkv: [Linear; 3], rotary: Option<&Rotary>, mask: Option<&Value>) -> Value {
        let head_dim = self.hidden / self.heads;
        let scale = vec![1.0 / (head_dim as f32).sqrt(); self.hidden];
        let [q, k, v] = qkv;
        let q = self.linear(&format!("{name}.q"), x, q, Some(&scale));
        let k = self.linear(&format!("{name}.k"), x, k, None);
        let v = self.linear(&format!("{name}.v"), x, v, None);
        let mut q = self.heads_first(&format!("{name}.q"), &q, &[0, 2, 1, 3]);
        let v = self.heads_first(&format!("{name}.v"), &v, &[0, 2, 1, 3]);
        let k = match rotary {
            None => self.heads_first(&format!("{name}.k"), &k, &[0, 2, 3, 1]),
            Some(rotary) => {
                q = self.rotate(&format!("{name}.q.rotary"), &q, rotary);
                let k = self.heads_first(&format!("{name}.k"), &k, &[0, 2, 1, 3]);
                let k = self.rotate(&format!("{name}.k.rotary"), &k, rotary);
                self.graph.transpose(&format!("{name}.k.transposed"), &k, &[0, 1, 3, 2])
            }
        };
        let mut scores = self.graph.node("MatMul", &format!("{name}.scores"), &[&q, &k], &[]);
        if let Some(mask) = mask {
            scores = self.graph.node("Add", &format!("{name}.scores.masked"), &[&scores, mask], &[]);
        }
        let weights = self.graph.node("Softmax", &format!("{name}.weights"), &[&scores], &[Attr::Int("axis", -1)]);
        let x = self.graph.node("MatMul", &format!("{name}.values"), &[&weights, &v], &[]);
        let x = self.graph.transpose(&format!("{name}.values.tokens_first"), &x, &[0, 2, 1, 3]);
        let tokens_first = [0, 0, self.hidden];
        self.graph.reshape(&format!("{name}.values.merged"), &x, &tokens_first)
    }

    /// `[1, tokens, hidden]` to `[1, tokens, heads, head_dim]`, then permuted.
    fn heads_first(&mut self, name: &str, x: &Value, perm: &[i64]) -> Value {
        let split = self.graph.reshape(&format!("{name}.split"), x, &[0, 0, self.heads, self.hidden / self.heads]);
        self.graph.transpose(&format!("{name}.heads"), &split, perm)
    }

    fn rotate(&mut self, name: &str, x: &Value, rotary: &Rotary) -> Value {
        let head_dim = self.hidden / self.heads;
        let first = self.graph.slice(&format!("{name}.first_half"), x, 3, 0, head_dim / 2);
        let second = self.graph.slice(&format!("{name}.second_half"), x, 3, head_dim / 2, head_dim);
        let swapped = self.graph.node("Concat", &format!("{name}.swapped"), &[&second, &first], &[Attr::Int("axis", 3)]);
        let straight = self.graph.node("Mul", &format!("{name}.cos"), &[x, &rotary.cos], &[]);
        let crossed = self.graph.node("Mul", &format!("{name}.sin"), &[&swapped, &rotary.sin], &[]);
        self.graph.node("Add", name, &[&straight, &crossed], &[])
    }

    fn mlp(&mut self, name: &str, x: &Value, mlp: Mlp, scale: Option<&[f32]>) -> Value {
        match mlp {
            Mlp::Plain { up, down, activation } => {
                let x = self.linear(&format!("{name}.up"), x, up, None);
                let x = self.activation(&format!("{name}.activation"), &x, activation);
                self.linear(&format!("{name}.down"), &x, down, scale)
            }
            Mlp::Gated { gate, up, down, activation } => {
                let gate = self.linear(&format!("{name}.gate"), x, gate, None);
                let gate = self.activation(&format!("{name}.activation"), &gate, activation);
                let up = self.linear(&format!("{name}.up"), x, up, None);
                let x = self.graph.node("Mul", &format!("{name}.gated"), &[&gate, &up], &[]);
                self.linear(&format!("{name}.down"), &x, down, scale)
            }
        }
    }

    /// LayerNorm over the last axis.
    fn norm(&mut self, name: &str, x: &Value, norm: &Norm) -> Value {
        self.norm_with(name, name, x, norm)
    }

    /// [`Writer::norm`] with weights that other nodes may share under the name `weights`.
    fn norm_with(&mut self, name: &str, weights: &str, x: &Value, norm: &Norm) -> Value {
        let scale = self.graph.floats(&format!("{weights}.scale"), &[norm.scale.len()], &norm.scale);
        let shift = self.graph.floats(&format!("{weights}.shift"), &[norm.shift.len()], &norm.shift);
        let attrs = [Attr::Int("axis", -1), Attr::Float("epsilon", norm.eps)];
        self.graph.node("LayerNormalization", name, &[x, &scale, &shift], &attrs)
    }

    /// A constant that several nodes may share.
    fn scalar(&mut self, name: &str, value: f32) -> Value {
        self.graph.floats(&format!("const.{name}"), &[], &[value])
    }

    fn outputs(&mut self, x: &Value, network: &Network) {
        let normed = self.norm("norm", x, &network.norm);
        let queries = self.query_tokens("head", &normed);
        let classes = network.class_head.weight.shape[0];
        let class_logits = self.linear_with(names::CLASS_LOGITS, layers::CLASS_HEAD, &queries, network.class_head.clone(), None);
        self.graph.output(&class_logits, &[1, self.queries, classes]);
        let masks = self.mask_logits("head", &normed, &queries, network);
        let (height, width) = self.mask_size();
        let masks = self.graph.reshape(names::MASK_LOGITS, &masks, &[1, self.queries, height, width]);
        self.graph.output(&masks, &[1, self.queries, height, width]);
    }
}
