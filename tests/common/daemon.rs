//! A daemon as a process of its own, and a subscriber to it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eomt_edge_client::{MaskFrame, Subscriber};
use rustix::process::{Pid, Signal, kill_process};

use super::{eomt_edge, shipped_model};

/// Waiting for so long means that it never comes: no test depends on how fast a machine is.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon that is killed when the test ends.
pub struct Daemon(pub Child);

impl Daemon {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("the daemon lives");
    }

    /// Waits for the end and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(socket: &Path, source: &str, settings: &[&str]) -> Command {
    let mut command = eomt_edge();
    command.args(["run", "--source", source, "--model"]).arg(shipped_model());
    command.arg("--set").arg(format!("ring.socket={}", socket.display()));
    settings.iter().for_each(|setting| {
        command.args(["--set", setting]);
    });
    command.stderr(Stdio::null());
    command
}

pub fn start(socket: &Path, source: &str, settings: &[&str]) -> Daemon {
    Daemon(run(socket, source, settings).spawn().expect("the daemon starts"))
}

pub fn connect(socket: &Path) -> Subscriber {
    Subscriber::connect_retry(socket, PATIENCE).expect("the daemon listens")
}

pub fn next(subscriber: &mut Subscriber) -> MaskFrame {
    subscriber.next(Some(PATIENCE)).expect("a live daemon").expect("a frame in time")
}
