//! Values of options that several commands share.

use crate::config::THREADS_MAX;

pub(super) use eomt_edge_core::model::bounds::INPUT_SIDE_MAX;

/// HEIGHTxWIDTH, or one number for a square.
#[derive(Debug, Clone, Copy)]
pub struct InputSize(
    /// Height, pixels.
    pub usize,
    /// Width, pixels.
    pub usize,
);

pub(super) fn input_size(text: &str) -> Result<InputSize, String> {
    let side = |text: &str| text.parse::<usize>().ok().filter(|side| (1..=INPUT_SIDE_MAX).contains(side));
    let size = match text.split_once('x') {
        Some((height, width)) => side(height).zip(side(width)),
        None => side(text).map(|side| (side, side)),
    };
    size.map(|(height, width)| InputSize(height, width))
        .ok_or_else(|| format!("a size is N or HEIGHTxWIDTH, in pixels, at most {INPUT_SIDE_MAX}"))
}

pub(super) fn threads(text: &str) -> Result<usize, String> {
    text.parse::<usize>().ok().filter(|threads| *threads <= THREADS_MAX).ok_or_else(|| format!("it must lie between 0 and {THREADS_MAX}"))
}

/// Class indices.
#[derive(Debug, Clone)]
pub struct ClassList(pub Vec<u16>);

pub(super) fn class_list(text: &str) -> Result<ClassList, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let classes = items.map(|item| item.parse().map_err(|_| format!("'{item}' is not a class index"))).collect::<Result<_, _>>()?;
    Ok(ClassList(classes))
}

pub(super) fn probability(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value)).ok_or_else(|| "it must lie between 0 and 1".to_owned())
}

/// Frames a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| *value > 0.0 && *value <= 1000.0).ok_or_else(|| "more than 0, at most 1000".to_owned())
}

/// A quantity that may be 0.
pub(super) fn speed(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| (0.0..=1000.0).contains(value)).ok_or_else(|| "it must lie between 0 and 1000".to_owned())
}

/// Of (option given, its owner given, the names of both), the first option without its owner.
pub(super) fn first_stray(options: &[(bool, bool, [&'static str; 2])]) -> Option<[&'static str; 2]> {
    options.iter().find(|(option, owner, _)| *option && !owner).map(|(_, _, names)| *names)
}
