//! The inference thread: frames through the pipeline into the ring, and in between what signals and systemd ask for.
//!
//! ```text
//! until a signal, the end of the source, or enough frames:
//!     asked?    at the control socket: status, thresholds, a reload, another model
//!     SIGHUP?   read the configuration; model, thresholds and source change if the new ones work, else the old ones stay;
//!               frames go on while a model is loaded
//!     a frame:  pipeline → ring; a sign of life
//!     none:     a sign of life; after a while "no signal" goes out on the ring, once a second
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use eomt_edge_core::data::Unpublished;
use eomt_edge_core::pipeline::{Clock, Losses, PipelineError, Taken};
use eomt_edge_core::preprocess::FrameDecoder;
use eomt_edge_core::track::TrackIds;

use super::builder::Network;
use super::capture::{Capture, TaggedFrame};
use super::last_good::LastGood;
use super::loader::Loaders;
use super::screen::Screen;
use super::service::Service;
use super::signals::Signals;
use super::steering::Steering;
use super::supervisor::Supervisor;
use super::{Counters, DaemonError, ReadConfig};
use crate::config::Config;
use crate::sink::RingSink;
use crate::sink::State;

/// After so many failures in a row the next frame will not be better.
const FAILURES_MAX: u64 = 100;

/// The longest wait for a frame: signals are looked at this often.
const PATIENCE: Duration = Duration::from_millis(100);

/// Between two "no signal" publications.
const NO_SIGNAL_INTERVAL: Duration = Duration::from_secs(1);

/// Between two status lines for the service manager.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Everything that the inference thread owns.
pub(super) struct Server {
    pub config: Config,
    pub read: ReadConfig,
    pub network: Network,
    /// Numbers that no segment had yet.
    pub track_ids: TrackIds,
    /// Of the device that gave the last frame; 0 before the first.
    pub source_id: u32,
    pub decoder: FrameDecoder,
    pub sink: RingSink,
    pub capture: Capture,
    pub loaders: Loaders,
    pub last_good: LastGood,
    /// Why the last good model serves, if it does.
    pub fallback: Option<String>,
    pub screen: Screen,
    pub steering: Steering,
    pub clock: Arc<dyn Clock>,
    pub service: Service,
    pub signals: Signals,
    pub supervisor: Supervisor,
    pub counters: Counters,
    /// Frames that this thread took and that came to nothing, and what sources lost that a reload has replaced.
    pub unpublished: Unpublished,
    pub told_of_broken: bool,
    pub failed_in_a_row: u64,
    pub last_frame: Instant,
    pub last_no_signal: Option<Instant>,
    pub last_status: Instant,
    pub published_at_status: u64,
}

impl Server {
    /// Runs to the end; the sink is stopped and the capture thread asked to end in any case.
    pub fn run(mut self, frames: Option<u64>) -> Result<Counters, DaemonError> {
        let started = Instant::now();
        self.service.ready("waiting for the first frame");
        let result = loop {
            if self.signals.stop_requested() || frames.is_some_and(|frames| self.counters.published >= frames) {
                break Ok(());
            }
            if let Err(fatal) = self.supervise() {
                break Err(fatal);
            }
            if self.signals.take_reload() {
                let _ = self.reload(); // the log has why not
            }
            self.steer();
            match self.capture.mailbox.take(PATIENCE) {
                Taken::Value(tagged) => {
                    if let Err(fatal) = self.process(tagged) {
                        break Err(fatal);
                    }
                }
                Taken::TimedOut => self.idle(),
                Taken::Closed => break self.capture.outcome(),
            }
            self.say_status();
            self.last_good.proven(self.counters.published, Instant::now());
        };
        if result.as_ref().err().is_none_or(|error| !error.is_of_the_model()) {
            self.last_good.withdraw();
        }
        self.service.stopping();
        self.capture.stop();
        self.count_losses();
        drop(self.steering);
        self.sink.stop();
        self.screen.end(result.as_ref().err());
        let seconds = started.elapsed().as_secs_f64();
        let Counters { published, dropped, failed } = self.counters;
        log::info!("{published} frames in {seconds:.1} s ({:.1} a second), {dropped} dropped, {failed} failed", published as f64 / seconds);
        result.map(|()| self.counters)
    }

    /// A turn of this thread, which looks at the others at each.
    pub(super) fn supervise(&mut self) -> Result<(), DaemonError> {
        if self.signals.time_is_up() {
            return Err(DaemonError::TimeIsUp);
        }
        let now_ns = self.clock.now_ns();
        let (screen, steering) = (self.screen.supervise(now_ns), self.steering.supervise(self.counters.published, now_ns));
        self.service.trouble(screen.or(steering));
        self.supervisor.turn(&self.config.source.uri, self.capture.turns(), self.sink.server_turns())
    }

