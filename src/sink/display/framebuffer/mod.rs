//! The Linux framebuffer: pixels of any layout, written with pwrite(2).
//!
//! Layout and terms: the kernel's include/uapi/linux/fb.h. Red, green and blue are `length` bits of a little-endian pixel from bit
//! `offset` on; a row takes `line_length` bytes; what is visible begins at (`xoffset`, `yoffset`).

mod ioctl;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::changes::{Area, Grid};
use super::error::DisplayError;
use super::panel::Panel;

/// Bits of a pixel that carry one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channel {
    /// The lowest of its bits, counted from bit 0 of the pixel.
    pub offset: u32,
    /// Number of bits.
    pub length: u32,
}

impl Channel {
    /// The level's uppermost bits in their place; a longer channel repeats them.
    fn place(self, level: u8) -> u32 {
        let level = u32::from(level);
        let bits = if self.length <= 8 { level >> (8 - self.length) } else { (level * 0x0101) >> (16 - self.length.min(16)) };
        bits << self.offset
    }
}

/// Where the pixels lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Visible pixels of a row.
    pub width: u32,
    /// Visible rows.
    pub height: u32,
    /// First visible pixel of a row.
    pub xoffset: u32,
    /// First visible row.
    pub yoffset: u32,
    /// 16, 24 or 32.
    pub bits_per_pixel: u32,
    /// Bytes from a row to the next.
    pub line_length: u32,
    /// Bits of red.
    pub red: Channel,
    /// Bits of green.
    pub green: Channel,
    /// Bits of blue.
    pub blue: Channel,
    /// Written as all ones: opaque.
    pub transparency: Channel,
}

impl Geometry {
    /// What is wrong with it for us.
    fn defect(&self) -> Option<String> {
        let fits = |channel: Channel| channel.length <= 16 && channel.offset.saturating_add(channel.length) <= self.bits_per_pixel;
        let row = u64::from(self.width) + u64::from(self.xoffset);
        if ![16, 24, 32].contains(&self.bits_per_pixel) {
            return Some(format!("{} bits per pixel", self.bits_per_pixel));
        }
        if !(1..=16384).contains(&self.width) || !(1..=16384).contains(&self.height) {
            return Some(format!("{}x{} pixels", self.width, self.height));
        }
        if ![self.red, self.green, self.blue, self.transparency].into_iter().all(fits) || self.green.length == 0 {
            return Some("such colour channels".to_owned());
        }
        (row * u64::from(self.bits_per_pixel / 8) > u64::from(self.line_length)).then(|| "rows shorter than its pixels".to_owned())
    }

    fn pixel(&self, rgb: &[u8]) -> u32 {
        let opaque = self.transparency.place(255);
        self.red.place(rgb[0]) | self.green.place(rgb[1]) | self.blue.place(rgb[2]) | opaque
    }
}

/// Asks the kernel for the layout of an open framebuffer.
///
/// # Errors
/// When the device answers no framebuffer ioctl.
pub fn geometry(device: &Path, file: &File) -> Result<Geometry, DisplayError> {
    ioctl::geometry(file).map_err(|error| DisplayError::NoFramebuffer { device: device.to_owned(), reason: error.to_string() })
}

/// An open framebuffer.
#[derive(Debug)]
pub struct Framebuffer {
    device: PathBuf,
    file: File,
    geometry: Geometry,
    /// Clockwise, degrees.
    rotation: u32,
    /// False in tests, where a plain file stands in.
    is_device: bool,
    /// Restored at the end.
    _console: Console,
}

impl Framebuffer {
    /// Opens a device, or a file in its place; `rotation` is clockwise, in degrees.
    ///
    /// # Errors
    /// When it cannot be opened, or is no framebuffer of a supported layout.
    pub fn open(device: &Path, rotation: u32) -> Result<Framebuffer, DisplayError> {
        let failed = |error: std::io::Error| DisplayError::Open { device: device.to_owned(), reason: error.to_string() };
        let mut options = OpenOptions::new();
        // without O_NONBLOCK a FIFO in the device's place would hold the thread up
        let file = options.read(true).write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(device).map_err(failed)?;
        let geometry = geometry(device, &file)?;
        ioctl::unblank(&file);
        let console = Console::hide();
        Framebuffer { is_device: true, _console: console, ..Framebuffer::with_geometry(device, file, geometry, rotation)? }.checked()
    }

    fn checked(self) -> Result<Framebuffer, DisplayError> {
        match self.geometry.defect() {
            None => Ok(self),
            Some(what) => Err(DisplayError::Layout { device: self.device.clone(), what }),
        }
    }

    /// A file with the layout of a framebuffer.
    pub fn with_geometry(device: &Path, file: File, geometry: Geometry, rotation: u32) -> Result<Framebuffer, DisplayError> {
        Framebuffer { device: device.to_owned(), file, geometry, rotation, is_device: false, _console: Console(None) }.checked()
    }
}

/// The first cell and the number of cells to write for `width` cells from `(x, y)`.
///
/// A write that ends where a line of memory ends takes a neighbouring cell along: the kernel's framebuffer emulation (6.1,
/// `drm_fb_helper_memory_range_to_clip`) takes its right edge for column 0 otherwise, and never shows it.
fn span(grid: Grid, geometry: &Geometry, (x, y): (usize, usize), width: usize) -> (usize, usize) {
    let first = y * grid.width + x;
    let unpadded = geometry.xoffset == 0 && geometry.line_length as usize == grid.width * grid.cell;
    match unpadded && x + width == grid.width {
        true if y + 1 < grid.height => (first, width + 1),
        true if y > 0 => (y * grid.width - 1, x + width + 1),
        _ => (first, width),
    }
}

