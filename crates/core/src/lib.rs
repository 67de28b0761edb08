//! What `eomt-edge` computes: a frame becomes a tensor, the tensor logits, the logits segments.
//!
//! ```text
//! Frame ──▶ preprocess ──Tensor──▶ model ──Logits──▶ segment ──Segments──▶ Sink
//!           resize, pad,           tract plan        panoptic,
//!           normalize              fused operators   instance, semantic
//! ```
//!
//! One direction, typed values. A stage is a function from one type of [`data`] to the next; [`pipeline`] wires them and defines
//! the ports to the outside: `Source`, `Sink`, `Clock`. The daemon, `segment`, `evaluate` and `bench` drive this same code.
//!
//! | module | may import |
//! |---|---|
//! | [`data`] | - |
//! | [`kernels`] | - |
//! | [`scenes`] | data |
//! | [`preprocess`], [`model`], [`segment`] | data, kernels |
//! | [`pipeline`] | data, kernels (the instruction set), preprocess, model, segment |
//! | [`track`] | data, kernels, pipeline (its port `TemporalStage`) |
//!
//! Invariants: no file, clock, device or log; the caller lends threads ([`kernels::workers::Workers`]). `unsafe` and CPU intrinsics live in
//! [`kernels::arch`] only. `tests/architecture.rs` of the workspace checks both.
//!
//! Absent on purpose: a GPU path, batches (a camera gives one frame at a time), masked attention as an option of inference (a
//! checkpoint says whether it needs it).

#![warn(missing_docs)]

pub mod data;
pub mod kernels;
pub mod model;
pub mod pipeline;
pub mod preprocess;
pub mod scenes;
pub mod segment;
pub mod track;

pub use eomt_edge_overlay as overlay;
