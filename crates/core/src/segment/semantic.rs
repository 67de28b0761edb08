//! Semantic segmentation: every pixel gets the class with the largest sum over queries of class probability times mask
//! probability.

use super::{Table, table};
use crate::data::{ClassLogits, Geometry, Logits, Windows};
use crate::kernels::arch::{Aligned, Isa, TILE_MAX, TileOf};
use crate::kernels::bilinear::{Axis, Tap, sample};
use crate::kernels::lerp::{lerp, lerp_argmax, transpose, weighted_sum, weighted_sum_sigmoid};
use crate::kernels::math::softmax;

/// The places of one or several network inputs on a common canvas, and the size of the frame that shows the canvas.
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
    /// One input; the padding around the frame is left out.
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
    taps: Option<Taps>,
    inputs: Vec<Input>,
    /// One query's class probabilities.
    softmax: Vec<f32>,
    /// `[columns of a mask, queries]`: the masks' row at the height of a canvas row, two columns of zeros behind it.
    blended: Vec<f32>,
    /// `[pixels, queries]` mask probabilities of a part of a canvas row.
    probabilities: Vec<f32>,
    /// Two rows of the canvas: `[width, classes]` scores each, with the row's number.
    rows: [(Option<usize>, Vec<f32>); 2],
    /// The canvas at the height of a frame row.
    mixed: Vec<f32>,
    /// Sum of the winning scores and pixels of each class.
    sums: Vec<(f64, u32)>,
    segment_of: Vec<u16>,
}

/// Of one view and mask size.
#[derive(Debug)]
struct Taps {
    view: SemanticView,
    mask: (usize, usize),
    /// Masks to input size.
    rows: Axis,
    columns: Axis,
    /// Canvas to frame: the lower neighbour, and the weight of the upper one.
    down: Vec<(usize, f32)>,
    across: Vec<(usize, f32)>,
}

/// One input's logits in the order of the matrix product.
#[derive(Debug, Default)]
struct Input {
    /// `[height, width, queries]`.
    masks: Vec<f32>,
    /// Class probabilities without "no object": `[groups of classes, queries, classes of a group]`.
    panels: Aligned<f32>,
}

/// Strides are multiples of this many values.
const LANES: usize = 16;
/// Pixels whose probabilities exist at the same time: a multiple of all tile heights.
const BLOCK: usize = 96;

/// Merges several inputs' scores: `logits[i]` belongs to `view.origins[i]` and keeps all queries.
pub fn semantic_windows(logits: &[Logits], view: &SemanticView) -> crate::data::Segments {
    let (height, width) = view.frame;
    let mut ids = vec![0; height * width];
    let logits: Vec<&Logits> = logits.iter().collect();
    let mut table = Table::default();
    run(Isa::detect(), &logits, view, &mut Buffers::default(), &mut ids, &mut table);
    crate::data::Segments { width: width as u32, height: height as u32, ids, table: table.rows, masks: table.masks }
}

/// After transformers, `post_process_semantic_segmentation`:
/// ```text
/// canvas[y, x, c] = mean over inputs that cover (y, x) of sum_q sigmoid(mask[q, y, x]) * softmax(class[q])[c]
/// class(pixel)    = argmax_c of the canvas, resized bilinearly to the frame
/// ```
/// The sum over queries is a matrix product. Only the two canvas rows around the current frame row exist at a time. One
/// segment per class that occurs, in the order of the classes; its score is the mean of the winning scores, limited to 1.
pub(super) fn run(isa: Isa, logits: &[&Logits], view: &SemanticView, buffers: &mut Buffers, ids: &mut [u16], table: &mut Table) {
    let classes = logits[0].class.classes - 1;
    let mut sums = std::mem::take(&mut buffers.sums);
    sums.clear();
    sums.resize(classes, (0.0, 0));
    scan(isa, logits, view, buffers, |pixel, left, right, share| {
        let (class, score) = lerp_argmax(isa, left, right, share);
        sums[class].0 += f64::from(score);
        sums[class].1 += 1;
        ids[pixel] = class as u16;
    });
    buffers.sums = sums;
    number(view.frame.1, buffers, ids, table);
}

/// How a pixel's class scores become an anomaly score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anomaly {
    /// One minus the largest class score: maximum softmax probability (Hendrycks and Gimpel, ICLR 2017) on the class scores of
    /// semantic inference.
    #[default]
    Max,
    /// Rejected by all (Nayal et al., ICCV 2023): minus the sum over classes of tanh(score).
    Rba,
}

