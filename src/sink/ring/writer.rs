//! The writing half of the seqlock: frames go straight into shared memory.
//!
//! The order of its stores is [`eomt_edge_client::seqlock`]'s, which the reader's half uses too. What fills a slot in between are plain
//! stores: there is no other writer, and readers discard what they tear.

use std::mem::{offset_of, size_of};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use eomt_edge_client::layout::{
    ABI_VERSION, Geometry, MAX_RING_BYTES, MAX_SEGMENTS, MAX_SIDE, MAX_SLOTS, MAX_TEXT_BYTES, MIN_SLOTS, RING_HAS_CHECKSUM, RingHeader,
    RingInfo, SLOT_HAS_CHECKSUM, SLOT_HAS_FRAME, SLOT_MAGIC, SLOT_NO_SIGNAL, SLOT_STALE, SLOT_TRUNCATED, SegmentRow, SlotHeader, SlotInfo,
};
use eomt_edge_client::seqlock::{self, Hardware};
use eomt_edge_client::{FrameFormat, crc32, ids_as_bytes, rows_as_bytes};
use eomt_edge_core::data::{FrameReport, Segment};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::getpid;

use super::shm::{SharedMemory, check_room, machine_memory};
use super::{RingConfig, RingError};

/// What the server thread needs of a ring: it outlives neither reload nor writer, so it has its own descriptors.
#[derive(Debug, Clone)]
pub(super) struct RingShare {
    pub memfd: Arc<OwnedFd>,
    /// Written once per publication, read by the server thread.
    pub publish_event: Arc<OwnedFd>,
    pub bytes: u64,
}

/// The one writer of a ring.
#[derive(Debug)]
pub struct RingWriter {
    memory: SharedMemory,
    info: RingInfo,
    config: RingConfig,
    publish_event: Arc<OwnedFd>,
    published: u64,
    source_id: u32,
}

