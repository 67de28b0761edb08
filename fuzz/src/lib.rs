//! Fuzz targets: everything in eomt-edge that reads what others wrote, each under an engine that looks for inputs which break it.
//!
//! | target | input | must hold |
//! |---|---|---|
//! | `model` | an ONNX file, and the texts beside it | no panic of ours; what the inference engine does stays in a child |
//! | `torch_zip`, `pickle`, `safetensors`, `json` | a checkpoint's files | no panic, no memory beyond the input's measure, a sentence |
//! | `ring_client` | a server's hello and its shared memory | no panic, no wait, no frame that contradicts itself |
//! | `ring_server` | what hostile readers do | an honest reader is woken for each frame, and another one may come |
//! | `jpeg`, `png` | a frame, a picture of a replay folder | no panic; whole pictures of the size that they say |
//! | `bag`, `ros_image` | a bag's file, a picture's message in CDR | no panic; no message or picture beyond its bound; whole pictures |
//! | `config` | a configuration and `--set` items | no panic; what was accepted is in its range |
//!
//! The setup file of the disk images is Python's: `fuzz/setup_file.py`.
//!
//! ```
//! (eomt_edge_fuzz::find("config").unwrap().run)(b"[ring]\nslots = 4\n");
//! ```
//!
//! Invariants: a target is a function of its input; it leaves no thread, descriptor, mapping or file behind. A finding is a panic, an abort,
//! a hang, or one allocation beyond [`Target::bytes_max`]. Refuses: to be an engine. That is libFuzzer ([`engine`]).
#![warn(missing_docs)]

mod bags;
mod checkpoint;
mod child;
mod config;
pub mod engine;
mod finding;
mod input;
mod memory;
mod model;
mod pictures;
mod ring_client;
mod ring_server;
mod scratch;
#[cfg(test)]
mod tests;

use eomt_edge_host::output::sentence;

/// One entry of [`TARGETS`].
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `make fuzz TARGETS=...` takes it, and its corpus in `fuzz/corpus/` is called.
    pub name: &'static str,
    /// Panics on a finding.
    pub run: fn(&[u8]),
    /// Bytes: a larger allocation at once is a finding.
    pub bytes_max: usize,
}

/// All targets in Rust.
pub const TARGETS: &[Target] = &[
    Target { name: "model", run: model::run, bytes_max: 1 << 30 },
    Target { name: "torch_zip", run: checkpoint::torch_zip, bytes_max: 64 << 20 },
    Target { name: "pickle", run: checkpoint::pickle, bytes_max: 64 << 20 },
    Target { name: "safetensors", run: checkpoint::safetensors, bytes_max: 64 << 20 },
    Target { name: "json", run: checkpoint::json, bytes_max: 64 << 20 },
    Target { name: "ring_client", run: ring_client::run, bytes_max: 64 << 20 },
    Target { name: "ring_server", run: ring_server::run, bytes_max: 64 << 20 },
    Target { name: "jpeg", run: pictures::jpeg, bytes_max: 64 << 20 },
    Target { name: "png", run: pictures::png, bytes_max: 64 << 20 },
    Target { name: "bag", run: bags::bag, bytes_max: 64 << 20 },
    Target { name: "ros_image", run: bags::image, bytes_max: 64 << 20 },
    Target { name: "config", run: config::run, bytes_max: 16 << 20 },
];

/// A target by its name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Whether what is said to a person is a sentence once it is printed: words in a line, without control characters, that a screen holds.
fn assert_sentence(error: &str) {
    let printed = sentence(error);
    assert!(!printed.trim().is_empty(), "an error without words");
    let control = printed.chars().find(|c| c.is_control());
    assert!(control.is_none(), "the control character {control:?} in: {}", printed.escape_debug());
    assert!(printed.chars().count() <= SENTENCE_CHARS_MAX, "a sentence of {} characters", printed.chars().count());
}

/// More than `eomt_edge_host::output` cuts a sentence to.
const SENTENCE_CHARS_MAX: usize = 1200;
