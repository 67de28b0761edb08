//! Wires the stages: frame → tensor → logits → segments, into the buffers that the [`Sink`] offers.
//!
//! ```no_run
//! # fn demo(model: eomt_edge_core::model::Model, frame: eomt_edge_core::data::Frame) -> Result<(), Box<dyn std::error::Error>> {
//! use eomt_edge_core::data::Unpublished;
//! use eomt_edge_core::pipeline::{FixedClock, NullSink, Pipeline};
//! use eomt_edge_core::segment::PostProcessConfig;
//! let mut pipeline = Pipeline::new(model, PostProcessConfig::default());
//! let report = pipeline.process(&frame, Unpublished::default(), &mut NullSink::default(), &FixedClock(0))?;
//! println!("{} us", report.times.total_us());
//! # Ok(())
//! # }
//! ```
//!
//! | port | what the caller brings |
//! |---|---|
//! | [`Source`] | frames: a camera, files, a command |
//! | [`Network`] | logits: [`Model`], or another engine |
//! | [`TemporalStage`] | a memory over frames, if there is one: ids that last |
//! | [`Sink`] | room for masks: shared memory, or nothing |
//! | [`Clock`] | the time |
//!
//! Between threads lie a [`Mailbox`] of one (the newest frame wins) and a buffer [`Pool`]. The daemon, `segment`, `evaluate` and
//! `bench` drive this same code. Invariants: one frame in, one publication out; our own code allocates nothing per frame after
//! warm-up. Refuses: files, devices, signals.

mod error;
mod mailbox;
mod network;
mod pool;
mod ports;
mod temporal;
#[cfg(test)]
mod tests;

pub use error::PipelineError;
pub use mailbox::{Mailbox, Taken};
pub use network::{Keep, Network};
pub use pool::Pool;
pub use ports::{Captured, Clock, FixedClock, Losses, NullSink, Publication, Sink, SinkError, Source, SourceError};
pub use temporal::{SegmentedFrame, TemporalStage};

use crate::data::{ClassLogits, Frame, FrameReport, Logits, Segments, StageTimes, Tensor, Thresholds, Unpublished, Windows};
use crate::model::{Model, ModelError};
use crate::preprocess::{FrameDecoder, Preprocessor};
use crate::segment::{
    Anomaly, Candidate, PostProcessConfig, Segmenter, SemanticView, anomaly_map, candidate_queries, semantic_windows, survivors,
};

/// The computing stages with their buffers.
pub struct Pipeline<N = Model> {
    network: N,
    preprocessor: Preprocessor,
    segmenter: Segmenter,
    temporal: Option<Box<dyn TemporalStage>>,
    tensor: Tensor,
    logits: Logits,
    keep_all: bool,
}

impl<N: Network> Pipeline<N> {
    /// Stages around `network`, whose logits become segments by `config`. They run on the network's instruction set.
    pub fn new(network: N, config: PostProcessConfig) -> Pipeline<N> {
        let (metadata, isa) = (network.metadata(), network.isa());
        let (height, width) = metadata.input_size;
        let preprocessor = Preprocessor::new(metadata.image_mean, metadata.image_std, metadata.input_size).with_isa(isa);
        let segmenter = Segmenter::new(config).with_isa(isa);
        let (tensor, logits) = (Tensor::zeros(height, width), Logits::default());
        Pipeline { network, preprocessor, segmenter, temporal: None, tensor, logits, keep_all: false }
    }

    /// Computes the masks of all queries, also of those that cannot survive: the same result, slower. To compare.
    pub fn keep_all_queries(mut self, keep_all: bool) -> Pipeline<N> {
        self.keep_all = keep_all;
        self
    }

    /// Puts a stage with a memory between segmentation and the sink of [`Pipeline::process`].
    pub fn with_temporal_stage(mut self, stage: Box<dyn TemporalStage>) -> Pipeline<N> {
        self.temporal = Some(stage);
        self
    }

    /// [`Pipeline::with_temporal_stage`] for a pipeline that stands; `None` takes the stage away.
    pub fn set_temporal_stage(&mut self, stage: Option<Box<dyn TemporalStage>>) {
        self.temporal = stage;
    }

    /// The network.
    pub fn model(&self) -> &N {
        &self.network
    }

    /// How logits become segments.
    pub fn post_process(&self) -> &PostProcessConfig {
        self.segmenter.config()
    }

