//! Which files a bag has, and in which order.
//!
//! A directory's order is that of `relative_file_paths` in `metadata.yaml`. A recorder that was killed left none: then it is that of the
//! numbers in the files' names. Refuses: files outside of the directory.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::BagError;

/// `metadata.yaml` of a bag of 10,000 files has about 2 MB.
const METADATA_BYTES_MAX: u64 = 16 << 20;
/// Files of one bag: a day in files of ten seconds.
const FILES_MAX: usize = 10_000;

const METADATA: &str = "metadata.yaml";

/// Linux's O_NONBLOCK | O_NOCTTY, where they have these values: on all that this program runs on.
const WITHOUT_WAITING: i32 = 0o4000 | 0o400;

/// Opens a regular file, or a link to one, without waiting for a pipe or device of that name.
pub(super) fn open(path: &Path) -> Result<File, BagError> {
    let io = |source| BagError::Io { path: path.to_owned(), source };
    let regular = |is_file: bool| if is_file { Ok(()) } else { Err(io(io::Error::other("it is not a regular file"))) };
    regular(std::fs::metadata(path).map_err(io)?.is_file())?;
    let file = File::options().read(true).custom_flags(WITHOUT_WAITING).open(path).map_err(io)?;
    regular(file.metadata().map_err(io)?.is_file())?;
    Ok(file)
}

/// The files of the bag at `path`.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, BagError> {
    let io = |source| BagError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let metadata = path.join(METADATA);
    if metadata.is_file() {
        let mut text = String::new();
        let read = open(&metadata)?.take(METADATA_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|source| BagError::Io { path: metadata.clone(), source })?;
        let names = relative_file_paths(&text);
        if names.is_empty() || names.len() > FILES_MAX {
            let reason = format!("it should list 1 to {FILES_MAX} files under relative_file_paths, one a line");
            return Err(BagError::NoBag { path: metadata, reason });
        }
        // older recorders wrote the directory's name in front
        return Ok(names.iter().filter_map(|name| Path::new(name).file_name()).map(|name| path.join(name)).collect());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)?.take(100 * FILES_MAX) {
        let file = entry.map_err(io)?.path();
        if is_named_as_storage(&file) && file.is_file() {
            found.push(file);
        }
    }
    if found.is_empty() || found.len() > FILES_MAX {
        let reason = format!("the directory should have {METADATA}, or 1 to {FILES_MAX} files of a bag (.mcap, .db3)");
        return Err(BagError::NoBag { path: path.to_owned(), reason });
    }
    found.sort_by_cached_key(|file| by_number(&file.file_name().unwrap_or_default().to_string_lossy()));
    Ok(found)
}

/// The items of the list, which rosbag2 and rosbags write one a line.
fn relative_file_paths(text: &str) -> Vec<&str> {
    let rest = text.lines().skip_while(|line| line.trim() != "relative_file_paths:").skip(1);
    let items = rest.map_while(|line| line.trim().strip_prefix("- "));
    items.map(|item| item.trim().trim_matches(['"', '\''])).collect()
}

fn is_named_as_storage(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let inner = [".zstd", ".zst", ".lz4"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    inner.ends_with(".mcap") || inner.ends_with(".db3")
}

/// `bag_10.mcap` comes after `bag_9.mcap`: runs of digits become numbers of one length.
fn by_number(name: &str) -> String {
    let is_digit = |c: char| c.is_ascii_digit();
    let runs = name.split_inclusive(|c: char| !c.is_ascii_digit());
    runs.map(|run| format!("{:0>20}{}", run.trim_end_matches(|c| !is_digit(c)), run.trim_start_matches(is_digit))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_both_writers_indent_them() {
        let of = |text| relative_file_paths(text).join(" ");
        assert_eq!(of("a:\n  version: 5\n  relative_file_paths:\n    - x_0.db3\n    - x_1.db3\n  duration:\n    nanoseconds: 1\n"), "x_0.db3 x_1.db3");
        assert_eq!(of("a:\n  relative_file_paths:\n  - \"x_0.mcap\"\n  files:\n  - path: y\n"), "x_0.mcap");
        assert_eq!(of("a:\n  relative_file_paths: []\n"), "");
        assert_eq!(of(""), "");
    }

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["bag_10.mcap", "bag_9.mcap", "bag_0.mcap.zstd", "a2_1.mcap", "bag_1.db3", "a10_1.mcap"];
        names.sort_by_cached_key(|name| by_number(name));
        assert_eq!(names, ["a2_1.mcap", "a10_1.mcap", "bag_0.mcap.zstd", "bag_1.db3", "bag_9.mcap", "bag_10.mcap"]);
        assert!(["a.mcap", "A.DB3", "a.db3.zstd", "a.mcap.lz4"].map(|name| is_named_as_storage(Path::new(name))).iter().all(|is| *is));
        assert!(!["a.zstd", "a.db3-wal", "mcap", "a.mcap.txt"].map(|name| is_named_as_storage(Path::new(name))).iter().any(|is| *is));
    }
}
