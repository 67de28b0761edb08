//! The recording that goes on: chunks, files, the room on the disk.
//!
//! Invariants: what was recorded is on its way to the disk after [`CHUNK_TIME`], and survives a power cut after [`SYNC_TIME`] more. Memory does
//! not grow with the recording: a file is closed when its index gets large. While the disk has no room frames are counted and left out, and
//! nothing that was recorded is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::book::{Book, Sample};
use super::error::RecordError;
use super::series::Series;
use super::spool::{Room, Spool, Syncer};
use super::units::mebibytes;

/// A chunk is closed after this time ...
const CHUNK_TIME: Duration = Duration::from_secs(1);
/// ... or these bytes, before compression.
const CHUNK_BYTES: usize = 256 << 10;
/// What is written is flushed to the disk so often.
const SYNC_TIME: Duration = Duration::from_secs(5);
/// A full disk is looked at again after this.
const RETRY_TIME: Duration = Duration::from_secs(1);
/// Chunks of a file: its index in memory has some 400 bytes for each.
const CHUNKS_MAX: u64 = 20_000;

/// When a file ends, and what the disk keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a file.
    pub file_bytes: Option<u64>,
    /// Age of a file.
    pub file_time: Option<Duration>,
    /// Bytes that stay free on the disk.
    pub min_free: u64,
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that are recorded.
    pub frames: u64,
    /// Frames for which the disk had no room.
    pub left_out: u64,
    /// Bytes of finished files.
    pub bytes: u64,
    /// Files that were begun.
    pub files: u64,
}

/// Writes a recording's files.
pub struct Recorder {
    limits: Limits,
    series: Series,
    syncer: Syncer,
    book: Book,
    /// Since when the disk has had no room, and when to look again.
    paused: Option<Instant>,
    left_out_before_pause: u64,
    synced: (Instant, u64),
    tally: Tally,
}

impl Recorder {
    /// Begins the first file.
    ///
    /// # Errors
    /// As [`Series::create`]; when the disk fails.
    pub fn start(mut series: Series, limits: Limits, now: Instant) -> Result<Recorder, RecordError> {
        let syncer = Syncer::start().map_err(RecordError::System)?;
        let book = begin(&mut series, now)?;
        let tally = Tally { files: 1, ..Tally::default() };
        let mut recorder = Recorder { limits, series, syncer, book, paused: None, left_out_before_pause: 0, synced: (now, 0), tally };
        recorder.series.prune(0);
        Ok(recorder)
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        self.book.path()
    }

    /// What was done so far; bytes of the open file included.
    pub fn tally(&self) -> Tally {
        Tally { bytes: self.tally.bytes + self.book.bytes(), ..self.tally }
    }

