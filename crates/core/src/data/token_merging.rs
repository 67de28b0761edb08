//! How many patch tokens are merged away, and where in the network.

use std::str::FromStr;

/// `RATIO[@BLOCK]`: the share of patch tokens that become part of others, and the encoder block before which they do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenMerging {
    /// From 0 (none) to [`TokenMerging::RATIO_MAX`].
    ratio: f64,
    /// Counted from 0; `None`: the default, see [`TokenMerging::block`].
    block: Option<usize>,
}

impl TokenMerging {
    /// Cells of 8x8 patches at most become one token, and a grid that they do not fill has smaller ones.
    pub const RATIO_MAX: f64 = 0.95;

    /// Whether no token is merged.
    pub fn is_off(self) -> bool {
        self.ratio == 0.0
    }

    /// The share of patch tokens that are merged away.
    pub fn ratio(self) -> f64 {
        self.ratio
    }

    /// The encoder block before which tokens merge; `None`: not said.
    pub fn block(self) -> Option<usize> {
        self.block
    }
}

impl FromStr for TokenMerging {
    type Err = String;

    fn from_str(text: &str) -> Result<TokenMerging, String> {
        let (ratio, block) = match text.split_once('@') {
            Some((ratio, block)) => (ratio, Some(block)),
            None => (text, None),
        };
        let ratio = ratio.parse::<f64>().ok().filter(|ratio| (0.0..=TokenMerging::RATIO_MAX).contains(ratio));
        let block = block.map(|block| block.parse::<usize>().ok().filter(|block| *block >= 1).ok_or(())).transpose();
        match (ratio, block) {
            (Some(ratio), Ok(block)) => Ok(TokenMerging { ratio, block }),
            _ => Err(format!(
                "'{text}' is not RATIO or RATIO@BLOCK: a share of patch tokens from 0 (none) to {}, and the number of the block before \
                 which they merge, from 1 on, as in 0.5@2",
                TokenMerging::RATIO_MAX
            )),
        }
    }
}

impl std::fmt::Display for TokenMerging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.block {
            Some(block) => write!(f, "{}@{block}", self.ratio),
            None => write!(f, "{}", self.ratio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_and_blocks_are_read_and_written() {
        for (text, ratio, block) in [("0", 0.0, None), ("0.5", 0.5, None), ("0.95@3", 0.95, Some(3)), ("0@1", 0.0, Some(1))] {
            let merging: TokenMerging = text.parse().expect("fits");
            assert_eq!((merging.ratio(), merging.block(), merging.to_string()), (ratio, block, text.to_owned()));
        }
        assert!(TokenMerging::default().is_off());
        for text in ["", "1", "-0.1", "0.96", "NaN", "half", "0.5@", "@2", "0.5@0", "0.5@-1", "0.5@x", "0.5@1@2"] {
            assert!(text.parse::<TokenMerging>().expect_err(text).contains("RATIO@BLOCK"), "{text}");
        }
    }
}
