//! What can be wrong with a checkpoint: one sentence each, with the file and the key or tensor it is about.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot read {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },

    /// The path holds no checkpoint that this program knows.
    #[error("{}: {problem}", .path.display())]
    Layout { path: PathBuf, problem: String },

    /// A file is damaged or not of the kind its name says.
    #[error("{} is damaged: {problem}", .path.display())]
    Damaged { path: PathBuf, problem: String },

    /// A pickle is something else than data.
    #[error("{} calls {call}; a checkpoint may only build tensors: save the state_dict() of the model with torch.save", .path.display())]
    Call { path: PathBuf, call: String },

    /// The weights are there, but not as one state of plain tensors; the text goes on after the file's name.
    #[error("{} {}", .0.display(), .1)]
    State(PathBuf, String),

    /// A key of a JSON file has a value that cannot be used.
    #[error("{}: '{key}' {problem}", .path.display())]
    Key { path: PathBuf, key: String, problem: String },

    /// A key and the weights disagree.
    #[error("{}: '{key}' is {value}, but tensor '{tensor}' {found}", .path.display())]
    Contradiction { path: PathBuf, key: String, value: String, tensor: String, found: String },

    #[error("{}: tensor '{tensor}' is missing", .path.display())]
    Missing { path: PathBuf, tensor: String },

    #[error("{}: tensor '{tensor}'{} no part of an EoMT network", .path.display(), belongs(.others))]
    Extra { path: PathBuf, tensor: String, others: usize },

    #[error("{}: tensor '{tensor}' has shape {found:?}, expected {expected:?}", .path.display())]
    Shape { path: PathBuf, tensor: String, found: Vec<usize>, expected: Vec<usize> },

    #[error("{}: tensor '{tensor}' has shape {found:?}, expected {expected}", .path.display())]
    Rank { path: PathBuf, tensor: String, found: Vec<usize>, expected: &'static str },

    #[error("{}: tensor '{tensor}' holds a value that is not a finite number, at position {position}", .path.display())]
    NotFinite { path: PathBuf, tensor: String, position: usize },

    #[error("{}: tensor '{tensor}' has elements of type {found}, expected F32, F16, BF16 or F64", .path.display())]
    ElementType { path: PathBuf, tensor: String, found: String },
}

fn belongs(others: &usize) -> String {
    match others {
        0 => " is".to_string(),
        1 => " (and 1 other) is".to_string(),
        n => format!(" (and {n} others) is"),
    }
}

impl CheckpointError {
    pub(super) fn layout(path: &Path, problem: impl Into<String>) -> CheckpointError {
        CheckpointError::Layout { path: path.into(), problem: problem.into() }
    }

    pub(super) fn damaged(path: &Path, problem: impl Into<String>) -> CheckpointError {
        CheckpointError::Damaged { path: path.into(), problem: problem.into() }
    }

    pub(super) fn key(path: &Path, key: &str, problem: impl Into<String>) -> CheckpointError {
        CheckpointError::Key { path: path.into(), key: quote(key), problem: problem.into() }
    }

    pub(super) fn contradiction(path: &Path, key: &str, value: impl ToString, tensor: &str, found: impl Into<String>) -> CheckpointError {
        let (key, tensor) = (quote(key), quote(tensor));
        CheckpointError::Contradiction { path: path.into(), key, value: value.to_string(), tensor, found: found.into() }
    }
}

/// Attaches the path to an I/O error.
pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path, source }
}

/// Text from a file, fit for a sentence: one line, no control characters, at most 120 characters.
pub(super) fn quote(text: &str) -> String {
    let mut out: String = text.chars().take(120).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(120).is_some() {
        out.push('…');
    }
    out
}
