//! Single pictures to train on and to measure with: a new random scene each, at rest.

use super::backdrop::{Backdrop, Lines};
use super::blur::blur;
use super::grain::Grain;
use super::object::{Object, Path};
use super::outline::{Form, Outline};
use super::rng::Rng;
use super::texture::Window;
use super::{SAMPLE_STREAM, Scene};

/// Segments with fewer pixels get id 0.
const AREA_MIN: usize = 16;
/// Objects with fewer doubled pixels inside the picture are not placed at all.
const COVER_MIN: usize = 200;

/// A picture of `size` x `size` pixels and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// `[size, size, 3]`.
    pub rgb: Vec<u8>,
    /// `[size, size]` segment ids, 0 = nothing.
    pub ids: Vec<u16>,
    /// `(segment id, class index)` for every id but 0 that occurs, by id.
    pub classes: Vec<(u16, u16)>,
}

/// Picture number `index` of the endless collection that `seed` names. Panics when `size` is 0.
pub fn sample(seed: u64, index: u64, size: u32) -> Sample {
    let mut rng = Rng::new(seed, SAMPLE_STREAM);
    let mut rng = Rng::new(rng.bits(), index);
    let mut scene = compose(&mut rng, size);
    let pixels = size as usize * size as usize;
    let (mut rgb, mut ids) = (vec![0; 3 * pixels], vec![0; pixels]);
    let mut classes = scene.render(0.0, &mut rgb, &mut ids);
    if rng.chance(0.3) {
        soften(&mut rgb, size as usize, rng.uniform(0.3, 0.9));
    }
    drop_crumbs(&mut ids, &mut classes);
    Sample { rgb, ids, classes }
}

/// A scene at rest with one to seven objects anywhere below the top quarter.
fn compose(rng: &mut Rng, size: u32) -> Scene {
    let side = 2 * size as usize;
    let length = side as f64;
    let horizon = (length * rng.uniform(0.35, 0.75)) as usize;
    let skyline = if rng.chance(0.6) { (horizon as f64 * rng.uniform(0.2, 0.7)) as usize } else { 0 };
    let window = Window { side, left: 0, top: 0, width: side, height: side };
    let backdrop = Backdrop::new(rng, window, Lines { skyline, horizon });
    let mut objects = Vec::new();
    for _ in 0..rng.choice(1, 8) {
        let form = Form::ALL[rng.choice(0, 6)];
        let radius = length * rng.uniform(0.06, 0.19);
        let path = Path::resting([length * rng.uniform(0.08, 0.92), length * rng.uniform(0.25, 0.95)]);
        let outline = Outline::random(rng, form, radius);
        if outline.placed(path.at(0.0)).area_within(side, side) >= COVER_MIN {
            objects.push(Object::new(rng, side, form, radius, outline, path));
        }
    }
    let sigma = rng.uniform(0.0, 6.0);
    let grain = Grain::new(rng, sigma, side * 3);
    Scene::assemble(size, size, backdrop, objects, grain, rng.uniform(0.7, 1.1))
}

/// A lens out of focus by `sigma` pixels.
fn soften(rgb: &mut [u8], width: usize, sigma: f64) {
    let mut levels: Vec<f32> = rgb.iter().map(|&level| f32::from(level)).collect();
    blur(&mut levels, width, 3, sigma);
    for (level, soft) in rgb.iter_mut().zip(levels) {
        *level = soft as u8;
    }
}

/// Clears the ids of segments that are too small for ground truth.
fn drop_crumbs(ids: &mut [u16], classes: &mut Vec<(u16, u16)>) {
    classes.retain(|&(id, _)| ids.iter().filter(|&&other| other == id).count() >= AREA_MIN);
    for id in ids {
        if !classes.iter().any(|&(kept, _)| kept == *id) {
            *id = 0;
        }
    }
}
