//! The edges towards cameras and files: implementations of [`eomt_edge_core::pipeline::Source`].
//!
//! | `source.uri` | frames |
//! |---|---|
//! | `v4l2:/dev/video0`, `v4l2:` | a camera: the named one, or the one that works (feature `camera`) |
//! | `replay:DIR[@fps]` | the PNG and JPEG files of a directory in the order of their names, over and over |
//! | `bag:FILE[:TOPIC][@fps]` | the pictures of a ROS 2 bag, at the rate at which they were recorded (feature `bag`) |
//! | `scenes[:seed]` | moving procedural scenes with known ground truth |
//! | `pipe:-`, `pipe:FIFO` | raw frames from standard input, or from a FIFO |
//! | `exec:COMMAND` | raw frames from a shell command that is started here |
//! | `ros2:/TOPIC`, `ros2:fifo:PATH` | images of a ROS 2 topic, raw or compressed, by eomt-edge-bridge, started here or writing to a FIFO (feature `bag`) |
//!
//! [`registry`] has the table of kinds and opens a source by its URI; a kind describes itself by one [`SourceKind`].
//!
//! Invariants: a source returns within a fraction of a second unless it waits for input; its frames carry the time of their capture.
//! Sources of files and scenes take that time as an argument; cameras and pipes wait for frames inside of a call, so they read
//! CLOCK_MONOTONIC after it. No source knows what becomes of a frame.

#[cfg(feature = "bag")]
pub mod bag;
mod bag_kind;
mod kind;
mod options;
mod pipe;
pub mod registry;
mod replay;
#[cfg(feature = "bag")]
mod ros2;
mod scenes;
#[cfg(feature = "camera")]
pub mod v4l2;
mod v4l2_kind;

pub use kind::{ParsedSpec, SourceKind, SourceSpec};
pub use options::{CameraRequest, FormatRequest, SourceOptions};
pub use pipe::{PipeOptions, PipeSource, exec_source_main};
pub use registry::{SourceKinds, SourceUri};
pub use replay::ReplaySource;
pub use scenes::ScenesSource;
