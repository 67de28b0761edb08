//! Tries and loads networks, and opens sources, beside the frame path.
//!
//! One thread for the life of the daemon: each of many would leave memory behind in the allocator's arena of its own. Both channels hold
//! one message: the daemon orders one configuration at a time and takes it before it orders the next one. A thread that does not come back is
//! left behind and another one takes its place, [`ABANDONED_MAX`] times.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use eomt_edge_core::pipeline::Source;

use super::builder::{LOAD_STACK, Network, open_source, source_uri};
use super::trial;
use crate::config::Config;

/// Threads that hang hold memory; more of them are not risked.
const ABANDONED_MAX: usize = 2;

/// The thread that loads, once there was something to load, and those that were left behind.
#[derive(Debug)]
pub struct Loaders {
    work: Work,
    current: Option<Loader>,
    abandoned: Vec<JoinHandle<()>>,
}

/// What a configuration needs.
pub struct Loaded {
    pub network: Network,
    /// If it was ordered.
    pub source: Option<Box<dyn Source>>,
}

/// What is to be loaded.
#[derive(Debug, Clone)]
struct Order {
    config: Config,
    /// The source as well.
    opens: bool,
}

/// What a thread and the daemon tell each other.
#[derive(Debug, Default)]
struct Progress {
    /// By the daemon: nobody waits any more.
    given_up: AtomicBool,
    /// By the thread: the model is there, its source is being opened.
    opening: AtomicBool,
}

/// Does it, until it is told to give up.
type Work = fn(&Order, &Progress) -> Result<Loaded, String>;

impl Default for Loaders {
    fn default() -> Loaders {
        Loaders { work: load, current: None, abandoned: Vec::new() }
    }
}

impl Loaders {
    /// Begins to try and to load the model of `config`, and then to open its source, if that is wanted.
    ///
    /// # Errors
    /// One sentence: the system gives no thread, or too many of them hang.
    pub fn order(&mut self, config: &Config, opens: bool) -> Result<(), String> {
        self.abandoned.retain(|thread| !thread.is_finished());
        if self.abandoned.len() >= ABANDONED_MAX {
            return Err(format!(
                "{ABANDONED_MAX} models or sources that were to be loaded hang, and no other one is tried: restart the daemon"
            ));
        }
        let loader = match self.current.take().filter(Loader::is_alive) {
            Some(loader) => loader,
            None => Loader::start(self.work).map_err(|error| format!("no thread to load the model: {error}"))?,
        };
        loader.order(Order { config: config.clone(), opens });
        self.current = Some(loader);
        Ok(())
    }

    /// What was loaded, or why not; `None` while it is not done.
    pub fn take(&self) -> Option<Result<Loaded, String>> {
        match &self.current {
            Some(loader) => loader.take(),
            None => Some(Err("nothing was to be loaded".to_owned())),
        }
    }

    /// Gives up what was ordered: a trial ends at once, the rest when it comes back. Returns whether a source was being opened.
    pub fn abandon(&mut self) -> bool {
        let Some(Loader { progress, thread, .. }) = self.current.take() else { return false };
        progress.given_up.store(true, Ordering::SeqCst);
        self.abandoned.push(thread);
        progress.opening.load(Ordering::SeqCst)
    }
}

/// A thread that waits for something to load.
#[derive(Debug)]
struct Loader {
    orders: SyncSender<Order>,
    loaded: Receiver<Result<Loaded, String>>,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

impl Loader {
    fn start(work: Work) -> io::Result<Loader> {
        let (orders, ordered) = sync_channel::<Order>(1);
        let (done, loaded) = sync_channel(1);
        let progress = Arc::new(Progress::default());
        let own = Arc::clone(&progress);
        let run = move || {
            // until the daemon drops its ends
            while let Ok(order) = ordered.recv() {
                if done.send(work(&order, &own)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("eomt-load".to_owned()).stack_size(LOAD_STACK).spawn(run)?;
        Ok(Loader { orders, loaded, progress, thread })
    }

    /// Whether it takes another order: not after a panic.
    fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// An order on top of one that waits is dropped: [`Loader::take`] then gives what was ordered first.
    fn order(&self, order: Order) {
        let _ = self.orders.try_send(order); // `take` reports a thread that has ended
    }

    fn take(&self) -> Option<Result<Loaded, String>> {
        match self.loaded.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("loading the model panicked, which is a bug".to_owned())),
        }
    }
}

fn load(Order { config, opens }: &Order, progress: &Progress) -> Result<Loaded, String> {
    progress.opening.store(false, Ordering::SeqCst);
    let tried = trial::run(&config.model, &|| progress.given_up.load(Ordering::SeqCst)).map_err(|error| error.to_string())?;
    let network = Network::start(&config.model, Some(tried.contents)).map_err(|error| error.to_string())?;
    progress.opening.store(true, Ordering::SeqCst);
    // a camera is opened beside the old one, which streams on until this one is known to be there
    let open = || source_uri(config).and_then(|uri| open_source(&uri, config));
    let source = opens.then(open).transpose().map_err(|error| error.to_string())?;
    Ok(Loaded { network, source })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    static RELEASED: AtomicBool = AtomicBool::new(false);

    /// A load that does not come back, and looks at nothing, until the test is over.
    fn hangs(order: &Order, progress: &Progress) -> Result<Loaded, String> {
        progress.opening.store(order.opens, Ordering::SeqCst);
        while order.config.model.threads > 0 && !RELEASED.load(Ordering::SeqCst) {
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
        let [good, bad] = [0, 1].map(|threads| {
            let mut config = Config::parse("", &[]).expect("the defaults");
            config.model.threads = threads;
            config
        });
        for opens in [false, true] {
            loaders.order(&bad, opens).expect("a thread");
            assert!(loaders.take().is_none(), "it hangs");
            let named = loaders.current.as_ref().map(|loader| Arc::clone(&loader.progress)).expect("it is there");
            while opens && !named.opening.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(loaders.abandon(), opens);
        }
        assert!(loaders.order(&good, false).expect_err("too many hang").contains("restart"));
        RELEASED.store(true, Ordering::SeqCst);
        while !loaders.abandoned.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..3 {
            loaders.order(&good, false).expect("a thread");
            assert_eq!(wait(&loaders), "it has come back");
        }
        assert!(loaders.abandoned.is_empty());
    }

    #[test]
    fn a_panic_is_an_answer() {
        let mut loaders = Loaders { work: |_, _| panic!("as a test"), ..Loaders::default() };
        let config = Config::parse("", &[]).expect("the defaults");
        loaders.order(&config, false).expect("a thread");
        assert!(wait(&loaders).contains("panicked"));
        loaders.order(&config, false).expect("another thread");
        assert!(wait(&loaders).contains("panicked"));
    }
}
