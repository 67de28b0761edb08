//! What goes to an SPI panel, byte by byte, and what the panel shows then.

use embedded_hal::delay::DelayNs;

use super::super::spi::{Wires, start};
use super::controllers::{Bus, ResetPin};
use super::{config, send_pictures};

struct NoDelay;

impl DelayNs for NoDelay {
    fn delay_ns(&mut self, _: u32) {}
}

#[test]
fn panels_show_the_picture_in_every_rotation() {
    let panels: [&[&str]; 6] = [
        &["display.controller=st7789"],
        &["display.controller=st7789", "display.size=240x240"],
        &["display.controller=st7789", "display.size=135x240", "display.offset=[52, 40]", "display.bgr=true"],
        &["display.controller=ili9341", "display.invert=true"],
        &["display.controller=st7735", "display.offset=[2, 1]"],
        &["display.controller=st7735", "display.size=80x160", "display.offset=[26, 1]"],
    ];
    for (panel, rotation) in panels.into_iter().flat_map(|panel| [0, 90, 180, 270].map(|rotation| (panel, rotation))) {
        let rotation_set = format!("display.rotation={rotation}");
        let config = config(&[&["display.kind=spi", rotation_set.as_str()], panel].concat());
        let bus = Bus::new(config.controller());
        let reset = (rotation == 90).then(|| bus.reset());
        let mut driver = start(&config, Wires::new(bus.clone(), bus.dc()), reset, None, &mut NoDelay).expect("starts");
        let (w, h) = driver.size();
        let (width, height) = (config.size().width as usize, config.size().height as usize);
        send_pictures(driver.as_mut(), 4, |rgb| {
            let mut registers = bus.0.lock().expect("one thread");
            for (x, y) in (0..h).flat_map(|y| (0..w).map(move |x| (x, y))) {
                let (px, py) = match rotation {
                    0 => (x, y),
                    90 => (width - 1 - y, x),
                    180 => (width - 1 - x, height - 1 - y),
                    _ => (y, height - 1 - x),
                };
                let [r, g, b] = [0, 1, 2].map(|channel| u16::from(rgb[(y * w + x) * 3 + channel]));
                let wanted = r / 8 * 2048 + g / 4 * 32 + b / 8;
                assert_eq!(registers.shown(config.offset, px, py), wanted, "{panel:?}, {rotation} degrees, at {x}, {y}");
            }
        });
        let registers = bus.0.lock().expect("one thread");
        assert!(registers.awake && registers.on, "{panel:?}");
        assert_eq!((registers.inverted, registers.is_bgr()), (config.invert(), config.bgr), "{panel:?}");
        assert_eq!(registers.resets, usize::from(rotation == 90));
    }
}

#[test]
fn a_small_change_is_a_small_transfer() {
    let config = config(&["display.kind=spi", "display.size=240x240"]);
    let bus = Bus::new(config.controller());
    let mut panel = start(&config, Wires::new(bus.clone(), bus.dc()), None::<ResetPin>, None, &mut NoDelay).expect("starts");
    let grid = panel.grid();
    let mut shown = super::Shown::new(grid);
    let (mut rgb, mut cells) = (vec![0; 240 * 240 * 3], vec![0; grid.bytes()]);
    for (level, expected) in [(0, 240 * 240), (0, 0), (255, 16 * 16)] {
        rgb[(100 * 240 + 100) * 3] = level;
        panel.encode(&rgb, &mut cells);
        for area in shown.update(&cells) {
            panel.send(&cells, *area).expect("sent");
        }
        let mut registers = bus.0.lock().expect("one thread");
        registers.shown([0, 0], 0, 0);
        assert_eq!(std::mem::take(&mut registers.pixels), expected);
    }
}
