//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A file under a temporary name in the directory of `path`; [`AtomicFile::commit`] gives it its name, dropping removes it.
pub struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<File>,
}

impl AtomicFile {
    /// Creates the temporary file. A link is followed; a device, pipe or directory is refused rather than replaced.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        let target = if path.is_symlink() { fs::canonicalize(path).ok() } else { None };
        let path = target.as_deref().unwrap_or(path);
        if fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
            bail!("{}: exists and is not a regular file, so it is not replaced", path.display());
        }
        let name = path.file_name().with_context(|| format!("{}: this is no name for a file", path.display()))?;
        let temporary = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let file = File::create(&temporary).with_context(|| format!("{}: cannot be written", path.display()))?;
        Ok(AtomicFile { path: path.to_owned(), temporary, file: Some(file) })
    }

    /// Flushes to the disk, then renames.
    pub fn commit(mut self) -> Result<()> {
        let file = self.file.take().expect("only commit takes it");
        let finish = || -> io::Result<()> {
            file.sync_all()?;
            fs::rename(&self.temporary, &self.path)
        };
        finish().with_context(|| format!("{}: cannot be written", self.path.display()))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("only commit takes it").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("only commit takes it").flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary); // gone already after a commit
    }
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `bytes` to `path`, whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).with_context(|| format!("{}: cannot be written", path.display()))?;
    file.commit()
}

/// Reads a whole regular file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        if fs::metadata(path)?.is_file() { fs::read(path) } else { Err(io::Error::other("it is not a regular file")) }
    };
    read().with_context(|| format!("{}: cannot be read", path.display()))
}

/// Creates the output directory if need be.
pub fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{}: the output directory cannot be made", path.display()))
}

/// PNG bytes of an RGB picture.
pub fn png_rgb(rgb: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    png(rgb, width, height, image::ExtendedColorType::Rgb8)
}

/// PNG bytes of a 16-bit grey picture.
pub fn png_grey16(values: &[u16], width: u32, height: u32) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    png(&bytes, width, height, image::ExtendedColorType::L16)
}

fn png(pixels: &[u8], width: u32, height: u32, colour: image::ExtendedColorType) -> Result<Vec<u8>> {
    use image::ImageEncoder;
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive);
    encoder.write_image(pixels, width, height, colour).context("a picture cannot be encoded as PNG")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_half_written_stays() {
        let directory = std::env::temp_dir().join(format!("eomt-edge-files-{}", std::process::id()));
        make_directory(&directory).unwrap();
        let path = directory.join("out.bin");
        write(&path, b"first").unwrap();
        let mut half = AtomicFile::create(&path).unwrap();
        half.write_all(b"sec").unwrap();
        drop(half);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }
}
