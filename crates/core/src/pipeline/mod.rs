//! Wires the stages: frame → tensor → logits → segments, into whatever the [`Sink`] offers.
//!
//! ```no_run
//! # fn demo(model: eomt_edge_core::model::Model, frame: eomt_edge_core::data::Frame) -> Result<(), Box<dyn std::error::Error>> {
//! use eomt_edge_core::pipeline::{FixedClock, NullSink, Pipeline};
//! use eomt_edge_core::segment::PostProcessConfig;
//! let mut pipeline = Pipeline::new(model, PostProcessConfig::default());
//! let report = pipeline.process(&frame, 0, &mut NullSink::default(), &FixedClock(0))?;
//! println!("{} us", report.times.total_us());
//! # Ok(())
//! # }
//! ```
//!
//! Owns the ports [`Source`], [`Sink`], [`Clock`], the [`Mailbox`] of one between threads (the newest frame wins) and the buffer
//! [`Pool`]. The daemon, `segment`, `evaluate` and `bench` drive this same code. Invariants: one frame in, one publication out; our own code
//! allocates nothing per frame after warm-up.
//! Refuses: files, devices, signals.

mod mailbox;
mod pool;
mod ports;

pub use mailbox::{Mailbox, Taken};
pub use pool::Pool;
pub use ports::{Captured, Clock, FixedClock, Losses, NullSink, Publication, Sink, SinkError, Source, SourceError};

use crate::data::{ClassLogits, Frame, FrameReport, Logits, Segments, StageTimes, Tensor, Windows};
use crate::model::{Model, ModelError};
use crate::preprocess::Preprocessor;
use crate::segment::{
    Anomaly, Candidate, PostProcessConfig, Segmenter, SemanticView, anomaly_map, candidate_queries, semantic_windows, survivors,
};

/// Why one frame failed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// The three computing stages with their buffers.
pub struct Pipeline {
    model: Model,
    preprocessor: Preprocessor,
    segmenter: Segmenter,
    tensor: Tensor,
    logits: Logits,
    keep_all: bool,
}

impl Pipeline {
    /// Stages for `model`, whose logits become segments by `config`.
    pub fn new(model: Model, config: PostProcessConfig) -> Pipeline {
        let metadata = model.metadata();
        let (height, width) = metadata.input_size;
        let preprocessor = Preprocessor::new(metadata.image_mean, metadata.image_std, metadata.input_size).with_isa(model.isa());
        let (tensor, logits) = (Tensor::zeros(height, width), Logits::default());
        Pipeline { preprocessor, segmenter: Segmenter::new(config).with_isa(model.isa()), model, tensor, logits, keep_all: false }
    }

    /// Computes the masks of all queries, also of those that cannot survive: the same result, slower. To compare.
    pub fn keep_all_queries(mut self, keep_all: bool) -> Pipeline {
        self.keep_all = keep_all;
        self
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The network alone, with what it has warmed up.
    pub fn into_model(self) -> Model {
        self.model
    }

    /// The network on `self.tensor`.
    fn infer(&mut self) -> Result<(), ModelError> {
        let Pipeline { model, segmenter, tensor, logits, keep_all, .. } = self;
        let all = *keep_all;
        let keep = |class: &ClassLogits, kept: &mut Vec<usize>| match all {
            true => kept.extend(0..class.queries),
            false => survivors(class, segmenter.config(), kept),
        };
        model.run(tensor, keep, logits)
    }

    /// Takes one frame through all stages into `sink`; `dropped` goes into its report.
    ///
    /// # Errors
    /// When the network cannot run or the sink cannot take the frame; the pipeline stays usable.
    pub fn process(&mut self, frame: &Frame, dropped: u64, sink: &mut dyn Sink, clock: &dyn Clock) -> Result<FrameReport, PipelineError> {
        let start = clock.now_ns();
        let geometry = self.preprocessor.run(frame, &mut self.tensor);
        let preprocessed = clock.now_ns();
        self.infer()?;
        let inferred = clock.now_ns();
        let mut report = FrameReport { sequence: frame.sequence, captured_ns: frame.captured_ns, dropped, ..FrameReport::default() };
        let mut segmented = inferred;
        sink.publish(frame, &mut |ids, publication| {
            let table = self.segmenter.run(&self.logits, &geometry, ids);
            publication.table.clone_from(&table.rows);
            segmented = clock.now_ns();
            let micros = [preprocessed - start, inferred - preprocessed, segmented - inferred, 0].map(|ns| (ns / 1000) as u32);
            report.times = StageTimes { micros };
            report.published_ns = segmented;
            publication.report = report;
        })?;
        report.times.micros[3] = ((clock.now_ns() - segmented) / 1000) as u32;
        Ok(report)
    }

    /// The segments of one frame, with whole masks when the config ask for them: for tools.
    pub fn segments(&mut self, frame: &Frame) -> Result<Segments, PipelineError> {
        let geometry = self.preprocessor.run(frame, &mut self.tensor);
        self.infer()?;
        Ok(self.segmenter.segments(&self.logits, &geometry))
    }

    /// The `count` best readings of a query as a class ([`Segmenter::candidates`]): for tools.
    pub fn candidates(&mut self, frame: &Frame, count: usize) -> Result<Vec<Candidate>, PipelineError> {
        let geometry = self.preprocessor.run(frame, &mut self.tensor);
        self.model.run(&self.tensor, |class, kept| candidate_queries(class, count, kept), &mut self.logits)?;
        Ok(self.segmenter.candidates(&self.logits, &geometry, count))
    }

    /// How foreign each pixel is, `[height, width]`; needs the semantic task, and a square input for `windows`. For tools.
    pub fn anomalies(&mut self, frame: &Frame, windows: bool, kind: Anomaly) -> Result<Vec<f32>, PipelineError> {
        let size = (frame.height as usize, frame.width as usize);
        if windows {
            let windows = Windows::split(size, self.tensor.height);
            let logits = self.logits_of_windows(frame, &windows)?;
            return Ok(anomaly_map(&logits, &SemanticView::windows(&windows, self.tensor.height), kind));
        }
        let geometry = self.preprocessor.run(frame, &mut self.tensor);
        self.infer()?;
        Ok(anomaly_map(std::slice::from_ref(&self.logits), &SemanticView::padded(&geometry), kind))
    }

    /// Semantic segments from overlapping windows along the frame's longer side; needs a square input and the semantic task.
    pub fn segments_of_windows(&mut self, frame: &Frame) -> Result<Segments, PipelineError> {
        let windows = Windows::split((frame.height as usize, frame.width as usize), self.tensor.height);
        let all = self.logits_of_windows(frame, &windows)?;
        Ok(semantic_windows(&all, &SemanticView::windows(&windows, self.tensor.height)))
    }

    fn logits_of_windows(&mut self, frame: &Frame, windows: &Windows) -> Result<Vec<Logits>, PipelineError> {
        let mut all = Vec::with_capacity(windows.origins.len());
        for tensor in self.preprocessor.run_windows(frame, windows) {
            self.tensor = tensor;
            self.infer()?;
            all.push(std::mem::take(&mut self.logits));
        }
        Ok(all)
    }
}
