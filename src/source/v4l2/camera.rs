//! One camera: what it offers, and how it comes to stream.
//!
//! ```text
//! ask      formats, sizes, rates; changes nothing
//! start    set the format of choice, the rate, the controls; buffers; STREAMON
//!            no USB bandwidth       once more with MJPG, if the camera has it and no format is forced
//!            no such pipeline       once more with the format that was set: whoever configured the pipeline set it, too
//!            fails nevertheless     put back what was set before
//! ```

use std::io;
use std::path::PathBuf;

use eomt_edge_core::data::PixelFormat;

use super::choice::{self, Offer, Wish};
use super::controls;
use super::identity::Found;
use super::layout::{Layout, code_name, pixel_format};
use super::stream::BUFFERS;
use super::sys::{Api, Buffers, Device, DriverFormat, Settings};
use super::trouble::{Kind, Trouble};
use super::{CameraOptions, Offers};

/// An open camera that has been asked what it can do.
pub(super) struct Camera {
    pub found: Found,
    pub api: Api,
    pub offers: Offers,
}

/// A camera that streams.
pub(super) struct Started {
    pub buffers: Buffers,
    pub layout: Layout,
    /// Of the driver.
    pub code: String,
    /// Frames per second, as far as the driver says.
    pub rate: Option<f64>,
    /// What a person should know of it: controls that could not be set, a format that had to give way.
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
    /// Puts it back, after the buffers are gone; a camera that is gone itself needs it no more.
    pub fn restore(&self) {
        if let Some(Err(error)) = self.settings.as_ref().map(|settings| self.device.put_back(self.api, settings)) {
            log::debug!("camera: its format could not be put back: {error}");
        }
    }
}

