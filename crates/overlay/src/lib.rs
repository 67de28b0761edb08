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
//! Invariants: a class has the same colour in every frame and on every machine, and so has a track. Refuses: files, scaling.

#![warn(missing_docs)]

mod canvas;
mod labels;

use embedded_graphics::mono_font::MonoFont;

pub use canvas::Canvas;

/// The id of pixels that belong to no segment.
pub const NO_SEGMENT: u16 = 0;

/// Pixels that are tinted at once: 24 bytes.
const TOGETHER: usize = 8;

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

/// The colour of a segment: its class's, varied by its track, so that two of a class differ and keep their colours. A segment without a track
/// has that of its class.
pub fn segment_colour(segment: &Segment) -> [u8; 3] {
    let colour = class_colour(segment.category_id);
    if segment.track_id == 0 {
        return colour;
    }
    // three mixtures of the channels in three brightnesses; ids that follow each other differ in brightness
    let step = segment.track_id % 9;
    let [r, g, b] = colour.map(u16::from);
    let mixed = match step / 3 {
        0 => [r, g, b],
        1 => [(r + g) / 2, (g + b) / 2, (b + r) / 2],
        _ => [(r + b) / 2, (g + r) / 2, (b + g) / 2],
    };
    let lit = |level: u16| match step % 3 {
        0 => level,
        1 => level * 3 / 5,
        _ => (2 * level + 255) / 3,
    };
    mixed.map(|level| lit(level) as u8)
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
        colours[usize::from(segment.id)] = segment_colour(segment);
    }
    let share = (style.opacity * 20.0).round() as u16;
    for y in 0..height {
        let (row, below) = ids[y * width..].split_at(width);
        let mut x = 0;
        for run in runs(row) {
            let (start, end) = (x, x + run.len());
            x = end;
            let Some(&colour) = colours.get(usize::from(run[0])).filter(|_| run[0] != NO_SEGMENT) else { continue };
            let (pixels, _) = rgb[(y * width + start) * 3..][..run.len() * 3].as_chunks_mut::<3>();
            tint(pixels, colour, share);
            let dark = colour.map(|value| value / 4);
            if end < width {
                pixels[run.len() - 1] = dark;
            }
            if let Some(below) = below.get(start..end)
                && below != run
            {
                let contour = pixels.iter_mut().zip(below).filter(|(_, id)| **id != run[0]);
                contour.for_each(|(pixel, _)| *pixel = dark);
            }
        }
    }
    if let Some(font) = style.font {
        labels::write(rgb, (width, height), ids, table, labels, font);
    }
}

/// Mixes `share` twentieths of a colour into pixels.
fn tint(pixels: &mut [[u8; 3]], colour: [u8; 3], share: u16) {
    let added = [colour.map(|target| u16::from(target) * share); TOGETHER];
    let mix = |value: &mut u8, added: u16| *value = ((u16::from(*value) * (20 - share) + added) / 20) as u8;
    let (whole, rest) = pixels.as_chunks_mut::<TOGETHER>();
    for pixels in whole {
        // so many at once that compilers make vectors of them
        for (value, &added) in pixels.as_flattened_mut().iter_mut().zip(added.as_flattened()) {
            mix(value, added);
        }
    }
    for (value, &added) in rest.as_flattened_mut().iter_mut().zip(added.as_flattened()) {
        mix(value, added);
    }
}

/// `ids` cut where they change.
pub fn runs(ids: &[u16]) -> impl Iterator<Item = &[u16]> {
    let mut rest = ids;
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        // areas are large: most of the time eight are looked at together
        let (eights, _) = rest.as_chunks::<8>();
        let whole = 8 * eights.iter().take_while(|&eight| *eight == [first; 8]).count();
        let more = rest[whole..].iter().take_while(|&&id| id == first).count();
        let (run, others) = rest.split_at(whole + more);
        rest = others;
        Some(run)
    })
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
    fn two_of_a_class_differ() {
        let colour = |class: u16, track_id: u32| {
            segment_colour(&Segment { id: 1, category_id: class, score: 0.5, area: 1, bbox: [0, 0, 1, 1], track_id })
        };
        for class in 0..150 {
            assert_eq!(colour(class, 0), class_colour(class), "without a track");
            for track in 1..50 {
                for other in track + 1..track + 4 {
                    let (a, b) = (colour(class, track), colour(class, other));
                    let distance: i32 = a.iter().zip(b).map(|(a, b)| (i32::from(*a) - i32::from(b)).abs()).sum();
                    assert!(distance > 40, "class {class}, tracks {track} and {other}: {a:?} {b:?}");
                }
            }
        }
        assert_eq!(colour(3, u32::MAX), colour(3, u32::MAX));
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

    /// Pixel by pixel, as the words say it.
    fn plainly(rgb: &mut [u8], width: usize, ids: &[u16], table: &[Segment], opacity: f32) {
        let share = (opacity * 20.0).round() as u16;
        for (at, &id) in ids.iter().enumerate() {
            let Some(segment) = table.iter().rfind(|segment| segment.id == id).filter(|_| id != NO_SEGMENT) else { continue };
            let right = at % width + 1 < width && ids[at + 1] != id;
            let below = ids.get(at + width).is_some_and(|&other| other != id);
            for (value, target) in rgb[at * 3..at * 3 + 3].iter_mut().zip(segment_colour(segment)) {
                let mixed = (u16::from(*value) * (20 - share) + u16::from(target) * share) / 20;
                *value = if right || below { target / 4 } else { mixed as u8 };
            }
        }
    }

    /// Runs of lengths 1 to `longest`, of ids 0 to 4, of which the table has 1 to 3; a generator without a library.
    fn scattered(pixels: usize, longest: usize, mut state: u32) -> Vec<u16> {
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        let mut ids = Vec::new();
        while ids.len() < pixels {
            let (id, length) = (next() % 5, 1 + next() % longest);
            ids.extend(std::iter::repeat_n(id as u16, length));
        }
        ids.truncate(pixels);
        ids
    }

    #[test]
    fn pixels_are_those_of_the_plain_way() {
        let segment = |id: u16| Segment { id, category_id: id * 5, score: 0.5, area: 1, bbox: [0, 0, 1, 1], track_id: 7 * u32::from(id) };
        let table = [segment(3), segment(1), segment(2)];
        for (seed, (width, height, longest)) in (0..).zip([(1, 1, 1), (1, 9, 2), (9, 1, 4), (37, 23, 1), (40, 17, 11), (64, 30, 400)]) {
            for opacity in [0.0, 0.45, 0.5, 1.0] {
                let ids = scattered(width * height, longest, seed);
                let mut plain: Vec<u8> = (0..3 * ids.len()).map(|at| (at * 7919 % 256) as u8).collect();
                let mut ours = plain.clone();
                plainly(&mut plain, width, &ids, &table, opacity);
                paint_with(&mut ours, width, &ids, &table, &[], Style { opacity, font: None });
                assert!(ours == plain, "{width}x{height}, runs up to {longest}, opacity {opacity}");
            }
        }
    }

    #[test]
    fn runs_are_cut_where_ids_change_and_nowhere_else() {
        for longest in [1, 3, 8, 9, 50] {
            let ids = scattered(1000, longest, longest as u32);
            let plain: Vec<&[u16]> = ids.chunk_by(|a, b| a == b).collect();
            assert_eq!(runs(&ids).collect::<Vec<_>>(), plain);
        }
        assert_eq!(runs(&[]).count(), 0);
    }
}
