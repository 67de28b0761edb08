//! Bilinear enlargement of mask logits, tile by tile, without a full-size buffer.
//!
//! Coordinates as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`: output pixel i samples the source at
//! `(i + 0.5) * from / to - 0.5`, clamped at the borders, no antialiasing.

use std::ops::Range;

use super::arch::{Isa, per_isa};

/// One output coordinate: up to three neighbouring source coordinates and their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tap {
    /// Neighbours beyond the end of the source have weight zero.
    pub first: usize,
    /// Of the coordinates `first`, `first + 1` and `first + 2`; they add up to one.
    pub weights: [f32; 3],
}

/// The taps of one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    taps: Vec<Tap>,
}

/// The lower neighbour of output coordinate `index` and the weight of the upper one, for `from` coordinates resized to `to`.
pub fn sample(index: usize, from: usize, to: usize) -> (usize, f32) {
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

    /// One per output coordinate.
    pub fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// Number of output coordinates.
    pub fn len(&self) -> usize {
        self.taps.len()
    }

    /// Whether there is no output coordinate.
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }
}

/// Neighbouring source coordinates that some output coordinates depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    first: usize,
    count: usize,
}

impl Span {
    /// Of the `taps`, without neighbours that have no weight.
    fn of(taps: &[Tap]) -> Span {
        let first = taps.iter().map(|tap| tap.first).min().expect("a tile is not empty");
        let last = |tap: &Tap| tap.first + tap.weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
        Span { first, count: taps.iter().map(last).max().expect("a tile is not empty") + 1 - first }
    }
}

/// Columns of a tile.
pub const TILE_COLUMNS: usize = 16;
/// Rows of a tile.
pub const TILE_ROWS: usize = 8;
/// Values of a tile, column by column: `[TILE_COLUMNS][TILE_ROWS]`.
pub const TILE: usize = TILE_COLUMNS * TILE_ROWS;

/// One value per lane of a tile.
pub type Tile<T> = [T; TILE];

/// Enlarges maps of one size to another, tile by tile.
///
/// A tile is eight rows of sixteen columns of the result, so that its rows fill the lanes of a register: they have one weight
/// vector per source row, a column is the weighted sum of three such vectors, and nothing is gathered. Lanes beyond the result hold zeros.
#[derive(Debug, Clone, PartialEq)]
pub struct Upsampler {
    source: (usize, usize),
    size: (usize, usize),
    /// One per eight rows of the result.
    bands: Vec<Span>,
    /// The weights of each band: `[source rows of the band]` of a weight per row.
    weights: Vec<Vec<[f32; TILE_ROWS]>>,
    /// One per sixteen columns of the result.
    stripes: Vec<Span>,
    /// Per column of the result: the first of its three neighbours, counted from the start of the stripe, and their weights.
    columns: Vec<[Tap; TILE_COLUMNS]>,
    /// Most source columns of a stripe.
    reach: usize,
    /// The source columns of a stripe, blended vertically, two zeros behind them for neighbours without weight.
    blended: Vec<[f32; TILE_ROWS]>,
    /// Extremes of each source column over a band, and room to look ahead of the last one.
    lows: Vec<f32>,
    highs: Vec<f32>,
}

impl Upsampler {
    /// For source maps of `source` = (height, width).
    pub fn new(source: (usize, usize), rows: Axis, columns: Axis) -> Upsampler {
        const NOTHING: Tap = Tap { first: 0, weights: [0.0; 3] };
        let bands: Vec<Span> = rows.taps.chunks(TILE_ROWS).map(Span::of).collect();
        let stripes: Vec<Span> = columns.taps.chunks(TILE_COLUMNS).map(Span::of).collect();
        let weights = rows.taps.chunks(TILE_ROWS).zip(&bands).map(|(taps, span)| band_weights(taps, span)).collect();
        let relative = |(taps, span): (&[Tap], &Span)| {
            let tap = |tap: &Tap| Tap { first: tap.first - span.first, weights: tap.weights };
            std::array::from_fn(|column| taps.get(column).map_or(NOTHING, tap))
        };
        let relative_columns = columns.taps.chunks(TILE_COLUMNS).zip(&stripes).map(relative).collect();
        let reach = stripes.iter().map(|span| span.count).max().unwrap_or(1);
        Upsampler {
            source,
            size: (rows.len(), columns.len()),
            bands,
            weights,
            stripes,
            columns: relative_columns,
            reach,
            blended: vec![[0.0; TILE_ROWS]; reach + 2],
            lows: vec![0.0; source.1 + reach],
            highs: vec![0.0; source.1 + reach],
        }
    }

