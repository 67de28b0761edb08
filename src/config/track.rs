//! `[track]`: ids that last.

use serde::Deserialize;

use super::ConfigError;

/// `[track]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackConfig {
    /// Segments keep their `track_id` from frame to frame (panoptic and instance task).
    pub enabled: bool,
    /// Seconds for which a thing that is not seen keeps its id.
    pub memory: f64,
}

impl Default for TrackConfig {
    fn default() -> TrackConfig {
        TrackConfig { enabled: true, memory: 5.0 }
    }
}

impl TrackConfig {
    /// `memory` in nanoseconds.
    pub fn memory_ns(&self) -> u64 {
        (self.memory * 1e9) as u64
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if (0.0..=3600.0).contains(&self.memory) {
            return Ok(());
        }
        Err(ConfigError::Value { key: "track.memory", value: self.memory.to_string(), reason: "seconds, 0 to 3600" })
    }
}
