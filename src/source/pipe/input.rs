//! Where a pipe's bytes come from: standard input, a FIFO, or a command that is started here.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process_group};

/// A command that was asked to end gets this long before it is killed.
const GRACE: Duration = Duration::from_millis(150);

/// The longest line of a command that goes to the log.
const LINE_MAX: u64 = 400;

/// What is opened.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::source) enum Input {
    Standard,
    Fifo(PathBuf),
    /// A shell command; `launcher` is a program and its arguments that starts it so that it ends with us, or empty.
    Command {
        command: String,
        launcher: Vec<OsString>,
    },
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source) enum Got {
    Bytes(usize),
    /// Nothing within the time.
    Nothing,
    /// The writer has closed its end.
    End,
}

/// An opened input.
#[derive(Debug)]
pub(in crate::source) struct Stream {
    bytes: OwnedFd,
    running: Option<Running>,
}

/// A command at work, in a process group of its own. Dropped, it ends.
#[derive(Debug)]
struct Running {
    child: Child,
    /// Of its standard error.
    last_line: Arc<Mutex<String>>,
}

impl Input {
    /// Opens it, without waiting for a writer.
    ///
    /// # Errors
    /// `InvalidInput` when the name leads to something else; anything else may pass.
    pub fn open(&self) -> io::Result<Stream> {
        match self {
            Input::Standard => Ok(Stream { bytes: io::stdin().as_fd().try_clone_to_owned()?, running: None }),
            Input::Fifo(path) => {
                // checked first: opening a device may have effects
                if !std::fs::metadata(path)?.file_type().is_fifo() {
                    let reason = "this is no FIFO (mkfifo makes one); a file is read by pipe:- with < FILE";
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
                }
                let flags = OFlags::NONBLOCK.bits() as i32;
                let file = File::options().read(true).custom_flags(flags).open(path)?;
                Ok(Stream { bytes: file.into(), running: None })
            }
            Input::Command { command, launcher } => Running::start(command, launcher),
        }
    }
}

impl Stream {
    /// Reads what is there into `buffer`, after at most `patience`.
    pub fn read(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Got> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.bytes, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Got::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::io::read(&self.bytes, buffer) {
            Ok(0) => Ok(Got::End),
            Ok(count) => Ok(Got::Bytes(count)),
            Err(Errno::INTR | Errno::AGAIN) => Ok(Got::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `path` still leads to this FIFO.
    pub fn is_still(&self, path: &Path) -> bool {
        let ours = self.bytes.try_clone().and_then(|bytes| File::from(bytes).metadata()).map(|ours| (ours.dev(), ours.ino())).ok();
        std::fs::metadata(path).map(|there| (there.dev(), there.ino())).ok() == ours
    }

    /// After the end of a command's output: how it ended, and the last thing that it said.
    pub fn finish(mut self) -> Option<(ExitStatus, String)> {
        let running = self.running.as_mut()?;
        let status = running.end()?;
        // the thread that logs its output may be behind
        std::thread::sleep(Duration::from_millis(20));
        Some((status, running.last_line.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

impl Running {
    fn start(command: &str, launcher: &[OsString]) -> io::Result<Stream> {
        let mut process = match launcher.split_first() {
            Some((program, arguments)) => {
                let mut process = Command::new(program);
                process.args(arguments).arg(getpid().as_raw_nonzero().to_string()).arg(command);
                process
            }
            None => shell(command),
        };
        let mut child = process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
        let (Some(bytes), Some(words)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("the command has no output"));
        };
        let last_line = Arc::default();
        let running = Running { child, last_line: Arc::clone(&last_line) };
        std::thread::Builder::new().name("eomt-exec-log".to_owned()).spawn(move || log_lines(words, &last_line))?;
        Ok(Stream { bytes: bytes.into(), running: Some(running) })
    }

    /// Ends the process group: asks, waits for a moment, kills.
    fn end(&mut self) -> Option<ExitStatus> {
        let group = Pid::from_child(&self.child);
        let deadline = Instant::now() + GRACE;
        let mut asked = false;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    // others of its group may have outlived it
                    let _ = kill_process_group(group, Signal::KILL);
                    return Some(status);
                }
                Ok(None) if Instant::now() < deadline => {}
                _ => break,
            }
            if !std::mem::replace(&mut asked, true) {
                let _ = kill_process_group(group, Signal::TERM);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
        self.child.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// `/bin/sh -c COMMAND`: quotes, variables and pipes work as at a prompt.
fn shell(command: &str) -> Command {
    let mut process = Command::new("/bin/sh");
    process.arg("-c").arg(command);
    process
}

/// Lines of a command in one period of the log; further ones are counted.
const LINES_MAX: u64 = 100;
const LINES_PERIOD: Duration = Duration::from_secs(10);

/// Keeps a command that talks without end from filling the log.
#[derive(Debug, Default)]
struct Flood {
    since: Option<Instant>,
    lines: u64,
}

impl Flood {
    /// Logs the line unless the period has had enough of them. The first line after a period tells how many were left out.
    fn log(&mut self, text: &str, now: Instant) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= LINES_PERIOD) {
            if let Some(left_out @ 1..) = self.lines.checked_sub(LINES_MAX) {
                log::info!("exec: ({left_out} more lines were left out)");
            }
            (self.since, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        if self.lines <= LINES_MAX {
            log::info!("exec: {text}");
        }
    }
}

/// The command's standard error goes to the log line by line; progress lines end with a carriage return.
fn log_lines(words: impl Read, last_line: &Mutex<String>) {
    let mut words = BufReader::new(words);
    let mut line = Vec::new();
    let mut flood = Flood::default();
    loop {
        line.clear();
        match (&mut words).take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        for part in line.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let text = String::from_utf8_lossy(part).trim().replace(char::is_control, " ");
            if !text.is_empty() {
                flood.log(&text, Instant::now());
                *last_line.lock().unwrap_or_else(PoisonError::into_inner) = text;
            }
        }
    }
}

/// The program's own start of a command, in a process between the daemon `parent` and the shell: the command is asked to end when the
/// daemon is gone, however it went (prctl(2), PR_SET_PDEATHSIG; only a process can ask that for itself). Returns why it failed.
pub fn exec_source_main(parent: i32, command: &str) -> io::Error {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // it may have gone before
    match rustix::process::getppid() {
        Some(pid) if pid.as_raw_nonzero().get() == parent => shell(command).exec(),
        _ => io::Error::other("the daemon has gone"),
    }
}
