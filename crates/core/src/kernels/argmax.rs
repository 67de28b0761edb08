//! The argmax over masks, on one tile of an enlarged mask at a time: probabilities, the query that wins each pixel, pixel counts.

use super::arch::per_isa;
use super::bilinear::{TILE, TILE_COLUMNS, TILE_ROWS, Tile};
use super::math::sigmoid;

/// Float sums run in this many lanes, which are added in order at the end: the same bits on every instruction set.
const LANES: usize = 16;

#[inline(always)]
fn sigmoids_body(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = sigmoid(*value));
}

per_isa! {
    /// [`sigmoid`] of every value: logits become probabilities.
    pub fn sigmoids(values: &mut [f32]) = sigmoids_body;
}

/// The running argmax over masks for the pixels of one tile.
#[derive(Debug, Clone)]
pub struct MaskArgmax {
    /// The largest score times probability so far.
    best: Tile<f32>,
    /// The query that has it, 0 = none.
    winner: Tile<u32>,
    /// The winner where its own probability reaches the mask threshold, else 0.
    confident: Tile<u32>,
}

impl MaskArgmax {
    /// No query so far.
    pub fn new() -> MaskArgmax {
        MaskArgmax { best: [f32::NEG_INFINITY; TILE], winner: [0; TILE], confident: [0; TILE] }
    }

    /// The winner of each pixel where its probability reaches the mask threshold, else 0.
    pub fn confident(&self) -> &Tile<u32> {
        &self.confident
    }
}

impl Default for MaskArgmax {
    fn default() -> Self {
        MaskArgmax::new()
    }
}

/// A query whose mask takes part in the argmax.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Not 0.
    pub number: u32,
    /// The class score that weights its mask.
    pub score: f32,
}

#[inline(always)]
fn update_body(argmax: &mut MaskArgmax, query: Query, probabilities: &Tile<f32>, threshold: f32) {
    let MaskArgmax { best, winner, confident } = argmax;
    for i in 0..TILE {
        let weighted = query.score * probabilities[i];
        let wins = weighted > best[i];
        let reaches = if probabilities[i] >= threshold { query.number } else { 0 };
        best[i] = if wins { weighted } else { best[i] };
        winner[i] = if wins { query.number } else { winner[i] };
        confident[i] = if wins { reaches } else { confident[i] };
    }
}

per_isa! {
    /// Adds a query's mask: it wins the pixels where its score times its probability exceeds every earlier one. NaN never wins.
    pub fn update(argmax: &mut MaskArgmax, query: Query, probabilities: &Tile<f32>, threshold: f32) = update_body;
}

#[inline(always)]
fn count_reaching_body(probabilities: &Tile<f32>, threshold: f32, valid: &Tile<u32>) -> u32 {
    probabilities.iter().zip(valid).map(|(probability, valid)| if *probability >= threshold { *valid } else { 0 }).sum()
}

per_isa! {
    /// The number of pixels whose probability reaches `threshold`; `valid` is 1 for the lanes that are pixels, else 0.
    pub fn count_reaching(probabilities: &Tile<f32>, threshold: f32, valid: &Tile<u32>) -> u32 = count_reaching_body;
}

/// The pixels of a tile that one query wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub won: u32,
    /// Those where its probability also reaches the mask threshold.
    pub confident: u32,
}

#[inline(always)]
fn count_body(argmax: &MaskArgmax, number: u32, valid: &Tile<u32>) -> Counts {
    let count = |winners: &Tile<u32>| winners.iter().zip(valid).map(|(winner, valid)| if *winner == number { *valid } else { 0 }).sum();
    Counts { won: count(&argmax.winner), confident: count(&argmax.confident) }
}

per_isa! {
    /// Counts the pixels that query `number` wins; `valid` as in [`count_reaching`].
    pub fn count(argmax: &MaskArgmax, number: u32, valid: &Tile<u32>) -> Counts = count_body;
}

/// The pixels of a tile with a positive logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foreground {
    /// Their number.
    pub area: u32,
    /// The sum of their probabilities.
    pub sum: f32,
}

#[inline(always)]
fn foreground_body(logits: &Tile<f32>, valid: &Tile<u32>, mask: &mut Tile<u32>) -> Foreground {
    let mut lanes = [0f32; LANES];
    for ((logits, valid), mask) in logits.chunks_exact(LANES).zip(valid.chunks_exact(LANES)).zip(mask.chunks_exact_mut(LANES)) {
        for lane in 0..LANES {
            mask[lane] = if logits[lane] > 0.0 { valid[lane] } else { 0 };
            lanes[lane] += if mask[lane] > 0 { sigmoid(logits[lane]) } else { 0.0 };
        }
    }
    Foreground { area: mask.iter().sum(), sum: lanes.iter().sum() }
}

per_isa! {
    /// Sets `mask` to 1 where a pixel's logit is positive, else to 0, and measures those pixels; `valid` as in [`count_reaching`].
    pub fn foreground(logits: &Tile<f32>, valid: &Tile<u32>, mask: &mut Tile<u32>) -> Foreground = foreground_body;
}

/// 1 for the lanes of a tile of `rows` rows (1 to 8) and `columns` columns (1 to 16), else 0.
pub fn valid_lanes(rows: usize, columns: usize) -> &'static Tile<u32> {
    static LANES: [[Tile<u32>; TILE_COLUMNS]; TILE_ROWS] = every_size();
    &LANES[rows - 1][columns - 1]
}

