//! Reads regular files within bounds.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{OFlags, SeekFrom, seek};
use rustix::io::Errno;

use crate::bounds::{self, CHECKED_BYTES_MIN, FileBound};

/// Stretches of data that are counted before a file is taken for whole.
const STRETCHES_MAX: usize = 4096;

/// Opens a regular file, or a link to one, without waiting.
///
/// # Errors
/// Those of `open(2)`; for everything else than a regular file, that it is none.
pub fn open(path: &Path) -> io::Result<File> {
    let regular = |is_file: bool| if is_file { Ok(()) } else { Err(io::Error::other("it is not a regular file")) };
    // first by name, since opening a device may have effects; then what was opened, since the name may lead elsewhere by now
    regular(std::fs::metadata(path)?.is_file())?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY; // CLOEXEC is std's own
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    regular(file.metadata()?.is_file())?;
    Ok(file)
}

/// Checks an opened file of which only parts will be read.
///
/// # Errors
/// When it has more bytes than `bound` allows, or is large and mostly a hole.
pub fn check(file: &File, bound: &FileBound) -> io::Result<u64> {
    let bytes = file.metadata()?.len();
    if bytes > bound.bytes {
        let (kind, most) = (bound.kind, bound.bytes);
        return Err(io::Error::other(format!("it has {bytes} bytes, and {kind} may have at most {most}")));
    }
    if bytes >= CHECKED_BYTES_MIN {
        check_written(file, bytes)?;
    }
    Ok(bytes)
}

/// Refuses a file of which less than half was ever written: what a broken download or `truncate` leaves.
fn check_written(file: &File, bytes: u64) -> io::Result<()> {
    let (mut at, mut written, mut ended) = (0, 0, false);
    for _ in 0..STRETCHES_MAX {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => bytes, // only a hole is left
            Err(_) => break,
        };
        // a file system that knows no holes says that all is data; one that cannot seek so is believed
        let Ok(hole) = seek(file, SeekFrom::Hole(data.min(bytes - 1))) else { break };
        written += hole.saturating_sub(data);
        ended = data >= bytes || hole >= bytes;
        if ended || written >= bytes / 2 {
            break;
        }
        at = hole;
    }
    seek(file, SeekFrom::Start(0))?;
    if ended && written < bytes / 2 {
        let reason =
            format!("only {written} of its {bytes} bytes were ever written, and the rest is a hole: it is not whole, copy it again");
        return Err(io::Error::other(reason));
    }
    Ok(())
}

/// Reads a whole regular file.
///
/// # Errors
/// As [`open`] and [`check`]; when the machine has less free memory than a large file needs.
pub fn read_bytes(path: &Path, bound: &FileBound) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let said = check(&file, bound)?;
    let mut bytes = memory_for(said)?;
    // files of /proc say that they have none, and others may grow meanwhile
    file.take(bound.bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bound.bytes {
        let (kind, most) = (bound.kind, bound.bytes);
        return Err(io::Error::other(format!("{kind} may have at most {most} bytes, and it has more")));
    }
    Ok(bytes)
}

/// The next `len` bytes of a file, all of them.
///
/// # Errors
/// When the file ends before, or there is no memory for them.
pub fn read_exactly(file: &mut File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = memory_for(len)?;
    bytes.resize(len as usize, 0);
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// An empty vector with room for `len` bytes, unless that is more than the machine can give: the kernel promises more than it has, and ends
/// the process when it is used.
fn memory_for(len: u64) -> io::Result<Vec<u8>> {
    if let Some(free) = free_memory().filter(|free| len >= CHECKED_BYTES_MIN && len > *free) {
        let reason = format!("its {} MiB do not fit into the {} MiB of memory that this machine has free", len >> 20, free >> 20);
        return Err(io::Error::other(reason));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len as usize).map_err(|_| io::Error::other(format!("there is no memory for its {len} bytes")))?;
    Ok(bytes)
}

/// Reads a whole regular file of UTF-8.
///
/// # Errors
/// As [`read_bytes`]; when it is no UTF-8.
pub fn read_text(path: &Path, bound: &FileBound) -> io::Result<String> {
    String::from_utf8(read_bytes(path, bound)?).map_err(|_| io::Error::other("it is not text in UTF-8"))
}

/// [`read_bytes`]; the error names the file.
///
/// # Errors
/// See there.
pub fn read(path: &Path, bound: &FileBound) -> Result<Vec<u8>> {
    read_bytes(path, bound).with_context(|| format!("{}: cannot be read", path.display()))
}

/// Memory that new allocations may take without swapping, bytes (`MemAvailable` of proc_meminfo(5)); `None` where the system does not tell.
pub fn free_memory() -> Option<u64> {
    let mut text = String::new();
    File::open("/proc/meminfo").ok()?.take(bounds::SYSTEM.bytes).read_to_string(&mut text).ok()?;
    kibibytes(&text, "MemAvailable:")
}

/// The line `name` of `/proc/meminfo` or `/proc/PID/status`, in bytes.
pub fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("eomt-edge-reading-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    const SMALL: FileBound = FileBound { kind: "a small file", bytes: 10 };

    #[test]
    fn files_are_read_up_to_their_bound() {
        let directory = scratch("bound");
        let path = directory.join("file");
        std::fs::write(&path, "0123456789").unwrap();
        std::os::unix::fs::symlink(&path, directory.join("link")).unwrap();
        assert_eq!(read_bytes(&path, &SMALL).unwrap(), b"0123456789");
        assert_eq!(read_text(&directory.join("link"), &SMALL).unwrap(), "0123456789", "a link to a regular file");
        std::fs::write(&path, "0123456789a").unwrap();
        let message = format!("{:#}", read(&path, &SMALL).unwrap_err());
        for word in [path.to_str().unwrap(), "11 bytes", "a small file may have at most 10"] {
            assert!(message.contains(word), "{message}");
        }
        std::fs::write(&path, [0xff]).unwrap();
        assert!(read_text(&path, &SMALL).unwrap_err().to_string().contains("UTF-8"));
        // says that it has no bytes, and has many
        assert!(read_bytes(Path::new("/proc/cpuinfo"), &SMALL).unwrap_err().to_string().contains("a small file"));
        assert!(read_text(Path::new("/proc/meminfo"), &bounds::SYSTEM).unwrap().contains("MemAvailable"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let directory = scratch("kinds");
        let fifo = directory.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.join("dangling")).unwrap();
        std::os::unix::fs::symlink(&fifo, directory.join("link")).unwrap();
        for path in [fifo, directory.join("link"), directory.join("socket"), directory.clone(), "/dev/zero".into(), "/dev/tty".into()] {
            let error = read_bytes(&path, &SMALL).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{}: {error}", path.display());
        }
        assert_eq!(read_bytes(&directory.join("dangling"), &SMALL).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_large_file_that_is_mostly_a_hole_is_not_read() {
        use std::os::unix::fs::FileExt;
        let directory = scratch("hole");
        let path = directory.join("file");
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.set_len(64 << 20).unwrap();
        let large = FileBound { kind: "a large file", bytes: 1 << 30 };
        let message = read_bytes(&path, &large).unwrap_err().to_string();
        assert!(message.contains("67108864 bytes") && message.contains("hole"), "{message}");
        // with two thirds written it is read
        (0..44).for_each(|mib| file.write_all_at(&vec![1; 1 << 20], mib << 20).unwrap());
        assert_eq!(read_bytes(&path, &large).unwrap().len(), 64 << 20);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
