//! JPEG pictures from cameras and files to RGB, whole pictures only.
//!
//! ```
//! use eomt_edge_core::preprocess::{JpegDecoder, JpegError};
//! let cut = [0xFF, 0xD8, 0xFF, 0xE0, 0x00, 0x10];
//! let error = JpegDecoder::default().decode(&cut, |_, _| true, &mut Vec::new()).unwrap_err();
//! assert!(matches!(error, JpegError::Broken(_)));
//! ```
//!
//! zune-jpeg decodes the pixels. Before that, `walk` checks that the whole picture is there and finds its end, since decoders fill missing
//! parts with grey, and segmentation would take that for an object. Pictures without Huffman tables get the typical ones. Bytes behind
//! the picture are ignored. Refuses: damaged pictures, arithmetic coding, other precisions than 8 bits.

mod bits;
mod few;
mod flaw;
mod typical;
mod walk;

use zune_jpeg::JpegDecoder as Decoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use flaw::Flaw;
use typical::TYPICAL_TABLES;

/// Why bytes are not a whole JPEG picture: the rest of a sentence that begins with where they come from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JpegError {
    /// They are damaged or something else; the reason, without a period.
    #[error("{0}")]
    Broken(String),
    /// A (width, height) that the caller refuses.
    #[error("its size of {0}x{1} is not allowed here")]
    Size(usize, usize),
}

/// What is known of a decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JpegPicture {
    /// (width, height) in pixels.
    pub size: (usize, usize),
    /// The EXIF block, as it stands in the file.
    pub exif: Option<Vec<u8>>,
}

/// Decodes pictures and reuses its memory from one to the next.
#[derive(Debug, Default)]
pub struct JpegDecoder {
    /// A picture that lacked its Huffman tables, with the typical ones.
    completed: Vec<u8>,
}

impl JpegDecoder {
    /// Decodes the picture at the start of `jpeg` into `target`, as interleaved RGB, if its (width, height) `fits`.
    ///
    /// # Errors
    /// [`JpegError::Broken`] when it is no JPEG picture or a part of it is missing, [`JpegError::Size`] when it does not fit.
    pub fn decode(&mut self, jpeg: &[u8], fits: impl Fn(usize, usize) -> bool, target: &mut Vec<u8>) -> Result<JpegPicture, JpegError> {
        let broken = |reason: String| JpegError::Broken(reason.lines().next().unwrap_or_default().to_owned());
        let end = walk::end(jpeg, &fits).map_err(|flaw| match flaw {
            Flaw::Size(width, height) => JpegError::Size(width, height),
            flaw => JpegError::Broken(flaw.to_string()),
        })?;
        let bytes = with_tables(&jpeg[..end], &mut self.completed);
        let options = DecoderOptions::default()
            .set_strict_mode(true)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX)
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = Decoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(|error| broken(error.to_string()))?;
        let (size, len) = decoder.dimensions().zip(decoder.output_buffer_size()).ok_or_else(|| broken("it has no size".to_owned()))?;
        if !fits(size.0, size.1) {
            return Err(JpegError::Size(size.0, size.1));
        }
        target.resize(len, 0);
        decoder.decode_into(target).map_err(|error| broken(error.to_string()))?;
        Ok(JpegPicture { size, exif: decoder.exif().cloned() })
    }
}

/// USB cameras may leave out the Huffman tables and mean the standard's typical ones (ITU-T T.81 annex K.3; USB Device Class
/// Definition for Video Devices, Motion-JPEG Payload).
fn with_tables<'a>(jpeg: &'a [u8], completed: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(segments) = jpeg.get(2..).filter(|segments| !has_tables(segments)) else { return jpeg };
    completed.clear();
    completed.extend_from_slice(&jpeg[..2]);
    completed.extend_from_slice(&TYPICAL_TABLES);
    completed.extend_from_slice(segments);
    completed
}

