//! The last good model: a copy of the one that served last, which comes back when the configured one fails at start after start.
//!
//! ```text
//! $STATE_DIRECTORY/models.json        starts in a row that did not lead to service, and what the copy is
//! $STATE_DIRECTORY/good-DIGEST/       the model file, the configurations beside it, its files of weights
//! ```
//! A start counts before the model is tried, and once more when the trial went well; service of [`PROVEN_FRAMES`] or [`PROVEN_AFTER`]
//! takes both counts back to 0. A start that ends for another reason than the model takes its counts back.
//!
//! Invariants: a copy is whole or not there (it gets its name when it is complete, and is what was loaded, by SHA-256); a state file that
//! is damaged, or cannot be written, costs a warning and never a start. Without `STATE_DIRECTORY` (systemd.exec(5)) nothing is written
//! and nothing comes back.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eomt_edge_host::contents::Contents;
use eomt_edge_host::files::{hex, sha256};
use rustix::fs::{OFlags, statvfs};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::ModelConfig;

/// So many frames in a row show that a model serves.
const PROVEN_FRAMES: u64 = 100;

/// So does this time, with a frame at least; without any frame it shows that the model is not what fails.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// Larger models are not copied.
const COPY_BYTES_MAX: u64 = 4 << 30;

/// What a copy must leave free on its file system.
const SPACE_MIN: u64 = 16 << 20;

/// The longest state file: digests of 20,000 tensors in files of weights.
const STATE_BYTES_MAX: u64 = 4 << 20;

const VERSION: u32 = 1;

/// What is remembered from start to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    /// What was configured at those starts: another model, or a changed file, begins anew.
    of: String,
    /// Starts in a row without service.
    failed_starts: u32,
    /// Of these, starts whose trial went well: the model failed while it served.
    failed_service: u32,
    good: Option<Good>,
}

/// The copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Good {
    /// In the state directory.
    directory: String,
    /// The model file in it.
    file: String,
    /// `model.normalization` that goes with it.
    normalization: String,
    /// `model.merge` that goes with it; empty in what earlier versions wrote.
    #[serde(default)]
    merge: String,
    contents: Contents,
}

impl State {
    fn new(of: String) -> State {
        State { version: VERSION, of, failed_starts: 0, failed_service: 0, good: None }
    }

    fn read(path: &Path, of: &str) -> Result<State, String> {
        let open = std::fs::File::options().read(true).custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32).open(path);
        let file = match open {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::new(of.to_owned())),
            Err(error) => return Err(error.to_string()),
        };
        let mut text = String::new();
        match file.metadata() {
            Ok(data) if data.is_file() => file.take(STATE_BYTES_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?,
            _ => return Err("it is not a regular file".to_owned()),
        };
        let mut state: State = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let plain = |name: &str| !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        if state.version != VERSION || state.good.as_ref().is_some_and(|good| !plain(&good.directory) || !plain(&good.file)) {
            return Err("it is of another version, or names files outside of its directory".to_owned());
        }
        if state.of != of {
            state = State { good: state.good, ..State::new(of.to_owned()) };
        }
        Ok(state)
    }
}

/// Where the state lies, and what it is.
#[derive(Debug)]
struct Store {
    directory: PathBuf,
    state: State,
    /// Said once that it cannot be written.
    told: bool,
}

impl Store {
    /// Not by `files::write`, which may take over the signals that end this daemon in order.
    fn write(&mut self) {
        let text = serde_json::to_vec(&self.state).unwrap_or_default();
        let (new, path) = (self.directory.join("models.json.new"), self.directory.join(STATE_FILE));
        let write = || {
            remove(&new)?;
            let mut file = std::fs::File::create_new(&new)?;
            file.write_all(&text).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&new, &path))
        };
        if let Err(error) = write() {
            let _ = std::fs::remove_file(&new);
            if !std::mem::replace(&mut self.told, true) {
                log::warn!("{}: starts cannot be counted, so no last good model comes back: {error}", path.display());
            }
        }
    }
}

const STATE_FILE: &str = "models.json";

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What serves now and is not proven yet.
#[derive(Debug)]
struct Candidate {
    config: ModelConfig,
    contents: Contents,
    since: Instant,
    published: u64,
}

/// Counts starts, keeps the copy.
#[derive(Debug)]
pub struct LastGood {
    /// `None`: there is no state directory.
    store: Option<Arc<Mutex<Store>>>,
    /// Counts before this start.
    before: (u32, u32),
    candidate: Option<Candidate>,
    /// The thread that copies, one at a time.
    keeper: Option<JoinHandle<()>>,
}

