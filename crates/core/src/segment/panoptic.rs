//! Panoptic segmentation: every pixel goes to the query with the largest class score times mask probability.

use super::{PostProcessConfig, Table, classify_query, table};
use crate::data::{Logits, NO_SEGMENT, Task};
use crate::kernels::arch::Isa;
use crate::kernels::argmax::{self, MaskArgmax, Query};
use crate::kernels::bilinear::{TILE, TILE_COLUMNS, TILE_ROWS, Tile, Upsampler};
use crate::kernels::math::all_finite;

/// A query that may win pixels.
#[derive(Debug, Clone)]
struct Candidate {
    /// Index into `logits.kept`.
    mask: usize,
    class: usize,
    score: f32,
    /// Whether all mask logits are; if not, bounds mean nothing.
    finite: bool,
    /// Pixels it wins.
    won: u32,
    /// Pixels at which its own probability reaches the mask threshold.
    own: u32,
    /// Pixels that are both.
    both: u32,
    /// Around the pixels that are both.
    corners: [u32; 4],
}

/// Reused from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    candidates: Vec<Candidate>,
    /// Bounds of the probabilities in the tiles of one band: `[candidates, stripes]`.
    low: Vec<f32>,
    high: Vec<f32>,
    /// A lower bound of the winner's weighted probability in each tile.
    floor: Vec<f32>,
    /// The candidate (from 1) that owns all pixels of a tile, 0 = none, or [`MIXED`].
    owners: Vec<u16>,
    /// Segment id of each candidate, shifted by one: entry 0 stands for no candidate.
    segment_of: Vec<u16>,
    /// Class and segment id of the stuff seen.
    stuff: Vec<(usize, u16)>,
}

/// The owner of a tile whose pixels are decided one by one, and stand in the id map already.
const MIXED: u16 = u16::MAX;

/// More than the relative error of a probability and of its product with a score (3e-7 and a few roundings).
const SLACK: f32 = 4e-6;

/// After transformers, `compute_segments`:
/// ```text
/// for each pixel:   winner = argmax over candidates of score * sigmoid(mask)
/// for each candidate in order: drop it when it wins nothing, or wins no more than `overlap` of its own mask
///                              stuff of a class seen before joins that segment, everything else is a new one
/// id of a pixel  =  segment of its winner where the winner's probability reaches the mask threshold
/// ```
/// Most tiles need no look at their pixels: the bounds of the enlarged masks show that all pixels reach the threshold or none does, and
/// that one candidate leads everywhere.
pub(super) fn run(
    isa: Isa,
    logits: &Logits,
    config: &PostProcessConfig,
    upsampler: &mut Upsampler,
    buffers: &mut Buffers,
    ids: &mut [u16],
    table: &mut Table,
) {
    let threshold = config.thresholds.mask as f32;
    find_candidates(logits, config, &mut buffers.candidates);
    let (bands, stripes) = upsampler.tiles();
    buffers.owners.clear();
    let width = upsampler.size().1;
    let mut argmax = Argmax { isa, logits, threshold, stripes, upsampler, buffers, probabilities: [0.0; TILE] };
    for (band, lines) in (0..bands).zip(ids.chunks_mut(width * TILE_ROWS)) {
        argmax.bounds(band);
        for stripe in 0..stripes {
            let owner = argmax.tile(band, stripe, lines);
            argmax.buffers.owners.push(owner);
        }
    }
    number(config, logits, buffers, table);
    for (owners, lines) in buffers.owners.chunks_exact(stripes).zip(ids.chunks_mut(width * TILE_ROWS)) {
        for line in lines.chunks_exact_mut(width) {
            for (owner, pixels) in owners.iter().zip(line.chunks_mut(TILE_COLUMNS)) {
                match *owner {
                    MIXED => pixels.iter_mut().for_each(|id| *id = buffers.segment_of[usize::from(*id)]),
                    owner => pixels.fill(buffers.segment_of[usize::from(owner)]),
                }
            }
        }
    }
}

