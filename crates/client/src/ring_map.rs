//! The read-only mapping of a ring, and the reading half of its seqlock.
//!
//! Ordering (Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012, figure 6): the writer
//! makes the lock odd, issues a release fence, writes the data, then stores the even lock with release. A reader
//! ```text
//! 1. loads the lock, then an acquire fence   pairs with the writer's closing release store: an even lock means that all of
//!                                            the data written before it is visible
//! 2. loads the data                          relaxed atomic words: tearing is expected and found in step 3
//! 3. an acquire fence, loads the lock again  pairs with the writer's release fence: had step 2 seen one byte of a later
//!                                            writing, the odd lock in front of it must be seen here
//! ```
//! and keeps the copy only when both loads gave the same even number. On aarch64 the fences are `dmb ishld`; without the
//! second one the core may satisfy step 3 before step 2. All loads are relaxed with separate fences, since Rust allows only
//! relaxed atomic loads on memory that is mapped read-only.
//!
//! Invariants: nothing that the shared memory says is used as a size or an offset before it was checked against the mapping.
//! Refuses: to write, to map what could shrink under it (SIGBUS), to trust a count.

use std::ffi::c_void;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::frame::MaskFrame;
use super::layout::{
    ABI_VERSION, MAX_SEGMENTS, MAX_SIDE, MAX_SLOTS, MIN_SLOTS, RING_MAGIC, RingHeader, RingInfo, SLOT_HAS_FRAME, SLOT_MAGIC, SegmentRow,
    SlotHeader, SlotInfo,
};

/// The result of one attempt to read a slot.
#[derive(Debug, PartialEq)]
pub(super) enum SlotRead {
    Done,
    /// The writer has overwritten the slot meanwhile: try again with the newest sequence.
    Overtaken,
    /// The slot is stable and yet its content is impossible.
    Corrupt(String),
}

/// A ring mapped for reading.
#[derive(Debug)]
pub(super) struct RingMap {
    base: NonNull<u8>,
    len: usize,
    info: RingInfo,
}

// SAFETY: the mapping belongs to this value alone, is only read, and is not tied to the thread that made it.
unsafe impl Send for RingMap {}

