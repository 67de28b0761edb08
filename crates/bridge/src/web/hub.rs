//! What viewers share: the newest frame and the newest words about daemon and ring.
//!
//! ```text
//! feed (ring) ──frame, facts, state──▶ hub ──watch──▶ viewer, viewer, viewer ...
//! door (control socket) ──control, log──▶ hub ◀──orders── viewer
//! ```
//!
//! Invariants: of each thing there is one, the newest; nothing queues. Refuses: more viewers than allowed.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::auth::Auth;

/// Lines of the daemon's log that a new viewer gets.
pub const LOG_LINES: usize = 200;
/// The most characters of a line that is shown.
const LOG_CHARS_MAX: usize = 500;

/// The newest of everything, and who may have it.
#[derive(Debug)]
pub struct Hub {
    /// With a token: its door. Without: everybody who reaches the page may look, and nobody may change anything.
    pub auth: Option<Auth>,
    /// Names under which the page may be asked for.
    pub names: Vec<String>,
    /// The daemon's control socket.
    pub control: PathBuf,
    /// The page is served by TLS.
    pub secure: bool,
    /// The most viewers.
    pub viewers_max: usize,
    viewers: AtomicUsize,
    /// One order at a time.
    pub orders: Semaphore,
    /// The newest frame, encoded; `None` while nobody looks.
    pub frame: watch::Sender<Option<Bytes>>,
    /// What the ring says of itself: model, labels, colours.
    pub facts: watch::Sender<Utf8Bytes>,
    /// Whether frames come.
    pub state: watch::Sender<Utf8Bytes>,
    /// What the daemon says at its control socket.
    pub door: watch::Sender<Utf8Bytes>,
    /// The end of the daemon's log.
    pub log: watch::Sender<Log>,
    /// The end of this program.
    pub ending: watch::Sender<bool>,
    /// Counts the seconds that the server's thread has lived: the watchdog looks at it.
    pub beats: AtomicU64,
    /// The server's thread is gone.
    pub server_ended: AtomicBool,
}

impl Hub {
    /// Nothing is known yet.
    pub fn new(auth: Option<Auth>, names: Vec<String>, control: PathBuf, secure: bool, viewers_max: usize) -> Hub {
        Hub {
            auth,
            names,
            control,
            secure,
            viewers_max,
            viewers: AtomicUsize::new(0),
            orders: Semaphore::new(1),
            frame: watch::Sender::new(None),
            facts: watch::Sender::default(),
            state: watch::Sender::default(),
            door: watch::Sender::default(),
            log: watch::Sender::default(),
            ending: watch::Sender::new(false),
            beats: AtomicU64::new(0),
            server_ended: AtomicBool::new(false),
        }
    }

    /// Viewers now.
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::SeqCst)
    }

    /// A place for one more; it is given back when the guest is dropped.
    pub fn enter(self: &Arc<Hub>) -> Option<Guest> {
        let free = |count: usize| (count < self.viewers_max).then_some(count + 1);
        self.viewers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).ok()?;
        Some(Guest(Arc::clone(self)))
    }
}

/// A viewer's place.
#[derive(Debug)]
pub struct Guest(Arc<Hub>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Publishes what has changed, and nothing else: an equal text wakes nobody.
pub fn publish(channel: &watch::Sender<Utf8Bytes>, message: &Value) {
    let text = message.to_string();
    channel.send_if_modified(|old| {
        let new = old.as_str() != text;
        if new {
            *old = text.into();
        }
        new
    });
}

/// The end of the daemon's log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Another one after the daemon's lines began anew.
    epoch: u64,
    /// Number, and the line as the page gets it; oldest first.
    lines: VecDeque<(u64, Arc<Value>)>,
}

impl Log {
    /// The number of the newest line.
    pub fn newest(&self) -> u64 {
        self.lines.back().map_or(0, |(number, _)| *number)
    }

    /// Another daemon may answer from now on: its lines are new.
    pub fn restart(&mut self) {
        self.epoch += 1;
        self.lines.clear();
    }

