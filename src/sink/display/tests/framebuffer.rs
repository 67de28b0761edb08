//! The framebuffer writer against plain files of many layouts, read back the way fb.h describes them.

use std::fs::OpenOptions;

use super::super::framebuffer::{Channel, Framebuffer, Geometry};
use super::super::panel::Panel;
use super::send_pictures;

/// Reads a channel back bit by bit, scaled to 8 bits' uppermost.
fn read(pixel: u64, channel: Channel) -> u8 {
    let value = (0..channel.length).map(|bit| ((pixel >> (channel.offset + bit)) & 1) << bit).sum::<u64>();
    (value << 8 >> channel.length) as u8
}

#[test]
fn every_layout_shows_the_picture() {
    let channel = |offset, length| Channel { offset, length };
    let layouts = [
        (16, [channel(11, 5), channel(5, 6), channel(0, 5)], channel(0, 0)),
        (16, [channel(0, 5), channel(5, 6), channel(11, 5)], channel(0, 0)),
        (16, [channel(10, 5), channel(5, 5), channel(0, 5)], channel(15, 1)),
        (24, [channel(16, 8), channel(8, 8), channel(0, 8)], channel(0, 0)),
        (32, [channel(16, 8), channel(8, 8), channel(0, 8)], channel(24, 8)),
        (32, [channel(0, 8), channel(8, 8), channel(16, 8)], channel(0, 0)),
        (32, [channel(20, 10), channel(10, 10), channel(0, 10)], channel(30, 2)),
    ];
    for (index, (bits_per_pixel, [red, green, blue], transparency)) in layouts.into_iter().enumerate() {
        for (rotation, xoffset, yoffset, padding) in [(0, 0, 0, 0), (90, 3, 2, 7), (180, 0, 5, 1), (270, 1, 0, 13)] {
            let (width, height) = (53u32, 38u32);
            let line_length = (width + xoffset) * bits_per_pixel / 8 + padding;
            let geometry = Geometry { width, height, xoffset, yoffset, bits_per_pixel, line_length, red, green, blue, transparency };
            let path = std::env::temp_dir().join(format!("eomt-edge-fb-{index}-{rotation}-{}", std::process::id()));
            let untouched = vec![0x5a; (line_length * (height + yoffset)) as usize];
            std::fs::write(&path, &untouched).expect("a scratch file");
            let file = OpenOptions::new().read(true).write(true).open(&path).expect("opens");
            let mut panel = Framebuffer::with_geometry(&path, file, geometry, rotation).expect("a layout");
            let (w, h) = panel.size();
            let bytes_per_pixel = (bits_per_pixel / 8) as usize;
            send_pictures(&mut panel, 5, |rgb| {
                let memory = std::fs::read(&path).expect("readable");
                assert_eq!(memory.len(), untouched.len(), "nothing beyond the screen is written");
                let mut seen = untouched.clone();
                for (x, y) in (0..h).flat_map(|y| (0..w).map(move |x| (x, y))) {
                    // clockwise: the picture's upper left corner goes to the upper right, lower right, lower left
                    let (px, py) = match rotation {
                        0 => (x, y),
                        90 => (width as usize - 1 - y, x),
                        180 => (width as usize - 1 - x, height as usize - 1 - y),
                        _ => (y, height as usize - 1 - x),
                    };
                    let at = (py + yoffset as usize) * line_length as usize + (px + xoffset as usize) * bytes_per_pixel;
                    let pixel = (0..bytes_per_pixel).map(|byte| u64::from(memory[at + byte]) << (8 * byte)).sum::<u64>();
                    seen[at..at + bytes_per_pixel].copy_from_slice(&memory[at..at + bytes_per_pixel]);
                    let wanted = &rgb[(y * w + x) * 3..][..3];
                    for (channel, level) in [red, green, blue].into_iter().zip(wanted) {
                        let kept = 0xffu8 << (8 - channel.length.min(8));
                        assert_eq!(read(pixel, channel) & kept, level & kept, "{geometry:?}, {rotation} degrees, at {x}, {y}");
                    }
                    let opaque = u64::from(transparency.length > 0) * u64::from(u8::MAX >> (8 - transparency.length.min(8)).min(7));
                    assert!(transparency.length == 0 || (pixel >> transparency.offset) & opaque == opaque, "opaque");
                }
                assert_eq!(memory, seen, "padding and hidden pixels stay as they were");
            });
            std::fs::remove_file(&path).expect("a scratch file");
        }
    }
}

#[test]
fn what_is_no_framebuffer_is_refused() {
    let path = std::env::temp_dir().join(format!("eomt-edge-nofb-{}", std::process::id()));
    std::fs::write(&path, [0; 64]).expect("a scratch file");
    let message = Framebuffer::open(&path, 0).expect_err("no framebuffer").to_string();
    assert!(message.contains("no framebuffer") && message.contains(&path.display().to_string()), "{message}");
    let byte = Channel { offset: 0, length: 8 };
    let good = Geometry {
        width: 4,
        height: 4,
        xoffset: 0,
        yoffset: 0,
        bits_per_pixel: 32,
        line_length: 16,
        red: byte,
        green: byte,
        blue: byte,
        transparency: byte,
    };
    let bad = [
        Geometry { bits_per_pixel: 8, ..good },
        Geometry { width: 0, ..good },
        Geometry { line_length: 15, ..good },
        Geometry { xoffset: 1, ..good },
        Geometry { red: Channel { offset: 28, length: 8 }, ..good },
        Geometry { blue: Channel { offset: u32::MAX, length: 8 }, ..good },
    ];
    for geometry in bad {
        let file = OpenOptions::new().write(true).open(&path).expect("opens");
        let error = Framebuffer::with_geometry(&path, file, geometry, 0).expect_err("a bad layout");
        assert!(error.to_string().contains("not supported"), "{error}");
    }
    std::fs::remove_file(&path).expect("a scratch file");
}
