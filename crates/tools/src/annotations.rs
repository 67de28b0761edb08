//! Segments as JSON and PNG pixels, in the formats that other programs read.

use eomt_edge_core::data::{Rle, Segment, Segments};
use serde_json::{Value, json};

/// JSON text of `{"width", "height", "segments": [...]}`, one line per segment; `id_shift` is subtracted from every id. `model` goes before it, if there
/// is one: name and licence.
pub(crate) fn document(segments: &Segments, labels: &[String], id_shift: u16, model: Option<[&str; 2]>) -> String {
    let size = (segments.width, segments.height);
    let rows = segments.table.iter().enumerate().map(|(index, segment)| row(segment, labels, id_shift, segments.masks.get(index), size));
    let rows: Vec<String> = rows.map(|row| format!("\n  {row}")).collect();
    let model = model.map_or(String::new(), |[name, licence]| format!("\"model\": {}, \"licence\": {}, ", json!(name), json!(licence)));
    format!("{{{model}\"width\": {}, \"height\": {}, \"segments\": [{}\n]}}\n", size.0, size.1, rows.join(","))
}

fn row(segment: &Segment, labels: &[String], id_shift: u16, mask: Option<&Rle>, (width, height): (u32, u32)) -> Value {
    let label = labels.get(usize::from(segment.category_id)).cloned().unwrap_or_else(|| format!("class {}", segment.category_id));
    let mut row = json!({
        "id": segment.id - id_shift,
        "category_id": segment.category_id,
        "label": label,
        // as the reference rounds
        "score": (f64::from(segment.score) * 1e6).round() / 1e6,
        "area": segment.area,
        "bbox": segment.bbox,
    });
    if let Some(Rle { counts }) = mask {
        row["segmentation"] = json!({ "size": [height, width], "counts": counts });
    }
    row
}

/// RGB bytes of the COCO panoptic format: id = R + 256 G + 65536 B.
pub(crate) fn coco_panoptic(ids: impl IntoIterator<Item = u32>) -> Vec<u8> {
    ids.into_iter().flat_map(|id| [id as u8, (id >> 8) as u8, (id >> 16) as u8]).collect()
}
