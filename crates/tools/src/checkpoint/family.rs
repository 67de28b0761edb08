//! Networks under transformers' names without its `config.json`: the checkpoints of LibreYOLO and attr-eomt, which describe themselves
//! beside the state, and any other such state.
//!
//! ```text
//! {'model': …, 'names': {0: 'person', …}, 'imgsz': 640, 'task': 'panoptic', 'thing_class_ids': [0, …], …}   LibreYOLO 1.6
//! {'model': …, 'names': …, 'imgsz': 644, 'task': 'instance', 'norm_mean': …, 'aux_heads': […], …}          attr-eomt 2.0
//! ```
//!
//! The shapes of the weights replace `config.json`; the number of heads follows from the width, or the hints.
//! Refuses: attr-eomt's detectors, its feature pyramid, and its own kind of masks where inference still needs them.

use eomt_edge_core::data::Task;
use serde_json::{Map, Value, json};

use super::backbone;
use super::common::Contents;
use super::error::CheckpointError;
use super::hf;
use super::hf_config::{CLASS_HEAD, MASK_PROBS, QUERY};
use super::hints::{self, Hints};
use super::json::Object;
use super::labels;
use super::meta::Meta;
use super::network::{Position, Resampling};
use super::tensors::Tensors;

const POSITIONS: &str = "embeddings.position_embeddings.weight";

/// The program that wrote the file.
#[derive(Clone, Copy, PartialEq)]
enum Writer {
    LibreYolo,
    AttrEomt,
    Unknown,
}

/// Reads the network.
///
/// # Errors
/// See [`CheckpointError`]; each names the key or tensor.
pub(super) fn read(mut tensors: Tensors, mut hints: Hints) -> Result<Contents, CheckpointError> {
    let meta = tensors.meta.clone();
    let writer = match () {
        () if meta.get("libreyolo_version").is_some() => Writer::LibreYolo,
        () if meta.get("eomt_version").is_some() => Writer::AttrEomt,
        () => Writer::Unknown,
    };
    if meta.text("model_family")?.is_some_and(|family| family != "eomt") && writer == Writer::LibreYolo {
        return Err(meta.wrong("model_family", "eomt"));
    }
    fill(&mut hints, &meta, writer, &mut tensors)?;
    if writer == Writer::AttrEomt {
        leave_out(&meta, &mut tensors)?;
        no_masks(&mut hints, &mut tensors)?;
    }
    if writer == Writer::Unknown {
        let assumed = "its sizes are those of the weights, its activation GELU, and epsilon, rotary base and classes the usual ones or those of the hints";
        tensors.warnings.push(format!("there is no config.json beside the weights: {assumed}"));
    }
    let config = config(&tensors, &mut hints)?;
    let mut contents = hf::read(&config, tensors, hints)?;
    if writer == Writer::AttrEomt {
        contents.image_mean = meta.triple("norm_mean")?.unwrap_or(contents.image_mean);
        contents.image_std = meta.triple("norm_std")?.unwrap_or(contents.image_std);
        if contents.image_std.iter().any(|std| *std <= 0.0) {
            return Err(meta.wrong("norm_std", "three numbers above 0"));
        }
        if let Position::Learned { resampling, .. } = &mut contents.network.position {
            *resampling = Resampling::Plain { offset: 0.0 };
        }
    }
    if labels::are_unnamed(&contents.classes.labels) {
        contents.warnings.push("the checkpoint does not name its classes; give them as 'labels' in the hints".to_string());
    }
    Ok(contents)
}

