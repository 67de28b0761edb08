//! From the ring to the recorder, until it is time to end.
//!
//! Invariants: each file says whose masks it has, and what their classes are, before its first frame, and again when the daemon has another
//! model. A daemon that is away is waited for. Refuses: to wait for anything but a frame.

use std::time::{Duration, Instant};

use crate::clock::StampClock;
use crate::masks::{Masks, News};
use crate::stop::{self, Stop};

use super::RecordArgs;
use super::error::RecordError;
use super::facts::metadata;
use super::messages::Messages;
use super::recorder::{Limits, Recorder, Tally};
use super::series::Series;
use super::times::Times;
use super::units::mebibytes;

/// The longest wait for a frame: chunks are closed, and signals heeded, this often.
const PATIENCE: Duration = Duration::from_millis(250);
/// So often systemd hears how things are, and the recording, too.
const STATUS_TIME: Duration = Duration::from_secs(1);

/// Records.
///
/// # Errors
/// [`RecordError`].
pub fn run(args: &RecordArgs, mut messages: Messages, series: Series, stop: &Stop) -> Result<Tally, RecordError> {
    let limits = Limits { file_bytes: args.max_size, file_time: args.max_time, min_free: args.min_free };
    let mut recorder = Recorder::start(series, limits, Instant::now())?;
    let mut masks = Masks::new(&args.ring.socket);
    let mut clock = StampClock::default();
    let (mut described, mut first, mut told) = (None, None, Instant::now());
    stop::ready();
    while !stop.requested() {
        let is_frame = matches!(masks.next(PATIENCE), News::Frame(_));
        let now = Instant::now();
        if is_frame {
            messages.see(masks.frame());
        }
        // without signal there is no picture; its health tells of it
        if is_frame && !masks.frame().no_signal() {
            let (frame, facts) = (masks.frame(), masks.facts());
            // a reload that keeps labels and sizes keeps the ring
            let whose = Some((masks.connections(), frame.info.model_hash));
            let is_new = recorder.turn_page(now)? || described != whose;
            let times = Times::of(frame, &mut clock);
            if is_new && !recorder.is_paused() {
                recorder.describe(&metadata(facts, &frame.info.model_hash))?;
                messages.classes(facts, times, |sample| recorder.note(sample, now))?;
                described = whose;
            }
            messages.frame(frame, facts, times, |samples| recorder.frame(&samples, now))?;
            first.get_or_insert(now);
        }
        recorder.tick(now)?;
        if now.duration_since(told) >= STATUS_TIME {
            told = now;
            messages.health(&masks, |sample| recorder.note(sample, now))?;
            stop::alive(&status(&recorder, &masks));
        }
        let is_over = first.zip(args.duration).is_some_and(|(first, most)| now.duration_since(first) >= most);
        if is_over || args.frames.is_some_and(|most| recorder.tally().frames >= most) {
            break;
        }
    }
    recorder.end()
}

fn status(recorder: &Recorder, masks: &Masks) -> String {
    let Tally { frames, bytes, left_out, .. } = recorder.tally();
    let path = recorder.path().display();
    match (recorder.is_paused(), masks.is_connected()) {
        (true, _) => format!("paused, the disk has no room: {frames} frames recorded, {left_out} left out"),
        (false, true) => format!("{path}: {frames} frames, {}", mebibytes(bytes)),
        (false, false) => format!("{path}: {frames} frames; the daemon is away"),
    }
}
