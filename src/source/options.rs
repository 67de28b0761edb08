//! What the configuration adds to a source's URI.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use eomt_edge_core::data::{Colour, ControlValue, InputEnd, PixelFormat, Stride, View};

/// What the configuration says of sources. Each kind takes its part.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceOptions {
    /// Frames per second of replay and scenes; 0 = as fast as frames are processed.
    pub fps: f64,
    /// (width, height) of scenes, pipe and exec.
    pub size: (u32, u32),
    /// Of pipe and exec.
    pub format: PixelFormat,
    /// Of pipe and exec, in YUV formats.
    pub colour: Colour,
    /// Of pipe and exec.
    pub stride: Stride,
    /// Of pipe, exec and bag: what the end of the input means.
    pub end: InputEnd,
    /// What starts a command so that it ends with this process: a program and its arguments; empty = the shell alone.
    pub launcher: Vec<OsString>,
    /// Larger pictures are refused.
    pub max_pixels: u64,
    /// `[camera]`: crop, rotate and flip of pipe, exec and bag, too.
    pub camera: CameraRequest,
}

impl SourceOptions {
    /// Time between frames at `fps`, or else at the configured rate; zero = as fast as they are processed.
    pub fn interval(&self, fps: Option<f64>) -> Duration {
        let fps = fps.unwrap_or(self.fps);
        if fps > 0.0 { Duration::from_secs_f64(1.0 / fps) } else { Duration::ZERO }
    }
}

/// What is asked of a camera.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraRequest {
    /// Size, rate and format.
    pub format: FormatRequest,
    /// What becomes of its pictures later on: for [`Source::max_size`](eomt_edge_core::pipeline::Source::max_size).
    pub view: View,
    /// By the names that `v4l2-ctl -l` shows.
    pub controls: BTreeMap<String, ControlValue>,
}

/// The format that is asked of a camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FormatRequest {
    /// (width, height).
    pub size: (u32, u32),
    /// Frames per second; 0 = the camera's own.
    pub fps: f64,
    /// `None` = the cheapest.
    pub format: Option<PixelFormat>,
}
