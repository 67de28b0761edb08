//! The kinds of sources, and from a URI to an open source.
//!
//! A new kind is a file of its own with one [`SourceKind`], and one line in [`BUILT_IN`]. Help, error messages, `doctor` and the daemon
//! read the table:
//! ```
//! use eomt_edge::source::SourceKinds;
//! let scenes = SourceKinds::default().parse("scenes:7").unwrap();
//! assert_eq!(scenes.kind().scheme, "scenes");
//! assert!(SourceKinds::default().parse("rtsp://camera").unwrap_err().contains("scenes[:seed]"));
//! ```
//!
//! Invariants: a [`SourceUri`] that exists is well-formed; nothing is opened before [`SourceUri::open`].

use eomt_edge_core::pipeline::{Source, SourceError};

use super::kind::{SourceKind, SourceSpec};
use super::options::SourceOptions;
use super::{bag_kind, pipe, replay, scenes, v4l2_kind};

/// The kinds that come with the program.
pub const BUILT_IN: &[&SourceKind] = &[&v4l2_kind::V4L2, &replay::REPLAY, &bag_kind::BAG, &scenes::SCENES, &pipe::PIPE, &pipe::EXEC];

/// The kinds of which a URI may be.
#[derive(Debug, Clone)]
pub struct SourceKinds(Vec<&'static SourceKind>);

impl Default for SourceKinds {
    fn default() -> SourceKinds {
        SourceKinds(BUILT_IN.to_vec())
    }
}

impl SourceKinds {
    /// One kind more. A scheme that is there already gets the new meaning.
    #[must_use]
    pub fn with(mut self, kind: &'static SourceKind) -> SourceKinds {
        self.0.retain(|other| other.scheme != kind.scheme);
        self.0.push(kind);
        self
    }

    /// Understands a URI; opens nothing.
    ///
    /// # Errors
    /// A sentence that names the URI and what would have been right.
    pub fn parse(&self, uri: &str) -> Result<SourceUri, String> {
        let (scheme, rest) = uri.split_once(':').map_or((uri, None), |(scheme, rest)| (scheme, Some(rest)));
        let Some(kind) = self.0.iter().find(|kind| kind.scheme == scheme) else {
            return Err(format!("unknown source '{uri}': {}", self.usage()));
        };
        match (kind.parse)(rest) {
            Ok(spec) => Ok(SourceUri { kind, spec }),
            Err(reason) if reason.is_empty() => Err(format!("'{uri}' is no source: it reads {}", kind.usage.join(" or "))),
            Err(reason) => Err(format!("'{uri}' is no source: {reason}")),
        }
    }

    /// How URIs read: `v4l2:, replay:DIR[@fps] or scenes[:seed]`.
    pub fn usage(&self) -> String {
        let usages: Vec<&str> = self.0.iter().flat_map(|kind| kind.usage).copied().collect();
        match usages.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

/// A well-formed URI of a known kind.
#[derive(Debug)]
pub struct SourceUri {
    kind: &'static SourceKind,
    spec: Box<dyn SourceSpec>,
}

impl SourceUri {
    /// Its entry in the table.
    pub fn kind(&self) -> &'static SourceKind {
        self.kind
    }

    /// Opens the source.
    ///
    /// # Errors
    /// As [`SourceSpec::open`].
    pub fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        self.spec.open(options)
    }

    /// For `doctor`: what keeps the source from giving frames now.
    ///
    /// # Errors
    /// As [`SourceSpec::check`].
    pub fn check(&self, options: &SourceOptions) -> Result<(), String> {
        self.spec.check(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_parse() {
        let kinds = SourceKinds::default();
        let parse = |uri: &str| kinds.parse(uri).map(|parsed| format!("{} {:?}", parsed.kind.scheme, parsed.spec));
        for (uri, expected) in [
            ("replay:/a/b@12.5", r#"replay Replay { directory: "/a/b", fps: Some(12.5) }"#),
            ("replay:/mail@home", r#"replay Replay { directory: "/mail@home", fps: None }"#),
            ("bag:/a/b.mcap:/camera/image_raw@0", r#"bag BagUri { name: "/a/b.mcap:/camera/image_raw", fps: Some(0.0) }"#),
            ("bag:/a/b.mcap", r#"bag BagUri { name: "/a/b.mcap", fps: None }"#),
            ("v4l2:/dev/video2", r#"v4l2 V4l2 { device: Some("/dev/video2") }"#),
            ("v4l2:", "v4l2 V4l2 { device: None }"),
            ("v4l2:auto", "v4l2 V4l2 { device: None }"),
            ("pipe:-", "pipe Pipe { path: None }"),
            ("pipe:/run/x", r#"pipe Pipe { path: Some("/run/x") }"#),
            ("exec: a | b:c", r#"exec Exec { command: "a | b:c" }"#),
            ("scenes", "scenes Scenes { seed: 0 }"),
            ("scenes:", "scenes Scenes { seed: 0 }"),
            ("scenes:7", "scenes Scenes { seed: 7 }"),
        ] {
            assert_eq!(parse(uri).as_deref(), Ok(expected), "{uri}");
        }
        for (uri, words) in [
            ("", "replay:DIR[@fps]"),
            ("v4l2", "v4l2:/dev/video0"),
            ("replay:", "replay:DIR[@fps]"),
            ("replay:/a@-1", "between 0 and 1000"),
            ("bag:", "bag:FILE[:TOPIC][@fps]"),
            ("bag:/a@2000", "between 0 and 1000"),
            ("pipe", "pipe:FIFO"),
            ("pipe:", "pipe:FIFO"),
            ("exec: ", "exec:COMMAND"),
            ("scenes:x", "'x'"),
            ("rtsp://x", "scenes[:seed], pipe:-, pipe:FIFO or exec:COMMAND"),
        ] {
            let message = parse(uri).unwrap_err();
            assert!(message.contains(words) && message.contains(&format!("'{uri}'")), "{uri}: {message}");
        }
    }

    #[test]
    fn the_modules_table_and_the_schemes_agree() {
        let (documentation, mut schemes) = (include_str!("mod.rs"), Vec::new());
        for kind in BUILT_IN {
            let names: Vec<String> = kind.usage.iter().map(|usage| format!("`{usage}`")).collect();
            let row = format!("//! | {} | {} |", names.join(", "), kind.summary);
            assert!(documentation.contains(&row), "source/mod.rs lacks the row {row}");
            assert!(!schemes.contains(&kind.scheme) && kind.usage.iter().all(|usage| usage.starts_with(kind.scheme)), "{}", kind.scheme);
            schemes.push(kind.scheme);
        }
    }
}
