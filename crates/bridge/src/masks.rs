//! The mask ring as a bridge reads it: the daemon may be away, and come back with another model.
//!
//! Invariants: a call ends within its patience; a daemon that is away is no error, and is looked for again with growing pauses; what a later
//! attempt cannot mend (no permission, another ABI) is told once, and again when it changes. Refuses: to queue frames; the newest counts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eomt_edge_client::{ClientError, MaskFrame, Subscriber};
use serde_json::Value;

/// The pauses between attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// One attempt to connect ends within this.
const ATTEMPT: Duration = Duration::from_millis(500);

/// What [`Masks::next`] found.
#[derive(Debug)]
pub enum News<'a> {
    /// A frame newer than the last one.
    Frame(&'a MaskFrame),
    /// The daemon is there and has published nothing new.
    Quiet,
    /// No daemon is there.
    Away,
}

/// What a ring says about itself, once for each connection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RingFacts {
    /// Class names, indexed by a segment's class.
    pub labels: Vec<String>,
    /// The ring's metadata: name, task, stuff_classes, program ...
    pub metadata: Value,
    /// Process id of the daemon.
    pub writer_pid: u32,
    /// Of the ring: version 1 tells no causes of drops, and no failures.
    pub abi_version: u32,
}

impl RingFacts {
    /// The name of a class; its number where it has none.
    pub fn label(&self, class: u16) -> String {
        self.labels.get(usize::from(class)).cloned().unwrap_or_else(|| class.to_string())
    }

    /// A text of the metadata; empty when it has none of that name.
    pub fn text(&self, key: &str) -> &str {
        self.metadata.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A subscriber that connects again by itself.
#[derive(Debug)]
pub struct Masks {
    socket: PathBuf,
    subscriber: Option<Subscriber>,
    facts: RingFacts,
    /// Counts connections: facts may have changed when it has.
    connections: u64,
    frame: MaskFrame,
    pause: Duration,
    retry_at: Option<Instant>,
    complaint: Option<String>,
}

impl Masks {
    /// Nothing is opened yet.
    pub fn new(socket: &Path) -> Masks {
        Masks {
            socket: socket.into(),
            subscriber: None,
            facts: RingFacts::default(),
            connections: 0,
            frame: MaskFrame::default(),
            pause: PAUSE_MIN,
            retry_at: None,
            complaint: None,
        }
    }

    /// Waits for a frame, for the daemon, or until `patience` has passed.
    pub fn next(&mut self, patience: Duration) -> News<'_> {
        let deadline = Instant::now() + patience;
        if !self.connect(deadline) {
            return News::Away;
        }
        let Some(subscriber) = &mut self.subscriber else { return News::Away };
        let left = deadline.saturating_duration_since(Instant::now());
        match subscriber.next_into(&mut self.frame, Some(left)) {
            Ok(true) => News::Frame(&self.frame),
            Ok(false) => News::Quiet,
            Err(error) => {
                self.lose(error);
                News::Away
            }
        }
    }

    /// The frame that [`Masks::next`] found last, once it has found one: to be read together with the ring's facts.
    pub fn frame(&self) -> &MaskFrame {
        &self.frame
    }

    /// What the newest ring said about itself; that of the last one while no daemon is there.
    pub fn facts(&self) -> &RingFacts {
        &self.facts
    }

    /// Another number after each new connection.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Whether a daemon is there.
    pub fn is_connected(&self) -> bool {
        self.subscriber.is_some()
    }

    /// Frames that this bridge was too slow for, since it connected.
    pub fn skipped(&self) -> u64 {
        self.subscriber.as_ref().map_or(0, Subscriber::skipped)
    }

    /// CLOCK_MONOTONIC nanoseconds of the daemon's last sign of life.
    pub fn heartbeat_ns(&self) -> Option<u64> {
        self.subscriber.as_ref().map(Subscriber::heartbeat_ns)
    }

    fn connect(&mut self, deadline: Instant) -> bool {
        while self.subscriber.is_none() {
            let now = Instant::now();
            let at = self.retry_at.unwrap_or(now);
            if at >= deadline {
                std::thread::sleep(deadline.saturating_duration_since(now));
                return false;
            }
            std::thread::sleep(at.saturating_duration_since(now));
            match Subscriber::connect_within(&self.socket, ATTEMPT) {
                Ok(subscriber) => self.adopt(subscriber),
                Err(error) => self.lose(error),
            }
        }
        true
    }

    fn adopt(&mut self, subscriber: Subscriber) {
        self.facts = RingFacts {
            labels: subscriber.labels().to_vec(),
            metadata: serde_json::from_str(subscriber.metadata()).unwrap_or_default(),
            writer_pid: subscriber.ring().writer_pid,
            abi_version: subscriber.ring().abi_version,
        };
        self.connections += 1;
        log::info!("masks of {}: {} classes of {}", self.socket.display(), self.facts.labels.len(), self.facts.text("name"));
        (self.subscriber, self.pause, self.retry_at, self.complaint) = (Some(subscriber), PAUSE_MIN, None, None);
    }

    fn lose(&mut self, error: ClientError) {
        let sentence = error.to_string();
        let ended = matches!(error, ClientError::Ended { .. });
        if self.complaint.as_ref() != Some(&sentence) {
            if ended {
                log::info!("{sentence}")
            } else {
                log::warn!("{sentence}; trying again")
            }
            self.complaint = Some(sentence);
        }
        self.subscriber = None;
        self.retry_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}
