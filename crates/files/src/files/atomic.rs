//! Files that appear whole or not at all.
//!
//! A file has no name while it is written (`O_TMPFILE`, open(2)), so that the kernel frees it however the process ends. [`AtomicFile::commit`]
//! links it to its name. A name that exists cannot be linked to: then the file gets a second name for the moment between two system
//! calls, linkat(2) and rename(2). File systems without `O_TMPFILE` (vfat, NFS, some overlays), and systems without `/proc`, get a file under
//! a temporary name; one that exists when SIGINT, SIGTERM or SIGHUP ends the process is removed by a thread.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A file that has no name yet; [`AtomicFile::commit`] gives it its name, dropping removes it.
pub struct AtomicFile {
    path: PathBuf,
    file: File,
    /// Where the file system cannot do without a name.
    temporary: Option<Temporary>,
}

impl AtomicFile {
    /// Creates the file. A link is followed; a device, pipe or directory is refused rather than replaced.
    ///
    /// # Errors
    /// When `path` is no place for a file, or nothing may be written there.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        AtomicFile::create_with(path, unnamed)
    }

    /// `unnamed` opens a file without a name in a directory, if the file system can.
    fn create_with(path: &Path, unnamed: impl Fn(&Path) -> io::Result<File>) -> Result<AtomicFile> {
        let target = if path.is_symlink() { fs::canonicalize(path).ok() } else { None };
        let path = target.as_deref().unwrap_or(path);
        if fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
            bail!("{}: exists and is not a regular file, so it is not replaced", path.display());
        }
        if path.file_name().is_none() {
            bail!("{}: this is no name for a file", path.display());
        }
        let path = path.to_owned();
        if let Ok(file) = unnamed(directory(&path)) {
            return Ok(AtomicFile { path, file, temporary: None });
        }
        let named = || Temporary::create(directory(&path), |temporary| File::options().write(true).create_new(true).open(temporary));
        let (temporary, file) = named().with_context(|| format!("{}: cannot be written", path.display()))?;
        Ok(AtomicFile { path, file, temporary: Some(temporary) })
    }

    /// Flushes to the disk.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    /// Flushes to the disk, then gives the file its name.
    ///
    /// # Errors
    /// When the disk is full or the directory was changed meanwhile; what had the name before is then unchanged.
    pub fn commit(mut self) -> Result<()> {
        self.finish().with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        match self.temporary.take() {
            Some(temporary) => temporary.rename(&self.path)?,
            None => self.give_name()?,
        }
        // the name too must survive a power cut; not every file system can flush a directory
        let _ = File::open(directory(&self.path)).and_then(|directory| directory.sync_all());
        Ok(())
    }

    fn give_name(&mut self) -> io::Result<()> {
        match link(&self.file, &self.path) {
            Err(Errno::EXIST) => {}
            Ok(()) => return Ok(()),
            Err(_) => return self.copy(),
        }
        let linked = Temporary::create(directory(&self.path), |temporary| Ok(link(&self.file, temporary)?));
        linked?.0.rename(&self.path)
    }

    /// Where a security module forbids links.
    fn copy(&mut self) -> io::Result<()> {
        let create = |temporary: &Path| File::options().write(true).create_new(true).open(temporary);
        let (temporary, mut named) = Temporary::create(directory(&self.path), create)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut named)?;
        named.sync_all()?;
        temporary.rename(&self.path)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The directory of a file.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unnamed(directory: &Path) -> io::Result<File> {
    let mode = Mode::from_raw_mode(0o666); // the umask takes its part
    let file = File::from(openat(CWD, directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode)?);
    // it can be linked through /proc only
    fs::symlink_metadata(descriptor(&file))?;
    Ok(file)
}

fn descriptor(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Fails when `name` exists.
fn link(file: &File, name: &Path) -> rustix::io::Result<()> {
    linkat(CWD, descriptor(file), CWD, name, AtFlags::SYMLINK_FOLLOW)
}

/// Temporary names that exist; they are removed when a signal ends the process.
static TEMPORARIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A temporary name of a file; dropping removes it.
struct Temporary(PathBuf);

impl Temporary {
    /// `make` creates the file, and fails when its name exists.
    fn create<T>(directory: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(Temporary, T)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        const TRIES: usize = 100;
        remove_at_signals();
        for _ in 0..TRIES {
            let path = directory.join(format!(".eomt-edge.{}.{}.part", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
            // while the list is locked, no signal comes between the file and its entry
            let mut list = TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner);
            match make(&path) {
                Ok(made) => {
                    list.push(path.clone());
                    return Ok((Temporary(path), made));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("every temporary name is taken"))
    }

    fn rename(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut list = TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner);
        remove(&self.0);
        list.retain(|path| *path != self.0);
    }
}

/// A directory of one's own among those of temporary files, readable by its user only. Dropping removes it with all that is in it, and so do
/// SIGINT, SIGTERM and SIGHUP.
pub struct TemporaryDirectory(Temporary);

impl TemporaryDirectory {
    /// Where `TMPDIR` says, else in `/tmp`.
    ///
    /// # Errors
    /// When nothing may be written there.
    pub fn create() -> Result<TemporaryDirectory> {
        let parent = std::env::temp_dir();
        let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        let (temporary, ()) = Temporary::create(&parent, make).with_context(|| format!("{}: cannot be written", parent.display()))?;
        Ok(TemporaryDirectory(temporary))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.0
    }
}

/// A file, or a directory with all that is in it.
fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)); // gone already after a rename
}

