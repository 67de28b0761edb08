//! Takes and releases the socket's name.
//!
//! ```text
//! take the lock beside the socket (`lock.rs`)
//!   what is at the path?  nothing, or a socket without a listener: go on
//!                         a listening socket: taken; anything else: left alone
//!   bind .NAME.new beside it, set group and mode, listen, rename over the path
//! ```
//! Under the lock no other daemon can come between check and rename, so of two daemons that start together one gets the name
//! and the other an error. A client never sees a socket with the wrong mode, nor one that does not listen yet.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use eomt_edge_host::{bounds, files};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, chmodat, chownat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, shutdown, socket_with};

use super::SocketError;
use super::lock::{NameLock, Patience};

const BACKLOG: i32 = 128;

/// A listening socket and the identity of its name.
#[derive(Debug)]
pub struct Bound {
    pub listener: OwnedFd,
    pub name: SocketName,
}

/// The name of a socket file: a path that means this very file, not a later one at the same path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketName {
    pub path: PathBuf,
    pub dev: u64,
    pub ino: u64,
}

impl SocketName {
    /// Whether the path still means this file.
    pub fn is_there(&self) -> bool {
        statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (self.dev, self.ino))
    }

    /// Removes the file unless another one has taken its place.
    pub fn unlink(&self) -> Result<(), SocketError> {
        let (dir, file) = split(&self.path)?;
        let lock = match NameLock::take(dir, file, Patience::Long) {
            // The file went with its directory.
            Err(SocketError::Directory { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            // No descriptor is left to lock with. A file that outlives us would be worse than going without: it is ours, and nobody
            // takes the name of a socket that still listens.
            Err(SocketError::Directory { .. } | SocketError::LockFile { .. }) if self.is_there() => {
                return unlinkat(CWD, &self.path, AtFlags::empty()).map_err(socket_error(&self.path, "unlink"));
            }
            lock => lock?,
        };
        match statat(&lock.dir, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (self.dev, self.ino) => {
                unlinkat(&lock.dir, file, AtFlags::empty()).map_err(socket_error(&self.path, "unlink"))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(socket_error(&self.path, "stat")(errno)),
        }
    }
}

/// In what the sockets of one protocol differ from those of another.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// How it takes messages.
    pub socket_type: SocketType,
    /// The process of whoever listens at a socket that has just connected; `None` if it does not tell.
    pub ask_pid: fn(&OwnedFd) -> Option<i32>,
}

/// Where to listen, and who may connect.
#[derive(Debug, Clone)]
pub struct Address {
    /// Absolute.
    path: PathBuf,
    kind: Kind,
    mode: u32,
    group: Option<String>,
}

impl Address {
    /// File mode and group (a name or number) of the socket at `path`.
    pub fn new(path: &Path, kind: Kind, mode: u32, group: Option<String>) -> Result<Address, SocketError> {
        let path =
            std::path::absolute(path).map_err(|source| SocketError::Socket { path: path.into(), step: "finding its directory", source })?;
        Ok(Address { path, kind, mode, group })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the name and listens.
    pub fn listen(&self, patience: Patience) -> Result<Bound, SocketError> {
        let group = self.group.as_deref().map(find_group).transpose()?;
        let (dir, file) = split(&self.path)?;
        let lock = NameLock::take(dir, file, patience)?;
        self.check_free(&lock.dir, file, patience)?;

        let mut draft = OsString::from(".");
        draft.push(file);
        draft.push(".new");
        remove_draft(&lock.dir, &draft);
        let listener = match self.listen_as(&lock.dir, &dir.join(&draft), &draft, group) {
            Ok(listener) => listener,
            Err((step, errno)) => {
                remove_draft(&lock.dir, &draft);
                return Err(socket_error(&self.path, step)(errno));
            }
        };
        if let Err(errno) = renameat(&lock.dir, &draft, &lock.dir, file) {
            remove_draft(&lock.dir, &draft);
            return Err(socket_error(&self.path, "rename")(errno));
        }
        let stat = statat(&lock.dir, file, AtFlags::SYMLINK_NOFOLLOW).map_err(socket_error(&self.path, "stat"))?;
        Ok(Bound { listener, name: SocketName { path: self.path.clone(), dev: stat.st_dev, ino: stat.st_ino } })
    }

    fn listen_as(&self, dirfd: &OwnedFd, path: &Path, file: &OsStr, group: Option<Gid>) -> Result<OwnedFd, (&'static str, Errno)> {
        let address = SocketAddrUnix::new(path).map_err(|errno| ("using this path (it may be too long)", errno))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, self.kind.socket_type, flags, None).map_err(|errno| ("socket", errno))?;
        refuse_descriptors(&socket);
        bind(&socket, &address).map_err(|errno| ("bind", errno))?;
        if group.is_some() {
            chownat(dirfd, file, None, group, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| ("setting the group", errno))?;
        }
        chmodat(dirfd, file, Mode::from_raw_mode(self.mode & 0o777), AtFlags::empty()).map_err(|errno| ("setting the mode", errno))?;
        listen(&socket, BACKLOG).map_err(|errno| ("listen", errno))?;
        Ok(socket)
    }

    fn check_free(&self, dirfd: &OwnedFd, file: &OsStr, patience: Patience) -> Result<(), SocketError> {
        let Address { path, kind, .. } = self;
        let stat = match statat(dirfd, file, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat.map_err(socket_error(path, "stat"))?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(SocketError::NotASocket { path: path.into() });
        }
        let fail = socket_error(path, "asking who listens there");
        let address = SocketAddrUnix::new(path).map_err(&fail)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let probe = socket_with(AddressFamily::UNIX, kind.socket_type, flags, None).map_err(&fail)?;
        if patience == Patience::None {
            // The server's thread closes this socket: whoever listens there must not put anything into it.
            let _ = shutdown(&probe, Shutdown::Read);
        }
        match connect(&probe, &address) {
            Ok(()) => {
                let pid = if patience == Patience::Long { (kind.ask_pid)(&probe) } else { None };
                Err(SocketError::Taken { path: path.into(), pid })
            }
            // A full backlog, or a socket of another type: there is a listener all the same.
            Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(SocketError::Taken { path: path.into(), pid: None }),
            Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
            Err(errno) => Err(fail(errno)),
        }
    }
}

/// Clients have no descriptors to send, and cannot where Linux knows this option (6.16 and later); connections inherit it. What they send
/// elsewhere is closed along with the connection, which can take long: `sink/ring/closing.rs`.
fn refuse_descriptors(socket: &OwnedFd) {
    /// From `<asm-generic/socket.h>`, on both of our architectures.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    // SAFETY: the option's value is an int, which lives through the call and of which the kernel reads as many bytes as told.
    // Older kernels answer ENOPROTOOPT.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}

/// A draft can only be left over from a daemon that was killed while it held the lock, which is ours now.
fn remove_draft(dirfd: &OwnedFd, draft: &OsStr) {
    if statat(dirfd, draft, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket) {
        // If it stays, `bind` fails with a sentence.
        let _ = unlinkat(dirfd, draft, AtFlags::empty());
    }
}

fn split(path: &Path) -> Result<(&Path, &OsStr), SocketError> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(file)) => Ok((dir, file)),
        _ => Err(SocketError::NotASocket { path: path.into() }),
    }
}

/// Whether a group of this name or number can own the socket.
///
/// # Errors
/// [`SocketError::Group`] when there is no such group.
pub fn check_group(group: &str) -> Result<(), SocketError> {
    find_group(group).map(drop)
}

/// A group by number, or by its name in `/etc/group`.
fn find_group(group: &str) -> Result<Gid, SocketError> {
    let unknown = || SocketError::Group { group: group.into() };
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

fn socket_error(path: &Path, step: &'static str) -> impl Fn(Errno) -> SocketError {
    move |errno| SocketError::Socket { path: path.into(), step, source: io::Error::from(errno) }
}
