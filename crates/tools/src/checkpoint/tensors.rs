//! A store of named tensors: each is read once, checked, and those that nothing reads are an error.
//!
//! Only names, shapes and places are held; a tensor is read from its file on demand, so that a conversion never
//! holds two copies of the weights. Invariants: a tensor that was read has the requested shape and finite values; all together have at most
//! half as many elements as the files have bytes, since none has less than two (views that share a storage cannot multiply it).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use eomt_edge_host::files;

use super::element::Element;
use super::error::{CheckpointError, io_error, quote};
use super::meta::Meta;
use super::network::{Array, Linear, Norm};

/// The place of one tensor in a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its name in the file, for messages.
    pub name: String,
    /// Index into [`Tensors::files`].
    pub file: usize,
    /// Position of its first element in the file, in bytes.
    pub start: u64,
    pub element: Element,
    pub shape: Vec<usize>,
    /// Distance between neighbours along each axis, in elements; `None` = row-major without gaps.
    pub strides: Option<Vec<usize>>,
}

/// Named tensors of one or more files.
pub(super) struct Tensors {
    /// The weight file, for messages.
    pub path: PathBuf,
    pub files: Vec<(PathBuf, File)>,
    pub entries: BTreeMap<String, Entry>,
    /// Weights to which those of the same name in `entries` are a difference.
    pub base: Option<Box<Tensors>>,
    /// Elements that may still be read.
    pub budget: u64,
    /// The entries of the file beside its tensors.
    pub meta: Meta,
    /// Decisions made while reading, for the user.
    pub warnings: Vec<String>,
}

impl Tensors {
    /// A store without tensors yet.
    pub fn empty(path: &Path) -> Tensors {
        let (files, entries, warnings) = (vec![], BTreeMap::new(), vec![]);
        Tensors { path: path.into(), files, entries, base: None, budget: 0, meta: Meta::none(path.into()), warnings }
    }

    /// Gives every tensor another name.
    pub fn rename(&mut self, rename: impl Fn(&str) -> String) {
        self.entries = std::mem::take(&mut self.entries).into_iter().map(|(name, entry)| (rename(&name), entry)).collect();
    }

    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    pub fn missing(&self, name: &str) -> CheckpointError {
        CheckpointError::Missing { path: self.path.clone(), tensor: quote(name) }
    }

    /// The shape of a tensor that was not read yet.
    ///
    /// # Errors
    /// When it is missing.
    pub fn shape(&self, name: &str) -> Result<&[usize], CheckpointError> {
        self.entries.get(name).map(|entry| &entry.shape[..]).ok_or_else(|| self.missing(name))
    }

    /// The shape as `N` dimensions, none of them 0.
    ///
    /// # Errors
    /// When it is missing or has another rank.
    pub fn dims<const N: usize>(&self, name: &str) -> Result<[usize; N], CheckpointError> {
        let shape = self.shape(name)?;
        match <[usize; N]>::try_from(shape) {
            Ok(dims) if !dims.contains(&0) => Ok(dims),
            _ => {
                let expected =
                    ["", "one dimension", "two dimensions", "three dimensions", "four dimensions"].get(N).unwrap_or(&"more dimensions");
                Err(CheckpointError::Rank { path: self.path.clone(), tensor: quote(name), found: shape.to_vec(), expected })
            }
        }
    }

