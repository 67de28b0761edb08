//! The entries that training packages pickle into a checkpoint beside the state.
//!
//! ```text
//! {'train_model': …, 'model_init_args': {'image_size': (640, 640), 'thing_classes': {0: 'person', …}, …}}
//! ```
//!
//! Invariants: the order of dictionaries is kept, since classes are numbered by it; anything deeper or larger than a
//! configuration is cut off, so that a hostile file costs nothing.

use std::path::PathBuf;

use eomt_edge_host::bounds::PICKLE_TEXT_BYTES_MAX;

use super::error::{CheckpointError, quote};
use super::pickle::{Machine, Value};

/// Levels of nesting that are read; a pickled network has 12.
const DEPTH_MAX: usize = 24;
/// Values that are read; a pickled network of 40 blocks has 50,000.
const NODES_MAX: usize = 200_000;
/// Larger than any dimension of a network.
const SIZE_MAX: i64 = 1 << 20;

/// A value of a pickle other than a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Data>),
    /// In the order of the file; whole numbers as keys are written in digits.
    Map(Vec<(String, Data)>),
}

impl Data {
    /// The value of a key of a dictionary; the last one when the key occurs twice.
    pub fn get(&self, key: &str) -> Option<&Data> {
        let Data::Map(pairs) = self else { return None };
        pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn number(&self) -> Option<f64> {
        match self {
            Data::Int(int) => Some(*int as f64),
            Data::Float(float) => Some(*float),
            _ => None,
        }
    }

    fn size(&self) -> Option<usize> {
        let int = match self {
            Data::Int(int) => *int,
            Data::Float(float) if float.fract() == 0.0 && float.abs() < 1e15 => *float as i64,
            _ => return None,
        };
        (0..=SIZE_MAX).contains(&int).then_some(int as usize)
    }

    /// Every whole number above 0 under one of these names, anywhere below.
    pub fn find_sizes(&self, names: &[&str], found: &mut Vec<usize>) {
        match self {
            Data::Map(pairs) => {
                for (name, value) in pairs {
                    match value.size().filter(|size| *size > 0 && names.contains(&name.as_str())) {
                        Some(size) => found.push(size),
                        None => value.find_sizes(names, found),
                    }
                }
            }
            Data::List(items) => items.iter().for_each(|item| item.find_sizes(names, found)),
            _ => {}
        }
    }

    fn show(&self) -> String {
        match self {
            Data::Null => "None".into(),
            Data::Bool(flag) => flag.to_string(),
            Data::Int(int) => int.to_string(),
            Data::Float(float) => float.to_string(),
            Data::Text(text) => quote(text),
            Data::List(items) => format!("a list of {}", items.len()),
            Data::Map(pairs) => format!("a dictionary of {}", pairs.len()),
        }
    }
}

/// The data of one file, and typed access whose errors name the file and the key. A key may be a path, `a.b.c`.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    pub file: PathBuf,
    pub data: Data,
}

impl Meta {
    pub fn none(file: PathBuf) -> Meta {
        Meta { file, data: Data::Null }
    }

    /// `None` is absent.
    pub fn get(&self, key: &str) -> Option<&Data> {
        key.split('.').try_fold(&self.data, |data, part| data.get(part)).filter(|data| **data != Data::Null)
    }

    pub fn wrong(&self, key: &str, expected: &str) -> CheckpointError {
        let value = self.get(key).map_or_else(|| "absent".to_string(), Data::show);
        CheckpointError::key(&self.file, key, format!("is {value}, expected {expected}"))
    }

    fn read<'a, T>(&'a self, key: &str, expected: &str, read: impl Fn(&'a Data) -> Option<T>) -> Result<Option<T>, CheckpointError> {
        self.get(key).map(|data| read(data).ok_or_else(|| self.wrong(key, expected))).transpose()
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        self.read(key, "a text", |data| match data {
            Data::Text(text) => Some(&text[..]),
            _ => None,
        })
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.read(key, "True or False", |data| if let Data::Bool(flag) = data { Some(*flag) } else { None })
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.read(key, "a number", Data::number)
    }

