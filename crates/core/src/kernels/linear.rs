//! Linear layers: `y = activation(x W + b)`, in int8 with one activation scale per token, in half precision or in f32.
//!
//! [`FusedMlp`] runs one or several of them on a block of tokens that stays in the cache, with the layer norm before and the residual
//! after them.

use super::activation::{Activation, activate, activate_int8, gate};
use super::arch::{Aligned, Isa};
use super::elementwise::add;
use super::layer_norm::layer_norm;
use super::packed::{HalfRows, PackedF32, PackedHalf, PackedI8};
use super::quantize::Activations;
use products::{Product, multiply_f32, multiply_half, multiply_half_gelu, multiply_int8};

mod products;

/// The matrix of a layer, `[k, n]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// Activations are quantized per token.
    Int8(PackedI8),
    /// Activations are rounded to half precision, sums are f32.
    Half(PackedHalf),
    /// The same; int8 in memory, a panel becomes half precision when it is used, which holds these integers exactly. For many rows on matrix registers: their products
    /// take twice as long as those of int8, but no activation needs a range, and rounding it costs a third of the error.
    Expanded(PackedI8),
    /// Single precision.
    F32(PackedF32),
}

impl Weights {
    /// Rows of the matrix: values in.
    pub fn k(&self) -> usize {
        match self {
            Weights::Int8(panels) | Weights::Expanded(panels) => panels.k(),
            Weights::Half(panels) => panels.k(),
            Weights::F32(panels) => panels.k(),
        }
    }

    /// Columns of the matrix.
    pub fn n(&self) -> usize {
        match self {
            Weights::Int8(panels) | Weights::Expanded(panels) => panels.n(),
            Weights::Half(panels) => panels.n(),
            Weights::F32(panels) => panels.n(),
        }
    }

    /// Values of a row in half precision with its padding; `None` where rows are of another kind.
    fn half_depth(&self, isa: Isa) -> Option<usize> {
        match self {
            Weights::Half(panels) => Some(panels.depth()),
            Weights::Expanded(panels) => Some(isa.dot_tile().padded(panels.k())),
            Weights::Int8(_) | Weights::F32(_) => None,
        }
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    weights: Weights,
    /// One per column.
    bias: Vec<f32>,
    /// Applied to the product plus bias.
    pub activation: Activation,
    /// The first half of the columns, activated, times the second half; the layer then gives `n / 2` values.
    gated: bool,
}

impl Linear {
    /// `bias` has one value per column.
    pub fn new(weights: Weights, bias: Vec<f32>, activation: Activation, gated: bool) -> Linear {
        assert!(bias.len() == weights.n() && (!gated || weights.n().is_multiple_of(2)));
        Linear { weights, bias, activation, gated }
    }

    /// Its matrix.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Values in.
    pub fn k(&self) -> usize {
        self.weights.k()
    }

    /// Values out.
    pub fn n(&self) -> usize {
        if self.gated { self.weights.n() / 2 } else { self.weights.n() }
    }
}

/// Layer norm before the first layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// `[k]`
    pub scale: Vec<f32>,
    /// `[k]`
    pub shift: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

/// `[layer norm,] layer, layer ..., [+ residual]` on rows of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct FusedMlp {
    /// Before the first layer.
    pub norm: Option<Norm>,
    /// At least one.
    pub layers: Vec<Linear>,
}

/// The buffers of one thread for a block of rows. They grow to the largest block, then stay.
#[derive(Debug, Default)]
pub struct FusedMlpScratch {
    quantized: Activations,
    /// One panel of weights in half precision, of those that are int8 in memory.
    panel: Aligned<u16>,
    /// Of the layer that runs, and of the next one.
    half: [HalfRows; 2],
    /// Rows in f32: of the first layer after the norm, or between layers.
    rows: [Aligned<f32>; 2],
    /// One normalized row.
    row: Aligned<f32>,
}

/// Bytes that the rows between two layers may take: half of a small core's second-level cache.
const BLOCK_BYTES: usize = 256 << 10;
/// The same with matrix registers, whose tiles have more rows, for layers in int8 and in half precision: the weights pass through the second-level
/// cache of 2 MiB once for all rows of a block, and in half precision those of an MLP do not stay in it.
const BLOCK_BYTES_MATRIX: [usize; 2] = [512 << 10, 1536 << 10];

impl FusedMlp {
    /// Values of a row in.
    pub fn k(&self) -> usize {
        self.layers[0].k()
    }

