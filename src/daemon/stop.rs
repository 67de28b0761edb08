//! SIGTERM, SIGINT and SIGHUP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Becomes true when somebody asks the program to end.
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    requested: Arc<AtomicBool>,
}

/// How long the frame in work may take before the process ends under it.
const PATIENCE: Duration = Duration::from_millis(800);

impl StopSignal {
    /// Catches the signals. One inference on a small board may take seconds, a stop must not: when the main thread has not
    /// ended by then, the process exits, and the socket's reaper removes the socket.
    pub fn install() -> Result<StopSignal, String> {
        let signal = StopSignal::default();
        let requested = Arc::clone(&signal.requested);
        let handler = move || {
            if requested.swap(true, Ordering::SeqCst) {
                return;
            }
            std::thread::spawn(|| {
                std::thread::sleep(PATIENCE);
                std::process::exit(0);
            });
        };
        match ctrlc::set_handler(handler) {
            Ok(()) => Ok(signal),
            Err(error) => Err(error.to_string()),
        }
    }

    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }
}