const fn every_size() -> [[Tile<u32>; TILE_COLUMNS]; TILE_ROWS] {
    let mut all = [[[0; TILE]; TILE_COLUMNS]; TILE_ROWS];
    let mut at = 0;
    while at < TILE * TILE {
        let (size, lane) = (at / TILE, at % TILE);
        let (rows, columns) = (size / TILE_COLUMNS, size % TILE_COLUMNS);
        all[rows][columns][lane] = (lane % TILE_ROWS <= rows && lane / TILE_ROWS <= columns) as u32;
        at += 1;
    }
    all
}

/// The smallest box around the valid lanes that hold `number`, in pixels of the tile: left, top, right, bottom (the last two
/// exclusive); `None` where no lane does.
pub fn corners(lanes: &Tile<u32>, number: u32, valid: &Tile<u32>) -> Option<[u32; 4]> {
    let mut rows = [false; TILE_ROWS];
    let (mut left, mut right) = (u32::MAX, 0);
    for (x, (column, valid)) in lanes.chunks_exact(TILE_ROWS).zip(valid.chunks_exact(TILE_ROWS)).enumerate() {
        let mut any = false;
        for ((row, lane), valid) in rows.iter_mut().zip(column).zip(valid) {
            let holds = *lane == number && *valid > 0;
            any |= holds;
            *row |= holds;
        }
        if any {
            (left, right) = (left.min(x as u32), x as u32 + 1);
        }
    }
    let top = rows.iter().position(|any| *any)? as u32;
    let bottom = rows.iter().rposition(|any| *any)? as u32 + 1;
    Some([left, top, right, bottom])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;

    fn logits(seed: u32) -> Tile<f32> {
        let mut state = seed;
        std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 1_048_576.0 - 8.0
        })
    }

    #[test]
    fn argmax_equals_the_definition_everywhere() {
        let scores = [0.7, 0.9, 0.8];
        let valid = valid_lanes(7, 13);
        let probabilities = suite::everywhere("sigmoids", |isa| {
            let tile = |seed: u32| {
                let mut values = logits(seed);
                values[5] = if seed == 2 { f32::NAN } else { 1.0 };
                sigmoids(isa, &mut values);
                values
            };
            (1..4).map(tile).collect::<Vec<Tile<f32>>>()
        });
        let (confident, counted) = suite::everywhere("argmax", |isa| {
            let mut argmax = MaskArgmax::new();
            for (index, probabilities) in probabilities.iter().enumerate() {
                update(isa, &mut argmax, Query { number: index as u32 + 1, score: scores[index] }, probabilities, 0.5);
            }
            let counts = |index: usize| {
                let Counts { won, confident } = count(isa, &argmax, index as u32 + 1, valid);
                [won, confident, count_reaching(isa, &probabilities[index], 0.5, valid)]
            };
            (*argmax.confident(), (0..3).map(counts).collect::<Vec<_>>())
        });
        let mut expected = [[0; 3]; 3];
        for lane in 0..TILE {
            let weighted = |index: usize| scores[index] * probabilities[index][lane];
            let mut winner = 0;
            for index in [1, 2] {
                winner = if weighted(index) > weighted(winner) { index } else { winner };
            }
            let reaches = probabilities[winner][lane] >= 0.5;
            assert_eq!(confident[lane], if reaches { winner as u32 + 1 } else { 0 });
            expected[winner][0] += valid[lane];
            expected[winner][1] += if reaches { valid[lane] } else { 0 };
            for index in 0..3 {
                expected[index][2] += if probabilities[index][lane] >= 0.5 { valid[lane] } else { 0 };
            }
        }
        assert_eq!(counted, expected);
    }

    #[test]
    fn the_foreground_is_measured_the_same_everywhere() {
        let (values, valid) = (logits(9), valid_lanes(8, 11));
        let ((area, sum), mask) = suite::everywhere("foreground", |isa| {
            let mut mask = [2; TILE];
            let Foreground { area, sum } = foreground(isa, &values, valid, &mut mask);
            ((area, sum), mask)
        });
        let expected: f64 = (0..11 * TILE_ROWS).filter(|&lane| values[lane] > 0.0).map(|lane| f64::from(sigmoid(values[lane]))).sum();
        assert!((f64::from(sum) - expected).abs() < 1e-4, "88 probabilities, f32");
        assert!((0..TILE).all(|lane| mask[lane] == u32::from(values[lane] > 0.0 && lane < 88)));
        assert_eq!(area, mask.iter().sum::<u32>());
    }

    #[test]
    fn corners_are_tight() {
        let mut lanes = [0; TILE];
        let valid = valid_lanes(8, 15);
        assert_eq!(corners(&lanes, 3, valid), None);
        lanes[2 * TILE_ROWS + 5] = 3;
        assert_eq!(corners(&lanes, 3, valid), Some([2, 5, 3, 6]));
        lanes[9 * TILE_ROWS + 1] = 3;
        (lanes[14 * TILE_ROWS + 7], lanes[15 * TILE_ROWS + 7]) = (4, 3);
        assert_eq!(corners(&lanes, 3, valid), Some([2, 1, 10, 6]));
    }
}
