//! What a model was made of, by SHA-256: so that what is loaded is what was tried, and a copy is what was loaded.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use eomt_edge_core::model::ExternalData;
use serde::{Deserialize, Serialize};

use crate::files::sha256;
use crate::weight_files::WeightFiles;

/// Everything that was read for a model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contents {
    /// SHA-256 of the model file, hex.
    pub model: String,
    /// Names and SHA-256 of the configurations beside it that could be read.
    pub beside: Vec<(String, String)>,
    /// Weights in other files, in the order in which they were read.
    pub weights: Vec<Weights>,
}

/// A part of a file of weights beside a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// The file, relative to the model's directory.
    pub location: String,
    /// Where the part begins, bytes.
    pub offset: u64,
    /// Bytes that were asked for; `None`: all that follow.
    pub length: Option<u64>,
    /// SHA-256 of the part, hex.
    pub sha256: String,
}

impl Contents {
    /// What of `self`, files that are read again, is not as it was; the end of a sentence.
    pub fn difference(&self, before: &Contents) -> Option<String> {
        if self.model != before.model {
            return Some("the file itself".to_owned());
        }
        let names = self.beside.iter().chain(&before.beside).map(|(name, _)| name);
        let mut all = names.map(|name| (name, &self.beside, &before.beside));
        let of = |list: &[(String, String)], name: &str| list.iter().find(|(other, _)| other == name).map(|(_, digest)| digest.clone());
        all.find(|(name, now, then)| of(now, name) != of(then, name)).map(|(name, ..)| format!("{name} beside it"))
    }

    /// Whether the files in `directory` hold the same weights.
    ///
    /// # Errors
    /// Which part does not, or cannot be read.
    pub fn check_weights(&self, directory: &Path) -> Result<(), String> {
        let files = WeightFiles::beside(&directory.join("model"));
        for part in &self.weights {
            let bytes = files.read(Path::new(&part.location), part.offset, part.length)?;
            if sha256(&bytes) != part.sha256 {
                return Err(format!("{} has changed since it was loaded", part.location));
            }
        }
        Ok(())
    }
}

/// Files of weights, with what was read of them; compared with what was read before, if there is such.
#[derive(Debug)]
pub(crate) struct RecordedWeights<'a> {
    files: WeightFiles,
    before: Option<&'a [Weights]>,
    read: Mutex<Vec<Weights>>,
}

impl<'a> RecordedWeights<'a> {
    pub fn new(files: WeightFiles, before: Option<&'a Contents>) -> RecordedWeights<'a> {
        RecordedWeights { files, before: before.map(|contents| &contents.weights[..]), read: Mutex::default() }
    }

    pub fn into_read(self) -> Vec<Weights> {
        self.read.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExternalData for RecordedWeights<'_> {
    fn read(&self, location: &Path, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String> {
        let bytes = self.files.read(location, offset, length)?;
        let part = Weights { location: location.to_string_lossy().into_owned(), offset, length, sha256: sha256(&bytes) };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if self.before.is_some_and(|before| before.get(read.len()) != Some(&part)) {
            return Err(format!("has changed in {} since the model was tried: load it again", location.display()));
        }
        read.push(part);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        // FIPS 180-2, appendix B.1
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn what_differs_is_named() {
        let contents = |model: &str, beside: &[(&str, &str)]| Contents {
            model: model.to_owned(),
            beside: beside.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect(),
            weights: Vec::new(),
        };
        let before = contents("a", &[("config.json", "b")]);
        assert_eq!(before.difference(&before), None);
        assert_eq!(contents("z", &[("config.json", "b")]).difference(&before).as_deref(), Some("the file itself"));
        for now in [contents("a", &[]), contents("a", &[("config.json", "z")])] {
            assert_eq!(now.difference(&before).as_deref(), Some("config.json beside it"));
            assert_eq!(before.difference(&now).as_deref(), Some("config.json beside it"));
        }
    }

    #[test]
    fn weights_that_change_are_refused() {
        let root = std::env::temp_dir().join(format!("eomt-edge-contents-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("w.data"), [0, 1, 2, 3, 4, 5]).unwrap();
        let model = root.join("m.onnx");
        let first = RecordedWeights::new(WeightFiles::beside(&model), None);
        assert_eq!(first.read(Path::new("w.data"), 2, Some(3)), Ok(vec![2, 3, 4]));
        assert_eq!(first.read(Path::new("w.data"), 4, None), Ok(vec![4, 5]));
        let before = Contents { weights: first.into_read(), ..Contents::default() };
        let again = RecordedWeights::new(WeightFiles::beside(&model), Some(&before));
        assert_eq!(again.read(Path::new("w.data"), 2, Some(3)), Ok(vec![2, 3, 4]));
        assert_eq!(before.check_weights(&root), Ok(()));
        std::fs::write(root.join("w.data"), [0, 1, 2, 3, 9, 5]).unwrap();
        let sentence = again.read(Path::new("w.data"), 4, None).unwrap_err();
        assert!(sentence.contains("w.data") && sentence.contains("tried"), "{sentence}");
        assert!(before.check_weights(&root).unwrap_err().contains("w.data"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
