//! `eomt-edge-bridge mqtt`: its configuration; behind lines `%%` a topic, a payload, and a host's name.

use eomt_edge_bridge::mqtt::{Config, Incoming, parse_incoming};

use super::assert_sentence;
use super::input::parts;

pub(crate) fn run(input: &[u8]) {
    let mut parts = parts(input);
    let Some(Ok(text)) = parts.next().map(std::str::from_utf8) else { return };
    let topic = String::from_utf8_lossy(parts.next().unwrap_or_default()).trim().to_owned();
    let payload = parts.next().unwrap_or_default();
    let host = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let config = match Config::parse(text, &host) {
        Ok(config) => config,
        Err(error) => return assert_sentence(&error.to_string()),
    };
    assert!(config.qos <= 2 && config.interval() <= std::time::Duration::from_secs(86_400));
    assert!(!config.topic.contains(['#', '+', '\0']) && !config.topic.starts_with('/'));
    config.broker().expect("it was checked");
    for retained in [false, true] {
        if let Incoming::Kept(topic) = parse_incoming(&config, &topic, payload, retained) {
            // what is emptied is ours
            assert!(retained && (topic.starts_with(&config.topic) || topic.starts_with(&config.home_assistant.prefix)));
        }
    }
}
