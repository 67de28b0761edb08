//! The products of linear layers: every panel of weights with every tile of rows, and what becomes of the sums.

use super::Weights;
use crate::kernels::arch::{Aligned, FloatTile, IntegerTile, Isa, LINEAR_TILE, LinearTile, TILE_MAX, TileOf, per_isa};
use crate::kernels::columns::array_at;
use crate::kernels::epilogue::{Epilogue, Int8Tile, f32_epilogue, int8_epilogue};
use crate::kernels::packed::{HalfRows, PackedF32, PackedI8};
use crate::kernels::quantize::Activations;

/// A product and what is added to it.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// Number of rows.
    pub(super) count: usize,
    pub(super) bias: &'a [f32],
    /// Like the output, or empty.
    pub(super) residual: &'a [f32],
}

/// Of `count` rows, how many meet all panels, of so many bytes, before the next ones do.
///
/// One tile where matrix registers have all panels in their second-level cache, whose bandwidth their steps do not use up: rows and outputs stay in the first, and
/// outputs are written from left to right, as the prefetcher likes. Else all: a panel stays in the first-level cache.
#[inline(always)]
fn part_rows(isa: Isa, count: usize, bytes: usize) -> usize {
    if isa.has_matrix_registers() && bytes <= 1 << 20 { isa.tile_rows() } else { count.max(1) }
}

