//! The daemon's control socket, if it has one: what the main thread keeps for it.
//!
//! Invariant: a thread of the socket that stands still is left behind, and frames go on.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::DaemonError;
use super::builder::reaper_command;
use super::supervisor::Watch;
use crate::config::{Config, ControlConfig};
use crate::control::{Door, LOG, Order};

/// The socket's thread turns twice a second; it looks at files, and a disk may be slow.
const DOOR_LIMIT: Duration = Duration::from_secs(30);

/// Frames a second are those of this time.
const RATE_PERIOD: Duration = Duration::from_secs(5);

/// The control socket, if there is one, and what only it asks for.
#[derive(Debug)]
pub(super) struct Steering {
    door: Option<Door>,
    watch: Watch,
    trouble: Option<String>,
    pub started: Instant,
    rate: Rate,
    /// A model is being tried or loaded.
    pub loading: bool,
    /// The model that runs was chosen at the socket; the configuration names another one.
    pub chosen: bool,
}

/// Frames a second of the last whole period; of the present one while it is the first.
#[derive(Debug)]
struct Rate {
    since: Instant,
    published: u64,
    last: Option<f64>,
}

impl Rate {
    /// So many frames have been published by now.
    fn update(&mut self, published: u64, now: Instant) {
        if now.saturating_duration_since(self.since) >= RATE_PERIOD {
            self.last = Some(self.present(published, now));
            (self.since, self.published) = (now, published);
        }
    }

    fn present(&self, published: u64, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        if seconds > 0.0 { published.saturating_sub(self.published) as f64 / seconds } else { 0.0 }
    }

    fn fps(&self, published: u64, now: Instant) -> f64 {
        self.last.unwrap_or_else(|| self.present(published, now))
    }
}

impl Steering {
    /// Opens the socket, if the configuration names one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn start(config: &ControlConfig) -> Result<Steering, DaemonError> {
        let door = config.is_on().then(|| Door::start(config, reaper_command().as_ref())).transpose()?;
        let now = Instant::now();
        let rate = Rate { since: now, published: 0, last: None };
        Ok(Steering { door, watch: Watch::new(DOOR_LIMIT), trouble: None, started: now, rate, loading: false, chosen: false })
    }

    /// Looks after the socket's thread at `now_ns`. What is wrong, if something is.
    pub fn supervise(&mut self, published: u64, now_ns: u64) -> Option<&str> {
        self.rate.update(published, Instant::now());
        if let Some(Err(stopped)) = self.door.as_ref().map(|door| self.watch.look(door.turns(), now_ns)) {
            log::error!("the control socket: {stopped}; frames go on without it, and it comes back with a new process");
            self.trouble = Some(format!("the control socket: {stopped}"));
            self.door.take().into_iter().for_each(Door::abandon);
        }
        self.trouble.as_deref()
    }

    /// Frames a second, of which so many have been published by now.
    pub fn fps(&self, published: u64) -> f64 {
        self.rate.fps(published, Instant::now())
    }

    /// What somebody asks for, with the number to answer to.
    pub fn next(&self) -> Option<(u64, Order)> {
        self.door.as_ref()?.next()
    }

    pub fn answer(&self, number: u64, answer: Value) {
        if let Some(door) = &self.door {
            door.answer(number, answer);
        }
    }
}

/// Keeps what a command of `exec:` may hold out of the log that others read: its program's name is enough.
pub(super) fn hide_command(config: &Config) {
    let Some(command) = config.source.uri.strip_prefix("exec:").map(str::trim) else { return };
    // NAME=value in front of a command sets a variable
    let program = command.split_whitespace().find(|word| !word.contains('=')).unwrap_or_default();
    if program.len() < command.len() {
        LOG.hide(command, &format!("{program} ..."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_a_second_are_those_of_the_last_period() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut rate = Rate { since: start, published: 0, last: None };
        assert_eq!(rate.fps(0, start), 0.0);
        rate.update(20, at(2.0));
        assert_eq!(rate.fps(20, at(2.0)), 10.0, "the first period has begun");
        rate.update(50, at(5.0));
        rate.update(51, at(6.0));
        assert_eq!(rate.fps(51, at(6.0)), 10.0, "the present one does not count yet");
        rate.update(70, at(10.0));
        assert_eq!(rate.fps(70, at(10.0)), 4.0);
    }
}
