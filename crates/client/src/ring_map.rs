//! A ring in shared memory, read: what its header says, and copies of its slots.
//!
//! The memory is a slice of atomic words, mapped or not, so all of this is ordinary Rust and runs under Miri. The order of the loads is
//! that of [`super::seqlock`].
//!
//! Invariants: nothing that the shared memory says is used as a size or an offset before it was checked against the mapping, and
//! nothing of a row is passed on that lies outside of its frame. Refuses: to write, to trust a count.

use std::mem::{MaybeUninit, offset_of, size_of};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::format::FrameFormat;
use super::frame::MaskFrame;
use super::layout::{
    ABI_OLDEST, ABI_VERSION, MAX_RING_BYTES, MAX_ROW_BYTES, MAX_SEGMENTS, MAX_SIDE, MAX_SLOTS, MAX_TEXT_BYTES, MIN_SLOTS, RING_MAGIC,
    RingHeader, RingInfo, SLOT_HAS_FRAME, SLOT_HEADER_BYTES_V1, SLOT_MAGIC, SegmentRow, SlotHeader, SlotInfo,
};
use super::seqlock::{self, Hardware};

/// The result of one attempt to read a slot.
#[derive(Debug, PartialEq)]
pub(super) enum SlotRead {
    Done,
    /// The writer has overwritten the slot meanwhile: try again with the newest sequence.
    Overtaken,
    /// The slot is stable and yet its content is impossible.
    Corrupt(String),
}

/// A ring, in the words of its memory.
#[derive(Debug)]
pub(super) struct RingMap<M> {
    words: M,
    info: RingInfo,
}

impl<M: Deref<Target = [AtomicU64]>> RingMap<M> {
    /// Reads and checks the header; the sentence says what is wrong with it.
    pub fn new(words: M) -> Result<RingMap<M>, String> {
        const WORDS: usize = size_of::<RingHeader>() / 8;
        if words.len() < WORDS {
            return Err(format!("the ring has {} bytes, less than its header", 8 * words.len()));
        }
        let mut bytes = [0u8; size_of::<RingInfo>()];
        copy_words(&words[..WORDS], &mut bytes);
        // SAFETY: `bytes` has the size of RingInfo, whose fields are integers: any bytes are a value; read_unaligned needs no
        // alignment.
        let mut info = unsafe { bytes.as_ptr().cast::<RingInfo>().read_unaligned() };
        if info.abi_version == 1 {
            info.row_bytes = ROW_BYTES as u32;
        }
        check(&info, 8 * words.len() as u64)?;
        Ok(RingMap { words, info })
    }

    pub fn info(&self) -> &RingInfo {
        &self.info
    }

    /// Newest published sequence, 0 = none.
    pub fn latest(&self) -> u64 {
        seqlock::newest::<Hardware>(&self.words[offset_of!(RingHeader, latest) / 8])
    }

    pub fn heartbeat_ns(&self) -> u64 {
        self.words[offset_of!(RingHeader, heartbeat_ns) / 8].load(Ordering::Relaxed)
    }

    /// The writer has left. Acquire: a `latest` that is loaded afterwards is its last one.
    pub fn closed(&self) -> bool {
        // the u32 `closed` is the lower half of its aligned word; the other half is reserved
        let word = self.words[offset_of!(RingHeader, closed) / 8].load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        word as u32 != 0
    }

    /// The class names, in order.
    pub fn labels(&self) -> Vec<String> {
        let bytes = self.text(self.info.labels_offset, self.info.labels_bytes);
        let mut labels: Vec<&[u8]> = bytes.split(|&byte| byte == 0).take(CLASSES + 1).collect();
        labels.truncate(CLASSES.min(labels.len() - 1)); // what follows the last NUL is no name
        labels.into_iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect()
    }

    pub fn metadata(&self) -> String {
        String::from_utf8_lossy(&self.text(self.info.metadata_offset, self.info.metadata_bytes)).into_owned()
    }

    /// An immutable area in front of the slots, copied; `check` has bounded it.
    fn text(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        copy_words(&self.words[offset as usize / 8..], &mut bytes);
        bytes
    }

