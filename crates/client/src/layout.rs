//! The mask ring's bytes: every struct, offset and constant that a writer and its readers must agree on.
//!
//! ```text
//! memfd:  RingHeader | labels (NUL-terminated each) | metadata (JSON) | page boundary | slot 0 | slot 1 | …
//! slot:   SlotHeader | segment table | id map (u16 a pixel) | camera frame (when the ring has frames)
//! ```
//! Little-endian. Areas start at multiples of 64 bytes and are padded to them, so whole words may be copied.
//! In the repository of eomt-edge, `clients/c/eomt_edge.h` and `clients/python/eomt_edge_client/_client.py` repeat this file, and a test
//! compares every offset. Publication `s` (counted from 1) lives in slot `s % slot_count`; its seqlock is `2 s - 1` while the slot is
//! written and `2 s` once it may be read, so an even value also says which publication the slot holds.
//!
//! ABI 1, which the readers still take, is ABI 2 but for this: its slot headers end after [`SlotInfo::model_hash`] and two words of 0
//! ([`SLOT_HEADER_BYTES_V1`]), the place of [`RingInfo::row_bytes`] is 0 where 32 is meant, and its camera frames are RGB24.
//!
//! Invariants: a change of any offset or meaning raises [`ABI_VERSION`]; the first 16 bytes of [`Hello`] never change. What grows without
//! another ABI: table rows ([`RingInfo::row_bytes`]), and reserved words, whose 0 says nothing. This file imports nothing of the crate
//! and does not know how memory is mapped.

use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// The version of everything in this file.
pub const ABI_VERSION: u32 = 2;
/// The oldest version that the readers take.
pub const ABI_OLDEST: u32 = 1;
/// [`RingInfo::magic`].
pub const RING_MAGIC: u64 = u64::from_le_bytes(*b"EOMTRING");
/// [`Hello::magic`].
pub const HELLO_MAGIC: u64 = u64::from_le_bytes(*b"EOMTHELO");
/// [`SlotHeader::magic`].
pub const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"SLOT");

/// Bytes: every area starts at a multiple of this.
pub const AREA_ALIGN: usize = 64;
/// Bytes: the slots start at a multiple of this.
pub const PAGE_ALIGN: usize = 4096;

/// Bytes: [`SlotHeader`] of ABI 1.
pub const SLOT_HEADER_BYTES_V1: usize = 128;
/// Bytes: most of a row of the segment table.
pub const MAX_ROW_BYTES: u32 = 4096;

/// Fewest slots of a ring: one to read while the other is written.
pub const MIN_SLOTS: u32 = 2;
/// Most slots of a ring.
pub const MAX_SLOTS: u32 = 64;
/// Pixels: largest width and height of a ring's frames.
pub const MAX_SIDE: u32 = 16384;
/// Most rows of a segment table: ids are 16-bit and 0 means nothing.
pub const MAX_SEGMENTS: u32 = 65535;
/// Bytes: largest ring, 4 GiB. The largest frame with its picture ([`MAX_SIDE`]² pixels, 1.25 GiB) fits into three slots of it. Readers
/// map no more than this, whatever a hello announces, and allocate no more than one slot of it.
pub const MAX_RING_BYTES: u64 = 4 << 30;
/// Bytes: largest class names in all, and largest metadata, 16 MiB each. Readers copy both when they connect.
pub const MAX_TEXT_BYTES: u64 = 16 << 20;

/// [`RingInfo::flags`]: slots have room for the camera frame.
pub const RING_HAS_FRAME: u32 = 1;
/// [`RingInfo::flags`]: every slot carries a checksum.
pub const RING_HAS_CHECKSUM: u32 = 2;

/// [`SlotInfo::flags`]: at its publication the picture was older than the daemon allows (`source.no_signal_after`, 2 seconds unless
/// configured; 0 = no limit), that is `published_ns - captured_ns` exceeded it. The camera or the network lags behind, or no frames
/// come at all. Never set before the first frame.
pub const SLOT_STALE: u32 = 1;
/// [`SlotInfo::flags`]: the source gives no frames; the id map is empty, and `captured_ns` is the time of the last frame, 0 = none yet.
pub const SLOT_NO_SIGNAL: u32 = 2;
/// [`SlotInfo::flags`]: the camera frame is filled.
pub const SLOT_HAS_FRAME: u32 = 4;
/// [`SlotInfo::flags`]: [`SlotInfo::checksum`] is the CRC-32 (IEEE) of the first 32 bytes of each segment table row, the id map, and the
/// [`SlotInfo::frame_bytes`] of the camera frame, if any.
pub const SLOT_HAS_CHECKSUM: u32 = 8;
/// [`SlotInfo::flags`]: there were more segments than the table holds; the id map names some that have no row.
pub const SLOT_TRUNCATED: u32 = 16;

