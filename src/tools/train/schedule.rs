//! What changes over a run: learning rates and the probability of masked attention.
//!
//! Both as the paper trains (section 4.1 and its supplement): a two-stage warm-up, polynomial decay, layer-wise learning rate decay;
//! and mask annealing, block by block.

use super::parameters::Depth;

/// Learning rates over a run.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateOptions {
    /// The peak, for queries and heads.
    pub rate: f64,
    /// Steps in which queries and heads warm up, while the encoder rests; then steps in which the encoder warms up.
    pub warmup: [u64; 2],
    /// Of the decay after the warm-up.
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

/// Whether queries see only inside their masks in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Masking {
    /// At first always, then block by block less, at last never: what makes masks unnecessary at inference.
    Annealed,
    /// Always; inference needs the masks too.
    Kept,
    /// Never.
    Never,
}

/// Exponent of the annealing.
const ANNEALING_POWER: f64 = 0.9;

impl Masking {
    /// The probability that block `place` of the last `blocks` masks a query, at `step` of `steps`. Annealed: the run is parted in
    /// `blocks + 2` equal stretches; block i fades out in stretch i + 1, the last stretch is without masks.
    pub(super) fn probability(self, place: usize, blocks: usize, step: u64, steps: u64) -> f64 {
        match self {
            Masking::Kept => 1.0,
            Masking::Never => 0.0,
            Masking::Annealed => {
                let stretch = steps as f64 / (blocks + 2) as f64;
                let progress = step as f64 / stretch - (place + 1) as f64;
                (1.0 - progress.clamp(0.0, 1.0)).powf(ANNEALING_POWER)
            }
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
        let at = |place, step| Masking::Annealed.probability(place, 3, step, 500);
        assert_eq!((at(0, 0), at(0, 100), at(0, 200), at(0, 500)), (1.0, 1.0, 0.0, 0.0));
        assert_eq!((at(1, 200), at(1, 300), at(2, 300), at(2, 400)), (1.0, 0.0, 1.0, 0.0));
        assert!((at(0, 150) - 0.5f64.powf(0.9)).abs() < 1e-12);
        assert_eq!((Masking::Kept.probability(0, 3, 499, 500), Masking::Never.probability(0, 3, 0, 500)), (1.0, 0.0));
    }
}
