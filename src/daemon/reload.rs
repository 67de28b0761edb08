//! SIGHUP: the configuration is read again, and what does not work leaves the old one in force.
//!
//! Frames go on while a model is tried and loaded and a source is opened; one that takes too long is given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eomt_edge_core::pipeline::Taken;

use super::builder::{decoder, ring_config, ring_metadata, source_uri};
use super::capture::Capture;
use super::loader::Loaded;
use super::screen::check;
use super::serve::Server;
use crate::config::Config;
use crate::sink::State;

/// While a model is loaded: the loader is asked this often.
const LOAD_PATIENCE: Duration = Duration::from_millis(20);

/// A trial that has run out of time is ended within this.
const END_PATIENCE: Duration = Duration::from_secs(5);

impl Server {
    /// Reads the configuration again; whatever fails leaves everything as it was.
    pub fn reload(&mut self) {
        self.service.reloading();
        let mut status = match self.try_reload() {
            Ok(()) => "reloaded".to_owned(),
            Err(reason) => {
                log::error!("reload refused, the old configuration stays: {reason}");
                let status = format!("reload refused: {reason}");
                self.screen.show(State::Failure(status.clone()));
                status
            }
        };
        if self.last_no_signal.is_some() {
            status += "; no signal: waiting for frames";
        }
        self.service.ready(&status);
        self.last_status = Instant::now();
    }

    /// The network of a new configuration, after its trial, and its source, if that has changed. Frames go on meanwhile, and so do signs of
    /// life, for as long as all of it may take.
    fn load(&mut self, config: &Config) -> Result<Loaded, String> {
        let limit = config.model.load_timeout() * 2 + END_PATIENCE;
        self.service.extend_start(limit);
        self.loaders.order(config, (&config.source, &config.camera) != (&self.config.source, &self.config.camera))?;
        let started = Instant::now();
        loop {
            // what is wrong with another thread comes up again in the main loop
            let _ = self.supervise();
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
        // the ring's own settings take a restart
        let ring_wanted = std::mem::replace(&mut config.ring, self.config.ring.clone());
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
        self.last_good.serves(&config.model, &network.contents, self.counters.published, Instant::now());
        self.fallback = None;
        self.network = network;
        if ring_wanted != config.ring {
            log::warn!("[ring] has changed: that takes a restart");
        }
        self.config = config;
        log::info!("the configuration was read again");
        Ok(())
    }
}
