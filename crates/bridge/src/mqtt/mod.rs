//! `eomt-edge-bridge mqtt`: which classes are there, how many and how much of the picture and of zones, for home automation.
//!
//! ```text
//! ring ──thread──▶ Tracker ──values──▶ House (Board) ◀── due ── connection ──▶ broker ──▶ Home Assistant
//! ```
//!
//! Invariants: the ring is read on whatever the broker does; values that nobody took are replaced, not queued; availability is `offline` when
//! the daemon, this program or its connection is away. Refuses: commands; nothing that arrives changes the daemon.

mod board;
mod config;
mod discovery;
mod house;
mod incoming;
mod layout;
mod names;
mod session;
mod tracker;
mod zones;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use eomt_edge_overlay::Style;

use crate::masks::{Masks, News, RingFacts};
use crate::options::RingArgs;
use crate::picture::{Pictures, jpeg};
use crate::stop::{self, Beat, Stop};

pub use config::{BrokerAddress, Config, ConfigError, parse_broker};
pub use incoming::{Incoming, parse as parse_incoming};

use house::House;
use tracker::Tracker;

/// How long the reader waits for a frame before it says that it lives.
const PATIENCE: Duration = Duration::from_millis(500);
/// A daemon that is away for less is only loading another model.
const AWAY: Duration = Duration::from_secs(2);
/// Of the masks' colours over the picture.
const OPACITY: f32 = 0.45;

/// `eomt-edge-bridge mqtt`.
#[derive(Debug, Args)]
pub struct MqttArgs {
    #[command(flatten)]
    #[allow(missing_docs)] // would become help text
    pub ring: RingArgs,
    /// Broker, topics, zones: a TOML file whose keys config/eomt-edge-mqtt.toml explains
    #[arg(long, value_name = "FILE", default_value = "/etc/eomt-edge/eomt-edge-mqtt.toml")]
    pub config: PathBuf,
}

/// Why nothing is published.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The configuration is wrong.
    #[error("{file}: {source}")]
    Config {
        /// Where it stands.
        file: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// The system gives no thread, no handler, no poll descriptor.
    #[error("nothing is published")]
    System(#[from] io::Error),
    /// A bug: the reader's message was logged.
    #[error("the thread that reads the masks has ended")]
    Reader,
}

impl MqttArgs {
    /// Publishes until a signal.
    ///
    /// # Errors
    /// [`MqttError`].
    pub fn run(self) -> Result<(), MqttError> {
        let wrong = |source| MqttError::Config { file: self.config.display().to_string(), source };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let config = Config::load(&self.config, &host).map_err(wrong)?;
        let address = config.broker().map_err(wrong)?;
        let stop = Stop::install()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let house = Arc::new(House::new(&config));
        let beat = Arc::new(Beat::default());
        let reader = Reader::start(&self.ring.socket, &config, &house, &beat, &stop)?;
        stop::ready();
        let ended = runtime.block_on(async {
            tokio::select! {
                () = session::keep(&config, &address, &house, &stop) => Ok(()),
                error = watch(&reader, &beat, &stop) => Err(error),
            }
        });
        stop.request();
        ended
    }
}

/// Feeds the watchdog; returns when the reader has ended by itself.
async fn watch(reader: &JoinHandle<()>, beat: &Beat, stop: &Stop) -> MqttError {
    let mut ticks = tokio::time::interval(Duration::from_secs(2));
    loop {
        ticks.tick().await;
        if reader.is_finished() && !stop.requested() {
            return MqttError::Reader;
        }
        if beat.is_recent() {
            stop::alive("publishing");
        }
    }
}

/// Reads the ring.
struct Reader {
    masks: Masks,
    config: Config,
    house: Arc<House>,
    connection: u64,
    labels: Option<Vec<String>>,
    tracker: Option<Tracker>,
    away_since: Option<Instant>,
    pictures: Pictures,
    pictured_at: Option<Instant>,
}

impl Reader {
    fn start(socket: &Path, config: &Config, house: &Arc<House>, beat: &Arc<Beat>, stop: &Stop) -> io::Result<JoinHandle<()>> {
        let mut reader = Reader {
            masks: Masks::new(socket),
            config: config.clone(),
            house: Arc::clone(house),
            connection: 0,
            labels: None,
            tracker: None,
            away_since: None,
            pictures: Pictures::default(),
            pictured_at: None,
        };
        let (beat, stop) = (Arc::clone(beat), stop.clone());
        std::thread::Builder::new().name("masks".to_owned()).spawn(move || {
            while !stop.requested() {
                reader.turn();
                beat.beat();
            }
        })
    }

    fn turn(&mut self) {
        let found = match self.masks.next(PATIENCE) {
            News::Frame(_) => Some(true),
            News::Quiet => Some(false),
            News::Away => None,
        };
        let Some(is_frame) = found else { return self.away() };
        self.away_since = None;
        if self.masks.connections() != self.connection {
            self.connection = self.masks.connections();
            self.adopt();
        }
        let mut inner = self.house.lock();
        let fixed = inner.fixed;
        inner.board.set(fixed.availability, "online");
        if !is_frame {
            return;
        }
        let frame = self.masks.frame();
        inner.board.set(fixed.signal, if frame.no_signal() { "OFF" } else { "ON" });
        if let Some(tracker) = &mut self.tracker {
            if frame.no_signal() { tracker.interrupt() } else { tracker.frame(frame, &mut inner.board) }
        }
        drop(inner);
        if !self.masks.frame().no_signal() {
            self.picture();
        }
    }

    fn away(&mut self) {
        if let Some(tracker) = &mut self.tracker {
            tracker.interrupt();
        }
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= AWAY {
            let mut inner = self.house.lock();
            let availability = inner.fixed.availability;
            inner.board.set(availability, "offline");
        }
    }

    /// A ring that is new. With the same classes everything goes on.
    fn adopt(&mut self) {
        let facts: RingFacts = self.masks.facts().clone();
        if self.labels.as_ref() == Some(&facts.labels) {
            return self.house.rename(&facts);
        }
        let topics = self.house.furnish(&facts);
        self.tracker = Some(Tracker::new(&self.config, topics, facts.labels.len()));
        self.labels = Some(facts.labels);
    }

    fn picture(&mut self) {
        let Some(every) = self.config.image_every() else { return };
        if self.pictured_at.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.pictured_at = Some(Instant::now());
        let frame = self.masks.frame();
        let rgb = self.pictures.overlay(frame, &self.masks.facts().labels, Style { opacity: OPACITY, font: None });
        match jpeg(rgb, frame.width(), frame.height(), self.config.image.quality) {
            Ok(bytes) if bytes.len() < session::MESSAGE_BYTES_MAX / 2 => {
                let mut inner = self.house.lock();
                if let Some(index) = inner.fixed.image {
                    inner.board.set(index, bytes);
                }
            }
            Ok(bytes) => log::warn!("a picture of {} bytes is too large for a message: lower image.quality", bytes.len()),
            Err(error) => log::warn!("{error}"),
        }
    }
}
