//! Screens that say how the daemon is, in letters as large as the panel takes.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, RgbColor};
use eomt_edge_core::overlay::Canvas;

use super::panel::Depth;
use super::text::{largest, wrap};
use crate::sink::State;

impl State {
    fn words(&self) -> &'static str {
        match self {
            State::Starting => "STARTING",
            State::NoSignal => "NO SIGNAL",
            State::ModelError(_) => "MODEL ERROR",
            State::Failure(_) => "ERROR",
            State::Stopped => "STOPPED",
        }
    }

    /// A sentence for those who come nearer.
    fn detail(&self) -> &str {
        match self {
            State::ModelError(reason) | State::Failure(reason) => reason,
            _ => "",
        }
    }

    /// Whether it should stay long enough to be read, also when frames come.
    pub fn is_failure(&self) -> bool {
        matches!(self, State::ModelError(_) | State::Failure(_))
    }

    /// (background, letters)
    fn colours(&self, depth: Depth) -> (Rgb888, Rgb888) {
        let background = match (depth, self) {
            (Depth::Mono, _) | (_, State::Stopped) => Rgb888::BLACK,
            (_, State::Starting) => Rgb888::new(0, 40, 110),
            (_, State::NoSignal) => return (Rgb888::new(255, 190, 0), Rgb888::BLACK),
            (_, State::ModelError(_) | State::Failure(_)) => Rgb888::new(150, 0, 0),
        };
        (background, Rgb888::WHITE)
    }

    /// Fills the canvas. One word a line or all in one, whichever is larger; the detail below where there is room for it.
    pub fn draw(&self, canvas: &mut Canvas, depth: Depth) {
        let (background, ink) = self.colours(depth);
        let Ok(()) = canvas.clear(background);
        let (width, height) = (canvas.width, canvas.height);
        let room_for_detail = !self.detail().is_empty() && height >= 120;
        let room = (width - width / 20, if room_for_detail { height * 3 / 5 } else { height });
        let (one, many) = (vec![self.words()], self.words().split(' ').collect::<Vec<_>>());
        let area = |lines: &[&str]| {
            let (width, height) = largest(lines, room).glyph();
            width * height
        };
        let lines = if area(&one) >= area(&many) { one } else { many };
        let face = largest(&lines, room);
        let glyph = face.glyph();
        let top = room.1.saturating_sub(glyph.1 * lines.len()) / 2;
        for (row, line) in lines.iter().enumerate() {
            let left = width.saturating_sub(line.chars().count() * glyph.0) / 2;
            face.draw(canvas, line, (left, top + row * glyph.1), ink);
        }
        if room_for_detail {
            let columns = 30.max(width / 20);
            let small = largest(&["x".repeat(columns).as_str()], (width - width / 20, height / 8));
            let glyph = small.glyph();
            let rows = (height - room.1) / glyph.1;
            for (row, line) in wrap(self.detail(), (width - width / 20) / glyph.0).iter().take(rows).enumerate() {
                small.draw(canvas, line, (width / 40, room.1 + row * glyph.1), ink);
            }
        }
    }
}
