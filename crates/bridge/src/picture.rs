//! Id maps and pictures as compressed bytes: what travels.
//!
//! Invariants: buffers are kept from frame to frame; an id map is compressed without loss (16-bit PNG, never JPEG).

use std::borrow::Cow;

use eomt_edge_client::layout::SegmentRow;
use eomt_edge_client::{CameraFrame, FrameFormat, MaskFrame};
use eomt_edge_overlay::{Segment, Style, paint_with, runs};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// Why a picture cannot be compressed.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The PNG encoder's own words.
    #[error("a picture of {width}x{height} cannot be written as PNG: {source}")]
    Png {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Why.
        source: png::EncodingError,
    },
    /// The JPEG encoder's own words; it takes 65535 pixels a side.
    #[error("a picture of {width}x{height} cannot be written as JPEG: {source}")]
    Jpeg {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Why.
        source: jpeg_encoder::EncodingError,
    },
}

/// Compresses, with buffers of its own.
#[derive(Debug, Default)]
pub struct Pictures {
    words: Vec<u8>,
    classes: Vec<u16>,
    rgb: Vec<u8>,
}

impl Pictures {
    /// A 16-bit grey PNG of [`Pictures::classes`].
    ///
    /// # Errors
    /// As [`Pictures::png16`].
    pub fn png_of_classes(&mut self, frame: &MaskFrame) -> Result<Vec<u8>, PictureError> {
        self.classes(frame);
        let classes = std::mem::take(&mut self.classes);
        let written = self.png16(&classes, frame.width(), frame.height());
        self.classes = classes;
        written
    }

    /// A 16-bit grey PNG of `values`, `[height, width]`.
    ///
    /// # Errors
    /// [`PictureError::Png`] for a picture without pixels.
    pub fn png16(&mut self, values: &[u16], width: u32, height: u32) -> Result<Vec<u8>, PictureError> {
        // PNG is big-endian
        self.words.clear();
        self.words.extend(values.iter().flat_map(|value| value.to_be_bytes()));
        png(&self.words, png::BitDepth::Sixteen, width, height)
    }

    /// The class of each pixel plus one, 0 = nothing: `[height, width]`. Where masks overlap, the topmost segment's.
    pub fn classes(&mut self, frame: &MaskFrame) -> &[u16] {
        spread(frame, 0, |segment| segment.class.saturating_add(1), &mut self.classes);
        &self.classes
    }

    /// Segments in their colours over the camera frame, or over black when the ring carries none: `[height, width, 3]`. Labels as `style` says.
    pub fn overlay(&mut self, frame: &MaskFrame, labels: &[String], style: Style) -> &[u8] {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        self.rgb.clear();
        match frame.rgb() {
            Some(rgb) => self.rgb.extend_from_slice(rgb),
            None => self.rgb.resize(3 * width * height, 0),
        }
        let table: Vec<Segment> = frame.segments.iter().map(segment).collect();
        paint_with(&mut self.rgb, width, &frame.ids, &table, labels, style);
        &self.rgb
    }
}

/// Writes what each pixel's segment has, `nothing` where there is none: `[height, width]`.
fn spread<T: Copy>(frame: &MaskFrame, nothing: T, of: impl Fn(&SegmentRow) -> T, pixels: &mut Vec<T>) {
    let largest = frame.segments.iter().map(|segment| usize::from(segment.id)).max().unwrap_or(0);
    let mut value_of = vec![nothing; largest + 1];
    for segment in &frame.segments {
        value_of[usize::from(segment.id)] = of(segment);
    }
    pixels.clear();
    pixels.reserve(frame.ids.len());
    for run in runs(&frame.ids) {
        let value = value_of.get(usize::from(run[0])).copied().unwrap_or(nothing);
        pixels.resize(pixels.len() + run.len(), value);
    }
}

/// Each pixel's score, 0 to 255.
pub fn confidence(frame: &MaskFrame) -> Vec<u8> {
    let mut scores = Vec::new();
    spread(frame, 0, |segment| (segment.score.clamp(0.0, 1.0) * 255.0).round() as u8, &mut scores);
    scores
}

/// An 8-bit grey PNG of `values`, `[height, width]`.
///
/// # Errors
/// [`PictureError::Png`] for a picture without pixels.
pub fn png8(values: &[u8], width: u32, height: u32) -> Result<Vec<u8>, PictureError> {
    png(values, png::BitDepth::Eight, width, height)
}

