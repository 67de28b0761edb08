//! The message types that bridges and bags use, by package. Each states its fields; bytes, text and hash follow ([`crate::Message`]).

pub mod builtin_interfaces;
pub mod diagnostic_msgs;
pub mod foxglove_msgs;
pub mod geometry_msgs;
pub mod rmw_dds_common;
pub mod sensor_msgs;
pub mod std_msgs;
pub mod vision_msgs;
