//! The reader's side of the mask ring: what another Rust process uses to receive masks.
//!
//! ```no_run
//! use eomt_edge_client::{ClientError, Subscriber};
//! # fn main() -> Result<(), ClientError> {
//! let mut masks = Subscriber::connect("/run/eomt-edge/masks.sock")?;
//! while let Some(frame) = masks.next(None)? {
//!     for segment in &frame.segments {
//!         println!("{}: {} {:.2}", frame.sequence(), masks.label(segment.class).unwrap_or("?"), segment.score);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It needs Linux on a 64-bit little-endian machine and one crate, `rustix`. `examples/subscriber.rs` is a whole program; the
//! README says which versions of this crate read which ABI of the ring.
//!
//! Invariants: a reader never blocks the writer and never returns a torn frame; it returns the newest frame and counts the ones
//! it [skipped](Subscriber::skipped); after the daemon's death every call ends with [`ClientError::Ended`] within milliseconds;
//! whatever listens on the socket, no call lasts longer than its timeout (CLOCK_MONOTONIC), and every connect has one.
//! It does not write to the ring, does not reconnect by itself ([`Subscriber::connect_retry`] is one line), and checks every size
//! and every segment that the shared memory states.
#![allow(unsafe_code)]
#![warn(missing_docs)]

mod checksum;
mod error;
mod event;
mod format;
mod frame;
pub mod layout;
mod mapping;
mod ring_map;
pub mod seqlock;
mod socket;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use event::Event;
use mapping::Mapping;

pub use checksum::crc32;
pub use error::ClientError;
pub use format::FrameFormat;
pub use frame::{CameraFrame, Drops, MaskFrame, ids_as_bytes, rows_as_bytes};
use ring_map::{RingMap, SlotRead};

/// Attempts to copy a frame in one call; each failure means that the writer published meanwhile.
const COPY_ATTEMPTS: u32 = 1000;

/// Readers look at the ring this often even when no event comes.
const RECHECK: Duration = Duration::from_secs(1);

/// How long [`Subscriber::connect`] waits for a daemon that does not accept or does not say hello: it does both at once, from a thread
/// of its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// So many times in a call the event may be readable and bring nothing, as it is when a frame was seen before its wake-up.
const VAIN_WAKEUPS_MAX: u32 = 8;

/// Then the ring is looked at this often, and an event that is always readable costs no CPU.
const VAIN_PAUSE: Duration = Duration::from_millis(10);

/// A connection to a daemon and its mapped ring.
#[derive(Debug)]
pub struct Subscriber {
    path: PathBuf,
    map: RingMap<Mapping>,
    socket: OwnedFd,
    event: Event,
    /// Holds `socket` and `event`: readable when there is a frame or an end.
    epoll: OwnedFd,
    generation: u64,
    labels: Vec<String>,
    metadata: String,
    last: u64,
    skipped: u64,
    retries: u64,
}

impl Subscriber {
    /// Connects to the daemon that listens on `path`, usually `/run/eomt-edge/masks.sock`. Gives up after five seconds when what
    /// listens there does not accept or answer; [`Subscriber::connect_within`] has a timeout of its own.
    ///
    /// # Errors
    /// [`Connect`](ClientError::Connect), [`Refused`](ClientError::Refused), [`Protocol`](ClientError::Protocol),
    /// [`Abi`](ClientError::Abi), [`Descriptors`](ClientError::Descriptors), [`Ring`](ClientError::Ring), or
    /// [`Ended`](ClientError::Ended) when the daemon stops meanwhile.
    pub fn connect(path: impl AsRef<Path>) -> Result<Subscriber, ClientError> {
        Subscriber::connect_within(path, CONNECT_TIMEOUT)
    }

    /// As [`Subscriber::connect`]: one attempt that ends within `timeout`, the hello included.
    ///
    /// # Errors
    /// As [`Subscriber::connect`]; after `timeout` [`Connect`](ClientError::Connect) whose source is of [`io::ErrorKind::TimedOut`].
    pub fn connect_within(path: impl AsRef<Path>, timeout: Duration) -> Result<Subscriber, ClientError> {
        Subscriber::connect_until(path.as_ref(), Instant::now().checked_add(timeout))
    }