    /// Takes in an answer to `log` of the control socket. `false`: it brought nothing.
    pub fn extend(&mut self, answer: &Value) -> bool {
        let lines = answer["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
        for line in lines {
            let Some(number) = line["n"].as_u64() else { continue };
            if number <= self.newest() {
                self.restart();
            }
            if self.lines.len() >= LOG_LINES {
                self.lines.pop_front();
            }
            let text: String = line["text"].as_str().unwrap_or_default().chars().take(LOG_CHARS_MAX).collect();
            self.lines.push_back((number, Arc::new(json!({ "time": line["time"], "level": line["level"], "text": text }))));
        }
        !lines.is_empty()
    }

    /// What a viewer has not seen, who has seen all up to `seen`; `None` when that is nothing. `fresh`: it shall forget what it has.
    pub fn message(&self, seen: &mut (u64, u64)) -> Option<Value> {
        let fresh = seen.0 != self.epoch || seen.1 == 0;
        let after = if fresh { 0 } else { seen.1 };
        let lines: Vec<&Value> = self.lines.iter().filter(|(number, _)| *number > after).map(|(_, line)| &**line).collect();
        *seen = (self.epoch, self.newest());
        (!lines.is_empty()).then(|| json!({ "type": "log", "fresh": fresh, "lines": lines }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(numbers: std::ops::RangeInclusive<u64>) -> Value {
        let lines: Vec<Value> = numbers.map(|n| json!({ "n": n, "time": n, "level": "info", "text": format!("line {n}") })).collect();
        json!({ "ok": true, "lines": lines })
    }

    fn texts(message: Option<Value>) -> Vec<String> {
        let message = message.unwrap_or_default();
        message["lines"]
            .as_array()
            .map(|lines| lines.iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect())
            .unwrap_or_default()
    }

    #[test]
    fn a_viewer_gets_each_line_once() {
        let (mut log, mut seen) = (Log::default(), (0, 0));
        assert!(log.message(&mut seen).is_none());
        assert!(log.extend(&answer(1..=3)) && !log.extend(&json!({ "ok": true, "lines": [] })));
        assert_eq!(texts(log.message(&mut seen)), ["line 1", "line 2", "line 3"]);
        assert!(log.message(&mut seen).is_none());
        log.extend(&answer(4..=4));
        let message = log.message(&mut seen).unwrap();
        assert_eq!((message["fresh"].as_bool(), texts(Some(message))), (Some(false), vec!["line 4".to_owned()]));
    }

    #[test]
    fn a_restarted_daemon_begins_anew() {
        let (mut log, mut seen) = (Log::default(), (0, 0));
        log.extend(&answer(1..=9));
        log.message(&mut seen);
        log.extend(&answer(1..=2));
        let message = log.message(&mut seen).unwrap();
        assert_eq!((message["fresh"].as_bool(), texts(Some(message)).len()), (Some(true), 2));
    }

    #[test]
    fn the_log_is_bounded() {
        let mut log = Log::default();
        log.extend(&answer(1..=1000));
        log.extend(&json!({ "lines": [{ "n": 1001, "text": "x".repeat(60_000) }, { "n": "none" }] }));
        let lines = texts(log.message(&mut (0, 0)));
        assert_eq!((lines.len(), lines.last().unwrap().len()), (LOG_LINES, LOG_CHARS_MAX));
    }

    #[test]
    fn places_are_given_back() {
        let hub = Arc::new(Hub::new(None, vec![], "/none".into(), false, 2));
        let (first, _second) = (hub.enter().unwrap(), hub.enter().unwrap());
        assert!(hub.enter().is_none());
        drop(first);
        assert!(hub.enter().is_some());
        assert_eq!(hub.viewers(), 1);
    }

    #[test]
    fn equal_words_wake_nobody() {
        let channel = watch::Sender::default();
        let mut viewer = channel.subscribe();
        publish(&channel, &json!({ "a": 1 }));
        assert!(viewer.has_changed().unwrap());
        viewer.mark_unchanged();
        publish(&channel, &json!({ "a": 1 }));
        assert!(!viewer.has_changed().unwrap());
    }
}
