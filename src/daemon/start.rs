//! Which model the daemon starts with: the configured one after its trial, or the last good one when starts have failed too often.

use eomt_edge_host::contents::Contents;
use eomt_edge_host::model_file::ModelFileError;

use super::DaemonError;
use super::builder::{LOAD_STACK, Network};
use super::last_good::LastGood;
use super::service::Service;
use super::signals::Signals;
use super::trial;
use super::trial_child::Tried;
use crate::config::ModelConfig;

/// A network, and why it is the last good one, if it is.
pub struct Started {
    pub network: Network,
    pub fallback: Option<String>,
}

/// What a start asks and tells.
pub struct Starter<'a> {
    pub last_good: &'a LastGood,
    pub signals: &'a Signals,
    pub service: &'a Service,
}

impl Starter<'_> {
    /// # Errors
    /// Those of the configured model, when there is no other one.
    pub fn start(&self, model: &ModelConfig) -> Result<Started, DaemonError> {
        self.last_good.begins();
        match self.tries(model) {
            Err(error) if error.is_of_the_model() => match self.last_good.instead_of(model, None) {
                Some(copy) => self.fall_back(copy, &error).ok_or(error),
                None => Err(error),
            },
            Err(error) => Err(error),
            Ok(tried) => {
                if let Some(copy) = self.last_good.instead_of(model, Some(&tried.contents)) {
                    let error = DaemonError::Service { path: model.path.clone(), starts: model.fallback_after };
                    if let Some(started) = self.fall_back(copy, &error) {
                        return Ok(started);
                    }
                }
                self.last_good.trial_passed();
                Ok(Started { network: Network::start_on(LOAD_STACK, model, Some(tried.contents))?, fallback: None })
            }
        }
    }

    fn tries(&self, model: &ModelConfig) -> Result<Tried, DaemonError> {
        // its trial, and its loading
        self.service.extend_start(model.load_timeout() * 2);
        Ok(trial::run(model, &|| self.signals.stop_requested())?)
    }

    /// The last good model; `None`: it does not run either.
    fn fall_back(&self, (config, contents): (ModelConfig, Contents), error: &DaemonError) -> Option<Started> {
        let network = self.tries(&config).and_then(|tried| {
            if tried.contents != contents {
                return Err(ModelFileError::Changed { path: config.path.clone(), what: "the copy".to_owned() }.into());
            }
            Network::start_on(LOAD_STACK, &config, Some(contents))
        });
        match network {
            Ok(network) => {
                let reason = format!("the last good model runs, not the configured one: {error}");
                log::error!("{reason}");
                Some(Started { network, fallback: Some(reason) })
            }
            Err(second) => {
                log::error!("the last good model does not run either: {second}");
                None
            }
        }
    }
}