    fn connect_until(path: &Path, deadline: Option<Instant>) -> Result<Subscriber, ClientError> {
        let connection = socket::open(path, deadline)?;
        let ring_error = |what: String| ClientError::Ring { path: path.into(), what };
        let mapping = Mapping::open(&connection.memfd, connection.hello.ring_bytes).map_err(ring_error)?;
        let map = RingMap::new(mapping).map_err(ring_error)?;
        let event = Event::adopt(connection.event).map_err(ring_error)?;
        let epoll = watch(&connection.socket, &event).map_err(|errno| ClientError::Wait { path: path.into(), source: errno.into() })?;
        Ok(Subscriber {
            path: path.into(),
            labels: map.labels(),
            metadata: map.metadata(),
            map,
            socket: connection.socket,
            event,
            epoll,
            generation: connection.hello.generation,
            last: 0,
            skipped: 0,
            retries: 0,
        })
    }

    /// Connects, trying again until `timeout` while nobody listens there (or the daemon is full or just restarting). The whole of it,
    /// the last attempt's hello included, ends within `timeout`.
    ///
    /// # Errors
    /// The last attempt's, after `timeout`; at once those that a later attempt cannot mend: no permission, another ABI.
    pub fn connect_retry(path: impl AsRef<Path>, timeout: Duration) -> Result<Subscriber, ClientError> {
        let path = path.as_ref();
        let deadline = Instant::now().checked_add(timeout);
        let mut pause = Duration::from_millis(5);
        loop {
            let error = match Subscriber::connect_until(path, deadline) {
                Ok(subscriber) => return Ok(subscriber),
                Err(ClientError::Connect { path, source }) if !may_pass(&source) => return Err(ClientError::Connect { path, source }),
                Err(error @ (ClientError::Connect { .. } | ClientError::Refused { .. } | ClientError::Ended { .. })) => error,
                Err(error) => return Err(error),
            };
            let left = socket::left(deadline).unwrap_or(pause);
            if left.is_zero() {
                return Err(error);
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Waits for a frame newer than the last one; `None` when `timeout` passed (no timeout: waits forever).
    ///
    /// # Errors
    /// [`Ended`](ClientError::Ended) when no more frames come: connect again. [`Ring`](ClientError::Ring) and
    /// [`Wait`](ClientError::Wait) are not expected.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<MaskFrame>, ClientError> {
        let mut frame = MaskFrame::default();
        Ok(self.next_into(&mut frame, timeout)?.then_some(frame))
    }

    /// As [`Subscriber::next`], into a frame of the caller: nothing is allocated once its buffers have grown. False when `timeout` passed.
    ///
    /// # Errors
    /// As [`Subscriber::next`].
    pub fn next_into(&mut self, frame: &mut MaskFrame, timeout: Option<Duration>) -> Result<bool, ClientError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if self.copy_newest(frame, deadline)? {
                return Ok(true);
            }
            let left = socket::left(deadline);
            if !self.wait(left)? || left.is_some_and(|left| left.is_zero()) {
                return self.copy_newest(frame, deadline);
            }
        }
    }

