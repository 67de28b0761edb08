//! Model files: opens what [`eomt_edge_core::model`] takes as bytes.
//!
//! ```no_run
//! use eomt_edge_host::model_file::{Compute, load};
//! let model = load("models/eomt-nano-scenes.onnx".as_ref(), &Compute::default())?;
//! # Ok::<(), eomt_edge_host::model_file::ModelFileError>(())
//! ```
//!
//! Weights in a second file, which networks of more than 2 GiB have, come from the model's directory. Refuses: everything but reading.

use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use eomt_edge_core::data::{Normalization, TokenMerging};
use eomt_edge_core::kernels::arch::{Isa, IsaError};
use eomt_edge_core::kernels::workers::Workers;
use eomt_edge_core::model::processor::{PREPROCESSOR_FILE, PROCESSOR_FILE, Texts};
use eomt_edge_core::model::{Agreement, Companions, ExternalData, LoadOptions, Model, ModelError, ReuseConfig, is_contained};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::allocator::return_free_memory;
use crate::contents::{Contents, RecordedWeights};
use crate::files::sha256;
use crate::weight_files::WeightFiles;
use crate::{bounds, files};

/// Why there is no model; the sentence names the file.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// The file, or one beside it.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no network that runs here.
    #[error("{}: {source}", path.display())]
    Model {
        /// The model file.
        path: PathBuf,
        /// Why.
        source: ModelError,
    },
    /// Another file than `model.sha256` names.
    #[error("{}: its SHA-256 is {found}, but model.sha256 is {wanted}: put the right file there, or the right digest into the configuration", path.display())]
    Digest {
        /// The model file.
        path: PathBuf,
        /// The file's.
        found: String,
        /// The configuration's.
        wanted: String,
    },
    /// It was tried, and is another one now.
    #[error("{}: {what} has changed since it was tried: load it again", path.display())]
    Changed {
        /// The model file.
        path: PathBuf,
        /// Which file.
        what: String,
    },
    /// Threads cannot be started; the whole sentence.
    #[error("{0}")]
    Threads(String),
    /// The instruction set is unknown, or this CPU lacks it.
    #[error("{from}: {source}")]
    Isa {
        /// Who asked for it: the option, or the environment variable.
        from: &'static str,
        /// Why, and which ones there are.
        source: IsaError,
    },
}

impl ModelFileError {
    /// Whether the command line is wrong (exit code 2), not the system (exit code 1).
    pub fn is_usage(&self) -> bool {
        matches!(self, ModelFileError::Isa { .. })
    }
}

/// Names the instruction set when nothing else does; for tests of kernels that this CPU would not choose.
pub const ISA_VARIABLE: &str = "EOMT_EDGE_ISA";

/// The threads and instructions that a model runs on, and how its file is read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compute {
    /// Threads of one inference; 0 = one per core.
    pub threads: usize,
    /// The instruction set by name; `None`: that of the environment ([`ISA_VARIABLE`]), else the best of this CPU.
    pub isa: Option<String>,
    /// CPU numbers to pin the threads to, in turn; empty: the kernel moves them.
    pub cores: Vec<usize>,
    /// Where a third-party export's pixel values are normalized.
    pub normalization: Normalization,
    /// Compute what the file has in f32 in bfloat16 where the CPU has such products.
    pub bf16: bool,
    /// Patch tokens that are merged away.
    pub merging: TokenMerging,
    /// Keep what patches had that have not changed since the last frame.
    pub reuse: Option<ReuseConfig>,
}

impl Compute {
    /// All threads there are.
    pub fn threads(threads: usize) -> Compute {
        Compute { threads, ..Compute::default() }
    }

    /// The same for files that may be third-party exports.
    pub fn with_normalization(self, normalization: Normalization) -> Compute {
        Compute { normalization, ..self }
    }

    /// The same with or without products in bfloat16.
    pub fn with_bf16(self, bf16: bool) -> Compute {
        Compute { bf16, ..self }
    }

    /// The same with fewer patch tokens.
    pub fn with_merging(self, merging: TokenMerging) -> Compute {
        Compute { merging, ..self }
    }

    /// The same with reuse over time.
    pub fn with_reuse(self, reuse: Option<ReuseConfig>) -> Compute {
        Compute { reuse, ..self }
    }

    fn isa(&self) -> Result<Isa, ModelFileError> {
        let environment = std::env::var_os(ISA_VARIABLE).map(|name| name.to_string_lossy().into_owned());
        let from = if self.isa.is_some() { "instruction set" } else { ISA_VARIABLE };
        let name = self.isa.as_ref().or(environment.as_ref()).filter(|name| !name.is_empty());
        Isa::named(name.map(String::as_str)).map_err(|source| ModelFileError::Isa { from, source })
    }

