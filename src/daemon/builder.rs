//! From the configuration to what the frame path is made of.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use eomt_edge_core::data::{Frame, Task, Thresholds, Unpublished, View};
use eomt_edge_core::model::Model;
use eomt_edge_core::pipeline::{NullSink, Pipeline, Source};
use eomt_edge_core::preprocess::FrameDecoder;
use eomt_edge_core::segment::PostProcessConfig;
use eomt_edge_core::track::{self, TrackIds, Tracker};
use eomt_edge_host::MonotonicClock;
use eomt_edge_host::contents::Contents;
use eomt_edge_host::model_file::{self, Compute, Expected, Loaded, threads_or_cores};
use rustix::process::getpid;
use serde_json::json;

use super::DaemonError;
use crate::config::{Config, ConfigError, ModelConfig, RingFrame, TrackConfig};
use crate::sink::RingSink;
use crate::sink::ring::{self, RingError, ServerConfig};
use crate::socket::ReaperCommand;
use crate::source::{CameraRequest, FormatRequest, SourceKinds, SourceOptions, SourceUri};

/// Of a thread that loads a model, bytes: the same at the start and at a reload.
pub const LOAD_STACK: usize = 4 << 20;

/// A network that has run once, and what readers must know about it.
pub struct Network {
    pub pipeline: Pipeline,
    /// The file: the configured one, or another.
    pub path: PathBuf,
    /// What it was read from.
    pub contents: Contents,
    /// For readers: what runs, and how.
    facts: serde_json::Value,
}

impl Network {
    /// Loads the model and runs it on a black frame: buffers get their sizes, and a network that cannot run is found out now. `tried`: what
    /// it must consist of.
    pub fn start(config: &ModelConfig, tried: Option<Contents>) -> Result<Network, DaemonError> {
        let started = Instant::now();
        let sha256 = Some(config.sha256.clone()).filter(|digest| !digest.is_empty());
        let Loaded { model, contents } = model_file::load_expected(&config.path, &compute(config), &Expected { sha256, tried })?;
        let metadata = model.metadata().clone();
        let (path, name, task, isa) = (config.path.display(), &metadata.name, metadata.task, model.isa().name());
        let described = format!("{path}: {name} for {task} on {isa}");
        let post_process = PostProcessConfig {
            task: config.task.unwrap_or(metadata.task),
            thresholds: config.thresholds(metadata.thresholds),
            ..PostProcessConfig::default()
        };
        let facts = facts(config, &model, &post_process, &contents);
        let mut pipeline = Pipeline::new(model, post_process.with_stuff(&metadata.stuff_classes));
        let (height, width) = metadata.input_size;
        let black = Frame::rgb(width as u32, height as u32, vec![0; height * width * 3]);
        let first = pipeline.process(&black, Unpublished::default(), &mut NullSink::default(), &MonotonicClock);
        first.map_err(|error| DaemonError::FirstInference { path: config.path.clone(), reason: error.to_string() })?;
        pipeline.reset(); // no camera saw the black frame
        log::info!("{described} in {:.1} s", started.elapsed().as_secs_f64());
        Ok(Network { pipeline, path: config.path.clone(), contents, facts })
    }

    /// [`Network::start`] on a thread with so many bytes of stack, whatever this one has.
    pub fn start_on(stack: usize, config: &ModelConfig, tried: Option<Contents>) -> Result<Network, DaemonError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("eomt-load".to_owned()).stack_size(stack);
            let thread = thread.spawn_scoped(scope, || Network::start(config, tried));
            let result = thread.map_err(|source| DaemonError::NoThread { of: "the model", source })?.join();
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Other thresholds from the next frame on, also in what readers are told.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.pipeline.set_thresholds(thresholds);
        self.facts["thresholds"] = described(thresholds);
    }

    /// Segments get ids that last, if `config` wants it, from the next number of `ids` on: no reader sees an old id on another thing.
    pub fn track(&mut self, config: &TrackConfig, ids: &TrackIds) {
        let post_process = self.pipeline.post_process();
        let is_on = config.enabled && post_process.task != Task::Semantic;
        let config = track::TrackConfig { memory_ns: config.memory_ns(), stuff: post_process.stuff.clone() };
        self.pipeline.set_temporal_stage(is_on.then(|| Box::new(Tracker::new(config, ids.clone())) as _));
    }

    /// First 16 bytes of the file's SHA-256.
    fn hash(&self) -> [u8; 16] {
        let digits = self.contents.model.as_bytes();
        let value = |index: usize| digits.get(index).and_then(|digit| char::from(*digit).to_digit(16)).unwrap_or(0) as u8;
        std::array::from_fn(|index| value(2 * index) << 4 | value(2 * index + 1))
    }
}

/// On what `[model]` wants it computed.
pub fn compute(config: &ModelConfig) -> Compute {
    let isa = Some(config.isa.clone()).filter(|isa| !isa.is_empty());
    let ModelConfig { threads, normalization, bf16, merge: merging, reuse, .. } = *config;
    Compute { threads, isa, cores: config.cores.clone(), normalization, bf16, merging, reuse }
}

/// What `source.uri` names; nothing is opened yet.
///
/// # Errors
/// When it is no URI of a known kind.
pub fn source_uri(config: &Config) -> Result<SourceUri, DaemonError> {
    SourceKinds::default().parse(&config.source.uri).map_err(DaemonError::SourceUri)
}

/// Opens it.
///
/// # Errors
/// When there is no such source, or `camera.crop` leaves nothing of its frames.
pub fn open_source(uri: &SourceUri, config: &Config) -> Result<Box<dyn Source>, DaemonError> {
    let (crop, size, kind) = (config.camera.crop, config.source.size, uri.kind());
    if kind.uses_view && kind.uses_source_size && config.camera.view().area(size.width, size.height).is_none() {
        let value = format!("{crop:?}");
        return Err(ConfigError::Value { key: "camera.crop", value, reason: "nothing of a frame of source.size lies inside" }.into());
    }
    let source = uri.open(&source_options(config))?;
    log::info!("frames: {}", source.describe());
    Ok(source)
}

