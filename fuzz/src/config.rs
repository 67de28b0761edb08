//! Configuration: TOML, and behind a line `%%` one `--set` item a line.

use std::time::Duration;

use eomt_edge::config::{Config, THREADS_MAX};
use eomt_edge::socket::check_group;
use eomt_edge::source::SourceKinds;

use super::assert_sentence;
use super::input::parts;

pub(crate) fn run(input: &[u8]) {
    let mut parts = parts(input);
    let Some(Ok(text)) = parts.next().map(std::str::from_utf8) else { return };
    let Ok(overrides) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let overrides: Vec<String> = overrides.lines().map(str::to_owned).collect();
    match Config::parse(text, &overrides) {
        Ok(config) => use_it(&config),
        Err(error) => assert_sentence(&error.to_string()),
    }
}

/// What the daemon computes from a configuration before it opens anything.
fn use_it(config: &Config) {
    assert!(config.ring.mode_bits() <= 0o777);
    assert!((2..=64).contains(&config.ring.slots) && config.model.threads <= THREADS_MAX);
    assert!(config.source.no_signal_after() <= Duration::from_secs(86_400));
    assert!(u64::from(config.source.size.width) * u64::from(config.source.size.height) <= config.source.max_pixels);
    if let Err(error) = SourceKinds::default().parse(&config.source.uri) {
        assert_sentence(&error);
    }
    if let Err(error) = check_group(&config.ring.group) {
        assert_sentence(&error.to_string());
    }
    let (width, height) = config.camera.size();
    if let Some(area) = config.camera.view().area(width, height) {
        assert!(area.x + area.width <= width && area.y + area.height <= height);
    }
}
