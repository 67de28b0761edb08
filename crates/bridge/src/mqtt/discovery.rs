//! What Home Assistant is told: one device with a component for each topic (device-based discovery, from Home Assistant 2024.11 on).
//!
//! Invariants: a component's id and unique id depend on node, class and zone alone, so that history and names given by people survive
//! restarts; what an earlier message announced and this one does not is taken back, by its platform alone. Refuses: to believe a message it
//! reads back; only ids and platforms are taken, within bounds.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::config::Config;
use super::layout::{ClassTopics, topic};
use super::names;
use crate::masks::RingFacts;

/// Most components that are read back.
const COMPONENTS_MAX: usize = 16_384;
/// Longest id that is read back.
const ID_BYTES_MAX: usize = 256;

/// Ids of components, and their platforms.
pub type Announced = BTreeMap<String, String>;

/// The components of a configuration and a model.
pub fn components(config: &Config, classes: &[ClassTopics]) -> Map<String, Value> {
    let mut all = Components { config, map: Map::new() };
    let bridge_only = json!([{ "topic": topic(config, "availability") }]);
    all.add(
        "signal",
        "binary_sensor",
        "Signal",
        "signal",
        json!({
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            // it is known when there is none, too
            "availability": bridge_only,
        }),
    );
    if config.image_every().is_some() {
        let picture = json!({ "image_topic": topic(config, "image"), "content_type": "image/jpeg" });
        all.add("image", "image", "Picture", "", picture);
    }
    for class in classes {
        let (slug, label) = (&class.slug, name(&class.label, &class.slug));
        let at = format!("class/{slug}");
        all.present(&format!("class-{slug}-present"), &label, &format!("{at}/present"));
        let count = json!({ "state_class": "measurement", "icon": "mdi:counter" });
        all.add(&format!("class-{slug}-count"), "sensor", &format!("{label} count"), &format!("{at}/count"), count);
        all.area(&format!("class-{slug}-area"), &format!("{label} area"), &format!("{at}/area"));
        for zone in &config.zones {
            let Some(zone_slug) = names::slug(&zone.name) else { continue };
            let (at, zone) = (format!("zone/{zone_slug}/{slug}"), &zone.name);
            all.present(&format!("zone-{zone_slug}-{slug}-present"), &format!("{zone}: {label}"), &format!("{at}/present"));
            all.area(&format!("zone-{zone_slug}-{slug}-area"), &format!("{zone}: {label} area"), &format!("{at}/area"));
        }
    }
    all.map
}

struct Components<'a> {
    config: &'a Config,
    map: Map<String, Value>,
}

impl Components<'_> {
    fn add(&mut self, id: &str, platform: &str, name: &str, level: &str, more: Value) {
        let mut component = Map::new();
        component.insert("platform".to_owned(), platform.into());
        component.insert("name".to_owned(), name.into());
        component.insert("unique_id".to_owned(), format!("eomt-edge-{}-{id}", self.config.node).into());
        if !level.is_empty() {
            component.insert("state_topic".to_owned(), topic(self.config, level).into());
        }
        if let Value::Object(more) = more {
            component.extend(more);
        }
        self.map.insert(id.to_owned(), Value::Object(component));
    }

    fn present(&mut self, id: &str, name: &str, level: &str) {
        self.add(id, "binary_sensor", name, level, json!({ "device_class": "occupancy" }));
    }

    fn area(&mut self, id: &str, name: &str, level: &str) {
        let percent = json!({
            "state_class": "measurement",
            "unit_of_measurement": "%",
            "value_template": "{{ (value | float * 100) | round(2) }}",
            "icon": "mdi:vector-polygon",
        });
        self.add(id, "sensor", name, level, percent);
    }
}

/// A label for people; the slug when it has nothing to show.
fn name(label: &str, slug: &str) -> String {
    let shown: String = label.chars().filter(|c| !c.is_control()).take(100).collect();
    if shown.trim().is_empty() { slug.to_owned() } else { shown.trim().to_owned() }
}

