//! What the server's thread does: it wakes readers first, admits new ones second, and looks after the socket's name.
//!
//! Invariants: a turn takes a bounded number of steps, whatever clients do; so a flood of connections delays a wake-up by one turn's
//! share and no more. Memory and descriptors are bounded by `clients_max`. A lack of descriptors makes it rest, not spin. It closes no
//! socket in which a client's message waits: `closing.rs` does, and until then such a socket counts as a reader of its user.
//! Refuses: to wait for a client.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eomt_edge_core::pipeline::{Mailbox, Taken};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, accept_with};

use super::closing::{Closer, freeze};
use super::notify::{Reader, refuse};
use super::wake::pass_on;
use super::writer::RingShare;
use crate::socket::{Keeper, Throttle};

/// The longest that the thread sleeps: a supervisor sees that it lives.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
/// Connections accepted in a turn; more of them wait for the next one.
const ACCEPTS_PER_TURN: usize = 16;
/// How long nobody is accepted once descriptors or memory are short.
const REST: Duration = Duration::from_millis(500);

pub(super) const KEY_PUBLISHED: u64 = 0;
pub(super) const KEY_COMMAND: u64 = 1;
const KEY_LISTENER: u64 = 2;
const KEY_FIRST_READER: u64 = 3;

#[derive(Debug)]
pub(super) enum Command {
    Replace(RingShare),
    Stop,
}

/// How many readers there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub clients_max: usize,
    pub clients_per_user_max: usize,
}

impl Limits {
    /// How many sockets wait to be closed at most: those refused until no more are accepted, all readers at once (a new ring, a stop), and a few
    /// listeners.
    pub fn waiting_max(&self) -> usize {
        2 * self.clients_max + 4
    }
}

/// What the thread shares with the server's owner.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// The newest wins: a stop makes a new ring pointless, and a newer ring an older one.
    pub commands: Arc<Mailbox<Command>>,
    /// Rings for a command.
    pub wake: Arc<OwnedFd>,
    pub clients: Arc<AtomicUsize>,
    pub turns: Arc<AtomicU64>,
}

/// What the thread owns.
pub(super) struct Service {
    set: OwnedFd,
    shared: Shared,
    listener: OwnedFd,
    keeper: Keeper,
    ring: RingShare,
    generation: u64,
    /// By epoll key; keys are never used twice, so a late event cannot reach the wrong reader.
    readers: BTreeMap<u64, Reader>,
    next_key: u64,
    limits: Limits,
    closer: Closer,
    /// Closed for a moment to accept, and turn away, a client when the process has no other descriptor left.
    spare: Option<OwnedFd>,
    /// Until when nobody is accepted.
    rest_until: Option<Instant>,
    refusals: Throttle,
    failures: Throttle,
    talkers: Throttle,
}

impl Service {
    /// Registers what it waits for.
    pub fn new(
        shared: Shared,
        listener: OwnedFd,
        keeper: Keeper,
        ring: RingShare,
        limits: Limits,
        closer: Closer,
    ) -> Result<Service, Errno> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (fd, key) in [(ring.publish_event.as_fd(), KEY_PUBLISHED), (shared.wake.as_fd(), KEY_COMMAND), (listener.as_fd(), KEY_LISTENER)]
        {
            epoll::add(&set, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?;
        }
        Ok(Service {
            set,
            shared,
            listener,
            keeper,
            ring,
            generation: 1,
            readers: BTreeMap::new(),
            next_key: KEY_FIRST_READER,
            limits,
            closer,
            spare: spare_fd(),
            rest_until: None,
            refusals: Throttle::default(),
            failures: Throttle::default(),
            talkers: Throttle::default(),
        })
    }

    /// Until the owner stops it.
    pub fn run(mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(32);
        loop {
            match self.turn(&mut events) {
                Ok(true) => {}
                Ok(false) => return self.close(),
                Err(errno) => return log::error!("the mask server ends: epoll_wait failed: {errno}"),
            }
        }
    }

