//! How the networks of [`eomt_edge_tools::chain`] start: names, shapes and random weights.

use eomt_edge_core::scenes::Rng;
use eomt_edge_tools::chain::{self, Init, Sizes, Weight};
use eomt_edge_tools::checkpoint::Array;

/// Names and shapes of all weights.
pub(super) fn shapes(sizes: &Sizes) -> Vec<(String, Vec<usize>)> {
    chain::weights(sizes).into_iter().map(|weight| (weight.name, weight.shape)).collect()
}

/// Weights to start from scratch, as the description of the network says. The same seed gives the same weights.
pub(super) fn random(sizes: &Sizes, seed: u64) -> Vec<(String, Array)> {
    let mut rng = Rng::new(seed, 3);
    let mut one = |weight: Weight| {
        let count: usize = weight.shape.iter().product();
        let data = match weight.init {
            Init::Constant(value) => vec![value; count],
            Init::Normal(deviation) => (0..count).map(|_| cut_normal(&mut rng) * deviation).collect(),
            Init::Uniform(bound) => (0..count).map(|_| rng.uniform(-f64::from(bound), f64::from(bound)) as f32).collect(),
            Init::Directions { heads, levels, points } => directions(heads, levels, points),
        };
        (weight.name, Array { shape: weight.shape, data })
    };
    chain::weights(sizes).into_iter().map(&mut one).collect()
}

fn cut_normal(rng: &mut Rng) -> f32 {
    loop {
        let draw = rng.normal();
        if draw.abs() <= 2.0 {
            return draw as f32;
        }
    }
}

/// `[heads, levels, points, (x, y)]`: head `h` looks in the direction `2 π h / heads`, scaled so that the larger of |x| and |y| is 1, 2 .. pixels.
fn directions(heads: usize, levels: usize, points: usize) -> Vec<f32> {
    let mut offsets = Vec::with_capacity(2 * heads * levels * points);
    for head in 0..heads {
        let (sin, cos) = (std::f32::consts::TAU * head as f32 / heads as f32).sin_cos();
        let most = sin.abs().max(cos.abs());
        for point in (0..levels).flat_map(|_| 0..points) {
            offsets.extend([cos, sin].map(|part| part / most * (point + 1) as f32));
        }
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The start of sampling offsets: four heads look right, down, left, up, a pixel further from point to point, in both maps.
    #[test]
    fn sampling_starts_around_the_reference() {
        let offsets = directions(4, 2, 2);
        let near = |a: &[f32], b: [f32; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        for (head, [x, y]) in [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]].into_iter().enumerate() {
            for map in 0..2 {
                let points = &offsets[(2 * head + map) * 4..][..4];
                assert!(near(points, [x, y, 2.0 * x, 2.0 * y]), "{points:?}");
            }
        }
    }
}
