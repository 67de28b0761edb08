//! Colour panels on SPI: commands by `mipidsi`, wires by `linux-embedded-hal`.

use std::path::{Path, PathBuf};

use embedded_graphics::pixelcolor::Rgb565;
use embedded_graphics::pixelcolor::raw::RawU16;
use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiDevice;
use linux_embedded_hal::gpio_cdev::{Chip, LineRequestFlags};
use linux_embedded_hal::spidev::{SpiModeFlags, SpidevOptions};
use linux_embedded_hal::{CdevPin, Delay, SpidevDevice};
use mipidsi::interface::{Interface, InterfaceKind};
use mipidsi::models::{ILI9341Rgb565, Model, ST7735s, ST7789};
use mipidsi::options::{ColorInversion, ColorOrder, Orientation, Rotation};
use mipidsi::{Builder, Display as Driver};

use super::changes::{Area, Grid};
use super::error::DisplayError;
use super::gpio::gpio_chip;
use super::panel::Panel;
use crate::config::{Controller, DisplayConfig};

/// spidev takes no more in one transfer unless its `bufsiz` is raised.
const TRANSFER: usize = 4096;

/// mipidsi's own interface borrows its buffer, ours must live as long as the panel; nor does it send empty writes.
pub struct Wires<S, D> {
    pub spi: S,
    pub dc: D,
    buffer: Vec<u8>,
}

impl<S: SpiDevice, D: OutputPin> Wires<S, D> {
    pub fn new(spi: S, dc: D) -> Wires<S, D> {
        Wires { spi, dc, buffer: Vec::with_capacity(TRANSFER) }
    }

    fn flush(&mut self) -> Result<(), String> {
        let result = if self.buffer.is_empty() { Ok(()) } else { self.spi.write(&self.buffer).map_err(|error| format!("{error:?}")) };
        self.buffer.clear();
        result
    }
}

impl<S: SpiDevice, D: OutputPin> Interface for Wires<S, D> {
    type Word = u8;
    type Error = String;

    const KIND: InterfaceKind = InterfaceKind::Serial4Line;

    fn send_command(&mut self, command: u8, args: &[u8]) -> Result<(), String> {
        self.dc.set_low().map_err(|error| format!("data/command line: {error:?}"))?;
        self.spi.write(&[command]).map_err(|error| format!("{error:?}"))?;
        self.dc.set_high().map_err(|error| format!("data/command line: {error:?}"))?;
        self.buffer.extend_from_slice(args);
        self.flush()
    }

    fn send_pixels<const N: usize>(&mut self, pixels: impl IntoIterator<Item = [u8; N]>) -> Result<(), String> {
        for pixel in pixels {
            if self.buffer.len() + N > TRANSFER {
                self.flush()?;
            }
            self.buffer.extend_from_slice(&pixel);
        }
        self.flush()
    }

    fn send_repeated_pixel<const N: usize>(&mut self, pixel: [u8; N], count: u32) -> Result<(), String> {
        self.send_pixels(std::iter::repeat_n(pixel, count as usize))
    }
}

/// A panel behind its driver.
pub struct SpiPanel<S: SpiDevice, D: OutputPin, M: Model<ColorFormat = Rgb565>, R: OutputPin> {
    device: PathBuf,
    name: String,
    driver: Driver<Wires<S, D>, M, R>,
    size: (usize, usize),
    /// Keeps the line requested, and so the light on.
    _backlight: Option<CdevPin>,
}

/// Resets the panel (by command without a pin for it) and switches it on.
pub fn start<S, D, R, W>(
    config: &DisplayConfig,
    wires: Wires<S, D>,
    reset: Option<R>,
    backlight: Option<CdevPin>,
    delay: &mut W,
) -> Result<Box<dyn Panel>, DisplayError>
where
    S: SpiDevice + Send + 'static,
    D: OutputPin + Send + 'static,
    R: OutputPin + Send + 'static,
    W: DelayNs,
{
    match config.controller() {
        Controller::Ili9341 => start_model(config, ILI9341Rgb565, wires, reset, backlight, delay),
        Controller::St7735 => start_model(config, ST7735s, wires, reset, backlight, delay),
        _ => start_model(config, ST7789, wires, reset, backlight, delay),
    }
}

