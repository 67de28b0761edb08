//! Which patches differ from what they were when they were last computed.
//!
//! ```text
//! per patch, per channel:  means of cells of 4x4 pixels differ by more than the threshold,   a moving edge, slow light
//!                          or a single value by more than eight times that                   a thin line
//! then:  neighbours of what changed;  the part of all patches that is due;  all, where that is more than the budget
//! ```
//!
//! A mean of 16 pixels has a quarter of the noise of one, so that noise of a camera stays below a threshold that still sees a small
//! object, which the mean over a whole patch would not. What is compared with is what was computed, not the last frame: a change too slow
//! to be seen from frame to frame adds up.
//!
//! Sums run in one fixed order in f32 without fused multiply-adds, so that every machine chooses the same patches. NaN counts as changed.

use super::config::{ReuseConfig, SINGLE};
use super::selection::Selection;
use crate::data::Tensor;

/// Pixels of a cell's side, at least; a patch's side is a multiple of the cell's.
const CELL_MIN: usize = 4;

/// Compares frames.
#[derive(Debug)]
pub struct Gate {
    config: ReuseConfig,
    /// (height, width) of a patch, pixels.
    patch: (usize, usize),
    cell: (usize, usize),
    /// Of each channel, in the tensor's units: what a mean may differ by.
    limits: [f32; 3],
    /// The pixels with which each patch was last computed, `[3, height, width]`.
    seen: Vec<f32>,
    /// What operators keep belongs to `seen`.
    is_valid: bool,
    /// Frames since the reset.
    frames: u64,
    changed: Vec<bool>,
    marked: Vec<bool>,
    /// Of one line of cells, per column: sum and largest magnitude of differences.
    sums: Vec<f32>,
    peaks: Vec<f32>,
}

/// The smallest part of `side` that is at least [`CELL_MIN`] and divides it.
fn cell(side: usize) -> usize {
    (CELL_MIN.min(side)..=side).find(|cell| side.is_multiple_of(*cell)).unwrap_or(side)
}

impl Gate {
    /// `std`: what pixel values from 0 to 1 are divided by, of each channel.
    pub fn new(config: ReuseConfig, patch: (usize, usize), std: [f32; 3]) -> Gate {
        let limits = std.map(|std| config.threshold / (255.0 * std));
        let cell = (cell(patch.0), cell(patch.1));
        let (seen, changed, marked, sums, peaks) = Default::default();
        Gate { config, patch, cell, limits, seen, is_valid: false, frames: 0, changed, marked, sums, peaks }
    }

    /// Chooses the patches of the next frame. [`Gate::done`] must follow when they have been computed, else the next frame computes all.
    pub fn choose(&mut self, input: &Tensor, selection: &mut Selection) {
        let patches = selection.grid.0 * selection.grid.1;
        let due = self.due(patches);
        self.frames += 1;
        if !std::mem::take(&mut self.is_valid) || self.seen.len() != input.values.len() {
            return self.take_all(input, selection);
        }
        self.compare(input, selection.grid);
        self.spread(selection.grid);
        self.marked[due].fill(true);
        let count = self.marked.iter().filter(|is_set| **is_set).count();
        if count as f32 > self.config.budget * patches as f32 {
            return self.take_all(input, selection);
        }
        selection.choose(&self.marked);
        let (_, columns) = selection.grid;
        let (ph, pw) = self.patch;
        for index in selection.chosen.iter().map(|index| *index as usize) {
            let (top, left) = (index / columns * ph, index % columns * pw);
            for line in (0..3).flat_map(|channel| (0..ph).map(move |y| channel * input.height + top + y)) {
                let range = line * input.width + left..line * input.width + left + pw;
                self.seen[range.clone()].copy_from_slice(&input.values[range]);
            }
        }
    }

    /// What was chosen has been computed.
    pub fn done(&mut self) {
        self.is_valid = true;
    }

    /// Forgets earlier frames.
    pub fn reset(&mut self) {
        self.is_valid = false;
        self.frames = 0;
    }

    fn take_all(&mut self, input: &Tensor, selection: &mut Selection) {
        self.seen.resize(input.values.len(), 0.0);
        self.seen.copy_from_slice(&input.values);
        let patches = selection.grid.0 * selection.grid.1;
        self.changed.resize(patches, false);
        self.marked.resize(patches, false);
        self.sums.resize(input.width, 0.0);
        self.peaks.resize(input.width, 0.0);
        selection.choose_all();
    }

    /// The patches whose turn it is: neighbours, since what depends on a patch reaches beyond it.
    fn due(&self, patches: usize) -> std::ops::Range<usize> {
        let Some(turn) = self.frames.checked_rem(u64::from(self.config.refresh)) else { return 0..0 };
        let bound = |turn: u64| (patches as u64 * turn / u64::from(self.config.refresh)) as usize;
        bound(turn)..bound(turn + 1)
    }

    /// Sets `changed`.
    fn compare(&mut self, input: &Tensor, (rows, columns): (usize, usize)) {
        let ((ph, pw), (ch, cw), width) = (self.patch, self.cell, input.width);
        let used = columns * pw;
        self.changed.fill(false);
        for (channel, row) in (0..3).flat_map(|channel| (0..rows).map(move |row| (channel, row))) {
            let (mean, single) = (self.limits[channel] * (ch * cw) as f32, self.limits[channel] * SINGLE);
            for cell in 0..ph / ch {
                let (sums, peaks) = (&mut self.sums[..used], &mut self.peaks[..used]);
                sums.fill(0.0);
                peaks.fill(0.0);
                for y in 0..ch {
                    let at = (channel * input.height + row * ph + cell * ch + y) * width;
                    add_differences(&input.values[at..at + used], &self.seen[at..at + used], sums, peaks);
                }
                let changed = &mut self.changed[row * columns..][..columns];
                for (changed, (sums, peaks)) in changed.iter_mut().zip(sums.chunks_exact(pw).zip(peaks.chunks_exact(pw))) {
                    let within = |sums: &[f32]| sums.iter().sum::<f32>().abs() <= mean;
                    *changed |= !(sums.chunks_exact(cw).all(within) && peaks.iter().all(|peak| *peak <= single));
                }
            }
        }
    }

    /// Sets `marked`: what has changed, and its neighbours.
    fn spread(&mut self, (rows, columns): (usize, usize)) {
        for (index, marked) in self.marked.iter_mut().enumerate() {
            let (y, x) = (index / columns, index % columns);
            let across = x.saturating_sub(SPREAD)..(x + SPREAD + 1).min(columns);
            let mut lines = y.saturating_sub(SPREAD)..(y + SPREAD + 1).min(rows);
            *marked = lines.any(|y| self.changed[y * columns..][..columns][across.clone()].contains(&true));
        }
    }
}

/// Patches around a changed one that are computed, too.
const SPREAD: usize = 0;

/// Adds the differences of a line to `sums`, and keeps the largest magnitudes in `peaks`.
fn add_differences(now: &[f32], seen: &[f32], sums: &mut [f32], peaks: &mut [f32]) {
    for (((now, seen), sum), peak) in now.iter().zip(seen).zip(sums).zip(peaks) {
        let difference = now - seen;
        *sum += difference;
        let magnitude = difference.abs();
        *peak = if magnitude > *peak { magnitude } else { *peak };
    }
}
