//! Chance and angles that come out with the same bits on every machine.
//!
//! A scene drawn on an x86 desk and one drawn on an aarch64 robot must agree, or a picture in a bug report cannot be
//! drawn again. IEEE addition, multiplication, division and square root are exact everywhere; the platform's `sin` and
//! a library's generator (which may change with its version) are not, so both are written out here.

/// SplitMix64 (Steele, Lea, Flood 2014): a counter stepped by the golden ratio, hashed. Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A stream of its own for every pair: `purpose` keeps users of one seed apart.
    pub fn new(seed: u64, purpose: u64) -> Rng {
        Rng(scramble(seed).wrapping_add(scramble(purpose ^ 0x5ce0_e5ed_0b1e_c755)))
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// Uniform in `low..high`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        low + unit * (high - low)
    }

    /// Three independent uniform draws: a colour, mostly.
    pub fn triple(&mut self, low: f64, high: f64) -> [f64; 3] {
        [self.uniform(low, high), self.uniform(low, high), self.uniform(low, high)]
    }

    /// A whole number in `low..high`. The bias of the multiplication is below 2^-50 for the handful of choices made here.
    pub fn choice(&mut self, low: usize, high: usize) -> usize {
        low + ((u128::from(self.bits()) * (high - low) as u128) >> 64) as usize
    }

    /// True with this probability, 0..=1.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform(0.0, 1.0) < probability
    }

    /// Mean 0, deviation 1: the sum of eight 16-bit draws. No logarithm, hence exact; its tails end at 4.9 deviations.
    pub fn normal(&mut self) -> f64 {
        let mut sum = 0u64;
        for word in [self.bits(), self.bits()] {
            sum += (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
        }
        // One draw of 0..65536 varies by 65536^2 / 12, eight of them by 65536^2 * 2 / 3.
        (sum as f64 - 8.0 * 32767.5) / (65536.0 * (2.0f64 / 3.0).sqrt())
    }
}

/// The finalizer of SplitMix64.
fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Sine of an angle in turns (1.0 is a full circle), within 1e-11. Turns make the reduction exact however long a scene runs.
pub(super) fn sin_turns(turns: f64) -> f64 {
    let mut x = turns - turns.floor();
    if x > 0.75 {
        x -= 1.0;
    } else if x > 0.25 {
        x = 0.5 - x;
    }
    let x = x * std::f64::consts::TAU;
    let q = x * x;
    // The Taylor series to x^15, innermost term first: q / ((n - 1) n) for n = 15, 13, .. 3.
    let mut sum = 1.0;
    for n in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        sum = 1.0 - q / (n * (n - 1.0)) * sum;
    }
    x * sum
}

/// Cosine of an angle in turns.
pub(super) fn cos_turns(turns: f64) -> f64 {
    sin_turns(turns + 0.25)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_agrees_with_the_platform() {
        for i in -4000..4000 {
            let turns = f64::from(i) / 777.0;
            let angle = turns * std::f64::consts::TAU;
            assert!((sin_turns(turns) - angle.sin()).abs() < 1e-10, "sin of {turns} turns");
            assert!((cos_turns(turns) - angle.cos()).abs() < 1e-10, "cos of {turns} turns");
        }
        assert!(sin_turns(1e300).abs() <= 1.0);
    }

    #[test]
    fn draws_have_the_moments_they_promise() {
        let mut rng = Rng::new(3, 0);
        let n = 40_000;
        let (mut mean, mut square, mut uniform) = (0.0, 0.0, 0.0);
        let mut seen = [0; 5];
        for _ in 0..n {
            let x = rng.normal();
            mean += x / f64::from(n);
            square += x * x / f64::from(n);
            uniform += rng.uniform(2.0, 4.0) / f64::from(n);
            seen[rng.choice(2, 7) - 2] += 1;
        }
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.03, "normal: mean {mean}, variance {square}");
        assert!((uniform - 3.0).abs() < 0.02, "uniform: mean {uniform}");
        assert!(seen.iter().all(|&count| (7400..8600).contains(&count)), "choice: {seen:?}");
    }

    #[test]
    fn the_stream_is_the_published_one() {
        // First outputs of SplitMix64 from state 0, as in the xoshiro authors' test vectors.
        let mut rng = Rng(0);
        assert_eq!([rng.bits(), rng.bits()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert_ne!(Rng::new(1, 2).bits(), Rng::new(2, 1).bits());
    }
}
