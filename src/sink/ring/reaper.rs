//! The reaper: a child process that removes the socket file when the daemon is killed without a chance to do it.
//!
//! It sleeps in a `read` of a pipe whose other end only the daemon holds; the kernel ends that read when the daemon is gone,
//! however it went. Then it unlinks the file, if it is still the same one, and exits. It has its own process group, so that a
//! signal to the daemon's group (Ctrl-C, `kill -9 -PGID`) leaves it alone, holds no descriptor but the pipe and `/dev/null`,
//! and stands in `/`.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::bind::SocketName;

/// How to start an executable whose `reap-socket PATH DEV INO` calls [`reap_socket_main`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaperCommand {
    pub program: PathBuf,
    /// Arguments in front of `reap-socket`; an emulator needs the executable there.
    pub args: Vec<OsString>,
}

impl ReaperCommand {
    /// This very executable.
    pub fn current_exe() -> io::Result<ReaperCommand> {
        Ok(ReaperCommand { program: std::env::current_exe()?, args: Vec::new() })
    }
}

/// A running reaper. Its pipe is `child.stdin`.
#[derive(Debug)]
pub(super) struct Reaper {
    child: Child,
}

impl Reaper {
    pub fn start(command: &ReaperCommand, name: &SocketName) -> io::Result<Reaper> {
        let child = Command::new(&command.program)
            .args(&command.args)
            .arg("reap-socket")
            .arg(&name.path)
            .args([name.dev.to_string(), name.ino.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        Ok(Reaper { child })
    }

    /// Lets it go, after the socket file is gone; waits for its end, so that no zombie stays.
    pub fn finish(mut self, patience: Duration) {
        drop(self.child.stdin.take());
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
    let mut stdin = io::stdin().lock();
    let mut ignored = [0u8; 64];
    loop {
        match stdin.read(&mut ignored) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Nobody is left to be told of a failure; the next daemon replaces a dead socket anyway.
    let _ = SocketName { path: path.into(), dev, ino }.unlink();
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
    fn an_executable_that_does_not_exist_is_an_error_not_a_panic() {
        let command = ReaperCommand { program: "/nonexistent/eomt-edge".into(), args: Vec::new() };
        let name = SocketName { path: "/tmp/none.sock".into(), dev: 1, ino: 1 };
        assert_eq!(Reaper::start(&command, &name).expect_err("no such file").kind(), io::ErrorKind::NotFound);
    }
}
