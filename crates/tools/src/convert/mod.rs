//! `convert`: turns a checkpoint into one ONNX file that describes itself.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge_core::model::Precision;
//! use eomt_edge_tools::convert::{ConvertOptions, convert};
//! let options = ConvertOptions { precision: Precision::Int8, ..ConvertOptions::default() };
//! convert("checkpoint".as_ref(), "model.onnx".as_ref(), &options)?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! checkpoint ─▶ network ─────────────────────────────────────────────────▶ graph ─▶ ONNX    (f32)
//!                  └─▶ fold ─▶ calibrate ─▶ mean_removal ─▶ smoothquant ─▶ selection ──┘    (int8)
//! ```
//!
//! A network with Mask2Former's decoder ([`crate::chain`]) goes its own way to the graph (`chain`).
//!
//! int8 is post-training quantization: a calibration pass (`calibrate`), mean removal (Outlier Suppression+, Wei et al. 2023), SmoothQuant
//! (Xiao et al. 2022), rounding with error feedback (GPTQ, Frantar et al. 2022), bias correction (Nagel et al. 2019), and a choice of
//! layers by their signal to quantization noise (`selection`). None of them changes the function of the f32 network.
//!
//! Invariants: the file holds standard operators of opset 17 only; the output appears whole or not at all; before that, the program loads
//! it and compares it with its plain evaluation. Refuses: to overwrite its own input.

mod calibrate;
mod chain;
mod fold;
mod gptq;
mod graph;
mod layers;
mod mean_removal;
mod onnx;
mod position;
mod quantize;
mod samples;
mod selection;
mod smoothquant;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use eomt_edge_core::data::{Task, Thresholds};
use eomt_edge_core::model::{LoadOptions, Metadata, Model, PRODUCER, Precision, QueryState};
use eomt_edge_host::files::AtomicFile;
use eomt_edge_host::output::{say, usage};
use indicatif::ProgressBar;
use tract_onnx::pb::ModelProto;

use super::checkpoint::{self, Checkpoint, DINOV3_TERMS, Masking, Options, Position};
use super::progress;
use graph::Form;

pub use position::{interpolate as interpolate_positions, rotary_tables};

/// The largest protobuf message, and so ONNX file, has 2 GiB, of which the graph needs some.
const WEIGHTS_INSIDE_MAX: usize = (1 << 31) - (64 << 20);

/// Options of [`convert`].
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// Input (height, width) in pixels; default: that of training.
    pub size: Option<(usize, usize)>,
    /// Default: what the checkpoint says, else panoptic.
    pub task: Option<Task>,
    /// Labels or class indices that are stuff; default: what the checkpoint's labels say.
    pub stuff: Option<Vec<String>>,
    /// A JSON file of hints, or the name of a published model.
    pub hints: Option<String>,
    /// The DINOv3 weights that a delta checkpoint builds on.
    pub base: Option<PathBuf>,
    /// How the weights of the linear layers are stored.
    pub precision: Precision,
    /// Directory or bag of calibration pictures for int8; default: procedural scenes.
    pub calibrate: Option<PathBuf>,
    /// Score threshold to store in the file, 0 to 1; default: that of the checkpoint's image processor, else the reference's.
    pub threshold: Option<f64>,
    /// Mask threshold to store, 0 to 1; default as for `threshold`.
    pub mask_threshold: Option<f64>,
    /// Overlap threshold to store, 0 to 1; default as for `threshold`.
    pub overlap_threshold: Option<f64>,
    /// One line; default: what the checkpoint's folder says.
    pub licence: Option<String>,
    /// Skip loading the result and comparing it with its plain evaluation.
    pub skip_check: bool,
    /// Print and warn of nothing, for callers that convert again and again.
    pub quiet: bool,
    /// Weights of more bytes than this go into a second file, `OUTPUT.data`.
    pub weights_inside_max: usize,
}

impl Default for ConvertOptions {
    fn default() -> ConvertOptions {
        ConvertOptions {
            size: None,
            task: None,
            stuff: None,
            hints: None,
            base: None,
            precision: Precision::F32,
            calibrate: None,
            threshold: None,
            mask_threshold: None,
            overlap_threshold: None,
            licence: None,
            skip_check: false,
            quiet: false,
            weights_inside_max: WEIGHTS_INSIDE_MAX,
        }
    }
}

