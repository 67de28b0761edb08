//! What a display must be able to do.

use super::changes::{Area, Grid};
use super::error::DisplayError;

/// What pictures look like on a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// 8 bits of red, green and blue a pixel.
    Colour,
    /// White on black and nothing between.
    Mono,
}

/// A screen: takes pictures in its own memory layout, in parts.
pub trait Panel: Send {
    /// For people: what it is.
    fn describe(&self) -> String;

    /// Pixels to draw on (width, height), after rotation.
    fn size(&self) -> (usize, usize);

    /// What its pixels can show.
    fn depth(&self) -> Depth {
        Depth::Colour
    }

    /// The panel's memory: what is compared and sent in parts.
    fn grid(&self) -> Grid;

    /// A picture `[height, width, 3]` of [`Panel::size`] as the cells of [`Panel::grid`].
    fn encode(&self, rgb: &[u8], cells: &mut [u8]);

    /// Sends one area of `cells` (all of them, of [`Panel::grid`]).
    ///
    /// # Errors
    /// When the device is gone or does not take it.
    fn send(&mut self, cells: &[u8], area: Area) -> Result<(), DisplayError>;

    /// Whether another program may have drawn over the picture, so that all of it should be sent now and then.
    ///
    /// # Errors
    /// When the panel is no longer what it was.
    fn is_shared(&mut self) -> Result<bool, DisplayError> {
        Ok(false)
    }
}
