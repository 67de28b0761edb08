//! What the daemon tells systemd (sd_notify(3)): ready, reloading, stopping, signs of life, and one line of status.
//!
//! Without `NOTIFY_SOCKET` in the environment all of it does nothing. A service manager that does not listen (it hangs, or reads its own
//! configuration) holds nobody up: what it has no room for is not said. Only "ready" waits, for it must not be lost.

use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager's end of the daemon.
#[derive(Debug)]
pub struct Service {
    managed: bool,
    /// The last line of status.
    status: String,
    /// What is wrong although frames go on; at the end of each line.
    trouble: Option<String>,
}

impl Service {
    /// Finds the service manager in the environment: `NOTIFY_SOCKET`.
    pub fn from_environment() -> Service {
        Service { managed: std::env::var_os("NOTIFY_SOCKET").is_some(), status: String::new(), trouble: None }
    }

    /// How long the service manager waits for a sign of life: `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn watchdog_limit(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }

    /// The start may take `time` longer than the unit says: a model is tried and loaded.
    pub fn extend_start(&self, time: Duration) {
        self.tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// The first inference went well.
    pub fn ready(&mut self, status: &str) {
        self.status = status.to_owned();
        let line = self.line();
        let ready = [NotifyState::Ready, NotifyState::Status(&line)];
        if let Err(error) = sd_notify::notify(&ready) {
            log::warn!("the service manager cannot be told {ready:?}: {error}");
        }
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

    pub fn status(&mut self, status: &str) {
        self.status = status.to_owned();
        self.tell(&[NotifyState::Status(&self.line())]);
    }

    /// Adds `trouble` to the line of status until it is over.
    pub fn trouble(&mut self, trouble: Option<&str>) {
        if self.trouble.as_deref() != trouble {
            self.trouble = trouble.map(str::to_owned);
            self.tell(&[NotifyState::Status(&self.line())]);
        }
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn line(&self) -> String {
        self.trouble.as_ref().map_or_else(|| self.status.clone(), |trouble| format!("{}; {trouble}", self.status))
    }

    fn tell(&self, state: &[NotifyState]) {
        match self.managed.then(|| send(state)) {
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                log::debug!("the service manager does not listen to {state:?}")
            }
            Some(Err(error)) => log::warn!("the service manager cannot be told {state:?}: {error}"),
            Some(Ok(_)) | None => {}
        }
    }
}

/// What sd_notify(3) does, without waiting.
fn send(state: &[NotifyState]) -> io::Result<usize> {
    let name = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&name),
    }?;
    let mut message = String::new();
    for state in state {
        let _ = writeln!(message, "{state}"); // a String takes all
    }
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_stays_in_the_line_until_it_is_over() {
        let mut service = Service { managed: false, status: String::new(), trouble: None };
        service.status("5.0 frames a second");
        service.trouble(Some("the display hangs"));
        assert_eq!(service.line(), "5.0 frames a second; the display hangs");
        service.status("no signal");
        assert_eq!(service.line(), "no signal; the display hangs");
        service.trouble(None);
        assert_eq!(service.line(), "no signal");
    }
}
