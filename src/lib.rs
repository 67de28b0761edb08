//! On-device EoMT segmentation, the program on the board: frames in, masks out, to any process on the machine.
//!
//! ```text
//! source ──Frame──▶ preprocess ──Tensor──▶ model ──Logits──▶ segment ──Segments──▶ sink
//! v4l2, replay,     resize, pad,           tract plan        panoptic,             mask ring
//! scenes, pipe      normalize                                instance, semantic    (shared memory), display
//! ```
//!
//! The stages in the middle are [`eomt_edge_core`]; what the operating system gives both sides (model files, pictures, the clock) is
//! [`eomt_edge_host`]; other processes read the ring with [`eomt_edge_client`]. This crate holds the two ends, and [`daemon`] composes them.
//!
//! | module | may import |
//! |---|---|
//! | [`config`], `picture`, [`source`] | - |
//! | [`cli`] | config |
//! | [`sink`] | config, picture |
//! | [`view`] | picture |
//! | [`daemon`] | config, source, sink |
//! | [`doctor`] | config, daemon, source, sink |
//!
//! The commands of a desk (convert, segment, evaluate, bench, train) are the crates `eomt-edge-tools` and `eomt-edge-train`. Nothing here but
//! `main`'s commands and the definitions of their arguments may use them, and they know nothing of this crate: a build for a board can leave
//! them out. `tests/architecture` checks the table. `unsafe` code lives in [`sink::ring`], `source::v4l2::sys` and the display's framebuffer
//! ioctls only.
//!
//! Absent on purpose: a network protocol. Bridges are clients of the ring, in processes of their own.
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
mod picture;
pub mod sink;
pub mod source;
pub mod view;
