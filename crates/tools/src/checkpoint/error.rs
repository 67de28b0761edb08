//! What can be wrong with a checkpoint: one sentence each, which names the file and the key or tensor.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint could not be read. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// The path holds no checkpoint that this program knows.
    #[error("{}: {problem}", .path.display())]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What is missing or unknown.
        problem: String,
    },

    /// A file is damaged, or its extension does not fit its contents.
    #[error("{} is damaged: {problem}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with its bytes.
        problem: String,
    },

    /// A pickle would have to call a function to give the weights.
    #[error("{} calls {call}; a checkpoint may only build tensors: save the state_dict() of the model with torch.save", .path.display())]
    Call {
        /// The file.
        path: PathBuf,
        /// The function or class, `module.name`.
        call: String,
    },

    /// The weights are there, but not as one state of plain tensors: the file, and the rest of the sentence.
    #[error("{} {}", .0.display(), .1)]
    State(PathBuf, String),

    /// A key of a JSON file has a value that cannot be used.
    #[error("{}: '{key}' {problem}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },

    /// A key and the weights disagree.
    #[error("{}: '{key}' is {value}, but tensor '{tensor}' {found}", .path.display())]
    Contradiction {
        /// The file of the key.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The tensor.
        tensor: String,
        /// What the tensor shows.
        found: String,
    },

    /// The network needs a tensor that the file does not have.
    #[error("{}: tensor '{tensor}' is missing", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// The file has tensors that no part of the network uses.
    #[error("{}: tensor '{tensor}'{} no part of an EoMT network", .path.display(), belongs(.others))]
    Extra {
        /// The file.
        path: PathBuf,
        /// The first of them.
        tensor: String,
        /// How many more there are.
        others: usize,
    },

    /// A tensor has another shape than the network needs.
    #[error("{}: tensor '{tensor}' has shape {found:?}, expected {expected:?}", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the network needs.
        expected: Vec<usize>,
    },

    /// A tensor has another number of dimensions than the network needs.
    #[error("{}: tensor '{tensor}' has shape {found:?}, expected {expected}", .path.display())]
    Rank {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The number of dimensions, in words.
        expected: &'static str,
    },

    /// A tensor holds an infinity or a NaN.
    #[error("{}: tensor '{tensor}' holds a value that is not a finite number, at position {position}", .path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Row-major place of the first such value.
        position: usize,
    },

    /// A tensor has elements that are not floating-point numbers of a known kind.
    #[error("{}: tensor '{tensor}' has elements of type {found}, expected F32, F16, BF16 or F64", .path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type of its elements.
        found: String,
    },
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

/// Text from a file, shortened and cleaned for a sentence: one line, no control characters, at most 120 characters.
pub(super) fn quote(text: &str) -> String {
    let mut out: String = text.chars().take(120).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(120).is_some() {
        out.push('…');
    }
    out
}
