//! From the configuration to an open panel.

use super::error::DisplayError;
use super::framebuffer::Framebuffer;
use super::panel::Panel;
use super::{oled, spi};
use crate::config::{DisplayConfig, DisplayKind};

/// Opens the display that the configuration names.
///
/// # Errors
/// When its device is missing, closed to this user, or of a kind that is not supported.
pub fn open(config: &DisplayConfig) -> Result<Box<dyn Panel>, DisplayError> {
    match config.kind {
        DisplayKind::None | DisplayKind::Framebuffer => Ok(Box::new(Framebuffer::open(&config.device(), config.rotation)?)),
        DisplayKind::Spi => spi::open(config),
        DisplayKind::Oled => oled::open(config),
    }
}
