//! Bilinear samples of a map at given places: ONNX's GridSample with zeros outside and `align_corners` 0, which deformable attention is made of.
//!
//! ```text
//! rows = map with channels last                     so that a pixel's channels lie side by side
//! for each block of places:
//!     for each place: sum of the four pixels around it, weighed by nearness
//!     output = block with channels first
//! ```

/// Sizes of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapShape {
    /// C
    pub channels: usize,
    /// H, pixels.
    pub height: usize,
    /// W, pixels.
    pub width: usize,
}

/// Memory between calls.
#[derive(Debug, Default)]
pub struct SampleScratch {
    rows: Vec<f32>,
    block: Vec<f32>,
}

/// Places that are computed before they are written.
const BLOCK: usize = 32;

/// `map` is `[C, H, W]`, `places` `[P, (x, y)]` from -1 to 1 between the outer edges, `out` `[C, P]`.
pub fn grid_sample(map: &[f32], places: &[f32], shape: MapShape, out: &mut [f32], scratch: &mut SampleScratch) {
    let MapShape { channels, height, width } = shape;
    let (area, count) = (height * width, places.len() / 2);
    assert_eq!((map.len(), out.len()), (channels * area, channels * count));
    let SampleScratch { rows, block } = scratch;
    rows.resize(map.len(), 0.0);
    for (channel, plane) in map.chunks_exact(area).enumerate() {
        rows[channel..].iter_mut().step_by(channels).zip(plane).for_each(|(to, value)| *to = *value);
    }
    block.resize(BLOCK * channels, 0.0);
    for (index, places) in places.chunks(2 * BLOCK).enumerate() {
        for (place, sum) in places.chunks_exact(2).zip(block.chunks_exact_mut(channels)) {
            sample(rows, [place[0], place[1]], shape, sum);
        }
        let here = places.len() / 2;
        for (channel, out) in out.chunks_exact_mut(count).enumerate() {
            let sums = block[channel..].iter().step_by(channels);
            out[index * BLOCK..][..here].iter_mut().zip(sums).for_each(|(to, sum)| *to = *sum);
        }
    }
}

/// One sample; `rows` is `[H, W, C]`.
fn sample(rows: &[f32], [x, y]: [f32; 2], shape: MapShape, sum: &mut [f32]) {
    let MapShape { channels, height, width } = shape;
    let (u, v) = (((x + 1.0) * width as f32 - 1.0) / 2.0, ((y + 1.0) * height as f32 - 1.0) / 2.0);
    let (left, top) = (u.floor(), v.floor());
    let (right_share, lower_share) = (u - left, v - top);
    sum.fill(0.0);
    for (down, vertical) in [(0.0, 1.0 - lower_share), (1.0, lower_share)] {
        for (right, horizontal) in [(0.0, 1.0 - right_share), (1.0, right_share)] {
            let (column, row) = (left + right, top + down);
            // false for NaN, which lies nowhere
            if column >= 0.0 && row >= 0.0 && column < width as f32 && row < height as f32 {
                let pixel = row as usize * width + column as usize;
                let weight = horizontal * vertical;
                let values = &rows[pixel * channels..][..channels];
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one value at a time, in doubles.
    fn definition(map: &[f32], place: &[f32], channel: usize, shape: MapShape) -> f64 {
        let MapShape { height, width, .. } = shape;
        let to_pixel = |at: f32, side: usize| ((f64::from(at) + 1.0) * side as f64 - 1.0) / 2.0;
        let (u, v) = (to_pixel(place[0], width), to_pixel(place[1], height));
        let mut sum = 0.0;
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let near = |at: f64, pixel: usize| (1.0 - (at - pixel as f64).abs()).max(0.0);
            sum += near(u, x) * near(v, y) * f64::from(map[(channel * height + y) * width + x]);
        }
        sum
    }

    #[test]
    fn samples_are_those_of_the_definition() {
        for (channels, height, width, count) in [(1, 1, 1, 3), (3, 4, 5, 70), (8, 2, 7, 32), (5, 3, 3, 33)] {
            let shape = MapShape { channels, height, width };
            let map: Vec<f32> = (0..channels * height * width).map(|at| (at * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
            let mut places: Vec<f32> = (0..2 * count).map(|at| (at * 6007 % 997) as f32 / 300.0 - 1.6).collect();
            places[..4].copy_from_slice(&[-1.0, 1.0, 0.0, 0.0]);
            let mut out = vec![f32::NAN; channels * count];
            grid_sample(&map, &places, shape, &mut out, &mut SampleScratch::default());
            for (at, value) in out.iter().enumerate() {
                let expected = definition(&map, &places[2 * (at % count)..][..2], at / count, shape);
                // a place is rounded to f32: some 1e-7 of seven pixels
                assert!((f64::from(*value) - expected).abs() < 1e-5, "{shape:?} {at}: {value}, not {expected}");
            }
        }
    }

    #[test]
    fn places_that_are_no_numbers_lie_nowhere() {
        let mut out = [1.0f32; 2];
        let places = [f32::NAN, 0.0, f32::INFINITY, -0.3];
        grid_sample(&[5.0; 4], &places, MapShape { channels: 1, height: 2, width: 2 }, &mut out, &mut SampleScratch::default());
        assert_eq!(out, [0.0, 0.0]);
    }
}
