//! The edges towards cameras and files: implementations of [`eomt_edge_core::pipeline::Source`].
//!
//! ```
//! use eomt_edge::source::SourceSpec;
//! assert_eq!("scenes:7".parse(), Ok(SourceSpec::Scenes { seed: 7 }));
//! ```
//!
//! | URI | frames |
//! |---|---|
//! | `replay:DIR[@fps]` | the PNG and JPEG files of a directory in the order of their names, over and over |
//! | `scenes[:seed]` | moving procedural scenes with known ground truth |
//! | `pipe:-`, `pipe:PATH` | raw frames from standard input, or from a FIFO |
//! | `exec:COMMAND` | raw frames from a shell command that is started here |
//! | `v4l2:/dev/video0`, `v4l2:` | a camera, the one that works (feature `camera`) |
//!
//! Refuses: to look at the clock (time is an argument), to know what becomes of a frame.

mod pipe;
mod replay;
mod scenes;
#[cfg(feature = "camera")]
pub mod v4l2;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use eomt_edge_core::data::{Colour, ControlValue, InputEnd, PixelFormat, Stride, View};
use eomt_edge_core::pipeline::{Source, SourceError};

pub use pipe::{PipeOptions, PipeSource, exec_source_main};
pub use replay::ReplaySource;
pub use scenes::ScenesSource;

/// A source as the user names it.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceSpec {
    /// `None` = the one that works.
    V4l2 {
        device: Option<PathBuf>,
    },
    Replay {
        directory: PathBuf,
        fps: Option<f64>,
    },
    Scenes {
        seed: u64,
    },
    /// `None` = standard input.
    Pipe {
        path: Option<PathBuf>,
    },
    Exec {
        command: String,
    },
}

impl SourceSpec {
    /// Whether `[camera]`'s crop, rotate and flip count.
    pub fn is_camera(&self) -> bool {
        matches!(self, SourceSpec::V4l2 { .. } | SourceSpec::Pipe { .. } | SourceSpec::Exec { .. })
    }
}

impl FromStr for SourceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<SourceSpec, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match (kind, rest) {
            ("v4l2", device) if text.contains(':') => {
                Ok(SourceSpec::V4l2 { device: (!device.is_empty() && device != "auto").then(|| device.into()) })
            }
            ("replay", rest) if !rest.is_empty() => Ok(match rest.rsplit_once('@') {
                Some((directory, rate)) if !directory.is_empty() && rate.parse::<f64>().is_ok() => {
                    let fps = rate.parse::<f64>().ok().filter(|fps| (0.0..=1000.0).contains(fps));
                    SourceSpec::Replay {
                        directory: directory.into(),
                        fps: Some(fps.ok_or("replay: the rate must lie between 0 and 1000")?),
                    }
                }
                _ => SourceSpec::Replay { directory: rest.into(), fps: None },
            }),
            ("scenes", "") => Ok(SourceSpec::Scenes { seed: 0 }),
            ("scenes", seed) => {
                seed.parse().map(|seed| SourceSpec::Scenes { seed }).map_err(|_| format!("scenes: the seed '{seed}' is not a number"))
            }
            ("pipe", "-") => Ok(SourceSpec::Pipe { path: None }),
            ("pipe", path) if !path.is_empty() => Ok(SourceSpec::Pipe { path: Some(path.into()) }),
            ("exec", command) if !command.trim().is_empty() => Ok(SourceSpec::Exec { command: command.trim().to_owned() }),
            _ => Err(format!(
                "unknown source '{text}': v4l2:/dev/video0, replay:DIR[@fps], scenes[:seed], pipe:-, pipe:FIFO or exec:COMMAND"
            )),
        }
    }
}