/// Reads `checkpoint`, writes `output`, and loads it once to verify that it runs. Prints one line, and for int8 the table of layers.
///
/// # Errors
/// A sentence that names the file and the tensor or key at fault; `output` is then unchanged.
pub fn convert(checkpoint: &Path, output: &Path, options: &ConvertOptions) -> Result<()> {
    refuse_own_input(checkpoint, output)?;
    let pictures = calibration_pictures(options)?;
    let mut file = AtomicFile::create(output)?; // before the work, to learn at once that the output cannot be written
    let spinner = progress::spinner("reading the checkpoint");
    let written = if checkpoint::is_chain(checkpoint) {
        chain::write(checkpoint, options)?
    } else {
        write_network(checkpoint, options, &pictures.files, &spinner)?
    };
    let Written { mut proto, metadata, mut warnings, masked, table } = written;
    let (height, width) = metadata.input_size;
    let weights = onnx::weight_bytes(&proto);
    let beside = if weights > options.weights_inside_max { Some(write_beside(&mut proto, output)?) } else { None };
    let bytes = onnx::encode(proto);
    let mut mask_cost = None;
    match &beside {
        Some(_) => warnings.push(format!(
            "one ONNX file cannot hold these weights: they lie in {}.data beside it; the pair is not checked, try it with bench",
            output.display()
        )),
        None if options.skip_check => {}
        None => {
            spinner.set_message("checking that it loads");
            let options = LoadOptions::default();
            let mut loaded = Model::load(&bytes, &options).context("the converted network does not load; nothing was written")?;
            mask_cost = loaded.mask_cost().map(|cost| cost.to_string());
            spinner.set_message("comparing it with its plain evaluation");
            loaded.check(&bytes, 2, &options).context("the converted network does not compute right; nothing was written")?;
        }
    }
    if masked > 0 {
        warnings.push(mask_cost.unwrap_or_else(|| {
            format!("{masked} blocks attend through masks (attn_mask_probs is not 0), which costs time; loading the file says how much")
        }));
    }
    file.write_all(&bytes).with_context(|| format!("{}: cannot be written", output.display()))?;
    // both are on the disk before either has its name: one without the other would be another network
    file.sync()?;
    if let Some(weights_file) = beside {
        weights_file.commit()?;
    }
    file.commit()?;
    spinner.finish_and_clear();
    if options.quiet {
        return Ok(());
    }
    // not earlier: a failure prints one sentence
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if !table.is_empty() {
        selection::print(&table)?;
    }
    let Metadata { task, labels, .. } = &metadata;
    let megabytes = weights as f64 / 1e6;
    say(format_args!("{}: {height}x{width}, {task}, {} classes, {megabytes:.1} MB of weights", output.display(), labels.len()))
}

/// A graph, and what there is to say about it.
struct Written {
    proto: ModelProto,
    metadata: Metadata,
    warnings: Vec<String>,
    /// Blocks that attend through masks.
    masked: usize,
    /// Of int8.
    table: Vec<selection::LayerChoice>,
}

/// Reads an EoMT and writes its graph.
fn write_network(path: &Path, options: &ConvertOptions, pictures: &[PathBuf], spinner: &ProgressBar) -> Result<Written> {
    let read = Options { hints: options.hints.as_deref(), base: options.base.as_deref() };
    let mut checkpoint = checkpoint::read(path, &read)?;
    let mut warnings = checkpoint.warnings.clone();
    let metadata = describe(&Subject::new(&checkpoint), options, &mut warnings)?;
    let (height, width) = metadata.input_size;
    let masked = checkpoint.network.masking.iter().filter(|masking| **masking != Masking::Off).count();
    let (form, table) = match options.precision {
        Precision::F32 | Precision::Bf16 => (Form::Float, Vec::new()),
        Precision::Int8 => {
            spinner.set_message("calibrating");
            prepare_int8(&mut checkpoint, (height, width), pictures)?
        }
    };
    spinner.set_message("writing the graph");
    let built = graph::build(checkpoint.network, (height, width), form);
    let mut proto = built.graph.finish(&metadata.name, metadata.to_props());
    if options.precision == Precision::Bf16 {
        onnx::store_in_bf16(&mut proto);
    }
    Ok(Written { proto, metadata, warnings, masked, table })
}

/// Prepares the network for int8 without changing its function, and selects the layers that become int8.
fn prepare_int8(checkpoint: &mut Checkpoint, size: (usize, usize), pictures: &[PathBuf]) -> Result<(Form, Vec<selection::LayerChoice>)> {
    fold::fold(&mut checkpoint.network);
    let mut calibration = calibrate::run(checkpoint, size, pictures)?;
    mean_removal::remove_means(&mut checkpoint.network, &mut calibration);
    smoothquant::smooth(&mut checkpoint.network, &mut calibration);
    let (table, int8) = selection::select(&checkpoint.network, &calibration);
    Ok((Form::Tokens { int8 }, table))
}

fn calibration_pictures(options: &ConvertOptions) -> Result<calibrate::Pictures> {
    match &options.calibrate {
        None => Ok(calibrate::Pictures::default()),
        Some(directory) if options.precision != Precision::Int8 => {
            usage(format!("--calibrate {}: only --precision int8 is calibrated", directory.display()))
        }
        Some(directory) => calibrate::pictures(directory),
    }
}

/// A slip of the hand must not cost the checkpoint.
fn refuse_own_input(checkpoint: &Path, output: &Path) -> Result<()> {
    let Ok(existing) = output.canonicalize() else { return Ok(()) };
    let Ok(input) = checkpoint.canonicalize() else { return Ok(()) };
    let inside = input.is_dir() && existing.parent() == Some(&input) && existing.extension().is_none_or(|extension| extension != "onnx");
    if existing == input || inside {
        return usage(format!("--output {}: that is part of the checkpoint", output.display()));
    }
    Ok(())
}

