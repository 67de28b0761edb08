//! What the user says about reuse: `THRESHOLD[,BUDGET[,REFRESH]]`.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// When a patch counts as unchanged, and what bounds the cost and the drift.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReuseConfig {
    /// Levels of 8 bits, 0 to 255. A patch is computed again when the mean of 4x4 of its pixels differs by more in one channel from what
    /// it was when the patch was last computed, or a single value by more than eight times as much. 0: any difference counts.
    pub threshold: f32,
    /// Share of the patches, 0 to 1: where more are to be computed, all are.
    pub budget: f32,
    /// Every patch is computed at least once in so many frames, a part of them in each; 0: only when it changes.
    pub refresh: u32,
}

/// A single value may differ so many times as much as a mean: noise is that much larger there.
pub const SINGLE: f32 = 8.0;

impl Default for ReuseConfig {
    fn default() -> ReuseConfig {
        ReuseConfig { threshold: 6.0, budget: 0.5, refresh: 30 }
    }
}

/// Why a text is no [`ReuseConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReuseConfigError {
    /// It has more or fewer parts, or one is no number.
    #[error("'{0}' does not read THRESHOLD[,BUDGET[,REFRESH]], e.g. 6,0.5,30")]
    Form(String),
    /// A number outside of its range.
    #[error("the {name} is {range}, not {value}")]
    Range {
        /// Of the part.
        name: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it is.
        value: String,
    },
}

impl ReuseConfig {
    /// # Errors
    /// When a number is outside of its range.
    pub fn checked(self) -> Result<ReuseConfig, ReuseConfigError> {
        let wrong = |name, range, value: String| Err(ReuseConfigError::Range { name, range, value });
        if !(0.0..=255.0).contains(&self.threshold) {
            return wrong("threshold", "0 to 255 levels", self.threshold.to_string());
        }
        if !(0.0..=1.0).contains(&self.budget) {
            return wrong("budget", "a share of the patches, 0 to 1", self.budget.to_string());
        }
        Ok(self)
    }
}

impl FromStr for ReuseConfig {
    type Err = ReuseConfigError;

    fn from_str(text: &str) -> Result<ReuseConfig, ReuseConfigError> {
        let form = || ReuseConfigError::Form(text.to_owned());
        let number = |part: &str| part.trim().parse::<f32>().map_err(|_| form());
        let mut config = ReuseConfig::default();
        let mut parts = text.split(',');
        config.threshold = number(parts.next().unwrap_or_default())?;
        if let Some(part) = parts.next() {
            config.budget = number(part)?;
        }
        if let Some(part) = parts.next() {
            config.refresh = part.trim().parse().map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        config.checked()
    }
}

impl Display for ReuseConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{},{}", self.threshold, self.budget, self.refresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_values_are_one() {
        let default = ReuseConfig::default();
        assert_eq!(default.to_string().parse(), Ok(default));
        assert_eq!("2.5".parse(), Ok(ReuseConfig { threshold: 2.5, ..default }));
        assert_eq!("0, 1, 0".parse(), Ok(ReuseConfig { threshold: 0.0, budget: 1.0, refresh: 0 }));
        for (text, word) in [
            ("", "THRESHOLD"),
            ("6,", "THRESHOLD"),
            ("6,0.5,7,8", "THRESHOLD"),
            ("6,0.5,-1", "THRESHOLD"),
            ("NaN", "threshold"),
            ("-1", "threshold"),
            ("6,1.5", "budget"),
            ("6,nan", "budget"),
        ] {
            let error = text.parse::<ReuseConfig>().expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