/// Starts the thread that removes temporary names when the process is asked to end, once. Signals that are ignored stay so (nohup(1)).
fn remove_at_signals() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let ignored = ignored_signals();
        let signals = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let Ok(mut caught) = signal_hook::iterator::Signals::new(signals) else { return };
        let listen = move || {
            for signal in caught.forever() {
                // kept locked: nothing is created any more
                let list = TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner);
                list.iter().for_each(|path| remove(path));
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        };
        let _ = std::thread::Builder::new().name("eomt-leftovers".to_owned()).spawn(listen);
    });
}

/// Bit N - 1 is signal N (`SigIgn` of proc_pid_status(5)).
fn ignored_signals() -> u64 {
    let status = super::read_text(Path::new("/proc/self/status"), &crate::bounds::SYSTEM).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("eomt-edge-atomic-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn never(_: &Path) -> io::Result<File> {
        Err(Errno::OPNOTSUPP.into())
    }

    #[test]
    fn a_file_has_no_name_before_it_is_whole() {
        let directory = scratch("unnamed");
        let path = directory.join("out.bin");
        let mut file = AtomicFile::create(&path).unwrap();
        assert!(file.temporary.is_none(), "the tests need a temporary directory with O_TMPFILE");
        file.write_all(b"first").unwrap();
        assert!(names(&directory).is_empty());
        file.commit().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(&directory)), (b"first".to_vec(), vec!["out.bin".to_owned()]));
        // over an existing one, and dropped half way
        let mut second = AtomicFile::create(&path).unwrap();
        second.write_all(b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        second.commit().unwrap();
        let mut half = AtomicFile::create(&path).unwrap();
        half.write_all(b"th").unwrap();
        drop(half);
        assert_eq!((fs::read(&path).unwrap(), names(&directory)), (b"second".to_vec(), vec!["out.bin".to_owned()]));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn file_systems_without_nameless_files_get_a_temporary_name() {
        let directory = scratch("named");
        let path = directory.join("out.bin");
        let mut file = AtomicFile::create_with(&path, never).unwrap();
        file.write_all(b"first").unwrap();
        let name = names(&directory).pop().unwrap();
        assert!(name.ends_with(".part"), "{name}");
        file.commit().unwrap();
        let mut half = AtomicFile::create_with(&path, never).unwrap();
        half.write_all(b"sec").unwrap();
        drop(half);
        assert_eq!((fs::read(&path).unwrap(), names(&directory)), (b"first".to_vec(), vec!["out.bin".to_owned()]));
        // where links are forbidden, what was written is copied
        let mut copied = AtomicFile::create(&path).unwrap();
        copied.write_all(b"copied").unwrap();
        copied.copy().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(&directory)), (b"copied".to_vec(), vec!["out.bin".to_owned()]));
        assert!(!TEMPORARIES.lock().unwrap().iter().any(|path| path.starts_with(&directory)));
        fs::remove_dir_all(&directory).unwrap();
    }

    /// The test starts itself again as the process that a signal ends while its file has a temporary name.
    #[test]
    fn a_signal_removes_temporary_names() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        const DIRECTORY: &str = "EOMT_EDGE_TEST_DIRECTORY";
        if let Some(directory) = std::env::var_os(DIRECTORY) {
            let file = AtomicFile::create_with(&Path::new(&directory).join("out.bin"), never).unwrap();
            let folder = TemporaryDirectory::create().unwrap();
            fs::write(folder.path().join("inside"), "").unwrap();
            println!("\nready");
            std::thread::park();
            drop((file, folder));
        }
        let directory = scratch("signal");
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            // env(1): under nohup(1) the child would ignore SIGHUP, as it should
            let mut child = Command::new("env")
                .arg("--default-signal")
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "files::atomic::tests::a_signal_removes_temporary_names", "--nocapture"])
                .env(DIRECTORY, &directory)
                .env("TMPDIR", &directory)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
            assert_eq!(names(&directory).len(), 2);
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap()).unwrap();
            let status = child.wait().unwrap();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal));
            assert!(names(&directory).is_empty(), "{signal} left {:?}", names(&directory));
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn both_ways_give_the_permissions_of_any_new_file() {
        let directory = scratch("mode");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        let plain = directory.join("plain");
        fs::write(&plain, "").unwrap();
        let (unnamed, named) = (directory.join("unnamed"), directory.join("named"));
        AtomicFile::create(&unnamed).unwrap().commit().unwrap();
        AtomicFile::create_with(&named, never).unwrap().commit().unwrap();
        assert_eq!((mode(&unnamed), mode(&named)), (mode(&plain), mode(&plain)));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn links_are_followed_and_devices_stay() {
        let directory = scratch("kinds");
        let path = directory.join("real");
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("real", directory.join("link")).unwrap();
        AtomicFile::create(&directory.join("link")).unwrap().commit().unwrap();
        assert!(directory.join("link").is_symlink() && fs::read(&path).unwrap().is_empty());
        for path in [Path::new("/dev/null"), &directory] {
            let message = AtomicFile::create(path).err().unwrap().to_string();
            assert!(message.contains("is not a regular file"), "{message}");
        }
        let long = directory.join("n".repeat(255));
        AtomicFile::create_with(&long, never).unwrap().commit().unwrap();
        let message = format!("{:#}", AtomicFile::create(&directory.join("no/where")).err().unwrap());
        assert!(message.contains("no/where") && message.contains("No such file"), "{message}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
