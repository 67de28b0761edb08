//! What the six things look like from above: discs and polygons, turned into runs of pixels row by row.

use super::rng::{Rng, cos_turns, sin_turns};

/// Where an object is: its centre in doubled pixels and how far it has turned since its outline was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pose {
    pub x: f64,
    pub y: f64,
    pub cos: f64,
    pub sin: f64,
}

impl Pose {
    pub(super) fn new(x: f64, y: f64, turns: f64) -> Pose {
        Pose { x, y, cos: cos_turns(turns), sin: sin_turns(turns) }
    }
}

/// The things in the order of their class index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Ball,
    Box,
    Cone,
    Star,
    Ring,
    Bar,
}

impl Form {
    pub(super) const ALL: [Form; 6] = [Form::Ball, Form::Box, Form::Cone, Form::Star, Form::Ring, Form::Bar];

    pub(super) fn class(self) -> u16 {
        self as u16
    }
}

/// No outline has more corners than the star.
const CORNERS_MAX: usize = 10;

#[derive(Debug, Clone)]
enum Edge {
    /// `hole`: radius of what is cut out of the middle, 0 for none.
    Round {
        radius: f64,
        hole: f64,
    },
    Straight {
        corners: [[f64; 2]; CORNERS_MAX],
        count: usize,
    },
}

/// An outline around `(x, y)`, in doubled pixels.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    x: f64,
    y: f64,
    /// No point of the outline is farther from its centre.
    pub reach: f64,
    edge: Edge,
}

impl Outline {
    /// A thing of the given `radius` (doubled pixels) around the origin, at a random angle.
    pub(super) fn random(rng: &mut Rng, form: Form, radius: f64) -> Outline {
        let (angle, aspect) = (rng.uniform(0.0, 1.0), rng.uniform(0.6, 1.0));
        Outline::new(form, radius, aspect).placed(Pose::new(0.0, 0.0, angle))
    }

    /// Upright, around the origin. Only the box uses `aspect`, its height over its width.
    pub(super) fn new(form: Form, radius: f64, aspect: f64) -> Outline {
        let rectangle = |a: f64, b: f64| straight(&[[-a, -b], [a, -b], [a, b], [-a, b]]);
        let edge = match form {
            Form::Ball => Edge::Round { radius, hole: 0.0 },
            Form::Ring => Edge::Round { radius, hole: 0.55 * radius },
            Form::Box => rectangle(0.85 * radius, 0.85 * radius * aspect),
            Form::Bar => rectangle(1.25 * radius, 0.22 * radius),
            Form::Cone => straight(&[[0.0, -radius], [0.9 * radius, 0.8 * radius], [-0.9 * radius, 0.8 * radius]]),
            Form::Star => {
                let mut corners = [[0.0; 2]; CORNERS_MAX];
                for (i, corner) in corners.iter_mut().enumerate() {
                    let length = if i % 2 == 0 { radius } else { 0.42 * radius };
                    let turns = i as f64 / CORNERS_MAX as f64;
                    *corner = [length * sin_turns(turns), -length * cos_turns(turns)];
                }
                straight(&corners)
            }
        };
        let reach = match &edge {
            Edge::Round { radius, .. } => *radius,
            Edge::Straight { corners, .. } => corners.iter().map(|[x, y]| (x * x + y * y).sqrt()).fold(0.0, f64::max),
        };
        Outline { x: 0.0, y: 0.0, reach, edge }
    }

    /// This outline, which must be around the origin, turned and moved to `pose`.
    pub(super) fn placed(&self, pose: Pose) -> Outline {
        let mut placed = self.clone();
        (placed.x, placed.y) = (pose.x, pose.y);
        if let Edge::Straight { corners, .. } = &mut placed.edge {
            for corner in corners {
                let [x, y] = *corner;
                *corner = [pose.x + x * pose.cos - y * pose.sin, pose.y + x * pose.sin + y * pose.cos];
            }
        }
        placed
    }

    /// The pixels of row `y` whose centre lies inside.
    pub(super) fn runs(&self, y: i32) -> Runs {
        let mut runs = Runs { bounds: [0; CORNERS_MAX], count: 0 };
        let middle = f64::from(y) + 0.5;
        let offset = middle - self.y;
        if offset.abs() > self.reach {
            return runs;
        }
        let mut crossings = [0.0; CORNERS_MAX];
        let count = match &self.edge {
            Edge::Round { radius, hole } => {
                let outer = (radius * radius - offset * offset).max(0.0).sqrt();
                let inner = (hole * hole - offset * offset).max(0.0).sqrt();
                crossings[..4].copy_from_slice(&[self.x - outer, self.x - inner, self.x + inner, self.x + outer]);
                4
            }
            Edge::Straight { corners, count } => cross(&corners[..*count], middle, &mut crossings),
        };
        for (bound, crossing) in runs.bounds.iter_mut().zip(&crossings[..count]) {
            *bound = (crossing - 0.5).ceil() as i32;
        }
        runs.count = count / 2;
        runs
    }

