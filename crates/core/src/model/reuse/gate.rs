//! Which patches differ from what they were when they were last computed.
//!
//! ```text
//! per patch, per channel:  means of cells of 4x4 pixels differ by more than the threshold,   a moving edge, slow light
//!                          or a single value by more than eight times that                   a thin line
//! then:  the part of all patches that is due;  all, where that is more than the budget
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
    chosen: Vec<bool>,
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
        let (seen, chosen, sums, peaks) = Default::default();
        Gate { config, patch, cell, limits, seen, is_valid: false, frames: 0, chosen, sums, peaks }
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
        self.chosen[due].fill(true);
        let count = self.chosen.iter().filter(|is_set| **is_set).count();
        if count as f32 > self.config.budget * patches as f32 {
            return self.take_all(input, selection);
        }
        selection.choose(&self.chosen);
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
        self.chosen.resize(patches, false);
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

    /// Sets `chosen` where a patch has changed.
    fn compare(&mut self, input: &Tensor, (rows, columns): (usize, usize)) {
        let ((ph, pw), (ch, cw), width) = (self.patch, self.cell, input.width);
        let used = columns * pw;
        self.chosen.fill(false);
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
                let changed = &mut self.chosen[row * columns..][..columns];
                for (changed, (sums, peaks)) in changed.iter_mut().zip(sums.chunks_exact(pw).zip(peaks.chunks_exact(pw))) {
                    let within = |sums: &[f32]| sums.iter().sum::<f32>().abs() <= mean;
                    *changed |= !(sums.chunks_exact(cw).all(within) && peaks.iter().all(|peak| *peak <= single));
                }
            }
        }
    }
}

/// Adds the differences of a line to `sums`, and keeps the largest magnitudes in `peaks`.
fn add_differences(now: &[f32], seen: &[f32], sums: &mut [f32], peaks: &mut [f32]) {
    for (((now, seen), sum), peak) in now.iter().zip(seen).zip(sums).zip(peaks) {
        let difference = now - seen;
        *sum += difference;
        let magnitude = difference.abs();
        *peak = if magnitude > *peak { magnitude } else { *peak };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three patches across, two down, of 16x16 pixels; and pixels that fill no patch.
    const SIZE: (usize, usize) = (39, 50);

    fn gate(config: ReuseConfig, patch: usize) -> (Gate, Selection, Tensor) {
        let selection = Selection::new((SIZE.0 / patch, SIZE.1 / patch), 1);
        (Gate::new(config, (patch, patch), [0.25, 0.5, 1.0]), selection, Tensor::zeros(SIZE.0, SIZE.1))
    }

    /// Only what changes; no budget, no refresh.
    fn only_changes(threshold: f32) -> ReuseConfig {
        ReuseConfig { threshold, budget: 1.0, refresh: 0 }
    }

    fn choose(gate: &mut Gate, selection: &mut Selection, input: &Tensor) -> Vec<u32> {
        gate.choose(input, selection);
        gate.done();
        selection.chosen.clone()
    }

    /// Adds levels of 8 bits to a rectangle of one channel.
    fn paint(input: &mut Tensor, channel: usize, (top, left): (usize, usize), (height, width): (usize, usize), levels: f32) {
        for at in (top..top + height).flat_map(|y| (left..left + width).map(move |x| (channel * SIZE.0 + y) * SIZE.1 + x)) {
            input.values[at] += levels / 255.0 / [0.25, 0.5, 1.0][channel];
        }
    }

    #[test]
    fn small_objects_count_and_noise_does_not() {
        for channel in 0..3 {
            let (mut gate, mut selection, mut input) = gate(only_changes(6.0), 16);
            assert_eq!(choose(&mut gate, &mut selection, &input), [0, 1, 2, 3, 4, 5]);
            assert_eq!(choose(&mut gate, &mut selection, &input), [0u32; 0]);
            paint(&mut input, channel, (20, 36), (4, 4), 7.0); // one cell of the last patch
            assert_eq!(choose(&mut gate, &mut selection, &input), [5]);
            paint(&mut input, channel, (0, 15), (1, 2), 49.0); // one pixel of two patches
            assert_eq!(choose(&mut gate, &mut selection, &input), [0, 1]);
            paint(&mut input, channel, (0, 0), (32, 48), 5.9); // all, by less than the threshold
            assert_eq!(choose(&mut gate, &mut selection, &input), [0u32; 0]);
            paint(&mut input, channel, (32, 0), (7, 50), 200.0); // what fills no patch
            assert_eq!(choose(&mut gate, &mut selection, &input), [0u32; 0]);
            // normal noise of 4 levels: sqrt(2) of 4 / 4 in a mean
            for (at, value) in input.values.iter_mut().enumerate() {
                let uniform: f32 = (0..12).map(|turn| ((at * 12 + turn) * 7919 % 10007) as f32 / 10007.0).sum();
                *value += (uniform - 6.0) * 4.0 / 255.0 / [0.25, 0.5, 1.0][at / (SIZE.0 * SIZE.1)];
            }
            paint(&mut input, channel, (0, 0), (32, 48), -5.9);
            assert_eq!(choose(&mut gate, &mut selection, &input), [0u32; 0]);
        }
    }

    #[test]
    fn slow_changes_add_up_and_nan_counts() {
        let (mut gate, mut selection, mut input) = gate(only_changes(6.0), 16);
        choose(&mut gate, &mut selection, &input);
        let mut chosen = Vec::new();
        for _ in 0..8 {
            paint(&mut input, 0, (0, 0), (16, 16), 2.2);
            chosen.push(choose(&mut gate, &mut selection, &input).len());
        }
        assert_eq!(chosen, [0, 0, 1, 0, 0, 1, 0, 0]);
        input.values[17] = f32::NAN;
        assert_eq!(choose(&mut gate, &mut selection, &input), [1]);
        assert_eq!(choose(&mut gate, &mut selection, &input), [1], "NaN is never what it was");
    }

    #[test]
    fn at_threshold_zero_any_difference_counts() {
        let (mut gate, mut selection, mut input) = gate(only_changes(0.0), 16);
        choose(&mut gate, &mut selection, &input);
        // a mean that stays, and the smallest step there is
        input.values[0] = 1.0;
        input.values[1] = -1.0;
        assert_eq!(choose(&mut gate, &mut selection, &input), [0]);
        input.values[16] = f32::MIN_POSITIVE;
        assert_eq!(choose(&mut gate, &mut selection, &input), [1]);
    }

    #[test]
    fn patches_are_due_in_turn_and_beyond_the_budget_all_are() {
        for patch in [8, 13, 14, 16] {
            let config = ReuseConfig { threshold: 6.0, budget: 0.5, refresh: 4 };
            let (mut gate, mut selection, mut input) = gate(config, patch);
            let patches = (SIZE.0 / patch * (SIZE.1 / patch)) as u32;
            assert_eq!(choose(&mut gate, &mut selection, &input).len() as u32, patches);
            let mut seen: Vec<u32> = (0..4).flat_map(|_| choose(&mut gate, &mut selection, &input)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..patches).collect::<Vec<_>>(), "{patch}: each once in four frames");
            paint(&mut input, 1, (0, 0), (39, 26), 90.0);
            choose(&mut gate, &mut selection, &input);
            assert!(selection.all, "{patch}");
            // a frame that failed left nothing to build on
            gate.choose(&input, &mut selection);
            assert!(!selection.all, "{patch}");
            gate.choose(&input, &mut selection);
            assert!(selection.all, "{patch}");
        }
    }
}