    /// Values of a row out.
    pub fn n(&self) -> usize {
        self.layers.last().expect("at least one").n()
    }

    /// Rows that fit the cache at a time.
    pub fn block_rows(&self, isa: Isa) -> usize {
        let widest = self.layers.iter().map(|layer| layer.weights.n()).max().unwrap_or(1).max(self.k());
        let (bytes, value, most) = match (&self.layers[0].weights, isa.has_matrix_registers()) {
            (Weights::Int8(_), true) if self.layers.len() == 1 => (BLOCK_BYTES_MATRIX[1], 1, 448),
            (Weights::Int8(_), true) => (BLOCK_BYTES_MATRIX[0], 4, 128),
            (Weights::Half(_) | Weights::Expanded(_), true) => (BLOCK_BYTES_MATRIX[1], 2, 448),
            _ => (BLOCK_BYTES, 4, 128),
        };
        (bytes / (value * widest)).max(isa.tile_rows()).min(most)
    }

    /// Runs `count` rows: `input(i)` is row i, `[k]`; `out` is `[count, n]`, `residual` the same or empty.
    pub fn run<'a>(
        &self,
        isa: Isa,
        count: usize,
        input: impl Fn(usize) -> &'a [f32],
        residual: &[f32],
        out: &mut [f32],
        scratch: &mut FusedMlpScratch,
    ) {
        assert!(out.len() == count * self.n() && (residual.is_empty() || residual.len() == out.len()));
        scratch.row.resize(self.k());
        let last = self.layers.len() - 1;
        let mut prepared = false;
        for (index, layer) in self.layers.iter().enumerate() {
            if !prepared {
                self.prepare_rows(isa, index, count, &input, scratch);
            }
            let FusedMlpScratch { quantized, panel, half: [half, next], rows: [from, to], .. } = &mut *scratch;
            prepared = self.layers.get(index + 1).is_some_and(|after| layer.multiply_for(isa, count, (half, panel), after, next));
            if prepared {
                std::mem::swap(half, next);
                continue;
            }
            let columns = layer.weights.n();
            if index == last && !layer.gated {
                layer.finish(isa, count, Inputs { quantized, half, rows: from, panel }, residual, out);
                continue;
            }
            to.resize(count.next_multiple_of(isa.fma_tile().mr) * columns);
            layer.multiply(isa, count, Inputs { quantized, half, rows: from, panel }, &[], &mut to[..count * columns]);
            if layer.gated {
                let values_out = columns / 2;
                from.resize(count.next_multiple_of(isa.fma_tile().mr) * values_out);
                for (values, to) in to.chunks_exact_mut(columns).zip(from.chunks_exact_mut(values_out)) {
                    let (left, right) = values.split_at_mut(values_out);
                    gate(isa, layer.activation, left, right);
                    to.copy_from_slice(left);
                }
                if index == last {
                    out.copy_from_slice(&from[..out.len()]);
                    add(isa, residual, out);
                }
            } else {
                std::mem::swap(from, to);
            }
        }
    }

    /// The rows of layer `index`: quantized, in half precision, or in `rows[0]`, where those that an earlier layer gave lie already.
    fn prepare_rows<'a>(&self, isa: Isa, index: usize, count: usize, input: &impl Fn(usize) -> &'a [f32], scratch: &mut FusedMlpScratch) {
        let FusedMlpScratch { quantized, half: [half, _], rows: [from, _], row, .. } = scratch;
        let layer = &self.layers[index];
        let k = layer.k();
        match (&layer.weights, index.checked_sub(1)) {
            (Weights::Int8(_), None) => {
                quantized.resize(isa, count, k);
                for i in 0..count {
                    match &self.norm {
                        Some(norm) => {
                            let range = layer_norm(isa, input(i), &norm.scale, &norm.shift, norm.eps, row);
                            quantized.set_row_within(isa, i, row, range);
                        }
                        None => quantized.set_row(isa, i, input(i)),
                    }
                }
            }
            (Weights::Int8(_), Some(before)) => {
                quantized.resize(isa, count, k);
                for (i, values) in from.chunks_exact_mut(k).take(count).enumerate() {
                    let range = self.layers[before].activate_range(isa, values);
                    quantized.set_row_within(isa, i, values, range);
                }
            }
            (weights @ (Weights::Half(_) | Weights::Expanded(_)), None) => {
                half.resize(isa, count, weights.half_depth(isa).expect("rows in half precision"));
                (0..count).for_each(|i| half.set_row(isa, i, self.normalized(isa, input(i), row)));
            }
            (weights @ (Weights::Half(_) | Weights::Expanded(_)), Some(before)) => {
                half.resize(isa, count, weights.half_depth(isa).expect("rows in half precision"));
                for (i, values) in from.chunks_exact_mut(k).take(count).enumerate() {
                    if self.layers[before].is_gelu() {
                        half.set_gelu_row(isa, i, values);
                    } else {
                        self.layers[before].activate(isa, values);
                        half.set_row(isa, i, values);
                    }
                }
            }
            (Weights::F32(_), None) => {
                from.resize(count.next_multiple_of(isa.fma_tile().mr) * k);
                from.chunks_exact_mut(k).take(count).enumerate().for_each(|(i, to)| self.normalize(isa, input(i), to));
            }
            (Weights::F32(_), Some(before)) => {
                from.resize(count.next_multiple_of(isa.fma_tile().mr) * k);
                self.layers[before].activate(isa, &mut from[..count * k]);
            }
        }
    }

    fn normalize(&self, isa: Isa, row: &[f32], to: &mut [f32]) {
        match &self.norm {
            Some(norm) => _ = layer_norm(isa, row, &norm.scale, &norm.shift, norm.eps, to),
            None => to.copy_from_slice(row),
        }
    }

    fn normalized<'a>(&self, isa: Isa, row: &'a [f32], to: &'a mut [f32]) -> &'a [f32] {
        if self.norm.is_none() {
            return row;
        }
        self.normalize(isa, row, to);
        to
    }
}

