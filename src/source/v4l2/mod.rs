//! Cameras through Video4Linux: <https://docs.kernel.org/userspace-api/media/v4l/v4l2.html>.
//!
//! ```text
//! waiting    open the camera (again, by what it is known by), choose a format, set controls, start to stream
//!            fails: wait, twice as long each time, at most two seconds
//! streaming  the newest frame; unplugged, stalled, stopped, another format: waiting
//! ```
//! [`choice`] picks the format, [`controls`] checks what is to be set, [`identity`] finds a camera again, [`layout`] takes frames out of
//! the driver's memory, [`stream`] is the loop, [`sys`] the calls. Invariants: whatever the camera does, the source goes on; one log
//! line per change of its state; frames and their losses are counted. Refuses: decoding and turning pictures
//! ([`crate::preprocess::Developer`] does, and only those that are used), anything at a device that is no camera.

mod choice;
mod controls;
mod identity;
mod layout;
mod stream;
mod sys;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

pub use choice::{Offer, Wish};
use identity::{DeviceDirectory, Found, Identity};
use layout::{Layout, code_name, pixel_format};
use stream::{BUFFERS, Outcome, take_newest};
use sys::{Api, Buffers, Device};

use crate::data::{ControlValue, Frame, Matrix, PixelFormat, View};
use crate::pipeline::{Captured, Clock, Losses, MonotonicClock, Source, SourceError};

/// The longest stay in one call of `next`.
const PATIENCE: Duration = Duration::from_millis(100);

const PAUSE_MIN_NS: u64 = 100_000_000;
const PAUSE_MAX_NS: u64 = 2_000_000_000;

/// A camera that streams but gives nothing for this long is started anew; a slow one after four frame times.
const STALL_NS: u64 = 3_000_000_000;

/// How a camera is to be used.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraOptions {
    pub wish: Wish,
    pub controls: BTreeMap<String, ControlValue>,
    /// What becomes of its pictures later on: for [`Source::max_size`].
    pub view: View,
    /// Larger pictures are refused.
    pub max_pixels: u64,
}

/// A camera, there or not.
pub struct V4l2Source {
    devices: DeviceDirectory,
    /// `None` = the first camera.
    path: Option<PathBuf>,
    options: CameraOptions,
    /// Once it was there.
    identity: Option<Identity>,
    streaming: Option<Streaming>,
    /// (width, height) of its frames, as far as known.
    size: (u32, u32),
    retry_at_ns: u64,
    pause_ns: u64,
    /// The trouble that was last logged, until frames come again.
    trouble: Option<String>,
    /// The choice that was last logged.
    logged: String,
    /// What was last said of controls that could not be set.
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
    name: String,
}

/// Why a camera cannot be used.
#[derive(Debug)]
struct Trouble {
    reason: String,
    /// Waiting will not help: it is no camera.
    fatal: bool,
}

impl Trouble {
    fn passing(reason: impl Into<String>) -> Trouble {
        Trouble { reason: reason.into(), fatal: false }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        match Errno::from_io_error(&error) {
            // unplugged, and not plugged in again: one state
            Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => Trouble::passing("it is not there"),
            Some(Errno::NOLINK | Errno::NOLCK | Errno::RANGE) => Trouble::passing("there is no signal at its input"),
            Some(Errno::BUSY) => Trouble::passing("another program uses it"),
            Some(Errno::ACCESS | Errno::PERM) => Trouble::passing("this user may not open it (is the user in the group video?)"),
            Some(Errno::NOTTY | Errno::ISDIR) => Trouble { reason: "it is no V4L2 device".to_owned(), fatal: true },
            None if error.kind() == io::ErrorKind::NotFound => Trouble::passing("it is not there"),
            _ => Trouble::passing(error.to_string()),
        }
    }
}

/// A camera and the format to take.
struct Plan {
    found: Found,
    api: Api,
    offer: Offer,
}

