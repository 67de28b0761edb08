//! Row by row work around the products: layer norm, the end of a tile.

use super::arch::{Isa, per_isa, strided_mut};
use super::quantize::Row;

/// `to = (row - mean) / sqrt(variance + eps) * scale + shift`.
#[inline(always)]
fn layer_norm_body(isa: Isa, row: &[f32], scale: &[f32], shift: &[f32], eps: f32, to: &mut [f32]) {
    let (mean, variance) = isa.moments(row);
    let inverse = 1.0 / (variance + eps).sqrt();
    for (((to, value), scale), shift) in to.iter_mut().zip(row).zip(scale).zip(shift) {
        *to = ((value - mean) * inverse).mul_add(*scale, *shift);
    }
}

per_isa! {
    /// Layer norm of one row (two passes: the mean first); the four slices have one length.
    pub fn layer_norm[isa](row: &[f32], scale: &[f32], shift: &[f32], eps: f32, to: &mut [f32]) = layer_norm_body;
}

/// Calls `$one::<W>(start)` for consecutive groups of W columns that together cover `$columns`: 16 at a time where they fit.
macro_rules! groups {
    ($columns:expr, |$start:ident, $width:ident| $work:expr) => {{
        let columns: usize = $columns;
        let mut at = 0;
        while at + 16 <= columns {
            const $width: usize = 16;
            let $start = at;
            $work;
            at += 16;
        }
        while at + 4 <= columns {
            const $width: usize = 4;
            let $start = at;
            $work;
            at += 4;
        }
        while at < columns {
            const $width: usize = 1;
            let $start = at;
            $work;
            at += 1;
        }
    }};
}
pub(crate) use groups;

/// `values[at..at + W]` as an array.
#[inline(always)]
pub fn part<T, const W: usize>(values: &[T], at: usize) -> &[T; W] {
    values[at..at + W].first_chunk().expect("W values")
}

/// [`part`], to write.
#[inline(always)]
pub fn part_mut<T, const W: usize>(values: &mut [T], at: usize) -> &mut [T; W] {
    values[at..at + W].first_chunk_mut().expect("W values")
}

/// What becomes of an int8 tile: `(acc - zero point * column sum) * row scale * column scale + bias + residual`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// One per column of the tile, as all here.
    pub sums: &'a [i32],
    pub column_scales: &'a [f32],
    pub bias: &'a [f32],
}

/// The accumulators of a tile and where they go: rows of `nr` values to rows that are `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Int8Tile<'a> {
    pub nr: usize,
    pub acc: &'a [i32],
    /// Scale and zero point of each row that counts.
    pub rows: &'a [Row],
    pub stride: usize,
}

impl<'a> Int8Tile<'a> {
    /// One value of the tile, as a tile.
    #[inline(always)]
    fn one(&self, row: usize, column: usize) -> Int8Tile<'a> {
        let acc = &self.acc[row * self.nr + column..][..1];
        Int8Tile { nr: 1, acc, rows: &self.rows[row..=row], stride: self.stride }
    }
}

/// A tile into `to`; the epilogue's columns count. An empty `residual` adds nothing, else it lies like `to`.
#[inline(always)]
pub fn finish_i32(isa: Isa, tile: &Int8Tile, epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) {
    match (tile.nr, epilogue.bias.len()) {
        (4, 4) => finish_i32_whole::<4>(tile, epilogue, residual, to),
        (8, 8) => finish_i32_whole::<8>(tile, epilogue, residual, to),
        (16, 16) => finish_i32_whole::<16>(tile, epilogue, residual, to),
        (32, 32) => finish_i32_whole::<32>(tile, epilogue, residual, to),
        _ => finish_i32_part(isa, tile, epilogue, residual, to),
    }
}

/// [`finish_i32`] of a tile at the right edge, value by value.
#[inline(always)]
fn finish_i32_part_body(tile: &Int8Tile, epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) {
    let columns = epilogue.bias.len();
    for (r, c) in (0..tile.rows.len()).flat_map(|r| (0..columns).map(move |c| (r, c))) {
        let epilogue = Epilogue { sums: &epilogue.sums[c..=c], column_scales: &epilogue.column_scales[c..=c], bias: &epilogue.bias[c..=c] };
        let at = r * tile.stride + c;
        let residual = residual.get(at..=at).unwrap_or(&[]);
        finish_i32_whole::<1>(&tile.one(r, c), &epilogue, residual, &mut to[at..]);
    }
}

per_isa! {
    fn finish_i32_part(tile: &Int8Tile, epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) = finish_i32_part_body;
}

