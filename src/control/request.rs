//! What a line asks for.
//!
//! ```
//! use eomt_edge::control::Request;
//! assert_eq!(Request::parse(br#"{"do":"log","after":7}"#), Ok(Request::Log { after: 7 }));
//! assert!(Request::parse(br#"{"do":"status","of":"you"}"#).unwrap_err().contains("`of`"));
//! ```
//! Invariants: a [`Request`] that exists has thresholds in their range and a plain name. Unknown keys, and keys that come twice, are refused
//! by name. Refuses: to look at the machine.

use std::fmt;

use eomt_edge_core::data::Thresholds;
use eomt_edge_host::output::sentence;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::check_threshold;

/// The longest line either way, with its end.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// One request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How the daemon is.
    Status {},
    /// Lines of the log after the one of this number.
    Log {
        /// 0 = all that there are.
        #[serde(default)]
        after: u64,
    },
    /// Other thresholds, from the next frame on.
    Thresholds {
        /// Which ones.
        set: ThresholdSet,
    },
    /// What SIGHUP does.
    Reload {},
    /// Another model of `control.models`.
    Model {
        /// A file's name, without a directory.
        name: String,
    },
}

/// Thresholds that are to change.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ThresholdSet {
    /// `threshold`
    pub score: Option<f64>,
    /// `mask_threshold`
    pub mask: Option<f64>,
    /// `overlap_threshold`
    pub overlap: Option<f64>,
}

/// Keys of [`ThresholdSet`], as the configuration calls them in `[model]`.
const THRESHOLD_KEYS: [&str; 3] = ["threshold", "mask_threshold", "overlap_threshold"];

impl ThresholdSet {
    /// These thresholds with the new ones in their places.
    pub fn onto(&self, thresholds: Thresholds) -> Thresholds {
        thresholds.with(self.score, self.mask, self.overlap)
    }

    fn check(&self) -> Result<(), String> {
        let values = [self.score, self.mask, self.overlap];
        if values == [None; 3] {
            return Err(format!("set names no threshold: it takes {}", THRESHOLD_KEYS.join(", ")));
        }
        let given = THRESHOLD_KEYS.iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
        given.into_iter().try_for_each(|(key, value)| check_threshold(value).map_err(|reason| format!("set.{key} = {value}: {reason}")))
    }
}

/// From an object alone: serde's own code would take a list, too.
impl<'de> Deserialize<'de> for ThresholdSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ThresholdSet, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = ThresholdSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of thresholds")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ThresholdSet, A::Error> {
                let mut set = ThresholdSet::default();
                while let Some(key) = map.next_key::<String>()? {
                    let slot = match THRESHOLD_KEYS.iter().position(|known| *known == key) {
                        Some(0) => &mut set.score,
                        Some(1) => &mut set.mask,
                        Some(_) => &mut set.overlap,
                        None => return Err(A::Error::unknown_field(&key, &THRESHOLD_KEYS)),
                    };
                    if slot.replace(map.next_value()?).is_some() {
                        return Err(A::Error::custom(format!("duplicate field `{key}`")));
                    }
                }
                Ok(set)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl Request {
    /// Understands a line, with or without its end.
    ///
    /// # Errors
    /// One sentence: what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Request, String> {
        let refuse = |reason: String| sentence(&format!("this is no request: {reason}"));
        // serde would take a list for an object
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(refuse("it takes a JSON object on a line, such as {\"do\":\"status\"}".to_owned()));
        }
        let request: Request = serde_json::from_slice(line).map_err(|error| refuse(error.to_string()))?;
        match &request {
            Request::Thresholds { set } => set.check(),
            Request::Model { name } => check_name(name),
            Request::Status {} | Request::Log { .. } | Request::Reload {} => Ok(()),
        }
        .map_err(refuse)?;
        Ok(request)
    }
}

/// The longest name of a file in Linux.
const NAME_BYTES_MAX: usize = 255;

/// Whether a file's name may be one of `control.models`: no directory, nothing hidden, nothing unprintable.
fn check_name(name: &str) -> Result<(), String> {
    match is_plain(name) {
        true => Ok(()),
        false => Err(format!("name = '{name}' is not the name of a file in control.models: it ends in .onnx and names no directory")),
    }
}

