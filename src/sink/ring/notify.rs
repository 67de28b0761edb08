//! One connected reader, as the server thread sees it: the hello, and the bell that wakes it.
//!
//! A reader shares its bell down to the file flags, so ringing must not wait whatever the reader did to it. Hence a *timer*
//! (timerfd): to ring is to set it to expire at once, a call that does not know waiting; a read gives 8 bytes as an eventfd's does. An eventfd
//! would not do: its reader can fill it and clear O_NONBLOCK, and the write stops this thread. Neither would a pipe:
//! Linux holds a pipe's lock while its reader copies or splices out of it, for as long as that takes, and `write` and even `close` of
//! the other end wait for that lock, O_NONBLOCK or not (seen on Linux 6.18). A pair of sockets would fill with what the reader sends.
//! What a reader does to its timer costs wake-ups to itself alone.

use std::io::IoSlice;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, OwnedFd};

use eomt_edge_client::layout::{ABI_VERSION, HELLO_MAGIC, HELLO_OK, HELLO_REFUSED, Hello};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::wake::Bell;
use super::writer::RingShare;

/// One connected reader, as the server thread sees it.
#[derive(Debug)]
pub(super) struct Reader {
    pub socket: OwnedFd,
    /// Of the process that connected.
    pub uid: u32,
    timer: OwnedFd,
}

impl Reader {
    /// Sends the hello and the ring's descriptors on `socket`; gives it back if that fails.
    pub fn admit(socket: OwnedFd, uid: u32, ring: &RingShare, generation: u64) -> Result<Reader, (OwnedFd, Errno)> {
        match hello(&socket, ring, generation) {
            Ok(timer) => Ok(Reader { socket, uid, timer }),
            Err(errno) => Err((socket, errno)),
        }
    }

    /// Whether it has hung up, or said something, of which the protocol has nothing.
    pub fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl Bell for Reader {
    fn ring(&self) {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 1 };
        let spec = Itimerspec { it_interval: Timespec::default(), it_value: at_once };
        // Cannot fail: the descriptor is a timer, and the time is one.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
    }
}

/// Sends the hello with the ring and a new timer, which it returns.
fn hello(socket: &OwnedFd, ring: &RingShare, generation: u64) -> Result<OwnedFd, Errno> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let hello = hello_bytes(HELLO_OK, generation, ring.bytes, "");
    let fds = [ring.memfd.as_fd(), timer.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "the space is made for two descriptors");
    sendmsg(socket, &[IoSlice::new(&hello)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(timer)
}

/// Sends a client the reason of its refusal. It may have hung up already.
pub(super) fn refuse(socket: &OwnedFd, generation: u64, reason: &str) {
    let hello = hello_bytes(HELLO_REFUSED, generation, 0, reason);
    let _ = rustix::net::send(socket, &hello, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

fn hello_bytes(status: u32, generation: u64, ring_bytes: u64, message: &str) -> [u8; size_of::<Hello>()] {
    let mut bytes = [0u8; size_of::<Hello>()];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(std::mem::offset_of!(Hello, magic), &HELLO_MAGIC.to_le_bytes());
    put(std::mem::offset_of!(Hello, abi_version), &ABI_VERSION.to_le_bytes());
    put(std::mem::offset_of!(Hello, status), &status.to_le_bytes());
    put(std::mem::offset_of!(Hello, generation), &generation.to_le_bytes());
    put(std::mem::offset_of!(Hello, ring_bytes), &ring_bytes.to_le_bytes());
    put(std::mem::offset_of!(Hello, writer_pid), &std::process::id().to_le_bytes());
    // The last byte stays NUL.
    let room = size_of::<Hello>() - std::mem::offset_of!(Hello, message) - 1;
    put(std::mem::offset_of!(Hello, message), &message.as_bytes()[..message.floor_char_boundary(room)]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let bytes = hello_bytes(HELLO_REFUSED, 1, 0, &"ä".repeat(100));
        let text = bytes[40..].split(|&byte| byte == 0).next().expect("at least one part");
        assert_eq!(std::str::from_utf8(text), Ok("ä".repeat(43).as_str()));
    }
}