    /// How many pixels of a `width` x `height` picture it covers.
    pub(super) fn area_within(&self, width: usize, height: usize) -> usize {
        let (first, last) = ((self.y - self.reach).max(0.0) as i32, (self.y + self.reach).min(height as f64) as i32);
        (first..(last + 1).min(height as i32)).flat_map(|y| self.runs(y).within(width)).map(|run| run.len()).sum()
    }
}

fn straight(points: &[[f64; 2]]) -> Edge {
    let mut corners = [[0.0; 2]; CORNERS_MAX];
    corners[..points.len()].copy_from_slice(points);
    Edge::Straight { corners, count: points.len() }
}

/// Where the polygon crosses the horizontal line at `y`, from left to right (always an even number).
fn cross(corners: &[[f64; 2]], y: f64, crossings: &mut [f64; CORNERS_MAX]) -> usize {
    let mut count = 0;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        // Half-open, so that a corner on the line counts for one of its two edges.
        if (from[1] <= y) != (to[1] <= y) {
            crossings[count] = from[0] + (y - from[1]) * (to[0] - from[0]) / (to[1] - from[1]);
            count += 1;
        }
        from = to;
    }
    crossings[..count].sort_unstable_by(f64::total_cmp);
    count
}

/// Up to five runs of pixels in one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    bounds: [i32; CORNERS_MAX],
    count: usize,
}

impl Runs {
    /// The runs cut to columns `0..width`; some may be empty.
    pub(super) fn within(self, width: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let cut = move |x: i32| x.clamp(0, width as i32) as usize;
        (0..self.count).map(move |i| cut(self.bounds[2 * i])..cut(self.bounds[2 * i + 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Area over radius squared, by geometry.
    fn area(form: Form, aspect: f64) -> f64 {
        use std::f64::consts::PI;
        match form {
            Form::Ball => PI,
            Form::Ring => PI * (1.0 - 0.55 * 0.55),
            Form::Box => 4.0 * 0.85 * 0.85 * aspect,
            Form::Bar => 4.0 * 1.25 * 0.22,
            Form::Cone => 0.9 * 1.8,
            // Ten triangles between a long and a short radius, a tenth of a turn apart.
            Form::Star => 10.0 * 0.5 * 0.42 * (PI / 5.0).sin(),
        }
    }

    #[test]
    fn pixel_counts_follow_geometry() {
        for form in Form::ALL {
            for (step, radius) in [20.0, 33.3, 61.7].into_iter().enumerate() {
                // Askew: an upright bar would gain or lose whole rows.
                let pose = Pose::new(100.0 + radius / 7.0, 99.1, 0.04 + 0.13 * step as f64);
                let counted = Outline::new(form, radius, 0.7).placed(pose).area_within(200, 200) as f64;
                let expected = area(form, 0.7) * radius * radius;
                assert!((counted / expected - 1.0).abs() < 0.02, "{form:?} of radius {radius}: {counted} pixels, expected {expected}");
            }
        }
    }

    #[test]
    fn pixels_outside_the_picture_are_not_counted() {
        let ball = Outline::new(Form::Ball, 50.0, 1.0);
        let half = ball.placed(Pose::new(0.0, 100.0, 0.0)).area_within(200, 200) as f64;
        assert!((half / (area(Form::Ball, 1.0) * 1250.0) - 1.0).abs() < 0.02);
        assert_eq!(ball.placed(Pose::new(-60.0, 100.0, 0.0)).area_within(200, 200), 0);
        assert_eq!(ball.placed(Pose::new(100.0, 1e9, 0.0)).area_within(200, 200), 0);
    }

    #[test]
    fn nothing_is_beyond_reach() {
        for form in Form::ALL {
            let outline = Outline::new(form, 40.0, 1.0).placed(Pose::new(100.0, 100.0, 0.21));
            for y in 0..200 {
                for x in outline.runs(y).within(200).flatten() {
                    let (dx, dy) = (x as f64 + 0.5 - 100.0, f64::from(y) + 0.5 - 100.0);
                    assert!(dx.hypot(dy) <= outline.reach + 0.71, "{form:?} at {x}, {y}");
                }
            }
        }
    }
}
