//! Reads and writes safetensors files with f32 tensors.

use std::path::Path;

use anyhow::{Context, Result, bail};
use eomt_edge_host::files;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The f32 tensor `name` of a file's bytes: shape and values. All values are finite.
pub(crate) fn read(bytes: &[u8], path: &Path, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
    let file = SafeTensors::deserialize(bytes).with_context(|| format!("{}: this is not a safetensors file", path.display()))?;
    let tensor = file.tensor(name).map_err(|_| anyhow::anyhow!("{}: there is no tensor '{name}'", path.display()))?;
    if tensor.dtype() != Dtype::F32 {
        bail!("{}: the tensor '{name}' is of type {:?}, not F32", path.display(), tensor.dtype());
    }
    let values: Vec<f32> = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if values.iter().any(|value| !value.is_finite()) {
        bail!("{}: the tensor '{name}' holds values that are not finite", path.display());
    }
    Ok((tensor.shape().to_vec(), values))
}

/// Whether the file's bytes hold a tensor of this name.
pub(crate) fn has(bytes: &[u8], path: &Path, name: &str) -> Result<bool> {
    let file = SafeTensors::deserialize(bytes).with_context(|| format!("{}: this is not a safetensors file", path.display()))?;
    Ok(file.tensor(name).is_ok())
}

/// Writes f32 tensors, whole or not at all.
pub(crate) fn write(path: &Path, tensors: &[(&str, Vec<usize>, &[f32])]) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = Vec::new();
    for ((name, shape, _), bytes) in tensors.iter().zip(&bytes) {
        views.push((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).context("a tensor's shape does not fit its values")?));
    }
    let file = safetensors::serialize(views, None).with_context(|| format!("{}: cannot be written", path.display()))?;
    files::write(path, &file)
}
