//! diagnostic_msgs: how a part of a robot is doing.

use super::std_msgs::Header;
use crate::Base;
use crate::message::message;

message! {
    /// A fact.
    KeyValue = "diagnostic_msgs/msg/KeyValue" {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    }

    /// How one part is doing.
    DiagnosticStatus = "diagnostic_msgs/msg/DiagnosticStatus" {
        /// [`OK`], [`WARN`], [`ERROR`] or [`STALE`].
        level: u8 [Base::Byte],
        /// The part.
        name: String,
        /// In words.
        message: String,
        /// Which of several.
        hardware_id: String,
        /// Facts.
        values: Vec<KeyValue>,
    }

    /// How several are doing.
    DiagnosticArray = "diagnostic_msgs/msg/DiagnosticArray" {
        /// When.
        header: Header,
        /// One for each.
        status: Vec<DiagnosticStatus>,
    }
}

/// All is well.
pub const OK: u8 = 0;
/// It works, but.
pub const WARN: u8 = 1;
/// It does not work.
pub const ERROR: u8 = 2;
/// Nothing has been heard of it.
pub const STALE: u8 = 3;
