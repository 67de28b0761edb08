//! Masks at points: bilinear samples of a plane at places in 0..1, and their transpose.
//!
//! As PyTorch's `grid_sample` with zeros outside and `align_corners=False` (transformers' `sample_point`): the middle of pixel
//! `x` of `width` lies at `(x + 0.5) / width`.

use super::rows::ISA;

/// A plane's shape: height, width.
pub(super) type Plane = [usize; 2];

/// Four neighbours with their weights; those outside the plane have weight 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tap {
    pub index: [u32; 4],
    pub weight: [f32; 4],
}

/// Where `points` (`[P]` pairs x, y) fall on a plane.
pub(super) fn taps(points: &[[f32; 2]], [height, width]: Plane) -> Vec<Tap> {
    let mut found = Vec::with_capacity(points.len());
    ISA.vectorize(
        #[inline(always)]
        || {
            for point in points {
                found.push(tap(*point, [height, width]));
            }
        },
    );
    found
}

#[inline(always)]
fn tap([x, y]: [f32; 2], [height, width]: Plane) -> Tap {
    let (x, y) = (x * width as f32 - 0.5, y * height as f32 - 0.5);
    let (left, top) = (x.floor(), y.floor());
    let (right_part, lower_part) = (x - left, y - top);
    let mut tap = Tap::default();
    for corner in 0..4 {
        let (dx, dy) = ((corner % 2) as f32, (corner / 2) as f32);
        let (column, row) = (left + dx, top + dy);
        if column >= 0.0 && row >= 0.0 && column < width as f32 && row < height as f32 {
            tap.index[corner] = (row as usize * width + column as usize) as u32;
            let across = if corner % 2 == 1 { right_part } else { 1.0 - right_part };
            let down = if corner / 2 == 1 { lower_part } else { 1.0 - lower_part };
            tap.weight[corner] = across * down;
        }
    }
    tap
}

/// The values of `plane` at the taps.
pub(super) fn sample(plane: &[f32], taps: &[Tap]) -> Vec<f32> {
    let mut values = Vec::with_capacity(taps.len());
    for Tap { index, weight } in taps {
        let of = |corner: usize| weight[corner] * plane[index[corner] as usize];
        values.push(of(0) + of(1) + of(2) + of(3));
    }
    values
}

/// Adds `values` to `plane` at the taps: the gradient of [`sample`].
pub(super) fn scatter(values: &[f32], taps: &[Tap], plane: &mut [f32]) {
    for (value, tap) in values.iter().zip(taps) {
        for corner in 0..4 {
            plane[tap.index[corner] as usize] += tap.weight[corner] * value;
        }
    }
}
