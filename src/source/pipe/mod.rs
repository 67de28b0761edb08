//! Raw frames from other programs, as `rpicam-vid`, GStreamer, `ffmpeg` and `v4l2-ctl` write them: by standard input, through a FIFO,
//! or from a command that is started here.
//!
//! ```text
//! waiting   open the input (again)         fails: wait, twice as long each time, at most two seconds
//! reading   a frame's bytes, then a frame  ends: standard input fails; a FIFO waits for its next writer; a command is started again
//! ```
//! Invariants: no call takes longer than [`PATIENCE`], however slow the writer is; a frame's time is the arrival of its last byte; one
//! log line per change of state; incomplete frames are counted as broken. No compressed frames, and no guess at what is not configured
//! ([`stride_check`] warns when the rows seem to have another stride).

mod input;
mod stride_check;
mod uri;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use eomt_edge_core::data::{Colour, Frame, InputEnd, PixelFormat, RawLayout, Stride, View};
use eomt_edge_core::pipeline::{Captured, Clock, Losses, Source, SourceError};
use eomt_edge_host::MonotonicClock;

pub use input::exec_source_main;
pub use uri::{EXEC, PIPE};

use input::{Got, Input, Stream};
use stride_check::StrideCheck;

/// The longest stay in one call of `next`.
const PATIENCE: Duration = Duration::from_millis(50);

const PAUSE_MIN_NS: u64 = 100_000_000;
const PAUSE_MAX_NS: u64 = 2_000_000_000;

/// A FIFO whose name is gone, or belongs to another one, is noticed after so long.
const LOOK_NS: u64 = 1_000_000_000;

/// What the frames of a pipe are.
#[derive(Debug, Clone, PartialEq)]
pub struct PipeOptions {
    /// (width, height).
    pub size: (u32, u32),
    /// Of each frame.
    pub format: PixelFormat,
    /// In YUV formats.
    pub colour: Colour,
    /// Bytes from row to row.
    pub stride: Stride,
    /// What the end of the input means.
    pub end: InputEnd,
    /// What becomes of its pictures later on: for [`Source::max_size`].
    pub view: View,
}

/// Frames of one size and format, back to back, without headers.
pub struct PipeSource {
    input: Input,
    stream: Option<Stream>,
    options: PipeOptions,
    layout: RawLayout,
    stride_check: StrideCheck,
    clock: Box<dyn Clock>,
    /// A frame as it comes, and how much of it is there.
    raw: Vec<u8>,
    filled: usize,
    sequence: u64,
    losses: Losses,
    opened_ns: u64,
    retry_at_ns: u64,
    pause_ns: u64,
    /// The problem that was last logged, until frames come again.
    problem: Option<String>,
}

impl PipeSource {
    /// `pipe:-`.
    ///
    /// # Errors
    /// Here and below: when there are no such frames.
    pub fn standard_input(options: PipeOptions) -> Result<PipeSource, SourceError> {
        PipeSource::new(Input::Standard, options)
    }

    /// `pipe:PATH`. A missing FIFO is no error: the source waits for it.
    ///
    /// # Errors
    /// When the name leads to something that is no FIFO, or the options leave nothing of a frame.
    pub fn fifo(path: PathBuf, options: PipeOptions) -> Result<PipeSource, SourceError> {
        PipeSource::new(Input::Fifo(path), options)
    }

    /// `exec:COMMAND`, for `/bin/sh -c`. `launcher` = this program and its arguments that end in [`exec_source_main`], or nothing: then
    /// a command that writes nothing may outlive a daemon that was killed.
    ///
    /// # Errors
    /// When the options leave nothing of a frame.
    pub fn command(command: String, launcher: Vec<OsString>, options: PipeOptions) -> Result<PipeSource, SourceError> {
        PipeSource::new(Input::Command { command, launcher }, options)
    }

