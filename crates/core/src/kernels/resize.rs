//! Resizing 8-bit pictures: bilinear with antialiasing in fixed point.
//!
//! After Pillow's `ImagingResample`: the filter is a triangle as wide as the scale, in doubles, normalized; weights are rounded to as
//! many fractional bits as 16-bit integers leave the largest one.

use super::arch::per_isa;

/// The filter of one axis: for each output coordinate as many neighbouring source coordinates, and their weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// First source coordinate of each output coordinate.
    starts: Vec<u32>,
    /// `[outputs, taps]`.
    weights: Vec<i32>,
    taps: usize,
    /// Fractional bits of the weights.
    precision: u32,
}

impl Filter {
    /// `from` coordinates resized to `to`; neither is zero.
    pub fn resize(from: usize, to: usize) -> Filter {
        assert!(from > 0 && to > 0, "{from} -> {to}");
        let scale = from as f64 / to as f64;
        let radius = scale.max(1.0);
        let windows: Vec<(usize, Vec<f64>)> = (0..to)
            .map(|index| {
                let center = (index as f64 + 0.5) * scale;
                let (start, end) = ((center - radius).floor().max(0.0) as usize, (center + radius).ceil().min(from as f64) as usize);
                let weight = |x: usize| (1.0 - ((x as f64 - (center - 0.5)) * (1.0 / radius)).abs()).max(0.0);
                let weights: Vec<f64> = (start..end).map(weight).collect();
                let sum: f64 = weights.iter().sum();
                (start, weights.iter().map(|weight| weight / sum).collect())
            })
            .collect();
        let largest = windows.iter().flat_map(|(_, weights)| weights).copied().fold(0.0, f64::max);
        let fits = |precision: &u32| (largest * f64::from(1u32 << (precision + 1))).round() >= f64::from(1 << 15);
        let precision = (0..22).find(fits).unwrap_or(21);
        let taps = windows.iter().map(|(_, weights)| weights.len()).max().unwrap_or(1);
        let mut filter = Filter { starts: Vec::with_capacity(to), weights: vec![0; taps * to], taps, precision };
        for ((start, window), to) in windows.iter().zip(filter.weights.chunks_exact_mut(taps)) {
            // all windows have the same number of taps, inside of the picture
            let first = (*start).min(from - taps);
            filter.starts.push(first as u32);
            for (to, weight) in to[start - first..].iter_mut().zip(window) {
                *to = (weight * f64::from(1u32 << precision)).round() as i32;
            }
        }
        filter
    }

    /// Number of output coordinates.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no output coordinate.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Source coordinates of an output coordinate and their weights.
    fn window(&self, index: usize) -> (usize, &[i32]) {
        (self.starts[index] as usize, &self.weights[index * self.taps..][..self.taps])
    }
}

#[inline(always)]
fn level(sum: i32, precision: u32) -> u8 {
    (sum >> precision).clamp(0, 255) as u8
}

/// ```text
/// for each output pixel: sum[lane] = half + sum over taps of weight * source[3 * (start + tap) + lane],  lane = R, G, B, and one more
/// ```
#[inline(always)]
fn horizontal_body(filter: &Filter, source: &[u8], to: &mut [[u8; 4]]) {
    // loops of known length are unrolled, and the usual scales have few taps
    match filter.taps {
        1 => horizontal_with::<1>(filter, source, to),
        2 => horizontal_with::<2>(filter, source, to),
        3 => horizontal_with::<3>(filter, source, to),
        4 => horizontal_with::<4>(filter, source, to),
        5 => horizontal_with::<5>(filter, source, to),
        6 => horizontal_with::<6>(filter, source, to),
        7 => horizontal_with::<7>(filter, source, to),
        8 => horizontal_with::<8>(filter, source, to),
        _ => {
            let windows = filter.starts.iter().zip(filter.weights.chunks_exact(filter.taps));
            for ((start, weights), to) in windows.zip(to) {
                horizontal_pixel(weights, &source[*start as usize * 3..], filter.precision, to);
            }
        }
    }
}