    /// (height, width) of the result.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Rows and columns of tiles.
    pub fn tiles(&self) -> (usize, usize) {
        (self.bands.len(), self.stripes.len())
    }

    /// Rows and columns of the result in a tile.
    pub fn tile_size(&self, band: usize, stripe: usize) -> (usize, usize) {
        (TILE_ROWS.min(self.size.0 - band * TILE_ROWS), TILE_COLUMNS.min(self.size.1 - stripe * TILE_COLUMNS))
    }

    /// Bounds of the enlarged `map` in each tile of a `band`: no value that [`Upsampler::tile`] gives lies outside of them.
    ///
    /// They are those of the source values that a tile depends on, since weights are positive and add up to one, widened by a little for
    /// the rounding of both. The map's values must be finite.
    pub fn bounds(&mut self, isa: Isa, map: &[f32], band: usize, low: &mut [f32], high: &mut [f32]) {
        let (height, width) = self.source;
        assert_eq!(map.len(), height * width);
        let Span { first, count } = self.bands[band];
        let rows = &map[first * width..(first + count) * width];
        extremes(isa, rows, width, self.reach, &mut self.lows, &mut self.highs);
        for ((low, high), span) in low.iter_mut().zip(high).zip(&self.stripes) {
            let (least, most) = (self.lows[span.first], self.highs[span.first]);
            let slack = SLACK * least.abs().max(most.abs());
            (*low, *high) = (least - slack, most + slack);
        }
    }

    /// One tile of the enlarged `map`.
    pub fn tile(&mut self, isa: Isa, map: &[f32], band: usize, stripe: usize, out: &mut Tile<f32>) {
        let (height, width) = self.source;
        assert_eq!(map.len(), height * width);
        let rows = &map[self.bands[band].first * width..];
        let Span { first, count } = self.stripes[stripe];
        blend_tile(isa, rows, width, first..first + count, &self.weights[band], &self.columns[stripe], &mut self.blended, out);
    }
}

/// Of the largest absolute value around: weights add up to one within 1e-6 in both directions, and each of at most six roundings
/// is 6e-8.
const SLACK: f32 = 8e-6;

/// The weight of each source row of `span` in each output row.
fn band_weights(taps: &[Tap], span: &Span) -> Vec<[f32; TILE_ROWS]> {
    let mut weights = vec![[0.0; TILE_ROWS]; span.count];
    for (row, tap) in taps.iter().enumerate() {
        for (offset, weight) in tap.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            weights[tap.first - span.first + offset][row] += weight;
        }
    }
    weights
}

/// `lows[x]`, `highs[x]`: extremes over all `rows` (of `width` values) and the columns `x..x + reach`.
#[inline(always)]
fn extremes_body(rows: &[f32], width: usize, reach: usize, lows: &mut [f32], highs: &mut [f32]) {
    let less = |a: f32, b: f32| if a < b { a } else { b };
    let more = |a: f32, b: f32| if a > b { a } else { b };
    lows[..width].copy_from_slice(&rows[..width]);
    highs[..width].copy_from_slice(&rows[..width]);
    for row in rows[width..].chunks_exact(width) {
        for ((low, high), value) in lows[..width].iter_mut().zip(&mut highs[..width]).zip(row) {
            (*low, *high) = (less(*low, *value), more(*high, *value));
        }
    }
    let (last_low, last_high) = (lows[width - 1], highs[width - 1]);
    lows[width..].fill(last_low);
    highs[width..].fill(last_high);
    // after each step, x holds the extreme of the next `covered` columns
    let mut covered = 1;
    while covered < reach {
        let step = covered.min(reach - covered);
        for x in 0..width {
            (lows[x], highs[x]) = (less(lows[x], lows[x + step]), more(highs[x], highs[x + step]));
        }
        covered += step;
    }
}

