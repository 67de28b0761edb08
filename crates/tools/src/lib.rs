//! The commands beside the daemon: convert, segment, evaluate, bench, scenes, logits, preprocess, postprocess.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge_tools::convert::{ConvertOptions, convert};
//! convert("checkpoint".as_ref(), "model.onnx".as_ref(), &ConvertOptions::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: results go to standard output or to files that appear whole or not at all (`eomt_edge_host::files`); progress and logs
//! go to standard error. `segment`, `evaluate` and `bench` run the same pipeline as the daemon. Refuses: long-running service.

pub mod bench;
pub mod checkpoint;
pub mod convert;
pub mod datasets;
pub mod evaluate;
pub mod logits;
pub mod ort;
pub mod postprocess;
pub mod preprocess;
pub mod progress;
pub mod scenes;
pub mod segment;

mod annotations;
mod tensors;
