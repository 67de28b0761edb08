//! What segmentation does with the lanes of one tile of an enlarged mask: probabilities, who wins a pixel, how many pixels.

use super::arch::per_isa;
use super::bilinear::{TILE, TILE_COLUMNS, TILE_ROWS, Tile};
use super::math::sigmoid;

/// Sums of floats are kept in this many lanes, added up in order at the end: the same on every instruction set.
const LANES: usize = 16;

#[inline(always)]
fn sigmoids_body(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = sigmoid(*value));
}

per_isa! {
    /// Logits become probabilities.
    pub fn sigmoids(values: &mut [f32]) = sigmoids_body;
}

/// A tile's pixels and who has the best claim so far.
#[derive(Debug, Clone)]
pub struct Contest {
    /// Largest score times probability.
    best: Tile<f32>,
    /// Who has it, 0 = nobody.
    winner: Tile<u32>,
    /// The same where the winner's own probability also reaches the threshold, else 0.
    claim: Tile<u32>,
}

impl Contest {
    /// Nobody has claimed anything.
    pub fn new() -> Contest {
        Contest { best: [f32::NEG_INFINITY; TILE], winner: [0; TILE], claim: [0; TILE] }
    }

    /// The winner of each pixel where its probability reaches the threshold, else 0.
    pub fn claims(&self) -> &Tile<u32> {
        &self.claim
    }
}

impl Default for Contest {
    fn default() -> Self {
        Contest::new()
    }
}

/// Who enters a contest.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// Not 0.
    pub number: u32,
    pub score: f32,
}

#[inline(always)]
fn enter_body(contest: &mut Contest, contender: Contender, probabilities: &Tile<f32>, threshold: f32) {
    let Contest { best, winner, claim } = contest;
    for i in 0..TILE {
        let weighted = contender.score * probabilities[i];
        let wins = weighted > best[i];
        let claimed = if probabilities[i] >= threshold { contender.number } else { 0 };
        best[i] = if wins { weighted } else { best[i] };
        winner[i] = if wins { contender.number } else { winner[i] };
        claim[i] = if wins { claimed } else { claim[i] };
    }
}

per_isa! {
    /// The contender takes the pixels where its score times its probability is larger than anybody's before.
    pub fn enter(contest: &mut Contest, contender: Contender, probabilities: &Tile<f32>, threshold: f32) = enter_body;
}

#[inline(always)]
fn reaching_body(probabilities: &Tile<f32>, threshold: f32, valid: &Tile<u32>) -> u32 {
    probabilities.iter().zip(valid).map(|(probability, valid)| if *probability >= threshold { *valid } else { 0 }).sum()
}

per_isa! {
    /// Pixels at which a probability reaches `threshold`; `valid` is 1 for the lanes that are pixels, else 0.
    pub fn reaching(probabilities: &Tile<f32>, threshold: f32, valid: &Tile<u32>) -> u32 = reaching_body;
}

/// What a contender got of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Pixels that it wins.
    pub won: u32,
    /// Pixels that it also claims.
    pub claimed: u32,
}

#[inline(always)]
fn tally_body(contest: &Contest, number: u32, valid: &Tile<u32>) -> Tally {
    let count = |owners: &Tile<u32>| owners.iter().zip(valid).map(|(owner, valid)| if *owner == number { *valid } else { 0 }).sum();
    Tally { won: count(&contest.winner), claimed: count(&contest.claim) }
}

per_isa! {
    /// Counts what `number` got.
    pub fn tally(contest: &Contest, number: u32, valid: &Tile<u32>) -> Tally = tally_body;
}

/// The part of a tile that is positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inside {
    pub area: u32,
    /// Of the probabilities.
    pub sum: f32,
}

#[inline(always)]
fn inside_body(values: &Tile<f32>, valid: &Tile<u32>, inside: &mut Tile<u32>) -> Inside {
    let mut lanes = [0f32; LANES];
    for ((values, valid), inside) in values.chunks_exact(LANES).zip(valid.chunks_exact(LANES)).zip(inside.chunks_exact_mut(LANES)) {
        for lane in 0..LANES {
            inside[lane] = if values[lane] > 0.0 { valid[lane] } else { 0 };
            lanes[lane] += if inside[lane] > 0 { sigmoid(values[lane]) } else { 0.0 };
        }
    }
    Inside { area: inside.iter().sum(), sum: lanes.iter().sum() }
}

