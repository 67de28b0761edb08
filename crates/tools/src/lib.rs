//! The commands beside the daemon: convert, segment, evaluate, bench, scenes, logits, preprocess, postprocess.
//!
//! | module | does |
//! |---|---|
//! | [`checkpoint`] | reads checkpoints of transformers, the EoMT authors and LightlyTrain |
//! | [`chain`] | the networks between ViT-Adapter with Mask2Former and EoMT |
//! | [`convert`] | writes a checkpoint as one ONNX file, f32 or int8 |
//! | [`segment`] | segments pictures |
//! | [`datasets`] | reads annotated pictures; a new format starts here |
//! | [`evaluate`] | scores a model or files of predictions |
//! | [`mod@bench`] | times the frame path, and compares with ONNX Runtime |
//! | [`scenes`], [`clip`] | write procedural pictures, and clips, with their ground truth |
//! | [`logits`], [`preprocess`], [`postprocess`] | run one stage alone, for numerical checks |
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

#![warn(missing_docs)]

pub mod bench;
pub mod chain;
pub mod checkpoint;
pub mod clip;
pub mod convert;
pub mod datasets;
pub mod evaluate;
pub mod logits;
mod ort;
pub mod postprocess;
pub mod preprocess;
mod progress;
pub mod scenes;
pub mod segment;

mod annotations;
mod panoptic_folder;
mod tensors;
