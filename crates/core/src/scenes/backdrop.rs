//! What stands still: floor, wall and perhaps sky, painted once.

use super::rng::Rng;
use super::texture::{Texture, Window};

/// Segment ids of the three; objects count on from [`FIRST_OBJECT`].
pub(super) const FLOOR: u16 = 1;
pub(super) const WALL: u16 = 2;
pub(super) const SKY: u16 = 3;
pub(super) const FIRST_OBJECT: u16 = 4;

/// Rows of doubled pixels at which the wall ends (`horizon`) and begins (`skyline`, 0 for no sky).
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    pub skyline: usize,
    pub horizon: usize,
}

pub(super) struct Backdrop {
    /// In doubled pixels.
    width: usize,
    lines: Lines,
    /// `[height, width, 3]` doubled pixels, fixed point.
    pixels: Vec<i16>,
}

impl Backdrop {
    /// Random surfaces for the part `window` of a scene; `lines` count from the top of that window.
    pub(super) fn new(rng: &mut Rng, window: Window, lines: Lines) -> Backdrop {
        let (brightness, tint) = (rng.uniform(60.0, 150.0), rng.triple(-25.0, 25.0));
        // A floor leans to the warm side.
        let floor = Texture::random(rng, [brightness + tint[0] + 10.0, brightness + tint[1], brightness + tint[2] - 15.0]);
        let (brightness, tint) = (rng.uniform(120.0, 215.0), rng.triple(-35.0, 35.0));
        let wall = Texture::random(rng, tint.map(|shift| brightness + shift));
        let (tint, haze) = (rng.triple(-25.0, 25.0), rng.uniform(10.0, 60.0));
        // `plain` puts its base colour into the middle of the square; the sky's is the one at the top.
        let sky = Texture::plain([0, 1, 2].map(|c| [110.0, 165.0, 225.0][c] + tint[c] + haze / 2.0), [0.0, haze]);

        let mut pixels = vec![0; window.width * window.height * 3];
        let horizon = lines.horizon.min(window.height);
        let skyline = lines.skyline.min(horizon);
        for (texture, first, last) in [(&sky, 0, skyline), (&wall, skyline, horizon), (&floor, horizon, window.height)] {
            let band = Window { top: window.top + first as i32, height: last - first, ..window };
            texture.paint(band, &mut pixels[first * window.width * 3..last * window.width * 3]);
        }
        Backdrop { width: window.width, lines, pixels }
    }

    /// Rows `2 * y` and `2 * y + 1`.
    pub(super) fn rows(&self, y: usize) -> &[i16] {
        &self.pixels[y * self.width * 6..][..self.width * 6]
    }

    /// The segment that doubled row `y` belongs to.
    pub(super) fn id(&self, y: usize) -> u16 {
        if y < self.lines.skyline {
            SKY
        } else if y < self.lines.horizon {
            WALL
        } else {
            FLOOR
        }
    }
}
