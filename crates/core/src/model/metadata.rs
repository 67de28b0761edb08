//! What a model file says about itself: the ONNX `metadata_props` of the model-file contract.
//!
//! Every value is text; lists and objects are JSON. A file without these entries is a third-party export.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::carried::{self, QueryState};
use super::{ModelError, bounds};
use crate::data::{Task, Thresholds};

/// Names of graph inputs and outputs, as transformers calls them.
pub mod names {
    /// `[1, 3, H, W]` f32, rescaled by 1/255 and normalized.
    pub const INPUT: &str = "pixel_values";
    /// `[1, Q, C + 1]` f32; the last class is "no object".
    pub const CLASS_LOGITS: &str = "class_queries_logits";
    /// `[1, Q, H / 4, W / 4]` f32 for patch size 16.
    pub const MASK_LOGITS: &str = "masks_queries_logits";
    /// `[1, Q, D]` f32, an input of networks for video: what the frame before gave as [`NEXT_QUERY_STATE`], and 0 at the first frame.
    pub const QUERY_STATE: &str = "query_state";
    /// `[1, Q, D]` f32, an output of networks for video.
    pub const NEXT_QUERY_STATE: &str = "next_query_state";
}

/// How the weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// Matrices as bfloat16; computed in bfloat16, with sums in f32, where the CPU has such products.
    Bf16,
    /// 8-bit integers with one scale per output column; activations are quantized per token at run time.
    Int8,
}

impl Precision {
    /// The word in the model file and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }
}

/// Everything about a model that is not a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// A short name for people: the checkpoint's.
    pub name: String,
    /// The task the model was trained for.
    pub task: Task,
    /// Class names, index = class.
    pub labels: Vec<String>,
    /// Class indices that are stuff (merged per class in panoptic segmentation), ascending.
    pub stuff_classes: Vec<u16>,
    /// Mean per channel, of pixel values in 0..=1.
    pub image_mean: [f32; 3],
    /// Standard deviation per channel, of pixel values in 0..=1.
    pub image_std: [f32; 3],
    /// (height, width) of the input.
    pub input_size: (usize, usize),
    /// Defaults of the post-processing.
    pub thresholds: Thresholds,
    /// Of the weights.
    pub precision: Precision,
    /// Of a network for video: what it carries from frame to frame.
    pub state: Option<QueryState>,
    /// The checkpoint's licence, one line; empty where nothing names it.
    pub licence: String,
    /// SHA-256 of the checkpoint's weights, hex; empty for a third-party export.
    pub source_sha256: String,
    /// Program and version that wrote the file.
    pub converter: String,
}

#[derive(Serialize, Deserialize)]
struct ThresholdsJson {
    score: f64,
    mask: f64,
    overlap: f64,
}

/// ImageNet's mean per channel, of values in 0..=1, which every published EoMT uses.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation per channel, of values in 0..=1.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// An entry that may be missing.
const LICENCE: &str = "licence";

/// What a name for people needs at most.
const NAME_BYTES_MAX: usize = 1024;

/// Entries by which a file of ours is known, even when some are missing.
const OWN_KEYS: [&str; 8] =
    ["labels", "stuff_classes", "image_mean", "image_std", "input_size", "thresholds", "source_sha256", "converter"];

