//! What the broker sends us, as far as it means anything.
//!
//! Invariants: any topic and any bytes give an [`Incoming`]; a message counts as kept only when the broker says so, for our own come back, too.

use super::config::Config;
use super::discovery::{self, Announced};
use super::layout;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Home Assistant has started.
    Birth,
    /// An earlier run announced these components.
    Announced(Announced),
    /// The broker keeps a message of ours on this topic.
    Kept(String),
    /// Nothing to us.
    Other,
}

/// What a message means.
pub fn parse(config: &Config, topic: &str, payload: &[u8], retained: bool) -> Incoming {
    if config.home_assistant.discovery && topic == layout::birth_topic(config) {
        // a kept birth is an old one
        return if payload == b"online" && !retained { Incoming::Birth } else { Incoming::Other };
    }
    if !retained || payload.is_empty() {
        return Incoming::Other;
    }
    if topic == layout::discovery_topic(config) {
        let discovery = config.home_assistant.discovery;
        return if discovery { Incoming::Announced(discovery::parse_message(payload)) } else { Incoming::Kept(topic.to_owned()) };
    }
    let below = topic.strip_prefix(&config.topic).and_then(|rest| rest.strip_prefix('/'));
    let is_ours = below.is_some_and(|rest| rest.starts_with("class/") || rest.starts_with("zone/") || rest == "image");
    if is_ours { Incoming::Kept(topic.to_owned()) } else { Incoming::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let config = Config::parse("", "pi").unwrap();
        let kept = |topic: &str| Incoming::Kept(topic.to_owned());
        for (topic, payload, retained, expected) in [
            ("homeassistant/status", "online", false, Incoming::Birth),
            ("homeassistant/status", "online", true, Incoming::Other),
            ("homeassistant/status", "offline", false, Incoming::Other),
            ("homeassistant/status", "\u{0}online", false, Incoming::Other),
            ("eomt-edge/pi/class/cup/count", "1", true, kept("eomt-edge/pi/class/cup/count")),
            ("eomt-edge/pi/class/cup/count", "1", false, Incoming::Other),
            ("eomt-edge/pi/class/cup/count", "", true, Incoming::Other),
            ("eomt-edge/pi/zone/a/cup/area", "1", true, kept("eomt-edge/pi/zone/a/cup/area")),
            ("eomt-edge/pi/image", "x", true, kept("eomt-edge/pi/image")),
            ("eomt-edge/pi/availability", "offline", true, Incoming::Other),
            ("eomt-edge/pi2/class/cup/count", "1", true, Incoming::Other),
            ("homeassistant/device/eomt-edge-pi/config", "{}", true, Incoming::Announced(Announced::new())),
        ] {
            assert_eq!(parse(&config, topic, payload.as_bytes(), retained), expected, "{topic} {payload}");
        }
        let off = Config::parse("home_assistant.discovery = false", "pi").unwrap();
        assert_eq!(parse(&off, "homeassistant/status", b"online", false), Incoming::Other);
        let own = "homeassistant/device/eomt-edge-pi/config";
        assert_eq!(parse(&off, own, b"{}", true), kept(own), "discovery was on before");
    }
}
