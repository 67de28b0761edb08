//! The connection to the daemon: connect, receive the hello and its two descriptors.

use std::io::IoSliceMut;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    socket_with,
};

use super::error::ClientError;
use super::layout::{ABI_VERSION, HELLO_MAGIC, HELLO_OK, Hello};

/// How long a daemon that accepted may take to say hello: it does so from a thread of its own.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    pub socket: OwnedFd,
    pub memfd: OwnedFd,
    pub event: OwnedFd,
    pub hello: Hello,
}

/// Connects and receives the hello.
pub(super) fn open(path: &Path) -> Result<Connection, ClientError> {
    let connect_error = |errno: Errno| ClientError::Connect { path: path.into(), source: errno.into() };
    let address = SocketAddrUnix::new(path).map_err(connect_error)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(connect_error)?;
    connect(&socket, &address).map_err(connect_error)?;
    if !wait_readable(&socket, HELLO_TIMEOUT).map_err(connect_error)? {
        return Err(protocol(path, "no hello within five seconds"));
    }
    let (bytes, mut fds) = receive(&socket).map_err(connect_error)?;
    let hello = parse(path, &bytes)?;
    let (Some(event), Some(memfd)) = (fds.pop(), fds.pop()) else {
        return Err(protocol(path, "the hello came without its two descriptors"));
    };
    Ok(Connection { socket, memfd, event, hello })
}

fn protocol(path: &Path, what: impl Into<String>) -> ClientError {
    ClientError::Protocol { path: path.into(), what: what.into() }
}

fn wait_readable(socket: &OwnedFd, timeout: Duration) -> Result<bool, Errno> {
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    loop {
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            ready => return ready.map(|count| count > 0),
        }
    }
}

/// One message and the descriptors that came with it, in order.
fn receive(socket: &OwnedFd) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut bytes = vec![0u8; size_of::<Hello>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
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
    Ok((bytes, fds))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Hello, ClientError> {
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
    if abi != ABI_VERSION {
        return Err(ClientError::Abi { path: path.into(), theirs: abi, ours: ABI_VERSION });
    }
    if bytes.len() != size_of::<Hello>() {
        return Err(protocol(path, format!("a hello of {} bytes instead of {}", bytes.len(), size_of::<Hello>())));
    }
    // SAFETY: `bytes` has the size of Hello, which consists of integers and bytes: any content is a value.
    let hello = unsafe { bytes.as_ptr().cast::<Hello>().read_unaligned() };
    if status != HELLO_OK {
        let text = hello.message.split(|&byte| byte == 0).next().unwrap_or_default();
        return Err(ClientError::Refused { path: path.into(), reason: String::from_utf8_lossy(text).into_owned() });
    }
    Ok(hello)
}
