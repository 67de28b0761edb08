//! Instance segmentation: one segment per query that is sure of its class and of its mask; masks may overlap.

use super::{Rules, Scratch, Table, rle, table, verdict};
use crate::data::{Logits, NO_SEGMENT, Task};
use crate::kernels::bilinear::Upsampler;
use crate::kernels::math::sigmoid;

/// After transformers, `post_process_instance_segmentation`: a mask is where its logits are positive, its score the class score
/// times the mean probability inside; later segments cover earlier ones in the id map.
///
/// Area and box in the table are those of the whole mask, covered parts included.
pub(super) fn run(logits: &Logits, rules: &Rules, upsampler: &mut Upsampler, scratch: &mut Scratch, ids: &mut [u16]) -> Table {
    let (height, width) = upsampler.size();
    let Scratch { row, bitmap, .. } = scratch;
    row.resize(width, 0.0);
    bitmap.resize(height * width, false);
    ids.fill(NO_SEGMENT);
    let mut result = Table::default();
    for (index, &query) in logits.kept.iter().enumerate() {
        let Some((class, class_score)) = verdict(logits.class.row(query), Task::Instance) else { continue };
        if f64::from(class_score) < rules.thresholds.score {
            continue;
        }
        let (mut area, mut sum) = (0u32, 0f64);
        let [mut left, mut top, mut right, mut bottom] = [u32::MAX, u32::MAX, 0, 0];
        for (y, line) in bitmap.chunks_exact_mut(width).enumerate() {
            upsampler.row(logits.mask(index), y, row);
            for (x, (&value, inside)) in row.iter().zip(line).enumerate() {
                *inside = value > 0.0;
                if *inside {
                    area += 1;
                    sum += f64::from(sigmoid(value));
                    let (x, y) = (x as u32, y as u32);
                    [left, top, right, bottom] = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
                }
            }
        }
        let score = class_score * (sum / (f64::from(area) + 1e-6)) as f32;
        if area == 0 || f64::from(score) < rules.thresholds.score {
            continue;
        }
        let mut segment = table::row(result.rows.len(), class, score);
        segment.area = area;
        segment.bbox = [left, top, right - left, bottom - top];
        for (id, _) in ids.iter_mut().zip(bitmap.iter()).filter(|(_, inside)| **inside) {
            *id = segment.id;
        }
        if rules.whole_masks {
            result.masks.push(rle::encode(bitmap, width));
        }
        result.rows.push(segment);
    }
    result
}
