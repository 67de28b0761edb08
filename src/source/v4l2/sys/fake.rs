//! A driver in the place of the kernel: what a node answers to each request, as the kernel's documentation and drivers have it. Tests
//! put one at a path; everything above the `ioctl` is the program's own code, and the buffers are real memory.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;

use super::*;

const BUFFER_BYTES: u32 = 1 << 16;

/// (code, sizes) of each format that a camera lists.
pub type Formats = Vec<(&'static [u8; 4], Vec<(u32, u32)>)>;

/// A camera's node.
#[derive(Debug, Clone)]
pub struct FakeCamera {
    pub driver: &'static str,
    pub card: &'static str,
    pub bus: &'static str,
    pub capabilities: u32,
    /// Every one at 30 frames a second.
    pub formats: Formats,
    /// What VIDIOC_S_FMT answers to any request, if not the request itself.
    pub forced: Option<(&'static [u8; 4], u32, u32)>,
    /// What VIDIOC_S_FMT fails with.
    pub s_fmt: Option<Errno>,
    /// What VIDIOC_STREAMON fails with, by (code, width, height).
    pub stream_on: fn([u8; 4], u32, u32) -> Option<Errno>,
    /// Whether frames come.
    pub gives_frames: bool,
    /// Added to the time of each frame.
    pub offset_ns: i64,
    /// (code, width, height), and the denominator of the rate.
    pub set: ([u8; 4], u32, u32),
    pub fps: u32,
}

impl Default for FakeCamera {
    /// A USB camera that gives YUYV of 16x8.
    fn default() -> FakeCamera {
        FakeCamera {
            driver: "uvcvideo",
            card: "HD USB Camera",
            bus: "usb-0000:01:00.0-1",
            capabilities: V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING,
            formats: vec![(b"YUYV", vec![(16, 8)])],
            forced: None,
            s_fmt: None,
            stream_on: |_, _, _| None,
            gives_frames: true,
            offset_ns: 0,
            set: (*b"YUYV", 16, 8),
            fps: 25,
        }
    }
}

/// A camera at work.
#[derive(Debug)]
struct State {
    camera: FakeCamera,
    queue: Vec<u32>,
    sequence: u32,
    streams: bool,
}

/// The file that stands for the node.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Mutex<State>>);

thread_local! {
    static NODES: RefCell<HashMap<std::path::PathBuf, Handle>> = RefCell::default();
}

/// Puts a camera at a path, for this thread.
pub fn plug(path: &Path, camera: FakeCamera) -> Handle {
    let handle = Handle(Arc::new(Mutex::new(State { camera, queue: Vec::new(), sequence: 0, streams: false })));
    NODES.with_borrow_mut(|nodes| nodes.insert(path.to_owned(), handle.clone()));
    handle
}

pub(super) fn open(path: &Path) -> Option<io::Result<Device>> {
    let handle = NODES.with_borrow(|nodes| nodes.get(path).cloned())?;
    let memory = || {
        let fd = memfd_create(c"fake-camera", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, u64::from(8 * BUFFER_BYTES))?;
        Ok(Device { fd: Arc::new(fd), fake: Some(handle) })
    };
    Some(memory())
}

impl Handle {
    /// How the camera is set, and whether it streams.
    pub fn set(&self) -> (([u8; 4], u32, u32), u32, bool) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.camera.set, state.camera.fps, state.streams)
    }

    /// Changes the camera while it is plugged in.
    pub fn change(&self, change: impl FnOnce(&mut FakeCamera)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).camera);
    }

    pub(super) fn answer(&self, code: u64, argument: &mut dyn Any) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state.answer(code, argument)?)
    }
}

/// The argument as the structure that goes with a request.
fn of<T: 'static>(argument: &mut dyn Any) -> &mut T {
    argument.downcast_mut().expect("each request has its own structure")
}

fn copy(text: &str, target: &mut [u8]) {
    target[..text.len()].copy_from_slice(text.as_bytes());
}