/// Fills the hints in from the entries beside the state.
fn fill(hints: &mut Hints, meta: &Meta, writer: Writer, tensors: &mut Tensors) -> Result<(), CheckpointError> {
    if writer == Writer::Unknown {
        return Ok(());
    }
    let file = hints.file.clone();
    let classes = meta.positive("nc")?;
    hints::fill(&file, &mut hints.num_labels, "num_labels", classes, "nc")?;
    let count = tensors.dims::<2>(CLASS_HEAD)?[0].saturating_sub(1);
    if let Some(names) = meta.names("names")? {
        let mut labels = labels::unnamed(count);
        for (class, name) in names {
            match labels.get_mut(class) {
                Some(label) => *label = name,
                None => return Err(meta.wrong("names", &format!("names of the classes 0 to {}", count.saturating_sub(1)))),
            }
        }
        let known = Some(labels).filter(|labels| !labels::are_unnamed(labels));
        hints::fill(&file, &mut hints.labels, "labels", known, "names")?;
    }
    let task = match meta.text("task")? {
        Some("panoptic") => Some(Task::Panoptic),
        Some("instance" | "segment") => Some(Task::Instance),
        Some("semantic") => Some(Task::Semantic),
        Some("detect") => {
            let problem = "it is a detector ('task' is detect), which predicts boxes and no masks";
            return Err(CheckpointError::layout(&tensors.path, problem));
        }
        Some(_) => return Err(meta.wrong("task", "panoptic, instance, segment or semantic")),
        None => None,
    };
    hints::fill(&file, &mut hints.task, "task", task, "task")?;
    if let Some(things) = meta.sizes("thing_class_ids")? {
        if things.iter().any(|class| *class >= count) {
            return Err(meta.wrong("thing_class_ids", &format!("classes from 0 to {}", count.saturating_sub(1))));
        }
        let stuff = (0..count).filter(|class| !things.contains(class)).collect();
        hints::fill(&file, &mut hints.stuff_classes, "stuff_classes", Some(stuff), "thing_class_ids")?;
    }
    let image = meta.pair("imgsz")?;
    if writer == Writer::LibreYolo && tensors.has(POSITIONS) {
        // LibreYOLO builds the network for the table of positions, whatever the size beside it.
        let (table, patch) = (square(tensors)?, patch(tensors)?);
        if let (Some(image), Some(table)) = (image, table)
            && image != table
        {
            tensors
                .warnings
                .push(format!("'imgsz' is {image:?}, but the positions are for {table:?} pixels with patches of {patch:?}; that is taken"));
        }
        return hints::fill(&file, &mut hints.image_size, "image_size", table, POSITIONS);
    }
    hints::fill(&file, &mut hints.image_size, "image_size", image, "imgsz")
}

/// Drops the additions of attr-eomt that do not change masks and classes, with a warning each.
///
/// # Errors
/// For an addition that changes them.
fn leave_out(meta: &Meta, tensors: &mut Tensors) -> Result<(), CheckpointError> {
    for (part, what) in [
        ("fpn.", "a feature pyramid"),
        ("bank.", "a feature pyramid"),
        ("cross_blocks.", "a feature pyramid"),
        ("box_head.", "boxes instead of masks"),
    ] {
        if let Some(entry) = tensors.entries.iter().find(|(name, _)| name.starts_with(part)).map(|(_, entry)| entry) {
            let problem = format!("tensor '{}' belongs to {what} of attr-eomt, which this program does not have", entry.name);
            return Err(CheckpointError::layout(&tensors.path, problem));
        }
    }
    if meta.get("compression").is_some() {
        let problem = "is set: the weights are compressed by torchao; give the checkpoint from before";
        return Err(CheckpointError::key(&meta.file, "compression", problem));
    }
    let additions = [
        ("aux_heads.", "attributes of the segments are left out"),
        ("quality_head.", "scores are class probabilities, without attr-eomt's predicted mask quality"),
        ("aux_box_head.", "boxes are those of the masks, not of attr-eomt's box head"),
        ("match_head.", "embeddings for matching across pictures are left out"),
        ("xview.", "pictures are segmented one by one, not several views together"),
        ("refiner.", "pictures are segmented one by one, not several views together"),
    ];
    for (part, consequence) in additions {
        if tensors.entries.keys().any(|name| name.starts_with(part)) {
            tensors.ignore(|name| name.starts_with(part));
            tensors.warnings.push(format!("attr-eomt's '{}' is not part of the network here: {consequence}", part.trim_end_matches('.')));
        }
    }
    if meta.flag("letterbox")? == Some(false) {
        let said = "the network was trained on pictures stretched to a square ('letterbox' is False), and here they keep their shape";
        tensors.warnings.push(said.to_string());
    }
    Ok(())
}

/// attr-eomt masks by the largest logit of a patch and lets a query without any patch see all, which no other network does.
///
/// # Errors
/// When inference still needs such masks.
fn no_masks(hints: &mut Hints, tensors: &mut Tensors) -> Result<(), CheckpointError> {
    let [blocks] = tensors.dims(MASK_PROBS)?;
    let probs = tensors.peek(MASK_PROBS, &[blocks])?;
    if hints.masked_attention != Some(false)
        && let Some(prob) = probs.iter().find(|prob| **prob > 0.0)
    {
        let problem = format!(
            "tensor '{MASK_PROBS}' holds {prob}: attr-eomt's own kind of mask is still needed, which this program does not have; \
             train until it is annealed to 0, or say 'masked_attention': false in the hints"
        );
        return Err(CheckpointError::layout(&tensors.path, problem));
    }
    hints.masked_attention = Some(false);
    Ok(())
}

