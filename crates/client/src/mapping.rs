//! A ring's memory, mapped read-only: the one place that turns a descriptor from a socket into memory.
//!
//! Invariants: nothing is mapped that could shrink (SIGBUS), that is larger than [`MAX_RING_BYTES`], or that is no memory at all.
//! Refuses: to fault pages in ahead (a sparse ring costs what is read of it), to write.

use std::ffi::c_void;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat, fstatfs};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::layout::{MAX_RING_BYTES, RingHeader};

/// `f_type` of memfds with ordinary pages (TMPFS_MAGIC of linux/magic.h). Huge pages can be taken away again, sealed or not.
const TMPFS_MAGIC: u32 = 0x0102_1994;

/// The words of a mapped memfd.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to this value alone, is only read (atomically), and is not tied to the thread that made it.
unsafe impl Send for Mapping {}
// SAFETY: as above: shared references give access to atomics only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the memfd of a ring of `ring_bytes`; the sentence says what is wrong with it.
    pub fn open(memfd: &OwnedFd, ring_bytes: u64) -> Result<Mapping, String> {
        if ring_bytes > MAX_RING_BYTES {
            return Err(format!("{ring_bytes} bytes were announced, more than the {MAX_RING_BYTES} that a ring may have"));
        }
        let seals = fcntl_get_seals(memfd).map_err(|error| format!("the descriptor is not a sealable memfd ({error})"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err("the memfd is not sealed against shrinking".into());
        }
        let system = fstatfs(memfd).map_err(|error| format!("fstatfs of the memfd failed ({error})"))?;
        if system.f_type as u32 != TMPFS_MAGIC {
            return Err("the memfd does not have ordinary pages".into());
        }
        let size = fstat(memfd).map_err(|error| format!("fstat of the memfd failed ({error})"))?.st_size;
        let len = ring_bytes as usize;
        if len < size_of::<RingHeader>() || !len.is_multiple_of(8) || u64::try_from(size) != Ok(ring_bytes) {
            return Err(format!("the memfd has {size} bytes, {ring_bytes} were announced"));
        }
        // SAFETY: a new shared mapping at an address of the kernel's choice, so no existing Rust object is touched. The memfd
        // has `len` bytes and is sealed against shrinking, so all of the mapping stays backed.
        let base = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, memfd, 0) };
        let base = base.map_err(|error| format!("mmap of {len} bytes failed ({error})"))?;
        let base = NonNull::new(base.cast::<AtomicU64>()).ok_or("mmap gave address zero")?;
        Ok(Mapping { base, words: len / 8 })
    }
}

impl Deref for Mapping {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, has `words` words, stays mapped as long as `self`, and is written by other processes by
        // atomic or discarded stores only. The readers of the slice use relaxed loads, which read-only memory permits.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `open` made; nothing borrowed from it outlives `self`.
        // An error could only mean a wrong address, and cannot be reported from here.
        let _ = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), 8 * self.words) };
    }
}
