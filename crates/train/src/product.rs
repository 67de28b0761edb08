//! Matrix products on slices: into memory that is there already, on top of what it holds, of rows that lie apart. Where the CPU has matrix registers
//! they compute them, factors in two bfloat16 each (`split`), else and for the smallest the `gemm` crate.
//!
//! ```text
//! multiply(out, View::rows(x, from), View::rows(weight, from).transposed(), Sum::Fresh)      y = x Wᵀ
//! ```
//!
//! One thread computes a product, so its bits depend on its shape and the instruction set only.

#![allow(unsafe_code)] // the `gemm` crate takes pointers

mod split;

use eomt_edge_core::kernels::arch::Isa;

use super::isa::ISA;

/// Whether a product of this shape is faster in matrix registers than with `gemm`, packing included: measured on a Xeon with AMX, where both took as long
/// for 24x64x24 and 16x192x192.
fn pays(m: usize, k: usize, n: usize) -> bool {
    m.min(n) >= 24 && m * k * n >= 1 << 15
}

/// A matrix in a slice: element (r, c) lies at `r * strides[0] + c * strides[1]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> View<'a> {
    /// All of `values`, row by row.
    pub(super) fn rows(values: &'a [f32], columns: usize) -> View<'a> {
        View::apart(values, [values.len() / columns, columns], columns)
    }

    /// Rows whose starts lie `apart` values apart, the first one at the start of `values`.
    pub(super) fn apart(values: &'a [f32], shape: [usize; 2], apart: usize) -> View<'a> {
        let view = View { values, shape, strides: [apart, 1] };
        assert!(span(shape, view.strides) <= values.len(), "a matrix ends outside of its slice");
        view
    }

    pub(super) fn transposed(self) -> View<'a> {
        let ([rows, columns], [down, across]) = (self.shape, self.strides);
        View { values: self.values, shape: [columns, rows], strides: [across, down] }
    }

    /// `rows` from `row` on and `columns` from `column` on.
    fn part(self, row: usize, rows: usize, column: usize, columns: usize) -> View<'a> {
        debug_assert!(row + rows <= self.shape[0] && column + columns <= self.shape[1]);
        View { values: &self.values[row * self.strides[0] + column * self.strides[1]..], shape: [rows, columns], strides: self.strides }
    }
}

/// A matrix to write, row by row.
pub(super) struct Target<'a> {
    values: &'a mut [f32],
    shape: [usize; 2],
    apart: usize,
}

