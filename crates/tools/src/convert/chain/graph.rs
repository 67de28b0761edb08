//! The operators as nodes of ONNX: tokens are `[1, count, width]`, maps `[1, channels, height, width]`.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use eomt_edge_core::model::names;

use super::deformable;
use crate::chain::{Activation, Attention, Backend, BatchNorm, Conv, Deformable, Linear, Map, Norm, Tokens, Weight};
use crate::checkpoint::Array;
use crate::convert::onnx::{Attr, GraphBuilder, Value};

/// Added to the scores of masked pairs; softmax turns them into exact zeros.
const MASKED_OUT: f32 = -1e9;

/// A graph under construction.
pub(super) struct Onnx {
    pub graph: GraphBuilder,
    weights: BTreeMap<String, Array>,
    /// How often a name was asked for.
    taken: HashMap<String, usize>,
}

type Done<T> = Result<T, Infallible>;

fn ints(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&value| value as i64).collect()
}

impl Onnx {
    pub(super) fn new(weights: BTreeMap<String, Array>) -> Onnx {
        Onnx { graph: GraphBuilder::default(), weights, taken: HashMap::new() }
    }

    /// `name`, or `name.2` for the second node of that name.
    fn fresh(&mut self, name: &str) -> String {
        let count = self.taken.entry(name.to_owned()).or_default();
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}.{count}") }
    }

    /// The reader has read all weights that the description names.
    fn array(&self, weight: &Weight) -> &Array {
        self.weights.get(&weight.name).unwrap_or_else(|| panic!("the weight '{}' was not read", weight.name))
    }

    fn vector(&self, weight: &Weight) -> Vec<f32> {
        self.array(weight).data.clone()
    }

    /// A weight as it is.
    fn initializer(&mut self, weight: &Weight) -> Value {
        let Array { shape, data } = self.array(weight).clone();
        self.graph.floats(&weight.name, &shape, &data)
    }

    fn scalar(&mut self, name: &str, value: f32) -> Value {
        self.graph.floats(&format!("const.{name}"), &[], &[value])
    }

    /// `x W^T + b` with each output multiplied by `scale`; `kind` tells scaled weights from others of the same name.
    fn product(&mut self, x: &Value, layer: &Linear, scale: Option<(&str, &[f32])>) -> Value {
        let Linear { weight, bias, start, from, to } = layer;
        let rows = &self.array(weight).data[start * from..(start + to) * from];
        let factor = |row: usize| scale.map_or(1.0, |(_, scale)| scale[row]);
        let mut transposed = vec![0.0f32; from * to];
        for (row, values) in rows.chunks_exact(*from).enumerate() {
            values.iter().enumerate().for_each(|(column, value)| transposed[column * to + row] = value * factor(row));
        }
        let part = if weight.shape[0] == *to { String::new() } else { format!(".{start}") };
        let kind = scale.map_or("", |(kind, _)| kind);
        let name = weight.name.trim_end_matches(".weight").to_owned() + &part;
        let initializer = self.graph.floats(&format!("{name}.weight{kind}"), &[*from, *to], &transposed);
        let node = self.fresh(&name);
        let Some(bias) = bias else { return self.graph.node("MatMul", &node, &[x, &initializer], &[]) };
        let values = &self.array(bias).data[*start..start + to];
        let values: Vec<f32> = values.iter().enumerate().map(|(row, value)| value * factor(row)).collect();
        let bias = self.graph.floats(&format!("{name}.bias{kind}"), &[*to], &values);
        let product = self.graph.node("MatMul", &format!("{node}.product"), &[x, &initializer], &[]);
        self.graph.node("Add", &node, &[&product, &bias], &[])
    }

    /// `[1, count, width]` split into heads and permuted.
    fn heads(&mut self, name: &str, x: &Value, heads: usize, width: usize, perm: &[i64]) -> Value {
        let split = self.graph.reshape(&format!("{name}.split"), x, &[0, 0, heads, width / heads]);
        self.graph.transpose(&format!("{name}.heads"), &split, perm)
    }

    /// Layer norm over the last axis.
    fn layer_norm(&mut self, x: &Value, norm: &Norm) -> Value {
        let (scale, shift) = (self.initializer(&norm.scale), self.initializer(&norm.shift));
        let name = self.fresh(norm.scale.name.trim_end_matches(".weight"));
        self.graph.node("LayerNormalization", &name, &[x, &scale, &shift], &[Attr::Int("axis", -1), Attr::Float("epsilon", norm.eps)])
    }

    /// Times and plus one number for each channel of a map.
    fn affine(&mut self, name: &str, x: &Value, scale: &[f32], shift: &[f32]) -> Value {
        let name = self.fresh(name);
        let factor = self.graph.floats(&format!("{name}.scale"), &[scale.len(), 1, 1], scale);
        let offset = self.graph.floats(&format!("{name}.shift"), &[shift.len(), 1, 1], shift);
        let scaled = self.graph.node("Mul", &format!("{name}.scaled"), &[x, &factor], &[]);
        self.graph.node("Add", &name, &[&scaled, &offset], &[])
    }

    /// What a recorded batch norm multiplies by and adds.
    fn recorded(&self, norm: &BatchNorm) -> (Vec<f32>, Vec<f32>) {
        let variance = &self.array(&norm.variance).data;
        let scale = self.array(&norm.norm.scale).data.iter().zip(variance);
        let scale: Vec<f32> = scale.map(|(scale, variance)| scale / (variance + norm.norm.eps).sqrt()).collect();
        let means = self.array(&norm.mean).data.iter().zip(&scale);
        let shift = self.array(&norm.norm.shift).data.iter().zip(means).map(|(shift, (mean, scale))| shift - mean * scale).collect();
        (scale, shift)
    }

    /// Bilinear reduction of `[1, Q, from]` to `to`: sample points lie between the two middle pixels of each cell.
    fn reduce(&mut self, name: &str, x: &Value, from: [usize; 2], to: [usize; 2]) -> Value {
        let factor = from[0] / to[0];
        if factor == 1 {
            return x.clone();
        }
        let margin = factor / 2 - 1;
        let mut x = x.clone();
        if margin > 0 {
            x = self.graph.slice(&format!("{name}.rows"), &x, 2, margin, from[0]);
            x = self.graph.slice(&format!("{name}.columns"), &x, 3, margin, from[1]);
        }
        let stride = factor as i64;
        let attrs = [Attr::Ints("kernel_shape", &[2, 2]), Attr::Ints("strides", &[stride, stride])];
        self.graph.node("AveragePool", &format!("{name}.reduced"), &[&x], &attrs)
    }
}

