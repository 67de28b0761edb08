//! Weights in a second file, which lies beside the model (networks of more than 2 GiB).

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use eomt_edge_core::model::ExternalData;

use crate::{bounds, files};

/// The files in a model's directory; links that lead out of it are refused.
#[derive(Debug)]
pub struct WeightFiles {
    directory: PathBuf,
}

impl WeightFiles {
    /// Those beside the model file `model`.
    pub fn beside(model: &Path) -> WeightFiles {
        let directory = model.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        WeightFiles { directory: directory.to_owned() }
    }

    fn open(&self, location: &Path) -> io::Result<File> {
        let path = self.directory.join(location).canonicalize()?;
        if !path.starts_with(self.directory.canonicalize()?) {
            return Err(io::Error::other("it is a link that leads out of the model's directory"));
        }
        files::open(&path)
    }
}

impl ExternalData for WeightFiles {
    fn read(&self, location: &Path, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String> {
        let read = || {
            let mut file = self.open(location)?;
            let size = files::check(&file, &bounds::CHECKPOINT)?;
            let end = length.map_or(Some(size), |length| offset.checked_add(length));
            let Some(len) = end.filter(|end| offset <= *end && *end <= size).map(|end| end - offset) else {
                let end = length.map_or(String::new(), |length| format!(" and length {length}"));
                return Err(io::Error::other(format!("its offset {offset}{end} lie behind the end, {size} bytes")));
            };
            if len > bounds::WEIGHTS.bytes {
                return Err(io::Error::other(format!(
                    "{len} bytes are more than {} may have, {}",
                    bounds::WEIGHTS.kind,
                    bounds::WEIGHTS.bytes
                )));
            }
            file.seek(SeekFrom::Start(offset))?;
            files::read_exactly(&mut file, len)
        };
        read().map_err(|error| format!("cannot be read from {}: {error}", self.directory.join(location).display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_file_beside_the_model_and_of_no_other() {
        let root = std::env::temp_dir().join(format!("eomt-edge-weights-{}", std::process::id()));
        let models = root.join("models");
        std::fs::create_dir_all(&models).unwrap();
        std::fs::write(models.join("m.onnx.data"), [0, 1, 2, 3, 4, 5]).unwrap();
        std::fs::write(root.join("secret"), [9]).unwrap();
        std::os::unix::fs::symlink(root.join("secret"), models.join("out")).unwrap();
        std::os::unix::fs::symlink("m.onnx.data", models.join("in")).unwrap();
        let files = WeightFiles::beside(&models.join("m.onnx"));
        let read = |name: &str, offset, length| files.read(Path::new(name), offset, length);
        assert_eq!(read("m.onnx.data", 2, Some(3)), Ok(vec![2, 3, 4]));
        assert_eq!(read("m.onnx.data", 4, None), Ok(vec![4, 5]));
        assert_eq!(read("m.onnx.data", 6, None), Ok(vec![]));
        assert_eq!(read("in", 0, Some(1)), Ok(vec![0]), "a link inside");
        for (name, offset, length, reason) in [
            ("m.onnx.data", 4, Some(3), "behind the end, 6 bytes"),
            ("m.onnx.data", 7, None, "behind the end"),
            ("m.onnx.data", 1, Some(u64::MAX), "behind the end"),
            ("out", 0, None, "leads out of"),
            ("none", 0, None, "No such file"),
        ] {
            let error = read(name, offset, length).unwrap_err();
            assert!(error.contains(reason) && error.contains(name), "{error}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