    /// Waits for something to happen, half a second at most, and does what is due. False when it is time to end.
    fn turn(&mut self, events: &mut Vec<epoll::Event>) -> Result<bool, Errno> {
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
        events.clear();
        match epoll::wait(&self.set, rustix::buffer::spare_capacity(events), Some(&TURN)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let now = Instant::now();
        let happened = |key: u64| events.iter().any(|event| event.data.u64() == key);
        if happened(KEY_PUBLISHED) {
            pass_on(|| drain(&self.ring.publish_event), self.readers.values());
        }
        self.closer.take_note();
        if happened(KEY_COMMAND) && self.handle_commands() {
            return Ok(false);
        }
        for event in &*events {
            self.drop_reader(event.data.u64(), now);
        }
        if happened(KEY_LISTENER) {
            self.accept(now);
        }
        self.look_around(now);
        self.shared.clients.store(self.readers.len(), Ordering::Relaxed);
        Ok(true)
    }

    /// Leaves nothing to be closed by this thread that a client could have filled.
    fn close(mut self) {
        self.dismiss_all();
        self.closer.hand_over(self.listener, None);
    }

    /// Ends a connection, in this thread only if nothing that a client sent is closed with it. True if it had sent something.
    fn dismiss(&mut self, socket: OwnedFd, uid: Option<u32>) -> bool {
        let has_sent = !freeze(&socket);
        if has_sent {
            // As long as it is open, it would have events. Fails if it was never watched.
            let _ = epoll::delete(&self.set, &socket);
            self.closer.hand_over(socket, uid);
        }
        has_sent
    }

    fn dismiss_all(&mut self) {
        for reader in std::mem::take(&mut self.readers).into_values() {
            self.dismiss(reader.socket, Some(reader.uid));
        }
    }

    /// True when it is time to end.
    fn handle_commands(&mut self) -> bool {
        drain(&self.shared.wake);
        while let Taken::Value(command) = self.shared.commands.take(Duration::ZERO) {
            match command {
                Command::Stop => return true,
                Command::Replace(ring) => {
                    self.dismiss_all();
                    // Fails only if the old event was not in the set.
                    let _ = epoll::delete(&self.set, &*self.ring.publish_event);
                    if let Err(errno) = self.watch(&*ring.publish_event, KEY_PUBLISHED, epoll::EventFlags::IN) {
                        log::error!("readers of the new mask ring will not be woken: epoll_ctl failed: {errno}");
                    }
                    self.ring = ring;
                    self.generation += 1;
                }
            }
        }
        false
    }

    fn watch(&self, fd: impl AsFd, key: u64, interest: epoll::EventFlags) -> Result<(), Errno> {
        epoll::add(&self.set, fd, epoll::EventData::new_u64(key), interest)
    }

    fn accept(&mut self, now: Instant) {
        let mut swept = false;
        for _ in 0..ACCEPTS_PER_TURN {
            if self.is_held_up() {
                let waiting = self.closer.waiting();
                self.failures.warn(now, || format!("mask readers have to wait: the kernel still closes what {waiting} others have sent"));
                return self.rest(now);
            }
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.admit(socket, &mut swept, now),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => {
                    self.failures.warn(now, || format!("a mask reader is turned away: {errno}"));
                    if !self.turn_away() {
                        return self.rest(now);
                    }
                }
            }
        }
    }

    /// Whether so many sockets wait to be closed that no more may be added.
    fn is_held_up(&self) -> bool {
        self.closer.waiting() >= self.limits.clients_max
    }

    fn admit(&mut self, socket: OwnedFd, swept: &mut bool, now: Instant) {
        let uid = match socket_peercred(&socket) {
            Ok(credentials) => credentials.uid.as_raw(),
            Err(errno) => {
                self.dismiss(socket, None);
                return self.failures.warn(now, || format!("a mask reader is dropped: SO_PEERCRED failed: {errno}"));
            }
        };
        if self.refusal(uid).is_some() && !std::mem::replace(swept, true) {
            // Those who have hung up already leave their places; once in a turn, as a flood of connections must not buy a search each.
            let over: Vec<u64> = self.readers.iter().filter(|(_, reader)| reader.is_over()).map(|(&key, _)| key).collect();
            over.into_iter().for_each(|key| self.drop_reader(key, now));
        }
        if let Some(reason) = self.refusal(uid) {
            refuse(&socket, self.generation, &reason);
            self.dismiss(socket, Some(uid));
            return self.refusals.warn(now, || format!("a mask reader of user {uid} is refused: {reason}"));
        }
        let key = self.next_key;
        let reader = match Reader::admit(socket, uid, &self.ring, self.generation) {
            Ok(reader) => reader,
            Err((socket, errno)) => {
                self.dismiss(socket, Some(uid));
                return match errno {
                    Errno::PIPE | Errno::CONNRESET => log::debug!("a mask reader went away before the hello"),
                    errno => self.failures.warn(now, || format!("a mask reader is turned away: {errno}")),
                };
            }
        };
        if let Err(errno) = self.watch(&reader.socket, key, epoll::EventFlags::IN | epoll::EventFlags::RDHUP) {
            self.dismiss(reader.socket, Some(uid));
            return self.failures.warn(now, || format!("a mask reader is dropped: epoll_ctl failed: {errno}"));
        }
        log::debug!("mask reader {key} of user {uid} connected");
        self.next_key += 1;
        self.readers.insert(key, reader);
    }