/// The message: `components`, and `before` what was announced.
pub fn message(config: &Config, facts: &RingFacts, components: &Map<String, Value>, before: &Announced) -> String {
    let mut all = components.clone();
    for (id, platform) in before.iter().filter(|(id, _)| !components.contains_key(*id)) {
        all.insert(id.clone(), json!({ "platform": platform }));
    }
    let node = &config.node;
    json!({
        "device": {
            "identifiers": [format!("eomt-edge-{node}")],
            "name": format!("eomt-edge {node}"),
            "manufacturer": "eomt-edge",
            "model": name(facts.text("name"), "unknown model"),
            "sw_version": name(facts.text("program"), "unknown"),
        },
        "origin": { "name": "eomt-edge-bridge", "sw_version": env!("CARGO_PKG_VERSION") },
        "availability": [
            { "topic": topic(config, "availability") },
            { "topic": topic(config, "signal"), "payload_available": "ON", "payload_not_available": "OFF" },
        ],
        "availability_mode": "all",
        "qos": config.qos,
        "components": all,
    })
    .to_string()
}

/// Ids and platforms of components.
pub fn announced(components: &Map<String, Value>) -> Announced {
    let platform = |component: &Value| component.get("platform").and_then(Value::as_str).map(str::to_owned);
    components.iter().filter_map(|(id, component)| Some((id.clone(), platform(component)?))).collect()
}

/// What a message that the broker kept announced. Components that it took back, and whatever is not as we write it, are left out.
pub fn parse_message(payload: &[u8]) -> Announced {
    let Ok(Value::Object(message)) = serde_json::from_slice(payload) else { return Announced::new() };
    let Some(Value::Object(components)) = message.get("components") else { return Announced::new() };
    let is_id = |text: &str| {
        !text.is_empty() && text.len() <= ID_BYTES_MAX && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    let live = components.iter().filter(|(id, component)| is_id(id) && component.as_object().is_some_and(|object| object.len() > 1));
    let mut announced = announced(&live.map(|(id, component)| (id.clone(), component.clone())).take(COMPONENTS_MAX).collect());
    announced.retain(|_, platform| is_id(platform));
    announced
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::board::Board;
    use super::super::layout;
    use super::*;

    fn parts(text: &str, labels: &[&str]) -> (Config, Map<String, Value>) {
        let config = Config::parse(text, "pi").unwrap();
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let classes = layout::classes(&config, &labels, &mut Board::new(Duration::ZERO));
        let components = components(&config, &classes);
        (config, components)
    }

    #[test]
    fn components_are_unique_and_lead_to_topics() {
        let zones = "[image]\nevery = 5\n[[zones]]\nname = \"a b\"\npolygon = [[0, 0], [1, 0], [1, 1]]\n[[zones]]\nname = \"a\"\npolygon = [[0, 0], [1, 0], [1, 1]]";
        let (_, components) = parts(zones, &["b c", "c", "dining table", "", "\u{7}"]);
        assert_eq!(components.len(), 2 + 5 * (3 + 2 * 2));
        let texts = |key: &str| components.values().filter_map(|c| c.get(key)?.as_str()).map(str::to_owned).collect::<Vec<_>>();
        for key in ["unique_id", "state_topic", "name"] {
            let (mut all, mut unique) = (texts(key), texts(key));
            all.sort();
            unique.sort();
            unique.dedup();
            assert_eq!(all, unique, "{key}");
        }
        assert_eq!(components["zone-a_b-c-area"]["state_topic"], "eomt-edge/pi/zone/a_b/c/area");
        assert_eq!(components["zone-a-b_c-area"]["state_topic"], "eomt-edge/pi/zone/a/b_c/area");
        assert_eq!(components["class-dining_table-present"]["name"], "dining table");
    }

    #[test]
    fn what_is_gone_is_taken_back_once() {
        let facts = RingFacts::default();
        let (config, old) = parts("", &["cup", "dog"]);
        let kept = message(&config, &facts, &old, &Announced::new());
        let before = parse_message(kept.as_bytes());
        assert_eq!(before, announced(&old));
        let (_, new) = parts("", &["dog"]);
        let second: Value = serde_json::from_str(&message(&config, &facts, &new, &before)).unwrap();
        assert_eq!(second["components"]["class-cup-count"], json!({ "platform": "sensor" }));
        assert!(second["components"]["class-dog-count"]["state_topic"].is_string());
        // the next message does not know it any more
        assert_eq!(parse_message(second.to_string().as_bytes()), announced(&new));
    }

    #[test]
    fn other_messages_announce_nothing() {
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"components":[]}"#,
            r#"{"components":{"a":7,"b":{"x":1,"y":2},"c/d":{"platform":"x","y":1},"e":{"platform":"a b","y":1}}}"#,
        ] {
            assert!(parse_message(bad.as_bytes()).is_empty(), "{bad}");
        }
    }
}