fn start_model<S, D, M, R, W>(
    config: &DisplayConfig,
    model: M,
    wires: Wires<S, D>,
    reset: Option<R>,
    backlight: Option<CdevPin>,
    delay: &mut W,
) -> Result<Box<dyn Panel>, DisplayError>
where
    S: SpiDevice + Send + 'static,
    D: OutputPin + Send + 'static,
    M: Model<ColorFormat = Rgb565> + Send + 'static,
    R: OutputPin + Send + 'static,
    W: DelayNs,
{
    let (size, [left, top]) = (config.size(), config.offset.map(|offset| offset as u16));
    let failed = |reason: String| DisplayError::Open { device: config.device(), reason };
    let rotation = Rotation::try_from_degree(config.rotation as i32).map_err(|error| failed(format!("{error:?}")))?;
    let builder = Builder::new(model, wires)
        .display_size(size.width as u16, size.height as u16)
        .display_offset(left, top)
        .orientation(Orientation::new().rotate(rotation))
        .invert_colors(if config.invert() { ColorInversion::Inverted } else { ColorInversion::Normal })
        .color_order(if config.bgr { ColorOrder::Bgr } else { ColorOrder::Rgb });
    match reset {
        Some(pin) => {
            let driver = builder.reset_pin(pin).init(delay).map_err(|error| failed(format!("{error:?}")))?;
            Ok(SpiPanel::boxed(config, driver, backlight))
        }
        None => {
            let driver = builder.init(delay).map_err(|error| failed(format!("{error:?}")))?;
            Ok(SpiPanel::boxed(config, driver, backlight))
        }
    }
}

impl<S, D, M, R> SpiPanel<S, D, M, R>
where
    S: SpiDevice + Send + 'static,
    D: OutputPin + Send + 'static,
    M: Model<ColorFormat = Rgb565> + Send + 'static,
    R: OutputPin + Send + 'static,
{
    fn boxed(config: &DisplayConfig, driver: Driver<Wires<S, D>, M, R>, backlight: Option<CdevPin>) -> Box<dyn Panel> {
        let (width, height) = (config.size().width as usize, config.size().height as usize);
        let size = if config.rotation.is_multiple_of(180) { (width, height) } else { (height, width) };
        let name = format!("{:?}", config.controller()).to_lowercase();
        Box::new(SpiPanel { device: config.device(), name, driver, size, _backlight: backlight })
    }
}

impl<S, D, M, R> Panel for SpiPanel<S, D, M, R>
where
    S: SpiDevice + Send,
    D: OutputPin + Send,
    M: Model<ColorFormat = Rgb565> + Send,
    R: OutputPin + Send,
{
    fn describe(&self) -> String {
        format!("{} at {}, {}x{}", self.name, self.device.display(), self.size.0, self.size.1)
    }

    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn grid(&self) -> Grid {
        Grid { width: self.size.0, height: self.size.1, cell: 2, tile: (16, 16) }
    }

    /// RGB565, big-endian: as the bus carries it.
    fn encode(&self, rgb: &[u8], cells: &mut [u8]) {
        for (pixel, cell) in rgb.chunks_exact(3).zip(cells.chunks_exact_mut(2)) {
            let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u16::from);
            cell.copy_from_slice(&((r >> 3) << 11 | (g >> 2) << 5 | b >> 3).to_be_bytes());
        }
    }

    fn send(&mut self, cells: &[u8], area: Area) -> Result<(), DisplayError> {
        let grid = self.grid();
        let cells = (0..area.height).flat_map(|y| grid.row(cells, area, y).chunks_exact(2));
        let pixels = cells.map(|cell| Rgb565::from(RawU16::new(u16::from_be_bytes([cell[0], cell[1]]))));
        let [left, top, right, bottom] = [area.x, area.y, area.x + area.width - 1, area.y + area.height - 1].map(|side| side as u16);
        let sent = self.driver.set_pixels(left, top, right, bottom, pixels);
        sent.map_err(|reason| DisplayError::Write { device: self.device.clone(), reason })
    }
}

/// Opens the bus and the lines, and starts the panel.
pub fn open(config: &DisplayConfig) -> Result<Box<dyn Panel>, DisplayError> {
    let device = config.device();
    let failed = |reason: String| DisplayError::Open { device: device.clone(), reason };
    let mut spi = SpidevDevice::open(&device).map_err(|error| failed(error.to_string()))?;
    let options = SpidevOptions::new().bits_per_word(8).max_speed_hz(config.speed_hz()).mode(SpiModeFlags::SPI_MODE_0).build();
    spi.configure(&options).map_err(|error| failed(format!("no SPI at {} Hz: {error}", config.speed_hz())))?;
    let (chip, how) = gpio_chip(config).map_err(|reason| failed(format!("display.gpio_chip: {reason}")))?;
    log::info!("display: GPIO lines of {} ({how})", chip.display());
    let chip = &chip;
    let dc = output(chip, "dc", config.dc, 0).map_err(failed)?;
    let reset = config.reset.map(|line| output(chip, "reset", line, 1)).transpose().map_err(failed)?;
    let backlight = config.backlight.map(|line| output(chip, "backlight", line, 1)).transpose().map_err(failed)?;
    start(config, Wires::new(spi, dc), reset, backlight, &mut Delay)
}

/// Takes a GPIO line as an output that begins with `level`.
fn output(chip: &Path, key: &str, line: u32, level: u8) -> Result<CdevPin, String> {
    let take = || {
        let handle = Chip::new(chip)?.get_line(line)?.request(LineRequestFlags::OUTPUT, level, "eomt-edge")?;
        CdevPin::new(handle)
    };
    take().map_err(|error| format!("display.{key}: line {line} of {}: {error}", chip.display()))
}
