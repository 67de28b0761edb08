//! `eomt-edge-bridge record` and `recover`: masks in MCAP files.
//!
//! ```text
//! ring ──MaskFrame──▶ topics ──CDR──▶ recorder ──▶ book (one file) ──▶ spool ──▶ disk
//!                                        └─▶ series (names, what may go)
//! ```
//!
//! Invariants: the daemon may be away and come back with another model, the file stays valid; a killed recorder's file can be read up to its
//! last second. Refuses: to write over a file, and to fill the disk.

mod annotations;
mod book;
mod error;
mod facts;
mod messages;
mod recorder;
mod recover;
mod repair;
mod series;
mod session;
mod spool;
#[cfg(test)]
mod testing;
mod times;
mod units;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::options::{RingArgs, Usage};
use crate::stop::Stop;

pub use error::RecordError;
pub use recover::{RecoverError, Recovered, recover};
pub use repair::RecoverArgs;

use series::{Bounds, Series};

/// Begins the header's `library` of every file that this program writes.
pub const LIBRARY: &str = "eomt-edge-bridge";

/// Camera frames in the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Camera {
    /// No pictures
    None,
    /// A JPEG of each frame: some 15 to 40 kB at 640x480
    Jpeg,
    /// Each frame as the daemon has it: 900 kB at 640x480 in RGB
    Raw,
}

/// Arguments of `record`.
#[derive(Debug, Args)]
#[command(
    after_help = "A file is complete after SIGINT or SIGTERM. That of a recorder that was killed can be read up to its last second: \
                        `eomt-edge-bridge recover` makes it whole."
)]
pub struct RecordArgs {
    /// The file to write. With --max-time, --max-size, --keep or --max-total files get numbers: OUT_0001.mcap, OUT_0002.mcap ...
    #[arg(value_name = "OUT.mcap")]
    pub out: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)] // would become help text
    pub ring: RingArgs,
    /// Begin another file after this time: 10m, 1h
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub max_time: Option<Duration>,
    /// Begin another file after these bytes: 256M, 1G
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    pub max_size: Option<u64>,
    /// Keep so many files of the series, and delete the oldest
    #[arg(long, value_name = "FILES", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: Option<u64>,
    /// Keep so many bytes of the series, and delete the oldest files; needs --max-size of at most half of it
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    pub max_total: Option<u64>,
    /// Bytes that stay free on the disk: recording pauses below, and goes on when there is room
    #[arg(long, value_name = "BYTES", value_parser = units::bytes, default_value = "256M")]
    pub min_free: u64,
    /// Stop after so many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub frames: Option<u64>,
    /// Stop this long after the first frame
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub duration: Option<Duration>,
    /// Record the camera's frames, too; the daemon needs `ring.include_frame = true`
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub camera: Camera,
    /// Record a picture of the masks in colours, too, over the camera's frame where the ring has it
    #[arg(long)]
    pub overlay: bool,
    /// Record each pixel's score as a picture, too
    #[arg(long)]
    pub confidence: bool,
    /// The camera's calibration, as ROS writes it (YAML): recorded as camera_info
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// `frame_id` of all messages: the camera's optical frame
    #[arg(long, value_name = "NAME", default_value = "camera_optical_frame")]
    pub frame_id: String,
    /// Of the overlay and the camera's frames
    #[arg(long, value_name = "1-100", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub jpeg_quality: u8,
}

impl RecordArgs {
    /// Records until a signal, an option, or a disk that fails ends it.
    ///
    /// # Errors
    /// [`Usage`] when options contradict each other; [`RecordError`].
    pub fn run(self) -> anyhow::Result<()> {
        self.check()?;
        let messages = messages::Messages::new(&self)?;
        let bounds = Bounds { files: self.keep, bytes: self.max_total };
        let is_series = self.max_time.is_some() || self.max_size.is_some() || self.keep.is_some() || self.max_total.is_some();
        if is_series {
            repair::repair(Series::open(&self.out, true, bounds)?.finished(), self.min_free);
        }
        let series = Series::open(&self.out, is_series, bounds)?;
        let stop = Stop::install()?;
        let tally = session::run(&self, messages, series, &stop)?;
        let recorder::Tally { frames, files, bytes, left_out } = tally;
        log::info!("recorded {frames} frames in {files} files of {}; {left_out} were left out", units::mebibytes(bytes));
        Ok(())
    }

    fn check(&self) -> Result<(), Usage> {
        let fits = |total| self.max_size.is_some_and(|size| size <= total / 2);
        match self.max_total {
            Some(total) if !fits(total) => {
                Err(Usage("--max-total: the oldest files can only go when files end: add --max-size of at most half of it".to_owned()))
            }
            _ if self.keep.is_some() && self.max_time.is_none() && self.max_size.is_none() => {
                Err(Usage("--keep: files must end for there to be several: add --max-time or --max-size".to_owned()))
            }
            _ => Ok(()),
        }
    }
}