impl LastGood {
    /// In systemd's state directory.
    pub fn from_environment(model: &ModelConfig) -> LastGood {
        let listed = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
        let first = listed.as_encoded_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
        let directory = Some(PathBuf::from(String::from_utf8_lossy(first).into_owned())).filter(|path| path.is_absolute());
        LastGood::open(directory.filter(|_| model.fallback_after > 0), model)
    }

    fn open(directory: Option<PathBuf>, model: &ModelConfig) -> LastGood {
        let store = directory.map(|directory| {
            let of = identity(model);
            let state = State::read(&directory.join(STATE_FILE), &of).unwrap_or_else(|reason| {
                log::warn!("{}: not used, starts are counted anew: {reason}", directory.join(STATE_FILE).display());
                State::new(of)
            });
            Store { directory, state, told: false }
        });
        let before = store.as_ref().map_or((0, 0), |store| (store.state.failed_starts, store.state.failed_service));
        LastGood { store: store.map(|store| Arc::new(Mutex::new(store))), before, candidate: None, keeper: None }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let Some(store) = &self.store else { return };
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        let old = store.state.clone();
        change(&mut store.state);
        if store.state != old {
            store.write();
        }
    }

    /// A model is about to be tried.
    pub fn begins(&self) {
        self.change(|state| state.failed_starts = state.failed_starts.saturating_add(1));
    }

    /// The trial went well.
    pub fn trial_passed(&self) {
        self.change(|state| state.failed_service = state.failed_service.saturating_add(1));
    }

    /// The daemon ends for another reason than its model.
    pub fn withdraw(&self) {
        let (failed_starts, failed_service) = self.before;
        if self.candidate.is_some() {
            self.change(|state| (state.failed_starts, state.failed_service) = (failed_starts, failed_service));
        }
    }

    /// The same before anything serves.
    pub fn withdraw_start(&self) {
        let (failed_starts, failed_service) = self.before;
        self.change(|state| (state.failed_starts, state.failed_service) = (failed_starts, failed_service));
    }

    /// The copy, as a configuration, and what it must consist of, if starts with `model` have failed often enough. `tried`: what its trial
    /// found just now; one that failed asks for the copy, one that went well only when service failed after it, and not for the same
    /// model.
    pub fn instead_of(&self, model: &ModelConfig, tried: Option<&Contents>) -> Option<(ModelConfig, Contents)> {
        let store = self.store.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let good = store.state.good.as_ref()?;
        let (failed_starts, failed_service) = self.before;
        let due = match tried {
            None => failed_starts >= model.fallback_after,
            Some(tried) => failed_service >= model.fallback_after && *tried != good.contents,
        };
        // `model.sha256` names the only file that may run, and the copy is a file, too
        let may_run = model.sha256.is_empty() || model.sha256.eq_ignore_ascii_case(&good.contents.model);
        let normalization = good.normalization.parse().ok()?;
        let path = store.directory.join(&good.directory).join(&good.file);
        let merge = good.merge.parse().unwrap_or_default();
        let config = ModelConfig { path, normalization, merge, sha256: good.contents.model.clone(), ..model.clone() };
        (due && may_run).then(|| (config, good.contents.clone()))
    }

    /// This model begins to serve.
    pub fn serves(&mut self, config: &ModelConfig, contents: &Contents, published: u64, now: Instant) {
        self.candidate = Some(Candidate { config: config.clone(), contents: contents.clone(), since: now, published });
    }

    /// To be called now and then: after enough frames, or time, the model counts as good. The copy is made on a thread of its own.
    pub fn proven(&mut self, published: u64, now: Instant) {
        if self.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
            return; // it is asked again
        }
        let frames = |candidate: &Candidate| published.saturating_sub(candidate.published);
        let is_proven = |candidate: &mut Candidate| {
            frames(candidate) >= PROVEN_FRAMES || now.saturating_duration_since(candidate.since) >= PROVEN_AFTER
        };
        let Some(candidate) = self.candidate.take_if(is_proven) else { return };
        let served = frames(&candidate) > 0;
        let Some(store) = self.store.clone() else { return };
        self.before = (0, 0);
        match std::thread::Builder::new().name("eomt-keep".to_owned()).spawn(move || keep(&store, &candidate, served)) {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(error) => log::warn!("no thread to keep the last good model: {error}"),
        }
    }
}

