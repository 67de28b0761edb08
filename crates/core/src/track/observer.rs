//! What one frame shows, measured on a coarse grid: where things are, how large, how coloured, and what the network thought of them.
//!
//! Invariants: at most [`CELLS_MAX`] pixels are looked at, whatever the frame's size; only things are measured.

use super::colour::components;
use crate::kernels::math::softmax;
use crate::pipeline::SegmentedFrame;

/// Pixels that are looked at, at most.
pub const CELLS_MAX: usize = 4096;

/// Things of one frame, at most; more are not tracked.
pub const THINGS_MAX: usize = 128;

/// Colours are those of inner cells, unless there are fewer.
const INNER_MIN: u32 = 6;

/// The query that made a segment is not known.
pub const NO_QUERY: u16 = u16::MAX;

/// The middles of squares of `step` x `step` pixels: `[height, width]` numbers, 0 = nothing.
#[derive(Debug, Default)]
pub struct Grid {
    pub width: usize,
    pub height: usize,
    pub step: usize,
    pub cells: Vec<u16>,
}

impl Grid {
    pub fn new() -> Grid {
        Grid { cells: Vec::with_capacity(CELLS_MAX), ..Grid::default() }
    }

    /// For a frame of so many pixels, without cells.
    fn fit(&mut self, width: usize, height: usize) {
        let mut step = 1;
        while (width / step).max(1) * (height / step).max(1) > CELLS_MAX {
            step += 1;
        }
        (self.width, self.height, self.step) = ((width / step).max(1), (height / step).max(1), step);
        self.cells.clear();
    }
}

/// Mean and standard deviation of three colour components, 0 to 255.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Look {
    pub mean: [f32; 3],
    pub spread: [f32; 3],
    /// Cells that were looked at; 0 = nothing is known.
    pub cells: u32,
}

impl Look {
    /// How different two looks are, in levels: means count fully, deviations half.
    pub fn distance(&self, other: &Look) -> f32 {
        let square = |a: [f32; 3], b: [f32; 3]| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2) + (a[2] - b[2]).powi(2);
        ((square(self.mean, other.mean) + 0.25 * square(self.spread, other.spread)) / 3.0).sqrt()
    }

    /// Moves by `share` towards a newer look.
    pub fn follow(&mut self, newer: &Look, share: f32) {
        if newer.cells == 0 {
            return;
        }
        let share = if self.cells == 0 { 1.0 } else { share };
        for c in 0..3 {
            self.mean[c] += share * (newer.mean[c] - self.mean[c]);
            self.spread[c] += share * (newer.spread[c] - self.spread[c]);
        }
        self.cells = newer.cells;
    }
}

/// One thing of a frame; lengths in pixels.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// Its place in the segment table.
    pub row: usize,
    /// The query that made it, or [`NO_QUERY`].
    pub query: u16,
    pub area: f32,
    /// Left, top, right, bottom.
    pub corners: [f32; 4],
    pub centre: [f32; 2],
    /// Cells of the grid.
    pub cells: u32,
    pub look: Look,
    /// It touches the frame's border, and may go on beyond.
    pub is_cut: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Colours {
    count: u32,
    sums: [u32; 3],
    squares: [u32; 3],
}

impl Colours {
    fn add(&mut self, colour: [u8; 3]) {
        self.count += 1;
        for (c, level) in colour.into_iter().enumerate() {
            let level = u32::from(level);
            self.sums[c] += level;
            self.squares[c] += level * level;
        }
    }

    fn look(&self) -> Look {
        let count = self.count.max(1) as f32;
        let mean = self.sums.map(|sum| sum as f32 / count);
        let spread = [0, 1, 2].map(|c| (self.squares[c] as f32 / count - mean[c] * mean[c]).max(0.0).sqrt());
        Look { mean, spread, cells: self.count }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    cells: u32,
    x: u32,
    y: u32,
    all: Colours,
    inner: Colours,
}

/// Measures frames; buffers are reused.
#[derive(Debug, Default)]
pub struct Observer {
    /// Numbers of `things` from 1.
    pub grid: Grid,
    pub things: Vec<Observation>,
    /// `[things, classes]`: probabilities of the classes, without "no object".
    pub shares: Vec<f32>,
    pub classes: usize,
    sums: Vec<Sums>,
    /// Number of each segment id.
    number_of: Vec<u16>,
}

impl Observer {
    pub fn new() -> Observer {
        let (things, sums) = (Vec::with_capacity(THINGS_MAX), Vec::with_capacity(THINGS_MAX));
        Observer { grid: Grid::new(), things, sums, number_of: Vec::with_capacity(2 * THINGS_MAX), ..Observer::default() }
    }