/// [`SlotInfo::frame_colour`]: BT.709 (high definition) leads from Y, U and V to RGB; without it BT.601.
pub const FRAME_BT709: u32 = 1;
/// [`SlotInfo::frame_colour`]: samples of 0 to 255; without it 16 to 235 (luma) and 240 (chroma).
pub const FRAME_FULL_RANGE: u32 = 2;

/// [`Hello::status`]: two descriptors come with this message: the memfd, and the event (a timer; of other daemons an eventfd or the read
/// end of a pipe). The latter is readable when there is news, and says no more than that; a read of 8 bytes silences it.
pub const HELLO_OK: u32 = 0;
/// [`Hello::status`]: no descriptors, [`Hello::message`] says why; the connection ends.
pub const HELLO_REFUSED: u32 = 1;

/// What the server sends on connect, as one SOCK_SEQPACKET message.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Hello {
    /// [`HELLO_MAGIC`].
    pub magic: u64,
    /// The daemon's [`ABI_VERSION`].
    pub abi_version: u32,
    /// [`HELLO_OK`] or [`HELLO_REFUSED`].
    pub status: u32,
    /// Counts the rings of one daemon: another one after a model reload.
    pub generation: u64,
    /// Bytes of the memfd.
    pub ring_bytes: u64,
    /// Process id of the daemon.
    pub writer_pid: u32,
    /// 0.
    pub reserved: u32,
    /// UTF-8, NUL-padded: why the client was refused.
    pub message: [u8; 88],
}

/// The part of [`RingHeader`] that never changes while a ring lives. Offsets count from the start of the memfd, except
/// `table_offset`, `ids_offset` and `frame_offset`, which count from the start of a slot.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingInfo {
    /// [`RING_MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`].
    pub abi_version: u32,
    /// Bytes of [`RingHeader`]; labels and metadata come after them.
    pub header_bytes: u32,
    /// Number of slots, [`MIN_SLOTS`] to [`MAX_SLOTS`].
    pub slot_count: u32,
    /// Rows of each segment table.
    pub max_segments: u32,
    /// Pixels: largest width of a frame.
    pub max_width: u32,
    /// Pixels: largest height of a frame.
    pub max_height: u32,
    /// Where slot 0 starts.
    pub slots_offset: u64,
    /// Bytes from slot to slot.
    pub slot_stride: u64,
    /// Bytes of the memfd.
    pub total_bytes: u64,
    /// The [`SegmentRow`]s of a slot.
    pub table_offset: u64,
    /// The id map of a slot: one u16 a pixel, row by row.
    pub ids_offset: u64,
    /// The camera frame of a slot, which has room up to the slot's end, three bytes a pixel at least; 0 when the ring has no frames.
    pub frame_offset: u64,
    /// The class names, each with a NUL at its end.
    pub labels_offset: u64,
    /// Bytes of all class names with their NULs.
    pub labels_bytes: u64,
    /// The metadata, a JSON object without a NUL.
    pub metadata_offset: u64,
    /// Bytes of the metadata.
    pub metadata_bytes: u64,
    /// Number of class names.
    pub label_count: u32,
    /// [`RING_HAS_FRAME`] and [`RING_HAS_CHECKSUM`].
    pub flags: u32,
    /// Process id of the daemon.
    pub writer_pid: u32,
    /// Bytes from row to row of the segment table: a multiple of 8, at least those of [`SegmentRow`], at most [`MAX_ROW_BYTES`]. A
    /// reader ignores what follows the columns that it knows.
    pub row_bytes: u32,
    /// When the ring was made: CLOCK_MONOTONIC, nanoseconds.
    pub created_ns: u64,
    /// 0.
    pub reserved_words: [u64; 7],
}

/// The start of the memfd.
#[repr(C, align(64))]
pub struct RingHeader {
    /// What does not change.
    pub info: RingInfo,
    /// Ring sequence of the newest published slot, 0 = none yet.
    pub latest: AtomicU64,
    /// CLOCK_MONOTONIC nanoseconds of the writer's last sign of life.
    pub heartbeat_ns: AtomicU64,
    /// 1 when the writer has left this ring in good order: no more frames come.
    pub closed: AtomicU32,
    /// 0.
    pub reserved: [u32; 11],
}

