//! Linear layers: `y = activation(x W + b)`, in int8 with one activation scale per token, in half precision or in f32.
//!
//! [`FusedMlp`] runs one or several of them on a block of tokens that stays in the cache, with the layer norm before and the residual
//! after them.

use super::activation::{Activation, activate, activate_int8, gate};
use super::arch::{Aligned, FloatTile, IntegerTile, Isa, LINEAR_TILE, LinearTile, TILE_MAX, TileOf, per_isa};
use super::columns::array_at;
use super::elementwise::add;
use super::epilogue::{Epilogue, Int8Tile, f32_epilogue, int8_epilogue};
use super::layer_norm::layer_norm;
use super::packed::{HalfRows, PackedF32, PackedHalf, PackedI8};
use super::quantize::Activations;

/// The matrix of a layer, `[k, n]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// Activations are quantized per token.
    Int8(PackedI8),
    /// Activations are rounded to half precision, sums are f32.
    Half(PackedHalf),
    /// Single precision.
    F32(PackedF32),
}

impl Weights {
    /// Rows of the matrix: values in.
    pub fn k(&self) -> usize {
        match self {
            Weights::Int8(panels) => panels.k(),
            Weights::Half(panels) => panels.k(),
            Weights::F32(panels) => panels.k(),
        }
    }

    /// Columns of the matrix.
    pub fn n(&self) -> usize {
        match self {
            Weights::Int8(panels) => panels.n(),
            Weights::Half(panels) => panels.n(),
            Weights::F32(panels) => panels.n(),
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
            (Weights::Int8(_), true) => (BLOCK_BYTES_MATRIX[0], 4, 128),
            (Weights::Half(_), true) => (BLOCK_BYTES_MATRIX[1], 2, 448),
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
            let FusedMlpScratch { quantized, half: [half, next], rows: [from, to], .. } = &mut *scratch;
            prepared = self.layers.get(index + 1).is_some_and(|after| layer.multiply_for(isa, count, half, after, next));
            if prepared {
                std::mem::swap(half, next);
                continue;
            }
            let columns = layer.weights.n();
            if index == last && !layer.gated {
                layer.finish(isa, count, (quantized, half, from), residual, out);
                continue;
            }
            to.resize(count.next_multiple_of(isa.fma_tile().mr) * columns);
            layer.multiply(isa, count, (quantized, half, from), &[], &mut to[..count * columns]);
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
        let FusedMlpScratch { quantized, half: [half, _], rows: [from, _], row } = scratch;
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
            (Weights::Half(panels), None) => {
                half.resize(isa, count, panels.depth());
                (0..count).for_each(|i| half.set_row(isa, i, self.normalized(isa, input(i), row)));
            }
            (Weights::Half(panels), Some(before)) => {
                half.resize(isa, count, panels.depth());
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
    fn multiply(&self, isa: Isa, count: usize, (quantized, half, rows): Inputs, residual: &[f32], out: &mut [f32]) {
        let product = Product { count, bias: &self.bias, residual };
        match &self.weights {
            Weights::Int8(panels) => multiply_int8(isa, quantized, panels, &product, out),
            Weights::Half(panels) => multiply_half(isa, half, panels, &product, out),
            Weights::F32(panels) => multiply_f32(isa, rows, panels, &product, out),
        }
    }

    /// From half-precision rows straight to those of the layer `after` this one, where both are of that kind, a GELU lies between, and no row of
    /// `after` has padding. Gives whether it did.
    fn multiply_for(&self, isa: Isa, count: usize, rows: &HalfRows, after: &Linear, to: &mut HalfRows) -> bool {
        let (Weights::Half(panels), Weights::Half(next)) = (&self.weights, &after.weights) else { return false };
        let nr = isa.half_tile().expect("it packed the weights").nr;
        if !self.is_gelu() || panels.n() != next.depth() || !panels.n().is_multiple_of(nr) || !nr.is_multiple_of(16) {
            return false;
        }
        to.resize(isa, count, next.depth());
        multiply_half_gelu(isa, rows, panels, &Product { count, bias: &self.bias, residual: &[] }, to);
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
            (activation, Weights::Int8(_) | Weights::Half(_)) => activate_int8(isa, activation, values),
            (activation, Weights::F32(_)) => activate(isa, activation, values),
        }
    }
}

/// The rows of a layer: quantized, in half precision, or in f32; those of the weights' precision count.
type Inputs<'a> = (&'a Activations, &'a HalfRows, &'a [f32]);

/// A product and what is added to it.
#[derive(Clone, Copy)]
struct Product<'a> {
    /// Number of rows.
    count: usize,
    bias: &'a [f32],
    /// Like the output, or empty.
    residual: &'a [f32],
}

