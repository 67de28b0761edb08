//! The capture thread: asks the source for frames at its rhythm and puts the newest into the mailbox.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::DaemonError;
use crate::data::Frame;
use crate::pipeline::{Captured, Clock, Losses, Mailbox, Pool, Source, SourceError};

/// A running capture thread.
pub struct Capture {
    pub mailbox: Arc<Mailbox<Frame>>,
    pub pool: Arc<Pool>,
    /// Why the thread ended, when the source failed.
    failure: Arc<Mutex<Option<SourceError>>>,
    losses: Arc<Mutex<Losses>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts to capture from `source`.
    pub fn start(source: Box<dyn Source>, clock: Arc<dyn Clock>) -> Capture {
        let (mailbox, pool) = (Arc::new(Mailbox::default()), Arc::new(Pool::default()));
        let (failure, losses) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Losses::default())));
        let thread = {
            let (mailbox, pool) = (Arc::clone(&mailbox), Arc::clone(&pool));
            let (failure, losses) = (Arc::clone(&failure), Arc::clone(&losses));
            let work = move || {
                let result = capture(source, clock.as_ref(), &mailbox, &pool, &losses);
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = result.err();
                mailbox.close();
            };
            std::thread::Builder::new().name("eomt-capture".to_owned()).spawn(work).expect("a process can start a thread at its start")
        };
        Capture { mailbox, pool, failure, losses, thread: Some(thread) }
    }

    /// After the mailbox closed by itself: the end of the source, or its failure.
    pub fn outcome(&self) -> Result<(), DaemonError> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Frames that never came out of the source.
    pub fn losses(&self) -> Losses {
        *self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the thread to end and joins it if it does at once; one that waits for input ends with the process.
    pub fn stop(&mut self) {
        self.mailbox.close();
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + Duration::from_millis(300);
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() && thread.join().is_err() {
            log::error!("the capture thread panicked");
        }
    }
}

/// ```text
/// a rhythm:  wait until the next beat, capture, put (the newest wins)
/// zero:      capture, wait until the mailbox is empty, put (nothing is dropped)
/// none:      capture (the source waits), put
/// ```
fn capture(
    mut source: Box<dyn Source>,
    clock: &dyn Clock,
    mailbox: &Mailbox<Frame>,
    pool: &Pool,
    losses: &Mutex<Losses>,
) -> Result<(), SourceError> {
    let interval = source.interval();
    let mut beat = Instant::now();
    let mut complained = false;
    while !mailbox.is_closed() {
        if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
            let now = Instant::now();
            // late: start the rhythm anew instead of catching up with a burst
            beat = if beat + interval < now { now } else { beat };
            wait_until(beat, mailbox);
            beat += interval;
        }
        let captured = source.next(clock.now_ns(), pool.take());
        *losses.lock().unwrap_or_else(PoisonError::into_inner) = source.losses();
        let frame = match captured {
            Ok(Captured::Frame(frame)) => frame,
            Ok(Captured::NotYet(buffer)) => {
                pool.give_back(buffer);
                continue;
            }
            Ok(Captured::End) => return Ok(()),
            Err(error) if error.fatal => return Err(error),
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    log::warn!("{error} (said once, counted from now on)");
                }
                continue;
            }
        };
        let unused = match interval {
            Some(Duration::ZERO) => mailbox.put_when_empty(frame).err(),
            _ => mailbox.put(frame),
        };
        if let Some(frame) = unused {
            pool.give_back(frame.data);
        }
    }
    Ok(())
}

/// Sleeps in short steps, so that a slow rhythm does not delay the end.
fn wait_until(beat: Instant, mailbox: &Mailbox<Frame>) {
    while let Some(left) = beat.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if mailbox.is_closed() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}
