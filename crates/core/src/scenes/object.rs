//! One thing on the table: its outline, surface, soft shadow and path, and how it is laid over two rows of doubled pixels.
//!
//! Surface and shadow are painted once, as square patches around the object at rest; a turned object looks its pixels up
//! through the inverse turn. (A turned blur is the blur of the turned shape, so the shadow needs no blurring per frame.)

use super::blur::blur;
use super::outline::{Form, Outline, Pose};
use super::rng::{Rng, sin_turns};
use super::texture::{Texture, Window};

/// Deviation of a shadow's blur, as a part of the square's side.
const SHADOW_BLUR: f64 = 0.012;
/// How much of the light a full shadow takes.
const SHADOW_DEPTH: f64 = 0.35;
/// Where a shadow lies from its object: radii to the right and down.
const SHADOW_OFFSET: [f64; 2] = [0.25, 0.3];
/// How much darker the lower right rim of an object is, and how much lighter the upper left one.
const SHADING: f32 = 0.35;

/// A sinusoid along each axis and a steady turn. Lengths in doubled pixels, rates in 1/s, phases in turns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub centre: [f64; 2],
    pub sway: [f64; 2],
    pub rate: [f64; 2],
    pub phase: [f64; 2],
    pub spin: f64,
}

impl Path {
    pub(super) fn resting(centre: [f64; 2]) -> Path {
        Path { centre, sway: [0.0; 2], rate: [0.0; 2], phase: [0.0; 2], spin: 0.0 }
    }

    /// At `t` seconds. The turn is zero at `t` = 0.
    pub(super) fn at(&self, t: f64) -> Pose {
        let along = |axis: usize| self.centre[axis] + self.sway[axis] * sin_turns(self.rate[axis] * t + self.phase[axis]);
        Pose::new(along(0), along(1), self.spin * t)
    }
}

/// A square of `2 * half` doubled pixels around an object's centre.
#[derive(Debug)]
struct Patch<T> {
    half: usize,
    data: Vec<T>,
}

impl<T> Patch<T> {
    /// Index of the pixel at the offset `(u, v)` from the centre; beyond the patch, its nearest pixel.
    fn index(&self, u: f32, v: f32) -> usize {
        let (half, side) = (self.half as f32, 2 * self.half);
        // A float to integer cast saturates at zero, which is the clamp from below.
        let (x, y) = (((u + half) as usize).min(side - 1), ((v + half) as usize).min(side - 1));
        y * side + x
    }
}

pub(super) struct Object {
    pub class: u16,
    radius: f64,
    path: Path,
    /// Around the origin, not turned.
    outline: Outline,
    surface: Patch<[i16; 3]>,
    /// Part of the light that is lost, in 1/65536.
    shadow: Option<Patch<u16>>,
    pose: Pose,
    /// `outline` at `pose`.
    placed: Outline,
}

impl Object {
    /// Gives an outline (around the origin) a random surface and perhaps a shadow. `side`: of the square of doubled pixels.
    pub(super) fn new(rng: &mut Rng, side: usize, form: Form, radius: f64, outline: Outline, path: Path) -> Object {
        let shadow = rng.chance(0.6).then(|| cast(&outline, SHADOW_BLUR * side as f64));
        // One weak channel makes the hue a saturated one.
        let mut hue = rng.triple(20.0, 240.0);
        let weak = rng.choice(0, 3);
        hue[weak] *= rng.uniform(0.2, 0.6);
        let texture = Texture::random(rng, hue);
        let pose = path.at(0.0);
        let surface = cover(&texture, side, pose, outline.reach);
        let placed = outline.placed(pose);
        Object { class: form.class(), radius, path, outline, surface, shadow, pose, placed }
    }

    /// Brings the object to where it is at `t` seconds.
    pub(super) fn move_to(&mut self, t: f64) {
        self.pose = self.path.at(t);
        self.placed = self.outline.placed(self.pose);
    }

