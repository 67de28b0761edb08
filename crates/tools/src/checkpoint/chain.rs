//! Checkpoints of [`crate::chain`]: `config.json` with `model_type` [`MODEL_TYPE`] and the sizes, `model.safetensors`, and transformers'
//! configuration of an image processor.
//!
//! Invariants: the weights are those that the sizes ask for, no more and no less, and finite. Refuses: sizes that no network has.

use std::collections::BTreeMap;
use std::path::Path;

use eomt_edge_core::data::{Task, Thresholds};
use serde_json::{Map, Value, json};

use super::error::CheckpointError;
use super::json::Object;
use super::network::Array;
use super::{labels, licence, name, read_processor, weights};
use crate::chain::{self, Sizes};

/// `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "vit_mask2former";

/// One network with Mask2Former's decoder, its classes, and how to prepare its input.
#[derive(Debug, Clone)]
pub struct Chain {
    /// What it is.
    pub sizes: Sizes,
    /// All weights by name.
    pub weights: BTreeMap<String, Array>,
    /// C class names, in class order.
    pub labels: Vec<String>,
    /// Classes that are merged over segments, ascending; `None` = the checkpoint does not tell.
    pub stuff_classes: Option<Vec<usize>>,
    /// What it was trained for; `None` = the checkpoint does not tell.
    pub task: Option<Task>,
    /// Per channel (RGB), in units of pixel value / 255.
    pub image_mean: [f32; 3],
    /// Per channel (RGB), in units of pixel value / 255, above 0.
    pub image_std: [f32; 3],
    /// Those of its image processor, else the reference's.
    pub thresholds: Thresholds,
    /// Lower-case hex SHA-256 of the weight file.
    pub source_sha256: String,
    /// The folder's name.
    pub name: String,
    /// The licence that its folder names, one line; `None` = the folder does not tell.
    pub licence: Option<String>,
    /// What the reader had to assume; each a sentence for the user.
    pub warnings: Vec<String>,
}

/// Whether `path` is a folder whose `config.json` names [`MODEL_TYPE`].
pub fn is_chain(path: &Path) -> bool {
    let config = path.join("config.json");
    config.is_file() && Object::read(&config).is_ok_and(|object| object.text("model_type").ok().flatten() == Some(MODEL_TYPE))
}

/// Reads a folder for which [`is_chain`] holds.
///
/// # Errors
/// [`CheckpointError`]: one sentence that names the file and the key or tensor.
pub fn read_chain(path: &Path) -> Result<Chain, CheckpointError> {
    let object = Object::read(&path.join("config.json"))?;
    let sizes = sizes(&object)?;
    let labels = object.numbered_texts("id2label")?.unwrap_or_else(|| labels::unnamed(sizes.classes));
    if labels.len() != sizes.classes {
        return Err(object.wrong("id2label", &format!("{} classes, as 'classes' says", sizes.classes)));
    }
    let mut tensors = weights::open(&weights::find(path)?, None)?;
    let source_sha256 = weights::sha256(&tensors)?;
    let mut arrays = BTreeMap::new();
    for weight in chain::weights(&sizes) {
        let array = tensors.array(&weight.name, &weight.shape)?;
        arrays.insert(weight.name, array);
    }
    tensors.finish()?;
    let processor = read_processor(path, [sizes.image; 2], false)?;
    let own =
        object.text("task")?.map(|text| text.parse().map_err(|_| object.wrong("task", "panoptic, instance or semantic"))).transpose()?;
    let mut stuff_classes = object.sizes("stuff_classes")?;
    if let Some(stuff) = &mut stuff_classes {
        stuff.sort_unstable();
        stuff.dedup();
        if stuff.last().is_some_and(|class| *class >= sizes.classes) {
            return Err(object.wrong("stuff_classes", &format!("class numbers below {}", sizes.classes)));
        }
    }
    Ok(Chain {
        sizes,
        weights: arrays,
        labels,
        stuff_classes,
        task: own.or(processor.task),
        image_mean: processor.mean,
        image_std: processor.std,
        thresholds: processor.thresholds,
        source_sha256,
        name: name(path),
        licence: licence::of_folder(path)?,
        warnings: processor.warnings,
    })
}

/// The keys that [`Sizes`] has; others are for other programs.
fn sizes(object: &Object) -> Result<Sizes, CheckpointError> {
    let known = json!(Sizes::of_vit(chain::Architecture::NoMultiScale, 1, 1, 1));
    let keys = known.as_object().into_iter().flat_map(Map::keys);
    let given = keys.filter_map(|key| Some((key.clone(), object.map.get(key).filter(|value| !value.is_null())?.clone())));
    let own: Map<String, Value> = given.collect();
    let sizes: Sizes = serde_json::from_value(Value::Object(own)).map_err(|error| {
        CheckpointError::damaged(&object.file, format!("it does not say the sizes of a network with Mask2Former's decoder ({error})"))
    })?;
    sizes.check().map_err(|problem| CheckpointError::damaged(&object.file, problem))?;
    Ok(sizes)
}

/// `config.json` of a network.
pub fn chain_config(sizes: &Sizes, labels: &[String]) -> Value {
    let mut config = json!(sizes);
    let names: Map<_, _> = labels.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
    let ids: Map<_, _> = labels.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
    let others = json!({ "model_type": MODEL_TYPE, "id2label": names, "label2id": ids, "patch_size": chain::PATCH });
    if let (Value::Object(config), Value::Object(others)) = (&mut config, others) {
        config.extend(others);
    }
    config
}
