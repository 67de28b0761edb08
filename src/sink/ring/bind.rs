//! Takes and releases the socket's name.
//!
//! ```text
//! flock the directory
//!   what is at the path?  nothing, or a socket without a listener: go on
//!                         a listening socket: taken; anything else: left alone
//!   bind .NAME.new beside it, set group and mode, listen, rename over the path
//! ```
//! Under the lock no other daemon can come between check and rename, so of two daemons that start together one gets the name
//! and the other an error. A client never sees a socket with the wrong mode, nor one that does not listen yet.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eomt_edge_client::layout::{HELLO_MAGIC, Hello};
use eomt_edge_host::{bounds, files};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, chmodat, chownat, flock, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recv, socket_with};

use super::RingError;

const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const BACKLOG: i32 = 128;

/// A listening socket and the identity of its name.
#[derive(Debug)]
pub(super) struct Bound {
    pub listener: OwnedFd,
    pub name: SocketName,
}

/// The name of a socket file: a path that means this very file, not a later one at the same path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketName {
    pub path: PathBuf,
    pub dev: u64,
    pub ino: u64,
}

impl SocketName {
    /// Removes the file unless another one has taken its place.
    pub fn unlink(&self) -> Result<(), RingError> {
        let (dir, file) = split(&self.path)?;
        let dirfd = lock_directory(dir)?;
        match statat(&dirfd, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (self.dev, self.ino) => {
                unlinkat(&dirfd, file, AtFlags::empty()).map_err(socket_error(&self.path, "unlink"))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(socket_error(&self.path, "stat")(errno)),
        }
    }
}

/// Listens on `path` with this file mode and group.
pub(super) fn listen_on(path: &Path, mode: u32, group: Option<&str>) -> Result<Bound, RingError> {
    let path =
        std::path::absolute(path).map_err(|source| RingError::Socket { path: path.into(), step: "finding its directory", source })?;
    let group = group.map(find_group).transpose()?;
    let (dir, file) = split(&path)?;
    let dirfd = lock_directory(dir)?;
    check_free(&dirfd, &path, file)?;

    let mut draft = OsString::from(".");
    draft.push(file);
    draft.push(".new");
    remove_draft(&dirfd, &draft);
    let listener = match listen_as(&dirfd, &dir.join(&draft), &draft, mode, group) {
        Ok(listener) => listener,
        Err((step, errno)) => {
            remove_draft(&dirfd, &draft);
            return Err(socket_error(&path, step)(errno));
        }
    };
    if let Err(errno) = renameat(&dirfd, &draft, &dirfd, file) {
        remove_draft(&dirfd, &draft);
        return Err(socket_error(&path, "rename")(errno));
    }
    let stat = statat(&dirfd, file, AtFlags::SYMLINK_NOFOLLOW).map_err(socket_error(&path, "stat"))?;
    Ok(Bound { listener, name: SocketName { path, dev: stat.st_dev, ino: stat.st_ino } })
}

fn listen_as(dirfd: &OwnedFd, path: &Path, file: &OsStr, mode: u32, group: Option<Gid>) -> Result<OwnedFd, (&'static str, Errno)> {
    let address = SocketAddrUnix::new(path).map_err(|errno| ("using this path (it may be too long)", errno))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(|errno| ("socket", errno))?;
    bind(&socket, &address).map_err(|errno| ("bind", errno))?;
    if group.is_some() {
        chownat(dirfd, file, None, group, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| ("setting the group", errno))?;
    }
    chmodat(dirfd, file, Mode::from_raw_mode(mode & 0o777), AtFlags::empty()).map_err(|errno| ("setting the mode", errno))?;
    listen(&socket, BACKLOG).map_err(|errno| ("listen", errno))?;
    Ok(socket)
}

/// A draft can only be left over from a daemon that was killed while it held the lock, which is ours now.
fn remove_draft(dirfd: &OwnedFd, draft: &OsStr) {
    if statat(dirfd, draft, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket) {
        // If it stays, `bind` fails with a sentence.
        let _ = unlinkat(dirfd, draft, AtFlags::empty());
    }
}

fn split(path: &Path) -> Result<(&Path, &OsStr), RingError> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(file)) => Ok((dir, file)),
        _ => Err(RingError::NotASocket { path: path.into() }),
    }
}

fn lock_directory(dir: &Path) -> Result<OwnedFd, RingError> {
    let fail = |errno: Errno| RingError::Directory { dir: dir.into(), source: errno.into() };
    let dirfd = openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    for _ in 0..LOCK_ATTEMPTS {
        match flock(&dirfd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(dirfd),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
            Err(errno) => return Err(fail(errno)),
        }
    }
    Err(RingError::Locked { dir: dir.into() })
}

fn check_free(dirfd: &OwnedFd, path: &Path, file: &OsStr) -> Result<(), RingError> {
    let stat = match statat(dirfd, file, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat => stat.map_err(socket_error(path, "stat"))?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(RingError::NotASocket { path: path.into() });
    }
    let fail = socket_error(path, "asking who listens there");
    let address = SocketAddrUnix::new(path).map_err(&fail)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(&fail)?;
    match connect(&probe, &address) {
        Ok(()) => Err(RingError::Taken { path: path.into(), pid: ask_pid(&probe) }),
        // A full backlog, or a socket of another type: there is a listener all the same.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(RingError::Taken { path: path.into(), pid: None }),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Err(errno) => Err(fail(errno)),
    }
}

/// The process that writes the ring, from its hello (SO_PEERCRED would say 0 across PID namespaces); `None` if it says nothing.
fn ask_pid(probe: &OwnedFd) -> Option<i32> {
    let patience = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    poll(&mut [PollFd::new(probe, PollFlags::IN)], Some(&patience)).ok()?;
    let mut hello = [0u8; size_of::<Hello>()];
    let (_, len) = recv(probe, &mut hello, RecvFlags::DONTWAIT).ok()?;
    const AT: usize = std::mem::offset_of!(Hello, writer_pid);
    let known = len == hello.len() && hello[..8] == HELLO_MAGIC.to_le_bytes();
    known.then(|| i32::from_le_bytes([hello[AT], hello[AT + 1], hello[AT + 2], hello[AT + 3]]))
}

/// Whether a group of this name or number can own the socket.
///
/// # Errors
/// [`RingError::Group`] when there is no such group.
pub fn check_group(group: &str) -> Result<(), RingError> {
    find_group(group).map(drop)
}

/// A group by number, or by its name in `/etc/group`.
fn find_group(group: &str) -> Result<Gid, RingError> {
    let unknown = || RingError::Group { group: group.into() };
    if let Ok(number) = group.parse::<u32>() {
        return if number == u32::MAX { Err(unknown()) } else { Ok(Gid::from_raw(number)) };
    }
    let database = files::read_text(Path::new("/etc/group"), &bounds::TEXT).map_err(|_| unknown())?;
    let gid = database.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)).flatten()?.parse().ok()
    });
    gid.map(Gid::from_raw).ok_or_else(unknown)
}

fn socket_error(path: &Path, step: &'static str) -> impl Fn(Errno) -> RingError {
    move |errno| RingError::Socket { path: path.into(), step, source: io::Error::from(errno) }
}