impl State {
    fn answer(&mut self, code: u64, argument: &mut dyn Any) -> Result<(), Errno> {
        match code {
            vidioc::VIDIOC_QUERYCAP => {
                let raw: &mut v4l2_capability = of(argument);
                copy(self.camera.driver, &mut raw.driver);
                copy(self.camera.card, &mut raw.card);
                copy(self.camera.bus, &mut raw.bus_info);
                raw.device_caps = self.camera.capabilities;
                raw.capabilities = raw.device_caps | V4L2_CAP_DEVICE_CAPS;
                Ok(())
            }
            vidioc::VIDIOC_ENUM_FMT => {
                let raw: &mut v4l2_fmtdesc = of(argument);
                let (code, _) = self.camera.formats.get(raw.index as usize).ok_or(Errno::INVAL)?;
                raw.pixelformat = u32::from_le_bytes(**code);
                Ok(())
            }
            vidioc::VIDIOC_ENUM_FRAMESIZES => {
                let raw: &mut v4l2_frmsizeenum = of(argument);
                let sizes = self.sizes(raw.pixel_format).ok_or(Errno::INVAL)?;
                let &(width, height) = sizes.get(raw.index as usize).ok_or(Errno::INVAL)?;
                raw.type_ = v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE;
                raw.__bindgen_anon_1.discrete = v4l2_frmsize_discrete { width, height };
                Ok(())
            }
            vidioc::VIDIOC_ENUM_FRAMEINTERVALS => {
                let raw: &mut v4l2_frmivalenum = of(argument);
                raw.type_ = v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE;
                raw.__bindgen_anon_1.discrete = v4l2_fract { numerator: 1, denominator: 30 };
                if raw.index == 0 { Ok(()) } else { Err(Errno::INVAL) }
            }
            vidioc::VIDIOC_G_FMT | vidioc::VIDIOC_S_FMT => self.format(code, of(argument)),
            vidioc::VIDIOC_G_PARM | vidioc::VIDIOC_S_PARM => {
                let raw: &mut v4l2_streamparm = of(argument);
                // SAFETY: for a capture type this member is filled.
                let asked = rate(unsafe { raw.parm.capture.timeperframe });
                if code == vidioc::VIDIOC_S_PARM {
                    self.camera.fps = asked.round() as u32;
                }
                raw.parm.capture.timeperframe = v4l2_fract { numerator: 1, denominator: self.camera.fps };
                Ok(())
            }
            _ => self.stream(code, argument),
        }
    }

    fn sizes(&self, code: u32) -> Option<&Vec<(u32, u32)>> {
        self.camera.formats.iter().find(|(known, _)| u32::from_le_bytes(**known) == code).map(|(_, sizes)| sizes)
    }

    fn format(&mut self, code: u64, raw: &mut v4l2_format) -> Result<(), Errno> {
        if code == vidioc::VIDIOC_S_FMT {
            if !self.queue.is_empty() || self.streams {
                return Err(Errno::BUSY); // there are buffers
            }
            if let Some(errno) = self.camera.s_fmt {
                return Err(errno);
            }
            // SAFETY: these nodes have one memory plane.
            let pix = unsafe { raw.fmt.pix };
            self.camera.set = match self.camera.forced {
                Some((code, width, height)) => (*code, width, height),
                None => (pix.pixelformat.to_le_bytes(), pix.width, pix.height),
            };
        }
        let (code, width, height) = self.camera.set;
        let (pixelformat, field) = (u32::from_le_bytes(code), v4l2_field_V4L2_FIELD_NONE);
        raw.fmt.pix = v4l2_pix_format { width, height, pixelformat, field, ..zeroed_pix() };
        Ok(())
    }

    fn stream(&mut self, code: u64, argument: &mut dyn Any) -> Result<(), Errno> {
        match code {
            vidioc::VIDIOC_REQBUFS => {
                self.queue.clear();
                Ok(())
            }
            vidioc::VIDIOC_QUERYBUF => {
                let raw: &mut v4l2_buffer = of(argument);
                (raw.m.offset, raw.length) = (raw.index * BUFFER_BYTES, BUFFER_BYTES);
                Ok(())
            }
            vidioc::VIDIOC_QBUF => {
                self.queue.push(of::<v4l2_buffer>(argument).index);
                Ok(())
            }
            vidioc::VIDIOC_STREAMON => {
                let (code, width, height) = self.camera.set;
                if let Some(errno) = (self.camera.stream_on)(code, width, height) {
                    return Err(errno);
                }
                self.streams = true;
                Ok(())
            }
            vidioc::VIDIOC_STREAMOFF => {
                self.streams = false;
                self.queue.clear();
                Ok(())
            }
            vidioc::VIDIOC_DQBUF => self.dequeue(of(argument)),
            _ => Err(Errno::NOTTY),
        }
    }

    /// A grey picture, as often as it is asked for: half of the queue's buffers at once.
    fn dequeue(&mut self, raw: &mut v4l2_buffer) -> Result<(), Errno> {
        if !self.streams || !self.camera.gives_frames || self.queue.len() < 3 {
            return Err(Errno::AGAIN);
        }
        use eomt_edge_core::pipeline::Clock;
        use eomt_edge_host::MonotonicClock;
        let now_ns = MonotonicClock.now_ns().saturating_add_signed(self.camera.offset_ns);
        raw.timestamp.tv_sec = (now_ns / 1_000_000_000) as _;
        raw.timestamp.tv_usec = (now_ns % 1_000_000_000 / 1000) as _;
        (raw.index, raw.sequence, raw.bytesused) = (self.queue.remove(0), self.sequence, BUFFER_BYTES);
        raw.flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        self.sequence += 1;
        Ok(())
    }
}
