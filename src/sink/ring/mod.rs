//! The mask ring: masks in shared memory for any number of other processes.
//!
//! ```no_run
//! use eomt_edge_core::data::FrameReport;
//! use eomt_edge::sink::ring::{MaskServer, RingConfig, RingError, RingWriter, ServerConfig};
//! # fn main() -> Result<(), RingError> {
//! let config = RingConfig { max_width: 640, max_height: 480, ..RingConfig::default() };
//! let mut ring = RingWriter::create(&config, r#"{"labels": ["car"]}"#, 0)?;
//! let server = MaskServer::start(ServerConfig::new("/run/eomt-edge/masks.sock"), &ring)?;
//! let mut slot = ring.begin(640, 480)?;
//! slot.ids().fill(0);
//! slot.finish(&FrameReport::default(), &[]);
//! drop(ring); // readers learn that no more frames come
//! server.stop();
//! # Ok(())
//! # }
//! ```
//!
//! Three parts. [`RingWriter`] owns a sealed memfd of slots, each behind a seqlock; [`MaskServer`] is a thread that gives the
//! memfd and an event descriptor to each client of its Unix socket, and rings these after each publication; the reaper is a
//! child that removes the socket's name if the daemon is killed. The bytes are described in `crates/client/src/layout.rs`.
//!
//! Invariants: the frame path (`begin` to `finish`) allocates nothing, takes no lock, and makes one system call, a write to an
//! eventfd that readers never see; so nothing a reader does, or fails to do, can delay it. The server's thread makes no call that a
//! reader can make wait: what readers have sent is closed by another one (`closing.rs`). A reader cannot write the memory, shrink it, or extend it. When the process ends, by whatever means, socket, memory and reaper go with it.
//! Refuses: to wait for a reader, to queue frames for one, to delete a path that is not a dead socket, to know what masks mean.
#![allow(unsafe_code)]

mod bind;
mod closing;
mod lock;
mod notify;
mod place;
mod reaper;
mod server;
mod service;
mod shm;
mod throttle;
mod wake;
mod writer;

use std::io;
use std::path::PathBuf;

pub use bind::check_group;
pub use reaper::{ReaperCommand, reap_socket_main};
pub use server::{MaskServer, ServerConfig};
pub use writer::{RingWriter, SlotWriter};

/// How large a ring is and what its slots carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingConfig {
    /// 2 to 64. A reader has `slots - 1` publications' time to copy a frame.
    pub slots: u32,
    /// Pixels, largest frame that can be published.
    pub max_width: u32,
    /// Pixels, largest frame that can be published.
    pub max_height: u32,
    /// Rows of the segment table.
    pub max_segments: u32,
    /// Slots have room for the camera frame: three bytes a pixel.
    pub include_frame: bool,
    /// The camera frame as its source gave it, where that is possible; else RGB24. For whoever fills the slots.
    pub source_format: bool,
    /// Every slot carries a CRC-32 of its content: for tests, costs a pass over the data.
    pub checksum: bool,
    /// First 16 bytes of the model file's SHA-256.
    pub model_hash: [u8; 16],
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig {
            slots: 4,
            max_width: 1280,
            max_height: 720,
            max_segments: 256,
            include_frame: false,
            source_format: false,
            checksum: false,
            model_hash: [0; 16],
        }
    }
}

/// Why there is no ring, or no server for it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// A size or count outside of what the layout allows.
    #[error("the mask ring's `{key}` {what}")]
    Config {
        /// The key of [`RingConfig`].
        key: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The metadata is no JSON object, or its labels are no strings.
    #[error("the mask ring's metadata cannot be used: {what}")]
    Metadata {
        /// What is wrong.
        what: String,
    },
    /// There is not enough shared memory, or it cannot be sealed.
    #[error("no {bytes} bytes of shared memory for the mask ring: {step} failed: {source}")]
    Memory {
        /// The step that failed.
        step: &'static str,
        /// Bytes that were asked for.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
    /// More memory than a ring may take.
    #[error(
        "the mask ring would take {} MiB, more than a quarter of this machine's {} MiB: it needs smaller frames or fewer slots (`ring.slots`, `ring.include_frame`)",
        bytes >> 20, memory >> 20
    )]
    TooLarge {
        /// Bytes that the ring needs.
        bytes: u64,
        /// Bytes that the machine has.
        memory: u64,
    },
    /// The process may not have files as large as the ring.
    #[error("the mask ring needs {bytes} bytes, and the limit on the size of files (RLIMIT_FSIZE, ulimit -f) is {limit}")]
    FileSize {
        /// Bytes that the ring needs.
        bytes: u64,
        /// Bytes that a file may have.
        limit: u64,
    },
    /// A frame larger than the ring.
    #[error("a frame of {width}x{height} does not fit the mask ring of at most {max_width}x{max_height}")]
    FrameSize {
        /// Of the frame, in pixels.
        width: u32,
        /// Of the frame, in pixels.
        height: u32,
        /// Of the ring, in pixels.
        max_width: u32,
        /// Of the ring, in pixels.
        max_height: u32,
    },
    /// The server thread cannot be started.
    #[error("the mask server cannot start: {step} failed: {source}")]
    Server {
        /// The step that failed.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The socket's directory is missing or closed.
    #[error("the directory {} of the mask socket cannot be used: {source}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon serves this socket.
    #[error("{} is taken by a running daemon{}", path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Taken {
        /// The socket.
        path: PathBuf,
        /// The other daemon, if the kernel tells.
        pid: Option<i32>,
    },
    /// The path is taken by something else, which stays.
    #[error("{} exists and is no socket; it stays untouched, choose another path for the mask socket", path.display())]
    NotASocket {
        /// The socket.
        path: PathBuf,
    },
    /// Another daemon of this user keeps the lock beside the socket.
    #[error("another daemon holds the lock {} and does not let go", file.display())]
    Locked {
        /// The lock file.
        file: PathBuf,
    },
    /// What is at the lock file's path is none of ours.
    #[error("{} cannot be the mask socket's lock file: {what}; it stays untouched, remove it or choose another path for the socket", file.display())]
    LockFile {
        /// The lock file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The socket cannot be made.
    #[error("the mask socket {} cannot be made: {step} failed: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The step that failed.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// `ring.group` does not exist.
    #[error("the group '{group}' of the mask socket is neither in /etc/group nor a number")]
    Group {
        /// The name.
        group: String,
    },
}

#[cfg(test)]
mod tests;