impl Backend for Onnx {
    type Value = Value;
    type Error = Infallible;

    fn pixels(&mut self, size: [usize; 2]) -> Done<Map<Value>> {
        Ok(Map { value: self.graph.input(names::INPUT, &[1, 3, size[0], size[1]]), channels: 3, size })
    }

    fn conv(&mut self, x: &Map<Value>, conv: &Conv) -> Done<Map<Value>> {
        let (kernel, channels) = (conv.weight.shape[2], conv.weight.shape[0]);
        let name = conv.weight.name.trim_end_matches(".weight").to_owned();
        let mut weight = self.vector(&conv.weight);
        let mut bias = conv.bias.as_ref().map(|bias| self.vector(bias));
        if let Some(norm) = &conv.norm {
            let (scale, mut shift) = self.recorded(norm);
            let each = weight.len() / channels;
            weight.chunks_exact_mut(each).zip(&scale).for_each(|(rows, scale)| rows.iter_mut().for_each(|value| *value *= scale));
            bias.iter().flatten().zip(&scale).zip(&mut shift).for_each(|((bias, scale), shift)| *shift += bias * scale);
            bias = Some(shift);
        }
        let mut inputs = vec![x.value.clone(), self.graph.floats(&format!("{name}.weight"), &conv.weight.shape, &weight)];
        inputs.extend(bias.map(|bias| self.graph.floats(&format!("{name}.bias"), &[channels], &bias)));
        let (kernels, strides, pads) = ([kernel as i64; 2], [conv.stride as i64; 2], [conv.padding as i64; 4]);
        let attrs = [Attr::Ints("kernel_shape", &kernels), Attr::Ints("strides", &strides), Attr::Ints("pads", &pads)];
        // without padding as EoMT's patch embedding has it
        let attrs = if conv.padding == 0 { &attrs[..2] } else { &attrs[..] };
        let node = self.fresh(&name);
        let value = self.graph.node("Conv", &node, &inputs.iter().collect::<Vec<_>>(), attrs);
        let size = x.size.map(|side| (side + 2 * conv.padding - kernel) / conv.stride + 1);
        Ok(Map { value, channels, size })
    }

