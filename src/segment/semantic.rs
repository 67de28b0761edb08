//! Semantic segmentation: every pixel gets the class with the largest sum over queries of class probability times mask
//! probability.

use super::{Table, table};
use crate::data::{ClassLogits, Geometry, Logits, Windows};
use crate::kernels::bilinear::{Axis, Upsampler};
use crate::kernels::math::{argmax, sigmoid, softmax};

/// Where the class scores of one or several network inputs lie on a common canvas, and which frame the canvas becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SemanticView {
    /// (height, width) of one network input.
    input: (usize, usize),
    /// (height, width) of the canvas at input resolution.
    canvas: (usize, usize),
    /// Upper left corner of each input on the canvas.
    origins: Vec<(usize, usize)>,
    /// (height, width).
    frame: (usize, usize),
}

impl SemanticView {
    /// One input, of which only the part that shows the frame counts.
    pub fn padded(geometry: &Geometry) -> SemanticView {
        SemanticView { input: geometry.input, canvas: geometry.resized, origins: vec![(0, 0)], frame: geometry.frame }
    }

    /// Overlapping windows, averaged where they overlap (transformers, `merge_image_patches`).
    pub fn windows(windows: &Windows, edge: usize) -> SemanticView {
        SemanticView { input: (edge, edge), canvas: windows.resized, origins: windows.origins.clone(), frame: windows.frame }
    }
}

/// Reused from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// `[queries, width]` mask probabilities of one row of one input.
    probabilities: Vec<f32>,
    /// Two rows of the canvas: `[classes, width]` scores each, with the row's number.
    rows: [(Option<usize>, Vec<f32>); 2],
    /// Inputs that cover a column of the canvas row.
    covers: Vec<f32>,
    /// Scores of one pixel.
    pixel: Vec<f32>,
}

/// Segments windows of one frame: `logits[i]` belongs to `view.origins[i]` and keeps all queries.
pub fn semantic_windows(logits: &[Logits], view: &SemanticView) -> crate::data::Segments {
    let (height, width) = view.frame;
    let mut ids = vec![0; height * width];
    let logits: Vec<&Logits> = logits.iter().collect();
    let Table { rows, masks } = run(&logits, view, &mut Buffers::default(), &mut ids);
    crate::data::Segments { width: width as u32, height: height as u32, ids, table: rows, masks }
}

/// After transformers, `post_process_semantic_segmentation`:
/// ```text
/// canvas[c, y, x] = mean over inputs that cover (y, x) of sum_q softmax(class[q])[c] * sigmoid(mask[q, y, x])
/// class(pixel)    = argmax_c of the canvas, resized bilinearly to the frame
/// ```
/// Only the two canvas rows that the current frame row mixes exist at a time. One segment per class that occurs, in the order
/// of the classes; its score is the mean of the winning scores, limited to 1.
pub(super) fn run(logits: &[&Logits], view: &SemanticView, buffers: &mut Buffers, ids: &mut [u16]) -> Table {
    assert_eq!(logits.len(), view.origins.len());
    let weights: Vec<Vec<f32>> = logits.iter().map(|logits| class_weights(&logits.class)).collect();
    let classes = logits[0].class.classes - 1;
    let (_, width) = view.frame;
    let mut upsamplers: Vec<Upsampler> = logits.iter().map(|logits| at_input_size(logits, view)).collect();
    let (down, across) = (linear_taps(view.canvas.0, view.frame.0), linear_taps(view.canvas.1, view.frame.1));
    let mut sums = vec![(0f64, 0u32); classes];
    buffers.rows.iter_mut().for_each(|(number, _)| *number = None);
    buffers.pixel.resize(classes, 0.0);
    for (line, &(upper, fraction)) in ids.chunks_exact_mut(width).zip(&down) {
        let lower = (upper + 1).min(view.canvas.0 - 1);
        for wanted in [upper, lower] {
            if buffers.rows.iter().all(|(number, _)| *number != Some(wanted)) {
                let stale = buffers.rows.iter().position(|(number, _)| *number != Some(upper)).expect("two rows");
                canvas_row(logits, &weights, &mut upsamplers, view, wanted, buffers, stale);
            }
        }
        let find = |wanted: usize| &buffers.rows.iter().find(|(number, _)| *number == Some(wanted)).expect("just computed").1;
        let (top, bottom) = (find(upper), find(lower));
        for (id, &(left, share)) in line.iter_mut().zip(&across) {
            let right = (left + 1).min(view.canvas.1 - 1);
            for (class, value) in buffers.pixel.iter_mut().enumerate() {
                let row = class * view.canvas.1;
                let above = top[row + left] * (1.0 - share) + top[row + right] * share;
                let below = bottom[row + left] * (1.0 - share) + bottom[row + right] * share;
                *value = above * (1.0 - fraction) + below * fraction;
            }
            let (class, score) = argmax(&buffers.pixel).unwrap_or((0, 0.0));
            sums[class].0 += f64::from(score);
            sums[class].1 += 1;
            *id = class as u16;
        }
    }
    number(&sums, width, ids)
}

