//! The streaming loop: buffers between the driver and us.
//!
//! ```text
//! start:  REQBUFS, map each buffer, QBUF each, STREAMON
//! next:   poll until a deadline
//!           PRI            the source's format has changed: start anew
//!           IN, ERR, HUP   DQBUF until EAGAIN; all but the newest good buffer are queued again at once
//!                          EAGAIN at once: a false alarm;  EIO and the like: start anew;  ENODEV: gone
//!         copy the frame out without its padding, queue the buffer again
//! end:    STREAMOFF, unmap, REQBUFS 0, whatever they answer
//! ```
//! (<https://docs.kernel.org/userspace-api/media/v4l/func-poll.html>, `vidioc-qbuf.html`, `vidioc-streamon.html`.) A buffer that
//! the driver owns is never read or queued: only the index of a successful DQBUF is.

use std::io;
use std::time::Duration;

use eomt_edge_core::pipeline::Losses;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::layout::{Layout, ShortFrame};
use super::sys::{Buffers, Dequeued};

/// Enough for the driver to fill one and keep one in hand while a new one is ready and we copy the fourth.
pub(super) const BUFFERS: u32 = 4;

/// What the loop needs of a driver; `Buffers` is the real one.
pub(super) trait Queue {
    /// How many buffers there are: the driver may have given more than it was asked for.
    fn count(&self) -> usize;
    /// Waits for at most this long.
    fn wait(&self, timeout: Duration) -> io::Result<PollFlags>;
    fn dequeue(&mut self) -> io::Result<Dequeued>;
    fn requeue(&mut self, index: u32) -> io::Result<()>;
    /// Whether a waiting event says that the source's format has changed.
    fn source_changed(&mut self) -> io::Result<bool>;
    /// The frame in a dequeued buffer, without padding.
    fn copy(&self, buffer: &Dequeued, layout: &Layout, frame: &mut Vec<u8>) -> Result<(), ShortFrame>;
}

/// What [`take_newest`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// `frame` is filled; the driver's counter and time.
    Frame { sequence: u32, captured_ns: Option<u64> },
    /// Nothing within the time.
    Nothing,
    /// The source's format is another one: negotiate again.
    Changed,
}

/// One iteration of the loop. `last` is the driver's counter of the frame before.
///
/// # Errors
/// What ends this stream: ENODEV when the device is gone, anything else when it must be started anew.
pub(super) fn take_newest(
    queue: &mut impl Queue,
    layout: &Layout,
    timeout: Duration,
    last: &mut Option<u32>,
    losses: &mut Losses,
    frame: &mut Vec<u8>,
) -> io::Result<Outcome> {
    let ready = queue.wait(timeout)?;
    if ready.is_empty() {
        return Ok(Outcome::Nothing);
    }
    if ready.contains(PollFlags::PRI) && queue.source_changed()? {
        return Ok(Outcome::Changed);
    }
    if !ready.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
        return Ok(Outcome::Nothing);
    }
    let mut newest: Option<Dequeued> = None;
    // at most once round: a driver that fills buffers as fast as they come back must not keep the loop here
    for _ in 0..queue.count() {
        let buffer = match queue.dequeue() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        // a restarted counter is no gap
        let step = last.replace(buffer.sequence).map_or(1, |last| buffer.sequence.wrapping_sub(last));
        losses.missed += u64::from(if step < u32::MAX / 2 { step.saturating_sub(1) } else { 0 });
        if buffer.corrupted {
            losses.broken += 1;
            queue.requeue(buffer.index)?;
        } else if let Some(older) = newest.replace(buffer) {
            losses.stale += 1;
            queue.requeue(older.index)?;
        }
    }
    let Some(buffer) = newest else {
        // with an error but no buffer there is nothing to wait for: `poll` would return at once for ever
        return if ready.contains(PollFlags::IN) {
            Ok(Outcome::Nothing)
        } else {
            Err(io::Error::other("the driver has stopped streaming"))
        };
    };
    let copied = queue.copy(&buffer, layout, frame);
    queue.requeue(buffer.index)?;
    match copied {
        Ok(()) => Ok(Outcome::Frame { sequence: buffer.sequence, captured_ns: buffer.captured_ns }),
        Err(_) => {
            losses.broken += 1;
            Ok(Outcome::Nothing)
        }
    }
}

impl Queue for Buffers {
    fn wait(&self, timeout: Duration) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(self.device(), PollFlags::IN | PollFlags::PRI)];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(PollFlags::empty()),
            Ok(_) => Ok(fds[0].revents()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn count(&self) -> usize {
        Buffers::count(self)
    }

    fn dequeue(&mut self) -> io::Result<Dequeued> {
        Buffers::dequeue(self)
    }

    fn requeue(&mut self, index: u32) -> io::Result<()> {
        self.queue(index)
    }

    fn source_changed(&mut self) -> io::Result<bool> {
        match self.device().source_changed() {
            // there was none after all
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other,
        }
    }

    fn copy(&self, buffer: &Dequeued, layout: &Layout, frame: &mut Vec<u8>) -> Result<(), ShortFrame> {
        layout.copy(&self.filled(buffer), frame)
    }
}

#[cfg(test)]
mod tests;
