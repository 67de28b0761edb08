//! Scenes drawn by the program itself: a source that needs no file and no camera, and knows what it shows.
//!
//! Balls, boxes, cones, stars, rings and bars on a table before a wall and a sky, with the look that the shipped model
//! was trained on. [`Scene`] moves, for `scenes[:seed]`; [`sample`] gives independent pictures to train and measure with.
//!
//! ```
//! use eomt_edge_core::scenes::{LABELS, Scene};
//! let mut scene = Scene::new(7, 64, 48);
//! let (mut rgb, mut ids) = (vec![0; 64 * 48 * 3], vec![0; 64 * 48]);
//! for (id, class) in scene.render(0.5, &mut rgb, &mut ids) {
//!     println!("segment {id} is a {}", LABELS[usize::from(class)]);
//! }
//! ```
//!
//! Invariants: the same seed, size and time give the same bytes on every machine and in every order of calls (own
//! generator and sine, plain IEEE arithmetic); an id stays with its object for the life of a scene; the ids are those of
//! the pixels drawn, from the same runs. Pictures are drawn at twice the size and averaged, as the training pictures were.
//!
//! Refuses: clock, file, thread, log. Time and seed are arguments; a time that is not finite and an empty picture are bugs.
//! Rendering allocates only the table it returns. A scene keeps its background: 24 bytes per pixel of the picture.

mod backdrop;
mod blur;
mod degrade;
mod grain;
mod object;
mod outline;
mod rng;
mod sample;
#[cfg(test)]
mod tests;
mod texture;

use backdrop::{Backdrop, FIRST_OBJECT, FLOOR, Lines, SKY, WALL};
pub use degrade::degrade;
use grain::Grain;
use object::{Object, Path};
use outline::{Form, Outline};
pub use rng::Rng;
pub use sample::{Sample, sample};
use texture::{ONE, Window};

/// The classes by index; the first six are things, the rest is stuff.
pub const LABELS: [&str; 9] = ["ball", "box", "cone", "star", "ring", "bar", "floor", "wall", "sky"];

/// Class index of each background id.
const BACKGROUND_CLASSES: [(u16, u16); 3] = [(FLOOR, 6), (WALL, 7), (SKY, 8)];
/// Most objects in one scene.
const OBJECTS_MAX: usize = 7;
/// Keep the pictures of one seed apart: moving scenes, stills.
const SCENE_STREAM: u64 = 1;
const SAMPLE_STREAM: u64 = 2;

/// A tabletop with five to seven objects, each on a smooth path of its own; classes may repeat.
pub struct Scene {
    /// Pixels of the picture.
    width: usize,
    height: usize,
    backdrop: Backdrop,
    /// From the back to the front; object `i` has the id `FIRST_OBJECT + i`.
    objects: Vec<Object>,
    grain: Grain,
    /// Brightness, in 1/65536.
    gain: u32,
    /// Scratch: two rows of doubled pixels.
    rows: Vec<i16>,
}

impl Scene {
    /// The scene that `seed` names, for pictures of `width` x `height` pixels. Panics when either is 0.
    pub fn new(seed: u64, width: u32, height: u32) -> Scene {
        assert!(width > 0 && height > 0, "a scene of {width}x{height} pixels");
        let rng = &mut Rng::new(seed, SCENE_STREAM);
        let (across, down) = (2 * width as usize, 2 * height as usize);
        // The picture is the middle of a square, so that lengths and textures do not depend on its shape.
        let side = across.max(down);
        let window = Window { side, left: ((side - across) / 2) as i32, top: ((side - down) / 2) as i32, width: across, height: down };
        let horizon = (down as f64 * rng.uniform(0.42, 0.68)) as usize;
        let skyline = if rng.chance(0.8) { (down as f64 * rng.uniform(0.1, 0.32)) as usize } else { 0 };
        let backdrop = Backdrop::new(rng, window, Lines { skyline, horizon });
        let objects = (0..rng.choice(5, OBJECTS_MAX + 1)).map(|_| wanderer(rng, window)).collect();
        let sigma = rng.uniform(0.5, 4.0);
        let grain = Grain::new(rng, sigma, across * 3);
        Scene::assemble(width, height, backdrop, objects, grain, rng.uniform(0.8, 1.1))
    }

    fn assemble(width: u32, height: u32, backdrop: Backdrop, objects: Vec<Object>, grain: Grain, gain: f64) -> Scene {
        assert!(objects.len() <= OBJECTS_MAX, "{} objects", objects.len());
        let (width, height) = (width as usize, height as usize);
        Scene { width, height, backdrop, objects, grain, gain: (gain * 65536.0) as u32, rows: vec![0; 12 * width] }
    }