fn png(bytes: &[u8], depth: png::BitDepth, width: u32, height: u32) -> Result<Vec<u8>, PictureError> {
    let mut file = Vec::with_capacity(bytes.len() / 64);
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(depth);
    // rows as the difference from the one above: of maps of segments little is left. To choose among filters took 40 % of the bridge's time
    encoder.set_compression(png::Compression::Fastest);
    encoder.set_filter(png::Filter::Up);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(bytes));
    written.map_err(|source| PictureError::Png { width, height, source })?;
    Ok(file)
}

/// A row of the ring as the overlay takes it.
fn segment(row: &SegmentRow) -> Segment {
    Segment { id: row.id, category_id: row.class, score: row.score, area: row.area, bbox: row.bbox, track_id: row.track_id }
}

/// The camera frame as JPEG: as the camera made it, or compressed here. `None` in formats that would have to be converted first.
///
/// # Errors
/// As [`jpeg`].
pub fn camera_jpeg<'a>(camera: &CameraFrame<'a>, width: u32, height: u32, quality: u8) -> Result<Option<Cow<'a, [u8]>>, PictureError> {
    let colours = match camera.format {
        FrameFormat::Mjpeg => return Ok(Some(Cow::Borrowed(camera.bytes))),
        FrameFormat::Rgb24 => ColorType::Rgb,
        FrameFormat::Bgr24 => ColorType::Bgr,
        FrameFormat::Rgbx => ColorType::Rgba,
        FrameFormat::Bgrx => ColorType::Bgra,
        FrameFormat::Grey => ColorType::Luma,
        _ => return Ok(None),
    };
    compress(camera.bytes, width, height, quality, colours).map(|bytes| Some(Cow::Owned(bytes)))
}

/// A JPEG of `rgb`, `[height, width, 3]`, with colours at half the resolution (4:2:0); `quality` 1 to 100.
///
/// # Errors
/// [`PictureError::Jpeg`] for a picture without pixels, or larger than JPEG can be.
pub fn jpeg(rgb: &[u8], width: u32, height: u32, quality: u8) -> Result<Vec<u8>, PictureError> {
    compress(rgb, width, height, quality, ColorType::Rgb)
}

fn compress(pixels: &[u8], width: u32, height: u32, quality: u8, colours: ColorType) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::with_capacity(pixels.len() / 16);
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let side = |pixels: u32| u16::try_from(pixels).unwrap_or(0); // 0 is refused by the encoder
    let written = encoder.encode(pixels, side(width), side(height), colours);
    written.map_err(|source| PictureError::Jpeg { width, height, source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camera_frames_of_all_orders_of_colours_look_the_same() {
        let (width, height) = (16, 8);
        let look = |format: FrameFormat, pixel: &[u8]| {
            let bytes = pixel.repeat(width * height);
            let camera = CameraFrame { format, stride: 0, bt709: false, full_range: false, bytes: &bytes };
            let made = camera_jpeg(&camera, width as u32, height as u32, 90).unwrap().unwrap();
            let read = image::load_from_memory_with_format(&made, image::ImageFormat::Jpeg).unwrap().to_rgb8();
            assert_eq!(read.dimensions(), (width as u32, height as u32));
            read.get_pixel(3, 3).0
        };
        let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 3);
        let (rgb, grey) = ([200, 90, 40], [77; 3]);
        for (format, pixel) in [
            (FrameFormat::Rgb24, &[200, 90, 40][..]),
            (FrameFormat::Bgr24, &[40, 90, 200]),
            (FrameFormat::Rgbx, &[200, 90, 40, 0]),
            (FrameFormat::Bgrx, &[40, 90, 200, 0]),
        ] {
            let seen = look(format, pixel);
            assert!(near(seen, rgb), "{format:?}: {seen:?}");
        }
        assert!(near(look(FrameFormat::Grey, &[77]), grey));
    }

    #[test]
    fn sizes_that_jpeg_cannot_have_are_refused() {
        for (width, height) in [(0, 5), (5, 0), (70_000, 1)] {
            let error = jpeg(&vec![0; 3 * (width * height) as usize], width, height, 80).unwrap_err().to_string();
            assert!(error.contains(&format!("{width}x{height}")), "{error}");
        }
    }

    #[test]
    fn a_camera_s_own_jpeg_is_passed_on_and_yuv_is_not_guessed() {
        let look = |format| {
            let camera = CameraFrame { format, stride: 0, bt709: false, full_range: false, bytes: b"as it came" };
            camera_jpeg(&camera, 4, 4, 75).unwrap().map(Cow::into_owned)
        };
        assert_eq!(look(FrameFormat::Mjpeg).as_deref(), Some(&b"as it came"[..]));
        assert_eq!((look(FrameFormat::Yuyv), look(FrameFormat::Other(7))), (None, None));
    }
}