    /// Starts the threads; a single one that is not pinned is the caller's own.
    fn workers(&self) -> Result<Workers, String> {
        let threads = threads_or_cores(self.threads);
        if threads == 1 && self.cores.is_empty() {
            return Ok(Workers::one());
        }
        let cores = self.cores.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("{THREAD_NAME}{index}"))
            .start_handler(move |index| pin(&cores, index))
            .build();
        Ok(Workers::pool(Arc::new(pool.map_err(|error| format!("{threads} threads cannot be started: {error}"))?)))
    }
}

/// Pins the calling thread (sched_setaffinity(2)).
fn pin(cores: &[usize], index: usize) {
    if cores.is_empty() {
        return;
    }
    let core = cores[index % cores.len()];
    let mut set = CpuSet::new();
    if core < CpuSet::MAX_CPU {
        set.set(core);
    }
    if let Err(error) = sched_setaffinity(None, &set) {
        log::warn!("thread {index} cannot be pinned to core {core}: {error}");
    }
}

/// What a model file must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// SHA-256 of the file, hex.
    pub sha256: Option<String>,
    /// What was read when it was tried.
    pub tried: Option<Contents>,
}

/// A model, and what it was read from.
#[derive(Debug)]
pub struct Loaded {
    /// The network.
    pub model: Model,
    /// Digests of the files.
    pub contents: Contents,
}

/// [`load`] of a file that must be `expected`. What was not tried before and is small enough is compared with its plain evaluation, as in
/// [`load_checked`].
///
/// # Errors
/// As [`load`] and [`check`]; [`ModelFileError::Digest`] and [`ModelFileError::Changed`], before anything is made of the file.
pub fn load_expected(path: &Path, compute: &Compute, expected: &Expected) -> Result<Loaded, ModelFileError> {
    let mut opened = open(path, compute, expected)?;
    if expected.tried.is_none() {
        check_small(path, &mut opened)?;
    }
    return_free_memory();
    Ok(Loaded { model: opened.model, contents: opened.contents })
}

/// Loads a model file, with the configurations beside it if it is a third-party export, and logs remarks about it.
///
/// # Errors
/// [`ModelFileError`], one sentence with the file's name.
pub fn load(path: &Path, compute: &Compute) -> Result<Model, ModelFileError> {
    let opened = open(path, compute, &Expected::default())?;
    return_free_memory();
    Ok(opened.model)
}

/// Up to so many multiply-accumulates of one inference a third-party file is compared with its plain evaluation whenever it is loaded: at
/// that size the comparison takes about as long as the loading.
const CHECKED_MACS_MAX: u64 = 1_000_000_000;

/// [`load`], and a third-party file that is small enough is compared with its plain evaluation ([`Model::check`]).
///
/// # Errors
/// As [`load`] and [`check`].
pub fn load_checked(path: &Path, compute: &Compute) -> Result<Model, ModelFileError> {
    let mut opened = open(path, compute, &Expected::default())?;
    check_small(path, &mut opened)?;
    return_free_memory();
    Ok(opened.model)
}

fn check_small(path: &Path, Opened { model, contents, workers }: &mut Opened) -> Result<(), ModelFileError> {
    if !model.origin().third_party {
        return Ok(());
    }
    if model.merges_tokens() {
        log::info!(
            "{}: written by another program; eomt-edge run --check compares it, without merged tokens, with a plain evaluation",
            path.display()
        );
        return Ok(());
    }
    if model.macs() > CHECKED_MACS_MAX {
        log::info!("{}: written by another program; eomt-edge run --check compares it with a plain evaluation", path.display());
        return Ok(());
    }
    agreement(path, model, contents, 1, workers.clone()).map(drop)
}

/// Loads a file and compares it with its plain evaluation on two inputs. Where tokens are to merge it is loaded without that, too: only
/// the whole network has a plain evaluation.
///
/// # Errors
/// When it cannot be loaded, or the two differ by more than the file's precision explains.
pub fn check(path: &Path, compute: &Compute) -> Result<(Model, Agreement), ModelFileError> {
    let Opened { mut model, contents, workers } = open(path, compute, &Expected::default())?;
    if model.merges_tokens() {
        model = open(path, &compute.clone().with_merging(TokenMerging::default()), &Expected::default())?.model;
    }
    let agreement = agreement(path, &mut model, &contents, 2, workers)?;
    return_free_memory();
    Ok((model, agreement))
}

/// Reads the file once more: while a model loads, its bytes would be memory that nothing needs.
fn agreement(path: &Path, model: &mut Model, contents: &Contents, inputs: usize, workers: Workers) -> Result<Agreement, ModelFileError> {
    let bytes = read(path)?;
    if sha256(&bytes) != contents.model {
        return Err(ModelFileError::Changed { path: path.to_owned(), what: "the file".to_owned() });
    }
    let beside = WeightFiles::beside(path);
    let options = LoadOptions { workers, external_data: Some(&beside), ..LoadOptions::default() };
    model.check(&bytes, inputs, &options).map_err(|source| ModelFileError::Model { path: path.to_owned(), source })
}

