//! The names of a recording's files, and which of them may go when there are too many.
//!
//! ```text
//! record masks.mcap                  masks.mcap
//! record masks.mcap --max-time 1h    masks_0001.mcap, masks_0002.mcap ...; after a restart the next number
//! ```
//!
//! Invariants: no file that exists is written to. Only files of this series are deleted, the oldest numbers first: the name has the form
//! above, and the file begins as this program's recordings do. Refuses: a series that another recorder is writing (each holds a lock on its
//! file).

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use eomt_edge_files::files;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::LIBRARY;
use super::error::RecordError;

/// Numbers are tried upwards from the highest; between listing and creating, others may create files, too.
const TRIES: u64 = 1000;

/// How many files, and bytes of all, may be kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Files, the one that is written included.
    pub files: Option<u64>,
    /// Bytes, those of the one that is written included.
    pub bytes: Option<u64>,
}

/// A finished file of the series.
#[derive(Debug)]
struct Finished {
    path: PathBuf,
    bytes: u64,
}

/// The files of a recording.
#[derive(Debug)]
pub struct Series {
    directory: PathBuf,
    stem: String,
    /// The first file has a number, too.
    is_numbered: bool,
    bounds: Bounds,
    /// Of the last file.
    number: u64,
    /// Oldest first.
    finished: VecDeque<Finished>,
}

impl Series {
    /// `out` is the name as the user gave it.
    ///
    /// # Errors
    /// When it is no name of an MCAP file, there is no such directory, or another recorder writes this series.
    pub fn open(out: &Path, is_numbered: bool, bounds: Bounds) -> Result<Series, RecordError> {
        let stem = out.file_stem().and_then(|stem| stem.to_str()).filter(|_| out.extension().is_some_and(|extension| extension == "mcap"));
        let Some(stem) = stem.map(str::to_owned) else { return Err(RecordError::Name { path: out.into() }) };
        let directory = out.parent().unwrap_or(Path::new("")).to_owned();
        let mut series = Series { directory, stem, is_numbered, bounds, number: 0, finished: VecDeque::new() };
        if is_numbered {
            let mut found = series.list()?;
            found.sort_by_key(|(number, _)| *number);
            series.number = found.last().map_or(0, |(number, _)| *number);
            series.finished = found.into_iter().filter_map(|(_, path)| own(path).transpose()).collect::<Result<_, _>>()?;
        }
        Ok(series)
    }

    /// Names of the series' form, whoever wrote them.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, RecordError> {
        let here = if self.directory.as_os_str().is_empty() { Path::new(".") } else { &self.directory };
        let failed = |source| RecordError::Directory { path: here.into(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(here).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(number) = name.to_str().and_then(|name| self.number_of(name)) {
                found.push((number, self.directory.join(name)));
            }
        }
        Ok(found)
    }

    fn number_of(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.stem)?.strip_prefix('_')?.strip_suffix(".mcap")?;
        let is_number = digits.len() >= 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok()).flatten()
    }

    /// Finished files, oldest first.
    pub fn finished(&self) -> impl Iterator<Item = &Path> {
        self.finished.iter().map(|file| file.path.as_path())
    }

    /// Creates the next file and locks it.
    ///
    /// # Errors
    /// When it exists (only a name without a number), or the system refuses.
    pub fn create(&mut self) -> Result<(File, PathBuf), RecordError> {
        for _ in 0..TRIES {
            self.number += 1;
            let is_plain = self.number == 1 && !self.is_numbered;
            let name = if is_plain { format!("{}.mcap", self.stem) } else { format!("{}_{:04}.mcap", self.stem, self.number) };
            let path = self.directory.join(name);
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    // a file system without locks records all the same
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    return Ok((file, path));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !is_plain => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(RecordError::Exists { path }),
                Err(source) => return Err(RecordError::Write { path, source }),
            }
        }
        Err(RecordError::Names { directory: self.directory.clone(), stem: self.stem.clone() })
    }

    /// A file is complete.
    pub fn finish(&mut self, path: PathBuf, bytes: u64) {
        self.finished.push_back(Finished { path, bytes });
    }

    /// Deletes the oldest files until the bounds hold with `current` bytes in the file that is written.
    pub fn prune(&mut self, current: u64) {
        while !self.finished.is_empty() && self.is_over(current) {
            let Some(oldest) = self.finished.pop_front() else { return };
            match fs::remove_file(&oldest.path) {
                Ok(()) => log::info!("{}: deleted, the oldest of the series", oldest.path.display()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => log::warn!("{}: cannot be deleted ({error}): the series takes more room", oldest.path.display()),
            }
        }
    }

    fn is_over(&self, current: u64) -> bool {
        let bytes = self.finished.iter().map(|file| file.bytes).sum::<u64>().saturating_add(current);
        self.bounds.files.is_some_and(|most| self.finished.len() as u64 + 1 > most) || self.bounds.bytes.is_some_and(|most| bytes > most)
    }
}