impl RingMap {
    /// Maps the memfd of a ring of `ring_bytes`; the sentence says what is wrong with it.
    pub fn open(memfd: &OwnedFd, ring_bytes: u64) -> Result<RingMap, String> {
        let seals = fcntl_get_seals(memfd).map_err(|error| format!("the descriptor is not a sealable memfd ({error})"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err("the memfd is not sealed against shrinking".into());
        }
        let size = fstat(memfd).map_err(|error| format!("fstat of the memfd failed ({error})"))?.st_size;
        let len = usize::try_from(ring_bytes).unwrap_or(usize::MAX);
        if len < size_of::<RingHeader>() || u64::try_from(size) != Ok(ring_bytes) {
            return Err(format!("the memfd has {size} bytes, {ring_bytes} were announced"));
        }
        // SAFETY: a new shared mapping at an address of the kernel's choice, so no existing Rust object is touched. The memfd
        // has `len` bytes and is sealed against shrinking, so all of the mapping stays backed.
        let base = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, memfd, 0) };
        let base = base.map_err(|error| format!("mmap of {len} bytes failed ({error})"))?;
        let base = NonNull::new(base.cast::<u8>()).ok_or("mmap gave address zero")?;
        let mut bytes = [0u8; size_of::<RingInfo>()];
        // SAFETY: `base` is page-aligned and the mapping is longer than a RingHeader, whose first field is the RingInfo.
        unsafe { copy_words(base.as_ptr(), &mut bytes) };
        // SAFETY: `bytes` has the size of RingInfo, whose fields are integers: any bytes are a value; read_unaligned needs no
        // alignment.
        let info = unsafe { bytes.as_ptr().cast::<RingInfo>().read_unaligned() };
        let map = RingMap { base, len, info };
        check(&map.info, len as u64)?;
        Ok(map)
    }

    pub fn info(&self) -> &RingInfo {
        &self.info
    }

    /// Newest published sequence, 0 = none. The fence makes what was published before it visible.
    pub fn latest(&self) -> u64 {
        let latest = self.header_u64(std::mem::offset_of!(RingHeader, latest)).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        latest
    }

    pub fn heartbeat_ns(&self) -> u64 {
        self.header_u64(std::mem::offset_of!(RingHeader, heartbeat_ns)).load(Ordering::Relaxed)
    }

    /// The writer has left. Acquire: a `latest` that is loaded afterwards is its last one.
    pub fn closed(&self) -> bool {
        const OFFSET: usize = std::mem::offset_of!(RingHeader, closed);
        // SAFETY: the mapping is longer than a RingHeader, page-aligned, and lives as long as `self`; OFFSET is that of an
        // aligned u32 which all processes access atomically.
        let closed = unsafe { &*self.base.as_ptr().add(OFFSET).cast::<AtomicU32>() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        closed != 0
    }

    fn header_u64(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + 8 <= size_of::<RingHeader>() && offset.is_multiple_of(8));
        // SAFETY: the mapping is longer than a RingHeader, page-aligned, and lives as long as `self`; the callers pass the
        // offset of an aligned u64 field, which all processes access atomically.
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// An immutable area of the header, copied; `check` has bounded it.
    pub fn blob(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        // SAFETY: `check` made sure that offset is a multiple of 8 and offset + len lies before the slots, which follow.
        unsafe { copy_words(self.base.as_ptr().add(offset as usize), &mut bytes) };
        bytes
    }

    /// Copies publication `sequence` (>= 1) into `frame`; `frame` is unspecified unless this is `Done`.
    pub fn read_slot(&self, sequence: u64, frame: &mut MaskFrame) -> SlotRead {
        let index = sequence % u64::from(self.info.slot_count);
        let offset = self.info.slots_offset + index * self.info.slot_stride;
        // SAFETY: index < slot_count, and `check` made sure that all slots lie inside the mapping.
        let slot = unsafe { self.base.as_ptr().add(offset as usize) };
        // SAFETY: slots start at multiples of 64 inside the mapping and are longer than a SlotHeader; the lock is an aligned
        // u64 that all processes access atomically; the reference does not outlive `self`.
        let lock = unsafe { &*slot.add(std::mem::offset_of!(SlotHeader, lock)).cast::<AtomicU64>() };
        let stable = sequence.wrapping_mul(2);
        if lock.load(Ordering::Relaxed) != stable {
            return SlotRead::Overtaken;
        }
        fence(Ordering::Acquire);
        let mut header = [0u8; size_of::<SlotHeader>()];
        // SAFETY: `slot` is 64-aligned, and the whole SlotHeader lies inside the mapping, since slots are longer than it.
        unsafe { copy_words(slot, &mut header) };
        let (magic, info) = split_header(&header);
        let sane = self.check_slot(magic, &info, sequence);
        if sane.is_ok() {
            frame.resize_for(&info);
            let (rows, ids, rgb) = frame.areas_mut();
            // SAFETY: check_slot bounded width, height, segment count and the presence of a frame by the ring's limits, for
            // which `check` proved that each area, padded to 64, lies inside the slot.
            unsafe {
                copy_words(slot.add(self.info.table_offset as usize), rows);
                copy_words(slot.add(self.info.ids_offset as usize), ids);
                if !rgb.is_empty() {
                    copy_words(slot.add(self.info.frame_offset as usize), rgb);
                }
            }
        }
        fence(Ordering::Acquire);
        if lock.load(Ordering::Relaxed) != stable {
            return SlotRead::Overtaken;
        }
        frame.info = info;
        match sane {
            Ok(()) => SlotRead::Done,
            Err(what) => SlotRead::Corrupt(what),
        }
    }

    fn check_slot(&self, magic: (u32, u32), slot: &SlotInfo, sequence: u64) -> Result<(), String> {
        let ring = &self.info;
        if magic != (SLOT_MAGIC, ABI_VERSION) || slot.sequence != sequence {
            return Err(format!("slot of frame {sequence} has magic {:#x}, ABI {} and sequence {}", magic.0, magic.1, slot.sequence));
        }
        let sized = (1..=ring.max_width).contains(&slot.width) && (1..=ring.max_height).contains(&slot.height);
        if !sized || slot.segment_count > ring.max_segments || (slot.flags & SLOT_HAS_FRAME != 0 && ring.frame_offset == 0) {
            return Err(format!(
                "frame {sequence} claims {}x{}, {} segments and flags {:#x}, beyond what the ring can hold",
                slot.width, slot.height, slot.segment_count, slot.flags
            ));
        }
        Ok(())
    }
}

