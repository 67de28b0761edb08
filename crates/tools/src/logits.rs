//! `logits`: runs the network alone, for all queries. The entry point of every numerical check.
//!
//! Several frames are those of one clip: a network for video goes on from one to the next, and starts anew with the first.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::model::names;
use eomt_edge_host::model_file::{self, Compute};
use eomt_edge_host::{bounds, files};

use super::tensors;

/// transformers' name for the input of networks for video.
const CLIP: &str = "pixel_values_videos";

/// Runs the network on the frames in `inputs`, one after the other (safetensors with `pixel_values`, f32 `[1, 3, H, W]` or
/// `[1, T, 3, H, W]`, normalized), and writes `class_queries_logits` `[T, Q, C + 1]` and `masks_queries_logits` `[T, Q, h, w]` to
/// `output`; T is the number of frames in all inputs.
///
/// # Errors
/// When a file is missing or broken, or the shape is not that of the model's input.
pub fn logits(model: &Path, inputs: &[PathBuf], output: &Path, compute: &Compute) -> Result<()> {
    let mut clip = Vec::new();
    for input in inputs {
        clip.extend(frames(input)?);
    }
    let mut model = model_file::load_checked(model, compute)?;
    let (mut logits, mut classes, mut masks) = (Logits::default(), Vec::new(), Vec::new());
    for frame in &clip {
        model.run(frame, |class, kept| kept.extend(0..class.queries), &mut logits)?;
        classes.extend_from_slice(&logits.class.values);
        masks.extend_from_slice(&logits.masks);
    }
    let class_shape = vec![clip.len(), logits.class.queries, logits.class.classes];
    let mask_shape = vec![clip.len(), logits.kept.len(), logits.height, logits.width];
    tensors::write(output, &[(names::CLASS_LOGITS, class_shape, &classes), (names::MASK_LOGITS, mask_shape, &masks)])
}

/// The frames of one file, in order.
fn frames(input: &Path) -> Result<Vec<Tensor>> {
    let bytes = files::read(input, &bounds::TENSORS)?;
    let name = if tensors::has(&bytes, input, CLIP)? { CLIP } else { names::INPUT };
    let (shape, values) = tensors::read(&bytes, input, name)?;
    let (count, height, width) = match shape[..] {
        [1, 3, height, width] if !values.is_empty() => (1, height, width),
        [1, count, 3, height, width] if !values.is_empty() => (count, height, width),
        _ => bail!("{}: the tensor '{name}' has the shape {shape:?}, neither [1, 3, H, W] nor [1, frames, 3, H, W]", input.display()),
    };
    let frame = |values: &[f32]| Tensor { height, width, values: values.to_vec() };
    Ok(values.chunks_exact(values.len() / count).map(frame).collect())
}
