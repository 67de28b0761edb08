//! `convert`: a checkpoint becomes one ONNX file that describes itself.

mod graph;
mod onnx;
mod position;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use prost::Message;

use super::checkpoint::{self, Checkpoint, Network, Options};
use super::{files, progress, usage};
use crate::data::{Task, Thresholds};
use crate::model::{LoadOptions, Metadata, Model, Precision};

/// protobuf, and so one ONNX file, ends here.
const PROTOBUF_MAX: usize = i32::MAX as usize;

/// What `convert` can be told.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// Input (height, width); default: that of training.
    pub size: Option<(usize, usize)>,
    /// Default: what the checkpoint says, else panoptic.
    pub task: Option<Task>,
    /// Labels or class indices that are stuff; default: what the checkpoint's labels say.
    pub stuff: Option<Vec<String>>,
    /// A JSON file of hints, or the name of a published model.
    pub hints: Option<String>,
    /// The DINOv3 weights that a delta checkpoint builds on.
    pub base: Option<PathBuf>,
    /// Default thresholds to store in the file.
    pub thresholds: Thresholds,
    /// Do not load the result to check it.
    pub skip_check: bool,
}

/// Reads `checkpoint`, writes `output` and loads it once to see that it runs.
///
/// # Errors
/// A sentence that names the file and the tensor or key at fault; `output` is then left as it was.
pub fn convert(checkpoint: &Path, output: &Path, options: &ConvertOptions) -> Result<()> {
    let spinner = progress::spinner("reading the checkpoint");
    let read = Options { hints: options.hints.as_deref(), base: options.base.as_deref() };
    let checkpoint = checkpoint::read(checkpoint, &read)?;
    checkpoint.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let metadata = describe(&checkpoint, options)?;
    spinner.set_message("writing the graph");
    let size = metadata.input_size;
    let network = checkpoint.network;
    let parameters = count_parameters(&network);
    if parameters * 4 > PROTOBUF_MAX {
        anyhow::bail!("{} million parameters in f32 exceed the 2 GiB that one ONNX file can hold", parameters / 1_000_000);
    }
    let proto = graph::build(network, size).finish(&metadata.name, metadata.to_props());
    let bytes = proto.encode_to_vec();
    drop(proto);
    if !options.skip_check {
        spinner.set_message("checking that it loads");
        let load = LoadOptions { prune_masks: true, ..LoadOptions::default() };
        Model::load(&bytes, &load).context("the converted network does not load; nothing was written")?;
    }
    files::write(output, &bytes)?;
    spinner.finish_and_clear();
    let (height, width) = size;
    let Metadata { task, labels, .. } = &metadata;
    println!("{}: {height}x{width}, {task}, {} classes, {:.1} MB", output.display(), labels.len(), bytes.len() as f64 / 1e6);
    Ok(())
}

fn describe(checkpoint: &Checkpoint, options: &ConvertOptions) -> Result<Metadata> {
    let network = &checkpoint.network;
    let (height, width) = options.size.unwrap_or((network.image_size[0], network.image_size[1]));
    let [patch_height, patch_width] = network.patch_size;
    if height == 0 || width == 0 || !height.is_multiple_of(patch_height) || !width.is_multiple_of(patch_width) {
        return usage(format!("--size {height}x{width}: both sides must be multiples of the patch size, {patch_height}x{patch_width}"));
    }
    let tokens = (height / patch_height) * (width / patch_width);
    if tokens > 1 << 16 {
        return usage(format!("--size {height}x{width}: {tokens} patches are more than any machine this is for can attend to"));
    }
    let task = options.task.or(checkpoint.task).unwrap_or_default();
    let stuff_classes = match &options.stuff {
        Some(names) => names.iter().map(|name| find_class(&checkpoint.labels, name)).collect::<Result<_>>()?,
        None => checkpoint.stuff_classes.as_ref().map(|classes| classes.iter().map(|&class| class as u16).collect::<Vec<_>>()).unwrap_or_else(|| {
            if task == Task::Panoptic {
                log::warn!("nothing says which classes are stuff, so all count as things; name them with --stuff");
            }
            Vec::new()
        }),
    };
    Ok(Metadata {
        name: checkpoint.name.clone(),
        task,
        labels: checkpoint.labels.clone(),
        stuff_classes,
        image_mean: checkpoint.image_mean,
        image_std: checkpoint.image_std,
        input_size: (height, width),
        thresholds: options.thresholds,
        precision: Precision::F32,
        source_sha256: checkpoint.source_sha256.clone(),
        converter: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
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

/// Learned values of the encoder, which dominate.
fn count_parameters(network: &Network) -> usize {
    use super::checkpoint::{Linear, Mlp};
    let linear = |linear: &Linear| linear.weight.data.len();
    let mlp = |mlp: &Mlp| match mlp {
        Mlp::Plain { up, down, .. } => linear(up) + linear(down),
        Mlp::Gated { gate, up, down, .. } => linear(gate) + linear(up) + linear(down),
    };
    network.blocks.iter().map(|b| linear(&b.q) + linear(&b.k) + linear(&b.v) + linear(&b.out) + mlp(&b.mlp)).sum()
}
