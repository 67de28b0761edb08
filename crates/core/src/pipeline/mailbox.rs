//! A mailbox of one between two threads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Holds at most one value; a newer one replaces it.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    closed: bool,
    dropped: u64,
}

/// What [`Mailbox::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    /// The newest value.
    Value(T),
    /// No value came in time.
    TimedOut,
    /// Closed, and empty.
    Closed,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox { state: Mutex::new(State { value: None, closed: false, dropped: 0 }), changed: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // the state is valid after every single assignment, so a panic elsewhere leaves nothing half done
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a value in and returns the one that was not taken, which adds to [`Mailbox::dropped`].
    pub fn put(&self, value: T) -> Option<T> {
        let mut state = self.lock();
        let old = state.value.replace(value);
        state.dropped += u64::from(old.is_some());
        self.changed.notify_all();
        old
    }

    /// Puts a value in once the mailbox is empty. Gives it back when the mailbox closes first, which adds to [`Mailbox::dropped`].
    pub fn put_when_empty(&self, value: T) -> Result<(), T> {
        let state = self.lock();
        let mut state =
            self.changed.wait_while(state, |state| state.value.is_some() && !state.closed).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            state.dropped += 1;
            return Err(value);
        }
        state.value = Some(value);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for a value, at most `timeout`.
    pub fn take(&self, timeout: Duration) -> Taken<T> {
        let state = self.lock();
        let waiting = |state: &mut State<T>| state.value.is_none() && !state.closed;
        let (mut state, _) = self.changed.wait_timeout_while(state, timeout, waiting).unwrap_or_else(PoisonError::into_inner);
        match state.value.take() {
            Some(value) => {
                self.changed.notify_all();
                Taken::Value(value)
            }
            None if state.closed => Taken::Closed,
            None => Taken::TimedOut,
        }
    }

    /// No more values: takers get what is left, then [`Taken::Closed`].
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Empties the mailbox; a value that was in it adds to [`Mailbox::dropped`].
    pub fn discard(&self) {
        let mut state = self.lock();
        state.dropped += u64::from(state.value.take().is_some());
        self.changed.notify_all();
    }

    /// Whether [`Mailbox::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Values that were put in and nobody took.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_newest_wins_and_the_rest_is_counted() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.put(1), None);
        assert_eq!(mailbox.put(2), Some(1));
        assert_eq!(mailbox.take(Duration::ZERO), Taken::Value(2));
        assert_eq!(mailbox.take(Duration::ZERO), Taken::TimedOut);
        assert_eq!(mailbox.dropped(), 1);
        mailbox.put(3);
        mailbox.close();
        assert_eq!(mailbox.take(Duration::ZERO), Taken::Value(3));
        assert_eq!(mailbox.take(Duration::ZERO), Taken::<i32>::Closed);
        assert_eq!(mailbox.put_when_empty(4), Err(4));
        mailbox.put(5);
        mailbox.discard();
        mailbox.discard();
        assert_eq!((mailbox.take(Duration::ZERO), mailbox.dropped()), (Taken::Closed, 3));
    }

    #[test]
    fn lock_step_loses_nothing() {
        let mailbox = Arc::new(Mailbox::default());
        let writer = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || {
            (0..1000).for_each(|i| writer.put_when_empty(i).unwrap());
            writer.close();
        });
        for expected in 0..1000 {
            assert_eq!(mailbox.take(Duration::from_secs(30)), Taken::Value(expected));
        }
        assert_eq!(mailbox.take(Duration::from_secs(30)), Taken::Closed);
        thread.join().unwrap();
    }
}