    fn transposed_conv(&mut self, x: &Map<Value>, weight: &Weight, bias: &Weight) -> Done<Map<Value>> {
        let (kernel, offset) = (self.initializer(weight), self.initializer(bias));
        let name = self.fresh(weight.name.trim_end_matches(".weight"));
        let attrs = [Attr::Ints("kernel_shape", &[2, 2]), Attr::Ints("strides", &[2, 2])];
        let value = self.graph.node("ConvTranspose", &name, &[&x.value, &kernel, &offset], &attrs);
        Ok(Map { value, channels: weight.shape[1], size: x.size.map(|side| 2 * side) })
    }

    fn depthwise(&mut self, x: &Map<Value>, weight: &Weight, bias: Option<&Weight>) -> Done<Map<Value>> {
        let mut inputs = vec![x.value.clone(), self.initializer(weight)];
        inputs.extend(bias.map(|bias| self.initializer(bias)));
        let attrs = [
            Attr::Ints("kernel_shape", &[3, 3]),
            Attr::Ints("pads", &[1, 1, 1, 1]),
            Attr::Ints("strides", &[1, 1]),
            Attr::Int("group", x.channels as i64),
        ];
        let name = self.fresh(weight.name.trim_end_matches(".weight"));
        Ok(x.with(self.graph.node("Conv", &name, &inputs.iter().collect::<Vec<_>>(), &attrs)))
    }

    fn max_pool(&mut self, x: &Map<Value>, kernel: usize, stride: usize, padding: usize) -> Done<Map<Value>> {
        let (kernels, strides, pads) = ([kernel as i64; 2], [stride as i64; 2], [padding as i64; 4]);
        let attrs = [Attr::Ints("kernel_shape", &kernels), Attr::Ints("strides", &strides), Attr::Ints("pads", &pads)];
        let name = self.fresh("max_pool");
        let value = self.graph.node("MaxPool", &name, &[&x.value], &attrs);
        Ok(Map { value, channels: x.channels, size: x.size.map(|side| (side + 2 * padding - kernel) / stride + 1) })
    }

    fn batch_norm(&mut self, x: &Map<Value>, norm: &BatchNorm) -> Done<Map<Value>> {
        let (scale, shift) = self.recorded(norm);
        Ok(x.with(self.affine(norm.norm.scale.name.trim_end_matches(".weight"), &x.value, &scale, &shift)))
    }

    /// ONNX has an operator for it from opset 18 on only.
    fn group_norm(&mut self, x: &Map<Value>, norm: &Norm, groups: usize) -> Done<Map<Value>> {
        let name = self.fresh(norm.scale.name.trim_end_matches(".weight"));
        let grouped = self.graph.reshape(&format!("{name}.groups"), &x.value, &[1, groups, x.channels / groups * x.area()]);
        let ones = self.graph.floats(&format!("const.ones.{groups}"), &[groups], &vec![1.0; groups]);
        let zeros = self.graph.floats(&format!("const.zeros.{groups}"), &[groups], &vec![0.0; groups]);
        let epsilon = [Attr::Float("epsilon", norm.eps)];
        let normed = self.graph.node("InstanceNormalization", &format!("{name}.normed"), &[&grouped, &ones, &zeros], &epsilon);
        let back = self.graph.reshape(&format!("{name}.map"), &normed, &[1, x.channels, x.size[0], x.size[1]]);
        let (scale, shift) = (self.vector(&norm.scale), self.vector(&norm.shift));
        Ok(x.with(self.affine(&format!("{name}.affine"), &back, &scale, &shift)))
    }

    fn map_norm(&mut self, x: &Map<Value>, norm: &Norm) -> Done<Map<Value>> {
        let name = self.fresh(&format!("{}.map", norm.scale.name.trim_end_matches(".weight")));
        let last = self.graph.transpose(&format!("{name}.channels_last"), &x.value, &[0, 2, 3, 1]);
        let normed = self.layer_norm(&last, norm);
        Ok(x.with(self.graph.transpose(&format!("{name}.channels_first"), &normed, &[0, 3, 1, 2])))
    }

