//! Products in matrix registers: factors in two bfloat16 each, packed block by block.
//!
//! ```text
//! for each block of the sums, for each block of columns:    pack the columns
//!     for each 32 rows:                                     pack the rows
//!         for each 32 columns:                              a tile onto the target
//! ```
//!
//! A product is off by at most 2^-15 of itself (see [`Products::split`]), sums are f32.

use std::cell::RefCell;

use eomt_edge_core::kernels::arch::{Aligned, Isa, Lines, Products, SPLIT_LINES, Side, split_len};

use super::{Sum, Target, View};

/// Rows and columns of a tile.
const TILE: usize = 2 * SPLIT_LINES;
/// Values along the sums that are packed at once: 32 rows of them take 64 KiB.
const DEPTH: usize = 512;
/// Values of the right factor that are packed at once: 1 MiB, half of a core's second cache.
const BLOCK: usize = 1 << 18;

/// Panels of rows, and of columns.
#[derive(Default)]
struct Packed {
    rows: Aligned<u16>,
    columns: Aligned<u16>,
    /// A tile that does not fit in the target.
    edge: Aligned<f32>,
}

thread_local! {
    static PACKED: RefCell<Packed> = RefCell::default();
}

/// `into = factor a b`, or `into += factor a b`, on an instruction set with matrix registers; no axis is empty.
pub(super) fn scaled(isa: Isa, mut into: Target, a: View, b: View, sum: Sum, factor: f32) {
    let ([rows, depth], columns) = (a.shape, b.shape[1]);
    let products = isa.products();
    PACKED.with_borrow_mut(|packed| {
        packed.edge.resize(TILE * TILE);
        for (start, depth) in parts(depth, DEPTH) {
            let onto = sum == Sum::Onto || start > 0;
            let each = BLOCK / depth.next_multiple_of(TILE) / TILE * TILE;
            for (column, columns) in parts(columns, each) {
                pack(&products, b.transposed().part(column, columns, start, depth), 1.0, Side::Right, &mut packed.columns);
                for row in (0..rows).step_by(TILE) {
                    let rows = TILE.min(rows - row);
                    pack(&products, a.part(row, rows, start, depth), factor, Side::Left, &mut packed.rows);
                    strip(&products, packed, &mut into, [row, rows, column, columns], onto);
                }
            }
        }
    });
}

/// (start, length) of parts of nearly equal length, a multiple of a tile but for the last.
fn parts(len: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let each = len.div_ceil(len.div_ceil(most)).next_multiple_of(TILE);
    (0..len).step_by(each).map(move |start| (start, each.min(len - start)))
}

/// The lines of `view` as panels, an even number of them.
fn pack(products: &Products, view: View, factor: f32, side: Side, to: &mut Aligned<u16>) {
    let ([lines, depth], len) = (view.shape, split_len(view.shape[1]));
    to.resize(lines.next_multiple_of(TILE) / SPLIT_LINES * len);
    for (panel, to) in to.chunks_exact_mut(len).enumerate() {
        let first = (panel * SPLIT_LINES).min(lines);
        let count = SPLIT_LINES.min(lines - first);
        let values = view.values.get(first * view.strides[0]..).unwrap_or_default();
        products.pack_split(Lines { values, count, depth, strides: view.strides, factor }, side, to);
    }
}

/// The packed rows times the packed columns, into `rows` of the target from `row` on and `columns` from `column` on.
fn strip(products: &Products, packed: &mut Packed, into: &mut Target, [row, rows, column, columns]: [usize; 4], onto: bool) {
    let Packed { rows: left, columns: right, edge } = packed;
    for (tile, right) in right.chunks_exact(left.len()).enumerate() {
        let columns = TILE.min(columns - tile * TILE);
        let to = &mut into.values[row * into.apart + column + tile * TILE..];
        if rows == TILE && columns == TILE {
            products.split(left, right, onto, to, into.apart);
            continue;
        }
        products.split(left, right, false, edge, TILE);
        for (to, edge) in to.chunks_mut(into.apart).zip(edge.chunks_exact(TILE)).take(rows) {
            match onto {
                true => to.iter_mut().zip(&edge[..columns]).for_each(|(to, edge)| *to += edge),
                false => to[..columns].copy_from_slice(&edge[..columns]),
            }
        }
    }
}
