//! Element-wise functions of post-processing.

/// `e^x` without branches or library calls, so that loops over it vectorize and every machine gets the same bits.
///
/// Splits `x = n ln 2 + r` with |r| <= ln 2 / 2 and takes the Taylor series of `e^r` to the seventh power. Relative error below
/// 3e-7. Zero below e^-87, saturated at e^88; NaN gives NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer that sits in the low mantissa bits
    let vanishes = x < -87.0;
    let x = if vanishes { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let power = f32::from_bits(((exponent + 127) << 23) as u32);
    if vanishes { 0.0 } else { p * power }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The logit at which [`sigmoid`] reaches `probability`: the inverse, infinite at 0 and 1.
pub fn logit(probability: f32) -> f32 {
    let p = f64::from(probability);
    (p / (1.0 - p)).ln() as f32
}

/// Softmax in place, shifted by the maximum so that it cannot overflow.
pub fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = exp(*value - max);
        sum += *value;
    }
    row.iter_mut().for_each(|value| *value /= sum);
}

/// Whether no value is infinite or NaN. Looks at all of them, so that the loop vectorizes.
pub fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |all, value| all & value.is_finite())
}

/// Index and value of the first maximum; `None` when `row` is empty. NaN never wins.
pub fn argmax(row: &[f32]) -> Option<(usize, f32)> {
    let mut best: Option<(usize, f32)> = None;
    for (index, &value) in row.iter().enumerate() {
        if best.is_none_or(|(_, top)| value > top || top.is_nan()) {
            best = Some((index, value));
        }
    }
    best
}

/// Largest probability of `softmax(row)` and its index, without writing the row; the first of equals.
pub fn softmax_max(row: &[f32]) -> Option<(usize, f32)> {
    let (index, max) = argmax(row)?;
    let sum: f32 = row.iter().map(|value| exp(value - max)).sum();
    Some((index, 1.0 / sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_library() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0 + 0.000_37;
            let (ours, reference) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / reference - 1.0).abs() < 3e-7, "e^{x}: {ours} against {reference}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY) > 1e38 && exp(f32::NEG_INFINITY) < 1e-37);
        assert_eq!((sigmoid(40.0), sigmoid(0.0)), (1.0, 0.5));
    }

    #[test]
    fn softmax_is_a_distribution_even_for_large_logits() {
        let mut row = [1000.0, 1000.0, -1000.0];
        softmax(&mut row);
        assert_eq!(row, [0.5, 0.5, 0.0]);
        let mut row = [0.3, -2.0, 1.7, 4.0];
        let (index, top) = softmax_max(&row).unwrap();
        softmax(&mut row);
        assert_eq!(index, 3);
        assert!((row[3] - top).abs() < 1e-6, "two orders of summation");
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn argmax_takes_the_first_and_ignores_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some((1, 3.0)));
        assert_eq!(argmax(&[f32::NAN, 2.0]), Some((1, 2.0)));
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn logit_inverts_sigmoid() {
        for p in [0.01, 0.2, 0.5, 0.8, 0.99] {
            assert!((sigmoid(logit(p)) - p).abs() < 1e-6, "{p}");
        }
        assert_eq!(logit(0.5), 0.0);
    }
}
