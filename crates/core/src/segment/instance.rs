//! Instance segmentation: one segment per query whose class and mask are confident; masks may overlap.

use super::{PostProcessConfig, Table, classify_query, rle, table};
use crate::data::{ClassLogits, Logits, NO_SEGMENT, Rle, Task};
use crate::kernels::arch::Isa;
use crate::kernels::argmax::{corners, foreground, valid_lanes};
use crate::kernels::bilinear::{TILE, TILE_COLUMNS, TILE_ROWS, Tile, Upsampler};
use crate::kernels::math::{all_finite, softmax};

/// Reused from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Bounds of the mask in the tiles of one band.
    low: Vec<f32>,
    high: Vec<f32>,
    /// How much of each tile the mask covers.
    cover: Vec<Cover>,
    /// `[height, width]`: true inside of the mask, where a tile is covered in part. The rest is old.
    bitmap: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Nothing,
    Part,
    All,
}

/// Of one mask.
struct Measures {
    area: u32,
    /// Of the probabilities inside.
    sum: f64,
    corners: [u32; 4],
}

/// After transformers, `post_process_instance_segmentation`: a mask is where its logits are positive, its score the class score
/// times the mean probability inside; later segments cover earlier ones in the id map.
///
/// Area and box in the table are those of the whole mask, covered parts included.
pub(super) fn run(
    isa: Isa,
    logits: &Logits,
    config: &PostProcessConfig,
    upsampler: &mut Upsampler,
    buffers: &mut Buffers,
    ids: &mut [u16],
    result: &mut Table,
) {
    let (height, width) = upsampler.size();
    buffers.bitmap.resize(height * width, false);
    ids.fill(NO_SEGMENT);
    for (index, &query) in logits.kept.iter().enumerate() {
        let Some((class, class_score)) = classify_query(logits.class.row(query), Task::Instance) else { continue };
        if f64::from(class_score) < config.thresholds.score {
            continue;
        }
        let Measures { area, sum, corners } = measure(isa, logits.mask(index), upsampler, buffers);
        let score = class_score * (sum / (f64::from(area) + 1e-6)) as f32;
        if area == 0 || f64::from(score) < config.thresholds.score {
            continue;
        }
        let mut segment = table::row(result.rows.len(), class, score);
        table::add(&mut segment, area, corners);
        paint(buffers, width, ids, segment.id);
        if config.whole_masks {
            complete(buffers, width);
            result.masks.push(rle::encode(&buffers.bitmap, width));
        }
        result.rows.push(segment);
        result.queries.push(query as u16);
    }
    table::finish(&mut result.rows);
}

/// A query read as one class, to be ranked for average precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Index of the class.
    pub class: u16,
    /// Class probability times the mean mask probability inside the mask.
    pub score: f32,
    /// At frame size.
    pub mask: Rle,
    /// Pixels of the mask, at least one.
    pub area: u32,
}

/// The `count` pairs of query and class with the largest class probability, best first: query, class, probability.
fn best_pairs(class: &ClassLogits, count: usize) -> Vec<(usize, usize, f32)> {
    let mut pairs = Vec::with_capacity(class.queries * class.classes);
    let mut row = Vec::new();
    for query in 0..class.queries {
        row.clear();
        row.extend_from_slice(class.row(query));
        softmax(&mut row);
        let scores = row.iter().take(class.classes - 1);
        pairs.extend(scores.enumerate().map(|(class, &score)| (query, class, score)));
    }
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    pairs.truncate(count);
    pairs
}

/// The queries whose masks [`Segmenter::candidates`](super::Segmenter::candidates) needs for the `count` best readings, ascending, into
/// `kept`.
pub fn candidate_queries(class: &ClassLogits, count: usize, kept: &mut Vec<usize>) {
    kept.clear();
    kept.extend(best_pairs(class, count).into_iter().map(|(query, _, _)| query));
    kept.sort_unstable();
    kept.dedup();
}

/// After the authors' instance evaluation (tue-mps/eomt, `training/mask_classification_instance.py`): the `count` best pairs of
/// query and class, a mask being where its logits are positive. Masks without a pixel are left out; they score zero there.
pub(super) fn candidates(isa: Isa, logits: &Logits, upsampler: &mut Upsampler, buffers: &mut Buffers, count: usize) -> Vec<Candidate> {
    let (height, width) = upsampler.size();
    buffers.bitmap.resize(height * width, false);
    let pairs = best_pairs(&logits.class, count);
    let mut masks: Vec<Option<(f32, u32, Rle)>> = Vec::with_capacity(logits.kept.len());
    for (index, query) in logits.kept.iter().enumerate() {
        if !pairs.iter().any(|(wanted, _, _)| wanted == query) {
            masks.push(None);
            continue;
        }
        let Measures { area, sum, .. } = measure(isa, logits.mask(index), upsampler, buffers);
        complete(buffers, width);
        masks.push(Some(((sum / (f64::from(area) + 1e-6)) as f32, area, rle::encode(&buffers.bitmap, width))));
    }
    let candidate = |(query, class, probability): (usize, usize, f32)| {
        let index = logits.kept.binary_search(&query).expect("the caller keeps these queries");
        let (inside, area, mask) = masks[index].as_ref().expect("measured above");
        (*area > 0).then(|| Candidate { class: class as u16, score: probability * inside, mask: mask.clone(), area: *area })
    };
    pairs.into_iter().filter_map(candidate).collect()
}

