//! A sensor's mosaic of colours to RGB: bilinear interpolation, the plainest there is.
//!
//! ```text
//! green at red, blue:           the mean of the four neighbours that share a side
//! red at blue, blue at red:     the mean of the four at the corners
//! red and blue at green:        the mean of the two that have the colour, left and right or above and below
//! ```
//! Beyond the border the picture is mirrored, without its outermost row, which keeps the pattern. Inside of the border the result is
//! OpenCV's. Refuses: pictures narrower or lower than two pixels.

/// The colours of the first two pixels of the first two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bayer {
    /// Red, green; green, blue.
    Rggb,
    /// Blue, green; green, red.
    Bggr,
    /// Green, blue; red, green.
    Gbrg,
    /// Green, red; blue, green.
    Grbg,
}

impl Bayer {
    /// Column and row of the first red pixel.
    fn red(self) -> (usize, usize) {
        match self {
            Bayer::Rggb => (0, 0),
            Bayer::Bggr => (1, 1),
            Bayer::Gbrg => (0, 1),
            Bayer::Grbg => (1, 0),
        }
    }

    /// RGB of a mosaic of `width` columns, one byte a pixel, into `rgb`.
    ///
    /// # Panics
    /// When it is no mosaic of at least 2x2 whole rows: a bug of the caller.
    pub fn demosaic(self, mosaic: &[u8], width: usize, rgb: &mut Vec<u8>) {
        assert!(width >= 2 && mosaic.len() >= 2 * width && mosaic.len().is_multiple_of(width), "a mosaic of {width} columns");
        let height = mosaic.len() / width;
        let (red_x, red_y) = self.red();
        rgb.clear();
        rgb.reserve_exact(3 * mosaic.len());
        for y in 0..height {
            let row = |y: usize| &mosaic[y * width..][..width];
            let (above, here, below) = (row(mirrored(y, 0, height)), row(y), row(mirrored(y, 2, height)));
            for x in 0..width {
                let (left, right) = (mirrored(x, 0, width), mirrored(x, 2, width));
                let (across, down) = (mean([here[left], here[right]]), mean([above[x], below[x]]));
                let sides = || mean([here[left], here[right], above[x], below[x]]);
                let corners = || mean([above[left], above[right], below[left], below[right]]);
                let pixel = match (x % 2 == red_x, y % 2 == red_y) {
                    (true, true) => [here[x], sides(), corners()],
                    (false, false) => [corners(), sides(), here[x]],
                    (false, true) => [across, here[x], down],
                    (true, false) => [down, here[x], across],
                };
                rgb.extend_from_slice(&pixel);
            }
        }
    }
}

/// The place before (`step` 0) or behind (2) `at`; at a border the one on the other side.
fn mirrored(at: usize, step: usize, count: usize) -> usize {
    match (at + step).checked_sub(1) {
        None => 1,
        Some(place) if place == count => count - 2,
        Some(place) => place,
    }
}

/// Rounded half up.
fn mean<const N: usize>(levels: [u8; N]) -> u8 {
    let sum: usize = levels.iter().map(|level| usize::from(*level)).sum();
    ((sum + N / 2) / N) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_one_colour_keeps_it() {
        let patterns = [(Bayer::Rggb, "rggb"), (Bayer::Bggr, "bggr"), (Bayer::Gbrg, "gbrg"), (Bayer::Grbg, "grbg")];
        for ((pattern, sites), (width, height)) in patterns.into_iter().flat_map(|p| [(2, 2), (3, 2), (5, 4), (2, 3)].map(|size| (p, size)))
        {
            let level = |at: usize| match sites.as_bytes()[at / width % 2 * 2 + at % width % 2] {
                b'r' => 200,
                b'g' => 90,
                _ => 17,
            };
            let mosaic: Vec<u8> = (0..width * height).map(level).collect();
            let mut rgb = vec![1; 3];
            pattern.demosaic(&mosaic, width, &mut rgb);
            assert_eq!(rgb, [200, 90, 17].repeat(width * height), "{sites} {width}x{height}");
        }
    }

    #[test]
    fn one_pixel_by_hand() {
        // green at red: (20 + 40 + 60 + 81) / 4 = 50.25; blue at red: (10 + 30 + 70 + 92) / 4 = 50.5
        let mut rgb = Vec::new();
        Bayer::Bggr.demosaic(&[10, 20, 30, 40, 55, 60, 70, 81, 92], 3, &mut rgb);
        assert_eq!(rgb[12..15], [55, 50, 51]);
    }
}