/// What a slot says about its frame.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotInfo {
    /// Counts publications of this ring from 1, without gaps.
    pub sequence: u64,
    /// The source's own frame counter.
    pub frame_sequence: u64,
    /// When the picture was taken: CLOCK_MONOTONIC, nanoseconds.
    pub captured_ns: u64,
    /// When its masks were complete: CLOCK_MONOTONIC, nanoseconds.
    pub published_ns: u64,
    /// Frames that the source produced and the daemon did not begin to process, since its start: [`SlotInfo::dropped_busy`] +
    /// [`SlotInfo::dropped_source`] + [`SlotInfo::dropped_corrupt`]. (Daemons of ABI 1 leave the last of these out.)
    pub dropped: u64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Which source gave the frame: the CRC-32 of a camera's identity (kind, place, serial number), or of `source.uri` where no camera
    /// is known. Another source or camera has another number; a restart changes nothing. 0 = no frame has come yet.
    pub source_id: u32,
    /// `SLOT_*` flags.
    pub flags: u32,
    /// Rows of the segment table that are filled.
    pub segment_count: u32,
    /// With [`SLOT_HAS_CHECKSUM`], the checksum of the slot's content; else 0.
    pub checksum: u32,
    /// Microseconds of preprocess, infer, segment, publish.
    pub stage_us: [u32; 4],
    /// First 16 bytes of the model file's SHA-256.
    pub model_hash: [u8; 16],
    /// The source's own time stamp of the picture, as a recording or a ROS message has it: nanoseconds since 1970. 0 = it has none.
    pub stamp_ns: u64,
    /// Frames whose place a newer one took before the network was free, in the daemon or in the driver's queue, since the start.
    pub dropped_busy: u64,
    /// Frames lost before the daemon saw them, by the gaps in the source's numbers, since the start.
    pub dropped_source: u64,
    /// Frames that arrived damaged (the driver said so, no JPEG picture, another size), since the start.
    pub dropped_corrupt: u64,
    /// Frames that were processed and came to nothing (the network, the segments or their publication failed), since the start.
    pub failed: u64,
    /// With [`SLOT_HAS_FRAME`], how the camera frame is laid out: a V4L2 pixel format, see [`FrameFormat`](crate::FrameFormat); else 0.
    /// The frame has the id map's size.
    pub frame_format: u32,
    /// Bytes from row to row of the camera frame's first plane, without padding; 0 when it is compressed.
    pub frame_stride: u32,
    /// Bytes of the camera frame.
    pub frame_bytes: u32,
    /// Of YUV formats: [`FRAME_BT709`] and [`FRAME_FULL_RANGE`].
    pub frame_colour: u32,
    /// 0.
    pub reserved: [u64; 11],
}

/// The start of a slot.
#[repr(C, align(64))]
pub struct SlotHeader {
    /// [`SLOT_MAGIC`].
    pub magic: u32,
    /// [`ABI_VERSION`].
    pub abi_version: u32,
    /// The seqlock: odd while the slot is written, twice its sequence when it may be read.
    pub lock: AtomicU64,
    /// The frame's description.
    pub info: SlotInfo,
}

/// One row of the segment table.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SegmentRow {
    /// 1-based id in the id map.
    pub id: u16,
    /// Index into the labels.
    pub class: u16,
    /// 0 to 1.
    pub score: f32,
    /// x, y, width, height, in pixels.
    pub bbox: [u32; 4],
    /// Pixels of the mask.
    pub area: u32,
    /// 0 = not tracked.
    pub track_id: u32,
}

/// What a writer chooses about a ring; [`Geometry::place`] computes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Number of slots.
    pub slot_count: u32,
    /// Pixels: largest width of a frame.
    pub max_width: u32,
    /// Pixels: largest height of a frame.
    pub max_height: u32,
    /// Rows of each segment table.
    pub max_segments: u32,
    /// Whether slots have room for the camera frame.
    pub has_frame: bool,
    /// Bytes of the class names with their NULs.
    pub labels_bytes: usize,
    /// Bytes of the metadata.
    pub metadata_bytes: usize,
}

