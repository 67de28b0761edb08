//! What changes over a run: learning rates and the probability of masked attention.
//!
//! Both as the paper trains (section 4.1 and its supplement): a two-stage warm-up, polynomial decay, layer-wise learning rate decay;
//! and mask annealing, block by block.

use super::parameters::Depth;

/// Learning rates over a run.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateOptions {
    /// Peak learning rate, of queries and heads.
    pub rate: f64,
    /// Steps in which queries and heads warm up, while the encoder is frozen; then steps in which the encoder warms up.
    pub warmup: [u64; 2],
    /// Exponent of the polynomial decay after the warm-up.
    pub power: f64,
    /// The encoder's block i of n learns at `rate * decay^(n - 1 - i)`, the embeddings at `rate * decay^n`.
    pub layer_decay: f64,
}

impl RateOptions {
    /// The rate of a weight at `step` of `steps`, in a network of `blocks`.
    pub(super) fn at(&self, depth: Depth, blocks: usize, step: u64, steps: u64) -> f64 {
        let share = match depth {
            Depth::Embedding => self.layer_decay.powi(blocks as i32),
            Depth::Block(index) => self.layer_decay.powi((blocks - 1 - index) as i32),
            Depth::Norm | Depth::Head => 1.0,
        };
        let [heads, encoder] = self.warmup;
        let (start, warm) = if depth.is_backbone() { (heads, encoder) } else { (0, heads) };
        // A step of a warm-up of n is one of 1/n ..= n/n, so that the first one already learns.
        let factor = if step < start {
            0.0
        } else if step < start + warm {
            (step - start + 1) as f64 / warm as f64
        } else {
            let left = steps.saturating_sub(start + warm).max(1) as f64;
            (1.0 - (step - start - warm) as f64 / left).max(0.0).powf(self.power)
        };
        self.rate * share * factor
    }
}

/// Whether queries attend only inside their masks in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Masking {
    /// Mask annealing (EoMT paper, section 3.3): always at first, then less block by block, never at the end, so that inference needs no masks.
    Annealed,
    /// Always; inference needs the masks too.
    Kept,
    /// Never.
    Never,
}

/// When each of the last L2 blocks loses its masks (`attn_mask_annealing_*` of the authors' configurations).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annealing {
    /// Per block: the step until which it always masks, and the step from which it never does.
    pub spans: Vec<[f64; 2]>,
    /// Exponent of the fall in between.
    pub power: f64,
}

impl Annealing {
    /// The authors' exponent.
    pub const POWER: f64 = 0.9;

    /// The run in `blocks + 2` equal stretches: block i fades out in stretch i + 1, the last stretch is without masks.
    pub fn even(blocks: usize, steps: u64) -> Annealing {
        let stretch = steps as f64 / (blocks + 2) as f64;
        let span = |place: usize| [stretch * (place + 1) as f64, stretch * (place + 2) as f64];
        Annealing { spans: (0..blocks).map(span).collect(), power: Annealing::POWER }
    }

    /// # Errors
    /// A sentence when there is not one span for each of the last `blocks`, or one does not lie in the run.
    pub(super) fn check(&self, blocks: usize, steps: u64) -> Result<(), String> {
        if self.spans.len() != blocks {
            return Err(format!("{} spans for {blocks} blocks with queries", self.spans.len()));
        }
        match self.spans.iter().find(|[start, end]| !(0.0 <= *start && start <= end && *end <= steps as f64)) {
            Some([start, end]) => Err(format!("{start}-{end} is not within a run of {steps} steps")),
            None => Ok(()),
        }
    }

    fn probability(&self, place: usize, step: u64) -> f64 {
        let ([start, end], step) = (self.spans[place], step as f64);
        if step >= end { 0.0 } else { (1.0 - ((step - start) / (end - start)).max(0.0)).powf(self.power) }
    }
}

impl Masking {
    /// The probability that block `place` of the last L2 masks a query at `step`.
    pub(super) fn probability(self, annealing: &Annealing, place: usize, step: u64) -> f64 {
        match self {
            Masking::Kept => 1.0,
            Masking::Never => 0.0,
            Masking::Annealed => annealing.probability(place, step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_warm_up_in_two_stages_and_end_at_nothing() {
        let rates = RateOptions { rate: 1.0, warmup: [10, 20], power: 0.9, layer_decay: 0.5 };
        let at = |depth, step| rates.at(depth, 4, step, 100);
        assert_eq!((at(Depth::Head, 0), at(Depth::Head, 4), at(Depth::Head, 10)), (0.1, 0.5, 1.0));
        assert_eq!((at(Depth::Block(3), 9), at(Depth::Block(3), 10), at(Depth::Block(3), 29)), (0.0, 0.05, 1.0));
        assert_eq!((at(Depth::Block(1), 30), at(Depth::Embedding, 30), at(Depth::Norm, 30)), (0.25, 0.0625, 1.0));
        // Half of the 90 steps of decay are left.
        assert!((at(Depth::Head, 55) - 0.5f64.powf(0.9)).abs() < 1e-12);
        assert_eq!((at(Depth::Head, 100), at(Depth::Block(0), 100)), (0.0, 0.0));
    }

    #[test]
    fn masks_fade_block_by_block() {
        let even = Annealing::even(3, 500);
        let at = |place, step| Masking::Annealed.probability(&even, place, step);
        assert_eq!((at(0, 0), at(0, 100), at(0, 200), at(0, 500)), (1.0, 1.0, 0.0, 0.0));
        assert_eq!((at(1, 200), at(1, 300), at(2, 300), at(2, 400)), (1.0, 0.0, 1.0, 0.0));
        assert!((at(0, 150) - 0.5f64.powf(0.9)).abs() < 1e-12);
        assert_eq!((Masking::Kept.probability(&even, 0, 499), Masking::Never.probability(&even, 0, 0)), (1.0, 0.0));
        assert!(even.check(3, 500).is_ok() && even.check(2, 500).is_err() && even.check(3, 399).is_err());
    }

    #[test]
    fn spans_and_exponent_are_taken_as_they_are_given() {
        let own = Annealing { spans: vec![[10.0, 20.0], [0.0, 0.0], [5.0, 5.0]], power: 2.0 };
        let at = |place, step| Masking::Annealed.probability(&own, place, step);
        assert_eq!((at(0, 10), at(0, 15), at(0, 20)), (1.0, 0.25, 0.0));
        assert_eq!((at(1, 0), at(2, 4), at(2, 5)), (0.0, 1.0, 0.0), "at once");
        assert!(own.check(3, 20).is_ok());
        for bad in [[3.0, 2.0], [0.0, 21.0], [-1.0, 2.0], [f64::NAN, 2.0]] {
            assert!(Annealing { spans: vec![bad], power: 1.0 }.check(1, 20).is_err(), "{bad:?}");
        }
    }
}