impl V4l2Source {
    /// Looks at the camera at `path` (`None`: the first one) without starting it.
    ///
    /// # Errors
    /// Only when the path leads to something that is no camera. One that is not there is waited for.
    pub fn open(path: Option<&Path>, options: CameraOptions) -> Result<V4l2Source, SourceError> {
        let mut source = V4l2Source {
            devices: DeviceDirectory::default(),
            path: path.map(Path::to_owned),
            size: options.wish.size,
            options,
            identity: None,
            streaming: None,
            retry_at_ns: 0,
            pause_ns: PAUSE_MIN_NS,
            trouble: None,
            logged: String::new(),
            complaints: Vec::new(),
            losses: Losses::default(),
            delivered: 0,
        };
        match source.plan() {
            Ok(plan) => source.size = (plan.offer.width, plan.offer.height),
            Err(trouble) if trouble.fatal => return Err(SourceError::fatal(source.subject(), trouble.reason)),
            Err(trouble) => source.complain(&source.subject(), trouble.reason),
        }
        Ok(source)
    }

    /// How the user called it.
    fn subject(&self) -> String {
        self.path.as_ref().map_or_else(|| "camera".to_owned(), |path| path.display().to_string())
    }

    /// Opens the camera and chooses among its formats.
    fn plan(&self) -> Result<Plan, Trouble> {
        let found = match (&self.identity, &self.path) {
            (Some(identity), path) => self.devices.find(identity).or_else(|gone| match path {
                // the user named a place, not a camera: what is there now will do
                Some(path) if names_a_place(path) => self.devices.open(path),
                _ => Err(gone),
            }),
            (None, Some(path)) => self.devices.open(path),
            (None, None) => self.devices.first_camera(),
        }?;
        // before the format is read, so that no change falls in between; a driver without events simply has none
        let _ = found.device.watch_source_changes();
        found.device.follow_input()?;
        let no_camera = || Trouble { reason: format!("{} captures no video", found.name()), fatal: true };
        let api = found.capability.capture.ok_or_else(no_camera)?;
        let offers = offers(&found.device, api, &self.options.wish)?;
        let offer = choice::choose(&offers, &self.options.wish)
            .cloned()
            .ok_or_else(|| Trouble::passing(nothing_fits(&offers, &self.options.wish)))?;
        Ok(Plan { found, api, offer })
    }

    /// From a closed camera to one that streams.
    fn connect(&mut self) -> Result<Streaming, Trouble> {
        let Plan { found, api, offer } = self.plan()?;
        let wish = self.options.wish;
        let identity = self.devices.identify(&found);
        let name = found.name();
        let driver = found.device.set_format(api, offer.fourcc, offer.width, offer.height)?;
        let layout = Layout::of(&driver).map_err(Trouble::passing)?;
        if u64::from(layout.width) * u64::from(layout.height) > self.options.max_pixels {
            return Err(Trouble::passing(format!("frames of {}x{} are more than source.max_pixels allows", layout.width, layout.height)));
        }
        let rate = match wish.fps > 0.0 {
            true => found.device.set_rate(api, offer.fps.unwrap_or(wish.fps)).unwrap_or_default().or(offer.fps),
            false => found.device.rate(api).unwrap_or_default(),
        };
        let complaints = self.set_controls(&found.device)?;
        let buffers = Buffers::start(found.device, api, BUFFERS)?;
        self.say_choice(&name, &layout, code_name(driver.fourcc), rate, complaints);
        (self.identity, self.size) = (Some(identity), (layout.width, layout.height));
        let stall_ns = STALL_NS.max(rate.map_or(0, |rate| (4e9 / rate.max(0.01)) as u64));
        // the time now: what came before may have taken seconds
        Ok(Streaming { buffers, layout, last: None, last_frame_ns: MonotonicClock.now_ns(), stall_ns, name })
    }

