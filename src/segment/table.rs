//! Areas and boxes from an id map.

use crate::data::Segment;

/// Fills area and bbox of every row from the pixels of `ids` (`[height, width]`); `rows[i].id` must be `i + 1`.
pub fn measure(ids: &[u16], width: usize, rows: &mut [Segment]) {
    let mut corners = vec![[u32::MAX, u32::MAX, 0, 0]; rows.len()];
    for (y, line) in ids.chunks_exact(width).enumerate() {
        for (x, &id) in line.iter().enumerate() {
            if id == 0 {
                continue;
            }
            let index = usize::from(id) - 1;
            let (x, y) = (x as u32, y as u32);
            let [left, top, right, bottom] = &mut corners[index];
            rows[index].area += 1;
            (*left, *top) = ((*left).min(x), (*top).min(y));
            (*right, *bottom) = ((*right).max(x + 1), (*bottom).max(y + 1));
        }
    }
    for (row, [left, top, right, bottom]) in rows.iter_mut().zip(corners) {
        if row.area > 0 {
            row.bbox = [left, top, right - left, bottom - top];
        }
    }
}

/// A row without measures.
pub fn row(index: usize, class: usize, score: f32) -> Segment {
    Segment { id: index as u16 + 1, category_id: class as u16, score, area: 0, bbox: [0; 4], track_id: 0 }
}
