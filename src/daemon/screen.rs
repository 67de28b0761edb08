//! The daemon's display, if it has one: with the feature `display` and a `[display]` that is not `none`.

use std::time::Duration;

use eomt_edge_core::pipeline::Sink;

use super::DaemonError;
use super::supervisor::{DISPLAY_LIMIT, Stopped, Watch};
use crate::config::{Config, ConfigError, DisplayConfig, DisplayKind};
use crate::sink::State;

#[cfg(feature = "display")]
mod inner {
    pub use crate::sink::display::Display;
}

/// The same without any display.
#[cfg(not(feature = "display"))]
mod inner {
    use crate::config::DisplayConfig;
    use crate::sink::State;

    #[derive(Debug)]
    pub enum Display {}

    impl Display {
        pub fn start(_: &DisplayConfig) -> Display {
            unreachable!("refused when the configuration was read")
        }

        pub fn set_labels(&mut self, _: &[String]) {
            match *self {}
        }

        pub fn show(&self, _: State) {
            match *self {}
        }

        pub fn end(self, _: State) {
            match self {}
        }

        pub fn turns(&self) -> Option<u64> {
            match *self {}
        }

        pub fn abandon(self) {
            match self {}
        }
    }
}

use inner::Display;

/// New threads in the place of those that hang or have panicked. Each that hangs stays with its memory and descriptor until its device answers.
const RESTARTS_MAX: u32 = 5;

/// Before the first new thread; twice as long before each further one.
const PAUSE: Duration = Duration::from_secs(5);

/// A thread that has turned so often has opened its panel, or knows that there is none.
const TURNS_OF_ONE_THAT_WORKS: u64 = 3;

/// What people in front of the robot see of the daemon.
#[derive(Debug)]
pub struct Screen {
    config: DisplayConfig,
    display: Option<Display>,
    labels: Vec<String>,
    watch: Watch,
    restarts: u32,
    /// When the next thread starts, by the clock.
    again_ns: Option<u64>,
    trouble: Option<String>,
}

impl Screen {
    pub fn start(config: &Config) -> Result<Screen, DaemonError> {
        check(config)?;
        let display = start(&config.display);
        let watch = Watch::new(DISPLAY_LIMIT);
        Ok(Screen { config: config.display.clone(), display, labels: Vec::new(), watch, restarts: 0, again_ns: None, trouble: None })
    }

    /// Names of the classes of frames to come.
    pub fn set_labels(&mut self, labels: &[String]) {
        self.labels = labels.to_vec();
        if let Some(display) = &mut self.display {
            display.set_labels(labels);
        }
    }

    pub fn show(&self, state: State) {
        if let Some(display) = &self.display {
            display.show(state);
        }
    }

    /// The daemon ends by `error`, or as it should.
    pub fn end(self, error: Option<&DaemonError>) {
        let Some(display) = self.display else { return };
        display.end(match error {
            None => State::Stopped,
            Some(error @ (DaemonError::Model(_) | DaemonError::Trial(_) | DaemonError::FirstInference { .. })) => {
                State::ModelError(error.to_string())
            }
            Some(error) => State::Failure(error.to_string()),
        });
    }

    /// Another display takes the old one's place if `[display]` has changed.
    pub fn reconfigure(&mut self, config: &DisplayConfig) {
        if *config == self.config {
            return;
        }
        self.display = None; // first: it may hold the same device
        self.display = start(config);
        self.config = config.clone();
        (self.restarts, self.again_ns, self.trouble) = (0, None, None);
        self.set_labels(&self.labels.clone());
    }

    /// Looks after the display's thread at `now_ns`: one that hangs or has panicked is left behind, and another one starts after a while.
    /// Frames wait for none of that. What is wrong, if something is.
    pub fn supervise(&mut self, now_ns: u64) -> Option<&str> {
        if self.again_ns.take_if(|again_ns| *again_ns <= now_ns).is_some() {
            log::info!("display: another thread tries it");
            self.watch = Watch::new(DISPLAY_LIMIT);
            self.display = start(&self.config);
            self.set_labels(&self.labels.clone());
        }
        let turns = self.display.as_ref().map(Display::turns);
        match turns.map(|turns| (self.watch.look(turns, now_ns), turns)) {
            Some((Err(stopped), _)) => self.abandon(stopped, now_ns),
            Some((Ok(()), Some(TURNS_OF_ONE_THAT_WORKS..))) => self.trouble = None,
            _ => {}
        }
        self.trouble.as_deref()
    }

    fn abandon(&mut self, stopped: Stopped, now_ns: u64) {
        if let Some(display) = self.display.take() {
            display.abandon();
        }
        let next = if self.restarts < RESTARTS_MAX {
            let pause = PAUSE * 2u32.pow(self.restarts);
            self.restarts += 1;
            self.again_ns = Some(now_ns + pause.as_nanos() as u64);
            format!("another one starts in {} s", pause.as_secs())
        } else {
            "it was the last of many, the display stays off".to_owned()
        };
        log::error!("display: {stopped}; frames go on without it, {next}");
        self.trouble = Some(format!("display: {stopped}"));
    }

    /// Calls `publish` with a sink that also shows what passes.
    pub fn through<T>(&self, sink: &mut dyn Sink, publish: impl FnOnce(&mut dyn Sink) -> T) -> T {
        #[cfg(feature = "display")]
        if let Some(display) = &self.display {
            return publish(&mut display.tap(sink));
        }
        publish(sink)
    }
}

fn start(config: &DisplayConfig) -> Option<Display> {
    (config.kind != DisplayKind::None).then(|| Display::start(config))
}

/// A display needs a program that was built for one.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    if cfg!(feature = "display") || config.display.kind == DisplayKind::None {
        return Ok(());
    }
    let value = format!("{:?}", config.display.kind).to_lowercase();
    Err(ConfigError::Value { key: "display.kind", value, reason: "this program was built without displays" })
}

#[cfg(all(test, feature = "display"))]
mod tests {
    use super::*;

    /// A thread that stands still as seen by a clock that runs far too fast: nobody waits for it, it is replaced a few times, then no more.
    #[test]
    fn a_display_that_hangs_is_replaced_a_few_times_and_then_left_off() {
        let settings = ["source.uri=scenes", "display.kind=fb", "display.device=/nowhere/fb7"].map(str::to_owned);
        let mut screen = Screen::start(&Config::parse("", &settings).unwrap()).unwrap();
        let mut now = 0;
        let mut starts = 1;
        let mut names = Vec::new();
        for _ in 0..10_000 {
            now += 1_000_000_000;
            let had_one = screen.display.is_some();
            names.extend(screen.supervise(now).map(str::to_owned));
            starts += u32::from(!had_one && screen.display.is_some());
        }
        assert_eq!((starts, screen.display.is_none(), screen.again_ns), (1 + RESTARTS_MAX, true, None));
        assert!(names.iter().all(|name| name.starts_with("display: it has made no progress for 3")), "{names:?}");
        assert!(screen.trouble.is_some(), "the status line goes on to say so");
        // another [display] gets as many attempts as the first one
        let settings = ["source.uri=scenes", "display.kind=fb", "display.device=/nowhere/fb8"].map(str::to_owned);
        screen.reconfigure(&Config::parse("", &settings).unwrap().display);
        assert_eq!((screen.display.is_some(), screen.trouble.is_none(), screen.restarts), (true, true, 0));
    }
}
