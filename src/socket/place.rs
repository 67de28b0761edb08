//! The socket's name while the daemon runs: it is taken again when somebody removes the file or puts another in its place.
//!
//! Invariants: after [`Place::release`] the name is not taken any more; the reaper knows which file is ours. Readers that are connected
//! notice nothing, as a connection does not depend on the name.
//! Refuses: to replace a file that is no dead socket, to make the directory.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use super::SocketError;
use super::bind::{Address, Bound, SocketName};
use super::lock::Patience;
use super::reaper::{Reaper, ReaperCommand};
use super::throttle::Throttle;

/// From look to look, at least.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// From attempt to attempt when something is in the way, which is asked each time who it is.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// Shared by the server's thread, which takes the name again, and the server's owner, who gives it up.
#[derive(Debug)]
pub struct Place {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    name: SocketName,
    reaper: Option<Reaper>,
    released: bool,
}

impl Place {
    /// Takes the name, and starts the child that removes the file if this process is killed; `None` leaves that to the next daemon.
    pub fn take(address: &Address, reaper: Option<&ReaperCommand>) -> Result<(Arc<Place>, OwnedFd), SocketError> {
        let Bound { listener, name } = address.listen(Patience::Long)?;
        let path = address.path().display();
        let reaper = reaper.and_then(|command| {
            let started = Reaper::start(command, &name);
            started.inspect_err(|error| log::warn!("no reaper for {path} ({error}): kill -9 would leave the file behind")).ok()
        });
        Ok((Arc::new(Place::new(name, reaper)), listener))
    }

    pub(crate) fn new(name: SocketName, reaper: Option<Reaper>) -> Place {
        Place { state: Mutex::new(State { name, reaper, released: false }) }
    }

    /// Removes the socket file and ends the reaper, unless the server's thread does not let go of them for so long.
    pub fn release(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = loop {
            match self.state.try_lock() {
                Ok(state) => break state,
                // Every assignment leaves it valid.
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return log::warn!("a socket stays: its server's thread is stuck while it takes the name");
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        state.released = true;
        if let Err(error) = state.name.unlink() {
            log::warn!("{error}");
        }
        if let Some(reaper) = state.reaper.take() {
            reaper.finish(patience);
        }
    }

    /// A new listener if the name was lost and could be taken again.
    fn keep(&self, address: &Address) -> Result<Option<OwnedFd>, SocketError> {
        // Locked by the other side: the name is about to be given up.
        let Ok(mut state) = self.state.try_lock() else { return Ok(None) };
        if state.released || state.name.is_there() {
            return Ok(None);
        }
        let bound = address.listen(Patience::None)?;
        state.name = bound.name;
        if let Some(Err(error)) = state.reaper.as_ref().map(|reaper| reaper.rename(&state.name)) {
            log::warn!("the reaper does not know the new socket ({error}): kill -9 would leave the file behind");
        }
        Ok(Some(bound.listener))
    }
}

/// The side of the server's thread.
#[derive(Debug)]
pub struct Keeper {
    place: Arc<Place>,
    address: Address,
    next_look: Instant,
    taken_again: Throttle,
    lost: Throttle,
}

impl Keeper {
    pub fn new(place: Arc<Place>, address: Address, now: Instant) -> Keeper {
        let (taken_again, lost) = (Throttle::default(), Throttle::default());
        Keeper { place, address, next_look: now + LOOK_PERIOD, taken_again, lost }
    }

    /// Looks whether the name is still ours, now and then; a listener at the new file if it had to be taken again.
    pub fn look(&mut self, now: Instant) -> Option<OwnedFd> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + LOOK_PERIOD;
        let path = self.address.path().display();
        match self.place.keep(&self.address) {
            Ok(listener) => {
                if listener.is_some() {
                    self.taken_again.warn(now, || format!("somebody had removed the socket {path}; it is there again"));
                }
                listener
            }
            // Somebody else looks at the name this very moment.
            Err(SocketError::Locked { .. }) => None,
            Err(error) => {
                self.next_look = now + RETRY_PERIOD;
                self.lost.warn(now, || format!("the socket {path} is gone, and nobody new finds a way in: {error}"));
                None
            }
        }
    }
}
