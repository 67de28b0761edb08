//! The writer's memory: a sealed memfd and its one writable mapping.

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Resource, getrlimit};
use rustix::system::sysinfo;

use super::RingError;

/// Seals, which cannot be undone: the size stays (no SIGBUS for a reader, no shrinking by one), no writable mapping or `write` after
/// the writer's own, and no further seals.
pub(super) const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// One over the share of the machine's memory that a ring may take: all of its pages are taken at once, and beside the one that serves
/// stands the next one while a reload or larger frames replace it.
const MEMORY_SHARE: u64 = 4;

/// Whether a ring of `bytes` may be made on a machine with `memory` bytes.
pub(super) fn check_room(bytes: u64, memory: u64) -> Result<(), RingError> {
    if bytes <= memory / MEMORY_SHARE { Ok(()) } else { Err(RingError::TooLarge { bytes, memory }) }
}

/// Bytes of memory that this machine has.
pub(super) fn machine_memory() -> u64 {
    let info = sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)))
}

/// Shared memory, zeroed, writable through this value only.
#[derive(Debug)]
pub(super) struct SharedMemory {
    fd: OwnedFd,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to the thread that made it.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// A memfd of `len` bytes (> 0), with all its pages: the frame path must not fault them in, nor find memory short.
    pub fn create(len: usize) -> Result<SharedMemory, RingError> {
        let fail = |step: &'static str| move |errno: Errno| RingError::Memory { step, bytes: len, source: errno.into() };
        // Asked first, for a sentence that names the limit.
        if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|&limit| limit < len as u64) {
            return Err(RingError::FileSize { bytes: len as u64, limit });
        }
        let fd = memfd().map_err(fail("memfd_create"))?;
        ftruncate(&fd, len as u64).map_err(fail("ftruncate"))?;
        fallocate(&fd, FallocateFlags::empty(), 0, len as u64).map_err(fail("fallocate"))?;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new shared mapping at an address of the kernel's choice, so no existing Rust object is touched; the file has
        // `len` bytes, and it is sealed against shrinking before anybody else sees the descriptor.
        let base = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, &fd, 0) };
        let base = NonNull::new(base.map_err(fail("mmap"))?.cast::<u8>()).ok_or(Errno::INVAL).map_err(fail("mmap"))?;
        let memory = SharedMemory { fd, base, len };
        fcntl_add_seals(&memory.fd, SEALS).map_err(fail("sealing (F_SEAL_FUTURE_WRITE needs Linux 5.1)"))?;
        Ok(memory)
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The start of the mapping, page-aligned; valid for `len` bytes while `self` lives.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `create` made, and the slices lent out of it borrow the ring writer that owns `self`.
        // An error could only mean a wrong address, and cannot be reported from here.
        let _ = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

fn memfd() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("eomt-edge-masks", flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know MFD_NOEXEC_SEAL; later ones log a complaint without it.
        Err(Errno::INVAL) => memfd_create("eomt-edge-masks", flags),
        made => made,
    }
}