impl Drop for RingMap {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `open` made; nothing borrowed from it outlives `self`.
        // An error could only mean a wrong address, and cannot be reported from here.
        let _ = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// `(magic, ABI version)` and info of a copied slot header.
fn split_header(bytes: &[u8; size_of::<SlotHeader>()]) -> ((u32, u32), SlotInfo) {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut info = MaybeUninit::<SlotInfo>::uninit();
    // SAFETY: the info ends with the header (offset 16 + 112 = 128 bytes, asserted in the layout), so source and
    // destination hold `size_of::<SlotInfo>()` bytes and don't overlap.
    unsafe { info.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr().add(16), size_of::<SlotInfo>()) };
    // SAFETY: all bytes were just written, and any bytes are a value of its integer fields.
    (((word(0)), word(4)), unsafe { info.assume_init() })
}

/// Copies `dst.len()` bytes by relaxed atomic 64-bit loads.
///
/// # Safety
/// `src` must be a multiple of 8, and `dst.len()` rounded up to 8 bytes from there must be mapped and stay so.
unsafe fn copy_words(src: *const u8, dst: &mut [u8]) {
    let words = src.cast::<AtomicU64>();
    // SAFETY: the caller promises alignment and that word `i` is mapped.
    let load = |i: usize| unsafe { &*words.add(i) }.load(Ordering::Relaxed).to_ne_bytes();
    let (chunks, tail) = dst.as_chunks_mut::<8>();
    let whole = chunks.len();
    for (i, chunk) in chunks.iter_mut().enumerate() {
        *chunk = load(i);
    }
    if !tail.is_empty() {
        tail.copy_from_slice(&load(whole)[..tail.len()]);
    }
}

/// Whether everything that `info` describes lies inside a mapping of `len` bytes.
fn check(info: &RingInfo, len: u64) -> Result<(), String> {
    if info.magic != RING_MAGIC || info.abi_version != ABI_VERSION {
        return Err(format!("ring magic {:#x}, ABI {}; this client reads ABI {ABI_VERSION}", info.magic, info.abi_version));
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
    // 128 bits: no sum or product below can wrap.
    let [header, slots, stride] = [u64::from(info.header_bytes), info.slots_offset, info.slot_stride].map(u128::from);
    let [table, ids, frame] = [info.table_offset, info.ids_offset, info.frame_offset].map(u128::from);
    let pixels = u128::from(info.max_width) * u128::from(info.max_height);
    let padded = |bytes: u128| bytes.next_multiple_of(64);
    let table_end = table + u128::from(info.max_segments) * size_of::<SegmentRow>() as u128;
    let ids_end = ids + padded(2 * pixels);
    let areas = [(info.labels_offset, info.labels_bytes), (info.metadata_offset, info.metadata_bytes)];
    let aligned = [slots, stride, table, ids, frame].iter().all(|at| at % 64 == 0) && areas.iter().all(|(at, _)| at % 8 == 0);
    let ordered = header >= size_of::<RingHeader>() as u128
        && areas.iter().all(|&(at, bytes)| u128::from(at) >= header && u128::from(at) + u128::from(bytes) <= slots)
        && table >= size_of::<SlotHeader>() as u128
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
        let breaks: [fn(&mut RingInfo); 16] = [
            |i| i.magic = 0,
            |i| i.abi_version = 2,
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