impl RingWriter {
    /// Makes a ring. `metadata_json` is a JSON object whose `labels` (an array of strings) also become the ring's label table;
    /// `now_ns` is CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// When the configuration is beyond the limits, the metadata is no JSON object, or the memory is missing or would be more than a quarter of the
    /// machine's.
    pub fn create(config: &RingConfig, metadata_json: &str, now_ns: u64) -> Result<RingWriter, RingError> {
        check_config(config)?;
        let labels = labels_of(metadata_json)?;
        let blob: Vec<u8> = labels.iter().flat_map(|label| label.bytes().filter(|&byte| byte != 0).chain([0])).collect();
        let geometry = Geometry {
            slot_count: config.slots,
            max_width: config.max_width,
            max_height: config.max_height,
            max_segments: config.max_segments,
            has_frame: config.include_frame,
            labels_bytes: blob.len(),
            metadata_bytes: metadata_json.len(),
        };
        let mut info = geometry.place().ok_or_else(|| RingError::Config { key: "max_width", what: too_large(config) })?;
        info.label_count = labels.len() as u32;
        info.flags |= if config.checksum { RING_HAS_CHECKSUM } else { 0 };
        info.writer_pid = getpid().as_raw_pid().unsigned_abs();
        info.created_ns = now_ns;
        check_room(info.total_bytes, machine_memory())?;
        let memory = SharedMemory::create(info.total_bytes as usize)?;
        let publish_event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| RingError::Server { step: "eventfd", source: errno.into() })?;
        let writer =
            RingWriter { memory, info, config: config.clone(), publish_event: Arc::new(publish_event), published: 0, source_id: 0 };
        // SAFETY: both blobs lie between header and slots as `Geometry::place` computed, inside the mapping, which no reader has
        // seen yet; the sources are ordinary Rust slices, so nothing overlaps.
        unsafe {
            writer.at(info.labels_offset).copy_from_nonoverlapping(blob.as_ptr(), blob.len());
            writer.at(info.metadata_offset).copy_from_nonoverlapping(metadata_json.as_ptr(), metadata_json.len());
        }
        // SAFETY: the mapping is page-aligned and longer than a RingHeader, whose first field this is; no reader has seen it yet.
        unsafe { writer.memory.base().cast::<RingInfo>().write(info) };
        writer.heartbeat(now_ns);
        Ok(writer)
    }

    /// Takes the oldest slot for a frame of `width` x `height`. Whatever it held can't be read from now on.
    ///
    /// # Errors
    /// When the frame is empty or larger than the ring.
    pub fn begin(&mut self, width: u32, height: u32) -> Result<SlotWriter<'_>, RingError> {
        let (max_width, max_height) = (self.info.max_width, self.info.max_height);
        if width == 0 || height == 0 || width > max_width || height > max_height {
            return Err(RingError::FrameSize { width, height, max_width, max_height });
        }
        let sequence = self.published + 1;
        let slot = self.slot(sequence);
        seqlock::begin::<Hardware>(lock_of(&slot), sequence);
        Ok(SlotWriter { ring: self, slot, sequence, width, height, picture: None })
    }

    /// A sign of life when no frame comes; every published frame is one too. CLOCK_MONOTONIC, nanoseconds.
    pub fn heartbeat(&self, now_ns: u64) {
        self.header_u64(offset_of!(RingHeader, heartbeat_ns)).store(now_ns, Ordering::Relaxed);
    }

    /// Sequence of the newest published frame, 0 = none.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Which source the frames to come are of; 0 = none yet.
    pub fn set_source_id(&mut self, source_id: u32) {
        self.source_id = source_id;
    }

    /// Largest frame that [`RingWriter::begin`] accepts: `(width, height)`.
    pub fn max_size(&self) -> (u32, u32) {
        (self.info.max_width, self.info.max_height)
    }

    /// Bytes of shared memory.
    pub fn bytes(&self) -> u64 {
        self.info.total_bytes
    }

    /// Tells the readers that no more frames come. Dropping the writer does it too.
    pub fn close(&self) {
        const OFFSET: usize = offset_of!(RingHeader, closed);
        // SAFETY: an aligned u32 inside the mapping that all processes access atomically; the reference ends here.
        unsafe { &*self.memory.base().add(OFFSET).cast::<AtomicU32>() }.store(1, Ordering::Release);
        self.signal_publication();
    }

    pub(super) fn share(&self) -> Result<RingShare, RingError> {
        let memfd = self.memory.fd().try_clone().map_err(|source| RingError::Server { step: "duplicating the memfd", source })?;
        Ok(RingShare { memfd: Arc::new(memfd), publish_event: Arc::clone(&self.publish_event), bytes: self.memory.len() as u64 })
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Never blocks: the eventfd is non-blocking and never leaves this process, so no reader can change that. A full counter
    /// (EAGAIN) rings just as well.
    fn signal_publication(&self) {
        let _ = rustix::io::write(&self.publish_event, &1u64.to_ne_bytes());
    }

    fn slot(&self, sequence: u64) -> SlotPointer {
        let index = sequence % u64::from(self.info.slot_count);
        SlotPointer(self.at(self.info.slots_offset + index * self.info.slot_stride))
    }

    /// `offset` must lie inside the mapping: the callers use those of `info`, which `Geometry::place` computed for it.
    fn at(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset <= self.info.total_bytes);
        self.memory.base().wrapping_add(offset as usize)
    }

    fn header_u64(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + 8 <= size_of::<RingHeader>() && offset.is_multiple_of(8));
        // SAFETY: an aligned u64 field of the header inside the mapping, which lives as long as `self`; all processes access it
        // atomically.
        unsafe { &*self.memory.base().add(offset).cast::<AtomicU64>() }
    }
}

impl Drop for RingWriter {
    fn drop(&mut self) {
        self.close();
    }
}

/// The start of a slot of the ring that the holder borrows.
#[derive(Debug, Clone, Copy)]
struct SlotPointer(*mut u8);

fn lock_of(slot: &SlotPointer) -> &AtomicU64 {
    // SAFETY: slots start at multiples of 64 inside the mapping; the lock is an aligned u64 that all processes access
    // atomically. The callers hold the ring while they use it.
    unsafe { &*slot.0.add(offset_of!(SlotHeader, lock)).cast::<AtomicU64>() }
}

/// One slot being written. Dropped without [`finish`](SlotWriter::finish) it is never published.
#[derive(Debug)]
pub struct SlotWriter<'ring> {
    ring: &'ring mut RingWriter,
    slot: SlotPointer,
    sequence: u64,
    width: u32,
    height: u32,
    picture: Option<Picture>,
}

