//! OLED controllers as their datasheets describe them: SSD1306 1.1, SH1106 2.3. What goes to them, and what they show.

use std::sync::{Arc, Mutex};

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

use super::super::oled::Oled;
use super::super::panel::Panel;
use super::{config, send_pictures};
use crate::config::{Controller, DisplayConfig};

/// Memory of both: 8 pages; columns: 128 (SSD1306), 132 (SH1106).
const PAGES: usize = 8;

#[derive(Debug)]
struct Registers {
    controller: Controller,
    pending: Vec<u8>,
    memory: Vec<[u8; PAGES]>,
    horizontal: bool,
    columns: (usize, usize),
    pages: (usize, usize),
    column: usize,
    page: usize,
    on: bool,
    turned: (bool, bool),
    rows: usize,
    pump: bool,
}

impl Registers {
    /// Bytes after a command byte; `None` = unknown to this controller.
    fn parameters(&self, command: u8) -> Option<usize> {
        let ssd1306 = self.controller == Controller::Ssd1306;
        match command {
            0x00..=0x1f | 0x40..=0x7f | 0xa0 | 0xa1 | 0xa4..=0xa7 | 0xae | 0xaf | 0xb0..=0xb7 | 0xc0..=0xcf => Some(0),
            0x81 | 0xa8 | 0xd3 | 0xd5 | 0xd9 | 0xda | 0xdb => Some(1),
            0x20 | 0x8d if ssd1306 => Some(1),
            0x21 | 0x22 if ssd1306 => Some(2),
            0x2e | 0x2f if ssd1306 => Some(0),
            // DC-DC of the SH1106; internal reference current of the SSD1306B on the smallest panels
            0xad => Some(1),
            0x30..=0x33 if !ssd1306 => Some(0),
            _ => None,
        }
    }

    fn command(&mut self, byte: u8) {
        self.pending.push(byte);
        let command = self.pending[0];
        let Some(count) = self.parameters(command) else { panic!("{:?} does not know command {command:#04x}", self.controller) };
        if self.pending.len() <= count {
            return;
        }
        let bytes = std::mem::take(&mut self.pending);
        match command {
            0x00..=0x0f => self.column = self.column & 0xf0 | usize::from(command & 0x0f),
            0x10..=0x1f => self.column = self.column & 0x0f | usize::from(command & 0x0f) << 4,
            0xb0..=0xb7 => self.page = usize::from(command & 7),
            0x20 => self.horizontal = bytes[1] == 0,
            0x21 => {
                self.columns = (usize::from(bytes[1]), usize::from(bytes[2]));
                assert!(self.columns.0 <= self.columns.1 && self.columns.1 < 128, "columns {:?}", self.columns);
                self.column = self.columns.0;
            }
            0x22 => {
                self.pages = (usize::from(bytes[1]), usize::from(bytes[2]));
                assert!(self.pages.0 <= self.pages.1 && self.pages.1 < PAGES, "pages {:?}", self.pages);
                self.page = self.pages.0;
            }
            0xa0 | 0xa1 => self.turned.0 = command == 0xa0,
            0xc0..=0xcf => self.turned.1 = command & 8 == 0,
            0xa8 => self.rows = usize::from(bytes[1]) + 1,
            0x8d => self.pump = bytes[1] & 4 != 0,
            0xad if self.controller == Controller::Sh1106 => self.pump = bytes[1] == 0x8b,
            0xae | 0xaf => self.on = command == 0xaf,
            _ => {}
        }
    }

    fn data(&mut self, byte: u8) {
        assert!(self.pending.is_empty(), "data in the middle of a command");
        self.memory[self.column][self.page] = byte;
        self.column += 1;
        if self.horizontal && self.column > self.columns.1 {
            self.column = self.columns.0;
            self.page = if self.page == self.pages.1 { self.pages.0 } else { self.page + 1 };
        }
    }
}

#[derive(Debug, Clone)]
struct Bus(Arc<Mutex<Registers>>);

#[derive(Debug)]
struct Nobody;

impl embedded_hal::i2c::Error for Nobody {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address)
    }
}

impl ErrorType for Bus {
    type Error = Nobody;
}

impl I2c for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Nobody> {
        if address != 0x3c {
            return Err(Nobody);
        }
        let mut registers = self.0.lock().expect("one thread");
        for operation in operations {
            let Operation::Write(bytes) = operation else { panic!("{operation:?}: the panel is only written to") };
            let (control, rest) = bytes.split_first().expect("a control byte");
            match control {
                0x00 => rest.iter().for_each(|byte| registers.command(*byte)),
                0x40 => rest.iter().for_each(|byte| registers.data(*byte)),
                other => panic!("control byte {other:#04x}"),
            }
            assert!(registers.pending.is_empty(), "a command ends with its message");
        }
        Ok(())
    }
}

fn bus(controller: Controller) -> Bus {
    let columns = if controller == Controller::Sh1106 { 132 } else { 128 };
    Bus(Arc::new(Mutex::new(Registers {
        controller,
        pending: Vec::new(),
        memory: vec![[0xa5; PAGES]; columns],
        horizontal: false,
        columns: (0, 127),
        pages: (0, 7),
        column: 0,
        page: 0,
        on: false,
        turned: (false, false),
        rows: 64,
        pump: false,
    })))
}

fn shows_the_picture(config: &DisplayConfig, first_column: usize) {
    let bus = bus(config.controller());
    let mut oled = Oled::start(config, bus.clone()).expect("starts");
    let (width, height) = oled.size();
    send_pictures(&mut oled, 12, |rgb| {
        let registers = bus.0.lock().expect("one thread");
        for (column, pages) in registers.memory.iter().enumerate() {
            for y in 0..PAGES * 8 {
                let on = pages[y / 8] >> (y % 8) & 1 == 1;
                let inside = (first_column..first_column + width).contains(&column) && y < height;
                let wanted = if inside { rgb[(y * width + column - first_column) * 3 + 1] >= 128 } else { 0xa5u8 >> (y % 8) & 1 == 1 };
                assert_eq!(on, wanted, "{config:?} at {column}, {y}");
            }
        }
    });
    let registers = bus.0.lock().expect("one thread");
    let turned = config.rotation == 180;
    assert_eq!((registers.on, registers.pump, registers.turned, registers.rows), (true, true, (turned, turned), height));
}

#[test]
fn oleds_show_the_picture() {
    for rotation in ["display.rotation=0", "display.rotation=180"] {
        // first column of the memory that such a panel shows
        let ssd1306 = [("128x64", 0), ("128x32", 0), ("96x16", 0), ("72x40", 28), ("64x48", 32)];
        for (size, first_column) in ssd1306 {
            shows_the_picture(&config(&["display.kind=oled", rotation, &format!("display.size={size}")]), first_column);
        }
        shows_the_picture(&config(&["display.kind=oled", "display.controller=sh1106", rotation]), 2);
    }
}

#[test]
fn nobody_at_the_address_is_an_error_with_a_name() {
    for controller in ["ssd1306", "sh1106"] {
        let config = config(&["display.kind=oled", "display.address=0x3d", &format!("display.controller={controller}")]);
        let error = Oled::start(&config, bus(config.controller())).err().expect("nobody answers").to_string();
        assert!(error.contains("/dev/i2c-1") && error.contains("cannot be opened"), "{error}");
    }
}
