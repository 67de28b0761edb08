//! Who watches whom, so that no thread can stop without being noticed.
//!
//! ```text
//! systemd ──▶ supervisor thread ──▶ main thread ──▶ capture, mask server, control socket, display
//!    (watchdog)       (turns)           │
//!                     ◀─────────────────┘ (turns)
//! ```
//!
//! Every thread counts its turns, and whoever watches it sums up how long that count has stood still: [`Watch`]. The main thread looks at the
//! others at each of its own turns, since it owns them and can end in order. The supervisor's thread looks at the main thread, and feeds
//! systemd's watchdog only while that one makes progress. The two watch each other. Without systemd all but its own part is the same.
//!
//! The supervisor's thread is also the one that hears signals: it must be there from the start, and do next to nothing.
//! Refuses: to read a clock of the calendar, to repair what hangs (a new process does), to stop frames for a display's sake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use eomt_edge_core::pipeline::Clock;
use signal_hook::low_level::exit;

use super::DaemonError;
use super::service::Service;
use super::signals::{Signals, TIME_IS_UP};

/// A call into a source that takes longer hangs: in a driver, or on a network share that is gone. Cameras whose controls all time out
/// take a while.
pub const SOURCE_LIMIT: Duration = Duration::from_secs(60);

/// The mask server turns twice a second, readers or not.
pub const MASK_SERVER_LIMIT: Duration = Duration::from_secs(10);

/// A panel's slowest transfer takes a second; an emulator's first picture, several.
pub const DISPLAY_LIMIT: Duration = Duration::from_secs(30);

/// One frame, without a watchdog's limit (`WatchdogSec=` in the unit).
const MAIN_LIMIT: Duration = Duration::from_secs(120);

/// The supervisor only sleeps and looks.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(30);

/// The longest pause between two looks at the main thread, and between two signs of life to systemd.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long the frame in work may take after a signal before the process ends under it.
const STOP_PATIENCE: Duration = Duration::from_millis(600);

/// The time to write down why the process ends, when even the log may be what hangs.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a thread is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It has returned or panicked.
    #[error("its thread has ended, which is a bug")]
    Ended,
    /// For so long.
    #[error("it has made no progress for {} s", .0.as_secs())]
    StandsStill(Duration),
}

/// Sums up how long a count of turns has stood still.
///
/// One look counts for a quarter of the limit at most: whoever looks was perhaps stopped himself (SIGSTOP, a debugger, a machine without time to
/// spare), and then so was everybody else.
#[derive(Debug, Clone)]
pub struct Watch {
    limit: Duration,
    seen: Option<u64>,
    looked_ns: u64,
    still: Duration,
}

impl Watch {
    pub fn new(limit: Duration) -> Watch {
        Watch { limit, seen: None, looked_ns: 0, still: Duration::ZERO }
    }

    /// Whether all is well at `now_ns` with a thread that has made so many turns; `None`: it has ended.
    ///
    /// # Errors
    /// When it has ended or stood still for longer than the limit.
    pub fn look(&mut self, turns: Option<u64>, now_ns: u64) -> Result<(), Stopped> {
        let turns = turns.ok_or(Stopped::Ended)?;
        let passed = Duration::from_nanos(now_ns.saturating_sub(self.looked_ns)).min(self.limit / 4);
        self.looked_ns = now_ns;
        if self.seen.replace(turns) != Some(turns) {
            self.still = Duration::ZERO;
            return Ok(());
        }
        self.still += passed;
        if self.still > self.limit { Err(Stopped::StandsStill(self.still)) } else { Ok(()) }
    }
}

/// What two threads know of each other.
#[derive(Debug, Default)]
struct Shared {
    /// Of the main thread; 0 = it loads the model, for which `model.load_timeout` is the limit: systemd's own one is put off for as long.
    main: AtomicU64,
    /// Of the supervisor's.
    own: AtomicU64,
    /// The daemon has ended.
    done: AtomicBool,
}

/// The main thread's end. Dropped, it ends the thread.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    clock: Arc<dyn Clock>,
    supervisor: Watch,
    capture: Watch,
    mask_server: Watch,
}

impl Supervisor {
    /// Starts the thread. It hears `signals` from now on, and watches the main thread from its first turn on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(signals: Signals, clock: Arc<dyn Clock>) -> Result<Supervisor, DaemonError> {
        let shared = Arc::new(Shared::default());
        let thread = Thread { shared: Arc::clone(&shared), signals, clock: Arc::clone(&clock), service: Service::from_environment() };
        let started = Builder::new().name("eomt-supervisor".to_owned()).spawn(move || thread.run());
        let thread = started.map_err(|source| DaemonError::NoThread { of: "the supervisor", source })?;
        let watches = [SUPERVISOR_LIMIT, SOURCE_LIMIT, MASK_SERVER_LIMIT].map(Watch::new);
        let [supervisor, capture, mask_server] = watches;
        Ok(Supervisor { shared, thread, clock, supervisor, capture, mask_server })
    }

    /// One turn of the main thread, which has frames of `source`: it counts, and the others must have turned as well.
    ///
    /// # Errors
    /// When one of them does not: only a new process helps.
    pub fn turn(&mut self, source: &str, capture: Option<u64>, mask_server: Option<u64>) -> Result<(), DaemonError> {
        self.shared.main.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now_ns();
        let own = (!self.thread.is_finished()).then(|| self.shared.own.load(Ordering::Relaxed));
        let failed = |thread| move |stopped| DaemonError::Thread { thread, stopped };
        self.supervisor.look(own, now).map_err(failed("the supervisor"))?;
        self.mask_server.look(mask_server, now).map_err(failed("the mask server"))?;
        // a capture thread that has ended says why by itself
        match self.capture.look(capture, now) {
            Err(Stopped::StandsStill(since)) => Err(DaemonError::SourceHangs { source_uri: source.to_owned(), seconds: since.as_secs() }),
            Err(Stopped::Ended) | Ok(()) => Ok(()),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
    }
}

