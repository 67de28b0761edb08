//! `[control]`: the socket at which a running daemon can be asked and changed.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, RingConfig, digits, mode_bits};

/// `[control]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Unix socket; empty = there is none.
    pub socket: PathBuf,
    /// Permission bits of the socket, octal: 600 or "600".
    #[serde(deserialize_with = "digits")]
    pub mode: String,
    /// Group that owns the socket, by name or number; empty = the daemon's.
    #[serde(deserialize_with = "digits")]
    pub group: String,
    /// Directory of the model files that may be switched to; empty = none may.
    pub models: PathBuf,
}

impl Default for ControlConfig {
    fn default() -> ControlConfig {
        ControlConfig { socket: PathBuf::new(), mode: "600".to_owned(), group: String::new(), models: PathBuf::new() }
    }
}

impl ControlConfig {
    /// Whether there is a socket.
    pub fn is_on(&self) -> bool {
        !self.socket.as_os_str().is_empty()
    }

    /// `mode` as a number.
    pub fn mode_bits(&self) -> u32 {
        mode_bits(&self.mode).expect("checked when the configuration was parsed")
    }

    pub(super) fn check(&self, ring: &RingConfig) -> Result<(), ConfigError> {
        let refuse = |key, value: String, reason| Err(ConfigError::Value { key, value, reason });
        if mode_bits(&self.mode).is_none() {
            return refuse("control.mode", format!("'{}'", self.mode), "it must be octal permission bits such as 600");
        }
        if self.socket == ring.socket {
            return refuse("control.socket", format!("'{}'", self.socket.display()), "that is ring.socket: each takes a name of its own");
        }
        // the daemon's working directory is not where the user stood
        if !self.models.as_os_str().is_empty() && !self.models.is_absolute() {
            return refuse("control.models", format!("'{}'", self.models.display()), "it must be an absolute path");
        }
        Ok(())
    }
}