/// What the configuration adds to a [`SourceSpec`].
#[derive(Debug, Clone, PartialEq)]
pub struct SourceOptions {
    /// Frames per second of replay and scenes; 0 = as fast as frames are processed.
    pub fps: f64,
    /// (width, height) of scenes and pipe.
    pub size: (u32, u32),
    /// Of pipe and exec.
    pub format: PixelFormat,
    /// Of pipe and exec, in YUV formats.
    pub colour: Colour,
    /// Of pipe and exec.
    pub stride: Stride,
    pub end: InputEnd,
    /// What starts a command so that it ends with this process: a program and its arguments; empty = the shell alone.
    pub launcher: Vec<OsString>,
    /// Larger pictures are refused.
    pub max_pixels: u64,
    pub camera: CameraWish,
}

impl SourceOptions {
    fn pipe(&self) -> PipeOptions {
        let SourceOptions { size, format, colour, stride, end, .. } = *self;
        PipeOptions { size, format, colour, stride, end, view: self.camera.view }
    }
}

/// What is asked of a camera.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraWish {
    /// (width, height).
    pub size: (u32, u32),
    /// 0 = its own.
    pub fps: f64,
    /// `None` = the cheapest.
    pub format: Option<PixelFormat>,
    pub view: View,
    pub controls: BTreeMap<String, ControlValue>,
}

/// Opens a source.
pub fn open(spec: &SourceSpec, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    match spec {
        #[cfg(not(feature = "camera"))]
        SourceSpec::V4l2 { device } => Err(SourceError::fatal(
            format!("v4l2:{}", device.clone().unwrap_or_default().display()),
            "this program was built without cameras; feed frames through pipe:- (rpicam-vid, ffmpeg)",
        )),
        #[cfg(feature = "camera")]
        SourceSpec::V4l2 { device } => {
            let CameraWish { size, fps, format, view, controls } = options.camera.clone();
            let wish = v4l2::Wish { size, fps, format };
            let options = v4l2::CameraOptions { wish, view, controls, max_pixels: options.max_pixels };
            Ok(Box::new(v4l2::V4l2Source::open(device.as_deref(), options)?))
        }
        SourceSpec::Replay { directory, fps } => {
            let interval = interval(fps.unwrap_or(options.fps));
            Ok(Box::new(ReplaySource::open(directory, interval, options.max_pixels)?))
        }
        SourceSpec::Scenes { seed } => Ok(Box::new(ScenesSource::new(*seed, options.size, interval(options.fps)))),
        SourceSpec::Pipe { path } => Ok(Box::new(match path {
            None => PipeSource::standard_input(options.pipe())?,
            Some(path) => PipeSource::fifo(path.clone(), options.pipe())?,
        })),
        SourceSpec::Exec { command } => Ok(Box::new(PipeSource::command(command.clone(), options.launcher.clone(), options.pipe())?)),
    }
}

fn interval(fps: f64) -> Duration {
    if fps > 0.0 { Duration::from_secs_f64(1.0 / fps) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse() {
        let parse = |text: &str| text.parse::<SourceSpec>();
        assert_eq!(parse("replay:/a/b@12.5"), Ok(SourceSpec::Replay { directory: "/a/b".into(), fps: Some(12.5) }));
        assert_eq!(parse("replay:/mail@home"), Ok(SourceSpec::Replay { directory: "/mail@home".into(), fps: None }));
        assert_eq!(parse("v4l2:/dev/video2"), Ok(SourceSpec::V4l2 { device: Some("/dev/video2".into()) }));
        assert_eq!(parse("v4l2:"), Ok(SourceSpec::V4l2 { device: None }));
        assert_eq!(parse("pipe:-"), Ok(SourceSpec::Pipe { path: None }));
        assert_eq!(parse("pipe:/run/x"), Ok(SourceSpec::Pipe { path: Some("/run/x".into()) }));
        assert_eq!(parse("exec: a | b:c"), Ok(SourceSpec::Exec { command: "a | b:c".to_owned() }));
        assert_eq!(parse("scenes"), Ok(SourceSpec::Scenes { seed: 0 }));
        for bad in ["", "v4l2", "replay:", "pipe:", "exec:", "exec: ", "scenes:x", "rtsp://x", "replay:/a@-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
