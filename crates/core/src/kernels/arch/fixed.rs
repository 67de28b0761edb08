//! Scores in fixed point, and their softmax in half precision: what attention does between its two products on CPUs that multiply
//! binary16.
//!
//! ```text
//! score    = round(q k scale log2(e) 2^f + bias 2^f)       16 bits; f of a row such that none overflows, at most 10; the bias is in powers of two
//! distance = (row max - score) 2^(10 - f)                  ten bits of fraction, saturating
//! weight   = K 2^-distance                                 binary16: a parabola of the fraction, the rest is subtracted from the exponent
//! ```
//!
//! No conversion between formats is left, which small cores are slow at: sums of products start at 1.5 * 2^23 and so are numbers of f32 already,
//! adding 1.5 * 2^23 leaves an integer in the lowest 16 bits, and a fraction becomes a number by setting the exponent. A step of a score is
//! 2^-15 of the largest that its row could have, a hundredth of the error that the 8 bits of its factors leave.
//!
//! The constant K is the weight of the largest score, 94.8125. Weights are within 0.21 % of `K 2^-distance` down to 2^-14, below which they fall to
//! zero. The definition is the scalar code here; tested against it, and against `e^x`.

#[cfg(target_arch = "aarch64")]
use super::fixed_aarch64 as neon;
use super::half::HalfFormat;
use super::isa::Isa;
#[cfg(target_arch = "aarch64")]
use super::isa::Kind;
use super::tile::{BASE, FIXED_COLUMNS, FIXED_ROWS, FOUR, FRACTION, FixedTile, HalfSums, MAGIC, SHIFT, SUM_RUN, TileOf};

/// Most products of a score: their sum stays below 2^22.
pub const FIXED_DEPTH: usize = 256;
/// The weight of the largest score, nearly.
#[cfg(test)]
const FIXED_ONE: f32 = 94.8125;
/// Bits of fraction of scores that are `bound` at most, and 2 to their power; `None` where that is no number.
pub fn fixed_point(bound: f32) -> Option<(i32, f32)> {
    // a little more for the rounding of the bound and of the score
    let bound = bound * 1.01;
    if !bound.is_finite() {
        return None;
    }
    // bound < 2^(exponent + 1)
    let exponent = (bound.to_bits() >> 23) as i32 - 127;
    let fraction = (14 - exponent).clamp(-100, 10);
    Some((fraction, f32::from_bits(((fraction + 127) as u32) << 23)))
}

impl Isa {
    /// Whether scores are best computed in fixed point, for `depth` products a score: [`Isa::fixed_scores`] and [`Isa::fixed_softmax`].
    pub fn has_fixed_scores(self, depth: usize) -> bool {
        depth <= FIXED_DEPTH && self.half_tile().is_some_and(|tile| tile.sums == HalfSums::Runs)
    }

