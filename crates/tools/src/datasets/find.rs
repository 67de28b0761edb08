//! Finds the pictures that an annotation file names, and their sizes.
//!
//! A `file_name` is tried as it stands, then without its leading folders (an export's `images/`, another machine's
//! `C:\data\`, an absolute path), then by its last part anywhere below the folder. cityscapesScripts' panoptic JSON names
//! `x_gtFine_leftImg8bit.png` where the picture is `city/x_leftImg8bit.png`.
//! Refuses: to choose between two files of one name.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_host::bounds::PICTURES_MAX;

/// Finds files of one folder by the names that an annotation gives them.
pub(super) struct Finder {
    root: PathBuf,
    /// Files below the root by their last part.
    below: OnceCell<HashMap<String, Vec<PathBuf>>>,
}

impl Finder {
    pub fn new(root: &Path) -> Finder {
        Finder { root: root.to_owned(), below: OnceCell::new() }
    }

    /// The file, and its name below the root. A file that is nowhere gets the place where it would be.
    ///
    /// # Errors
    /// When several files may be meant.
    pub fn find(&self, file_name: &str) -> Result<(PathBuf, String)> {
        let slashed = file_name.replace('\\', "/");
        let plain = |part: &&str| !part.is_empty() && *part != "." && *part != "..";
        let parts: Vec<&str> = slashed.split('/').filter(plain).collect();
        let name = parts.join("/");
        if self.root.as_os_str().is_empty() || parts.is_empty() {
            return Ok((PathBuf::from(file_name), if name.is_empty() { file_name.to_owned() } else { name }));
        }
        let exact = self.root.join(file_name);
        if exact.is_file() {
            return Ok((exact, if file_name.contains('/') { name } else { file_name.to_owned() }));
        }
        for from in 0..parts.len() {
            let path = self.root.join(parts[from..].join("/"));
            if path.is_file() {
                return Ok((path, parts[from..].join("/")));
            }
        }
        let last = parts[parts.len() - 1];
        let cityscapes = last.replace("_gtFine_leftImg8bit", "_leftImg8bit").replace("_gtCoarse_leftImg8bit", "_leftImg8bit");
        for candidate in [last, &cityscapes] {
            match self.below().get(candidate).map(Vec::as_slice) {
                Some([one]) => {
                    let name = one.strip_prefix(&self.root).unwrap_or(one).to_string_lossy().into_owned();
                    return Ok((one.clone(), name));
                }
                Some([one, other, ..]) => {
                    bail!("{file_name}: it may be {} or {}", one.display(), other.display())
                }
                _ => {}
            }
        }
        Ok((self.root.join(&name), name))
    }

    fn below(&self) -> &HashMap<String, Vec<PathBuf>> {
        self.below.get_or_init(|| {
            let mut found = Vec::new();
            // a folder that cannot be read holds no candidates; missing files are reported later, by name
            let _ = walk(&self.root, &|_| true, &mut found);
            found.sort();
            let mut map: HashMap<String, Vec<PathBuf>> = HashMap::new();
            for path in found {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                map.entry(name).or_default().push(path);
            }
            map
        })
    }
}

/// Whether the extension of a file is that of a picture that can be read.
fn is_picture(path: &Path) -> bool {
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    ["png", "jpg", "jpeg"].contains(&end.as_str())
}

/// Pictures below a folder that can be read, in the order of their names. Names the others in a warning.
///
/// # Errors
/// When a folder cannot be read.
pub fn pictures(directory: &Path) -> Result<Vec<PathBuf>> {
    const OTHERS: [&str; 8] = ["bmp", "webp", "tif", "tiff", "gif", "avif", "heic", "jp2"];
    let end = |path: &Path| path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    let is_other = |path: &Path| OTHERS.contains(&end(path).as_str());
    let mut found = Vec::new();
    walk(directory, &|path| is_picture(path) || is_other(path), &mut found)?;
    found.sort();
    let (pictures, others): (Vec<PathBuf>, Vec<PathBuf>) = found.into_iter().partition(|path| is_picture(path));
    if !others.is_empty() {
        let names: Vec<String> = others.iter().map(|path| path.display().to_string()).collect();
        log::warn!("{} pictures are neither PNG nor JPEG and are left out: {}", names.len(), some_of(&names));
    }
    Ok(pictures)
}

/// Folders inside each other, and folders in all: links may make a circle of them.
const DEPTH_MAX: usize = 32;
const FOLDERS_MAX: usize = 100_000;

/// Files below a folder, in folders inside of it too, that are `wanted`. Skips folders whose names begin with a dot.
///
/// # Errors
/// When a folder cannot be read, or there are more files or folders than any dataset has.
fn walk(directory: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let mut folders = vec![(directory.to_owned(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop() {
        seen += 1;
        if depth > DEPTH_MAX || seen > FOLDERS_MAX {
            bail!("{}: there are too many folders, perhaps since a link leads to an outer one", folder.display());
        }
        let unreadable = || format!("{}: the directory cannot be read", folder.display());
        for entry in std::fs::read_dir(&folder).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden {
                folders.push((path, depth + 1));
            } else if path.is_file() && !hidden && wanted(&path) {
                found.push(path);
            }
            if found.len() > PICTURES_MAX || folders.len() > FOLDERS_MAX {
                bail!("{}: there are more than {PICTURES_MAX} files or {FOLDERS_MAX} folders: name a smaller one", directory.display());
            }
        }
    }
    Ok(())
}

/// `a, b, c and 4 more`.
pub(super) fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_machines_are_found() {
        let root = std::env::temp_dir().join(format!("eomt-edge-find-{}", std::process::id()));
        for folder in ["aachen", "a", "b"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["one.two three.png", "aachen/x_leftImg8bit.png", "a/twice.png", "b/twice.png", "a/c\\d.png"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        let finder = Finder::new(&root);
        let name = |file_name: &str| finder.find(file_name).map(|(path, name)| (path.is_file(), name));
        let absolute = root.join("one.two three.png").to_string_lossy().into_owned();
        for file_name in ["one.two three.png", "images/one.two three.png", "C:\\data\\one.two three.png", "./one.two three.png"] {
            assert_eq!(name(file_name).unwrap(), (true, "one.two three.png".to_owned()), "{file_name}");
        }
        assert!(name(&absolute).unwrap().0 && name("/nowhere/one.two three.png").unwrap().0);
        assert_eq!(name("a/twice.png").unwrap(), (true, "a/twice.png".to_owned()));
        assert_eq!(name("x_gtFine_leftImg8bit.png").unwrap(), (true, "aachen/x_leftImg8bit.png".to_owned()));
        assert!(name("a/c\\d.png").unwrap().0);
        assert!(name("twice.png").unwrap_err().to_string().contains("b/twice.png"));
        assert_eq!(name("../missing.png").unwrap(), (false, "missing.png".to_owned()));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
