//! A folder of files for one input, in memory where the machine has `/dev/shm`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Removed with all that is in it when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static PARENT: OnceLock<PathBuf> = OnceLock::new();
        let parent = PARENT.get_or_init(|| {
            let memory = Path::new("/dev/shm");
            // what `make fuzz` sets is removed by it, whatever becomes of this process
            if memory.is_dir() && std::env::var_os("TMPDIR").is_none() { memory.to_owned() } else { std::env::temp_dir() }
        });
        let thread = format!("{:?}", std::thread::current().id());
        let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
        let folder = parent.join(format!("eomt-fuzz-{}-{thread}", std::process::id()));
        std::fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        Scratch(folder)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Writes a file and says where it is.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
