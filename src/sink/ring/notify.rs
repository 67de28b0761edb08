//! One connected reader, as the server thread sees it.
//!
//! The eventfd is shared with the reader down to its file flags, so a hostile one may fill its counter and clear O_NONBLOCK to
//! make a write block. Each write is therefore preceded by a look at the flags (cleared: the reader is dropped) and at POLLOUT
//! (full: the reader has a wake-up pending anyway). What remains is a race of a microsecond, which would stop the server
//! thread: readers then fall back to looking at the ring once a second, and the frame path, which never waits for this thread,
//! does not notice.

use std::io::IoSlice;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, OwnedFd};

use eomt_edge_client::layout::{ABI_VERSION, HELLO_MAGIC, HELLO_OK, HELLO_REFUSED, Hello};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::writer::RingShare;

#[derive(Debug)]
pub(super) struct Reader {
    pub socket: OwnedFd,
    event: OwnedFd,
}

impl Reader {
    /// Sends the hello and the ring's descriptors on `socket`.
    pub fn admit(socket: OwnedFd, ring: &RingShare, generation: u64) -> Result<Reader, Errno> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let hello = hello_bytes(HELLO_OK, generation, ring.bytes, "");
        let fds = [ring.memfd.as_fd(), event.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "the space is made for two descriptors");
        sendmsg(&socket, &[IoSlice::new(&hello)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(Reader { socket, event })
    }

    /// Wakes the reader; false when it tampered with its eventfd and must go.
    pub fn wake(&self) -> bool {
        if !fcntl_getfl(&self.event).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK)) {
            return false;
        }
        let mut fds = [PollFd::new(&self.event, PollFlags::OUT)];
        if poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            // EAGAIN: the counter was filled this very moment, so the reader wakes up anyway.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
        true
    }
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
