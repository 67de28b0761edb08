//! ROS 2 messages as bytes: no ROS installation is needed.
//!
//! ```
//! use eomt_edge_ros::messages::std_msgs::Header;
//! use eomt_edge_ros::{Message, definition, type_hash};
//! let header = Header { frame_id: "camera".into(), ..Header::default() };
//! let bytes = header.to_cdr();
//! assert_eq!(Header::from_cdr(&bytes)?, header);
//! assert_eq!(Header::NAME, "std_msgs/msg/Header");
//! assert!(definition(Header::DEFINITION).contains("builtin_interfaces/Time stamp"));
//! assert!(type_hash(Header::DEFINITION).starts_with("RIHS01_"));
//! # Ok::<(), eomt_edge_ros::cdr::CdrError>(())
//! ```
//!
//! Invariants: what is written are the bytes that rclpy writes; what is read may come from anybody, and costs no more memory than a small
//! multiple of its own size. Refuses: sockets, clocks, to guess at a message of another type.

#![warn(missing_docs)]

#[cfg(feature = "bag")]
pub mod bag;
pub mod cdr;
mod message;
pub mod messages;
pub mod stream;

pub use message::{Base, Definition, Field, FieldDefinition, Kind, Message, Shape, dds_name, definition, type_hash};
