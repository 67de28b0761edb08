//! From a camera's frame to a picture for the stages: decodes JPEG, crops, turns and mirrors.

use super::{JpegDecoder, JpegError, RgbConverter};
use crate::data::{Crop, Frame, PixelFormat, View};

/// Why a frame could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Its JPEG picture is damaged.
    #[error("frame {sequence} is no JPEG picture: {reason}")]
    Jpeg {
        /// Number of the frame.
        sequence: u64,
        /// A sentence without a period.
        reason: String,
    },
    /// Its picture has another size.
    #[error("frame {sequence} is {}x{} where {}x{} was agreed on", found.0, found.1, agreed.0, agreed.1)]
    Size {
        /// Number of the frame.
        sequence: u64,
        /// (width, height) of the picture.
        found: (usize, usize),
        /// (width, height) that the frame says.
        agreed: (u32, u32),
    },
    /// The crop lies outside of the picture.
    #[error("frame {sequence} is empty: nothing of its {width}x{height} pixels is left after the crop")]
    Empty {
        /// Number of the frame.
        sequence: u64,
        /// Of the picture, in pixels.
        width: u32,
        /// Of the picture, in pixels.
        height: u32,
    },
}

impl DecodeError {
    /// The number of the frame.
    pub fn sequence(&self) -> u64 {
        match self {
            DecodeError::Jpeg { sequence, .. } | DecodeError::Size { sequence, .. } | DecodeError::Empty { sequence, .. } => *sequence,
        }
    }
}

/// Prepares frames for the pipeline; buffers are reused from frame to frame.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    view: View,
    converter: RgbConverter,
    /// The decoded or turned picture, then the memory of the next one.
    decoded: Vec<u8>,
    jpeg: JpegDecoder,
}

impl FrameDecoder {
    /// Crops, turns and mirrors as `view` says.
    pub fn new(view: View) -> FrameDecoder {
        FrameDecoder { view, ..FrameDecoder::default() }
    }

    /// The frame as the view describes it, in RGB; where the view leaves it whole, a JPEG picture goes along ([`Frame::jpeg`]). Frames
    /// that need neither decoding nor a view stay untouched.
    ///
    /// # Errors
    /// [`DecodeError`] for a JPEG picture that is damaged or of another size than its frame says, and for a crop that leaves nothing; the
    /// frame comes back with it.
    #[allow(clippy::result_large_err)] // a box would be an allocation on the frame path
    pub fn decode(&mut self, mut frame: Frame) -> Result<Frame, (DecodeError, Frame)> {
        if frame.format == PixelFormat::Mjpg {
            if let Err(error) = self.decode_jpeg(&frame) {
                return Err((error, frame));
            }
            std::mem::swap(&mut self.decoded, &mut frame.data);
            frame.format = PixelFormat::Rgb24;
            if self.view.is_plain() {
                std::mem::swap(&mut self.decoded, &mut frame.jpeg);
            }
        }
        if self.view.is_plain() {
            return Ok(frame);
        }
        let Some(area) = self.view.area(frame.width, frame.height) else {
            let Frame { sequence, width, height, .. } = frame;
            return Err((DecodeError::Empty { sequence, width, height }, frame));
        };
        let rgb = self.converter.rgb(&frame);
        turn(rgb, frame.width as usize, area, self.view, &mut self.decoded);
        std::mem::swap(&mut self.decoded, &mut frame.data);
        (frame.width, frame.height) = if self.view.turns % 2 == 1 { (area.height, area.width) } else { (area.width, area.height) };
        frame.format = PixelFormat::Rgb24;
        Ok(frame)
    }

    /// Takes the JPEG picture of a decoded frame back: its bytes become the next frame's memory.
    pub fn recycle(&mut self, frame: &mut Frame) {
        if !frame.jpeg.is_empty() {
            self.decoded = std::mem::take(&mut frame.jpeg);
        }
    }

    /// `frame`'s JPEG picture into `self.decoded`.
    fn decode_jpeg(&mut self, frame: &Frame) -> Result<(), DecodeError> {
        let (sequence, agreed) = (frame.sequence, (frame.width, frame.height));
        let fits = |width, height| (width, height) == (agreed.0 as usize, agreed.1 as usize);
        match self.jpeg.decode(&frame.data, fits, &mut self.decoded) {
            Ok(_) => Ok(()),
            Err(JpegError::Size(width, height)) => Err(DecodeError::Size { sequence, found: (width, height), agreed }),
            Err(JpegError::Broken(reason)) => Err(DecodeError::Jpeg { sequence, reason }),
        }
    }
}

