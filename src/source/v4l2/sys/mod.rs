//! The V4L2 calls, each a safe function: <https://docs.kernel.org/userspace-api/media/v4l/user-func.html>.
//!
//! Structures and request codes are those of the `v4l` crate, which takes them from `<linux/videodev2.h>`. Its own decoded types
//! stay out: they panic on what they do not know (a control type, a colour space, a card name that is not UTF-8). Every call is
//! repeated after EINTR. Refuses: to decide anything.

#![allow(unsafe_code)]

mod buffers;
mod controls;
#[cfg(test)]
pub mod fake;

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, major, open, stat};
use v4l::v4l_sys::*;
use v4l::v4l2::vidioc;

pub use buffers::{Buffers, Dequeued, PLANES_MAX};
pub use controls::{ControlInfo, ControlType};

/// An open device node; clones are the same open file.
#[derive(Debug, Clone)]
pub struct Device {
    fd: Arc<OwnedFd>,
    /// A driver in the place of the kernel.
    #[cfg(test)]
    fake: Option<fake::Handle>,
}

/// A format, and the rate if the driver knows it, as they were before they were changed.
#[derive(Clone, Copy)]
pub struct Settings {
    format: Pix,
    /// Seconds per frame.
    interval: Option<v4l2_fract>,
}

/// The part of a `v4l2_format` that counts, by [`Api`].
#[derive(Clone, Copy)]
enum Pix {
    Single(v4l2_pix_format),
    Multi(v4l2_pix_format_mplane),
}

/// A request code and the structure that goes with it.
struct Request<T> {
    code: u64,
    argument: PhantomData<T>,
}

impl<T> Request<T> {
    /// The code holds its structure's size (`_IOC_SIZE`), which must be `T`'s.
    const fn new(code: u64) -> Request<T> {
        assert!(((code >> 16) & 0x3FFF) as usize == size_of::<T>(), "another structure belongs to this request");
        Request { code, argument: PhantomData }
    }

    /// `_IOC(direction, 'V', number, size_of::<T>())`, for requests that the crate does not list.
    const fn numbered(direction: u64, number: u64) -> Request<T> {
        Request::new(direction << 30 | (size_of::<T>() as u64) << 16 | (b'V' as u64) << 8 | number)
    }
}

/// A structure of plain numbers, arrays and unions of them, for which all bits zero is a value.
///
/// # Safety
/// Implement it for such structures only.
unsafe trait Plain: Sized {
    fn zeroed() -> Self {
        // SAFETY: what the trait promises.
        unsafe { std::mem::zeroed() }
    }
}

macro_rules! plain {
    ($($structure:ty),* $(,)?) => {
        // SAFETY: C structures of <linux/videodev2.h> without references; null is a value of the pointers in them.
        $(unsafe impl Plain for $structure {})*
    };
}
use plain;

plain!(
    v4l2_capability,
    v4l2_fmtdesc,
    v4l2_frmsizeenum,
    v4l2_frmivalenum,
    v4l2_format,
    v4l2_streamparm,
    v4l2_dv_timings,
    v4l2_event_subscription,
    v4l2_event
);

const QUERYCAP: Request<v4l2_capability> = Request::new(vidioc::VIDIOC_QUERYCAP);
const ENUM_FMT: Request<v4l2_fmtdesc> = Request::new(vidioc::VIDIOC_ENUM_FMT);
const ENUM_FRAMESIZES: Request<v4l2_frmsizeenum> = Request::new(vidioc::VIDIOC_ENUM_FRAMESIZES);
const ENUM_FRAMEINTERVALS: Request<v4l2_frmivalenum> = Request::new(vidioc::VIDIOC_ENUM_FRAMEINTERVALS);
const G_FMT: Request<v4l2_format> = Request::new(vidioc::VIDIOC_G_FMT);
const S_FMT: Request<v4l2_format> = Request::new(vidioc::VIDIOC_S_FMT);
const S_PARM: Request<v4l2_streamparm> = Request::new(vidioc::VIDIOC_S_PARM);
const G_PARM: Request<v4l2_streamparm> = Request::new(vidioc::VIDIOC_G_PARM);
const QUERY_DV_TIMINGS: Request<v4l2_dv_timings> = Request::numbered(2, 99);
const S_DV_TIMINGS: Request<v4l2_dv_timings> = Request::numbered(3, 87);
const DQEVENT: Request<v4l2_event> = Request::numbered(2, 89);
const SUBSCRIBE_EVENT: Request<v4l2_event_subscription> = Request::numbered(1, 90);

