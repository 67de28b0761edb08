//! A small screen beside the camera: what the daemon sees, and how it is.
//!
//! ```no_run
//! # fn demo(config: &eomt_edge::config::DisplayConfig, sink: &mut dyn eomt_edge_core::pipeline::Sink) {
//! use eomt_edge::sink::State;
//! use eomt_edge::sink::display::Display;
//! let mut display = Display::start(config);
//! display.show(State::Starting);
//! display.set_labels(&["ball".to_owned()]);
//! let mut tapped = display.tap(sink); // a sink like the other one; what passes through it is shown
//! # let _ = &mut tapped;
//! # }
//! ```
//!
//! ```text
//! frame path ──Picture──▶ mailbox of one ──▶ display thread: draw → cells of the panel → changed areas ──▶ bus
//!            ◀──empty buffer, when the thread is ready for the next──
//! ```
//!
//! Invariants: the frame path copies a frame only when the thread waits for one, never waits for it and allocates nothing after
//! warm-up; a display that is missing or dies is logged once, looked for again with growing pauses, and delays nothing; only
//! changed areas are sent. Refuses: to decide what a frame shows, touch input, windows.

mod changes;
mod error;
mod exchange;
mod framebuffer;
mod gpio;
mod mono;
mod oled;
mod open;
mod panel;
mod scene;
mod screen;
mod spi;
mod status;
mod text;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eomt_edge_core::data::Frame;
use eomt_edge_core::pipeline::{Publication, Sink, SinkError, Taken};

pub use changes::{Area, Grid};
pub use error::DisplayError;
pub use framebuffer::{Channel, Framebuffer, Geometry, geometry};
pub use gpio::gpio_chip;
pub use panel::{Depth, Panel};
pub use worker::Open;

use crate::config::DisplayConfig;
use crate::sink::State;
use exchange::{Exchange, Message};

/// How long the last screen may take at the end; one that says why there is an end, longer: the panel may be just starting.
const PATIENCE: Duration = Duration::from_millis(300);
const PATIENCE_FAILURE: Duration = Duration::from_secs(2);

/// A running display thread.
#[derive(Debug)]
pub struct Display {
    exchange: Arc<Exchange>,
    labels: Arc<[String]>,
    published: AtomicU64,
    patience: Duration,
    turns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Starts the thread, which looks for the display.
    pub fn start(config: &DisplayConfig) -> Display {
        let wanted = config.clone();
        Display::start_on(config, Box::new(move || open::open(&wanted)))
    }

    /// [`Display::start`] on a panel that `open` finds, each time anew.
    pub fn start_on(config: &DisplayConfig, open: Open) -> Display {
        let exchange = Arc::new(Exchange::default());
        let turns = Arc::new(AtomicU64::new(0));
        let mut worker = worker::Worker::new(Arc::clone(&exchange), Arc::clone(&turns), open, config);
        let thread = std::thread::Builder::new().name("eomt-display".to_owned()).spawn(move || worker.run());
        let thread = thread.inspect_err(|error| log::warn!("no display thread: {error}")).ok();
        Display { exchange, labels: Arc::from([]), published: AtomicU64::new(0), patience: PATIENCE, turns, thread }
    }

    /// Steps of the thread so far, one a second at least unless the panel takes longer. `None`: it has ended.
    pub fn turns(&self) -> Option<u64> {
        let alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        alive.then(|| self.turns.load(Ordering::Relaxed))
    }

    /// Leaves a thread that hangs behind, without waiting for it; it ends as soon as its device answers.
    pub fn abandon(mut self) {
        self.thread = None;
    }

    /// Names of the classes of frames to come.
    pub fn set_labels(&mut self, labels: &[String]) {
        self.labels = Arc::from(labels);
    }

    /// Shows how the daemon is, until the next frame.
    pub fn show(&self, state: State) {
        self.exchange.send(Message::State(state));
    }

    /// Ends with a last screen.
    pub fn end(mut self, state: State) {
        if state.is_failure() {
            self.patience = PATIENCE_FAILURE;
        }
        self.show(state);
    }

    /// A sink that passes everything on to `sink` and shows it.
    pub fn tap<'a>(&'a self, sink: &'a mut dyn Sink) -> Tap<'a> {
        Tap { display: self, sink }
    }
}

impl Drop for Display {
    /// What was to be shown last still is, if that is quick; a thread that hangs in its device ends with the process.
    fn drop(&mut self) {
        self.exchange.messages.close();
        let deadline = Instant::now() + self.patience;
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() && thread.join().is_err() {
            log::error!("the display thread panicked");
        }
    }
}

/// A sink with a display at its side.
pub struct Tap<'a> {
    display: &'a Display,
    sink: &'a mut dyn Sink,
}

impl Sink for Tap<'_> {
    fn publish(&mut self, frame: &Frame, fill: &mut dyn FnMut(&mut [u16], &mut Publication)) -> Result<(), SinkError> {
        let published = self.display.published.fetch_add(1, Ordering::Relaxed) + 1;
        let Taken::Value(mut picture) = self.display.exchange.ready.take(Duration::ZERO) else {
            return self.sink.publish(frame, fill);
        };
        let result = self.sink.publish(frame, &mut |ids, publication| {
            fill(ids, publication);
            picture.ids.clear();
            picture.ids.extend_from_slice(ids);
            picture.table.clone_from(&publication.table);
            picture.published_ns = publication.report.published_ns;
        });
        if result.is_err() {
            self.display.exchange.ready.put(picture);
            return result;
        }
        picture.frame.copy_from(frame);
        picture.published = published;
        picture.labels = Arc::clone(&self.display.labels);
        self.display.exchange.send(Message::Picture(picture));
        Ok(())
    }
}