impl Linear {
    /// `out[count, columns] = x W + b + residual`: x in the precision of the weights.
    fn multiply(&self, isa: Isa, count: usize, inputs: Inputs, residual: &[f32], out: &mut [f32]) {
        let product = Product { count, bias: &self.bias, residual };
        match &self.weights {
            Weights::Int8(panels) => multiply_int8(isa, inputs.quantized, panels, &product, out),
            Weights::F32(panels) => multiply_f32(isa, inputs.rows, panels, &product, out),
            Weights::Half(_) | Weights::Expanded(_) => multiply_half(isa, inputs.half, &self.weights, &product, inputs.panel, out),
        }
    }

    /// From half-precision rows straight to those of the layer `after` this one, where both are of that kind, a GELU lies between, and no row of
    /// `after` has padding. Gives whether it did.
    fn multiply_for(
        &self,
        isa: Isa,
        count: usize,
        (rows, panel): (&HalfRows, &mut Aligned<u16>),
        after: &Linear,
        to: &mut HalfRows,
    ) -> bool {
        let (Some(_), Some(depth)) = (self.weights.half_depth(isa), after.weights.half_depth(isa)) else { return false };
        let (n, nr) = (self.weights.n(), isa.half_tile().expect("it packed the weights").nr);
        if !self.is_gelu() || n != depth || !n.is_multiple_of(nr) || !nr.is_multiple_of(16) {
            return false;
        }
        to.resize(isa, count, depth);
        multiply_half_gelu(isa, rows, &self.weights, &Product { count, bias: &self.bias, residual: &[] }, panel, to);
        true
    }

    /// [`Linear::multiply`] with the activation before the residual.
    fn finish(&self, isa: Isa, count: usize, inputs: Inputs, residual: &[f32], out: &mut [f32]) {
        if self.activation == Activation::Identity {
            return self.multiply(isa, count, inputs, residual, out);
        }
        self.multiply(isa, count, inputs, &[], out);
        self.activate(isa, out);
        add(isa, residual, out);
    }

    /// [`Linear::activate`], and the smallest and the largest of zero and the results.
    fn activate_range(&self, isa: Isa, values: &mut [f32]) -> (f32, f32) {
        if self.is_gelu() {
            return isa.gelu_rough_range(values);
        }
        self.activate(isa, values);
        isa.range(values, (0.0, 0.0))
    }

    /// Whether [`Linear::activate`] is [`Isa::gelu_rough`].
    fn is_gelu(&self) -> bool {
        self.activation == Activation::Gelu && !self.gated && !matches!(self.weights, Weights::F32(_))
    }

    /// The activation of what [`Linear::multiply`] gave; a gate has done it already.
    fn activate(&self, isa: Isa, values: &mut [f32]) {
        match (self.activation, &self.weights) {
            (Activation::Identity, _) => {}
            _ if self.gated => {}
            (activation, Weights::Int8(_) | Weights::Half(_) | Weights::Expanded(_)) => activate_int8(isa, activation, values),
            (activation, Weights::F32(_)) => activate(isa, activation, values),
        }
    }
}