    fn new(input: Input, options: PipeOptions) -> Result<PipeSource, SourceError> {
        let PipeOptions { size, format, stride, .. } = options;
        let layout = RawLayout::new(format, size, stride).map_err(|reason| SourceError::fatal(name(&input), reason))?;
        if options.view.size(size.0, size.1).is_none() {
            return Err(SourceError::fatal(name(&input), "nothing is left of its frames after camera.crop"));
        }
        let source = PipeSource {
            stream: None,
            stride_check: StrideCheck::new(format, size, stride),
            clock: Box::new(MonotonicClock),
            raw: Vec::new(),
            filled: 0,
            sequence: 0,
            losses: Losses::default(),
            opened_ns: 0,
            retry_at_ns: 0,
            pause_ns: PAUSE_MIN_NS,
            problem: None,
            input,
            options,
            layout,
        };
        match &source.input {
            // a name that leads to something else is found out at the start
            Input::Fifo(_) => match source.input.open() {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(source.fatal(error)),
                _ => Ok(source),
            },
            _ => Ok(source),
        }
    }

    fn fatal(&self, reason: impl ToString) -> SourceError {
        SourceError::fatal(name(&self.input), reason)
    }

    /// One line for as long as the reason stays the same.
    fn complain(&mut self, reason: String) {
        if self.problem.as_ref() != Some(&reason) {
            log::warn!("{}: {reason}", name(&self.input));
            self.problem = Some(reason);
        }
    }

    /// The next attempt comes after a pause that grows.
    fn pause(&mut self, now_ns: u64) {
        self.retry_at_ns = now_ns + self.pause_ns;
        self.pause_ns = (2 * self.pause_ns).min(PAUSE_MAX_NS);
    }

    fn open(&mut self, now_ns: u64) -> Result<(), SourceError> {
        self.filled = 0;
        self.opened_ns = now_ns;
        match self.input.open() {
            Ok(stream) => self.stream = Some(stream),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput || self.input == Input::Standard => return Err(self.fatal(error)),
            Err(error) => {
                self.stream = None;
                self.complain(match error.kind() {
                    io::ErrorKind::NotFound => "it is not there; waiting for it".to_owned(),
                    _ => format!("it cannot be opened: {error}"),
                });
                self.pause(now_ns);
            }
        }
        Ok(())
    }

    /// Nothing comes: a FIFO may have been replaced under its name.
    fn idle(&mut self, now_ns: u64) -> Result<(), SourceError> {
        let (Input::Fifo(path), Some(stream)) = (&self.input, &self.stream) else { return Ok(()) };
        if now_ns < self.retry_at_ns {
            return Ok(());
        }
        self.retry_at_ns = now_ns + LOOK_NS;
        if stream.is_still(path) { Ok(()) } else { self.open(now_ns) }
    }

    /// The writer has closed its end.
    fn ended(&mut self, now_ns: u64) -> Result<Captured, SourceError> {
        let (filled, len, frames) = (self.filled, self.layout.len(), self.sequence);
        let PipeOptions { size: (width, height), format, stride, end, .. } = self.options;
        let is_fifo = matches!(self.input, Input::Fifo(_));
        // a FIFO stays open until it is open again: its next writer must always find a reader
        let outcome = if is_fifo { None } else { self.stream.take().and_then(Stream::finish) };
        let partial = (filled > 0).then(|| {
            format!("the input ends {filled} bytes into a frame of {len}: is it {width}x{height} {format:?} with source.stride = {stride}?")
        });
        if self.input == Input::Standard || end == InputEnd::Stop {
            return match (partial, outcome) {
                (_, Some((status, words))) if !status.success() => {
                    Err(self.fatal(told(&format!("the command ended with {status}"), &words)))
                }
                (Some(reason), _) => Err(self.fatal(reason)),
                _ if end == InputEnd::Stop => Ok(Captured::End),
                _ => Err(self.fatal(format!("the input ended after {frames} frames; if it is meant to, set source.end=stop"))),
            };
        }
        self.losses.broken += u64::from(filled > 0);
        match outcome {
            Some((status, words)) => {
                self.complain(told(&format!("the command ended with {status}; it is started again"), &words));
                self.pause(now_ns);
            }
            None => {
                self.complain(partial.unwrap_or_else(|| "its writer has gone; waiting for the next one".to_owned()));
                self.open(now_ns)?;
            }
        }
        Ok(Captured::NotYet(Vec::new()))
    }

