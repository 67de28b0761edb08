//! Id maps and pictures as compressed bytes: what travels.
//!
//! Invariants: buffers are kept from frame to frame; an id map is compressed without loss (16-bit PNG, never JPEG).

use eomt_edge_client::MaskFrame;
use eomt_edge_overlay::{Segment, Style, paint_with};
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
        // one place for each id that there can be: no id is outside
        let mut class_of = [0u16; 1 << 16];
        for segment in &frame.segments {
            class_of[usize::from(segment.id)] = segment.class.saturating_add(1);
        }
        self.classes.clear();
        self.classes.extend(frame.ids.iter().map(|&id| class_of[usize::from(id)]));
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
fn segment(row: &eomt_edge_client::layout::SegmentRow) -> Segment {
    Segment { id: row.id, category_id: row.class, score: row.score, area: row.area, bbox: row.bbox, track_id: row.track_id }
}

/// A JPEG of `rgb`, `[height, width, 3]`, with colours at half the resolution (4:2:0); `quality` 1 to 100.
///
/// # Errors
/// [`PictureError::Jpeg`] for a picture without pixels, or larger than JPEG can be.
pub fn jpeg(rgb: &[u8], width: u32, height: u32, quality: u8) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::with_capacity(rgb.len() / 16);
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let side = |pixels: u32| u16::try_from(pixels).unwrap_or(0); // 0 is refused by the encoder
    let written = encoder.encode(rgb, side(width), side(height), ColorType::Rgb);
    written.map_err(|source| PictureError::Jpeg { width, height, source })?;
    Ok(bytes)
}