    /// One more than the highest number that follows `prefix` in any name: `layers.3.norm1.bias` makes 4 of `layers.`.
    pub fn count(&self, prefix: &str) -> usize {
        let numbers = self.entries.keys().filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok());
        numbers.max().map_or(0, |highest| highest.saturating_add(1))
    }

    /// Reads a tensor and removes it from the store.
    ///
    /// # Errors
    /// When it is missing, has another shape, another type than floats or a value that is not finite, or the file is unreadable.
    pub fn array(&mut self, name: &str, shape: &[usize]) -> Result<Array, CheckpointError> {
        let entry = self.entries.remove(name).ok_or_else(|| self.missing(name))?;
        if entry.shape != shape {
            let (tensor, found, expected) = (quote(&entry.name), entry.shape, shape.to_vec());
            return Err(CheckpointError::Shape { path: self.path.clone(), tensor, found, expected });
        }
        let mut data = self.read(&entry)?;
        if let Some(base) = &mut self.base
            && base.has(name)
        {
            let base = base.array(name, shape)?.data;
            data.iter_mut().zip(&base).for_each(|(value, base)| *value += base);
            self.check_finite(&entry.name, &data)?;
        }
        Ok(Array { shape: entry.shape, data })
    }

    /// The values of a tensor that stays in the store, without those of the base.
    ///
    /// # Errors
    /// See [`Tensors::array`].
    pub fn peek(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let entry = self.entries.get(name).cloned();
        let base = self.base.take();
        let array = self.array(name, shape);
        self.base = base;
        if let Some(entry) = entry {
            self.budget += array.as_ref().map_or(0, |array| array.data.len() as u64);
            self.entries.insert(name.to_string(), entry);
        }
        Ok(array?.data)
    }

    /// [`Tensors::array`] of one dimension.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.array(name, &[len])?.data)
    }

    /// `PREFIX.weight` `[out, inputs]` and, with `bias`, `PREFIX.bias` `[out]`.
    pub fn linear(&mut self, prefix: &str, out: usize, inputs: usize, bias: bool) -> Result<Linear, CheckpointError> {
        let weight = self.array(&format!("{prefix}.weight"), &[out, inputs])?;
        let bias = if bias { Some(self.vector(&format!("{prefix}.bias"), out)?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// `PREFIX.weight` and `PREFIX.bias`, both `[len]`.
    pub fn norm(&mut self, prefix: &str, len: usize, eps: f32) -> Result<Norm, CheckpointError> {
        let scale = self.vector(&format!("{prefix}.weight"), len)?;
        let shift = self.vector(&format!("{prefix}.bias"), len)?;
        Ok(Norm { scale, shift, eps })
    }

    /// Drops tensors that a network may carry but does not compute with.
    pub fn ignore(&mut self, known: impl Fn(&str) -> bool) {
        self.entries.retain(|name, _| !known(name));
    }

    ///
    /// # Errors
    /// When a tensor was not read.
    pub fn finish(self) -> Result<(), CheckpointError> {
        if let Some(entry) = self.entries.values().next() {
            let (tensor, others) = (quote(&entry.name), self.entries.len() - 1);
            return Err(CheckpointError::Extra { path: self.path, tensor, others });
        }
        self.base.map_or(Ok(()), |base| base.finish())
    }

    /// [`Tensors::finish`], in the words of a backbone without heads.
    ///
    /// # Errors
    /// When a tensor was not read.
    pub fn finish_backbone(self) -> Result<(), CheckpointError> {
        let Some(entry) = self.entries.values().next() else { return Ok(()) };
        let problem = format!("tensor '{}' belongs to no part of a DINOv2 or DINOv3 backbone that this program knows", quote(&entry.name));
        Err(CheckpointError::layout(&self.path, problem))
    }

    fn read(&mut self, entry: &Entry) -> Result<Vec<f32>, CheckpointError> {
        let count: usize = entry.shape.iter().product();
        self.budget = self.budget.checked_sub(count as u64).ok_or_else(|| {
            let problem = format!("tensor '{}' repeats elements that other tensors use", quote(&entry.name));
            CheckpointError::damaged(&self.path, problem)
        })?;
        let span = match &entry.strides {
            _ if count == 0 => 0,
            None => count,
            Some(strides) => 1 + entry.shape.iter().zip(strides).map(|(size, stride)| (size - 1) * stride).sum::<usize>(),
        };
        let (path, file) = &mut self.files[entry.file];
        let len = (span * entry.element.bytes()) as u64;
        let bytes = file.seek(SeekFrom::Start(entry.start)).and_then(|_| files::read_exactly(file, len)).map_err(io_error(path))?;
        let found =
            || CheckpointError::ElementType { path: path.clone(), tensor: quote(&entry.name), found: entry.element.name().to_string() };
        let flat = entry.element.decode(&bytes).ok_or_else(found)?;
        drop(bytes);
        let data = match &entry.strides {
            Some(strides) if count > 0 => gather(&flat, &entry.shape, strides),
            _ => flat,
        };
        self.check_finite(&entry.name, &data)?;
        Ok(data)
    }

    fn check_finite(&self, name: &str, data: &[f32]) -> Result<(), CheckpointError> {
        match data.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(position) => Err(CheckpointError::NotFinite { path: self.path.clone(), tensor: quote(name), position }),
        }
    }
}

/// Elements of a strided view in row-major order; the bounds were checked when the entry was made.
fn gather(flat: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let mut out = Vec::with_capacity(shape.iter().product());
    let mut index = vec![0usize; shape.len()];
    let mut at = 0usize;
    loop {
        out.push(flat[at]);
        // Odometer: step the last axis that is not at its end, reset those after it.
        let Some(axis) = (0..shape.len()).rev().find(|&axis| index[axis] + 1 < shape[axis]) else { return out };
        for later in axis + 1..shape.len() {
            at -= index[later] * strides[later];
            index[later] = 0;
        }
        index[axis] += 1;
        at += strides[axis];
    }
}
