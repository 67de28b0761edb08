//! Buffers that the driver fills: <https://docs.kernel.org/userspace-api/media/v4l/mmap.html>.

use std::io;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use v4l::v4l_sys::*;
use v4l::v4l2::vidioc;

use super::{Api, Device, Plain, Request, plain};

plain!(v4l2_requestbuffers, v4l2_buffer, v4l2_plane, std::os::raw::c_int);

const REQBUFS: Request<v4l2_requestbuffers> = Request::new(vidioc::VIDIOC_REQBUFS);
const QUERYBUF: Request<v4l2_buffer> = Request::new(vidioc::VIDIOC_QUERYBUF);
const QBUF: Request<v4l2_buffer> = Request::new(vidioc::VIDIOC_QBUF);
const DQBUF: Request<v4l2_buffer> = Request::new(vidioc::VIDIOC_DQBUF);
const STREAMON: Request<std::os::raw::c_int> = Request::new(vidioc::VIDIOC_STREAMON);
const STREAMOFF: Request<std::os::raw::c_int> = Request::new(vidioc::VIDIOC_STREAMOFF);

/// Memory planes of the formats that we take: Y, U and V at most.
pub const PLANES_MAX: usize = 3;

type Planes = [v4l2_plane; PLANES_MAX];

/// A filled buffer, which is ours until it is queued again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dequeued {
    pub index: u32,
    /// The driver's frame counter.
    pub sequence: u32,
    /// When the frame was taken, nanoseconds of CLOCK_MONOTONIC; `None` when the driver uses another clock.
    pub captured_ns: Option<u64>,
    /// V4L2_BUF_FLAG_ERROR: the data may be corrupted.
    pub corrupted: bool,
    /// (first byte, end) of the data in each memory plane.
    pub used: [(u32, u32); PLANES_MAX],
}

/// One memory plane of one buffer, mapped for reading.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to its owner like a boxed slice does; it is tied to no thread.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping at its own length; nobody can borrow from it any more. Failing is impossible then.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Mapped buffers of a device that streams. Dropping them ends the stream and frees them, also when the device is gone.
#[derive(Debug)]
pub struct Buffers {
    /// Per buffer; before the device, since it must be unmapped first.
    maps: Vec<Vec<Mapping>>,
    /// Whether a buffer is the driver's, who writes into it.
    queued: Vec<bool>,
    api: Api,
    device: Device,
}

impl Buffers {
    /// Asks for `count` buffers for the format that is set and queues all that the driver gives.
    pub fn prepare(device: Device, api: Api, count: u32) -> io::Result<Buffers> {
        let count = device.request_buffers(api, count)?;
        // from here on, whatever fails, the drop below gives back what was taken
        let mut buffers = Buffers { maps: Vec::new(), queued: Vec::new(), api, device };
        if count < 2 {
            return Err(io::Error::other(format!("the driver gives {count} buffers")));
        }
        for index in 0..count {
            let map = buffers.device.map_buffer(api, index)?;
            buffers.maps.push(map);
            buffers.queued.push(false);
            buffers.queue(index)?;
        }
        Ok(buffers)
    }

    /// VIDIOC_STREAMON: starts to stream.
    pub fn start(&self) -> io::Result<()> {
        self.device.call(&STREAMON, &mut { self.api.buffer_type() as std::os::raw::c_int })
    }

    /// How many the driver has given.
    pub fn count(&self) -> usize {
        self.maps.len()
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// VIDIOC_DQBUF: the oldest filled buffer, which is ours from now on; EAGAIN when there is none.
    pub fn dequeue(&mut self) -> io::Result<Dequeued> {
        let buffer = self.device.dequeue_buffer(self.api)?;
        match self.queued.get_mut(buffer.index as usize) {
            Some(queued) => *queued = false,
            None => return Err(io::Error::other(format!("the driver gives buffer {} of {}", buffer.index, self.maps.len()))),
        }
        Ok(buffer)
    }

    /// VIDIOC_QBUF: the driver may fill this buffer.
    pub fn queue(&mut self, index: u32) -> io::Result<()> {
        // first: a call that fails half-way leaves a buffer that is not read
        self.queued[index as usize] = true;
        self.device.queue_buffer(self.api, index)
    }

    /// What the driver has filled in each memory plane of a buffer that is ours; nothing of one that is not.
    pub fn filled(&self, buffer: &Dequeued) -> [&[u8]; PLANES_MAX] {
        let mut areas: [&[u8]; PLANES_MAX] = [&[]; PLANES_MAX];
        if self.queued[buffer.index as usize] {
            return areas;
        }
        for ((area, map), (start, end)) in areas.iter_mut().zip(&self.maps[buffer.index as usize]).zip(buffer.used) {
            // SAFETY: mapped readable at this length as long as `self` lives. The driver writes into queued buffers only; this one
            // is not, and `queue` needs `&mut self`, which the slices' borrow forbids.
            let bytes = unsafe { std::slice::from_raw_parts(map.start.as_ptr(), map.len) };
            let end = (end as usize).min(bytes.len());
            *area = &bytes[(start as usize).min(end)..end];
        }
        areas
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // each fails when the device is gone, and closing it does the same
        let _ = self.device.stop(self.api);
        self.maps.clear();
        let _ = self.device.request_buffers(self.api, 0);
    }
}

impl Device {
    /// VIDIOC_REQBUFS: so many mappable buffers; 0 frees them all. The driver may give more or fewer.
    fn request_buffers(&self, api: Api, count: u32) -> io::Result<u32> {
        let memory = v4l2_memory_V4L2_MEMORY_MMAP;
        let mut raw = v4l2_requestbuffers { count, type_: api.buffer_type(), memory, ..v4l2_requestbuffers::zeroed() };
        self.call(&REQBUFS, &mut raw)?;
        Ok(raw.count)
    }

