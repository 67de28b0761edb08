//! The edges towards consumers: implementations of [`eomt_edge_core::pipeline::Sink`].
//!
//! [`RingSink`] publishes to other processes through the mask [`ring`]; its twin without one is
//! [`eomt_edge_core::pipeline::NullSink`]. `display` shows on a small screen what passes on its way to another sink. Refuses: to know what masks mean, to wait for a consumer.

#[cfg(feature = "display")]
pub mod display;
pub mod ring;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use eomt_edge_client::FrameFormat;
use eomt_edge_core::data::{Frame, FrameReport, NO_SEGMENT, Unpublished};
use eomt_edge_core::pipeline::{Clock, Publication, Sink, SinkError};
use eomt_edge_core::preprocess::RgbConverter;

pub use state::State;

use crate::picture::as_given;
use ring::{MaskServer, RingConfig, RingError, RingWriter, ServerConfig};

/// The mask ring with its server.
pub struct RingSink {
    writer: RingWriter,
    server: MaskServer,
    config: RingConfig,
    metadata_json: String,
    clock: Box<dyn Clock>,
    converter: RgbConverter,
    publication: Publication,
    /// (width, height) of the last frame; before the first one, the largest that this ring takes.
    last_size: (u32, u32),
    source_id: u32,
    /// 0 = no picture is too old.
    stale_after_ns: u64,
}

impl RingSink {
    /// Creates the ring and starts to serve it.
    pub fn start(config: RingConfig, metadata_json: String, server: ServerConfig, clock: Box<dyn Clock>) -> Result<RingSink, RingError> {
        let writer = RingWriter::create(&config, &metadata_json, clock.now_ns())?;
        let server = MaskServer::start(server, &writer)?;
        let last_size = (config.max_width, config.max_height);
        Ok(RingSink {
            writer,
            server,
            config,
            metadata_json,
            clock,
            converter: RgbConverter::new(),
            publication: Publication::default(),
            last_size,
            source_id: 0,
            stale_after_ns: 0,
        })
    }

    /// Which source the frames to come are of; 0 = none has given a frame yet.
    pub fn set_source_id(&mut self, source_id: u32) {
        self.source_id = source_id;
    }

    /// Publications of pictures older than `limit` are flagged "stale" from now on; zero = none is.
    pub fn set_stale_after(&mut self, limit: Duration) {
        self.stale_after_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Frames published since the start of this ring.
    pub fn published(&self) -> u64 {
        self.writer.published()
    }

    /// How often the mask server's thread has gone round; it does so at least twice a second, whatever readers do, so a supervisor
    /// that sees the same number for seconds knows that it is stuck. `None` once the thread has ended although nobody stopped it.
    pub fn server_turns(&self) -> Option<u64> {
        self.server.turns()
    }

    /// Says good-bye to the readers and removes the socket.
    pub fn stop(self) {
        drop(self.writer);
        self.server.stop();
    }

    /// (width, height) of the largest frame that this ring takes without growing.
    pub fn max_size(&self) -> (u32, u32) {
        (self.config.max_width, self.config.max_height)
    }

    /// A new ring takes the place of this one if anything about it has changed; readers connect anew then.
    pub fn reconfigure(&mut self, config: RingConfig, metadata_json: String) -> Result<(), RingError> {
        if config == self.config && metadata_json == self.metadata_json {
            return Ok(());
        }
        let writer = RingWriter::create(&config, &metadata_json, self.clock.now_ns())?;
        self.server.replace_ring(&writer)?;
        (self.writer, self.config, self.metadata_json) = (writer, config, metadata_json);
        self.last_size = self.max_size();
        Ok(())
    }

    /// A sign of life while no frame comes.
    pub fn heartbeat(&self) {
        self.writer.heartbeat(self.clock.now_ns());
    }

    /// Tells the readers that no frames come: an empty id map of the last frame's size, flagged "no signal".
    pub fn publish_no_signal(&mut self, unpublished: Unpublished) -> Result<(), SinkError> {
        let now = self.clock.now_ns();
        let (width, height) = self.last_size;
        let last = self.publication.report;
        let stale = is_stale(self.stale_after_ns, last.captured_ns, now);
        self.writer.set_source_id(self.source_id);
        let mut slot = self.writer.begin(width, height).map_err(|error| SinkError(error.to_string()))?;
        slot.ids().fill(NO_SEGMENT);
        let report = FrameReport {
            sequence: last.sequence,
            captured_ns: last.captured_ns,
            published_ns: now,
            unpublished,
            stale,
            no_signal: true,
            ..FrameReport::default()
        };
        slot.finish(&report, &[]);
        Ok(())
    }

    /// Frames have outgrown the ring: a larger one takes its place, and readers connect anew.
    fn grow(&mut self, frame: &Frame) -> Result<(), RingError> {
        let (max_width, max_height) = (self.config.max_width.max(frame.width), self.config.max_height.max(frame.height));
        self.reconfigure(RingConfig { max_width, max_height, ..self.config.clone() }, self.metadata_json.clone())?;
        log::info!("frames of {}x{} need a larger ring; readers connect anew", frame.width, frame.height);
        Ok(())
    }
}

impl Sink for RingSink {
    fn publish(&mut self, frame: &Frame, fill: &mut dyn FnMut(&mut [u16], &mut Publication)) -> Result<(), SinkError> {
        let failed = |error: RingError| SinkError(error.to_string());
        if frame.width > self.config.max_width || frame.height > self.config.max_height {
            self.grow(frame).map_err(failed)?;
        }
        self.last_size = (frame.width, frame.height);
        self.writer.set_source_id(self.source_id);
        let mut slot = self.writer.begin(frame.width, frame.height).map_err(failed)?;
        fill(slot.ids(), &mut self.publication);
        let Publication { report, table } = &mut self.publication;
        if self.config.include_frame {
            let (format, colour, bytes) = as_given(frame);
            if !(self.config.source_format && slot.put_frame(format, colour, bytes)) {
                slot.put_frame(FrameFormat::Rgb24, 0, self.converter.rgb(frame));
            }
        }
        let now = self.clock.now_ns();
        report.times.micros[3] = (now.saturating_sub(report.published_ns) / 1000) as u32;
        report.published_ns = now;
        report.stale = is_stale(self.stale_after_ns, report.captured_ns, now);
        slot.finish(report, table);
        Ok(())
    }
}

/// Whether a picture is too old at `now_ns`. Before the first one (`captured_ns` of 0) there is none to be old.
fn is_stale(limit_ns: u64, captured_ns: u64, now_ns: u64) -> bool {
    captured_ns != 0 && limit_ns != 0 && now_ns.saturating_sub(captured_ns) > limit_ns
}
