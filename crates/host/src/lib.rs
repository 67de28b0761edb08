//! What the daemon and the tools both ask of the operating system: model files, pictures, bags (feature `bag`), the clock, output.
//!
//! ```no_run
//! use eomt_edge_host::model_file::{Compute, load};
//! let model = load("models/eomt-nano-scenes.onnx".as_ref(), &Compute::default())?;
//! println!("{:?}", model.metadata().task);
//! # Ok::<(), eomt_edge_host::model_file::ModelFileError>(())
//! ```
//!
//! `eomt-edge-core` takes bytes and a clock; this crate opens the files and reads the clock, once for both sides, so that daemon and
//! tools need not know each other. Refuses: to compute anything.

#![warn(missing_docs)]

mod allocator;
#[cfg(feature = "bag")]
pub mod bags;
mod clock;
pub mod contents;
pub mod model_file;
pub mod pictures;
mod weight_files;

pub use clock::MonotonicClock;
pub use eomt_edge_files::{bounds, files, output};