impl<'a> Target<'a> {
    /// All of `values`.
    pub(super) fn rows(values: &'a mut [f32], columns: usize) -> Target<'a> {
        let shape = [values.len() / columns, columns];
        Target::apart(values, shape, columns)
    }

    /// As [`View::apart`].
    pub(super) fn apart(values: &'a mut [f32], shape: [usize; 2], apart: usize) -> Target<'a> {
        assert!(shape[1] <= apart && span(shape, [apart, 1]) <= values.len(), "a matrix ends outside of its slice, or rows overlap");
        Target { values, shape, apart }
    }
}

/// Values from the first element to the last.
fn span(shape: [usize; 2], strides: [usize; 2]) -> usize {
    if shape.contains(&0) { 0 } else { (shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1] + 1 }
}

/// What becomes of the values that the target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    /// The product replaces them.
    Fresh,
    /// The product is added to them.
    Onto,
}

/// `into = a b`, or `into += a b`.
pub(super) fn multiply(into: Target, a: View, b: View, sum: Sum) {
    scaled(into, a, b, sum, 1.0);
}

/// `into = factor a b`, or `into += factor a b`.
pub(super) fn scaled(into: Target, a: View, b: View, sum: Sum, factor: f32) {
    scaled_on(*ISA, into, a, b, sum, factor);
}

/// [`scaled`] on an instruction set.
fn scaled_on(isa: Isa, into: Target, a: View, b: View, sum: Sum, factor: f32) {
    let ([m, k], [inner, n]) = (a.shape, b.shape);
    assert!(k == inner && into.shape == [m, n], "{m}x{k} times {inner}x{n} into {:?}", into.shape);
    if isa.has_matrix_registers() && pays(m, k, n) {
        split::scaled(isa, into, a, b, sum, factor);
    } else {
        with_gemm(into, a, b, sum, factor);
    }
}

/// [`scaled`] in f32.
fn with_gemm(into: Target, a: View, b: View, sum: Sum, factor: f32) {
    let ([m, k], n) = (a.shape, b.shape[1]);
    let signed = |stride: usize| stride as isize;
    // SAFETY: the three pointers are those of slices. `View` and `Target` are made only of shapes and strides whose every element lies in the slice,
    // rows of a target do not overlap, and the shapes fit (asserted above). `into` is borrowed mutably, so it shares no memory with `a` and `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            into.values.as_mut_ptr(),
            1,
            signed(into.apart),
            sum == Sum::Onto,
            a.values.as_ptr(),
            signed(a.strides[1]),
            signed(a.strides[0]),
            b.values.as_ptr(),
            signed(b.strides[1]),
            signed(b.strides[0]),
            1.0,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * step).sin()).collect()
    }

    /// On every instruction set against three loops in f64: plain and transposed operands, rows apart, onto what is there; shapes around those of tiles and
    /// of blocks.
    #[test]
    fn products_are_sums_of_products() {
        let small = [[1, 1, 1], [3, 5, 2], [17, 33, 9], [40, 64, 70], [5, 0, 4], [0, 3, 4], [129, 7, 130], [32, 32, 32], [64, 96, 33]];
        for [m, k, n] in small.into_iter().chain([[31, 1100, 65], [70, 520, 600], [33, 40, 7000]]) {
            let (a, b) = (numbers(m * (k + 3), 0.7), numbers(k * n, 0.3));
            let down = numbers(m * k, 0.7);
            let across = numbers(k * (n + 1), 0.3);
            let left = [View::apart(&a, [m, k], k + 3), View::apart(&down, [k, m], m.max(1)).transposed()];
            let right = [View::apart(&b, [n, k], k.max(1)).transposed(), View::apart(&across, [k, n], n + 1)];
            for (place, sum, factor) in [(0, Sum::Fresh, 1.0), (1, Sum::Onto, 0.5), (0, Sum::Onto, 1.0), (1, Sum::Fresh, 0.5)] {
                let (a, b) = (left[place], right[place ^ usize::from(factor == 1.0)]);
                for (name, multiply) in ways(m * k * n > 0) {
                    check(name, multiply, [m, k, n], (a, b), (sum, factor));
                }
            }
        }
    }

    type Multiply = fn(Isa, Target, View, View, Sum, f32);

    /// By shape, with `gemm`, and where there are matrix registers with those, whatever the shape.
    fn ways(any: bool) -> Vec<(&'static str, Multiply)> {
        let gemm: Multiply = |_, into, a, b, sum, factor| with_gemm(into, a, b, sum, factor);
        let mut ways: Vec<(&str, Multiply)> = vec![("by shape", scaled_on), ("gemm", gemm)];
        ways.extend((any && Isa::detect().has_matrix_registers()).then_some(("split", split::scaled as Multiply)));
        ways
    }

    fn check(name: &str, multiply: Multiply, [m, k, n]: [usize; 3], (a, b): (View, View), (sum, factor): (Sum, f32)) {
        let before = numbers(m * (n + 2), 0.1);
        let mut ours = before.clone();
        multiply(Isa::detect(), Target::apart(&mut ours, [m, n], n + 2), a, b, sum, factor);
        let value = |view: View, row: usize, column: usize| f64::from(view.values[row * view.strides[0] + column * view.strides[1]]);
        for (at, (ours, before)) in ours.iter().zip(&before).enumerate() {
            let (row, column) = (at / (n + 2), at % (n + 2));
            if column >= n {
                assert_eq!(ours, before, "between rows nothing is written");
                continue;
            }
            let product = |i| f64::from(factor) * value(a, row, i) * value(b, i, column);
            let start = if sum == Sum::Onto { f64::from(*before) } else { 0.0 };
            let (exact, size) = (0..k).map(product).fold((start, start.abs()), |(sum, size), p| (sum + p, size + p.abs()));
            // two parts: 2^-15 of each product; sums: k roundings of f32, which rarely agree, so that a tenth is ample
            let bound = size * (2f64.powi(-15) + 2f64.powi(-24) * (4.0 + k as f64 / 10.0));
            assert!((f64::from(*ours) - exact).abs() <= bound, "{m}x{k}x{n} by {name}: {ours}, {exact}");
        }
    }

    /// In the rows and columns that it belongs to, and nowhere else.
    #[test]
    fn what_is_no_number_stays_none() {
        let [m, k, n] = [70, 50, 40];
        for isa in Isa::available() {
            for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let (mut a, mut b) = (numbers(m * k, 0.7), numbers(k * n, 0.3));
                (a[33 * k + 49], b[7 * n + 39]) = (wild, wild);
                let mut out = vec![0.0; m * n];
                scaled_on(isa, Target::rows(&mut out, n), View::rows(&a, k), View::rows(&b, n), Sum::Fresh, 1.0);
                for (at, value) in out.iter().enumerate() {
                    assert_eq!(value.is_finite(), at / n != 33 && at % n != 39, "{wild} on {}, value {at}: {value}", isa.name());
                }
            }
            let mut out = vec![0.0; 32 * 32];
            let large = vec![1e30; 32 * 32];
            scaled_on(isa, Target::rows(&mut out, 32), View::rows(&large, 32), View::rows(&large, 32), Sum::Fresh, 1.0);
            assert!(out.iter().all(|value| !value.is_finite()), "too large on {}: {}", isa.name(), out[0]);
        }
    }

    #[test]
    #[should_panic(expected = "outside of its slice")]
    fn a_view_stays_in_its_slice() {
        View::apart(&[0.0; 10], [3, 4], 4);
    }
}
