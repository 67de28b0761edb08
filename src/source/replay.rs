//! A directory of pictures as a camera.

use std::path::{Path, PathBuf};
use std::time::Duration;

use eomt_edge_core::data::{Exif, Frame};
use eomt_edge_core::pipeline::{Captured, Losses, Source, SourceError};
use eomt_edge_host::bounds::PICTURES_MAX;
use eomt_edge_host::pictures::{PictureError, read_picture, size};

use super::kind::{SourceKind, SourceSpec};
use super::options::SourceOptions;

/// `replay:`, an entry of the table of sources.
pub const REPLAY: SourceKind = SourceKind {
    scheme: "replay",
    usage: &["replay:DIR[@fps]"],
    summary: "the PNG and JPEG files of a directory in the order of their names, over and over",
    uses_view: false,
    uses_source_size: false,
    parse: |rest| match rest.filter(|rest| !rest.is_empty()) {
        Some(rest) => Ok(Box::new(Replay::parse(rest)?)),
        None => Err(String::new()),
    },
};

#[derive(Debug)]
struct Replay {
    directory: PathBuf,
    /// `None` = `source.fps`.
    fps: Option<f64>,
}

impl Replay {
    fn parse(text: &str) -> Result<Replay, String> {
        let (directory, fps) = rate(text)?;
        Ok(Replay { directory: directory.into(), fps })
    }
}

/// What follows an `@` is a rate if it is a number: a directory may have an `@` in its name.
pub(super) fn rate(text: &str) -> Result<(&str, Option<f64>), String> {
    let named = text.rsplit_once('@').filter(|(name, _)| !name.is_empty());
    let rated = named.and_then(|(name, rate)| Some((name, rate.parse::<f64>().ok()?)));
    match rated {
        None => Ok((text, None)),
        Some((name, fps)) if (0.0..=1000.0).contains(&fps) => Ok((name, Some(fps))),
        Some(_) => Err("the rate must lie between 0 and 1000".to_owned()),
    }
}

impl SourceSpec for Replay {
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(ReplaySource::open(&self.directory, options.interval(self.fps), options.max_pixels)?))
    }

    fn check(&self, _: &SourceOptions) -> Result<(), String> {
        if self.directory.is_dir() { Ok(()) } else { Err(format!("{} is no directory", self.directory.display())) }
    }
}

/// Plays PNG and JPEG files in the order of their names, over and over.
pub struct ReplaySource {
    directory: PathBuf,
    files: Vec<PathBuf>,
    next: usize,
    sequence: u64,
    interval: Duration,
    max_size: (u32, u32),
    max_pixels: u64,
    /// Files that failed in a row: when all do, there is nothing to play.
    failed: usize,
    losses: Losses,
}

impl ReplaySource {
    /// Lists the pictures of `directory` and looks at the size of each.
    ///
    /// # Errors
    /// When the directory cannot be read, or has no picture that can.
    pub fn open(directory: &Path, interval: Duration, max_pixels: u64) -> Result<ReplaySource, SourceError> {
        let subject = || format!("replay:{}", directory.display());
        let fail = |reason: std::io::Error| SourceError::fatal(subject(), reason);
        let mut files = Vec::new();
        let mut others = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
            if !["png", "jpg", "jpeg"].contains(&extension.as_str()) {
                continue;
            }
            // a link to a regular file is one; a pipe or device would stop or flood the source
            if path.is_file() {
                files.push(path)
            } else {
                others.push(path)
            }
            if files.len() + others.len() > PICTURES_MAX {
                return Err(SourceError::fatal(subject(), format!("more than {PICTURES_MAX} files: name a folder of fewer")));
            }
        }
        if let Some(first) = others.first() {
            log::warn!("{}: {} entries such as {} are no regular files and are left out", subject(), others.len(), first.display());
        }
        files.sort();
        if files.is_empty() {
            return Err(SourceError::fatal(subject(), "no PNG or JPEG files"));
        }
        let sizes = files.iter().filter_map(|file| size(file, Exif::Apply).ok()).map(|size| size.shown);
        let sizes =
            sizes.filter(|&(width, height)| u64::from(width) * u64::from(height) <= max_pixels && has_sides_of_a_frame(width, height));
        let max_size = sizes.fold((0, 0), |max, size| (max.0.max(size.0), max.1.max(size.1)));
        if max_size == (0, 0) {
            let reason = format!(
                "none of its pictures can be read and has at most {max_pixels} pixels (source.max_pixels) and sides of at most {SIDE_MAX}"
            );
            return Err(SourceError::fatal(subject(), reason));
        }
        let directory = directory.to_owned();
        Ok(ReplaySource { directory, files, next: 0, sequence: 0, interval, max_size, max_pixels, failed: 0, losses: Losses::default() })
    }
}

