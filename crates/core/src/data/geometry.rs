//! Where the frame lies inside the network's input.

/// Sizes of one frame on its way through the network, each (height, width) in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The frame.
    pub frame: (usize, usize),
    /// The frame after resizing: the upper left part of the input. The rest is padding.
    pub resized: (usize, usize),
    /// The network's input.
    pub input: (usize, usize),
}

impl Geometry {
    /// Fits a frame into the input, keeping its aspect ratio; both sides of the result are at least 1.
    ///
    /// A square input follows the reference image processor to the pixel (transformers, `get_size_with_aspect_ratio` with
    /// shortest = longest edge: Python's `round` to even, then `int` of the product). Other inputs take the largest scale at
    /// which both sides fit, rounded to nearest.
    pub fn fit(frame: (usize, usize), input: (usize, usize)) -> Geometry {
        let (height, width) = (frame.0 as f64, frame.1 as f64);
        let resized = if input.0 == input.1 {
            let edge = input.0 as f64;
            let raw = edge * height.min(width) / height.max(width);
            let short = raw.round_ties_even();
            if frame.0 == frame.1 {
                input
            } else if frame.0.min(frame.1) as f64 == short {
                frame
            } else if width < height {
                ((raw * height / width) as usize, short as usize)
            } else {
                (short as usize, (raw * width / height) as usize)
            }
        } else {
            let scale = (input.0 as f64 / height).min(input.1 as f64 / width);
            ((height * scale).round() as usize, (width * scale).round() as usize)
        };
        Geometry { frame, resized: (resized.0.clamp(1, input.0), resized.1.clamp(1, input.1)), input }
    }

    /// The frame squeezed onto the whole input, without padding and without regard to the aspect ratio.
    pub fn stretch(frame: (usize, usize), input: (usize, usize)) -> Geometry {
        Geometry { frame, resized: input, input }
    }
}

/// Overlapping square windows along the frame's longer side, for semantic segmentation of frames that are not square
/// (transformers, `EomtImageProcessor` with `do_split_image`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// (height, width) of the frame.
    pub frame: (usize, usize),
    /// (height, width) of the frame with its shorter side at the input's edge.
    pub resized: (usize, usize),
    /// Upper left corner (y, x) of each window in the resized frame.
    pub origins: Vec<(usize, usize)>,
}

impl Windows {
    /// Cuts a frame (height, width) into windows of `edge` x `edge`.
    pub fn split(frame: (usize, usize), edge: usize) -> Windows {
        let (short, long) = (frame.0.min(frame.1), frame.0.max(frame.1));
        let longer_side = edge * long / short;
        let count = longer_side.div_ceil(edge);
        let overlap = (count * edge - longer_side) as f64;
        let step = edge as f64 - if count > 1 { overlap / (count - 1) as f64 } else { 0.0 };
        let starts = (0..count).map(|index| (index as f64 * step) as usize);
        if frame.0 > frame.1 {
            Windows { frame, resized: (longer_side, edge), origins: starts.map(|start| (start, 0)).collect() }
        } else {
            Windows { frame, resized: (edge, longer_side), origins: starts.map(|start| (0, start)).collect() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `get_size_with_aspect_ratio((h, w), n, n)` of transformers 5.23 returns.
    #[test]
    fn square_inputs_follow_the_reference() {
        let reference = [
            ((192, 192), 192, (192, 192)),
            ((144, 192), 192, (144, 192)),
            ((192, 144), 192, (192, 144)),
            ((300, 400), 192, (144, 192)),
            ((427, 640), 320, (214, 320)),
            ((67, 101), 192, (127, 192)),
            ((480, 640), 640, (480, 640)),
            ((1080, 1920), 640, (360, 640)),
            ((37, 999), 160, (6, 160)),
            ((161, 160), 160, (159, 159)),
            ((101, 67), 160, (160, 106)),
            ((333, 500), 640, (426, 640)),
            ((10, 159), 160, (10, 159)),
            ((720, 1281), 96, (54, 96)),
        ];
        for ((h, w), n, expected) in reference {
            assert_eq!(Geometry::fit((h, w), (n, n)).resized, expected, "{h}x{w} into {n}");
        }
    }

    #[test]
    fn extreme_shapes_keep_a_pixel() {
        assert_eq!(Geometry::fit((1, 1), (160, 160)).resized, (160, 160));
        assert_eq!(Geometry::fit((1, 4000), (160, 160)).resized, (1, 160));
        assert_eq!(Geometry::fit((4000, 1), (96, 160)).resized, (96, 1));
    }

    #[test]
    fn windows_cover_the_longer_side() {
        let windows = Windows::split((480, 640), 160);
        assert_eq!((windows.resized, windows.origins), ((160, 213), vec![(0, 0), (0, 53)]));
        assert_eq!(Windows::split((500, 500), 96).origins, [(0, 0)]);
        let tall = Windows::split((100, 40), 40);
        assert_eq!((tall.resized, tall.origins), ((100, 40), vec![(0, 0), (30, 0), (60, 0)]));
    }

    #[test]
    fn a_matching_camera_needs_no_padding() {
        assert_eq!(Geometry::fit((480, 640), (480, 640)).resized, (480, 640));
        assert_eq!(Geometry::fit((960, 1280), (240, 320)).resized, (240, 320));
    }
}
