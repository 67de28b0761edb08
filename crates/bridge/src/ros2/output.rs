//! Where `images` writes: standard output, or a FIFO whose reader comes and goes.
//!
//! Invariants: a picture is written whole, or its reader sees the end of the stream; a signal and systemd's watchdog are seen to while a reader is
//! slow; pictures that nobody reads are not kept. Refuses: a name that leads to anything but a FIFO.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;

use crate::options::Usage;
use crate::stop::{self, Stop};

/// A signal is noticed within this, whatever the reader does.
const PATIENCE: Duration = Duration::from_millis(200);
/// Owner and group: who may read it is up to the group, and to the directory.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);

/// What pictures are written to.
pub enum Output {
    /// Ends with its reader.
    Standard(File),
    /// Open while somebody reads.
    Fifo(PathBuf, Option<File>),
}

impl Output {
    /// Standard output itself: what stands before it in the library waits for ends of lines.
    ///
    /// # Errors
    /// When it is closed.
    pub fn standard() -> io::Result<Output> {
        Ok(Output::Standard(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// The FIFO `path`, which is made if it is missing.
    ///
    /// # Errors
    /// [`Usage`] where something else has that name; when it cannot be made.
    pub fn fifo(path: &Path) -> anyhow::Result<Output> {
        match mknodat(CWD, path, FileType::Fifo, MODE, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(anyhow::Error::new(error).context(format!("{}: no FIFO can be made", path.display()))),
        }
        if !std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
            return Err(Usage(format!("--fifo {}: something else has that name", path.display())).into());
        }
        Ok(Output::Fifo(path.to_owned(), None))
    }

    /// Whether nobody will ever read what is written: noticed also while no pictures come.
    pub fn is_over(&self) -> bool {
        match self {
            Output::Standard(file) => is_unread(file),
            Output::Fifo(..) => false,
        }
    }

    /// Whether somebody reads now.
    ///
    /// # Errors
    /// When the FIFO cannot be opened for another reason than that nobody reads it.
    pub fn is_read(&mut self) -> io::Result<bool> {
        let Output::Fifo(path, stream) = self else { return Ok(true) };
        if stream.as_ref().is_some_and(is_unread) {
            log::info!("{}: its reader has gone; waiting for the next one", path.display());
            *stream = None;
        }
        if stream.is_none() {
            match File::options().write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&*path) {
                Ok(file) => {
                    log::info!("{}: somebody reads it", path.display());
                    *stream = Some(file);
                }
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(stream.is_some())
    }

    /// Writes a picture, which may be cut by `stop` or by the reader's end.
    ///
    /// # Errors
    /// When it cannot be written. Not when the reader has gone: [`Output::is_over`] and [`Output::is_read`] tell that.
    pub fn write(&mut self, parts: &[&[u8]], stop: &Stop) -> io::Result<()> {
        let written = match self {
            Output::Standard(file) => parts.iter().try_for_each(|part| file.write_all(part)),
            Output::Fifo(_, Some(file)) => {
                let whole = parts.iter().try_fold(true, |whole, part| Ok::<_, io::Error>(whole && write_patiently(file, part, stop)?));
                whole.map(|_| ())
            }
            Output::Fifo(_, None) => Ok(()),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

fn is_unread(output: &File) -> bool {
    let mut asked = [PollFd::new(output, PollFlags::empty())];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && asked[0].revents().contains(PollFlags::ERR)
}

/// Writes to what never blocks, as fast as it is read. False when it is time to stop.
fn write_patiently(mut file: &File, mut bytes: &[u8], stop: &Stop) -> io::Result<bool> {
    let patience = Timespec { tv_sec: 0, tv_nsec: PATIENCE.subsec_nanos().into() };
    while !bytes.is_empty() {
        if stop.requested() {
            return Ok(false);
        }
        match file.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // an end of the reader wakes it, too; a signal is seen above
                let _ = poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&patience));
                stop::alive("waiting for the reader");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// A FIFO in a directory of its own.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let directory = std::env::temp_dir().join(format!("eomt-bridge-fifo-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            Place(directory.join("frames"))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    /// Opens it as the daemon does.
    fn reader(path: &Path) -> File {
        File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path).unwrap()
    }

    /// Everything that is written until the writer goes.
    fn drain(mut reader: File) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn readers_come_and_go() {
        let (place, stop) = (Place::new("readers"), Stop::default());
        let mut output = Output::fifo(&place.0).unwrap();
        assert!(!output.is_read().unwrap() && !output.is_over());
        output.write(&[b"nobody's"], &stop).unwrap();
        for _ in 0..2 {
            let mut reader = reader(&place.0);
            assert!(output.is_read().unwrap());
            output.write(&[b"one", b" picture"], &stop).unwrap();
            let mut buffer = [0; 64];
            let count = reader.read(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"one picture");
            drop(reader);
            output.write(&[b"too late"], &stop).unwrap();
            assert!(!output.is_read().unwrap());
        }
    }

    #[test]
    fn a_picture_larger_than_the_pipe_comes_whole() {
        let (place, stop) = (Place::new("large"), Stop::default());
        let mut output = Output::fifo(&place.0).unwrap();
        let picture: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 / 3) as u8).collect();
        let reader = reader(&place.0);
        assert!(output.is_read().unwrap());
        let thread = std::thread::spawn(move || drain(reader));
        output.write(&[&picture[..100], &picture[100..]], &stop).unwrap();
        drop(output);
        assert!(thread.join().unwrap() == picture);
    }

    #[test]
    fn a_reader_that_stops_does_not_keep_it_from_ending() {
        let (place, stop) = (Place::new("stopped"), Stop::default());
        let mut output = Output::fifo(&place.0).unwrap();
        let reader = reader(&place.0);
        assert!(output.is_read().unwrap());
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || output.write(&[&vec![1; 3_000_000]], &stop)
        });
        stop.request();
        thread.join().unwrap().unwrap();
        assert!(drain(reader).len() < 3_000_000);
    }

    #[test]
    fn other_files_are_left_alone() {
        let place = Place::new("other");
        std::fs::write(&place.0, "mine").unwrap();
        let error = Output::fifo(&place.0).err().unwrap();
        assert!(error.downcast_ref::<Usage>().is_some() && error.to_string().contains("something else"), "{error}");
        assert_eq!(std::fs::read_to_string(&place.0).unwrap(), "mine");
        assert!(Output::fifo(&place.0.join("below")).err().unwrap().to_string().contains("no FIFO can be made"));
    }
}