    /// Other thresholds, from the next frame on; the network and its buffers stay.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.segmenter.set_thresholds(thresholds);
    }

    /// The network alone, with its warm buffers.
    pub fn into_model(self) -> N {
        self.network
    }

    /// Forgets earlier frames: what comes next shows another scene. Buffers stay warm.
    pub fn reset(&mut self) {
        self.network.reset();
        if let Some(stage) = &mut self.temporal {
            stage.reset();
        }
    }

    /// The network on `self.tensor`.
    fn infer(&mut self) -> Result<(), ModelError> {
        let Pipeline { network, segmenter, tensor, logits, keep_all, .. } = self;
        let all = *keep_all;
        let mut keep = |class: &ClassLogits, kept: &mut Vec<usize>| match all {
            true => kept.extend(0..class.queries),
            false => survivors(class, segmenter.config(), kept),
        };
        network.run(tensor, &mut keep, logits)
    }

    /// Takes one decoded frame through all stages into `sink`; `unpublished` goes into its report.
    ///
    /// # Errors
    /// When the network cannot run or the sink cannot take the frame; the pipeline stays usable.
    pub fn process(
        &mut self,
        frame: &Frame,
        unpublished: Unpublished,
        sink: &mut dyn Sink,
        clock: &dyn Clock,
    ) -> Result<FrameReport, PipelineError> {
        self.process_since(clock.now_ns(), frame, unpublished, sink, clock)
    }

    /// [`Pipeline::process`] for a frame as the source gives it: `decoder` decodes, crops and rotates it first, and that time counts
    /// as preprocessing. Also returns the frame, decoded or not, for its memory.
    ///
    /// # Errors
    /// The same, and [`PipelineError::Decode`].
    pub fn process_captured(
        &mut self,
        frame: Frame,
        decoder: &mut FrameDecoder,
        unpublished: Unpublished,
        sink: &mut dyn Sink,
        clock: &dyn Clock,
    ) -> (Result<FrameReport, PipelineError>, Frame) {
        let started_ns = clock.now_ns();
        match decoder.decode(frame) {
            Ok(mut frame) => {
                let result = self.process_since(started_ns, &frame, unpublished, sink, clock);
                decoder.recycle(&mut frame);
                (result, frame)
            }
            Err((error, frame)) => (Err(PipelineError::Decode(error)), frame),
        }
    }

    fn process_since(
        &mut self,
        started_ns: u64,
        frame: &Frame,
        unpublished: Unpublished,
        sink: &mut dyn Sink,
        clock: &dyn Clock,
    ) -> Result<FrameReport, PipelineError> {
        let sequence = frame.sequence;
        let geometry = self.preprocessor.run(frame, &mut self.tensor);
        let preprocessed = clock.now_ns();
        self.infer().map_err(|source| PipelineError::Network { sequence, source })?;
        let inferred = clock.now_ns();
        let Frame { captured_ns, stamp_ns, .. } = *frame;
        let mut report = FrameReport { sequence, captured_ns, stamp_ns, unpublished, ..FrameReport::default() };
        let mut segmented = inferred;
        let Pipeline { segmenter, temporal, logits, .. } = self;
        let published = sink.publish(frame, &mut |ids, publication| {
            let table = segmenter.run(logits, &geometry, ids);
            publication.table.clone_from(&table.rows);
            if let Some(stage) = temporal {
                stage.update(SegmentedFrame { frame, logits, queries: &table.queries, ids, table: &mut publication.table });
            }
            segmented = clock.now_ns();
            let micros = [preprocessed - started_ns, inferred - preprocessed, segmented - inferred, 0].map(|ns| (ns / 1000) as u32);
            report.times = StageTimes { micros };
            report.published_ns = segmented;
            publication.report = report;
        });
        published.map_err(|source| PipelineError::Sink { sequence, source })?;
        report.times.micros[3] = ((clock.now_ns() - segmented) / 1000) as u32;
        Ok(report)
    }

    /// The segments of one frame, with whole masks when the configuration asks for them: for tools.
    ///
    /// # Errors
    /// When the network cannot run.
    pub fn segments(&mut self, frame: &Frame) -> Result<Segments, ModelError> {
        let geometry = self.preprocessor.run(frame, &mut self.tensor);
        self.infer()?;
        Ok(self.segmenter.segments(&self.logits, &geometry))
    }

    /// The `count` best readings of a query as a class ([`Segmenter::candidates`]): for tools.
    ///
    /// # Errors
    /// When the network cannot run.
    pub fn candidates(&mut self, frame: &Frame, count: usize) -> Result<Vec<Candidate>, ModelError> {
        let geometry = self.preprocessor.run(frame, &mut self.tensor);
        let mut keep = |class: &ClassLogits, kept: &mut Vec<usize>| candidate_queries(class, count, kept);
        self.network.run(&self.tensor, &mut keep, &mut self.logits)?;
        Ok(self.segmenter.candidates(&self.logits, &geometry, count))
    }

    /// How anomalous (out-of-distribution) each pixel is, `[height, width]`, larger = more. Needs the semantic task, and a square input
    /// for `windows`. For tools.
    ///
    /// # Errors
    /// When the network cannot run.
    pub fn anomalies(&mut self, frame: &Frame, windows: bool, kind: Anomaly) -> Result<Vec<f32>, ModelError> {
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
    /// For tools.
    ///
    /// # Errors
    /// When the network cannot run.
    pub fn segments_of_windows(&mut self, frame: &Frame) -> Result<Segments, ModelError> {
        let windows = Windows::split((frame.height as usize, frame.width as usize), self.tensor.height);
        let all = self.logits_of_windows(frame, &windows)?;
        Ok(semantic_windows(&all, &SemanticView::windows(&windows, self.tensor.height)))
    }

    fn logits_of_windows(&mut self, frame: &Frame, windows: &Windows) -> Result<Vec<Logits>, ModelError> {
        let mut all = Vec::with_capacity(windows.origins.len());
        for tensor in self.preprocessor.run_windows(frame, windows) {
            self.tensor = tensor;
            self.network.reset(); // windows are pictures of their own
            self.infer()?;
            all.push(std::mem::take(&mut self.logits));
        }
        Ok(all)
    }
}
