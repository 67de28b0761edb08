//! The composition root: configuration to running threads.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use eomt_edge::config::Config;
//! use eomt_edge::daemon;
//! daemon::run(Box::new(|| Config::parse("[source]\nuri = \"scenes\"\n", &[])), Some(100))?;
//! # Ok(())
//! # }
//! ```
//!
//! Threads: capture (owns the source), inference (this one: pipeline and ring writer), mask server, control socket, supervisor, display. A
//! mailbox of one joins the first two; `supervisor.rs` says who watches whom. Invariants: SIGTERM and SIGINT end the program within a second; SIGHUP reads the configuration again, and what
//! does not work leaves the old one in force; what is dropped is counted; one bad frame is counted and skipped. Refuses: computing
//! (the pipeline does), talking to clients (the ring's server does).

mod builder;
mod capture;
mod last_good;
mod loader;
mod orders;
mod reload;
mod rhythm;
mod screen;
mod serve;
mod service;
mod signals;
mod start;
mod steering;
mod supervisor;
mod trial;
mod trial_child;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use eomt_edge_core::data::Unpublished;
use eomt_edge_core::model::Agreement;
use eomt_edge_core::pipeline::{Clock, SourceError};
use eomt_edge_core::track::TrackIds;
use eomt_edge_host::MonotonicClock;
use eomt_edge_host::model_file::{self, ModelFileError};

pub use builder::source_options;
pub use supervisor::Stopped;
pub use trial_child::{Tried, try_model_main};

use crate::config::{Config, ConfigError, ModelConfig};
use crate::control::{ControlError, LOG};
use crate::sink::RingSink;
use crate::sink::State;
use crate::sink::ring::RingError;
use crate::source::SourceUri;
use builder::{decoder, open_source, ring_config, source_uri, start_sink};
use capture::Capture;
use last_good::LastGood;
use loader::Loaders;
use screen::Screen;
use serve::Server;
use service::Service;
use signals::{Signals, TIME_IS_UP};
use start::{Started, Starter};
use steering::{Steering, hide_command};
use supervisor::Supervisor;
use trial::TrialError;

/// Reads the configuration: at the start, and again at each SIGHUP.
pub type ReadConfig = Box<dyn Fn() -> Result<Config, ConfigError>>;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelFileError),
    /// The model did not pass its trial in another process.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// The model was loaded and does not run.
    #[error("{}: its first inference failed: {reason}", path.display())]
    FirstInference {
        /// The model file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The model passes its trial, and the daemon ends all the same.
    #[error("{}: the last {starts} starts or more with it ended while it served", path.display())]
    Service {
        /// The model file.
        path: PathBuf,
        /// How many.
        starts: u32,
    },
    /// `source.uri` is no URI of a known kind.
    #[error("configuration: source.uri: {0}")]
    SourceUri(String),
    /// The source cannot be opened, or failed for good.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The mask ring or its socket cannot be made.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The signal handlers cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The system gives no thread.
    #[error("no thread for {of} (`ulimit -u`, or TasksMax= in the unit, is too low): {source}")]
    NoThread {
        /// What it is for.
        of: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A call into the source did not return within a minute.
    #[error("{source_uri}: no answer for {seconds} s: a driver hangs, or a share that is gone; a new process tries again")]
    SourceHangs {
        /// As the user calls it.
        source_uri: String,
        /// For how long.
        seconds: u64,
    },
    /// A thread has ended, or hangs.
    #[error("{thread}: {stopped}; a new process takes its place")]
    Thread {
        /// What it does.
        thread: &'static str,
        /// What is wrong with it.
        stopped: Stopped,
    },
    /// SIGXCPU.
    #[error("{TIME_IS_UP}")]
    TimeIsUp,
    /// Too many frames in a row failed.
    #[error("{failed} frames in a row failed, the last one: {reason}")]
    Frames {
        /// How many.
        failed: u64,
        /// Number of the last one, and why it failed.
        reason: String,
    },
}

impl DaemonError {
    /// Whether the user's words are at fault (exit code 2) rather than the world (1).
    pub fn is_usage(&self) -> bool {
        match self {
            DaemonError::SourceUri(_) | DaemonError::Config(_) => true,
            DaemonError::Model(error) => error.is_usage(),
            DaemonError::Trial(TrialError::Refused { is_usage, .. }) => *is_usage,
            _ => false,
        }
    }

    /// Whether another model could do better.
    fn is_of_the_model(&self) -> bool {
        let model =
            matches!(self, DaemonError::Model(_) | DaemonError::Trial(_) | DaemonError::FirstInference { .. } | DaemonError::Frames { .. });
        model && !self.is_usage() && !matches!(self, DaemonError::Trial(TrialError::Stopped))
    }
}

/// Tries a model in a process of its own, and says what it is.
///
/// # Errors
/// When it cannot be loaded or run, or ends that process.
pub fn try_model(config: &ModelConfig) -> Result<Tried, DaemonError> {
    Ok(trial::run(config, &|| false)?)
}

/// Loads the configured model, compares it with a plain evaluation of its file, and says what was found.
///
/// # Errors
/// When the model cannot be loaded, or the two differ.
pub fn check(config: &ModelConfig) -> Result<String, DaemonError> {
    try_model(config)?;
    let (model, agreement) = model_file::check(&config.path, &builder::compute(config))?;
    let Agreement { class, masks, allowed, inputs, roundings } = agreement;
    let roundings = roundings.map_or_else(String::new, |change| format!("; the file's roundings, left out here, change {change:.1e}"));
    let unfused = model.unfused().map_or_else(|| "all operators are fused".to_owned(), |unfused| format!("general operators: {unfused}"));
    Ok(format!(
        "{}: agrees with its plain evaluation on {inputs} inputs (relative error {class:.1e} of class logits, {masks:.1e} of masks; \
         {allowed} is allowed){roundings}; {unfused}",
        config.path.display()
    ))
}

/// What a run did, for the closing log line and for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames whose masks were published.
    pub published: u64,
    /// Frames that newer ones replaced, that the device lost, or that arrived damaged.
    pub dropped: u64,
    /// Frames that could not be processed.
    pub failed: u64,
}