per_isa! {
    /// Marks the lanes with a positive logit by 1.
    pub fn inside(values: &Tile<f32>, valid: &Tile<u32>, inside: &mut Tile<u32>) -> Inside = inside_body;
}

/// 1 for the lanes of a tile of this many rows and columns, else 0.
pub fn lanes_of(rows: usize, columns: usize) -> &'static Tile<u32> {
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

/// The smallest box around the valid lanes that hold `number`: left, top, right, bottom (the last two exclusive); `None` without
/// any.
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
    use crate::kernels::arch::Isa;

    fn logits(seed: u32) -> Tile<f32> {
        let mut state = seed;
        std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 1_048_576.0 - 8.0
        })
    }

    #[test]
    fn contests_are_decided_by_the_definition_everywhere() {
        let scores = [0.7, 0.9, 0.8];
        let valid = lanes_of(7, 13);
        for isa in Isa::available() {
            let probabilities: Vec<Tile<f32>> = (1..4)
                .map(|seed| {
                    let mut values = logits(seed);
                    values[5] = if seed == 2 { f32::NAN } else { 1.0 };
                    sigmoids(isa, &mut values);
                    values
                })
                .collect();
            let mut contest = Contest::new();
            for (index, probabilities) in probabilities.iter().enumerate() {
                enter(isa, &mut contest, Contender { number: index as u32 + 1, score: scores[index] }, probabilities, 0.5);
            }
            let mut tallies = [Tally { won: 0, claimed: 0 }; 3];
            for lane in 0..TILE {
                let claim = |index: usize| scores[index] * probabilities[index][lane];
                let mut winner = 0;
                for index in [1, 2] {
                    winner = if claim(index) > claim(winner) { index } else { winner };
                }
                let reaches = probabilities[winner][lane] >= 0.5;
                assert_eq!(contest.claims()[lane], if reaches { winner as u32 + 1 } else { 0 }, "{}", isa.name());
                tallies[winner].won += valid[lane];
                tallies[winner].claimed += if reaches { valid[lane] } else { 0 };
            }
            for index in 0..3 {
                assert_eq!(tally(isa, &contest, index as u32 + 1, valid), tallies[index]);
                let own = (0..TILE).filter(|&lane| valid[lane] > 0 && probabilities[index][lane] >= 0.5).count();
                assert_eq!(reaching(isa, &probabilities[index], 0.5, valid) as usize, own);
            }
        }
    }

    #[test]
    fn the_inside_is_measured_the_same_everywhere() {
        let (values, valid) = (logits(9), lanes_of(8, 11));
        let mut marks = [2; TILE];
        let truth = inside(Isa::SCALAR, &values, valid, &mut marks);
        let expected: f64 = (0..11 * TILE_ROWS).filter(|&lane| values[lane] > 0.0).map(|lane| f64::from(sigmoid(values[lane]))).sum();
        assert!((f64::from(truth.sum) - expected).abs() < 1e-4, "88 probabilities, f32");
        assert!((0..TILE).all(|lane| marks[lane] == u32::from(values[lane] > 0.0 && lane < 88)));
        assert_eq!(truth.area, marks.iter().sum::<u32>());
        for isa in Isa::available() {
            let mut ours = [2; TILE];
            assert_eq!((inside(isa, &values, valid, &mut ours), ours), (truth, marks), "{}", isa.name());
        }
    }

    #[test]
    fn corners_are_tight() {
        let mut lanes = [0; TILE];
        let valid = lanes_of(8, 15);
        assert_eq!(corners(&lanes, 3, valid), None);
        lanes[2 * TILE_ROWS + 5] = 3;
        assert_eq!(corners(&lanes, 3, valid), Some([2, 5, 3, 6]));
        lanes[9 * TILE_ROWS + 1] = 3;
        (lanes[14 * TILE_ROWS + 7], lanes[15 * TILE_ROWS + 7]) = (4, 3);
        assert_eq!(corners(&lanes, 3, valid), Some([2, 1, 10, 6]));
    }
}
