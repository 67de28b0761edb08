//! The networks with Mask2Former's decoder as differentiable graphs: [`eomt_edge_tools::chain`] over candle.
//!
//! Maps are `[B, height, width, channels]`, tokens `[B, count, width]`. Images of a batch are independent: batch norm uses recorded
//! statistics, which stay as they are (0 and 1 from random weights), so a step does not depend on how its batch is cut into shards.

mod deformable;
#[cfg(test)]
mod tests;
mod windows;

use candle_core::{Device, Error, Result, Tensor};
use eomt_edge_tools::chain::{
    self, Activation, Attention, Backend, BatchNorm, Conv, Deformable, Linear, Map, Norm, PATCH, Sizes, Tokens, Weight,
};

use super::matmul::{matmul, matmul_transposed};
use super::network::Logits;
use super::operators::{add_bias, depthwise, gelu, layer_norm, scaled_add, softmax};
use super::parameters::Parameters;
use super::points;

/// Added to the scores of masked pairs.
const BLOCKED: f32 = -1e9;

/// From patches `[B, N, 3 P P]` (channel, row, column; normalized) to a prediction before the transformer decoder and one behind each layer.
pub(super) fn forward(sizes: &Sizes, parameters: &Parameters, patches: &Tensor) -> Result<Vec<Logits>> {
    let mut graph = Graph { parameters, patches };
    let predictions = chain::run(&mut graph, sizes, [sizes.image; 2])?;
    let logits = |prediction: chain::Prediction<Tensor>| Logits { classes: prediction.classes.value, masks: prediction.masks.value };
    Ok(predictions.into_iter().map(logits).collect())
}

/// The operators on tensors of candle.
struct Graph<'a> {
    parameters: &'a Parameters,
    patches: &'a Tensor,
}

impl Graph<'_> {
    fn weight(&self, weight: &Weight) -> Result<&Tensor> {
        self.parameters.get(&weight.name)
    }

    fn batch(&self) -> Result<usize> {
        self.patches.dim(0)
    }

    /// `[.., from]` to `[.., to]`
    fn product(&self, x: &Tensor, layer: &Linear) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        shape.pop();
        let rows: usize = shape.iter().product();
        shape.push(layer.to);
        let part = |tensor: &Tensor| {
            if tensor.dim(0)? == layer.to { Ok(tensor.clone()) } else { tensor.narrow(0, layer.start, layer.to)?.contiguous() }
        };
        let product = matmul_transposed(&x.reshape((rows, layer.from))?, &part(self.weight(&layer.weight)?)?)?;
        match &layer.bias {
            Some(bias) => add_bias(&product, &part(self.weight(bias)?)?)?.reshape(shape),
            None => product.reshape(shape),
        }
    }

    /// What a recorded batch norm multiplies by and adds, `[channels]`; no gradient reaches the statistics.
    fn recorded(&self, norm: &BatchNorm) -> Result<(Tensor, Tensor)> {
        let (mean, variance) = (self.weight(&norm.mean)?.detach(), self.weight(&norm.variance)?.detach());
        let deviation = (variance + f64::from(norm.norm.eps))?.sqrt()?;
        let scale = self.weight(&norm.norm.scale)?.div(&deviation)?;
        let shift = (self.weight(&norm.norm.shift)? - (&mean * &scale)?)?;
        Ok((scale, shift))
    }

    fn layer_norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        layer_norm(x, self.weight(&norm.scale)?, self.weight(&norm.shift)?, norm.eps)
    }

    fn heads(&self, x: &Tensor, layer: &Linear, heads: usize) -> Result<Tensor> {
        let (batch, count, _) = x.dims3()?;
        self.product(x, layer)?.reshape((batch, count, heads, layer.to / heads))?.transpose(1, 2)?.contiguous()
    }
}

