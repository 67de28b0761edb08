//! Token merging: which patch tokens become one, the mean of those, and the way back.
//!
//! After ToMe (Bolya et al. 2023, "Token Merging: Your ViT But Faster"): tokens whose keys are alike are replaced by their mean, a token
//! that stands for n counts n times in attention (see [`super::attention::Block::bias`]), and no training is needed. Which tokens may
//! merge is not ToMe's bipartite choice but a quadtree, as dense prediction needs all tokens back where they were: cells of 2x2 patches,
//! then 4x4, then 8x8.
//!
//! ```text
//! keys -> int8 per token                            only directions count
//! cost of a cell   = 1 - smallest cosine of its tokens and their sum, and no less than that of the cells in it
//! cells by (cost, level, number) until enough tokens are gone: all tokens of a cell become one
//!                                                   the last cell: only as many of its parts as are wanted
//! group of a token = number of its first token, counted along the rows
//! ```
//!
//! Invariants: the same tokens give the same groups on every instruction set, since sums are of integers and ties are decided by position;
//! as many groups come out as were asked for; time and memory grow with the number of tokens, but for sorting a third of it.
//! Refuses: tokens that are not a grid, and fewer groups than 8x8 cells ([`Grid::groups_min`]).

use super::arch::{Isa, per_isa};
use super::attention::Strided;
use super::quantize::quantize_symmetric;

/// Cells have sides of 2, 4 and 8 patches.
const LEVELS: u32 = 3;

/// Rows and columns of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Grid {
    /// Patches.
    pub fn len(self) -> usize {
        self.height * self.width
    }

    /// Whether there is no patch.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The grid of cells with sides of `2^level` patches; those at the end may be smaller.
    fn cells(self, level: u32) -> Grid {
        Grid { height: self.height.div_ceil(1 << level), width: self.width.div_ceil(1 << level) }
    }

    /// Where patch `index` lies.
    fn place(self, index: usize) -> (usize, usize) {
        (index / self.width, index % self.width)
    }

    /// The number of the cell that holds patch `index`.
    fn cell_of(self, index: usize, level: u32) -> usize {
        let (y, x) = self.place(index);
        (y >> level) * self.cells(level).width + (x >> level)
    }

    /// The patches of cell `index`, in order.
    fn patches(self, index: usize, level: u32) -> impl Iterator<Item = usize> + Clone {
        let ((y, x), side) = (self.cells(level).place(index), 1 << level);
        let rows = y * side..((y + 1) * side).min(self.height);
        let columns = x * side..((x + 1) * side).min(self.width);
        rows.flat_map(move |y| columns.clone().map(move |x| y * self.width + x))
    }

    /// As few groups as there can be.
    pub fn groups_min(self) -> usize {
        self.cells(LEVELS).len()
    }

    /// Tokens that stand together for one at most.
    pub const SIZE_MAX: usize = 1 << (2 * LEVELS);
}

/// A cell that may become one token; the order is that in which they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Bits of a number that is not negative: they order as the number does.
    cost: u64,
    level: u32,
    cell: usize,
}

/// The buffers of [`quadtree`]; they grow to the largest grid, then stay.
#[derive(Debug, Default)]
pub struct QuadtreeScratch {
    /// `[patches, dim]`.
    keys: Vec<i8>,
    /// `[cells of a level, dim]`: sums of the keys in a cell.
    sums: Vec<i16>,
    /// Of each cell of the level before and of this one.
    costs: [Vec<f64>; 2],
    candidates: Vec<Candidate>,
    /// The first patch of each patch's group.
    first: Vec<usize>,
}

/// Sorts the patches of `grid` into `groups` groups by their keys: rows of `dim` values of `keys`, from row `start` on.
///
/// `group_of[patch]` becomes the number of its group; groups are numbered in the order of their first patches.
///
/// # Panics
/// When there are fewer than [`Grid::groups_min`] or more groups than patches.
pub fn quadtree(
    isa: Isa,
    grid: Grid,
    (keys, start, dim): (Strided, usize, usize),
    groups: usize,
    group_of: &mut [f32],
    scratch: &mut QuadtreeScratch,
) {
    let patches = grid.len();
    assert!((grid.groups_min()..=patches).contains(&groups) && group_of.len() == patches, "{groups} groups of {patches} patches");
    scratch.keys.resize(patches * dim, 0);
    for (patch, to) in scratch.keys.chunks_exact_mut(dim).enumerate() {
        quantize_symmetric(isa, keys.row(start + patch, 0, dim), to);
    }
    scratch.candidates.clear();
    for level in 1..=LEVELS {
        rate(isa, grid, level, dim, scratch);
    }
    scratch.candidates.sort_unstable();
    scratch.first.clear();
    scratch.first.extend(0..patches);
    join(grid, &scratch.candidates, patches - groups, &mut scratch.first);
    // `first` becomes the number of the group
    let mut count = 0;
    for patch in 0..patches {
        let first = scratch.first[patch];
        let group = if first == patch { count } else { group_of[first] as usize };
        count += usize::from(first == patch);
        group_of[patch] = group as f32;
    }
    assert_eq!(count, groups, "as many groups as were asked for");
}

