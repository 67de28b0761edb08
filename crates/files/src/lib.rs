//! Files read within bounds and written whole, and sentences for people: what every program of eomt-edge does alike.
//!
//! ```no_run
//! use eomt_edge_files::{bounds, files};
//! let text = files::read_text("/etc/eomt-edge/eomt-edge.toml".as_ref(), &bounds::CONFIGURATION)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Refuses: to know what a network or a frame is.

#![warn(missing_docs)]

pub mod bounds;
pub mod files;
pub mod output;
