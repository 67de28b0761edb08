//! Loads networks beside the frame path.
//!
//! One thread for the life of the daemon: each of many would leave memory behind in the allocator's arena of its own. Both channels hold
//! one message: the daemon orders one network at a time and takes it before it orders the next one.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::builder::Network;
use crate::config::ModelConfig;

/// A thread that waits for something to load.
pub struct Loader {
    orders: SyncSender<ModelConfig>,
    loaded: Receiver<Result<Network, String>>,
    thread: JoinHandle<()>,
}

impl Loader {
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Loader> {
        let (orders, ordered) = sync_channel::<ModelConfig>(1);
        let (done, loaded) = sync_channel(1);
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

    /// Begins to load. An order on top of one that waits is dropped: [`Loader::take`] then gives what was ordered first.
    pub fn order(&self, config: &ModelConfig) {
        let _ = self.orders.try_send(config.clone()); // `take` reports a thread that has ended
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
