//! Whose masks a recording holds: the metadata record `eomt-edge`.
//!
//! Invariants: everything that the ring says about itself is in it, under the ring's own names; texts as they are, anything else as JSON.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::masks::RingFacts;

/// The record's content. `model_hash` begins the SHA-256 of the model file.
pub fn metadata(facts: &RingFacts, model_hash: &[u8; 16]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let said = facts.metadata.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value)));
    let mut metadata: BTreeMap<String, String> = said.collect();
    // ours, whatever the ring calls so
    metadata.insert("recorder".to_owned(), format!("{} {}", super::LIBRARY, env!("CARGO_PKG_VERSION")));
    metadata.insert("model_sha256_begin".to_owned(), model_hash.iter().map(|byte| format!("{byte:02x}")).collect());
    metadata.insert("labels".to_owned(), Value::from(facts.labels.clone()).to_string());
    metadata
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_ring_says_is_kept() {
        let facts = RingFacts {
            labels: vec!["ball".into(), "\"quoted\"".into()],
            metadata: json!({"name": "nano", "stuff_classes": [6, 7], "fallback": false, "thresholds": {"threshold": 0.8}, "labels": 1}),
            ..RingFacts::default()
        };
        let metadata = metadata(&facts, &[0xab; 16]);
        let get = |key: &str| metadata[key].as_str();
        assert_eq!((get("name"), get("stuff_classes"), get("fallback")), ("nano", "[6,7]", "false"));
        assert_eq!((get("thresholds"), get("labels")), (r#"{"threshold":0.8}"#, r#"["ball","\"quoted\""]"#));
        assert_eq!(get("model_sha256_begin"), "ab".repeat(16));
        // a daemon without metadata
        assert_eq!(super::metadata(&RingFacts::default(), &[0; 16])["labels"], "[]");
    }
}
