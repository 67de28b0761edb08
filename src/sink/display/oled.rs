//! 1-bit OLEDs on I2C: SSD1306 by the crate of that name, SH1106 by the few commands below.
//!
//! The crate `sh1106` 0.5 (2023) speaks embedded-hal 0.2 only and sends whole pictures; the controller needs eight commands to
//! start and three to write part of a page. Both controllers keep eight rows, a page, in a byte a column, the uppermost in bit 0.

use std::path::PathBuf;

use embedded_hal::i2c::I2c;
use linux_embedded_hal::I2cdev;
use ssd1306::mode::BasicMode;
use ssd1306::prelude::{
    DisplayRotation, DisplaySize, DisplaySize64x48, DisplaySize72x40, DisplaySize96x16, DisplaySize128x32, DisplaySize128x64, I2CInterface,
};
use ssd1306::{I2CDisplayInterface, Ssd1306, command::AddrMode};

use super::changes::{Area, Grid};
use super::error::DisplayError;
use super::panel::{Depth, Panel};
use crate::config::{Controller, DisplayConfig, FrameSize};

/// What differs between the controllers.
pub trait Chip: Send {
    fn start(&mut self) -> Result<(), String>;

    /// Writes `bytes` (row-major, `area.width * area.height`) to columns and pages.
    fn write(&mut self, area: Area, bytes: &[u8]) -> Result<(), String>;
}

/// A panel of pages.
pub struct Oled {
    device: PathBuf,
    name: String,
    size: FrameSize,
    chip: Box<dyn Chip>,
    bytes: Vec<u8>,
}

impl Oled {
    /// Starts the controller at the other end of `bus`.
    pub fn start<B: I2c + Send + 'static>(config: &DisplayConfig, bus: B) -> Result<Oled, DisplayError> {
        let (device, size) = (config.device(), config.size());
        let turned = config.rotation == 180;
        let mut chip: Box<dyn Chip> = match (config.controller(), size.width, size.height) {
            (Controller::Sh1106, ..) => Box::new(Sh1106 { bus, address: config.address, size, turned }),
            (_, _, 32) => ssd1306(bus, config.address, DisplaySize128x32, turned),
            (_, _, 16) => ssd1306(bus, config.address, DisplaySize96x16, turned),
            (_, _, 40) => ssd1306(bus, config.address, DisplaySize72x40, turned),
            (_, _, 48) => ssd1306(bus, config.address, DisplaySize64x48, turned),
            _ => ssd1306(bus, config.address, DisplaySize128x64, turned),
        };
        let name = format!("{:?} at {}, address {:#04x}", config.controller(), device.display(), config.address).to_lowercase();
        match chip.start() {
            Ok(()) => Ok(Oled { device, name, size, chip, bytes: Vec::new() }),
            Err(reason) => Err(DisplayError::Open { device, reason }),
        }
    }
}

impl Panel for Oled {
    fn describe(&self) -> String {
        format!("{}, {}x{}", self.name, self.size.width, self.size.height)
    }

    fn size(&self) -> (usize, usize) {
        (self.size.width as usize, self.size.height as usize)
    }

    fn depth(&self) -> Depth {
        Depth::Mono
    }

    fn grid(&self) -> Grid {
        Grid { width: self.size.width as usize, height: self.size.height as usize / 8, cell: 1, tile: (8, 1) }
    }

    fn encode(&self, rgb: &[u8], cells: &mut [u8]) {
        let width = self.size.width as usize;
        for (at, cell) in cells.iter_mut().enumerate() {
            let (x, page) = (at % width, at / width);
            *cell = (0..8).map(|bit| u8::from(rgb[((page * 8 + bit) * width + x) * 3 + 1] >= 128) << bit).sum();
        }
    }

    fn send(&mut self, cells: &[u8], area: Area) -> Result<(), DisplayError> {
        let grid = self.grid();
        self.bytes.clear();
        (0..area.height).for_each(|y| self.bytes.extend_from_slice(grid.row(cells, area, y)));
        let written = self.chip.write(area, &self.bytes);
        written.map_err(|reason| DisplayError::Write { device: self.device.clone(), reason })
    }
}