impl Metadata {
    /// Key and text of every entry, in a fixed order.
    pub fn to_props(&self) -> Vec<(String, String)> {
        let Thresholds { score, mask, overlap } = self.thresholds;
        let entries = [
            ("name", self.name.clone()),
            ("task", self.task.name().to_owned()),
            ("labels", json(&self.labels)),
            ("stuff_classes", json(&self.stuff_classes)),
            ("image_mean", json(&self.image_mean)),
            ("image_std", json(&self.image_std)),
            ("input_size", json(&[self.input_size.0, self.input_size.1])),
            ("thresholds", json(&ThresholdsJson { score, mask, overlap })),
            ("precision", self.precision.name().to_owned()),
            ("source_sha256", self.source_sha256.clone()),
            ("converter", self.converter.clone()),
        ];
        let state = self.state.iter().map(|state| (carried::KEY, json(state)));
        let licence = (!self.licence.is_empty()).then(|| (LICENCE, self.licence.clone()));
        entries.into_iter().chain(state).chain(licence).map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Reads the entries back; `None` when the file carries none of ours.
    pub fn from_props(props: &BTreeMap<String, String>) -> Result<Option<Metadata>, ModelError> {
        // 'task' and 'name' alone are other exporters' keys as well
        if OWN_KEYS.iter().filter(|key| props.contains_key(**key)).count() < 2 {
            return Ok(None);
        }
        let text = |key: &'static str| props.get(key).cloned().ok_or(ModelError::MissingMetadata { key });
        let [height, width]: [usize; 2] = parse("input_size", &text("input_size")?)?;
        let ThresholdsJson { score, mask, overlap } = parse("thresholds", &text("thresholds")?)?;
        let precision = match text("precision")?.as_str() {
            "f32" => Precision::F32,
            "bf16" => Precision::Bf16,
            "int8" => Precision::Int8,
            other => return Err(invalid("precision", format!("'{}' is neither f32, bf16 nor int8", bounds::short(other)))),
        };
        let metadata = Metadata {
            name: text("name")?,
            task: bounds::short(&text("task")?).parse().map_err(|reason| invalid("task", reason))?,
            labels: parse("labels", &text("labels")?)?,
            stuff_classes: parse("stuff_classes", &text("stuff_classes")?)?,
            image_mean: parse("image_mean", &text("image_mean")?)?,
            image_std: parse("image_std", &text("image_std")?)?,
            input_size: (height, width),
            thresholds: Thresholds { score, mask, overlap },
            precision,
            state: props.get(carried::KEY).map(|text| parse(carried::KEY, text)).transpose()?,
            licence: props.get(LICENCE).cloned().unwrap_or_default(),
            source_sha256: text("source_sha256")?,
            converter: text("converter")?,
        };
        metadata.check().map(|()| Some(metadata))
    }

    fn check(&self) -> Result<(), ModelError> {
        for (key, text) in [("name", &self.name), (LICENCE, &self.licence)] {
            if text.len() > NAME_BYTES_MAX {
                return Err(invalid(key, format!("{} bytes are too long for a {key}", text.len())));
            }
        }
        bounds::check_input(self.input_size).map_err(|reason| invalid("input_size", reason))?;
        if self.labels.is_empty() {
            return Err(invalid("labels", "it names no class".to_owned()));
        }
        bounds::check_labels(&self.labels).map_err(|reason| invalid("labels", reason))?;
        if let Some(class) = self.stuff_classes.iter().find(|&&class| usize::from(class) >= self.labels.len()) {
            return Err(invalid("stuff_classes", format!("class {class} does not exist: there are {} labels", self.labels.len())));
        }
        bounds::check_normalization(self.image_mean, self.image_std).map_err(|reason| invalid("image_std", reason))?;
        if !self.stuff_classes.is_sorted_by(|a, b| a < b) {
            return Err(invalid("stuff_classes", "class numbers stand there once, in ascending order".to_owned()));
        }
        let Thresholds { score, mask, overlap } = self.thresholds;
        if [score, mask, overlap].iter().any(|t| !(0.0..=1.0).contains(t)) {
            return Err(invalid("thresholds", "they must lie between 0 and 1".to_owned()));
        }
        Ok(())
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("plain lists and numbers always serialize")
}

fn parse<T: DeserializeOwned>(key: &'static str, text: &str) -> Result<T, ModelError> {
    serde_json::from_str(text).map_err(|error| invalid(key, error.to_string().chars().take(200).collect()))
}

fn invalid(key: &'static str, reason: String) -> ModelError {
    ModelError::InvalidMetadata { key, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Metadata {
        Metadata {
            name: "nano".into(),
            task: Task::Instance,
            labels: vec!["a \"quoted\" one".into(), "ünïcode".into()],
            stuff_classes: vec![1],
            image_mean: IMAGENET_MEAN,
            image_std: IMAGENET_STD,
            input_size: (96, 160),
            thresholds: Thresholds::default(),
            precision: Precision::F32,
            state: Some(QueryState::new(20, 192)),
            licence: "apache-2.0".into(),
            source_sha256: "ab".into(),
            converter: "eomt-edge 0".into(),
        }
    }

    #[test]
    fn survives_a_round_trip() {
        let props = example().to_props().into_iter().collect();
        assert_eq!(Metadata::from_props(&props).unwrap(), Some(example()));
    }

    #[test]
    fn bad_entries_are_named() {
        for (key, value) in [
            ("labels", "nonsense"),
            ("stuff_classes", "[9]"),
            ("input_size", "[1]"),
            ("precision", "f7"),
            ("image_std", "[0, 1, 1]"),
            ("query_state", "{\"input\": \"a\", \"output\": \"b\", \"shape\": [1, 2, 3], \"first\": \"ones\"}"),
        ] {
            let mut props: BTreeMap<_, _> = example().to_props().into_iter().collect();
            props.insert(key.into(), value.into());
            let message = Metadata::from_props(&props).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
        assert_eq!(Metadata::from_props(&BTreeMap::new()).unwrap(), None);
        for lost in ["task", "labels", "thresholds", "name"] {
            let props: BTreeMap<_, _> = example().to_props().into_iter().filter(|(key, _)| key != lost).collect();
            let message = Metadata::from_props(&props).unwrap_err().to_string();
            assert!(message.contains(lost), "{message}");
        }
    }

    #[test]
    fn entries_of_others_are_not_ours() {
        let pairs = [("task", "segment"), ("names", "{0: 'a'}"), ("imgsz", "[640, 640]"), ("stride", "32"), ("name", "yolo")];
        let props = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        assert_eq!(Metadata::from_props(&props).unwrap(), None);
    }
}
