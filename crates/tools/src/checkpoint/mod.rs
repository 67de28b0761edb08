//! The checkpoint reader: files of transformers or of the EoMT authors become one [`Network`] with its labels.
//!
//! ```no_run
//! use eomt_edge_tools::checkpoint::{Options, read};
//! let checkpoint = read("coco_panoptic_eomt_small_640_2x/pytorch_model.bin".as_ref(), &Options::default())?;
//! assert_eq!(checkpoint.labels.len(), 133);
//! # Ok::<(), eomt_edge_tools::checkpoint::CheckpointError>(())
//! ```
//!
//! ```text
//! safetensors ─▶ weights ────────────────┐                   ┌─ family ─▶ hf ─────────────────┐
//! .bin, .pt ─▶ opcodes, pickle ─▶ state ─┴─▶ names, tensors ─┤                                ├─▶ common::Contents
//!                                 └─▶ meta (other entries)   └─ upstream, lightly ─▶ backbone ─┘
//! hints, presets, labels ───────────────────────────────────────▲                 (timm, dinov3)
//! ```
//!
//! Invariants: every tensor of the file is used or known to be useless, has the shape that the network needs and finite
//! values; a configuration counts only where the weights agree. One tensor at a time is read, so the peak is the
//! network in `f32` plus its largest tensor.
//! [`read_headless`] reads backbones that have no heads yet, for training.
//! Refuses: to run anything (a pickle is data), to guess (what a file does not tell must be a hint), to download.

mod backbone;
mod chain;
mod common;
mod dinov3;
mod element;
mod error;
mod family;
mod headless;
mod hf;
mod hf_config;
mod hints;
mod json;
mod labels;
mod licence;
mod lightly;
mod lightning;
mod meta;
mod names;
mod network;
mod opcodes;
mod pickle;
mod presets;
mod state;
mod tensors;
#[cfg(test)]
pub(crate) mod tests;
mod timm;
mod torch;
mod upstream;
mod weights;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use eomt_edge_core::data::Thresholds;
use eomt_edge_core::model::processor::{PREPROCESSOR_FILE, PROCESSOR_FILE, Processor, ProcessorError, Texts, VIDEO_PROCESSOR_FILE};
use eomt_edge_host::{bounds, files};

pub use backbone::Backbone;
pub use chain::{Chain, MODEL_TYPE, chain_config, is_chain, read_chain};
pub use error::CheckpointError;
pub use headless::{Headless, read_headless};
pub use licence::DINOV3_TERMS;
pub use network::{Activation, Array, Block, Checkpoint, Linear, Masking, Mlp, Network, Norm, Position, Resampling, ScaleBlock};

use common::Contents;
use hints::Hints;
use json::Object;
use names::Layout;

/// What the user adds to a checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// A JSON file with hints, or the name of a published model. Without it, the reader looks for such a name in the path of the checkpoint.
    pub hints: Option<&'a str>,
    /// The folder of the DINOv3 weights (`dinov3_vit`, transformers' layout) that a delta checkpoint builds on.
    pub base: Option<&'a Path>,
}

