//! A frame and its segments as a picture for people: translucent colours, contours, labels with scores.
//!
//! ```
//! use eomt_edge_overlay::{Segment, paint};
//! let mut rgb = vec![0u8; 2 * 2 * 3];
//! let segment = Segment { id: 1, category_id: 0, score: 0.9, area: 2, bbox: [0, 0, 2, 1], track_id: 0 };
//! paint(&mut rgb, 2, &[1, 1, 0, 0], &[segment], &["ball".to_owned()]);
//! assert_ne!(rgb[..3], [0, 0, 0]);
//! assert_eq!(rgb[6..], [0; 6]); // pixels of no segment stay as they are
//! ```
//!
//! Invariants: a class has the same colour in every frame and on every machine. Refuses: files, scaling.

#![warn(missing_docs)]

mod canvas;
mod labels;

use embedded_graphics::mono_font::MonoFont;

pub use canvas::Canvas;

/// The id of pixels that belong to no segment.
pub const NO_SEGMENT: u16 = 0;

/// One row of the segment table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// 1-based id in the id map; 0 is [`NO_SEGMENT`].
    pub id: u16,
    /// Class index, `0..labels.len()`.
    pub category_id: u16,
    /// Confidence, 0..=1.
    pub score: f32,
    /// Pixels of this segment.
    pub area: u32,
    /// Tight box of those pixels: x, y, width, height.
    pub bbox: [u32; 4],
    /// Identity over frames, 0 = not tracked.
    pub track_id: u32,
}

/// What [`paint_with`] can be told.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Of the segments' colours over the frame, 0 to 1.
    pub opacity: f32,
    /// Of labels; `None` leaves them out.
    pub font: Option<&'static MonoFont<'static>>,
}

/// The colour of a class: hues a golden angle apart, two brightnesses, so that neighbours in the list look different.
pub fn class_colour(class: u16) -> [u8; 3] {
    let hue = (f32::from(class) * 0.618_034 + 0.02).fract() * 6.0;
    let value = if class.is_multiple_of(2) { 1.0 } else { 0.78 };
    let ramp = |shift: f32| {
        let distance = ((hue + shift) % 6.0 - 3.0).abs() - 1.0;
        let pure = distance.clamp(0.0, 1.0);
        (255.0 * value * (0.15 + 0.85 * pure)) as u8
    };
    [ramp(0.0), ramp(4.0), ramp(2.0)]
}

/// Paints segments over `rgb` (`[height, width, 3]`, width given). `ids` is `[height, width]`. A score that is no number is not
/// written.
pub fn paint(rgb: &mut [u8], width: usize, ids: &[u16], table: &[Segment], labels: &[String]) {
    let font = labels::font_for(ids.len() / width.max(1));
    paint_with(rgb, width, ids, table, labels, Style { opacity: 0.45, font: Some(font) });
}

/// [`paint`] in another style.
pub fn paint_with(rgb: &mut [u8], width: usize, ids: &[u16], table: &[Segment], labels: &[String], style: Style) {
    assert_eq!(rgb.len(), ids.len() * 3);
    let height = ids.len() / width.max(1);
    let largest = table.iter().map(|segment| usize::from(segment.id)).max().unwrap_or(0);
    let mut colours = vec![[0u8; 3]; largest + 1];
    for segment in table {
        colours[usize::from(segment.id)] = class_colour(segment.category_id);
    }
    let share = (style.opacity * 20.0).round() as u16;
    for y in 0..height {
        for x in 0..width {
            let at = y * width + x;
            let id = ids[at];
            if id == NO_SEGMENT || usize::from(id) > largest {
                continue;
            }
            let right = x + 1 < width && ids[at + 1] != id;
            let below = y + 1 < height && ids[at + width] != id;
            let colour = colours[usize::from(id)];
            let pixel = &mut rgb[at * 3..at * 3 + 3];
            for (value, target) in pixel.iter_mut().zip(colour) {
                *value =
                    if right || below { target / 4 } else { ((u16::from(*value) * (20 - share) + u16::from(target) * share) / 20) as u8 };
            }
        }
    }
    if let Some(font) = style.font {
        labels::write(rgb, (width, height), ids, table, labels, font);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_classes_differ() {
        for class in 0..150 {
            let (a, b) = (class_colour(class), class_colour(class + 1));
            let distance: i32 = a.iter().zip(b).map(|(a, b)| (i32::from(*a) - i32::from(b)).abs()).sum();
            assert!(distance > 90, "classes {class} and {}: {a:?} {b:?}", class + 1);
        }
    }

    #[test]
    fn labels_are_short_lines() {
        let segment = Segment { id: 1, category_id: 0, score: 0.5, area: 64 * 64, bbox: [0, 0, 64, 64], track_id: 0 };
        let painted = |label: String| {
            let mut rgb = vec![0; 3 * 64 * 64];
            paint(&mut rgb, 64, &[1; 64 * 64], &[segment], &[label]);
            rgb
        };
        assert!(painted("a\r\nb\u{1b}c".to_owned()) == painted("a  b c".to_owned()));
        assert!(painted("x".repeat(1 << 20)) == painted(format!("{}..", "x".repeat(64))));
    }

    #[test]
    fn tiny_pictures_and_unknown_ids_do_not_panic() {
        let segment = Segment { id: 1, category_id: 7, score: 0.5, area: 1, bbox: [0, 0, 1, 1], track_id: 0 };
        paint(&mut [0; 3], 1, &[9], &[segment], &[]);
        paint(&mut [0; 3], 1, &[1], &[segment], &[]);
        paint(&mut [], 0, &[], &[], &[]);
    }
}
