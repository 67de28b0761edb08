//! Matrix products of the `gemm` crate on slices: into memory that is there already, on top of what it holds, of rows that lie apart.
//!
//! ```text
//! multiply(out, View::rows(x, from), View::rows(weight, from).transposed(), Sum::Fresh)      y = x Wᵀ
//! ```
//!
//! One thread computes a product, so its bits depend on its shape only.

#![allow(unsafe_code)] // the `gemm` crate takes pointers

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
    let ([m, k], [inner, n]) = (a.shape, b.shape);
    assert!(k == inner && into.shape == [m, n], "{m}x{k} times {inner}x{n} into {:?}", into.shape);
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

    /// Against three loops in f64: plain and transposed operands, rows apart, onto what is there.
    #[test]
    fn products_are_sums_of_products() {
        for [m, k, n] in [[1, 1, 1], [3, 5, 2], [17, 33, 9], [40, 64, 70], [5, 0, 4], [129, 7, 130]] {
            let (a, b) = (numbers(m * (k + 3), 0.7), numbers(k * n, 0.3));
            let wide = View::apart(&a, [m, k], k + 3);
            let turned = View::apart(&b, [n, k], k.max(1)).transposed();
            for (sum, factor) in [(Sum::Fresh, 1.0), (Sum::Onto, 0.5)] {
                let before = numbers(m * (n + 2), 0.1);
                let mut ours = before.clone();
                scaled(Target::apart(&mut ours, [m, n], n + 2), wide, turned, sum, factor);
                for (at, (ours, before)) in ours.iter().zip(&before).enumerate() {
                    let (row, column) = (at / (n + 2), at % (n + 2));
                    if column >= n {
                        assert_eq!(ours, before, "between rows nothing is written");
                        continue;
                    }
                    let product: f64 = (0..k).map(|i| f64::from(a[row * (k + 3) + i]) * f64::from(b[column * k + i])).sum();
                    let start = if sum == Sum::Onto { f64::from(*before) } else { 0.0 };
                    // f32 sums of at most 64 products of at most 1
                    assert!((f64::from(*ours) - start - f64::from(factor) * product).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside of its slice")]
    fn a_view_stays_in_its_slice() {
        View::apart(&[0.0; 10], [3, 4], 4);
    }
}
