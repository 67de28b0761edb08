//! What transformers' image processor is told: `preprocessor_config.json`, or `image_processor` inside of `processor_config.json`.
//!
//! ```
//! use eomt_edge_core::model::processor::{Processor, Texts};
//! let text = r#"{"image_mean": 0.5, "image_std": [0.5, 0.5, 0.5], "do_pad": false}"#;
//! let texts = Texts { preprocessor: Some(text), ..Texts::default() };
//! let processor = Processor::read(&texts, (640, 640)).unwrap();
//! assert_eq!((processor.mean, processor.std), ([0.5; 3], [0.5; 3]));
//! assert!(processor.warnings[0].contains("do_pad"));
//! ```
//!
//! Semantics are those of EomtImageProcessor in transformers 4.57 to 5.24 (`image_processing_eomt.py` and its base classes). This
//! program always does the same: RGB, bilinear with antialiasing, aspect kept, black padding right and bottom. A setting that asks for
//! something else is honoured where mean and standard deviation can express it, an error where the network would get other values than
//! it was trained with everywhere, else a warning. Each names the file and the key.
//! Refuses: to open files (the caller hands their texts in).

use serde_json::{Map, Value};

use super::bounds::one_line;
use super::metadata::{IMAGENET_MEAN, IMAGENET_STD};
use crate::data::{Task, Thresholds};

/// The newer file, which is read before [`PREPROCESSOR_FILE`], as transformers does.
pub const PROCESSOR_FILE: &str = "processor_config.json";
/// The older file.
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// The same for networks for video.
pub const VIDEO_PROCESSOR_FILE: &str = "video_preprocessor_config.json";

/// PIL's number for bilinear.
const BILINEAR: u64 = 2;
const FILTERS: [&str; 6] = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"];

/// Switches that do not touch pictures, or that are read below.
const KNOWN_SWITCHES: [&str; 10] = [
    "do_resize",
    "do_rescale",
    "do_normalize",
    "do_pad",
    "do_split_image",
    "do_center_crop",
    "do_flip_channel_order",
    "do_convert_rgb",
    "do_reduce_labels",
    "do_convert_annotations",
];

/// Keys under which a file may say that channels are blue, green, red.
const ORDER_KEYS: [&str; 5] = ["channel_order", "color_order", "color_format", "image_format", "input_format"];

/// The texts of the two files, where they exist.
#[derive(Debug, Clone, Copy, Default)]
pub struct Texts<'a> {
    /// Of [`PREPROCESSOR_FILE`].
    pub preprocessor: Option<&'a str>,
    /// Of [`PROCESSOR_FILE`].
    pub processor: Option<&'a str>,
    /// They are of a network for video: the first is [`VIDEO_PROCESSOR_FILE`], and the object in the other is `video_processor`.
    pub video: bool,
}

/// Why a processor's configuration cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProcessorError {
    /// Not JSON.
    #[error("{file} is not a JSON object: {reason}")]
    Damaged {
        /// Its name.
        file: &'static str,
        /// The JSON reader's words.
        reason: String,
    },
    /// A key asks for something that this program does not do.
    #[error("{file}: '{key}' {problem}")]
    Key {
        /// The file's name.
        file: &'static str,
        /// Its key.
        key: String,
        /// The end of the sentence.
        problem: String,
    },
}

/// What the files say, as this program can do it.
#[derive(Debug, Clone, PartialEq)]
pub struct Processor {
    /// The file that counts; `None`: there is none, and all below are defaults.
    pub file: Option<&'static str>,
    /// Per channel, of pixel values in 0..=1: what `do_rescale`, `rescale_factor` and `do_normalize` come to.
    pub mean: [f32; 3],
    /// Standard deviation in the same unit.
    pub std: [f32; 3],
    /// Whether mean and standard deviation are more than a change of unit.
    pub normalizes: bool,
    /// Defaults of the post-processing.
    pub thresholds: Thresholds,
    /// When the file names one.
    pub task: Option<Task>,
    /// One sentence each about what is done otherwise.
    pub warnings: Vec<String>,
}

impl Default for Processor {
    /// ImageNet statistics, as every published EoMT has them.
    fn default() -> Processor {
        Processor {
            file: None,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            normalizes: true,
            thresholds: Thresholds::default(),
            task: None,
            warnings: Vec::new(),
        }
    }
}