/// An anomaly score for each pixel of the frame, `[height, width]`, larger = more anomalous (out of distribution), from the class scores
/// that semantic segmentation compares.
pub fn anomaly_map(logits: &[Logits], view: &SemanticView, kind: Anomaly) -> Vec<f32> {
    let mut map = vec![0.0; view.frame.0 * view.frame.1];
    let logits: Vec<&Logits> = logits.iter().collect();
    scan(Isa::detect(), &logits, view, &mut Buffers::default(), |pixel, left, right, share| {
        let scores = left.iter().zip(right).map(|(left, right)| left * (1.0 - share) + right * share);
        map[pixel] = match kind {
            Anomaly::Max => 1.0 - scores.fold(f32::NEG_INFINITY, f32::max),
            Anomaly::Rba => -scores.map(f32::tanh).sum::<f32>(),
        };
    });
    map
}

/// Calls `visit` for every pixel of the frame, in order, with the class scores of its left and right neighbour on the canvas and
/// the weight of the right one.
fn scan(isa: Isa, logits: &[&Logits], view: &SemanticView, buffers: &mut Buffers, mut visit: impl FnMut(usize, &[f32], &[f32], f32)) {
    assert_eq!(logits.len(), view.origins.len());
    let classes = logits[0].class.classes - 1;
    let stride = classes.next_multiple_of(LANES.max(isa.fma_tile().nr));
    prepare(isa, logits, view, buffers);
    let Some(taps) = buffers.taps.take() else { unreachable!("just prepared") };
    let (canvas_height, canvas_width) = view.canvas;
    buffers.mixed.resize(canvas_width * stride, 0.0);
    for (y, &(upper, fraction)) in taps.down.iter().enumerate() {
        let lower = (upper + 1).min(canvas_height - 1);
        for wanted in [upper, lower] {
            if buffers.rows.iter().all(|(number, _)| *number != Some(wanted)) {
                let stale = buffers.rows.iter().position(|(number, _)| *number != Some(upper)).expect("two rows");
                canvas_row(isa, logits, &taps, wanted, stride, buffers, stale);
            }
        }
        let Buffers { rows, mixed, .. } = buffers;
        let find = |wanted: usize| &rows.iter().find(|(number, _)| *number == Some(wanted)).expect("just computed").1;
        lerp(isa, find(upper), find(lower), fraction, mixed);
        for (x, &(left, share)) in taps.across.iter().enumerate() {
            let right = (left + 1).min(canvas_width - 1);
            let scores = |column: usize| &mixed[column * stride..][..classes];
            visit(y * view.frame.1 + x, scores(left), scores(right), share);
        }
    }
    buffers.taps = Some(taps);
}

/// Class numbers in `ids` become segment ids.
fn number(width: usize, buffers: &mut Buffers, ids: &mut [u16], table: &mut Table) {
    let Buffers { sums, segment_of, .. } = buffers;
    segment_of.clear();
    segment_of.resize(sums.len(), 0);
    for (class, (sum, pixels)) in sums.iter().enumerate().filter(|(_, (_, pixels))| *pixels > 0) {
        let row = table::row(table.rows.len(), class, (sum / f64::from(*pixels)).clamp(0.0, 1.0) as f32);
        segment_of[class] = row.id;
        table.rows.push(row);
    }
    ids.iter_mut().for_each(|id| *id = segment_of[usize::from(*id)]);
    table::measure(ids, width, &mut table.rows);
}

/// Taps, unless those of the last frame fit, and the logits in the order of the product.
fn prepare(isa: Isa, logits: &[&Logits], view: &SemanticView, buffers: &mut Buffers) {
    let mask = (logits[0].height, logits[0].width);
    let Buffers { taps, inputs, softmax: row, rows, .. } = buffers;
    if taps.as_ref().is_none_or(|taps| taps.view != *view || taps.mask != mask) {
        let linear = |from: usize, to: usize| (0..to).map(|index| sample(index, from, to)).collect();
        *taps = Some(Taps {
            view: view.clone(),
            mask,
            rows: Axis::resize(mask.0, view.input.0),
            columns: Axis::resize(mask.1, view.input.1),
            down: linear(view.canvas.0, view.frame.0),
            across: linear(view.canvas.1, view.frame.1),
        });
    }
    rows.iter_mut().for_each(|(number, _)| *number = None);
    inputs.resize_with(logits.len(), Input::default);
    for (input, logits) in inputs.iter_mut().zip(logits) {
        assert_eq!(logits.kept.len(), logits.class.queries, "semantic segmentation sums over all queries");
        assert_eq!((logits.height, logits.width), mask);
        let (pixels, stride) = (mask.0 * mask.1, logits.class.queries.next_multiple_of(LANES));
        input.masks.resize(pixels * stride, 0.0);
        transpose(&logits.masks, pixels, stride, &mut input.masks);
        class_panels(isa.fma_tile().nr, &logits.class, row, &mut input.panels);
    }
}

