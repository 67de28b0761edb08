//! Facts that a checkpoint lacks and the user, or the name of a published model, supplies.
//!
//! ```json
//! {"image_size": 640, "num_attention_heads": 6, "labels": ["floor", "box"], "stuff_classes": [0], "task": "panoptic"}
//! ```
//!
//! Invariant: a hint fills in what is unknown and must agree with what is known; it never overrides.

use std::path::{Path, PathBuf};

use eomt_edge_core::data::Task;

use super::error::{CheckpointError, quote};
use super::json::Object;
use super::presets::{self, Named, PRESETS, Preset};

const KEYS: [&str; 17] = [
    "image_size",
    "patch_size",
    "num_attention_heads",
    "num_blocks",
    "num_labels",
    "labels",
    "id2label",
    "stuff_classes",
    "task",
    "layer_norm_eps",
    "masked_attention",
    "preset",
    "num_register_tokens",
    "rope_theta",
    "delta",
    "num_queries",
    "state",
];

/// Everything known about a checkpoint from outside of it.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// The file, or the name of the preset; for messages.
    pub file: PathBuf,
    pub image_size: Option<[usize; 2]>,
    pub patch_size: Option<[usize; 2]>,
    pub heads: Option<usize>,
    pub num_blocks: Option<usize>,
    pub num_labels: Option<usize>,
    pub num_queries: Option<usize>,
    pub registers: Option<usize>,
    pub labels: Option<Vec<String>>,
    pub stuff_classes: Option<Vec<usize>>,
    pub task: Option<Task>,
    pub eps: Option<f32>,
    pub theta: Option<f32>,
    pub masked_attention: Option<bool>,
    pub delta: Option<bool>,
    /// Which state of a file with several: the path of its keys, or the prefix of its tensors.
    pub state: Option<String>,
    pub preset: Option<&'static Preset>,
    /// The preset comes from the checkpoint's path, not from the user: it is dropped when something contradicts it.
    pub guessed: bool,
}

impl Hints {
    /// From the `--hints` argument (a JSON file or the name of a published model) and the checkpoint's path.
    ///
    /// # Errors
    /// For neither a file nor a name, an unknown key, a value out of range, or the 7B model.
    pub fn read(argument: Option<&str>, checkpoint: &Path) -> Result<Hints, CheckpointError> {
        let mut hints = match argument {
            None => Hints { file: checkpoint.into(), ..Hints::default() },
            Some(text) => match presets::named(text) {
                Some(named) => Hints { file: text.into(), preset: Some(supported(named, Path::new(text))?), ..Hints::default() },
                None if Path::new(text).is_file() => parse(&Object::read(Path::new(text))?)?,
                None => {
                    let known: Vec<&str> = PRESETS.iter().map(|preset| preset.names[0]).collect();
                    let problem = format!("the hints are neither a file nor the name of a published model ({})", known.join(", "));
                    return Err(CheckpointError::layout(Path::new(&quote(text)), problem));
                }
            },
        };
        if hints.preset.is_none() {
            // Not canonical: the hub's cache links files with telling paths to files without.
            let absolute = std::path::absolute(checkpoint).unwrap_or_else(|_| checkpoint.into());
            hints.preset = presets::in_path(&absolute).map(|named| supported(named, checkpoint)).transpose()?;
            hints.guessed = hints.preset.is_some();
        }
        Ok(hints)
    }

    /// Compares a hint with `source`, which is a tensor (`network.…`) or a file.
    ///
    /// # Errors
    /// When the two differ.
    pub fn agree<T: PartialEq + std::fmt::Debug>(&self, key: &str, hint: Option<T>, known: T, source: &str) -> Result<(), CheckpointError> {
        let Some(hint) = hint.filter(|hint| *hint != known) else { return Ok(()) };
        let source = if source.starts_with("network.") { format!("tensor '{source}'") } else { source.to_string() };
        Err(CheckpointError::key(&self.file, key, format!("is {hint:?}, but {source} says {known:?}")))
    }
}

/// Fills a hint in from the checkpoint itself, under `source`.
///
/// # Errors
/// When the user's hint differs.
pub(super) fn fill<T: PartialEq + std::fmt::Debug>(
    file: &Path,
    hint: &mut Option<T>,
    key: &str,
    known: Option<T>,
    source: &str,
) -> Result<(), CheckpointError> {
    let Some(known) = known else { return Ok(()) };
    match hint {
        Some(hint) if *hint != known => {
            let (hint, known) = (quote(&format!("{hint:?}")), quote(&format!("{known:?}")));
            Err(CheckpointError::key(file, key, format!("is {hint}, but '{source}' in the checkpoint says {known}")))
        }
        _ => {
            *hint = Some(known);
            Ok(())
        }
    }
}

fn supported(named: Named, path: &Path) -> Result<&'static Preset, CheckpointError> {
    match named {
        Named::Model(preset) => Ok(preset),
        Named::TooLarge(name) => Err(CheckpointError::layout(path, format!("{name} has 7 billion parameters and is not supported"))),
    }
}

fn parse(object: &Object) -> Result<Hints, CheckpointError> {
    let file = object.file.clone();
    if let Some(key) = object.map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(CheckpointError::key(&file, key, format!("is not a hint; known are {}", KEYS.join(", "))));
    }
    let task = object.text("task")?.map(|text| text.parse::<Task>().map_err(|_| object.wrong("task", "panoptic, instance or semantic")));
    let preset = match object.text("preset")? {
        Some(name) => match presets::named(name) {
            Some(named) => Some(supported(named, &file)?),
            None => return Err(object.wrong("preset", "the name of a published model")),
        },
        None => None,
    };
    let hints = Hints {
        image_size: object.pair("image_size")?,
        patch_size: object.pair("patch_size")?,
        heads: object.positive("num_attention_heads")?,
        num_blocks: object.positive("num_blocks")?,
        num_labels: object.positive("num_labels")?,
        num_queries: object.positive("num_queries")?,
        registers: object.size("num_register_tokens")?,
        labels: labels(object)?,
        stuff_classes: object.sizes("stuff_classes")?,
        task: task.transpose()?,
        eps: object.float("layer_norm_eps")?,
        theta: object.float("rope_theta")?,
        masked_attention: object.flag("masked_attention")?,
        delta: object.flag("delta")?,
        state: object.text("state")?.map(str::to_string),
        preset,
        guessed: false,
        file,
    };
    let preset = hints.preset;
    let pairs = [
        ("num_labels", hints.num_labels, hints.labels.as_ref().map(Vec::len), "the number of its 'labels' is"),
        ("num_attention_heads", hints.heads, preset.map(|preset| preset.size.hidden() / 64), "that of the preset is"),
        ("num_register_tokens", hints.registers, preset.map(|_| 4), "that of the preset is"),
        ("image_size", hints.image_size.map(|size| size[0]), preset.map(|preset| preset.input), "that of the preset is"),
    ];
    for (key, hint, other, source) in pairs {
        if let (Some(hint), Some(other)) = (hint, other)
            && hint != other
        {
            return Err(CheckpointError::key(&hints.file, key, format!("is {hint}, but {source} {other}")));
        }
    }
    Ok(hints)
}

fn labels(object: &Object) -> Result<Option<Vec<String>>, CheckpointError> {
    match (object.texts("labels")?, object.numbered_texts("id2label")?) {
        (Some(labels), Some(others)) if labels != others => {
            Err(CheckpointError::key(&object.file, "labels", "and 'id2label' name different classes"))
        }
        (labels, others) => Ok(labels.or(others)),
    }
}
