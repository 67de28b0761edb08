//! One frame as a reader keeps it: its own copy, reusable from frame to frame without allocating.

use std::collections::TryReserveError;
use std::mem::size_of;

use super::checksum::crc32;
use super::format::FrameFormat;
use super::layout::{
    FRAME_BT709, FRAME_FULL_RANGE, SLOT_HAS_CHECKSUM, SLOT_HAS_FRAME, SLOT_NO_SIGNAL, SLOT_STALE, SLOT_TRUNCATED, SegmentRow, SlotInfo,
};

/// Frames of the source that the daemon did not begin to process, since its start, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// All of them: [`SlotInfo::dropped`]. Of a daemon of ABI 1 nothing else is known.
    pub total: u64,
    /// A newer one took their place before the network was free.
    pub busy: u64,
    /// Lost before the daemon saw them.
    pub source: u64,
    /// They arrived damaged.
    pub corrupt: u64,
}

/// The camera frame that a slot carries, of the id map's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CameraFrame<'a> {
    /// How `bytes` are laid out.
    pub format: FrameFormat,
    /// Bytes from row to row of the first plane, without padding; 0 when it is compressed.
    pub stride: u32,
    /// Of YUV formats: BT.709 instead of BT.601.
    pub bt709: bool,
    /// Of YUV formats: samples of 0 to 255.
    pub full_range: bool,
    /// As many as format and size give; one JPEG picture; or, of [`FrameFormat::Other`], whatever the daemon says.
    pub bytes: &'a [u8],
}

/// Masks of one frame. Buffers grow to the largest frame seen and stay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MaskFrame {
    /// Sequence, times, size, flags and stage times as the writer published them.
    pub info: SlotInfo,
    /// The segment table.
    pub segments: Vec<SegmentRow>,
    /// `[height, width]` ids, row-major; 0 = nothing.
    pub ids: Vec<u16>,
    /// The bytes of the camera frame; empty when the slot carries none. [`MaskFrame::frame`] says what they are.
    pub frame_bytes: Vec<u8>,
}

impl MaskFrame {
    /// Counts publications of this ring from 1.
    pub fn sequence(&self) -> u64 {
        self.info.sequence
    }

    /// Pixels.
    pub fn width(&self) -> u32 {
        self.info.width
    }

    /// Pixels.
    pub fn height(&self) -> u32 {
        self.info.height
    }

    /// The picture was older than the daemon allows when its masks were published: see [`SLOT_STALE`].
    pub fn stale(&self) -> bool {
        self.info.flags & SLOT_STALE != 0
    }

    /// The source gives no frames, and the id map is empty: see [`SLOT_NO_SIGNAL`].
    pub fn no_signal(&self) -> bool {
        self.info.flags & SLOT_NO_SIGNAL != 0
    }

    /// There were more segments than the ring's table holds.
    pub fn truncated(&self) -> bool {
        self.info.flags & SLOT_TRUNCATED != 0
    }

