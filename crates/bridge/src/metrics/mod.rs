//! `eomt-edge-bridge metrics`: what the daemon does and how the machine is, for Prometheus.
//!
//! ```text
//! ring ──thread──▶ Counts ◀──lock── page ◀── GET /metrics ── Prometheus
//! /sys, /proc ────────────────────────┘ (read at most once a second)
//! ```
//!
//! Invariants: whatever scrapers do, the ring is read on; a counter never goes back while this process lives, though the daemon restarts; a
//! number that the machine does not tell has no line. Refuses: to push, to store, to be asked for anything but `GET /metrics`.

mod counts;
mod machine;
mod page;
mod server;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;

use crate::clock::monotonic_ns;
use crate::masks::{Masks, News};
use crate::options::RingArgs;
use crate::stop::{self, Beat, Stop};

pub use page::Format;
pub use server::router;

use counts::Counts;
use machine::Machine;

/// How long the reader waits for a frame before it says that it lives.
const PATIENCE: Duration = Duration::from_millis(500);

/// `eomt-edge-bridge metrics`.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    #[command(flatten)]
    #[allow(missing_docs)] // would become help text
    pub ring: RingArgs,
    /// Where to serve /metrics; anybody who reaches it may read it, without a password
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464")]
    pub listen: SocketAddr,
}

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address is taken, or not this machine's.
    #[error("metrics cannot be served at {listen} (see --listen)")]
    Listen {
        /// As configured.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gives no thread, no handler, no poll descriptor.
    #[error("metrics cannot be served")]
    System(#[from] io::Error),
    /// A bug: the reader's message was logged.
    #[error("the thread that reads the masks has ended")]
    Reader,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
    machine: Mutex<Machine>,
    /// The reader's.
    beat: Beat,
}

impl Metrics {
    /// Counts the frames of `socket` in a thread, which ends when `stop` is requested.
    ///
    /// # Errors
    /// When the system has no room for a thread.
    pub fn start(socket: &Path, stop: &Stop) -> io::Result<(Arc<Metrics>, JoinHandle<()>)> {
        let metrics = Arc::new(Metrics::default());
        let (reader, mut masks, stop) = (Arc::clone(&metrics), Masks::new(socket), stop.clone());
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            while !stop.requested() {
                reader.turn(&mut masks);
            }
        })?;
        Ok((metrics, thread))
    }

    /// Whether the reader still takes turns.
    pub fn is_alive(&self) -> bool {
        self.beat.is_recent()
    }

    /// The page as a scraper gets it.
    pub fn page(&self, format: Format) -> String {
        let facts = self.machine.lock().unwrap_or_else(PoisonError::into_inner).facts(self.counts().writer_pid());
        page::render(&self.counts(), &facts, monotonic_ns(), format)
    }

    /// One line for `systemctl status`.
    fn status(&self) -> String {
        self.counts().status()
    }

    fn turn(&self, masks: &mut Masks) {
        let found = match masks.next(PATIENCE) {
            News::Frame(_) => Some(true),
            News::Quiet => Some(false),
            News::Away => None,
        };
        let mut counts = self.counts();
        match found {
            None => counts.away(),
            Some(is_frame) => {
                counts.ring(masks.connections(), masks.facts());
                if let (true, Some(heartbeat_ns)) = (is_frame, masks.heartbeat_ns()) {
                    counts.frame(masks.frame(), heartbeat_ns);
                } else if let Some(heartbeat_ns) = masks.heartbeat_ns() {
                    counts.heartbeat(heartbeat_ns);
                }
            }
        }
        drop(counts);
        self.beat.beat();
    }

    /// Counts are numbers that are right after every statement: a panic elsewhere spoils none.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetricsArgs {
    /// Serves until a signal.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub fn run(self) -> Result<(), MetricsError> {
        let stop = Stop::install()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = runtime.block_on(self.serve(&stop));
        stop.request();
        served
    }

    async fn serve(&self, stop: &Stop) -> Result<(), MetricsError> {
        let listen = self.listen;
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(|source| MetricsError::Listen { listen, source })?;
        let address = listener.local_addr()?;
        let (metrics, reader) = Metrics::start(&self.ring.socket, stop)?;
        log::info!("metrics at http://{address}/metrics{}", if address.ip().is_loopback() { "" } else { ", for everybody who reaches it" });
        let server = tokio::spawn(server::serve(listener, Arc::clone(&metrics)));
        stop::ready();
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let mut told = 0;
        while !stop.requested() {
            ticks.tick().await;
            // in this order: a reader that ends because it is time to has not failed
            if (reader.is_finished() || server.is_finished()) && !stop.requested() {
                return Err(MetricsError::Reader);
            }
            told += 1;
            if told % 20 == 0 && metrics.is_alive() {
                stop::alive(&metrics.status());
            }
        }
        server.abort();
        Ok(())
    }
}
