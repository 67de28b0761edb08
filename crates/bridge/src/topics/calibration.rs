//! A camera's calibration as ROS writes it (`camera_calibration`, `camera_info_manager`): YAML with `image_width`, `camera_matrix` ...
//!
//! Invariants: every matrix has as many numbers as it must have, all finite; focal lengths are positive. Refuses: aliases and deep nesting (read
//! as events, nothing is expanded), a calibration of another size than the frames (see [`super::Messages`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eomt_edge_files::{bounds, files};
use eomt_edge_ros::messages::sensor_msgs::CameraInfo;
use yaml_rust2::parser::{Event, Parser};

/// Parameters of the distortion models that image_geometry knows.
const MODELS: [(&str, &[usize]); 3] = [("plumb_bob", &[4, 5]), ("rational_polynomial", &[8, 12, 14]), ("equidistant", &[4])];

/// Why a calibration is none.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct CalibrationError {
    path: PathBuf,
    problem: String,
}

/// Numbers and texts by their keys: `camera_matrix/data` has nine.
type Values = BTreeMap<String, Vec<String>>;

/// The file's calibration, without a header.
pub fn read(path: &Path) -> Result<CameraInfo, CalibrationError> {
    let text = files::read_text(path, &bounds::CONFIGURATION).map_err(|error| format!("the calibration cannot be read: {error}"));
    text.and_then(|text| parse(&text)).map_err(|problem| CalibrationError { path: path.into(), problem })
}

fn parse(text: &str) -> Result<CameraInfo, String> {
    let values = values(text)?;
    let side = |key: &str| match one(&values, key)?.parse::<u32>() {
        Ok(pixels) if pixels > 0 => Ok(pixels),
        _ => Err(format!("{key} must be a number of pixels")),
    };
    let distortion_model = one(&values, "distortion_model")?.to_owned();
    let d = numbers(&values, "distortion_coefficients")?;
    let Some((_, counts)) = MODELS.iter().find(|(name, _)| *name == distortion_model) else {
        return Err(format!("distortion_model = {distortion_model}: it must be plumb_bob, rational_polynomial or equidistant"));
    };
    if !counts.contains(&d.len()) {
        return Err(format!("distortion_coefficients has {} numbers, {distortion_model} takes {counts:?}", d.len()));
    }
    let info = CameraInfo {
        width: side("image_width")?,
        height: side("image_height")?,
        distortion_model,
        d,
        k: matrix(&values, "camera_matrix")?,
        r: matrix(&values, "rectification_matrix")?,
        p: matrix(&values, "projection_matrix")?,
        ..CameraInfo::default()
    };
    if info.k[0] <= 0.0 || info.k[4] <= 0.0 {
        return Err("camera_matrix: the focal lengths must be positive".into());
    }
    Ok(info)
}

fn matrix<const N: usize>(values: &Values, key: &str) -> Result<[f64; N], String> {
    let numbers = numbers(values, key)?;
    let count = numbers.len();
    numbers.try_into().map_err(|_| format!("{key} has {count} numbers, it must have {N}"))
}

fn numbers(values: &Values, key: &str) -> Result<Vec<f64>, String> {
    let texts = values.get(&format!("{key}/data")).ok_or_else(|| format!("there is no {key} with data: this is no calibration of ROS"))?;
    let number = |text: &String| match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("{key}: {text} is no number")),
    };
    texts.iter().map(number).collect()
}

fn one<'a>(values: &'a Values, key: &str) -> Result<&'a str, String> {
    match values.get(key).map(Vec::as_slice) {
        Some([value]) => Ok(value),
        _ => Err(format!("there is no {key}: this is no calibration of ROS")),
    }
}

