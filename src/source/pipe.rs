//! Raw frames from standard input, as `rpicam-vid` and `ffmpeg` write them.

use std::io::{self, Read};
use std::time::Duration;

use crate::data::{Colour, Frame, PixelFormat};
use crate::pipeline::{Captured, Source, SourceError};

/// Frames of one size and format, back to back, without headers.
pub struct PipeSource<R> {
    reader: R,
    width: u32,
    height: u32,
    format: PixelFormat,
    colour: Colour,
    sequence: u64,
}

impl PipeSource<io::Stdin> {
    pub fn stdin(size: (u32, u32), format: PixelFormat, colour: Colour) -> Self {
        PipeSource { colour, ..PipeSource::new(io::stdin(), size, format) }
    }
}

impl<R: Read + Send> PipeSource<R> {
    /// Reads from `reader`; `size` = (width, height).
    pub fn new(reader: R, size: (u32, u32), format: PixelFormat) -> PipeSource<R> {
        PipeSource { reader, width: size.0, height: size.1, format, colour: Colour::default(), sequence: 0 }
    }

    /// Fills `buffer` as far as the input goes.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl<R: Read + Send> Source for PipeSource<R> {
    fn describe(&self) -> String {
        format!("{}x{} {:?} frames from standard input", self.width, self.height, self.format)
    }

    fn max_size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn interval(&self) -> Option<Duration> {
        None
    }

    fn waits_for_input(&self) -> bool {
        true
    }

    fn next(&mut self, now_ns: u64, mut buffer: Vec<u8>) -> Result<Captured, SourceError> {
        let PipeSource { width, height, format, colour, .. } = *self;
        let len = format.frame_len(width, height).ok_or_else(|| SourceError::fatal("pipe:-", "frames of this size fit no memory"))?;
        buffer.resize(len, 0);
        let filled = self.fill(&mut buffer).map_err(|error| SourceError::fatal("pipe:-", error))?;
        if filled == 0 {
            return Ok(Captured::End);
        }
        if filled < len {
            let reason = format!("the input ends {filled} bytes into a frame of {len}: is it {width}x{height} {format:?}?");
            return Err(SourceError::fatal("pipe:-", reason));
        }
        self.sequence += 1;
        Ok(Captured::Frame(Frame {
            width,
            height,
            format,
            colour,
            data: buffer,
            sequence: self.sequence,
            captured_ns: now_ns,
            truth: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other_whatever_the_reads() {
        struct Dribble(Vec<u8>);
        impl Read for Dribble {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.0.len().min(buffer.len()).min(5);
                buffer[..count].copy_from_slice(&self.0[..count]);
                self.0.drain(..count);
                Ok(count)
            }
        }
        let bytes: Vec<u8> = (0..24).collect();
        let mut source = PipeSource::new(Dribble(bytes.clone()), (2, 2), PixelFormat::Rgb24);
        for (index, expected) in bytes.chunks(12).enumerate() {
            let Captured::Frame(frame) = source.next(5, Vec::new()).unwrap() else { panic!("a frame is there") };
            assert_eq!((frame.data.as_slice(), frame.sequence), (expected, index as u64 + 1));
        }
        assert_eq!(source.next(5, Vec::new()).unwrap(), Captured::End);
    }

    #[test]
    fn half_a_frame_is_an_error_that_says_so() {
        let mut source = PipeSource::new(&[0u8; 7][..], (4, 4), PixelFormat::Yuv420);
        let message = source.next(0, Vec::new()).unwrap_err().to_string();
        assert!(message.contains("7 bytes into a frame of 24"), "{message}");
    }
}
