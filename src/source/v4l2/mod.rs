//! Cameras through Video4Linux: <https://docs.kernel.org/userspace-api/media/v4l/v4l2.html>.
//!
//! ```text
//! waiting    open the camera (again, by its identity; without a name, the first one that works), start it
//!            fails: wait, twice as long each time, at most two seconds
//! streaming  the newest frame; unplugged, stalled, stopped, another format: waiting
//! ```
//! `search` finds the camera that works, `camera` starts one, `choice` picks the format, `controls` checks what is to be set,
//! `identity` finds a camera again, `layout` takes frames out of the driver's memory, `stream` is the loop, `times` checks the
//! driver's time stamps, `error` explains failures, `report` answers `doctor`, `sys` has the system calls. From its first frame on,
//! a camera is known by its identity instead of its path.
//!
//! Invariants: the source goes on whatever the camera does; one log line per change of its state; frames and losses are counted; a
//! camera that gave no frame gets its settings back. Pictures are decoded and turned later
//! ([`eomt_edge_core::preprocess::FrameDecoder`]), and only those that are used; devices that are no cameras are not touched.

mod camera;
mod choice;
mod controls;
mod error;
mod identity;
mod layout;
mod report;
mod search;
mod stream;
mod sys;
mod times;

use std::path::{Path, PathBuf};
use std::time::Duration;

use eomt_edge_core::data::{Frame, Matrix};
use eomt_edge_core::pipeline::{Captured, Clock, Losses, Source, SourceError};
use eomt_edge_host::MonotonicClock;

pub use report::{describe, pick, usable};

use super::CameraRequest;
use camera::{Before, Camera, Started};
use error::{CameraError, Kind};
use identity::{DeviceDirectory, Found, Identity};
use layout::Layout;
use search::PassedOver;
use stream::{Outcome, take_newest};
use sys::Buffers;
use times::Stamps;

/// The longest stay in one call of `next`.
const PATIENCE: Duration = Duration::from_millis(100);

const PAUSE_MIN_NS: u64 = 100_000_000;
const PAUSE_MAX_NS: u64 = 2_000_000_000;

/// A camera that streams but gives nothing for this long is started anew; a slow one after four frame times.
const STALL_NS: u64 = 3_000_000_000;

/// How a camera is to be used.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraOptions {
    /// What the configuration asks for.
    pub request: CameraRequest,
    /// Larger pictures are refused.
    pub max_pixels: u64,
}

/// What a camera can do.
#[derive(Debug, Clone, PartialEq, Default)]
struct Formats {
    /// Every format that it lists, whether or not we read it.
    codes: Vec<[u8; 4]>,
    usable: Vec<choice::FormatCandidate>,
}

/// A camera, there or not.
pub struct V4l2Source {
    devices: DeviceDirectory,
    /// `None` = the camera that works.
    path: Option<PathBuf>,
    options: CameraOptions,
    /// Known once it gave a frame.
    identity: Option<Identity>,
    /// The identity as text, for [`Source::device`].
    device: Option<String>,
    /// Nodes that streamed without ever giving a frame, the latest last: others are tried before them.
    silent: Vec<PathBuf>,
    /// The cameras that were not taken, as they were last logged.
    passed_over: Vec<PassedOver>,
    streaming: Option<Streaming>,
    /// (width, height) of its frames, as far as known.
    size: (u32, u32),
    retry_at_ns: u64,
    pause_ns: u64,
    /// The problem that was last logged, until frames come again.
    problem: Option<String>,
    /// The choice that was last logged.
    logged: String,
    /// The last log lines about controls that could not be set.
    complaints: Vec<String>,
    losses: Losses,
    delivered: u64,
}

struct Streaming {
    buffers: Buffers,
    layout: Layout,
    /// The driver's counter.
    last: Option<u32>,
    last_frame_ns: u64,
    stall_ns: u64,
    stamps: Stamps,
    name: String,
    path: PathBuf,
    /// Until the first frame: the identity that it will have, and its earlier settings.
    unproven: Option<(Identity, Before)>,
}

impl V4l2Source {
    /// Looks at the camera at `path` (`None`: the first one) without starting it.
    ///
    /// # Errors
    /// When the path leads to something that is no camera. A missing camera is no error: the source waits for it.
    pub fn open(path: Option<&Path>, options: CameraOptions) -> Result<V4l2Source, SourceError> {
        V4l2Source::look(DeviceDirectory::default(), path, options)
    }

