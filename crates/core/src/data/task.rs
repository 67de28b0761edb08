//! What the segments of a frame mean, and when a query counts.

use std::fmt;
use std::str::FromStr;

/// The three readings of mask classification (EoMT paper, section 3.1; MaskFormer, section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Every pixel at most one segment; stuff merged per class, things kept apart.
    #[default]
    Panoptic,
    /// One segment per object; masks may overlap.
    Instance,
    /// Every pixel one class.
    Semantic,
}

impl Task {
    /// In the order of the documentation.
    pub const ALL: [Task; 3] = [Task::Panoptic, Task::Instance, Task::Semantic];

    /// The word in the configuration, on the command line and in the model file.
    pub fn name(self) -> &'static str {
        match self {
            Task::Panoptic => "panoptic",
            Task::Instance => "instance",
            Task::Semantic => "semantic",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Task, String> {
        Task::ALL
            .into_iter()
            .find(|task| task.name() == text)
            .ok_or_else(|| format!("unknown task '{text}': panoptic, instance or semantic"))
    }
}

/// The three thresholds of the reference post-processing, each in 0..=1. Doubles, since the reference compares the ratio 4/5 with
/// the double 0.8, which an f32 would round past.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// A query needs at least this class score (panoptic: strictly more; instance: class score x mask score).
    pub score: f64,
    /// A pixel belongs to a mask when its probability is at least this.
    pub mask: f64,
    /// A panoptic segment must win more than this share of its own mask.
    pub overlap: f64,
}

impl Thresholds {
    /// These thresholds with what is given in their place.
    pub fn with(self, score: Option<f64>, mask: Option<f64>, overlap: Option<f64>) -> Thresholds {
        Thresholds { score: score.unwrap_or(self.score), mask: mask.unwrap_or(self.mask), overlap: overlap.unwrap_or(self.overlap) }
    }
}

impl Default for Thresholds {
    /// The defaults of the reference image processor: 0.8, 0.5, 0.8.
    fn default() -> Thresholds {
        Thresholds { score: 0.8, mask: 0.5, overlap: 0.8 }
    }
}