    /// Draws the scene as it is at `t` seconds: `rgb` is `[height, width, 3]`, `ids` is `[height, width]` (1 floor, 2 wall,
    /// 3 sky, 4.. objects). Returns `(id, class index)` of every id that occurs, by id.
    pub fn render(&mut self, t: f64, rgb: &mut [u8], ids: &mut [u16]) -> Vec<(u16, u16)> {
        assert!(t.is_finite(), "a scene at {t} s");
        assert_eq!(rgb.len(), 3 * self.width * self.height, "RGB buffer");
        assert_eq!(ids.len(), self.width * self.height, "id buffer");
        for object in &mut self.objects {
            object.move_to(t);
        }
        let mut places = self.grain.places(t);
        let mut occurs = [false; FIRST_OBJECT as usize + OBJECTS_MAX];
        for (y, (rgb, ids)) in rgb.chunks_exact_mut(3 * self.width).zip(ids.chunks_exact_mut(self.width)).enumerate() {
            self.draw_rows(y);
            self.name_row(2 * y + 1, ids);
            self.expose(&mut places, rgb);
            ids.iter().for_each(|&id| occurs[usize::from(id)] = true);
        }
        let background = BACKGROUND_CLASSES.into_iter();
        let things = (FIRST_OBJECT..).zip(&self.objects).map(|(id, object)| (id, object.class));
        background.chain(things).filter(|&(id, _)| occurs[usize::from(id)]).collect()
    }

    /// The two rows of doubled pixels that make row `y`, from the back to the front.
    fn draw_rows(&mut self, y: usize) {
        self.rows.copy_from_slice(self.backdrop.rows(y));
        for object in &self.objects {
            object.darken(y, &mut self.rows);
            let (top, bottom) = self.rows.split_at_mut(6 * self.width);
            object.draw(2 * y, top);
            object.draw(2 * y + 1, bottom);
        }
    }

    /// Ids of one row, from row `y` of doubled pixels. A pixel has the id of its lower right quarter, as in the training data.
    fn name_row(&self, y: usize, ids: &mut [u16]) {
        ids.fill(self.backdrop.id(y));
        for (id, object) in (FIRST_OBJECT..).zip(&self.objects) {
            for run in object.runs(y, 2 * self.width) {
                // Odd columns only: 2x + 1 lies in start..end when x lies in start/2..end/2.
                ids[run.start / 2..run.end / 2].fill(id);
            }
        }
    }

    /// From doubled rows to pixels: noise, clipping, the mean of four, brightness.
    fn expose(&mut self, places: &mut Rng, rgb: &mut [u8]) {
        const WHITE: i16 = 255 * ONE;
        let (top, bottom) = self.rows.split_at_mut(6 * self.width);
        let (above, below) = (self.grain.next(places, top.len()), self.grain.next(places, bottom.len()));
        for (((upper, &lower), &a), &b) in top.iter_mut().zip(&*bottom).zip(above).zip(below) {
            *upper = (*upper + a).clamp(0, WHITE) + (lower + b).clamp(0, WHITE);
        }
        for (pixel, pair) in rgb.chunks_exact_mut(3).zip(top.chunks_exact(6)) {
            for c in 0..3 {
                // Four samples of ONE units per level and a gain of 65536: 4 + 2 + 16 bits.
                let sum = (pair[c] + pair[c + 3]) as u32 * self.gain;
                pixel[c] = ((sum + (1 << 21)) >> 22).min(255) as u8;
            }
        }
    }
}

/// An object that sways about a place inside the picture and may leave it in part.
fn wanderer(rng: &mut Rng, window: Window) -> Object {
    let radius = window.side as f64 * rng.uniform(0.07, 0.13);
    let (width, height) = (window.width as f64, window.height as f64);
    let path = Path {
        centre: [width * rng.uniform(0.2, 0.8), height * rng.uniform(0.3, 0.8)],
        sway: [width * rng.uniform(0.05, 0.22), height * rng.uniform(0.05, 0.22)],
        rate: [rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.4)],
        phase: [rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0)],
        spin: rng.uniform(-0.12, 0.12),
    };
    let form = Form::ALL[rng.choice(0, 6)];
    let outline = Outline::random(rng, form, radius);
    Object::new(rng, window.side, form, radius, outline, path)
}
