//! Which files a bag has, and in which order.
//!
//! A directory's order is that of `relative_file_paths` in `metadata.yaml`. A recorder that was killed left none: then it is that of the
//! numbers in the files' names. Refuses: files outside of the directory.

use std::fs::File;
use std::path::{Path, PathBuf};

use eomt_edge_files::{bounds, files};

use super::BagError;

/// Files of one bag: a day in files of ten seconds.
const FILES_MAX: usize = 10_000;

const METADATA: &str = "metadata.yaml";

/// A file of a bag. It may be of any length: it is read piece by piece.
pub(super) fn open(path: &Path) -> Result<File, BagError> {
    files::open(path).map_err(|source| BagError::Io { path: path.to_owned(), source })
}

/// The files of the bag at `path`.
pub(super) fn of(path: &Path) -> Result<Vec<PathBuf>, BagError> {
    let io = |source| BagError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let metadata = path.join(METADATA);
    if metadata.is_file() {
        let text = files::read_text(&metadata, &bounds::TEXT).map_err(|source| BagError::Io { path: metadata.clone(), source })?;
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
        assert_eq!(
            of("a:\n  version: 5\n  relative_file_paths:\n    - x_0.db3\n    - x_1.db3\n  duration:\n    nanoseconds: 1\n"),
            "x_0.db3 x_1.db3"
        );
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
