//! From a path to a [`Tensors`] store: safetensors (one file or shards) and PyTorch zip files, and the hash of the bytes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use ::safetensors::tensor::Metadata;
use eomt_edge_host::{bounds, files};
use sha2::{Digest, Sha256};

use super::element::Element;
use super::error::{CheckpointError, io_error, quote};
use super::json::Object;
use super::names;
use super::tensors::{Entry, Tensors};
use super::torch;

/// The weight file of a folder: `model.safetensors`, its shards, `pytorch_model.bin`, its shards, or the only file there is.
///
/// # Errors
/// [`CheckpointError::Layout`] when there is none.
pub(super) fn find(dir: &Path) -> Result<PathBuf, CheckpointError> {
    let known = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];
    if let Some(path) = known.iter().map(|name| dir.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let entries = std::fs::read_dir(dir).map_err(io_error(dir))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file() && is_torch(path)).take(2).collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        (None, _) => Err(CheckpointError::layout(dir, "the folder holds no model.safetensors and no pytorch_model.bin")),
        _ => Err(CheckpointError::layout(dir, "the folder holds several weight files; name the one to read")),
    }
}

/// Opens the weights of a network: their names have no wrappers any more. `wanted`: see [`super::state`].
pub(super) fn open_network(path: &Path, wanted: Option<&str>) -> Result<Tensors, CheckpointError> {
    let mut tensors = open(path, wanted)?;
    names::normalize(&mut tensors, wanted)?;
    Ok(tensors)
}

fn is_torch(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["bin", "pth", "pt", "ckpt"].iter().any(|known| extension == *known))
}

/// Opens a weight file (of either kind, recognized by its first bytes) or an index of shards, under the names of the file.
pub(super) fn open(path: &Path, wanted: Option<&str>) -> Result<Tensors, CheckpointError> {
    if path.extension().is_some_and(|extension| extension == "json") {
        return open_shards(path, wanted);
    }
    let mut file = files::open(path).map_err(io_error(path))?;
    let mut magic = Vec::new();
    (&mut file).take(8).read_to_end(&mut magic).map_err(io_error(path))?;
    let is_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
    if !is_safetensors && magic.starts_with(b"PK") {
        return torch::open(path, wanted);
    }
    if !is_safetensors && magic.starts_with(&[0x80]) {
        let problem = "it is in PyTorch's format from before version 1.6; load it in PyTorch and save it again with torch.save";
        return Err(CheckpointError::layout(path, problem));
    }
    if is_torch(path) {
        return Err(CheckpointError::damaged(path, "it is not a zip file as torch.save writes it"));
    }
    let mut tensors = Tensors::empty(path);
    add_safetensors(&mut tensors, path)?;
    Ok(tensors)
}

fn open_shards(index: &Path, wanted: Option<&str>) -> Result<Tensors, CheckpointError> {
    let object = Object::read(index)?;
    let map = object.object("weight_map")?.ok_or_else(|| object.wrong("weight_map", "an object"))?;
    let mut shards = BTreeSet::new();
    for (tensor, shard) in &map.map {
        let name = shard.as_str().filter(|name| !name.is_empty() && !name.contains(['/', '\\']) && *name != "..");
        shards.insert(name.ok_or_else(|| map.wrong(tensor, "the name of a file in the same folder"))?);
    }
    if shards.len() > bounds::SHARDS_MAX {
        let problem = format!("names {} files, and {} are allowed", shards.len(), bounds::SHARDS_MAX);
        return Err(CheckpointError::key(index, "weight_map", problem));
    }
    let mut tensors = Tensors::empty(index);
    for shard in shards {
        let path = index.with_file_name(shard);
        if is_torch(&path) {
            add_shard(&mut tensors, open(&path, wanted)?)?;
        } else {
            add_safetensors(&mut tensors, &path)?;
        }
    }
    if let Some(tensor) = map.map.keys().find(|tensor| !tensors.has(tensor)) {
        return Err(tensors.missing(tensor));
    }
    Ok(tensors)
}

/// Adds the tensors of a file that was opened on its own.
fn add_shard(tensors: &mut Tensors, shard: Tensors) -> Result<(), CheckpointError> {
    let first = tensors.files.len();
    for (name, mut entry) in shard.entries {
        entry.file += first;
        let twice = format!("tensor '{}' is in two shards", quote(&name));
        if tensors.entries.insert(name, entry).is_some() {
            return Err(CheckpointError::damaged(&shard.path, twice));
        }
    }
    tensors.files.extend(shard.files);
    tensors.budget += shard.budget;
    tensors.warnings.extend(shard.warnings);
    Ok(())
}