/// Pixels, the longest side of a frame: the mask ring has no larger ones.
const SIDE_MAX: u32 = 16384;

pub(super) fn has_sides_of_a_frame(width: u32, height: u32) -> bool {
    width.max(height) <= SIDE_MAX
}

/// So many failures in a row may be a file that is just being written.
const FAILURES_MIN: usize = 30;

impl Source for ReplaySource {
    fn describe(&self) -> String {
        format!("{} pictures of {}", self.files.len(), self.directory.display())
    }

    fn max_size(&self) -> (u32, u32) {
        self.max_size
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn losses(&self) -> Losses {
        self.losses
    }

    fn next(&mut self, now_ns: u64, _buffer: Vec<u8>) -> Result<Captured, SourceError> {
        let file = &self.files[self.next];
        self.next = (self.next + 1) % self.files.len();
        self.sequence += 1;
        let reason = match read_picture(file, self.max_pixels) {
            Ok(frame) if has_sides_of_a_frame(frame.width, frame.height) => {
                self.failed = 0;
                return Ok(Captured::Frame(Frame { sequence: self.sequence, captured_ns: now_ns, ..frame }));
            }
            Ok(frame) => format!("{}: {}x{} has a side of more than {SIDE_MAX} pixels", file.display(), frame.width, frame.height),
            Err(error @ PictureError::TooLarge { .. }) => format!("{error} by source.max_pixels"),
            Err(error) => error.to_string(),
        };
        self.failed += 1;
        self.losses.broken += 1;
        let fatal = self.failed >= self.files.len().max(FAILURES_MIN);
        Err(SourceError { subject: "replay".to_owned(), reason, fatal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_is_too_long_for_the_ring_is_passed_over() {
        let directory = std::env::temp_dir().join(format!("eomt-edge-replay-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for (name, width) in [("a.png", SIDE_MAX + 1), ("b.png", SIDE_MAX)] {
            image::RgbImage::new(width, 1).save(directory.join(name)).unwrap();
        }
        let mut source = ReplaySource::open(&directory, Duration::ZERO, 1 << 20).unwrap();
        assert_eq!(source.max_size(), (SIDE_MAX, 1));
        let error = source.next(0, Vec::new()).unwrap_err();
        assert!(!error.fatal && error.reason.contains("a.png: 16385x1"), "{error}");
        assert!(matches!(source.next(0, Vec::new()), Ok(Captured::Frame(frame)) if frame.width == SIDE_MAX));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn broken_pictures_are_passed_over_and_counted() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/jpeg");
        let mut source = ReplaySource::open(&directory, Duration::ZERO, 1 << 20).unwrap();
        assert_eq!(source.max_size(), (64, 64), "a picture that lies on its side");
        let (mut good, mut bad) = (0, 0);
        for _ in 0..2 * source.files.len() {
            match source.next(0, Vec::new()) {
                Ok(_) => good += 1,
                Err(error) => {
                    bad += 1;
                    assert!(!error.fatal && error.reason.contains(".jpg"), "{error}");
                }
            }
        }
        assert_eq!((good, bad, source.losses().broken), (18, 20, 20));
    }
}
