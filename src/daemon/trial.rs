//! A model is tried in a child process before the daemon loads it: at the start, and at every reload.
//!
//! ```text
//! parent  start `try-model`, send the settings; read its line, drain what it complains of; kill it at the time limit or a stop
//! child   limits (trial_child); load; one frame; a line of JSON
//! ```
//! Invariants: no more of the child's words is kept than [`ANSWER_BYTES_MAX`]; no child outlives this call, or the daemon. Refuses: going
//! on without a trial when no child can be started, since what is loaded next could end the daemon.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::retry_on_intr;
use rustix::process::getpid;

use super::trial_child::{Answer, Request, Tried};
use crate::config::ModelConfig;
use crate::socket::ReaperCommand;

/// The longest answer, bytes: a digest for each of 20,000 tensors in files of weights.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Of what the child complains of, the last bytes: the reason of an abort is its last line.
const COMPLAINT_BYTES_MAX: usize = 4096;

/// The child is looked at this often.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// After a SIGKILL a process is gone, unless it hangs in the kernel; then it is left to itself.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Why a model was not found fit.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The child's own sentence, which names the file.
    #[error("{sentence}")]
    Refused {
        /// What is wrong with the model.
        sentence: String,
        /// The configuration is at fault.
        is_usage: bool,
    },
    /// There is no child.
    #[error("{}: the process that tries it cannot be started: {source}", path.display())]
    Start {
        /// The model file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not come to an end.
    #[error("{}: its trial took longer than {seconds} s (model.load_timeout) and was ended", path.display())]
    Timeout {
        /// The model file.
        path: PathBuf,
        /// The limit.
        seconds: f64,
    },
    /// It ended without an answer.
    #[error("{}: its trial {how}, so this file would have ended the daemon", path.display())]
    Died {
        /// The model file.
        path: PathBuf,
        /// By what, and its last words.
        how: String,
    },
    /// The daemon was asked to stop.
    #[error("the daemon stops")]
    Stopped,
}

/// Tries `config`'s model for as long as its `load_timeout` and until `stop` says so. Blocks; the thread must live until the end, as the
/// kernel ends the child with it.
///
/// # Errors
/// [`TrialError`].
pub fn run(config: &ModelConfig, stop: &dyn Fn() -> bool) -> Result<Tried, TrialError> {
    let command = command(&config.path).map_err(|source| TrialError::Start { path: config.path.clone(), source })?;
    let tried = run_command(command, config, stop)?;
    if !tried.unlimited.is_empty() {
        log::warn!("{}: its trial ran without a limit on {}", config.path.display(), tried.unlimited.join(", "));
    }
    Ok(tried)
}

/// This very program, even when another one has taken its place on the disk.
fn command(path: &Path) -> io::Result<Command> {
    let ReaperCommand { program, args } = ReaperCommand::current_exe()?;
    let mut command = Command::new(program);
    command.args(args).arg("try-model").arg(getpid().as_raw_nonzero().get().to_string()).arg(path);
    Ok(command)
}

fn run_command(mut command: Command, config: &ModelConfig, stop: &dyn Fn() -> bool) -> Result<Tried, TrialError> {
    let limit = config.load_timeout();
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // its log lines come again when the daemon loads the file
    command.env("RUST_LOG", "off").env("RUST_BACKTRACE", "0").process_group(0);
    let started = command.spawn().and_then(|child| Running::new(child, &Request::new(config, limit.as_secs() + 1)));
    let mut running = started.map_err(|source| TrialError::Start { path: config.path.clone(), source })?;
    let died = |how: String| TrialError::Died { path: config.path.clone(), how };
    let status = loop {
        if stop() {
            return Err(TrialError::Stopped);
        }
        if Instant::now() >= deadline {
            return Err(TrialError::Timeout { path: config.path.clone(), seconds: config.load_timeout });
        }
        if running.answer.len() > ANSWER_BYTES_MAX {
            return Err(died(format!("gave an answer of more than {ANSWER_BYTES_MAX} bytes")));
        }
        match running.step() {
            Ok(None) => {}
            Ok(Some(status)) => break status,
            Err(error) => return Err(died(format!("cannot be followed ({error})"))),
        }
    };
    match serde_json::from_slice(&running.answer) {
        Ok(Answer::Fine(tried)) if status.success() => Ok(*tried),
        Ok(Answer::Refused { sentence, is_usage }) => Err(TrialError::Refused { sentence, is_usage }),
        _ => Err(died(end(status, &running.complaint))),
    }
}

/// A child that is killed when this is dropped.
struct Running {
    child: Child,
    stdout: Option<std::process::ChildStdout>,
    stderr: Option<std::process::ChildStderr>,
    answer: Vec<u8>,
    complaint: Vec<u8>,
}