    /// Copies publication `sequence` (>= 1) into `frame`; `frame` is unspecified unless this is `Done`.
    pub fn read_slot(&self, sequence: u64, frame: &mut MaskFrame) -> SlotRead {
        let ring = &self.info;
        let offset = ring.slots_offset + sequence % u64::from(ring.slot_count) * ring.slot_stride;
        let slot = &self.words[offset as usize / 8..][..ring.slot_stride as usize / 8];
        let lock = &slot[offset_of!(SlotHeader, lock) / 8];
        let copied = seqlock::read::<Hardware, _>(lock, sequence, || self.copy_slot(slot, sequence, frame));
        match copied {
            None => SlotRead::Overtaken,
            Some(Err(what)) => SlotRead::Corrupt(what),
            Some(Ok(())) => match check_rows(frame) {
                Ok(()) => SlotRead::Done,
                Err(what) => SlotRead::Corrupt(what),
            },
        }
    }

    /// Copies what may be half overwritten: whether it makes sense counts only once the lock was looked at again.
    fn copy_slot(&self, slot: &[AtomicU64], sequence: u64, frame: &mut MaskFrame) -> Result<(), String> {
        let mut header = [0u8; size_of::<SlotHeader>()];
        copy_words(slot, &mut header[..slot_header_bytes(self.info.abi_version)]);
        let (magic, mut info) = split_header(&header);
        if self.info.abi_version == 1 {
            complete(&mut info);
        }
        self.check_slot(magic, &info, sequence)?;
        frame.info = info;
        frame.resize_for(&info).map_err(|error| format!("no memory for a frame of {}x{} ({error})", info.width, info.height))?;
        let (rows, ids, picture) = frame.areas_mut();
        let (table, stride) = (&slot[self.info.table_offset as usize / 8..], self.info.row_bytes as usize);
        match stride == ROW_BYTES {
            true => copy_words(table, rows),
            // a later daemon's rows have columns that we do not know
            false => rows.chunks_exact_mut(ROW_BYTES).zip(table.chunks(stride / 8)).for_each(|(row, words)| copy_words(words, row)),
        }
        copy_words(&slot[self.info.ids_offset as usize / 8..], ids);
        copy_words(&slot[self.info.frame_offset as usize / 8..], picture);
        Ok(())
    }

    fn check_slot(&self, magic: (u32, u32), slot: &SlotInfo, sequence: u64) -> Result<(), String> {
        let ring = &self.info;
        if magic != (SLOT_MAGIC, ring.abi_version) || slot.sequence != sequence {
            return Err(format!("slot of frame {sequence} has magic {:#x}, ABI {} and sequence {}", magic.0, magic.1, slot.sequence));
        }
        let sized = (1..=ring.max_width).contains(&slot.width) && (1..=ring.max_height).contains(&slot.height);
        if !sized || slot.segment_count > ring.max_segments || (slot.flags & SLOT_HAS_FRAME != 0 && ring.frame_offset == 0) {
            return Err(format!(
                "frame {sequence} claims {}x{}, {} segments and flags {:#x}, beyond what the ring can hold",
                slot.width, slot.height, slot.segment_count, slot.flags
            ));
        }
        if !self.picture_fits(slot) {
            return Err(format!(
                "frame {sequence} claims a picture of {} bytes in rows of {}, format {}, which {}x{} pixels in this ring cannot have",
                slot.frame_bytes,
                slot.frame_stride,
                FrameFormat::from_fourcc(slot.frame_format).name(),
                slot.width,
                slot.height
            ));
        }
        Ok(())
    }

    /// Whether the camera frame lies in its area and has the bytes that its format gives it: programs index it by its size.
    fn picture_fits(&self, slot: &SlotInfo) -> bool {
        let (bytes, stride) = (slot.frame_bytes as usize, slot.frame_stride as usize);
        if slot.flags & SLOT_HAS_FRAME == 0 {
            return bytes == 0;
        }
        let format = FrameFormat::from_fourcc(slot.frame_format);
        u64::from(slot.frame_bytes) <= self.info.slot_stride - self.info.frame_offset
            && format.stride(slot.width).is_none_or(|needed| stride == needed)
            && format.frame_bytes(slot.width, slot.height).is_none_or(|needed| bytes == needed)
    }
}

/// What a reader knows of a row.
const ROW_BYTES: usize = size_of::<SegmentRow>();

