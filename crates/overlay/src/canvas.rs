//! An RGB buffer that embedded-graphics can draw on.

use std::convert::Infallible;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{Dimensions, DrawTarget, Pixel, Point, RgbColor, Size};
use embedded_graphics::primitives::Rectangle;

/// `[height, width, 3]` bytes; what lies outside is ignored.
pub struct Canvas<'a> {
    /// `[height, width, 3]`.
    pub rgb: &'a mut [u8],
    /// Columns, pixels.
    pub width: usize,
    /// Rows, pixels.
    pub height: usize,
}

impl Dimensions for Canvas<'_> {
    fn bounding_box(&self) -> Rectangle {
        Rectangle::new(Point::zero(), Size::new(self.width as u32, self.height as u32))
    }
}

impl DrawTarget for Canvas<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { continue };
            if x < self.width && y < self.height {
                let at = (y * self.width + x) * 3;
                self.rgb[at..at + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}