impl Running {
    fn new(mut child: Child, request: &Request) -> io::Result<Running> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let running = Running { child, stdout, stderr, answer: Vec::new(), complaint: Vec::new() };
        if let Some(stdout) = &running.stdout {
            fcntl_setfl(stdout, OFlags::NONBLOCK)?;
        }
        if let Some(stderr) = &running.stderr {
            fcntl_setfl(stderr, OFlags::NONBLOCK)?;
        }
        // fits into the pipe; a child that has ended already is explained by its end
        let _ = stdin.map(|mut stdin| stdin.write_all(&serde_json::to_vec(request).unwrap_or_default()));
        Ok(running)
    }

    /// Takes what the child says; its status when it has ended and said everything.
    fn step(&mut self) -> io::Result<Option<ExitStatus>> {
        let open = [self.stdout.as_ref().map(AsFd::as_fd), self.stderr.as_ref().map(AsFd::as_fd)];
        let mut waiting: Vec<PollFd> = open.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        retry_on_intr(|| poll(&mut waiting, Some(&LOOK)))?;
        let ended = self.child.try_wait()?;
        take(&mut self.stdout, &mut self.answer)?;
        take(&mut self.stderr, &mut self.complaint)?;
        let surplus = self.complaint.len().saturating_sub(COMPLAINT_BYTES_MAX);
        self.complaint.drain(..surplus);
        Ok(ended)
    }
}

/// Reads what is there, at most a pipe's worth, and closes an end that has ended.
fn take(from: &mut Option<impl Read>, to: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    for _ in 0..16 {
        let Some(stream) = from else { return Ok(()) };
        match stream.read(&mut buffer) {
            Ok(0) => *from = None,
            Ok(count) => to.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let deadline = Instant::now() + END_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                log::warn!("the process that tried a model (number {}) does not end", self.child.id());
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How a process ended, and its last words.
fn end(status: ExitStatus, complaint: &[u8]) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}{}", signal_name(signal)),
        (None, Some(code)) => format!("ended with exit code {code} and no answer"),
        (None, None) => "ended".to_owned(),
    };
    let text = String::from_utf8_lossy(complaint);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    match last {
        "" => how,
        words => {
            let words: String = words.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect();
            format!("{how}: \"{words}\"")
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL: an instruction that this processor lacks)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS: a file became shorter, or memory is damaged)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL: most likely no memory was left)",
        11 => " (SIGSEGV: most likely its stack was full)",
        24 => " (SIGXCPU: it took too much processor time)",
        31 => " (SIGSYS: a system call was refused)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn config(load_timeout: f64) -> ModelConfig {
        ModelConfig { path: "/m/some.onnx".into(), load_timeout, ..ModelConfig::default() }
    }

    fn refused(script: &str, load_timeout: f64) -> String {
        let error = run_command(shell(script), &config(load_timeout), &|| false).expect_err("no answer");
        assert!(error.to_string().contains("/m/some.onnx"), "{error}");
        error.to_string()
    }

    #[test]
    fn whatever_a_child_does_there_is_a_sentence() {
        for (script, words) in [
            ("kill -ABRT $$", "signal 6 (SIGABRT)"),
            ("kill -SEGV $$", "signal 11"),
            ("kill -KILL $$", "signal 9 (SIGKILL: most likely no memory was left)"),
            ("ulimit -Ht 2; ulimit -St 1; while :; do :; done", "signal 24 (SIGXCPU: it took too much processor time)"),
            ("exit 101", "exit code 101"),
            ("exit 0", "exit code 0 and no answer"),
            ("echo memory allocation of 5 bytes failed >&2; kill -ABRT $$", "memory allocation of 5 bytes failed"),
            ("echo '{\"Fine\":'", "no answer"),
            ("printf 'a\\033[2Jb\\n' >&2; exit 3", "a?[2Jb"),
            // more than a pipe holds, and the last line counts
            ("head -c 3000000 /dev/zero >&2; printf '\\nlast\\n' >&2; exit 3", "\"last\""),
            ("exec yes", "more than 4194304 bytes"),
        ] {
            let sentence = refused(script, 100.0);
            assert!(sentence.contains(words), "{script}: {sentence}");
            assert_eq!(sentence.lines().count(), 1);
        }
    }

    #[test]
    fn a_child_that_never_ends_is_ended() {
        for script in ["exec sleep 1000", "kill -STOP $$", "exec >&- 2>&-; exec sleep 1000"] {
            assert!(refused(script, 0.3).contains("longer than 0.3 s (model.load_timeout)"));
        }
    }

    #[test]
    fn a_stop_ends_the_trial() {
        let looks = Cell::new(0);
        let stop = || looks.replace(looks.get() + 1) > 2;
        assert!(matches!(run_command(shell("exec sleep 1000"), &config(100.0), &stop), Err(TrialError::Stopped)));
    }

    #[test]
    fn its_own_sentence_is_passed_on() {
        let script = r#"cat > /dev/null; echo '{"Refused":{"sentence":"m: no model at /m/some.onnx","is_usage":true}}'"#;
        let error = run_command(shell(script), &config(100.0), &|| false).expect_err("refused");
        assert!(matches!(&error, TrialError::Refused { is_usage: true, .. }), "{error}");
        assert_eq!(error.to_string(), "m: no model at /m/some.onnx");
    }

    #[test]
    fn without_a_child_there_is_no_model() {
        let error = run_command(Command::new("/nonexistent/eomt-edge"), &config(100.0), &|| false).expect_err("no such program");
        // an emulator starts the child before it looks for the program
        let emulated = std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_some();
        let said = if emulated { "exit code 127" } else { "cannot be started: No such file" };
        assert!(error.to_string().contains(said), "{error}");
    }
}