impl Geometry {
    /// All offsets and sizes, in bytes; `None` when the ring is larger than [`MAX_RING_BYTES`], or a text than [`MAX_TEXT_BYTES`]. The
    /// counts of labels, the process id, the time and the checksum flag are left 0 for the writer to fill.
    pub fn place(&self) -> Option<RingInfo> {
        let pixels = (self.max_width as usize).checked_mul(self.max_height as usize)?;
        let labels_offset = size_of::<RingHeader>();
        let metadata_offset = align_up(labels_offset.checked_add(self.labels_bytes)?, AREA_ALIGN)?;
        let slots_offset = align_up(metadata_offset.checked_add(self.metadata_bytes)?, PAGE_ALIGN)?;
        let table_offset = size_of::<SlotHeader>();
        let table_bytes = (self.max_segments as usize).checked_mul(size_of::<SegmentRow>())?;
        let ids_offset = align_up(table_offset.checked_add(table_bytes)?, AREA_ALIGN)?;
        let ids_end = align_up(ids_offset.checked_add(pixels.checked_mul(2)?)?, AREA_ALIGN)?;
        let frame_bytes = if self.has_frame { pixels.checked_mul(3)? } else { 0 };
        let slot_stride = align_up(ids_end.checked_add(frame_bytes)?, AREA_ALIGN)?;
        let total_bytes = slots_offset.checked_add(slot_stride.checked_mul(self.slot_count as usize)?)?;
        let too_large = total_bytes as u64 > MAX_RING_BYTES || self.labels_bytes.max(self.metadata_bytes) as u64 > MAX_TEXT_BYTES;
        if too_large {
            return None;
        }
        Some(RingInfo {
            magic: RING_MAGIC,
            abi_version: ABI_VERSION,
            header_bytes: size_of::<RingHeader>() as u32,
            slot_count: self.slot_count,
            max_segments: self.max_segments,
            max_width: self.max_width,
            max_height: self.max_height,
            slots_offset: slots_offset as u64,
            slot_stride: slot_stride as u64,
            total_bytes: total_bytes as u64,
            table_offset: table_offset as u64,
            ids_offset: ids_offset as u64,
            frame_offset: if self.has_frame { ids_end as u64 } else { 0 },
            labels_offset: labels_offset as u64,
            labels_bytes: self.labels_bytes as u64,
            metadata_offset: metadata_offset as u64,
            metadata_bytes: self.metadata_bytes as u64,
            label_count: 0,
            flags: if self.has_frame { RING_HAS_FRAME } else { 0 },
            writer_pid: 0,
            row_bytes: size_of::<SegmentRow>() as u32,
            created_ns: 0,
            reserved_words: [0; 7],
        })
    }
}

fn align_up(value: usize, align: usize) -> Option<usize> {
    value.checked_next_multiple_of(align)
}

// The layout is a contract: a compiler that lays it out otherwise must not build it.
const _: () = {
    assert!(cfg!(target_endian = "little"), "the mask ring is little-endian");
    assert!(size_of::<usize>() == 8, "the mask ring needs a 64-bit machine");
    assert!(size_of::<Hello>() == 128);
    assert!(offset_of!(Hello, status) == 12 && offset_of!(Hello, generation) == 16);
    assert!(offset_of!(Hello, ring_bytes) == 24 && offset_of!(Hello, writer_pid) == 32 && offset_of!(Hello, message) == 40);
    assert!(size_of::<RingInfo>() == 192);
    assert!(offset_of!(RingInfo, slots_offset) == 32 && offset_of!(RingInfo, table_offset) == 56);
    assert!(offset_of!(RingInfo, labels_offset) == 80 && offset_of!(RingInfo, metadata_offset) == 96);
    assert!(offset_of!(RingInfo, label_count) == 112 && offset_of!(RingInfo, writer_pid) == 120 && offset_of!(RingInfo, row_bytes) == 124);
    assert!(offset_of!(RingInfo, created_ns) == 128 && offset_of!(RingInfo, reserved_words) == 136);
    assert!(size_of::<RingHeader>() == 256);
    assert!(offset_of!(RingHeader, latest) == 192 && offset_of!(RingHeader, heartbeat_ns) == 200);
    assert!(offset_of!(RingHeader, closed) == 208);
    assert!(size_of::<SlotInfo>() == 240);
    assert!(offset_of!(SlotInfo, dropped) == 32 && offset_of!(SlotInfo, width) == 40 && offset_of!(SlotInfo, flags) == 52);
    assert!(offset_of!(SlotInfo, stage_us) == 64 && offset_of!(SlotInfo, model_hash) == 80 && offset_of!(SlotInfo, stamp_ns) == 96);
    assert!(offset_of!(SlotInfo, failed) == 128 && offset_of!(SlotInfo, frame_format) == 136 && offset_of!(SlotInfo, reserved) == 152);
    assert!(size_of::<SlotHeader>() == 256);
    assert!(offset_of!(SlotHeader, lock) == 8 && offset_of!(SlotHeader, info) == 16);
    assert!(size_of::<SegmentRow>() == 32);
    assert!(offset_of!(SegmentRow, score) == 4 && offset_of!(SegmentRow, bbox) == 8 && offset_of!(SegmentRow, area) == 24);
};
