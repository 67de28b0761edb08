//! The text by which formats without a single list of annotations identify their contents.
//!
//! Runs of training keep a hash of it, so its form must not change: a run that began with an older version goes on.

use std::fmt::Write as _;

use super::format::GroundTruth;
use super::naming::ClassValues;

/// `values` and the classes, then a line per image: its name and what `contents` says about it.
pub(super) fn of_images(values: &ClassValues, ground_truth: &dyn GroundTruth, contents: impl Fn(usize) -> String) -> Vec<u8> {
    let mut text = format!("{values:?} {:?}", ground_truth.classes());
    for (index, image) in ground_truth.images().iter().enumerate() {
        let _ = write!(text, "\n{} {}", image.name, contents(index)); // to a String
    }
    text.into_bytes()
}
