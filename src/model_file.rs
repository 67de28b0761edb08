//! Model files: opens what [`crate::model`] takes as bytes.
//!
//! ```no_run
//! let (model, _bytes) = eomt_edge::model_file::load("models/eomt-nano-scenes.onnx".as_ref(), 0)?;
//! # Ok::<(), eomt_edge::model_file::ModelFileError>(())
//! ```
//!
//! Refuses: everything but reading.

use std::path::{Path, PathBuf};

use crate::model::{LoadOptions, Model, ModelError};

/// Why there is no model; the sentence names the file.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    #[error("{}: cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Model { path: PathBuf, source: ModelError },
}

/// Loads a model file, with the `config.json` beside it should it be a foreign export. `threads` 0 = one per core.
/// Also returns the file's bytes.
pub fn load(path: &Path, threads: usize) -> Result<(Model, Vec<u8>), ModelFileError> {
    let io = |source| ModelFileError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(io(std::io::Error::other("it is not a regular file")));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let config_json = std::fs::read_to_string(path.with_file_name("config.json")).ok();
    let directory = path.parent().and_then(Path::to_str);
    let options =
        LoadOptions { directory, threads: threads_or_cores(threads), config_json: config_json.as_deref(), ..LoadOptions::default() };
    let model = Model::load(&bytes, &options).map_err(|source| ModelFileError::Model { path: path.to_owned(), source })?;
    Ok((model, bytes))
}

/// 0 means one thread per core.
pub fn threads_or_cores(threads: usize) -> usize {
    if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
