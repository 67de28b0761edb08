//! Linear interpolation between rows, channels last: the neighbours are whole vectors, so nothing is gathered.

use super::activation::exp;
use super::arch::per_isa;

const LANES: usize = 16;

#[inline(always)]
fn weighted_sum_body(rows: [&[f32]; 3], weights: [f32; 3], to: &mut [f32]) {
    let [a, b, c] = rows;
    for (((to, a), b), c) in to.iter_mut().zip(a).zip(b).zip(c) {
        *to = c.mul_add(weights[2], b.mul_add(weights[1], a * weights[0]));
    }
}

per_isa! {
    /// `to = sum of weight * row` over three rows.
    pub fn weighted_sum(rows: [&[f32]; 3], weights: [f32; 3], to: &mut [f32]) = weighted_sum_body;
}

#[inline(always)]
fn weighted_sum_sigmoid_body(rows: [&[f32]; 3], weights: [f32; 3], to: &mut [f32]) {
    let [a, b, c] = rows;
    for (((to, a), b), c) in to.iter_mut().zip(a).zip(b).zip(c) {
        *to = 1.0 / (1.0 + exp(-c.mul_add(weights[2], b.mul_add(weights[1], a * weights[0]))));
    }
}

per_isa! {
    /// `to = sigmoid(sum of weight * row)` over three rows.
    pub fn weighted_sum_sigmoid(rows: [&[f32]; 3], weights: [f32; 3], to: &mut [f32]) = weighted_sum_sigmoid_body;
}

#[inline(always)]
fn lerp_body(from: &[f32], into: &[f32], share: f32, to: &mut [f32]) {
    let rest = 1.0 - share;
    for ((to, from), into) in to.iter_mut().zip(from).zip(into) {
        *to = into.mul_add(share, from * rest);
    }
}

per_isa! {
    /// `to = from * (1 - share) + into * share`.
    pub fn lerp(from: &[f32], into: &[f32], share: f32, to: &mut [f32]) = lerp_body;
}

#[inline(always)]
fn lerp_argmax_body(from: &[f32], into: &[f32], share: f32) -> (usize, f32) {
    let rest = 1.0 - share;
    let (mut best, mut which) = ([f32::NEG_INFINITY; LANES], [0u32; LANES]);
    let ((from, from_rest), (into, into_rest)) = (from.as_chunks::<LANES>(), into.as_chunks::<LANES>());
    for (number, (from, into)) in from.iter().zip(into).enumerate() {
        for lane in 0..LANES {
            let value = into[lane].mul_add(share, from[lane] * rest);
            let wins = value > best[lane];
            best[lane] = if wins { value } else { best[lane] };
            which[lane] = if wins { number as u32 } else { which[lane] };
        }
    }
    let mut result = (0, f32::NEG_INFINITY);
    for lane in 0..LANES {
        let index = which[lane] as usize * LANES + lane;
        if best[lane] > result.1 || (best[lane] == result.1 && index < result.0) {
            result = (index, best[lane]);
        }
    }
    for (lane, (from_value, into_value)) in from_rest.iter().zip(into_rest).enumerate() {
        let value = into_value.mul_add(share, from_value * rest);
        if value > result.1 {
            result = (from.len() * LANES + lane, value);
        }
    }
    result
}

per_isa! {
    /// Index and value of the largest element of [`lerp`], the first of equals. NaN never wins; of NaN alone it is the first, and
    /// the value is minus infinity.
    pub fn lerp_argmax(from: &[f32], into: &[f32], share: f32) -> (usize, f32) = lerp_argmax_body;
}

/// Transposes `[rows, columns]` to `[columns, stride]`; values beyond `rows` keep what they were.
pub fn transpose(from: &[f32], columns: usize, stride: usize, to: &mut [f32]) {
    // blocks of rows, so that a few cache lines of the target fill up before they leave
    for (block, rows) in from.chunks(LANES * columns).enumerate() {
        let count = rows.len() / columns;
        for (column, to) in to.chunks_exact_mut(stride).take(columns).enumerate() {
            for (row, value) in to[block * LANES..][..count].iter_mut().enumerate() {
                *value = rows[row * columns + column];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::arch::Isa;
    use crate::kernels::math::sigmoid;
    use crate::kernels::suite;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        crate::kernels::testing::numbers(n, seed).iter().map(|v| v * 8.0).collect()
    }

    const WEIGHTS: [f32; 3] = [0.2, 0.5, 0.3];

    /// The row and two others that it gives.
    fn three(row: &[f32]) -> [Vec<f32>; 3] {
        [row.to_vec(), row.iter().rev().copied().collect(), row.iter().map(|value| 0.5 - value).collect()]
    }

    fn run(kernel: impl Fn(Isa, [&[f32]; 3], &mut [f32]), definition: impl Fn([f32; 3]) -> f32) {
        let rows = [suite::tails(8.0), suite::extremes()].concat();
        let kernel = |isa: Isa, row: &[f32], to: &mut [f32]| {
            let rows = three(row);
            kernel(isa, std::array::from_fn(|i| &rows[i][..]), to)
        };
        suite::rows(
            &rows,
            7.0,
            |n| n,
            kernel,
            |row, to, ()| {
                let rows = three(row);
                for (i, ours) in to.iter().enumerate() {
                    let values: [f32; 3] = std::array::from_fn(|row| rows[row][i]);
                    let expected = definition(values);
                    match values.iter().all(|value| value.abs() <= 8.5) {
                        true => assert!((ours - expected).abs() < 3e-6, "three products below 8.5: {ours} {expected}"),
                        false => assert!(!values.iter().any(|value| value.is_nan()) || ours.is_nan()),
                    }
                }
            },
        );
    }

    #[test]
    fn weighted_sums_and_lerps_conform() {
        let sum = |values: [f32; 3]| (0..3).map(|row| values[row] * WEIGHTS[row]).sum::<f32>();
        run(|isa, rows, to| weighted_sum(isa, rows, WEIGHTS, to), sum);
        run(|isa, rows, to| weighted_sum_sigmoid(isa, rows, WEIGHTS, to), |values| sigmoid(sum(values)));
        run(|isa, [from, into, _], to| lerp(isa, from, into, 0.3, to), |[from, into, _]| 0.7 * from + 0.3 * into);
    }

    #[test]
    fn the_argmax_of_a_lerp_conforms() {
        let halves = |n: usize| (0..40).map(|at| if at < n { f32::NAN } else { 1.0 }).collect();
        // the first of equals wins, NaN does not
        let rows = [suite::tails(8.0), suite::extremes(), vec![halves(0), halves(20), halves(40)]].concat();
        let kernel = |isa: Isa, row: &[f32], _: &mut [f32]| lerp_argmax(isa, row, &three(row)[1], 0.3);
        suite::rows(
            &rows,
            0.0,
            |_| 0,
            kernel,
            |row, _, (index, value)| {
                let mut mixed = vec![0.0; row.len()];
                lerp(Isa::SCALAR, row, &three(row)[1], 0.3, &mut mixed);
                let top = mixed.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!((*index, *value), (mixed.iter().position(|value| *value == top).unwrap_or(0), top), "{row:?}");
            },
        );
    }

    #[test]
    fn a_transposed_element_changes_places() {
        let (rows, columns, stride) = (37, 5, 48);
        let from = numbers(rows * columns, 4);
        let mut to = vec![f32::NAN; columns * stride];
        transpose(&from, columns, stride, &mut to);
        assert!((0..rows).all(|r| (0..columns).all(|c| to[c * stride + r] == from[r * columns + c])));
        assert!(to[rows].is_nan());
    }
}
