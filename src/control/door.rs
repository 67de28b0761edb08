//! The main thread's end: the thread behind the socket, its orders, and their answers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SocketType;
use serde_json::Value;

use super::CONNECTIONS_MAX;
use super::server::{Clients, Order, Server, Shared};
use crate::config::ControlConfig;
use crate::socket::{Address, Keeper, Kind, Place, ReaperCommand, SocketError};

/// Lines, so bytes in order; what listens there says nothing by itself.
const CONTROL_SOCKET: Kind = Kind { socket_type: SocketType::STREAM, ask_pid: |_| None };

/// An end takes a millisecond; an overloaded machine gets longer.
const STOP_PATIENCE: Duration = Duration::from_millis(400);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Its name cannot be taken.
    #[error("control.socket: {0}")]
    Socket(#[from] SocketError),
    /// The system gives no descriptor or thread.
    #[error("control.socket: {step} failed: {source}")]
    Start {
        /// The step that failed.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The open door. Dropped, it closes and removes the socket.
#[derive(Debug)]
pub struct Door {
    place: Arc<Place>,
    shared: Shared,
    orders: Receiver<(u64, Order)>,
    answers: SyncSender<(u64, Value)>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Takes the socket's name and serves it. `reaper`: the child that removes the file if this process is killed.
    ///
    /// # Errors
    /// When another daemon has the name, the socket cannot be made, or a descriptor or thread is missing.
    pub fn start(config: &ControlConfig, reaper: Option<&ReaperCommand>) -> Result<Door, ControlError> {
        let fail = |step: &'static str| move |source| ControlError::Start { step, source };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from).map_err(fail("eventfd"))?;
        let shared = Shared { wake: Arc::new(wake), stop: Arc::default(), turns: Arc::default() };
        let group = Some(config.group.clone()).filter(|group| !group.is_empty());
        let address = Address::new(&config.socket, CONTROL_SOCKET, config.mode_bits(), group)?;
        let (place, listener) = Place::take(&address, reaper)?;
        // one of each connection, and one of each that has gone meanwhile
        let (order, orders) = sync_channel(2 * CONNECTIONS_MAX);
        let (answers, answer) = sync_channel(2 * CONNECTIONS_MAX);
        // from here on a failure must release the name, which dropping the door does
        let mut door = Door { place, shared, orders, answers, thread: None };
        let server = Server {
            shared: door.shared.clone(),
            listener,
            keeper: Keeper::new(Arc::clone(&door.place), address, Instant::now()),
            models: config.models.clone(),
            orders: order,
            answers: answer,
            clients: Clients::default(),
        };
        let thread = std::thread::Builder::new().name("eomt-control".to_owned()).spawn(move || server.run());
        door.thread = Some(thread.map_err(fail("starting its thread"))?);
        log::info!("control: {}", config.socket.display());
        Ok(door)
    }

    /// What somebody waits for, with the number to answer to.
    pub fn next(&self) -> Option<(u64, Order)> {
        self.orders.try_recv().ok()
    }

    /// Answers it. Never waits: who has gone, or a thread that stands still, gets no answer.
    pub fn answer(&self, number: u64, answer: Value) {
        if self.answers.try_send((number, answer)).is_ok() {
            self.wake();
        }
    }

    /// How often the thread has gone round, twice a second at least; `None`: it has ended.
    pub fn turns(&self) -> Option<u64> {
        let running = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        running.then(|| self.shared.turns.load(Ordering::Relaxed))
    }

    fn wake(&self) {
        let wake: &OwnedFd = &self.shared.wake;
        let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
    }

    /// Gives up the name, and leaves a thread that stands still behind.
    pub fn abandon(mut self) {
        self.thread = None;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.place.release(STOP_PATIENCE);
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wake();
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + STOP_PATIENCE;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
        if thread.is_finished() && thread.join().is_err() {
            log::error!("the thread of the control socket panicked");
        }
    }
}