/// What a slot says of its camera frame.
#[derive(Debug, Clone, Copy)]
struct Picture {
    format: FrameFormat,
    colour: u32,
    stride: u32,
    bytes: u32,
}

impl SlotWriter<'_> {
    /// The id map, `[height, width]`, 0 = nothing. It holds what an older frame left there: write every pixel.
    pub fn ids(&mut self) -> &mut [u16] {
        let start = self.slot.0.wrapping_add(self.ring.info.ids_offset as usize).cast::<u16>();
        // SAFETY: the area starts at a multiple of 64 inside the slot and has room for max_width x max_height ids, which bound
        // width x height; it is initialized (zero pages or older frames). In this process only `self` reaches it, exclusively;
        // other processes can only read it (the memfd is sealed) and discard what they read while the lock is odd.
        unsafe { std::slice::from_raw_parts_mut(start, self.width as usize * self.height as usize) }
    }

    /// The camera frame, RGB24, `None` when the ring has no frames. Calling it announces the frame: write every byte.
    pub fn frame(&mut self) -> Option<&mut [u8]> {
        self.announce(FrameFormat::Rgb24, 0, 3 * self.width as usize * self.height as usize)
    }

    /// Copies the camera frame into the slot, of its size and in this format; `colour` as [`SlotInfo::frame_colour`]. False when the ring
    /// has no frames, or no room for so many bytes.
    pub fn put_frame(&mut self, format: FrameFormat, colour: u32, bytes: &[u8]) -> bool {
        debug_assert!(format.frame_bytes(self.width, self.height).is_none_or(|needed| needed == bytes.len()));
        self.announce(format, colour, bytes.len()).map(|target| target.copy_from_slice(bytes)).is_some()
    }

    /// Room for a camera frame of so many bytes, which must all be written.
    fn announce(&mut self, format: FrameFormat, colour: u32, bytes: usize) -> Option<&mut [u8]> {
        let RingInfo { frame_offset, slot_stride, .. } = self.ring.info;
        if frame_offset == 0 || bytes as u64 > slot_stride - frame_offset {
            return None;
        }
        let stride = format.stride(self.width).unwrap_or(0) as u32;
        self.picture = Some(Picture { format, colour, stride, bytes: u32::try_from(bytes).ok()? });
        Some(self.picture_area(bytes))
    }

    /// `bytes` must not exceed the area: [`SlotWriter::announce`] has checked it.
    fn picture_area(&mut self, bytes: usize) -> &mut [u8] {
        let RingInfo { frame_offset, slot_stride, .. } = self.ring.info;
        debug_assert!(frame_offset > 0 && frame_offset + bytes as u64 <= slot_stride);
        let start = self.slot.0.wrapping_add(frame_offset as usize);
        // SAFETY: the area lies inside the slot, behind the id map, and reaches to the slot's end, which bounds `bytes`; it is
        // initialized (zero pages or older frames). In this process only `self` reaches it, exclusively; other processes can only read
        // it and discard what they read while the lock is odd.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }

    /// Publishes the slot and wakes the server; returns the ring sequence. Segments beyond `max_segments` are left out of the
    /// table, which readers learn from a flag: a frame with too many segments is worth more than none.
    pub fn finish(mut self, report: &FrameReport, segments: &[Segment]) -> u64 {
        let kept = &segments[..segments.len().min(self.ring.info.max_segments as usize)];
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let checksum = self.write_table(kept);
        let (picture, unpublished) = (self.picture, report.unpublished);
        let info = SlotInfo {
            sequence: self.sequence,
            frame_sequence: report.sequence,
            captured_ns: report.captured_ns,
            published_ns: report.published_ns,
            dropped: report.unpublished.dropped(),
            width: self.width,
            height: self.height,
            source_id: self.ring.source_id,
            flags: flag(report.stale, SLOT_STALE)
                | flag(report.no_signal, SLOT_NO_SIGNAL)
                | flag(picture.is_some(), SLOT_HAS_FRAME)
                | flag(checksum.is_some(), SLOT_HAS_CHECKSUM)
                | flag(kept.len() < segments.len(), SLOT_TRUNCATED),
            segment_count: kept.len() as u32,
            checksum: checksum.unwrap_or(0),
            stage_us: report.times.micros,
            model_hash: self.ring.config.model_hash,
            stamp_ns: report.stamp_ns,
            dropped_busy: unpublished.busy,
            dropped_source: unpublished.source,
            dropped_corrupt: unpublished.corrupt,
            failed: unpublished.failed,
            frame_format: picture.map_or(0, |picture| picture.format.fourcc()),
            frame_stride: picture.map_or(0, |picture| picture.stride),
            frame_bytes: picture.map_or(0, |picture| picture.bytes),
            frame_colour: picture.map_or(0, |picture| picture.colour),
            reserved: [0; 11],
        };
        let header = self.slot.0;
        // SAFETY: the header starts the slot, 64-aligned and inside the mapping; only this process writes it, and these three
        // fields only here, with the lock odd. The lock between them is not touched.
        unsafe {
            header.add(offset_of!(SlotHeader, magic)).cast::<u32>().write(SLOT_MAGIC);
            header.add(offset_of!(SlotHeader, abi_version)).cast::<u32>().write(ABI_VERSION);
            header.add(offset_of!(SlotHeader, info)).cast::<SlotInfo>().write(info);
        }
        let latest = self.ring.header_u64(offset_of!(RingHeader, latest));
        seqlock::finish::<Hardware>(lock_of(&self.slot), latest, self.sequence);
        self.ring.heartbeat(report.published_ns);
        self.ring.published = self.sequence;
        self.ring.signal_publication();
        self.sequence
    }

    /// Fills the table; returns the checksum when the ring has one.
    fn write_table(&mut self, segments: &[Segment]) -> Option<u32> {
        let table = self.slot.0.wrapping_add(self.ring.info.table_offset as usize).cast::<SegmentRow>();
        // SAFETY: the area is 64-aligned inside the slot and has room for max_segments rows, which bound `segments`; any bytes
        // are a SegmentRow. In this process only `self` reaches it, exclusively; readers discard it while the lock is odd.
        let rows = unsafe { std::slice::from_raw_parts_mut(table, segments.len()) };
        for (row, segment) in rows.iter_mut().zip(segments) {
            *row = SegmentRow {
                id: segment.id,
                class: segment.category_id,
                score: segment.score,
                bbox: segment.bbox,
                area: segment.area,
                track_id: segment.track_id,
            };
        }
        if !self.ring.config.checksum {
            return None;
        }
        let crc = crc32(crc32(0, rows_as_bytes(rows)), ids_as_bytes(self.ids()));
        Some(self.picture.map_or(crc, |picture| crc32(crc, self.picture_area(picture.bytes as usize))))
    }
}