    /// Whether the disk has no room.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Ends the file if it is full, and begins the next: true, and then it needs [`Recorder::describe`] and what late readers get.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn turn_page(&mut self, now: Instant) -> Result<bool, RecordError> {
        let Limits { file_bytes, file_time, .. } = self.limits;
        let bytes = self.book.bytes() + self.book.open_chunk().map_or(0, |(_, bytes)| bytes as u64);
        let is_old = file_time.is_some_and(|most| now.duration_since(self.book.opened()) >= most);
        let is_full = file_bytes.is_some_and(|most| bytes >= most) || self.book.chunks() >= CHUNKS_MAX;
        if self.is_paused() || !(is_old || is_full) {
            return Ok(false);
        }
        self.book.close_chunk()?;
        self.drain(now)?;
        if self.is_paused() {
            return Ok(false);
        }
        let next = begin(&mut self.series, now)?;
        let finished = std::mem::replace(&mut self.book, next);
        self.tally.files += 1;
        self.finish(finished)?;
        self.series.prune(self.book.bytes());
        Ok(true)
    }

    /// Says whose masks follow.
    ///
    /// # Errors
    /// [`RecordError::Mcap`].
    pub fn describe(&mut self, metadata: &BTreeMap<String, String>) -> Result<(), RecordError> {
        self.book.metadata(metadata)
    }

    /// Records a message that belongs to no frame.
    ///
    /// # Errors
    /// [`RecordError::Mcap`].
    pub fn note(&mut self, sample: &Sample, now: Instant) -> Result<(), RecordError> {
        if self.is_paused() { Ok(()) } else { self.book.write(sample, now) }
    }

    /// Records all messages of a frame.
    ///
    /// # Errors
    /// When the disk fails. That it is full is no error.
    pub fn frame(&mut self, samples: &[Sample], now: Instant) -> Result<(), RecordError> {
        if self.is_paused() {
            self.tally.left_out += 1;
            return Ok(());
        }
        for sample in samples {
            self.book.write(sample, now)?;
        }
        self.tally.frames += 1;
        self.tick(now)
    }

    /// What is due: to be called every second or more often.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn tick(&mut self, now: Instant) -> Result<(), RecordError> {
        if self.book.open_chunk().is_some_and(|(since, bytes)| bytes >= CHUNK_BYTES || now.duration_since(since) >= CHUNK_TIME) {
            self.book.close_chunk()?;
        }
        if self.paused.is_none_or(|retry_at| now >= retry_at) {
            self.drain(now)?;
        }
        let (at, bytes) = self.synced;
        if now.duration_since(at) >= SYNC_TIME && self.book.bytes() > bytes {
            self.sync(false, &self.book)?;
            self.synced = (now, self.book.bytes());
        }
        Ok(())
    }

    fn drain(&mut self, now: Instant) -> Result<(), RecordError> {
        let path = || self.book.path().to_owned();
        let room = self.book.spool().drain(self.limits.min_free).map_err(|source| RecordError::Write { path: path(), source })?;
        match room {
            Room::None { free } => {
                if self.paused.is_none() {
                    let (path, free, least) = (path(), mebibytes(free), mebibytes(self.limits.min_free));
                    log::warn!("{}: recording pauses, the disk has {free} left and --min-free is {least}: make room", path.display());
                    self.left_out_before_pause = self.tally.left_out;
                }
                self.paused = Some(now + RETRY_TIME);
            }
            Room::Enough if self.paused.take().is_some() => {
                let lost = self.tally.left_out - self.left_out_before_pause;
                log::info!("{}: recording goes on; {lost} frames were left out while the disk had no room", path().display());
            }
            Room::Enough => self.series.prune(self.book.bytes()),
        }
        Ok(())
    }

    /// Ends the recording; the file is complete then, and on the disk.
    ///
    /// # Errors
    /// As [`Book::finish`].
    pub fn end(self) -> Result<Tally, RecordError> {
        let Recorder { mut tally, book, syncer, .. } = self;
        let (path, spool) = book.finish()?;
        tally.bytes += spool.bytes();
        syncer.sync(descriptor(&spool, &path)?, &path, true);
        Ok(tally)
    }

    fn finish(&mut self, book: Book) -> Result<(), RecordError> {
        let (path, spool) = book.finish()?;
        self.syncer.sync(descriptor(&spool, &path)?, &path, true);
        log::info!("{}: finished, {}", path.display(), mebibytes(spool.bytes()));
        self.tally.bytes += spool.bytes();
        self.series.finish(path, spool.bytes());
        Ok(())
    }

    fn sync(&self, must: bool, book: &Book) -> Result<(), RecordError> {
        self.syncer.sync(descriptor(book.spool(), book.path())?, book.path(), must);
        Ok(())
    }
}

fn descriptor(spool: &Spool, path: &Path) -> Result<std::fs::File, RecordError> {
    spool.file().map_err(|source| RecordError::Write { path: path.into(), source })
}

/// The next file, with its header on the disk: other recorders know it by that.
fn begin(series: &mut Series, now: Instant) -> Result<Book, RecordError> {
    let (file, path) = series.create()?;
    log::info!("{}: recording", path.display());
    let book = Book::new(Spool::new(file), path, now)?;
    book.spool().drain(0).map_err(|source| RecordError::Write { path: book.path().into(), source })?;
    Ok(book)
}