/// [`finish_i32`] of a tile whose columns all count.
#[inline(always)]
fn finish_i32_whole<const NR: usize>(tile: &Int8Tile, epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) {
    let (sums, scales) = (part::<_, NR>(epilogue.sums, 0), part::<_, NR>(epilogue.column_scales, 0));
    let bias = part::<_, NR>(epilogue.bias, 0);
    let to = strided_mut::<_, NR>(to, tile.stride, tile.rows.len());
    for (((r, row), acc), to) in tile.rows.iter().enumerate().zip(tile.acc.as_chunks::<NR>().0).zip(to) {
        let mut values = [0f32; NR];
        for i in 0..NR {
            let exact = acc[i].wrapping_sub(sums[i].wrapping_mul(row.zero));
            values[i] = (exact as f32 * row.scale).mul_add(scales[i], bias[i]);
        }
        if !residual.is_empty() {
            let residual = part::<_, NR>(residual, r * tile.stride);
            for i in 0..NR {
                values[i] += residual[i];
            }
        }
        *to = values;
    }
}

/// The rows of an f32 tile into `to`: `acc + bias + residual`; as [`finish_i32`].
#[inline(always)]
pub fn finish_f32(nr: usize, acc: &[f32], rows: usize, bias: &[f32], residual: &[f32], to: &mut [f32], stride: usize) {
    for (r, acc) in acc.chunks_exact(nr).take(rows).enumerate() {
        let at = r * stride;
        let residual = if residual.is_empty() { residual } else { &residual[at..] };
        groups!(bias.len(), |start, W| {
            let (acc, bias) = (part::<_, W>(acc, start), part::<_, W>(bias, start));
            let mut values = [0f32; W];
            for i in 0..W {
                values[i] = acc[i] + bias[i];
            }
            finish(values, residual, start, &mut to[at..]);
        });
    }
}

#[inline(always)]
fn finish<const W: usize>(mut values: [f32; W], residual: &[f32], at: usize, to: &mut [f32]) {
    if !residual.is_empty() {
        let residual = part::<_, W>(residual, at);
        for i in 0..W {
            values[i] += residual[i];
        }
    }
    *part_mut::<_, W>(to, at) = values;
}

/// A tile of int8 scores into `to`: `(acc - zero point * sum) * row scale * scale * column scale`; `scales` are those of the columns
/// that count.
#[inline(always)]
pub fn scale_i32(isa: Isa, tile: &Int8Tile, scale: f32, sums: &[i32], scales: &[f32], to: &mut [f32]) {
    match (tile.nr, scales.len()) {
        (4, 4) => scale_i32_whole::<4>(tile, scale, sums, scales, to),
        (8, 8) => scale_i32_whole::<8>(tile, scale, sums, scales, to),
        (16, 16) => scale_i32_whole::<16>(tile, scale, sums, scales, to),
        (32, 32) => scale_i32_whole::<32>(tile, scale, sums, scales, to),
        _ => scale_i32_part(isa, tile, scale, sums, scales, to),
    }
}

/// [`scale_i32`] of a tile at the right edge, value by value.
#[inline(always)]
fn scale_i32_part_body(tile: &Int8Tile, scale: f32, sums: &[i32], scales: &[f32], to: &mut [f32]) {
    for (r, c) in (0..tile.rows.len()).flat_map(|r| (0..scales.len()).map(move |c| (r, c))) {
        scale_i32_whole::<1>(&tile.one(r, c), scale, &sums[c..=c], &scales[c..=c], &mut to[r * tile.stride + c..]);
    }
}

per_isa! {
    fn scale_i32_part(tile: &Int8Tile, scale: f32, sums: &[i32], scales: &[f32], to: &mut [f32]) = scale_i32_part_body;
}

#[inline(always)]
fn scale_i32_whole<const NR: usize>(tile: &Int8Tile, scale: f32, sums: &[i32], scales: &[f32], to: &mut [f32]) {
    let (sums, scales) = (part::<_, NR>(sums, 0), part::<_, NR>(scales, 0));
    let to = strided_mut::<_, NR>(to, tile.stride, tile.rows.len());
    for ((row, acc), to) in tile.rows.iter().zip(tile.acc.as_chunks::<NR>().0).zip(to) {
        let factor = row.scale * scale;
        // first all, then stored: nothing says that `to` is not one of the others
        let mut values = [0f32; NR];
        for i in 0..NR {
            values[i] = (acc[i].wrapping_sub(sums[i].wrapping_mul(row.zero)) as f32 * factor) * scales[i];
        }
        *to = values;
    }
}