/// What the configuration says of sources.
pub fn source_options(config: &Config) -> SourceOptions {
    let format = FormatRequest { size: config.camera.size(), fps: config.camera.fps, format: config.camera.format };
    SourceOptions {
        fps: config.source.fps,
        size: (config.source.size.width, config.source.size.height),
        format: config.source.format,
        colour: config.source.colour,
        stride: config.source.stride,
        end: config.source.end,
        launcher: launcher(),
        max_pixels: config.source.max_pixels,
        camera: CameraRequest { format, view: config.camera.view(), controls: config.camera.controls.clone() },
    }
}

/// This program's command that starts a source's, so that it ends with the daemon.
fn launcher() -> Vec<OsString> {
    let Ok(ReaperCommand { program, args }) = ReaperCommand::current_exe() else { return Vec::new() };
    [program.into()].into_iter().chain(args).chain(["exec-source".into()]).collect()
}

/// What prepares this source's frames: those of a camera may be compressed, or lie on their side.
pub fn decoder(uri: &SourceUri, config: &Config) -> FrameDecoder {
    FrameDecoder::new(if uri.kind().uses_view { config.camera.view() } else { View::default() })
}

/// The ring that `network` needs for frames of at most `max_size` (width, height).
pub fn ring_config(config: &Config, network: &Network, max_size: (u32, u32)) -> ring::RingConfig {
    let model = network.pipeline.model();
    ring::RingConfig {
        slots: config.ring.slots,
        max_width: max_size.0,
        max_height: max_size.1,
        max_segments: (model.queries() as u32).max(model.metadata().labels.len() as u32),
        include_frame: config.ring.include_frame,
        source_format: config.ring.frame_format == RingFrame::Source,
        checksum: config.ring.checksum,
        model_hash: network.hash(),
    }
}

/// Creates ring and socket.
pub fn start_sink(config: &Config, ring: ring::RingConfig, network: &Network, fallback: bool) -> Result<RingSink, RingError> {
    let mut server = ServerConfig::new(&config.ring.socket);
    server.mode = config.ring.mode_bits();
    server.group = (!config.ring.group.is_empty()).then(|| config.ring.group.clone());
    server.clients_max = config.ring.max_clients;
    server.clients_per_user_max = config.ring.clients_per_user_max();
    server.reaper = reaper_command();
    let mut sink = RingSink::start(ring, ring_metadata(network, &config.source.uri, fallback), server, Box::new(MonotonicClock))?;
    sink.set_stale_after(config.source.no_signal_after());
    log::info!("masks: {}", config.ring.socket.display());
    Ok(sink)
}

/// The child that removes a socket after a `kill -9`.
pub fn reaper_command() -> Option<ReaperCommand> {
    ReaperCommand::current_exe().inspect_err(|error| log::warn!("no reaper for the socket: {error}")).ok()
}

/// What of a network's work depends on the configuration too.
fn facts(config: &ModelConfig, model: &Model, post_process: &PostProcessConfig, contents: &Contents) -> serde_json::Value {
    let metadata = model.metadata();
    let (height, width) = metadata.input_size;
    let file = config.path.file_name().unwrap_or_default().to_string_lossy();
    json!({
        "name": metadata.name,
        "task": post_process.task.name(),
        "labels": metadata.labels,
        "stuff_classes": metadata.stuff_classes,
        "source_sha256": metadata.source_sha256,
        "thresholds": described(post_process.thresholds),
        "model": { "file": file, "sha256": contents.model, "precision": metadata.precision.name(), "input_size": [height, width] },
        "isa": model.isa().name(),
        "threads": threads_or_cores(config.threads),
    })
}

fn described(Thresholds { score, mask, overlap }: Thresholds) -> serde_json::Value {
    json!({ "score": score, "mask": mask, "overlap": overlap })
}

/// What readers need to understand the ids, and who makes them from what. `fallback`: this is the last good model, not the configured one.
pub fn ring_metadata(network: &Network, source_uri: &str, fallback: bool) -> String {
    let mut metadata = network.facts.clone();
    metadata["source"] = without_secrets(source_uri).into();
    metadata["fallback"] = fallback.into();
    metadata["program"] = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).into();
    metadata["version"] = env!("CARGO_PKG_VERSION").into();
    metadata["pid"] = getpid().as_raw_nonzero().get().into();
    metadata.to_string()
}

/// A source's URI as every reader may see it: of a command its program alone, and no user and password in front of a host.
fn without_secrets(uri: &str) -> String {
    if let Some(command) = uri.strip_prefix("exec:") {
        // NAME=value in front of a command sets a variable
        let program = command.split_whitespace().find(|word| !word.contains('='));
        return format!("exec:{}", program.unwrap_or_default());
    }
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let user = rest[..host].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[user..])
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn no_reader_learns_a_password() {
        for (uri, shown) in [
            ("v4l2:/dev/video0", "v4l2:/dev/video0"),
            ("scenes:7", "scenes:7"),
            ("rtsp://me:secret@camera.local:554/stream@2", "rtsp://camera.local:554/stream@2"),
            ("rtsp://me:sec@ret@camera.local", "rtsp://camera.local"),
            ("exec:TOKEN=secret  gst-launch-1.0 rtspsrc location=rtsp://me:secret@host/", "exec:gst-launch-1.0"),
            ("exec:", "exec:"),
        ] {
            assert_eq!(without_secrets(uri), shown, "{uri}");
        }
    }
}