/// Whether a Huffman table stands among the segments before the picture's data. Also true for segments that make no sense: the decoder
/// reports those.
fn has_tables(mut segments: &[u8]) -> bool {
    const TABLES: u8 = 0xC4;
    const DATA: u8 = 0xDA;
    loop {
        match segments {
            [0xFF, DATA, ..] => return false,
            [0xFF, 0xFF, ..] => segments = &segments[1..],
            [0xFF, kind, high, low, ..] if *kind != TABLES => {
                let len = 2 + usize::from(u16::from_be_bytes([*high, *low]));
                segments = segments.get(len..).unwrap_or_default();
            }
            _ => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn data(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data/jpeg").join(name)
    }

    fn decode(name: &str) -> Result<Vec<u8>, JpegError> {
        let (jpeg, mut rgb) = (std::fs::read(data(name)).unwrap(), Vec::new());
        let picture = JpegDecoder::default().decode(&jpeg, |_, _| true, &mut rgb)?;
        assert_eq!(picture.size, (64, 48), "{name}");
        Ok(rgb)
    }

    /// libjpeg-turbo and zune-jpeg round differently, by two levels at most where no colour is interpolated.
    #[test]
    fn every_kind_of_whole_picture_equals_libjpeg() {
        let reference = image::open(data("truth.png")).unwrap().into_rgb8().into_raw();
        for kind in ["baseline", "progressive", "restarts", "turned", "no-tables", "motion", "padded", "thumbnail"] {
            let ours = decode(&format!("{kind}.jpg")).unwrap_or_else(|error| panic!("{kind}: {error}"));
            let worst = ours.iter().zip(&reference).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(ours.len() == reference.len() && worst <= Some(2), "{kind}: {worst:?}");
        }
    }

    #[test]
    fn a_picture_that_lost_something_is_none() {
        for kind in [
            "lost",
            "zeroed",
            "cut",
            "cut-and-closed",
            "cut-near-the-end",
            "progressive-cut",
            "progressive-lost",
            "restart-lost",
            "fillers",
            "apart",
        ] {
            let error = decode(&format!("{kind}.jpg")).expect_err(kind).to_string();
            assert_eq!(error.lines().count(), 1, "{kind}: {error}");
        }
    }

    #[test]
    fn fillers_before_the_end_are_not_looked_at() {
        let jpeg = std::fs::read(data("baseline.jpg")).unwrap();
        let (picture, end) = jpeg.split_at(jpeg.len() - 2);
        let (mut with, mut rgb) = ([picture, &[0; 9], end].concat(), Vec::new());
        JpegDecoder::default().decode(&with, |_, _| true, &mut rgb).unwrap();
        assert!(rgb == decode("baseline.jpg").unwrap());
        with[picture.len()] = 7; // not all the same: a part of something
        assert!(JpegDecoder::default().decode(&with, |_, _| true, &mut rgb).is_err());
    }

    /// Whatever the bytes are: an error or a picture, and never one from a part of the file.
    #[test]
    fn no_part_of_a_picture_passes_for_it() {
        for kind in ["baseline", "progressive", "restarts"] {
            let whole = std::fs::read(data(&format!("{kind}.jpg"))).unwrap();
            let mut closed = Vec::new();
            for len in 0..whole.len() - 2 {
                assert!(walk::end(&whole[..len], |_, _| true).is_err(), "{kind}: {len} bytes");
                closed.clear();
                closed.extend_from_slice(&whole[..len]);
                closed.extend_from_slice(&[0xFF, 0xD9]);
                // a byte may be nothing but the end's padding
                let end = walk::end(&closed, |_, _| true);
                assert!(end.is_err() || len + 4 > whole.len(), "{kind}: {len} bytes, closed");
            }
            assert_eq!(walk::end(&whole, |_, _| true), Ok(whole.len()), "{kind}");
        }
    }

    #[test]
    fn a_size_is_refused_before_anything_is_decoded() {
        let jpeg = std::fs::read(data("progressive.jpg")).unwrap();
        let error = JpegDecoder::default().decode(&jpeg, |width, _| width < 64, &mut Vec::new()).unwrap_err();
        assert_eq!(error, JpegError::Size(64, 48));
    }
}
