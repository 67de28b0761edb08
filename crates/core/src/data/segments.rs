//! What the frame shows.

pub use eomt_edge_overlay::{NO_SEGMENT, Segment};

/// A binary mask as COCO writes it: run lengths in column-major order, starting with a run of zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rle {
    /// Pixels of 0, of 1, of 0 ... in turn; together all pixels.
    pub counts: Vec<u32>,
}

/// Id map and segment table of one frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Segments {
    /// Columns of the id map, pixels.
    pub width: u32,
    /// Rows of the id map, pixels.
    pub height: u32,
    /// `[height, width]` ids, row-major; 0 = [`NO_SEGMENT`].
    pub ids: Vec<u16>,
    /// One row per segment, in the order in which the reference numbers them.
    pub table: Vec<Segment>,
    /// Instance task only, when asked for: the whole mask of `table[i]`, since instances may overlap.
    pub masks: Vec<Rle>,
}
