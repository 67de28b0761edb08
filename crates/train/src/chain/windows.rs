//! What reads windows of a map `[B, height, width, channels]`: unfolding for convolutions, max pooling, bilinear resizing. Gradients go back
//! to where values came from.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use crate::operators::{values, with_values};

/// `[B, h, w, C]` to `[B, h', w', k k C]`: the window of each output pixel, row by row, zeros outside.
pub(super) fn unfold(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Unfold(Windows { kernel, stride, padding }))
}

/// `[B, h, w, C]` to `[B, h', w', C]`: the largest value of each window, the first of equal ones.
pub(super) fn max_pool(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    x.contiguous()?.apply_op1(MaxPool(Windows { kernel, stride, padding }))
}

/// `[B, h, w, C]` to `[B, size[0], size[1], C]`, bilinear, without antialiasing, pixel centres at halves.
pub(super) fn resize(x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Resize(size))
}

#[derive(Clone, Copy)]
struct Windows {
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Windows {
    fn outputs(&self, side: usize) -> usize {
        (side + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Calls `visit(output pixel, place in the window, input pixel)` for all places inside of the map, in order.
    fn visit(&self, height: usize, width: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let (rows, columns) = (self.outputs(height), self.outputs(width));
        for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
            for place in 0..self.kernel * self.kernel {
                let inside =
                    |at: usize, offset: usize, side: usize| (at * self.stride + offset).checked_sub(self.padding).filter(|at| *at < side);
                if let (Some(v), Some(u)) = (inside(y, place / self.kernel, height), inside(x, place % self.kernel, width)) {
                    visit(y * columns + x, place, v * width + u);
                }
            }
        }
    }
}

struct Unfold(Windows);

impl CustomOp1 for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let x = values(x, layout)?;
        let (rows, columns, window) = (self.0.outputs(height), self.0.outputs(width), self.0.kernel * self.0.kernel * channels);
        let mut out = vec![0.0f32; batch * rows * columns * window];
        let (plane, unfolded) = (height * width * channels, rows * columns * window);
        for (x, out) in x.chunks_exact(plane).zip(out.chunks_exact_mut(unfolded)) {
            self.0.visit(height, width, |pixel, place, from| {
                out[pixel * window + place * channels..][..channels].copy_from_slice(&x[from * channels..][..channels]);
            });
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, rows, columns, window))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, height, width, channels) = x.dims4()?;
        let (rows, columns, window) = (self.0.outputs(height), self.0.outputs(width), self.0.kernel * self.0.kernel * channels);
        let dx = with_values([grad], |[grad]| {
            let mut dx = vec![0.0f32; x.elem_count()];
            let (plane, unfolded) = (height * width * channels, rows * columns * window);
            for (dx, grad) in dx.chunks_exact_mut(plane).zip(grad.chunks_exact(unfolded)) {
                self.0.visit(height, width, |pixel, place, from| {
                    let grad = &grad[pixel * window + place * channels..][..channels];
                    dx[from * channels..][..channels].iter_mut().zip(grad).for_each(|(dx, grad)| *dx += grad);
                });
            }
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

struct MaxPool(Windows);

impl MaxPool {
    /// Values and the pixels that they came from, of one image.
    fn pool(&self, x: &[f32], [height, width, channels]: [usize; 3], out: &mut [f32], from: &mut [u32]) {
        out.fill(f32::NEG_INFINITY);
        self.0.visit(height, width, |pixel, _, at| {
            let best = out[pixel * channels..][..channels].iter_mut().zip(&mut from[pixel * channels..][..channels]);
            for ((best, from), value) in best.zip(&x[at * channels..][..channels]) {
                if value > best {
                    (*best, *from) = (*value, at as u32);
                }
            }
        });
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let x = values(x, layout)?;
        let (rows, columns) = (self.0.outputs(height), self.0.outputs(width));
        let pooled = rows * columns * channels;
        let (mut out, mut from) = (vec![0.0f32; batch * pooled], vec![0u32; pooled]);
        for (x, out) in x.chunks_exact(height * width * channels).zip(out.chunks_exact_mut(pooled)) {
            self.pool(x, [height, width, channels], out, &mut from);
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, rows, columns, channels))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, height, width, channels) = x.dims4()?;
        let pooled = self.0.outputs(height) * self.0.outputs(width) * channels;
        let plane = height * width * channels;
        let dx = with_values([x, grad], |[x, grad]| {
            let (mut dx, mut out, mut from) = (vec![0.0f32; x.len()], vec![0.0f32; pooled], vec![0u32; pooled]);
            for ((x, grad), dx) in x.chunks_exact(plane).zip(grad.chunks_exact(pooled)).zip(dx.chunks_exact_mut(plane)) {
                self.pool(x, [height, width, channels], &mut out, &mut from);
                for (at, (grad, from)) in grad.iter().zip(&from).enumerate() {
                    dx[*from as usize * channels + at % channels] += grad;
                }
            }
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

struct Resize([usize; 2]);

/// For each of `to` pixels: two source pixels and their weights.
fn taps(from: usize, to: usize) -> Vec<[(usize, f32); 2]> {
    let one = |at: usize| {
        let place = ((at as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
        let first = (place as usize).min(from - 1);
        let share = place - first as f32;
        [(first, 1.0 - share), ((first + 1).min(from - 1), share)]
    };
    (0..to).map(one).collect()
}

impl Resize {
    /// Calls `visit(output pixel, input pixel, weight)` in order.
    fn visit(&self, height: usize, width: usize, mut visit: impl FnMut(usize, usize, f32)) {
        let [rows, columns] = self.0;
        let across = taps(width, columns);
        for (y, down) in taps(height, rows).into_iter().enumerate() {
            for (x, across) in across.iter().enumerate() {
                for ((v, a), (u, b)) in down.iter().flat_map(|down| across.iter().map(move |across| (*down, *across))) {
                    visit(y * columns + x, v * width + u, a * b);
                }
            }
        }
    }
}

impl CustomOp1 for Resize {
    fn name(&self) -> &'static str {
        "resize"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        if height == 0 || width == 0 {
            bail!("an empty map cannot be resized");
        }
        let x = values(x, layout)?;
        let resized = self.0[0] * self.0[1] * channels;
        let mut out = vec![0.0f32; batch * resized];
        for (x, out) in x.chunks_exact(height * width * channels).zip(out.chunks_exact_mut(resized)) {
            self.visit(height, width, |pixel, from, weight| {
                let row = out[pixel * channels..][..channels].iter_mut();
                row.zip(&x[from * channels..][..channels]).for_each(|(out, x)| *out += weight * x);
            });
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, self.0[0], self.0[1], channels))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, height, width, channels) = x.dims4()?;
        let resized = self.0[0] * self.0[1] * channels;
        let dx = with_values([grad], |[grad]| {
            let mut dx = vec![0.0f32; x.elem_count()];
            for (dx, grad) in dx.chunks_exact_mut(height * width * channels).zip(grad.chunks_exact(resized)) {
                self.visit(height, width, |pixel, from, weight| {
                    let row = dx[from * channels..][..channels].iter_mut();
                    row.zip(&grad[pixel * channels..][..channels]).for_each(|(dx, grad)| *dx += weight * grad);
                });
            }
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::tests::{check, random};

    #[test]
    fn gradients_are_the_slopes() {
        check(|t| unfold(&t[0], 3, 2, 1), &[random(&[2, 5, 4, 3], 1)]);
        check(|t| unfold(&t[0], 2, 2, 0), &[random(&[1, 4, 6, 2], 2)]);
        check(|t| resize(&t[0], [7, 2]), &[random(&[2, 3, 5, 4], 3)]);
    }

    /// Where the largest value of a window leads by less than a finite difference's step, slopes are none; these values are far apart.
    #[test]
    fn the_largest_value_gets_the_gradient() {
        let values: Vec<f32> = (0..2 * 5 * 6 * 3).map(|at| (at * 37 % 180) as f32 / 4.0).collect();
        let x = candle_core::Var::from_vec(values, (2, 5, 6, 3), &candle_core::Device::Cpu).unwrap();
        check(|t| max_pool(&t[0], 3, 2, 1), &[x]);
    }

    /// `torch.nn.functional.interpolate(torch.arange(6.).view(1, 1, 2, 3), size=(4, 2), mode="bilinear", align_corners=False)`.
    #[test]
    fn resizing_is_that_of_torch() {
        let x = Tensor::arange(0.0f32, 6.0, &candle_core::Device::Cpu).unwrap().reshape((1, 2, 3, 1)).unwrap();
        let y: Vec<f32> = resize(&x, [4, 2]).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let torch = [0.25, 1.75, 1.0, 2.5, 2.5, 4.0, 3.25, 4.75];
        assert!(y.iter().zip(torch).all(|(ours, torch)| (ours - torch).abs() < 1e-6), "{y:?}");
    }
}
