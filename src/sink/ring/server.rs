//! The server's owner's side: starting, stopping and asking after the thread between the ring and its readers.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eomt_edge_client::layout::{HELLO_MAGIC, Hello};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketType, recv};
use rustix::process::{Resource, getrlimit};

use super::RingError;
use super::closing::Closer;
use super::service::{Command, Limits, Service, Shared};
use super::writer::RingWriter;
use crate::socket::{Address, Keeper, Kind, Place, ReaperCommand};

/// The socket at which readers find the ring: messages keep their bounds, and descriptors come with them.
pub(super) const MASK_SOCKET: Kind = Kind { socket_type: SocketType::SEQPACKET, ask_pid };

/// A clean stop takes about a millisecond; an overloaded machine gets longer.
const STOP_PATIENCE: Duration = Duration::from_millis(400);

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
    /// Readers at a time of processes of one user, so that none takes all the places.
    pub clients_per_user_max: usize,
    /// The child that removes the socket file if this process is killed; `None` leaves it to the next daemon.
    pub reaper: Option<ReaperCommand>,
}

impl ServerConfig {
    /// Mode 0660, own group, 64 readers, all of them of any user, no reaper.
    pub fn new(path: impl Into<PathBuf>) -> ServerConfig {
        ServerConfig { path: path.into(), mode: 0o660, group: None, clients_max: 64, clients_per_user_max: 64, reaper: None }
    }
}

/// The running server. Dropping it stops it.
#[derive(Debug)]
pub struct MaskServer {
    path: PathBuf,
    place: Arc<Place>,
    shared: Shared,
    thread: Option<JoinHandle<()>>,
}

impl MaskServer {
    /// Takes the socket's name and serves `ring` there.
    ///
    /// # Errors
    /// When another daemon has the name, the socket cannot be made, or a descriptor or thread is missing.
    pub fn start(config: ServerConfig, ring: &RingWriter) -> Result<MaskServer, RingError> {
        let fail = |step: &'static str| move |errno: Errno| RingError::Server { step, source: errno.into() };
        let share = ring.share()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(fail("eventfd"))?;
        let shared = Shared { commands: Arc::default(), wake: Arc::new(wake), clients: Arc::default(), turns: Arc::default() };
        warn_of_few_descriptors(config.clients_max);
        let address = Address::new(&config.path, MASK_SOCKET, config.mode, config.group)?;
        let (place, listener) = Place::take(&address, config.reaper.as_ref())?;
        let path = address.path().to_owned();
        // From here on a failure must release the name, which dropping the server does.
        let mut server = MaskServer { path, place, shared, thread: None };
        let keeper = Keeper::new(Arc::clone(&server.place), address, Instant::now());
        let limits = Limits { clients_max: config.clients_max, clients_per_user_max: config.clients_per_user_max };
        let no_thread = |source| RingError::Server { step: "starting its thread", source };
        let closer = Closer::start(limits.waiting_max()).map_err(no_thread)?;
        let service = Service::new(server.shared.clone(), listener, keeper, share, limits, closer).map_err(fail("epoll"))?;
        let thread = std::thread::Builder::new().name("mask-server".into()).spawn(move || service.run());
        server.thread = Some(thread.map_err(no_thread)?);
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
        self.shared.clients.load(Ordering::Relaxed)
    }

    /// How often the server's thread has gone round; it does so at least twice a second. `None` once it has ended although nobody
    /// stopped it: it panicked, or the kernel refused to wait for its sockets.
    pub fn turns(&self) -> Option<u64> {
        let running = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        running.then(|| self.shared.turns.load(Ordering::Relaxed))
    }

    /// The socket's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the socket, disconnects everybody and ends the thread, within half a second in any case. What clients had sent is closed
    /// after that, by a thread of its own.
    pub fn stop(self) {
        drop(self);
    }

    fn send(&self, command: Command) {
        self.shared.commands.put(command);
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for MaskServer {
    fn drop(&mut self) {
        self.place.release(STOP_PATIENCE);
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
    }
}

/// The process that writes the ring, from its hello (SO_PEERCRED would say 0 across PID namespaces); `None` if it says nothing.
fn ask_pid(probe: &OwnedFd) -> Option<i32> {
    let patience = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    poll(&mut [PollFd::new(probe, PollFlags::IN)], Some(&patience)).ok()?;
    let mut hello = [0u8; size_of::<Hello>()];
    let (_, len) = recv(probe, &mut hello, RecvFlags::DONTWAIT).ok()?;
    const AT: usize = std::mem::offset_of!(Hello, writer_pid);
    let known = len == hello.len() && hello[..8] == HELLO_MAGIC.to_le_bytes();
    known.then(|| i32::from_le_bytes([hello[AT], hello[AT + 1], hello[AT + 2], hello[AT + 3]]))
}

/// Each reader takes two, and the daemon needs some for itself.
fn warn_of_few_descriptors(clients_max: usize) {
    let needed = 2 * clients_max as u64 + 64;
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|&limit| limit < needed) {
        log::warn!(
            "the limit of {limit} open files (RLIMIT_NOFILE, ulimit -n) is less than {clients_max} mask readers need: the last are turned away"
        );
    }
}
