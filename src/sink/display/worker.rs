//! The display thread.
//!
//! ```text
//! until the messages end:
//!     no panel?  open it; if that fails log it once and wait 1, 2, 4 … 30 s, remembering the newest state
//!     offer an empty picture as soon as the last one is `1 / fps` old
//!     a message: draw it, send what has changed; an error closes the panel
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eomt_edge_core::overlay::Canvas;
use eomt_edge_core::pipeline::Taken;

use super::changes::Shown;
use super::error::DisplayError;
use super::exchange::{Exchange, Message, Picture};
use super::mono;
use super::panel::{Depth, Panel};
use super::scene::{Look, Scene};
use super::status::{Meter, line, temperature};
use crate::config::DisplayConfig;
use crate::sink::State;

/// Finds the panel, also after it was lost.
pub type Open = Box<dyn Fn() -> Result<Box<dyn Panel>, DisplayError> + Send>;

/// Pauses between two attempts to find the panel.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// An error stays on the screen for so long although frames come.
const FAILURE_STAYS: Duration = Duration::from_secs(5);

/// A framebuffer that others draw on too is written anew so often.
const REFRESH: Duration = Duration::from_secs(5);

/// The longest wait for a message: whoever watches this thread sees it turn.
const IDLE: Duration = Duration::from_secs(1);

/// A panel in use and what it shows.
struct Screen {
    panel: Box<dyn Panel>,
    shown: Shown,
    rgb: Vec<u8>,
    cells: Vec<u8>,
    refreshed: Instant,
}

/// Everything that the thread owns.
pub struct Worker {
    exchange: Arc<Exchange>,
    turns: Arc<AtomicU64>,
    open: Open,
    interval: Duration,
    look: Look,
    thermal_zone: PathBuf,
    scene: Scene,
    meter: Meter,
    /// Ours, between two pictures.
    spare: Option<Box<Picture>>,
    /// What a panel that comes back should show.
    state: Option<State>,
    /// No picture before that time.
    hold_until: Option<Instant>,
    screen: Option<Screen>,
    /// Whether the error was logged already.
    complained: bool,
}

impl Worker {
    pub fn new(exchange: Arc<Exchange>, turns: Arc<AtomicU64>, open: Open, config: &DisplayConfig) -> Worker {
        Worker {
            exchange,
            turns,
            open,
            interval: Duration::from_secs_f64(1.0 / config.fps),
            look: Look { labels: config.labels, opacity: config.opacity },
            thermal_zone: PathBuf::from("/sys/class/thermal/thermal_zone0/temp"),
            scene: Scene::default(),
            meter: Meter::default(),
            spare: Some(Picture::empty()),
            state: None,
            hold_until: None,
            screen: None,
            complained: false,
        }
    }

    /// Runs until the messages end.
    pub fn run(&mut self) {
        let mut pause = BACKOFF.0;
        loop {
            self.turns.fetch_add(1, Ordering::Relaxed);
            if self.screen.is_none() {
                match self.connect() {
                    Ok(()) => pause = BACKOFF.0,
                    Err(error) => {
                        self.complain(&error);
                        if !self.wait_without_panel(pause) {
                            return;
                        }
                        pause = (pause * 2).min(BACKOFF.1);
                        continue;
                    }
                }
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.complain(&error);
                    self.screen = None;
                    if !self.wait_without_panel(pause) {
                        return;
                    }
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    fn complain(&mut self, error: &DisplayError) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("{error}; frames go on without it, and it is looked for again and again");
        }
    }

    fn connect(&mut self) -> Result<(), DisplayError> {
        let panel = (self.open)()?;
        let ((width, height), grid) = (panel.size(), panel.grid());
        let rgb = vec![0; width * height * 3];
        let mut screen = Screen { shown: Shown::new(grid), cells: vec![0; grid.bytes()], rgb, panel, refreshed: Instant::now() };
        // black at first: a panel's memory is noise after power-on
        let state = self.state.clone();
        screen.present(|canvas, depth| {
            if let Some(state) = &state {
                state.draw(canvas, depth);
            }
        })?;
        log::info!("display: {}", screen.panel.describe());
        (self.screen, self.complained) = (Some(screen), false);
        Ok(())
    }

    /// Remembers what comes meanwhile; false at the end.
    fn wait_without_panel(&mut self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.turns.fetch_add(1, Ordering::Relaxed);
            match self.exchange.messages.take(left.min(IDLE)) {
                Taken::Value(Message::Picture(picture)) => self.spare = Some(picture),
                Taken::Value(Message::State(state)) => self.state = Some(state),
                Taken::TimedOut => {}
                Taken::Closed => return false,
            }
        }
    }

    /// One message; false at the end.
    fn step(&mut self) -> Result<bool, DisplayError> {
        let now = Instant::now();
        let ready = self.hold_until.is_none_or(|until| until <= now);
        if let Some(spare) = self.spare.take_if(|_| ready) {
            self.exchange.ready.put(spare);
        }
        let patience = self.hold_until.map_or(IDLE, |until| until.saturating_duration_since(now)).min(IDLE);
        let patience = if patience.is_zero() { IDLE } else { patience };
        let Some(screen) = self.screen.as_mut() else { return Ok(true) };
        match self.exchange.messages.take(patience) {
            Taken::Value(Message::Picture(picture)) => {
                let (scene, look) = (&mut self.scene, self.look);
                let rate = self.meter.rate(picture.published, picture.published_ns);
                let status = line(rate, temperature(&self.thermal_zone));
                let result = screen.present(|canvas, depth| match depth {
                    Depth::Colour => scene.draw(canvas, &picture, look, &status),
                    Depth::Mono => mono::draw(scene, canvas, &picture, &status),
                });
                (self.spare, self.state) = (Some(picture), None);
                self.hold_until = Some(now + self.interval);
                result?;
            }
            Taken::Value(Message::State(state)) => {
                self.hold_until = state.is_failure().then_some(now + FAILURE_STAYS);
                let result = screen.present(|canvas, depth| state.draw(canvas, depth));
                // a frame that was about to be shown would hide a failure at once
                if state.is_failure() && self.spare.is_none() {
                    self.spare = match self.exchange.ready.take(Duration::ZERO) {
                        Taken::Value(spare) => Some(spare),
                        _ => None,
                    };
                }
                self.state = Some(state);
                result?;
            }
            Taken::TimedOut => screen.refresh()?,
            Taken::Closed => return Ok(false),
        }
        Ok(true)
    }
}

impl Screen {
    /// Draws a picture and sends what has changed.
    fn present(&mut self, draw: impl FnOnce(&mut Canvas, Depth)) -> Result<(), DisplayError> {
        let (width, height) = self.panel.size();
        draw(&mut Canvas { rgb: &mut self.rgb, width, height }, self.panel.depth());
        self.panel.encode(&self.rgb, &mut self.cells);
        if self.refreshed.elapsed() >= REFRESH {
            self.refreshed = Instant::now();
            if self.panel.is_shared()? {
                self.shown.forget();
            }
        }
        for area in self.shown.update(&self.cells) {
            self.panel.send(&self.cells, *area)?;
        }
        Ok(())
    }

    /// The same picture once more, if another program may have drawn over it.
    fn refresh(&mut self) -> Result<(), DisplayError> {
        if self.refreshed.elapsed() < REFRESH {
            return Ok(());
        }
        self.present(|_, _| {})
    }
}
