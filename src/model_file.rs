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
    #[error("{from}: {source}")]
    Isa { from: &'static str, source: ModelError },
    #[error("{}: {source}", path.display())]
    Model { path: PathBuf, source: ModelError },
}

impl ModelFileError {
    /// Whether the user's words are at fault (exit code 2) rather than the world (1).
    pub fn is_usage(&self) -> bool {
        matches!(self, ModelFileError::Isa { .. })
    }
}

/// How to load a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileOptions<'a> {
    /// 0 = one per core.
    pub threads: usize,
    /// The instruction set by name; `None` is what the environment says, else the best that this CPU has.
    pub isa: Option<&'a str>,
}

/// Names the instruction set when nothing else does; for tests of kernels that this CPU would not choose.
pub const ISA_VARIABLE: &str = "EOMT_EDGE_ISA";

/// [`load_with`] the instruction set that the environment says. `threads` 0 = one per core.
pub fn load(path: &Path, threads: usize) -> Result<(Model, Vec<u8>), ModelFileError> {
    load_with(path, &FileOptions { threads, isa: None })
}

/// Loads a model file, with the `config.json` beside it should it be a foreign export. Also returns the file's bytes.
pub fn load_with(path: &Path, options: &FileOptions) -> Result<(Model, Vec<u8>), ModelFileError> {
    let io = |source| ModelFileError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(io(std::io::Error::other("it is not a regular file")));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let config_json = std::fs::read_to_string(path.with_file_name("config.json")).ok();
    let environment = std::env::var_os(ISA_VARIABLE).map(|name| name.to_string_lossy().into_owned());
    let load_options = LoadOptions {
        directory: path.parent().and_then(Path::to_str),
        threads: threads_or_cores(options.threads),
        config_json: config_json.as_deref(),
        isa: options.isa.or(environment.as_deref()).filter(|name| !name.is_empty()),
        ..LoadOptions::default()
    };
    let model = Model::load(&bytes, &load_options).map_err(|source| match source {
        ModelError::Isa(_) => ModelFileError::Isa { from: if options.isa.is_some() { "--isa" } else { ISA_VARIABLE }, source },
        _ => ModelFileError::Model { path: path.to_owned(), source },
    })?;
    Ok((model, bytes))
}

/// 0 means one thread per core.
pub fn threads_or_cores(threads: usize) -> usize {
    if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
