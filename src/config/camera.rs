//! `[camera]`: how a V4L2 camera is used.

use std::collections::BTreeMap;
use std::str::FromStr;

use eomt_edge_core::data::{ControlValue, Crop, PixelFormat, View};
use serde::{Deserialize, Deserializer};

use super::FrameSize;

/// `[camera]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraConfig {
    /// `None` ("auto") = 640x480.
    #[serde(deserialize_with = "auto")]
    pub size: Option<FrameSize>,
    /// Frames per second that the camera is asked for; 0 = what it does by itself.
    pub fps: f64,
    /// `None` ("auto") = the cheapest that gives size and rate.
    #[serde(deserialize_with = "auto")]
    pub format: Option<PixelFormat>,
    /// `None` ("") = the whole picture.
    #[serde(deserialize_with = "auto")]
    pub crop: Option<Crop>,
    /// Clockwise quarter turns.
    #[serde(deserialize_with = "degrees")]
    pub rotate: u8,
    /// After the rotation.
    pub flip: Flip,
    /// By the names of `controls.rs` in `source/v4l2`.
    #[serde(deserialize_with = "control_values")]
    pub controls: BTreeMap<String, ControlValue>,
}

/// Mirroring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flip {
    /// As the camera sends it.
    #[default]
    None,
    /// Left and right swap.
    Horizontal,
    /// Top and bottom swap.
    Vertical,
    /// Both swap: half a turn.
    Both,
}

impl Default for CameraConfig {
    fn default() -> CameraConfig {
        CameraConfig { size: None, fps: 30.0, format: None, crop: None, rotate: 0, flip: Flip::None, controls: BTreeMap::new() }
    }
}

impl CameraConfig {
    /// (width, height) to ask for.
    pub fn size(&self) -> (u32, u32) {
        self.size.map_or((640, 480), |size| (size.width, size.height))
    }

    /// What becomes of each picture.
    pub fn view(&self) -> View {
        View {
            crop: self.crop,
            turns: self.rotate,
            mirrored: matches!(self.flip, Flip::Horizontal | Flip::Both),
            upside_down: matches!(self.flip, Flip::Vertical | Flip::Both),
        }
    }
}

/// "auto" and "" are `None`.
fn auto<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "auto" | "" => Ok(None),
        text => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

fn degrees<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match i64::deserialize(deserializer)? {
        turn @ (0 | 90 | 180 | 270) => Ok((turn / 90) as u8),
        other => Err(serde::de::Error::custom(format!("{other} is not 0, 90, 180 or 270 degrees"))),
    }
}

fn control_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, ControlValue>, D::Error> {
    let value = |(name, value): (String, toml::Value)| match value {
        toml::Value::Integer(number) => Ok((name, ControlValue::Number(number))),
        toml::Value::Boolean(on) => Ok((name, ControlValue::Switch(on))),
        toml::Value::String(text) => Ok((name, ControlValue::Text(text))),
        other => Err(serde::de::Error::custom(format!("{name} = {other}: a number, true, false or a string"))),
    };
    BTreeMap::<String, toml::Value>::deserialize(deserializer)?.into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_camera_is_described_in_full() {
        let text = "[camera]\nsize = \"1280x720\"\nformat = \"mjpg\"\ncrop = \"300x200+10+20\"\nrotate = 270\nflip = \"vertical\"\n\
            [camera.controls]\nexposure = 157\nwhite_balance = \"auto\"\nfocus_automatic_continuous = false\n";
        let camera = Config::parse(text, &["camera.fps=15".to_owned(), "camera.controls.gain=3".to_owned()]).unwrap().camera;
        assert_eq!((camera.size(), camera.fps, camera.format), ((1280, 720), 15.0, Some(PixelFormat::Mjpg)));
        let crop = Some(Crop { x: 10, y: 20, width: 300, height: 200 });
        assert_eq!(camera.view(), View { crop, turns: 3, mirrored: false, upside_down: true });
        assert_eq!(camera.controls["exposure"], ControlValue::Number(157));
        assert_eq!(camera.controls["white_balance"], ControlValue::Text("auto".to_owned()));
        assert_eq!(camera.controls["focus_automatic_continuous"], ControlValue::Switch(false));
        assert_eq!(camera.controls["gain"], ControlValue::Number(3));
        for (item, word) in [
            ("camera.rotate=45", "45"),
            ("camera.flip=sideways", "sideways"),
            ("camera.crop=5x5", "5x5"),
            ("camera.format=h264", "h264"),
            ("camera.fps=-1", "camera.fps"),
            ("camera.controls.gain=[1]", "gain"),
            ("source.format=mjpg", "source.format"),
        ] {
            let message = Config::parse("", &[item.to_owned()]).unwrap_err().to_string();
            assert!(message.contains(word), "{item}: {message}");
        }
    }
}
