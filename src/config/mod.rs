//! The daemon's configuration: TOML text to validated structs.
//!
//! ```
//! use eomt_edge::config::Config;
//! let config = Config::parse("[source]\nuri = \"scenes:7\"\n", &["model.threads=2".to_owned()]).unwrap();
//! assert_eq!(config.model.threads, 2);
//! assert!(Config::parse("[source]\nurl = \"scenes\"\n", &[]).unwrap_err().to_string().contains("url"));
//! ```
//!
//! Invariants: a [`Config`] that exists is valid; an unknown key is an error; `config/eomt-edge.toml` is the default written
//! out and a test parses it. Refuses: reading files, looking at the machine.

mod camera;
mod control;
mod display;
mod track;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use eomt_edge_core::data::{Colour, InputEnd, Normalization, PixelFormat, RawLayout, Stride, Task, Thresholds, TokenMerging};
use eomt_edge_core::model::ReuseConfig;
use serde::Deserialize;

pub use camera::{CameraConfig, Flip};
pub use control::ControlConfig;
pub use display::{Controller, DisplayConfig, DisplayKind};
pub use track::TrackConfig;

/// CPU numbers that sched_setaffinity(2) can name.
const CORES_MAX: usize = 1024;

/// Parts of a key between its dots; `camera.controls.NAME` has three.
const KEY_PARTS_MAX: usize = 8;

/// The largest frame that a source may give, 16384x16384.
const PIXELS_MAX: u64 = 1 << 28;

/// Threads for one inference: more than any board has cores.
pub const THREADS_MAX: usize = 256;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is no TOML, has an unknown key, or a value of another type.
    #[error("configuration: {0}")]
    Toml(String),
    /// `--set` goes through a key that is a value.
    #[error("--set {item}: '{key}' is not a table in the configuration")]
    NoTable {
        /// The argument.
        item: String,
        /// The key.
        key: String,
    },
    /// `--set` without `key=value`.
    #[error("--set {0}: it must read key=value, e.g. model.threads=2")]
    Override(String),
    /// A value outside of what its key takes.
    #[error("configuration: {key} = {value}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value as it was written.
        value: String,
        /// What would be right.
        reason: &'static str,
    },
}

/// Everything that `run` can be told.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[model]`
    pub model: ModelConfig,
    /// `[source]`
    pub source: SourceConfig,
    /// `[camera]`
    pub camera: CameraConfig,
    /// `[track]`
    pub track: TrackConfig,
    /// `[ring]`
    pub ring: RingConfig,
    /// `[display]`
    pub display: DisplayConfig,
    /// `[control]`
    pub control: ControlConfig,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The ONNX file.
    pub path: PathBuf,
    /// SHA-256 that the file must have, 64 hexadecimal digits; empty = any.
    pub sha256: String,
    /// Seconds that trying a model may take, and loading it after that.
    pub load_timeout: f64,
    /// After so many starts in a row that failed the last good model comes back; 0 = never.
    pub fallback_after: u32,
    /// Threads for one inference; 0 = one per core.
    pub threads: usize,
    /// CPU numbers to pin those threads to, in turn; empty = the kernel moves them.
    pub cores: Vec<usize>,
    /// Instruction set of the kernels by name; empty = the best that the CPU has.
    pub isa: String,
    /// Where a third-party export normalizes its pixel values.
    #[serde(deserialize_with = "from_str")]
    pub normalization: Normalization,
    /// Compute what the file has in f32 in bfloat16 where the CPU has such products.
    pub bf16: bool,
    /// The share of patch tokens that are merged away, and where: `RATIO[@BLOCK]`.
    #[serde(deserialize_with = "digits_from_str")]
    pub merge: TokenMerging,
    /// Default: what the model was trained for.
    #[serde(deserialize_with = "optional_from_str")]
    pub task: Option<Task>,
    /// Keep what patches had that have not changed: `off`, or `THRESHOLD[,BUDGET[,REFRESH]]`.
    #[serde(deserialize_with = "off_or_from_str")]
    pub reuse: Option<ReuseConfig>,
    /// A segment needs this score, 0 to 1. Default: the model's.
    pub threshold: Option<f64>,
    /// A pixel belongs to a mask from this probability on. Default: the model's.
    pub mask_threshold: Option<f64>,
    /// A panoptic segment must keep more than this share of its mask. Default: the model's.
    pub overlap_threshold: Option<f64>,
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// `v4l2:/dev/video0`, `v4l2:` (the one that works), `replay:DIR[@fps]`, `bag:FILE[:TOPIC][@fps]`,
    /// `scenes[:seed]`, `pipe:-`, `pipe:FIFO`, `exec:COMMAND`, `ros2:/TOPIC` or `ros2:fifo:PATH`.
    pub uri: String,
    /// Frames per second of replay, scenes; 0 = as fast as they are processed, none dropped.
    pub fps: f64,
    /// `WIDTHxHEIGHT` of scenes, pipe and exec.
    #[serde(deserialize_with = "from_str")]
    pub size: FrameSize,
    /// Of pipe and exec.
    #[serde(deserialize_with = "from_str")]
    pub format: PixelFormat,
    /// Of pipe and exec, in YUV formats.
    #[serde(deserialize_with = "from_str")]
    pub colour: Colour,
    /// Of pipe and exec.
    #[serde(deserialize_with = "digits_from_str")]
    pub stride: Stride,
    /// Of pipe, exec and bag.
    #[serde(deserialize_with = "from_str")]
    pub end: InputEnd,
    /// Larger pictures are refused.
    pub max_pixels: u64,
    /// Seconds without a frame after which readers are told "no signal", and age from which on a picture is "stale"; 0 = never.
    pub no_signal_after: f64,
}