/// Reads a checkpoint: a folder (with `config.json` and `model.safetensors`, its shards or `pytorch_model.bin`, or a folder
/// with the authors' file alone), or one weight file (`.bin`, `.pth`, `.ckpt`, `.safetensors`).
///
/// # Errors
/// [`CheckpointError`]: one sentence that names the file and the key or tensor.
pub fn read(path: &Path, options: &Options) -> Result<Checkpoint, CheckpointError> {
    let is_dir = std::fs::metadata(path).map_err(error::io_error(path))?.is_dir();
    let (dir, file) = if is_dir { (path.to_path_buf(), weights::find(path)?) } else { (path.with_file_name(""), path.to_path_buf()) };
    let hints = Hints::read(options.hints, path)?;
    let tensors = weights::open_network(&file, hints.state.as_deref())?;
    let config = dir.join("config.json");
    if let Some(refusal) = headless::refusal(path, &config, &tensors)? {
        return Err(refusal);
    }
    let source_sha256 = weights::sha256(&tensors)?;
    let mut thresholds = Thresholds::default();
    let layout = names::layout(&tensors);
    if let (Some(base), Some(Layout::Transformers | Layout::Lightly)) = (options.base, layout) {
        return Err(CheckpointError::layout(path, dinov3::whole_with_base(base)));
    }
    let contents = match layout {
        // The authors' folders may hold a config.json that does not describe the network, which normalizes inside.
        Some(Layout::Authors) => upstream::read(tensors, hints, options.base)?,
        Some(Layout::Lightly) => lightly::read(tensors, hints)?,
        _ if config.is_file() => {
            let mut contents = hf::read(&Object::read(&config)?, tensors, hints)?;
            let processor = read_processor(&dir, contents.network.image_size, contents.network.query_updater.is_some())?;
            thresholds = processor.thresholds;
            adopt(&mut contents, processor);
            contents
        }
        Some(Layout::Transformers) => family::read(tensors, hints)?,
        None => {
            let problem = "the tensors are not named as in a checkpoint of an EoMT network (of the authors, transformers or LightlyTrain), \
                           and there is no config.json beside them";
            return Err(CheckpointError::layout(&file, problem));
        }
    };
    let mut licence = licence::of_folder(&dir)?;
    if options.base.is_some() {
        licence = Some(licence.map_or_else(|| DINOV3_TERMS.to_owned(), |own| format!("{own}; encoder: {}", DINOV3_TERMS)));
    }
    Ok(Checkpoint {
        network: contents.network,
        labels: contents.classes.labels,
        stuff_classes: contents.classes.stuff,
        task: contents.classes.task,
        image_mean: contents.image_mean,
        image_std: contents.image_std,
        thresholds,
        source_sha256,
        name: contents.classes.preset.map_or_else(|| name(path), |preset| preset.names[0].to_string()),
        licence,
        warnings: contents.warnings,
    })
}

/// The name of the folder, or of the file unless it is one that every checkpoint has.
fn name(path: &Path) -> String {
    let absolute: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let stem = absolute
        .file_stem()
        .filter(|_| !absolute.is_dir())
        .and_then(OsStr::to_str)
        .filter(|stem| !["pytorch_model", "model", "best", "last", "exported_best", "exported_last"].contains(stem));
    let dir = if absolute.is_dir() { Some(absolute.as_path()) } else { absolute.parent() };
    let dir = dir.and_then(Path::file_name).and_then(OsStr::to_str);
    error::quote(stem.or(dir).unwrap_or("checkpoint"))
}

/// Mean and standard deviation, thresholds and task of transformers' image processor, when the folder has its configuration.
fn read_processor(dir: &Path, [height, width]: [usize; 2], video: bool) -> Result<Processor, CheckpointError> {
    let pictures = if video { VIDEO_PROCESSOR_FILE } else { PREPROCESSOR_FILE };
    let [preprocessor, processor] = [pictures, PROCESSOR_FILE].map(|name| {
        let file = dir.join(name);
        file.is_file().then(|| files::read_text(&file, &bounds::JSON).map_err(error::io_error(&file))).transpose()
    });
    let (preprocessor, processor) = (preprocessor?, processor?);
    let texts = Texts { preprocessor: preprocessor.as_deref(), processor: processor.as_deref(), video };
    let wrong = |error: ProcessorError| match error {
        ProcessorError::Damaged { file, reason } => CheckpointError::damaged(&dir.join(file), format!("it is not a JSON object: {reason}")),
        ProcessorError::Key { file, key, problem } => CheckpointError::key(&dir.join(file), &key, problem),
    };
    Processor::read(&texts, (height, width)).map_err(wrong)
}

fn adopt(contents: &mut Contents, processor: Processor) {
    (contents.image_mean, contents.image_std) = (processor.mean, processor.std);
    contents.classes.task = contents.classes.task.or(processor.task);
    contents.warnings.extend(processor.warnings);
}
