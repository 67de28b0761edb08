//! The thread between the ring and its readers: accepts them, wakes them, drops them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eomt_edge_core::pipeline::{Mailbox, Taken};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::RingError;
use super::bind::{SocketName, listen_on};
use super::notify::{Reader, refuse};
use super::reaper::{Reaper, ReaperCommand};
use super::writer::{RingShare, RingWriter};

/// A clean stop takes about a millisecond; an overloaded machine gets longer.
const STOP_PATIENCE: Duration = Duration::from_millis(400);

/// The longest that the thread sleeps: a supervisor sees that it lives.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

const KEY_PUBLISHED: u64 = 0;
const KEY_COMMAND: u64 = 1;
const KEY_LISTENER: u64 = 2;
const KEY_FIRST_READER: u64 = 3;

/// The socket at which readers find the ring, and its permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The socket.
    pub path: PathBuf,
    /// File mode of the socket: who may write to it may read the masks.
    pub mode: u32,
    /// Group of the socket, a name in `/etc/group` or a number; `None` leaves the process's own.
    pub group: Option<String>,
    /// Readers at a time; the next one is refused with a sentence.
    pub clients_max: usize,
    /// The child that removes the socket file if this process is killed; `None` leaves it to the next daemon.
    pub reaper: Option<ReaperCommand>,
}

impl ServerConfig {
    /// Mode 0660, own group, 64 readers, no reaper.
    pub fn new(path: impl Into<PathBuf>) -> ServerConfig {
        ServerConfig { path: path.into(), mode: 0o660, group: None, clients_max: 64, reaper: None }
    }
}

#[derive(Debug)]
enum Command {
    Replace(RingShare),
    Stop,
}

/// The running server. Dropping it stops it.
#[derive(Debug)]
pub struct MaskServer {
    name: SocketName,
    /// The newest wins: a stop makes a new ring pointless, and a newer ring an older one.
    commands: Arc<Mailbox<Command>>,
    wake: Arc<OwnedFd>,
    clients: Arc<AtomicUsize>,
    turns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    reaper: Option<Reaper>,
}

impl MaskServer {
    /// Takes the socket's name and serves `ring` there.
    ///
    /// # Errors
    /// When another daemon has the name, the socket cannot be made, or a descriptor or thread is missing.
    pub fn start(config: ServerConfig, ring: &RingWriter) -> Result<MaskServer, RingError> {
        let fail = |step: &'static str| move |errno: Errno| RingError::Server { step, source: errno.into() };
        let share = ring.share()?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(fail("eventfd"))?);
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(fail("epoll_create"))?;
        let commands = Arc::new(Mailbox::default());
        let (clients, turns) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        // From here on a failure must release the name.
        let bound = listen_on(&config.path, config.mode, config.group.as_deref())?;
        let mut server = MaskServer { name: bound.name, commands, wake, clients, turns, thread: None, reaper: None };
        for (fd, key) in [(&*share.publish_event, KEY_PUBLISHED), (&*server.wake, KEY_COMMAND), (&bound.listener, KEY_LISTENER)] {
            epoll::add(&set, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN).map_err(fail("epoll_ctl"))?;
        }
        let service = Service {
            set,
            listener: bound.listener,
            wake: Arc::clone(&server.wake),
            commands: Arc::clone(&server.commands),
            ring: share,
            generation: 1,
            readers: BTreeMap::new(),
            next_key: KEY_FIRST_READER,
            clients_max: config.clients_max,
            clients: Arc::clone(&server.clients),
            turns: Arc::clone(&server.turns),
            spare: spare_fd(),
        };
        server.reaper = config.reaper.as_ref().and_then(|command| {
            let started = Reaper::start(command, &server.name);
            let path = server.name.path.display();
            started.inspect_err(|error| log::warn!("no reaper for {path} ({error}): kill -9 would leave the file behind")).ok()
        });
        let thread = std::thread::Builder::new().name("mask-server".into()).spawn(move || service.run());
        server.thread = Some(thread.map_err(|source| RingError::Server { step: "starting its thread", source })?);
        Ok(server)
    }

    /// Serves another ring from now on: after a reload, or for larger frames. All readers are disconnected and find the new ring
    /// when they connect again; [close](RingWriter::close) the old one first, so that they know it was no accident.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn replace_ring(&self, ring: &RingWriter) -> Result<(), RingError> {
        let share = ring.share()?;
        self.send(Command::Replace(share));
        Ok(())
    }

    /// Readers connected at the moment.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// How often the server's thread has gone round; it does so at least twice a second. `None` once it has ended although nobody
    /// stopped it: it panicked, or the kernel refused to wait for its sockets.
    pub fn turns(&self) -> Option<u64> {
        let running = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        running.then(|| self.turns.load(Ordering::Relaxed))
    }

    /// The socket's absolute path.
    pub fn path(&self) -> &Path {
        &self.name.path
    }

    /// Removes the socket, disconnects everybody and ends the thread, within half a second in any case.
    pub fn stop(self) {
        drop(self);
    }

    fn send(&self, command: Command) {
        self.commands.put(command);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for MaskServer {
    fn drop(&mut self) {
        if let Err(error) = self.name.unlink() {
            log::warn!("{error}");
        }
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let deadline = Instant::now() + STOP_PATIENCE;
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(200));
            }
            if !thread.is_finished() {
                log::warn!("the mask server's thread is stuck and left behind");
            } else if thread.join().is_err() {
                log::error!("the mask server's thread panicked");
            }
        }
        if let Some(reaper) = self.reaper.take() {
            reaper.finish(STOP_PATIENCE);
        }
    }
}

