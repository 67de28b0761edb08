//! PNG and JPEG files to RGB.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use eomt_edge_core::data::{Exif, Frame};
use eomt_edge_core::preprocess::{JpegDecoder, JpegError};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

/// Why a picture cannot be read; the sentence names the file.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The system cannot read it.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error("{}: this is not a PNG or JPEG picture: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// How it is known.
        reason: String,
    },
    /// A JPEG file that is not whole.
    #[error("{}: the JPEG picture is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// More pixels than the caller allows.
    #[error("{}: {width}x{height} pixels are more than the {max_pixels} allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// The caller's limit.
        max_pixels: u64,
    },
    /// Picture and annotation have different sizes.
    #[error("{}: the picture has {}x{} pixels, and its ground truth {}x{}{}", path.display(), found.0, found.1, ground_truth.0, ground_truth.1, if *turned {
        "; the file's EXIF orientation turns it, and its annotators saw it unturned: --exif ignore reads it as they did"
    } else {
        ""
    })]
    Contradiction {
        /// The picture.
        path: PathBuf,
        /// Its (width, height).
        found: (u32, u32),
        /// (width, height) of the annotation.
        ground_truth: (u32, u32),
        /// Whether the EXIF orientation explains the difference.
        turned: bool,
    },
}

/// [`read_picture_as`], turned upright.
pub fn read_picture(path: &Path, max_pixels: u64) -> Result<Frame, PictureError> {
    read_picture_as(path, max_pixels, Exif::Apply)
}

/// A picture whose (width, height) must be that of its annotation.
///
/// # Errors
/// As [`read_picture_as`]; [`PictureError::Contradiction`] when the sizes differ, with the EXIF orientation if that is the reason.
pub fn read_annotated(path: &Path, max_pixels: u64, exif: Exif, ground_truth: (u32, u32)) -> Result<Frame, PictureError> {
    let (frame, turned) = read(path, max_pixels, exif)?;
    let found = (frame.width, frame.height);
    if found == ground_truth {
        return Ok(frame);
    }
    Err(PictureError::Contradiction { path: path.to_owned(), found, ground_truth, turned: turned && (found.1, found.0) == ground_truth })
}

/// Decodes a PNG or JPEG file of any bit depth and colour type to RGB; the file's content decides, not its name.
///
/// Alpha is dropped and 16 bits are scaled to 8 (65535 becomes 255), as the reference's loader does; so pictures of few grey levels
/// in 16 bits, such as depth in millimetres, become dark. A JPEG picture without Huffman tables, as cameras send it, gets the typical
/// ones; what follows a picture (padding, the film of a motion photo) is not looked at.
pub fn read_picture_as(path: &Path, max_pixels: u64, exif: Exif) -> Result<Frame, PictureError> {
    read(path, max_pixels, exif).map(|(frame, _)| frame)
}

/// (width, height) of a picture by its header, turned upright; `None` when it has none.
pub fn picture_size(path: &Path) -> Option<(u32, u32)> {
    let mut decoder = ImageReader::open(path).ok()?.with_guessed_format().ok()?.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let turned = decoder.orientation().is_ok_and(|orientation| {
        use Orientation::*;
        matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
    });
    Some(if turned { (height, width) } else { (width, height) })
}

/// The picture, and whether its EXIF orientation exchanged width and height.
fn read(path: &Path, max_pixels: u64, exif: Exif) -> Result<(Frame, bool), PictureError> {
    let io = |source| PictureError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(PictureError::Format { path: path.to_owned(), reason: "it is not a regular file".to_owned() });
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let (mut picture, orientation) = match image::guess_format(&bytes) {
        Ok(ImageFormat::Jpeg) => jpeg(path, &bytes, max_pixels)?,
        _ => other(path, &bytes, max_pixels)?,
    };
    let stored = (picture.width(), picture.height());
    if exif == Exif::Apply {
        picture.apply_orientation(orientation);
    }
    let rgb = picture.into_rgb8();
    let turned = (rgb.width(), rgb.height()) != stored;
    Ok((Frame::rgb(rgb.width(), rgb.height(), rgb.into_raw()), turned))
}

/// As a camera's pictures are decoded: whole ones only.
fn jpeg(path: &Path, bytes: &[u8], max_pixels: u64) -> Result<(DynamicImage, Orientation), PictureError> {
    let mut rgb = Vec::new();
    let fits = |width, height| width as u64 * height as u64 <= max_pixels;
    let picture = JpegDecoder::default().decode(bytes, fits, &mut rgb).map_err(|error| match error {
        JpegError::Size(width, height) => {
            PictureError::TooLarge { path: path.to_owned(), width: width as u32, height: height as u32, max_pixels }
        }
        JpegError::Broken(reason) => PictureError::Damaged { path: path.to_owned(), reason },
    })?;
    let orientation = picture.exif.as_deref().and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
    let (width, height) = picture.size;
    let rgb = RgbImage::from_raw(width as u32, height as u32, rgb).expect("the decoder filled it");
    Ok((rgb.into(), orientation))
}

fn other(path: &Path, bytes: &[u8], max_pixels: u64) -> Result<(DynamicImage, Orientation), PictureError> {
    let io = |source| PictureError::Io { path: path.to_owned(), source };
    let format = |reason: image::ImageError| PictureError::Format { path: path.to_owned(), reason: first_line(&reason) };
    let open = || ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(io);
    let mut reader = open()?;
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
    Ok((DynamicImage::from_decoder(decoder).map_err(format)?, orientation))
}

fn first_line(error: &image::ImageError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data/jpeg").join(name)
    }

    #[test]
    fn an_orientation_is_applied_or_ignored_and_named_where_it_contradicts() {
        let (turned, baseline) = (data("turned.jpg"), data("baseline.jpg"));
        let upright = read_picture(&turned, 1 << 20).unwrap();
        assert_eq!((upright.width, upright.height, picture_size(&turned)), (48, 64, Some((48, 64))));
        let stored = read_picture_as(&turned, 1 << 20, Exif::Ignore).unwrap();
        assert_eq!(stored.data, read_picture(&baseline, 1 << 20).unwrap().data);
        let read = |path, exif, ground_truth| read_annotated(path, 1 << 20, exif, ground_truth).map_err(|error| error.to_string());
        assert!(read(&turned, Exif::Apply, (48, 64)).is_ok() && read(&turned, Exif::Ignore, (64, 48)).is_ok());
        let message = read(&turned, Exif::Apply, (64, 48)).unwrap_err();
        assert!(message.contains("turned.jpg") && message.contains("--exif ignore"), "{message}");
        for (path, ground_truth) in [(&turned, (50, 60)), (&baseline, (48, 64))] {
            let message = read(path, Exif::Apply, ground_truth).unwrap_err();
            assert!(message.contains("ground truth") && !message.contains("exif"), "{message}");
        }
    }

    #[test]
    fn files_are_decoded_as_strictly_as_frames() {
        let ground_truth = read_picture(&data("baseline.jpg"), 1 << 20).unwrap();
        for good in ["no-tables.jpg", "motion.jpg", "thumbnail.jpg"] {
            assert_eq!(read_picture(&data(good), 1 << 20).unwrap().data, ground_truth.data, "{good}");
        }
        for bad in ["cut.jpg", "cut-and-closed.jpg", "lost.jpg"] {
            let message = read_picture(&data(bad), 1 << 20).unwrap_err().to_string();
            assert!(message.contains(bad) && message.lines().count() == 1, "{message}");
        }
        let message = read_picture(&data("baseline.jpg"), 64 * 47).unwrap_err().to_string();
        assert!(message.contains("64x48"), "{message}");
    }
}