fn check_config(config: &RingConfig) -> Result<(), RingError> {
    let within = |key: &'static str, value: u32, low: u32, high: u32| {
        let what = || format!("is {value}, outside of {low} to {high}");
        if (low..=high).contains(&value) { Ok(()) } else { Err(RingError::Config { key, what: what() }) }
    };
    within("slots", config.slots, MIN_SLOTS, MAX_SLOTS)?;
    within("max_width", config.max_width, 1, MAX_SIDE)?;
    within("max_height", config.max_height, 1, MAX_SIDE)?;
    within("max_segments", config.max_segments, 1, MAX_SEGMENTS)
}

fn too_large(config: &RingConfig) -> String {
    let RingConfig { slots, max_width, max_height, .. } = config;
    let (ring, text) = (MAX_RING_BYTES >> 30, MAX_TEXT_BYTES >> 20);
    format!(
        "{max_width}x{max_height} in {slots} slots is more than the {ring} GiB that clients map, or the labels exceed {text} MiB: choose fewer"
    )
}

fn labels_of(metadata_json: &str) -> Result<Vec<String>, RingError> {
    let metadata = |what: String| RingError::Metadata { what };
    let value: serde_json::Value = serde_json::from_str(metadata_json).map_err(|error| metadata(error.to_string()))?;
    let object = value.as_object().ok_or_else(|| metadata("it is no JSON object".into()))?;
    let Some(labels) = object.get("labels") else { return Ok(Vec::new()) };
    let labels = labels.as_array().ok_or_else(|| metadata("`labels` is no array".into()))?;
    let text = |label: &serde_json::Value| label.as_str().map(str::to_owned);
    labels.iter().map(text).collect::<Option<Vec<String>>>().ok_or_else(|| metadata("`labels` holds something else than strings".into()))
}
