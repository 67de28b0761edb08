//! The commands beside the daemon: convert, segment, evaluate, train, scenes, logits, preprocess, postprocess, bench, view, doctor.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge::tools::convert::{ConvertOptions, convert};
//! convert("checkpoint".as_ref(), "model.onnx".as_ref(), &ConvertOptions::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: results go to standard output or to files that appear whole or not at all ([`files`]); progress and logs go to
//! standard error. `segment`, `evaluate` and `bench` run the same pipeline as the daemon. Refuses: long-running service.

pub mod bench;
pub mod checkpoint;
pub mod convert;
pub mod doctor;
pub mod evaluate;
pub mod files;
pub mod logits;
pub mod ort;
pub mod postprocess;
pub mod preprocess;
pub mod scenes;
pub mod segment;
#[cfg(feature = "train")]
pub mod train;
pub mod truth;
pub mod view;

mod annotations;
mod progress;
mod tensors;

/// The user's words are at fault: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Whoever read standard output has stopped: no failure, but the end.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// A line on standard output.
pub(crate) fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("standard output cannot be written")),
    }
}

/// Ends a command with a [`UsageError`].
pub fn usage<T>(sentence: impl Into<String>) -> anyhow::Result<T> {
    Err(UsageError(sentence.into()).into())
}
