//! The edges towards consumers: implementations of [`crate::pipeline::Sink`].
//!
//! [`RingSink`] publishes to other processes through the mask [`ring`]; its twin without one is
//! [`crate::pipeline::NullSink`]. Refuses: to know what masks mean, to wait for a consumer.

pub mod ring;

use crate::data::Frame;
use crate::pipeline::{Clock, Publication, Sink, SinkError};
use crate::preprocess::RgbConverter;
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
}

impl RingSink {
    /// Creates the ring and starts to serve it.
    pub fn start(config: RingConfig, metadata_json: String, server: ServerConfig, clock: Box<dyn Clock>) -> Result<RingSink, RingError> {
        let writer = RingWriter::create(&config, &metadata_json, clock.now_ns())?;
        let server = MaskServer::start(server, &writer)?;
        Ok(RingSink { writer, server, config, metadata_json, clock, converter: RgbConverter::new(), publication: Publication::default() })
    }

    /// Frames published since the start of this ring.
    pub fn published(&self) -> u64 {
        self.writer.published()
    }

    /// Says good-bye to the readers and removes the socket.
    pub fn stop(self) {
        drop(self.writer);
        self.server.stop();
    }

    /// Frames have outgrown the ring: a larger one takes its place, and readers connect anew.
    fn grow(&mut self, frame: &Frame) -> Result<(), RingError> {
        self.config.max_width = self.config.max_width.max(frame.width);
        self.config.max_height = self.config.max_height.max(frame.height);
        let writer = RingWriter::create(&self.config, &self.metadata_json, self.clock.now_ns())?;
        self.server.replace_ring(&writer)?;
        log::info!("frames of {}x{} need a larger ring; readers connect anew", frame.width, frame.height);
        self.writer = writer;
        Ok(())
    }
}

impl Sink for RingSink {
    fn publish(&mut self, frame: &Frame, fill: &mut dyn FnMut(&mut [u16], &mut Publication)) -> Result<(), SinkError> {
        let failed = |error: RingError| SinkError(error.to_string());
        if frame.width > self.config.max_width || frame.height > self.config.max_height {
            self.grow(frame).map_err(failed)?;
        }
        let mut slot = self.writer.begin(frame.width, frame.height).map_err(failed)?;
        fill(slot.ids(), &mut self.publication);
        let Publication { report, table } = &mut self.publication;
        if let Some(target) = slot.frame() {
            target.copy_from_slice(self.converter.rgb(frame));
        }
        let now = self.clock.now_ns();
        report.times.micros[3] = (now.saturating_sub(report.published_ns) / 1000) as u32;
        report.published_ns = now;
        slot.finish(report, table);
        Ok(())
    }
}
