//! The segments on a panel that knows only on and off: a dithered map, and a list of the classes with their patterns.

use embedded_graphics::mono_font::iso_8859_1::{FONT_5X8, FONT_6X13};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, RgbColor};
use eomt_edge_core::data::NO_SEGMENT;
use eomt_edge_core::overlay::Canvas;

use super::exchange::Picture;
use super::scene::{Scene, letterbox};
use super::text::Face;

/// Ordered dithering, 4x4 (Bayer 1973): a pixel is on where the level exceeds its threshold.
const BAYER: [[u8; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];

/// Sixteenths of pixels that are on, by place in the list: neighbours in it are far apart in brightness.
const LEVELS: [u8; 6] = [16, 4, 10, 7, 13, 2];

/// A class's pattern in the list (width, height), frame included.
const SWATCH: (usize, usize) = (11, 11);

fn is_on(level: u8, x: usize, y: usize) -> bool {
    BAYER[y % 4][x % 4] < level
}

fn set(canvas: &mut Canvas, x: usize, y: usize, on: bool) {
    if x < canvas.width && y < canvas.height {
        canvas.rgb[(y * canvas.width + x) * 3..][..3].fill(if on { 255 } else { 0 });
    }
}

/// Fills the canvas with black and white: the map at the left, the list at the right, `status` below the map.
pub fn draw(scene: &mut Scene, canvas: &mut Canvas, picture: &Picture, status: &str) {
    let size = (picture.frame.width as usize, picture.frame.height as usize);
    if size.0 == 0 || size.1 == 0 || picture.ids.len() != size.0 * size.1 {
        return;
    }
    let Ok(()) = canvas.clear(Rgb888::BLACK);
    let small = Face { font: &FONT_5X8, scale: 1 };
    let room = (canvas.width / 2 - 2, canvas.height);
    let map = letterbox(size, room);
    scene.fit_segments(picture, (map.width, map.height));
    let classes = classes(scene);
    let level_of: Vec<(u16, u8)> = scene.table.iter().map(|segment| (segment.id, level(&classes, segment.category_id))).collect();
    let ids = &scene.ids;
    for y in 0..map.height {
        for x in 0..map.width {
            let id = ids[y * map.width + x];
            let edge =
                (x + 1 < map.width && ids[y * map.width + x + 1] != id) || (y + 1 < map.height && ids[(y + 1) * map.width + x] != id);
            let level = level_of.iter().find(|(of, _)| *of == id && id != NO_SEGMENT).map_or(0, |(_, level)| *level);
            // contours are dark: most patterns are not
            set(canvas, x, y, is_on(level, x, y) && !edge);
        }
    }
    if map.height + small.glyph().1 <= canvas.height {
        small.draw(canvas, status, (0, canvas.height - small.glyph().1), Rgb888::WHITE);
    }
    write_list(canvas, room.0 + 3, &classes, picture);
}

/// Classes, the largest first.
fn classes(scene: &Scene) -> Vec<u16> {
    let mut areas: Vec<(u32, u16)> = Vec::new();
    for segment in &scene.table {
        match areas.iter_mut().find(|(_, class)| *class == segment.category_id) {
            Some((area, _)) => *area += segment.area,
            None => areas.push((segment.area, segment.category_id)),
        }
    }
    areas.sort_by_key(|(area, class)| (std::cmp::Reverse(*area), *class));
    areas.into_iter().map(|(_, class)| class).collect()
}

fn level(classes: &[u16], class: u16) -> u8 {
    let place = classes.iter().position(|of| *of == class).unwrap_or(0);
    LEVELS[place % LEVELS.len()]
}

/// One class a line: its pattern, its name as far as it fits.
fn write_list(canvas: &mut Canvas, left: usize, classes: &[u16], picture: &Picture) {
    let face = Face { font: &FONT_6X13, scale: 1 };
    let (glyph_width, pitch) = face.glyph();
    let name_at = left + SWATCH.0 + 2;
    let columns = canvas.width.saturating_sub(name_at) / glyph_width;
    for (row, class) in classes.iter().take(canvas.height / pitch).enumerate() {
        let top = row * pitch;
        for (y, x) in (0..SWATCH.1).flat_map(|y| (0..SWATCH.0).map(move |x| (y, x))) {
            let border = x == 0 || x == SWATCH.0 - 1 || y == 0 || y == SWATCH.1 - 1;
            set(canvas, left + x, top + 1 + y, border || is_on(level(classes, *class), left + x, top + y));
        }
        let name: String = picture.labels.get(usize::from(*class)).map_or("?", String::as_str).chars().take(columns).collect();
        face.draw(canvas, &name, (name_at, top), Rgb888::WHITE);
    }
}