impl Backend for Graph<'_> {
    type Value = Tensor;
    type Error = Error;

    fn pixels(&mut self, size: [usize; 2]) -> Result<Map<Tensor>> {
        let (batch, [rows, columns]) = (self.batch()?, size.map(|side| side / PATCH));
        let patches = self.patches.reshape((batch, rows, columns, 3, PATCH * PATCH))?;
        let patches = patches.reshape(&[batch, rows, columns, 3, PATCH, PATCH][..])?.permute(&[0, 1, 4, 2, 5, 3][..])?;
        Ok(Map { value: patches.contiguous()?.reshape((batch, size[0], size[1], 3))?, channels: 3, size })
    }

    fn conv(&mut self, x: &Map<Tensor>, conv: &Conv) -> Result<Map<Tensor>> {
        let [to, from, kernel, _] = conv.weight.shape[..] else { unreachable!("a kernel has four axes") };
        let size = x.size.map(|side| (side + 2 * conv.padding - kernel) / conv.stride + 1);
        let rows = self.batch()? * size[0] * size[1];
        let columns = match (kernel, conv.stride) {
            (1, 1) => x.value.clone(),
            _ => windows::unfold(&x.value, kernel, conv.stride, conv.padding)?,
        };
        // windows hold channels last
        let weight = self.weight(&conv.weight)?.permute((2, 3, 1, 0))?.reshape((kernel * kernel * from, to))?;
        let mut y = matmul(&columns.reshape((rows, kernel * kernel * from))?, &weight)?;
        if let Some(bias) = &conv.bias {
            y = add_bias(&y, self.weight(bias)?)?;
        }
        if let Some(norm) = &conv.norm {
            let (scale, shift) = self.recorded(norm)?;
            y = add_bias(&y.broadcast_mul(&scale)?, &shift)?;
        }
        Ok(Map { value: y.reshape((self.batch()?, size[0], size[1], to))?, channels: to, size })
    }

    fn transposed_conv(&mut self, x: &Map<Tensor>, weight: &Weight, bias: &Weight) -> Result<Map<Tensor>> {
        let (batch, [height, width], to) = (self.batch()?, x.size, weight.shape[1]);
        let kernel = self.weight(weight)?.permute((0, 2, 3, 1))?.reshape((x.channels, 4 * to))?;
        let up = matmul(&x.value.reshape((batch * height * width, x.channels))?, &kernel)?;
        let up = up.reshape((batch, height, width, 2, 2, to))?.permute((0, 1, 3, 2, 4, 5))?;
        let up = add_bias(&up.reshape((batch, 2 * height, 2 * width, to))?, self.weight(bias)?)?;
        Ok(Map { value: up, channels: to, size: [2 * height, 2 * width] })
    }

    fn depthwise(&mut self, x: &Map<Tensor>, weight: &Weight, bias: Option<&Weight>) -> Result<Map<Tensor>> {
        let taps = self.weight(weight)?.reshape((x.channels, 9))?.t()?.contiguous()?;
        let y = depthwise(&x.value, &taps)?;
        Ok(x.with(match bias {
            Some(bias) => add_bias(&y, self.weight(bias)?)?,
            None => y,
        }))
    }

    fn max_pool(&mut self, x: &Map<Tensor>, kernel: usize, stride: usize, padding: usize) -> Result<Map<Tensor>> {
        let value = windows::max_pool(&x.value, kernel, stride, padding)?;
        Ok(Map { value, channels: x.channels, size: x.size.map(|side| (side + 2 * padding - kernel) / stride + 1) })
    }

    fn batch_norm(&mut self, x: &Map<Tensor>, norm: &BatchNorm) -> Result<Map<Tensor>> {
        let (scale, shift) = self.recorded(norm)?;
        Ok(x.with(add_bias(&x.value.broadcast_mul(&scale)?, &shift)?))
    }

    fn group_norm(&mut self, x: &Map<Tensor>, norm: &Norm, groups: usize) -> Result<Map<Tensor>> {
        let batch = self.batch()?;
        let (area, each) = (x.area(), x.channels / groups);
        // one row for each image and group
        let rows = x.value.reshape((batch, area, groups, each))?.transpose(1, 2)?.contiguous()?.reshape((batch * groups, area * each))?;
        let (ones, zeros) =
            (Tensor::ones(area * each, rows.dtype(), rows.device())?, Tensor::zeros(area * each, rows.dtype(), rows.device())?);
        let normed = layer_norm(&rows, &ones, &zeros, norm.eps)?.reshape((batch, groups, area, each))?.transpose(1, 2)?.contiguous()?;
        let normed = normed.reshape((batch, x.size[0], x.size[1], x.channels))?;
        Ok(x.with(add_bias(&normed.broadcast_mul(self.weight(&norm.scale)?)?, self.weight(&norm.shift)?)?))
    }

    fn map_norm(&mut self, x: &Map<Tensor>, norm: &Norm) -> Result<Map<Tensor>> {
        Ok(x.with(self.layer_norm(&x.value, norm)?))
    }

    fn resize(&mut self, x: &Map<Tensor>, size: [usize; 2]) -> Result<Map<Tensor>> {
        Ok(Map { value: windows::resize(&x.value, size)?, channels: x.channels, size })
    }

    fn to_tokens(&mut self, x: &Map<Tensor>) -> Result<Tokens<Tensor>> {
        let count = x.area();
        Ok(Tokens { value: x.value.reshape((self.batch()?, count, x.channels))?, count, width: x.channels })
    }

    fn to_map(&mut self, x: &Tokens<Tensor>, size: [usize; 2]) -> Result<Map<Tensor>> {
        let value = x.value.contiguous()?.reshape((self.batch()?, size[0], size[1], x.width))?;
        Ok(Map { value, channels: x.width, size })
    }

    fn concat(&mut self, parts: &[&Tokens<Tensor>]) -> Result<Tokens<Tensor>> {
        let values: Vec<&Tensor> = parts.iter().map(|part| &part.value).collect();
        Ok(Tokens { value: Tensor::cat(&values, 1)?, count: parts.iter().map(|part| part.count).sum(), width: parts[0].width })
    }

    fn slice(&mut self, x: &Tokens<Tensor>, start: usize, count: usize) -> Result<Tokens<Tensor>> {
        Ok(Tokens { value: x.value.narrow(1, start, count)?.contiguous()?, count, width: x.width })
    }

    fn learned(&mut self, weight: &Weight) -> Result<Tokens<Tensor>> {
        let [.., count, width] = weight.shape[..] else { unreachable!("tokens have two axes") };
        let tokens = self.weight(weight)?.reshape((1, count, width))?.broadcast_as((self.batch()?, count, width))?;
        Ok(Tokens { value: tokens.contiguous()?, count, width })
    }

    fn add_row(&mut self, x: &Tokens<Tensor>, weight: &Weight, row: usize) -> Result<Tokens<Tensor>> {
        let row = self.weight(weight)?.narrow(0, row, 1)?.reshape(x.width)?;
        Ok(x.with(add_bias(&x.value, &row)?))
    }

    fn constant(&mut self, values: &dyn Fn() -> Vec<f32>, count: usize, width: usize) -> Result<Tokens<Tensor>> {
        let one = Tensor::from_vec(values(), (1, count, width), &Device::Cpu)?;
        Ok(Tokens { value: one.broadcast_as((self.batch()?, count, width))?.contiguous()?, count, width })
    }

    fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a + b
    }

    fn activate(&mut self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match activation {
            Activation::Gelu => gelu(x),
            Activation::Relu => x.relu(),
        }
    }

    fn linear(&mut self, x: &Tokens<Tensor>, layer: &Linear) -> Result<Tokens<Tensor>> {
        Ok(Tokens { value: self.product(&x.value, layer)?, count: x.count, width: layer.to })
    }

    fn residual(&mut self, x: &Tokens<Tensor>, y: &Tokens<Tensor>, layer: &Linear, scale: Option<&Weight>) -> Result<Tokens<Tensor>> {
        let branch = self.product(&y.value, layer)?;
        Ok(x.with(match scale {
            Some(scale) => scaled_add(&x.value, &branch, self.weight(scale)?)?,
            None => (&x.value + branch)?,
        }))
    }

    fn norm(&mut self, x: &Tokens<Tensor>, norm: &Norm) -> Result<Tokens<Tensor>> {
        Ok(x.with(self.layer_norm(&x.value, norm)?))
    }

    fn attention(&mut self, attention: &Attention<Tensor>) -> Result<Tokens<Tensor>> {
        let Attention { queries, keys, values, layers, heads, mask } = attention;
        let width = layers[0].to;
        let (q, k) = (self.heads(&queries.value, layers[0], *heads)?, self.heads(&keys.value, layers[1], *heads)?);
        let v = self.heads(&values.value, layers[2], *heads)?;
        let scale = 1.0 / ((width / heads) as f64).sqrt();
        let mut scores = matmul_transposed(&(q * scale)?, &k)?;
        if let Some(mask) = mask {
            scores = scores.broadcast_add(mask)?;
        }
        let mixed = matmul(&softmax(&scores)?, &v)?.transpose(1, 2)?.contiguous()?.reshape((self.batch()?, queries.count, width))?;
        Ok(Tokens { value: mixed, count: queries.count, width })
    }

    fn deformable(&mut self, attention: &Deformable<Tensor>) -> Result<Tokens<Tensor>> {
        deformable::apply(attention)
    }

    fn mask_logits(&mut self, queries: &Tokens<Tensor>, pixels: &Map<Tensor>) -> Result<Tokens<Tensor>> {
        let area = pixels.size[0] * pixels.size[1];
        let features = pixels.value.reshape((self.batch()?, area, pixels.channels))?;
        Ok(Tokens { value: matmul_transposed(&queries.value, &features)?, count: queries.count, width: area })
    }

    fn attention_mask(&mut self, logits: &Tokens<Tensor>, from: [usize; 2], to: [usize; 2]) -> Result<Tensor> {
        let (batch, count) = (self.batch()?, logits.count);
        let centre = |at: usize, side: usize| (at as f32 + 0.5) / side as f32;
        let centres: Vec<[f32; 2]> = (0..to[0] * to[1]).map(|pixel| [centre(pixel % to[1], to[1]), centre(pixel / to[1], to[0])]).collect();
        let taps = points::taps(&centres, from);
        let planes = logits.value.detach().flatten_all()?.to_vec1::<f32>()?;
        let mut mask = Vec::with_capacity(batch * count * centres.len());
        for plane in planes.chunks_exact(from[0] * from[1]) {
            let row = points::sample(plane, &taps);
            // a query whose mask is empty sees everything
            let empty = row.iter().all(|logit| *logit < 0.0);
            mask.extend(row.iter().map(|logit| if *logit < 0.0 && !empty { BLOCKED } else { 0.0 }));
        }
        Tensor::from_vec(mask, (batch, 1, count, centres.len()), logits.value.device())
    }

    fn wants_all(&self) -> bool {
        true
    }
}
