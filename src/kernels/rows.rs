//! Row by row work around the products: layer norm, the end of a tile, softmax.

use super::activation::{Activation, apply, exp};
use super::arch::{Isa, per_isa};

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

/// What becomes of an int8 tile: `activation((acc - zero point * column sum) * row scale * column scale + bias) + residual`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// One per column of the tile, as all here.
    pub sums: &'a [i32],
    pub column_scales: &'a [f32],
    pub bias: &'a [f32],
    pub activation: Activation,
}

/// One row of an int8 tile, with its scale and zero point, into `to`; an empty `residual` adds nothing.
#[inline(always)]
pub fn finish_i32(acc: &[i32], (row_scale, zero): (f32, i32), epilogue: &Epilogue, residual: &[f32], to: &mut [f32]) {
    groups!(to.len(), |at, W| {
        let (acc, sums) = (part::<_, W>(acc, at), part::<_, W>(epilogue.sums, at));
        let (scales, bias) = (part::<_, W>(epilogue.column_scales, at), part::<_, W>(epilogue.bias, at));
        let mut values = [0f32; W];
        for i in 0..W {
            let exact = acc[i].wrapping_sub(sums[i].wrapping_mul(zero));
            values[i] = (exact as f32 * row_scale).mul_add(scales[i], bias[i]);
        }
        finish(values, epilogue.activation, residual, at, to);
    });
}

/// One row of an f32 tile into `to`; an empty `residual` adds nothing.
#[inline(always)]
pub fn finish_f32(acc: &[f32], bias: &[f32], activation: Activation, residual: &[f32], to: &mut [f32]) {
    groups!(to.len(), |at, W| {
        let (acc, bias) = (part::<_, W>(acc, at), part::<_, W>(bias, at));
        let mut values = [0f32; W];
        for i in 0..W {
            values[i] = acc[i] + bias[i];
        }
        finish(values, activation, residual, at, to);
    });
}

#[inline(always)]
fn finish<const W: usize>(mut values: [f32; W], activation: Activation, residual: &[f32], at: usize, to: &mut [f32]) {
    apply(activation, &mut values);
    if !residual.is_empty() {
        let residual = part::<_, W>(residual, at);
        for i in 0..W {
            values[i] += residual[i];
        }
    }
    *part_mut::<_, W>(to, at) = values;
}

/// Softmax without the division: `row = e^(row - max)`, returns 1 / sum. NaN stays NaN and makes the sum NaN.
#[inline(always)]
pub fn softmax_body(isa: Isa, row: &mut [f32]) -> f32 {
    let max = isa.range(row, (f32::INFINITY, f32::NEG_INFINITY)).1;
    for value in row.iter_mut() {
        *value = exp(*value - max);
    }
    1.0 / isa.sum(row)
}

#[cfg(test)]
per_isa! {
    /// Softmax of one row without the division: `row` becomes `e^(row - max)`; returns the inverse of the sum.
    pub fn softmax[isa](row: &mut [f32]) -> f32 = softmax_body;
}

/// `to = (acc - zero point * sum) * row scale * column scale`: scores of int8 queries and keys.
#[inline(always)]
pub fn scale_i32(acc: &[i32], (row_scale, zero): (f32, i32), sums: &[i32], column_scales: &[f32], to: &mut [f32]) {
    groups!(to.len(), |at, W| {
        let (acc, sums, scales) = (part::<_, W>(acc, at), part::<_, W>(sums, at), part::<_, W>(column_scales, at));
        let to = part_mut::<_, W>(to, at);
        for i in 0..W {
            to[i] = (acc[i].wrapping_sub(sums[i].wrapping_mul(zero)) as f32 * row_scale) * scales[i];
        }
    });
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
    /// `to += values`.
    pub fn add(values: &[f32], to: &mut [f32]) = add_body;
}

/// Depthwise 3x3 convolution at one pixel: `to[c] = bias[c] + sum_t taps[t][c] * pixels[t][c]`.
#[inline(always)]
fn depthwise_body(taps: &[f32], bias: &[f32], pixels: &[&[f32]; 9], to: &mut [f32]) {
    let channels = to.len();
    let taps: [&[f32]; 9] = std::array::from_fn(|t| &taps[t * channels..(t + 1) * channels]);
    let pixels: [&[f32]; 9] = std::array::from_fn(|t| &pixels[t][..channels]);
    let bias = &bias[..channels];
    for c in 0..channels {
        let mut sum = bias[c];
        for t in 0..9 {
            sum = taps[t][c].mul_add(pixels[t][c], sum);
        }
        to[c] = sum;
    }
}

per_isa! {
    /// Depthwise 3x3 convolution at one pixel, channels last: `taps` is `[9, channels]`, `pixels` are the nine neighbours in the
    /// order of the taps (a pixel outside of the map is zeros).
    pub fn depthwise(taps: &[f32], bias: &[f32], pixels: &[&[f32]; 9], to: &mut [f32]) = depthwise_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 4_194_304.0 - 2.0
        };
        (0..n).map(|_| next()).collect()
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
    fn softmax_is_a_distribution_and_the_same_everywhere() {
        for n in (1..70).chain([405, 1605]) {
            let row: Vec<f32> = numbers(n, 4).iter().map(|v| v * 20.0).collect();
            let max = row.iter().copied().fold(f32::MIN, f32::max);
            let mut reference = row.clone();
            let inverse = softmax(Isa::SCALAR, &mut reference);
            let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
            for (ours, value) in reference.iter().zip(&row) {
                let expected = f64::from(value - max).exp() / sum;
                assert!((f64::from(ours * inverse) - expected).abs() < 1e-6, "a probability, f32");
            }
            for isa in Isa::available() {
                let mut ours = row.clone();
                assert_eq!(softmax(isa, &mut ours), inverse, "{}", isa.name());
                assert_eq!(ours, reference, "{}", isa.name());
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
                depthwise(isa, &taps, &bias, &pixels, &mut to);
                for c in 0..channels {
                    let products = (0..9).map(|t| f64::from(taps[t * channels + c]) * f64::from(pixels[t][c]));
                    let expected = f64::from(bias[c]) + products.sum::<f64>();
                    assert!((f64::from(to[c]) - expected).abs() < 1e-5, "nine products below 4 in f32");
                }
            }
        }
    }
}
