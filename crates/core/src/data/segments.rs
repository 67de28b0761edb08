//! What the frame shows.

/// The id of pixels that belong to no segment.
pub const NO_SEGMENT: u16 = 0;

/// One row of the segment table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// 1-based id in the id map; 0 is [`NO_SEGMENT`].
    pub id: u16,
    /// Class index, `0..labels.len()`.
    pub category_id: u16,
    /// Confidence, 0..=1.
    pub score: f32,
    /// Pixels of this segment.
    pub area: u32,
    /// Tight box of those pixels: x, y, width, height.
    pub bbox: [u32; 4],
    /// Identity over frames, 0 = not tracked.
    pub track_id: u32,
}

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