    /// VIDIOC_QUERYBUF and mmap: the memory planes of a buffer.
    fn map_buffer(&self, api: Api, index: u32) -> io::Result<Vec<Mapping>> {
        let mut planes = no_planes();
        let raw = self.with_buffer(&QUERYBUF, api, index, &mut planes)?;
        let areas: Vec<(u32, u32)> = match api {
            // SAFETY: mapped memory, so the driver has filled the offset.
            Api::Single => vec![(unsafe { raw.m.offset }, raw.length)],
            Api::Multi => {
                let count = (raw.length as usize).min(PLANES_MAX);
                // SAFETY: the buffer is of memory type MMAP, so the driver has filled `mem_offset` of each of the `length` planes; every
                // member of the union is a plain integer.
                planes[..count].iter().map(|plane| (unsafe { plane.m.mem_offset }, plane.length)).collect()
            }
        };
        areas.into_iter().map(|(offset, len)| self.map(u64::from(offset), len as usize)).collect()
    }

    fn map(&self, offset: u64, len: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, self, offset)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        Ok(Mapping { start, len })
    }

    /// VIDIOC_QBUF: the driver may fill this buffer.
    fn queue_buffer(&self, api: Api, index: u32) -> io::Result<()> {
        self.with_buffer(&QBUF, api, index, &mut no_planes()).map(|_| ())
    }

    /// VIDIOC_DQBUF: the oldest filled buffer; EAGAIN when there is none.
    fn dequeue_buffer(&self, api: Api) -> io::Result<Dequeued> {
        let mut planes = no_planes();
        let raw = self.with_buffer(&DQBUF, api, 0, &mut planes)?;
        let mut used = [(0, 0); PLANES_MAX];
        match api {
            Api::Single => used[0] = (0, raw.bytesused),
            Api::Multi => {
                for (used, plane) in used.iter_mut().zip(&planes) {
                    *used = (plane.data_offset, plane.bytesused);
                }
            }
        }
        let monotonic = raw.flags & V4L2_BUF_FLAG_TIMESTAMP_MASK == V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        // a negative time becomes one far ahead, which `Stamps` replaces
        let (seconds, micros) = (raw.timestamp.tv_sec as u64, raw.timestamp.tv_usec as u64);
        Ok(Dequeued {
            index: raw.index,
            sequence: raw.sequence,
            captured_ns: monotonic.then(|| seconds.saturating_mul(1_000_000_000).saturating_add(micros.saturating_mul(1000))),
            corrupted: raw.flags & V4L2_BUF_FLAG_ERROR != 0,
            used,
        })
    }

    fn with_buffer(&self, request: &Request<v4l2_buffer>, api: Api, index: u32, planes: &mut Planes) -> io::Result<v4l2_buffer> {
        let memory = v4l2_memory_V4L2_MEMORY_MMAP;
        let mut raw = v4l2_buffer { index, type_: api.buffer_type(), memory, ..v4l2_buffer::zeroed() };
        if api == Api::Multi {
            (raw.m.planes, raw.length) = (planes.as_mut_ptr(), PLANES_MAX as u32);
        }
        self.call(request, &mut raw)?;
        Ok(raw)
    }

    /// VIDIOC_STREAMOFF: also takes every buffer out of both queues.
    fn stop(&self, api: Api) -> io::Result<()> {
        self.call(&STREAMOFF, &mut { api.buffer_type() as std::os::raw::c_int })
    }
}

fn no_planes() -> Planes {
    std::array::from_fn(|_| v4l2_plane::zeroed())
}
