//! Typed access to the keys of a JSON object from a file; every error names the file and the key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eomt_edge_host::{bounds, files};
use serde_json::{Map, Value};

use super::error::{CheckpointError, io_error, quote};

/// Larger than any dimension of a network, small enough that products of three do not overflow.
const SIZE_MAX: u64 = 1 << 20;

/// A JSON object and the file it came from.
pub(super) struct Object {
    pub file: PathBuf,
    pub map: Map<String, Value>,
}

impl Object {
    /// Reads a file.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], or [`CheckpointError::Damaged`] when it is not one JSON object.
    pub fn read(file: &Path) -> Result<Object, CheckpointError> {
        let text = files::read_bytes(file, &bounds::JSON).map_err(io_error(file))?;
        match serde_json::from_slice(&text) {
            Ok(Value::Object(map)) => Ok(Object { file: file.into(), map }),
            Ok(_) => Err(CheckpointError::damaged(file, "it is not a JSON object")),
            Err(error) => Err(CheckpointError::damaged(file, format!("it is not valid JSON ({error})"))),
        }
    }

    /// A key whose value is absent or `null` is `None`.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn wrong(&self, key: &str, expected: &str) -> CheckpointError {
        let value = self.map.get(key).map_or_else(|| "absent".to_string(), |value| quote(&value.to_string()));
        CheckpointError::key(&self.file, key, format!("is {value}, expected {expected}"))
    }

    /// A whole number, 0 or more.
    pub fn size(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.get(key).map(|value| whole(value).ok_or_else(|| self.wrong(key, "a whole number from 0 to 1048576"))).transpose()
    }

    /// A whole number, 1 or more.
    pub fn positive(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        match self.size(key)? {
            Some(0) => Err(self.wrong(key, "a whole number above 0")),
            size => Ok(size),
        }
    }

    /// Height and width: one whole number above 0 for both, or a list of two.
    pub fn pair(&self, key: &str) -> Result<Option<[usize; 2]>, CheckpointError> {
        let pair = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(items)) => match &items[..] {
                [height, width] => whole(height).zip(whole(width)).map(|(height, width)| [height, width]),
                _ => None,
            },
            Some(value) => whole(value).map(|side| [side, side]),
        };
        match pair {
            Some([height, width]) if height > 0 && width > 0 => Ok(Some([height, width])),
            _ => Err(self.wrong(key, "a whole number above 0, or a list of two (height, width)")),
        }
    }

    /// A finite number above 0, also as `f32`.
    pub fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| *number as f32 > 0.0 && (*number as f32).is_finite());
        number.map(Some).ok_or_else(|| self.wrong(key, "a finite number above 0"))
    }

    /// [`Object::number`] in the precision of the weights.
    pub fn float(&self, key: &str) -> Result<Option<f32>, CheckpointError> {
        Ok(self.number(key)?.map(|number| number as f32))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))).transpose()
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a text"))).transpose()
    }

    /// A nested object.
    pub fn object(&self, key: &str) -> Result<Option<Object>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Object { file: self.file.clone(), map: map.clone() })),
            Some(_) => Err(self.wrong(key, "an object")),
        }
    }

    pub fn sizes(&self, key: &str) -> Result<Option<Vec<usize>>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let sizes = value.as_array().and_then(|items| items.iter().map(whole).collect());
        sizes.map(Some).ok_or_else(|| self.wrong(key, "a list of whole numbers"))
    }

    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let texts = value.as_array().and_then(|items| items.iter().map(|item| item.as_str().map(str::to_string)).collect());
        texts.map(Some).ok_or_else(|| self.wrong(key, "a list of texts"))
    }

    /// Class names by number, `{"0": "wall", "1": "floor"}`: the numbers are 0, 1, … without a gap, in any order.
    pub fn numbered_texts(&self, key: &str) -> Result<Option<Vec<String>>, CheckpointError> {
        let Some(object) = self.object(key)? else { return Ok(None) };
        let mut sorted = BTreeMap::new();
        for (number, name) in &object.map {
            let (Ok(number), Some(name)) = (number.parse::<usize>(), name.as_str()) else {
                let entry = quote(&format!("\"{number}\": {name}"));
                return Err(CheckpointError::key(&self.file, key, format!("has the entry {entry}, expected a number and a name")));
            };
            sorted.insert(number, name.to_string());
        }
        if let Some((gap, (number, _))) = sorted.iter().enumerate().find(|(index, (number, _))| index != *number) {
            return Err(CheckpointError::key(&self.file, key, format!("numbers a class {number}, but none is numbered {gap}")));
        }
        if sorted.len() != object.map.len() {
            return Err(CheckpointError::key(&self.file, key, "numbers a class twice"));
        }
        Ok(Some(sorted.into_values().collect()))
    }
}

/// JSON from Python may write 4 as 4.0.
fn whole(value: &Value) -> Option<usize> {
    let float = || value.as_f64().filter(|f| f.fract() == 0.0 && (0.0..=SIZE_MAX as f64).contains(f)).map(|f| f as u64);
    value.as_u64().or_else(float).filter(|size| *size <= SIZE_MAX).map(|size| size as usize)
}