struct Opened {
    model: Model,
    workers: Workers,
    contents: Contents,
}

fn open(path: &Path, compute: &Compute, expected: &Expected) -> Result<Opened, ModelFileError> {
    keep_contained_panics_silent();
    let bytes = read(path)?;
    let mut unreadable = None;
    let [config, preprocessor, processor] = ["config.json", PREPROCESSOR_FILE, PROCESSOR_FILE].map(|name| {
        beside(path, name).unwrap_or_else(|error| {
            unreadable.get_or_insert(error);
            None
        })
    });
    let found = [("config.json", &config), (PREPROCESSOR_FILE, &preprocessor), (PROCESSOR_FILE, &processor)];
    let beside = found.into_iter().filter_map(|(name, text)| Some((name.to_owned(), sha256(text.as_ref()?.as_bytes())))).collect();
    let mut contents = Contents { model: sha256(&bytes), beside, weights: Vec::new() };
    check_expected(path, &contents, expected)?;
    let texts = Texts { preprocessor: preprocessor.as_deref(), processor: processor.as_deref(), video: false };
    let companions = Companions { config: config.as_deref(), processor: texts };
    let weights = RecordedWeights::new(WeightFiles::beside(path), expected.tried.as_ref());
    let isa = compute.isa()?;
    let workers = compute.workers().map_err(ModelFileError::Threads)?;
    let Compute { normalization, bf16, merging, reuse, .. } = *compute;
    let external_data: Option<&dyn ExternalData> = Some(&weights);
    let options = LoadOptions { isa, workers, external_data, companions, normalization, bf16, merging, reuse, ..LoadOptions::default() };
    let model = match (Model::load_freeing(bytes, &options), unreadable) {
        // a file that describes itself needs no other one
        (Ok(model), Some(error)) if model.metadata().converter.is_empty() => return Err(error),
        (Err(ModelError::NeedsConfig { .. }), Some(error)) => return Err(error),
        (model, _) => model.map_err(|source| ModelFileError::Model { path: path.to_owned(), source })?,
    };
    model.remarks().warnings.iter().for_each(|warning| log::warn!("{}: {warning}", path.display()));
    model.remarks().facts.iter().for_each(|fact| log::info!("{}: {fact}", path.display()));
    let workers = options.workers;
    contents.weights = weights.into_read();
    Ok(Opened { model, workers, contents })
}

fn read(path: &Path) -> Result<Vec<u8>, ModelFileError> {
    files::read_bytes(path, &bounds::MODEL).map_err(|source| ModelFileError::Io { path: path.to_owned(), source })
}

fn check_expected(path: &Path, contents: &Contents, expected: &Expected) -> Result<(), ModelFileError> {
    if let Some(wanted) = expected.sha256.as_ref().filter(|wanted| !wanted.eq_ignore_ascii_case(&contents.model)) {
        return Err(ModelFileError::Digest { path: path.to_owned(), found: contents.model.clone(), wanted: wanted.clone() });
    }
    match expected.tried.as_ref().and_then(|tried| contents.difference(tried)) {
        Some(what) => Err(ModelFileError::Changed { path: path.to_owned(), what }),
        None => Ok(()),
    }
}

/// Names of the threads of an inference begin with this.
const THREAD_NAME: &str = "eomt-infer-";

/// Panics that become errors of a model print nothing: the error is the sentence.
fn keep_contained_panics_silent() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let lent = std::thread::current().name().is_some_and(|name| name.starts_with(THREAD_NAME));
            if is_thread_without_memory(info) || !is_contained(lent) {
                others(info);
            }
        }));
    });
}

/// Whether a thread panics before it has begun, since there was no memory for the stack of its signal handlers. The standard library spawns it all
/// the same, and nothing can catch the panic: the process is about to abort, without another word.
pub fn is_thread_without_memory(panic: &PanicHookInfo<'_>) -> bool {
    let words = ["failed to allocate an alternative stack", "failed to set up alternative stack guard page"];
    panic.payload_as_str().is_some_and(|said| words.iter().any(|words| said.starts_with(words)))
}

/// The text of a file beside the model; `None` when there is none.
fn beside(path: &Path, name: &str) -> Result<Option<String>, ModelFileError> {
    let path = path.with_file_name(name);
    match files::read_text(&path, &bounds::JSON) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(ModelFileError::Io { path, source }),
    }
}

/// 0 means one thread per core.
pub fn threads_or_cores(threads: usize) -> usize {
    if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