    /// A frame of the bytes that are there.
    fn frame(&mut self, mut buffer: Vec<u8>) -> Frame {
        self.filled = 0;
        if let Some(stride) = self.stride_check.look(&self.raw) {
            let (ours, name) = (self.options.stride, name(&self.input));
            log::warn!(
                "{name}: its rows do not lie as source.stride = {ours} says, the picture is sheared; try --set source.stride={stride}"
            );
        }
        if self.layout.is_tight() {
            std::mem::swap(&mut self.raw, &mut buffer);
        } else {
            self.layout.tighten(&self.raw, &mut buffer);
        }
        if self.problem.take().is_some() {
            log::info!("{}: frames come", name(&self.input));
        }
        let captured_ns = self.clock.now_ns();
        // a command that gives a few frames and ends, again and again, is not started at once each time
        if captured_ns.saturating_sub(self.opened_ns) >= PAUSE_MAX_NS {
            self.pause_ns = PAUSE_MIN_NS;
        }
        self.sequence += 1;
        let PipeOptions { size: (width, height), format, colour, .. } = self.options;
        Frame { colour, sequence: self.sequence, captured_ns, ..Frame::new(width, height, format, buffer) }
    }
}

/// The URI that the user gave.
fn name(input: &Input) -> String {
    match input {
        Input::Standard => "pipe:-".to_owned(),
        Input::Fifo(path) => format!("pipe:{}", path.display()),
        Input::Command { command, .. } => format!("exec:{command}"),
    }
}

/// With the last words of a command, if it had any.
fn told(reason: &str, words: &str) -> String {
    if words.is_empty() { reason.to_owned() } else { format!("{reason} (it said: {words})") }
}

impl Source for PipeSource {
    fn describe(&self) -> String {
        let PipeOptions { size: (width, height), format, stride, .. } = self.options;
        let from = match &self.input {
            Input::Standard => "standard input".to_owned(),
            other => name(other),
        };
        format!("{width}x{height} {format:?} frames, rows {stride}, from {from}")
    }

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
            if now_ns < self.retry_at_ns {
                std::thread::sleep(PATIENCE.min(Duration::from_nanos(self.retry_at_ns - now_ns)));
                return Ok(Captured::NotYet(buffer));
            }
            self.open(now_ns)?;
        }
        let len = self.layout.len();
        self.raw.resize(len, 0);
        while let Some(stream) = self.stream.as_ref().filter(|_| self.filled < len) {
            match stream.read(&mut self.raw[self.filled..], PATIENCE) {
                Ok(Got::Bytes(count)) => self.filled += count,
                Ok(Got::End) => return self.ended(now_ns),
                Err(error) if self.input == Input::Standard => return Err(self.fatal(error)),
                Err(error) => {
                    self.complain(error.to_string());
                    self.stream = None;
                    self.pause(now_ns);
                }
                Ok(Got::Nothing) => {
                    self.idle(now_ns)?;
                    return Ok(Captured::NotYet(buffer));
                }
            }
            if self.filled < len && self.clock.now_ns().saturating_sub(now_ns) > PATIENCE.as_nanos() as u64 {
                return Ok(Captured::NotYet(buffer));
            }
        }
        if self.filled < len {
            return Ok(Captured::NotYet(buffer));
        }
        Ok(Captured::Frame(self.frame(buffer)))
    }
}

#[cfg(test)]
mod tests;