per_isa! {
    fn extremes(rows: &[f32], width: usize, reach: usize, lows: &mut [f32], highs: &mut [f32]) = extremes_body;
}

/// ```text
/// for each source column c of the stripe:  blended[c] = sum over source rows s of weights[s] * rows[s][c]     (a vector of rows)
/// for each column of the tile:             out = sum over its three neighbours of weight * blended[neighbour]
/// ```
#[inline(always)]
fn blend_tile_body(
    rows: &[f32],
    width: usize,
    stripe: Range<usize>,
    weights: &[[f32; TILE_ROWS]],
    columns: &[Tap; TILE_COLUMNS],
    blended: &mut [[f32; TILE_ROWS]],
    out: &mut Tile<f32>,
) {
    let (blended_columns, behind) = blended.split_at_mut(stripe.len());
    blended_columns.fill([0.0; TILE_ROWS]);
    behind[..2].fill([0.0; TILE_ROWS]);
    for (weights, row) in weights.iter().zip(rows.chunks_exact(width)) {
        for (blended, value) in blended_columns.iter_mut().zip(&row[stripe.clone()]) {
            for (blended, weight) in blended.iter_mut().zip(weights) {
                *blended += weight * value;
            }
        }
    }
    for (column, tap) in out.as_chunks_mut::<TILE_ROWS>().0.iter_mut().zip(columns) {
        let [a, b, c] = &blended[tap.first..][..3] else { unreachable!("three of them") };
        for (row, value) in column.iter_mut().enumerate() {
            *value = a[row] * tap.weights[0] + b[row] * tap.weights[1] + c[row] * tap.weights[2];
        }
    }
}

per_isa! {
    fn blend_tile(
        rows: &[f32], width: usize, stripe: Range<usize>, weights: &[[f32; TILE_ROWS]], columns: &[Tap; TILE_COLUMNS],
        blended: &mut [[f32; TILE_ROWS]], out: &mut Tile<f32>,
    ) = blend_tile_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;

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

    /// The enlarged map from its tiles, each of which lies within its bounds.
    fn whole(upsampler: &mut Upsampler, isa: Isa, map: &[f32]) -> Vec<f32> {
        let (height, width) = upsampler.size();
        let (bands, stripes) = upsampler.tiles();
        let mut out = vec![f32::NAN; height * width];
        let mut tile = [f32::NAN; TILE];
        let (mut low, mut high) = (vec![f32::NAN; stripes], vec![f32::NAN; stripes]);
        for band in 0..bands {
            upsampler.bounds(isa, map, band, &mut low, &mut high);
            for stripe in 0..stripes {
                upsampler.tile(isa, map, band, stripe, &mut tile);
                let (rows, columns) = upsampler.tile_size(band, stripe);
                for (x, y) in (0..columns).flat_map(|x| (0..rows).map(move |y| (x, y))) {
                    let value = tile[x * TILE_ROWS + y];
                    assert!(low[stripe] <= value && value <= high[stripe], "{value} in {}..={}", low[stripe], high[stripe]);
                    out[(band * TILE_ROWS + y) * width + stripe * TILE_COLUMNS + x] = value;
                }
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
            let reference = naive(&cropped, crop, to);
            let rows = Axis::resize_crop_resize(source.0, middle.0, crop.0, to.0);
            let columns = Axis::resize_crop_resize(source.1, middle.1, crop.1, to.1);
            let mut upsampler = Upsampler::new(source, rows, columns);
            let map: Vec<f32> = map.iter().map(|&v| v as f32).collect();
            let out = suite::everywhere((source, to), |isa| whole(&mut upsampler, isa, &map));
            for y in 0..to.0 {
                for x in 0..to.1 {
                    let difference = (f64::from(out[y * to.1 + x]) - reference[y * to.1 + x]).abs();
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