/// Runs until a signal, the end of the source, or `frames` publications.
///
/// # Errors
/// When something needed is missing or broken at the start, or the source fails for good.
pub fn run(read: ReadConfig, frames: Option<u64>) -> Result<Counters, DaemonError> {
    let config = read()?;
    if config.control.is_on() {
        hide_command(&config)
    } else {
        LOG.close()
    }
    let uri = source_uri(&config)?;
    let signals = Signals::install().map_err(DaemonError::Signals)?;
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
    let supervisor = Supervisor::start(signals.clone(), Arc::clone(&clock))?;
    let mut screen = Screen::start(&config)?;
    screen.show(State::Starting);
    let service = Service::from_environment();
    let mut last_good = LastGood::from_environment(&config.model);
    let starter = Starter { last_good: &last_good, signals: &signals, service: &service };
    let started = starter.start(&config.model).and_then(|started| start_path(&config, &uri, &clock, started));
    let (Started { mut network, fallback }, sink, steering, capture) = match started {
        Ok(parts) => parts,
        Err(DaemonError::Trial(TrialError::Stopped)) => {
            last_good.withdraw_start();
            screen.end(None);
            return Ok(Counters::default());
        }
        Err(error) => {
            if !error.is_of_the_model() {
                last_good.withdraw_start();
            }
            screen.end(Some(&error));
            return Err(error);
        }
    };
    let track_ids = TrackIds::default();
    network.track(&config.track, &track_ids);
    screen.set_labels(&network.pipeline.model().metadata().labels);
    match &fallback {
        Some(reason) => screen.show(State::Failure(reason.clone())),
        None => last_good.serves(&config.model, &network.contents, 0, Instant::now()),
    }
    let server = Server {
        decoder: decoder(&uri, &config),
        config,
        read,
        network,
        track_ids,
        source_id: 0,
        sink,
        capture,
        loaders: Loaders::default(),
        last_good,
        fallback,
        screen,
        steering,
        clock,
        service,
        signals,
        supervisor,
        counters: Counters::default(),
        unpublished: Unpublished::default(),
        told_of_broken: false,
        failed_in_a_row: 0,
        last_frame: Instant::now(),
        last_no_signal: None,
        last_status: Instant::now(),
        published_at_status: 0,
    };
    server.run(frames)
}

/// Everything that a frame passes through.
fn start_path(
    config: &Config,
    uri: &SourceUri,
    clock: &Arc<dyn Clock>,
    started: Started,
) -> Result<(Started, RingSink, Steering, Capture), DaemonError> {
    let source = open_source(uri, config)?;
    let ring = ring_config(config, &started.network, source.max_size());
    let sink = start_sink(config, ring, &started.network, started.fallback.is_some())?;
    let steering = Steering::start(&config.control)?;
    let capture = Capture::start(source, &config.source.uri, Arc::clone(clock))?;
    Ok((started, sink, steering, capture))
}
