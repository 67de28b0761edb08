//! The capture thread: asks the source for frames at its rhythm and puts the newest into the mailbox.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eomt_edge_client::crc32;
use eomt_edge_core::data::Frame;
use eomt_edge_core::pipeline::{Captured, Clock, Losses, Mailbox, Pool, Source, SourceError};

use super::DaemonError;
use super::rhythm::Rhythm;

/// A frame and the source that gave it.
#[derive(Debug)]
pub struct TaggedFrame {
    pub frame: Frame,
    /// Never 0: see `SlotInfo::source_id` of the client.
    pub source_id: u32,
}

/// A running capture thread.
pub struct Capture {
    pub mailbox: Arc<Mailbox<TaggedFrame>>,
    pub pool: Arc<Pool>,
    /// Why the thread ended, when the source failed.
    failure: Arc<Mutex<Option<DaemonError>>>,
    losses: Arc<Mutex<Losses>>,
    turns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// A capture whose thread waits for [`Waiting::begin`]; dropped, it ends without having asked for a frame.
pub struct Waiting {
    capture: Capture,
    begin: SyncSender<()>,
}

impl Waiting {
    pub fn begin(self) -> Capture {
        let _ = self.begin.send(()); // the thread waits for nothing else
        self.capture
    }
}

impl Capture {
    /// Starts to capture from `source`, which the user calls `uri`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(source: Box<dyn Source>, uri: &str, clock: Arc<dyn Clock>) -> Result<Capture, DaemonError> {
        Capture::prepare(source, uri, clock).map(Waiting::begin)
    }

    /// All of it but the first call into `source`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn prepare(source: Box<dyn Source>, uri: &str, clock: Arc<dyn Clock>) -> Result<Waiting, DaemonError> {
        let (begin, begun) = sync_channel(1);
        let (mailbox, pool) = (Arc::new(Mailbox::default()), Arc::new(Pool::default()));
        let (failure, losses) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Losses::default())));
        let turns = Arc::new(AtomicU64::new(0));
        let uri = uri.to_owned();
        let thread = {
            let (mailbox, pool, clock) = (Arc::clone(&mailbox), Arc::clone(&pool), clock);
            let (failure, losses, turns) = (Arc::clone(&failure), Arc::clone(&losses), Arc::clone(&turns));
            let work = move || {
                if begun.recv().is_err() {
                    return;
                }
                let subject = source.describe();
                let watched = Watched { source, uri, clock, turns, losses };
                let result = catch_unwind(AssertUnwindSafe(|| capture(watched, &mailbox, &pool)))
                    .unwrap_or_else(|_| Err(SourceError::fatal(subject, "its thread panicked, which is a bug")));
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = result.err().map(DaemonError::from);
                mailbox.close();
            };
            let started = std::thread::Builder::new().name("eomt-capture".to_owned()).spawn(work);
            started.map_err(|source| DaemonError::NoThread { of: "the source", source })?
        };
        Ok(Waiting { capture: Capture { mailbox, pool, failure, losses, turns, thread: Some(thread) }, begin })
    }

    /// After the mailbox closed by itself: the end of the source, or its failure.
    pub fn outcome(&self) -> Result<(), DaemonError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// Steps of the thread so far: each call into the source is one, and so is a tenth of a second of waiting. `None`: it has ended.
    pub fn turns(&self) -> Option<u64> {
        let alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        alive.then(|| self.turns.load(Ordering::Relaxed))
    }

    /// Frames that never came out of the source.
    pub fn losses(&self) -> Losses {
        *self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the thread to end and joins it if it does at once; one that hangs ends with the process. A frame that nobody took counts as dropped.
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
        self.mailbox.discard();
    }
}

/// A source, and what others see of it.
struct Watched {
    source: Box<dyn Source>,
    uri: String,
    clock: Arc<dyn Clock>,
    turns: Arc<AtomicU64>,
    losses: Arc<Mutex<Losses>>,
}

impl Watched {
    fn next(&mut self, buffer: Vec<u8>) -> Result<Captured, SourceError> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let captured = self.source.next(self.clock.now_ns(), buffer);
        *self.losses.lock().unwrap_or_else(PoisonError::into_inner) = self.source.losses();
        captured
    }

    /// Of the last frame.
    fn source_id(&self) -> u32 {
        source_id(self.source.device().unwrap_or(&self.uri))
    }
}

/// A number for a name: the same after a restart, another one for another camera or URI, and never 0.
fn source_id(name: &str) -> u32 {
    crc32(0, name.as_bytes()).max(1)
}

/// ```text
/// a rhythm:  wait until the next beat, capture, put (the newest wins)
/// zero:      capture, wait until the mailbox is empty, put (nothing is dropped)
/// none:      capture (the source waits), put
/// ```
fn capture(mut watched: Watched, mailbox: &Mailbox<TaggedFrame>, pool: &Pool) -> Result<(), SourceError> {
    let interval = watched.source.interval();
    let mut rhythm = interval.filter(|interval| !interval.is_zero()).map(|interval| Rhythm::new(interval, Instant::now()));
    let mut complained = false;
    while !mailbox.is_closed() {
        if let Some(rhythm) = &mut rhythm {
            wait_until(rhythm.next(Instant::now()), mailbox, &watched.turns);
        }
        let tagged = match watched.next(pool.take()) {
            Ok(Captured::Frame(frame)) => TaggedFrame { frame, source_id: watched.source_id() },
            Ok(Captured::NotYet(buffer)) => {
                pool.give_back(buffer);
                continue;
            }
            Ok(Captured::End) => return Ok(()),
            Err(error) if error.fatal => return Err(error),
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    log::warn!("{error} (logged once, counted from now on)");
                }
                continue;
            }
        };
        let unused = match interval {
            Some(Duration::ZERO) => mailbox.put_when_empty(tagged).err(),
            _ => mailbox.put(tagged),
        };
        if let Some(tagged) = unused {
            pool.give_back(tagged.frame.data);
        }
    }
    Ok(())
}

