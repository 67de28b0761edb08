//! Controllers of SPI panels as their datasheets describe them: ST7789V 1.6, ILI9341 1.11, ST7735S 1.4.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use embedded_hal::digital::{ErrorType as PinErrorType, OutputPin};
use embedded_hal::spi::{ErrorType, Operation, SpiDevice};

use crate::config::Controller;

const SWRESET: u8 = 0x01;
const SLPOUT: u8 = 0x11;
const NORON: u8 = 0x13;
const INVOFF: u8 = 0x20;
const INVON: u8 = 0x21;
const DISPON: u8 = 0x29;
const CASET: u8 = 0x2a;
const RASET: u8 = 0x2b;
const RAMWR: u8 = 0x2c;
const MADCTL: u8 = 0x36;
const COLMOD: u8 = 0x3a;

/// Parameters that a command takes; `None` = the controller does not know it.
fn parameters(controller: Controller, command: u8) -> Option<usize> {
    match command {
        SWRESET | SLPOUT | NORON | INVOFF | INVON | DISPON => Some(0),
        CASET | RASET => Some(4),
        MADCTL | COLMOD => Some(1),
        0xb4 if controller != Controller::St7789 => Some(1),        // inversion control
        0xb1 | 0xb2 if controller == Controller::St7735 => Some(3), // frame rate
        0xb3 if controller == Controller::St7735 => Some(6),
        0xc0 if controller == Controller::St7735 => Some(3), // power
        0xc1 if controller == Controller::St7735 => Some(1),
        0xc2..=0xc4 if controller == Controller::St7735 => Some(2),
        0xc5 if controller == Controller::St7735 => Some(1),         // VCOM
        0xe0 | 0xe1 if controller == Controller::St7735 => Some(16), // gamma
        _ => None,
    }
}

/// A controller's registers and memory.
#[derive(Debug)]
pub struct Registers {
    controller: Controller,
    is_data: bool,
    command: u8,
    data: Vec<u8>,
    pub awake: bool,
    pub on: bool,
    pub inverted: bool,
    madctl: u8,
    colmod: u8,
    columns: (usize, usize),
    rows: (usize, usize),
    memory: Vec<u16>,
    /// Low levels seen at the reset pin.
    pub resets: usize,
    /// Pixels written since it was last asked.
    pub pixels: usize,
}

impl Registers {
    fn new(controller: Controller) -> Registers {
        let (width, height) = controller.memory();
        Registers {
            controller,
            is_data: false,
            command: 0,
            data: Vec::new(),
            awake: false,
            on: false,
            inverted: false,
            madctl: 0,
            colmod: 0,
            columns: (0, 0),
            rows: (0, 0),
            // noise, as after power-on
            memory: (0..width * height).map(|at| (at * 40503) as u16).collect(),
            resets: 0,
            pixels: 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        assert!(!bytes.is_empty() && bytes.len() <= 4096, "a transfer of {} bytes", bytes.len());
        if self.is_data {
            self.data.extend_from_slice(bytes);
            return;
        }
        assert_eq!(bytes.len(), 1, "one command at a time");
        self.finish();
        self.command = bytes[0];
    }

    /// A command has all its parameters when the next one begins.
    fn finish(&mut self) {
        let data = std::mem::take(&mut self.data);
        if self.command == RAMWR {
            self.fill_window(&data);
        } else if self.command != 0 {
            let known = parameters(self.controller, self.command);
            assert_eq!(known, Some(data.len()), "{:?}: command {:#04x} with {data:02x?}", self.controller, self.command);
            self.set(&data);
        }
        self.command = 0;
    }

    fn set(&mut self, data: &[u8]) {
        let pair = || {
            let word = |at: usize| usize::from(u16::from_be_bytes([data[at], data[at + 1]]));
            assert!(word(0) <= word(2), "a window from {} to {}", word(0), word(2));
            (word(0), word(2))
        };
        let memory = self.controller.memory();
        let swapped = self.madctl & 0x20 != 0;
        let (columns, rows) = if swapped { (memory.1, memory.0) } else { memory };
        match self.command {
            SLPOUT => self.awake = true,
            DISPON => self.on = true,
            INVON | INVOFF => self.inverted = self.command == INVON,
            MADCTL => self.madctl = data[0],
            COLMOD => self.colmod = data[0],
            CASET => {
                self.columns = pair();
                assert!(self.columns.1 < columns as usize, "columns {:?} of {columns}", self.columns);
            }
            RASET => {
                self.rows = pair();
                assert!(self.rows.1 < rows as usize, "rows {:?} of {rows}", self.rows);
            }
            _ => {}
        }
    }

    /// MV exchanges column and row, then MX and MY mirror what lies in memory (ST7789V, "Memory data access control").
    fn fill_window(&mut self, data: &[u8]) {
        assert!(self.awake && self.colmod & 7 == 5, "16 bits per pixel, awake");
        let (width, height) = (self.columns.1 - self.columns.0 + 1, self.rows.1 - self.rows.0 + 1);
        assert_eq!(data.len(), width * height * 2, "the window {width}x{height} is filled exactly");
        let (memory_width, memory_height) = self.controller.memory();
        for (at, bytes) in data.chunks_exact(2).enumerate() {
            let (x, y) = (self.columns.0 + at % width, self.rows.0 + at / width);
            let (x, y) = if self.madctl & 0x20 != 0 { (y, x) } else { (x, y) };
            let x = if self.madctl & 0x40 != 0 { memory_width as usize - 1 - x } else { x };
            let y = if self.madctl & 0x80 != 0 { memory_height as usize - 1 - y } else { y };
            self.memory[y * memory_width as usize + x] = u16::from_be_bytes([bytes[0], bytes[1]]);
        }
        self.pixels += width * height;
    }

    pub fn is_bgr(&self) -> bool {
        self.madctl & 0x08 != 0
    }

    /// What the panel shows at (x, y) of its own, unturned pixels.
    pub fn shown(&mut self, offset: [u32; 2], x: usize, y: usize) -> u16 {
        self.finish();
        self.memory[(offset[1] as usize + y) * self.controller.memory().0 as usize + offset[0] as usize + x]
    }
}

/// The wires to one controller.
#[derive(Debug, Clone)]
pub struct Bus(pub Arc<Mutex<Registers>>);

#[derive(Debug)]
pub struct DataCommand(Bus);

#[derive(Debug)]
pub struct ResetPin(Bus);

impl Bus {
    pub fn new(controller: Controller) -> Bus {
        Bus(Arc::new(Mutex::new(Registers::new(controller))))
    }

    pub fn dc(&self) -> DataCommand {
        DataCommand(self.clone())
    }

    pub fn reset(&self) -> ResetPin {
        ResetPin(self.clone())
    }
}

impl ErrorType for Bus {
    type Error = Infallible;
}

impl SpiDevice for Bus {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        for operation in operations {
            let Operation::Write(bytes) = operation else { panic!("{operation:?}: the panel is only written to") };
            self.0.lock().expect("one thread").write(bytes);
        }
        Ok(())
    }
}

impl PinErrorType for DataCommand {
    type Error = Infallible;
}

impl OutputPin for DataCommand {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.0.lock().expect("one thread").is_data = false;
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.0.lock().expect("one thread").is_data = true;
        Ok(())
    }
}

impl PinErrorType for ResetPin {
    type Error = Infallible;
}

impl OutputPin for ResetPin {
    fn set_low(&mut self) -> Result<(), Infallible> {
        let mut registers = self.0.0.lock().expect("one thread");
        *registers = Registers { resets: registers.resets + 1, ..Registers::new(registers.controller) };
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