/// The character devices of Video4Linux (the kernel's `Documentation/admin-guide/devices.txt`).
const VIDEO_MAJOR: u32 = 81;

/// More entries than any driver lists; a driver that never ends its list must not hold us.
const ENTRIES_MAX: u32 = 256;

/// Which of the two APIs a device speaks: one memory area per frame, or one per plane
/// (<https://docs.kernel.org/userspace-api/media/v4l/planar-apis.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Single,
    Multi,
}

impl Api {
    fn buffer_type(self) -> u32 {
        match self {
            Api::Single => v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
            Api::Multi => v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
        }
    }
}

/// What VIDIOC_QUERYCAP says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    pub driver: String,
    pub card: String,
    pub bus: String,
    /// `None` when the node captures no video into mapped buffers: a metadata node, a codec, an output.
    pub capture: Option<Api>,
    /// V4L2_CAP_IO_MC: what comes in is a matter of the media controller. The node lists every format that its hardware knows,
    /// whether or not the pipeline in front of it, which a program such as media-ctl or libcamera configures, can deliver it.
    pub media_centric: bool,
}

/// Frame sizes of one pixel format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    Discrete { width: u32, height: u32 },
    Stepwise { min: (u32, u32), max: (u32, u32), step: (u32, u32) },
}

/// Frame rates of one format and size, frames per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rates {
    Discrete(f64),
    Range { slowest: f64, fastest: f64 },
}

/// A format as the driver has set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverFormat {
    pub fourcc: [u8; 4],
    pub width: u32,
    pub height: u32,
    /// (bytes per line, bytes in all) of each memory plane.
    pub planes: Vec<(u32, u32)>,
    pub field: u32,
    pub colorspace: u32,
    pub ycbcr_encoding: u32,
    pub quantization: u32,
}

