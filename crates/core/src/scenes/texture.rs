//! Surfaces: a colour with one kind of detail (none, stripes, clouds, checks) and a slow gradient.
//!
//! A texture is a function over the square of doubled pixels that a scene lives in, so a part of it can be painted
//! without the rest. Values are fixed point, [`ONE`] to a grey level, and not clipped: clipping comes after shading and noise.

use super::rng::{Rng, cos_turns, sin_turns};

/// Fixed-point units per grey level. With 4 fractional bits an `i16` holds -2048..2047 levels, ample for anything unclipped.
pub(super) const ONE: i16 = 16;

/// A rectangle of doubled pixels inside (or partly outside) the square `side` x `side` that textures are defined on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub side: usize,
    pub left: i32,
    pub top: i32,
    pub width: usize,
    pub height: usize,
}

enum Detail {
    Plain,
    /// `waves`: periods per side along x and y; `depth` in levels.
    Stripes {
        waves: [f64; 2],
        depth: f64,
    },
    /// A coarse `cells` x `cells` grid of level offsets, enlarged smoothly.
    Clouds {
        cells: usize,
        grid: Vec<[f32; 3]>,
    },
    Checks {
        cells: f32,
        depth: f32,
    },
}

pub(super) struct Texture {
    base: [f32; 3],
    /// Change in levels over one side, along x and y.
    slope: [f32; 2],
    detail: Detail,
}

impl Texture {
    /// A random surface around the colour `base` (levels).
    pub(super) fn random(rng: &mut Rng, base: [f64; 3]) -> Texture {
        let detail = match rng.choice(0, 4) {
            0 => Detail::Plain,
            1 => {
                let (frequency, angle) = (rng.uniform(2.0, 12.0), rng.uniform(0.0, 0.5));
                let waves = [frequency * cos_turns(angle), frequency * sin_turns(angle)];
                Detail::Stripes { waves, depth: rng.uniform(5.0, 18.0) }
            }
            2 => {
                let (cells, deviation) = (rng.choice(4, 24), rng.uniform(6.0, 20.0));
                let mut knot = || (rng.normal() * deviation) as f32;
                let grid = (0..cells * cells).map(|_| [knot(), knot(), knot()]).collect();
                Detail::Clouds { cells, grid }
            }
            _ => Detail::Checks { cells: rng.choice(3, 12) as f32, depth: rng.uniform(8.0, 30.0) as f32 },
        };
        let slope = [rng.uniform(-25.0, 25.0) as f32, rng.uniform(-25.0, 25.0) as f32];
        Texture { base: base.map(|level| level as f32), slope, detail }
    }

    /// One colour and nothing else.
    pub(super) fn plain(base: [f64; 3], slope: [f64; 2]) -> Texture {
        Texture { base: base.map(|level| level as f32), slope: slope.map(|level| level as f32), detail: Detail::Plain }
    }

    /// Paints `window` into `out`: `[height, width, 3]`, fixed point.
    pub(super) fn paint(&self, window: Window, out: &mut [i16]) {
        assert_eq!(out.len(), window.width * window.height * 3, "texture buffer");
        if out.is_empty() {
            return;
        }
        let side = window.side as f64;
        let across: Vec<f64> = (0..window.width).map(|x| (f64::from(window.left) + x as f64) / side).collect();
        let enlarged = self.enlarge(window);
        let mut line = vec![[0.0f32; 3]; window.width];
        for (y, row) in out.chunks_exact_mut(window.width * 3).enumerate() {
            let v = (f64::from(window.top) + y as f64) / side;
            self.detail_row(v, &across, window.side, &enlarged, &mut line);
            for ((pixel, detail), &u) in row.chunks_exact_mut(3).zip(&line).zip(&across) {
                let slope = (u as f32 - 0.5) * self.slope[0] + (v as f32 - 0.5) * self.slope[1];
                for c in 0..3 {
                    pixel[c] = ((self.base[c] + slope + detail[c]) * f32::from(ONE)) as i16;
                }
            }
        }
    }

