//! On-device EoMT segmentation: frames in, masks out, to any process on the machine.
//!
//! ```text
//! source ──Frame──▶ preprocess ──Tensor──▶ model ──Logits──▶ segment ──Segments──▶ sink
//! replay, scenes,   resize, pad,           tract plan        panoptic,             mask ring
//! pipe              normalize                                instance, semantic    (shared memory), display
//! ```
//!
//! One direction, typed values. A stage is a function from one type of [`eomt_edge_core::data`] to the next;
//! [`eomt_edge_core::pipeline`] wires them and has the traits towards the outside. This package is the program on the board:
//!
//! | module | does | imports |
//! |---|---|---|
//! | [`cli`] | arguments | config |
//! | [`config`] | TOML text to validated structs | - |
//! | [`source`] | frames from cameras, files, scenes and other programs | - |
//! | [`sink`] | masks to shared memory and to a small display | config |
//! | [`daemon`] | the composition root: threads, signals, service manager, reload | config, source, sink |
//! | [`view`] | a subscriber that prints or saves what the ring publishes | - |
//! | [`doctor`] | what this machine offers, and what is wrong with it | config, daemon, source, sink |
//!
//! All may import the core; who does what else of the workspace is in its `Cargo.toml`, where cargo enforces it, and
//! `tests/architecture.rs` enforces the rest. `unsafe` is denied but in [`sink::ring`], `source::v4l2::sys` and the display's
//! framebuffer ioctls.
//!
//! Absent on purpose: a GPU path, batches (a camera gives one frame at a time), a network protocol (bridges belong to the
//! subscriber's side), masked attention as an option of inference (a checkpoint says whether it needs it).
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod sink;
pub mod source;
pub mod view;
