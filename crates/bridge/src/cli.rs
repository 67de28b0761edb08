//! The command line. Each subcommand's arguments stand with it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Wrong usage: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Masks of a running eomt-edge daemon for others.
#[derive(Debug, Parser)]
#[command(name = "eomt-edge-bridge", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    #[allow(missing_docs)] // would become help text
    pub command: Command,
    /// More log lines (RUST_LOG overrides)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// What every subcommand that reads masks takes.
#[derive(Debug, Clone, Args)]
pub struct RingArgs {
    /// The daemon's mask socket
    #[arg(long, value_name = "PATH", default_value = "/run/eomt-edge/masks.sock")]
    pub socket: PathBuf,
}

#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // would become help text
pub enum Command {
    /// Record masks to MCAP files, which Foxglove, Rerun and ROS 2 open
    #[cfg(feature = "record")]
    Record(crate::record::RecordArgs),
    /// Write a cut or damaged recording whole again, as far as it can be read
    #[cfg(feature = "record")]
    Recover(crate::record::RecoverArgs),
}

impl Command {
    /// Runs until a signal ends it, or something that waiting does not mend.
    ///
    /// # Errors
    /// One sentence; [`Usage`] where the command line or a configuration is wrong.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            #[cfg(feature = "record")]
            Command::Record(args) => args.run(),
            #[cfg(feature = "record")]
            Command::Recover(args) => args.run(),
        }
    }
}
