//! What a display must be able to do, and the choice of one.

use crate::config::{DisplayConfig, DisplayKind};

use super::DisplayError;
use super::changes::{Area, Grid};
use super::framebuffer::Framebuffer;
use super::oled;
use super::spi;

/// What pictures look like on a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
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

    fn depth(&self) -> Depth {
        Depth::Colour
    }

    /// The panel's memory: what is compared and sent in parts.
    fn grid(&self) -> Grid;

    /// A picture `[height, width, 3]` of [`Panel::size`] as the cells of [`Panel::grid`].
    fn encode(&self, rgb: &[u8], cells: &mut [u8]);

    /// Sends one area of `cells` (all of them, of [`Panel::grid`]).
    fn send(&mut self, cells: &[u8], area: Area) -> Result<(), DisplayError>;

    /// Whether somebody else may have drawn over the picture, so that all of it should be sent now and then.
    ///
    /// # Errors
    /// When the panel is no longer what it was.
    fn is_shared(&mut self) -> Result<bool, DisplayError> {
        Ok(false)
    }
}

/// Opens the display that the configuration names.
pub fn open(config: &DisplayConfig) -> Result<Box<dyn Panel>, DisplayError> {
    match config.kind {
        DisplayKind::None | DisplayKind::Framebuffer => Ok(Box::new(Framebuffer::open(&config.device(), config.rotation)?)),
        DisplayKind::Spi => spi::open(config),
        DisplayKind::Oled => oled::open(config),
    }
}
