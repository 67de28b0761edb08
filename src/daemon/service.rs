//! What the daemon tells systemd (sd_notify(3)): ready, reloading, stopping, signs of life, and one line of status.
//!
//! Without `NOTIFY_SOCKET` in the environment all of it does nothing.

use std::time::{Duration, Instant};

use eomt_edge_host::output::sentence;
use sd_notify::NotifyState;

/// The service manager's end of the daemon.
#[derive(Debug)]
pub struct Service {
    managed: bool,
    /// Time between two signs of life: half of what the watchdog allows.
    interval: Option<Duration>,
    fed: Option<Instant>,
}

impl Service {
    /// Finds the service manager in the environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Service {
        let managed = std::env::var_os("NOTIFY_SOCKET").is_some();
        Service { managed, interval: sd_notify::watchdog_enabled().map(|limit| limit / 2), fed: None }
    }

    /// The start may take `time` longer than the unit says: a model is tried and loaded.
    pub fn extend_start(&self, time: Duration) {
        self.tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// The first inference went well.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&sentence(status))]);
    }

    /// The configuration is being read again; ends with [`Service::ready`].
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => log::warn!("the service manager is not told of the reload: {error}"),
        }
    }

    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(&sentence(status))]);
    }

    /// A sign of life: a frame is done, or the daemon waits for one as it should.
    pub fn alive(&mut self, now: Instant) {
        let due = self.interval.is_some_and(|interval| self.fed.is_none_or(|fed| now.duration_since(fed) >= interval));
        if due {
            self.fed = Some(now);
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    fn tell(&self, state: &[NotifyState]) {
        if !self.managed {
            return;
        }
        if let Err(error) = sd_notify::notify(state) {
            log::warn!("the service manager cannot be told {state:?}: {error}");
        }
    }
}