/// For each panel, for each tile of rows: accumulate in registers, then finish into `out`.
#[inline(always)]
fn multiply_int8_body(isa: Isa, rows: &Activations, panels: &PackedI8, product: &Product, out: &mut [f32]) {
    let Product { count, bias, residual } = *product;
    let (tile, n) = (isa.dot_tile(), panels.n());
    let (k, products) = (tile.padded(panels.k()), isa.products());
    let mut acc = TileOf([0; TILE_MAX]);
    let part = part_rows(isa, count, n * k);
    for start in (0..count).step_by(part) {
        for (index, first) in (0..n).step_by(tile.nr).enumerate() {
            let columns = tile.nr.min(n - first);
            let (panel, range) = (panels.panel(index), first..first + columns);
            let (sums, column_scales) = (&panels.sums()[range.clone()], &panels.scales()[range.clone()]);
            let epilogue = Epilogue { sums, column_scales, bias: &bias[range] };
            let whole = columns == tile.nr && columns.is_multiple_of(16);
            let mut done = start;
            if isa.has_linear_tile() && columns == LINEAR_TILE && panels.is_small(index) {
                done = multiply_fused(isa, rows, panel, epilogue, product, (n, first), out);
            }
            for row in (done..count.min(start + part)).step_by(tile.mr) {
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

/// Panels in half precision, of weights of either kind.
struct HalfPanels<'a> {
    isa: Isa,
    weights: &'a Weights,
    /// The last one of those that are int8 in memory.
    panel: &'a mut Aligned<u16>,
}

impl HalfPanels<'_> {
    /// Panel number `index`, and the factors of its columns, if they have any.
    #[inline(always)]
    fn get(&mut self, index: usize) -> (&[u16], &[f32]) {
        match self.weights {
            Weights::Half(panels) => (panels.panel(index), &[]),
            Weights::Expanded(panels) => {
                let (from, nr) = (panels.panel(index), self.isa.dot_tile().nr);
                self.panel.resize(from.len());
                self.isa.expand(from, self.panel);
                (&*self.panel, &panels.scales()[index * nr..][..nr])
            }
            Weights::Int8(_) | Weights::F32(_) => unreachable!("weights of another kind"),
        }
    }

    /// See [`part_rows`]; a panel is expanded once for all rows.
    #[inline(always)]
    fn part_rows(&self, count: usize) -> usize {
        match self.weights {
            Weights::Half(panels) => part_rows(self.isa, count, 2 * panels.depth() * panels.n()),
            _ => count.max(1),
        }
    }
}

/// [`multiply_int8`] in half precision.
#[inline(always)]
fn multiply_half_body(isa: Isa, rows: &HalfRows, weights: &Weights, product: &Product, panel: &mut Aligned<u16>, out: &mut [f32]) {
    let Product { count, bias, residual } = *product;
    let (tile, n, depth) = (isa.half_tile().expect("it packed the weights"), weights.n(), weights.half_depth(isa).expect("half precision"));
    let (products, mut panels) = (isa.products(), HalfPanels { isa, weights, panel });
    let mut acc = TileOf([0.0; TILE_MAX]);
    let part = panels.part_rows(count);
    for start in (0..count).step_by(part) {
        for (index, first) in (0..n).step_by(tile.nr).enumerate() {
            let columns = tile.nr.min(n - first);
            let (panel, scales) = panels.get(index);
            for row in (start..count.min(start + part)).step_by(tile.mr) {
                let (values, stride) = rows.rows(row);
                products.half(values, stride, panel, depth, &mut acc);
                let at = row * n + first;
                let residual = if residual.is_empty() { residual } else { &residual[at..] };
                let (rows, bias) = (tile.mr.min(count - row), &bias[first..first + columns]);
                if columns == tile.nr {
                    isa.finish_f32(&FloatTile { acc: &acc.0, rows, scales, bias, stride: n }, residual, &mut out[at..]);
                } else {
                    scale_columns(scales, &mut acc.0[..tile.nr * rows]);
                    f32_epilogue(tile.nr, &acc.0, rows, bias, residual, &mut out[at..], n);
                }
            }
        }
    }
}

/// Multiplies each row of `acc`, as wide as there are scales, by them.
fn scale_columns(scales: &[f32], acc: &mut [f32]) {
    for row in acc.chunks_exact_mut(scales.len().max(1)) {
        row.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
    }
}

/// [`multiply_half`] of whole panels, and the GELU of the outputs, to the rows of the next layer.
#[inline(always)]
fn multiply_half_gelu_body(isa: Isa, rows: &HalfRows, weights: &Weights, product: &Product, panel: &mut Aligned<u16>, to: &mut HalfRows) {
    let Product { count, bias, .. } = *product;
    let (tile, depth) = (isa.half_tile().expect("it packed the weights"), weights.half_depth(isa).expect("half precision"));
    let (products, mut panels) = (isa.products(), HalfPanels { isa, weights, panel });
    let mut acc = TileOf([0.0; TILE_MAX]);
    let part = panels.part_rows(count);
    for start in (0..count).step_by(part) {
        for (index, bias) in bias.chunks_exact(tile.nr).enumerate() {
            let (panel, scales) = panels.get(index);
            for row in (start..count.min(start + part)).step_by(tile.mr) {
                let (values, stride) = rows.rows(row);
                products.half(values, stride, panel, depth, &mut acc);
                let (to, stride) = to.rows_mut(row);
                let tile_of = FloatTile { acc: &acc.0, rows: tile.mr.min(count - row), scales, bias, stride };
                isa.finish_gelu_half(&tile_of, &mut to[index * tile.nr..]);
            }
        }
    }
}

per_isa! {
    pub(super) fn multiply_half_gelu[isa](rows: &HalfRows, weights: &Weights, product: &Product, panel: &mut Aligned<u16>, to: &mut HalfRows) = multiply_half_gelu_body;
}
per_isa! {
    pub(super) fn multiply_int8[isa](rows: &Activations, panels: &PackedI8, product: &Product, out: &mut [f32]) = multiply_int8_body;
}
per_isa! {
    pub(super) fn multiply_half[isa](rows: &HalfRows, weights: &Weights, product: &Product, panel: &mut Aligned<u16>, out: &mut [f32]) = multiply_half_body;
}
per_isa! {
    pub(super) fn multiply_f32[isa](rows: &[f32], panels: &PackedF32, product: &Product, out: &mut [f32]) = multiply_f32_body;
}