/// Sleeps in short steps, so that a slow rhythm does not delay the end.
fn wait_until(beat: Instant, mailbox: &Mailbox<TaggedFrame>, turns: &AtomicU64) {
    while let Some(left) = beat.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        turns.fetch_add(1, Ordering::Relaxed);
        if mailbox.is_closed() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eomt_edge_core::pipeline::{FixedClock, Taken};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Waiting for so long means that it never comes.
    const PATIENCE: Duration = Duration::from_secs(120);

    /// Panics, or says that it was called and stays in its call until it is told to end.
    struct Bad {
        end: Option<(Sender<()>, Receiver<()>)>,
    }

    impl Source for Bad {
        fn describe(&self) -> String {
            "a bad source".to_owned()
        }

        fn max_size(&self) -> (u32, u32) {
            (1, 1)
        }

        fn interval(&self) -> Option<Duration> {
            None
        }

        fn next(&mut self, _: u64, _: Vec<u8>) -> Result<Captured, SourceError> {
            let (called, end) = self.end.as_ref().expect("this source panics on purpose");
            called.send(()).expect("the test listens");
            let _ = end.recv();
            Ok(Captured::End)
        }
    }

    #[test]
    fn a_source_that_panics_ends_the_run_as_a_failure() {
        let capture = Capture::start(Box::new(Bad { end: None }), "bad:", Arc::new(FixedClock(1))).unwrap();
        assert!(matches!(capture.mailbox.take(PATIENCE), Taken::Closed));
        assert!(capture.outcome().unwrap_err().to_string().contains("a bad source"));
    }

    #[test]
    fn a_source_that_waits_is_asked_for_nothing() {
        // it would panic, and the failure would say so
        let mut waiting = Capture::prepare(Box::new(Bad { end: None }), "bad:", Arc::new(FixedClock(1))).unwrap();
        let (thread, failure) = (waiting.capture.thread.take().unwrap(), Arc::clone(&waiting.capture.failure));
        drop(waiting);
        thread.join().unwrap();
        assert!(failure.lock().unwrap().is_none());
    }

    /// Frames of one camera, then of another in its place.
    struct Swapped {
        given: u32,
        device: Option<&'static str>,
    }

    impl Source for Swapped {
        fn describe(&self) -> String {
            "two cameras".to_owned()
        }

        fn max_size(&self) -> (u32, u32) {
            (1, 1)
        }

        fn interval(&self) -> Option<Duration> {
            Some(Duration::ZERO)
        }

        fn device(&self) -> Option<&str> {
            self.device
        }

        fn next(&mut self, _: u64, _: Vec<u8>) -> Result<Captured, SourceError> {
            self.given += 1;
            self.device = [None, Some("123456789"), Some("another"), None].into_iter().nth(self.given as usize - 1).flatten();
            if self.given > 4 { Ok(Captured::End) } else { Ok(Captured::Frame(Frame::rgb(1, 1, vec![0; 3]))) }
        }
    }

    #[test]
    fn each_frame_goes_with_the_number_of_the_device_that_gave_it() {
        let capture = Capture::start(Box::new(Swapped { given: 0, device: None }), "v4l2:", Arc::new(FixedClock(1))).unwrap();
        let mut numbers = Vec::new();
        while let Taken::Value(tagged) = capture.mailbox.take(PATIENCE) {
            numbers.push(tagged.source_id);
        }
        // zlib.crc32 of "v4l2:", "123456789", "another", "v4l2:"
        assert_eq!(numbers, [0xA548_3203, 0xCBF4_3926, 0x9D29_3438, 0xA548_3203]);
        assert_eq!(source_id(""), 1, "0 means that there was no frame");
    }

    #[test]
    fn a_source_that_does_not_come_back_makes_no_turns() {
        let ((calls, called), (ends, end)) = (channel(), channel());
        let mut capture = Capture::start(Box::new(Bad { end: Some((calls, end)) }), "bad:", Arc::new(FixedClock(5))).unwrap();
        called.recv_timeout(PATIENCE).expect("the thread asks for a frame");
        assert!(matches!(capture.mailbox.take(Duration::from_millis(20)), Taken::TimedOut));
        assert_eq!(capture.turns(), Some(1));
        ends.send(()).unwrap();
        assert!(matches!(capture.mailbox.take(PATIENCE), Taken::Closed));
        assert!(capture.outcome().is_ok());
        capture.stop();
        assert_eq!(capture.turns(), None);
    }

    #[test]
    fn a_source_with_a_slow_rhythm_makes_turns_while_it_waits() {
        struct Slow;
        impl Source for Slow {
            fn describe(&self) -> String {
                "a slow source".to_owned()
            }

            fn max_size(&self) -> (u32, u32) {
                (1, 1)
            }

            fn interval(&self) -> Option<Duration> {
                Some(Duration::from_secs(3600))
            }

            fn next(&mut self, _: u64, _: Vec<u8>) -> Result<Captured, SourceError> {
                Ok(Captured::Frame(Frame::rgb(1, 1, vec![0; 3])))
            }
        }
        let mut capture = Capture::start(Box::new(Slow), "slow:", Arc::new(FixedClock(5))).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while capture.turns().expect("it runs") < 5 {
            assert!(Instant::now() < deadline, "it makes no turns");
            std::thread::sleep(Duration::from_millis(10));
        }
        capture.stop();
    }
}