impl Device {
    /// Opens the node for non-blocking streaming; ENOTTY when it is none of Video4Linux.
    pub fn open(path: &Path) -> io::Result<Device> {
        #[cfg(test)]
        if let Some(device) = fake::open(path) {
            return device;
        }
        let node = stat(path)?;
        // before opening: opening another kind of device may have effects
        if FileType::from_raw_mode(node.st_mode) != FileType::CharacterDevice || major(node.st_rdev) != VIDEO_MAJOR {
            return Err(rustix::io::Errno::NOTTY.into());
        }
        let fd = open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Device {
            fd: Arc::new(fd),
            #[cfg(test)]
            fake: None,
        })
    }

    fn call<T: Plain + 'static>(&self, request: &Request<T>, argument: &mut T) -> io::Result<()> {
        #[cfg(test)]
        if let Some(fake) = &self.fake {
            return fake.answer(request.code, argument);
        }
        loop {
            let pointer: *mut T = argument;
            // SAFETY: the constants of this module pair every request with its structure, whose size the code repeats; the kernel
            // reads and writes that structure only, and what the pointers in some of them point to, which their callers keep
            // alive and exclusively borrowed over the call.
            match unsafe { v4l::v4l2::ioctl(self.fd.as_raw_fd(), request.code, pointer.cast()) } {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// VIDIOC_QUERYCAP.
    pub fn capability(&self) -> io::Result<Capability> {
        let mut raw = v4l2_capability::zeroed();
        self.call(&QUERYCAP, &mut raw)?;
        let has = |flag: u32| {
            let of_node = if raw.capabilities & V4L2_CAP_DEVICE_CAPS != 0 { raw.device_caps } else { raw.capabilities };
            of_node & flag != 0
        };
        let api = match () {
            () if has(V4L2_CAP_VIDEO_CAPTURE) => Some(Api::Single),
            () if has(V4L2_CAP_VIDEO_CAPTURE_MPLANE) => Some(Api::Multi),
            () => None,
        };
        let codec = has(V4L2_CAP_VIDEO_M2M | V4L2_CAP_VIDEO_M2M_MPLANE);
        Ok(Capability {
            driver: text(&raw.driver),
            card: text(&raw.card),
            bus: text(&raw.bus_info),
            capture: api.filter(|_| has(V4L2_CAP_STREAMING) && !codec),
            media_centric: has(V4L2_CAP_IO_MC),
        })
    }

    /// VIDIOC_ENUM_FMT: four-character codes.
    pub fn formats(&self, api: Api) -> io::Result<Vec<[u8; 4]>> {
        self.list(|index| {
            let mut raw = v4l2_fmtdesc { index, type_: api.buffer_type(), ..v4l2_fmtdesc::zeroed() };
            self.call(&ENUM_FMT, &mut raw).map(|()| raw.pixelformat.to_le_bytes())
        })
    }

    /// VIDIOC_ENUM_FRAMESIZES; empty when the driver lists none.
    pub fn sizes(&self, fourcc: [u8; 4]) -> io::Result<Vec<Sizes>> {
        self.list(|index| {
            let mut raw = v4l2_frmsizeenum { index, pixel_format: u32::from_le_bytes(fourcc), ..v4l2_frmsizeenum::zeroed() };
            self.call(&ENUM_FRAMESIZES, &mut raw)?;
            if raw.type_ == v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
                // SAFETY: the type says which member of the union the driver has filled.
                let size = unsafe { raw.__bindgen_anon_1.discrete };
                return Ok(Sizes::Discrete { width: size.width, height: size.height });
            }
            // SAFETY: not discrete, so stepwise or continuous: the driver has filled `stepwise` for both (a continuous range has steps of 1).
            let range = unsafe { raw.__bindgen_anon_1.stepwise };
            Ok(Sizes::Stepwise {
                min: (range.min_width, range.min_height),
                max: (range.max_width, range.max_height),
                step: (range.step_width.max(1), range.step_height.max(1)),
            })
        })
    }

    /// VIDIOC_ENUM_FRAMEINTERVALS; empty when the driver lists none.
    pub fn rates(&self, fourcc: [u8; 4], width: u32, height: u32) -> io::Result<Vec<Rates>> {
        self.list(|index| {
            let pixel_format = u32::from_le_bytes(fourcc);
            let mut raw = v4l2_frmivalenum { index, pixel_format, width, height, ..v4l2_frmivalenum::zeroed() };
            self.call(&ENUM_FRAMEINTERVALS, &mut raw)?;
            if raw.type_ == v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE {
                // SAFETY: the type says which member of the union the driver has filled.
                return Ok(Rates::Discrete(rate(unsafe { raw.__bindgen_anon_1.discrete })));
            }
            // SAFETY: not discrete, so the driver has filled `stepwise`, as it does for continuous ranges too; it holds plain integers.
            let range = unsafe { raw.__bindgen_anon_1.stepwise };
            Ok(Rates::Range { slowest: rate(range.max), fastest: rate(range.min) })
        })
    }

    /// Entries 0, 1, … until the driver says EINVAL; a driver without such a list (ENOTTY, ENODATA) has none.
    fn list<T>(&self, entry: impl Fn(u32) -> io::Result<T>) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for index in 0..ENTRIES_MAX {
            match entry(index) {
                Ok(value) => found.push(value),
                Err(error) => match rustix::io::Errno::from_io_error(&error) {
                    Some(rustix::io::Errno::INVAL | rustix::io::Errno::NOTTY | rustix::io::Errno::NODATA) => break,
                    _ => return Err(error),
                },
            }
        }
        Ok(found)
    }

    /// VIDIOC_S_FMT with progressive fields; the driver answers with what it made of it.
    pub fn set_format(&self, api: Api, fourcc: [u8; 4], width: u32, height: u32) -> io::Result<DriverFormat> {
        let (pixelformat, field) = (u32::from_le_bytes(fourcc), v4l2_field_V4L2_FIELD_NONE);
        self.call_format(
            &S_FMT,
            match api {
                Api::Single => Pix::Single(v4l2_pix_format { width, height, pixelformat, field, ..zeroed_pix() }),
                Api::Multi => Pix::Multi(v4l2_pix_format_mplane { width, height, pixelformat, field, ..zeroed_pix_mp() }),
            },
        )
        .map(Pix::driver_format)
    }

    /// VIDIOC_G_FMT and VIDIOC_G_PARM: how the driver is set, to be put back.
    pub fn settings(&self, api: Api) -> io::Result<Settings> {
        let format = self.call_format(
            &G_FMT,
            match api {
                Api::Single => Pix::Single(zeroed_pix()),
                Api::Multi => Pix::Multi(zeroed_pix_mp()),
            },
        )?;
        let mut raw = v4l2_streamparm { type_: api.buffer_type(), ..v4l2_streamparm::zeroed() };
        let known = self.call(&G_PARM, &mut raw).is_ok() && answered_rate(&raw).is_some();
        // SAFETY: for a capture type the driver fills this member.
        let interval = known.then_some(unsafe { raw.parm.capture.timeperframe });
        Ok(Settings { format, interval })
    }

    /// VIDIOC_S_FMT and VIDIOC_S_PARM with what [`Device::settings`] gave; the driver answers with what it made of it.
    pub fn put_back(&self, api: Api, settings: &Settings) -> io::Result<DriverFormat> {
        let format = self.call_format(&S_FMT, settings.format)?;
        if let Some(interval) = settings.interval {
            let mut raw = v4l2_streamparm { type_: api.buffer_type(), ..v4l2_streamparm::zeroed() };
            raw.parm.capture.timeperframe = interval;
            // a driver may know a rate and take none
            let _ = self.call(&S_PARM, &mut raw);
        }
        Ok(format.driver_format())
    }

    fn call_format(&self, request: &Request<v4l2_format>, pix: Pix) -> io::Result<Pix> {
        let mut raw = v4l2_format::zeroed();
        match pix {
            Pix::Single(pix) => (raw.type_, raw.fmt.pix) = (Api::Single.buffer_type(), pix),
            Pix::Multi(pix) => (raw.type_, raw.fmt.pix_mp) = (Api::Multi.buffer_type(), pix),
        }
        self.call(request, &mut raw)?;
        Ok(match pix {
            // SAFETY: `raw.type_` is a single-planar type, for which the driver fills `pix`; it holds plain integers.
            Pix::Single(_) => Pix::Single(unsafe { raw.fmt.pix }),
            // SAFETY: `raw.type_` is a multi-planar type, for which the driver fills `pix_mp`; it holds plain integers.
            Pix::Multi(_) => Pix::Multi(unsafe { raw.fmt.pix_mp }),
        })
    }

    /// VIDIOC_S_PARM: asks for a frame rate; the driver answers with the one it gives, if it knows.
    pub fn set_rate(&self, api: Api, fps: f64) -> io::Result<Option<f64>> {
        let mut raw = v4l2_streamparm { type_: api.buffer_type(), ..v4l2_streamparm::zeroed() };
        raw.parm.capture.timeperframe = v4l2_fract { numerator: 1000, denominator: (fps * 1000.0).round() as u32 };
        self.call(&S_PARM, &mut raw)?;
        Ok(answered_rate(&raw))
    }

    /// VIDIOC_G_PARM: the frame rate as it is, if the driver knows it.
    pub fn rate(&self, api: Api) -> io::Result<Option<f64>> {
        let mut raw = v4l2_streamparm { type_: api.buffer_type(), ..v4l2_streamparm::zeroed() };
        self.call(&G_PARM, &mut raw)?;
        Ok(answered_rate(&raw))
    }

    /// VIDIOC_QUERY_DV_TIMINGS and VIDIOC_S_DV_TIMINGS: a receiver (HDMI) is set to what comes in, on which its formats depend. A
    /// camera has no such timings.
    ///
    /// # Errors
    /// ENOLINK, ENOLCK or ERANGE when nothing comes in that the receiver understands.
    pub fn follow_input(&self) -> io::Result<()> {
        let mut timings = v4l2_dv_timings::zeroed();
        match self.call(&QUERY_DV_TIMINGS, &mut timings) {
            Ok(()) => self.call(&S_DV_TIMINGS, &mut timings),
            Err(error) => match rustix::io::Errno::from_io_error(&error) {
                Some(rustix::io::Errno::NOLINK | rustix::io::Errno::NOLCK | rustix::io::Errno::RANGE | rustix::io::Errno::NODEV) => {
                    Err(error)
                }
                _ => Ok(()),
            },
        }
    }

    /// VIDIOC_SUBSCRIBE_EVENT: a change of the source's format makes `poll` say PRI.
    pub fn watch_source_changes(&self) -> io::Result<()> {
        self.call(&SUBSCRIBE_EVENT, &mut v4l2_event_subscription { type_: V4L2_EVENT_SOURCE_CHANGE, ..v4l2_event_subscription::zeroed() })
    }

    /// VIDIOC_DQEVENT: whether an event that waited was a change of the source's format.
    pub fn source_changed(&self) -> io::Result<bool> {
        let mut raw = v4l2_event::zeroed();
        self.call(&DQEVENT, &mut raw)?;
        Ok(raw.type_ == V4L2_EVENT_SOURCE_CHANGE)
    }
}

