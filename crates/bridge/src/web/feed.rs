//! From the ring to the hub: the one thread that reads masks and encodes them, once for all viewers.
//!
//! Invariants: without viewers nothing is encoded. Refuses: to wait for a viewer.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use eomt_edge_client::MaskFrame;
use eomt_edge_overlay::class_colour;
use serde_json::{Value, json};

use super::hub::{Hub, publish};
use super::message::encode;
use crate::clock::monotonic_ns;
use crate::masks::{Masks, News, RingFacts};
use crate::picture::Pictures;

/// Between two looks at the stop flag and the state.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// No frame for so long, and no word of "no signal": the page says so.
const QUIET: Duration = Duration::from_secs(2);
/// The daemon shows signs of life more often than this, whatever its source does.
const SILENT_NS: u64 = 5_000_000_000;

/// Reads and encodes.
#[derive(Debug)]
pub struct Feed {
    masks: Masks,
    pictures: Pictures,
    quality: u8,
    connections: u64,
    last: Instant,
    /// The last frame's word; it holds until another frame comes.
    no_signal: bool,
    complaint: Option<String>,
}

impl Feed {
    /// Nothing is opened yet.
    pub fn new(masks: Masks, quality: u8) -> Feed {
        let pictures = Pictures::default();
        Feed { masks, pictures, quality, connections: 0, last: Instant::now(), no_signal: false, complaint: None }
    }

    /// One look at the ring, [`PATIENCE`] long at most.
    pub fn step(&mut self, hub: &Hub) {
        let news = match self.masks.next(PATIENCE) {
            News::Frame(frame) => {
                (self.last, self.no_signal) = (Instant::now(), frame.no_signal());
                show(hub, frame, &mut self.pictures, self.quality, &mut self.complaint);
                "live"
            }
            News::Quiet => "quiet",
            News::Away => "away",
        };
        if self.connections != self.masks.connections() {
            self.connections = self.masks.connections();
            (self.last, self.no_signal) = (Instant::now(), false);
            publish(&hub.facts, &facts(self.masks.facts()));
        }
        let silent = self.masks.heartbeat_ns().is_some_and(|beat| monotonic_ns().saturating_sub(beat) > SILENT_NS);
        publish(&hub.state, &json!({ "type": "state", "ring": self.word(news, silent), "viewers": hub.viewers() }));
    }

    /// The state in one word, which the page explains.
    fn word(&self, news: &str, silent: bool) -> &'static str {
        match news {
            "away" => "away",
            _ if silent => "silent",
            _ if self.no_signal => "no_signal",
            "quiet" if self.last.elapsed() > QUIET => "quiet",
            _ => "live",
        }
    }

    /// For the service manager.
    pub fn status(&self, hub: &Hub) -> String {
        let daemon = if self.masks.is_connected() { "masks of a daemon" } else { "no daemon" };
        format!("{} viewers, {daemon}", hub.viewers())
    }
}

fn show(hub: &Hub, frame: &MaskFrame, pictures: &mut Pictures, quality: u8, complaint: &mut Option<String>) {
    if hub.viewers() == 0 {
        hub.frame.send_if_modified(|old| old.take().is_some()); // the next viewer shall not see an old picture first
        return;
    }
    match encode(frame, pictures, quality) {
        Ok(encoded) => drop(hub.frame.send_replace(Some(Bytes::from(encoded.bytes)))),
        Err(error) => {
            let sentence = error.to_string();
            if complaint.as_ref() != Some(&sentence) {
                log::warn!("{sentence}: the page does not show it");
                *complaint = Some(sentence);
            }
        }
    }
}

/// What the ring says of itself, and the colours of its classes.
fn facts(ring: &RingFacts) -> Value {
    let colours: Vec<[u8; 3]> = (0..ring.labels.len().min(usize::from(u16::MAX)) as u16).map(class_colour).collect();
    json!({
        "type": "facts",
        "labels": ring.labels,
        "colours": colours,
        "metadata": ring.metadata,
        "pid": ring.writer_pid,
        "version": env!("CARGO_PKG_VERSION"),
    })
}
