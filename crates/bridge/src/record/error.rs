//! Why a recording ends. Reasons of the system are sources, which `main` appends.

use std::io;
use std::path::PathBuf;

use mcap::McapError;

/// A sentence for a person each.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Readers go by the end of the name.
    #[error("{}: a recording's name ends in .mcap and is UTF-8", .path.display())]
    Name {
        /// As the user gave it.
        path: PathBuf,
    },
    /// Where recordings should go.
    #[error("{}: the directory for recordings cannot be read", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Of the system.
        source: io::Error,
    },
    /// Nothing is written over.
    #[error("{}: exists, and nothing is written over it: take another name, or --max-time or --max-size for a series with numbers", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A lock is held on it.
    #[error("{}: another recorder is writing this series: take another name", .path.display())]
    Busy {
        /// Its file.
        path: PathBuf,
    },
    /// Somebody else creates files of this series faster than we do.
    #[error("{}: no number is free for {stem}: take another name", .directory.display())]
    Names {
        /// Where.
        directory: PathBuf,
        /// The name without its number.
        stem: String,
    },
    /// A file cannot be created, or its disk fails.
    #[error("{}: cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Of the system.
        source: io::Error,
    },
    /// The disk was full up to the end.
    #[error("{}: the disk is full, so its last {missing} bytes are missing: make room, then `eomt-edge-bridge recover` makes it whole", .path.display())]
    Unfinished {
        /// The file.
        path: PathBuf,
        /// Bytes.
        missing: u64,
    },
    /// The MCAP writer refuses.
    #[error("{}: cannot be written as MCAP", .path.display())]
    Mcap {
        /// The file.
        path: PathBuf,
        /// Its own words.
        source: McapError,
    },
    /// Neither a thread nor a descriptor is left.
    #[error("recording cannot start ({0})")]
    System(io::Error),
}
