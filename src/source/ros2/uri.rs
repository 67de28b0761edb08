//! `ros2:`: an entry of the table of sources.

use std::path::{Path, PathBuf};

use eomt_edge_core::pipeline::{Source, SourceError};

use super::{Ros2Options, Ros2Source};
use crate::source::kind::{SourceKind, SourceSpec};
use crate::source::options::SourceOptions;
use crate::source::pipe::Input;

/// The program that subscribes.
const BRIDGE: &str = "eomt-edge-bridge";

/// A topic.
pub const ROS2: SourceKind = SourceKind {
    scheme: "ros2",
    usage: &["ros2:/TOPIC", "ros2:fifo:PATH"],
    summary: "images of a ROS 2 topic, raw or compressed, by eomt-edge-bridge, started here or writing to a FIFO (feature `bag`)",
    uses_view: true,
    uses_source_size: true,
    parse: |rest| {
        let rest = rest.unwrap_or_default();
        match rest.strip_prefix("fifo:") {
            Some("") => Err(String::new()),
            Some(path) => Ok(Box::new(Ros2Uri::Fifo(path.into()))),
            None => topic(rest).map(|topic| -> Box<dyn SourceSpec> { Box::new(Ros2Uri::Topic(topic)) }),
        }
    },
};

/// A topic's full name: tokens of letters, digits and underscores that begin with no digit (design.ros2.org, topic and service names).
fn topic(name: &str) -> Result<String, String> {
    let is_token = |token: &str| {
        token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !token.is_empty()
            && !token.starts_with(|c: char| c.is_ascii_digit())
    };
    match name.strip_prefix('/') {
        Some(tokens) if tokens.split('/').all(is_token) => Ok(name.to_owned()),
        _ if name.is_empty() => Err(String::new()),
        _ => Err(format!("'{name}' is no topic's full name, as /camera/image_raw is")),
    }
}

#[derive(Debug)]
enum Ros2Uri {
    Topic(String),
    Fifo(PathBuf),
}

impl SourceSpec for Ros2Uri {
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        let ours = Ros2Options { size: options.size, max_pixels: options.max_pixels, view: options.camera.view };
        let (name, input) = match self {
            Ros2Uri::Topic(topic) => {
                // the topic has been checked: no character of it means anything to a shell
                let command = format!("exec {} images {topic}", quoted(&bridge()));
                (format!("ros2:{topic}"), Input::Command { command, launcher: options.launcher.clone() })
            }
            Ros2Uri::Fifo(path) => (format!("ros2:fifo:{}", path.display()), Input::Fifo(path.clone())),
        };
        Ok(Box::new(Ros2Source::new(name, input, ours)))
    }

    fn check(&self, _: &SourceOptions) -> Result<(), String> {
        let path = bridge();
        match self {
            Ros2Uri::Topic(_) if !path.is_file() => Err(format!("{} is not there: install the package {BRIDGE}", path.display())),
            _ => Ok(()),
        }
    }
}

/// Beside this program, where packages and builds put it.
fn bridge() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(BRIDGE)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| Path::new("/usr/bin").join(BRIDGE))
}

/// One word of a shell's.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_names_are_topics() {
        for good in ["/image_raw", "/camera/image_raw/compressed", "/_a/b2"] {
            assert_eq!(topic(good).as_deref(), Ok(good));
        }
        for bad in ["", "image_raw", "/", "/a//b", "/a/", "/2d", "/a b", "/a;reboot", "/a$(x)", "/\u{e9}", "~/image"] {
            assert!(topic(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(quoted(Path::new("/opt/it's here/x")), r"'/opt/it'\''s here/x'");
    }
}