/// For each panel, for each tile of rows: accumulate in registers, then finish into `out`. The panel stays in the first-level cache.
#[inline(always)]
fn multiply_int8_body(isa: Isa, rows: &Activations, panels: &PackedI8, product: &Product, out: &mut [f32]) {
    let Product { count, bias, residual } = *product;
    let (tile, n) = (isa.dot_tile(), panels.n());
    let (k, products) = (tile.padded(panels.k()), isa.products());
    let mut acc = TileOf([0; TILE_MAX]);
    for (index, first) in (0..n).step_by(tile.nr).enumerate() {
        let columns = tile.nr.min(n - first);
        let (panel, range) = (panels.panel(index), first..first + columns);
        let (sums, column_scales) = (&panels.sums()[range.clone()], &panels.scales()[range.clone()]);
        let epilogue = Epilogue { sums, column_scales, bias: &bias[range] };
        let whole = columns == tile.nr && columns.is_multiple_of(16);
        let mut done = 0;
        if isa.has_linear_tile() && columns == LINEAR_TILE && panels.is_small(index) {
            done = multiply_fused(isa, rows, panel, epilogue, product, (n, first), out);
        }
        for row in (done..count).step_by(tile.mr) {
            let (bytes, stride) = rows.rows(row);
            products.dot(bytes, stride, panel, k, &mut acc);
            let (here, at) = (tile.mr.min(count - row), row * n + first);
            let residual = if residual.is_empty() { residual } else { &residual[at..] };
            let rows = rows.parameters(row, here);
            if whole {
                let Epilogue { column_scales, bias, .. } = epilogue;
                let tile = IntegerTile { acc: &acc.0, rows, factor: 1.0, sums, column_scales, bias, stride: n };
                isa.finish_int8(&tile, residual, &mut out[at..]);
                continue;
            }
            let tile = Int8Tile { nr: tile.nr, acc: &acc.0, rows, stride: n };
            int8_epilogue(isa, &tile, &epilogue, residual, &mut out[at..]);
        }
    }
}

/// The whole tiles of one panel, whose columns begin at `first` of `n`; gives how many rows those are. A function of its own, so that its
/// variables do not take the registers of [`multiply_int8_body`].
#[inline(never)]
fn multiply_fused(
    isa: Isa,
    rows: &Activations,
    panel: &[i8],
    epilogue: Epilogue,
    product: &Product,
    (n, first): (usize, usize),
    out: &mut [f32],
) -> usize {
    let k = panel.len() / LINEAR_TILE;
    let (scales, zeros) = rows.vectors();
    let sums = array_at::<_, LINEAR_TILE>(epilogue.sums, 0).map(|sum| sum as f32);
    let (column_scales, bias) = (array_at(epilogue.column_scales, 0), array_at(epilogue.bias, 0));
    let whole = product.count / LINEAR_TILE * LINEAR_TILE;
    for row in (0..whole).step_by(LINEAR_TILE) {
        let at = row * n + first;
        let (scales, zeros) = (array_at(scales, row), array_at(zeros, row));
        let tile = LinearTile { scales, zeros, sums: &sums, column_scales, bias, stride: n };
        isa.linear_tile(rows.rows(row).0, panel, k, &tile, product.residual.get(at..).unwrap_or(&[]), &mut out[at..]);
    }
    whole
}