/// `area` of an RGB picture of this width, turned and mirrored into `target`.
fn turn(rgb: &[u8], width: usize, area: Crop, view: View, target: &mut Vec<u8>) {
    let (w, h) = (area.width as usize, area.height as usize);
    let (x, y) = (area.x as usize, area.y as usize);
    target.resize(w * h * 3, 0);
    let pixels = rgb.as_chunks::<3>().0;
    let (out_w, out_h) = if view.turns % 2 == 1 { (h, w) } else { (w, h) };
    for (row, line) in target.as_chunks_mut::<3>().0.chunks_exact_mut(out_w).enumerate() {
        let row = if view.upside_down { out_h - 1 - row } else { row };
        // where the line's first pixel comes from, and how far apart its pixels lie there
        let (start, step) = match view.turns % 4 {
            0 => ((y + row) * width + x, 1),
            1 => ((y + h - 1) * width + x + row, -(width as isize)),
            2 => ((y + h - 1 - row) * width + x + w - 1, -1),
            _ => (y * width + x + w - 1 - row, width as isize),
        };
        let from = |column: usize| pixels[start.wrapping_add_signed(step * column as isize)];
        match view.mirrored {
            false => line.iter_mut().enumerate().for_each(|(column, pixel)| *pixel = from(column)),
            true => line.iter_mut().rev().enumerate().for_each(|(column, pixel)| *pixel = from(column)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::imageops;

    fn picture(width: u32, height: u32) -> Frame {
        Frame::rgb(width, height, (0..width * height * 3).map(|at| (at * 37 % 251) as u8).collect())
    }

    fn jpeg(frame: &Frame, quality: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
        image::ImageEncoder::write_image(encoder, &frame.data, frame.width, frame.height, image::ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    /// Without its Huffman tables, as many USB cameras send it.
    fn without_tables(jpeg: &[u8]) -> Vec<u8> {
        let (mut kept, mut at) = (jpeg[..2].to_vec(), 2);
        while jpeg[at + 1] != 0xDA {
            let len = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
            if jpeg[at + 1] != 0xC4 {
                kept.extend(&jpeg[at..at + len]);
            }
            at += len;
        }
        kept.extend(&jpeg[at..]);
        kept
    }

    #[test]
    fn every_view_equals_the_image_crate() {
        let frame = picture(7, 5);
        let whole = image::RgbImage::from_raw(7, 5, frame.data.clone()).unwrap();
        for crop in [None, Some(Crop { x: 2, y: 1, width: 4, height: 3 }), Some(Crop { x: 5, y: 0, width: 90, height: 90 })] {
            for (turns, mirrored, upside_down) in
                (0..4).flat_map(|t| [(t, false, false), (t, true, false), (t, false, true), (t, true, true)])
            {
                let view = View { crop, turns, mirrored, upside_down };
                let ours = FrameDecoder::new(view).decode(frame.clone()).unwrap();
                let Crop { x, y, width, height } = view.area(7, 5).unwrap();
                let mut reference = imageops::crop_imm(&whole, x, y, width, height).to_image();
                reference = match turns {
                    0 => reference,
                    1 => imageops::rotate90(&reference),
                    2 => imageops::rotate180(&reference),
                    _ => imageops::rotate270(&reference),
                };
                if mirrored {
                    imageops::flip_horizontal_in_place(&mut reference);
                }
                if upside_down {
                    imageops::flip_vertical_in_place(&mut reference);
                }
                assert_eq!((ours.width, ours.height), reference.dimensions(), "{view:?}");
                assert_eq!(ours.data, reference.into_raw(), "{view:?}");
            }
        }
    }

    #[test]
    fn jpeg_pictures_decode_with_and_without_tables() {
        let frame = Frame::rgb(48, 32, (0..48 * 32).flat_map(|at| [(at % 48 * 5) as u8, (at / 48 * 7) as u8, 90]).collect());
        let bytes = jpeg(&frame, 90);
        let bare = without_tables(&bytes);
        assert!(bare.len() < bytes.len());
        let mut padded = bytes.clone();
        padded.resize(bytes.len() + 5000, 0); // as a buffer that is larger than its picture
        let mut decoder = FrameDecoder::default();
        let reference = image::load_from_memory(&bytes).unwrap().to_rgb8().into_raw();
        for data in [bytes, bare, padded] {
            let sent = data.clone();
            let ours = decoder.decode(Frame { format: PixelFormat::Mjpg, data, ..frame.clone() }).unwrap();
            assert_eq!((ours.format, &ours.data), (PixelFormat::Rgb24, &reference));
            assert_eq!(ours.jpeg, sent);
            let turned = View { turns: 2, ..View::default() };
            let turned = FrameDecoder::new(turned).decode(Frame { format: PixelFormat::Mjpg, data: sent, ..frame.clone() }).unwrap();
            assert!(turned.jpeg.is_empty(), "it shows another picture");
        }
    }

    #[test]
    fn broken_pictures_are_errors() {
        let frame = picture(64, 48);
        let bytes = jpeg(&frame, 80);
        let decode = |data: Vec<u8>, width| {
            let frame = Frame { format: PixelFormat::Mjpg, data, width, ..frame.clone() };
            FrameDecoder::default().decode(frame).map_err(|(error, _)| error.to_string())
        };
        assert!(decode(bytes.clone(), 64).is_ok());
        assert!(decode(bytes.clone(), 80).unwrap_err().contains("64x48 where 80x48"));
        for broken in [vec![], vec![0; 100], bytes[..bytes.len() / 2].to_vec(), bytes[..30].to_vec(), vec![0xFF; 2000]] {
            let message = decode(broken, 64).unwrap_err();
            assert!(message.contains("no JPEG picture") && message.lines().count() == 1, "{message}");
        }
        let outside = View { crop: Some(Crop { x: 64, y: 0, width: 5, height: 5 }), ..View::default() };
        assert!(matches!(FrameDecoder::new(outside).decode(frame.clone()), Err((DecodeError::Empty { .. }, _))));
    }
}
