//! Files: read within bounds, written whole or not at all.
//!
//! Reading never waits: pipes, devices and sockets are refused before a byte is asked for. [`read`] and its siblings are the only way by
//! which the program reads a file that somebody else supplied; the bounds stand in [`super::bounds`].

mod atomic;
mod reading;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

pub use atomic::{AtomicFile, TemporaryDirectory};
pub use reading::{check, free_memory, kibibytes, open, read, read_bytes, read_exactly, read_text};

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex(&Sha256::digest(bytes))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `bytes` to `path`, whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).with_context(|| format!("{}: cannot be written", path.display()))?;
    file.commit()
}

/// Creates the output directory if need be.
pub fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("{}: the output directory cannot be made", path.display()))
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
