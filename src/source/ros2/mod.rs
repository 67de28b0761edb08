//! Images of a ROS 2 topic: another node owns the camera.
//!
//! The daemon has no network. `eomt-edge-bridge images` subscribes and writes each picture with a header ([`eomt_edge_ros::stream`]): started here, with
//! a pipe between, or as a service of its own that writes to a FIFO, so that the daemon's sandbox stays closed.
//!
//! Invariants: no call takes longer than `PATIENCE` and a picture; a picture's time is the arrival of its last byte, its stamp that of its
//! header; a picture that cannot be read is counted as broken and passed over; a writer that ends is waited for. Refuses: to guess where the next
//! picture begins in a broken stream; it is opened again.

mod uri;

use std::time::Duration;

use eomt_edge_core::data::{Frame, View};
use eomt_edge_core::pipeline::{Captured, Clock, Losses, Source, SourceError};
use eomt_edge_host::MonotonicClock;
use eomt_edge_host::bags::{picture_bytes_max, streamed};
use eomt_edge_ros::stream::{FrameHeader, HEADER_BYTES};

use super::pipe::{Attempts, Got, Input, LOOK_NS, PAUSE_MAX_NS, Stream, told};

pub use uri::ROS2;

/// The longest stay in one call of `next`.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is known of the pictures before the first one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ros2Options {
    /// (width, height) of the ring until a picture is larger.
    pub size: (u32, u32),
    /// Larger pictures are refused.
    pub max_pixels: u64,
    /// What becomes of its pictures later on: for [`Source::max_size`].
    pub view: View,
}

/// Pictures with headers, from a program or a FIFO.
pub struct Ros2Source {
    name: String,
    input: Input,
    stream: Option<Stream>,
    options: Ros2Options,
    clock: Box<dyn Clock>,
    head: [u8; HEADER_BYTES],
    /// Of the picture that comes; `None` while its header does.
    header: Option<FrameHeader>,
    body: Vec<u8>,
    /// How much of the header, or of the picture, is there.
    filled: usize,
    sequence: u64,
    losses: Losses,
    opened_ns: u64,
    /// When the FIFO's name was looked at last.
    looked_ns: u64,
    attempts: Attempts,
}

impl Ros2Source {
    fn new(name: String, input: Input, options: Ros2Options) -> Ros2Source {
        Ros2Source {
            attempts: Attempts::new(name.clone()),
            name,
            input,
            stream: None,
            options,
            clock: Box::new(MonotonicClock),
            head: [0; HEADER_BYTES],
            header: None,
            body: Vec::new(),
            filled: 0,
            sequence: 0,
            losses: Losses::default(),
            opened_ns: 0,
            looked_ns: 0,
        }
    }

    fn open(&mut self, now_ns: u64) -> Result<(), SourceError> {
        (self.filled, self.header, self.opened_ns) = (0, None, now_ns);
        match self.input.open() {
            Ok(stream) => self.stream = Some(stream),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return Err(SourceError::fatal(&self.name, error)),
            Err(error) => self.give_up(now_ns, format!("it cannot be opened: {error}; trying again")),
        }
        Ok(())
    }

    /// Opens it again after a pause.
    fn give_up(&mut self, now_ns: u64, reason: String) {
        self.stream = None;
        self.attempts.complain(reason);
        self.attempts.pause(now_ns);
    }

    fn ended(&mut self, now_ns: u64) {
        self.losses.broken += u64::from(self.filled > 0 || self.header.is_some());
        match self.stream.take().and_then(Stream::finish) {
            Some((status, words)) => self.give_up(now_ns, told(&format!("the bridge ended with {status}; it is started again"), &words)),
            None => self.give_up(now_ns, "its writer has gone; waiting for the next one".to_owned()),
        }
    }

    /// Nothing comes: a FIFO may have been replaced under its name.
    fn idle(&mut self, now_ns: u64) -> Result<(), SourceError> {
        let (Input::Fifo(path), Some(stream)) = (&self.input, &self.stream) else { return Ok(()) };
        if now_ns < self.looked_ns.saturating_add(LOOK_NS) {
            return Ok(());
        }
        self.looked_ns = now_ns;
        if stream.is_still(path) { Ok(()) } else { self.open(now_ns) }
    }