/// The same as an answer.
pub(super) fn is_plain(name: &str) -> bool {
    let is_odd = |c: char| c == '/' || c == '\\' || c.is_control();
    (".onnx".len() + 1..=NAME_BYTES_MAX).contains(&name.len())
        && name.ends_with(".onnx")
        && !name.starts_with('.')
        && !name.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        Request::parse(line.as_bytes())
    }

    #[test]
    fn requests_are_understood() {
        let set = ThresholdSet { score: Some(0.6), overlap: Some(1.0), mask: None };
        for (line, expected) in [
            (r#"{"do":"status"}"#, Request::Status {}),
            ("  { \"do\" : \"status\" }\r\n", Request::Status {}),
            (r#"{"do":"log"}"#, Request::Log { after: 0 }),
            (r#"{"after":18446744073709551615,"do":"log"}"#, Request::Log { after: u64::MAX }),
            (r#"{"do":"thresholds","set":{"threshold":0.6,"overlap_threshold":1}}"#, Request::Thresholds { set }),
            (r#"{"do":"reload"}"#, Request::Reload {}),
            (r#"{"do":"model","name":"büro ..onnx"}"#, Request::Model { name: "büro ..onnx".to_owned() }),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
        let before = Thresholds { score: 0.1, mask: 0.2, overlap: 0.3 };
        assert_eq!(set.onto(before), Thresholds { score: 0.6, mask: 0.2, overlap: 1.0 });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, words) in [
            ("", "{\"do\":\"status\"}"),
            ("\0", "JSON object"),
            ("[\"status\"]", "JSON object"),
            ("{}", "`do`"),
            ("{\"do\":\"status\"", "EOF"),
            (r#"{"do":"status"} {"do":"status"}"#, "trailing"),
            (r#"{"do":"halt"}"#, "`halt`"),
            (r#"{"do":7}"#, "7"),
            (r#"{"do":"status","do":"reload"}"#, "`do`"),
            (r#"{"do":"status","now":true}"#, "`now`"),
            (r#"{"do":"reload","config":"/etc/passwd"}"#, "`config`"),
            (r#"{"do":"log","after":-1}"#, "-1"),
            (r#"{"do":"log","after":1.5}"#, "1.5"),
            (r#"{"do":"log","after":1,"after":2}"#, "`after`"),
            (r#"{"do":"thresholds"}"#, "`set`"),
            (r#"{"do":"thresholds","set":{}}"#, "no threshold"),
            (r#"{"do":"thresholds","set":[0.5,0.5,0.5]}"#, "object of thresholds"),
            (r#"{"do":"thresholds","set":{"treshold":0.5}}"#, "`treshold`"),
            (r#"{"do":"thresholds","set":{"threshold":0.5,"threshold":0.6}}"#, "`threshold`"),
            (r#"{"do":"thresholds","set":{"threshold":null}}"#, "null"),
            (r#"{"do":"thresholds","set":{"mask_threshold":1.5}}"#, "set.mask_threshold = 1.5: it must lie between 0 and 1"),
            (r#"{"do":"thresholds","set":{"threshold":-0.1}}"#, "set.threshold = -0.1"),
            (r#"{"do":"thresholds","set":{"threshold":1e999}}"#, "number out of range"),
            (r#"{"do":"model"}"#, "`name`"),
        ] {
            let said = parse(line).unwrap_err();
            assert!(said.starts_with("this is no request: ") && said.contains(words) && said.lines().count() == 1, "{line}: {said}");
        }
        assert!(Request::parse(b"{\"do\":\"\xff\"}").unwrap_err().contains("unicode"));
        assert!(parse(&format!("{{\"x\":{}", "[".repeat(50_000))).unwrap_err().contains("recursion"));
    }

    #[test]
    fn a_name_is_no_path() {
        let long = format!("{}.onnx", "x".repeat(251));
        for name in
            ["", ".onnx", "..", "../x.onnx", "/etc/x.onnx", "a/b.onnx", "a\\b.onnx", "x.bin", ".x.onnx", "x\n.onnx", "x\0.onnx", &long]
        {
            let line = serde_json::json!({ "do": "model", "name": name }).to_string();
            assert!(parse(&line).unwrap_err().contains("control.models"), "{name:?}");
        }
    }
}