/// The format that one attempt streams in.
enum Attempt<'a> {
    Offer(&'a Offer),
    AsItWas(&'a Settings),
}

impl Camera {
    /// Asks what the camera can do, of what we can take.
    pub fn ask(found: Found, wish: &Wish) -> Result<Camera, Trouble> {
        // before the format is read, so that no change falls in between; a driver without events simply has none
        let _ = found.device.watch_source_changes();
        found.device.follow_input()?;
        let no_camera = || Trouble::fatal(format!("{} captures no video", found.name()));
        let api = found.capability.capture.ok_or_else(no_camera)?;
        let offers = offers(&found.device, api, wish)?;
        Ok(Camera { found, api, offers })
    }

    /// The offer that suits best.
    pub fn choose(&self, wish: &Wish) -> Result<&Offer, Trouble> {
        choice::choose(&self.offers.usable, wish).ok_or_else(|| {
            let codes: Vec<String> = self.offers.codes.iter().map(|code| code_name(*code)).collect();
            match wish.format {
                Some(format) if !self.offers.usable.is_empty() => {
                    Trouble::unreadable(format!("it does not offer camera.format = \"{}\", only {}", format.name(), codes.join(", ")))
                }
                _ => Trouble::no_format(&codes),
            }
        })
    }

    pub fn path(&self) -> &PathBuf {
        &self.found.path
    }

    /// From an open camera to one that streams.
    pub fn start(&self, options: &CameraOptions) -> Result<Started, Trouble> {
        let settings = self.found.device.settings(self.api).ok();
        let before = Before { device: self.found.device.clone(), api: self.api, settings };
        let started = self.start_somehow(options, before.settings.as_ref());
        match started {
            Ok(started) => Ok(Started { before, ..started }),
            Err(trouble) => {
                before.restore();
                Err(trouble)
            }
        }
    }

    fn start_somehow(&self, options: &CameraOptions, as_it_was: Option<&Settings>) -> Result<Started, Trouble> {
        let wish = options.wish;
        let offer = self.choose(&wish)?;
        let trouble = match self.attempt(options, Attempt::Offer(offer)) {
            Ok(started) => return Ok(started),
            Err(trouble) => trouble,
        };
        let mjpg = Wish { format: Some(PixelFormat::Mjpg), ..wish };
        match (trouble.kind, choice::choose(&self.offers.usable, &mjpg), as_it_was) {
            (Kind::Bandwidth, Some(mjpg), _) if wish.format.is_none() && offer.format != PixelFormat::Mjpg => {
                let mut started = self.attempt(options, Attempt::Offer(mjpg))?;
                let (width, height, code) = (offer.width, offer.height, code_name(offer.fourcc));
                let reason = format!("the USB bandwidth does not suffice for {width}x{height} {code} (ENOSPC): {} instead", started.code);
                started.complaints.push(format!("camera {}: {reason}", self.found.name()));
                Ok(started)
            }
            (Kind::Pipeline, _, Some(settings)) if self.serves(&settings.format(), offer, &wish) => {
                self.attempt(options, Attempt::AsItWas(settings)).map_err(|_| trouble)
            }
            _ => Err(trouble),
        }
    }

    /// Whether a format that is set is one to try: read, wished for, and another one than `offer`.
    fn serves(&self, driver: &DriverFormat, offer: &Offer, wish: &Wish) -> bool {
        let other = (driver.fourcc, driver.width, driver.height) != (offer.fourcc, offer.width, offer.height);
        pixel_format(driver.fourcc).is_some_and(|format| wish.format.is_none_or(|wanted| wanted == format)) && other
    }

    fn attempt(&self, options: &CameraOptions, attempt: Attempt) -> Result<Started, Trouble> {
        let (device, api, wish) = (&self.found.device, self.api, options.wish);
        let (driver, offered_fps) = match attempt {
            Attempt::Offer(offer) => (device.set_format(api, offer.fourcc, offer.width, offer.height)?, offer.fps),
            Attempt::AsItWas(settings) => (device.put_back(api, settings)?, None),
        };
        let layout = Layout::of(&driver).map_err(Trouble::passing)?;
        if wish.format.is_some_and(|wanted| wanted != layout.format) {
            let code = code_name(driver.fourcc);
            return Err(Trouble::passing(format!("it gives {code} when it is asked for camera.format = \"{}\"", name_of(wish.format))));
        }
        let (width, height) = (layout.width, layout.height);
        if u64::from(width) * u64::from(height) > options.max_pixels {
            return Err(Trouble::passing(format!("frames of {width}x{height} are more than source.max_pixels allows")));
        }
        let rate = match wish.fps > 0.0 {
            true => device.set_rate(api, offered_fps.unwrap_or(wish.fps)).unwrap_or_default().or(offered_fps),
            false => device.rate(api).unwrap_or_default(),
        };
        let complaints = set_controls(device, options)?;
        let code = code_name(driver.fourcc);
        let buffers = Buffers::prepare(device.clone(), api, BUFFERS)?;
        let what = || format!("{width}x{height} {code}");
        buffers.start().map_err(|error| Trouble::of_streamon(error, &self.found.capability, &what()))?;
        let before = Before { device: device.clone(), api, settings: None };
        Ok(Started { buffers, layout, code, rate, complaints, before })
    }
}

fn name_of(format: Option<PixelFormat>) -> &'static str {
    format.map_or("auto", PixelFormat::name)
}

fn set_controls(device: &Device, options: &CameraOptions) -> Result<Vec<String>, Trouble> {
    if options.controls.is_empty() {
        return Ok(Vec::new());
    }
    let offered = device.controls()?;
    let controls::Plan { steps, mut complaints } = controls::plan(&offered, &options.controls);
    for (control, value) in steps {
        if let Err(error) = device.set_control(control, value) {
            complaints.push(format!("camera.controls: {} = {value}: {error}", controls::key(&control.name)));
        }
    }
    Ok(complaints)
}

/// What the camera can do: every format's code, and of those that we can take the sizes and rates.
fn offers(device: &Device, api: Api, wish: &Wish) -> io::Result<Offers> {
    let mut found = Offers::default();
    for fourcc in device.formats(api)? {
        if !found.codes.contains(&fourcc) {
            found.codes.push(fourcc);
        }
        let Some(format) = pixel_format(fourcc) else { continue };
        let mut sizes = choice::sizes_for(&device.sizes(fourcc)?, wish.size);
        if sizes.is_empty() {
            // the driver takes what it is asked for, or says what it makes of it
            sizes.push(wish.size);
        }
        for (width, height) in sizes {
            let fps = choice::rate_for(&device.rates(fourcc, width, height)?, wish.fps);
            found.usable.push(Offer { fourcc, format, width, height, fps });
        }
    }
    Ok(found)
}
