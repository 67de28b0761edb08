//! Label and score of each segment, on a dark plate at the segment's middle.

use embedded_graphics::mono_font::{MonoFont, MonoTextStyle, iso_8859_1};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{Drawable, Point, Primitive, RgbColor, Size};
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};

use super::canvas::Canvas;
use super::{Segment, segment_colour};

/// A readable size for a picture of this height, from a metre away on a small display as well as in a file.
pub(super) fn font_for(height: usize) -> &'static MonoFont<'static> {
    match height {
        0..200 => &iso_8859_1::FONT_5X8,
        200..400 => &iso_8859_1::FONT_6X10,
        400..800 => &iso_8859_1::FONT_7X13,
        _ => &iso_8859_1::FONT_10X20,
    }
}

/// The most characters of a label: about as many as fit beside each other on the largest display.
const CHARS_MAX: usize = 64;

/// Largest segments first, so that small ones, written later, stay readable.
pub(super) fn write(
    rgb: &mut [u8],
    (width, height): (usize, usize),
    ids: &[u16],
    table: &[Segment],
    labels: &[String],
    font: &'static MonoFont<'static>,
) {
    let glyph = font.character_size;
    let mut order: Vec<&Segment> = table.iter().filter(|segment| segment.area >= glyph.width * glyph.height).collect();
    order.sort_by_key(|segment| std::cmp::Reverse(segment.area));
    let mut canvas = Canvas { rgb, width, height };
    let mut taken: Vec<Rectangle> = Vec::new();
    for segment in order {
        let name = plain(labels.get(usize::from(segment.category_id)).map_or("?", String::as_str));
        let text = if segment.score.is_nan() { name } else { format!("{name} {:.2}", segment.score) };
        let size = Size::new(glyph.width * text.chars().count() as u32 + 2, glyph.height + 1);
        let anchor = anchor(ids, width, segment);
        let limit = |value: i32, room: usize, need: u32| value.clamp(0, (room as i32 - need as i32).max(0));
        let mut corner = Point::new(limit(anchor.x - size.width as i32 / 2, width, size.width), 0);
        corner.y = limit(anchor.y - size.height as i32 / 2, height, size.height);
        let mut plate = Rectangle::new(corner, size);
        // step down past plates that are in the way, as long as there is room
        while taken.iter().any(|other| overlap(other, &plate)) && plate.top_left.y + 2 * (size.height as i32) < height as i32 {
            plate.top_left.y += size.height as i32;
        }
        taken.push(plate);
        let [r, g, b] = segment_colour(segment).map(|c| c / 5);
        let Ok(()) = plate.into_styled(PrimitiveStyle::with_fill(Rgb888::new(r, g, b))).draw(&mut canvas);
        let style = MonoTextStyle::new(font, Rgb888::WHITE);
        let Ok(_) = Text::with_baseline(&text, plate.top_left + Point::new(1, 1), style, Baseline::Top).draw(&mut canvas);
    }
}

/// A label on one line, and short enough that drawing it takes no time; model files give them.
fn plain(label: &str) -> String {
    let mut name: String = label.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if label.chars().nth(CHARS_MAX).is_some() {
        name.push_str("..");
    }
    name
}

fn overlap(a: &Rectangle, b: &Rectangle) -> bool {
    let common = a.intersection(b).size;
    common.width > 0 && common.height > 0
}

/// A point well inside the segment: the middle of the longest run on its median row.
fn anchor(ids: &[u16], width: usize, segment: &Segment) -> Point {
    let [left, top, box_width, box_height] = segment.bbox.map(|v| v as usize);
    let row = |y: usize| &ids[y * width + left..][..box_width];
    let mut seen = 0;
    let half = segment.area as usize / 2;
    let median = (top..top + box_height)
        .find(|&y| {
            seen += row(y).iter().filter(|&&id| id == segment.id).count();
            seen > half
        })
        .unwrap_or(top + box_height / 2);
    let (mut best, mut run) = ((left + box_width / 2, 0usize), 0usize);
    for (x, &id) in row(median).iter().enumerate() {
        run = if id == segment.id { run + 1 } else { 0 };
        if run > best.1 {
            best = (left + x + 1 - run.div_ceil(2), run);
        }
    }
    Point::new(best.0 as i32, median as i32)
}
