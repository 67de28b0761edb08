//! PNG and JPEG files to RGB.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::{ImageReader, Limits};

use crate::data::Frame;

/// Why a picture cannot be read; the sentence names the file.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("{}: cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: this is not a PNG or JPEG picture: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error("{}: {width}x{height} pixels are more than the {max_pixels} allowed", path.display())]
    TooLarge { path: PathBuf, width: u32, height: u32, max_pixels: u64 },
}

/// Decodes a PNG or JPEG file of any bit depth and colour type to RGB; the file's content decides, not its name.
///
/// Alpha is dropped and 16 bits are scaled to 8, as the reference's loader does.
pub fn read_picture(path: &Path, max_pixels: u64) -> Result<Frame, PictureError> {
    let io = |source| PictureError::Io { path: path.to_owned(), source };
    let format = |reason: image::ImageError| PictureError::Format { path: path.to_owned(), reason: first_line(&reason) };
    let open = || -> Result<ImageReader<BufReader<File>>, PictureError> {
        ImageReader::new(BufReader::new(File::open(path).map_err(io)?)).with_guessed_format().map_err(io)
    };
    if path.is_dir() {
        return Err(PictureError::Format { path: path.to_owned(), reason: "it is a directory".to_owned() });
    }
    let (width, height) = open()?.into_dimensions().map_err(format)?;
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(PictureError::TooLarge { path: path.to_owned(), width, height, max_pixels });
    }
    let mut reader = open()?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(16).max(1 << 20));
    reader.limits(limits);
    let rgb = reader.decode().map_err(format)?.into_rgb8();
    Ok(Frame::rgb(rgb.width(), rgb.height(), rgb.into_raw()))
}

fn first_line(error: &image::ImageError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