/// Writes the weights to `OUTPUT.data`, under a temporary name for now.
fn write_beside(proto: &mut ModelProto, output: &Path) -> Result<AtomicFile> {
    let mut name = output.file_name().with_context(|| format!("{}: this is no name for a file", output.display()))?.to_owned();
    name.push(".data");
    let path = output.with_file_name(&name);
    let mut file = AtomicFile::create(&path)?;
    onnx::externalize(proto, &name.to_string_lossy(), &mut file).with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(file)
}

/// What the metadata of a file says, whatever network is in it.
struct Subject<'a> {
    /// Input of training.
    image_size: [usize; 2],
    /// What a chosen input must be a multiple of.
    multiple: [usize; 2],
    patch_size: [usize; 2],
    labels: &'a [String],
    stuff_classes: Option<&'a [usize]>,
    task: Option<Task>,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    thresholds: Thresholds,
    name: &'a str,
    licence: Option<&'a str>,
    source_sha256: &'a str,
    /// The positions are DINOv3's.
    rotary: bool,
    state: Option<QueryState>,
}

impl Subject<'_> {
    fn new(checkpoint: &Checkpoint) -> Subject<'_> {
        let network = &checkpoint.network;
        Subject {
            image_size: network.image_size,
            multiple: network.patch_size,
            patch_size: network.patch_size,
            labels: &checkpoint.labels,
            stuff_classes: checkpoint.stuff_classes.as_deref(),
            task: checkpoint.task,
            image_mean: checkpoint.image_mean,
            image_std: checkpoint.image_std,
            thresholds: checkpoint.thresholds,
            name: &checkpoint.name,
            licence: checkpoint.licence.as_deref(),
            source_sha256: &checkpoint.source_sha256,
            rotary: matches!(network.position, Position::Rotary { .. }),
            state: network.query_updater.as_ref().map(|_| QueryState::new(network.queries.shape[0], network.hidden)),
        }
    }
}

fn describe(subject: &Subject, options: &ConvertOptions, warnings: &mut Vec<String>) -> Result<Metadata> {
    let [multiple_height, multiple_width] = subject.multiple;
    let (height, width) = options.size.unwrap_or((subject.image_size[0], subject.image_size[1]));
    // the size of training may hold part of a patch, which the network ignores, as in the reference
    let whole = height > 0 && width > 0 && height.is_multiple_of(multiple_height) && width.is_multiple_of(multiple_width);
    if options.size.is_some() && !whole {
        let what = if subject.multiple == subject.patch_size { "the patch size" } else { "two patches, for the coarsest map" };
        return usage(format!("--size {height}x{width}: both sides must be multiples of {what}, {multiple_height}x{multiple_width}"));
    }
    let tokens = (height / subject.patch_size[0]) * (width / subject.patch_size[1]);
    if tokens > 1 << 16 {
        return usage(format!("--size {height}x{width}: {tokens} patches are more than any machine this is for can attend to"));
    }
    let task = options.task.or(subject.task).unwrap_or_default();
    let stuff_classes = match (&options.stuff, subject.stuff_classes) {
        (Some(names), _) => names.iter().map(|name| find_class(subject.labels, name)).collect::<Result<_>>()?,
        (None, Some(classes)) => classes.iter().map(|&class| class as u16).collect(),
        (None, None) => {
            if task == Task::Panoptic {
                warnings.push("nothing says which classes are stuff, so all count as things; name them with --stuff".to_owned());
            }
            Vec::new()
        }
    };
    let licence = options.licence.clone().or_else(|| subject.licence.map(str::to_owned)).unwrap_or_default();
    if licence.is_empty() && subject.rotary {
        warnings.push(format!(
            "nothing says under which licence this checkpoint is. If its encoder derives from Meta's DINOv3, those terms bind this network, too: \
             {DINOV3_TERMS}; --licence writes them into the file"
        ));
    }
    Ok(Metadata {
        name: subject.name.to_owned(),
        task,
        labels: subject.labels.to_vec(),
        stuff_classes,
        image_mean: subject.image_mean,
        image_std: subject.image_std,
        input_size: (height, width),
        thresholds: subject.thresholds.with(options.threshold, options.mask_threshold, options.overlap_threshold),
        precision: options.precision,
        state: subject.state.clone(),
        licence,
        source_sha256: subject.source_sha256.to_owned(),
        converter: format!("{PRODUCER} {}", env!("CARGO_PKG_VERSION")),
    })
}

fn find_class(labels: &[String], name: &str) -> Result<u16> {
    let by_label = labels.iter().position(|label| label == name);
    let by_index = || name.parse::<usize>().ok().filter(|&index| index < labels.len());
    match by_label.or_else(by_index) {
        Some(class) => Ok(class as u16),
        None => usage(format!("--stuff {name}: there is no such class among the {} of the checkpoint", labels.len())),
    }
}