    fn resize(&mut self, x: &Map<Value>, size: [usize; 2]) -> Done<Map<Value>> {
        let name = self.fresh("resize");
        let sizes = self.graph.ints(&format!("{name}.sizes"), &ints(&[1, x.channels, size[0], size[1]]));
        let absent = Value::absent();
        let attrs = [Attr::Text("mode", "linear"), Attr::Text("coordinate_transformation_mode", "half_pixel")];
        let value = self.graph.node("Resize", &name, &[&x.value, &absent, &absent, &sizes], &attrs);
        Ok(Map { value, channels: x.channels, size })
    }

    fn to_tokens(&mut self, x: &Map<Value>) -> Done<Tokens<Value>> {
        let name = self.fresh("tokens");
        let flat = self.graph.reshape(&format!("{name}.flat"), &x.value, &[1, x.channels, x.area()]);
        Ok(Tokens { value: self.graph.transpose(&name, &flat, &[0, 2, 1]), count: x.area(), width: x.channels })
    }

    fn to_map(&mut self, x: &Tokens<Value>, size: [usize; 2]) -> Done<Map<Value>> {
        let name = self.fresh("map");
        let channels_first = self.graph.transpose(&format!("{name}.channels_first"), &x.value, &[0, 2, 1]);
        let value = self.graph.reshape(&name, &channels_first, &[1, x.width, size[0], size[1]]);
        Ok(Map { value, channels: x.width, size })
    }

    fn concat(&mut self, parts: &[&Tokens<Value>]) -> Done<Tokens<Value>> {
        let name = self.fresh("concat");
        let values: Vec<&Value> = parts.iter().map(|part| &part.value).collect();
        let value = self.graph.node("Concat", &name, &values, &[Attr::Int("axis", 1)]);
        Ok(Tokens { value, count: parts.iter().map(|part| part.count).sum(), width: parts[0].width })
    }

    fn slice(&mut self, x: &Tokens<Value>, start: usize, count: usize) -> Done<Tokens<Value>> {
        let name = self.fresh("slice");
        Ok(Tokens { value: self.graph.slice(&name, &x.value, 1, start, start + count), count, width: x.width })
    }

    fn learned(&mut self, weight: &Weight) -> Done<Tokens<Value>> {
        let Array { shape, data } = self.array(weight).clone();
        let [.., count, width] = shape[..] else { unreachable!("tokens have two axes") };
        Ok(Tokens { value: self.graph.floats(&weight.name, &[1, count, width], &data), count, width })
    }

    fn add_row(&mut self, x: &Tokens<Value>, weight: &Weight, row: usize) -> Done<Tokens<Value>> {
        let values = self.array(weight).data[row * x.width..(row + 1) * x.width].to_vec();
        let row = self.graph.floats(&format!("{}.{row}", weight.name), &[x.width], &values);
        let name = self.fresh("level");
        Ok(x.with(self.graph.node("Add", &name, &[&x.value, &row], &[])))
    }

    fn constant(&mut self, values: &dyn Fn() -> Vec<f32>, count: usize, width: usize) -> Done<Tokens<Value>> {
        let name = self.fresh("positions");
        Ok(Tokens { value: self.graph.floats(&name, &[1, count, width], &values()), count, width })
    }

    fn add(&mut self, a: &Value, b: &Value) -> Done<Value> {
        let name = self.fresh("add");
        Ok(self.graph.node("Add", &name, &[a, b], &[]))
    }

    fn activate(&mut self, x: &Value, activation: Activation) -> Done<Value> {
        let name = self.fresh("activation");
        if activation == Activation::Relu {
            return Ok(self.graph.node("Relu", &name, &[x], &[]));
        }
        // in the operators and the order that other runtimes fuse
        let (factor, one, half) =
            (self.scalar("inv_sqrt2", std::f32::consts::FRAC_1_SQRT_2), self.scalar("one", 1.0), self.scalar("half", 0.5));
        let scaled = self.graph.node("Mul", &format!("{name}.scaled"), &[x, &factor], &[]);
        let curve = self.graph.node("Erf", &format!("{name}.erf"), &[&scaled], &[]);
        let shifted = self.graph.node("Add", &format!("{name}.shifted"), &[&curve, &one], &[]);
        let product = self.graph.node("Mul", &format!("{name}.product"), &[x, &shifted], &[]);
        Ok(self.graph.node("Mul", &name, &[&product, &half], &[]))
    }

    fn linear(&mut self, x: &Tokens<Value>, layer: &Linear) -> Done<Tokens<Value>> {
        Ok(Tokens { value: self.product(&x.value, layer, None), count: x.count, width: layer.to })
    }

