//! The control door: a Unix socket at which a permitted program asks how the daemon is, and changes what may be changed while it runs.
//!
//! ```text
//! a line of JSON in ──▶ request   a pure function: what is asked for, or the sentence why not
//!                       server    thread eomt-control: lines in, lines out; answers what needs no frame path itself
//!                       door      orders to the main thread, which looks for one between two frames, and its answers
//! a line of JSON out ◀─ log       the last lines of the log, without secrets
//!                       models    files that may be switched to
//!                       client    the command `control`
//! ```
//! Invariants: the main thread never waits for this one, nor for a client; lines, connections, orders and answers are bounded. Nothing
//! beyond what [`Request`] lists can be asked for. Refuses: to write a file, to run a program, to change what a restart does.

mod client;
mod connection;
mod door;
mod log;
mod models;
mod request;
mod server;

pub use client::{Ask, ControlOptions, control};
pub use door::{ControlError, Door};
pub use log::{LOG, LogMemory};
pub use request::{LINE_BYTES_MAX, Request, ThresholdSet};
pub use server::Order;

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 8;