fn slot_header_bytes(abi_version: u32) -> usize {
    if abi_version == 1 { SLOT_HEADER_BYTES_V1 } else { size_of::<SlotHeader>() }
}

/// Says of a slot of ABI 1 what one of ABI 2 says itself.
fn complete(info: &mut SlotInfo) {
    (info.stamp_ns, info.dropped_busy) = (0, 0); // reserved words there
    if info.flags & SLOT_HAS_FRAME != 0 {
        info.frame_format = FrameFormat::Rgb24.fourcc();
        info.frame_stride = info.width.saturating_mul(3);
        info.frame_bytes = info.frame_stride.saturating_mul(info.height);
    }
}

/// Classes that a row can name: more labels than this name nothing.
const CLASSES: usize = 1 + u16::MAX as usize;

/// Whether each row of a whole frame describes something that the frame can hold: programs index the id map by its box.
fn check_rows(frame: &MaskFrame) -> Result<(), String> {
    let (width, height) = (u64::from(frame.info.width), u64::from(frame.info.height));
    for row in &frame.segments {
        let [x, y, w, h] = row.bbox.map(u64::from);
        let inside = x + w <= width && y + h <= height && u64::from(row.area) <= width * height;
        if !inside || row.id == 0 || !row.score.is_finite() {
            return Err(format!(
                "frame {} of {width}x{height} has a segment of id {}, score {}, box {:?} and area {}, which no frame can have",
                frame.info.sequence, row.id, row.score, row.bbox, row.area
            ));
        }
    }
    Ok(())
}

/// `(magic, ABI version)` and info of a copied slot header.
fn split_header(bytes: &[u8; size_of::<SlotHeader>()]) -> ((u32, u32), SlotInfo) {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut info = MaybeUninit::<SlotInfo>::uninit();
    // SAFETY: the info ends with the header (offset 16 + 240 = 256 bytes, asserted in the layout), so source and
    // destination hold `size_of::<SlotInfo>()` bytes and don't overlap.
    unsafe { info.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr().add(16), size_of::<SlotInfo>()) };
    // SAFETY: all bytes were just written, and any bytes are a value of its integer fields.
    (((word(0)), word(4)), unsafe { info.assume_init() })
}

/// Copies `dst.len()` bytes from the start of `src`, which is not shorter, by relaxed loads of whole words.
#[inline]
fn copy_words(src: &[AtomicU64], dst: &mut [u8]) {
    let load = |to: &mut [u8; 8], word: &AtomicU64| *to = word.load(Ordering::Relaxed).to_ne_bytes();
    // eight words a step: the loop itself then costs less than a tenth
    let (blocks, rest) = dst.as_chunks_mut::<64>();
    let (from, src) = src.split_at(8 * blocks.len());
    for (block, words) in blocks.iter_mut().zip(from.as_chunks::<8>().0) {
        block.as_chunks_mut::<8>().0.iter_mut().zip(words).for_each(|(to, word)| load(to, word));
    }
    let (chunks, tail) = rest.as_chunks_mut::<8>();
    let (from, src) = src.split_at(chunks.len());
    chunks.iter_mut().zip(from).for_each(|(to, word)| load(to, word));
    if !tail.is_empty() {
        let mut last = [0; 8];
        load(&mut last, &src[0]);
        tail.copy_from_slice(&last[..tail.len()]);
    }
}