/// `[ring]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RingConfig {
    /// Unix socket at which clients ask for the ring.
    pub socket: PathBuf,
    /// Permission bits of the socket, octal: 660 or "660".
    #[serde(deserialize_with = "digits")]
    pub mode: String,
    /// Group that owns the socket, by name or number; empty = the daemon's.
    #[serde(deserialize_with = "digits")]
    pub group: String,
    /// Frames that the ring holds, 2 to 64.
    pub slots: u32,
    /// Also publish the camera frame.
    pub include_frame: bool,
    /// How the camera frame is laid out.
    pub frame_format: RingFrame,
    /// Also publish a checksum of each id map.
    pub checksum: bool,
    /// Clients served at the same time.
    pub max_clients: usize,
    /// Of these, clients of one user; 0 = half of them, at least one.
    pub max_clients_per_user: usize,
}

/// How the ring's camera frame is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingFrame {
    /// RGB24.
    #[default]
    Rgb,
    /// As the source gave it, its JPEG pictures included; RGB24 where it was cropped or turned, or is larger than RGB24 would be.
    Source,
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSize {
    /// 1 to 16384.
    pub width: u32,
    /// 1 to 16384.
    pub height: u32,
}

impl FromStr for FrameSize {
    type Err = String;

    fn from_str(text: &str) -> Result<FrameSize, String> {
        let side = |text: &str| text.parse::<u32>().ok().filter(|side| (1..=16384).contains(side));
        text.split_once('x')
            .and_then(|(width, height)| Some(FrameSize { width: side(width)?, height: side(height)? }))
            .ok_or_else(|| format!("'{text}' is not a size such as 640x480 (WIDTHxHEIGHT, at most 16384)"))
    }
}

fn from_str<'de, D: serde::Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// A string, or a number as it is written.
fn digits<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        other => Err(serde::de::Error::custom(format!("{other} is neither digits nor a string"))),
    }
}

fn digits_from_str<'de, D: serde::Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    digits(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn optional_from_str<'de, D: serde::Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<Option<T>, D::Error> {
    from_str(deserializer).map(Some)
}

