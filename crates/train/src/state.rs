//! A run on disk: the state from which it resumes, and the checkpoint that others read. Files appear whole or not at all.
//!
//! | file | holds |
//! |---|---|
//! | `state.safetensors` | weights and moments after a step, and the recipe |
//! | `curves.csv`, `curves.svg` | the loss by step ([`super::curves`]) |
//! | `config.json`, `model.safetensors`, `preprocessor_config.json` (for video, `video_preprocessor_config.json`) | the checkpoint, as transformers reads it |
//! | `README.md` | its card, with the licence of the weights with which the run began; one that is there stays |

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use eomt_edge_host::{bounds, files};
use eomt_edge_tools::checkpoint::{Array, chain_config};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::optimizer::Moments;
use super::parameters::{Parameters, Positions, Sizes, shapes};
use super::recipe::Recipe;

pub(super) const STATE: &str = "state.safetensors";

/// How far a run is.
pub(super) struct State {
    /// Steps done.
    pub step: u64,
    pub parameters: Parameters,
    pub moments: Moments,
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Entry {
    fn new(name: String, shape: &[usize], values: &[f32]) -> Entry {
        Entry { name, shape: shape.to_vec(), bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }
}

fn write(path: &Path, entries: &[Entry], metadata: HashMap<String, String>) -> Result<()> {
    let mut views = vec![];
    for entry in entries {
        let view = TensorView::new(Dtype::F32, entry.shape.clone(), &entry.bytes).context("a tensor's shape does not fit its values")?;
        views.push((entry.name.as_str(), view));
    }
    let bytes = safetensors::serialize(views, Some(metadata)).with_context(|| format!("{}: cannot be written", path.display()))?;
    files::write(path, &bytes)
}

/// Writes the state of a run into its directory.
pub(super) fn save(directory: &Path, state: &State, recipe: &Recipe) -> Result<()> {
    let mut entries = vec![];
    for (place, (name, array)) in state.parameters.arrays()?.iter().enumerate() {
        entries.push(Entry::new(format!("weight.{name}"), &array.shape, &array.data));
        entries.push(Entry::new(format!("first.{name}"), &array.shape, &state.moments.first[place]));
        entries.push(Entry::new(format!("second.{name}"), &array.shape, &state.moments.second[place]));
    }
    let metadata = HashMap::from([("step".to_owned(), state.step.to_string()), ("recipe".to_owned(), serde_json::to_string(recipe)?)]);
    write(&directory.join(STATE), &entries, metadata)
}

/// Reads the state of a run, if there is one.
///
/// # Errors
/// When the file is broken or belongs to a run of another recipe.
pub(super) fn load(directory: &Path, recipe: &Recipe) -> Result<Option<State>> {
    let path = directory.join(STATE);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = files::read(&path, &bounds::TENSORS)?;
    let broken = || format!("{}: this is not the state of a training run", path.display());
    let (_, header) = SafeTensors::read_metadata(&bytes).with_context(broken)?;
    let metadata = header.metadata().as_ref().with_context(broken)?;
    let theirs: Recipe = serde_json::from_str(metadata.get("recipe").with_context(broken)?).with_context(broken)?;
    if let Some(difference) = theirs.difference(recipe) {
        bail!("{}: it belongs to a run with another {difference}; take another output directory, or the same options", path.display());
    }
    let step = metadata.get("step").and_then(|step| step.parse().ok()).with_context(broken)?;
    let file = SafeTensors::deserialize(&bytes).with_context(broken)?;
    let read = |prefix: &str| -> Result<Vec<(String, Array)>> {
        let mut names = shapes(&recipe.sizes);
        names.sort();
        let one = |(name, shape): (String, Vec<usize>)| {
            let tensor = file.tensor(&format!("{prefix}.{name}")).with_context(broken)?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
                bail!("{}: '{prefix}.{name}' has the shape {:?}, not {shape:?}", path.display(), tensor.shape());
            }
            let data = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            Ok((name, Array { shape, data }))
        };
        names.into_iter().map(one).collect()
    };
    let values = |arrays: Vec<(String, Array)>| arrays.into_iter().map(|(_, array)| array.data).collect();
    let moments = Moments { first: values(read("first")?), second: values(read("second")?) };
    Ok(Some(State { step, parameters: Parameters::new(read("weight")?)?, moments }))
}

/// Copies the checkpoint of one directory to another.
pub(super) fn copy_checkpoint(from: &Path, to: &Path) -> Result<()> {
    files::make_directory(to)?;
    // the configuration last, as in `export`
    for name in ["model.safetensors", "preprocessor_config.json", "README.md", "config.json"] {
        let bytes = files::read(&from.join(name), &bounds::TENSORS)?;
        files::write(&to.join(name), &bytes)?;
    }
    Ok(())
}

/// Writes the checkpoint of the current weights, with the probabilities of masked attention.
pub(super) fn export(directory: &Path, state: &State, recipe: &Recipe) -> Result<()> {
    let probabilities = recipe.probabilities(state.step);
    let sizes = &recipe.sizes;
    let mut entries: Vec<Entry> = state.parameters.arrays()?.into_iter().map(|(name, a)| Entry::new(name, &a.shape, &a.data)).collect();
    if sizes.chain.is_none() {
        let mut class_weights = vec![1.0; sizes.classes + 1];
        class_weights[sizes.classes] = recipe.loss.no_object_weight;
        entries.push(Entry::new("criterion.empty_weight".into(), &[class_weights.len()], &class_weights));
        entries.push(Entry::new("attn_mask_probs".into(), &[probabilities.len()], &probabilities));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    // The configuration comes last: without it no reader accepts the folder.
    write(&directory.join("model.safetensors"), &entries, metadata)?;
    let (name, processor) = processor(recipe);
    files::write(&directory.join(name), format!("{processor:#}\n").as_bytes())?;
    let card = directory.join("README.md");
    if !card.exists() {
        files::write(&card, model_card(recipe).as_bytes())?;
    }
    let config = match &sizes.chain {
        Some(chain) => chain_config(chain, &recipe.labels),
        None => config(sizes, recipe),
    };
    files::write(&directory.join("config.json"), format!("{config:#}\n").as_bytes())
}

/// transformers' configuration of the image or video processor, and the name of its file.
fn processor(recipe: &Recipe) -> (&'static str, Value) {
    let sizes = &recipe.sizes;
    let mut processor = json!({
        "do_resize": true,
        "do_rescale": true,
        "do_normalize": true,
        "image_mean": recipe.mean,
        "image_std": recipe.std,
        "rescale_factor": 1.0 / 255.0,
    });
    let (name, kind) = if sizes.video {
        let size = json!({ "height": sizes.image, "width": sizes.image });
        (
            "video_preprocessor_config.json",
            json!({ "video_processor_type": "VideomtVideoProcessor", "do_sample_frames": false, "size": size }),
        )
    } else {
        let kind = if sizes.chain.is_some() { "Mask2FormerImageProcessor" } else { "EomtImageProcessor" };
        let size = json!({ "shortest_edge": sizes.image, "longest_edge": sizes.image });
        ("preprocessor_config.json", json!({ "image_processor_type": kind, "do_pad": true, "do_split_image": false, "size": size }))
    };
    extend(&mut processor, kind);
    (name, processor)
}

fn extend(config: &mut Value, more: Value) {
    if let (Value::Object(config), Value::Object(more)) = (config, more) {
        config.extend(more);
    }
}

/// What the checkpoint is, for people, and its licence, for `convert`.
fn model_card(recipe: &Recipe) -> String {
    let kind = recipe.sizes.chain.as_ref().map_or(if recipe.sizes.video { "VidEoMT" } else { "EoMT" }, |chain| chain.architecture.name());
    let Recipe { start, data, steps, batch, labels, .. } = recipe;
    let licence = recipe.licence.as_ref().map(|licence| format!("---\nlicense: {}\n---\n", json!(licence))).unwrap_or_default();
    format!(
        "{licence}# {kind}, trained by eomt-edge\n\nFrom {start}, on {data}, {steps} steps of {batch} images. Classes: {}.\n",
        labels.join(", ")
    )
}

/// The configuration as transformers' EomtConfig or EomtDinov3Config has it.
fn config(sizes: &Sizes, recipe: &Recipe) -> Value {
    let loss = &recipe.loss;
    let names: Map<_, _> = recipe.labels.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
    let ids: Map<_, _> = recipe.labels.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
    let mut config = json!({
        "attention_dropout": 0.0,
        "class_weight": loss.class_weight,
        "dice_weight": loss.dice_weight,
        "drop_path_rate": 0.0,
        "dtype": "float32",
        "hidden_act": sizes.activation.name(),
        "hidden_dropout_prob": 0.0,
        "hidden_size": sizes.hidden,
        "id2label": names,
        "image_size": sizes.image,
        "importance_sample_ratio": loss.importance,
        "initializer_range": 0.02,
        "label2id": ids,
        "layer_norm_eps": sizes.eps,
        "layerscale_value": 1.0,
        "mask_weight": loss.mask_weight,
        "no_object_weight": loss.no_object_weight,
        "num_attention_heads": sizes.heads,
        "num_blocks": sizes.query_blocks,
        "num_channels": 3,
        "num_hidden_layers": sizes.blocks,
        "num_queries": sizes.queries,
        "num_register_tokens": sizes.registers,
        "num_upscale_blocks": sizes.scale_blocks,
        "oversample_ratio": loss.oversample,
        "patch_size": sizes.patch,
        "train_num_points": loss.points,
    });
    let kind = match sizes.positions {
        Positions::Learned => json!({
            "architectures": [if sizes.video { "VideomtForUniversalSegmentation" } else { "EomtForUniversalSegmentation" }],
            "model_type": if sizes.video { "videomt" } else { "eomt" },
            "mlp_ratio": mlp_ratio(sizes),
            "use_swiglu_ffn": sizes.gated,
        }),
        Positions::Rotary { theta, key_bias } => json!({
            "architectures": ["EomtDinov3ForUniversalSegmentation"],
            "model_type": "eomt_dinov3",
            "intermediate_size": sizes.inner,
            "key_bias": key_bias,
            "mlp_bias": true,
            "pos_embed_jitter": null,
            "pos_embed_rescale": null,
            "pos_embed_shift": null,
            "proj_bias": true,
            "query_bias": true,
            "rope_parameters": { "rope_theta": theta, "rope_type": "default" },
            "use_gated_mlp": sizes.gated,
            "value_bias": true,
        }),
    };
    extend(&mut config, kind);
    config
}

/// Of EomtConfig, which makes gated MLPs two thirds as wide, rounded up to a multiple of eight. transformers takes whole numbers only, so one of these where
/// there is one.
fn mlp_ratio(sizes: &Sizes) -> Value {
    let gated_width = |ratio: usize| (sizes.hidden * ratio * 2 / 3).next_multiple_of(8);
    if let Some(ratio) = (1..=16).find(|ratio| sizes.gated && gated_width(*ratio) == sizes.inner) {
        return json!(ratio);
    }
    let width = if sizes.gated { sizes.inner * 3 / 2 } else { sizes.inner };
    if width.is_multiple_of(sizes.hidden) { json!(width / sizes.hidden) } else { json!(width as f64 / sizes.hidden as f64) }
}
