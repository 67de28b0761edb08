//! Operators with hand-written gradients, where the framework would compose many passes over memory.
//!
//! Each is a forward and a backward loop over rows of `f32`, which the fused parts of the network share; the tests compare the gradients with finite differences and the values
//! with compositions of the framework's operators.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail};

use super::depthwise::{self, Grid, Order};
use super::parameters::Activation;
use super::product::Sum;
use super::rows::{self, ISA};

/// `[.., D]` → `[.., D]`: `(x - mean) / sqrt(var + eps) * scale + shift` over the last axis.
pub(super) fn layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f32) -> Result<Tensor> {
    x.contiguous()?.apply_op3(scale, shift, LayerNorm { eps })
}

/// `x Φ(x)`, with the error function.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Activate(Activation::Gelu))
}

/// `x sigmoid(x)`.
pub(super) fn silu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Activate(Activation::Silu))
}

/// `[.., D]` plus `[D]`.
pub(super) fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(bias, AddBias)
}

/// `x + y * scale`: `[.., D]`, `[.., D]` and `[D]`. A residual branch with its LayerScale.
pub(super) fn scaled_add(x: &Tensor, y: &Tensor, scale: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op3(&y.contiguous()?, scale, ScaledAdd)
}

/// Softmax over the last axis.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Softmax)
}

/// Depthwise 3x3, padding 1: `[B, H, W, C]` with `[9, C]` → `[B, H, W, C]`.
pub(super) fn depthwise(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(weight, Depthwise)
}

/// The values of a contiguous tensor.
pub(super) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a tensor that is not contiguous") };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Calls `f` with the values of contiguous tensors.
pub(super) fn with_values<const N: usize, T>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> T) -> Result<T> {
    let whole = tensors.map(|tensor| tensor.contiguous());
    let mut held = Vec::with_capacity(N);
    for tensor in whole {
        held.push(tensor?);
    }
    let guards: Vec<_> = held.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else { bail!("a tensor that is not on the CPU") };
        *slice = values(storage, layout)?;
    }
    Ok(f(slices))
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, scale, shift) = (values(x, layout)?, values(scale, scale_layout)?, values(shift, shift_layout)?);
        let (mut out, mut moments) = (vec![0.0; x.len()], vec![0.0; 2 * x.len() / scale.len()]);
        rows::normalize(x, rows::Norm { scale, shift, eps: self.eps }, &mut moments, &mut out);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dscale, dshift) = with_values([x, scale, grad], |[x, scale, grad]| {
            let (mut dx, mut slopes) = (vec![0.0; x.len()], rows::NormSlopes::new(scale.len()));
            rows::normalize_backward(x, scale, &rows::all_moments(x, scale.len(), self.eps), grad, &mut slopes, (&mut dx, Sum::Fresh));
            (dx, slopes.scale, slopes.shift)
        })?;
        let tensor = |data: Vec<f32>, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device());
        Ok((Some(tensor(dx, x)?), Some(tensor(dscale, scale)?), Some(tensor(dshift, shift)?)))
    }
}

struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, bias: &CpuStorage, bias_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (values(x, layout)?, values(bias, bias_layout)?);
        let mut out = x.to_vec();
        rows::add_bias(&mut out, bias);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, bias: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dbias = with_values([grad], |[grad]| {
            let mut dbias = vec![0.0f32; bias.elem_count()];
            rows::add_rows(grad, &mut dbias);
            dbias
        })?;
        Ok((Some(grad.clone()), Some(Tensor::from_vec(dbias, bias.shape(), bias.device())?)))
    }
}

struct ScaledAdd;

