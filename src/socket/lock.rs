//! The lock under which the socket's name is taken, given back and taken again: a file `.NAME.lock` of mode 0600 beside the socket.
//!
//! ```text
//! take:  open the file (make it, follow nothing), check whose it is, flock it
//!        is it still the one of that name?  yes: ours;  no: its holder has removed it, begin again
//! drop:  remove the file, then let go of it
//! ```
//! It exists for the milliseconds in which a daemon looks at the name. Only its holder removes it, so of those who hold some
//! file of that name only one holds the present one. Who is killed in between leaves the file behind without a holder: the
//! reaper, or the next daemon, takes it and removes it. A lock on the directory itself would not do: whoever may list a directory may
//! lock it, and keep a daemon from starting.
//! Refuses: to follow a link, to use a file that others can open or that belongs to somebody else, to remove such a one.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::SocketError;

const PAUSE: Duration = Duration::from_millis(20);

/// How often [`NameLock::take`] tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For two seconds, as at the start and at the end of a daemon.
    Long,
    /// Once, as within a thread that has others to serve.
    None,
}

/// The right to change what stands at a socket's path. Dropping it gives it up.
#[derive(Debug)]
pub struct NameLock {
    /// The directory of socket and lock.
    pub dir: OwnedFd,
    file: OsString,
    /// Keeps the flock.
    _lock: OwnedFd,
}

impl NameLock {
    /// The lock of the socket `file` in `dir`.
    pub fn take(dir: &Path, file: &OsStr, patience: Patience) -> Result<NameLock, SocketError> {
        let directory = |errno: Errno| SocketError::Directory { dir: dir.into(), source: errno.into() };
        let dirfd = openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(directory)?;
        let mut name = OsString::from(".");
        name.push(file);
        name.push(".lock");
        let path = dir.join(&name);
        let attempts = if patience == Patience::Long { 100 } else { 1 };
        for attempt in 0..attempts {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            let lock = open(&dirfd, &name, &path)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&dirfd, &name, &lock) => return Ok(NameLock { dir: dirfd, file: name, _lock: lock }),
                Ok(()) | Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(errno) => return Err(refuse(&path, format!("locking it failed: {errno}"))),
            }
        }
        Err(SocketError::Locked { file: path })
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // If it stays, the next one to take the lock uses it. The flock ends after this, with the descriptor.
        let _ = unlinkat(&self.dir, &self.file, AtFlags::empty());
    }
}

/// The lock file, made if there is none. Whatever else has its name is refused before it is used: opening must not wait either,
/// should it be a FIFO or a device.
fn open(dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, SocketError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let lock = openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => refuse(path, flaw(&stat).unwrap_or_else(|| format!("opening it failed: {errno}"))),
        // Not even made: the directory is closed to us, read-only, or gone.
        Err(_) => SocketError::Directory { dir: path.parent().unwrap_or(path).into(), source: errno.into() },
    })?;
    let stat = fstat(&lock).map_err(|errno| refuse(path, format!("fstat failed: {errno}")))?;
    flaw(&stat).map_or(Ok(lock), |what| Err(refuse(path, what)))
}

/// What is wrong with it as a lock file.
fn flaw(stat: &Stat) -> Option<String> {
    let own = geteuid().as_raw();
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Some("it is a symbolic link".into()),
        FileType::Directory => return Some("it is a directory".into()),
        _ => return Some("it is no regular file".into()),
    }
    if stat.st_uid != own {
        return Some(format!("it belongs to user {}, and this is user {own}", stat.st_uid));
    }
    let others = stat.st_mode & 0o077;
    (others != 0).then(|| format!("others may open it (its mode is {:03o}, not 600)", stat.st_mode & 0o777))
}

fn is_at(dir: &OwnedFd, name: &OsStr, lock: &OwnedFd) -> bool {
    let (Ok(there), Ok(ours)) = (statat(dir, name, AtFlags::SYMLINK_NOFOLLOW), fstat(lock)) else { return false };
    (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
}

fn refuse(file: &Path, what: String) -> SocketError {
    SocketError::LockFile { file: PathBuf::from(file), what }
}
