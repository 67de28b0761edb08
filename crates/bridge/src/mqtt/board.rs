//! What every topic should say, and what the broker was told: between the thread that reads the ring and the task that talks to the broker.
//!
//! ```text
//! ring thread ──set──▶ Board (topic: value, told) ──due──▶ broker
//! ```
//!
//! Invariants: one value a topic, the newest; nothing queues, whatever the broker does. A number's topic is due once in its interval; others
//! are due when they change. Topics of an earlier model are emptied at the broker, once it is known which they are.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Most topics of an earlier run that are remembered until they can be emptied.
const STRANGERS_MAX: usize = 16_384;

/// What a topic takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Told when it changes.
    AtOnce,
    /// Told once in the interval, when it has changed.
    Interval,
}

#[derive(Debug)]
struct Entry {
    topic: String,
    pace: Pace,
    retain: bool,
    /// `None`: not known yet.
    value: Option<Vec<u8>>,
    told: Option<Vec<u8>>,
    told_at: Option<Instant>,
}

/// A message that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    index: usize,
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// The values of all topics.
#[derive(Debug, Default)]
pub struct Board {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    /// Entries that were not told yet.
    dirty: BTreeSet<usize>,
    /// Topics below ours that the broker keeps, as it told.
    strangers: BTreeSet<String>,
    /// Whether `entries` are all there will be: strangers are known then.
    is_complete: bool,
    interval: Duration,
}

impl Board {
    /// Without topics.
    pub fn new(interval: Duration) -> Board {
        Board { interval, ..Board::default() }
    }

    /// Drops the topics from `first` on, for those of another model; they are emptied at the broker unless they come back.
    pub fn truncate(&mut self, first: usize) {
        for entry in self.entries.drain(first..) {
            self.index.remove(&entry.topic);
            if entry.told.is_some() && entry.retain && self.strangers.len() < STRANGERS_MAX {
                self.strangers.insert(entry.topic);
            }
        }
        self.dirty.retain(|&index| index < first);
        self.is_complete = false;
    }

    /// A new topic, without a value. The same topic twice is one.
    pub fn add(&mut self, topic: String, pace: Pace, retain: bool) -> usize {
        if let Some(&index) = self.index.get(&topic) {
            return index;
        }
        self.strangers.remove(&topic);
        self.index.insert(topic.clone(), self.entries.len());
        self.entries.push(Entry { topic, pace, retain, value: None, told: None, told_at: None });
        self.entries.len() - 1
    }

    /// All topics of the model are there: what else the broker keeps is old.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// How many topics there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The topic's newest value.
    pub fn set(&mut self, index: usize, value: impl Into<Vec<u8>>) {
        let value = value.into();
        let Some(entry) = self.entries.get_mut(index) else { return };
        if entry.told.as_ref() == Some(&value) {
            self.dirty.remove(&index);
        } else {
            self.dirty.insert(index);
        }
        entry.value = Some(value);
    }

    /// Whether the topic's newest value was sent.
    pub fn is_told(&self, index: usize) -> bool {
        !self.dirty.contains(&index)
    }