    fn residual(&mut self, x: &Tokens<Value>, y: &Tokens<Value>, layer: &Linear, scale: Option<&Weight>) -> Done<Tokens<Value>> {
        let scale = scale.map(|scale| self.vector(scale));
        let branch = self.product(&y.value, layer, scale.as_deref().map(|scale| (".scaled", scale)));
        let name = self.fresh("residual");
        Ok(x.with(self.graph.node("Add", &name, &[&x.value, &branch], &[])))
    }

    fn norm(&mut self, x: &Tokens<Value>, norm: &Norm) -> Done<Tokens<Value>> {
        Ok(x.with(self.layer_norm(&x.value, norm)))
    }

    fn attention(&mut self, attention: &Attention<Value>) -> Done<Tokens<Value>> {
        let Attention { queries, keys, values, layers, heads, mask } = attention;
        let width = layers[0].to;
        let name = self.fresh("attention");
        let scale = vec![1.0 / ((width / heads) as f32).sqrt(); width];
        let q = self.product(&queries.value, layers[0], Some((".scaled", &scale)));
        let k = self.product(&keys.value, layers[1], None);
        let v = self.product(&values.value, layers[2], None);
        let q = self.heads(&format!("{name}.q"), &q, *heads, width, &[0, 2, 1, 3]);
        let v = self.heads(&format!("{name}.v"), &v, *heads, width, &[0, 2, 1, 3]);
        let k = self.heads(&format!("{name}.k"), &k, *heads, width, &[0, 2, 3, 1]);
        let mut scores = self.graph.node("MatMul", &format!("{name}.scores"), &[&q, &k], &[]);
        if let Some(mask) = mask {
            scores = self.graph.node("Add", &format!("{name}.scores.masked"), &[&scores, mask], &[]);
        }
        let weights = self.graph.node("Softmax", &format!("{name}.weights"), &[&scores], &[Attr::Int("axis", -1)]);
        let x = self.graph.node("MatMul", &format!("{name}.values"), &[&weights, &v], &[]);
        let x = self.graph.transpose(&format!("{name}.values.tokens_first"), &x, &[0, 2, 1, 3]);
        let value = self.graph.reshape(&format!("{name}.values.merged"), &x, &[0, 0, width]);
        Ok(Tokens { value, count: queries.count, width })
    }

    fn deformable(&mut self, attention: &Deformable<Value>) -> Done<Tokens<Value>> {
        let name = self.fresh("deformable");
        Ok(deformable::write(&mut self.graph, &name, attention))
    }

    fn mask_logits(&mut self, queries: &Tokens<Value>, pixels: &Map<Value>) -> Done<Tokens<Value>> {
        let name = self.fresh("mask_logits");
        let features = self.graph.reshape(&format!("{name}.features"), &pixels.value, &[1, pixels.channels, pixels.area()]);
        let value = self.graph.node("MatMul", &name, &[&queries.value, &features], &[]);
        Ok(Tokens { value, count: queries.count, width: pixels.area() })
    }

    fn attention_mask(&mut self, logits: &Tokens<Value>, from: [usize; 2], to: [usize; 2]) -> Done<Value> {
        let name = self.fresh("attention_mask");
        let map = self.graph.reshape(&format!("{name}.map"), &logits.value, &[1, logits.count, from[0], from[1]]);
        let map = self.reduce(&name, &map, from, to);
        let flat = self.graph.reshape(&format!("{name}.flat"), &map, &[1, logits.count, to[0] * to[1]]);
        let (zero, masked_out) = (self.scalar("zero", 0.0), self.scalar("masked_out", MASKED_OUT));
        let closed = self.graph.node("Less", &format!("{name}.closed"), &[&flat, &zero], &[]);
        let bias = self.graph.node("Where", &format!("{name}.bias"), &[&closed, &masked_out, &zero], &[]);
        // a query whose mask is empty sees everything
        let largest =
            self.graph.node("ReduceMax", &format!("{name}.largest"), &[&flat], &[Attr::Ints("axes", &[-1]), Attr::Int("keepdims", 1)]);
        let empty = self.graph.node("Less", &format!("{name}.empty"), &[&largest, &zero], &[]);
        Ok(self.graph.node("Where", &name, &[&empty, &zero, &bias], &[]))
    }

    fn wants_all(&self) -> bool {
        false
    }
}
