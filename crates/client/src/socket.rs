//! The connection to the daemon: connect, receive the hello and its two descriptors, before a deadline.
//!
//! Invariants: nothing here blocks beyond the deadline, whatever listens on the socket; every descriptor that arrives is either
//! returned or closed. Refuses: to try another path, to send anything.

use std::io::{self, IoSliceMut};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketAddrUnix, SocketFlags, SocketType, connect,
    recvmsg, socket_with,
};

use super::error::ClientError;
use super::layout::{ABI_OLDEST, ABI_VERSION, HELLO_MAGIC, HELLO_OK, Hello};

/// Between two looks at a queue that is full: there is nothing to wait on.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// Most descriptors of one message (SCM_MAX_FD of Linux): all that arrive are seen and closed.
const FDS_MAX: usize = 253;

pub(super) struct Connection {
    pub socket: OwnedFd,
    pub memfd: OwnedFd,
    pub event: OwnedFd,
    pub hello: Hello,
}

/// What is left until `deadline`; `None` means for ever.
pub(super) fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// `timeout` for the kernel. Longer than a day is a day: the callers ask again.
pub(super) fn timespec(timeout: Duration) -> Timespec {
    Timespec { tv_sec: timeout.as_secs().min(86_400) as i64, tv_nsec: timeout.subsec_nanos().into() }
}

/// Connects and receives the hello.
pub(super) fn open(path: &Path, deadline: Option<Instant>) -> Result<Connection, ClientError> {
    let connect_error = |source: io::Error| ClientError::Connect { path: path.into(), source };
    let address = SocketAddrUnix::new(path).map_err(|errno| connect_error(errno.into()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(|errno| connect_error(errno.into()))?;
    knock(&socket, &address, deadline).map_err(connect_error)?;
    let received = loop {
        wait_readable(&socket, deadline).map_err(connect_error)?;
        match receive(&socket) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // what a hang-up looks like when something was still unread
            Err(Errno::CONNRESET) => return Err(ClientError::Ended { path: path.into(), clean: false }),
            received => break received.map_err(|errno| connect_error(errno.into()))?,
        }
    };
    let hello = parse(path, &received.bytes, received.cut)?;
    let count = received.fds.len();
    if received.lost {
        return Err(ClientError::Descriptors { path: path.into(), arrived: count });
    }
    let [memfd, event] = <[OwnedFd; 2]>::try_from(received.fds)
        .map_err(|_| protocol(path, format!("the hello came with {count} descriptors instead of its two")))?;
    Ok(Connection { socket, memfd, event, hello })
}

/// Connects. A Unix socket whose queue is full says EAGAIN at once, and nothing tells when there is room.
fn knock(socket: &OwnedFd, address: &SocketAddrUnix, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        match connect(socket, address) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return Ok(result?),
        }
        let left = left(deadline).unwrap_or(QUEUE_PAUSE);
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it does not accept: its queue is full (the daemon hangs, or another program listens there)",
            ));
        }
        std::thread::sleep(QUEUE_PAUSE.min(left));
    }
}

fn wait_readable(socket: &OwnedFd, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = left(deadline).map(timespec);
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(0) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                let what = "no hello came in time (the daemon hangs, or another program listens there)";
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            Ok(0) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// One message and the descriptors that came with it, in order.
struct Received {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The message was longer than a hello.
    cut: bool,
    /// Descriptors were sent that this process did not get.
    lost: bool,
}

fn receive(socket: &OwnedFd) -> Result<Received, Errno> {
    let mut bytes = vec![0u8; size_of::<Hello>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(received.bytes);
    let has = |flag| received.flags.contains(flag);
    Ok(Received { bytes, fds, cut: has(ReturnFlags::TRUNC), lost: has(ReturnFlags::CTRUNC) })
}

fn protocol(path: &Path, what: impl Into<String>) -> ClientError {
    ClientError::Protocol { path: path.into(), what: what.into() }
}

fn parse(path: &Path, bytes: &[u8], cut: bool) -> Result<Hello, ClientError> {
    if bytes.is_empty() {
        return Err(ClientError::Ended { path: path.into(), clean: false });
    }
    let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let (Some(magic), Some(second)) = (word(0), word(8)) else {
        return Err(protocol(path, format!("a hello of only {} bytes", bytes.len())));
    };
    if magic != HELLO_MAGIC {
        return Err(protocol(path, "the hello does not begin as one of eomt-edge"));
    }
    let (abi, status) = (second as u32, (second >> 32) as u32);
    if !(ABI_OLDEST..=ABI_VERSION).contains(&abi) {
        return Err(ClientError::Abi { path: path.into(), theirs: abi, ours: ABI_VERSION });
    }
    if cut || bytes.len() != size_of::<Hello>() {
        let more = if cut { "more than " } else { "" };
        return Err(protocol(path, format!("a hello of {more}{} bytes instead of {}", bytes.len(), size_of::<Hello>())));
    }
    // SAFETY: `bytes` has the size of Hello, which consists of integers and bytes: any content is a value.
    let hello = unsafe { bytes.as_ptr().cast::<Hello>().read_unaligned() };
    if status != HELLO_OK {
        let text = hello.message.split(|&byte| byte == 0).next().unwrap_or_default();
        return Err(ClientError::Refused { path: path.into(), reason: String::from_utf8_lossy(text).into_owned() });
    }
    Ok(hello)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(bytes: &[u8], cut: bool) -> String {
        parse(Path::new("/run/x.sock"), bytes, cut).expect_err("no hello").to_string()
    }

    #[test]
    fn no_bytes_pass_for_a_hello() {
        let mut good = [HELLO_MAGIC.to_le_bytes(), (u64::from(HELLO_OK) << 32 | u64::from(ABI_VERSION)).to_le_bytes()].concat();
        good.resize(size_of::<Hello>(), 0);
        assert!(parse(Path::new("x"), &good, false).is_ok());
        assert!(sentence(&good, true).contains("more than 128 bytes"));
        for length in 0..good.len() {
            let expected = match length {
                0 => "has ended",
                1..16 => "only",
                _ => "instead of 128",
            };
            assert!(sentence(&good[..length], false).contains(expected), "{length} bytes");
        }
        good[12] = 1;
        good[40..46].copy_from_slice(b"a\x1b[2J\xff");
        let refused = sentence(&good, false);
        assert!(refused.contains("a\\u{1b}[2J") && !refused.contains('\x1b'), "{refused}");
        good[8] = 3;
        assert!(sentence(&good, true).contains("ABI 3"), "a longer hello of a later version names its version");
        good[0] = 0;
        assert!(sentence(&good, false).contains("does not begin"));
    }
}