    /// The broker, or who listens there, knows nothing any more.
    pub fn forget(&mut self) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            (entry.told, entry.told_at) = (None, None);
            if entry.value.is_some() {
                self.dirty.insert(index);
            }
        }
    }

    /// The broker keeps a message there.
    pub fn kept(&mut self, topic: &str) {
        if !self.index.contains_key(topic) && self.strangers.len() < STRANGERS_MAX {
            self.strangers.insert(topic.to_owned());
        }
    }

    /// The next message to send, in the order of the topics; `None` when all that is due was told.
    pub fn due(&self, now: Instant) -> Option<Due> {
        let is_due = |entry: &Entry| match (entry.pace, entry.told_at) {
            (Pace::Interval, Some(at)) => now.saturating_duration_since(at) >= self.interval,
            _ => true,
        };
        let next = self.dirty.iter().find(|&&index| is_due(&self.entries[index]));
        if let Some(&index) = next {
            let entry = &self.entries[index];
            let payload = entry.value.clone().unwrap_or_default();
            return Some(Due { index, topic: entry.topic.clone(), payload, retain: entry.retain });
        }
        let stranger = self.strangers.first().filter(|_| self.is_complete)?;
        Some(Due { index: usize::MAX, topic: stranger.clone(), payload: Vec::new(), retain: true })
    }

    /// It was sent.
    pub fn told(&mut self, due: Due, now: Instant) {
        if due.index == usize::MAX {
            self.strangers.remove(&due.topic);
            return;
        }
        let Some(entry) = self.entries.get_mut(due.index).filter(|entry| entry.topic == due.topic) else { return };
        if entry.value.as_ref() == Some(&due.payload) {
            self.dirty.remove(&due.index);
        }
        (entry.told, entry.told_at) = (Some(due.payload), Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Everything that is due, sent.
    fn send(board: &mut Board, now: Instant) -> Vec<(String, String)> {
        let mut sent = Vec::new();
        while let Some(due) = board.due(now) {
            sent.push((due.topic.clone(), String::from_utf8(due.payload.clone()).unwrap()));
            board.told(due, now);
            assert!(sent.len() < 100, "no end: {sent:?}");
        }
        sent
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    #[test]
    fn the_newest_value_at_its_pace() {
        let (mut board, start) = (Board::new(SECOND), Instant::now());
        let present = board.add("p".into(), Pace::AtOnce, true);
        let area = board.add("a".into(), Pace::Interval, true);
        assert!(send(&mut board, start).is_empty(), "no value yet");
        board.set(area, "0.1");
        board.set(present, "ON");
        board.set(area, "0.2");
        assert_eq!(send(&mut board, start), pairs(&[("p", "ON"), ("a", "0.2")]));
        board.set(area, "0.3");
        board.set(present, "OFF");
        assert_eq!(send(&mut board, start + SECOND / 2), pairs(&[("p", "OFF")]));
        board.set(area, "0.2");
        board.set(present, "OFF");
        assert!(send(&mut board, start + SECOND).is_empty(), "it has come back to what was told");
        board.set(area, "0.4");
        assert_eq!(send(&mut board, start + SECOND), pairs(&[("a", "0.4")]));
    }

    #[test]
    fn a_value_that_changes_while_it_is_sent_is_sent_again() {
        let (mut board, now) = (Board::new(SECOND), Instant::now());
        let present = board.add("p".into(), Pace::AtOnce, true);
        board.set(present, "ON");
        let due = board.due(now).unwrap();
        board.set(present, "OFF");
        board.told(due, now);
        assert_eq!(send(&mut board, now), pairs(&[("p", "OFF")]));
    }

    #[test]
    fn a_new_connection_is_told_everything() {
        let (mut board, now) = (Board::new(SECOND), Instant::now());
        let area = board.add("a".into(), Pace::Interval, true);
        board.set(area, "1");
        send(&mut board, now);
        board.forget();
        assert_eq!(send(&mut board, now), pairs(&[("a", "1")]));
    }

    #[test]
    fn topics_of_another_model_are_emptied() {
        let (mut board, now) = (Board::new(SECOND), Instant::now());
        let fixed = board.add("availability".into(), Pace::AtOnce, true);
        board.set(fixed, "online");
        for topic in ["cup", "dog", "never"] {
            let index = board.add(topic.into(), Pace::AtOnce, true);
            if topic != "never" {
                board.set(index, "ON");
            }
        }
        // what an earlier run has left there
        board.kept("cup");
        board.kept("owl");
        assert_eq!(send(&mut board, now), pairs(&[("availability", "online"), ("cup", "ON"), ("dog", "ON")]), "not complete yet");
        board.complete();
        assert_eq!(send(&mut board, now), pairs(&[("owl", "")]));
        board.truncate(1);
        let dog = board.add("dog".into(), Pace::AtOnce, true);
        board.set(dog, "OFF");
        board.complete();
        assert_eq!(send(&mut board, now), pairs(&[("dog", "OFF"), ("cup", "")]));
        assert_eq!(board.len(), 2);
    }
}