fn off_or_from_str<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let text = match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => text,
        other => other.to_string(),
    };
    if text == "off" { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

impl Default for ModelConfig {
    fn default() -> ModelConfig {
        ModelConfig {
            path: PathBuf::from("/usr/share/eomt-edge/eomt-nano-scenes.onnx"),
            sha256: String::new(),
            load_timeout: 120.0,
            fallback_after: 3,
            threads: 0,
            cores: Vec::new(),
            isa: String::new(),
            normalization: Normalization::Auto,
            bf16: false,
            merge: TokenMerging::default(),
            task: None,
            reuse: None,
            threshold: None,
            mask_threshold: None,
            overlap_threshold: None,
        }
    }
}

impl Default for SourceConfig {
    fn default() -> SourceConfig {
        SourceConfig {
            uri: "v4l2:/dev/video0".to_owned(),
            fps: 15.0,
            size: FrameSize { width: 320, height: 240 },
            format: PixelFormat::Rgb24,
            colour: Colour::default(),
            stride: Stride::default(),
            end: InputEnd::default(),
            max_pixels: 16 << 20,
            no_signal_after: 2.0,
        }
    }
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig {
            socket: PathBuf::from("/run/eomt-edge/masks.sock"),
            mode: "660".to_owned(),
            group: String::new(),
            slots: 8,
            include_frame: false,
            frame_format: RingFrame::Rgb,
            checksum: false,
            max_clients: 64,
            max_clients_per_user: 0,
        }
    }
}

impl SourceConfig {
    /// `no_signal_after` as a duration; zero = never.
    pub fn no_signal_after(&self) -> Duration {
        Duration::from_secs_f64(self.no_signal_after)
    }
}

impl ModelConfig {
    /// The model's thresholds with what the configuration sets.
    pub fn thresholds(&self, of_model: Thresholds) -> Thresholds {
        of_model.with(self.threshold, self.mask_threshold, self.overlap_threshold)
    }

    /// `load_timeout` as a duration.
    pub fn load_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.load_timeout)
    }
}

impl RingConfig {
    /// `mode` as a number.
    pub fn mode_bits(&self) -> u32 {
        mode_bits(&self.mode).expect("checked when the configuration was parsed")
    }

    /// Clients of one user at the same time, at least one.
    pub fn clients_per_user_max(&self) -> usize {
        let half = self.max_clients / 2;
        (if self.max_clients_per_user == 0 { half } else { self.max_clients_per_user }).clamp(1, self.max_clients.max(1))
    }
}

