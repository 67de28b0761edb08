//! The configuration of `eomt-edge-bridge mqtt`: a TOML file.
//!
//! Invariants: what [`Config::parse`] returns can be used as it is; a refusal names file, key and what the key takes. Refuses: unknown keys,
//! passwords in the file itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use eomt_edge_files::{bounds, files};
use serde::Deserialize;

use super::names;

/// Most zones: each is looked through in every frame.
pub const ZONES_MAX: usize = 64;
/// Most corners of a zone.
const CORNERS_MAX: usize = 256;
/// Bytes of a topic's part that a person chooses; MQTT takes 65535 for the whole.
const TOPIC_BYTES_MAX: usize = 200;
/// Seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing, too large, or no text.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// No TOML, an unknown key, or a value of another type.
    #[error("{0}")]
    Toml(String),
    /// A value that its key does not take.
    #[error("{key} = {value}: {reason}")]
    Value {
        /// The key, dotted.
        key: String,
        /// As written.
        value: String,
        /// What it takes.
        reason: &'static str,
    },
}

/// Where the broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Name or address.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// `mqtts`.
    pub tls: bool,
}

impl std::fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The file, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    broker: String,
    /// For the broker; empty: anonymous.
    pub user: String,
    /// A file whose first line is the password.
    pub password_file: PathBuf,
    /// Certificates of who signs the broker's, PEM; empty: the system's.
    pub ca_file: PathBuf,
    /// This machine's name in topics; empty: its host name.
    pub node: String,
    /// What topics begin with; empty: `eomt-edge/NODE`.
    pub topic: String,
    /// Quality of service, 0 to 2.
    pub qos: u8,
    /// Whether the broker keeps the last state of each topic.
    pub retain: bool,
    /// Seconds between two messages of a topic whose value is a number.
    pub interval: f64,
    /// The classes that are published; empty: all.
    pub classes: Vec<String>,
    /// When a class is there.
    pub presence: Presence,
    /// Home Assistant.
    pub home_assistant: HomeAssistant,
    /// The picture.
    pub image: Image,
    /// Parts of the picture.
    pub zones: Vec<Zone>,
}

/// When a class is there, and when not any more.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Presence {
    /// Fraction of the picture, or of the zone, that it covers at least.
    pub min_area: f64,
    /// Seconds that it must be seen without a break.
    pub on_after: f64,
    /// Seconds that it must be missing without a break.
    pub off_after: f64,
}

/// Discovery by Home Assistant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HomeAssistant {
    /// Whether it is told what there is.
    pub discovery: bool,
    /// What its topics begin with.
    pub prefix: String,
}

/// A JPEG of the picture with masks.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Image {
    /// Seconds between two; 0: none.
    pub every: f64,
    /// 1 to 100.
    pub quality: u8,
}

/// A part of the picture.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// In topics.
    pub name: String,
    /// Corners, `[x, y]` each; the last is joined to the first.
    pub polygon: Vec<[f64; 2]>,
    /// What corners count in.
    #[serde(default)]
    pub unit: Unit,
}

/// What corners count in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Fractions of the picture's width and height.
    #[default]
    Relative,
    /// Pixels of the masks.
    Pixels,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            broker: "mqtt://127.0.0.1".to_owned(),
            user: String::new(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            node: String::new(),
            topic: String::new(),
            qos: 1,
            retain: true,
            interval: 1.0,
            classes: Vec::new(),
            presence: Presence::default(),
            home_assistant: HomeAssistant::default(),
            image: Image::default(),
            zones: Vec::new(),
        }
    }
}

impl Default for Presence {
    fn default() -> Presence {
        Presence { min_area: 0.0, on_after: 0.5, off_after: 2.0 }
    }
}

impl Default for HomeAssistant {
    fn default() -> HomeAssistant {
        HomeAssistant { discovery: true, prefix: "homeassistant".to_owned() }
    }
}

impl Default for Image {
    fn default() -> Image {
        Image { every: 0.0, quality: 75 }
    }
}

