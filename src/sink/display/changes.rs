//! What of a picture has changed since it was last sent, in rectangles.
//!
//! ```text
//! per band of tiles: find the changed tiles, merge neighbours into runs
//! a run of the same columns in the band above that ended here: grow it downwards, else begin a new area
//! ```

/// A panel's memory as a grid of cells: a pixel of a colour panel, a column of eight pixels of an OLED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Cells in a row.
    pub width: usize,
    /// Rows of cells.
    pub height: usize,
    /// Bytes of a cell.
    pub cell: usize,
    /// Cells of a tile (width, height): what is compared as a whole.
    pub tile: (usize, usize),
}

impl Grid {
    /// Of all cells.
    pub fn bytes(&self) -> usize {
        self.width * self.height * self.cell
    }

    /// Bytes of one row of `area` in a picture of this grid.
    pub fn row<'a>(&self, cells: &'a [u8], area: Area, y: usize) -> &'a [u8] {
        &cells[((area.y + y) * self.width + area.x) * self.cell..][..area.width * self.cell]
    }
}

/// A rectangle of cells, not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// What the panel shows.
#[derive(Debug)]
pub struct Shown {
    grid: Grid,
    cells: Vec<u8>,
    known: bool,
    areas: Vec<Area>,
}

impl Shown {
    /// Nothing is known about the panel yet.
    pub fn new(grid: Grid) -> Shown {
        Shown { grid, cells: vec![0; grid.bytes()], known: false, areas: Vec::new() }
    }

    /// The next picture is sent as a whole.
    pub fn forget(&mut self) {
        self.known = false;
    }

    /// The areas in which `cells` differs from what is shown; from now on `cells` is shown.
    pub fn update(&mut self, cells: &[u8]) -> &[Area] {
        assert_eq!(cells.len(), self.cells.len());
        self.areas.clear();
        let Grid { width, height, tile, .. } = self.grid;
        if !std::mem::replace(&mut self.known, true) {
            self.areas.push(Area { x: 0, y: 0, width, height });
        } else {
            for top in (0..height).step_by(tile.1) {
                self.band(cells, top, tile.1.min(height - top));
            }
        }
        self.cells.copy_from_slice(cells);
        &self.areas
    }

    fn band(&mut self, cells: &[u8], y: usize, height: usize) {
        let Grid { width, tile, .. } = self.grid;
        let mut x = 0;
        while x < width {
            let start = x;
            while x < width && self.differs(cells, Area { x, y, width: tile.0.min(width - x), height }) {
                x = (x + tile.0).min(width);
            }
            if x == start {
                x += tile.0;
                continue;
            }
            let run = x - start;
            match self.areas.iter_mut().find(|above| above.y + above.height == y && (above.x, above.width) == (start, run)) {
                Some(above) => above.height += height,
                None => self.areas.push(Area { x: start, y, width: run, height }),
            }
        }
    }

    fn differs(&self, cells: &[u8], area: Area) -> bool {
        (0..area.height).any(|y| self.grid.row(cells, area, y) != self.grid.row(&self.cells, area, y))
    }
}
