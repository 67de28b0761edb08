//! The command line. Each subcommand's arguments stand with it.

use clap::{Parser, Subcommand};

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

#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // would become help text
pub enum Command {
    /// Be a ROS 2 node that publishes the masks, over DDS
    #[cfg(feature = "ros2")]
    Ros2(crate::ros2::Ros2Args),
    /// Be a ROS 2 node that publishes the masks, over Zenoh (rmw_zenoh)
    #[cfg(feature = "zenoh")]
    Zenoh(crate::zenoh::ZenohArgs),
    /// Write the pictures of a ROS 2 topic to standard output or a FIFO, for a program without ROS
    #[cfg(feature = "ros2")]
    Images(crate::ros2::ImagesArgs),
    /// Show picture, masks, latencies and log as a page in the browser
    #[cfg(feature = "web")]
    Web(crate::web::WebArgs),
    /// Serve counters, latencies and temperatures to Prometheus
    #[cfg(feature = "web")]
    Metrics(crate::metrics::MetricsArgs),
    /// Publish classes, counts and areas to an MQTT broker, for Home Assistant and others
    #[cfg(feature = "mqtt")]
    Mqtt(crate::mqtt::MqttArgs),
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
    /// One sentence; [`Usage`](crate::options::Usage) where the command line or a configuration is wrong.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            #[cfg(feature = "ros2")]
            Command::Ros2(args) => args.run(),
            #[cfg(feature = "zenoh")]
            Command::Zenoh(args) => args.run(),
            #[cfg(feature = "ros2")]
            Command::Images(args) => args.run(),
            #[cfg(feature = "web")]
            Command::Web(args) => crate::web::run(args),
            #[cfg(feature = "web")]
            Command::Metrics(args) => args.run().map_err(Into::into),
            #[cfg(feature = "mqtt")]
            Command::Mqtt(args) => args.run().map_err(|error| match error {
                wrong @ crate::mqtt::MqttError::Config { .. } => crate::options::Usage(wrong.to_string()).into(),
                other => other.into(),
            }),
            #[cfg(feature = "record")]
            Command::Record(args) => args.run(),
            #[cfg(feature = "record")]
            Command::Recover(args) => args.run(),
        }
    }
}
