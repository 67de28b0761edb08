//! The calibration pass of post-training quantization: runs the f32 network on a few pictures and records what its linear layers see.
//!
//! The network runs with at most [`PATCHES_MAX`] patches: statistics of channels hardly depend on the number of tokens, and the
//! conversion of a ViT-S stays a matter of seconds. A picture has a few hundred tokens only, so procedural scenes fill a short list up.
//! One more input is normalized noise, which shows the network values that no picture has. A network for video sees each input twice: as the
//! first frame of a clip, and as the second with the queries that the first one left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Frame, Tensor};
use eomt_edge_core::preprocess::Preprocessor;
use eomt_edge_core::scenes;
use eomt_edge_host::bags::{BagName, BagPictures, UnpackedBag, unpack};
use eomt_edge_host::bounds;
use eomt_edge_host::output::usage;
use eomt_edge_host::pictures::read_picture;
use tract_linalg::multithread::Executor;
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoArcTensor, TValue, TVec, Tensor as TractTensor, TypedModel, TypedSimplePlan, tvec,
};
use tract_onnx::tract_core::internal::{Datum, DimLike, SpecialOps};
use tract_onnx::tract_core::ops::array::Gather;
use tract_onnx::tract_core::runtime::RunOptions;
use tract_onnx::tract_hir::internal::InferenceFact;

use super::graph::{self, Form};
use super::samples::Calibration;
use super::{layers, onnx};
use crate::checkpoint::{Checkpoint, Mlp, Network};

/// The most pictures of a directory that are used.
const PICTURES_MAX: usize = 16;
/// The fewest inputs: procedural scenes stand in for pictures that the user did not give.
const PICTURES_MIN: usize = 11;
/// Outputs of a graph before its state: class logits and masks.
const LOGITS: usize = 2;
/// 20 x 20, the grid of a 320 x 320 input.
const PATCHES_MAX: usize = 400;
/// Rows of each linear's input, over all pictures: more than the widest has channels (the MLP's 1536 in ViT-S), else weights are fitted
/// to the rows that happen to be there. Mask logits of random ViT-S at 320 are off by 0.0157 with 2048, 0.0151 with 4096.
const ROWS_MAX: usize = 4096;
/// Wide and deep networks get fewer rows than [`ROWS_MAX`], and never fewer than this.
const ROWS_MIN: usize = 1024;
/// Memory for the rows of all blocks: ViT-S and ViT-B have room for [`ROWS_MAX`], ViT-L for 1560.
const BYTES: usize = 1 << 30;
/// Larger pictures are refused.
const PIXELS_MAX: u64 = 64 << 20;

/// Pictures to calibrate with.
#[derive(Default)]
pub(super) struct Pictures {
    /// At most [`PICTURES_MAX`].
    pub files: Vec<PathBuf>,
    /// Where they are from a bag: they go with it.
    _bag: Option<UnpackedBag>,
}

/// The pictures of a directory or a bag to calibrate with: at most [`PICTURES_MAX`], evenly spread over the order of their names, or of a bag
/// over its time.
///
/// # Errors
/// A usage error that names the directory when it cannot be read or holds no picture.
pub(super) fn pictures(directory: &Path) -> Result<Pictures> {
    let refuse = |reason: String| usage(format!("--calibrate {}: {reason}", directory.display()));
    if let Some(name) = BagName::at(directory) {
        return of_bag(&name).or_else(|error| usage(format!("--calibrate {error:#}")));
    }
    let listed = std::fs::read_dir(directory).and_then(|entries| entries.take(bounds::PICTURES_MAX + 1).collect::<Result<Vec<_>, _>>());
    let entries = match listed {
        Ok(entries) if entries.len() > bounds::PICTURES_MAX => {
            return refuse(format!("there are more than {} files in it", bounds::PICTURES_MAX));
        }
        Ok(entries) => entries,
        Err(error) => return refuse(format!("cannot be read: {error}")),
    };
    let is_picture = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
        ["png", "jpg", "jpeg"].contains(&extension.as_str())
    };
    let mut files: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).filter(is_picture).collect();
    if files.is_empty() {
        return refuse("there are no PNG or JPEG files in it".to_owned());
    }
    files.sort();
    let files = spread(files.len(), PICTURES_MAX).map(|index| files[index].clone()).collect();
    Ok(Pictures { files, _bag: None })
}

fn of_bag(name: &BagName) -> Result<Pictures> {
    let readable: Vec<u64> = BagPictures::open(name, PIXELS_MAX)?.flatten().map(|picture| picture.number).collect();
    let used: Vec<u64> = spread(readable.len(), PICTURES_MAX).map(|index| readable[index]).collect();
    let bag = unpack(name, PIXELS_MAX, |number| used.contains(&number))?;
    let files = bag.names.iter().map(|name| bag.path().join(name)).collect();
    Ok(Pictures { files, _bag: Some(bag) })
}