impl Config {
    /// Reads and checks a file; `host` stands in for an empty `node`.
    ///
    /// # Errors
    /// [`ConfigError`], without the file's name.
    pub fn load(path: &Path, host: &str) -> Result<Config, ConfigError> {
        Config::parse(&files::read_text(path, &bounds::CONFIGURATION).map_err(ConfigError::Read)?, host)
    }

    /// Checks a text; `host` stands in for an empty `node`.
    ///
    /// # Errors
    /// When the text is no TOML, a key is unknown, or a value is not what its key takes. The sentence names the key.
    pub fn parse(text: &str, host: &str) -> Result<Config, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Toml(with_line(&error, text)))?;
        let mut config: Config = table.try_into().map_err(|error: toml::de::Error| ConfigError::Toml(one_line(&error)))?;
        if config.node.is_empty() {
            config.node = names::slug(host).unwrap_or_else(|| "board".to_owned());
        }
        if config.topic.is_empty() {
            config.topic = format!("eomt-edge/{}", config.node);
        }
        config.check()?;
        Ok(config)
    }

    /// Where the broker listens.
    ///
    /// # Errors
    /// When `broker` is no such address; not of a configuration that was parsed.
    pub fn broker(&self) -> Result<BrokerAddress, ConfigError> {
        parse_broker(&self.broker).map_err(|reason| refusal("broker", format!("'{}'", without_user(&self.broker)), reason))
    }

    /// `interval`.
    pub fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval)
    }

    /// `image.every`; `None`: no pictures.
    pub fn image_every(&self) -> Option<Duration> {
        (self.image.every > 0.0).then(|| Duration::from_secs_f64(self.image.every))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, value: String, reason| Err(refusal(key, value, reason));
        let broker = self.broker()?;
        if !broker.tls && !self.ca_file.as_os_str().is_empty() {
            return refuse("ca_file", format!("'{}'", self.ca_file.display()), "certificates are used with a broker of mqtts:// only");
        }
        if self.user.is_empty() && !self.password_file.as_os_str().is_empty() {
            return refuse("user", "''".to_owned(), "password_file needs a user");
        }
        if names::slug(&self.node).as_deref() != Some(&self.node.to_lowercase().replace('-', "_")) || self.node.len() > 64 {
            return refuse("node", format!("'{}'", self.node), "1 to 64 letters, digits, '_' and '-'");
        }
        for (key, topic) in [("topic", &self.topic), ("home_assistant.prefix", &self.home_assistant.prefix)] {
            if !is_topic(topic) {
                return refuse(
                    key,
                    format!("'{topic}'"),
                    "1 to 200 bytes, levels between '/' that are not empty, without '#', '+' and '$'",
                );
            }
        }
        if self.qos > 2 {
            return refuse("qos", self.qos.to_string(), "0, 1 or 2");
        }
        let seconds = [
            ("interval", self.interval, 0.0),
            ("presence.on_after", self.presence.on_after, 0.0),
            ("presence.off_after", self.presence.off_after, 0.0),
            ("image.every", self.image.every, 0.0),
        ];
        if let Some((key, value, _)) = seconds.into_iter().find(|(_, value, least)| !(*least..=SECONDS_MAX).contains(value)) {
            return refuse(key, value.to_string(), "seconds, 0 to 86400");
        }
        if !(0.0..=1.0).contains(&self.presence.min_area) {
            return refuse("presence.min_area", self.presence.min_area.to_string(), "a fraction, 0 to 1");
        }
        if self.image.every > 0.0 && self.image.every < 0.5 {
            return refuse("image.every", self.image.every.to_string(), "half a second or more, or 0 for no pictures");
        }
        if !(1..=100).contains(&self.image.quality) {
            return refuse("image.quality", self.image.quality.to_string(), "1 to 100");
        }
        self.check_zones()
    }

    fn check_zones(&self) -> Result<(), ConfigError> {
        if self.zones.len() > ZONES_MAX {
            return Err(refusal("zones", format!("{} of them", self.zones.len()), "at most 64"));
        }
        let mut slugs = Vec::new();
        for zone in &self.zones {
            let named = || format!("'{}'", zone.name);
            let slug =
                names::slug(&zone.name).ok_or_else(|| refusal("zones.name", named(), "it needs a letter or a digit of a to z, 0 to 9"))?;
            if slugs.contains(&slug) {
                return Err(refusal("zones.name", named(), "another zone has this name, as topics write it"));
            }
            slugs.push(slug);
            let key = format!("zones.{}.polygon", zone.name);
            let corners = format!("{} corners", zone.polygon.len());
            if !(3..=CORNERS_MAX).contains(&zone.polygon.len()) {
                return Err(refusal(&key, corners, "3 to 256 corners"));
            }
            let most = if zone.unit == Unit::Relative { 1.0 } else { 16_384.0 };
            if let Some([x, y]) = zone.polygon.iter().find(|corner| !corner.iter().all(|value| (0.0..=most).contains(value))) {
                let reason = match zone.unit {
                    Unit::Relative => "fractions of the picture lie between 0 and 1; with unit = \"pixels\" they are pixels",
                    Unit::Pixels => "pixels lie between 0 and 16384",
                };
                return Err(refusal(&key, format!("[{x}, {y}]"), reason));
            }
        }
        Ok(())
    }
}