    /// The camera frame, when the slot carries it (`ring.include_frame` of the daemon).
    pub fn frame(&self) -> Option<CameraFrame<'_>> {
        let info = &self.info;
        (info.flags & SLOT_HAS_FRAME != 0).then(|| CameraFrame {
            format: FrameFormat::from_fourcc(info.frame_format),
            stride: info.frame_stride,
            bt709: info.frame_colour & FRAME_BT709 != 0,
            full_range: info.frame_colour & FRAME_FULL_RANGE != 0,
            bytes: &self.frame_bytes,
        })
    }

    /// The camera frame when it is RGB24, as it is unless the daemon's `ring.frame_format` says otherwise: `[height, width, 3]`.
    pub fn rgb(&self) -> Option<&[u8]> {
        self.frame().filter(|frame| frame.format == FrameFormat::Rgb24).map(|frame| frame.bytes)
    }

    /// Frames that were not processed, since the daemon's start.
    pub fn drops(&self) -> Drops {
        let SlotInfo { dropped, dropped_busy, dropped_source, dropped_corrupt, .. } = self.info;
        Drops { total: dropped, busy: dropped_busy, source: dropped_source, corrupt: dropped_corrupt }
    }

    /// Frames whose processing failed, since the daemon's start.
    pub fn failed(&self) -> u64 {
        self.info.failed
    }

    /// The source's own time stamp of the picture (a recording's, a ROS message's): nanoseconds since 1970, when it has one.
    pub fn stamp_ns(&self) -> Option<u64> {
        Some(self.info.stamp_ns).filter(|&stamp| stamp != 0)
    }

    /// Which source gave the frame: see [`SlotInfo::source_id`].
    pub fn source_id(&self) -> u32 {
        self.info.source_id
    }

    /// Whether the bytes are the ones that the writer summed; `None` when the ring carries no checksums.
    pub fn checksum_ok(&self) -> Option<bool> {
        let sum = crc32(crc32(crc32(0, rows_as_bytes(&self.segments)), ids_as_bytes(&self.ids)), &self.frame_bytes);
        (self.info.flags & SLOT_HAS_CHECKSUM != 0).then_some(sum == self.info.checksum)
    }

    /// CRC-32 of the id map alone: what `--json` of the clients prints, to compare two readers.
    pub fn ids_crc32(&self) -> u32 {
        crc32(0, ids_as_bytes(&self.ids))
    }

    pub(super) fn areas_mut(&mut self) -> (&mut [u8], &mut [u8], &mut [u8]) {
        (rows_as_bytes_mut(&mut self.segments), ids_as_bytes_mut(&mut self.ids), &mut self.frame_bytes)
    }

    /// Resizes the buffers to what `info` announces; the caller has checked it against the ring's limits. Fails where memory does.
    pub(super) fn resize_for(&mut self, info: &SlotInfo) -> Result<(), TryReserveError> {
        let pixels = info.width as usize * info.height as usize;
        resize(&mut self.segments, info.segment_count as usize, SegmentRow::default())?;
        resize(&mut self.ids, pixels, 0)?;
        resize(&mut self.frame_bytes, info.frame_bytes as usize, 0)
    }
}

/// `Vec::resize` that does not abort.
fn resize<T: Clone>(buffer: &mut Vec<T>, len: usize, value: T) -> Result<(), TryReserveError> {
    buffer.try_reserve(len.saturating_sub(buffer.len()))?;
    buffer.resize(len, value);
    Ok(())
}

/// The bytes of an id map, little-endian as in the ring.
pub fn ids_as_bytes(ids: &[u16]) -> &[u8] {
    // SAFETY: the pointer and length are those of `ids`; u16 has no padding, so every byte is initialized, and u8 has no
    // alignment; the result borrows `ids`.
    unsafe { std::slice::from_raw_parts(ids.as_ptr().cast::<u8>(), size_of_val(ids)) }
}

/// The bytes of table rows, little-endian as in the ring.
pub fn rows_as_bytes(rows: &[SegmentRow]) -> &[u8] {
    const { assert!(size_of::<SegmentRow>() == 2 + 2 + 4 + 4 * 4 + 4 + 4, "no padding") };
    // SAFETY: the pointer and length are those of `rows`; the fields fill the struct (asserted above), so every byte is
    // initialized, and u8 has no alignment; the result borrows `rows`.
    unsafe { std::slice::from_raw_parts(rows.as_ptr().cast::<u8>(), size_of_val(rows)) }
}

fn ids_as_bytes_mut(ids: &mut [u16]) -> &mut [u8] {
    // SAFETY: pointer and length are those of `ids`, which the result borrows exclusively; u8 has no alignment, and any bytes that are
    // written are valid u16 values.
    unsafe { std::slice::from_raw_parts_mut(ids.as_mut_ptr().cast::<u8>(), size_of_val(ids)) }
}

fn rows_as_bytes_mut(rows: &mut [SegmentRow]) -> &mut [u8] {
    // SAFETY: pointer and length are those of `rows`, which the result borrows exclusively; u8 has no alignment, and any bytes that are
    // written are a valid SegmentRow (integers and one f32, no padding).
    unsafe { std::slice::from_raw_parts_mut(rows.as_mut_ptr().cast::<u8>(), size_of_val(rows)) }
}