/// Runs the network of `checkpoint` for inputs like `size` (height, width) on `pictures`, and on procedural scenes when there are few.
///
/// # Errors
/// A picture that cannot be read; a network that does not run, or whose values are not finite.
pub(super) fn run(checkpoint: &Checkpoint, size: (usize, usize), pictures: &[PathBuf]) -> Result<Calibration> {
    let network = &checkpoint.network;
    let size = reduced(size, network.patch_size);
    let mut preprocessor = Preprocessor::new(checkpoint.image_mean, checkpoint.image_std, size);
    let mut prepare = |frame: &Frame| {
        let mut tensor = Tensor::zeros(size.0, size.1);
        preprocessor.run(frame, &mut tensor);
        tensor
    };
    let mut inputs = Vec::new();
    for picture in pictures {
        inputs.push(prepare(&read_picture(picture, PIXELS_MAX)?));
    }
    let side = size.0.max(size.1) as u32;
    let scenes = PICTURES_MIN.saturating_sub(pictures.len()) as u64;
    inputs.extend((0..scenes).map(|index| prepare(&Frame::rgb(side, side, scenes::sample(0, index, side).rgb))));
    inputs.push(noise(size));
    let frames = if network.query_updater.is_some() { 2 } else { 1 };
    let rows = rows(network).div_ceil(inputs.len() * frames);
    let (model, mut taps) = tapped(network.clone(), size, rows).context("the network cannot be calibrated")?;
    let options = RunOptions { executor: Some(executor()), ..RunOptions::default() };
    let plan = TypedSimplePlan::new_with_options(model, &options).context("the network cannot be calibrated")?;
    let mut state = plan.spawn().context("the network cannot be calibrated")?;
    taps.insert(layers::PATCH_EMBED.to_owned(), Vec::new()); // sees the picture itself, in front of the graph
    let (mut calibration, distinct) = Calibration::of_inputs(taps);
    let mut carried = None;
    for (index, input) in inputs.iter().flat_map(|input| std::iter::repeat_n(input, frames)).enumerate() {
        let mut values: TVec<TValue> = tvec![TractTensor::from_shape(&[1, 3, size.0, size.1], &input.values)?.into()];
        if frames > 1 {
            let first = || TractTensor::zero::<f32>(&carried_shape(network)).map(TValue::from);
            values.push(if index.is_multiple_of(frames) { first()? } else { carried.take().map_or_else(first, Ok)? });
        }
        let outputs = state.run(values).context("the network cannot be calibrated")?;
        carried = outputs.last().cloned();
        for (samples, taps) in calibration.inputs_mut().iter_mut().zip(&distinct) {
            for output in taps.iter().map(|tap| &outputs[*tap]) {
                samples.columns = output.shape()[2];
                samples.values.extend_from_slice(output.try_as_plain_ram()?.as_slice::<f32>()?);
            }
            if taps.is_empty() {
                samples.columns = 3 * network.patch_size[0] * network.patch_size[1];
                samples.values.extend(patches(input, network.patch_size, rows));
            }
        }
    }
    // a mean of such values would spoil the layers that stay f32 as well
    if let Some(layer) = calibration.not_finite() {
        bail!("the network cannot be calibrated: {layer} sees values that are not finite; its weights are broken");
    }
    Ok(calibration)
}

/// That of the state of a network for video.
fn carried_shape(network: &Network) -> [usize; 3] {
    [1, network.queries.shape[0], network.hidden]
}

/// Rows of each linear's input that fit into [`BYTES`].
fn rows(network: &Network) -> usize {
    let inner = network.blocks.iter().map(|block| match &block.mlp {
        Mlp::Plain { up, .. } | Mlp::Gated { up, .. } => up.weight.shape[0],
    });
    // of a block: the inputs of q, k, v, of the output projection, of the MLP and of its last linear
    let row: usize = inner.map(|inner| (3 * network.hidden + inner) * size_of::<f32>()).sum();
    (BYTES / row.max(1)).clamp(ROWS_MIN, ROWS_MAX)
}

/// The machine's threads, or this one alone if the system gives no others.
fn executor() -> Executor {
    let pool = || rayon::ThreadPoolBuilder::new().thread_name(|index| format!("eomt-calibrate-{index}")).build().ok();
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => Executor::SingleThread,
        _ => pool().map_or(Executor::SingleThread, |pool| Executor::MultiThread(Arc::new(pool))),
    }
}

/// The input size for at most [`PATCHES_MAX`] patches, of about the same shape.
fn reduced((height, width): (usize, usize), [patch_height, patch_width]: [usize; 2]) -> (usize, usize) {
    let (rows, columns) = (height / patch_height, width / patch_width);
    let factor = (PATCHES_MAX as f64 / (rows * columns) as f64).sqrt().min(1.0);
    let shrink = |n: usize| ((n as f64 * factor) as usize).max(1);
    (shrink(rows) * patch_height, shrink(columns) * patch_width)
}

