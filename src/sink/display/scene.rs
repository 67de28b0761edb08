//! A frame with its segments, fitted into a colour panel.

use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::iso_8859_1::{FONT_6X13, FONT_9X18_BOLD, FONT_10X20};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, Point, RgbColor, Size};
use embedded_graphics::primitives::Rectangle;
use eomt_edge_core::data::{NO_SEGMENT, Segment};
use eomt_edge_core::overlay::{Canvas, Style, paint_with};
use eomt_edge_core::preprocess::RgbConverter;

use super::changes::Area;
use super::exchange::Picture;
use super::text::Face;

/// How scenes look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub labels: bool,
    pub opacity: f32,
}

/// The largest area of `room` (width, height) with the shape of `content` (width, height), in its middle.
pub fn letterbox(content: (usize, usize), room: (usize, usize)) -> Area {
    let (width, height) = (content.0.max(1), content.1.max(1));
    let (w, h) = if room.0 * height <= room.1 * width {
        (room.0, (room.0 * height / width).max(1))
    } else {
        ((room.1 * width / height).max(1), room.1)
    };
    Area { x: (room.0 - w) / 2, y: (room.1 - h) / 2, width: w, height: h }
}

/// Draws scenes; buffers are reused.
#[derive(Debug, Default)]
pub struct Scene {
    converter: RgbConverter,
    rgb: Vec<u8>,
    pub ids: Vec<u16>,
    pub table: Vec<Segment>,
}

impl Scene {
    /// Fills the canvas: the frame, its segments, and `status` at the lower left.
    pub fn draw(&mut self, canvas: &mut Canvas, picture: &Picture, look: Look, status: &str) {
        let size = (picture.frame.width as usize, picture.frame.height as usize);
        if size.0 == 0 || size.1 == 0 || picture.ids.len() != size.0 * size.1 {
            return;
        }
        let Ok(()) = canvas.clear(Rgb888::BLACK);
        let area = letterbox(size, (canvas.width, canvas.height));
        let target = (area.width, area.height);
        let font = font_for(canvas.width.min(canvas.height));
        average(self.converter.rgb(&picture.frame), size, &mut self.rgb, target);
        self.fit_segments(picture, target);
        let style = Style { opacity: look.opacity, font: look.labels.then_some(font) };
        paint_with(&mut self.rgb, area.width, &self.ids, &self.table, &picture.labels, style);
        for (y, row) in self.rgb.chunks_exact(area.width * 3).enumerate() {
            canvas.rgb[((area.y + y) * canvas.width + area.x) * 3..][..row.len()].copy_from_slice(row);
        }
        write_status(canvas, Face { font, scale: 1 }, status);
    }

    /// The nearest ids, and the table with boxes and areas on the panel.
    pub fn fit_segments(&mut self, picture: &Picture, (width, height): (usize, usize)) {
        let (w, h) = (picture.frame.width as usize, picture.frame.height as usize);
        self.ids.clear();
        for y in 0..height {
            let row = &picture.ids[(2 * y + 1) * h / (2 * height) * w..][..w];
            self.ids.extend((0..width).map(|x| row[(2 * x + 1) * w / (2 * width)]));
        }
        self.table.clone_from(&picture.table);
        for segment in &mut self.table {
            (segment.area, segment.bbox) = (0, [u32::MAX, u32::MAX, 0, 0]);
        }
        // ids count up from 1 in the order of the table; elsewhere a search finds them
        for (at, &id) in self.ids.iter().enumerate().filter(|(_, id)| **id != NO_SEGMENT) {
            let (x, y) = ((at % width) as u32, (at / width) as u32);
            let index = usize::from(id) - 1;
            let segment = match self.table.get(index).is_some_and(|segment| segment.id == id) {
                true => self.table.get_mut(index),
                false => self.table.iter_mut().find(|segment| segment.id == id),
            };
            let Some(Segment { area, bbox: [left, top, right, bottom], .. }) = segment else { continue };
            *area += 1;
            (*left, *top) = ((*left).min(x), (*top).min(y));
            (*right, *bottom) = ((*right).max(x + 1), (*bottom).max(y + 1));
        }
        self.table.retain(|segment| segment.area > 0);
        for Segment { bbox, .. } in &mut self.table {
            let [left, top, right, bottom] = *bbox;
            *bbox = [left, top, right - left, bottom - top];
        }
    }
}

/// The mean of the pixels that each target pixel covers, at least one; sizes (width, height).
fn average(source: &[u8], (w, h): (usize, usize), target: &mut Vec<u8>, (width, height): (usize, usize)) {
    target.clear();
    let span = |at: usize, from: usize, to: usize| {
        let start = at * from / to;
        start..((at + 1) * from / to).max(start + 1)
    };
    for y in 0..height {
        for x in 0..width {
            let (rows, columns) = (span(y, h, height), span(x, w, width));
            let count = (rows.len() * columns.len()) as u32;
            let mut sums = [0u32; 3];
            for row in rows {
                for pixel in source[(row * w + columns.start) * 3..(row * w + columns.end) * 3].chunks_exact(3) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += u32::from(value));
                }
            }
            target.extend(sums.map(|sum| (sum / count) as u8));
        }
    }
}

/// For a panel whose shorter side has so many pixels.
fn font_for(side: usize) -> &'static MonoFont<'static> {
    match side {
        0..160 => &FONT_6X13,
        160..320 => &FONT_9X18_BOLD,
        _ => &FONT_10X20,
    }
}

fn write_status(canvas: &mut Canvas, face: Face, status: &str) {
    if status.is_empty() {
        return;
    }
    let glyph = face.glyph();
    let (width, height) = (status.chars().count() * glyph.0 + 4, glyph.1 + 2);
    let top = canvas.height.saturating_sub(height);
    let plate = Rectangle::new(Point::new(0, top as i32), Size::new(width as u32, height as u32));
    let Ok(()) = canvas.fill_solid(&plate, Rgb888::BLACK);
    face.draw(canvas, status, (2, top + 1), Rgb888::WHITE);
}
