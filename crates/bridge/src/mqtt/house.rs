//! What the thread that reads the ring and the task that talks to the broker share.
//!
//! Invariants: both hold the lock for a moment only, never while they wait.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::board::Board;
use super::config::Config;
use super::discovery::{self, Announced};
use super::incoming::Incoming;
use super::layout::{self, ClassTopics, Fixed};
use crate::masks::RingFacts;

/// The shared state.
#[derive(Debug)]
pub struct House {
    config: Config,
    inner: Mutex<Inner>,
}

/// Behind the lock.
#[derive(Debug)]
pub struct Inner {
    /// Topics and values.
    pub board: Board,
    /// Topics that every model has.
    pub fixed: Fixed,
    facts: RingFacts,
    components: Map<String, Value>,
    /// What Home Assistant knows from before.
    before: Announced,
    birth: bool,
}

impl House {
    /// Before any daemon was seen.
    pub fn new(config: &Config) -> House {
        let mut board = Board::new(config.interval());
        let fixed = layout::fixed(config, &mut board);
        let (components, before) = (Map::new(), Announced::new());
        let inner = Inner { board, fixed, facts: RingFacts::default(), components, before, birth: false };
        House { config: config.clone(), inner: Mutex::new(inner) }
    }

    /// Values are whole after every statement: a panic elsewhere spoils none.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A model's topics, and what Home Assistant is told of them. Topics that were there before keep what the broker was told.
    pub fn furnish(&self, facts: &RingFacts) -> Vec<ClassTopics> {
        let mut inner = self.lock();
        let fixed = [Some(inner.fixed.availability), Some(inner.fixed.signal), inner.fixed.image, inner.fixed.discovery];
        let first = fixed.into_iter().flatten().max().unwrap_or(0) + 1;
        inner.board.truncate(first);
        let classes = layout::classes(&self.config, &facts.labels, &mut inner.board);
        inner.board.complete();
        if inner.fixed.discovery.is_some_and(|index| inner.board.is_told(index)) {
            // what was gone before is taken back already
            inner.before.clear();
        }
        let gone = discovery::announced(&inner.components);
        inner.before.extend(gone);
        inner.components = discovery::components(&self.config, &classes);
        inner.facts = facts.clone();
        self.announce(&mut inner);
        classes
    }

    /// The same classes by another model.
    pub fn rename(&self, facts: &RingFacts) {
        let mut inner = self.lock();
        inner.facts = facts.clone();
        self.announce(&mut inner);
    }

    /// A message of the broker's.
    pub fn take(&self, incoming: Incoming) {
        let mut inner = self.lock();
        match incoming {
            Incoming::Birth => inner.birth = true,
            Incoming::Kept(topic) => inner.board.kept(&topic),
            Incoming::Announced(before) => {
                inner.before.extend(before);
                self.announce(&mut inner);
            }
            Incoming::Other => {}
        }
    }

    /// Whether Home Assistant has started since the last call.
    pub fn take_birth(&self) -> bool {
        std::mem::take(&mut self.lock().birth)
    }

    fn announce(&self, inner: &mut Inner) {
        let Some(index) = inner.fixed.discovery.filter(|_| !inner.components.is_empty()) else { return };
        let message = discovery::message(&self.config, &inner.facts, &inner.components, &inner.before);
        inner.board.set(index, message);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn send(house: &House) -> Vec<(String, String)> {
        let mut sent = Vec::new();
        let board = &mut house.lock().board;
        while let Some(due) = board.due(Instant::now()) {
            sent.push((due.topic.clone(), String::from_utf8(due.payload.clone()).unwrap()));
            board.told(due, Instant::now());
        }
        sent
    }

    #[test]
    fn another_model_takes_the_old_one_s_components_back() {
        let config = Config::parse("", "pi").unwrap();
        let house = House::new(&config);
        let facts = |labels: &[&str]| RingFacts { labels: labels.iter().map(ToString::to_string).collect(), ..RingFacts::default() };
        let classes = house.furnish(&facts(&["cup", "dog"]));
        house.lock().board.set(classes[0].count, "1");
        assert_eq!(send(&house).len(), 2);
        house.furnish(&facts(&["dog"]));
        // an even earlier run, of which the broker tells only now
        house.take(Incoming::Announced([("class-owl-count".to_owned(), "sensor".to_owned())].into()));
        house.take(Incoming::Kept("eomt-edge/pi/class/owl/count".to_owned()));
        let sent = send(&house);
        let message: Value = serde_json::from_str(&sent[0].1).unwrap();
        for gone in ["class-cup-count", "class-owl-count"] {
            assert_eq!(message["components"][gone], serde_json::json!({ "platform": "sensor" }));
        }
        let emptied: Vec<&str> = sent[1..].iter().map(|(topic, payload)| if payload.is_empty() { topic.as_str() } else { "?" }).collect();
        assert_eq!(emptied, ["eomt-edge/pi/class/cup/count", "eomt-edge/pi/class/owl/count"]);
        assert!(!house.take_birth());
        house.take(Incoming::Birth);
        assert!(house.take_birth() && !house.take_birth());
    }
}
