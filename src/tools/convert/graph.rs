//! The network as an ONNX graph, at one fixed input size.
//!
//! The encoder works on rank-2 tensors `[tokens, hidden]`; tokens are queries (from block `depth - L2` on), class token,
//! registers, patches, in this order. Exact folds: the attention's 1/sqrt(head_dim) into the query projection and LayerScale
//! into the projection before it (EoMT paper, section 3; DINOv2 for LayerScale).

use super::onnx::{Attr, GraphBuilder, Value};
use super::position;
use crate::model::names;
use crate::tools::checkpoint::{Activation, Array, Block, Linear, Masking, Mlp, Network, Norm, Position, ScaleBlock};

/// Added to the scores of pairs that may not see each other; softmax makes it an exact zero.
const MASKED_OUT: f32 = -1e9;

/// Writes `network` for `[1, 3, height, width]` inputs. `size` = (height, width), multiples of the patch size.
pub fn build(network: Network, size: (usize, usize)) -> GraphBuilder {
    let grid = [size.0 / network.patch_size[0], size.1 / network.patch_size[1]];
    let mut writer = Writer::new(&network, grid);
    writer.write(network, size);
    writer.graph
}

struct Writer {
    graph: GraphBuilder,
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
    fn new(network: &Network, grid: [usize; 2]) -> Writer {
        Writer {
            graph: GraphBuilder::default(),
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
                let queries = self.graph.floats("queries", &[self.queries, self.hidden], &network.queries.data);
                x = self.graph.node("Concat", "tokens_with_queries", &[&queries, &x], &[Attr::Int("axis", 0)]);
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
    }

    /// Patch projection, position embeddings, prefix tokens: `[prefix + patches, hidden]`.
    fn embed(&mut self, pixels: &Value, network: &Network) -> Value {
        let [ph, pw] = network.patch_size;
        let patches = self.grid[0] * self.grid[1];
        let weight = self.graph.floats("patch_embed.weight", &network.patch_weight.shape, &network.patch_weight.data);
        let bias = self.graph.floats("patch_embed.bias", &[self.hidden], &network.patch_bias);
        let kernel = [ph as i64, pw as i64];
        let attrs = [Attr::Ints("kernel_shape", &kernel), Attr::Ints("strides", &kernel)];
        let x = self.graph.node("Conv", "patch_embed", &[pixels, &weight, &bias], &attrs);
        let x = self.graph.reshape("patch_embed.flat", &x, &[self.hidden, patches]);
        let mut x = self.graph.transpose("patch_embed.tokens", &x, &[1, 0]);
        if let Position::Learned { grid, table } = &network.position {
            let table = position::interpolate(&table.data, *grid, self.grid, self.hidden);
            let table = self.graph.floats("position_embeddings", &[patches, self.hidden], &table);
            x = self.graph.node("Add", "patch_embed.positioned", &[&x, &table], &[]);
        }
        let mut prefix = network.cls_token.clone();
        prefix.extend_from_slice(&network.register_tokens.data);
        let prefix = self.graph.floats("prefix_tokens", &[self.prefix, self.hidden], &prefix);
        self.graph.node("Concat", "tokens", &[&prefix, &x], &[Attr::Int("axis", 0)])
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

    /// `softmax(q k^T + mask) v` per head; `[tokens, hidden]` in and out.
    fn attention(&mut self, name: &str, x: &Value, qkv: [Linear; 3], rotary: Option<&Rotary>, mask: Option<&Value>) -> Value {
        let head_dim = self.hidden / self.heads;
        let scale = vec![1.0 / (head_dim as f32).sqrt(); self.hidden];
        let [q, k, v] = qkv;
        let q = self.linear(&format!("{name}.q"), x, q, Some(&scale));
        let k = self.linear(&format!("{name}.k"), x, k, None);
        let v = self.linear(&format!("{name}.v"), x, v, None);
        let mut q = self.heads_first(&format!("{name}.q"), &q, &[1, 0, 2]);
        let v = self.heads_first(&format!("{name}.v"), &v, &[1, 0, 2]);
        let k = match rotary {
            None => self.heads_first(&format!("{name}.k"), &k, &[1, 2, 0]),
            Some(rotary) => {
                q = self.rotate(&format!("{name}.q.rotary"), &q, rotary);
                let k = self.heads_first(&format!("{name}.k"), &k, &[1, 0, 2]);
                let k = self.rotate(&format!("{name}.k.rotary"), &k, rotary);
                self.graph.transpose(&format!("{name}.k.transposed"), &k, &[0, 2, 1])
            }
        };
        let mut scores = self.graph.node("MatMul", &format!("{name}.scores"), &[&q, &k], &[]);
        if let Some(mask) = mask {
            scores = self.graph.node("Add", &format!("{name}.scores.masked"), &[&scores, mask], &[]);
        }
        let weights = self.graph.node("Softmax", &format!("{name}.weights"), &[&scores], &[Attr::Int("axis", -1)]);
        let x = self.graph.node("MatMul", &format!("{name}.values"), &[&weights, &v], &[]);
        let x = self.graph.transpose(&format!("{name}.values.tokens_first"), &x, &[1, 0, 2]);
        let tokens_first = [0, self.hidden];
        self.graph.reshape(&format!("{name}.values.merged"), &x, &tokens_first)
    }

    /// `[tokens, hidden]` to `[tokens, heads, head_dim]`, then permuted.
    fn heads_first(&mut self, name: &str, x: &Value, perm: &[i64]) -> Value {
        let split = self.graph.reshape(&format!("{name}.split"), x, &[0, self.heads, self.hidden / self.heads]);
        self.graph.transpose(&format!("{name}.heads"), &split, perm)
    }

    fn rotate(&mut self, name: &str, x: &Value, rotary: &Rotary) -> Value {
        let head_dim = self.hidden / self.heads;
        let first = self.graph.slice(&format!("{name}.first_half"), x, 2, 0, head_dim / 2);
        let second = self.graph.slice(&format!("{name}.second_half"), x, 2, head_dim / 2, head_dim);
        let swapped = self.graph.node("Concat", &format!("{name}.swapped"), &[&second, &first], &[Attr::Int("axis", 2)]);
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

    /// `x W^T + b`, every output channel multiplied by `scale` when given.
    fn linear(&mut self, name: &str, x: &Value, linear: Linear, scale: Option<&[f32]>) -> Value {
        self.linear_with(name, name, x, linear, scale)
    }

    /// [`Writer::linear`] with weights that other nodes may share under the name `weights`.
    fn linear_with(&mut self, name: &str, weights: &str, x: &Value, linear: Linear, scale: Option<&[f32]>) -> Value {
        let Linear { weight, mut bias } = linear;
        let transposed = transpose(weight, scale);
        let weight = self.graph.floats(&format!("{weights}.weight"), &transposed.shape, &transposed.data);
        drop(transposed);
        let product = if bias.is_some() { format!("{name}.product") } else { name.to_owned() };
        let product = self.graph.node("MatMul", &product, &[x, &weight], &[]);
        let Some(bias) = &mut bias else { return product };
        if let Some(scale) = scale {
            bias.iter_mut().zip(scale).for_each(|(b, s)| *b *= s);
        }
        let bias = self.graph.floats(&format!("{weights}.bias"), &[bias.len()], bias);
        self.graph.node("Add", name, &[&product, &bias], &[])
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

    /// A constant that many nodes may share.
    fn scalar(&mut self, name: &str, value: f32) -> Value {
        self.graph.floats(&format!("const.{name}"), &[], &[value])
    }

    fn activation(&mut self, name: &str, x: &Value, activation: Activation) -> Value {
        match activation {
            Activation::Relu => self.graph.node("Relu", name, &[x], &[]),
            Activation::Silu => self.sigmoid_gate(name, x, None),
            Activation::QuickGelu => self.sigmoid_gate(name, x, Some(1.702)),
            Activation::Gelu => {
                let factor = self.scalar("inv_sqrt2", std::f32::consts::FRAC_1_SQRT_2);
                let scaled = self.graph.node("Mul", &format!("{name}.scaled"), &[x, &factor], &[]);
                let curve = self.graph.node("Erf", &format!("{name}.erf"), &[&scaled], &[]);
                self.half_of_x_times_one_plus(name, x, &curve)
            }
            Activation::GeluTanh => {
                let (one, cubic) = (self.scalar("one", 1.0), self.scalar("cubic", 0.044_715));
                let factor = self.scalar("sqrt_2_over_pi", (2.0 / std::f32::consts::PI).sqrt());
                let square = self.graph.node("Mul", &format!("{name}.square"), &[x, x], &[]);
                let inner = self.graph.node("Mul", &format!("{name}.square_scaled"), &[&square, &cubic], &[]);
                let inner = self.graph.node("Add", &format!("{name}.inner"), &[&inner, &one], &[]);
                let inner = self.graph.node("Mul", &format!("{name}.inner_x"), &[&inner, x], &[]);
                let inner = self.graph.node("Mul", &format!("{name}.scaled"), &[&inner, &factor], &[]);
                let curve = self.graph.node("Tanh", &format!("{name}.tanh"), &[&inner], &[]);
                self.half_of_x_times_one_plus(name, x, &curve)
            }
        }
    }

    /// `x * (1 + curve) * 0.5`, in the order in which peers recognize GELU.
    fn half_of_x_times_one_plus(&mut self, name: &str, x: &Value, curve: &Value) -> Value {
        let (one, half) = (self.scalar("one", 1.0), self.scalar("half", 0.5));
        let shifted = self.graph.node("Add", &format!("{name}.shifted"), &[curve, &one], &[]);
        let product = self.graph.node("Mul", &format!("{name}.product"), &[x, &shifted], &[]);
        self.graph.node("Mul", name, &[&product, &half], &[])
    }

    /// `x * sigmoid(slope * x)`.
    fn sigmoid_gate(&mut self, name: &str, x: &Value, slope: Option<f32>) -> Value {
        let scaled = slope.map(|slope| {
            let slope = self.scalar("sigmoid_slope", slope);
            self.graph.node("Mul", &format!("{name}.scaled"), &[x, &slope], &[])
        });
        let gate = self.graph.node("Sigmoid", &format!("{name}.sigmoid"), &[scaled.as_ref().unwrap_or(x)], &[]);
        self.graph.node("Mul", name, &[x, &gate], &[])
    }

    /// Query tokens `[Q, hidden]` of normalized tokens that include the queries.
    fn query_tokens(&mut self, name: &str, normed: &Value) -> Value {
        self.graph.slice(&format!("{name}.query_tokens"), normed, 0, 0, self.queries)
    }

    /// Mask head times upscaled patch tokens: `[Q, grid << upscales]` flattened to `[Q, pixels]`.
    fn mask_logits(&mut self, name: &str, normed: &Value, query_tokens: &Value, network: &Network) -> Value {
        let mut q = query_tokens.clone();
        for (i, linear) in network.mask_head.iter().enumerate() {
            let weights = format!("mask_head.{i}");
            q = self.linear_with(&format!("{name}.{weights}"), &weights, &q, linear.clone(), None);
            if i < 2 {
                q = self.activation(&format!("{name}.mask_head.{i}.activation"), &q, network.head_activation);
            }
        }
        let start = self.queries + self.prefix;
        let patches = self.graph.slice(&format!("{name}.patch_tokens"), normed, 0, start, start + self.grid[0] * self.grid[1]);
        let x = self.graph.transpose(&format!("{name}.patch_tokens.channels_first"), &patches, &[1, 0]);
        let mut x = self.graph.reshape(&format!("{name}.patch_map"), &x, &[1, self.hidden, self.grid[0], self.grid[1]]);
        for (i, block) in network.scale_blocks.iter().enumerate() {
            let weights = format!("scale_block.{i}");
            x = self.scale_block(&format!("{name}.{weights}"), &weights, &x, block, network.head_activation);
        }
        let (height, width) = self.mask_size();
        let features = self.graph.reshape(&format!("{name}.features"), &x, &[self.hidden, height * width]);
        self.graph.node("MatMul", &format!("{name}.mask_logits"), &[&q, &features], &[])
    }

    fn mask_size(&self) -> (usize, usize) {
        (self.grid[0] << self.upscales, self.grid[1] << self.upscales)
    }

    /// Doubles height and width (EoMT paper, section 3.2: transposed convolution, GELU, depthwise 3x3, LayerNorm over channels).
    fn scale_block(&mut self, name: &str, weights: &str, x: &Value, block: &ScaleBlock, activation: Activation) -> Value {
        let weight = self.graph.floats(&format!("{weights}.up.weight"), &block.up_weight.shape, &block.up_weight.data);
        let bias = self.graph.floats(&format!("{weights}.up.bias"), &[self.hidden], &block.up_bias);
        let attrs = [Attr::Ints("kernel_shape", &[2, 2]), Attr::Ints("strides", &[2, 2])];
        let x = self.graph.node("ConvTranspose", &format!("{name}.up"), &[x, &weight, &bias], &attrs);
        let x = self.activation(&format!("{name}.activation"), &x, activation);
        let weight = self.graph.floats(&format!("{weights}.depthwise.weight"), &block.depthwise.shape, &block.depthwise.data);
        let attrs = [
            Attr::Ints("kernel_shape", &[3, 3]),
            Attr::Ints("pads", &[1, 1, 1, 1]),
            Attr::Ints("strides", &[1, 1]),
            Attr::Int("group", self.hidden as i64),
        ];
        let x = self.graph.node("Conv", &format!("{name}.depthwise"), &[&x, &weight], &attrs);
        let x = self.graph.transpose(&format!("{name}.channels_last"), &x, &[0, 2, 3, 1]);
        let x = self.norm_with(&format!("{name}.norm"), &format!("{weights}.norm"), &x, &block.norm);
        self.graph.transpose(&format!("{name}.channels_first"), &x, &[0, 3, 1, 2])
    }

    /// Additive attention mask `[tokens, tokens]`: a query may look at a patch where its own mask, predicted from the tokens
    /// before this block and reduced bilinearly to the patch grid, is positive (EoMT paper, section 3.3).
    fn attention_mask(&mut self, name: &str, x: &Value, network: &Network) -> Value {
        let normed = self.norm_with(&format!("{name}.norm"), "norm", x, &network.norm);
        let queries = self.query_tokens(name, &normed);
        let logits = self.mask_logits(name, &normed, &queries, network);
        let (height, width) = self.mask_size();
        let logits = self.graph.reshape(&format!("{name}.map"), &logits, &[1, self.queries, height, width]);
        let logits = self.halve(&format!("{name}.patch_grid"), &logits);
        let patches = self.grid[0] * self.grid[1];
        let logits = self.graph.reshape(&format!("{name}.flat"), &logits, &[self.queries, patches]);
        let (zero, masked_out) = (self.scalar("zero", 0.0), self.scalar("masked_out", MASKED_OUT));
        let open = self.graph.node("Greater", &format!("{name}.open"), &[&logits, &zero], &[]);
        let bias = self.graph.node("Where", &format!("{name}.bias"), &[&open, &zero, &masked_out], &[]);
        // queries x patches sits at the upper right; every other pair of tokens sees each other
        let pads = [0, self.queries + self.prefix, self.prefix + patches, 0].map(|p| p as i64);
        let pads = self.graph.ints(&format!("{name}.pads"), &pads);
        self.graph.node("Pad", name, &[&bias, &pads, &zero], &[Attr::Text("mode", "constant")])
    }

    /// Bilinear reduction by `2^upscales` without antialiasing. The sample point falls exactly between the two middle pixels of
    /// each cell, so the interpolation is the mean of the cell's middle 2x2 pixels.
    fn halve(&mut self, name: &str, x: &Value) -> Value {
        let factor = 1usize << self.upscales;
        if factor == 1 {
            return x.clone();
        }
        let margin = factor / 2 - 1;
        let (height, width) = self.mask_size();
        let x = match margin {
            0 => x.clone(),
            _ => {
                let rows = self.graph.slice(&format!("{name}.rows"), x, 2, margin, height);
                self.graph.slice(&format!("{name}.columns"), &rows, 3, margin, width)
            }
        };
        let stride = factor as i64;
        let attrs = [Attr::Ints("kernel_shape", &[2, 2]), Attr::Ints("strides", &[stride, stride])];
        self.graph.node("AveragePool", name, &[&x], &attrs)
    }

    fn outputs(&mut self, x: &Value, network: &Network) {
        let normed = self.norm("norm", x, &network.norm);
        let queries = self.query_tokens("head", &normed);
        let classes = network.class_head.weight.shape[0];
        let class_logits = self.linear("head.class", &queries, network.class_head.clone(), None);
        let class_logits = self.graph.reshape(names::CLASS_LOGITS, &class_logits, &[1, self.queries, classes]);
        self.graph.output(&class_logits, &[1, self.queries, classes]);
        let masks = self.mask_logits("head", &normed, &queries, network);
        let (height, width) = self.mask_size();
        let masks = self.graph.reshape(names::MASK_LOGITS, &masks, &[1, self.queries, height, width]);
        self.graph.output(&masks, &[1, self.queries, height, width]);
    }
}

/// `[out, in]` to `[in, out]`, column `o` multiplied by `scale[o]`.
fn transpose(weight: Array, scale: Option<&[f32]>) -> Array {
    let (rows, columns) = (weight.shape[0], weight.shape[1]);
    let mut data = vec![0f32; rows * columns];
    for (o, row) in weight.data.chunks_exact(columns).enumerate() {
        let factor = scale.map_or(1.0, |scale| scale[o]);
        for (i, w) in row.iter().enumerate() {
            data[i * rows + o] = w * factor;
        }
    }
    Array { shape: vec![columns, rows], data }
}
