//! What is asked for at the control socket, done between two frames.
//!
//! Invariants: without an order a turn costs a look at an empty channel; a turn takes as many orders as there are connections, at most.
//! Refuses: to wait for a client, to write the configuration.

use std::path::PathBuf;

use eomt_edge_core::data::Thresholds;
use eomt_edge_host::model_file;
use rustix::process::getpid;
use serde_json::{Value, json};

use super::builder::{ring_config, ring_metadata};
use super::serve::Server;
use crate::control::{CONNECTIONS_MAX, LOG, Order, ThresholdSet};

impl Server {
    /// Does what has been asked for at the control socket since the last look.
    pub(super) fn steer(&mut self) {
        for _ in 0..CONNECTIONS_MAX {
            let Some((number, order)) = self.steering.next() else { return };
            let answer = match order {
                Order::Status => Ok(self.status()),
                Order::Thresholds(set) => self.set_thresholds(set),
                Order::Reload | Order::Model(_) if self.steering.loading => {
                    Err("a model is being loaded already: ask again when that is done".to_owned())
                }
                Order::Reload => self.reload().map(|()| json!({ "ok": true })),
                Order::Model(path) => self.choose(path),
            };
            // a refusal may hold what the log hides, too
            self.steering.answer(number, answer.unwrap_or_else(|reason| json!({ "ok": false, "error": LOG.plain(&reason) })));
        }
    }

    fn set_thresholds(&mut self, set: ThresholdSet) -> Result<Value, String> {
        let before = self.network.pipeline.post_process().thresholds;
        let thresholds = set.onto(before);
        if thresholds != before {
            self.network.set_thresholds(thresholds);
            // readers connect anew, and learn them
            let ring = ring_config(&self.config, &self.network, self.sink.max_size());
            let metadata = ring_metadata(&self.network, &self.config.source.uri, self.fallback.is_some());
            self.sink.reconfigure(ring, metadata).map_err(|error| format!("the thresholds hold, but readers cannot be told: {error}"))?;
            let Thresholds { score, mask, overlap } = thresholds;
            log::info!("control: threshold {score}, mask_threshold {mask}, overlap_threshold {overlap}");
        }
        Ok(json!({ "ok": true, "thresholds": described(thresholds), "lasts": "until a reload, another model or a restart" }))
    }

    fn choose(&mut self, path: PathBuf) -> Result<Value, String> {
        self.switch_model(path)?;
        let lasts = "until a reload or a restart, which go back to the configured model";
        Ok(json!({ "ok": true, "model": self.model(), "lasts": lasts }))
    }

    fn status(&mut self) -> Value {
        self.count_losses();
        let (counters, no_signal) = (self.counters, self.last_no_signal.is_some());
        let fps = if no_signal { 0.0 } else { self.steering.fps(counters.published) };
        let uptime = self.steering.started.elapsed().as_secs_f64();
        json!({
            "ok": true,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": getpid().as_raw_nonzero().get(),
            "uptime_s": rounded(uptime, 1000.0),
            "frames": counters.published,
            "fps": rounded(fps, 100.0),
            "dropped": counters.dropped,
            "failed": counters.failed,
            "source": { "uri": LOG.plain(&self.config.source.uri), "no_signal": no_signal },
            "model": self.model(),
            "thresholds": described(self.network.pipeline.post_process().thresholds),
            "loading": self.steering.loading,
            "isa": self.network.pipeline.model().isa().name(),
            "threads": model_file::threads_or_cores(self.config.model.threads),
        })
    }

    /// The model that runs.
    fn model(&self) -> Value {
        let metadata = self.network.pipeline.model().metadata();
        let (height, width) = metadata.input_size;
        let is_fallback = self.fallback.is_some();
        json!({
            "path": self.network.path.to_string_lossy(),
            "name": metadata.name,
            "sha256": self.network.contents.model,
            "precision": metadata.precision.name(),
            "size": [width, height],
            "task": self.network.pipeline.post_process().task.name(),
            "classes": metadata.labels.len(),
            "labels": metadata.labels,
            "fallback": is_fallback,
            "configured": !is_fallback && !self.steering.chosen,
        })
    }
}

fn described(Thresholds { score, mask, overlap }: Thresholds) -> Value {
    json!({ "threshold": score, "mask_threshold": mask, "overlap_threshold": overlap })
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}