    pub fn positive(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.read(key, "a whole number above 0", |data| data.size().filter(|size| *size > 0))
    }

    /// Height and width: one number for both, or two.
    pub fn pair(&self, key: &str) -> Result<Option<[usize; 2]>, CheckpointError> {
        let read = |data: &Data| match data {
            Data::List(items) => <[usize; 2]>::try_from(items.iter().map(Data::size).collect::<Option<Vec<_>>>()?).ok(),
            data => data.size().map(|side| [side, side]),
        };
        self.read(key, "a whole number above 0, or two (height, width)", |data| read(data).filter(|pair| !pair.contains(&0)))
    }

    pub fn sizes(&self, key: &str) -> Result<Option<Vec<usize>>, CheckpointError> {
        let read = |data: &Data| if let Data::List(items) = data { items.iter().map(Data::size).collect() } else { None };
        self.read(key, "a list of whole numbers", read)
    }

    pub fn triple(&self, key: &str) -> Result<Option<[f32; 3]>, CheckpointError> {
        let read = |data: &Data| {
            let Data::List(items) = data else { return None };
            let numbers = items.iter().map(|item| item.number().map(|number| number as f32)).collect::<Option<Vec<_>>>()?;
            <[f32; 3]>::try_from(numbers).ok().filter(|triple| triple.iter().all(|number| number.is_finite()))
        };
        self.read(key, "three numbers", read)
    }

    /// Names by class id, in the order of the file: `{0: 'person', 5: 'bus'}`, or a list of names.
    pub fn names(&self, key: &str) -> Result<Option<Vec<(usize, String)>>, CheckpointError> {
        let name = |data: &Data| if let Data::Text(name) = data { Some(name.clone()) } else { None };
        let read = |data: &Data| match data {
            Data::Map(pairs) => pairs.iter().map(|(id, value)| Some((id.parse().ok()?, name(value)?))).collect(),
            Data::List(items) => items.iter().enumerate().map(|(id, value)| Some((id, name(value)?))).collect(),
            _ => None,
        };
        self.read(key, "names by class number", read)
    }
}

/// A value of the machine without its tensors. `skip` is the dict of the state, which is read as tensors.
pub(super) fn of_value(machine: &Machine, value: Value, skip: Option<usize>) -> Data {
    Reader { machine, skip, nodes: 0, text_bytes: 0 }.read(value, 0)
}

struct Reader<'a> {
    machine: &'a Machine,
    skip: Option<usize>,
    nodes: usize,
    /// Of texts and keys, each as often as it is named.
    text_bytes: usize,
}

impl Reader<'_> {
    fn text(&mut self, at: usize) -> Option<String> {
        let text = &self.machine.texts[at];
        self.text_bytes = self.text_bytes.saturating_add(text.len());
        (self.text_bytes <= PICKLE_TEXT_BYTES_MAX).then(|| text.clone())
    }

    fn read(&mut self, value: Value, depth: usize) -> Data {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Data::Null;
        }
        match value {
            Value::Bool(flag) => Data::Bool(flag),
            Value::Int(int) => Data::Int(int),
            Value::Float(float) => Data::Float(float),
            Value::Text(at) => self.text(at).map_or(Data::Null, Data::Text),
            Value::Sequence(at) => {
                let items = &self.machine.sequences[at];
                Data::List(items.iter().take(NODES_MAX).map(|item| self.read(*item, depth + 1)).collect())
            }
            Value::Dict(at) if self.skip == Some(at) => Data::Null,
            Value::Dict(_) | Value::Object(_) => {
                let pairs = self.machine.pairs(value).unwrap_or_default();
                let mut read = vec![];
                for (key, value) in pairs.iter().take(NODES_MAX) {
                    let key = match key {
                        Value::Text(at) => self.text(*at),
                        Value::Int(int) => Some(int.to_string()),
                        _ => None,
                    };
                    let Some(key) = key else { continue };
                    match self.read(*value, depth + 1) {
                        Data::Null => {}
                        data => read.push((key, data)),
                    }
                }
                Data::Map(read)
            }
            _ => Data::Null,
        }
    }
}