#[inline(always)]
fn horizontal_with<const TAPS: usize>(filter: &Filter, source: &[u8], to: &mut [[u8; 4]]) {
    let windows = filter.starts.iter().zip(filter.weights.as_chunks::<TAPS>().0);
    for ((start, weights), to) in windows.zip(to) {
        horizontal_pixel(weights, &source[*start as usize * 3..][..TAPS * 3 + 1], filter.precision, to);
    }
}

#[inline(always)]
fn horizontal_pixel(weights: &[i32], source: &[u8], precision: u32, to: &mut [u8; 4]) {
    let mut sums = [1 << (precision - 1); 4];
    for (tap, weight) in weights.iter().enumerate() {
        let pixel = &source[tap * 3..tap * 3 + 4];
        for lane in 0..4 {
            sums[lane] += weight * i32::from(pixel[lane]);
        }
    }
    *to = sums.map(|sum| level(sum, precision));
}

per_isa! {
    /// One row of interleaved RGB, resized horizontally; the fourth byte of a pixel has no meaning. One byte behind the row is read
    /// and ignored.
    pub fn resize_horizontal(filter: &Filter, source: &[u8], to: &mut [[u8; 4]]) = horizontal_body;
}

#[inline(always)]
fn vertical_body(filter: &Filter, index: usize, rows: &[u8], width: usize, sums: &mut [i32], levels: &mut [u8]) {
    let (start, weights) = filter.window(index);
    sums.fill(1 << (filter.precision - 1));
    for (weight, row) in weights.iter().zip(rows[start * width..].chunks_exact(width)) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * i32::from(*value));
    }
    levels.iter_mut().zip(sums).for_each(|(to, sum)| *to = level(*sum, filter.precision));
}

per_isa! {
    /// Row `index` of the result: the weighted sum of some `rows` of `width` bytes. `sums` is scratch of that length.
    pub fn resize_vertical(filter: &Filter, index: usize, rows: &[u8], width: usize, sums: &mut [i32], levels: &mut [u8]) = vertical_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;
    use fast_image_resize::images::{TypedImage, TypedImageRef};
    use fast_image_resize::pixels::U8x3;
    use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

    /// One direction of an independent implementation.
    fn pass(source: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
        let source = TypedImageRef::<U8x3>::from_buffer(from.1 as u32, from.0 as u32, source).unwrap();
        let mut buffer = vec![0; to.0 * to.1 * 3];
        let mut target = TypedImage::<U8x3>::from_buffer(to.1 as u32, to.0 as u32, &mut buffer).unwrap();
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        Resizer::new().resize_typed(&source, &mut target, &options).unwrap();
        buffer
    }

    #[test]
    fn equals_an_independent_implementation_everywhere() {
        let sizes =
            [((48, 64), (24, 32)), ((37, 99), (6, 16)), ((9, 7), (30, 22)), ((10, 10), (10, 10)), ((1, 1), (5, 3)), ((33, 50), (43, 64))];
        let mut state = 1u32;
        for (from, to) in sizes {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // many extremes
                ((state >> 22) as i32 - 384).clamp(0, 255) as u8
            };
            let mut source: Vec<u8> = (0..from.0 * from.1 * 3).map(|_| next()).collect();
            let expected = pass(&pass(&source, from, (from.0, to.1)), (from.0, to.1), to);
            source.push(77);
            let (columns, rows) = (Filter::resize(from.1, to.1), Filter::resize(from.0, to.0));
            let (size, resized) = (from, to);
            let ours = suite::everywhere((from, to), |isa| {
                let mut horizontal = vec![[0; 4]; size.0 * resized.1];
                for (y, to) in horizontal.chunks_exact_mut(resized.1).enumerate() {
                    resize_horizontal(isa, &columns, &source[y * size.1 * 3..], to);
                }
                let (mut sums, mut levels, mut picture) = (vec![0; resized.1 * 4], vec![0; resized.1 * 4], Vec::new());
                for y in 0..resized.0 {
                    resize_vertical(isa, &rows, y, horizontal.as_flattened(), resized.1 * 4, &mut sums, &mut levels);
                    picture.extend(levels.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]));
                }
                picture
            });
            assert_eq!(ours, expected, "{from:?} -> {to:?}");
        }
    }
}
