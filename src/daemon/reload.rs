//! SIGHUP, or the control socket: the configuration is read again, or another model takes its place, and what does not work leaves the old
//! one in force.
//!
//! Frames go on while a model is tried and loaded and a source is opened; one that takes too long is given up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eomt_edge_core::pipeline::Taken;

use super::builder::{decoder, ring_config, ring_metadata, source_uri};
use super::capture::Capture;
use super::loader::Loaded;
use super::screen::check;
use super::serve::Server;
use super::steering::hide_command;
use crate::config::{Config, ModelConfig};
use crate::sink::State;

/// While a model is loaded: the loader is asked this often.
const LOAD_PATIENCE: Duration = Duration::from_millis(20);

/// A trial that has run out of time is ended within this.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How a change is told: done, not done, and what stays then.
type Words = [&'static str; 3];

impl Server {
    /// Reads the configuration again; whatever fails leaves everything as it was.
    ///
    /// # Errors
    /// Why it was refused, which the log has too.
    pub fn reload(&mut self) -> Result<(), String> {
        self.change(["reloaded", "reload refused", "the old configuration stays"], Server::try_reload)
    }

    /// Another model file takes the place of the one that runs, until the configuration is read again; everything else stays.
    ///
    /// # Errors
    /// As [`Server::reload`].
    pub fn switch_model(&mut self, path: PathBuf) -> Result<(), String> {
        self.change(["another model runs", "model refused", "the old one stays"], |server| server.try_switch(path))
    }

    fn change(&mut self, [done, refused, stays]: Words, change: impl FnOnce(&mut Server) -> Result<(), String>) -> Result<(), String> {
        self.service.reloading();
        let result = change(self);
        let mut status = match &result {
            Ok(()) => done.to_owned(),
            Err(reason) => {
                log::error!("{refused}, {stays}: {reason}");
                let status = format!("{refused}: {reason}");
                self.screen.show(State::Failure(status.clone()));
                status
            }
        };
        if self.last_no_signal.is_some() {
            status += "; no signal: waiting for frames";
        }
        self.service.ready(&status);
        self.last_status = Instant::now();
        result
    }

    /// The network of a new configuration, after its trial, and its source, if that has changed. Frames go on meanwhile, and so do signs of
    /// life, for as long as all of it may take.
    fn load(&mut self, config: &Config) -> Result<Loaded, String> {
        self.steering.loading = true;
        let result = self.load_beside_frames(config);
        self.steering.loading = false;
        result
    }

    fn load_beside_frames(&mut self, config: &Config) -> Result<Loaded, String> {
        let limit = config.model.load_timeout() * 2 + END_PATIENCE;
        self.service.extend_start(limit);
        self.loaders.order(config, (&config.source, &config.camera) != (&self.config.source, &self.config.camera))?;
        let started = Instant::now();
        loop {
            // what is wrong with another thread comes up again in the main loop
            let _ = self.supervise();
            self.steer();
            if let Some(result) = self.loaders.take() {
                return result;
            }
            if self.signals.stop_requested() {
                self.loaders.abandon();
                return Err("the daemon stops".to_owned());
            }
            if started.elapsed() >= limit {
                let (path, uri) = (config.model.path.display(), &config.source.uri);
                let what = if self.loaders.abandon() { format!("{uri}: opening") } else { format!("{path}: loading") };
                return Err(format!("{what} it took longer than {} s (model.load_timeout) and was given up", config.model.load_timeout));
            }
            match self.capture.mailbox.take(LOAD_PATIENCE) {
                // an error that ends the run comes up again in the main loop
                Taken::Value(tagged) => drop(self.process(tagged)),
                Taken::TimedOut => self.idle(),
                Taken::Closed => std::thread::sleep(LOAD_PATIENCE),
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let mut config = (self.read)().map_err(|error| error.to_string())?;
        hide_command(&config);
        // the sockets' own settings take a restart
        let ring_wanted = std::mem::replace(&mut config.ring, self.config.ring.clone());
        let control_wanted = std::mem::replace(&mut config.control, self.config.control.clone());
        self.adopt(config)?;
        self.steering.chosen = false;
        for (section, is_same) in [("ring", ring_wanted == self.config.ring), ("control", control_wanted == self.config.control)] {
            if !is_same {
                log::warn!("[{section}] has changed: that takes a restart");
            }
        }
        log::info!("the configuration was read again");
        Ok(())
    }

    fn try_switch(&mut self, path: PathBuf) -> Result<(), String> {
        let model = ModelConfig { path, ..self.config.model.clone() };
        self.adopt(Config { model, ..self.config.clone() })?;
        self.steering.chosen = true;
        log::info!("control: {} runs until the configuration is read again", self.network.path.display());
        Ok(())
    }

    /// Does as `config` says, whose sockets are those that there are.
    fn adopt(&mut self, config: Config) -> Result<(), String> {
        let uri = source_uri(&config).map_err(|error| error.to_string())?;
        check(&config).map_err(|error| error.to_string())?;
        // the file may have changed under the same name, so the model is always loaded anew
        let Loaded { mut network, source } = self.load(&config)?;
        let ring = ring_config(&config, &network, source.as_ref().map_or(self.sink.max_size(), |source| source.max_size()));
        let metadata = ring_metadata(&network, &config.source.uri, false);
        // what the system may refuse comes first: from here on the old configuration cannot come back
        let waiting = source.map(|source| Capture::prepare(source, &config.source.uri, Arc::clone(&self.clock))).transpose();
        let waiting = waiting.map_err(|error| error.to_string())?;
        self.sink.reconfigure(ring, metadata).map_err(|error| error.to_string())?;
        if let Some(waiting) = waiting {
            // first: two cannot stream from one camera
            self.capture.stop();
            self.unpublished = self.unpublished();
            self.capture = waiting.begin();
            self.sink.set_source_id(0);
            self.decoder = decoder(&uri, &config);
            network.pipeline.reset(); // another camera shows another scene
            // it gets the time that the first one got
            (self.last_frame, self.last_no_signal) = (Instant::now(), None);
        }
        self.sink.set_stale_after(config.source.no_signal_after());
        self.screen.set_labels(&network.pipeline.model().metadata().labels);
        self.screen.reconfigure(&config.display);
        if self.last_no_signal.is_some() {
            self.screen.show(State::NoSignal);
        }
        network.track(&config.track, &self.track_ids);
        self.last_good.serves(&config.model, &network.contents, self.counters.published, Instant::now());
        self.fallback = None;
        self.network = network;
        self.config = config;
        Ok(())
    }
}
