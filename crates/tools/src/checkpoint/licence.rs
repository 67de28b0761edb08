//! The licence of a checkpoint, as its folder says it: `license` in config.json, or in the first lines of its model card (README.md).
//!
//! ```text
//! ---
//! license: other
//! license_name: dinov3-license
//! license_link: https://...
//! ---
//! ```
//!
//! Source: "Model Cards" in the documentation of Hugging Face's hub. Only entries of one line count. Refuses: to judge what a licence allows.

use std::path::Path;

use eomt_edge_host::{bounds, files};

use super::error::CheckpointError;
use super::json::Object;

/// Characters of a licence that are kept.
const LENGTH_MAX: usize = 200;

/// What binds everything that derives from Meta's DINOv3 weights.
pub const DINOV3_TERMS: &str = "dinov3-license (https://ai.meta.com/resources/models-and-libraries/dinov3-license/)";

/// The licence that the folder of a checkpoint names.
///
/// # Errors
/// When config.json is broken.
pub(super) fn of_folder(dir: &Path) -> Result<Option<String>, CheckpointError> {
    let config = dir.join("config.json");
    if config.is_file() {
        let config = Object::read(&config)?;
        for key in ["license", "licence"] {
            if let Some(licence) = config.text(key)?.and_then(clean) {
                return Ok(Some(licence));
            }
        }
    }
    // a card that cannot be read is no reason to refuse the weights
    Ok(files::read_text(&dir.join("README.md"), &bounds::JSON).ok().and_then(|card| of_card(&card)))
}

fn of_card(card: &str) -> Option<String> {
    let mut lines = card.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let entries: Vec<(&str, &str)> = lines.take_while(|line| line.trim_end() != "---").filter_map(|line| line.split_once(':')).collect();
    let entry = |names: [&str; 2]| {
        let value = entries.iter().find(|(key, _)| names.contains(key)).map(|(_, value)| value.trim())?;
        // a quoted scalar is a JSON string in all that matters here
        clean(&serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('\'').to_owned()))
    };
    let name = match entry(["license", "licence"])? {
        other if other == "other" => entry(["license_name", "licence_name"]).unwrap_or(other),
        name => name,
    };
    match entry(["license_link", "licence_link"]) {
        Some(link) => clean(&format!("{name} ({link})")),
        None => Some(name),
    }
}

/// One line of text, `None` when nothing is left.
pub(super) fn clean(text: &str) -> Option<String> {
    let line: String = text.chars().filter(|c| !c.is_control()).take(LENGTH_MAX).collect();
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_name_licences() {
        for (card, licence) in [
            ("---\nlicense: apache-2.0\ntags:\n- vision\n---\n# A model\n", Some("apache-2.0")),
            ("---\nlibrary_name: transformers\nlicense: \"mit\"\r\n---\n", Some("mit")),
            (
                "---\nlicense: other\nlicense_name: dinov3-license\nlicense_link: https://example.org/terms\n---\n",
                Some("dinov3-license (https://example.org/terms)"),
            ),
            ("---\nlicense: other\n---\n", Some("other")),
            ("---\nlicense: 'a b'\n---\n", Some("a b")),
            ("---\nlicense: \"so \\\"called\\\"\"\n---\n", Some("so \"called\"")),
            ("---\nlicense:\n- mit\n---\n", None),
            ("---\ntags: x\n---\nlicense: mit\n", None),
            ("# A model\nlicense: mit\n", None),
            ("", None),
        ] {
            assert_eq!(of_card(card).as_deref(), licence, "{card:?}");
        }
        assert_eq!(clean("a\u{1b}[31m\nb").as_deref(), Some("a[31mb"));
    }
}
