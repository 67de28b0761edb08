//! One camera: the formats that it offers, and the steps until it streams.
//!
//! ```text
//! ask      formats, sizes, rates; changes nothing
//! start    set the format of choice, the rate, the controls; buffers; STREAMON
//!            no USB bandwidth       once more with MJPG, if the camera has it and no format is forced
//!            no such pipeline       once more with the format that was set, as it fits the configured pipeline
//!            fails nevertheless     put back what was set before
//! ```

use std::io;
use std::path::PathBuf;

use eomt_edge_core::data::PixelFormat;

use super::choice::{self, FormatCandidate};
use super::controls;
use super::error::{CameraError, Kind};
use super::identity::Found;
use super::layout::{Layout, code_name, pixel_format};
use super::stream::BUFFERS;
use super::sys::{Api, Buffers, Device, DriverFormat, Settings};
use super::{CameraOptions, Formats};
use crate::source::FormatRequest;

/// An open camera that has been asked what it can do.
pub(super) struct Camera {
    pub found: Found,
    pub api: Api,
    pub formats: Formats,
}

/// A camera that streams.
pub(super) struct Started {
    pub buffers: Buffers,
    pub layout: Layout,
    /// Of the driver.
    pub code: String,
    /// Frames per second, as far as the driver says.
    pub rate: Option<f64>,
    /// For the log: controls that could not be set, a format that was replaced.
    pub complaints: Vec<String>,
    pub before: Before,
}

/// How a camera was set when it was opened.
pub(super) struct Before {
    device: Device,
    api: Api,
    /// `None` when the driver does not say.
    settings: Option<Settings>,
}

impl Before {
    /// Restores the settings. The buffers must be freed before; a camera that is gone needs nothing.
    pub fn restore(&self) {
        if let Some(Err(error)) = self.settings.as_ref().map(|settings| self.device.put_back(self.api, settings)) {
            log::debug!("camera: its format could not be put back: {error}");
        }
    }
}

