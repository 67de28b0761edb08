//! Who subtracts the mean and divides by the standard deviation: the network, or this program before it.

use std::str::FromStr;

/// Where a third-party network's pixel values are normalized. Our own files say it themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normalization {
    /// As the graph shows it; outside when it shows nothing.
    #[default]
    Auto,
    /// The network does it: it gets plain pixel values, 0 to 1, or 0 to 255 where it divides by 255.
    Inside,
    /// The network does not: it gets `(v / 255 - mean) / std`.
    Outside,
}

impl Normalization {
    /// In the order of the documentation.
    pub const ALL: [Normalization; 3] = [Normalization::Auto, Normalization::Inside, Normalization::Outside];

    /// The word in the configuration and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Normalization::Auto => "auto",
            Normalization::Inside => "inside",
            Normalization::Outside => "outside",
        }
    }
}

impl FromStr for Normalization {
    type Err = String;

    fn from_str(text: &str) -> Result<Normalization, String> {
        Normalization::ALL
            .into_iter()
            .find(|normalization| normalization.name() == text)
            .ok_or_else(|| format!("unknown normalization '{text}': auto, inside or outside"))
    }
}
