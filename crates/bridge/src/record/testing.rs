//! What this module's tests share.

use std::fs;
use std::path::{Path, PathBuf};

/// An empty directory.
pub fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("eomt-edge-record-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// What is in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