    fn set_controls(&self, device: &Device) -> Result<Vec<String>, Trouble> {
        if self.options.controls.is_empty() {
            return Ok(Vec::new());
        }
        let offered = device.controls()?;
        let controls::Plan { steps, mut complaints } = controls::plan(&offered, &self.options.controls);
        for (control, value) in steps {
            if let Err(error) = device.set_control(control, value) {
                complaints.push(format!("camera.controls: {} = {value}: {error}", controls::key(&control.name)));
            }
        }
        Ok(complaints)
    }

    /// Logs what was chosen and what could not be set, unless it was logged just so before.
    fn say_choice(&mut self, name: &str, layout: &Layout, code: String, rate: Option<f64>, complaints: Vec<String>) {
        let rate = rate.map_or_else(|| "at its own rate".to_owned(), |rate| format!("at {rate:.4} frames a second").replace(".0000", ""));
        let matrix = if layout.colour.matrix == Matrix::Bt601 { "BT.601" } else { "BT.709" };
        let colour = match layout.format {
            PixelFormat::Rgb24 | PixelFormat::Bgr24 | PixelFormat::Grey | PixelFormat::Mjpg => String::new(),
            _ => format!(", {matrix}{}", if layout.colour.full_range { " full range" } else { "" }),
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
        if self.trouble.as_ref() != Some(&reason) {
            log::warn!("camera {subject}: {reason}; waiting for it");
            self.trouble = Some(reason);
        }
    }

    /// Closes the camera, if it is open; the next attempt comes after a pause that grows until frames come.
    fn wait_after(&mut self, trouble: Trouble) {
        let subject = self.streaming.take().map_or_else(|| self.subject(), |streaming| streaming.name);
        self.complain(&subject, trouble.reason);
        self.retry_at_ns = MonotonicClock.now_ns() + self.pause_ns;
        self.pause_ns = (2 * self.pause_ns).min(PAUSE_MAX_NS);
    }

    /// A frame has come.
    fn deliver(&mut self, frame: Frame) -> Captured {
        self.pause_ns = PAUSE_MIN_NS;
        if self.trouble.take().is_some() {
            log::info!("camera: frames of {} come again", self.logged);
        }
        Captured::Frame(frame)
    }
}

impl Source for V4l2Source {
    fn describe(&self) -> String {
        match &self.trouble {
            Some(reason) => format!("camera {} ({reason})", self.subject()),
            None => format!("camera {}, {}x{}", self.subject(), self.size.0, self.size.1),
        }
    }

    fn max_size(&self) -> (u32, u32) {
        self.options.view.size(self.size.0, self.size.1).unwrap_or(self.size)
    }

    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Takes the time itself, after each call that may take long: `now_ns` is that of the call.
    fn next(&mut self, now_ns: u64, mut buffer: Vec<u8>) -> Result<Captured, SourceError> {
        let Some(streaming) = &mut self.streaming else {
            if now_ns < self.retry_at_ns {
                std::thread::sleep(PATIENCE.min(Duration::from_nanos(self.retry_at_ns - now_ns)));
                return Ok(Captured::NotYet(buffer));
            }
            match self.connect() {
                Ok(streaming) => self.streaming = Some(streaming),
                Err(trouble) => self.wait_after(trouble),
            }
            return Ok(Captured::NotYet(buffer));
        };
        let Streaming { buffers, layout, last, .. } = streaming;
        let outcome = take_newest(buffers, layout, PATIENCE, last, &mut self.losses, &mut buffer);
        let now_ns = MonotonicClock.now_ns();
        let silent = now_ns.saturating_sub(streaming.last_frame_ns) >= streaming.stall_ns;
        let trouble = match outcome {
            Ok(Outcome::Frame { captured_ns, .. }) if layout.agrees(&buffer) => {
                streaming.last_frame_ns = now_ns;
                self.delivered += 1;
                let Losses { missed, stale, broken } = self.losses;
                let frame = Frame {
                    width: layout.width,
                    height: layout.height,
                    format: layout.format,
                    colour: layout.colour,
                    data: buffer,
                    sequence: self.delivered + missed + stale + broken,
                    captured_ns: captured_ns.unwrap_or(now_ns),
                    truth: None,
                };
                return Ok(self.deliver(frame));
            }
            Ok(Outcome::Frame { .. }) => {
                self.losses.broken += 1;
                if !silent {
                    return Ok(Captured::NotYet(buffer));
                }
                Trouble::passing(format!("its pictures are no JPEG of {}x{}", layout.width, layout.height))
            }
            Ok(Outcome::Nothing) if !silent => return Ok(Captured::NotYet(buffer)),
            Ok(Outcome::Nothing) => Trouble::passing("it gives no frames"),
            Ok(Outcome::Changed) => Trouble::passing("its picture has changed"),
            Err(error) => error.into(),
        };
        self.wait_after(trouble);
        Ok(Captured::NotYet(buffer))
    }

