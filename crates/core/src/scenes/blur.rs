//! A Gaussian blur as three box blurs with a fractional radius (Gwosdek et al. 2011): no exponential, so exact everywhere,
//! and its cost does not depend on the width.
//!
//! It is also how the library that drew the training pictures blurs, down to its rounding after every pass: a narrow blur
//! leaves noise of a level or two as it was, and pictures blurred more finely come out visibly smoother (measured).
//! Values being whole also keeps the sliding sums free of error.

/// Blurs `pixels` (`[height, width, channels]`, whole numbers, whose sums over a box stay below 2^24) in place. `sigma` in pixels; what lies outside
/// repeats the border.
pub(super) fn blur(pixels: &mut [f32], width: usize, channels: usize, sigma: f64) {
    if pixels.is_empty() {
        return;
    }
    let height = pixels.len() / (width * channels);
    let (whole, part) = box_radius(sigma);
    let mut line = vec![0.0; width.max(height)];
    let mut other = line.clone();
    for channel in 0..channels {
        for y in 0..height {
            let lane = Lane { first: y * width * channels + channel, step: channels, count: width };
            lane.smooth(pixels, whole, part, &mut line, &mut other);
        }
        for x in 0..width {
            let lane = Lane { first: x * channels + channel, step: width * channels, count: height };
            lane.smooth(pixels, whole, part, &mut line, &mut other);
        }
    }
}

/// The radius of the box whose threefold repetition has the variance `sigma`^2: whole pixels and the weight of the two end pixels.
fn box_radius(sigma: f64) -> (usize, f32) {
    let variance = sigma * sigma / 3.0;
    let whole = (((12.0 * variance + 1.0).sqrt() - 1.0) / 2.0).floor();
    let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance) / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
    (whole as usize, part as f32)
}

/// One row or column of one channel.
struct Lane {
    first: usize,
    step: usize,
    count: usize,
}

impl Lane {
    fn smooth(&self, pixels: &mut [f32], whole: usize, part: f32, line: &mut [f32], other: &mut [f32]) {
        let (line, other) = (&mut line[..self.count], &mut other[..self.count]);
        for (i, value) in line.iter_mut().enumerate() {
            *value = pixels[self.first + i * self.step];
        }
        box_pass(line, other, whole, part);
        box_pass(other, line, whole, part);
        box_pass(line, other, whole, part);
        for (i, &value) in other.iter().enumerate() {
            pixels[self.first + i * self.step] = value;
        }
    }
}

/// One box blur of `line` into `out`, by a sum that slides.
fn box_pass(line: &[f32], out: &mut [f32], whole: usize, part: f32) {
    let (last, whole) = (line.len() as isize - 1, whole as isize);
    let at = |i: isize| line[i.clamp(0, last) as usize];
    let scale = 1.0 / (2.0 * (whole as f32 + part) + 1.0);
    let mut sum: f32 = (-whole..=whole).map(at).sum();
    for (i, value) in out.iter_mut().enumerate() {
        let i = i as isize;
        let (before, after) = (at(i - whole - 1), at(i + whole + 1));
        *value = (((sum + part * (before + after)) * scale + 0.5) as i32) as f32;
        sum += after - at(i - whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_spreads_with_the_asked_variance_and_keeps_its_mass() {
        for sigma in [0.4, 0.9, 2.0, 4.6] {
            let mut picture = vec![0.0; 61 * 61];
            picture[30 * 61 + 30] = 1e6;
            blur(&mut picture, 61, 1, sigma);
            let (mut mass, mut spread) = (0.0, 0.0);
            for (i, &value) in picture.iter().enumerate() {
                let x = (i % 61) as f64 - 30.0;
                mass += f64::from(value);
                spread += f64::from(value) * x * x / 1e6;
            }
            assert!((mass - 1e6).abs() < 2e3, "mass {mass}");
            assert!((spread.sqrt() / sigma - 1.0).abs() < 0.02, "sigma {sigma} came out as {}", spread.sqrt());
        }
    }

    #[test]
    fn flat_stays_flat_at_every_size() {
        for (width, height) in [(1, 1), (7, 5), (1, 40), (3, 1)] {
            let mut picture = vec![80.0; width * height * 3];
            blur(&mut picture, width, 3, 3.0);
            assert!(picture.iter().all(|value| (value - 80.0).abs() < 0.01), "{width}x{height}");
        }
    }
}
