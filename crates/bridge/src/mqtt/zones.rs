//! Polygons as pixels, and how much of them each segment covers.
//!
//! Invariants: a pixel belongs to a zone when its centre lies inside (even-odd rule), so zones that share an edge share no pixel. Refuses:
//! weights, overlaps between zones being anything special.

use super::config::{Unit, Zone};

/// A zone as runs of pixels, for pictures of one size.
#[derive(Debug, Clone, Default)]
pub struct Raster {
    /// Start and end in the id map.
    runs: Vec<(usize, usize)>,
    pixels: usize,
}

impl Raster {
    /// The pixels of `zone` in a picture of `width` x `height`.
    pub fn new(zone: &Zone, width: usize, height: usize) -> Raster {
        let scale = match zone.unit {
            Unit::Relative => (width as f64, height as f64),
            Unit::Pixels => (1.0, 1.0),
        };
        let corners: Vec<(f64, f64)> = zone.polygon.iter().map(|[x, y]| (x * scale.0, y * scale.1)).collect();
        let mut runs = Vec::new();
        let mut crossings = Vec::new();
        for row in 0..height {
            let y = row as f64 + 0.5;
            crossings.clear();
            // an end counts for the edge below it only, so that a corner is crossed once
            let crossed = edges(&corners).filter(|(a, b)| (a.1 <= y) != (b.1 <= y));
            crossings.extend(crossed.map(|(a, b)| a.0 + (y - a.1) / (b.1 - a.1) * (b.0 - a.0)));
            crossings.sort_by(f64::total_cmp);
            for pair in crossings.chunks_exact(2) {
                // the first centre at or right of a crossing
                let column = |x: f64| (x - 0.5).ceil().clamp(0.0, width as f64) as usize;
                let (start, end) = (column(pair[0]), column(pair[1]));
                if start < end {
                    runs.push((row * width + start, row * width + end));
                }
            }
        }
        let pixels = runs.iter().map(|(start, end)| end - start).sum();
        Raster { runs, pixels }
    }

    /// Pixels of the zone.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// Adds the zone's pixels of each id to `counts`, which has a place for every id of `ids`.
    pub fn count(&self, ids: &[u16], counts: &mut [u32]) {
        for &(start, end) in &self.runs {
            for &id in ids.get(start..end).unwrap_or_default() {
                if let Some(count) = counts.get_mut(usize::from(id)) {
                    *count += 1;
                }
            }
        }
    }
}

fn edges(corners: &[(f64, f64)]) -> impl Iterator<Item = ((f64, f64), (f64, f64))> {
    corners.iter().zip(corners.iter().cycle().skip(1)).map(|(a, b)| (*a, *b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(unit: Unit, polygon: &[[f64; 2]]) -> Zone {
        Zone { name: "z".to_owned(), polygon: polygon.to_vec(), unit }
    }

    /// By the definition, pixel by pixel.
    fn naive(zone: &Zone, width: usize, height: usize) -> Vec<bool> {
        let scale = if zone.unit == Unit::Relative { (width as f64, height as f64) } else { (1.0, 1.0) };
        let corners: Vec<(f64, f64)> = zone.polygon.iter().map(|[x, y]| (x * scale.0, y * scale.1)).collect();
        let inside = |x: f64, y: f64| {
            let mut inside = false;
            let mut j = corners.len() - 1;
            for i in 0..corners.len() {
                let ((xi, yi), (xj, yj)) = (corners[i], corners[j]);
                if (yi > y) != (yj > y) && x < (xj - xi) * (y - yi) / (yj - yi) + xi {
                    inside = !inside;
                }
                j = i;
            }
            inside
        };
        (0..width * height).map(|at| inside((at % width) as f64 + 0.5, (at / width) as f64 + 0.5)).collect()
    }

    fn pixels(raster: &Raster, len: usize) -> Vec<bool> {
        let mut inside = vec![false; len];
        raster.runs.iter().for_each(|&(start, end)| inside[start..end].fill(true));
        inside
    }

    #[test]
    fn pixels_are_those_whose_centre_lies_inside() {
        let mut state = 7u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        for corners in 3..12 {
            for _ in 0..40 {
                let polygon: Vec<[f64; 2]> = (0..corners).map(|_| [random(), random()]).collect();
                let zone = zone(Unit::Relative, &polygon);
                let raster = Raster::new(&zone, 37, 23);
                let expected = naive(&zone, 37, 23);
                assert!(pixels(&raster, 37 * 23) == expected, "{polygon:?}");
                assert_eq!(raster.pixels(), expected.iter().filter(|inside| **inside).count());
            }
        }
    }

    #[test]
    fn halves_share_no_pixel_and_miss_none() {
        let left = Raster::new(&zone(Unit::Relative, &[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]), 9, 5);
        let right = Raster::new(&zone(Unit::Relative, &[[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]), 9, 5);
        let (left, right) = (pixels(&left, 45), pixels(&right, 45));
        assert!(left.iter().zip(&right).all(|(a, b)| a != b));
    }

    #[test]
    fn zones_outside_of_the_picture_have_no_pixels() {
        let raster = Raster::new(&zone(Unit::Pixels, &[[100.0, 0.0], [200.0, 0.0], [200.0, 9.0]]), 64, 48);
        assert_eq!(raster.pixels(), 0);
        let raster = Raster::new(&zone(Unit::Pixels, &[[60.0, 40.0], [200.0, 40.0], [200.0, 900.0], [60.0, 900.0]]), 64, 48);
        assert_eq!(raster.pixels(), 4 * 8);
        let mut counts = vec![0; 3];
        let mut ids = vec![2; 64 * 48];
        ids[47 * 64 + 63] = 900;
        raster.count(&ids, &mut counts);
        assert_eq!(counts, [0, 0, 31]);
        raster.count(&[], &mut counts);
        assert_eq!(counts, [0, 0, 31], "a picture that got smaller");
    }
}