/// The configuration that `config.json` would hold.
fn config(tensors: &Tensors, hints: &mut Hints) -> Result<Object, CheckpointError> {
    let [queries, hidden] = tensors.dims(QUERY)?;
    let [rows, _] = tensors.dims(CLASS_HEAD)?;
    let [blocks] = tensors.dims(MASK_PROBS)?;
    let rotary = !tensors.has("embeddings.patch_embeddings.projection.weight");
    let patch = patch(tensors)?;
    let image = match hints.image_size {
        Some(image) => image,
        None => square(tensors)?.ok_or_else(|| {
            CheckpointError::key(&tensors.path, "image_size", "is needed in the hints: the weights do not tell the size of the input")
        })?,
    };
    let registers = tensors.shape("embeddings.register_tokens").map_or(0, |shape| shape.get(1).copied().unwrap_or(0));
    let heads = backbone::heads(tensors, hints, hidden, rotary).map_err(|error| match hints.heads {
        None => {
            let problem = format!(
                "is needed in the hints: there is no config.json, and the weights do not tell the heads of a network of width {hidden}"
            );
            CheckpointError::key(&tensors.path, "num_attention_heads", problem)
        }
        Some(_) => error,
    })?;
    let mut map = Map::new();
    let mut set = |key: &str, value: Value| drop(map.insert(key.into(), value));
    set("model_type", json!(model_type(tensors, rotary)?));
    set("hidden_size", json!(hidden));
    set("num_hidden_layers", json!(tensors.count("layers.")));
    set("num_attention_heads", json!(heads));
    set("num_queries", json!(queries));
    set("num_register_tokens", json!(registers));
    set("num_blocks", json!(blocks));
    set("num_upscale_blocks", json!(tensors.count("upscale_block.block.")));
    set("image_size", json!(image));
    set("patch_size", json!(patch));
    set("num_labels", json!(rows.saturating_sub(1)));
    let eps = hints.eps.map_or(if rotary { 1e-5 } else { 1e-6 }, f64::from);
    set("layer_norm_eps", json!(eps));
    let gated = tensors.has("layers.0.mlp.gate_proj.weight") || tensors.has("layers.0.mlp.weights_in.weight");
    if rotary {
        for (key, part) in [
            ("query_bias", "attention.q_proj"),
            ("key_bias", "attention.k_proj"),
            ("value_bias", "attention.v_proj"),
            ("proj_bias", "attention.o_proj"),
            ("mlp_bias", "mlp.up_proj"),
        ] {
            set(key, json!(tensors.has(&format!("layers.0.{part}.bias"))));
        }
        set("use_gated_mlp", json!(gated));
        set("hidden_act", json!(if gated { "silu" } else { "gelu" }));
        set("rope_theta", json!(hints.theta.map_or(100.0, f64::from)));
        set("intermediate_size", json!(tensors.dims::<2>("layers.0.mlp.up_proj.weight")?[0]));
    } else {
        set("use_swiglu_ffn", json!(gated));
        if !gated {
            set("mlp_ratio", json!(tensors.dims::<2>("layers.0.mlp.fc1.weight")?[0] as f64 / hidden as f64));
        }
    }
    Ok(Object { file: tensors.path.clone(), map })
}

fn model_type(tensors: &Tensors, rotary: bool) -> Result<&'static str, CheckpointError> {
    match (rotary, tensors.has("query_updater.weight")) {
        (false, false) => Ok("eomt"),
        (true, false) => Ok("eomt_dinov3"),
        (false, true) => Ok("videomt"),
        (true, true) => {
            let problem =
                "tensor 'query_updater.weight' belongs to VidEoMT, which transformers has with a DINOv2 backbone only; this is DINOv3";
            Err(CheckpointError::layout(&tensors.path, problem))
        }
    }
}

fn patch(tensors: &Tensors) -> Result<[usize; 2], CheckpointError> {
    let name = ["embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.weight"];
    let name = name.into_iter().find(|name| tensors.has(name)).unwrap_or(name[0]);
    let [_, _, height, width] = tensors.dims(name)?;
    Ok([height, width])
}

/// The input of a square table of positions.
fn square(tensors: &Tensors) -> Result<Option<[usize; 2]>, CheckpointError> {
    if !tensors.has(POSITIONS) {
        return Ok(None);
    }
    let [positions, _] = tensors.dims(POSITIONS)?;
    let side = positions.isqrt();
    Ok((side * side == positions).then_some(patch(tensors)?.map(|patch| side * patch)))
}
