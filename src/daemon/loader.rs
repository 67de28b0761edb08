//! Loads networks beside the frame path.
//!
//! One thread for the life of the daemon: each of many would leave memory behind in the allocator's arena of its own.

use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use super::builder::Network;
use crate::config::ModelConfig;

/// A thread that waits for something to load.
pub struct Loader {
    orders: Sender<ModelConfig>,
    loaded: Receiver<Result<Network, String>>,
    thread: JoinHandle<()>,
}

impl Loader {
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Loader> {
        let (orders, ordered) = channel::<ModelConfig>();
        let (done, loaded) = channel();
        let work = move || {
            // until the daemon drops its ends
            while let Ok(config) = ordered.recv() {
                if done.send(Network::start(&config).map_err(|error| error.to_string())).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("eomt-load".to_owned()).spawn(work)?;
        Ok(Loader { orders, loaded, thread })
    }

    /// Whether it takes another order: not after a panic.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Begins to load.
    pub fn order(&self, config: &ModelConfig) {
        let _ = self.orders.send(config.clone()); // a thread that is gone is met by `take`
    }

    /// What was loaded, or why not; `None` while it is not done.
    pub fn take(&self) -> Option<Result<Network, String>> {
        match self.loaded.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("loading the model panicked, which is a bug".to_owned())),
        }
    }
}