impl Config {
    /// Parses `text` with `overrides` (`key=value`, dotted keys) on top.
    ///
    /// # Errors
    /// When the text is no TOML, a key is unknown, or a value is not what its key takes. The sentence names the key.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Config, ConfigError> {
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Toml(one_line(&error, Some(text))))?;
        for item in overrides {
            apply(&mut table, item)?;
        }
        let config: Config = table.try_into().map_err(|error: toml::de::Error| ConfigError::Toml(one_line(&error, None)))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: String, reason| Err(ConfigError::Value { key, value, reason });
        let thresholds = [
            ("model.threshold", self.model.threshold),
            ("model.mask_threshold", self.model.mask_threshold),
            ("model.overlap_threshold", self.model.overlap_threshold),
        ];
        for (key, value) in thresholds {
            if let Some((value, reason)) = value.and_then(|value| Some((value, check_threshold(value).err()?))) {
                return refuse(key, value.to_string(), reason);
            }
        }
        let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !self.model.sha256.is_empty() && !is_digest(&self.model.sha256) {
            return refuse("model.sha256", format!("'{}'", self.model.sha256), "64 hexadecimal digits, as sha256sum prints them");
        }
        if !(0.1..=1800.0).contains(&self.model.load_timeout) {
            return refuse("model.load_timeout", self.model.load_timeout.to_string(), "seconds, 0.1 to 1800");
        }
        if self.model.threads > THREADS_MAX {
            return refuse("model.threads", self.model.threads.to_string(), "at most 256");
        }
        if let Some(core) = self.model.cores.iter().find(|core| **core >= CORES_MAX) {
            return refuse("model.cores", core.to_string(), "CPU numbers lie below 1024");
        }
        if !(0.0..=1000.0).contains(&self.source.fps) {
            return refuse("source.fps", self.source.fps.to_string(), "it must lie between 0 and 1000");
        }
        if self.source.format == PixelFormat::Mjpg {
            return refuse("source.format", "mjpg".to_owned(), "a pipe's frames need a fixed length; decode them first");
        }
        if !(0.0..=1000.0).contains(&self.camera.fps) {
            return refuse("camera.fps", self.camera.fps.to_string(), "it must lie between 0 and 1000");
        }
        if !(0.0..=86_400.0).contains(&self.source.no_signal_after) {
            return refuse("source.no_signal_after", self.source.no_signal_after.to_string(), "seconds, 0 to 86400");
        }
        if !(1..=PIXELS_MAX).contains(&self.source.max_pixels) {
            return refuse("source.max_pixels", self.source.max_pixels.to_string(), "1 to 268435456, which is 16384x16384");
        }
        let FrameSize { width, height } = self.source.size;
        if u64::from(width) * u64::from(height) > self.source.max_pixels {
            return refuse("source.size", format!("{width}x{height}"), "more pixels than source.max_pixels allows");
        }
        if let Err(reason) = RawLayout::new(self.source.format, (width, height), self.source.stride) {
            return refuse("source.stride", self.source.stride.to_string(), reason);
        }
        if !(2..=64).contains(&self.ring.slots) {
            return refuse("ring.slots", self.ring.slots.to_string(), "2 to 64");
        }
        if self.ring.frame_format == RingFrame::Source && !self.ring.include_frame {
            return refuse("ring.frame_format", "source".to_owned(), "it needs ring.include_frame = true");
        }
        if self.ring.max_clients == 0 || self.ring.max_clients > 4096 {
            return refuse("ring.max_clients", self.ring.max_clients.to_string(), "1 to 4096");
        }
        if self.ring.max_clients_per_user > 4096 {
            return refuse("ring.max_clients_per_user", self.ring.max_clients_per_user.to_string(), "0 to 4096");
        }
        self.display.check()?;
        self.track.check()?;
        if mode_bits(&self.ring.mode).is_none() {
            return refuse("ring.mode", format!("'{}'", self.ring.mode), "it must be octal permission bits such as 660");
        }
        self.control.check(&self.ring)
    }
}

/// Whether a threshold may have this value.
///
/// # Errors
/// The end of a sentence: what it may have.
pub fn check_threshold(value: f64) -> Result<(), &'static str> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err("it must lie between 0 and 1") }
}

/// Permission bits of a file, written in octal digits.
fn mode_bits(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777)
}

