//! How many patch tokens are merged away, and where in the network.

use std::str::FromStr;

/// `RATIO[@BLOCK]`: the share of patch tokens that are part of others from an encoder block on. Several, separated by commas, merge more
/// and more: `0.4@1,0.8@3`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenMerging {
    steps: [Option<MergeStep>; TokenMerging::STEPS_MAX],
}

/// Where tokens merge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MergeStep {
    /// The share of patch tokens that are gone behind it, 0 to [`TokenMerging::RATIO_MAX`].
    pub ratio: f64,
    /// The encoder block before which they merge, counted from 0; `None`: not said.
    pub block: Option<usize>,
}

impl TokenMerging {
    /// Cells of 8x8 patches at most become one token, and a grid that they do not fill has smaller ones.
    pub const RATIO_MAX: f64 = 0.95;

    /// More are hardly of use.
    pub const STEPS_MAX: usize = 4;

    /// Whether no token is merged.
    pub fn is_off(self) -> bool {
        self.steps().all(|step| step.ratio == 0.0)
    }

    /// In the order of the blocks.
    pub fn steps(self) -> impl Iterator<Item = MergeStep> {
        self.steps.into_iter().flatten()
    }
}

fn step(text: &str) -> Option<MergeStep> {
    let (ratio, block) = match text.split_once('@') {
        Some((ratio, block)) => (ratio, Some(block.parse().ok().filter(|block| *block >= 1)?)),
        None => (text, None),
    };
    let ratio = ratio.parse().ok().filter(|ratio| (0.0..=TokenMerging::RATIO_MAX).contains(ratio))?;
    Some(MergeStep { ratio, block })
}

impl FromStr for TokenMerging {
    type Err = String;

    fn from_str(text: &str) -> Result<TokenMerging, String> {
        let wrong = || {
            format!(
                "'{text}' is not RATIO or RATIO@BLOCK: a share of patch tokens from 0 (none) to {}, and the number of the block before \
                 which they merge, from 1 on, as in 0.5@2; or at most {} of them with their blocks, both ascending, as in 0.4@1,0.8@3",
                TokenMerging::RATIO_MAX,
                TokenMerging::STEPS_MAX
            )
        };
        let mut merging = TokenMerging::default();
        let parts = text.split(',');
        if parts.clone().count() > TokenMerging::STEPS_MAX {
            return Err(wrong());
        }
        for (to, part) in merging.steps.iter_mut().zip(parts) {
            *to = Some(step(part).ok_or_else(wrong)?);
        }
        let steps: Vec<MergeStep> = merging.steps().collect();
        let ascend = |pair: &[MergeStep]| pair[0].ratio < pair[1].ratio && pair[0].block.is_some() && pair[0].block < pair[1].block;
        match steps.windows(2).all(ascend) {
            true if merging.is_off() => Ok(TokenMerging::default()),
            true => Ok(merging),
            false => Err(wrong()),
        }
    }
}

impl std::fmt::Display for TokenMerging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.steps[0].is_none() {
            return write!(f, "0");
        }
        for (index, MergeStep { ratio, block }) in self.steps().enumerate() {
            write!(f, "{}{ratio}", if index == 0 { "" } else { "," })?;
            if let Some(block) = block {
                write!(f, "@{block}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_and_blocks_are_read_and_written() {
        for (text, expected) in [
            ("0", vec![]),
            ("0.5", vec![(0.5, None)]),
            ("0.95@3", vec![(0.95, Some(3))]),
            ("0.4@1,0.8@3", vec![(0.4, Some(1)), (0.8, Some(3))]),
        ] {
            let merging: TokenMerging = text.parse().expect("fits");
            assert_eq!(merging.steps().map(|step| (step.ratio, step.block)).collect::<Vec<_>>(), expected);
            assert_eq!(merging.to_string(), text);
            assert_eq!(merging.is_off(), text == "0");
        }
        assert!(TokenMerging::default().is_off());
        assert_eq!("0.0@1".parse(), Ok(TokenMerging::default()));
        for text in [
            "",
            "1",
            "-0.1",
            "0.96",
            "NaN",
            "half",
            "0.5@",
            "@2",
            "0.5@0",
            "0.5@-1",
            "0.5@x",
            "0.5@1@2",
            "0.5,0.6",
            "0.5@2,0.4@3",
            "0.5@2,0.6@2",
            "0.5@2,0.6",
            "0.1@1,0.2@2,0.3@3,0.4@4,0.5@5",
        ] {
            assert!(text.parse::<TokenMerging>().expect_err(text).contains("RATIO@BLOCK"), "{text}");
        }
    }
}