fn find_candidates(logits: &Logits, config: &PostProcessConfig, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    candidates.extend(logits.kept.iter().enumerate().filter_map(|(mask, &query)| {
        let (class, score) = classify_query(logits.class.row(query), Task::Panoptic)?;
        let finite = || all_finite(logits.mask(mask));
        let candidate = || Candidate { mask, class, score, finite: finite(), won: 0, own: 0, both: 0, corners: table::NOWHERE };
        (score > config.thresholds.score as f32).then(candidate)
    }));
}

/// Decides which candidates become segments, and numbers those.
fn number(config: &PostProcessConfig, logits: &Logits, buffers: &mut Buffers, table: &mut Table) {
    let Table { rows, queries, .. } = table;
    let Buffers { candidates, segment_of, stuff, .. } = buffers;
    segment_of.clear();
    segment_of.push(NO_SEGMENT);
    stuff.clear();
    for candidate in candidates.iter() {
        let exists = candidate.won > 0 && candidate.own > 0 && candidate.both > 0;
        // an f32 quotient against a double, as in the reference
        if !exists || f64::from(candidate.won as f32 / candidate.own as f32) <= config.thresholds.overlap {
            segment_of.push(NO_SEGMENT);
            continue;
        }
        let seen = stuff.iter().find(|(class, _)| *class == candidate.class).map(|(_, id)| *id);
        let id = seen.unwrap_or_else(|| {
            let row = table::row(rows.len(), candidate.class, candidate.score);
            if config.is_stuff(candidate.class) {
                stuff.push((candidate.class, row.id));
            }
            rows.push(row);
            queries.push(logits.kept[candidate.mask] as u16);
            row.id
        });
        segment_of.push(id);
        table::add(&mut rows[usize::from(id) - 1], candidate.both, candidate.corners);
    }
    table::finish(rows);
}

/// Whether a mask reaches the threshold in a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Everywhere,
    Nowhere,
    Somewhere,
}

/// The argmax over all candidates, tile by tile.
struct Argmax<'a> {
    isa: Isa,
    logits: &'a Logits,
    threshold: f32,
    stripes: usize,
    upsampler: &'a mut Upsampler,
    buffers: &'a mut Buffers,
    probabilities: Tile<f32>,
}

