//! From tokens to mask logits: mask head, upscaling, their product, and the attention masks that training leaves in a network.

use super::{Form, Writer};
use crate::checkpoint::{Activation, Network, ScaleBlock};
use crate::convert::layers;
use crate::convert::onnx::{Attr, Value};

/// Added to the scores of masked pairs; softmax turns them into exact zeros.
const MASKED_OUT: f32 = -1e9;

impl Writer {
    /// Query tokens `[1, Q, hidden]` of normalized tokens that include the queries.
    pub(super) fn query_tokens(&mut self, name: &str, normed: &Value) -> Value {
        self.graph.slice(&format!("{name}.query_tokens"), normed, 1, 0, self.queries)
    }

    /// Mask head times upscaled patch tokens: `[Q, grid << upscales]` flattened to `[1, Q, pixels]`.
    pub(super) fn mask_logits(&mut self, name: &str, normed: &Value, query_tokens: &Value, network: &Network) -> Value {
        let mut q = query_tokens.clone();
        for (i, linear) in network.mask_head.iter().enumerate() {
            let weights = format!("mask_head.{i}");
            q = self.linear_with(&format!("{name}.{weights}"), &weights, &q, linear.clone(), None);
            if i < 2 {
                q = self.activation(&format!("{name}.mask_head.{i}.activation"), &q, network.head_activation);
            }
        }
        let start = self.queries + self.prefix;
        let patches = self.graph.slice(&format!("{name}.patch_tokens"), normed, 1, start, start + self.grid[0] * self.grid[1]);
        self.inputs.push((layers::MASK_QUERIES.to_owned(), q.clone()));
        let features = match self.form {
            Form::Float => self.features_of_maps(name, &patches, network),
            Form::Tokens { .. } => self.features_of_tokens(name, patches, network),
        };
        self.graph.node("MatMul", &format!("{name}.mask_logits"), &[&q, &features], &[])
    }

    pub(super) fn mask_size(&self) -> (usize, usize) {
        (self.grid[0] << self.upscales, self.grid[1] << self.upscales)
    }

    /// Features `[1, hidden, pixels]` of patch tokens, computed on maps `[1, hidden, height, width]`.
    fn features_of_maps(&mut self, name: &str, patches: &Value, network: &Network) -> Value {
        let x = self.graph.transpose(&format!("{name}.patch_tokens.channels_first"), patches, &[0, 2, 1]);
        let mut x = self.graph.reshape(&format!("{name}.patch_map"), &x, &[1, self.hidden, self.grid[0], self.grid[1]]);
        for (i, block) in network.scale_blocks.iter().enumerate() {
            let weights = format!("scale_block.{i}");
            x = self.scale_map(&format!("{name}.{weights}"), &weights, &x, block, network.head_activation);
        }
        let (height, width) = self.mask_size();
        self.graph.reshape(&format!("{name}.features"), &x, &[1, self.hidden, height * width])
    }

    /// The same with channels last from end to end, so that the transposed convolutions are linears on tokens.
    fn features_of_tokens(&mut self, name: &str, patches: Value, network: &Network) -> Value {
        let mut x = patches;
        let [mut height, mut width] = self.grid;
        for (i, block) in network.scale_blocks.iter().enumerate() {
            let weights = format!("scale_block.{i}");
            x = self.scale_tokens(&format!("{name}.{weights}"), &weights, &x, block, (height, width), network.head_activation);
            (height, width) = (2 * height, 2 * width);
        }
        self.inputs.push((layers::MASK_FEATURES.to_owned(), x.clone()));
        self.graph.transpose(&format!("{name}.features"), &x, &[0, 2, 1])
    }

