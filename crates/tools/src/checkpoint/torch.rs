//! PyTorch's zip files (`torch.save` since 1.6): `NAME/data.pkl` describes the tensors, `NAME/data/KEY` holds their bytes.
//!
//! Refuses: TorchScript, compressed or encrypted members, members that share a name or bytes, big-endian data, and every pickle that [`super::pickle`] does.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use eomt_edge_host::{bounds, files};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::error::{CheckpointError, io_error, quote};
use super::pickle::{Fault, View};
use super::state;
use super::tensors::{Entry, Tensors};

type Archive = ZipArchive<BufReader<Metered>>;

/// A file of which only so many bytes may be read: the list of a zip file's members takes memory before anything of it can be checked.
struct Metered {
    file: File,
    left: Rc<Cell<u64>>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other("the list of its members is longer than any checkpoint's"));
        }
        let most = buffer.len().min(usize::try_from(self.left.get()).unwrap_or(usize::MAX));
        let count = self.file.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The members of a zip file. None has the name or a byte of another: such files mean different things to different programs.
fn archive(path: &Path, file: &File) -> Result<Archive, CheckpointError> {
    let damaged = |problem: String| CheckpointError::damaged(path, problem);
    let incomplete = |error: ZipError| damaged(format!("it is not a complete zip file ({error})"));
    let left = Rc::new(Cell::new(bounds::ARCHIVE_LIST_BYTES_MAX));
    let metered = Metered { file: file.try_clone().map_err(io_error(path))?, left: Rc::clone(&left) };
    let mut archive = ZipArchive::new(BufReader::new(metered)).map_err(incomplete)?;
    left.set(u64::MAX);
    if archive.has_duplicate_names() {
        return Err(damaged("two members of the zip file have the same name".into()));
    }
    if archive.has_overlapping_entries().map_err(incomplete)? {
        return Err(damaged("members of the zip file overlap".into()));
    }
    Ok(archive)
}

/// Opens the file and lists its state, under the names of the file. `wanted`: see [`super::state`].
pub(super) fn open(path: &Path, wanted: Option<&str>) -> Result<Tensors, CheckpointError> {
    let damaged = |problem: String| CheckpointError::damaged(path, problem);
    let file = files::open(path).map_err(io_error(path))?;
    let file_len = files::check(&file, &bounds::CHECKPOINT).map_err(io_error(path))?;
    let mut archive = archive(path, &file)?;
    let root = root(path, &archive)?;
    check_byte_order(path, &mut archive, &root)?;
    let bytes = member(path, &mut archive, &format!("{root}data.pkl"), bounds::PICKLE_BYTES_MAX)?;
    let pickled = state::read(&bytes, wanted).map_err(|fault| match fault {
        Fault::Call(call) => CheckpointError::Call { path: path.into(), call: quote(&call) },
        Fault::State(said) => CheckpointError::State(path.into(), said),
        Fault::Bad(problem) => damaged(format!("its data.pkl {problem}")),
    })?;
    drop(bytes);

    let mut entries = BTreeMap::new();
    let mut spans = HashMap::new();
    for (name, view) in pickled.tensors {
        let span = match spans.get(&view.storage) {
            Some(span) => *span,
            None => *spans.entry(view.storage.clone()).or_insert(span(path, &mut archive, &root, &view.storage)?),
        };
        let entry = entry(&name, &view, span).map_err(|problem| damaged(format!("tensor '{}' {problem}", quote(&name))))?;
        // A key that is set twice has its last value, as in Python.
        entries.insert(name, entry);
    }
    if entries.is_empty() {
        return Err(damaged("it holds no tensors".to_string()));
    }
    let mut tensors = Tensors::empty(path);
    tensors.files.push((path.into(), file));
    tensors.budget = file_len / 2;
    (tensors.entries, tensors.meta.data, tensors.warnings) = (entries, pickled.meta, pickled.warnings);
    Ok(tensors)
}