/// What the thread owns.
struct Service {
    set: OwnedFd,
    listener: OwnedFd,
    wake: Arc<OwnedFd>,
    commands: Arc<Mailbox<Command>>,
    ring: RingShare,
    generation: u64,
    /// By epoll key; keys are never used twice, so a late event cannot reach the wrong reader.
    readers: BTreeMap<u64, Reader>,
    next_key: u64,
    clients_max: usize,
    clients: Arc<AtomicUsize>,
    turns: Arc<AtomicU64>,
    /// Closed for a moment to accept, and turn away, a client when the process has no other descriptor left.
    spare: Option<OwnedFd>,
}

impl Service {
    fn run(mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(32);
        loop {
            self.turns.fetch_add(1, Ordering::Relaxed);
            events.clear();
            match epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut events), Some(&TURN)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return log::error!("the mask server ends: epoll_wait failed: {errno}"),
            }
            for event in &events {
                match event.data.u64() {
                    KEY_PUBLISHED => self.wake_readers(),
                    KEY_LISTENER => self.accept(),
                    KEY_COMMAND => {
                        if self.handle_commands() {
                            return;
                        }
                    }
                    key => self.drop_reader(key),
                }
            }
            self.clients.store(self.readers.len(), Ordering::Relaxed);
        }
    }

    fn wake_readers(&mut self) {
        drain(&self.ring.publish_event);
        self.readers.retain(|key, reader| {
            let sound = reader.wake();
            if !sound {
                log::warn!("mask reader {key} made its eventfd blocking and is dropped");
            }
            sound
        });
    }

    /// True when it is time to end.
    fn handle_commands(&mut self) -> bool {
        drain(&self.wake);
        while let Taken::Value(command) = self.commands.take(Duration::ZERO) {
            match command {
                Command::Stop => return true,
                Command::Replace(ring) => {
                    self.readers.clear();
                    // Fails only if the old event was not in the set.
                    let _ = epoll::delete(&self.set, &*self.ring.publish_event);
                    if let Err(errno) =
                        epoll::add(&self.set, &*ring.publish_event, epoll::EventData::new_u64(KEY_PUBLISHED), epoll::EventFlags::IN)
                    {
                        log::error!("readers of the new mask ring will not be woken: epoll_ctl failed: {errno}");
                    }
                    self.ring = ring;
                    self.generation += 1;
                }
            }
        }
        false
    }

    fn accept(&mut self) {
        loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.admit(socket),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno @ (Errno::MFILE | Errno::NFILE)) => {
                    log::warn!("a mask reader is turned away: {errno}");
                    if !self.turn_away() {
                        return;
                    }
                }
                Err(errno) => return log::warn!("accepting a mask reader failed: {errno}"),
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        if self.readers.len() >= self.clients_max {
            log::warn!("a mask reader is refused: {} are connected", self.readers.len());
            return refuse(&socket, self.generation, &format!("it serves {} readers already, its limit", self.readers.len()));
        }
        let key = self.next_key;
        let reader = match Reader::admit(socket, &self.ring, self.generation) {
            Ok(reader) => reader,
            Err(errno) => return log::debug!("a mask reader went away before the hello: {errno}"),
        };
        let interest = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if let Err(errno) = epoll::add(&self.set, &reader.socket, epoll::EventData::new_u64(key), interest) {
            return log::warn!("a mask reader is dropped: epoll_ctl failed: {errno}");
        }
        log::debug!("mask reader {key} connected");
        self.next_key += 1;
        self.readers.insert(key, reader);
    }

    /// Any event of a reader's socket ends it: a hang-up, or data, of which the protocol has none.
    fn drop_reader(&mut self, key: u64) {
        if self.readers.remove(&key).is_some() {
            log::debug!("mask reader {key} hung up or sent data; dropped");
        }
    }

    /// With the spare descriptor, accepts one client and hangs up, as otherwise the listener would stay readable and this thread
    /// spin. False when even that failed.
    fn turn_away(&mut self) -> bool {
        if self.spare.take().is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let accepted = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        let turned_away = accepted.is_ok();
        drop(accepted);
        self.spare = spare_fd();
        turned_away
    }
}

fn spare_fd() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}

fn drain(event: &OwnedFd) {
    // EAGAIN: another event of the same batch has drained it.
    let _ = rustix::io::read(event, &mut [0u8; 8]);
}
