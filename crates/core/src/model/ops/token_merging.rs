//! Fewer patch tokens between two blocks: which merge, their means, and the way back. See [`crate::kernels::token_merging`].

use std::sync::Arc;

use super::engine::with_scratch;
use super::{Engine, Kernel, KeyBias, Memory, Part};
use crate::kernels::attention::Strided;
use crate::kernels::token_merging::{Grid, mean_of_groups, moved, quadtree};

/// How many patch tokens become how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Patches are the last rows of the tokens, in this grid.
    pub grid: Grid,
    /// Tokens that are left of them.
    pub count: usize,
}

impl Groups {
    /// Values of a [`GroupsSpec`]'s output: the group of each patch; the size of each group; its logarithm.
    pub fn values(self) -> usize {
        self.grid.len() + 2 * self.count
    }

    /// The logarithms of the sizes, in input `slot` of an attention.
    pub fn bias(self, slot: usize) -> KeyBias {
        KeyBias { slot, keys: self.count }
    }
}

/// Sorts patches into groups by their keys: tokens that hold them to one row of [`Groups::values`].
#[derive(Debug, Clone)]
pub struct GroupsSpec {
    groups: Groups,
    /// The keys of all heads lie side by side.
    keys: Part,
    dim: usize,
    /// `[SIZE_MAX + 1]`: a table, since the libraries of systems round differently.
    logarithms: Arc<Vec<f32>>,
}

impl GroupsSpec {
    pub fn new(groups: Groups, keys: Part, dim: usize) -> GroupsSpec {
        let logarithms = (0..=Grid::SIZE_MAX).map(|size| (size.max(1) as f64).ln() as f32).collect();
        GroupsSpec { groups, keys, dim, logarithms: Arc::new(logarithms) }
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
        let Groups { grid, count } = self.groups;
        let keys = Strided { values: inputs[0], stride: self.keys.stride, offset: self.keys.offset };
        let start = inputs[0].len() / self.keys.stride - grid.len();
        let (group_of, sizes) = out.split_at_mut(grid.len());
        with_scratch(|scratch| quadtree(engine.isa, grid, (keys, start, self.dim), count, group_of, &mut scratch.quadtree));
        let (sizes, logarithms) = sizes.split_at_mut(count);
        sizes.fill(0.0);
        group_of.iter().for_each(|group| sizes[*group as usize] += 1.0);
        logarithms.iter_mut().zip(sizes).for_each(|(to, size)| *to = self.logarithms[*size as usize]);
    }

    fn macs(&self) -> (usize, usize) {
        // each key with itself, and with the sum of its cell on three levels
        (4 * self.groups.grid.len() * self.dim, 0)
    }
}

/// Tokens (input 0) and the output of [`GroupsSpec`] (input 1) to tokens with the means of groups instead of patches.
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
        inputs[0].len() - (self.groups.grid.len() - self.groups.count) * self.dim
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let Groups { grid, count } = self.groups;
        let (others, patches) = inputs[0].split_at(inputs[0].len() - grid.len() * self.dim);
        let (group_of, sizes) = inputs[1].split_at(grid.len());
        let (to_others, means) = out.split_at_mut(others.len());
        to_others.copy_from_slice(others);
        mean_of_groups(engine.isa, patches, self.dim, group_of, &sizes[..count], means);
    }

    fn macs(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// The way back. Inputs: tokens after some blocks with merged patches, the output of [`GroupsSpec`], and the tokens before and after
/// [`MergeTokensSpec`]. Output: as input 0, with all patches: each is what it was before it merged, and what its group has changed by.
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
        inputs[0].len() + (self.groups.grid.len() - self.groups.count) * self.dim
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let (Groups { grid, count }, dim) = (self.groups, self.dim);
        let patches_of = |tokens: usize, patches: usize| inputs[tokens].split_at(inputs[tokens].len() - patches * dim);
        let ((others, now), (_, from)) = (patches_of(0, count), patches_of(3, count));
        let (_, before) = patches_of(2, grid.len());
        let (to_others, to) = out.split_at_mut(others.len());
        to_others.copy_from_slice(others);
        engine.workers.rows(to, dim, 1, 64, &|first, to| {
            for (patch, to) in to.chunks_exact_mut(dim).enumerate().map(|(i, to)| (first + i, to)) {
                let group = inputs[1][patch] as usize * dim;
                moved(engine.isa, &before[patch * dim..][..dim], &from[group..][..dim], &now[group..][..dim], to);
            }
        });
    }

    fn macs(&self) -> (usize, usize) {
        (0, 0)
    }
}