    /// Looks at the things of a frame, those whose class is not in `stuff`.
    pub fn look(&mut self, segmented: &SegmentedFrame, stuff: &[bool]) {
        let (width, height) = (segmented.frame.width as usize, segmented.frame.height as usize);
        self.list(segmented, stuff);
        self.measure(segmented, width, height);
        for (thing, sums) in self.things.iter_mut().zip(&self.sums) {
            let step = self.grid.step as f32;
            if sums.cells > 0 {
                let cells = sums.cells as f32;
                thing.centre = [sums.x, sums.y].map(|sum| (sum as f32 / cells + 0.5) * step);
            }
            thing.cells = sums.cells;
            thing.look = if sums.inner.count < INNER_MIN { sums.all } else { sums.inner }.look();
        }
    }

    fn list(&mut self, segmented: &SegmentedFrame, stuff: &[bool]) {
        let Observer { things, shares, classes, number_of, sums, .. } = self;
        let logits = &segmented.logits.class;
        *classes = logits.classes.saturating_sub(1);
        let (width, height) = (segmented.frame.width, segmented.frame.height);
        things.clear();
        shares.clear();
        sums.clear();
        number_of.clear();
        shares.reserve(THINGS_MAX * *classes);
        number_of.resize(segmented.table.iter().map(|row| usize::from(row.id) + 1).max().unwrap_or(0), 0);
        for (row, segment) in segmented.table.iter().enumerate() {
            let is_stuff = stuff.get(usize::from(segment.category_id)).copied().unwrap_or(false);
            if is_stuff || things.len() == THINGS_MAX {
                continue;
            }
            let [left, top, across, down] = segment.bbox;
            let corners = [left, top, left + across, top + down];
            let is_cut = left == 0 || top == 0 || corners[2] >= width || corners[3] >= height;
            let corners = corners.map(|corner| corner as f32);
            let centre = [(corners[0] + corners[2]) / 2.0, (corners[1] + corners[3]) / 2.0];
            let query = segmented.queries.get(row).copied().unwrap_or(NO_QUERY);
            let (class, area, look) = (segment.category_id, segment.area as f32, Look::default());
            things.push(Observation { row, query, area, corners, centre, cells: 0, look, is_cut });
            number_of[usize::from(segment.id)] = things.len() as u16;
            let first = shares.len();
            if usize::from(query) < logits.queries {
                shares.extend_from_slice(&logits.row(usize::from(query))[..*classes]);
                softmax(&mut shares[first..]);
            } else {
                shares.resize(first + *classes, 0.0);
                shares.iter_mut().skip(first + usize::from(class)).take(1).for_each(|share| *share = 1.0);
            }
        }
        sums.resize(things.len(), Sums::default());
    }

    fn measure(&mut self, segmented: &SegmentedFrame, width: usize, height: usize) {
        let Observer { grid, sums, number_of, .. } = self;
        grid.fit(width, height);
        for y in 0..grid.height {
            let row = y * grid.step + grid.step / 2;
            let ids = &segmented.ids[row * width..][..width];
            for x in 0..grid.width {
                let column = x * grid.step + grid.step / 2;
                let number = number_of.get(usize::from(ids[column])).copied().unwrap_or(0);
                if number > 0 {
                    let sums = &mut sums[usize::from(number) - 1];
                    (sums.cells, sums.x, sums.y) = (sums.cells + 1, sums.x + x as u32, sums.y + y as u32);
                    let colour = components(segmented.frame, column, row);
                    sums.all.add(colour);
                    let at = grid.cells.len();
                    if x > 0 && y > 0 && grid.cells[at - 1] == number && grid.cells[at - grid.width] == number {
                        sums.inner.add(colour);
                    }
                }
                grid.cells.push(number);
            }
        }
    }
}
