//! Token merging: which patch tokens become one, the mean of those, and the way back.
//!
//! After ToMe (Bolya et al. 2023, "Token Merging: Your ViT But Faster"): tokens whose keys are alike are replaced by their mean, a token
//! that stands for n counts n times in attention (see [`super::attention::Block::bias`]), and no training is needed. Which tokens may
//! merge is not ToMe's bipartite choice but a quadtree, as dense prediction needs all tokens back where they were: cells of 2x2 patches,
//! then 4x4, then 8x8.
//!
//! ```text
//! keys, summed over the heads -> int8 per token     only directions count
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
use super::elementwise::add;
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
    /// The first patch of each token.
    heads: Vec<usize>,
    /// One key: the sum over all heads.
    key: Vec<f32>,
}

/// The keys of tokens.
#[derive(Debug, Clone, Copy)]
pub struct KeysOf<'a> {
    /// All heads side by side.
    pub keys: Strided<'a>,
    /// The row of the first token.
    pub start: usize,
    /// Number of heads.
    pub heads: usize,
    /// Values of a head.
    pub dim: usize,
    /// The token of each patch, in the order of their first patches; empty: each has its own.
    pub token_of: &'a [f32],
}

/// Sorts the patches of `grid` into `groups` groups by their keys. Patches of one token stay together.
///
/// `group_of[patch]` becomes the number of its group; groups are numbered in the order of their first patches.
///
/// # Panics
/// When there are fewer than [`Grid::groups_min`] groups or more than tokens.
pub fn quadtree(isa: Isa, grid: Grid, of: KeysOf, groups: usize, group_of: &mut [f32], scratch: &mut QuadtreeScratch) {
    let (patches, KeysOf { keys, start, heads, dim, token_of }) = (grid.len(), of);
    let tokens = start_groups(patches, token_of, scratch);
    assert!((grid.groups_min()..=tokens).contains(&groups) && group_of.len() == patches, "{groups} groups of {tokens} tokens");
    scratch.keys.resize(patches * dim, 0);
    for (patch, to) in scratch.keys.chunks_exact_mut(dim).enumerate() {
        let row = keys.row(start + token_of.get(patch).map_or(patch, |token| *token as usize), 0, heads * dim);
        scratch.key.clear();
        scratch.key.resize(dim, 0.0);
        row.chunks_exact(dim).for_each(|head| add(isa, head, &mut scratch.key));
        quantize_symmetric(isa, &scratch.key, to);
    }
    scratch.candidates.clear();
    for level in 1..=LEVELS {
        rate(isa, grid, level, dim, scratch);
    }
    scratch.candidates.sort_unstable();
    join(grid, &scratch.candidates, tokens - groups, &mut scratch.first);
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

/// Groups of the patches of one token each; their number.
fn start_groups(patches: usize, token_of: &[f32], QuadtreeScratch { first, heads, .. }: &mut QuadtreeScratch) -> usize {
    first.clear();
    if token_of.is_empty() {
        first.extend(0..patches);
        return patches;
    }
    heads.clear();
    for (patch, token) in token_of.iter().map(|token| *token as usize).enumerate() {
        if token == heads.len() {
            heads.push(patch);
        }
        first.push(heads[token]);
    }
    heads.len()
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

/// `to[g]` = mean of the tokens, rows of `dim` values, of the patches whose group is g; sums in the order of the patches.
///
/// `token_of` is that of [`KeysOf`]; `sizes[g]` is the number of patches in group g.
pub fn mean_of_groups(isa: Isa, tokens: &[f32], dim: usize, token_of: &[f32], group_of: &[f32], sizes: &[f32], to: &mut [f32]) {
    to.fill(0.0);
    for (patch, group) in group_of.iter().enumerate() {
        let token = token_of.get(patch).map_or(patch, |token| *token as usize);
        add(isa, &tokens[token * dim..][..dim], &mut to[*group as usize * dim..][..dim]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;
    use crate::kernels::testing::numbers;

    fn groups_of(isa: Isa, grid: Grid, keys: &[f32], token_of: &[f32], count: usize) -> Vec<usize> {
        let mut group_of = vec![f32::NAN; grid.len()];
        let dim = 24;
        let keys = Strided { values: keys, stride: dim, offset: 0 };
        let of = KeysOf { keys, start: 0, heads: 1, dim, token_of };
        quadtree(isa, grid, of, count, &mut group_of, &mut QuadtreeScratch::default());
        group_of.into_iter().map(|group| group as usize).collect()
    }

    fn grids() -> Vec<Grid> {
        [(1, 1), (1, 9), (2, 2), (5, 3), (8, 8), (7, 12), (17, 10)].map(|(height, width)| Grid { height, width }).into()
    }

    /// The definition on numbers that are integers already: cells by their costs, joined whole.
    fn naive(grid: Grid, keys: &[f32], count: usize) -> Vec<usize> {
        let key = |patch: usize| -> Vec<f64> { keys[patch * 24..][..24].iter().map(|value| f64::from(*value)).collect() };
        let mut cells: Vec<(f64, u32, usize, Vec<usize>)> = Vec::new();
        for level in 1..=3u32 {
            let (side, columns) = (1usize << level, grid.width.div_ceil(1 << level));
            for cell in 0..grid.height.div_ceil(side) * columns {
                let inside = |patch: &usize| patch / grid.width / side == cell / columns && patch % grid.width / side == cell % columns;
                let patches: Vec<usize> = (0..grid.len()).filter(inside).collect();
                let sum = |i: usize| patches.iter().map(|patch| key(*patch)[i]).sum::<f64>();
                let sums: Vec<f64> = (0..24).map(sum).collect();
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let cosine = |patch: &usize| dot(&key(*patch), &sums) / (dot(&key(*patch), &key(*patch)).sqrt() * dot(&sums, &sums).sqrt());
                let own = patches.iter().map(|patch| (1.0 - cosine(patch)).max(0.0)).fold(0.0, f64::max);
                let parts = cells.iter().filter(|(.., part)| part.iter().all(|patch| patches.contains(patch)));
                let cost = parts.map(|part| part.0).fold(own, f64::max);
                cells.push((cost, level, cell, patches));
            }
        }
        cells.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut leader: Vec<usize> = (0..grid.len()).collect();
        let mut left = grid.len();
        for (.., patches) in cells {
            for patch in &patches[1..] {
                let (mine, into) = (leader[*patch], leader[patches[0]]);
                if mine != into && left > count {
                    leader.iter_mut().filter(|leader| **leader == mine).for_each(|leader| *leader = into);
                    left -= 1;
                }
            }
        }
        let mut leaders = leader.clone();
        leaders.sort_unstable();
        leaders.dedup();
        leader.iter().map(|leader| leaders.binary_search(leader).expect("there")).collect()
    }

    /// Integers up to 127, the largest in every row, so that rounding to int8 changes nothing.
    fn integers(patches: usize, seed: u32) -> Vec<f32> {
        let mut keys: Vec<f32> = numbers(patches * 24, seed).iter().map(|value| (value * 100.0).round()).collect();
        keys.chunks_exact_mut(24).enumerate().for_each(|(patch, key)| key[patch % 24] = 127.0);
        keys
    }

    #[test]
    fn equals_the_definition_and_is_the_same_everywhere() {
        for grid in grids() {
            let keys = integers(grid.len(), 3);
            for count in [grid.len(), grid.len() * 2 / 3, grid.len() / 4, grid.groups_min()] {
                let count = count.max(grid.groups_min());
                let ours = suite::everywhere((grid, count), |isa| groups_of(isa, grid, &keys, &[], count));
                assert_eq!(ours, naive(grid, &keys, count), "{grid:?} to {count}");
            }
        }
    }

    #[test]
    fn as_many_groups_as_asked_for_and_patches_alone_when_all_stay() {
        for grid in grids() {
            let keys = numbers(grid.len() * 24, 7);
            for count in grid.groups_min()..=grid.len() {
                let groups = groups_of(Isa::detect(), grid, &keys, &[], count);
                let mut seen = 0;
                for group in &groups {
                    assert!(*group <= seen, "in the order of their first patches");
                    seen += usize::from(*group == seen);
                }
                assert_eq!(seen, count, "{grid:?}");
            }
            assert!(groups_of(Isa::detect(), grid, &keys, &[], grid.len()).into_iter().eq(0..grid.len()));
        }
    }

    /// Four equal patches among others that differ, whatever their lengths.
    #[test]
    fn equal_tokens_merge_first() {
        let grid = Grid { height: 6, width: 7 };
        let mut keys = numbers(grid.len() * 24, 11);
        let (equal, at) = (numbers(24, 5), [2 * 7 + 4, 2 * 7 + 5, 3 * 7 + 4, 3 * 7 + 5]);
        for (factor, patch) in [1.0, 2.0, 0.5, 4.0].iter().zip(at) {
            keys[patch * 24..][..24].iter_mut().zip(&equal).for_each(|(to, value)| *to = value * factor);
        }
        let groups = groups_of(Isa::detect(), grid, &keys, &[], grid.len() - 3);
        assert!(at.iter().all(|patch| groups[*patch] == groups[at[0]]));
    }

    /// Heads whose sums are the keys of one.
    #[test]
    fn heads_are_added_up() {
        let grid = Grid { height: 5, width: 6 };
        let keys = integers(grid.len(), 13);
        let halves: Vec<f32> =
            keys.chunks_exact(24).flat_map(|key| [[9.0; 24].to_vec(), key.iter().map(|v| v - 9.0).collect()].concat()).collect();
        let mut ours = vec![f32::NAN; grid.len()];
        let of = KeysOf { keys: Strided { values: &halves, stride: 48, offset: 0 }, start: 0, heads: 2, dim: 24, token_of: &[] };
        quadtree(Isa::detect(), grid, of, 12, &mut ours, &mut QuadtreeScratch::default());
        let expected = groups_of(Isa::detect(), grid, &keys, &[], 12);
        assert!(ours.into_iter().map(|group| group as usize).eq(expected));
    }

    /// The second time, patches of one token stay together, and its key is theirs.
    #[test]
    fn groups_grow_from_groups() {
        for grid in grids().into_iter().filter(|grid| grid.len() > 8) {
            let first = groups_of(Isa::detect(), grid, &numbers(grid.len() * 24, 1), &[], grid.len() / 2);
            let tokens = grid.len() / 2;
            let token_of: Vec<f32> = first.iter().map(|group| *group as f32).collect();
            for count in grid.groups_min()..=tokens {
                let second = groups_of(Isa::detect(), grid, &numbers(tokens * 24, 2), &token_of, count);
                let mut group_of = vec![None; tokens];
                for (token, group) in first.iter().zip(&second) {
                    assert_eq!(*group_of[*token].get_or_insert(*group), *group, "a token is whole");
                }
                assert_eq!(second.iter().max(), Some(&(count - 1)));
            }
        }
    }

    #[test]
    fn keys_that_are_no_numbers_or_nothing_are_grouped_too() {
        let grid = Grid { height: 4, width: 4 };
        for value in [0.0, f32::NAN, f32::INFINITY, 1e-40, f32::MAX] {
            let mut keys = numbers(grid.len() * 24, 9);
            keys[24 * 5..24 * 8].fill(value);
            let groups = suite::everywhere(value, |isa| groups_of(isa, grid, &keys, &[], 5));
            assert_eq!(groups.iter().max(), Some(&4));
        }
    }

    #[test]
    fn means_weigh_tokens_by_their_patches_and_moved_tokens_move_with_them() {
        // patches 0 and 1 were one token, 2 another; all become one
        let (tokens, token_of, group_of, sizes) = ([1.0, 10.0, 4.0, 40.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [3.0]);
        let mut mean = [f32::NAN; 2];
        suite::each_isa(|isa| {
            mean_of_groups(isa, &tokens, 2, &token_of, &group_of, &sizes, &mut mean);
            assert_eq!(mean, [2.0, 20.0], "{}", isa.name());
            let mut back = [f32::NAN; 2];
            moved(isa, &tokens[2..], &mean, &[3.0, 15.0], &mut back);
            assert_eq!(back, [5.0, 35.0], "{}", isa.name());
        });
    }
}