/// Whether everything that `info` describes lies inside a mapping of `len` bytes.
fn check(info: &RingInfo, len: u64) -> Result<(), String> {
    if info.magic != RING_MAGIC || !(ABI_OLDEST..=ABI_VERSION).contains(&info.abi_version) {
        let (magic, abi) = (info.magic, info.abi_version);
        return Err(format!("ring magic {magic:#x}, ABI {abi}; this client reads ABI {ABI_OLDEST} to {ABI_VERSION}"));
    }
    if !(ROW_BYTES as u32..=MAX_ROW_BYTES).contains(&info.row_bytes) || !info.row_bytes.is_multiple_of(8) {
        return Err(format!(
            "its header speaks of rows of {} bytes, which is no multiple of 8 from {ROW_BYTES} to {MAX_ROW_BYTES}",
            info.row_bytes
        ));
    }
    if len > MAX_RING_BYTES || info.total_bytes != len {
        return Err(format!("its header speaks of {} bytes, its memory has {len}", info.total_bytes));
    }
    let sides = 1..=MAX_SIDE;
    let counts = (MIN_SLOTS..=MAX_SLOTS).contains(&info.slot_count)
        && sides.contains(&info.max_width)
        && sides.contains(&info.max_height)
        && info.max_segments <= MAX_SEGMENTS;
    if !counts {
        return Err(format!(
            "{} slots of {}x{} with {} segments are beyond the limits",
            info.slot_count, info.max_width, info.max_height, info.max_segments
        ));
    }
    if info.labels_bytes.max(info.metadata_bytes) > MAX_TEXT_BYTES {
        let (labels, metadata) = (info.labels_bytes, info.metadata_bytes);
        return Err(format!("{labels} bytes of labels and {metadata} of metadata are beyond the limit of {MAX_TEXT_BYTES}"));
    }
    // 128 bits: no sum or product below can wrap.
    let [header, slots, stride] = [u64::from(info.header_bytes), info.slots_offset, info.slot_stride].map(u128::from);
    let [table, ids, frame] = [info.table_offset, info.ids_offset, info.frame_offset].map(u128::from);
    let pixels = u128::from(info.max_width) * u128::from(info.max_height);
    let padded = |bytes: u128| bytes.next_multiple_of(64);
    let table_end = table + u128::from(info.max_segments) * u128::from(info.row_bytes);
    let ids_end = ids + padded(2 * pixels);
    let areas = [(info.labels_offset, info.labels_bytes), (info.metadata_offset, info.metadata_bytes)];
    let aligned = [slots, stride, table, ids, frame].iter().all(|at| at % 64 == 0) && areas.iter().all(|(at, _)| at % 8 == 0);
    let ordered = header >= size_of::<RingHeader>() as u128
        && areas.iter().all(|&(at, bytes)| u128::from(at) >= header && u128::from(at) + u128::from(bytes) <= slots)
        && table >= slot_header_bytes(info.abi_version) as u128
        && ids >= table_end
        && stride >= ids_end
        && (frame == 0 || (frame >= ids_end && stride >= frame + padded(3 * pixels)))
        && slots + stride * u128::from(info.slot_count) <= u128::from(len);
    if aligned && ordered { Ok(()) } else { Err("the ring's header describes areas outside of it".into()) }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Geometry;
    use super::*;

    /// A ring in ordinary memory, written as the daemon writes one but with atomic stores, so that Miri and ThreadSanitizer can judge.
    type Memory = Box<[AtomicU64]>;

    fn memory(info: &RingInfo) -> Memory {
        let words: Memory = (0..info.total_bytes / 8).map(|_| AtomicU64::new(0)).collect();
        let header = std::ptr::from_ref(info).cast::<u8>();
        // SAFETY: a RingInfo has no padding (its fields fill 192 bytes, asserted in the layout), so all of its bytes are initialized.
        put(&words, 0, unsafe { std::slice::from_raw_parts(header, size_of::<RingInfo>()) });
        words
    }

    fn put(words: &[AtomicU64], at: u64, bytes: &[u8]) {
        for (word, chunk) in words[at as usize / 8..].iter().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
        }
    }

    /// A frame of which every id, and the one row's track, is `sequence`.
    fn publish(words: &[AtomicU64], ring: &RingInfo, sequence: u64, (width, height): (u32, u32)) {
        let slot = ring.slots_offset + sequence % u64::from(ring.slot_count) * ring.slot_stride;
        let (lock, latest) = (&words[slot as usize / 8 + 1], &words[offset_of!(RingHeader, latest) / 8]);
        seqlock::begin::<Hardware>(lock, sequence);
        put(words, slot, &[SLOT_MAGIC.to_le_bytes(), ABI_VERSION.to_le_bytes()].concat());
        put(words, slot + 16, &[sequence; 5].map(u64::to_le_bytes).concat());
        put(words, slot + 56, &[width, height, 9, 0, 1, 0].map(u32::to_le_bytes).concat());
        let row = [0x0002_0001, 0.5f32.to_bits(), 0, 0, 1, 1, 1, sequence as u32];
        put(words, slot + ring.table_offset, &row.map(u32::to_le_bytes).concat());
        let ids: Vec<u8> = (0..width * height).flat_map(|_| (sequence as u16).to_le_bytes()).collect();
        put(words, slot + ring.ids_offset, &ids);
        seqlock::finish::<Hardware>(lock, latest, sequence);
    }

    fn check_frame(frame: &MaskFrame, sequence: u64) {
        assert!(frame.ids.iter().all(|&id| id == sequence as u16), "frame {sequence} is torn: {:?}", frame.ids);
        let row = frame.segments[0];
        assert_eq!((row.id, row.class, row.score, row.bbox, row.area), (1, 2, 0.5, [0, 0, 1, 1], 1));
        assert_eq!((frame.sequence(), frame.info.dropped, u64::from(row.track_id)), (sequence, sequence, sequence));
    }

    #[test]
    fn frames_of_all_small_sizes_come_whole() {
        let info = sound();
        let words = memory(&info);
        let map = RingMap::new(&words[..]).expect("a sound ring");
        let mut frame = MaskFrame::default();
        let sizes = (1..=33).flat_map(|width| [(width, 1), (width, 7)]).chain([(1, 2), (5, 3)]);
        for (sequence, size) in (1..).zip(sizes) {
            publish(&words, &info, sequence, size);
            assert_eq!(map.latest(), sequence);
            assert_eq!(map.read_slot(sequence, &mut frame), SlotRead::Done);
            assert_eq!((frame.width(), frame.height(), frame.ids.len() as u32), (size.0, size.1, size.0 * size.1));
            check_frame(&frame, sequence);
            assert_eq!(map.read_slot(sequence + 3, &mut frame), SlotRead::Overtaken);
        }
        assert!(!map.closed());
        words[offset_of!(RingHeader, closed) / 8].store(1, Ordering::Relaxed);
        assert!(map.closed());
    }

    #[test]
    fn one_writer_and_two_readers_share_a_process() {
        let publications = if cfg!(miri) { 40 } else { 30_000 };
        let info = sound();
        let words = memory(&info);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let map = RingMap::new(&words[..]).expect("a sound ring");
                scope.spawn(move || {
                    let (mut frame, mut last) = (MaskFrame::default(), 0);
                    while last < publications {
                        let sequence = map.latest();
                        if sequence == last {
                            std::thread::yield_now();
                            continue;
                        }
                        match map.read_slot(sequence, &mut frame) {
                            SlotRead::Done => {
                                check_frame(&frame, sequence);
                                last = sequence;
                            }
                            SlotRead::Overtaken => {}
                            SlotRead::Corrupt(what) => panic!("{what}"),
                        }
                    }
                });
            }
            (1..=publications).for_each(|sequence| publish(&words, &info, sequence, (8, 4)));
        });
    }

    /// Whatever a ring says of itself, reading it stays inside of it.
    #[test]
    fn no_header_and_no_slot_leads_outside() {
        let info = sound();
        let mut state = 0x5EED_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        let (mut refused, mut read) = (0, 0);
        for round in 0..if cfg!(miri) { 60 } else { 20_000 } {
            let words = memory(&info);
            publish(&words, &info, 1, (3, 2));
            let slot = (info.slots_offset + info.slot_stride) as usize / 8;
            // a word of the header, or of the slot's header or table
            let place = if round % 2 == 0 { 1 + random() as usize % 23 } else { slot + random() as usize % 36 };
            let value = [random(), random() << 32, u64::MAX, 0, info.total_bytes, words[place].load(Ordering::Relaxed) + 8];
            words[place].store(value[random() as usize % 6], Ordering::Relaxed);
            let Ok(map) = RingMap::new(&words[..]) else {
                refused += 1;
                continue;
            };
            let _ = (map.labels(), map.metadata());
            let mut frame = MaskFrame::default();
            for sequence in [map.latest(), 1, random(), u64::MAX] {
                read += u32::from(map.read_slot(sequence, &mut frame) == SlotRead::Done);
            }
        }
        assert!(refused > 10 && read > 10, "{refused} refused, {read} read: both happen");
    }

    #[test]
    fn a_row_that_no_frame_can_have_is_refused() {
        let info = sound();
        let words = memory(&info);
        let map = RingMap::new(&words[..]).expect("a sound ring");
        publish(&words, &info, 1, (8, 4));
        let table = info.slots_offset + info.slot_stride + info.table_offset;
        let nan = u64::from(f32::NAN.to_bits()) << 32 | 1;
        // (word of the row, value, whether it may be)
        for (word, value, fine) in [(0, nan, false), (0, 0x3F00_0000_0002_0000, false), (0, 0x3F00_0000_FFFF_FFFF, true)] {
            put(&words, table + 8 * word, &u64::to_le_bytes(value));
            let result = map.read_slot(1, &mut MaskFrame::default());
            assert_eq!(result == SlotRead::Done, fine, "{value:#x}: {result:?}");
        }
        // x and y, width and height; area and track
        let right = |x: u64, w: u64| [x, w | 4 << 32, 32];
        for (words_of_row, fine) in
            [(right(0, 8), true), (right(1, 8), false), (right(8, 0), true), (right(0xFFFF_FFFF, 0xFFFF_FFFF), false)]
        {
            put(&words, table + 8, &words_of_row.map(u64::to_le_bytes).concat());
            let result = map.read_slot(1, &mut MaskFrame::default());
            assert_eq!(result == SlotRead::Done, fine, "{words_of_row:?}: {result:?}");
        }
        put(&words, table + 8, &[0, 8 | 4 << 32, 33].map(u64::to_le_bytes).concat());
        assert!(matches!(map.read_slot(1, &mut MaskFrame::default()), SlotRead::Corrupt(what) if what.contains("area 33")));
    }

    /// `SlotInfo` of the slot of publication 1, changed from a whole word on.
    fn put_info(words: &[AtomicU64], ring: &RingInfo, offset: usize, values: &[u32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        put(words, ring.slots_offset + ring.slot_stride + 16 + offset as u64, &bytes);
    }

    #[test]
    fn rows_of_a_later_daemon_are_read_as_far_as_they_are_known() {
        let info = RingInfo { row_bytes: 56, max_segments: 2, ..sound() };
        let words = memory(&info);
        publish(&words, &info, 1, (8, 4));
        put_info(&words, &info, offset_of!(SlotInfo, segment_count), &[2, 0]);
        let table = info.slots_offset + info.slot_stride + info.table_offset;
        let row = |id: u32, track: u32| [id, 0.5f32.to_bits(), 0, 0, 1, 1, 1, track].map(u32::to_le_bytes).concat();
        put(&words, table, &[row(1, 5), vec![0xFF; 24], row(2, 6), vec![0xFF; 24]].concat());
        let mut frame = MaskFrame::default();
        assert_eq!(RingMap::new(&words[..]).expect("a sound ring").read_slot(1, &mut frame), SlotRead::Done);
        let rows: Vec<_> = frame.segments.iter().map(|row| (row.id, row.area, row.track_id)).collect();
        assert_eq!(rows, [(1, 1, 5), (2, 1, 6)]);
    }

    #[test]
    fn rings_of_abi_1_are_read() {
        // what the reserved words of ABI 1 hold says nothing
        let info = RingInfo { abi_version: 1, row_bytes: 0, ..sound() };
        let words = memory(&info);
        publish(&words, &info, 1, (8, 4));
        put(&words, info.slots_offset + info.slot_stride, &[SLOT_MAGIC.to_le_bytes(), 1u32.to_le_bytes()].concat());
        put_info(&words, &info, offset_of!(SlotInfo, source_id), &[9, SLOT_HAS_FRAME, 1, 0]);
        put_info(&words, &info, offset_of!(SlotInfo, stamp_ns), &[7; 36]);
        put(&words, info.slots_offset + info.slot_stride + info.frame_offset, &[9; 96]);
        let (map, mut frame) = (RingMap::new(&words[..]).expect("a sound ring"), MaskFrame::default());
        assert_eq!(map.read_slot(1, &mut frame), SlotRead::Done);
        check_frame(&frame, 1);
        assert_eq!((frame.rgb(), frame.stamp_ns(), frame.failed()), (Some(&[9; 96][..]), None, 0));
        assert_eq!((map.info().row_bytes, frame.drops().total, frame.drops().busy), (32, 1, 0));
        put(&words, info.slots_offset + info.slot_stride, &[SLOT_MAGIC.to_le_bytes(), 2u32.to_le_bytes()].concat());
        assert!(matches!(map.read_slot(1, &mut frame), SlotRead::Corrupt(_)), "one ring has one ABI");
    }

    #[test]
    fn pictures_have_the_bytes_that_their_format_gives_them() {
        let info = sound();
        let words = memory(&info);
        let map = RingMap::new(&words[..]).expect("a sound ring");
        publish(&words, &info, 1, (8, 4));
        put_info(&words, &info, offset_of!(SlotInfo, source_id), &[9, SLOT_HAS_FRAME, 1, 0]);
        let room = (info.slot_stride - info.frame_offset) as u32;
        let code = |letters: &[u8; 4]| u32::from_le_bytes(*letters);
        let (rgb, yuyv, jpeg, other) = (code(b"RGB3"), code(b"YUYV"), code(b"MJPG"), code(b"H264"));
        for (format, stride, bytes, fine) in [
            (rgb, 24, 96, true),
            (rgb, 24, 95, false),
            (rgb, 24, 0, false),
            (rgb, 32, 128, false),
            (yuyv, 16, 64, true),
            (yuyv, 16, 96, false),
            (yuyv, 8, 64, false),
            (jpeg, 0, room, true),
            (jpeg, 0, room + 1, false),
            (jpeg, 1, 50, false),
            (other, 5, 7, true),
            (other, 5, u32::MAX, false),
        ] {
            put_info(&words, &info, offset_of!(SlotInfo, frame_format), &[format, stride, bytes, 0]);
            let mut frame = MaskFrame::default();
            let result = map.read_slot(1, &mut frame);
            assert_eq!(result == SlotRead::Done, fine, "{format:#x} of {bytes} in rows of {stride}: {result:?}");
            if fine {
                let shown = frame.frame().expect("a picture");
                assert_eq!((shown.bytes.len() as u32, shown.stride, shown.format.fourcc()), (bytes, stride, format));
                assert_eq!(frame.rgb().is_some(), format == rgb);
            }
        }
        put_info(&words, &info, offset_of!(SlotInfo, source_id), &[9, 0, 1, 0]);
        put_info(&words, &info, offset_of!(SlotInfo, frame_format), &[rgb, 24, 96, 0]);
        assert!(matches!(map.read_slot(1, &mut MaskFrame::default()), SlotRead::Corrupt(_)), "a picture that no flag announces");
    }

    #[test]
    fn texts_are_split_as_they_are() {
        let info = sound();
        let words = memory(&info);
        put(&words, info.labels_offset, b"sky\0\xFFa\0b\0");
        let labels = RingMap::new(&words[..]).expect("a sound ring").labels();
        assert_eq!(labels, ["sky", "\u{FFFD}a", "b"], "three names, each with its NUL");
    }

    fn sound() -> RingInfo {
        let geometry = Geometry {
            slot_count: 3,
            max_width: 33,
            max_height: 7,
            max_segments: 5,
            has_frame: true,
            labels_bytes: 9,
            metadata_bytes: 100,
        };
        geometry.place().expect("a small ring")
    }

    #[test]
    fn a_header_that_points_outside_is_refused() {
        let good = sound();
        assert_eq!(check(&good, good.total_bytes), Ok(()));
        let breaks: [fn(&mut RingInfo); 21] = [
            |i| i.magic = 0,
            |i| i.abi_version = 0,
            |i| i.abi_version = 3,
            |i| i.row_bytes = 24,
            |i| i.row_bytes = 36,
            |i| i.row_bytes = 4104,
            |i| i.row_bytes = 96,
            |i| i.header_bytes = 8,
            |i| i.slot_count = 0,
            |i| i.slot_count = 4,
            |i| i.max_width = 16384,
            |i| i.max_height = 0,
            |i| i.max_segments = 65535,
            |i| i.slots_offset = !63,
            |i| i.slot_stride = !63,
            |i| i.table_offset = 8,
            |i| i.ids_offset = 192,
            |i| i.frame_offset += 64,
            |i| i.labels_bytes = u64::MAX,
            |i| i.metadata_offset = !7,
            |i| i.ids_offset += 2,
        ];
        for (number, harm) in breaks.iter().enumerate() {
            let mut bad = good;
            harm(&mut bad);
            assert!(check(&bad, good.total_bytes).is_err(), "case {number}");
        }
    }
}
