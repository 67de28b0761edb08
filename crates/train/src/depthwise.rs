//! Depthwise convolutions of 3x3 with a border of zeros, and their gradients: `[pixels, D]` and taps `[9, D]`.
//!
//! Where a neighbour lies outside, a row of zeros takes its place, so that all pixels run through the same loop.

use eomt_edge_core::kernels::arch::Isa;

/// Height and width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub height: usize,
    pub width: usize,
}

impl Grid {
    pub(super) fn square(side: usize) -> Grid {
        Grid { height: side, width: side }
    }
}

/// Where pixels lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Row by row.
    Rows,
    /// Squares of 2x2 row by row, and row by row in each; height and width are even.
    Blocks,
}

impl Order {
    fn place(self, grid: Grid, y: usize, x: usize) -> usize {
        match self {
            Order::Rows => y * grid.width + x,
            Order::Blocks => (y / 2 * (grid.width / 2) + x / 2) * 4 + y % 2 * 2 + x % 2,
        }
    }
}

/// The rows of the nine neighbours of a pixel.
type Neighbours<'a> = [&'a [f32]; 9];

/// A map whose neighbours are asked for.
#[derive(Clone, Copy)]
struct Map<'a> {
    values: &'a [f32],
    zeros: &'a [f32],
    grid: Grid,
    order: Order,
}

impl<'a> Map<'a> {
    /// The neighbours of every pixel of row `y`, by tap; `turned`, by the tap that reaches the pixel from there.
    fn neighbours(self, y: usize, turned: bool, found: &mut Vec<Neighbours<'a>>) {
        found.clear();
        let (grid, d) = (self.grid, self.zeros.len());
        found.extend((0..grid.width).map(|x| {
            std::array::from_fn(|tap| {
                let tap = if turned { 8 - tap } else { tap };
                let (v, u) = (y + tap / 3, x + tap % 3);
                if (1..=grid.height).contains(&v) && (1..=grid.width).contains(&u) {
                    &self.values[self.order.place(grid, v - 1, u - 1) * d..][..d]
                } else {
                    self.zeros
                }
            })
        }));
    }
}

/// The sum of the nine rows, weighed by the taps.
#[inline(always)]
fn weighed(rows: Neighbours, taps: &[f32], out: &mut [f32]) {
    let d = out.len();
    let (chunks, rest) = out.as_chunks_mut::<16>();
    let start = 16 * chunks.len();
    for (at, out) in chunks.iter_mut().enumerate() {
        let mut sums = [0.0f32; 16];
        for (row, taps) in rows.iter().zip(taps.chunks_exact(d)) {
            let (row, taps) = (&row.as_chunks::<16>().0[at], &taps.as_chunks::<16>().0[at]);
            for lane in 0..16 {
                sums[lane] = row[lane].mul_add(taps[lane], sums[lane]);
            }
        }
        *out = sums;
    }
    for (at, out) in rest.iter_mut().enumerate() {
        *out = 0.0;
        for tap in 0..9 {
            *out += rows[tap][start + at] * taps[tap * d + start + at];
        }
    }
}

/// Adds the nine neighbours times the gradient, for a row of pixels, to the taps' gradients.
#[inline(always)]
fn add_taps(neighbours: &[Neighbours], grads: &[f32], dtaps: &mut [f32]) {
    let d = dtaps.len() / 9;
    for at in 0..d / 8 {
        let mut sums = [[0.0f32; 8]; 9];
        for (rows, grad) in neighbours.iter().zip(grads.chunks_exact(d)) {
            let grad = &grad.as_chunks::<8>().0[at];
            for (sums, row) in sums.iter_mut().zip(rows) {
                let row = &row.as_chunks::<8>().0[at];
                for lane in 0..8 {
                    sums[lane] = row[lane].mul_add(grad[lane], sums[lane]);
                }
            }
        }
        for (sums, dtaps) in sums.iter().zip(dtaps.chunks_exact_mut(d)) {
            for (to, sum) in dtaps[8 * at..][..8].iter_mut().zip(sums) {
                *to += sum;
            }
        }
    }
    for at in d / 8 * 8..d {
        for (rows, grad) in neighbours.iter().zip(grads.chunks_exact(d)) {
            for tap in 0..9 {
                dtaps[tap * d + at] += rows[tap][at] * grad[at];
            }
        }
    }
}

