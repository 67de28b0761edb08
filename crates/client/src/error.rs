//! [`ClientError`], written by hand: a derive would bring five crates of macros into every reader's build.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::layout::ABI_OLDEST;

/// Most characters of a text of the daemon's that a sentence repeats.
const TEXT_MAX: usize = 200;

/// Why there are no masks. Every variant names the socket's path.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The socket cannot be opened: no daemon runs there, this user may not connect, or what listens there did not answer in time
    /// (a source of [`io::ErrorKind::TimedOut`], which says whether its queue was full or its hello did not come).
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon answered and sent this client away, for example because it serves its limit of readers already.
    Refused {
        /// The socket.
        path: PathBuf,
        /// The daemon's sentence.
        reason: String,
    },
    /// What listens on the socket does not speak the protocol of eomt-edge.
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What was wrong with its answer.
        what: String,
    },
    /// The daemon sent its descriptors and they did not get here (MSG_CTRUNC): this process has no free descriptor (RLIMIT_NOFILE), or
    /// a security module forbids it to receive them.
    Descriptors {
        /// The socket.
        path: PathBuf,
        /// How many came.
        arrived: usize,
    },
    /// The daemon writes a version of the ring that this crate does not read: update the older of the two.
    Abi {
        /// The socket.
        path: PathBuf,
        /// The daemon's version.
        theirs: u32,
        /// The newest that this crate reads, [`ABI_VERSION`](crate::layout::ABI_VERSION).
        ours: u32,
    },
    /// The shared memory cannot be mapped, or what it says about itself is impossible.
    Ring {
        /// The socket.
        path: PathBuf,
        /// What was wrong with it.
        what: String,
    },
    /// Waiting for the next frame failed in the kernel (`poll`, `epoll`).
    Wait {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No more frames come from this connection.
    Ended {
        /// The socket.
        path: PathBuf,
        /// Whether the daemon closed the ring (it stopped, or a reload made a new ring); false when it died.
        clean: bool,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Connect { path, source } => write!(f, "cannot connect to the mask socket {}: {source}", path.display()),
            ClientError::Refused { path, reason } => write!(f, "the daemon at {} refused this client: {}", path.display(), Shown(reason)),
            ClientError::Protocol { path, what } => write!(f, "{} is not a mask socket: {what}", path.display()),
            ClientError::Descriptors { path, arrived } => {
                let path = path.display();
                write!(
                    f,
                    "the ring's descriptors did not arrive from {path} ({arrived} of 2): this process has no free descriptor (see \
                     ulimit -n), or a security module (SELinux, AppArmor) forbids it to receive them"
                )
            }
            ClientError::Abi { path, theirs, ours } => {
                write!(f, "the daemon at {} speaks ABI {theirs} of the mask ring, this client {ABI_OLDEST} to {ours}", path.display())
            }
            ClientError::Ring { path, what } => write!(f, "the mask ring of {} cannot be read: {what}", path.display()),
            ClientError::Wait { path, source } => write!(f, "waiting for masks of {} failed: {source}", path.display()),
            ClientError::Ended { path, clean: true } => write!(f, "the daemon at {} closed this mask ring", path.display()),
            ClientError::Ended { path, clean: false } => write!(f, "the daemon at {} has ended", path.display()),
        }
    }
}

/// A text from the other side as a terminal may see it: no control characters, and not more than a line or two.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(TEXT_MAX) {
            if c.is_control() { write!(f, "{}", c.escape_unicode())? } else { write!(f, "{c}")? }
        }
        if chars.next().is_some() { f.write_str("...") } else { Ok(()) }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ClientError::Connect { source, .. } | ClientError::Wait { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_names_the_socket_and_io_errors_keep_their_cause() {
        let (path, system) = (|| PathBuf::from("/run/x.sock"), || io::Error::from(io::ErrorKind::PermissionDenied));
        let words = || "the reason".to_owned();
        for (error, expected, has_source) in [
            (ClientError::Connect { path: path(), source: system() }, "permission denied", true),
            (ClientError::Refused { path: path(), reason: words() }, "the reason", false),
            (ClientError::Protocol { path: path(), what: words() }, "the reason", false),
            (ClientError::Descriptors { path: path(), arrived: 1 }, "(1 of 2): this process has no free descriptor", false),
            (ClientError::Abi { path: path(), theirs: 3, ours: 2 }, "ABI 3 of the mask ring, this client 1 to 2", false),
            (ClientError::Ring { path: path(), what: words() }, "the reason", false),
            (ClientError::Wait { path: path(), source: system() }, "permission denied", true),
            (ClientError::Ended { path: path(), clean: true }, "closed this mask ring", false),
            (ClientError::Ended { path: path(), clean: false }, "has ended", false),
        ] {
            let sentence = error.to_string();
            assert!(sentence.contains("/run/x.sock") && sentence.contains(expected), "{sentence}");
            assert_eq!(error.source().is_some(), has_source, "{sentence}");
        }
    }
}