    /// Level offsets of the row at height `v` (in sides), for the columns at `across` (in sides).
    fn detail_row(&self, v: f64, across: &[f64], side: usize, enlarged: &[[f32; 3]], line: &mut [[f32; 3]]) {
        match &self.detail {
            Detail::Plain => {}
            Detail::Stripes { waves, depth } => {
                for (offset, &u) in line.iter_mut().zip(across) {
                    *offset = [(sin_turns(u * waves[0] + v * waves[1]) * depth) as f32; 3];
                }
            }
            Detail::Clouds { cells, .. } => {
                let taps = Taps::at(v, side, *cells);
                line.fill([0.0; 3]);
                for (&row, &weight) in taps.index.iter().zip(&taps.weight) {
                    let source = &enlarged[row * across.len()..][..across.len()];
                    for (offset, value) in line.iter_mut().zip(source) {
                        (0..3).for_each(|c| offset[c] += weight * value[c]);
                    }
                }
            }
            Detail::Checks { cells, depth } => {
                // An even offset makes every coordinate positive, so that truncation is floor and no check is doubled at 0.
                let parity = |x: f64| (x as f32 * cells + 64.0) as i32;
                let row = parity(v);
                for (offset, &u) in line.iter_mut().zip(across) {
                    *offset = [(((parity(u) + row) & 1) as f32 - 0.5) * depth; 3];
                }
            }
        }
    }

    /// The cloud grid stretched along x: `[cells, window.width]`; empty for the other kinds.
    fn enlarge(&self, window: Window) -> Vec<[f32; 3]> {
        let Detail::Clouds { cells, grid } = &self.detail else { return Vec::new() };
        let columns: Vec<Taps> =
            (0..window.width).map(|x| Taps::at((f64::from(window.left) + x as f64) / window.side as f64, window.side, *cells)).collect();
        let mut out = Vec::with_capacity(cells * window.width);
        for row in grid.chunks_exact(*cells) {
            for taps in &columns {
                let mut sum = [0.0f32; 3];
                for (&i, &weight) in taps.index.iter().zip(&taps.weight) {
                    (0..3).for_each(|c| sum[c] += weight * row[i][c]);
                }
                out.push(sum);
            }
        }
        out
    }
}

/// Four neighbours on a grid and their cubic weights (Keys, a = -1/2), which sum to one.
struct Taps {
    index: [usize; 4],
    weight: [f32; 4],
}

impl Taps {
    /// For the pixel that starts at `place` (in sides) of a grid with `cells` knots per side. Beyond the edge the last knot repeats.
    fn at(place: f64, side: usize, cells: usize) -> Taps {
        let position = (place + 0.5 / side as f64) * cells as f64 - 0.5;
        let first = position.floor();
        let x = (position - first) as f32;
        let weight =
            [((-0.5 * x + 1.0) * x - 0.5) * x, (1.5 * x - 2.5) * x * x + 1.0, ((-1.5 * x + 2.0) * x + 0.5) * x, (0.5 * x - 0.5) * x * x];
        let index = [-1, 0, 1, 2].map(|step| (first as i64 + step).clamp(0, cells as i64 - 1) as usize);
        Taps { index, weight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paint(texture: &Texture, window: Window) -> Vec<i16> {
        let mut out = vec![0; window.width * window.height * 3];
        texture.paint(window, &mut out);
        out
    }

    #[test]
    fn a_part_is_the_part_of_the_whole() {
        let whole = Window { side: 60, left: 0, top: 0, width: 60, height: 60 };
        let part = Window { side: 60, left: 11, top: 23, width: 17, height: 9 };
        for seed in 0..12 {
            let texture = Texture::random(&mut Rng::new(seed, 9), [100.0, 120.0, 140.0]);
            let (all, some) = (paint(&texture, whole), paint(&texture, part));
            for y in 0..9 {
                let start = ((23 + y) * 60 + 11) * 3;
                assert_eq!(some[y * 51..][..51], all[start..start + 51], "seed {seed}, row {y}");
            }
        }
    }

    #[test]
    fn cubic_weights_interpolate() {
        for i in 0..500 {
            let taps = Taps::at(f64::from(i) / 250.0 - 0.5, 250, 7);
            assert!((taps.weight.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(taps.index.iter().all(|&k| k < 7));
        }
        // At the middle of a cell the knot itself.
        let taps = Taps::at(2.5 / 7.0, 1 << 30, 7);
        assert!(taps.index[1] == 2 && (taps.weight[1] - 1.0).abs() < 1e-4 || taps.index[2] == 2 && (taps.weight[2] - 1.0).abs() < 1e-4);
    }

    #[test]
    fn checks_are_square_and_alternate() {
        let texture = Texture { base: [100.0; 3], slope: [0.0; 2], detail: Detail::Checks { cells: 4.0, depth: 20.0 } };
        let out = paint(&texture, Window { side: 8, left: -2, top: 0, width: 12, height: 8 });
        let levels: Vec<i16> = out[..36].chunks(3).map(|pixel| pixel[0] / ONE).collect();
        assert_eq!(levels, [110, 110, 90, 90, 110, 110, 90, 90, 110, 110, 90, 90]);
    }
}
