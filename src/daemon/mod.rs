//! The composition root: configuration to running threads.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use eomt_edge::config::Config;
//! use eomt_edge::daemon;
//! let config = Config::parse("[source]\nuri = \"scenes\"\n", &[])?;
//! daemon::run(&config, Some(100))?;
//! # Ok(())
//! # }
//! ```
//!
//! Threads: capture (owns the source), inference (this one: pipeline and ring writer), mask server. A mailbox of one joins the
//! first two. Invariants: SIGTERM and SIGINT end the program within a second; what is dropped is counted; one bad frame is
//! counted and skipped. Refuses: computing (the pipeline does), talking to clients (the ring's server does).

mod capture;
mod stop;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::model::{Metadata, Model};
use crate::model_file::{self, Compute, ModelFileError};
use crate::pipeline::{Clock, MonotonicClock, Pipeline, PipelineError, SourceError, Taken};
use crate::segment::Rules;
use crate::sink::RingSink;
use crate::sink::ring::{self, ReaperCommand, RingError, ServerConfig};
use crate::source::{self, SourceOptions, SourceSpec};
use capture::Capture;
use stop::StopSignal;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Model(#[from] ModelFileError),
    #[error("configuration: source.uri: {0}")]
    SourceUri(String),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("cannot listen for signals: {0}")]
    Signals(String),
    #[error("{failed} frames in a row failed, the last one because {reason}")]
    Frames { failed: u64, reason: String },
}

impl DaemonError {
    /// Whether the user's words are at fault (exit code 2) rather than the world (1).
    pub fn is_usage(&self) -> bool {
        match self {
            DaemonError::SourceUri(_) => true,
            DaemonError::Model(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// What a run did, for the closing log line and for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    pub published: u64,
    pub dropped: u64,
    pub failed: u64,
}

/// After so many failures in a row the next frame will not be better.
const FAILURES_MAX: u64 = 100;

/// Runs until a signal, the end of the source, or `frames` publications.
///
/// # Errors
/// When something needed is missing or broken at the start, or the source fails for good.
pub fn run(config: &Config, frames: Option<u64>) -> Result<Counters, DaemonError> {
    let spec: SourceSpec = config.source.uri.parse().map_err(DaemonError::SourceUri)?;
    let stop = StopSignal::install().map_err(DaemonError::Signals)?;
    let started = Instant::now();
    let isa = Some(config.model.isa.clone()).filter(|isa| !isa.is_empty());
    let compute = Compute { threads: config.model.threads, isa, cores: config.model.cores.clone() };
    let (model, bytes) = model_file::load(&config.model.path, &compute)?;
    let metadata = model.metadata().clone();
    let seconds = started.elapsed().as_secs_f64();
    let (path, name, task, isa) = (config.model.path.display(), &metadata.name, metadata.task, model.isa().name());
    log::info!("{path}: {name} for {task} on {isa} in {seconds:.1} s");
    let options = SourceOptions {
        fps: config.source.fps,
        size: (config.source.size.width, config.source.size.height),
        format: config.source.format.0,
        max_pixels: config.source.max_pixels,
    };
    let source = source::open(&spec, &options)?;
    log::info!("frames: {}", source.describe());
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
    let sink = start_sink(config, &model, model_hash(&bytes), source.max_size())?;
    drop(bytes);
    log::info!("masks: {}", config.ring.socket.display());
    let rules = Rules {
        task: config.model.task.unwrap_or(metadata.task),
        thresholds: config.model.thresholds(metadata.thresholds),
        ..Rules::default()
    };
    let pipeline = Pipeline::new(model, rules.with_stuff(&metadata.stuff_classes));
    let capture = Capture::start(source, Arc::clone(&clock));
    serve(pipeline, sink, capture, &stop, clock.as_ref(), frames)
}

fn start_sink(config: &Config, model: &Model, model_hash: [u8; 16], max_size: (u32, u32)) -> Result<RingSink, RingError> {
    let ring_config = ring::RingConfig {
        slots: config.ring.slots,
        max_width: max_size.0,
        max_height: max_size.1,
        max_segments: (model.queries() as u32).max(model.metadata().labels.len() as u32),
        include_frame: config.ring.include_frame,
        checksum: config.ring.checksum,
        source_id: 0,
        model_hash,
    };
    let mut server = ServerConfig::new(&config.ring.socket);
    server.mode = config.ring.mode_bits();
    server.group = (!config.ring.group.is_empty()).then(|| config.ring.group.clone());
    server.clients_max = config.ring.max_clients;
    server.reaper = reaper_command();
    RingSink::start(ring_config, ring_metadata(model.metadata()), server, Box::new(MonotonicClock))
}

/// The child that removes the socket after a `kill -9`.
fn reaper_command() -> Option<ReaperCommand> {
    ReaperCommand::current_exe().inspect_err(|error| log::warn!("no reaper for the socket: {error}")).ok()
}

/// The first 16 bytes of the file's SHA-256.
fn model_hash(bytes: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|index| digest[index])
}

/// What readers need to understand the ids.
fn ring_metadata(metadata: &Metadata) -> String {
    json!({
        "name": metadata.name,
        "task": metadata.task.name(),
        "labels": metadata.labels,
        "stuff_classes": metadata.stuff_classes,
        "source_sha256": metadata.source_sha256,
        "program": concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")),
        "pid": getpid().as_raw_nonzero().get(),
    })
    .to_string()
}

/// The inference thread.
fn serve(
    mut pipeline: Pipeline,
    mut sink: RingSink,
    capture: Capture,
    stop: &StopSignal,
    clock: &dyn Clock,
    frames: Option<u64>,
) -> Result<Counters, DaemonError> {
    let mut counters = Counters::default();
    let mut failed_in_a_row = 0;
    let started = Instant::now();
    let result = loop {
        if stop.requested() || frames.is_some_and(|frames| counters.published >= frames) {
            break Ok(());
        }
        let frame = match capture.mailbox.take(Duration::from_millis(100)) {
            Taken::Value(frame) => frame,
            Taken::TimedOut => continue,
            Taken::Closed => break capture.outcome(),
        };
        counters.dropped = capture.mailbox.dropped();
        match pipeline.process(&frame, counters.dropped, &mut sink, clock) {
            Ok(report) => {
                failed_in_a_row = 0;
                counters.published += 1;
                if counters.published == 1 {
                    log::info!("first masks published after {:.0} ms", report.times.total_us() as f64 / 1000.0);
                }
                log::debug!("frame {}: {:?} us", report.sequence, report.times.micros);
            }
            Err(error) => {
                counters.failed += 1;
                failed_in_a_row += 1;
                if let Err(fatal) = judge(&error, failed_in_a_row) {
                    break Err(fatal);
                }
            }
        }
        capture.pool.give_back(frame.data);
    };
    counters.dropped = capture.mailbox.dropped();
    capture.stop();
    sink.stop();
    let seconds = started.elapsed().as_secs_f64();
    let Counters { published, dropped, failed } = counters;
    log::info!("{published} frames in {seconds:.1} s ({:.1} a second), {dropped} dropped, {failed} failed", published as f64 / seconds);
    result.map(|()| counters)
}

/// Says so once per series, gives up after [`FAILURES_MAX`].
fn judge(error: &PipelineError, failed_in_a_row: u64) -> Result<(), DaemonError> {
    if failed_in_a_row == 1 {
        log::warn!("a frame failed: {error}");
    }
    if failed_in_a_row < FAILURES_MAX {
        return Ok(());
    }
    Err(DaemonError::Frames { failed: failed_in_a_row, reason: error.to_string() })
}
