//! SIGINT and SIGTERM end a subcommand in good order; systemd hears that it is ready and lives.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::clock::monotonic_ns;

/// A thread without a sign of life for so long hangs.
const BEAT_NS: u64 = 10_000_000_000;

/// Whether it is time to end.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Catches SIGINT and SIGTERM.
    ///
    /// # Errors
    /// When the system has no room for a handler.
    pub fn install() -> io::Result<Stop> {
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM] {
            // a second signal ends a program that the first could not
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop.0))?;
            signal_hook::flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// True once a signal came, or [`Stop::request`] was called.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Asks for the end.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Tells systemd, if it started this process, that it serves.
pub fn ready() {
    // fails without a service manager, which is no failure
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// Feeds systemd's watchdog, and shows `status` in `systemctl status`.
pub fn alive(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(status)]);
}

/// A thread's sign of life, for the thread that feeds systemd's watchdog.
#[derive(Debug)]
pub struct Beat(AtomicU64);

impl Default for Beat {
    fn default() -> Beat {
        Beat(AtomicU64::new(monotonic_ns()))
    }
}

impl Beat {
    /// It lives.
    pub fn beat(&self) {
        self.0.store(monotonic_ns(), Ordering::Relaxed);
    }

    /// Whether it lived within the last ten seconds.
    pub fn is_recent(&self) -> bool {
        monotonic_ns().saturating_sub(self.0.load(Ordering::Relaxed)) < BEAT_NS
    }
}
