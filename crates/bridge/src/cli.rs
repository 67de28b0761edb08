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
    /// Be a ROS 2 node that publishes the masks, over DDS
    #[cfg(feature = "ros2")]
    Ros2(crate::ros2::Ros2Args),
    /// Write the pictures of a ROS 2 topic to standard output, for a program without ROS
    #[cfg(feature = "ros2")]
    Images(crate::ros2::ImagesArgs),
    /// Be a ROS 2 node that publishes the masks, over Zenoh (rmw_zenoh)
    #[cfg(feature = "zenoh")]
    Zenoh(crate::zenoh::ZenohArgs),
}

impl Command {
    /// Runs until a signal ends it, or something that waiting does not mend.
    ///
    /// # Errors
    /// One sentence; [`Usage`] where the command line or a configuration is wrong.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            #[cfg(feature = "ros2")]
            Command::Ros2(args) => args.run(),
            #[cfg(feature = "ros2")]
            Command::Images(args) => args.run(),
            #[cfg(feature = "zenoh")]
            Command::Zenoh(args) => args.run(),
        }
    }
}
