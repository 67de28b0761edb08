//! The reaper: a child process that removes the socket file when the daemon is killed without a chance to do it.
//!
//! It sleeps in a `read` of a socket whose other end only the daemon holds; the kernel ends that read when the daemon is gone,
//! however it went. Then it unlinks the file, if it is still the same one, and exits. Lines `DEV INO` before that tell it that the
//! daemon has made the file anew. It has its own process group, so that a
//! signal to the daemon's group (Ctrl-C, `kill -9 -PGID`) leaves it alone, holds no descriptor but its end of that connection, a pipe to say that it is ready, and
//! `/dev/null`, and stands in `/`.

use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::retry_on_intr;
use rustix::net::{SendFlags, send};

use super::bind::SocketName;

/// What a reaper writes once it is ready.
const READY: [u8; 1] = *b"+";
const READY_PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// How to start an executable whose `reap-socket PATH DEV INO` calls [`reap_socket_main`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaperCommand {
    /// The executable.
    pub program: PathBuf,
    /// Arguments in front of `reap-socket`; an emulator needs the executable there.
    pub args: Vec<OsString>,
}

impl ReaperCommand {
    /// This very executable, even when an upgrade has put another one in its place; through the emulator that `EOMT_EDGE_TEST_RUNNER` names when cross-compiled tests run in one,
    /// where the kernel could not start it.
    ///
    /// # Errors
    /// When the kernel does not tell the path of this executable.
    pub fn current_exe() -> io::Result<ReaperCommand> {
        let runner = std::env::var("EOMT_EDGE_TEST_RUNNER").unwrap_or_default();
        let mut words: Vec<OsString> = runner.split_whitespace().map(OsString::from).collect();
        // the kernel follows this link to the file itself, whatever has become of its name
        words.push(if words.is_empty() { "/proc/self/exe".into() } else { std::env::current_exe()?.into() });
        let program = words.remove(0).into();
        Ok(ReaperCommand { program, args: words })
    }
}

/// A running reaper.
#[derive(Debug)]
pub struct Reaper {
    child: Child,
    /// Closed = the daemon is gone. No pipe: sending to a socket neither waits nor raises SIGPIPE, should the child have been killed.
    line: Option<UnixStream>,
}

impl Reaper {
    pub fn start(command: &ReaperCommand, name: &SocketName) -> io::Result<Reaper> {
        let (line, theirs) = UnixStream::pair()?;
        let child = Command::new(&command.program)
            .args(&command.args)
            .arg("reap-socket")
            .arg(&name.path)
            .args([name.dev.to_string(), name.ino.to_string()])
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        let mut reaper = Reaper { child, line: Some(line) };
        match reaper.hear_ready() {
            Ok(()) => Ok(reaper),
            Err(error) => {
                reaper.finish(Duration::ZERO);
                Err(error)
            }
        }
    }

    /// Waits for the byte that says that it is ready: an executable that cannot run here, or knows no `reap-socket`, gives
    /// none.
    fn hear_ready(&mut self) -> io::Result<()> {
        let Some(mut stdout) = self.child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        retry_on_intr(|| poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&READY_PATIENCE)))?;
        fcntl_setfl(&stdout, OFlags::NONBLOCK)?;
        let mut answer = [0u8; 1];
        match stdout.read(&mut answer)? {
            1 if answer == READY => Ok(()),
            _ => Err(io::Error::other("the executable did not start as a reaper")),
        }
    }

    /// Tells it that `name` is to be removed from now on.
    pub fn rename(&self, name: &SocketName) -> io::Result<()> {
        let Some(line) = &self.line else { return Ok(()) };
        let text = format!("{} {}\n", name.dev, name.ino);
        let sent = send(line, text.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Ends it after the socket file is removed, and waits for it, so that no zombie stays.
    pub fn finish(mut self, patience: Duration) {
        drop(self.line.take());
        let deadline = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                log::warn!("the socket's reaper (process {}) does not end by itself; killing it", self.child.id());
                // Both fail only if it has ended meanwhile.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The whole life of the reaper process; `main` calls it for the hidden subcommand, before it opens anything.
pub fn reap_socket_main(path: &Path, dev: u64, ino: u64) {
    close_inherited();
    // Fails when the daemon has died meanwhile, which the read below will tell.
    let _ = io::stdout().write_all(&READY).and_then(|()| io::stdout().flush());
    let mut name = SocketName { path: path.into(), dev, ino };
    // Only a whole line counts; an error is an end like any other.
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let numbers = line.split_once(' ').and_then(|(dev, ino)| Some((dev.parse().ok()?, ino.parse().ok()?)));
        (name.dev, name.ino) = numbers.unwrap_or((name.dev, name.ino));
    }
    // A failure cannot be reported any more; the next daemon replaces a dead socket anyway.
    let _ = name.unlink();
}

/// Closes what the daemon itself inherited without close-on-exec (`3>log` in a shell, a service manager's sockets).
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|&fd| fd > 2) {
        // The list names the descriptor that read the directory, too, which is closed again.
        if std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok() {
            // SAFETY: open, as just seen, and this process has started for this one purpose: no Rust object owns a descriptor
            // above stderr, and there is no other thread.
            unsafe { rustix::io::close(fd) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_that_is_no_reaper_is_an_error() {
        let name = SocketName { path: "/tmp/none.sock".into(), dev: 1, ino: 1 };
        for program in ["/nonexistent/eomt-edge", "/bin/true", "/bin/echo"] {
            let command = ReaperCommand { program: program.into(), args: Vec::new() };
            assert!(Reaper::start(&command, &name).is_err(), "{program}");
        }
    }
}