fn class_panels(nr: usize, class: &ClassLogits, row: &mut Vec<f32>, panels: &mut Aligned<f32>) {
    let (classes, queries) = (class.classes - 1, class.queries);
    panels.resize(classes.next_multiple_of(LANES.max(nr)) * queries);
    for query in 0..queries {
        row.clear();
        row.extend_from_slice(class.row(query));
        softmax(row);
        row[classes] = 0.0;
        for (group, panel) in panels.chunks_exact_mut(queries * nr).enumerate() {
            for (column, weight) in panel[query * nr..][..nr].iter_mut().enumerate() {
                *weight = row.get(group * nr + column).copied().unwrap_or(0.0);
            }
        }
    }
}

/// Row `y` of the canvas into `buffers.rows[slot]`.
fn canvas_row(isa: Isa, logits: &[&Logits], taps: &Taps, y: usize, stride: usize, buffers: &mut Buffers, slot: usize) {
    let view = &taps.view;
    let width = view.canvas.1;
    let (number, row) = &mut buffers.rows[slot];
    *number = Some(y);
    row.clear();
    row.resize(width * stride, 0.0);
    for (index, &(top, left)) in view.origins.iter().enumerate() {
        if !(top..top + view.input.0).contains(&y) {
            continue;
        }
        let (input, queries) = (&buffers.inputs[index], logits[index].class.queries);
        let depth = queries.next_multiple_of(LANES);
        let (blended, probabilities) = (&mut buffers.blended, &mut buffers.probabilities);
        blend_row(isa, &input.masks, taps.mask, depth, &taps.rows.taps()[y - top], blended);
        probabilities.resize(BLOCK * depth, 0.0);
        let columns = &taps.columns.taps()[..view.input.1.min(width - left)];
        for (taps, scores) in columns.chunks(BLOCK).zip(row[left * stride..].chunks_mut(BLOCK * stride)) {
            for (tap, to) in taps.iter().zip(probabilities.chunks_exact_mut(depth)) {
                let near = |offset: usize| &blended[(tap.first + offset) * depth..][..depth];
                weighted_sum_sigmoid(isa, [near(0), near(1), near(2)], tap.weights, to);
            }
            add_product(isa, probabilities, depth, &input.panels, queries, taps.len(), stride, scores);
        }
    }
    if view.origins.len() > 1 {
        average(view, y, stride, row);
    }
}

/// The masks' row at the height of a canvas row, and zeros for the taps at the right border.
fn blend_row(isa: Isa, masks: &[f32], (height, width): (usize, usize), depth: usize, tap: &Tap, to: &mut Vec<f32>) {
    to.resize((width + 2) * depth, 0.0);
    let row = |offset: usize| &masks[(tap.first + offset).min(height - 1) * width * depth..][..width * depth];
    let (blended, behind) = to.split_at_mut(width * depth);
    weighted_sum(isa, [row(0), row(1), row(2)], tap.weights, blended);
    behind.fill(0.0);
}

/// `scores[p, c] += sum_q probabilities[p, q] * panels[q, c]` for the first `pixels`.
#[allow(clippy::too_many_arguments)]
fn add_product(
    isa: Isa,
    probabilities: &[f32],
    depth: usize,
    panels: &[f32],
    queries: usize,
    pixels: usize,
    stride: usize,
    scores: &mut [f32],
) {
    let tile = isa.fma_tile();
    let mut acc = TileOf([0.0; TILE_MAX]);
    for (group, panel) in panels.chunks_exact(queries * tile.nr).enumerate() {
        for first in (0..pixels).step_by(tile.mr) {
            isa.fma(&probabilities[first * depth..], depth, panel, queries, &mut acc);
            let rows = scores[first * stride..].chunks_mut(stride).take(tile.mr.min(pixels - first));
            for (row, acc) in rows.zip(acc.0.chunks_exact(tile.nr)) {
                row[group * tile.nr..][..tile.nr].iter_mut().zip(acc).for_each(|(score, sum)| *score += sum);
            }
        }
    }
}

/// Divides the scores of each pixel by the number of inputs that cover it.
fn average(view: &SemanticView, y: usize, stride: usize, row: &mut [f32]) {
    for (x, scores) in row.chunks_exact_mut(stride).enumerate() {
        let covers = |(top, left): &(usize, usize)| (*top..top + view.input.0).contains(&y) && (*left..left + view.input.1).contains(&x);
        let count = view.origins.iter().filter(|origin| covers(origin)).count();
        scores.iter_mut().for_each(|score| *score /= count.max(1) as f32);
    }
}