/// The file, if this program wrote it.
fn own(path: PathBuf) -> Result<Option<Finished>, RecordError> {
    let Ok(mut file) = files::open(&path) else { return Ok(None) };
    if !is_own(&mut file) {
        return Ok(None);
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(RecordError::Busy { path }),
        _ => Ok(Some(Finished { bytes: file.metadata().map_or(0, |data| data.len()), path })),
    }
}

/// Whether a file begins with MCAP's magic and a header record that names this program as its writer.
fn is_own(file: &mut impl Read) -> bool {
    let mut begin = Vec::new();
    let _ = file.take(128).read_to_end(&mut begin);
    let header = begin.strip_prefix(mcap::MAGIC).and_then(|rest| rest.get(9..));
    let Some(Ok(mcap::records::Record::Header(header))) = header.map(|body| mcap::parse_record(mcap::records::op::HEADER, body)) else {
        return false;
    };
    header.library.starts_with(LIBRARY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::testing::{names, scratch};

    fn recording(path: &Path, library: &str, bytes: usize) {
        let mut file = mcap::WriteOptions::new().library(library).create(File::create(path).unwrap()).unwrap();
        file.finish().unwrap();
        let end = fs::metadata(path).unwrap().len();
        File::options().write(true).open(path).unwrap().set_len(end.max(bytes as u64)).unwrap();
    }

    #[test]
    fn a_name_without_a_number_is_never_written_over() {
        let directory = scratch("plain");
        let out = directory.join("out.mcap");
        let mut series = Series::open(&out, false, Bounds::default()).unwrap();
        series.create().unwrap();
        // the series goes on by itself
        assert_eq!(series.create().unwrap().1, directory.join("out_0002.mcap"));
        let error = Series::open(&out, false, Bounds::default()).unwrap().create().unwrap_err();
        assert!(error.to_string().contains("out.mcap") && error.to_string().contains("exists"), "{error}");
        for name in ["out.bag", "out", ".mcap", "x/.."] {
            assert!(matches!(Series::open(&directory.join(name), false, Bounds::default()), Err(RecordError::Name { .. })), "{name}");
        }
        let error = Series::open(&directory.join("no/out.mcap"), true, Bounds::default()).unwrap_err();
        assert!(error.to_string().contains("no"), "{error}");
    }

    #[test]
    fn numbers_go_on_after_the_highest() {
        let directory = scratch("numbers");
        let out = directory.join("out.mcap");
        for name in ["out_0007.mcap", "out_12.mcap", "out_00x9.mcap", "outer_0099.mcap", "out_0098.mcap.part"] {
            fs::write(directory.join(name), "of somebody else").unwrap();
        }
        let mut series = Series::open(&out, true, Bounds::default()).unwrap();
        let first = series.create().unwrap();
        assert_eq!(first.1, directory.join("out_0008.mcap"));
        fs::write(directory.join("out_0009.mcap"), "of somebody else").unwrap();
        assert_eq!(series.create().unwrap().1, directory.join("out_0010.mcap"));
        assert_eq!(fs::read(directory.join("out_0009.mcap")).unwrap(), b"of somebody else");
    }

    #[test]
    fn the_oldest_own_files_go_and_nothing_else() {
        let directory = scratch("prune");
        let out = directory.join("out.mcap");
        for number in 1..=5 {
            recording(&directory.join(format!("out_000{number}.mcap")), "eomt-edge-bridge 0.1.0", 1000);
        }
        recording(&directory.join("out_0000.mcap"), "libmcap 2", 1000);
        fs::create_dir(directory.join("out_0006.mcap")).unwrap();
        let mut series = Series::open(&out, true, Bounds { files: Some(4), bytes: None }).unwrap();
        series.create().unwrap();
        series.prune(0);
        assert_eq!(
            names(&directory),
            ["out_0000.mcap", "out_0003.mcap", "out_0004.mcap", "out_0005.mcap", "out_0006.mcap", "out_0007.mcap"]
        );
        series.bounds = Bounds { files: None, bytes: Some(2500) };
        series.prune(400);
        assert_eq!(names(&directory), ["out_0000.mcap", "out_0004.mcap", "out_0005.mcap", "out_0006.mcap", "out_0007.mcap"]);
        // the file that is written stays, however large
        series.prune(9999);
        assert_eq!(names(&directory), ["out_0000.mcap", "out_0006.mcap", "out_0007.mcap"]);
    }

    #[test]
    fn two_recorders_of_one_series_are_refused() {
        let directory = scratch("two");
        let out = directory.join("out.mcap");
        let mut first = Series::open(&out, true, Bounds::default()).unwrap();
        let (file, path) = first.create().unwrap();
        let mut writer = mcap::WriteOptions::new().library("eomt-edge-bridge 0.1.0").create(&file).unwrap();
        writer.flush().unwrap();
        let error = Series::open(&out, true, Bounds::default()).unwrap_err();
        assert!(matches!(&error, RecordError::Busy { path: busy } if *busy == path), "{error}");
        drop(writer);
        drop(file);
        Series::open(&out, true, Bounds::default()).unwrap();
    }
}