impl Settings {
    /// What is set.
    pub fn format(&self) -> DriverFormat {
        self.format.driver_format()
    }
}

impl Pix {
    fn driver_format(self) -> DriverFormat {
        match self {
            Pix::Single(pix) => single(pix),
            Pix::Multi(pix) => multi(pix),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn zeroed_pix() -> v4l2_pix_format {
    // SAFETY: a structure of numbers.
    unsafe { std::mem::zeroed() }
}

fn zeroed_pix_mp() -> v4l2_pix_format_mplane {
    // SAFETY: a structure of numbers.
    unsafe { std::mem::zeroed() }
}

fn single(pix: v4l2_pix_format) -> DriverFormat {
    DriverFormat {
        fourcc: pix.pixelformat.to_le_bytes(),
        width: pix.width,
        height: pix.height,
        planes: vec![(pix.bytesperline, pix.sizeimage)],
        field: pix.field,
        colorspace: pix.colorspace,
        // SAFETY: both members of the union are a number.
        ycbcr_encoding: unsafe { pix.__bindgen_anon_1.ycbcr_enc },
        quantization: pix.quantization,
    }
}

fn multi(pix: v4l2_pix_format_mplane) -> DriverFormat {
    let (plane_formats, count) = (pix.plane_fmt, usize::from(pix.num_planes));
    DriverFormat {
        fourcc: { pix.pixelformat }.to_le_bytes(),
        width: pix.width,
        height: pix.height,
        planes: plane_formats.iter().take(count).map(|plane| (plane.bytesperline, plane.sizeimage)).collect(),
        field: pix.field,
        colorspace: pix.colorspace,
        // SAFETY: both members of the union are a number.
        ycbcr_encoding: u32::from(unsafe { pix.__bindgen_anon_1.ycbcr_enc }),
        quantization: u32::from(pix.quantization),
    }
}

/// The rate in a driver's answer for a capture type, if it knows one.
fn answered_rate(raw: &v4l2_streamparm) -> Option<f64> {
    // SAFETY: for a capture type the driver fills this member.
    let answer = rate(unsafe { raw.parm.capture.timeperframe });
    (answer > 0.0).then_some(answer)
}

/// Frames per second of a frame interval in seconds; 0 when it is no interval.
fn rate(interval: v4l2_fract) -> f64 {
    if interval.numerator == 0 { 0.0 } else { f64::from(interval.denominator) / f64::from(interval.numerator) }
}

/// A C string in an array, whatever its bytes.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
