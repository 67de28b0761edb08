//! Text in the size that a panel can hold: bitmap fonts, enlarged by whole numbers.

use std::convert::Infallible;

use embedded_graphics::mono_font::iso_8859_1::{FONT_6X10, FONT_7X13_BOLD, FONT_8X13_BOLD, FONT_9X18_BOLD, FONT_10X20};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{Dimensions, DrawTarget, Drawable, Pixel, Point, Size};
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Baseline, Text};
use eomt_edge_core::overlay::Canvas;
use eomt_edge_host::output::sentence;

/// A font, each of its pixels `scale` pixels wide and high.
#[derive(Debug, Clone, Copy)]
pub struct Face {
    pub font: &'static MonoFont<'static>,
    pub scale: u32,
}

impl Face {
    /// A glyph (width, height).
    pub fn glyph(self) -> (usize, usize) {
        let Size { width, height } = self.font.character_size;
        ((width * self.scale) as usize, (height * self.scale) as usize)
    }

    pub fn draw(self, canvas: &mut Canvas, text: &str, (x, y): (usize, usize), colour: Rgb888) {
        let mut enlarged = Enlarged { canvas, scale: self.scale, origin: Point::new(x as i32, y as i32) };
        let style = MonoTextStyle::new(self.font, colour);
        let Ok(_) = Text::with_baseline(&sentence(text), Point::zero(), style, Baseline::Top).draw(&mut enlarged);
    }
}

/// Draws every pixel as a square of `scale`.
struct Enlarged<'a, 'b> {
    canvas: &'a mut Canvas<'b>,
    scale: u32,
    origin: Point,
}

impl Dimensions for Enlarged<'_, '_> {
    fn bounding_box(&self) -> Rectangle {
        let Size { width, height } = self.canvas.bounding_box().size;
        Rectangle::new(Point::zero(), Size::new(width / self.scale, height / self.scale))
    }
}

impl DrawTarget for Enlarged<'_, '_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(point, colour) in pixels {
            let square = Rectangle::new(self.origin + point * self.scale as i32, Size::new_equal(self.scale));
            self.canvas.fill_solid(&square, colour)?;
        }
        Ok(())
    }
}

/// The largest face in which all `lines` fit into `room` (width, height) below each other.
pub fn largest(lines: &[&str], room: (usize, usize)) -> Face {
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(1);
    // not 6x13 bold: its letters touch
    let fonts = [&FONT_6X10, &FONT_7X13_BOLD, &FONT_8X13_BOLD, &FONT_9X18_BOLD, &FONT_10X20];
    let faces = fonts.into_iter().flat_map(|font| (1..=64).map(move |scale| Face { font, scale }));
    let fits = |face: &Face| {
        let (width, height) = face.glyph();
        width * longest <= room.0 && height * lines.len().max(1) <= room.1
    };
    let best = faces.filter(fits).max_by_key(|face| face.glyph().0 * face.glyph().1);
    best.unwrap_or(Face { font: &FONT_6X10, scale: 1 })
}

/// The words of `text` in lines of at most `columns` characters; a longer word is cut.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word: Vec<char> = word.chars().collect();
        for piece in word.chunks(columns.max(1)) {
            let piece: String = piece.iter().collect();
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + piece.chars().count() <= columns => {
                    line.push(' ');
                    line.push_str(&piece);
                }
                _ => lines.push(piece),
            }
        }
    }
    lines
}
