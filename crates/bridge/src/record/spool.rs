//! The end of a recording that is not on the disk yet, and the rest of it, which is.
//!
//! ```text
//! mcap writer ──bytes──▶ memory ──whole chunks──▶ file ──fdatasync, by a thread──▶ disk
//! ```
//!
//! Invariants: a file grows by whole chunks, so one that was killed can be read up to its last chunk. What the disk has no room for stays in
//! memory and nothing is lost of it; whoever writes has to stop then ([`Room::None`]). Waiting for a slow disk is the thread's affair.
//! Refuses: to take the last bytes of a disk while a recording goes on; the end of a file may have them.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::io::Errno;

/// Whether there was room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Everything is written.
    Enough,
    /// Something waits in memory.
    None {
        /// Bytes that anybody may still take.
        free: u64,
    },
}

/// A file with a memory before it. Clones are the same file: the MCAP writer owns one.
#[derive(Debug, Clone)]
pub struct Spool(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    file: File,
    waiting: Vec<u8>,
    written: u64,
}

impl Spool {
    /// Of a file that is empty.
    pub fn new(file: File) -> Spool {
        Spool(Rc::new(RefCell::new(Inner { file, waiting: Vec::new(), written: 0 })))
    }

    /// Bytes of the file, with those in memory.
    pub fn bytes(&self) -> u64 {
        let inner = self.0.borrow();
        inner.written + inner.waiting.len() as u64
    }

    /// Bytes of these in memory.
    pub fn waiting(&self) -> u64 {
        self.0.borrow().waiting.len() as u64
    }

    /// Writes what waits, unless that would leave less than `min_free` bytes on the disk.
    ///
    /// # Errors
    /// When the disk fails. That it is full is no error.
    pub fn drain(&self, min_free: u64) -> io::Result<Room> {
        let Inner { file, waiting, written } = &mut *self.0.borrow_mut();
        if waiting.is_empty() {
            return Ok(Room::Enough);
        }
        if min_free > 0 {
            let free = free_bytes(file)?;
            if free < min_free.saturating_add(waiting.len() as u64) {
                return Ok(Room::None { free });
            }
        }
        while !waiting.is_empty() {
            match (&*file).write(waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    waiting.drain(..count);
                    *written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) => return Ok(Room::None { free: free_bytes(file)? }),
                Err(error) => return Err(error),
            }
        }
        Ok(Room::Enough)
    }

    /// The same open file, for [`Syncer::sync`].
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn file(&self) -> io::Result<File> {
        self.0.borrow().file.try_clone()
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().waiting.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No room on the disk, or in the user's share of it.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOSPC | Errno::DQUOT))
}

pub(super) fn free_bytes(file: &File) -> io::Result<u64> {
    let disk = rustix::fs::fstatvfs(file)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Sees to it that what was written survives a power cut.
#[derive(Debug)]
pub struct Syncer {
    orders: Option<SyncSender<(File, PathBuf)>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts its thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Syncer> {
        let (orders, inbox) = sync_channel::<(File, PathBuf)>(1);
        let work = move || {
            let mut complained = false;
            for (file, path) in inbox {
                // not every file system can flush a directory
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let _ = File::open(directory).and_then(|directory| directory.sync_all());
                let failed = file.sync_data().err();
                if let Some(error) = failed.as_ref().filter(|_| !complained) {
                    log::warn!("{}: the disk could not take what was written ({error}): check it", path.display());
                }
                complained = failed.is_some();
            }
        };
        let thread = std::thread::Builder::new().name("eomt-sync".to_owned()).spawn(work)?;
        Ok(Syncer { orders: Some(orders), thread: Some(thread) })
    }

    /// Orders the file to be flushed. `must`: waits when the thread has two orders already; otherwise the next order will do.
    pub fn sync(&self, file: File, path: &Path, must: bool) {
        let Some(orders) = &self.orders else { return };
        if must {
            let _ = orders.send((file, path.into()));
        } else {
            let _ = orders.try_send((file, path.into()));
        }
    }
}

impl Drop for Syncer {
    /// Waits for the orders that were given.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::testing::scratch;

    #[test]
    fn what_has_no_room_waits_and_is_written_later() {
        let path = scratch("spool").join("file");
        let mut spool = Spool::new(File::create(&path).unwrap());
        spool.write_all(b"first ").unwrap();
        assert_eq!(spool.drain(0).unwrap(), Room::Enough);
        spool.write_all(b"second ").unwrap();
        assert!(matches!(spool.drain(u64::MAX).unwrap(), Room::None { free } if free > 0));
        assert_eq!(std::fs::read(&path).unwrap(), b"first ");
        assert_eq!(spool.bytes(), 13);
        spool.write_all(b"third").unwrap();
        assert_eq!(spool.drain(1).unwrap(), Room::Enough);
        assert_eq!(std::fs::read(&path).unwrap(), b"first second third");
    }

    #[test]
    fn a_full_disk_is_no_error_and_loses_nothing() {
        // the kernel's own full disk
        let mut spool = Spool::new(File::options().write(true).open("/dev/full").unwrap());
        spool.write_all(b"waits").unwrap();
        assert!(matches!(spool.drain(0).unwrap(), Room::None { .. }));
        assert_eq!(spool.bytes(), 5);
    }
}
