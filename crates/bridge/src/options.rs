//! What the subcommands' options have in common.

use std::path::PathBuf;

use clap::Args;

/// Wrong usage: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What every subcommand that reads masks takes.
#[derive(Debug, Clone, Args)]
pub struct RingArgs {
    /// The daemon's mask socket
    #[arg(long, value_name = "PATH", default_value = "/run/eomt-edge/masks.sock")]
    pub socket: PathBuf,
}
