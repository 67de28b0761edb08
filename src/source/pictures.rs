//! PNG and JPEG files to RGB.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

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
/// Alpha is dropped, 16 bits are scaled to 8, and the orientation that a camera noted in EXIF is applied, as the reference's
/// loader does.
pub fn read_picture(path: &Path, max_pixels: u64) -> Result<Frame, PictureError> {
    let io = |source| PictureError::Io { path: path.to_owned(), source };
    let refuse = |reason: String| PictureError::Format { path: path.to_owned(), reason };
    let format = |reason: image::ImageError| refuse(first_line(&reason));
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(refuse("it is not a regular file".to_owned()));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let open = || ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(io);
    let mut reader = open()?;
    if reader.format() == Some(ImageFormat::Jpeg) && !ends_as_jpeg(&bytes) {
        return Err(refuse("the JPEG ends before its picture does".to_owned()));
    }
    reader.no_limits(); // only the header is read, and the limit below has its own sentence
    let (width, height) = reader.into_dimensions().map_err(format)?;
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(PictureError::TooLarge { path: path.to_owned(), width, height, max_pixels });
    }
    let mut reader = open()?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(16).max(1 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(format)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(format)?;
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    Ok(Frame::rgb(rgb.width(), rgb.height(), rgb.into_raw()))
}

/// The end-of-image marker (ITU-T T.81, B.1.1.3) near the end; cameras may append a little after it. Decoders fill what is
/// missing with grey, which would be segmented as if it had been seen.
fn ends_as_jpeg(bytes: &[u8]) -> bool {
    const TRAILER: usize = 4096;
    bytes[bytes.len().saturating_sub(TRAILER)..].windows(2).any(|pair| pair == [0xFF, 0xD9])
}

fn first_line(error: &image::ImageError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
