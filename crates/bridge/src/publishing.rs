//! A node that publishes the masks, whatever carries its messages.
//!
//! Invariants: the daemon and subscribers may come and go in any order; a message that the transport has no room for is left out and counted; what
//! costs much (overlay, camera frame, raw pictures) is made only while somebody subscribes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::clock::{StampClock, monotonic_ns, realtime_ns};
use crate::masks::{Masks, News};
use crate::node::Node;
use crate::stop::{self, Stop};
use crate::topics::{Health, Messages, Topic};

/// A signal is noticed within this.
const PATIENCE: Duration = Duration::from_millis(200);

/// What carries messages to subscribers.
pub trait Transport {
    /// Whether it keeps the last message of a latched topic for those who come later; else that one is sent again each second.
    const LATCHES: bool;

    /// Sends a message with its encapsulation header; never waits for a subscriber. False when there was no room for it.
    ///
    /// # Errors
    /// When nothing more can be sent.
    fn write(&mut self, topic: Topic, message: Vec<u8>) -> anyhow::Result<bool>;

    /// Looks who subscribes; called once a second. True when it has begun anew and keeps nothing of what was sent before.
    ///
    /// # Errors
    /// When it cannot begin anew.
    fn look(&mut self) -> anyhow::Result<bool>;

    /// Whether somebody subscribed at the last look.
    fn has_subscriber(&self, topic: Topic) -> bool;
}

/// What the node has and knows.
pub struct Publishing<T> {
    masks: Masks,
    clock: StampClock,
    health: Health,
    messages: Messages,
    topics: BTreeSet<Topic>,
    /// Of the connection whose labels were sent last.
    labels_of: u64,
    labels: Option<Vec<u8>>,
    frames: u64,
    left_out: BTreeMap<Topic, u64>,
    transport: T,
}

impl<T: Transport> Publishing<T> {
    /// Publishes `topics`, which `transport` has.
    pub fn new(socket: &Path, node: &Node, messages: Messages, topics: Vec<Topic>, transport: T) -> Publishing<T> {
        Publishing {
            masks: Masks::new(socket),
            clock: StampClock::default(),
            health: Health::new(&node.full_name()[1..], socket),
            messages,
            topics: topics.into_iter().collect(),
            labels_of: 0,
            labels: None,
            frames: 0,
            left_out: BTreeMap::new(),
            transport,
        }
    }

    /// Until a signal comes. The number of frames.
    ///
    /// # Errors
    /// When the transport has failed, or a picture cannot be compressed.
    pub fn run(mut self, stop: &Stop) -> anyhow::Result<u64> {
        stop::ready();
        while !stop.requested() {
            self.turn()?;
        }
        Ok(self.frames)
    }

    /// Waits for a frame, a second, or a signal, and tells what there is to tell.
    fn turn(&mut self) -> anyhow::Result<()> {
        let came = matches!(self.masks.next(PATIENCE), News::Frame(_));
        if came {
            self.frame()?;
        }
        let now_ns = monotonic_ns();
        if self.health.is_due(now_ns) {
            self.second(now_ns)?;
        }
        Ok(())
    }

    fn frame(&mut self) -> anyhow::Result<()> {
        let (frame, facts) = (self.masks.frame(), self.masks.facts());
        let stamp_ns = self.clock.of(frame);
        self.frames += 1;
        self.health.frame(frame, monotonic_ns());
        let (topics, transport) = (&self.topics, &self.transport);
        let is_wanted = |topic: Topic| topics.contains(&topic) && (!topic.is_on_demand() || transport.has_subscriber(topic));
        let messages = self.messages.of_frame(frame, facts, stamp_ns, is_wanted)?;
        if self.labels_of != self.masks.connections() {
            self.labels_of = self.masks.connections();
            let labels = self.messages.label_info(facts, stamp_ns);
            self.labels = (!T::LATCHES).then(|| labels.clone());
            self.write(Topic::LabelInfo, labels)?;
        }
        for (topic, message) in messages {
            self.write(topic, message)?;
        }
        Ok(())
    }

    /// What is due once a second: who listens, how the daemon is doing.
    fn second(&mut self, now_ns: u64) -> anyhow::Result<()> {
        if self.transport.look()? {
            self.labels_of = 0;
        }
        let report = self.health.report(&self.masks, now_ns, realtime_ns());
        self.write(Topic::Diagnostics, report)?;
        if let Some(labels) = self.labels.clone() {
            self.write(Topic::LabelInfo, labels)?;
        }
        for (topic, count) in std::mem::take(&mut self.left_out) {
            log::warn!("{}: {count} messages left out, as a subscriber acknowledges nothing", topic.name());
        }
        let state = if self.masks.is_connected() { "daemon there" } else { "no daemon" };
        stop::alive(&format!("{state}, {} frames", self.frames));
        Ok(())
    }

    fn write(&mut self, topic: Topic, message: Vec<u8>) -> anyhow::Result<()> {
        if self.topics.contains(&topic) && !self.transport.write(topic, message)? {
            *self.left_out.entry(topic).or_default() += 1;
        }
        Ok(())
    }
}
