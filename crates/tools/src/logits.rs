//! `logits`: runs the network alone, for all queries. The entry point of every numerical check.

use std::path::Path;

use anyhow::{Result, bail};
use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::model::names;
use eomt_edge_host::model_file::{self, Compute};
use eomt_edge_host::{bounds, files};

use super::tensors;

/// Runs the network on the `pixel_values` of `input` (safetensors, f32 `[1, 3, H, W]`, normalized) and writes `class_queries_logits`
/// `[1, Q, C + 1]` and `masks_queries_logits` `[1, Q, h, w]` to `output`.
///
/// # Errors
/// When a file is missing or broken, or the shape is not that of the model's input.
pub fn logits(model: &Path, input: &Path, output: &Path, compute: &Compute) -> Result<()> {
    let bytes = files::read(input, &bounds::TENSORS)?;
    let (shape, values) = tensors::read(&bytes, input, names::INPUT)?;
    let [1, 3, height, width] = shape[..] else {
        bail!("{}: the tensor '{}' has the shape {shape:?}, not [1, 3, H, W]", input.display(), names::INPUT);
    };
    let (mut model, _) = model_file::load_checked(model, compute)?;
    let mut logits = Logits::default();
    model.run(&Tensor { height, width, values }, |class, kept| kept.extend(0..class.queries), &mut logits)?;
    let class_shape = vec![1, logits.class.queries, logits.class.classes];
    let mask_shape = vec![1, logits.kept.len(), logits.height, logits.width];
    tensors::write(output, &[(names::CLASS_LOGITS, class_shape, &logits.class.values), (names::MASK_LOGITS, mask_shape, &logits.masks)])
}
