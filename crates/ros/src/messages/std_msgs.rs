//! std_msgs: what stamped messages begin with.

use super::builtin_interfaces::Time;
use crate::message::message;

message! {
    /// When and where.
    Header = "std_msgs/msg/Header" {
        /// When the picture was taken.
        stamp: Time,
        /// The frame of coordinates: of a picture, the camera's optical frame.
        frame_id: String,
    }
}
