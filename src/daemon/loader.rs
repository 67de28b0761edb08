//! Tries and loads networks beside the frame path.
//!
//! One thread for the life of the daemon: each of many would leave memory behind in the allocator's arena of its own. Both channels hold
//! one message: the daemon orders one network at a time and takes it before it orders the next one. A thread that does not come back is
//! left behind and another one takes its place, [`ABANDONED_MAX`] times.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::builder::Network;
use super::trial;
use crate::config::ModelConfig;

/// Threads that hang in a load hold memory; more of them are not risked.
const ABANDONED_MAX: usize = 2;

/// The thread that loads, once there was something to load, and those that were left behind.
#[derive(Debug)]
pub struct Loaders {
    work: Work,
    current: Option<Loader>,
    abandoned: Vec<JoinHandle<()>>,
}

/// Tries and loads, until it is told to give up.
type Work = fn(&ModelConfig, &AtomicBool) -> Result<Network, String>;

impl Default for Loaders {
    fn default() -> Loaders {
        Loaders { work: load, current: None, abandoned: Vec::new() }
    }
}

impl Loaders {
    /// Begins to try and to load.
    ///
    /// # Errors
    /// One sentence: the system gives no thread, or too many of them hang.
    pub fn order(&mut self, config: &ModelConfig) -> Result<(), String> {
        self.abandoned.retain(|thread| !thread.is_finished());
        if self.abandoned.len() >= ABANDONED_MAX {
            return Err(format!("{ABANDONED_MAX} models that were to be loaded hang, and no other one is tried: restart the daemon"));
        }
        let loader = match self.current.take().filter(Loader::is_alive) {
            Some(loader) => loader,
            None => Loader::start(self.work).map_err(|error| format!("no thread to load the model: {error}"))?,
        };
        loader.order(config);
        self.current = Some(loader);
        Ok(())
    }

    /// What was loaded, or why not; `None` while it is not done.
    pub fn take(&self) -> Option<Result<Network, String>> {
        match &self.current {
            Some(loader) => loader.take(),
            None => Some(Err("nothing was to be loaded".to_owned())),
        }
    }

    /// Gives up what was ordered: a trial ends at once, a load when it comes back.
    pub fn abandon(&mut self) {
        if let Some(Loader { given_up, thread, .. }) = self.current.take() {
            given_up.store(true, Ordering::SeqCst);
            self.abandoned.push(thread);
        }
    }
}

/// A thread that waits for something to load.
#[derive(Debug)]
struct Loader {
    orders: SyncSender<ModelConfig>,
    loaded: Receiver<Result<Network, String>>,
    given_up: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Loader {
    fn start(work: Work) -> io::Result<Loader> {
        let (orders, ordered) = sync_channel::<ModelConfig>(1);
        let (done, loaded) = sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&given_up);
        let run = move || {
            // until the daemon drops its ends
            while let Ok(config) = ordered.recv() {
                if done.send(work(&config, &stop)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("eomt-load".to_owned()).spawn(run)?;
        Ok(Loader { orders, loaded, given_up, thread })
    }

    /// Whether it takes another order: not after a panic.
    fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// An order on top of one that waits is dropped: [`Loader::take`] then gives what was ordered first.
    fn order(&self, config: &ModelConfig) {
        let _ = self.orders.try_send(config.clone()); // `take` reports a thread that has ended
    }

    fn take(&self) -> Option<Result<Network, String>> {
        match self.loaded.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("loading the model panicked, which is a bug".to_owned())),
        }
    }
}

fn load(config: &ModelConfig, stop: &AtomicBool) -> Result<Network, String> {
    let tried = trial::run(config, &|| stop.load(Ordering::SeqCst)).map_err(|error| error.to_string())?;
    Network::start(config, Some(tried.contents)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    static RELEASED: AtomicBool = AtomicBool::new(false);

    /// A load that does not come back, and looks at nothing, until the test is over.
    fn hangs(config: &ModelConfig, _: &AtomicBool) -> Result<Network, String> {
        while config.threads > 0 && !RELEASED.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("it has come back".to_owned())
    }

    fn wait(loaders: &Loaders) -> String {
        loop {
            match loaders.take() {
                Some(Ok(_)) => panic!("nothing is loaded here"),
                Some(Err(sentence)) => return sentence,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    #[test]
    fn threads_that_hang_are_left_behind_and_counted() {
        let mut loaders = Loaders { work: hangs, ..Loaders::default() };
        let [good, bad] = [0, 1].map(|threads| ModelConfig { threads, ..ModelConfig::default() });
        for _ in 0..ABANDONED_MAX {
            loaders.order(&bad).expect("a thread");
            assert!(loaders.take().is_none(), "it hangs");
            loaders.abandon();
        }
        assert!(loaders.order(&good).expect_err("too many hang").contains("restart"));
        RELEASED.store(true, Ordering::SeqCst);
        while !loaders.abandoned.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..3 {
            loaders.order(&good).expect("a thread");
            assert_eq!(wait(&loaders), "it has come back");
        }
        assert!(loaders.abandoned.is_empty());
    }

    #[test]
    fn a_panic_is_an_answer() {
        let mut loaders = Loaders { work: |_, _| panic!("as a test"), ..Loaders::default() };
        loaders.order(&ModelConfig::default()).expect("a thread");
        assert!(wait(&loaders).contains("panicked"));
        loaders.order(&ModelConfig::default()).expect("another thread");
        assert!(wait(&loaders).contains("panicked"));
    }
}