fn ssd1306<B, S>(bus: B, address: u8, size: S, turned: bool) -> Box<dyn Chip>
where
    B: I2c + Send + 'static,
    S: DisplaySize + Send + 'static,
{
    let rotation = if turned { DisplayRotation::Rotate180 } else { DisplayRotation::Rotate0 };
    Box::new(Ssd1306::new(I2CDisplayInterface::new_custom_address(bus, address), size, rotation))
}

impl<B: I2c + Send, S: DisplaySize + Send> Chip for Ssd1306<I2CInterface<B>, S, BasicMode> {
    fn start(&mut self) -> Result<(), String> {
        // horizontal: what is written wraps at the window's right edge to its next page (datasheet 10.1.3)
        self.init_with_addr_mode(AddrMode::Horizontal).map_err(|error| format!("{error:?}: nobody answers at this address"))
    }

    fn write(&mut self, area: Area, bytes: &[u8]) -> Result<(), String> {
        let [left, top, right, bottom] = [area.x, area.y * 8, area.x + area.width, (area.y + area.height) * 8].map(|side| side as u8);
        let (start, end) = ((left + S::OFFSETX, top + S::OFFSETY), (right + S::OFFSETX, bottom + S::OFFSETY));
        let sent = self.set_draw_area(start, end).and_then(|()| self.draw(bytes));
        sent.map_err(|error| format!("{error:?}"))
    }
}

/// The controller with a memory of 132 columns; command bytes: SH1106 datasheet V2.3, "Commands".
struct Sh1106<B> {
    bus: B,
    address: u8,
    size: FrameSize,
    turned: bool,
}

impl<B: I2c> Sh1106<B> {
    fn commands(&mut self, bytes: &[u8]) -> Result<(), String> {
        // control byte 0: only commands follow
        let mut message = [0; 16];
        message[1..=bytes.len()].copy_from_slice(bytes);
        self.bus.write(self.address, &message[..=bytes.len()]).map_err(|error| format!("{error:?}"))
    }
}

impl<B: I2c + Send> Chip for Sh1106<B> {
    fn start(&mut self) -> Result<(), String> {
        let rows = self.size.height as u8;
        let (segments, rows_order) = if self.turned { (0xa0, 0xc0) } else { (0xa1, 0xc8) };
        // pads in alternating order, but for panels of half the rows
        let pads = if rows > 32 { 0x12 } else { 0x02 };
        self.commands(&[0xae])?; // off
        self.commands(&[0xd5, 0x80, 0xa8, rows - 1, 0xd3, 0x00, 0x40])?; // clock, rows, no offset, first line 0
        self.commands(&[0xad, 0x8b])?; // the charge pump of the SH1106
        self.commands(&[segments, rows_order, 0xda, pads])?;
        self.commands(&[0x81, 0x9f, 0xd9, 0x22, 0xdb, 0x35])?; // contrast, pre-charge, VCOM
        self.commands(&[0xa4, 0xa6])?; // memory, not inverted
        self.commands(&[0xaf]) // on
    }

    fn write(&mut self, area: Area, bytes: &[u8]) -> Result<(), String> {
        // the panel shows the middle of the 132 columns
        let column = area.x as u32 + (132 - self.size.width) / 2;
        for (page, row) in bytes.chunks_exact(area.width).enumerate() {
            let page = (area.y + page) as u8;
            self.commands(&[0xb0 | page, 0x10 | (column >> 4) as u8, (column & 0x0f) as u8])?;
            for chunk in row.chunks(32) {
                let mut message = [0x40; 33];
                message[1..=chunk.len()].copy_from_slice(chunk);
                self.bus.write(self.address, &message[..=chunk.len()]).map_err(|error| format!("{error:?}"))?;
            }
        }
        Ok(())
    }
}

/// Opens the bus and starts the panel.
pub fn open(config: &DisplayConfig) -> Result<Box<dyn Panel>, DisplayError> {
    let device = config.device();
    let bus = I2cdev::new(&device).map_err(|error| DisplayError::Open { device, reason: error.to_string() })?;
    Ok(Box::new(Oled::start(config, bus)?))
}