/// Takes the counts back, then copies a model that has `served`. The store is free during the copy, which takes long.
fn keep(store: &Mutex<Store>, candidate: &Candidate, served: bool) {
    let lock = || store.lock().unwrap_or_else(PoisonError::into_inner);
    let (directory, kept) = {
        let mut store = lock();
        (store.state.failed_starts, store.state.failed_service) = (0, 0);
        store.write();
        (store.directory.clone(), store.state.good.as_ref().is_some_and(|good| good.contents == candidate.contents))
    };
    if served && !kept {
        match copy(&directory, candidate) {
            Ok(good) => {
                let mut store = lock();
                store.state.good = Some(good);
                store.write();
            }
            Err(reason) => log::warn!("{}: not kept as the last good model: {reason}", candidate.config.path.display()),
        }
    }
    let current = lock().state.good.as_ref().map(|good| good.directory.clone());
    remove_others(&directory, current.as_deref());
}

/// What fails, if it fails: the file as it is now, and how it is to be computed.
fn identity(model: &ModelConfig) -> String {
    let file = std::fs::metadata(&model.path).map(|data| (data.ino(), data.size(), data.mtime(), data.mtime_nsec())).ok();
    let mut hasher = DefaultHasher::new();
    format!("{model:?} {file:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Copies a model and what belongs to it; the name comes last.
fn copy(state: &Path, candidate: &Candidate) -> Result<Good, String> {
    let Candidate { config, contents, .. } = candidate;
    let file = config.path.file_name().and_then(|name| name.to_str()).ok_or("its name is not UTF-8")?;
    let from = config.path.parent().unwrap_or(Path::new(""));
    let mut weights: Vec<&str> = contents.weights.iter().map(|part| part.location.as_str()).collect();
    weights.sort_unstable();
    weights.dedup();
    let names = [file].into_iter().chain(contents.beside.iter().map(|(name, _)| name.as_str())).chain(weights.iter().copied());
    let names: Vec<&str> = names.collect();
    let sizes = names.iter().map(|name| std::fs::metadata(from.join(name)).map(|data| data.len()));
    let bytes = sizes.sum::<io::Result<u64>>().map_err(|error| error.to_string())?;
    let space = statvfs(state).map_err(|error| error.to_string())?;
    if bytes > COPY_BYTES_MAX || bytes.saturating_add(SPACE_MIN) > space.f_bavail.saturating_mul(space.f_frsize) {
        return Err(format!("there is no room for its {} MiB in {}", bytes >> 20, state.display()));
    }
    let directory = format!("good-{}", &sha256(&serde_json::to_vec(contents).unwrap_or_default())[..16]);
    let (new, path) = (state.join(format!("{directory}.new")), state.join(&directory));
    let fill = || {
        for old in [&new, &path] {
            remove_directory(old).map_err(|error| error.to_string())?;
        }
        std::fs::create_dir(&new).map_err(|error| error.to_string())?;
        let mut digests = Vec::new();
        for name in &names {
            digests.push(copy_file(&from.join(name), &new.join(name)).map_err(|error| format!("{name}: {error}"))?);
        }
        let expected = [&contents.model].into_iter().chain(contents.beside.iter().map(|(_, digest)| digest));
        if let Some((name, ..)) = names.iter().zip(&digests).zip(expected).map(|((name, a), b)| (name, a, b)).find(|(_, a, b)| a != b) {
            return Err(format!("{name} has changed since it was loaded"));
        }
        contents.check_weights(&new)?;
        let sync = std::fs::File::open(&new).and_then(|directory| directory.sync_all());
        sync.and_then(|()| std::fs::rename(&new, &path)).map_err(|error| error.to_string())
    };
    fill().inspect_err(|_| drop(remove_directory(&new)))?;
    log::info!("{}: kept as the last good model", config.path.display());
    let normalization = config.normalization.name().to_owned();
    Ok(Good { directory, file: file.to_owned(), normalization, merge: config.merge.to_string(), contents: contents.clone() })
}

/// Copies one file to the disk; returns its SHA-256.
fn copy_file(from: &Path, to: &Path) -> io::Result<String> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut from = std::fs::File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(from)?.take(COPY_BYTES_MAX);
    let mut to = std::fs::File::create_new(to)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
    }
    to.sync_all()?;
    Ok(hex(&hasher.finalize()))
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies of earlier models, and what a copy that was cut short left.
fn remove_others(state: &Path, current: Option<&str>) {
    let Ok(entries) = std::fs::read_dir(state) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b"good-") && current.is_none_or(|current| name != current) {
            let _ = remove_directory(&entry.path()); // it is tried again the next time
        }
    }
}