    /// Darkens what lies under the shadow in the doubled rows `2 * y` and `2 * y + 1` (`rows`: `[2, width, 3]`, fixed point).
    /// A shadow is smooth: one look-up serves a block of 2 x 2.
    pub(super) fn darken(&self, y: usize, rows: &mut [i16]) {
        let Some(shadow) = &self.shadow else { return };
        let (top, bottom) = rows.split_at_mut(rows.len() / 2);
        let centre = [self.pose.x + SHADOW_OFFSET[0] * self.radius, self.pose.y + SHADOW_OFFSET[1] * self.radius];
        let dy = (2 * y + 1) as f64 - centre[1];
        let half = shadow.half as f64;
        if dy.abs() >= half {
            return;
        }
        let chord = (half * half - dy * dy).sqrt();
        let width = top.len() / 6;
        let column = |x: f64| ((x / 2.0) as usize).min(width);
        let (start, end) = (column(centre[0] - chord), column(centre[0] + chord));
        let (cos, sin, dy) = (self.pose.cos as f32, self.pose.sin as f32, dy as f32);
        for x in start..end {
            let dx = ((2 * x + 1) as f64 - centre[0]) as f32;
            let lost = i32::from(shadow.data[shadow.index(dx * cos + dy * sin, dy * cos - dx * sin)]);
            if lost > 0 {
                for row in [&mut *top, &mut *bottom] {
                    for level in &mut row[6 * x..6 * x + 6] {
                        *level -= ((i32::from(*level) * lost) >> 16) as i16;
                    }
                }
            }
        }
    }

    /// Draws the object into doubled row `y` (`row`: `[width, 3]`, fixed point).
    pub(super) fn draw(&self, y: usize, row: &mut [i16]) {
        let (cos, sin) = (self.pose.cos as f32, self.pose.sin as f32);
        let dy = (y as f64 + 0.5 - self.pose.y) as f32;
        let per_level = (0.5 / self.radius) as f32;
        for run in self.runs(y, row.len() / 3) {
            let first = (run.start as f64 + 0.5 - self.pose.x) as f32;
            for (step, pixel) in row[3 * run.start..3 * run.end].chunks_exact_mut(3).enumerate() {
                let dx = first + step as f32;
                let light = 1.0 - SHADING * ((0.5 * dx + dy) * per_level).clamp(-1.0, 1.0);
                let surface = self.surface.data[self.surface.index(dx * cos + dy * sin, dy * cos - dx * sin)];
                for (level, surface) in pixel.iter_mut().zip(surface) {
                    *level = (f32::from(surface) * light) as i16;
                }
            }
        }
    }

    /// The columns that the object covers in doubled row `y`.
    pub(super) fn runs(&self, y: usize, width: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        self.placed.runs(y as i32).within(width)
    }
}

/// The surface of an object that rests at `pose`, as far as it reaches.
fn cover(texture: &Texture, side: usize, pose: Pose, reach: f64) -> Patch<[i16; 3]> {
    let half = reach as usize + 2;
    let (left, top) = (pose.x.floor() as i32 - half as i32, pose.y.floor() as i32 - half as i32);
    let mut levels = vec![0; 12 * half * half];
    texture.paint(Window { side, left, top, width: 2 * half, height: 2 * half }, &mut levels);
    Patch { half, data: levels.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect() }
}

/// The shadow of an outline around the origin, blurred by `sigma` doubled pixels.
fn cast(outline: &Outline, sigma: f64) -> Patch<u16> {
    let half = (outline.reach + 3.0 * sigma) as usize + 2;
    let side = 2 * half;
    let shape = outline.placed(Pose::new(half as f64, half as f64, 0.0));
    let mut light = vec![0.0; side * side];
    for (y, row) in light.chunks_exact_mut(side).enumerate() {
        for run in shape.runs(y as i32).within(side) {
            row[run].fill((SHADOW_DEPTH * 65536.0).floor() as f32);
        }
    }
    blur(&mut light, side, 1, sigma);
    Patch { half, data: light.into_iter().map(|lost| lost as u16).collect() }
}

#[cfg(test)]
impl Object {
    /// Paints the whole object in one colour (levels), to see where it lands.
    pub(super) fn dye(&mut self, colour: [i16; 3]) {
        self.surface.data.fill(colour.map(|level| level * super::texture::ONE));
    }

    pub(super) fn without_shadow(&mut self) {
        self.shadow = None;
    }

    /// Where the centre is, in pixels of the picture.
    pub(super) fn centre(&self) -> [f64; 2] {
        [self.pose.x / 2.0, self.pose.y / 2.0]
    }
}