/// [`multiply_int8`] in f32; `rows` is padded to whole tiles.
#[inline(always)]
fn multiply_f32_body(isa: Isa, rows: &[f32], panels: &PackedF32, product: &Product, out: &mut [f32]) {
    let Product { count, bias, residual } = *product;
    let (tile, n, k) = (isa.fma_tile(), panels.n(), panels.k());
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, first) in (0..n).step_by(tile.nr).enumerate() {
        let columns = tile.nr.min(n - first);
        let panel = panels.panel(index);
        for row in (0..count).step_by(tile.mr) {
            isa.fma(&rows[row * k..], k, panel, k, &mut acc);
            let at = row * n + first;
            let residual = if residual.is_empty() { residual } else { &residual[at..] };
            let (rows, bias) = (tile.mr.min(count - row), &bias[first..first + columns]);
            f32_epilogue(tile.nr, &acc.0, rows, bias, residual, &mut out[at..], n);
        }
    }
}

/// [`multiply_int8`] in half precision.
#[inline(always)]
fn multiply_half_body(isa: Isa, rows: &HalfRows, panels: &PackedHalf, product: &Product, out: &mut [f32]) {
    let Product { count, bias, residual } = *product;
    let (tile, n, depth) = (isa.half_tile().expect("it packed the weights"), panels.n(), panels.depth());
    let products = isa.products();
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, first) in (0..n).step_by(tile.nr).enumerate() {
        let columns = tile.nr.min(n - first);
        let panel = panels.panel(index);
        for row in (0..count).step_by(tile.mr) {
            let (values, stride) = rows.rows(row);
            products.half(values, stride, panel, depth, &mut acc);
            let at = row * n + first;
            let residual = if residual.is_empty() { residual } else { &residual[at..] };
            let (rows, bias) = (tile.mr.min(count - row), &bias[first..first + columns]);
            if columns == tile.nr {
                isa.finish_f32(&FloatTile { acc: &acc.0, rows, bias, stride: n }, residual, &mut out[at..]);
            } else {
                f32_epilogue(tile.nr, &acc.0, rows, bias, residual, &mut out[at..], n);
            }
        }
    }
}

/// [`multiply_half`] of whole panels, and the GELU of the outputs, to the rows of the next layer.
#[inline(always)]
fn multiply_half_gelu_body(isa: Isa, rows: &HalfRows, panels: &PackedHalf, product: &Product, to: &mut HalfRows) {
    let Product { count, bias, .. } = *product;
    let (tile, depth) = (isa.half_tile().expect("it packed the weights"), panels.depth());
    let products = isa.products();
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (index, bias) in bias.chunks_exact(tile.nr).enumerate() {
        let panel = panels.panel(index);
        for row in (0..count).step_by(tile.mr) {
            let (values, stride) = rows.rows(row);
            products.half(values, stride, panel, depth, &mut acc);
            let (to, stride) = to.rows_mut(row);
            let tile_of = FloatTile { acc: &acc.0, rows: tile.mr.min(count - row), bias, stride };
            isa.finish_gelu_half(&tile_of, &mut to[index * tile.nr..]);
        }
    }
}

per_isa! {
    fn multiply_half_gelu[isa](rows: &HalfRows, panels: &PackedHalf, product: &Product, to: &mut HalfRows) = multiply_half_gelu_body;
}
per_isa! {
    fn multiply_int8[isa](rows: &Activations, panels: &PackedI8, product: &Product, out: &mut [f32]) = multiply_int8_body;
}
per_isa! {
    fn multiply_half[isa](rows: &HalfRows, panels: &PackedHalf, product: &Product, out: &mut [f32]) = multiply_half_body;
}
per_isa! {
    fn multiply_f32[isa](rows: &[f32], panels: &PackedF32, product: &Product, out: &mut [f32]) = multiply_f32_body;
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
