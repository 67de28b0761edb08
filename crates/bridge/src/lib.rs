//! Masks of eomt-edge for others: ROS 2 topics, MCAP recordings, a page in the browser, metrics, MQTT.
//!
//! ```text
//! mask ring ──MaskFrame──▶ one subcommand ──▶ DDS, Zenoh | MCAP files | browsers | Prometheus | MQTT broker
//! ```
//!
//! Each subcommand is a client of the ring and a process of its own. Invariants: it never holds the daemon up; the daemon and its own peers may
//! end and come back, in any order, and it goes on; a peer that is slow loses frames, and nothing grows. Refuses: to compute masks, to change
//! anything of the daemon but by its control socket.

#![warn(missing_docs)]

pub mod cli;
pub mod clock;
pub mod control;
pub mod logging;
pub mod masks;
#[cfg(feature = "web")]
pub mod metrics;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod node;
pub mod options;
pub mod picture;
#[cfg(any(feature = "ros2", feature = "zenoh"))]
pub mod publishing;
#[cfg(feature = "record")]
pub mod record;
#[cfg(feature = "ros2")]
pub mod ros2;
pub mod stop;
pub mod topics;
#[cfg(feature = "web")]
pub mod web;
#[cfg(feature = "zenoh")]
pub mod zenoh;