fn one_line(error: &toml::de::Error, text: Option<&str>) -> String {
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    match (error.span(), text) {
        (Some(span), Some(text)) => format!("line {}: {message}", text[..span.start.min(text.len())].lines().count().max(1)),
        // of a table: the message, then "in `ring.mode`"
        _ => error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// `a.b=value`: the value is TOML where it parses as such, else a string.
fn apply(table: &mut toml::Table, item: &str) -> Result<(), ConfigError> {
    let (path, value) = item.split_once('=').ok_or_else(|| ConfigError::Override(item.to_owned()))?;
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    // a table in a table in a table … is freed by a function that calls itself
    if path.split('.').count() > KEY_PARTS_MAX {
        return Err(ConfigError::Override(item.to_owned()));
    }
    let mut keys = path.trim().split('.').peekable();
    let mut current = table;
    while let Some(key) = keys.next() {
        if key.is_empty() {
            return Err(ConfigError::Override(item.to_owned()));
        }
        if keys.peek().is_none() {
            current.insert(key.to_owned(), value);
            return Ok(());
        }
        let next = current.entry(key.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        current = next.as_table_mut().ok_or_else(|| ConfigError::NoTable { item: item.to_owned(), key: key.to_owned() })?;
    }
    Err(ConfigError::Override(item.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_the_default() {
        let shipped = include_str!("../../config/eomt-edge.toml");
        assert_eq!(Config::parse(shipped, &[]).unwrap(), Config::default());
    }

    #[test]
    fn overrides_win_and_strings_need_no_quotes() {
        let text = "[ring]\nslots = 3\n[source]\nuri = \"pipe:-\"\n";
        let overrides = ["ring.slots=5", "source.uri=replay:/tmp/x@5", "source.size=64x48", "model.task=semantic"].map(String::from);
        let config = Config::parse(text, &overrides).unwrap();
        assert_eq!((config.ring.slots, config.source.uri.as_str()), (5, "replay:/tmp/x@5"));
        assert_eq!(config.source.size, FrameSize { width: 64, height: 48 });
        assert_eq!(config.model.task, Some(Task::Semantic));
    }

    #[test]
    fn keys_have_a_depth_that_the_stack_can_hold() {
        let message = Config::parse("", &[format!("{}a=1", "a.".repeat(100_000))]).unwrap_err().to_string();
        assert!(message.starts_with("--set a.a.") && message.contains("key=value"));
        for text in [format!("{}a=1", "a.".repeat(100_000)), format!("[{}a]", "a.".repeat(100_000)), format!("a = {}", "[".repeat(100_000))]
        {
            assert!(Config::parse(&text, &[]).unwrap_err().to_string().contains("recur"));
        }
    }

    #[test]
    fn one_user_has_half_of_the_places_unless_told_otherwise() {
        for (overrides, expected) in [
            (&[][..], 32),
            (&["ring.max_clients=7"], 3),
            (&["ring.max_clients=1"], 1),
            (&["ring.max_clients_per_user=5"], 5),
            (&["ring.max_clients=4", "ring.max_clients_per_user=9"], 4),
        ] {
            let overrides: Vec<String> = overrides.iter().map(|&item| item.to_owned()).collect();
            assert_eq!(Config::parse("", &overrides).unwrap().ring.clients_per_user_max(), expected, "{overrides:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("[ring]\nslot = 3\n", &[], "slot"),
            ("[rings]\n", &[], "rings"),
            ("[ring]\nslots = 1\n", &[], "ring.slots"),
            ("[ring\n", &[], "line 1"),
            ("", &["ring.mode=999"], "ring.mode"),
            ("", &["model.threshold=1.5"], "model.threshold"),
            ("", &["model.sha256=abc"], "model.sha256"),
            ("", &["model.load_timeout=nan"], "model.load_timeout"),
            ("", &["model.fallback_after=-1"], "model.fallback_after"),
            ("", &["model.task=sematic"], "sematic"),
            ("", &["nonsense"], "nonsense"),
            ("", &["ring.slots=many"], "ring.slots"),
            ("ring = 5", &["ring.socket=x"], "'ring' is not a table"),
            ("", &["source.size=16000x16000"], "source.max_pixels"),
            ("", &["source.max_pixels=300000000"], "268435456"),
            ("", &["ring.slots=4\nmodel.threads=5"], "ring.slots"),
            ("", &["source.size=640x0"], "640x0"),
            ("", &["source.no_signal_after=-1"], "source.no_signal_after"),
            ("", &["source.stride=padded"], "gstreamer"),
            ("", &["source.stride=100", "source.size=64x48"], "source.stride = 100"),
            ("", &["source.stride=pi5"], "yuv420"),
            ("", &["source.end=maybe"], "maybe"),
            ("", &["ring.frame_format=yuyv"], "ring.frame_format"),
            ("", &["ring.frame_format=source"], "ring.include_frame = true"),
            ("", &["ring.max_clients_per_user=5000"], "ring.max_clients_per_user"),
            ("", &["track.memory=-1"], "track.memory"),
            ("", &["track.keep=1"], "keep"),
            ("", &["control.mode=rw"], "control.mode = 'rw'"),
            ("", &["control.socket=/run/eomt-edge/masks.sock"], "control.socket"),
            ("", &["control.models=models"], "control.models"),
            ("", &["control.token=x"], "token"),
        ];
        for &(text, overrides, expected) in cases {
            let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
            let message = Config::parse(text, &overrides).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