impl Processor {
    /// Reads the file that transformers would read; `input` is the (height, width) that the network was trained with.
    ///
    /// # Errors
    /// [`ProcessorError`]: no JSON, a value of the wrong kind, or a setting without which the network gets wrong values.
    pub fn read(texts: &Texts, input: (usize, usize)) -> Result<Processor, ProcessorError> {
        let Some(settings) = Settings::choose(texts)? else { return Ok(Processor::default()) };
        settings.refuse_channel_order()?;
        let mut processor = Processor { file: Some(settings.file), task: settings.task()?, ..Processor::default() };
        settings.normalization(&mut processor)?;
        let Thresholds { score, mask, overlap } = processor.thresholds;
        processor.thresholds = Thresholds {
            score: settings.probability("threshold")?.unwrap_or(score),
            mask: settings.probability("mask_threshold")?.unwrap_or(mask),
            overlap: settings.probability("overlap_mask_area_threshold")?.unwrap_or(overlap),
        };
        settings.warn(input, &mut processor.warnings)?;
        Ok(processor)
    }
}

/// The object that counts, and the file it is in.
struct Settings {
    file: &'static str,
    map: Map<String, Value>,
}

impl Settings {
    /// transformers prefers the nested object. A processor's file without one describes no pictures, unless it is a flat one alone.
    fn choose(texts: &Texts) -> Result<Option<Settings>, ProcessorError> {
        let (file, key) = if texts.video { (VIDEO_PROCESSOR_FILE, "video_processor") } else { (PREPROCESSOR_FILE, "image_processor") };
        let processor = texts.processor.map(|text| parse(PROCESSOR_FILE, text)).transpose()?;
        if let Some(map) = &processor {
            match map.get(key) {
                Some(Value::Object(nested)) => return Ok(Some(Settings { file: PROCESSOR_FILE, map: nested.clone() })),
                None | Some(Value::Null) => {}
                Some(other) => {
                    return Err(key_error(PROCESSOR_FILE, key, format!("is {}, expected an object", short(other))));
                }
            }
        }
        if let Some(text) = texts.preprocessor {
            let map = parse(file, text)?;
            // some repositories nest here as well
            let map = map.get(key).and_then(Value::as_object).cloned().unwrap_or(map);
            return Ok(Some(Settings { file, map }));
        }
        let flat = processor.filter(|map| map.keys().any(|key| key.starts_with("do_") || key.starts_with("image_")));
        Ok(flat.map(|map| Settings { file: PROCESSOR_FILE, map }))
    }

