//! Sensor noise, cheap enough for every frame.
//!
//! Drawing a normal number per doubled pixel would cost more than all the rest of a frame. A long strip of them is drawn
//! once instead, and each row of each frame begins at its own place in it: no row repeats visibly, and adding is one pass.

use super::rng::Rng;
use super::texture::ONE;

/// Places at which a row can begin.
const PLACES: usize = 1 << 16;

pub(super) struct Grain {
    strip: Vec<i16>,
    seed: u64,
}

impl Grain {
    /// Noise with the deviation `sigma` (levels per doubled pixel and channel) for rows of `row_len` values.
    pub(super) fn new(rng: &mut Rng, sigma: f64, row_len: usize) -> Grain {
        let scale = sigma * f64::from(ONE);
        // Adding a half before the floor rounds to the nearest, or small deviations would come out too dark.
        let strip = (0..PLACES + row_len).map(|_| (rng.normal() * scale + 0.5).floor() as i16).collect();
        Grain { strip, seed: rng.bits() }
    }

    /// The places where the rows of the frame at `t` seconds begin.
    pub(super) fn places(&self, t: f64) -> Rng {
        // Adding zero makes -0.0 and 0.0 the same time.
        Rng::new(self.seed, (t + 0.0).to_bits())
    }

    /// As many values as the row has, from the next place.
    pub(super) fn next(&self, places: &mut Rng, row_len: usize) -> &[i16] {
        &self.strip[places.choice(0, PLACES)..][..row_len]
    }

    #[cfg(test)]
    pub(super) fn silence(&mut self) {
        self.strip.fill(0);
    }
}
