//! Tests of the display against things that could disagree: pictures, controllers as their datasheets describe them, plain files.

mod changes;
mod controllers;
mod framebuffer;
mod golden;
mod oleds;
mod panels;
mod thread;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use eomt_edge_core::data::{Frame, Segment};

use super::changes::{Grid, Shown};
use super::exchange::Picture;
use super::panel::Panel;
use crate::config::{Config, DisplayConfig};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

fn config(overrides: &[&str]) -> DisplayConfig {
    let overrides: Vec<String> = overrides.iter().map(|item| (*item).to_owned()).collect();
    Config::parse("", &overrides).expect("a valid configuration").display
}

/// The first picture of the shipped clip with the reference's segments.
fn picture() -> Picture {
    let rgb = image::open(data("clip/000000.png")).expect("PNG").into_rgb8();
    let ids: Vec<u16> = image::open(data("clip-expected/000000.png")).expect("PNG").into_luma8().iter().map(|id| u16::from(*id)).collect();
    let (width, height) = rgb.dimensions();
    let rows = [(2, 0.82), (6, 1.0), (8, 1.0), (4, 0.95), (7, 1.0), (5, 0.91)];
    let segment = |(index, (category_id, score)): (usize, &(u16, f32))| {
        let id = index as u16 + 1;
        let area = ids.iter().filter(|of| **of == id).count() as u32;
        Segment { id, category_id: *category_id, score: *score, area, bbox: [0, 0, width, height], track_id: 0 }
    };
    let labels: Vec<String> = ["ball", "box", "cone", "star", "ring", "bar", "floor", "wall", "sky"].map(str::to_owned).to_vec();
    Picture {
        frame: Frame::rgb(width, height, rgb.into_raw()),
        table: rows.iter().enumerate().map(segment).collect(),
        ids,
        labels: Arc::from(labels),
        published: 1,
        published_ns: 0,
    }
}

/// A small generator of reproducible numbers (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// A picture in full, then random rectangles of it anew, each sent as the display thread does; `check` sees every picture.
fn send_pictures(panel: &mut dyn Panel, rounds: usize, mut check: impl FnMut(&[u8])) {
    let ((width, height), grid): (_, Grid) = (panel.size(), panel.grid());
    let mut numbers = Numbers(7);
    let mut shown = Shown::new(grid);
    let mut rgb = numbers.bytes(width * height * 3);
    let mut cells = vec![0; grid.bytes()];
    for _ in 0..rounds {
        panel.encode(&rgb, &mut cells);
        for area in shown.update(&cells) {
            panel.send(&cells, *area).expect("sent");
        }
        check(&rgb);
        let (x, y) = (numbers.below(width), numbers.below(height));
        let (w, h) = (1 + numbers.below(width - x), 1 + numbers.below(height - y));
        for row in y..y + h {
            let bytes = numbers.bytes(w * 3);
            rgb[(row * width + x) * 3..][..w * 3].copy_from_slice(&bytes);
        }
    }
}
