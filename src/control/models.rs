//! Files that may be switched to: those of one directory.
//!
//! Invariant: a path that comes out of here is a file directly within the directory, and no link on the way leads elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use super::request::is_plain;

/// Names that are listed.
const NAMES_MAX: usize = 256;

/// Bytes of these names.
const BYTES_MAX: usize = 16 << 10;

/// Entries of the directory that are looked at.
const ENTRIES_MAX: usize = 4096;

/// Names of the model files in `directory`, sorted; none where it is empty or cannot be read.
pub(super) fn names(directory: &Path) -> Vec<String> {
    if directory.as_os_str().is_empty() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let entries = entries.take(ENTRIES_MAX).flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = entries.filter(|name| is_plain(name) && find(directory, name).is_ok()).collect();
    names.sort_unstable();
    let mut bytes = 0;
    names.retain(|name| {
        bytes += name.len();
        bytes <= BYTES_MAX
    });
    names.truncate(NAMES_MAX);
    names
}

/// The file of a [plain name](is_plain) in `directory`.
///
/// # Errors
/// One sentence: why there is none.
pub(super) fn find(directory: &Path, name: &str) -> Result<PathBuf, String> {
    if directory.as_os_str().is_empty() {
        return Err("no model can be chosen: control.models names no directory".to_owned());
    }
    let path = directory.join(name);
    let look = || {
        let (directory, file) = (directory.canonicalize()?, path.canonicalize()?);
        if file.parent() != Some(&directory) {
            return Err(io::Error::other("it is a link that leads out of control.models"));
        }
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    };
    look().map_err(|error| format!("{}: it cannot be chosen: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_of_the_directory_and_no_others() {
        let root = std::env::temp_dir().join(format!("eomt-edge-models-{}", std::process::id()));
        let models = root.join("models");
        std::fs::create_dir_all(models.join("folder.onnx")).unwrap();
        for file in ["models/b.onnx", "models/a.onnx", "models/a.bin", "outside.onnx"] {
            std::fs::write(root.join(file), "x").unwrap();
        }
        symlink("a.onnx", models.join("inside.onnx")).unwrap();
        symlink("../outside.onnx", models.join("out.onnx")).unwrap();
        symlink("nowhere.onnx", models.join("dangling.onnx")).unwrap();
        symlink(&models, root.join("link")).unwrap();
        assert_eq!(names(&models), ["a.onnx", "b.onnx", "inside.onnx"]);
        assert_eq!(names(&root.join("link")), ["a.onnx", "b.onnx", "inside.onnx"], "the directory itself may be a link");
        assert_eq!(find(&models, "inside.onnx"), Ok(models.canonicalize().unwrap().join("a.onnx")));
        for (name, words) in [
            ("out.onnx", "leads out of"),
            ("dangling.onnx", "No such file"),
            ("none.onnx", "No such file"),
            ("folder.onnx", "not a regular file"),
        ] {
            let sentence = find(&models, name).unwrap_err();
            assert!(sentence.contains(words) && sentence.contains(name), "{sentence}");
        }
        assert!(names(Path::new("")).is_empty() && names(&root.join("none")).is_empty());
        assert!(find(Path::new(""), "a.onnx").unwrap_err().contains("control.models"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
