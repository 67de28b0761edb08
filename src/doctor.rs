//! `doctor`: what this machine offers, and what is wrong with it.

mod configured;
mod service;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use eomt_edge_client::Subscriber;
use eomt_edge_core::kernels::arch;
use eomt_edge_host::bounds;
use eomt_edge_host::files;
use eomt_edge_host::output::{say, sentence};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::system::uname;

use crate::config::{Config, DisplayKind, ModelConfig};
#[cfg(feature = "camera")]
use crate::daemon::source_options;
use crate::daemon::{Tried, try_model};
#[cfg(feature = "camera")]
use crate::source::v4l2;

/// A finding that a person should act on.
struct Report {
    text: String,
    problems: usize,
}

impl Report {
    fn line(&mut self, topic: &str, what: impl AsRef<str>) {
        let _ = writeln!(self.text, "{topic:<9} {}", sentence(what.as_ref())); // a String takes everything
    }

    fn problem(&mut self, topic: &str, what: impl AsRef<str>) {
        self.line(topic, format!("PROBLEM: {}", what.as_ref()));
        self.problems += 1;
    }
}

/// What to look at.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// The service's configuration; one that is not there is no problem.
    pub config: PathBuf,
    /// The model file. Default: the configuration's.
    pub model: Option<PathBuf>,
    /// The mask socket. Default: the configuration's.
    pub socket: Option<PathBuf>,
}

/// Prints the report; returns how many problems it found.
///
/// # Errors
/// When the report cannot be printed.
pub fn doctor(options: &DoctorOptions) -> Result<usize> {
    let mut report = Report { text: String::new(), problems: 0 };
    let found = configuration(&mut report, &options.config);
    if let Some(config) = &found {
        configured::configured(&mut report, config);
    }
    let config = found.unwrap_or_default();
    let model_path = options.model.as_ref().unwrap_or(&config.model.path);
    let socket = options.socket.as_ref().unwrap_or(&config.ring.socket);
    machine(&mut report);
    cameras(&mut report, &config);
    displays(&mut report, config.display.kind);
    shared_memory(&mut report, socket);
    model(&mut report, model_path, &config);
    service::service(&mut report);
    let summary = match report.problems {
        0 => "no problems".to_owned(),
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    say(format_args!("{}{summary}", report.text))?;
    Ok(report.problems)
}

/// The configuration; `None` when there is none that can be read.
fn configuration(report: &mut Report, path: &Path) -> Option<Config> {
    let text = match files::read_text(path, &bounds::CONFIGURATION) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            report.line("config", format!("no {}; every key has its default", path.display()));
            return None;
        }
        Err(error) => {
            report.problem("config", format!("{}: {error}", path.display()));
            return None;
        }
    };
    match Config::parse(&text, &[]) {
        Ok(config) => {
            report.line("config", format!("{}: frames from {}", path.display(), config.source.uri));
            Some(config)
        }
        Err(error) => {
            report.problem("config", format!("{}: {error}", path.display()));
            None
        }
    }
}

