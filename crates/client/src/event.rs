//! The descriptor by which the daemon wakes a reader: a timer, or of other daemons an eventfd or the read end of a pipe.
//!
//! The daemon made it, so nothing about it can be trusted: it may block, be readable for ever, hang up, or be something else. It is
//! only ever a hint; what counts is in the ring.
//!
//! Invariant: no call here blocks. Refuses: descriptors of another kind, and to wait.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::{Errno, ReadWriteFlags, preadv2, read};

/// An event descriptor of a known kind.
#[derive(Debug)]
pub(super) struct Event {
    fd: OwnedFd,
    hung_up: bool,
}

impl Event {
    /// Takes a descriptor from the daemon; the sentence says what is wrong with it.
    pub fn adopt(fd: OwnedFd) -> Result<Event, String> {
        let failed = |errno: Errno| format!("the event descriptor cannot be used ({errno})");
        let mode = fstat(&fd).map_err(failed)?.st_mode;
        // a timer and an eventfd belong to no file system and have no type
        if mode & 0o170_000 != 0 && FileType::from_raw_mode(mode) != FileType::Fifo {
            return Err("the event descriptor is neither a timer, an eventfd nor a pipe".into());
        }
        let flags = fcntl_getfl(&fd).map_err(failed)?;
        if flags.intersects(OFlags::WRONLY | OFlags::PATH) {
            return Err("the event descriptor cannot be read".into());
        }
        // Shared with whoever else holds it: the daemon's own are non-blocking from the start, and it only writes to them.
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(failed)?;
        Ok(Event { fd, hung_up: false })
    }

    /// Takes what is there, so that the descriptor is readable again only after the next wake-up. True when it has just hung up and
    /// will tell nothing any more.
    pub fn drain(&mut self) -> bool {
        if self.hung_up {
            return false;
        }
        let mut bytes = [0u8; 64];
        // NOWAIT does not block whatever another holder did to the flags meanwhile; the offset of all ones is the stream's own
        self.hung_up = match preadv2(&self.fd, &mut [IoSliceMut::new(&mut bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
            Ok(count) => count == 0,
            Err(Errno::AGAIN | Errno::INTR) => false,
            // a kernel before 6.5 does not know it for pipes
            Err(_) => {
                let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
                let ready = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0);
                let what = fds[0].revents();
                if what.contains(PollFlags::IN) { read(&self.fd, &mut bytes) == Ok(0) } else { ready }
            }
        };
        self.hung_up
    }

    /// Whether it can still tell anything.
    pub fn is_live(&self) -> bool {
        !self.hung_up
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
