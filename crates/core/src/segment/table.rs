//! Areas and boxes of segments.

use crate::data::Segment;

/// No pixel: left, top, right, bottom, the last two exclusive.
pub const NOWHERE: [u32; 4] = [u32::MAX, u32::MAX, 0, 0];

/// The smallest box around both.
pub fn grow(corners: &mut [u32; 4], more: [u32; 4]) {
    *corners = [corners[0].min(more[0]), corners[1].min(more[1]), corners[2].max(more[2]), corners[3].max(more[3])];
}

/// Whether all of `inner` lies in `corners`.
pub fn covers(corners: [u32; 4], inner: [u32; 4]) -> bool {
    corners[0] <= inner[0] && corners[1] <= inner[1] && corners[2] >= inner[2] && corners[3] >= inner[3]
}

/// A row without pixels; its box holds corners until [`finish`].
pub fn row(index: usize, class: usize, score: f32) -> Segment {
    Segment { id: index as u16 + 1, category_id: class as u16, score, area: 0, bbox: NOWHERE, track_id: 0 }
}

/// Adds pixels to a row.
pub fn add(row: &mut Segment, area: u32, corners: [u32; 4]) {
    row.area += area;
    grow(&mut row.bbox, corners);
}

/// Corners become boxes: left, top, width, height.
pub fn finish(rows: &mut [Segment]) {
    for Segment { bbox, .. } in rows {
        let [left, top, right, bottom] = *bbox;
        *bbox = if left < right { [left, top, right - left, bottom - top] } else { [0; 4] };
    }
}

/// Fills area and box of every row from the pixels of `ids` (`[height, width]`); `rows[i].id` must be `i + 1`.
pub fn measure(ids: &[u16], width: usize, rows: &mut [Segment]) {
    for (y, line) in ids.chunks_exact(width).enumerate() {
        let mut x = 0;
        for run in line.chunk_by(|a, b| a == b) {
            let end = x + run.len() as u32;
            if run[0] > 0 {
                add(&mut rows[usize::from(run[0]) - 1], run.len() as u32, [x, y as u32, end, y as u32 + 1]);
            }
            x = end;
        }
    }
    finish(rows);
}
