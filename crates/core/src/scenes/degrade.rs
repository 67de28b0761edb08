//! What a bad camera makes of a picture.

use image::RgbImage;
use image::imageops::fast_blur;

use super::Rng;

/// Out of focus, too little light, noise: each with this probability, of a strength that varies.
pub fn degrade(rgb: RgbImage, probability: f64, rng: &mut Rng) -> RgbImage {
    let mut rgb = if rng.chance(probability) { fast_blur(&rgb, rng.uniform(0.4, 1.6) as f32) } else { rgb };
    let light = if rng.chance(probability) { rng.uniform(0.3, 0.9) } else { 1.0 };
    let noise = if rng.chance(probability) { rng.uniform(2.0, 20.0) } else { 0.0 };
    if light < 1.0 || noise > 0.0 {
        for level in rgb.iter_mut() {
            *level = (f64::from(*level) * light + noise * rng.normal()) as u8;
        }
    }
    rgb
}