    fn look(devices: DeviceDirectory, path: Option<&Path>, options: CameraOptions) -> Result<V4l2Source, SourceError> {
        let mut source = V4l2Source {
            devices,
            path: path.map(Path::to_owned),
            size: options.request.format.size,
            options,
            identity: None,
            device: None,
            silent: Vec::new(),
            passed_over: Vec::new(),
            streaming: None,
            retry_at_ns: 0,
            pause_ns: PAUSE_MIN_NS,
            problem: None,
            logged: String::new(),
            complaints: Vec::new(),
            losses: Losses::default(),
            delivered: 0,
        };
        match source.likely_size() {
            Ok(size) => source.size = size,
            Err(error) if error.kind == Kind::Fatal => return Err(SourceError::fatal(source.subject(), error.reason)),
            Err(error) => source.complain(&source.subject(), error.reason),
        }
        Ok(source)
    }

    /// The name that the user gave.
    fn subject(&self) -> String {
        self.path.as_ref().map_or_else(|| "v4l2".to_owned(), |path| path.display().to_string())
    }

    /// (width, height) of what will be tried first.
    fn likely_size(&self) -> Result<(u32, u32), CameraError> {
        let request = &self.options.request.format;
        let size = |camera: &Camera| camera.choose(request).map(|candidate| (candidate.width, candidate.height));
        if self.path.is_some() {
            return size(&Camera::ask(self.find()?, request)?);
        }
        let (cameras, others) = search::candidates(&self.devices, request);
        cameras.first().map_or_else(|| Err(search::none_works(&others)), size)
    }

    /// Opens the camera that is named or known.
    fn find(&self) -> Result<Found, CameraError> {
        let found = match (&self.identity, &self.path) {
            (Some(identity), path) => self.devices.find(identity).or_else(|gone| match path {
                // the user named a place, not a camera: any camera there is right
                Some(path) if names_a_place(path) => self.devices.open(path),
                _ => Err(gone),
            }),
            (None, Some(path)) => self.devices.open(path),
            (None, None) => Err(std::io::ErrorKind::NotFound.into()),
        };
        Ok(found?)
    }

    /// From a closed camera to one that streams.
    fn connect(&mut self) -> Result<Streaming, CameraError> {
        let (camera, started) = if self.path.is_none() && self.identity.is_none() {
            let (camera, started, passed_over) = search::start_one(&self.devices, &self.options, &self.silent)?;
            self.say_passed_over(passed_over);
            (camera, started)
        } else {
            let camera = Camera::ask(self.find()?, &self.options.request.format)?;
            let started = camera.start(&self.options)?;
            (camera, started)
        };
        let (identity, name) = (self.devices.identify(&camera.found), camera.found.name());
        let Started { buffers, layout, code, rate, complaints, before } = started;
        self.say_choice(&name, &layout, code, rate, complaints);
        self.size = (layout.width, layout.height);
        let stall_ns = STALL_NS.max(rate.map_or(0, |rate| (4e9 / rate.max(0.01)) as u64));
        // read the clock again: the calls above may have taken seconds
        let now_ns = MonotonicClock.now_ns();
        Ok(Streaming {
            buffers,
            layout,
            last: None,
            last_frame_ns: now_ns,
            stall_ns,
            stamps: Stamps::new(stall_ns, now_ns),
            name,
            path: camera.found.path,
            unproven: Some((identity, before)),
        })
    }

    /// Logs which cameras were not taken, if that has changed: those that failed as a warning.
    fn say_passed_over(&mut self, passed_over: Vec<PassedOver>) {
        if self.passed_over == passed_over {
            return;
        }
        let (unread, failed): (Vec<_>, Vec<_>) = passed_over.iter().cloned().partition(|one| one.error.kind == Kind::Unreadable);
        if !unread.is_empty() {
            log::info!("camera: passed over {}", search::list(&unread));
        }
        if !failed.is_empty() {
            log::warn!("camera: passed over {}", search::list(&failed));
        }
        self.passed_over = passed_over;
    }

    /// Logs what was chosen and what could not be set, if that has changed.
    fn say_choice(&mut self, name: &str, layout: &Layout, code: String, rate: Option<f64>, complaints: Vec<String>) {
        let rate = rate.map_or_else(|| "at its own rate".to_owned(), |rate| format!("at {rate:.4} frames a second").replace(".0000", ""));
        let matrix = if layout.colour.matrix == Matrix::Bt601 { "BT.601" } else { "BT.709" };
        let colour = match layout.format.is_yuv() {
            false => String::new(),
            true => format!(", {matrix}{}", if layout.colour.full_range { " full range" } else { "" }),
        };
        let said = format!("{name}: {}x{} {code} {rate}{colour}", layout.width, layout.height);
        if self.logged != said || self.complaints != complaints {
            log::info!("camera: {said}");
            complaints.iter().for_each(|complaint| log::warn!("{complaint}"));
            (self.logged, self.complaints) = (said, complaints);
        }
    }

