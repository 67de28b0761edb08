//! The thread `eomt-control`: clients in, orders out, and what is answered without the main thread.
//!
//! Invariants: a turn takes a bounded number of steps, and one comes twice a second at least; a client that does not read, or says nothing,
//! loses its connection and nobody else anything. Refuses: to wait for a client, or for the main thread.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use eomt_edge_host::{bounds, files};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use serde_json::{Value, json};

use super::CONNECTIONS_MAX;
use super::connection::{Asked, Connection, line, refusal};
use super::log::LOG;
use super::models;
use super::request::{LINE_BYTES_MAX, Request, ThresholdSet};
use crate::socket::{Keeper, Throttle};

/// The longest sleep: who watches this thread sees that it lives.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// How long nobody is accepted once descriptors are short.
const REST: Duration = Duration::from_millis(500);

/// What the main thread is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// To say how it is.
    Status,
    /// To use other thresholds.
    Thresholds(ThresholdSet),
    /// To read its configuration again.
    Reload,
    /// To try this file, and to switch to it.
    Model(PathBuf),
}

/// What the thread shares with the door.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// Rings for an answer, or the end.
    pub wake: Arc<OwnedFd>,
    pub stop: Arc<AtomicBool>,
    pub turns: Arc<AtomicU64>,
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Server {
    pub shared: Shared,
    pub listener: OwnedFd,
    pub keeper: Keeper,
    pub models: PathBuf,
    /// To the main thread, with the number of the connection.
    pub orders: SyncSender<(u64, Order)>,
    pub answers: Receiver<(u64, Value)>,
    pub clients: Clients,
}

/// Who is connected. A number is never used twice, so that a late answer reaches nobody else.
#[derive(Debug, Default)]
pub(super) struct Clients {
    connected: BTreeMap<u64, Connection>,
    next: u64,
    rest_until: Option<Instant>,
    refusals: Throttle,
    failures: Throttle,
}

impl Server {
    /// Until the door stops it.
    pub fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
            if let Err(errno) = self.turn() {
                return log::error!("the control socket ends: poll failed: {errno}");
            }
        }
    }

    /// Waits for something to happen, and does what is due.
    fn turn(&mut self) -> Result<(), Errno> {
        let accepts = if self.clients.rest_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&*self.shared.wake, PollFlags::IN), PollFd::new(&self.listener, accepts)];
        fds.extend(self.clients.connected.values().map(|connection| PollFd::new(connection.socket(), connection.interest())));
        let is_due = self.clients.connected.values().any(Connection::has_line);
        match poll(&mut fds, Some(if is_due { &Timespec { tv_sec: 0, tv_nsec: 0 } } else { &TURN })) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        let happened: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let now = Instant::now();
        if !happened[0].is_empty() {
            let _ = rustix::io::read(&*self.shared.wake, &mut [0u8; 8]); // EAGAIN: it was silent
        }
        for (connection, events) in self.clients.connected.values_mut().zip(&happened[2..]).filter(|(_, events)| !events.is_empty()) {
            connection.happened(*events, now);
        }
        while let Ok((key, answer)) = self.answers.try_recv() {
            self.pass_on(key, answer, now);
        }
        let keys: Vec<u64> = self.clients.connected.keys().copied().collect();
        keys.into_iter().for_each(|key| self.take_line(key, now));
        self.clients.connected.retain(|_, connection| !connection.is_over(now));
        if !happened[1].is_empty() {
            self.clients.accept(&self.listener, now);
        }
        self.clients.look_around(now);
        if let Some(listener) = self.keeper.look(now) {
            self.clients.accept(&self.listener, now); // who has found the old one is still served
            self.listener = listener;
        }
        Ok(())
    }

    /// One line of a client, if there is one.
    fn take_line(&mut self, key: u64, now: Instant) {
        let Some(connection) = self.clients.connected.get_mut(&key) else { return };
        let Some(line) = connection.line(now) else { return };
        let (order, asked) = match Request::parse(&line) {
            Err(sentence) => return connection.answer(&refusal(&sentence), now),
            Ok(Request::Log { after }) => return connection.answer(&LOG.after(after, LINE_BYTES_MAX), now),
            Ok(Request::Status {}) => (Order::Status, Asked::Status),
            Ok(Request::Thresholds { set }) => (Order::Thresholds(set), Asked::Change),
            Ok(Request::Reload {}) => (Order::Reload, Asked::Change),
            Ok(Request::Model { name }) => match models::find(&self.models, &name) {
                Ok(path) => (Order::Model(path), Asked::Change),
                Err(sentence) => return connection.answer(&refusal(&sentence), now),
            },
        };
        match self.orders.try_send((key, order)) {
            Ok(()) => connection.asked = Some(asked),
            Err(_) => connection.answer(&refusal("the daemon has too much to do, or ends: ask again later"), now),
        }
    }

    /// An answer of the main thread.
    fn pass_on(&mut self, key: u64, mut answer: Value, now: Instant) {
        let Some(connection) = self.clients.connected.get_mut(&key) else { return };
        if connection.asked == Some(Asked::Status) {
            let status = files::read_text("/proc/self/status".as_ref(), &bounds::SYSTEM).unwrap_or_default();
            answer["memory_bytes"] = json!(files::kibibytes(&status, "VmRSS:"));
            answer["models"] = json!(models::names(&self.models));
            // a network may have more words than a line has room for
            if line(&answer).is_none() {
                answer["model"]["labels"] = json!([]);
            }
        }
        connection.answer(&answer, now);
    }
}

impl Clients {
    /// As many as there may be at a time, so that a flood takes a turn's share and no more.
    fn accept(&mut self, listener: &OwnedFd, now: Instant) {
        for _ in 0..CONNECTIONS_MAX {
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.admit(socket, now),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => {
                    self.failures.warn(now, || format!("nobody can connect to the control socket: {errno}"));
                    self.rest_until = Some(now + REST);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd, now: Instant) {
        let mut connection = Connection::new(socket, now);
        if self.connected.len() >= CONNECTIONS_MAX {
            let reason = format!("it serves {CONNECTIONS_MAX} connections already, its limit");
            self.refusals.warn(now, || format!("a client of the control socket is refused: {reason}"));
            return connection.answer(&refusal(&reason), now);
        }
        self.next += 1;
        self.connected.insert(self.next, connection);
    }

    fn look_around(&mut self, now: Instant) {
        self.rest_until.take_if(|until| now >= *until);
        if let Some(count) = self.refusals.overdue(now) {
            log::warn!("{count} more clients of the control socket were refused");
        }
        if let Some(count) = self.failures.overdue(now) {
            log::warn!("{count} more times nobody could connect to the control socket");
        }
    }
}