    /// A key whose value is absent or `null` is `None`.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> ProcessorError {
        key_error(self.file, key, format!("is {}, expected {expected}", self.map.get(key).map_or("absent".to_owned(), short)))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ProcessorError> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))).transpose()
    }

    fn probability(&self, key: &str) -> Result<Option<f64>, ProcessorError> {
        let in_range = |value: &Value| value.as_f64().filter(|number| (0.0..=1.0).contains(number));
        self.get(key).map(|value| in_range(value).ok_or_else(|| self.wrong(key, "a number from 0 to 1"))).transpose()
    }

    fn task(&self) -> Result<Option<Task>, ProcessorError> {
        let expected = "panoptic, instance or semantic";
        let parse = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| self.wrong("task", expected));
        let task = self.get("task").map(parse).transpose()?;
        // transformers documents the windows as those of semantic segmentation
        Ok(task.or(self.flag("do_split_image")?.unwrap_or(false).then_some(Task::Semantic)))
    }

    /// One number for all channels, or three.
    fn channels(&self, key: &str) -> Result<Option<[f32; 3]>, ProcessorError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = |value: &Value| value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        let channels = match value {
            Value::Array(items) if items.len() == 1 => number(&items[0]).map(|number| [number; 3]),
            Value::Array(items) => {
                items.iter().map(number).collect::<Option<Vec<f32>>>().and_then(|numbers| <[f32; 3]>::try_from(numbers).ok())
            }
            value => number(value).map(|number| [number; 3]),
        };
        channels.map(Some).ok_or_else(|| self.wrong(key, "a number or a list of three"))
    }

    /// Mean and standard deviation in units of pixel value / 255; the file's are in units of pixel value * `rescale_factor`.
    fn normalization(&self, processor: &mut Processor) -> Result<(), ProcessorError> {
        let kind = ["image_processor_type", "feature_extractor_type"].into_iter().find_map(|key| Some((key, self.get(key)?.as_str()?)));
        let ours = kind.is_none_or(|(_, kind)| kind.starts_with("Eomt"));
        processor.normalizes = self.flag("do_normalize")?.unwrap_or(true);
        let (mean, std) = (self.channels("image_mean")?, self.channels("image_std")?);
        (processor.mean, processor.std) = match (processor.normalizes, kind) {
            (false, _) => ([0.0; 3], [1.0; 3]),
            (true, Some((key, kind))) if !ours && (mean.is_none() || std.is_none()) => {
                let problem = format!("is {kind}, whose defaults this program does not know: write image_mean and image_std into the file");
                return Err(key_error(self.file, key, problem));
            }
            (true, _) => (mean.unwrap_or(processor.mean), std.unwrap_or(processor.std)),
        };
        if let Some((key, kind)) = kind.filter(|_| !ours) {
            let note = format!("{}: '{key}' is {kind}, not EomtImageProcessor: only what the file says in words counts", self.file);
            processor.warnings.push(note);
        }
        if processor.std.iter().any(|std| *std <= 0.0) {
            return Err(self.wrong("image_std", "numbers above 0"));
        }
        let factor = match self.get("rescale_factor") {
            _ if self.flag("do_rescale")? == Some(false) => 1.0,
            None => 1.0 / 255.0,
            Some(value) => {
                let number = value.as_f64().filter(|number| *number as f32 > 0.0 && (*number as f32).is_finite());
                number.ok_or_else(|| self.wrong("rescale_factor", "a finite number above 0"))?
            }
        };
        let unit = (255.0 * factor) as f32;
        if (unit - 1.0).abs() > 1e-5 {
            processor.mean = processor.mean.map(|mean| mean / unit);
            processor.std = processor.std.map(|std| std / unit);
        }
        Ok(())
    }

    /// Frames come as RGB; a network that wants BGR would see wrong colours in every picture.
    fn refuse_channel_order(&self) -> Result<(), ProcessorError> {
        let problem = "asks for blue, green, red, which this program does not give: swap the channels of the first layer's weights instead";
        if self.flag("do_flip_channel_order")? == Some(true) {
            return Err(key_error(self.file, "do_flip_channel_order", format!("is true: it {problem}")));
        }
        let is_bgr = |key: &&str| self.get(key).and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case("bgr"));
        if let Some(key) = ORDER_KEYS.iter().find(|key| is_bgr(key)) {
            return Err(key_error(self.file, key, problem));
        }
        if self.flag("rescale_offset")? == Some(true) {
            return Err(key_error(self.file, "rescale_offset", "is true, which this program does not do: put the offset into image_mean"));
        }
        Ok(())
    }

    /// What is done otherwise than the file says.
    fn warn(&self, input: (usize, usize), warnings: &mut Vec<String>) -> Result<(), ProcessorError> {
        let mut warn = |key: &str, text: String| warnings.push(format!("{}: '{key}' {text}", self.file));
        let splits = self.flag("do_split_image")?.unwrap_or(false);
        if splits {
            let text = "is true: windows along the longer side are cut only by the --windows of segment and evaluate; else pictures are \
                        fitted into the input and padded";
            warn("do_split_image", text.to_owned());
        } else if self.flag("do_pad")? == Some(false) {
            warn("do_pad", "is false, but pictures of another shape than the input's are padded (right and bottom, black)".to_owned());
        }
        if self.flag("do_resize")? == Some(false) {
            warn("do_resize", "is false, but pictures of another size than the input's are resized".to_owned());
        } else {
            if let Some(text) = self.size(splits, input)? {
                warn("size", text);
            }
            if let Some(name) = self.filter()? {
                warn("resample", format!("is {name}, but pictures are resized by the bilinear filter"));
            }
        }
        if self.flag("do_center_crop")? == Some(true) {
            warn("do_center_crop", "is true, but pictures are never cropped".to_owned());
        }
        if let Some(size) = self.get("pad_size") {
            let sides = size.as_object().and_then(|size| Some((whole(size.get("height")?)?, whole(size.get("width")?)?)));
            if sides != Some(input) {
                warn("pad_size", format!("is {}, but pictures are padded to the input, {}", short(size), sized(input)));
            }
        }
        let unknown = self.map.iter().filter(|(key, value)| key.starts_with("do_") && **value == Value::Bool(true));
        for (key, _) in unknown.filter(|(key, _)| !KNOWN_SWITCHES.contains(&key.as_str())) {
            warn(key, "is true, which this program does not know and does not do".to_owned());
        }
        Ok(())
    }

    /// What of `size` is not what [`crate::data::Geometry::fit`] does: aspect kept, the whole picture inside of the input.
    fn size(&self, splits: bool, input: (usize, usize)) -> Result<Option<String>, ProcessorError> {
        let Some(value) = self.get("size") else { return Ok(None) };
        let expected = "a whole number, [height, width], or an object with shortest_edge and longest_edge";
        let side = |key: &str| value.get(key).filter(|side| !side.is_null());
        let number = |value: &Value| whole(value).filter(|side| *side > 0).ok_or_else(|| self.wrong("size", expected));
        let pair = |a: &Value, b: &Value| Ok::<_, ProcessorError>((number(a)?, number(b)?));
        let (text, stretched) = (short(value), "stretches pictures, but here their aspect is kept and they are padded");
        let other = |sides: (usize, usize)| {
            (sides != input).then(|| format!("is {text}, but the network takes {}: pictures are fitted into that", sized(input)))
        };
        match (value, side("shortest_edge"), side("longest_edge")) {
            (Value::Array(items), ..) if items.len() == 2 => {
                pair(&items[0], &items[1])?;
                Ok(Some(format!("is {text}, which {stretched}")))
            }
            (_, Some(short), Some(long)) => Ok(other(pair(short, long)?)),
            (_, None, Some(long)) => Ok(other((number(long)?, number(long)?))),
            (Value::Number(_), ..) | (_, Some(_), None) => {
                let shorter = number(side("shortest_edge").unwrap_or(value))?;
                let window = shorter == input.0 && input.0 == input.1;
                if splits && window {
                    return Ok(None); // said with do_split_image
                }
                let text = format!("is {text}, a shorter side, but the whole picture is fitted into the input, {}", sized(input));
                Ok(Some(text))
            }
            (Value::Object(map), ..) => match (map.get("height"), map.get("width"), map.get("max_height"), map.get("max_width")) {
                (Some(height), Some(width), ..) => {
                    pair(height, width)?;
                    Ok(Some(format!("is {text}, which {stretched}")))
                }
                (_, _, Some(height), Some(width)) => Ok(other(pair(height, width)?)),
                _ => Err(self.wrong("size", expected)),
            },
            _ => Err(self.wrong("size", expected)),
        }
    }

    /// The name of a filter that is not ours.
    fn filter(&self) -> Result<Option<String>, ProcessorError> {
        let expected = "the number of one of PIL's filters, 0 to 5, or its name";
        match self.get("resample") {
            None => Ok(None),
            Some(Value::String(name)) => Ok(Some(name.to_ascii_lowercase()).filter(|name| name != "bilinear")),
            Some(value) => {
                let number = value.as_u64().filter(|number| *number < 6).ok_or_else(|| self.wrong("resample", expected))?;
                Ok((number != BILINEAR).then(|| format!("{number} ({})", FILTERS[number as usize])))
            }
        }
    }
}

fn parse(file: &'static str, text: &str) -> Result<Map<String, Value>, ProcessorError> {
    // a byte order mark is what some editors leave behind
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(ProcessorError::Damaged { file, reason: format!("it holds {}", short(&other)) }),
        Err(error) => Err(ProcessorError::Damaged { file, reason: error.to_string() }),
    }
}

fn key_error(file: &'static str, key: &str, problem: impl Into<String>) -> ProcessorError {
    ProcessorError::Key { file, key: short(&Value::from(key)).trim_matches('"').to_owned(), problem: problem.into() }
}

/// JSON from Python may write 4 as 4.0.
fn whole(value: &Value) -> Option<usize> {
    value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=1e6).contains(number)).map(|number| number as usize)
}

fn sized((height, width): (usize, usize)) -> String {
    format!("{height}x{width}")
}

/// A value for a sentence: one line, at most 80 characters.
fn short(value: &Value) -> String {
    let text = value.to_string();
    let mut short = one_line(&text, 80);
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