    /// Waits until there is a frame newer than the last one returned; false when `timeout` passed first.
    ///
    /// # Errors
    /// As [`Subscriber::next`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, ClientError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut vain = 0;
        loop {
            self.drain_event();
            // The order matters: reading `ended` first and `latest` second cannot miss the last frame.
            let ended = self.ended()?;
            if self.map.latest() > self.last {
                return Ok(true);
            }
            if let Some(clean) = ended {
                return Err(ClientError::Ended { path: self.path.clone(), clean });
            }
            let left = socket::left(deadline);
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            let mistrusted = vain >= VAIN_WAKEUPS_MAX;
            let pause = if mistrusted { VAIN_PAUSE } else { RECHECK };
            let pause = socket::timespec(left.map_or(pause, |left| left.min(pause)));
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::RDHUP), PollFd::new(&self.event, PollFlags::IN)];
            let asked = if mistrusted || !self.event.is_live() { &mut fds[..1] } else { &mut fds[..] };
            match poll(asked, Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(ClientError::Wait { path: self.path.clone(), source: errno.into() }),
            }
            vain += u32::from(!fds[1].revents().is_empty());
        }
    }

    /// Copies the newest frame if it is newer than the last one returned; never waits. False leaves `frame` unspecified.
    ///
    /// Does not notice the end of the daemon; [`Subscriber::wait`] and [`Subscriber::next`] do.
    ///
    /// # Errors
    /// [`Ring`](ClientError::Ring) when a slot is stable and yet impossible: a size that the ring cannot hold, or a segment that lies
    /// outside of its frame, has no id, or a score that is no number.
    pub fn latest(&mut self, frame: &mut MaskFrame) -> Result<bool, ClientError> {
        self.copy_newest(frame, None)
    }

    fn copy_newest(&mut self, frame: &mut MaskFrame, deadline: Option<Instant>) -> Result<bool, ClientError> {
        self.drain_event();
        for _ in 0..COPY_ATTEMPTS {
            let sequence = self.map.latest();
            if sequence <= self.last {
                return Ok(false);
            }
            match self.map.read_slot(sequence, frame) {
                SlotRead::Done => {
                    if self.last != 0 {
                        self.skipped = self.skipped.saturating_add(sequence - self.last - 1);
                    }
                    self.last = sequence;
                    return Ok(true);
                }
                SlotRead::Overtaken => self.retries += 1,
                SlotRead::Corrupt(what) => return Err(ClientError::Ring { path: self.path.clone(), what }),
            }
            if socket::left(deadline).is_some_and(|left| left.is_zero()) {
                break;
            }
        }
        Ok(false)
    }

    /// Frames published since the first one returned that this reader was too slow for.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Copies thrown away because the writer had overwritten the slot meanwhile.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// Class names, indexed by [`layout::SegmentRow::class`].
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The name of a class; `None` when the model has no such class.
    pub fn label(&self, class: u16) -> Option<&str> {
        self.labels.get(usize::from(class)).map(String::as_str)
    }

    /// The ring's metadata, a JSON object: labels, stuff classes, task, model.
    pub fn metadata(&self) -> &str {
        &self.metadata
    }

    /// Limits and offsets of the ring, and who writes it.
    pub fn ring(&self) -> &layout::RingInfo {
        self.map.info()
    }

    /// Counts the rings of this daemon; a reload makes a new one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// CLOCK_MONOTONIC nanoseconds of the writer's last sign of life.
    pub fn heartbeat_ns(&self) -> u64 {
        self.map.heartbeat_ns()
    }

    /// The event descriptor alone, as the server passed it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The ring is looked at in any case. An event that hung up tells nothing any more: the socket does.
    fn drain_event(&mut self) {
        if self.event.drain() {
            let _ = epoll::delete(&self.epoll, &self.event);
        }
    }

    /// `Some(clean)` when no frame will come any more.
    fn ended(&self) -> Result<Option<bool>, ClientError> {
        if self.map.closed() {
            return Ok(Some(true));
        }
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::RDHUP)];
        match poll(&mut fds, Some(&Timespec::default())) {
            // After the hello the server says nothing more: readable means end of file.
            Ok(ready) => Ok((ready > 0).then(|| self.map.closed())),
            Err(Errno::INTR) => Ok(None),
            Err(errno) => Err(ClientError::Wait { path: self.path.clone(), source: errno.into() }),
        }
    }
}

/// For your own event loop: readable when a frame came or the daemon ended; then call
/// [`next_into`](Subscriber::next_into) with a zero timeout.
impl AsFd for Subscriber {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn watch(socket: &OwnedFd, event: &Event) -> Result<OwnedFd, Errno> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, event, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    epoll::add(&set, socket, epoll::EventData::new_u64(1), epoll::EventFlags::IN | epoll::EventFlags::RDHUP)?;
    Ok(set)
}

/// Whether a later attempt to connect may succeed: no socket yet, no listener behind it, or a full queue.
fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