fn machine(report: &mut Report) {
    let name = uname();
    report.line("system", format!("Linux {} {}", name.release().to_string_lossy(), name.machine().to_string_lossy()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report.line("cpu", format!("{cores} cores; {}", arch::features().join(" ")));
    report.line("kernels", arch::Isa::detect().name());
    if let Some(mib) = files::free_memory().map(|bytes| bytes >> 20) {
        report.line("memory", format!("{mib} MiB available"));
        if mib < 128 {
            report.problem("memory", "less than 128 MiB are available; a model of 24 million parameters needs more");
        }
    }
    let heat = files::read_text(Path::new("/sys/class/thermal/thermal_zone0/temp"), &bounds::SYSTEM).ok();
    if let Some(millidegrees) = heat.and_then(|text| text.trim().parse::<f64>().ok()) {
        report.line("heat", format!("{:.0} degrees C", millidegrees / 1000.0));
    }
}

/// Of `/dev` and of sysfs: a container may lack either. Sub-devices (`v4l-subdev*`), radio and VBI nodes are no cameras.
fn cameras(report: &mut Report, config: &Config) {
    let folders = ["/dev", "/sys/class/video4linux"].into_iter().flat_map(std::fs::read_dir).flatten().flatten();
    let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("video")?.parse::<u32>().ok();
    let nodes: BTreeSet<u32> = folders.filter_map(|entry| number(entry.file_name())).collect();
    if nodes.is_empty() {
        report.line("camera", "no V4L2 device; replay:, scenes and pipe: need none");
        return;
    }
    for node in nodes {
        let name = files::read_text(Path::new(&format!("/sys/class/video4linux/video{node}/name")), &bounds::SYSTEM).unwrap_or_default();
        let path = format!("/dev/video{node}");
        let details = camera_details(Path::new(&path), config);
        let name = if name.trim().is_empty() { &details.name } else { name.trim() };
        report.line("camera", format!("{path}: {name}").trim_end_matches([':', ' ']));
        access(report, "camera", Path::new(&path));
        details.lines.iter().for_each(|line| report.line("", line));
    }
    what_would_be_taken(report, config);
}

/// What is known of a camera.
#[derive(Default)]
struct CameraDetails {
    /// Its own, if it could be asked.
    name: String,
    lines: Vec<String>,
}

#[cfg(feature = "camera")]
fn camera_details(path: &Path, config: &Config) -> CameraDetails {
    let only = |line: &str| CameraDetails { lines: vec![line.to_owned()], ..CameraDetails::default() };
    match v4l2::describe(path, &source_options(config).camera.format) {
        None => only("captures no video"),
        Some(Ok((name, lines))) => CameraDetails { name, lines },
        Some(Err(reason)) => only(&reason),
    }
}

#[cfg(feature = "camera")]
fn what_would_be_taken(report: &mut Report, config: &Config) {
    match v4l2::pick(&source_options(config).camera.format) {
        Ok(lines) => lines.iter().for_each(|line| report.line("camera", line)),
        Err(reason) => report.line("camera", format!("v4l2: alone would wait for a camera: {reason}")),
    }
}

#[cfg(not(feature = "camera"))]
fn camera_details(_: &Path, _: &Config) -> CameraDetails {
    CameraDetails::default()
}

#[cfg(not(feature = "camera"))]
fn what_would_be_taken(report: &mut Report, _: &Config) {
    report.line("camera", "this program was built without cameras");
}

/// Framebuffers, and the buses and lines that panels of `[display]` hang on.
fn displays(report: &mut Report, kind: DisplayKind) {
    let mut nodes: Vec<String> =
        std::fs::read_dir("/dev").into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    nodes.sort();
    let numbered = |name: &str, prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let kinds = [("fb", "framebuffer"), ("spidev", "SPI"), ("i2c-", "I2C"), ("gpiochip", "GPIO lines")];
    let used: &[&str] = match kind {
        DisplayKind::None => &[],
        DisplayKind::Framebuffer => &["fb"],
        DisplayKind::Spi => &["spidev", "gpiochip"],
        DisplayKind::Oled => &["i2c-"],
    };
    let mut found = false;
    for (prefix, what) in kinds {
        for node in nodes.iter().filter(|name| numbered(name, prefix)) {
            found = true;
            let path = format!("/dev/{node}");
            let layout = if prefix == "fb" { framebuffer(Path::new(&path)) } else { String::new() };
            report.line("display", format!("{path}: {what}{layout}"));
            // what the configuration does not use may be closed
            if used.contains(&prefix) {
                access(report, "display", Path::new(&path));
            }
        }
    }
    if !found {
        report.line("display", "no framebuffer, SPI, I2C or GPIO device");
    }
}

/// Size and pixels of a framebuffer as far as this user may ask.
#[cfg(feature = "display")]
fn framebuffer(path: &Path) -> String {
    let Ok(file) = std::fs::File::open(path) else { return String::new() };
    match crate::sink::display::geometry(path, &file) {
        Ok(layout) => {
            format!(", {}x{}, {} bits per pixel, {} bytes a line", layout.width, layout.height, layout.bits_per_pixel, layout.line_length)
        }
        Err(error) => format!(", {error}"),
    }
}

#[cfg(not(feature = "display"))]
fn framebuffer(_: &Path) -> String {
    String::new()
}

fn access(report: &mut Report, topic: &str, path: &Path) {
    match std::fs::OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let advice = match std::fs::metadata(path).map(|data| data.gid()) {
                Ok(0) => "it is root's alone: /usr/lib/udev/rules.d/60-eomt-edge.rules gives such devices to a group".to_owned(),
                Ok(group) => format!("join its group, {group}"),
                Err(_) => "join its group".to_owned(),
            };
            report.problem(topic, format!("{} may not be opened by this user; {advice}", path.display()));
        }
        _ => {}
    }
}

fn shared_memory(report: &mut Report, socket: &Path) {
    if let Err(error) = memfd_create(c"eomt-edge-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING) {
        report.problem("ring", format!("memfd_create with sealing fails: {error}; Linux 5.1 or newer is needed"));
    }
    match std::fs::metadata(socket) {
        Ok(data) if data.file_type().is_socket() => match Subscriber::connect(socket) {
            Ok(_) => report.line("ring", format!("a daemon serves {}", socket.display())),
            Err(error) => report.problem("ring", error.to_string()),
        },
        Ok(_) => report.problem("ring", format!("{} is no socket", socket.display())),
        Err(_) => report.line("ring", format!("no daemon at {}", socket.display())),
    }
}

/// Tries the model as the daemon does, in a process of its own.
fn model(report: &mut Report, path: &Path, config: &Config) {
    let mut wanted = ModelConfig { path: path.to_owned(), ..config.model.clone() };
    if wanted.path != config.model.path {
        wanted.sha256.clear(); // the configuration's is another file's
    }
    match try_model(&wanted) {
        Err(error) => report.problem("model", error.to_string()),
        Ok(tried) => {
            let ((height, width), Tried { name, task, classes, video, .. }) = (tried.input_size, &tried);
            let video = if *video { ", queries carried from frame to frame" } else { "" };
            report.line("model", format!("{}: {name}, {task}, {height}x{width}, {classes} classes{video}", path.display()));
            let matches = if wanted.sha256.is_empty() { "model.sha256 is not set" } else { "as model.sha256 says" };
            report.line("", format!("SHA-256 {} ({matches})", tried.contents.model));
            let licence = if tried.licence.is_empty() { "the file does not say (`convert --licence` writes it)" } else { &tried.licence };
            report.line("", format!("licence: {licence}"));
        }
    }
}