/// Measures one mask and notes where it is.
fn measure(isa: Isa, mask: &[f32], upsampler: &mut Upsampler, buffers: &mut Buffers) -> Measures {
    let ((bands, stripes), (_, width)) = (upsampler.tiles(), upsampler.size());
    let Buffers { low, high, cover, bitmap } = buffers;
    let finite = all_finite(mask);
    low.resize(stripes, 0.0);
    high.resize(stripes, 0.0);
    cover.clear();
    let mut measures = Measures { area: 0, sum: 0.0, corners: table::NOWHERE };
    let (mut logits, mut lanes): (Tile<f32>, Tile<u32>) = ([0.0; TILE], [0; TILE]);
    for (band, lines) in (0..bands).zip(bitmap.chunks_mut(width * TILE_ROWS)) {
        if finite {
            upsampler.bounds(isa, mask, band, low, high);
        } else {
            low.fill(f32::NAN);
            high.fill(f32::NAN);
        }
        for stripe in 0..stripes {
            if high[stripe] <= 0.0 {
                cover.push(Cover::Nothing);
                continue;
            }
            upsampler.tile(isa, mask, band, stripe, &mut logits);
            let (rows, columns) = upsampler.tile_size(band, stripe);
            let valid = valid_lanes(rows, columns);
            let part = foreground(isa, &logits, valid, &mut lanes);
            measures.area += part.area;
            measures.sum += f64::from(part.sum);
            let [left, top] = [stripe * TILE_COLUMNS, band * TILE_ROWS].map(|value| value as u32);
            let tile = [left, top, left + columns as u32, top + rows as u32];
            cover.push(match part.area as usize {
                0 => Cover::Nothing,
                area if area == rows * columns => Cover::All,
                _ => Cover::Part,
            });
            if part.area > 0 && !table::covers(measures.corners, tile) {
                let [l, t, r, b] = corners(&lanes, 1, valid).unwrap_or(table::NOWHERE);
                table::grow(&mut measures.corners, [left + l, top + t, left + r, top + b]);
            }
            if cover.last() == Some(&Cover::Part) {
                for (row, line) in lines.chunks_exact_mut(width).enumerate() {
                    for (column, inside) in line[stripe * TILE_COLUMNS..][..columns].iter_mut().enumerate() {
                        *inside = lanes[column * TILE_ROWS + row] > 0;
                    }
                }
            }
        }
    }
    measures
}

/// Gives the mask's pixels to `id`.
fn paint(buffers: &Buffers, width: usize, ids: &mut [u16], id: u16) {
    let covers = buffers.cover.chunks_exact(width.div_ceil(TILE_COLUMNS));
    let bands = ids.chunks_mut(width * TILE_ROWS).zip(buffers.bitmap.chunks(width * TILE_ROWS));
    for (covers, (ids, bitmap)) in covers.zip(bands) {
        for (ids, bitmap) in ids.chunks_exact_mut(width).zip(bitmap.chunks_exact(width)) {
            let tiles = ids.chunks_mut(TILE_COLUMNS).zip(bitmap.chunks(TILE_COLUMNS));
            for (cover, (ids, bitmap)) in covers.iter().zip(tiles) {
                match cover {
                    Cover::Nothing => {}
                    Cover::All => ids.fill(id),
                    Cover::Part => ids.iter_mut().zip(bitmap).for_each(|(pixel, inside)| *pixel = if *inside { id } else { *pixel }),
                }
            }
        }
    }
}

/// Fills in the tiles of the bitmap that are of one kind.
fn complete(buffers: &mut Buffers, width: usize) {
    let covers = buffers.cover.chunks_exact(width.div_ceil(TILE_COLUMNS));
    for (covers, lines) in covers.zip(buffers.bitmap.chunks_mut(width * TILE_ROWS)) {
        for line in lines.chunks_exact_mut(width) {
            for (cover, pixels) in covers.iter().zip(line.chunks_mut(TILE_COLUMNS)) {
                match cover {
                    Cover::Nothing => pixels.fill(false),
                    Cover::All => pixels.fill(true),
                    Cover::Part => {}
                }
            }
        }
    }
}
