//! Finds the pictures that an annotation file names, and their sizes.
//!
//! A `file_name` is tried as it stands, then without its leading folders (an export's `images/`, another machine's
//! `C:\data\`, an absolute path), then by its last part anywhere below the folder. cityscapesScripts' panoptic JSON names
//! `x_gtFine_leftImg8bit.png` where the picture is `city/x_leftImg8bit.png`.
//! Refuses: to choose between two files of one name.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::Exif;
use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader};

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
pub(super) fn pictures(directory: &Path) -> Result<Vec<PathBuf>> {
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

/// Files below a folder, in folders inside of it too, that are `wanted`. Skips folders whose names begin with a dot.
fn walk(directory: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || format!("{}: the directory cannot be read", directory.display());
    for entry in std::fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            walk(&path, wanted, found)?;
        } else if path.is_file() && !hidden && wanted(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// The size of a picture, from the header of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Width and height of the picture as it is read.
    pub shown: (u32, u32),
    /// Whether its EXIF orientation turns or mirrors it on the way.
    pub turned: bool,
}

/// Nearly all headers are shorter than this, bytes.
const HEAD: u64 = 256 << 10;

/// The size of a PNG or JPEG, from its header.
pub(super) fn size(path: &Path, exif: Exif) -> Result<Size> {
    let refuse = || format!("{}: this is not a PNG or JPEG picture", path.display());
    let unreadable = || format!("{}: cannot be read", path.display());
    let mut bytes = Vec::new();
    let mut file = std::fs::File::open(path).with_context(unreadable)?;
    file.by_ref().take(HEAD).read_to_end(&mut bytes).with_context(unreadable)?;
    if let Ok(size) = size_of_head(&bytes, exif) {
        return Ok(size);
    }
    file.read_to_end(&mut bytes).with_context(unreadable)?;
    size_of_head(&bytes, exif).with_context(refuse)
}

fn size_of_head(bytes: &[u8], exif: Exif) -> image::ImageResult<Size> {
    let mut decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let said = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let orientation = if exif == Exif::Apply { said } else { Orientation::NoTransforms };
    let aside =
        matches!(orientation, Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH);
    let shown = if aside { (height, width) } else { (width, height) };
    Ok(Size { shown, turned: orientation != Orientation::NoTransforms })
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