impl Panel for Framebuffer {
    fn describe(&self) -> String {
        let Geometry { width, height, bits_per_pixel, .. } = self.geometry;
        format!("framebuffer {}, {width}x{height}, {bits_per_pixel} bits per pixel", self.device.display())
    }

    fn size(&self) -> (usize, usize) {
        let (width, height) = (self.geometry.width as usize, self.geometry.height as usize);
        if self.rotation.is_multiple_of(180) { (width, height) } else { (height, width) }
    }

    fn grid(&self) -> Grid {
        let Geometry { width, height, bits_per_pixel, .. } = self.geometry;
        Grid { width: width as usize, height: height as usize, cell: bits_per_pixel as usize / 8, tile: (32, 16) }
    }

    fn encode(&self, rgb: &[u8], cells: &mut [u8]) {
        let (grid, (width, height)) = (self.grid(), self.size());
        for (at, cell) in cells.chunks_exact_mut(grid.cell).enumerate() {
            let (x, y) = (at % grid.width, at / grid.width);
            // where the panel's pixel lies in the picture, which is turned clockwise
            let (x, y) = match self.rotation {
                90 => (y, height - 1 - x),
                180 => (width - 1 - x, height - 1 - y),
                270 => (width - 1 - y, x),
                _ => (x, y),
            };
            let pixel = self.geometry.pixel(&rgb[(y * width + x) * 3..][..3]);
            cell.copy_from_slice(&pixel.to_le_bytes()[..grid.cell]);
        }
    }

    fn send(&mut self, cells: &[u8], area: Area) -> Result<(), DisplayError> {
        let (grid, geometry) = (self.grid(), &self.geometry);
        for y in area.y..area.y + area.height {
            let (first, count) = span(grid, geometry, (area.x, y), area.width);
            let (first_x, first_y) = (first % grid.width, first / grid.width);
            let row = (geometry.yoffset as usize + first_y) as u64 * u64::from(geometry.line_length);
            let at = row + ((geometry.xoffset as usize + first_x) * grid.cell) as u64;
            let written = self.file.write_all_at(&cells[first * grid.cell..][..count * grid.cell], at);
            written.map_err(|error| DisplayError::Write { device: self.device.clone(), reason: error.to_string() })?;
        }
        Ok(())
    }

    /// The console and other programs draw on it too, and may change its size.
    fn is_shared(&mut self) -> Result<bool, DisplayError> {
        if self.is_device && geometry(&self.device, &self.file)? != self.geometry {
            return Err(DisplayError::Write { device: self.device.clone(), reason: "its layout has changed".to_owned() });
        }
        Ok(true)
    }
}

/// The text console on the same screen, where this user may reach it (a service may not: see docs/display.md).
///
/// Only the cursor and the blanking timer, by escape sequences (console_codes(4)), which the next login resets. KDSETMODE would be
/// thorough, but a daemon that is killed would leave a console without text behind.
#[derive(Debug)]
struct Console(Option<File>);

impl Console {
    fn hide() -> Console {
        let mut terminal = OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32).open("/dev/tty0").ok();
        let hidden = terminal.as_mut().is_some_and(|terminal| terminal.write_all(b"\x1b[?25l\x1b[9;0]").is_ok());
        Console(terminal.filter(|_| hidden))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(terminal) = self.0.as_mut() {
            let _ = terminal.write_all(b"\x1b[?25h"); // nothing else can be done about it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel believes to have changed after a write: `drm_fb_helper_memory_range_to_clip` of Linux 6.1, (x1, x2, y1, y2).
    fn clip(line_length: usize, cell: usize, width: usize, (offset, len): (usize, usize)) -> (usize, usize, usize, usize) {
        let end = offset + len;
        let (y1, y2) = (offset / line_length, end.div_ceil(line_length));
        if y2 - y1 == 1 { ((offset % line_length) / cell, (end % line_length).div_ceil(cell), y1, y2) } else { (0, width, y1, y2) }
    }

    #[test]
    fn the_kernel_notices_every_write() {
        let channel = |offset| Channel { offset, length: 8 };
        for (width, height, cell, padding) in [(8, 5, 4, 0), (8, 5, 2, 0), (8, 5, 4, 3), (8, 2, 3, 0)] {
            let line_length = width * cell + padding;
            let geometry = Geometry {
                width: width as u32,
                height: height as u32,
                xoffset: 0,
                yoffset: 0,
                bits_per_pixel: 8 * cell as u32,
                line_length: line_length as u32,
                red: channel(16),
                green: channel(8),
                blue: channel(0),
                transparency: Channel { offset: 0, length: 0 },
            };
            let grid = Grid { width, height, cell, tile: (1, 1) };
            for (x, y, count) in (0..width).flat_map(|x| (0..height).flat_map(move |y| (1..=width - x).map(move |count| (x, y, count)))) {
                let (first, cells) = span(grid, &geometry, (x, y), count);
                let offset = first / width * line_length + first % width * cell;
                let (x1, x2, y1, y2) = clip(line_length, cell, width, (offset, cells * cell));
                assert!(x1 <= x && x2 >= x + count && y1 <= y && y2 > y, "{count} cells at {x}, {y} of {geometry:?}");
                assert!(first + cells <= width * height);
            }
        }
    }
}