/// The rows of a layer: quantized, in half precision, or in f32; those of the weights' precision count.
struct Inputs<'a> {
    quantized: &'a Activations,
    half: &'a HalfRows,
    rows: &'a [f32],
    /// See [`FusedMlpScratch`].
    panel: &'a mut Aligned<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::arch::HalfFormat;
    use crate::kernels::suite;
    use crate::kernels::testing::numbers;

    fn int8(isa: Isa, k: usize, n: usize, seed: u32) -> (Weights, Vec<f64>) {
        let weights: Vec<i8> = numbers(k * n, seed).iter().map(|v| (v * 127.0) as i8).collect();
        let scales: Vec<f32> = numbers(n, seed + 1).iter().map(|v| v.abs() / 50.0).collect();
        let plain = weights.iter().enumerate().map(|(i, w)| f64::from(*w) * f64::from(scales[i % n])).collect();
        (Weights::Int8(PackedI8::pack(isa, &weights, &scales, k, n)), plain)
    }

    /// One layer in f64 on rows that are already what the product sees.
    fn naive(rows: &[f64], weights: &[f64], bias: &[f32], k: usize) -> Vec<f64> {
        let n = bias.len();
        let value = |r: usize, c: usize| f64::from(bias[c]) + (0..k).map(|i| rows[r * k + i] * weights[i * n + c]).sum::<f64>();
        (0..rows.len() / k).flat_map(|r| (0..n).map(move |c| (r, c))).map(|(r, c)| value(r, c)).collect()
    }

    /// What int8 activations are after rounding.
    fn rounded(rows: &[f32], k: usize) -> Vec<f64> {
        let row = |row: &[f32]| -> Vec<f64> {
            let (low, high) = row.iter().fold((0f32, 0f32), |(low, high), v| (low.min(*v), high.max(*v)));
            let inverse = 255.0 / (high - low);
            let zero = (-128.0 - low * inverse).round_ties_even();
            let integer = |v: &f32| v.mul_add(inverse, zero).clamp(-128.0, 127.0).round_ties_even();
            row.iter().map(|v| f64::from(integer(v) - zero) * f64::from((high - low) / 255.0)).collect()
        };
        rows.chunks(k).flat_map(row).collect()
    }

    #[test]
    fn both_precisions_equal_the_definition_for_every_tail() {
        for (count, k, n) in [(1, 1, 1), (3, 16, 5), (13, 40, 33), (25, 48, 64), (12, 100, 31)] {
            let (rows, bias, residual) = (numbers(count * k, 1), numbers(n, 2), numbers(count * n, 3));
            let plain = numbers(k * n, 4);
            let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            for precision in ["int8", "f32"] {
                let run = |isa: Isa| {
                    let weights = match precision {
                        "int8" => int8(isa, k, n, 5).0,
                        _ => Weights::F32(PackedF32::pack(isa, &plain, k, n)),
                    };
                    let mlp = FusedMlp { norm: None, layers: vec![Linear::new(weights, bias.clone(), Activation::Identity, false)] };
                    let mut out = vec![f32::NAN; count * n];
                    mlp.run(isa, count, |i| &rows[i * k..(i + 1) * k], &residual, &mut out, &mut FusedMlpScratch::default());
                    out
                };
                let (weights, seen) = match precision {
                    "int8" => (int8(Isa::SCALAR, k, n, 5).1, rounded(&rows, k)),
                    _ => (wide(&plain), wide(&rows)),
                };
                let ours = suite::everywhere((precision, count, k, n), run);
                for ((ours, expected), residual) in ours.iter().zip(naive(&seen, &weights, &bias, k)).zip(&residual) {
                    let expected = expected + f64::from(*residual);
                    // sums of up to 100 products of at most 2.6, in f32
                    assert!((f64::from(*ours) - expected).abs() < 1e-4, "{precision} {count}x{k}x{n}: {ours} {expected}");
                }
            }
        }
    }

    /// Rounded to half precision and multiplied: with every tail, after a norm, behind an activation, in any split into blocks.
    #[test]
    fn half_precision_layers_multiply_rounded_numbers() {
        let rounded = |values: &[f32]| -> Vec<f64> {
            values.iter().map(|value| f64::from(HalfFormat::NATIVE.widen(HalfFormat::NATIVE.round(*value)))).collect()
        };
        // sums of up to 100 products of at most 2.6: in f32, or in binary16, which has 2^-11 of about 10 for each of them
        let tolerance = if HalfFormat::NATIVE == HalfFormat::Bf16 { 1e-4 } else { 0.1 };
        for (count, k, n) in [(1, 1, 1), (3, 16, 5), (13, 41, 33), (25, 48, 64), (12, 100, 31)] {
            let (rows, bias, residual) = (numbers(count * k, 1), numbers(n, 2), numbers(count * n, 3));
            let plain = numbers(k * n, 4);
            suite::each_isa(|isa| {
                let pack = |values: &[f32], k: usize, n: usize| {
                    let mut panels = PackedHalf::new(isa)?;
                    panels.resize(k, n);
                    let column = |c: usize| values[c..].iter().step_by(n).copied().collect::<Vec<f32>>();
                    (0..n).for_each(|c| panels.set_column(c, &column(c)));
                    Some(Weights::Half(panels))
                };
                let Some(weights) = pack(&plain, k, n) else { return };
                let one = Linear::new(weights, bias.clone(), Activation::Identity, false);
                let mlp = FusedMlp { norm: None, layers: vec![one.clone()] };
                let mut out = vec![f32::NAN; count * n];
                mlp.run(isa, count, |i| &rows[i * k..(i + 1) * k], &residual, &mut out, &mut FusedMlpScratch::default());
                for ((ours, expected), residual) in out.iter().zip(naive(&rounded(&rows), &rounded(&plain), &bias, k)).zip(&residual) {
                    let expected = expected + f64::from(*residual);
                    assert!((f64::from(*ours) - expected).abs() < tolerance, "{} {count}x{k}x{n}: {ours} {expected}", isa.name());
                }
                let up = Linear { activation: Activation::Gelu, ..one };
                let back = Linear::new(pack(&numbers(n * k, 7), n, k).expect("as above"), numbers(k, 8), Activation::Identity, false);
                let norm = Norm { scale: numbers(k, 5), shift: numbers(k, 6), eps: 1e-6 };
                let mlp = FusedMlp { norm: Some(norm), layers: vec![up, back] };
                let (mut whole, mut split) = (vec![f32::NAN; count * k], vec![f32::NAN; count * k]);
                let mut scratch = FusedMlpScratch::default();
                mlp.run(isa, count, |i| &rows[i * k..(i + 1) * k], &rows, &mut whole, &mut scratch);
                for (first, to) in split.chunks_mut(7 * k).enumerate().map(|(block, to)| (7 * block, to)) {
                    let residual = &rows[first * k..first * k + to.len()];
                    mlp.run(isa, to.len() / k, |i| &rows[(first + i) * k..][..k], residual, to, &mut scratch);
                }
                assert_eq!(whole, split, "{}", isa.name());
            });
        }
    }

    /// int8 weights that become half precision panel by panel: two layers of every tail, with and without a GELU between them, gated or not.
    #[test]
    fn expanded_layers_multiply_rounded_numbers_by_integers() {
        let rounded = |values: &[f32]| -> Vec<f64> {
            values.iter().map(|value| f64::from(HalfFormat::NATIVE.widen(HalfFormat::NATIVE.round(*value)))).collect()
        };
        for (count, k, n) in [(1, 1, 2), (3, 16, 6), (13, 40, 34), (70, 64, 64), (12, 100, 128)] {
            let (rows, bias, residual) = (numbers(count * k, 1), numbers(n, 2), numbers(count * k, 3));
            suite::each_isa(|isa| {
                let (dot, half) = (isa.dot_tile(), isa.half_tile());
                if half.is_none_or(|half| (dot.nr, dot.kr, half.nr, half.kr) != (32, 4, 32, 2)) {
                    return;
                }
                for (activation, gated) in [(Activation::Identity, false), (Activation::Gelu, false), (Activation::Silu, true)] {
                    let inner = if gated { n / 2 } else { n };
                    let layer = |k: usize, bias: &[f32], activation: Activation, gated: bool| {
                        let (Weights::Int8(panels), plain) = int8(isa, k, bias.len(), 5) else { unreachable!("int8") };
                        (Linear::new(Weights::Expanded(panels), bias.to_vec(), activation, gated), plain)
                    };
                    let (up, up_plain) = layer(k, &bias, activation, gated);
                    let (down, down_plain) = layer(inner, &numbers(k, 8), Activation::Identity, false);
                    let mlp = FusedMlp { norm: None, layers: vec![up, down] };
                    let mut out = vec![f32::NAN; count * k];
                    mlp.run(isa, count, |i| &rows[i * k..(i + 1) * k], &residual, &mut out, &mut FusedMlpScratch::default());
                    let apply = |mut values: Vec<f32>| {
                        activate(Isa::SCALAR, activation, &mut values);
                        values
                    };
                    let hidden = naive(&rounded(&rows), &up_plain, &bias, k);
                    let hidden: Vec<f32> = match gated {
                        true => {
                            let one = |row: &[f64]| {
                                let left = apply(row[..inner].iter().map(|v| *v as f32).collect());
                                left.into_iter().zip(&row[inner..]).map(|(a, b)| a * *b as f32).collect::<Vec<f32>>()
                            };
                            hidden.chunks_exact(n).flat_map(one).collect()
                        }
                        false => apply(hidden.iter().map(|v| *v as f32).collect()),
                    };
                    let expected = naive(&hidden.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>(), &down_plain, &numbers(k, 8), inner);
                    let size = hidden.iter().fold(1f32, |most, v| most.max(v.abs()));
                    for ((ours, expected), residual) in out.iter().zip(expected).zip(&residual) {
                        // hidden values in bfloat16, 2^-9 of up to `size` each, by weights of up to 2.6 in sums whose signs differ; the GELU is the rough one
                        let tolerance = 2.6 * f64::from(size) * (inner as f64).sqrt() * 4.0 * 2f64.powi(-9) + 4e-3;
                        assert!(
                            (f64::from(*ours) - expected - f64::from(*residual)).abs() < tolerance,
                            "{} {count}x{k}x{n} {activation:?}: {ours} {expected} {tolerance}",
                            isa.name()
                        );
                    }
                }
            });
        }
    }

    /// The largest weights and activations, around the depth from which sums reach 2^22.
    #[test]
    fn sums_of_any_size_are_exact() {
        for (k, weight) in [(257, 127), (258, -127), (259, 127), (1040, -127)] {
            let ours = suite::everywhere((k, weight), |isa| {
                let weights = Weights::Int8(PackedI8::pack(isa, &vec![weight; k * 8], &[0.5; 8], k, 8));
                let layer = Linear::new(weights, vec![0.0; 8], Activation::Identity, false);
                let mlp = FusedMlp { norm: None, layers: vec![layer] };
                let rows = [vec![1.0; k], vec![-1.0; k]];
                let mut out = vec![f32::NAN; 9 * 8];
                mlp.run(isa, 9, |i| &rows[i % 2], &[], &mut out, &mut FusedMlpScratch::default());
                out
            });
            for (i, value) in ours.iter().enumerate() {
                let expected = k as f32 * f32::from(weight) * if i / 8 % 2 == 0 { 0.5 } else { -0.5 };
                assert!((value / expected - 1.0).abs() < 1e-6, "{k}: {value} {expected}");
            }
        }
    }

    /// Norm, two layers, gate, residual: the same bits on every instruction set and for every split into blocks.
    #[test]
    fn a_fused_mlp_has_the_same_bits_everywhere() {
        let (count, k, inner) = (29, 40, 56);
        let (rows, residual) = (numbers(count * k, 1), numbers(count * k, 2));
        for gated in [false, true] {
            suite::everywhere(gated, |isa| {
                let columns = if gated { 2 * inner } else { inner };
                let norm = Norm { scale: numbers(k, 3), shift: numbers(k, 4), eps: 1e-6 };
                let up = Linear::new(int8(isa, k, columns, 5).0, numbers(columns, 6), Activation::Silu, gated);
                let down = Weights::F32(PackedF32::pack(isa, &numbers(inner * k, 7), inner, k));
                let mlp = FusedMlp { norm: Some(norm), layers: vec![up, Linear::new(down, numbers(k, 8), Activation::Gelu, false)] };
                let mut scratch = FusedMlpScratch::default();
                let mut out = vec![f32::NAN; count * k];
                mlp.run(isa, count, |i| &rows[i * k..(i + 1) * k], &residual, &mut out, &mut scratch);
                let mut split = vec![f32::NAN; count * k];
                for first in (0..count).step_by(8) {
                    let some = 8.min(count - first);
                    let range = first * k..(first + some) * k;
                    let input = |i: usize| &rows[(first + i) * k..(first + i + 1) * k];
                    mlp.run(isa, some, input, &residual[range.clone()], &mut split[range], &mut scratch);
                }
                assert_eq!(out, split, "{}", isa.name());
                out
            });
        }
    }
}