    /// What became of frames without masks, from all sources so far.
    pub(super) fn unpublished(&self) -> Unpublished {
        let Losses { missed, stale, broken } = self.capture.losses();
        let Unpublished { busy, source, corrupt, failed } = self.unpublished;
        Unpublished { busy: busy + self.capture.mailbox.dropped() + stale, source: source + missed, corrupt: corrupt + broken, failed }
    }

    pub(super) fn count_losses(&mut self) -> Unpublished {
        let unpublished = self.unpublished();
        (self.counters.dropped, self.counters.failed) = (unpublished.dropped(), unpublished.failed);
        unpublished
    }

    pub(super) fn process(&mut self, tagged: TaggedFrame) -> Result<(), DaemonError> {
        let unpublished = self.count_losses();
        let silent_for = self.last_frame.elapsed();
        self.sink.set_source_id(tagged.source_id);
        let another = std::mem::replace(&mut self.source_id, tagged.source_id) != tagged.source_id;
        if another || self.last_no_signal.is_some() {
            self.network.pipeline.reset(); // what was remembered is of another camera, or of long ago
        }
        let Server { network, decoder, screen, sink, clock, .. } = self;
        let (result, frame) =
            screen.through(sink, |sink| network.pipeline.process_captured(tagged.frame, decoder, unpublished, sink, clock.as_ref()));
        self.capture.pool.give_back(frame.data);
        if let Err(PipelineError::Decode(error)) = result {
            if !std::mem::replace(&mut self.told_of_broken, true) {
                log::warn!("{error} (logged once, counted from now on)");
            }
            self.unpublished.corrupt += 1;
            self.idle();
            return Ok(());
        }
        if self.last_no_signal.take().is_some() {
            log::info!("frames come again after {:.1} s", silent_for.as_secs_f64());
        }
        self.last_frame = Instant::now();
        match result {
            Ok(report) => {
                self.failed_in_a_row = 0;
                self.counters.published += 1;
                if self.counters.published == 1 {
                    log::info!("first masks published after {:.0} ms", report.times.total_us() as f64 / 1000.0);
                }
                log::debug!("frame {}: {:?} us", report.sequence, report.times.micros);
                Ok(())
            }
            Err(error) => {
                self.unpublished.failed += 1;
                self.failed_in_a_row += 1;
                check_failures(&error, self.failed_in_a_row)
            }
        }
    }

    /// No frame came: the daemon is well all the same, and readers learn it.
    pub(super) fn idle(&mut self) {
        let now = Instant::now();
        self.sink.heartbeat();
        let limit = self.config.source.no_signal_after;
        let silent = limit > 0.0 && now.duration_since(self.last_frame).as_secs_f64() >= limit;
        if !silent || self.last_no_signal.is_some_and(|last| now.duration_since(last) < NO_SIGNAL_INTERVAL) {
            return;
        }
        if self.last_no_signal.replace(now).is_none() {
            log::warn!("no frame for {limit} s; readers are told 'no signal' until one comes");
            self.network.pipeline.reset(); // what comes then may show another scene
            self.service.status("no signal: waiting for frames");
            self.screen.show(State::NoSignal);
        }
        if let Err(error) = self.sink.publish_no_signal(self.unpublished()) {
            log::debug!("{error}");
        }
    }

    fn say_status(&mut self) {
        let elapsed = self.last_status.elapsed();
        if elapsed < STATUS_INTERVAL || self.last_no_signal.is_some() {
            return;
        }
        self.count_losses();
        let Counters { published, dropped, failed } = self.counters;
        let rate = (published - self.published_at_status) as f64 / elapsed.as_secs_f64();
        let note = self.fallback.as_ref().map_or("", |_| "; the last good model runs, not the configured one");
        self.service.status(&format!("{rate:.1} frames a second; {published} published, {dropped} dropped, {failed} failed{note}"));
        (self.last_status, self.published_at_status) = (Instant::now(), published);
    }
}

/// Logs the first failure of a series; the last one of [`FAILURES_MAX`] ends the run.
fn check_failures(error: &PipelineError, failed_in_a_row: u64) -> Result<(), DaemonError> {
    if failed_in_a_row == 1 {
        log::warn!("{error}");
    }
    if failed_in_a_row < FAILURES_MAX {
        return Ok(());
    }
    Err(DaemonError::Frames { failed: failed_in_a_row, reason: error.to_string() })
}
