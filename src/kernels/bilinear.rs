//! Bilinear enlargement of mask logits, row by row, without a full-size buffer.
//!
//! Coordinates as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`: output pixel i samples the source at
//! `(i + 0.5) * from / to - 0.5`, clamped at the borders, no antialiasing.

/// One output coordinate: up to three neighbouring source coordinates and their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tap {
    first: usize,
    weights: [f32; 3],
}

/// The taps of one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    taps: Vec<Tap>,
}

/// Lower neighbour and the weight of the upper one.
fn sample(index: usize, from: usize, to: usize) -> (usize, f32) {
    let position = ((index as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
    let lower = (position as usize).min(from - 1);
    (lower, if lower + 1 < from { position - lower as f32 } else { 0.0 })
}

impl Axis {
    /// `from` source coordinates resized to `to`.
    pub fn resize(from: usize, to: usize) -> Axis {
        Axis::resize_crop_resize(from, to, to, to)
    }

    /// `from` coordinates resized to `middle`, the first `crop` of those resized to `to`: both steps of the reference in one.
    /// Needs `from <= middle` (masks are smaller than the input) and `crop <= middle`.
    pub fn resize_crop_resize(from: usize, middle: usize, crop: usize, to: usize) -> Axis {
        assert!(0 < from && from <= middle && 0 < crop && crop <= middle, "{from} -> {middle}, {crop} -> {to}");
        let taps = (0..to)
            .map(|index| {
                let (lower, upper_weight) = sample(index, crop, to);
                let (first, near) = sample(lower, from, middle);
                let mut weights = [0.0; 3];
                let mut add = |(source, fraction): (usize, f32), weight: f32| {
                    weights[source - first] += weight * (1.0 - fraction);
                    if fraction > 0.0 {
                        weights[source - first + 1] += weight * fraction;
                    }
                };
                add((first, near), 1.0 - upper_weight);
                if upper_weight > 0.0 {
                    add(sample(lower + 1, from, middle), upper_weight);
                }
                Tap { first, weights }
            })
            .collect();
        Axis { taps }
    }

    /// Number of output coordinates.
    pub fn len(&self) -> usize {
        self.taps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }
}

/// Enlarges maps of one size to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Upsampler {
    source: (usize, usize),
    rows: Axis,
    columns: Axis,
    /// One vertically interpolated source row, two zeros behind it for the taps at the right border.
    blended: Vec<f32>,
}

impl Upsampler {
    /// For source maps of `source` = (height, width).
    pub fn new(source: (usize, usize), rows: Axis, columns: Axis) -> Upsampler {
        Upsampler { source, rows, columns, blended: vec![0.0; source.1 + 2] }
    }

    /// (height, width) of the result.
    pub fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.columns.len())
    }

    /// Row `y` of the enlarged `map` into `out`.
    pub fn row(&mut self, map: &[f32], y: usize, out: &mut [f32]) {
        let (height, width) = self.source;
        assert_eq!((map.len(), out.len()), (height * width, self.columns.len()));
        let Tap { first, weights } = self.rows.taps[y];
        let source_row = |offset: usize| &map[(first + offset).min(height - 1) * width..][..width];
        let (a, b, c) = (source_row(0), source_row(1), source_row(2));
        for (x, value) in self.blended[..width].iter_mut().enumerate() {
            *value = a[x] * weights[0] + b[x] * weights[1] + c[x] * weights[2];
        }
        for (value, Tap { first, weights }) in out.iter_mut().zip(&self.columns.taps) {
            let near = &self.blended[*first..*first + 3];
            *value = near[0] * weights[0] + near[1] * weights[1] + near[2] * weights[2];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in f64, one step at a time.
    fn naive(map: &[f64], (h, w): (usize, usize), (to_h, to_w): (usize, usize)) -> Vec<f64> {
        let position = |i: usize, from: usize, to: usize| ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let mut out = Vec::new();
        for y in 0..to_h {
            for x in 0..to_w {
                let (py, px) = (position(y, h, to_h), position(x, w, to_w));
                let (y0, x0) = (py as usize, px as usize);
                let (y1, x1) = ((y0 + 1).min(h - 1), (x0 + 1).min(w - 1));
                let (fy, fx) = (py - y0 as f64, px - x0 as f64);
                let at = |y: usize, x: usize| map[y * w + x];
                let top = at(y0, x0) * (1.0 - fx) + at(y0, x1) * fx;
                let bottom = at(y1, x0) * (1.0 - fx) + at(y1, x1) * fx;
                out.push(top * (1.0 - fy) + bottom * fy);
            }
        }
        out
    }

    #[test]
    fn two_steps_in_one_equal_two_steps() {
        let cases = [
            ((4, 4), (16, 16), (16, 12), (30, 21)),
            ((1, 1), (4, 4), (1, 4), (1, 9)),
            ((2, 3), (8, 12), (8, 12), (3, 2)),
            ((5, 7), (5, 7), (4, 1), (9, 9)),
            ((40, 40), (160, 160), (160, 120), (480, 360)),
        ];
        for (source, middle, crop, to) in cases {
            let map: Vec<f64> = (0..source.0 * source.1).map(|i| ((i * 37 % 23) as f64) - 11.0).collect();
            let enlarged = naive(&map, source, middle);
            let cropped: Vec<f64> = (0..crop.0).flat_map(|y| enlarged[y * middle.1..y * middle.1 + crop.1].to_vec()).collect();
            let truth = naive(&cropped, crop, to);
            let rows = Axis::resize_crop_resize(source.0, middle.0, crop.0, to.0);
            let columns = Axis::resize_crop_resize(source.1, middle.1, crop.1, to.1);
            let mut upsampler = Upsampler::new(source, rows, columns);
            let map: Vec<f32> = map.iter().map(|&v| v as f32).collect();
            let mut out = vec![f32::NAN; to.1];
            for y in 0..to.0 {
                upsampler.row(&map, y, &mut out);
                for x in 0..to.1 {
                    let difference = (f64::from(out[x]) - truth[y * to.1 + x]).abs();
                    // positions are f32 as in torch: 4e-5 of a pixel at 480, times a slope of up to 22 a pixel
                    assert!(difference < 1e-3, "{source:?} -> {to:?} at {y},{x}: {difference}");
                }
            }
        }
    }

    #[test]
    fn weights_sum_to_one() {
        for axis in [Axis::resize(160, 640), Axis::resize_crop_resize(40, 160, 120, 97), Axis::resize_crop_resize(1, 4, 3, 50)] {
            assert!(axis.taps.iter().all(|tap| (tap.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6));
        }
    }
}