fn refusal(key: &str, value: String, reason: &'static str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), value, reason }
}

fn with_line(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().lines().next().unwrap_or_default();
    let before = error.span().and_then(|span| text.get(..span.start));
    before.map_or_else(|| message.to_owned(), |before| format!("line {}: {message}", before.lines().count().max(1)))
}

/// The message, then "in `presence.min_area`".
fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`; an IPv6 address stands in brackets.
///
/// # Errors
/// What such an address looks like.
pub fn parse_broker(url: &str) -> Result<BrokerAddress, &'static str> {
    const FORM: &str = "mqtt://HOST, mqtts://HOST, with :PORT where it is not 1883 or 8883";
    let (tls, rest) = match (url.strip_prefix("mqtt://"), url.strip_prefix("mqtts://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err(FORM),
    };
    if rest.contains('@') {
        return Err("no user and password here: user and password_file take them");
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(FORM)?;
            let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
            (Some(host).filter(|_| is_address), if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(FORM)?) })
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(rest), None),
        },
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let host = host.filter(|host| !host.is_empty() && host.len() <= 253 && host.chars().all(is_host)).ok_or(FORM)?;
    let port = match port {
        None => {
            if tls {
                8883
            } else {
                1883
            }
        }
        Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or("the port lies between 1 and 65535")?,
    };
    Ok(BrokerAddress { host: host.to_owned(), port, tls })
}

/// What may be shown of an address: a password may stand before the '@'.
fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => url.to_owned(),
    }
}

fn is_topic(topic: &str) -> bool {
    let is_level = |level: &str| !level.is_empty() && !level.chars().any(|c| matches!(c, '#' | '+' | '$') || c.is_control());
    topic.len() <= TOPIC_BYTES_MAX && topic.split('/').all(is_level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_s_examples_are_configurations() {
        let page = include_str!("../../../../docs/mqtt.md");
        let blocks: Vec<&str> = page.split("```toml mqtt\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            Config::parse(block, "board").unwrap_or_else(|error| panic!("{error}: {block}"));
        }
    }

    #[test]
    fn the_shipped_example_says_the_defaults() {
        let text = include_str!("../../../../config/eomt-edge-mqtt.toml");
        let (shipped, plain) = (Config::parse(text, "pi").unwrap(), Config::parse("", "pi").unwrap());
        assert_eq!(format!("{shipped:?}"), format!("{plain:?}"));
        // what is commented out is right, too
        let uncommented: String = text.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n").collect();
        let config = Config::parse(&uncommented, "pi").unwrap();
        assert_eq!(config.zones.len(), 2);
        assert_eq!(config.zones[1].unit, Unit::Pixels);
    }

    #[test]
    fn brokers() {
        let address = |host: &str, port, tls| Ok(BrokerAddress { host: host.to_owned(), port, tls });
        assert_eq!(parse_broker("mqtt://ha.local"), address("ha.local", 1883, false));
        assert_eq!(parse_broker("mqtts://10.0.0.2:99/"), address("10.0.0.2", 99, true));
        assert_eq!(parse_broker("mqtts://[fd00::1]"), address("fd00::1", 8883, true));
        assert_eq!(parse_broker("mqtt://[::1]:1884"), address("::1", 1884, false));
        for bad in [
            "",
            "ha.local",
            "http://x",
            "mqtt://",
            "mqtt://a:0",
            "mqtt://a:b",
            "mqtt://a:99999",
            "mqtt://[::1",
            "mqtt://[x]",
            "mqtt://a b",
            "mqtt://a/b",
        ] {
            assert!(parse_broker(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_name_the_key_and_no_password() {
        for (text, expected) in [
            ("broker = \"mqtt://me:secret@ha\"", "broker = 'mqtt://***@ha': no user and password here"),
            ("brocker = \"x\"", "unknown field `brocker`"),
            ("qos = 3", "qos = 3: 0, 1 or 2"),
            ("qos = \"1\"", "in `qos`"),
            ("\n\nqos =", "line 3: "),
            ("[presence]\nmin_area = 2", "presence.min_area = 2: a fraction"),
            ("[presence]\non_after = nan", "presence.on_after = NaN: seconds"),
            ("[presence]\non_afterr = 1", "in `presence`"),
            ("interval = -1", "interval = -1: seconds"),
            ("topic = \"a//b\"", "topic = 'a//b': "),
            ("topic = \"a/#\"", "topic = 'a/#': "),
            ("node = \"a b\"", "node = 'a b': "),
            ("ca_file = \"/x\"", "ca_file = '/x': certificates"),
            ("password_file = \"/x\"", "user = '': password_file needs a user"),
            ("[home_assistant]\nprefix = \"\"", "home_assistant.prefix = ''"),
            ("[image]\nevery = 0.1", "image.every = 0.1: half a second"),
            ("[image]\nquality = 0", "image.quality = 0: 1 to 100"),
            ("[[zones]]\nname = \"a\"\npolygon = [[0, 0], [1, 1]]", "zones.a.polygon = 2 corners: 3 to 256"),
            ("[[zones]]\nname = \"a\"\npolygon = [[0, 0], [1, 1], [5, 0]]", "zones.a.polygon = [5, 0]: fractions"),
            ("[[zones]]\nname = \"a\"\npolygon = [[0, 0], [1, 1], [nan, 0]]", "zones.a.polygon = [NaN, 0]: fractions"),
            ("[[zones]]\nname = \"ä\"\npolygon = [[0, 0], [1, 1], [1, 0]]", "zones.name = 'ä': it needs"),
            (
                "[[zones]]\nname = \"A b\"\npolygon = [[0, 0], [1, 1], [1, 0]]\n[[zones]]\nname = \"a-b\"\npolygon = [[0, 0], [1, 1], [1, 0]]",
                "zones.name = 'a-b': another",
            ),
        ] {
            let sentence = Config::parse(text, "pi").expect_err(text).to_string();
            assert!(sentence.contains(expected) && !sentence.contains("secret") && !sentence.contains('\n'), "{text}: {sentence}");
        }
    }

    #[test]
    fn the_host_s_name_stands_in() {
        let config = Config::parse("", "Küche.local").unwrap();
        assert_eq!((config.node.as_str(), config.topic.as_str()), ("k_che_local", "eomt-edge/k_che_local"));
        assert_eq!(Config::parse("node = \"Front-Door_2\"", "x").unwrap().topic, "eomt-edge/Front-Door_2");
    }
}
