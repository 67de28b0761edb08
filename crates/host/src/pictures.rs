//! PNG and JPEG files to RGB.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use eomt_edge_core::data::{Exif, Frame};
use eomt_edge_core::preprocess::{JpegDecoder, JpegError};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::{bounds, files};

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

/// The size of a picture, from the header of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Width and height of the picture as it is read.
    pub shown: (u32, u32),
    /// Whether its EXIF orientation turns or mirrors it on the way.
    pub turned: bool,
}

/// Parts of a file that are tried for its header, bytes: few headers are longer than the first, hardly any than the second (thumbnails).
const HEADS: [u64; 3] = [16 << 10, 256 << 10, bounds::PICTURE.bytes];

/// Memory for what a PNG file holds beside its pixels, bytes: a colour profile of some kilobytes can be compressed from as many megabytes.
const ANCILLARY_BYTES: u64 = 8 << 20;

/// The size of a PNG or JPEG file. Its pixels are not looked at.
///
/// # Errors
/// When the file cannot be read, or is neither.
pub fn size(path: &Path, exif: Exif) -> Result<Size, PictureError> {
    let io = |source| PictureError::Io { path: path.to_owned(), source };
    let mut file = open(path)?;
    let mut bytes = Vec::new();
    let mut reason = String::new();
    for head in HEADS {
        file.by_ref().take(head - bytes.len() as u64).read_to_end(&mut bytes).map_err(io)?;
        match size_of_head(&bytes, exif) {
            Ok(size) => return Ok(size),
            Err(error) => reason = first_line(&error),
        }
    }
    Err(PictureError::Format { path: path.to_owned(), reason })
}

fn size_of_head(bytes: &[u8], exif: Exif) -> image::ImageResult<Size> {
    let mut decoder = reader(bytes)?.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let said = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let orientation = if exif == Exif::Apply { said } else { Orientation::NoTransforms };
    let aside =
        matches!(orientation, Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH);
    let shown = if aside { (height, width) } else { (width, height) };
    Ok(Size { shown, turned: orientation != Orientation::NoTransforms })
}

/// A picture file, and its size within bounds.
fn open(path: &Path) -> Result<File, PictureError> {
    let file = files::open(path).and_then(|file| files::check(&file, &bounds::PICTURE).map(|_| file));
    file.map_err(|source| PictureError::Io { path: path.to_owned(), source })
}

/// The picture, and whether its EXIF orientation exchanged width and height.
fn read(path: &Path, max_pixels: u64, exif: Exif) -> Result<(Frame, bool), PictureError> {
    let bytes = files::read_bytes(path, &bounds::PICTURE).map_err(|source| PictureError::Io { path: path.to_owned(), source })?;
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
    let format = |reason: image::ImageError| PictureError::Format { path: path.to_owned(), reason: first_line(&reason) };
    let mut decoder = reader(bytes).and_then(ImageReader::into_decoder).map_err(format)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(PictureError::TooLarge { path: path.to_owned(), width, height, max_pixels });
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder).map_err(format)?, orientation))
}

/// (width, height) of a picture in memory as it is stored, and whether it is JPEG; `None` for what is neither JPEG nor PNG.
#[cfg(feature = "bag")]
pub(crate) fn stored_size(bytes: &[u8]) -> Option<((u32, u32), bool)> {
    let format = image::guess_format(bytes).ok()?;
    let size = size_of_head(bytes, Exif::Ignore).ok()?;
    Some((size.shown, format == ImageFormat::Jpeg))
}

/// RGB of a PNG picture in memory, and whether it is grey. Its size is the caller's to check before.
#[cfg(feature = "bag")]
pub(crate) fn decode_png(bytes: &[u8]) -> Result<(Vec<u8>, bool), String> {
    let decoder = reader(bytes).and_then(ImageReader::into_decoder);
    let picture = decoder.and_then(DynamicImage::from_decoder).map_err(|error| first_line(&error))?;
    let is_grey = !picture.color().has_color();
    Ok((picture.into_rgb8().into_raw(), is_grey))
}

/// A reader that takes little memory until pixels are decoded, whatever the bytes say.
fn reader(bytes: &[u8]) -> image::ImageResult<ImageReader<Cursor<&[u8]>>> {
    // the decoder needs a line of at most 8 bytes a pixel; IHDR, which has the width, comes first (PNG specification, 11.2.1)
    let width = bytes.get(16..20).and_then(|width| width.try_into().ok()).map_or(0, u32::from_be_bytes);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(ANCILLARY_BYTES + 16 * u64::from(width));
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    reader.limits(limits);
    Ok(reader)
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
        assert_eq!((upright.width, upright.height), (48, 64));
        assert_eq!(size(&turned, Exif::Apply).unwrap(), Size { shown: (48, 64), turned: true });
        assert_eq!(size(&turned, Exif::Ignore).unwrap(), Size { shown: (64, 48), turned: false });
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

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut crc = !0u32;
        for byte in kind.iter().chain(data) {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 });
        }
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &(!crc).to_be_bytes()].concat()
    }

    /// The head of an 8-bit RGB picture, `interlaced` or not, without a single pixel.
    fn head(width: u32, height: u32, interlaced: u8) -> Vec<u8> {
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, interlaced]].concat();
        [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header)].concat()
    }

    #[test]
    fn a_picture_is_refused_by_its_header() {
        let directory = std::env::temp_dir().join(format!("eomt-edge-pictures-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a.png");
        for interlaced in [0, 1] {
            let bytes = [head(60_000, 50_000, interlaced), chunk(b"IDAT", &[])].concat();
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(size(&path, Exif::Apply).unwrap().shown, (60_000, 50_000));
            let message = read_picture(&path, 1 << 20).unwrap_err().to_string();
            assert!(message.contains("a.png") && message.contains("60000x50000") && message.contains("1048576"), "{message}");
        }
        // stored blocks of zeros, so that they need no compressor: 9 MB for a colour profile
        let block = |last: u8| [&[last, 0xff, 0xff, 0, 0][..], &[0; 0xffff]].concat();
        let zeros: Vec<u8> = (0..145).flat_map(|at| block(u8::from(at == 144))).collect();
        let profile = [&b"x\0\0\x78\x01"[..], &zeros, &[0; 4]].concat();
        std::fs::write(&path, [head(4, 4, 0), chunk(b"iCCP", &profile), chunk(b"IDAT", &[])].concat()).unwrap();
        let message = read_picture(&path, 1 << 20).unwrap_err().to_string();
        assert!(message.contains("a.png") && message.lines().count() == 1, "{message}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