/// Adds the tensors of one safetensors file: 8 bytes of header length, a JSON header, then the data, without gaps.
fn add_safetensors(tensors: &mut Tensors, path: &Path) -> Result<(), CheckpointError> {
    let damaged = |problem: String| CheckpointError::damaged(path, problem);
    let mut file = files::open(path).map_err(io_error(path))?;
    let file_len = files::check(&file, &bounds::CHECKPOINT).map_err(io_error(path))?;
    let mut length = [0; 8];
    if file_len < 8 {
        return Err(damaged(format!("it has only {file_len} bytes, too few for a safetensors file")));
    }
    file.read_exact(&mut length).map_err(io_error(path))?;
    let header_len = u64::from_le_bytes(length);
    if header_len > (file_len - 8).min(bounds::TENSOR_HEADER_BYTES_MAX) {
        return Err(damaged(format!(
            "its header should have {header_len} bytes, the file has {file_len}; it is truncated or not a safetensors file"
        )));
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(io_error(path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(format!("its header cannot be read ({error})")))?;

    let data_len = file_len - 8 - header_len;
    let file_index = tensors.files.len();
    let mut spans = vec![];
    if metadata.tensors().len() > bounds::TENSORS_MAX {
        return Err(damaged(format!("it lists {} tensors, and {} are allowed", metadata.tensors().len(), bounds::TENSORS_MAX)));
    }
    for (name, info) in metadata.tensors() {
        if name.len() > bounds::NAME_BYTES_MAX {
            return Err(damaged(format!("the name of tensor '{}' has {} bytes", quote(&name), name.len())));
        }
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let element = element_of(info.dtype);
        let count = info.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        let bytes = count.and_then(|count| count.checked_mul(info.dtype.bitsize())).map(|bits| bits.div_ceil(8) as u64);
        if bytes != end.checked_sub(start) {
            return Err(damaged(format!("the bytes of tensor '{}' do not fit its shape {:?}", quote(&name), info.shape)));
        }
        if end > data_len {
            return Err(damaged(format!(
                "it is truncated: tensor '{}' ends at byte {end} of the data, there are {data_len}",
                quote(&name)
            )));
        }
        spans.push((start, end));
        let entry = Entry {
            name: name.clone(),
            file: file_index,
            start: 8 + header_len + start,
            element,
            shape: info.shape.clone(),
            strides: None,
        };
        if tensors.entries.insert(name.clone(), entry).is_some() {
            return Err(damaged(format!("tensor '{}' is in two shards", quote(&name))));
        }
    }
    // The format allows neither gaps nor overlaps.
    spans.sort_unstable();
    let covered = spans.iter().try_fold(0, |covered, (start, end)| (*start == covered).then_some(*end));
    if covered != Some(data_len) {
        return Err(damaged(format!("its tensors do not cover its {data_len} bytes of data exactly")));
    }
    tensors.budget += file_len / 2;
    tensors.files.push((path.into(), file));
    Ok(())
}

fn element_of(kind: ::safetensors::Dtype) -> Element {
    use ::safetensors::Dtype as D;
    match kind {
        D::F32 => Element::F32,
        D::F16 => Element::F16,
        D::BF16 => Element::BF16,
        D::F64 => Element::F64,
        D::I64 => Element::Other("I64", 8),
        D::I32 => Element::Other("I32", 4),
        D::U8 => Element::Other("U8", 1),
        D::BOOL => Element::Other("BOOL", 1),
        D::F8_E4M3 => Element::Other("F8_E4M3", 1),
        D::F8_E5M2 => Element::Other("F8_E5M2", 1),
        other => Element::Other("another type", other.bitsize() / 8),
    }
}

/// Lower-case hex SHA-256 of the files, one after the other.
pub(super) fn sha256(tensors: &Tensors) -> Result<String, CheckpointError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    for (path, file) in &tensors.files {
        let mut file: &File = file;
        file.rewind().map_err(io_error(path))?;
        loop {
            match file.read(&mut buffer).map_err(io_error(path))? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