    /// Doubles height and width (EoMT paper, section 3.2: transposed convolution, GELU, depthwise 3x3, LayerNorm over channels).
    fn scale_map(&mut self, name: &str, weights: &str, x: &Value, block: &ScaleBlock, activation: Activation) -> Value {
        let weight = self.graph.floats(&format!("{weights}.up.weight"), &block.up_weight.shape, &block.up_weight.data);
        let bias = self.graph.floats(&format!("{weights}.up.bias"), &[self.hidden], &block.up_bias);
        let attrs = [Attr::Ints("kernel_shape", &[2, 2]), Attr::Ints("strides", &[2, 2])];
        let x = self.graph.node("ConvTranspose", &format!("{name}.up"), &[x, &weight, &bias], &attrs);
        let x = self.activation(&format!("{name}.activation"), &x, activation);
        let x = self.smooth_map(name, weights, &x, block);
        self.graph.transpose(&format!("{name}.channels_first"), &x, &[0, 3, 1, 2])
    }

    /// [`Writer::scale_map`] on tokens `[1, height * width, hidden]`; the result is `[1, 4 * height * width, hidden]`.
    fn scale_tokens(
        &mut self,
        name: &str,
        weights: &str,
        x: &Value,
        block: &ScaleBlock,
        (height, width): (usize, usize),
        activation: Activation,
    ) -> Value {
        let hidden = self.hidden;
        let x = self.linear_with(&format!("{name}.up"), &format!("{weights}.up"), x, layers::up_linear(block), None);
        let x = self.graph.reshape(&format!("{name}.up.split"), &x, &[height, width, 2, 2, hidden]);
        let x = self.graph.transpose(&format!("{name}.up.pixels"), &x, &[0, 2, 1, 3, 4]);
        let x = self.graph.reshape(&format!("{name}.up.map"), &x, &[1, 2 * height, 2 * width, hidden]);
        let x = self.activation(&format!("{name}.activation"), &x, activation);
        let x = self.graph.transpose(&format!("{name}.channels_first"), &x, &[0, 3, 1, 2]);
        let x = self.smooth_map(name, weights, &x, block);
        self.graph.reshape(&format!("{name}.tokens"), &x, &[1, 4 * height * width, hidden])
    }

    /// Depthwise convolution and norm, from channels first to channels last.
    fn smooth_map(&mut self, name: &str, weights: &str, x: &Value, block: &ScaleBlock) -> Value {
        let weight = self.graph.floats(&format!("{weights}.depthwise.weight"), &block.depthwise.shape, &block.depthwise.data);
        let attrs = [
            Attr::Ints("kernel_shape", &[3, 3]),
            Attr::Ints("pads", &[1, 1, 1, 1]),
            Attr::Ints("strides", &[1, 1]),
            Attr::Int("group", self.hidden as i64),
        ];
        let x = self.graph.node("Conv", &format!("{name}.depthwise"), &[x, &weight], &attrs);
        let x = self.graph.transpose(&format!("{name}.channels_last"), &x, &[0, 2, 3, 1]);
        self.norm_with(&format!("{name}.norm"), &format!("{weights}.norm"), &x, &block.norm)
    }

    /// Additive attention mask `[1, tokens, tokens]`: a query may attend to a patch where its own mask, predicted from the tokens
    /// before this block and resized bilinearly to the patch grid, is positive (EoMT paper, section 3.3).
    pub(super) fn attention_mask(&mut self, name: &str, x: &Value, network: &Network) -> Value {
        let normed = self.norm_with(&format!("{name}.norm"), "norm", x, &network.norm);
        let queries = self.query_tokens(name, &normed);
        let logits = self.mask_logits(name, &normed, &queries, network);
        let (height, width) = self.mask_size();
        let logits = self.graph.reshape(&format!("{name}.map"), &logits, &[1, self.queries, height, width]);
        let logits = self.halve(&format!("{name}.patch_grid"), &logits);
        let patches = self.grid[0] * self.grid[1];
        let logits = self.graph.reshape(&format!("{name}.flat"), &logits, &[1, self.queries, patches]);
        let (zero, masked_out) = (self.scalar("zero", 0.0), self.scalar("masked_out", MASKED_OUT));
        let open = self.graph.node("Greater", &format!("{name}.open"), &[&logits, &zero], &[]);
        let bias = self.graph.node("Where", &format!("{name}.bias"), &[&open, &zero, &masked_out], &[]);
        // queries x patches sits at the upper right; every other pair of tokens sees each other
        let pads = [0, 0, self.queries + self.prefix, 0, self.prefix + patches, 0].map(|p| p as i64);
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
}
