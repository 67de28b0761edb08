//! The daemon's display, if it has one: with the feature `display` and a `[display]` that is not `none`.

use eomt_edge_core::pipeline::Sink;

use super::DaemonError;
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
    }
}

use inner::Display;

/// What people in front of the robot see of the daemon.
#[derive(Debug)]
pub struct Screen {
    config: DisplayConfig,
    display: Option<Display>,
    labels: Vec<String>,
}

impl Screen {
    pub fn start(config: &Config) -> Result<Screen, DaemonError> {
        check(config)?;
        let display = start(&config.display);
        Ok(Screen { config: config.display.clone(), display, labels: Vec::new() })
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
        if let Some(display) = &mut self.display {
            display.set_labels(&self.labels);
        }
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