/// The folder inside the archive that holds `data.pkl`, with its slash.
fn root(path: &Path, archive: &Archive) -> Result<String, CheckpointError> {
    let names: Vec<String> = archive.file_names().flatten().map(|name| name.into_owned()).collect();
    if names.iter().any(|name| name.ends_with("constants.pkl")) {
        return Err(CheckpointError::layout(path, "it is a TorchScript program, not a state dict saved with torch.save"));
    }
    let mut roots = names.iter().filter_map(|name| name.strip_suffix("data.pkl").filter(|root| root.is_empty() || root.ends_with('/')));
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root.to_string()),
        _ => Err(CheckpointError::layout(path, "it is a zip file without the one data.pkl that torch.save writes")),
    }
}

fn check_byte_order(path: &Path, archive: &mut Archive, root: &str) -> Result<(), CheckpointError> {
    let name = format!("{root}byteorder");
    // Absent before PyTorch 2.1, when only little-endian machines wrote such files.
    if archive.index_for_name(&name).is_none() {
        return Ok(());
    }
    match &member(path, archive, &name, 64)?[..] {
        b"little" => Ok(()),
        b"big" => Err(CheckpointError::layout(path, "its data is big-endian, which this program does not read")),
        _ => Err(CheckpointError::damaged(path, "its byteorder is neither little nor big")),
    }
}

/// A whole member in memory; its checksum is verified.
fn member(path: &Path, archive: &mut Archive, name: &str, bytes_max: u64) -> Result<Vec<u8>, CheckpointError> {
    let damaged = |problem: String| CheckpointError::damaged(path, format!("its member '{}' {problem}", quote(name)));
    let index = archive.index_for_name(name).ok_or_else(|| damaged("is missing".into()))?;
    let mut file = archive.by_index(index).map_err(|error| damaged(format!("cannot be opened ({error})")))?;
    if file.size() > bytes_max {
        return Err(damaged(format!("has {} bytes, more than the {bytes_max} allowed", file.size())));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| damaged(format!("cannot be read ({error})")))?;
    Ok(bytes)
}

/// Where the bytes of a storage lie in the file: start and length. Reads them once, which verifies their checksum.
fn span(path: &Path, archive: &mut Archive, root: &str, key: &str) -> Result<(u64, u64), CheckpointError> {
    let damaged = |problem: String| CheckpointError::damaged(path, format!("its storage '{}' {problem}", quote(key)));
    let index = archive.index_for_name(&format!("{root}data/{key}")).ok_or_else(|| damaged("is missing".into()))?;
    let mut file = archive.by_index(index).map_err(|error| damaged(format!("cannot be opened ({error})")))?;
    if file.compression() != CompressionMethod::Stored || file.encrypted() {
        return Err(damaged("is compressed or encrypted, which torch.save never does".into()));
    }
    let start = file.data_start().ok_or_else(|| damaged("has no place in the file".into()))?;
    let size = file.size();
    let read = io::copy(&mut file, &mut io::sink()).map_err(|error| damaged(format!("cannot be read ({error})")))?;
    if read != size { Err(damaged("is truncated".into())) } else { Ok((start, size)) }
}

/// Checks a view against the bytes of its storage.
fn entry(name: &str, view: &View, (start, size): (u64, u64)) -> Result<Entry, String> {
    let width = view.element.bytes();
    let reach = view.shape.iter().zip(&view.strides).try_fold(0usize, |reach, (size, stride)| {
        let last = size.saturating_sub(1).checked_mul(*stride)?;
        reach.checked_add(last)
    });
    let count = view.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size)).ok_or("has an impossible shape")?;
    let end = if count == 0 { Some(0) } else { reach.and_then(|reach| reach.checked_add(1)?.checked_add(view.offset)?.checked_mul(width)) };
    if end.is_none_or(|end| end as u64 > size) {
        return Err(format!("of shape {:?} reaches beyond its storage of {size} bytes", view.shape));
    }
    // Size-1 axes may have any stride, so only the others decide whether it is row-major.
    let mut expected = 1usize;
    let row_major = view.shape.iter().zip(&view.strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == expected;
        expected = expected.wrapping_mul(*size);
        fits
    });
    let start = if count == 0 { start } else { start + (view.offset * width) as u64 };
    let strides = (!row_major && count > 0).then(|| view.strides.clone());
    Ok(Entry { name: name.into(), file: 0, start, element: view.element, shape: view.shape.clone(), strides })
}