/// Appends the cells of one level with their costs.
fn rate(isa: Isa, grid: Grid, level: u32, dim: usize, scratch: &mut QuadtreeScratch) {
    let QuadtreeScratch { keys, sums, costs: [below, costs], candidates, .. } = scratch;
    let cells = grid.cells(level).len();
    std::mem::swap(below, costs);
    costs.clear();
    costs.resize(cells, 0.0);
    sums.clear();
    sums.resize(cells * dim, 0);
    for (patch, key) in keys.chunks_exact(dim).enumerate() {
        accumulate(isa, key, &mut sums[grid.cell_of(patch, level) * dim..][..dim]);
    }
    for (cell, (sum, cost)) in sums.chunks_exact(dim).zip(costs.iter_mut()).enumerate() {
        let length = dot(isa, sum, sum);
        for patch in grid.patches(cell, level) {
            let key = &keys[patch * dim..][..dim];
            *cost = cost.max(distance(dot_key(isa, key, sum), dot_keys(isa, key, key), length));
            if level > 1 {
                *cost = cost.max(below[grid.cell_of(patch, level - 1)]);
            }
        }
        candidates.push(Candidate { cost: cost.to_bits(), level, cell });
    }
}

/// `1 - cos` of the angle between two vectors with these inner products; of nothing and anything else 1.
fn distance(product: i64, left: i64, right: i64) -> f64 {
    if left == 0 && right == 0 {
        return 0.0;
    }
    // exact up to the root and the quotient, which are rounded alike everywhere
    let lengths = (left as f64).sqrt() * (right as f64).sqrt();
    if lengths == 0.0 { 1.0 } else { (1.0 - product as f64 / lengths).max(0.0) }
}

/// Joins cells in order until `removed` tokens are gone. `first` is the first patch of each patch's group.
fn join(grid: Grid, candidates: &[Candidate], mut removed: usize, first: &mut [usize]) {
    for Candidate { level, cell, .. } in candidates {
        if removed == 0 {
            return;
        }
        let head = grid.patches(*cell, *level).next().expect("a cell holds a patch");
        // its parts are groups by now, since they cost no more; the patches of one follow its first
        for patch in grid.patches(*cell, *level) {
            let leads = first[patch] == patch && patch != head;
            if leads && removed == 0 {
                break;
            }
            if leads {
                removed -= 1;
                first[patch] = head;
            }
        }
        for patch in grid.patches(*cell, *level) {
            first[patch] = first[first[patch]];
        }
    }
}

#[inline(always)]
fn accumulate_body(key: &[i8], sum: &mut [i16]) {
    sum.iter_mut().zip(key).for_each(|(sum, value)| *sum += i16::from(*value));
}

/// Values whose products fit into 32 bits together: 8128 is the sum of 64 keys.
const RUN: usize = 1024;

#[inline(always)]
fn dot_key_body(key: &[i8], sum: &[i16]) -> i64 {
    let run = |(key, sum): (&[i8], &[i16])| key.iter().zip(sum).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
    key.chunks(RUN).zip(sum.chunks(RUN)).map(|pair| i64::from(run(pair))).sum()
}

#[inline(always)]
fn dot_keys_body(left: &[i8], right: &[i8]) -> i64 {
    let run = |(left, right): (&[i8], &[i8])| left.iter().zip(right).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
    left.chunks(RUN).zip(right.chunks(RUN)).map(|pair| i64::from(run(pair))).sum()
}

#[inline(always)]
fn dot_body(left: &[i16], right: &[i16]) -> i64 {
    // 16 squares of 8128 fit
    let run = |(left, right): (&[i16; 16], &[i16; 16])| left.iter().zip(right).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<16>(), right.as_chunks::<16>());
    let rest: i64 = left_rest.iter().zip(right_rest).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
    left.iter().zip(right).map(|pair| i64::from(run(pair))).sum::<i64>() + rest
}

per_isa! {
    fn accumulate(key: &[i8], sum: &mut [i16]) = accumulate_body;
}
per_isa! {
    fn dot_key(key: &[i8], sum: &[i16]) -> i64 = dot_key_body;
}
per_isa! {
    fn dot_keys(left: &[i8], right: &[i8]) -> i64 = dot_keys_body;
}
per_isa! {
    fn dot(left: &[i16], right: &[i16]) -> i64 = dot_body;
}

/// `to[g]` = mean of the rows of `tokens`, `[patches, dim]`, whose group is g; sums in the order of the patches.
///
/// `sizes[g]` is the number of patches in group g.
pub fn mean_of_groups(isa: Isa, tokens: &[f32], dim: usize, group_of: &[f32], sizes: &[f32], to: &mut [f32]) {
    to.fill(0.0);
    for (token, group) in tokens.chunks_exact(dim).zip(group_of) {
        super::elementwise::add(isa, token, &mut to[*group as usize * dim..][..dim]);
    }
    for (mean, size) in to.chunks_exact_mut(dim).zip(sizes).filter(|(_, size)| **size > 1.0) {
        divide(isa, mean, *size);
    }
}

#[inline(always)]
fn divide_body(values: &mut [f32], by: f32) {
    values.iter_mut().for_each(|value| *value /= by);
}

per_isa! {
    fn divide(values: &mut [f32], by: f32) = divide_body;
}

#[inline(always)]
fn moved_body(token: &[f32], from: &[f32], now: &[f32], to: &mut [f32]) {
    for (((to, token), from), now) in to.iter_mut().zip(token).zip(from).zip(now) {
        *to = token + (now - from);
    }
}

per_isa! {
    /// A token that was merged, again: what it was, and what its group has changed by since: `to = token + (now - from)`.
    pub fn moved(token: &[f32], from: &[f32], now: &[f32], to: &mut [f32]) = moved_body;
}