/// The format that one attempt streams in.
enum Attempt<'a> {
    Candidate(&'a FormatCandidate),
    AsItWas(&'a Settings),
}

impl Camera {
    /// Asks for the camera's formats, sizes and rates, as far as this program reads them.
    pub fn ask(found: Found, request: &FormatRequest) -> Result<Camera, CameraError> {
        // before the format is read, so that no change falls in between; a driver without events simply has none
        let _ = found.device.watch_source_changes();
        found.device.follow_input()?;
        let no_camera = || CameraError::fatal(format!("{} captures no video", found.name()));
        let api = found.capability.capture.ok_or_else(no_camera)?;
        let formats = formats(&found.device, api, request)?;
        Ok(Camera { found, api, formats })
    }

    /// The candidate that suits best.
    pub fn choose(&self, request: &FormatRequest) -> Result<&FormatCandidate, CameraError> {
        choice::choose(&self.formats.usable, request).ok_or_else(|| {
            let codes: Vec<String> = self.formats.codes.iter().map(|code| code_name(*code)).collect();
            match request.format {
                Some(format) if !self.formats.usable.is_empty() => {
                    CameraError::unreadable(format!("it does not offer camera.format = \"{}\", only {}", format.name(), codes.join(", ")))
                }
                _ => CameraError::no_format(&codes),
            }
        })
    }

    pub fn path(&self) -> &PathBuf {
        &self.found.path
    }

    /// Starts an open camera.
    pub fn start(&self, options: &CameraOptions) -> Result<Started, CameraError> {
        let settings = self.found.device.settings(self.api).ok();
        let before = Before { device: self.found.device.clone(), api: self.api, settings };
        let started = self.start_somehow(options, before.settings.as_ref());
        match started {
            Ok(started) => Ok(Started { before, ..started }),
            Err(error) => {
                before.restore();
                Err(error)
            }
        }
    }

    fn start_somehow(&self, options: &CameraOptions, as_it_was: Option<&Settings>) -> Result<Started, CameraError> {
        let request = options.request.format;
        let candidate = self.choose(&request)?;
        let error = match self.attempt(options, Attempt::Candidate(candidate)) {
            Ok(started) => return Ok(started),
            Err(error) => error,
        };
        let mjpg = FormatRequest { format: Some(PixelFormat::Mjpg), ..request };
        match (error.kind, choice::choose(&self.formats.usable, &mjpg), as_it_was) {
            (Kind::Bandwidth, Some(mjpg), _) if request.format.is_none() && candidate.format != PixelFormat::Mjpg => {
                let mut started = self.attempt(options, Attempt::Candidate(mjpg))?;
                let (width, height, code) = (candidate.width, candidate.height, code_name(candidate.fourcc));
                let reason = format!("the USB bandwidth does not suffice for {width}x{height} {code} (ENOSPC): {} instead", started.code);
                started.complaints.push(format!("camera {}: {reason}", self.found.name()));
                Ok(started)
            }
            (Kind::Pipeline, _, Some(settings)) if self.serves(&settings.format(), candidate, &request) => {
                self.attempt(options, Attempt::AsItWas(settings)).map_err(|_| error)
            }
            _ => Err(error),
        }
    }

    /// Whether a format that is set is one to try: it can be read, was asked for, and differs from `candidate`.
    fn serves(&self, driver: &DriverFormat, candidate: &FormatCandidate, request: &FormatRequest) -> bool {
        let other = (driver.fourcc, driver.width, driver.height) != (candidate.fourcc, candidate.width, candidate.height);
        pixel_format(driver.fourcc).is_some_and(|format| request.format.is_none_or(|wanted| wanted == format)) && other
    }

    fn attempt(&self, options: &CameraOptions, attempt: Attempt) -> Result<Started, CameraError> {
        let (device, api, request) = (&self.found.device, self.api, options.request.format);
        let (driver, offered_fps) = match attempt {
            Attempt::Candidate(candidate) => (device.set_format(api, candidate.fourcc, candidate.width, candidate.height)?, candidate.fps),
            Attempt::AsItWas(settings) => (device.put_back(api, settings)?, None),
        };
        let layout = Layout::of(&driver).map_err(CameraError::passing)?;
        if request.format.is_some_and(|wanted| wanted != layout.format) {
            let code = code_name(driver.fourcc);
            return Err(CameraError::passing(format!(
                "it gives {code} when it is asked for camera.format = \"{}\"",
                name_of(request.format)
            )));
        }
        let (width, height) = (layout.width, layout.height);
        if u64::from(width) * u64::from(height) > options.max_pixels {
            return Err(CameraError::passing(format!("frames of {width}x{height} are more than source.max_pixels allows")));
        }
        let rate = match request.fps > 0.0 {
            true => device.set_rate(api, offered_fps.unwrap_or(request.fps)).unwrap_or_default().or(offered_fps),
            false => device.rate(api).unwrap_or_default(),
        };
        let complaints = set_controls(device, options)?;
        let code = code_name(driver.fourcc);
        let buffers = Buffers::prepare(device.clone(), api, BUFFERS)?;
        let what = || format!("{width}x{height} {code}");
        buffers.start().map_err(|error| CameraError::of_streamon(error, &self.found.capability, &what()))?;
        let before = Before { device: device.clone(), api, settings: None };
        Ok(Started { buffers, layout, code, rate, complaints, before })
    }
}

fn name_of(format: Option<PixelFormat>) -> &'static str {
    format.map_or("auto", PixelFormat::name)
}

fn set_controls(device: &Device, options: &CameraOptions) -> Result<Vec<String>, CameraError> {
    if options.request.controls.is_empty() {
        return Ok(Vec::new());
    }
    let offered = device.controls()?;
    let controls::Plan { steps, mut complaints } = controls::plan(&offered, &options.request.controls);
    for (control, value) in steps {
        if let Err(error) = device.set_control(control, value) {
            complaints.push(format!("camera.controls: {} = {value}: {error}", controls::key(&control.name)));
        }
    }
    Ok(complaints)
}

/// The codes of all formats of a camera; sizes and rates of the supported ones.
fn formats(device: &Device, api: Api, request: &FormatRequest) -> io::Result<Formats> {
    let mut found = Formats::default();
    for fourcc in device.formats(api)? {
        if !found.codes.contains(&fourcc) {
            found.codes.push(fourcc);
        }
        let Some(format) = pixel_format(fourcc) else { continue };
        let mut sizes = choice::sizes_for(&device.sizes(fourcc)?, request.size);
        if sizes.is_empty() {
            // a driver that lists no sizes takes any, or answers with the nearest
            sizes.push(request.size);
        }
        for (width, height) in sizes {
            let fps = choice::rate_for(&device.rates(fourcc, width, height)?, request.fps);
            found.usable.push(FormatCandidate { fourcc, format, width, height, fps });
        }
    }
    Ok(found)
}