/// Class numbers in `ids` become segment ids.
fn number(sums: &[(f64, u32)], width: usize, ids: &mut [u16]) -> Table {
    let mut rows = Vec::new();
    let mut segment_of = vec![0u16; sums.len()];
    for (class, (sum, pixels)) in sums.iter().enumerate().filter(|(_, (_, pixels))| *pixels > 0) {
        let row = table::row(rows.len(), class, (sum / f64::from(*pixels)).clamp(0.0, 1.0) as f32);
        segment_of[class] = row.id;
        rows.push(row);
    }
    ids.iter_mut().for_each(|id| *id = segment_of[usize::from(*id)]);
    table::measure(ids, width, &mut rows);
    Table { rows, masks: Vec::new() }
}

/// `[classes, queries]` class probabilities without "no object".
fn class_weights(class: &ClassLogits) -> Vec<f32> {
    let classes = class.classes - 1;
    let mut weights = vec![0.0; classes * class.queries];
    for query in 0..class.queries {
        let mut row = class.row(query).to_vec();
        softmax(&mut row);
        for (c, probability) in row[..classes].iter().enumerate() {
            weights[c * class.queries + query] = *probability;
        }
    }
    weights
}

fn at_input_size(logits: &Logits, view: &SemanticView) -> Upsampler {
    assert_eq!(logits.kept.len(), logits.class.queries, "semantic segmentation sums over all queries");
    let source = (logits.height, logits.width);
    Upsampler::new(source, Axis::resize(source.0, view.input.0), Axis::resize(source.1, view.input.1))
}

/// Lower neighbour and weight of the upper one, per output coordinate.
fn linear_taps(from: usize, to: usize) -> Vec<(usize, f32)> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|index| {
            let position = ((index as f32 + 0.5) * scale - 0.5).max(0.0);
            let lower = (position as usize).min(from - 1);
            (lower, if lower + 1 < from { position - lower as f32 } else { 0.0 })
        })
        .collect()
}

/// Row `y` of the canvas into `buffers.rows[slot]`.
fn canvas_row(
    logits: &[&Logits],
    weights: &[Vec<f32>],
    upsamplers: &mut [Upsampler],
    view: &SemanticView,
    y: usize,
    buffers: &mut Buffers,
    slot: usize,
) {
    let classes = logits[0].class.classes - 1;
    let (width, input_width) = (view.canvas.1, view.input.1);
    let Buffers { probabilities, rows, covers, .. } = buffers;
    let (number, row) = &mut rows[slot];
    *number = Some(y);
    row.clear();
    row.resize(classes * width, 0.0);
    covers.clear();
    covers.resize(width, 0.0);
    for (index, &(top, left)) in view.origins.iter().enumerate() {
        if !(top..top + view.input.0).contains(&y) {
            continue;
        }
        let queries = logits[index].class.queries;
        probabilities.resize(queries * input_width, 0.0);
        for (query, line) in probabilities.chunks_exact_mut(input_width).enumerate() {
            upsamplers[index].row(logits[index].mask(query), y - top, line);
            line.iter_mut().for_each(|value| *value = sigmoid(*value));
        }
        let columns = input_width.min(width - left);
        for (class, scores) in row.chunks_exact_mut(width).enumerate() {
            let scores = &mut scores[left..left + columns];
            for (weight, line) in weights[index][class * queries..].iter().zip(probabilities.chunks_exact(input_width)) {
                scores.iter_mut().zip(line).for_each(|(score, probability)| *score += weight * probability);
            }
        }
        covers[left..left + columns].iter_mut().for_each(|count| *count += 1.0);
    }
    for scores in row.chunks_exact_mut(width) {
        scores.iter_mut().zip(&*covers).for_each(|(score, count)| *score /= count.max(1.0));
    }
}