/// The convolution of `x`, whose pixels lie in `order`; those of `out` lie row by row.
pub(super) fn forward(isa: Isa, x: &[f32], taps: &[f32], grid: Grid, order: Order, out: &mut [f32]) {
    let d = taps.len() / 9;
    let zeros = vec![0.0; d];
    let map = Map { values: x, zeros: &zeros, grid, order };
    let mut found = Vec::with_capacity(grid.width);
    for (y, out) in out.chunks_exact_mut(grid.width * d).enumerate() {
        map.neighbours(y, false, &mut found);
        isa.vectorize(
            #[inline(always)]
            || {
                for (rows, out) in found.iter().zip(out.chunks_exact_mut(d)) {
                    weighed(*rows, taps, out);
                }
            },
        );
    }
}

/// The gradients: `dx`, whose pixels lie in `order`, and those of the taps, which are added to `dtaps`.
pub(super) fn backward(isa: Isa, x: &[f32], taps: &[f32], grid: Grid, order: Order, grad: &[f32], (dx, dtaps): (&mut [f32], &mut [f32])) {
    let d = taps.len() / 9;
    let zeros = vec![0.0; d];
    let map = Map { values: x, zeros: &zeros, grid, order };
    let grads = Map { values: grad, zeros: &zeros, grid, order: Order::Rows };
    let (mut found, mut around) = (Vec::with_capacity(grid.width), Vec::with_capacity(grid.width));
    for (y, row) in grad.chunks_exact(grid.width * d).enumerate() {
        map.neighbours(y, false, &mut found);
        grads.neighbours(y, true, &mut around);
        isa.vectorize(
            #[inline(always)]
            || {
                add_taps(&found, row, dtaps);
                for (x, rows) in around.iter().enumerate() {
                    weighed(*rows, taps, &mut dx[order.place(grid, y, x) * d..][..d]);
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * step).sin()).collect()
    }

    /// Against the definition, in both orders: values, and the gradients as its transpose.
    #[test]
    fn convolutions_conform() {
        for (d, grid, order) in [
            (21, Grid { height: 3, width: 5 }, Order::Rows),
            (33, Grid { height: 4, width: 6 }, Order::Blocks),
            (16, Grid { height: 1, width: 1 }, Order::Rows),
            (3, Grid { height: 2, width: 2 }, Order::Blocks),
        ] {
            let pixels = grid.height * grid.width;
            let (x, taps, grad) = (numbers(pixels * d, 0.7), numbers(9 * d, 0.3), numbers(pixels * d, 0.9));
            let (mut exact, mut exact_dx, mut exact_dtaps) = (vec![0.0f32; pixels * d], vec![0.0f32; pixels * d], vec![0.0f32; 9 * d]);
            for (y, x_, tap) in (0..grid.height).flat_map(|y| (0..grid.width).flat_map(move |x| (0..9).map(move |tap| (y, x, tap)))) {
                let (v, u) = (y + tap / 3, x_ + tap % 3);
                if v == 0 || u == 0 || v > grid.height || u > grid.width {
                    continue;
                }
                let (from, to) = (order.place(grid, v - 1, u - 1) * d, (y * grid.width + x_) * d);
                for c in 0..d {
                    exact[to + c] += x[from + c] * taps[tap * d + c];
                    exact_dx[from + c] += grad[to + c] * taps[tap * d + c];
                    exact_dtaps[tap * d + c] += grad[to + c] * x[from + c];
                }
            }
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
            for isa in Isa::available() {
                let (mut out, mut dx, mut dtaps) = (vec![7.0; pixels * d], vec![7.0; pixels * d], vec![0.0; 9 * d]);
                forward(isa, &x, &taps, grid, order, &mut out);
                backward(isa, &x, &taps, grid, order, &grad, (&mut dx, &mut dtaps));
                assert!(close(&out, &exact) && close(&dx, &exact_dx) && close(&dtaps, &exact_dtaps), "{d} {grid:?}");
            }
        }
    }
}
