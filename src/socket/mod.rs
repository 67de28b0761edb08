//! Names of Unix sockets: taken, kept, given up, and removed when the process is killed.
//!
//! ```text
//! bind      takes a name under its lock, with mode and group; of two daemons one gets it
//! lock      the file beside the socket under which that happens
//! place     keeps the name while the daemon runs, and takes it again when somebody removes the file
//! reaper    a child that removes the file after a `kill -9`
//! throttle  keeps out of the log what clients can provoke at will
//! ```
//! Invariants: a client never finds a socket with the wrong mode, or one that does not listen yet. Refuses: to delete a path that is not a
//! dead socket, to make a directory, to know what is said on a socket.
#![allow(unsafe_code)] // a socket option, and the reaper's inherited descriptors

mod bind;
mod lock;
mod place;
mod reaper;
mod throttle;

use std::io;
use std::path::PathBuf;

#[cfg(test)]
pub(crate) use bind::SocketName;
pub use bind::check_group;
pub(crate) use bind::{Address, Kind};
pub(crate) use place::{Keeper, Place};
pub use reaper::{ReaperCommand, reap_socket_main};
pub(crate) use throttle::Throttle;

/// Why a socket's name cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket's directory is missing or closed.
    #[error("the directory {} of the socket cannot be used: {source}", dir.display())]
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
        /// The other daemon, if it tells.
        pid: Option<i32>,
    },
    /// The path is taken by something else, which stays.
    #[error("{} exists and is no socket; it stays untouched, choose another path for the socket", path.display())]
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
    #[error("{} cannot be the socket's lock file: {what}; it stays untouched, remove it or choose another path for the socket", file.display())]
    LockFile {
        /// The lock file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The socket cannot be made.
    #[error("the socket {} cannot be made: {step} failed: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The step that failed.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such group.
    #[error("the group '{group}' of the socket is neither in /etc/group nor a number")]
    Group {
        /// The name.
        group: String,
    },
}