/// All scalars, by the keys that lead to them.
fn values(text: &str) -> Result<Values, String> {
    let (mut parser, mut values) = (Parser::new_from_str(text), Values::new());
    // each open mapping, with the key whose value is due; sequences have none
    let mut open: Vec<(bool, Option<String>)> = Vec::new();
    loop {
        let (event, at) = parser.next_token().map_err(|error| format!("this is not YAML: {error}"))?;
        match event {
            Event::StreamEnd | Event::DocumentEnd => return Ok(values),
            Event::Alias(_) => return Err(format!("line {}: aliases (*NAME) are not read: write the value out", at.line())),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == bounds::YAML_DEPTH_MAX => {
                return Err(format!("line {}: more than {} levels lie inside each other", at.line(), bounds::YAML_DEPTH_MAX));
            }
            Event::SequenceStart(..) => open.push((false, None)),
            Event::MappingStart(..) => open.push((true, None)),
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                value_ended(&mut open);
            }
            Event::Scalar(scalar, ..) => match open.last_mut() {
                Some((true, key @ None)) => *key = Some(scalar),
                _ => {
                    let path: Vec<&str> = open.iter().filter_map(|(_, key)| key.as_deref()).collect();
                    values.entry(path.join("/")).or_default().push(scalar);
                    value_ended(&mut open);
                }
            },
            _ => {}
        }
    }
}

fn value_ended(open: &mut [(bool, Option<String>)]) {
    if let Some((true, key)) = open.last_mut() {
        *key = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As camera_calibration writes it, lines broken as in its older versions.
    pub(super) const FILE: &str = "image_width: 640
image_height: 480
camera_name: head_camera
camera_matrix:
  rows: 3
  cols: 3
  data: [4.827e+02, 0., 320.5,
         0., 483, 240.25, 0., 0., 1.]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.25, 0.05, 0.001, -0.002, 0]
rectification_matrix:
  rows: 3
  cols: 3
  data:
  - 1
  - 0
  - 0
  - 0
  - 1
  - 0
  - 0
  - 0
  - 1
projection_matrix: {rows: 3, cols: 4, data: [400, 0, 320, 0, 0, 400, 240, 0, 0, 0, 1, 0]}
";

    #[test]
    fn a_file_of_the_calibrator() {
        let info = parse(FILE).unwrap();
        assert_eq!((info.width, info.height, info.distortion_model.as_str()), (640, 480, "plumb_bob"));
        assert_eq!(info.d, [-0.25, 0.05, 0.001, -0.002, 0.0]);
        assert_eq!(info.k, [482.7, 0.0, 320.5, 0.0, 483.0, 240.25, 0.0, 0.0, 1.0]);
        assert_eq!(info.r, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(info.p, [400.0, 0.0, 320.0, 0.0, 0.0, 400.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_read_or_refused() {
        for at in 0..FILE.len() {
            let _ = parse(&FILE[..at]);
            for other in ["\0", "-", ":", "[", "{", "&", "*", "\n", "\t", "\"", "%", "9", "é"] {
                if let Ok(info) = parse(&[&FILE[..at], other, &FILE[at + 1..]].concat()) {
                    assert!(info.k.iter().chain(&info.d).chain(&info.p).all(|number| number.is_finite()) && info.width > 0);
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |from: &str, to: &str| parse(&FILE.replace(from, to)).unwrap_err();
        assert_eq!(refused("image_width: 640", "image_width: wide"), "image_width must be a number of pixels");
        assert_eq!(refused("image_height: 480\n", ""), "there is no image_height: this is no calibration of ROS");
        assert_eq!(refused("483", ".nan"), "camera_matrix: .nan is no number");
        assert_eq!(refused("4.827e+02", "-1"), "camera_matrix: the focal lengths must be positive");
        assert_eq!(refused("0., 483", "483"), "camera_matrix has 8 numbers, it must have 9");
        assert_eq!(refused("-0.25, 0.05, ", ""), "distortion_coefficients has 3 numbers, plumb_bob takes [4, 5]");
        assert!(refused("plumb_bob", "fisheye9").contains("fisheye9: it must be plumb_bob"));
        assert!(refused("[-0.25", "&a [*a").contains("aliases"));
        assert!(parse(&"[".repeat(40)).unwrap_err().contains("32 levels"));
        assert!(parse("").is_err() && parse("\u{0}").is_err() && parse("a: b: c").is_err());
    }
}