    /// A tile of scores in fixed point: `((a panel) scales - zeros sums) factors`, rounded to the nearest, ties to even, plus biases that are rounded so, too;
    /// the bits of an i16.
    ///
    /// `a` and `panel` are those of [`Products::dot`](super::Products::dot), `k` is 256 at most. Panics on an instruction set without
    /// [`Isa::has_fixed_scores`]: a bug of the caller.
    #[inline(always)]
    pub fn fixed_scores(self, a: &[u8], panel: &[i8], k: usize, tile: &FixedTile, to: &mut [u16]) {
        assert!(k.is_multiple_of(super::tile::K_STEP) && k <= FIXED_DEPTH && a.len() >= k * FIXED_ROWS && panel.len() >= k * FIXED_COLUMNS);
        assert!(tile.stride >= FIXED_COLUMNS && to.len() >= (FIXED_ROWS - 1) * tile.stride + FIXED_COLUMNS);
        match self.kind() {
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a `Dotprod` token exists only where the CPU has the dot product; the assertions above hold for the lengths.
            Kind::Dotprod(_) => unsafe { neon::scores_dotprod(a, panel, k, tile, to) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: an `I8mm` token exists only where the CPU has the 8-bit matrix multiply; the assertions above hold for the lengths.
            Kind::I8mm(_) => unsafe { neon::scores_i8mm(a, panel, k, tile, to) },
            _ => unreachable!("{} has no fixed-point scores", self.name()),
        }
    }

    /// Weights of the scores of one row, which has `fraction` bits of fraction, in their place: binary16, 94.8125 at the largest score;
    /// gives 1 / sum.
    #[inline]
    pub fn fixed_softmax(self, row: &mut [u16], fraction: i32) -> f32 {
        assert!((-100..=10).contains(&fraction));
        match self.kind() {
            #[cfg(target_arch = "aarch64")]
            // SAFETY: both tokens exist only where the CPU has half-precision arithmetic.
            Kind::Dotprod(_) | Kind::I8mm(_) => unsafe { neon::softmax(row, 10 - fraction) },
            _ => softmax(row, 10 - fraction),
        }
    }
}

/// The definition of [`Isa::fixed_scores`], from exact sums of products.
#[cfg_attr(not(test), allow(dead_code))]
fn scores(acc: &TileOf<i32>, tile: &FixedTile, to: &mut [u16]) {
    for (r, c) in (0..FIXED_ROWS).flat_map(|r| (0..FIXED_COLUMNS).map(move |c| (r, c))) {
        let product = acc.0[r * FIXED_COLUMNS + c] as f32 * tile.scales[c];
        let score = (-tile.zeros[r]).mul_add(tile.sums[c], product);
        let start = tile.biases.as_ref().map_or(MAGIC, |biases| biases.keys[c].mul_add(biases.powers[r], MAGIC));
        to[r * tile.stride + c] = score.mul_add(tile.factors[r], start).to_bits() as u16;
    }
}

/// The definition of [`Isa::fixed_softmax`].
fn softmax(row: &mut [u16], shift: i32) -> f32 {
    let half = HalfFormat::F16;
    let add = |a: u16, b: u16| half.round(half.widen(a) + half.widen(b));
    let max = row.iter().map(|score| score.cast_signed()).max().unwrap_or(0);
    let mut total = [0f32; 4];
    for run in row.chunks_mut(SUM_RUN) {
        let mut sums = [0u16; 8];
        for eight in run.chunks_mut(8) {
            for (value, sum) in eight.iter_mut().zip(&mut sums) {
                *value = weight(max.wrapping_sub(value.cast_signed()).cast_unsigned(), shift);
                *sum = add(*sum, *value);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            total[i % 4] += half.widen(sum);
        }
    }
    1.0 / ((total[0] + total[1]) + (total[2] + total[3]))
}

/// `K 2^-distance`, the distance as a number of `10 - shift` bits of fraction.
fn weight(distance: u16, shift: i32) -> u16 {
    let half = HalfFormat::F16;
    let distance = if distance == 0 { 0 } else { (u64::from(distance) << shift.min(16)).min(0xffff) as u16 };
    let base = half.widen(FOUR | distance & FRACTION) + half.widen(SHIFT); // exact
    half.round(base.mul_add(base, half.widen(BASE))).saturating_sub(distance & !FRACTION)
}

#[cfg(test)]
mod tests {
    use super::super::tile::FixedBiases;
    use super::*;
    use crate::kernels::suite;
    use crate::kernels::testing::numbers;

    #[test]
    fn fixed_point_leaves_no_score_outside() {
        for exponent in -120..100 {
            for bound in [1.0, 1.3, 1.99, 1.999_999].map(|m| m * 2f32.powi(exponent)) {
                let (fraction, power) = fixed_point(bound).unwrap();
                assert_eq!(power, 2f32.powi(fraction));
                assert!(bound * power < 32_767.0, "{bound}");
                assert!(bound * power > 8_000.0 || fraction == 10, "{bound}: no bit is wasted");
            }
        }
        assert_eq!((fixed_point(0.0), fixed_point(f32::INFINITY), fixed_point(f32::NAN)), (Some((10, 1024.0)), None, None));
    }

    #[test]
    fn weights_are_powers_of_two() {
        let half = HalfFormat::F16;
        for distance in 0..=u16::MAX {
            let expected = f64::from(FIXED_ONE) * (-f64::from(distance) / 1024.0).exp2();
            let ours = f64::from(half.widen(weight(distance, 0)));
            if expected > 6.2e-5 {
                assert!((ours / expected - 1.0).abs() < 4e-3, "{distance}: {ours} {expected}");
            } else {
                assert!((ours - expected).abs() < 4e-5, "{distance}: {ours} {expected}");
            }
        }
        assert_eq!((weight(3, 0), weight(3, 40), weight(0, 110)), (weight(3, 0), 0, weight(0, 0)));
        assert_eq!(half.round(FIXED_ONE), weight(0, 0));
    }

    /// Every length of a row and number of bits, on the instruction set's code against the definition.
    #[test]
    fn softmax_in_fixed_point_conforms() {
        for len in (1..40).chain([127, 128, 129, 405, 1605]) {
            for (fraction, spread) in [(10, 4000.0), (10, 32767.0), (7, 900.0), (3, 60.0), (-2, 30.0), (-100, 2.0)] {
                let row: Vec<u16> = numbers(len, len as u32).iter().map(|v| ((v * spread) as i16).cast_unsigned()).collect();
                let mut weights = row.clone();
                let inverse = softmax(&mut weights, 10 - fraction);
                suite::each_isa(|isa| {
                    let mut ours = [&row[..], &[7; 9]].concat();
                    let sum = isa.fixed_softmax(&mut ours[..len], fraction);
                    assert_eq!((&ours[..len], sum), (&weights[..], inverse), "{len} values on {}", isa.name());
                    assert_eq!(ours[len..], [7; 9], "written outside");
                });
                let max = f64::from(row.iter().map(|v| v.cast_signed()).max().unwrap());
                let exact: Vec<f64> = row.iter().map(|v| ((f64::from(v.cast_signed()) - max) / 2f64.powi(fraction)).exp2()).collect();
                let sum: f64 = exact.iter().sum();
                for (ours, exact) in weights.iter().zip(&exact) {
                    let ours = f64::from(HalfFormat::F16.widen(*ours)) * f64::from(inverse);
                    assert!((ours - exact / sum).abs() < 6e-3 * exact / sum + 1e-6, "{ours} {}", exact / sum);
                }
            }
        }
    }

    #[test]
    fn scores_in_fixed_point_conform() {
        suite::each_isa(|isa| {
            for k in [16, 32, 64, 80, 256].into_iter().filter(|k| isa.has_fixed_scores(*k)) {
                let bytes = |n: usize, seed: u32| -> Vec<i8> { numbers(n, seed).iter().map(|v| (v * 127.9) as i8).collect() };
                let a: Vec<u8> = bytes(k * 8, 1).iter().map(|v| v.cast_unsigned()).collect();
                let mut panel = bytes(k * 8, 2);
                panel[..k].fill(127);
                let mut acc = TileOf([0; super::super::tile::TILE_MAX]);
                isa.products().dot(&a, k, &panel, k, &mut acc);
                let eight = |seed: u32, scale: f32| -> [f32; 8] { std::array::from_fn(|i| numbers(8, seed)[i] * scale) };
                let zeros = eight(5, 128.0).map(f32::round);
                let (factors, scales, sums) = (eight(3, 0.1), eight(4, 0.1), eight(6, 90.0));
                let (keys, powers) = (eight(7, 6.0), [1.0, 2.0, 4.0, 8.0, 1024.0, 512.0, 0.25, 0.5]);
                for biases in [None, Some(FixedBiases { keys: &keys, powers: &powers })] {
                    let tile = FixedTile { factors: &factors, zeros: &zeros, scales: &scales, sums: &sums, stride: 11, biases };
                    let (mut expected, mut ours) = ([7; 7 * 11 + 9], [7; 7 * 11 + 9]);
                    scores(&acc, &tile, &mut expected);
                    isa.fixed_scores(&a, &panel, k, &tile, &mut ours);
                    assert_eq!(ours, expected, "{k} products on {}", isa.name());
                }
            }
        });
    }
}