/// Values of mean 0 and variance 1, nearly normal: sums of twelve uniform ones.
fn noise((height, width): (usize, usize)) -> Tensor {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut tensor = Tensor::zeros(height, width);
    tensor.values.iter_mut().for_each(|value| *value = (0..12).map(|_| uniform()).sum::<f32>() - 6.0);
    tensor
}

/// `rows` flattened patches of `input`, evenly spread.
fn patches(input: &Tensor, [patch_height, patch_width]: [usize; 2], rows: usize) -> Vec<f32> {
    let grid = (input.height / patch_height, input.width / patch_width);
    let mut values = Vec::new();
    for index in spread(grid.0 * grid.1, rows) {
        let (top, left) = (index / grid.1 * patch_height, index % grid.1 * patch_width);
        for line in (0..3).flat_map(|channel| (top..top + patch_height).map(move |y| channel * input.height + y)) {
            values.extend_from_slice(&input.values[line * input.width + left..][..patch_width]);
        }
    }
    values
}

/// At most `wanted` indices below `count`, evenly spread.
fn spread(count: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let used = count.min(wanted);
    (0..used).map(move |index| index * count / used)
}

/// The f32 network whose outputs are rows of every layer's input, and for each layer the outputs that it sees. The heads see several
/// when blocks attend through masks, because each mask runs them once more. A network for video has its next state as the last output.
fn tapped(network: Network, size: (usize, usize), rows: usize) -> Result<(TypedModel, BTreeMap<String, Vec<usize>>)> {
    let state = network.query_updater.as_ref().map(|_| carried_shape(&network));
    let graph::Built { mut graph, inputs } = graph::build(network, size, Form::Tokens { int8: BTreeMap::new() });
    let values: BTreeSet<onnx::Value> = inputs.iter().map(|(_, value)| value.clone()).collect();
    let mut taps_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (tap, value) in values.iter().enumerate() {
        graph.tap(value);
        inputs.iter().filter(|(_, seen)| seen == value).for_each(|(layer, _)| taps_of.entry(layer.clone()).or_default().push(tap));
    }
    let proto = graph.finish("calibration", Vec::new());
    let onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    let mut model = onnx.model_for_proto_model(&proto)?;
    drop(proto);
    model.set_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), tvec![1, 3, size.0, size.1]))?;
    if let Some(shape) = state {
        model.set_input_fact(1, InferenceFact::dt_shape(f32::datum_type(), shape))?;
    }
    let mut model = model.into_typed()?;
    let outlets = model.output_outlets()?.to_vec();
    let mut taps = Vec::new();
    // the logits come first, then the state
    for (index, outlet) in outlets[outlets.len() - values.len()..].iter().enumerate() {
        let count = model.outlet_fact(*outlet)?.shape[1].to_usize()?;
        let chosen: Vec<i64> = spread(count, rows).map(|row| row as i64).collect();
        let chosen = model.add_const(format!("rows.{index}"), TractTensor::from_shape(&[chosen.len()], &chosen)?.into_arc_tensor())?;
        taps.extend(model.wire_node(format!("tap.{index}"), Gather::new(1), &[*outlet, chosen])?);
    }
    taps.extend(state.map(|_| outlets[LOGITS]));
    model.select_output_outlets(&taps)?;
    Ok((model.into_optimized()?, taps_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_runs_small() {
        assert_eq!(reduced((640, 640), [16, 16]), (320, 320));
        assert_eq!(reduced((96, 96), [16, 16]), (96, 96));
        assert_eq!(reduced((480, 640), [16, 16]), (272, 368));
        assert_eq!(reduced((16, 65_536), [16, 16]), (16, 20_480));
    }

    #[test]
    fn deep_networks_get_fewer_rows() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data/nano");
        let options = crate::checkpoint::Options { hints: None, base: None };
        let mut network = crate::checkpoint::read(&directory, &options).expect("reads").network;
        assert_eq!(rows(&network), ROWS_MAX);
        let block = network.blocks[0].clone(); // 3 x 192 + 768 values a row
        network.blocks = vec![block.clone(); 100];
        assert_eq!(rows(&network), BYTES / (100 * 4 * 1344));
        network.blocks = vec![block; 1000];
        assert_eq!(rows(&network), ROWS_MIN);
    }

    #[test]
    fn patches_are_those_of_the_convolution() {
        let values = (0..3 * 4 * 6).map(|v| v as f32).collect();
        let input = Tensor { height: 4, width: 6, values };
        let all = patches(&input, [2, 3], 100);
        assert_eq!(all.len(), 3 * 4 * 6);
        // the last patch: lower right, of each channel two lines of three
        assert_eq!(all[3 * 18..3 * 18 + 6], [15.0, 16.0, 17.0, 21.0, 22.0, 23.0]);
        assert_eq!(all[3 * 18 + 6], 39.0);
        assert_eq!(patches(&input, [2, 3], 2), [&all[..18], &all[36..54]].concat());
    }

    #[test]
    fn noise_is_normalized() {
        let values = noise((64, 64)).values;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