    /// Why another reader of this user has no place.
    fn refusal(&self, uid: u32) -> Option<String> {
        let left = |count: usize| match count {
            0 => String::new(),
            count => format!(" ({count} of them have left, but the kernel still closes what they sent)"),
        };
        let waiting = self.closer.waiting();
        let all = self.readers.len() + waiting;
        if all >= self.limits.clients_max {
            return Some(format!("it serves {all} readers already, its limit{}", left(waiting)));
        }
        let waiting = self.closer.waiting_of(uid);
        let of_user = self.readers.values().filter(|reader| reader.uid == uid).count() + waiting;
        (of_user >= self.limits.clients_per_user_max)
            .then(|| format!("user {uid} has {of_user} readers already, ring.max_clients_per_user{}", left(waiting)))
    }

    /// Any event of a reader's socket ends it: a hang-up, or data, of which the protocol has none.
    fn drop_reader(&mut self, key: u64, now: Instant) {
        let Some(reader) = self.readers.remove(&key) else { return };
        if self.dismiss(reader.socket, Some(reader.uid)) {
            self.talkers.warn(now, || format!("a mask reader of user {} sent data and is dropped", reader.uid));
        } else {
            log::debug!("mask reader {key} hung up");
        }
    }

    /// With the spare descriptor, accepts one client and hangs up, as otherwise the listener would stay readable and this thread
    /// spin. False when even that failed.
    fn turn_away(&mut self) -> bool {
        drop(self.spare.take());
        let accepted = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        let turned_away = accepted.map(|socket| self.dismiss(socket, None)).is_ok();
        self.spare = spare_fd();
        turned_away
    }

    /// Does not listen for a while.
    fn rest(&mut self, now: Instant) {
        if epoll::modify(&self.set, &self.listener, epoll::EventData::new_u64(KEY_LISTENER), epoll::EventFlags::empty()).is_ok() {
            self.rest_until = Some(now + REST);
        }
    }

    /// What is due whether or not anything happened.
    fn look_around(&mut self, now: Instant) {
        if self.rest_until.is_some_and(|until| now >= until) {
            self.rest_until = None;
            if self.spare.is_none() {
                self.spare = spare_fd();
            }
            if epoll::modify(&self.set, &self.listener, epoll::EventData::new_u64(KEY_LISTENER), epoll::EventFlags::IN).is_err() {
                self.rest_until = Some(now + REST);
            }
        }
        // A listener that is replaced waits to be closed, with all that its queue holds.
        if !self.is_held_up()
            && let Some(listener) = self.keeper.look(now)
        {
            // Who has found the old socket is still served; the rest of a flood hangs up and finds the new one.
            self.accept(now);
            match self.watch(&listener, KEY_LISTENER, epoll::EventFlags::IN) {
                Ok(()) => {
                    let old = std::mem::replace(&mut self.listener, listener);
                    // Its events would be taken for the new one's. Cannot fail: it was watched.
                    let _ = epoll::delete(&self.set, &old);
                    self.closer.hand_over(old, None);
                    self.rest_until = None;
                }
                Err(errno) => {
                    self.closer.hand_over(listener, None);
                    self.failures.warn(now, || format!("the new mask socket cannot be served: epoll_ctl failed: {errno}"));
                }
            }
        }
        for (throttle, what) in [
            (&mut self.refusals, "mask readers were refused"),
            (&mut self.failures, "mask readers were turned away"),
            (&mut self.talkers, "mask readers sent data and were dropped"),
        ] {
            if let Some(count) = throttle.overdue(now) {
                log::warn!("{count} more {what}");
            }
        }
    }
}

fn spare_fd() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}

/// Silences one of our own eventfds.
fn drain(event: &OwnedFd) {
    // EAGAIN: it was silent.
    let _ = rustix::io::read(event, &mut [0u8; 8]);
}

#[cfg(test)]
mod tests;
