//! The signals that steer the daemon: SIGINT and SIGTERM end it, SIGHUP makes it read its configuration again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals as Caught;

use super::service::Service;

/// What has been asked for since the start.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

/// How long the frame in work may take before the process ends under it.
const PATIENCE: Duration = Duration::from_millis(600);

impl Signals {
    /// Catches the signals. One inference on a small board may take seconds, a stop must not: when the main thread has not
    /// ended by then, the process exits, and the socket's reaper removes the socket.
    pub fn install() -> Result<Signals, String> {
        let signals = Signals::default();
        let (interrupt, terminate) = (signals.clone(), signals.clone());
        ctrlc::set_handler(move || interrupt.request_stop()).map_err(|error| error.to_string())?;
        let mut caught = Caught::new([SIGTERM, SIGHUP]).map_err(|error| error.to_string())?;
        let listen = move || {
            for signal in caught.forever() {
                match signal {
                    SIGHUP => terminate.reload.store(true, Ordering::SeqCst),
                    _ => terminate.request_stop(),
                }
            }
        };
        std::thread::Builder::new().name("eomt-signals".to_owned()).spawn(listen).map_err(|error| error.to_string())?;
        Ok(signals)
    }

    fn request_stop(&self) {
        if self.stop.swap(true, Ordering::SeqCst) {
            return;
        }
        // from here: the frame in work may outlast the patience
        Service::from_environment().stopping();
        std::thread::spawn(|| {
            std::thread::sleep(PATIENCE);
            std::process::exit(0);
        });
    }

    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// True once per request.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::SeqCst)
    }
}