impl CustomOp3 for ScaledAdd {
    fn name(&self) -> &'static str {
        "scaled-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, y, scale) = (values(x, layout)?, values(y, y_layout)?, values(scale, scale_layout)?);
        let mut out = x.to_vec();
        ISA.vectorize(
            #[inline(always)]
            || {
                for (out, y) in out.chunks_exact_mut(scale.len()).zip(y.chunks_exact(scale.len())) {
                    for ((out, y), scale) in out.iter_mut().zip(y).zip(scale) {
                        *out += y * scale;
                    }
                }
            },
        );
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        y: &Tensor,
        scale: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dy, dscale) = with_values([y, scale, grad], |[y, scale, grad]| {
            let d = scale.len();
            let (mut dy, mut dscale) = (vec![0.0f32; y.len()], vec![0.0f32; d]);
            ISA.vectorize(
                #[inline(always)]
                || {
                    for ((dy, y), grad) in dy.chunks_exact_mut(d).zip(y.chunks_exact(d)).zip(grad.chunks_exact(d)) {
                        for ((((dy, dscale), y), grad), scale) in dy.iter_mut().zip(dscale.iter_mut()).zip(y).zip(grad).zip(scale) {
                            *dy = grad * scale;
                            *dscale += grad * y;
                        }
                    }
                },
            );
            (dy, dscale)
        })?;
        let dy = Tensor::from_vec(dy, y.shape(), y.device())?;
        Ok((Some(grad.clone()), Some(dy), Some(Tensor::from_vec(dscale, scale.shape(), scale.device())?)))
    }
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let mut y = vec![0.0; x.len()];
        rows::activate(self.0, x, &mut y);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values([x, grad], |[x, grad]| {
            let (mut slopes, mut y) = (x.to_vec(), vec![0.0; x.len()]);
            rows::activate_slopes(self.0, &mut slopes, &mut y);
            rows::times(&mut slopes, grad);
            slopes
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = values(x, layout)?.to_vec();
        let Some(&width) = layout.dims().last() else { bail!("softmax of a scalar") };
        for row in y.chunks_exact_mut(width) {
            let inverse = rows::softmax(row);
            rows::scale(row, inverse);
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = x.dim(candle_core::D::Minus1)?;
        let dx = with_values([y, grad], |[y, grad]| {
            let mut dx = grad.to_vec();
            for (y, dx) in y.chunks_exact(width).zip(dx.chunks_exact_mut(width)) {
                rows::softmax_backward(y, 1.0, rows::dot(y, dx), dx);
            }
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

struct Depthwise;

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-3x3"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, weight: &CpuStorage, weight_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, height, width, channels) = layout.shape().dims4()?;
        let (x, weight) = (values(x, layout)?, values(weight, weight_layout)?);
        let mut out = vec![0.0f32; x.len()];
        let (grid, plane) = (Grid { height, width }, height * width * channels);
        for (x, out) in x.chunks_exact(plane).zip(out.chunks_exact_mut(plane)) {
            depthwise::forward(*ISA, x, weight, grid, Order::Rows, out);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, height, width, channels) = x.shape().dims4()?;
        let (grid, plane) = (Grid { height, width }, height * width * channels);
        let (dx, dweight) = with_values([x, weight, grad], |[x, weight, grad]| {
            let (mut dx, mut dweight) = (vec![0.0f32; x.len()], vec![0.0f32; weight.len()]);
            for ((x, grad), dx) in x.chunks_exact(plane).zip(grad.chunks_exact(plane)).zip(dx.chunks_exact_mut(plane)) {
                depthwise::backward(*ISA, x, weight, grid, Order::Rows, grad, (dx, &mut dweight));
            }
            (dx, dweight)
        })?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), Some(Tensor::from_vec(dweight, weight.shape(), weight.device())?)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::{Device, Var};

    use super::*;

    pub(crate) fn random(shape: &[usize], seed: u64) -> Var {
        let mut rng = eomt_edge_core::scenes::Rng::new(seed, 77);
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
        Var::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// The slope of `f` along a random direction, by central differences, against the gradient. `f` sums its output with random weights.
    pub(crate) fn check(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Var]) {
        let tensors = |vars: &[Var]| -> Vec<Tensor> { vars.iter().map(|var| var.as_tensor().clone()).collect() };
        let out = f(&tensors(inputs)).unwrap();
        let weights = random(out.dims(), 99);
        let objective = |vars: &[Var]| (f(&tensors(vars)).unwrap() * weights.as_tensor()).unwrap().sum_all().unwrap();
        let grads = objective(inputs).backward().unwrap();
        for (place, input) in inputs.iter().enumerate() {
            let direction = random(input.dims(), 1000 + place as u64);
            let slope = (grads.get(input).unwrap() * direction.as_tensor()).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let step = 1e-2;
            let at = |sign: f64| {
                let mut moved = inputs.to_vec();
                let there = (input.as_tensor() + (direction.as_tensor() * (sign * step)).unwrap()).unwrap();
                moved[place] = Var::from_tensor(&there).unwrap();
                objective(&moved).to_scalar::<f32>().unwrap()
            };
            let measured = (at(1.0) - at(-1.0)) / (2.0 * step as f32);
            // f32 sums of some hundred terms over a step of 1e-2: the difference carries about three digits.
            assert!((slope - measured).abs() < 2e-2 * (1.0 + measured.abs()), "input {place}: {slope} against {measured}");
        }
    }

    #[test]
    fn gradients_are_the_slopes() {
        check(|t| layer_norm(&t[0], &t[1], &t[2], 1e-6), &[random(&[5, 37], 1), random(&[37], 2), random(&[37], 3)]);
        check(|t| add_bias(&t[0], &t[1]), &[random(&[4, 11], 11), random(&[11], 12)]);
        check(|t| scaled_add(&t[0], &t[1], &t[2]), &[random(&[4, 11], 13), random(&[4, 11], 14), random(&[11], 15)]);
        check(|t| gelu(&t[0]), &[random(&[7, 19], 4)]);
        check(|t| softmax(&t[0]), &[random(&[6, 21], 5)]);
        check(|t| depthwise(&t[0], &t[1]), &[random(&[2, 4, 3, 5], 6), random(&[9, 5], 7)]);
    }

    #[test]
    fn values_are_those_of_the_framework() {
        let x = random(&[3, 50], 8);
        let close = |a: &Tensor, b: &Tensor| {
            let apart = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(apart < 2e-6, "{apart}"); // some units in the last place at magnitude 4
        };
        close(&gelu(&x).unwrap(), &x.gelu_erf().unwrap());
        let e = x.exp().unwrap();
        close(&softmax(&x).unwrap(), &e.broadcast_div(&e.sum_keepdim(1).unwrap()).unwrap());
        let (input, weight) = (random(&[2, 5, 4, 3], 9), random(&[9, 3], 10));
        let planes = input.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let kernel = weight.t().unwrap().reshape((3, 1, 3, 3)).unwrap().contiguous().unwrap();
        let expected = planes.conv2d(&kernel, 1, 1, 1, 3).unwrap().permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        close(&depthwise(&input, &weight).unwrap(), &expected);
    }
}
