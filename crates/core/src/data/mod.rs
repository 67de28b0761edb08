//! The types that flow through the program: [`Frame`] → [`Tensor`] → [`Logits`] → [`Segments`] → [`FrameReport`].
//!
//! ```
//! use eomt_edge_core::data::{Frame, PixelFormat};
//! let frame = Frame::rgb(2, 1, vec![255, 0, 0, 0, 255, 0]);
//! assert_eq!(frame.format, PixelFormat::Rgb24);
//! ```
//!
//! Invariants: a value is valid once it exists (lengths match shapes); stages do not check again.
//! Refuses: behaviour. No file, clock, thread or log call here, and no dependency on another module.

mod camera;
mod frame;
mod geometry;
mod layout;
mod logits;
mod normalization;
mod report;
mod segments;
mod task;
mod tensor;
mod token_merging;

pub use camera::{ControlValue, Crop, View};
pub use frame::{Colour, Exif, Frame, GroundTruth, Matrix, PixelFormat};
pub use geometry::{Geometry, Windows};
pub use layout::{InputEnd, Plane, RawLayout, Stride};
pub use logits::{ClassLogits, Logits};
pub use normalization::Normalization;
pub use report::{FrameReport, Stage, StageTimes, Unpublished};
pub use segments::{NO_SEGMENT, Rle, Segment, Segments};
pub use task::{Task, Thresholds};
pub use tensor::Tensor;
pub use token_merging::{MergeStep, TokenMerging};
