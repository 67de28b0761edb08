//! Multi-scale deformable attention (Zhu et al. 2021, section 4.1): weighed bilinear samples of several maps, head by head.
//!
//! ```text
//! for each query and head:
//!     weights = softmax of its scores over all maps and points
//!     output = sum of weight * nearness * pixel, over the four pixels around each place; nothing outside of the maps
//! ```

use super::math::exp;

/// Sizes that all queries share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeformableShape {
    /// Attention heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Queries, of which a call computes some.
    pub queries: usize,
    /// Places per head and map.
    pub points: usize,
}

/// What is sampled, where, and how much it counts.
#[derive(Debug, Clone, Copy)]
pub struct DeformableInputs<'a> {
    /// Per map `[height, width, heads * head_dim]`.
    pub maps: &'a [&'a [f32]],
    /// Height and width of each map.
    pub levels: &'a [[usize; 2]],
    /// `[heads, queries, maps * points, (x, y)]`, from -1 to 1 between the outer edges.
    pub places: &'a [f32],
    /// `[queries, heads, maps * points]`
    pub scores: &'a [f32],
}

/// The queries from `first` on, as many as `out` has rows `[heads * head_dim]`; `weights` is memory between calls.
pub fn deformable(inputs: &DeformableInputs, shape: DeformableShape, first: usize, out: &mut [f32], weights: &mut Vec<f32>) {
    let DeformableShape { heads, head_dim, queries, points } = shape;
    let (width, places) = (heads * head_dim, inputs.levels.len() * points);
    for (query, row) in (first..).zip(out.chunks_exact_mut(width)) {
        for (head, out) in row.chunks_exact_mut(head_dim).enumerate() {
            softmax(&inputs.scores[(query * heads + head) * places..][..places], weights);
            let at = &inputs.places[(head * queries + query) * 2 * places..][..2 * places];
            out.fill(0.0);
            for (level, (map, size)) in inputs.maps.iter().zip(inputs.levels).enumerate() {
                let here = level * points..(level + 1) * points;
                for (place, weight) in at[2 * here.start..2 * here.end].chunks_exact(2).zip(&weights[here]) {
                    add_sample(map, *size, [place[0], place[1]], *weight, (width, head * head_dim), out);
                }
            }
        }
    }
}

fn softmax(scores: &[f32], weights: &mut Vec<f32>) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    weights.clear();
    weights.extend(scores.iter().map(|score| exp(score - most)));
    let total: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
}

/// Adds one sample; a pixel's channels of this head start at `stride * pixel + offset`.
fn add_sample(map: &[f32], [height, width]: [usize; 2], [x, y]: [f32; 2], weight: f32, (stride, offset): (usize, usize), out: &mut [f32]) {
    let (u, v) = (((x + 1.0) * width as f32 - 1.0) / 2.0, ((y + 1.0) * height as f32 - 1.0) / 2.0);
    let (left, top) = (u.floor(), v.floor());
    let (right_share, lower_share) = (u - left, v - top);
    for (down, vertical) in [(0.0, 1.0 - lower_share), (1.0, lower_share)] {
        for (right, horizontal) in [(0.0, 1.0 - right_share), (1.0, right_share)] {
            let (column, row) = (left + right, top + down);
            // false for NaN, which lies nowhere
            if column >= 0.0 && row >= 0.0 && column < width as f32 && row < height as f32 {
                let pixel = row as usize * width + column as usize;
                let factor = weight * horizontal * vertical;
                let values = &map[pixel * stride + offset..][..out.len()];
                out.iter_mut().zip(values).for_each(|(out, value)| *out += factor * value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|at| (((at + seed) * 7919 % 1009) as f32 / 504.5 - 1.0) * scale).collect()
    }

    /// One value, in doubles: hat functions instead of corners.
    fn definition(inputs: &DeformableInputs, shape: DeformableShape, query: usize, head: usize, channel: usize) -> f64 {
        let DeformableShape { heads, head_dim, queries, points } = shape;
        let places = inputs.levels.len() * points;
        let scores = &inputs.scores[(query * heads + head) * places..][..places];
        let total: f64 = scores.iter().map(|score| f64::from(*score).exp()).sum();
        let mut sum = 0.0;
        for (place, score) in scores.iter().enumerate() {
            let ([height, width], map) = (inputs.levels[place / points], inputs.maps[place / points]);
            let at = |axis: usize, side: usize| {
                let place = f64::from(inputs.places[((head * queries + query) * places + place) * 2 + axis]);
                ((place + 1.0) * side as f64 - 1.0) / 2.0
            };
            let (u, v) = (at(0, width), at(1, height));
            for pixel in 0..height * width {
                let near = |at: f64, pixel: usize| (1.0 - (at - pixel as f64).abs()).max(0.0);
                let value = f64::from(map[(pixel * heads + head) * head_dim + channel]);
                sum += f64::from(*score).exp() / total * near(u, pixel % width) * near(v, pixel / width) * value;
            }
        }
        sum
    }

    #[test]
    fn values_are_those_of_the_definition() {
        for (heads, head_dim, points, levels) in [(1, 1, 1, vec![[1, 1]]), (2, 5, 4, vec![[3, 4]]), (3, 8, 2, vec![[2, 2], [4, 3], [5, 6]])]
        {
            let shape = DeformableShape { heads, head_dim, queries: 7, points };
            let maps: Vec<Vec<f32>> = levels.iter().map(|[height, width]| values(height * width * heads * head_dim, 3, 1.0)).collect();
            let maps: Vec<&[f32]> = maps.iter().map(Vec::as_slice).collect();
            let count = 7 * heads * levels.len() * points;
            let (places, scores) = (values(2 * count, 5, 1.3), values(count, 11, 3.0));
            let inputs = DeformableInputs { maps: &maps, levels: &levels, places: &places, scores: &scores };
            let width = heads * head_dim;
            let mut out = vec![f32::NAN; 5 * width];
            deformable(&inputs, shape, 2, &mut out, &mut Vec::new());
            for (at, value) in out.iter().enumerate() {
                let expected = definition(&inputs, shape, 2 + at / width, at % width / head_dim, at % head_dim);
                assert!((f64::from(*value) - expected).abs() < 1e-5, "{shape:?} {at}: {value}, not {expected}"); // f32 sums of some ten terms
            }
        }
    }
}