/// `to = values * factor`.
#[inline(always)]
pub fn scale(values: &[f32], factor: f32, to: &mut [f32]) {
    groups!(to.len(), |at, W| {
        let (values, to) = (part::<_, W>(values, at), part_mut::<_, W>(to, at));
        for i in 0..W {
            to[i] = values[i] * factor;
        }
    });
}

#[inline(always)]
pub fn add_body(values: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
}

per_isa! {
    /// `to += values`, as far as there are any.
    pub fn add(values: &[f32], to: &mut [f32]) = add_body;
}

/// Taps `[9, channels]` in the order in which [`depthwise`] reads them: sixteen channels of all nine, then the next sixteen.
pub fn depthwise_taps(taps: &[f32]) -> Vec<f32> {
    let channels = taps.len() / 9;
    let mut blocks = vec![0.0; channels.div_ceil(16) * 9 * 16];
    for (index, value) in taps.iter().enumerate() {
        let (tap, channel) = (index / channels, index % channels);
        blocks[(channel / 16 * 9 + tap) * 16 + channel % 16] = *value;
    }
    blocks
}

#[inline(always)]
fn depthwise_body(taps: &[f32], bias: &[f32], pixels: &[&[f32]; 9], to: &mut [f32]) {
    let whole = to.len() / 16 * 16;
    for (block, taps) in taps.chunks_exact(9 * 16).enumerate().take(to.len() / 16) {
        let mut sum = *part::<_, 16>(bias, block * 16);
        for (tap, pixel) in taps.as_chunks::<16>().0.iter().zip(pixels) {
            let pixel = part::<_, 16>(pixel, block * 16);
            for i in 0..16 {
                sum[i] = tap[i].mul_add(pixel[i], sum[i]);
            }
        }
        *part_mut::<_, 16>(to, block * 16) = sum;
    }
    for c in whole..to.len() {
        let taps = taps[whole * 9 + c % 16..].iter().step_by(16);
        to[c] = taps.zip(pixels).fold(bias[c], |sum, (tap, pixel)| tap.mul_add(pixel[c], sum));
    }
}

per_isa! {
    /// Depthwise 3x3 convolution at one pixel, channels last: `to[c] = bias[c] + sum_t taps[t][c] * pixels[t][c]`; `taps` are of
    /// [`depthwise_taps`], `pixels` are the nine neighbours in the order of the taps (a pixel outside of the map is zeros).
    pub fn depthwise(taps: &[f32], bias: &[f32], pixels: &[&[f32]; 9], to: &mut [f32]) = depthwise_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        crate::kernels::testing::numbers(n, seed).iter().map(|v| v * 2.0).collect()
    }

    #[test]
    fn layer_norm_equals_the_definition_and_itself() {
        for n in (1..70).chain([384, 1024]) {
            let (row, scale, shift) = (numbers(n, 1), numbers(n, 2), numbers(n, 3));
            let wide: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            let mean = wide.iter().sum::<f64>() / n as f64;
            let variance = wide.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            let mut reference = vec![f32::NAN; n];
            layer_norm(Isa::SCALAR, &row, &scale, &shift, 1e-6, &mut reference);
            for i in 0..n {
                let expected = (wide[i] - mean) / (variance + 1e-6).sqrt() * f64::from(scale[i]) + f64::from(shift[i]);
                // a few units of the last place of values up to 8; a single value has nothing but eps under the root
                assert!((f64::from(reference[i]) - expected).abs() < 1e-5, "{n}: {} {expected}", reference[i]);
            }
            for isa in Isa::available() {
                let mut ours = vec![f32::NAN; n];
                layer_norm(isa, &row, &scale, &shift, 1e-6, &mut ours);
                assert_eq!(ours, reference, "{n} {}", isa.name());
            }
        }
    }

    #[test]
    fn depthwise_equals_the_definition_everywhere() {
        for channels in [1, 5, 16, 33, 48] {
            let (taps, bias, map) = (numbers(9 * channels, 1), numbers(channels, 2), numbers(9 * channels, 3));
            let pixels: [&[f32]; 9] = std::array::from_fn(|t| &map[t * channels..(t + 1) * channels]);
            for isa in Isa::available() {
                let mut to = vec![f32::NAN; channels];
                depthwise(isa, &depthwise_taps(&taps), &bias, &pixels, &mut to);
                for c in 0..channels {
                    let products = (0..9).map(|t| f64::from(taps[t * channels + c]) * f64::from(pixels[t][c]));
                    let expected = f64::from(bias[c]) + products.sum::<f64>();
                    assert!((f64::from(to[c]) - expected).abs() < 1e-5, "nine products below 4 in f32");
                }
            }
        }
    }
}
