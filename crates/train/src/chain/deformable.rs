//! Multi-scale deformable attention (Zhu et al. 2021, section 4.1) with its gradient: bilinear samples of projected values, zeros outside of
//! the maps.
//!
//! ```text
//! for each image, query, head:
//!     for each map and point: place = reference * side + offset - 1/2;  four pixels around it, weighed by nearness
//!     output = sum of attention weight * sample
//! ```

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use eomt_edge_tools::chain::{Deformable, Tokens};

use crate::operators::{softmax, values, with_values};

pub(super) fn apply(attention: &Deformable<Tensor>) -> Result<Tokens<Tensor>> {
    let Deformable { values, offsets, scores, reference, levels, heads, points } = *attention;
    let (batch, count, width) = (values.value.dim(0)?, offsets.count, values.width);
    let weights = softmax(&scores.value.reshape((batch, count, heads, levels.len() * points))?)?;
    let sampler = Sampler { reference: reference.to_vec(), levels: levels.to_vec(), heads, points };
    let value = values.value.contiguous()?.apply_op3(&offsets.value.contiguous()?, &weights, sampler)?;
    Ok(Tokens { value, count, width })
}

struct Sampler {
    reference: Vec<[f32; 2]>,
    levels: Vec<[usize; 2]>,
    heads: usize,
    points: usize,
}

/// One sample: the place among a query's, the head, and the four pixels with their weights and the slopes of these by x and y.
struct Place {
    at: usize,
    head: usize,
    corners: [Option<(usize, f32, [f32; 2])>; 4],
}

impl Sampler {
    /// Of all maps.
    fn pixels(&self) -> usize {
        self.levels.iter().map(|[height, width]| height * width).sum()
    }

    /// Of a query: heads, maps, points.
    fn places(&self) -> usize {
        self.heads * self.levels.len() * self.points
    }

    /// Calls `visit` for every place of a query; `offsets` are the query's.
    fn visit(&self, query: usize, offsets: &[f32], mut visit: impl FnMut(&Place)) {
        let [x, y] = self.reference[query];
        for head in 0..self.heads {
            let mut first = 0;
            for (level, [height, width]) in self.levels.iter().copied().enumerate() {
                for point in 0..self.points {
                    let at = (head * self.levels.len() + level) * self.points + point;
                    let (u, v) = (x * width as f32 + offsets[2 * at] - 0.5, y * height as f32 + offsets[2 * at + 1] - 0.5);
                    visit(&Place { at, head, corners: corners(u, v, [height, width], first) });
                }
                first += height * width;
            }
        }
    }
}

/// The four pixels around (u, v) of a map whose first pixel is `first`.
fn corners(u: f32, v: f32, [height, width]: [usize; 2], first: usize) -> [Option<(usize, f32, [f32; 2])>; 4] {
    let (left, top) = (u.floor(), v.floor());
    let (a, b) = (u - left, v - top);
    let parts = [
        (0.0, 0.0, (1.0 - a) * (1.0 - b), [b - 1.0, a - 1.0]),
        (1.0, 0.0, a * (1.0 - b), [1.0 - b, -a]),
        (0.0, 1.0, (1.0 - a) * b, [-b, 1.0 - a]),
        (1.0, 1.0, a * b, [b, a]),
    ];
    parts.map(|(right, down, weight, slopes)| {
        let (x, y) = (left + right, top + down);
        // comparisons with NaN are false
        let inside = x >= 0.0 && y >= 0.0 && x < width as f32 && y < height as f32;
        inside.then(|| (first + y as usize * width + x as usize, weight, slopes))
    })
}

impl CustomOp3 for Sampler {
    fn name(&self) -> &'static str {
        "deformable-attention"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        offsets: &CpuStorage,
        offsets_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, _, width) = x_layout.shape().dims3()?;
        let (x, offsets, weights) = (values(x, x_layout)?, values(offsets, offsets_layout)?, values(weights, weights_layout)?);
        let (pixels, places, count, each) = (self.pixels(), self.places(), self.reference.len(), width / self.heads);
        let mut out = vec![0.0f32; batch * count * width];
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let x = &x[row / count * pixels * width..][..pixels * width];
            self.visit(row % count, &offsets[row * 2 * places..][..2 * places], |place| {
                let weight = weights[row * places + place.at];
                let out = &mut out[place.head * each..][..each];
                for (pixel, share, _) in place.corners.iter().flatten() {
                    let values = &x[pixel * width + place.head * each..][..each];
                    out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * share * value);
                }
            });
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, count, width))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        offsets: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, _, width) = x.dims3()?;
        let (pixels, places, count, each) = (self.pixels(), self.places(), self.reference.len(), width / self.heads);
        let (dx, doffsets, dweights) = with_values([x, offsets, weights, grad], |[x, offsets, weights, grad]| {
            let (mut dx, mut doffsets, mut dweights) = (vec![0.0f32; x.len()], vec![0.0f32; offsets.len()], vec![0.0f32; weights.len()]);
            for (row, grad) in grad.chunks_exact(width).enumerate() {
                let image = row / count * pixels * width;
                self.visit(row % count, &offsets[row * 2 * places..][..2 * places], |place| {
                    let weight = weights[row * places + place.at];
                    let grad = &grad[place.head * each..][..each];
                    for (pixel, share, slopes) in place.corners.iter().flatten() {
                        let start = image + pixel * width + place.head * each;
                        let along: f32 = x[start..start + each].iter().zip(grad).map(|(value, grad)| value * grad).sum();
                        dx[start..start + each].iter_mut().zip(grad).for_each(|(dx, grad)| *dx += weight * share * grad);
                        dweights[row * places + place.at] += share * along;
                        for (axis, slope) in slopes.iter().enumerate() {
                            doffsets[2 * (row * places + place.at) + axis] += weight * slope * along;
                        }
                    }
                });
            }
            (dx, doffsets, dweights)
        })?;
        let tensor = |data: Vec<f32>, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device()).map(Some);
        Ok((tensor(dx, x)?, tensor(doffsets, offsets)?, tensor(dweights, weights)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::tests::{check, random};

    /// Two heads of three channels, two maps, three points. Places lie inside and outside of the maps, but away from pixel centres, where slopes
    /// change by more than a finite difference can tell.
    #[test]
    fn gradients_are_the_slopes() {
        let reference = vec![[0.3, 0.4], [0.9, 0.6], [0.05, 0.5], [0.5, 0.98], [0.62, 0.13]];
        let levels = vec![[4, 5], [2, 3]];
        let mut offsets = Vec::new();
        for (row, number) in (0..2 * reference.len()).flat_map(|row| (0..2 * 2 * 3 * 2).map(move |number| (row, number))) {
            let (axis, level) = (number % 2, number / 6 % 2);
            let [height, width]: [usize; 2] = levels[level];
            let side = [width, height][axis] as f32;
            let place = ((row * 24 + number) * 11 % 7) as f32 - 1.0 + 0.35 + 0.3 * ((row + number) % 5) as f32 / 4.0;
            offsets.push(place - reference[row % reference.len()][axis] * side + 0.5);
        }
        let offsets = candle_core::Var::from_vec(offsets, (2, 5, 24), &candle_core::Device::Cpu).unwrap();
        let sampler = || Sampler { reference: reference.clone(), levels: levels.clone(), heads: 2, points: 3 };
        check(|t| t[0].apply_op3(&t[1], &t[2], sampler()), &[random(&[2, 26, 6], 1), offsets, random(&[2, 5, 12], 3)]);
    }
}