    /// Reads what is there of a header or a picture. True when it is whole.
    fn fill(&mut self, now_ns: u64) -> Result<bool, SourceError> {
        loop {
            let target = if self.header.is_some() { &mut self.body[..] } else { &mut self.head[..] };
            let Some(stream) = self.stream.as_ref() else { return Ok(false) };
            if self.filled == target.len() {
                return Ok(true);
            }
            match stream.read(&mut target[self.filled..], PATIENCE) {
                Ok(Got::Bytes(count)) => self.filled += count,
                Ok(Got::Nothing) => return Ok(false),
                Ok(Got::End) => self.ended(now_ns),
                Err(error) => self.give_up(now_ns, error.to_string()),
            }
            if self.clock.now_ns().saturating_sub(now_ns) > PATIENCE.as_nanos() as u64 {
                let len = if self.header.is_some() { self.body.len() } else { HEADER_BYTES };
                return Ok(self.stream.is_some() && self.filled == len);
            }
        }
    }

    /// A whole header is there: makes room for its picture.
    fn announce(&mut self, now_ns: u64) {
        self.filled = 0;
        match FrameHeader::decode(&self.head, picture_bytes_max(self.options.max_pixels)) {
            Ok(header) => {
                // no more than the bound that was checked
                self.body.resize(usize::try_from(header.bytes).unwrap_or(0), 0);
                self.header = Some(header);
            }
            Err(error) => self.give_up(now_ns, format!("{error}; opening it again")),
        }
    }

    /// A whole picture is there.
    fn picture(&mut self, header: FrameHeader) -> Result<Captured, SourceError> {
        self.filled = 0;
        let frame = match streamed(header, std::mem::take(&mut self.body), self.options.max_pixels) {
            Ok(frame) => frame,
            Err(reason) => {
                self.losses.broken += 1;
                return Err(SourceError::passing(&self.name, format!("a picture cannot be read: {reason}")));
            }
        };
        self.attempts.came();
        let captured_ns = self.clock.now_ns();
        // a bridge that gives a few pictures and ends, again and again, is not started at once each time
        if captured_ns.saturating_sub(self.opened_ns) >= PAUSE_MAX_NS {
            self.attempts.start_over();
        }
        self.sequence += 1;
        let (width, height) = self.options.size;
        self.options.size = (width.max(frame.width), height.max(frame.height));
        Ok(Captured::Frame(Frame { sequence: self.sequence, captured_ns, ..frame }))
    }
}

impl Source for Ros2Source {
    fn describe(&self) -> String {
        format!("images of {}", self.name)
    }

    /// Of the pictures so far: the ring grows with a larger one.
    fn max_size(&self) -> (u32, u32) {
        let (width, height) = self.options.size;
        self.options.view.size(width, height).unwrap_or((width, height))
    }

    fn interval(&self) -> Option<Duration> {
        None
    }

    fn losses(&self) -> Losses {
        self.losses
    }

    fn next(&mut self, now_ns: u64, buffer: Vec<u8>) -> Result<Captured, SourceError> {
        if self.stream.is_none() {
            if now_ns < self.attempts.retry_at_ns {
                std::thread::sleep(PATIENCE.min(Duration::from_nanos(self.attempts.retry_at_ns - now_ns)));
                return Ok(Captured::NotYet(buffer));
            }
            self.open(now_ns)?;
        }
        if self.body.capacity() < buffer.capacity() && self.header.is_none() {
            self.body = buffer;
        }
        if !self.fill(now_ns)? {
            self.idle(now_ns)?;
            return Ok(Captured::NotYet(Vec::new()));
        }
        match self.header.take() {
            Some(header) => self.picture(header),
            None => {
                self.announce(now_ns);
                Ok(Captured::NotYet(Vec::new()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