/// What the thread owns.
struct Thread {
    shared: Arc<Shared>,
    signals: Signals,
    clock: Arc<dyn Clock>,
    service: Service,
}

impl Thread {
    fn run(self) {
        let watchdog = self.service.watchdog_limit();
        let limit = watchdog.unwrap_or(MAIN_LIMIT);
        let mut main = Watch::new(limit);
        while !self.shared.done.load(Ordering::Relaxed) {
            self.shared.own.fetch_add(1, Ordering::Relaxed);
            self.signals.wait((limit / 8).min(PAUSE_MAX));
            if let Some(code) = self.signals.exit_code() {
                self.end_soon(code);
                return;
            }
            let turns = self.shared.main.load(Ordering::Relaxed);
            if turns == 0 {
                continue;
            }
            match main.look(Some(turns), self.clock.now_ns()) {
                Ok(()) if watchdog.is_some() => self.service.alive(),
                Ok(()) => {}
                Err(stopped) => self.give_up(stopped),
            }
        }
    }

    /// One inference on a small board may take seconds, a stop must not: when the main thread has not ended by then, the process exits, and
    /// the socket's reaper removes the socket.
    fn end_soon(&self, code: i32) {
        self.service.stopping();
        std::thread::sleep(STOP_PATIENCE);
        if code != 0 {
            log::error!("{TIME_IS_UP}");
        }
        exit(code);
    }

    /// The main thread cannot end in order any more.
    fn give_up(&self, stopped: Stopped) -> ! {
        let sentence = format!(
            "inference: {stopped}; the daemon ends, for a new one to take its place. A network that needs so long for a frame \
             takes a higher WatchdogSec= in the unit"
        );
        // in a thread of its own: where the main thread hangs in a write to a full pipe, this one would too
        let words = Builder::new().spawn(move || log::error!("{sentence}"));
        let pauses = LAST_WORDS.as_millis() / 10;
        (0..pauses)
            .take_while(|_| words.as_ref().is_ok_and(|words| !words.is_finished()))
            .for_each(|_| std::thread::sleep(LAST_WORDS / 100));
        exit(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eomt_edge_core::pipeline::FixedClock;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_count_that_stands_still_for_the_limit_is_noticed() {
        let mut watch = Watch::new(Duration::from_secs(10));
        for second in 0..100 {
            assert_eq!(watch.look(Some(second), (5 + second) * SECOND), Ok(()));
        }
        // from here on it stands still: 99 was seen at 104 s
        for second in 105..=114 {
            assert_eq!(watch.look(Some(99), second * SECOND), Ok(()), "{second}");
        }
        assert_eq!(watch.look(Some(99), 115 * SECOND), Err(Stopped::StandsStill(Duration::from_secs(11))));
        assert_eq!(watch.look(Some(100), 116 * SECOND), Ok(()), "it has come back");
        assert_eq!(watch.look(None, 117 * SECOND), Err(Stopped::Ended));
    }

    #[test]
    fn an_observer_that_was_stopped_itself_blames_nobody() {
        let mut watch = Watch::new(Duration::from_secs(10));
        assert_eq!(watch.look(Some(1), SECOND), Ok(()));
        // stopped for an hour, four times, and each time it comes back before the others do
        for hour in 1..=4 {
            assert_eq!(watch.look(Some(1), hour * 3600 * SECOND), Ok(()), "{hour}");
        }
        assert_eq!(watch.look(Some(1), 5 * 3600 * SECOND), Err(Stopped::StandsStill(Duration::from_micros(12_500_000))));
        // a clock that goes back (CLOCK_MONOTONIC does not) counts for nothing
        let mut watch = Watch::new(Duration::from_secs(10));
        assert_eq!([9, 8, 7, 6].map(|second| watch.look(Some(1), second * SECOND)), [Ok(()); 4]);
    }

    #[test]
    fn the_main_thread_names_who_has_stopped() {
        let supervisor = || Supervisor::start(Signals::default(), Arc::new(FixedClock(SECOND))).unwrap();
        let mut sound = supervisor();
        for turn in 0..1000 {
            sound.turn("scenes", Some(turn), Some(turn)).unwrap();
        }
        assert_eq!(
            supervisor().turn("scenes", Some(1), None).unwrap_err().to_string(),
            "the mask server: its thread has ended, which is a bug; a new process takes its place"
        );
        let mut ended = supervisor();
        ended.turn("scenes", None, Some(1)).expect("the mailbox is closed then, and the outcome says why");
    }

    #[test]
    fn a_source_that_does_not_come_back_is_named() {
        let mut watched = Supervisor::start(Signals::default(), Arc::new(FixedClock(SECOND))).unwrap();
        let sentence = (1..100).find_map(|second| {
            watched.clock = Arc::new(FixedClock(second * SECOND));
            watched.supervisor = Watch::new(SUPERVISOR_LIMIT); // it turns by the wall's clock
            watched.turn("v4l2:/dev/video7", Some(5), Some(second)).err()
        });
        let sentence = sentence.expect("it is noticed").to_string();
        assert!(sentence.starts_with("v4l2:/dev/video7: no answer for 61 s"), "{sentence}");
    }
}
