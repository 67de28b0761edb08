//! Products with weights: `x W^T + b` in f32 or with int8 weights.
//!
//! The int8 form is the one that onnxruntime.quantization writes, since its fusions match exactly that: the input is
//! quantized at run time (`DynamicQuantizeLinear`), multiplied as integers, and one multiplication restores the scale.
//! A runtime may quantize the input per token instead: the zero point of the weights is 0.

use std::collections::BTreeMap;

use super::{Form, Writer};
use crate::checkpoint::{Array, Linear};
use crate::convert::onnx::Value;
use crate::convert::quantize::{Int8Layer, Int8Rows};

/// From an input to its quantized form: values, scale, zero point.
pub(super) type QuantizedInputs = BTreeMap<Value, [Value; 3]>;

impl Writer {
    /// `x W^T + b`, every output channel multiplied by `scale` when given.
    pub(super) fn linear(&mut self, name: &str, x: &Value, linear: Linear, scale: Option<&[f32]>) -> Value {
        self.linear_with(name, name, x, linear, scale)
    }

    /// [`Writer::linear`] with weights that other nodes may share under the name `weights`.
    pub(super) fn linear_with(&mut self, name: &str, weights: &str, x: &Value, linear: Linear, scale: Option<&[f32]>) -> Value {
        self.inputs.push((weights.to_owned(), x.clone()));
        let Linear { weight, mut bias } = linear;
        let int8 = match &self.form {
            Form::Tokens { int8 } => int8.get(weights).cloned(),
            Form::Float => None,
        };
        if let Some(Int8Layer { correction, .. }) = &int8 {
            let bias = bias.get_or_insert_with(|| vec![0.0; correction.len()]);
            bias.iter_mut().zip(correction).for_each(|(bias, correction)| *bias += correction);
        }
        let product = if bias.is_some() { format!("{name}.product") } else { name.to_owned() };
        let product = match int8 {
            Some(layer) => self.product_int8(name, &product, weights, x, layer.weights, scale),
            None => self.product_f32(&product, weights, x, weight, scale),
        };
        let Some(bias) = &mut bias else { return product };
        if let Some(scale) = scale {
            bias.iter_mut().zip(scale).for_each(|(b, s)| *b *= s);
        }
        let bias = self.graph.floats(&format!("{weights}.bias"), &[bias.len()], bias);
        self.graph.node("Add", name, &[&product, &bias], &[])
    }

    fn product_f32(&mut self, name: &str, weights: &str, x: &Value, weight: Array, scale: Option<&[f32]>) -> Value {
        let transposed = transpose(weight, scale);
        let weight = self.graph.floats(&format!("{weights}.weight"), &transposed.shape, &transposed.data);
        drop(transposed);
        self.graph.node("MatMul", name, &[x, &weight], &[])
    }

    /// The result has the name `product`; names of intermediate values start with `name`.
    fn product_int8(
        &mut self,
        name: &str,
        product: &str,
        weights: &str,
        x: &Value,
        mut quantized: Int8Rows,
        scale: Option<&[f32]>,
    ) -> Value {
        let (outputs, inputs) = (quantized.scales.len(), quantized.columns);
        if let Some(scale) = scale {
            quantized.scales.iter_mut().zip(scale).for_each(|(of_row, factor)| *of_row *= factor);
        }
        let weight = self.graph.bytes(&format!("{weights}.weight"), &[inputs, outputs], &quantized.transposed());
        let weight_scale = self.graph.floats(&format!("{weights}.weight.scale"), &[outputs], &quantized.scales);
        let weight_zero = self.graph.bytes(&format!("{weights}.weight.zero_point"), &[outputs], &vec![0; outputs]);
        let [x, x_scale, x_zero] = self.quantize_input(x);
        let integers = self.graph.node("MatMulInteger", &format!("{name}.integers"), &[&x, &weight, &x_zero, &weight_zero], &[]);
        let floats = self.graph.cast_to_f32(&format!("{name}.unscaled"), &integers);
        let scales = self.graph.node("Mul", &format!("{name}.scales"), &[&x_scale, &weight_scale], &[]);
        self.graph.node("Mul", product, &[&floats, &scales], &[])
    }

    fn quantize_input(&mut self, x: &Value) -> [Value; 3] {
        if let Some(quantized) = self.quantized.get(x) {
            return quantized.clone();
        }
        let quantized = self.graph.quantize_dynamically(x);
        self.quantized.insert(x.clone(), quantized.clone());
        quantized
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
