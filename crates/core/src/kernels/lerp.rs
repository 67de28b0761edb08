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

/// `[rows, columns]` to `[columns, stride]`; what lies behind the rows stays.
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

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        crate::kernels::testing::numbers(n, seed).iter().map(|v| v * 8.0).collect()
    }

    #[test]
    fn lerps_equal_the_definition_everywhere() {
        for n in [1, 15, 16, 33, 133] {
            let rows = [numbers(n, 1), numbers(n, 2), numbers(n, 3)];
            let borrowed: [&[f32]; 3] = std::array::from_fn(|row| &rows[row][..]);
            let weights = [0.2, 0.5, 0.3];
            for isa in Isa::available() {
                let (mut blended, mut probabilities, mut mixed) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                weighted_sum(isa, borrowed, weights, &mut blended);
                weighted_sum_sigmoid(isa, borrowed, weights, &mut probabilities);
                lerp(isa, borrowed[0], borrowed[1], 0.3, &mut mixed);
                for i in 0..n {
                    let expected: f32 = (0..3).map(|row| rows[row][i] * weights[row]).sum();
                    assert!((blended[i] - expected).abs() < 3e-6, "three products below 8");
                    assert!((probabilities[i] - sigmoid(expected)).abs() < 3e-6);
                    assert!((mixed[i] - (0.7 * rows[0][i] + 0.3 * rows[1][i])).abs() < 3e-6);
                }
                let top = mixed.iter().copied().fold(f32::MIN, f32::max);
                let first = mixed.iter().position(|value| *value == top).unwrap();
                assert_eq!(lerp_argmax(isa, borrowed[0], borrowed[1], 0.3), (first, top), "{}", isa.name());
            }
        }
    }

    #[test]
    fn the_first_of_equals_wins_and_nan_does_not() {
        for isa in Isa::available() {
            let mut row = vec![1.0; 40];
            assert_eq!(lerp_argmax(isa, &row, &row, 0.5), (0, 1.0));
            row[..20].fill(f32::NAN);
            assert_eq!(lerp_argmax(isa, &row, &row, 0.5), (20, 1.0));
            row.fill(f32::NAN);
            assert_eq!(lerp_argmax(isa, &row, &row, 0.5), (0, f32::NEG_INFINITY));
        }
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