impl Argmax<'_> {
    /// Bounds of all candidates in all tiles of a band.
    fn bounds(&mut self, band: usize) {
        let Buffers { candidates, low, high, floor, .. } = &mut *self.buffers;
        let stripes = self.stripes;
        low.resize(candidates.len() * stripes, 0.0);
        high.resize(candidates.len() * stripes, 0.0);
        for ((candidate, low), high) in candidates.iter().zip(low.chunks_exact_mut(stripes)).zip(high.chunks_exact_mut(stripes)) {
            if candidate.finite {
                self.upsampler.bounds(self.isa, self.logits.mask(candidate.mask), band, low, high);
            } else {
                low.fill(f32::NAN);
                high.fill(f32::INFINITY);
            }
        }
        argmax::sigmoids(self.isa, low);
        argmax::sigmoids(self.isa, high);
        floor.clear();
        floor.resize(stripes, 0.0);
        for (candidate, low) in candidates.iter().zip(low.chunks_exact(stripes)) {
            for (floor, low) in floor.iter_mut().zip(low) {
                let least = candidate.score * low * (1.0 - SLACK);
                *floor = if least > *floor { least } else { *floor };
            }
        }
    }

    /// Whether the candidate can win a pixel of the tile.
    fn can_win(&self, index: usize, stripe: usize) -> bool {
        self.buffers.candidates[index].score * self.buffers.high[index * self.stripes + stripe] * (1.0 + SLACK)
            >= self.buffers.floor[stripe]
    }

    fn reach(&self, index: usize, stripe: usize) -> Reach {
        let at = index * self.stripes + stripe;
        if self.buffers.low[at] * (1.0 - SLACK) >= self.threshold {
            Reach::Everywhere
        } else if self.buffers.high[at] * (1.0 + SLACK) < self.threshold {
            Reach::Nowhere
        } else {
            Reach::Somewhere
        }
    }

    /// Counts a tile; returns its owner, or [`MIXED`] after writing the winners (from 1) into `lines`, the rows of the band.
    fn tile(&mut self, band: usize, stripe: usize, lines: &mut [u16]) -> u16 {
        let count = self.buffers.candidates.len();
        let (rows, columns) = self.upsampler.tile_size(band, stripe);
        let mut possible = (0..count).filter(|&index| self.can_win(index, stripe));
        let (first, more) = (possible.next(), possible.next().is_some());
        let mixed = more || first.is_some_and(|index| self.reach(index, stripe) == Reach::Somewhere);
        let mut running = MaskArgmax::new();
        for index in 0..count {
            let enters = mixed && self.can_win(index, stripe);
            match self.reach(index, stripe) {
                Reach::Nowhere if !enters => {}
                Reach::Everywhere if !enters => self.buffers.candidates[index].own += (rows * columns) as u32,
                _ => self.look(index, band, stripe, enters.then_some(&mut running)),
            }
        }
        if mixed {
            self.count(&running, band, stripe);
            let width = self.upsampler.size().1;
            let confident = running.confident();
            for (row, line) in lines.chunks_exact_mut(width).enumerate() {
                for (column, id) in line[stripe * TILE_COLUMNS..][..columns].iter_mut().enumerate() {
                    *id = confident[column * TILE_ROWS + row] as u16;
                }
            }
            return MIXED;
        }
        let Some(index) = first else { return 0 };
        let confident = self.reach(index, stripe) == Reach::Everywhere;
        let candidate = &mut self.buffers.candidates[index];
        candidate.won += (rows * columns) as u32;
        if confident {
            candidate.both += (rows * columns) as u32;
            let (left, top) = (stripe * TILE_COLUMNS, band * TILE_ROWS);
            table::grow(&mut candidate.corners, [left, top, left + columns, top + rows].map(|value| value as u32));
        }
        if confident { index as u16 + 1 } else { 0 }
    }

    /// Computes the candidate's pixels, counts its own, and adds it to the argmax.
    fn look(&mut self, index: usize, band: usize, stripe: usize, argmax: Option<&mut MaskArgmax>) {
        let (rows, columns) = self.upsampler.tile_size(band, stripe);
        let candidate = &mut self.buffers.candidates[index];
        self.upsampler.tile(self.isa, self.logits.mask(candidate.mask), band, stripe, &mut self.probabilities);
        argmax::sigmoids(self.isa, &mut self.probabilities);
        candidate.own += argmax::count_reaching(self.isa, &self.probabilities, self.threshold, argmax::valid_lanes(rows, columns));
        if let Some(argmax) = argmax {
            let query = Query { number: index as u32 + 1, score: candidate.score };
            argmax::update(self.isa, argmax, query, &self.probabilities, self.threshold);
        }
    }

    /// Counts the pixels of a mixed tile for each candidate.
    fn count(&mut self, argmax: &MaskArgmax, band: usize, stripe: usize) {
        let (rows, columns) = self.upsampler.tile_size(band, stripe);
        let valid = argmax::valid_lanes(rows, columns);
        let (left, top) = ((stripe * TILE_COLUMNS) as u32, (band * TILE_ROWS) as u32);
        let tile = [left, top, left + columns as u32, top + rows as u32];
        for index in 0..self.buffers.candidates.len() {
            if !self.can_win(index, stripe) {
                continue;
            }
            let number = index as u32 + 1;
            let counts = argmax::count(self.isa, argmax, number, valid);
            let candidate = &mut self.buffers.candidates[index];
            candidate.won += counts.won;
            candidate.both += counts.confident;
            if counts.confident > 0 && !table::covers(candidate.corners, tile) {
                let [l, t, r, b] = argmax::corners(argmax.confident(), number, valid).unwrap_or(table::NOWHERE);
                table::grow(&mut candidate.corners, [left + l, top + t, left + r, top + b]);
            }
        }
    }
}
