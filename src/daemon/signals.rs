//! The signals that steer the daemon: SIGINT and SIGTERM end it, SIGHUP makes it read its configuration again, SIGXCPU says that its time is up.
//!
//! A handler stores a flag and writes a byte; the supervisor's thread waits for bytes, the main thread looks at the flags between two frames.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXCPU};
use signal_hook::{flag, low_level::pipe};

/// What SIGXCPU means.
pub const TIME_IS_UP: &str = "the CPU time that this process may use is over (`ulimit -t`, LimitCPU=)";

/// What has been asked for since the start.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    /// RLIMIT_CPU: the next thing would be SIGKILL.
    time_is_up: Arc<AtomicBool>,
    /// A byte for each signal. `None`: none is caught.
    heard: Option<Arc<UnixStream>>,
}

impl Signals {
    /// Catches the signals.
    ///
    /// # Errors
    /// When the system gives no descriptors.
    pub fn install() -> io::Result<Signals> {
        let (heard, rings) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        let signals = Signals { heard: Some(Arc::new(heard)), ..Signals::default() };
        let Signals { stop, reload, time_is_up, .. } = &signals;
        for (signal, noted) in [(SIGINT, stop), (SIGTERM, stop), (SIGHUP, reload), (SIGXCPU, time_is_up)] {
            // in this order: who hears the byte finds the flag
            flag::register(signal, Arc::clone(noted))?;
            pipe::register(signal, rings.try_clone()?)?;
        }
        Ok(signals)
    }

    /// Sleeps until a signal comes, `patience` (less than a second, or one) at most.
    pub fn wait(&self, patience: Duration) {
        let Some(mut heard) = self.heard.as_deref() else { return std::thread::sleep(patience) };
        let timeout = Timespec { tv_sec: patience.as_secs() as _, tv_nsec: patience.subsec_nanos().into() };
        // an interrupted wait is a short one
        let _ = poll(&mut [PollFd::new(heard, PollFlags::IN)], Some(&timeout));
        while heard.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    }

    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether the CPU time that the process may use is over.
    pub fn time_is_up(&self) -> bool {
        self.time_is_up.load(Ordering::SeqCst)
    }

    /// With which code the process ends, if it is to.
    pub fn exit_code(&self) -> Option<i32> {
        if self.stop_requested() { Some(0) } else { self.time_is_up().then_some(1) }
    }

    /// True once per request.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::SeqCst)
    }
}
