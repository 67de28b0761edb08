//! [`DisplayError`].

use std::path::PathBuf;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    /// The device is missing, or closed to this user.
    #[error("display {}: cannot be opened: {reason}", device.display())]
    Open {
        /// The device.
        device: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The device answers no framebuffer ioctl.
    #[error("display {}: no framebuffer: {reason}", device.display())]
    NoFramebuffer {
        /// The device.
        device: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The framebuffer has pixels that are not supported.
    #[error("display {}: a framebuffer of {what} is not supported", device.display())]
    Layout {
        /// The device.
        device: PathBuf,
        /// The layout.
        what: String,
    },
    /// The device does not take a picture.
    #[error("display {}: cannot be written to: {reason}", device.display())]
    Write {
        /// The device.
        device: PathBuf,
        /// What the system said.
        reason: String,
    },
}