    /// Logs a change of state.
    fn complain(&mut self, subject: &str, reason: String) {
        if self.problem.as_ref() != Some(&reason) {
            log::warn!("camera {subject}: {reason}; waiting for it");
            self.problem = Some(reason);
        }
    }

    /// Closes the camera, if it is open; the next attempt comes after a pause that grows until frames come.
    fn wait_after(&mut self, error: CameraError) {
        let subject = match self.streaming.take() {
            Some(streaming) => self.close(streaming),
            None => self.subject(),
        };
        self.complain(&subject, error.reason);
        self.retry_at_ns = MonotonicClock.now_ns() + self.pause_ns;
        self.pause_ns = (2 * self.pause_ns).min(PAUSE_MAX_NS);
    }

    /// Closes a camera. One that never gave a frame is set as it was, and others are tried before it. Returns its name.
    fn close(&mut self, streaming: Streaming) -> String {
        let Streaming { buffers, name, path, unproven, .. } = streaming;
        drop(buffers); // a driver with buffers takes no format
        if let Some((_, before)) = unproven {
            before.restore();
            self.silent.retain(|other| *other != path);
            self.silent.push(path);
        }
        name
    }

    /// A frame has come.
    fn deliver(&mut self, frame: Frame) -> Captured {
        if let Some((identity, _)) = self.streaming.as_mut().and_then(|streaming| streaming.unproven.take()) {
            self.device = Some(identity.text());
            self.identity = Some(identity);
        }
        self.pause_ns = PAUSE_MIN_NS;
        if self.problem.take().is_some() {
            log::info!("camera: frames of {} come again", self.logged);
        }
        Captured::Frame(frame)
    }
}

impl Source for V4l2Source {
    fn describe(&self) -> String {
        match &self.problem {
            Some(reason) => format!("camera {} ({reason})", self.subject()),
            None => format!("camera {}, {}x{}", self.subject(), self.size.0, self.size.1),
        }
    }

    fn max_size(&self) -> (u32, u32) {
        self.options.request.view.size(self.size.0, self.size.1).unwrap_or(self.size)
    }

    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Reads the clock itself after each call that may take long: `now_ns` is the time before the call.
    fn next(&mut self, now_ns: u64, mut buffer: Vec<u8>) -> Result<Captured, SourceError> {
        let Some(streaming) = &mut self.streaming else {
            if now_ns < self.retry_at_ns {
                std::thread::sleep(PATIENCE.min(Duration::from_nanos(self.retry_at_ns - now_ns)));
                return Ok(Captured::NotYet(buffer));
            }
            match self.connect() {
                Ok(streaming) => self.streaming = Some(streaming),
                Err(error) => self.wait_after(error),
            }
            return Ok(Captured::NotYet(buffer));
        };
        let Streaming { buffers, layout, last, .. } = streaming;
        let outcome = take_newest(buffers, layout, PATIENCE, last, &mut self.losses, &mut buffer);
        let now_ns = MonotonicClock.now_ns();
        let silent = now_ns.saturating_sub(streaming.last_frame_ns) >= streaming.stall_ns;
        streaming.stamps.turn(now_ns);
        let error = match outcome {
            Ok(Outcome::Frame { captured_ns, .. }) if layout.agrees(&buffer) => {
                streaming.last_frame_ns = now_ns;
                let captured_ns = streaming.stamps.validate(captured_ns, now_ns, &streaming.name);
                self.delivered += 1;
                let Losses { missed, stale, broken } = self.losses;
                let frame = Frame {
                    colour: layout.colour,
                    sequence: self.delivered + missed + stale + broken,
                    captured_ns,
                    ..Frame::new(layout.width, layout.height, layout.format, buffer)
                };
                return Ok(self.deliver(frame));
            }
            Ok(Outcome::Frame { .. }) => {
                self.losses.broken += 1;
                if !silent {
                    return Ok(Captured::NotYet(buffer));
                }
                CameraError::passing(format!("its pictures are no JPEG of {}x{}", layout.width, layout.height))
            }
            Ok(Outcome::Nothing) if !silent => return Ok(Captured::NotYet(buffer)),
            Ok(Outcome::Nothing) => CameraError::passing("it gives no frames"),
            Ok(Outcome::Changed) => CameraError::passing("its picture has changed"),
            Err(error) => error.into(),
        };
        self.wait_after(error);
        Ok(Captured::NotYet(buffer))
    }

    fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    fn losses(&self) -> Losses {
        self.losses
    }
}

/// Whether a path is a link by place, or one of the user's own udev rules, which stands for whatever camera is there. Links by id do
/// not: two cameras without serial numbers may share one.
fn names_a_place(path: &Path) -> bool {
    path.is_symlink() && path.parent().is_none_or(|parent| !parent.ends_with("by-id"))
}

#[cfg(test)]
mod tests;
