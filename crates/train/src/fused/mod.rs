//! Whole parts of the network as one operator each: attention with its norm and residual, the MLP with its, ScaleBlocks with the mask product.
//!
//! The framework's graph would keep every value in between, copy it for every change of layout, and add each gradient to fresh zeros. These keep
//! what their gradient needs and cannot compute again for less, in memory that is used again. They hold their weights, and add the gradients of
//! these to a [`Workspace`].

mod attention;
mod masks;
mod mlp;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};

pub(super) use attention::{Attention, QueryMask, Rotation, attention};
pub(super) use masks::{Masks, ScaleBlock, masks};
pub(super) use mlp::{Mlp, mlp};

use super::operators::with_values;
use super::product::{Sum, Target, View, multiply};
use super::rows;
use super::workspace::{Buffer, Workspace};

/// A layer norm in front of a part.
pub(super) struct Norm {
    pub scale: Tensor,
    pub shift: Tensor,
    pub eps: f32,
}

impl Norm {
    /// The norm of rows, and their moments.
    fn forward(&self, x: &[f32], workspace: &Workspace) -> Result<(Buffer, Buffer)> {
        with_values([&self.scale, &self.shift], |[scale, shift]| {
            let (mut normed, mut moments) = (workspace.take(x.len()), workspace.take(2 * x.len() / scale.len()));
            rows::normalize(x, rows::Norm { scale, shift, eps: self.eps }, &mut moments, &mut normed);
            (normed, moments)
        })
    }

    fn again(&self, x: &[f32], moments: &[f32], workspace: &Workspace) -> Result<Buffer> {
        with_values([&self.scale, &self.shift], |[scale, shift]| {
            let mut normed = workspace.take(x.len());
            rows::normalize_again(x, rows::Norm { scale, shift, eps: self.eps }, moments, &mut normed);
            normed
        })
    }

    /// The gradient of `x` in place of what `into` holds, or added to it.
    fn backward(&self, x: &[f32], moments: &[f32], grad: &[f32], into: (&mut [f32], Sum), workspace: &Workspace) -> Result<()> {
        with_values([&self.scale], |[scale]| {
            let mut slopes = rows::NormSlopes::new(scale.len());
            rows::normalize_backward(x, scale, moments, grad, &mut slopes, into);
            workspace.add(&self.scale, &slopes.scale);
            workspace.add(&self.shift, &slopes.shift);
        })
    }
}

/// Weights `[to, from]` and a bias `[to]`.
pub(super) struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

impl Linear {
    fn bias(&self) -> Result<Vec<f32>> {
        match &self.bias {
            Some(bias) => with_values([bias], |[bias]| bias.to_vec()),
            None => Ok(vec![0.0; self.weight.dim(0)?]),
        }
    }

    /// `out = x Wᵀ`, rows of `out` being `apart` values apart.
    fn multiply(&self, x: &[f32], out: &mut [f32], apart: usize) -> Result<()> {
        let (to, from) = self.weight.dims2()?;
        with_values([&self.weight], |[weight]| {
            let shape = [x.len() / from, to];
            multiply(Target::apart(out, shape, apart), View::rows(x, from), View::rows(weight, from).transposed(), Sum::Fresh);
        })
    }

    /// `dx = grad W` or added to `dx`, and `grad ᵀ x` to the gradient of the weights; rows of `grad` are `apart` values apart.
    fn backward(&self, x: &[f32], grad: &[f32], apart: usize, (dx, sum): (&mut [f32], Sum), workspace: &Workspace) -> Result<()> {
        let (to, from) = self.weight.dims2()?;
        let (x, grad) = (View::rows(x, from), View::apart(grad, [x.len() / from, to], apart));
        workspace.gradient(&self.weight, |dw| multiply(Target::rows(dw, from), grad.transposed(), x, Sum::Onto));
        with_values([&self.weight], |[weight]| multiply(Target::rows(dx, from), grad, View::rows(weight, from), sum))
    }

    fn add_bias(&self, sums: &[f32], workspace: &Workspace) {
        if let Some(bias) = &self.bias {
            workspace.add(bias, sums);
        }
    }
}

/// The end of a residual branch: `x + scale * (y Wᵀ + b)`, `scale` a LayerScale `[to]`.
///
/// It is a linear layer of weights `scale * W` and bias `scale * b`. With `M = grad ᵀ y` and `s`, the sum of the rows of `grad`, the gradients are
/// `scale * M` and `scale * s`, and that of the scale is, row by row, `M · W + s b`: the branch itself need not be kept.
pub(super) struct Residual {
    pub linear: Linear,
    pub scale: Tensor,
}

impl Residual {
    fn scaled_weight(&self, workspace: &Workspace) -> Result<Buffer> {
        with_values([&self.linear.weight, &self.scale], |[weight, scale]| {
            let mut scaled = workspace.take(weight.len());
            let from = weight.len() / scale.len();
            scaled.copy_from_slice(weight);
            scaled.chunks_exact_mut(from).zip(scale).for_each(|(row, scale)| row.iter_mut().for_each(|weight| *weight *= scale));
            scaled
        })
    }

    fn forward(&self, x: &[f32], y: &[f32], workspace: &Workspace) -> Result<Vec<f32>> {
        let from = self.linear.weight.dim(1)?;
        let mut bias = self.linear.bias()?;
        with_values([&self.scale], |[scale]| rows::times(&mut bias, scale))?;
        let mut out = x.to_vec();
        rows::add_bias(&mut out, &bias);
        let weight = self.scaled_weight(workspace)?;
        multiply(Target::rows(&mut out, bias.len()), View::rows(y, from), View::rows(&weight, from).transposed(), Sum::Onto);
        Ok(out)
    }

    /// Adds the gradients of the weights; `y` becomes its own gradient.
    fn backward(&self, y: &mut [f32], grad: &[f32], workspace: &Workspace) -> Result<()> {
        let (to, from) = self.linear.weight.dims2()?;
        let mut along = workspace.take(to * from);
        multiply(Target::rows(&mut along, from), View::rows(grad, to).transposed(), View::rows(y, from), Sum::Fresh);
        let mut sums = vec![0.0; to];
        rows::add_rows(grad, &mut sums);
        let bias = self.linear.bias()?;
        with_values([&self.linear.weight, &self.scale], |[weight, scale]| {
            let mut dscale: Vec<f32> = sums.iter().zip(&bias).map(|(sum, bias)| sum * bias).collect();
            for ((dscale, weight), along) in dscale.iter_mut().zip(weight.chunks_exact(from)).zip(along.chunks_exact(from)) {
                *dscale += rows::dot(weight, along);
            }
            workspace.add(&self.scale, &dscale);
            workspace.gradient(&self.linear.weight, |dw| {
                for ((dw, along), scale) in dw.chunks_exact_mut(from).zip(along.chunks_exact(from)).zip(scale) {
                    rows::add_scaled(dw, *scale, along);
                }
            });
            rows::times(&mut sums, scale);
        })?;
        self.linear.add_bias(&sums, workspace);
        drop(along);
        let weight = self.scaled_weight(workspace)?;
        multiply(Target::rows(y, from), View::rows(grad, to), View::rows(&weight, from), Sum::Fresh);
        Ok(())
    }
}

/// What a forward pass left for the backward pass.
fn taken<T>(saved: &std::sync::Mutex<Option<T>>) -> Result<T> {
    match saved.lock().ok().and_then(|mut saved| saved.take()) {
        Some(saved) => Ok(saved),
        None => bail!("a gradient without its forward pass"),
    }
}
