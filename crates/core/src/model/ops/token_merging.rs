//! Fewer patch tokens between two blocks: which merge, their means, and the way back. See [`crate::kernels::token_merging`].

use std::sync::Arc;

use super::engine::with_scratch;
use super::{AttentionSpec, Engine, Kernel, KeyBias, Memory, Part};
use crate::kernels::attention::{Shape, Strided};
use crate::kernels::token_merging::{Grid, KeysOf, mean_of_groups, moved, quadtree};

/// How many tokens of patches become how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// All patches.
    pub grid: Grid,
    /// Their tokens, the last rows of all tokens: as many, or fewer where some have merged before.
    pub tokens: usize,
    /// Tokens that are left.
    pub count: usize,
}

/// The output of [`GroupsSpec`], a row of numbers that are exact in f32.
#[derive(Debug, Clone, Copy)]
struct Assignment<'a> {
    /// The group of each patch.
    of_patch: &'a [f32],
    /// The group of each token that there was.
    of_token: &'a [f32],
    /// How many patches each group has.
    sizes: &'a [f32],
}

impl Groups {
    /// Values of a [`GroupsSpec`]'s output: the group of each patch and of each token; sizes of groups, and their logarithms.
    pub fn values(self) -> usize {
        self.grid.len() + self.tokens + 2 * self.count
    }

    /// The logarithms of the sizes, in input `slot` of an attention.
    pub fn bias(self, slot: usize) -> KeyBias {
        KeyBias { slot, keys: self.count }
    }

    fn read(self, values: &[f32]) -> Assignment<'_> {
        let (of_patch, rest) = values.split_at(self.grid.len());
        let (of_token, rest) = rest.split_at(self.tokens);
        Assignment { of_patch, of_token, sizes: &rest[..self.count] }
    }

    /// Rows before and at the tokens of patches.
    fn split(tokens: &[f32], patches: usize, dim: usize) -> (&[f32], &[f32]) {
        tokens.split_at(tokens.len() - patches * dim)
    }
}

/// Sorts patches into groups. Inputs: rows that hold the keys of all tokens; where some have merged before, the groups that came of it.
#[derive(Debug, Clone)]
pub struct GroupsSpec {
    groups: Groups,
    /// The keys of all heads lie side by side.
    keys: Part,
    heads: usize,
    head_dim: usize,
    /// Of every size, [`Grid::SIZE_MAX`] at most: a table, since the libraries of systems round differently.
    logarithms: Arc<Vec<f32>>,
}

impl GroupsSpec {
    /// By the keys of this attention.
    pub fn new(groups: Groups, attention: &AttentionSpec) -> GroupsSpec {
        let logarithms = (0..=Grid::SIZE_MAX).map(|size| (size.max(1) as f64).ln() as f32).collect();
        let Shape { heads, head_dim, .. } = attention.shape;
        GroupsSpec { groups, keys: attention.k, heads, head_dim, logarithms: Arc::new(logarithms) }
    }
}

impl Kernel for GroupsSpec {
    fn name(&self) -> &'static str {
        "TokenGroups"
    }

    fn out_len(&self, _planned: usize, _inputs: &[&[f32]]) -> usize {
        self.groups.values()
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let Groups { grid, tokens, count } = self.groups;
        let keys = Strided { values: inputs[0], stride: self.keys.stride, offset: self.keys.offset };
        let start = inputs[0].len() / self.keys.stride - tokens;
        let token_of = inputs.get(1).map_or(&[][..], |before| &before[..grid.len()]);
        let (of_patch, rest) = out.split_at_mut(grid.len());
        let of = KeysOf { keys, start, heads: self.heads, dim: self.head_dim, token_of };
        with_scratch(|scratch| quadtree(engine.isa, grid, of, count, of_patch, &mut scratch.quadtree));
        let (of_token, rest) = rest.split_at_mut(tokens);
        let (sizes, logarithms) = rest.split_at_mut(count);
        sizes.fill(0.0);
        for (patch, group) in of_patch.iter().enumerate() {
            sizes[*group as usize] += 1.0;
            of_token[token_of.get(patch).map_or(patch, |token| *token as usize)] = *group;
        }
        logarithms.iter_mut().zip(sizes).for_each(|(to, size)| *to = self.logarithms[*size as usize]);
    }

    fn macs(&self) -> (usize, usize) {
        // each key with itself, and with the sum of its cell on three levels
        (4 * self.groups.grid.len() * self.head_dim, 0)
    }
}

/// Tokens with the means of groups at their end. Inputs: tokens, their groups, and the groups before those if there are any.
#[derive(Debug, Clone)]
pub struct MergeTokensSpec {
    pub groups: Groups,
    /// Values of a token.
    pub dim: usize,
}

impl Kernel for MergeTokensSpec {
    fn name(&self) -> &'static str {
        "MergeTokens"
    }

    fn out_len(&self, _planned: usize, inputs: &[&[f32]]) -> usize {
        inputs[0].len() - (self.groups.tokens - self.groups.count) * self.dim
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let Groups { grid, tokens, .. } = self.groups;
        let (others, patches) = Groups::split(inputs[0], tokens, self.dim);
        let Assignment { of_patch, sizes, .. } = self.groups.read(inputs[1]);
        let token_of = inputs.get(2).map_or(&[][..], |before| &before[..grid.len()]);
        let (to_others, means) = out.split_at_mut(others.len());
        to_others.copy_from_slice(others);
        mean_of_groups(engine.isa, patches, self.dim, token_of, of_patch, sizes, means);
    }

    fn macs(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// The way back. Inputs: tokens after some blocks, their groups, and the tokens before and after [`MergeTokensSpec`]. Output: as
/// input 0, with as many tokens as there were: each is what it was before it merged, and what its group has changed by since.
#[derive(Debug, Clone)]
pub struct UnmergeTokensSpec {
    pub groups: Groups,
    /// Values of a token.
    pub dim: usize,
}

impl Kernel for UnmergeTokensSpec {
    fn name(&self) -> &'static str {
        "UnmergeTokens"
    }

    fn out_len(&self, _planned: usize, inputs: &[&[f32]]) -> usize {
        inputs[0].len() + (self.groups.tokens - self.groups.count) * self.dim
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let (Groups { tokens, count, .. }, dim) = (self.groups, self.dim);
        let ((others, now), (_, from)) = (Groups::split(inputs[0], count, dim), Groups::split(inputs[3], count, dim));
        let (_, before) = Groups::split(inputs[2], tokens, dim);
        let of_token = self.groups.read(inputs[1]).of_token;
        let (to_others, to) = out.split_at_mut(others.len());
        to_others.copy_from_slice(others);
        engine.workers.rows(to, dim, 1, 64, &|first, to| {
            for (token, to) in to.chunks_exact_mut(dim).enumerate().map(|(i, to)| (first + i, to)) {
                let group = of_token[token] as usize * dim;
                moved(engine.isa, &before[token * dim..][..dim], &from[group..][..dim], &now[group..][..dim], to);
            }
        });
    }

    fn macs(&self) -> (usize, usize) {
        (0, 0)
    }
}
