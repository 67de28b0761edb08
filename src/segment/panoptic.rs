//! Panoptic segmentation: every pixel goes to the query with the largest class score times mask probability.

use super::{Rules, Scratch, Table, table, verdict};
use crate::data::{Logits, NO_SEGMENT, Task};
use crate::kernels::bilinear::Upsampler;
use crate::kernels::math::sigmoid;

/// A query in the running.
struct Candidate {
    /// Index into `logits.kept`.
    mask: usize,
    class: usize,
    score: f32,
    /// Pixels it wins.
    won: u32,
    /// Pixels at which its own probability reaches the mask threshold.
    own: u32,
    /// Pixels that are both.
    both: u32,
}

/// After transformers, `compute_segments`:
/// ```text
/// for each pixel:   winner = argmax over candidates of score * sigmoid(mask)
/// for each candidate in order: drop it when it wins nothing, or wins no more than `overlap` of its own mask
///                              stuff of a class seen before joins that segment, everything else is a new one
/// id of a pixel  =  segment of its winner where the winner's probability reaches the mask threshold
/// ```
pub(super) fn run(logits: &Logits, rules: &Rules, upsampler: &mut Upsampler, scratch: &mut Scratch, ids: &mut [u16]) -> Table {
    let mut candidates = candidates(logits, rules);
    contest(logits, &mut candidates, rules.thresholds.mask as f32, upsampler, scratch, ids);
    let mut rows = Vec::with_capacity(candidates.len());
    // segment id of each candidate, shifted by one: entry 0 is "nobody"
    let mut segment_of = vec![NO_SEGMENT; candidates.len() + 1];
    let mut stuff_segments: Vec<(usize, u16)> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let exists = candidate.won > 0 && candidate.own > 0 && candidate.both > 0;
        // an f32 quotient against a double, as in the reference
        if !exists || f64::from(candidate.won as f32 / candidate.own as f32) <= rules.thresholds.overlap {
            continue;
        }
        let seen = stuff_segments.iter().find(|(class, _)| *class == candidate.class);
        if let Some((_, id)) = seen {
            segment_of[index + 1] = *id;
            continue;
        }
        let row = table::row(rows.len(), candidate.class, candidate.score);
        segment_of[index + 1] = row.id;
        if rules.is_stuff(candidate.class) {
            stuff_segments.push((candidate.class, row.id));
        }
        rows.push(row);
    }
    ids.iter_mut().for_each(|id| *id = segment_of[usize::from(*id)]);
    table::measure(ids, upsampler.size().1, &mut rows);
    Table { rows, masks: Vec::new() }
}

fn candidates(logits: &Logits, rules: &Rules) -> Vec<Candidate> {
    let candidate = |(mask, &query): (usize, &usize)| {
        let (class, score) = verdict(logits.class.row(query), Task::Panoptic)?;
        (score > rules.thresholds.score as f32).then_some(Candidate { mask, class, score, won: 0, own: 0, both: 0 })
    };
    logits.kept.iter().enumerate().filter_map(candidate).collect()
}

/// Leaves the winner's number (from 1) where it also reaches the threshold, else 0, and counts.
fn contest(
    logits: &Logits,
    candidates: &mut [Candidate],
    mask_threshold: f32,
    upsampler: &mut Upsampler,
    scratch: &mut Scratch,
    ids: &mut [u16],
) {
    let (_, width) = upsampler.size();
    let Scratch { row, best, winner, .. } = scratch;
    row.resize(width, 0.0);
    best.resize(width, 0.0);
    winner.resize(width, 0);
    for (y, line) in ids.chunks_exact_mut(width).enumerate() {
        best.fill(f32::NEG_INFINITY);
        winner.fill(0);
        line.fill(0);
        for (index, candidate) in candidates.iter_mut().enumerate() {
            upsampler.row(logits.mask(candidate.mask), y, row);
            row.iter_mut().for_each(|value| *value = sigmoid(*value));
            let number = index as u16 + 1;
            let mut own = 0;
            for (((&probability, best), winner), id) in row.iter().zip(best.iter_mut()).zip(winner.iter_mut()).zip(line.iter_mut()) {
                let reaches = probability >= mask_threshold;
                let weighted = candidate.score * probability;
                own += u32::from(reaches);
                if weighted > *best {
                    (*best, *winner) = (weighted, number);
                    *id = if reaches { number } else { 0 };
                }
            }
            candidate.own += own;
        }
        for (&winner, &id) in winner.iter().zip(line.iter()) {
            if winner > 0 {
                let candidate = &mut candidates[usize::from(winner) - 1];
                candidate.won += 1;
                candidate.both += u32::from(id > 0);
            }
        }
    }
}