    fn losses(&self) -> Losses {
        self.losses
    }
}

/// A link by place, or one that the user's own udev rule makes: it says itself what is meant. Names by id do not, when two cameras
/// without serial numbers share one.
fn names_a_place(path: &Path) -> bool {
    path.is_symlink() && path.parent().is_none_or(|parent| !parent.ends_with("by-id"))
}

/// What the camera can do, of what we can take.
fn offers(device: &Device, api: Api, wish: &Wish) -> io::Result<Vec<Offer>> {
    let mut offers = Vec::new();
    for fourcc in device.formats(api)? {
        let Some(format) = pixel_format(fourcc) else { continue };
        let mut sizes = choice::sizes_for(&device.sizes(fourcc)?, wish.size);
        if sizes.is_empty() {
            // the driver takes what it is asked for, or says what it makes of it
            sizes.push(wish.size);
        }
        for (width, height) in sizes {
            let fps = choice::rate_for(&device.rates(fourcc, width, height)?, wish.fps);
            offers.push(Offer { fourcc, format, width, height, fps });
        }
    }
    Ok(offers)
}

fn nothing_fits(offers: &[Offer], wish: &Wish) -> String {
    let mut codes: Vec<String> = offers.iter().map(|offer| code_name(offer.fourcc)).collect();
    codes.dedup();
    match wish.format {
        Some(format) if !codes.is_empty() => format!("it does not offer {format:?}, only {}", codes.join(", ")),
        _ => "it offers no format that is supported".to_owned(),
    }
}

/// A camera for `doctor`: its name and formats as lines, or why it cannot be asked. `None` when the node is no camera.
pub fn describe(path: &Path) -> Option<Result<Vec<String>, String>> {
    let devices = DeviceDirectory::default();
    let wish = Wish { size: (640, 480), fps: 30.0, format: None };
    let ask = || -> io::Result<Option<Vec<String>>> {
        let found = devices.open(path)?;
        let Some(api) = found.capability.capture else { return Ok(None) };
        let offers = offers(&found.device, api, &wish)?;
        let mut lines = vec![found.name()];
        let mut codes: Vec<[u8; 4]> = offers.iter().map(|offer| offer.fourcc).collect();
        codes.dedup();
        for code in codes {
            let of_code = offers.iter().filter(|offer| offer.fourcc == code);
            let size = |offer: &Offer| match offer.fps {
                Some(fps) => format!("{}x{}@{fps:.0}", offer.width, offer.height),
                None => format!("{}x{}", offer.width, offer.height),
            };
            lines.push(format!("{}: {}", code_name(code), of_code.map(size).collect::<Vec<_>>().join(" ")));
        }
        let names: Vec<String> = found.device.controls()?.iter().map(|control| controls::key(&control.name)).collect();
        lines.push(format!("controls: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        Ok(Some(lines))
    };
    ask().map_err(|error| Trouble::from(error).reason).transpose()
}
