//! Operators on the rows of chosen patches: the same arithmetic on fewer rows, and memory for the others.
//!
//! Tensors keep the planned size. Of `[leading + patches, width]` only the first `leading + chosen` rows are computed and read.

use std::sync::Arc;

use tract_onnx::prelude::TractResult;

use super::selection::Shared;
use crate::kernels::attention::{Block, Head, Shape, Strided, attend, block_rows};
use crate::kernels::scale_changed::Changed;
use crate::model::ops::{
    AttentionSpec, Engine, INPUTS_MAX, Kernel, Memory, Pack, PatchesKernel, PatchesSpec, ScaleBlockKernel, ScaleBlockSpec, Spec,
};
use crate::model::ops::{Part, with_scratch};

/// Patch embedding of the chosen patches.
#[derive(Debug, Clone)]
pub struct ChosenPatches {
    pub spec: PatchesSpec,
    pub shared: Shared,
}

#[derive(Debug)]
struct ChosenPatchesKernel {
    inner: PatchesKernel,
    shared: Shared,
}

impl Pack for ChosenPatches {
    fn pack(&self, _shapes: &[&[usize]], engine: &Engine) -> TractResult<Arc<dyn Kernel>> {
        Ok(Arc::new(ChosenPatchesKernel { inner: PatchesKernel::pack(&self.spec, engine)?, shared: self.shared.clone() }))
    }
}

impl Kernel for ChosenPatchesKernel {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn run(&self, engine: &Engine, memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let selection = self.shared.read();
        if selection.all {
            return self.inner.run(engine, memory, inputs, out);
        }
        let (isa, fused, chosen) = (engine.isa, &self.inner.fused, &selection.chosen);
        let (k, n) = (fused.k(), fused.n());
        engine.workers.rows(&mut out[..chosen.len() * n], n, isa.tile_rows(), fused.block_rows(isa), &|first, out| {
            let chosen = &chosen[first..first + out.len() / n];
            with_scratch(|scratch| {
                let (patches, residual) = (&mut scratch.patches, &mut scratch.residual);
                patches.resize(patches.len().max(chosen.len() * k), 0.0);
                for (index, to) in chosen.iter().zip(patches.chunks_exact_mut(k)) {
                    self.inner.gather(inputs[0], *index as usize, to);
                }
                residual.clear();
                if let Some(added) = inputs.get(1) {
                    chosen.iter().for_each(|index| residual.extend_from_slice(&added[*index as usize * n..][..n]));
                }
                fused.run(isa, chosen.len(), |i| &patches[i * k..][..k], residual, out, &mut scratch.fused);
            });
        });
    }

    fn macs(&self) -> (usize, usize) {
        self.inner.macs()
    }
}

/// An operator that takes its rows one by one, or joins them.
#[derive(Debug, Clone)]
pub struct ChosenRows {
    pub spec: Arc<Spec>,
    /// Of each input: rows as planned when they are `leading + patches`, `None` when all of it is always there.
    pub inputs: Vec<Option<Tokens>>,
    pub output: Tokens,
    pub shared: Shared,
}

/// Rows as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// Before the patches.
    pub leading: usize,
    pub patches: usize,
}

impl Tokens {
    /// As planned.
    pub fn all(self) -> usize {
        self.leading + self.patches
    }

    /// Values of `chosen` patches and what comes before them, when all rows have `len` values.
    fn len(self, chosen: usize, len: usize) -> usize {
        len / self.all() * (self.leading + chosen)
    }
}

#[derive(Debug)]
struct ChosenRowsKernel {
    inner: Arc<dyn Kernel>,
    inputs: Vec<Option<Tokens>>,
    output: Tokens,
    shared: Shared,
}

impl Pack for ChosenRows {
    fn pack(&self, shapes: &[&[usize]], engine: &Engine) -> TractResult<Arc<dyn Kernel>> {
        let ChosenRows { inputs, output, shared, .. } = self.clone();
        Ok(Arc::new(ChosenRowsKernel { inner: self.spec.pack(shapes, engine)?, inputs, output, shared }))
    }
}

impl Kernel for ChosenRowsKernel {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn run(&self, engine: &Engine, memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let chosen = self.shared.read().chosen.len();
        let mut fewer: [&[f32]; INPUTS_MAX] = [&[]; INPUTS_MAX];
        for ((to, input), tokens) in fewer.iter_mut().zip(inputs).zip(&self.inputs) {
            *to = tokens.map_or(input, |tokens| &input[..tokens.len(chosen, input.len())]);
        }
        let len = self.output.len(chosen, out.len());
        self.inner.run(engine, memory, &fewer[..inputs.len()], &mut out[..len]);
    }

    fn macs(&self) -> (usize, usize) {
        self.inner.macs()
    }
}

/// Attention of the chosen tokens to all, whose packed keys and values stay in memory.
#[derive(Debug, Clone)]
pub struct ChosenAttention {
    pub spec: AttentionSpec,
    pub leading: usize,
    pub shared: Shared,
}

impl Pack for ChosenAttention {
    fn pack(&self, _shapes: &[&[usize]], _engine: &Engine) -> TractResult<Arc<dyn Kernel>> {
        Ok(Arc::new(self.clone()))
    }
}

impl Kernel for ChosenAttention {
    fn name(&self) -> &'static str {
        self.spec.name()
    }

    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn remembers(&self) -> bool {
        true
    }

    fn run(&self, engine: &Engine, memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let selection = self.shared.read();
        let (isa, shape, rows) = (engine.isa, &self.spec.shape, selection.rows(self.leading));
        let part = |part: Part| Strided { values: inputs[part.slot], stride: part.stride, offset: part.offset };
        let [q, k, v] = [self.spec.q, self.spec.k, self.spec.v].map(part);
        assert!(selection.all || memory.heads.len() == shape.heads, "the first frame computes all patches");
        memory.heads.resize_with(shape.heads, || Head::new(isa, shape.scores));
        engine.workers.each(&mut memory.heads, &|index, head| {
            with_scratch(|scratch| match selection.all {
                true => head.prepare(isa, shape, index, k, v, &mut scratch.attention),
                false => head.update(isa, index, rows, k, v, &mut scratch.attention),
            });
        });
        let (width, heads) = (shape.heads * shape.head_dim, &memory.heads[..]);
        engine.workers.rows(&mut out[..rows.count() * width], width, isa.tile_rows(), block_rows(isa), &|first, out| {
            let block = Block { first, count: out.len() / width, q, heads, mask: &[], bias: &[] };
            with_scratch(|scratch| attend(isa, shape, &block, out, &mut scratch.attention));
        });
    }

    fn macs(&self) -> (usize, usize) {
        self.spec.macs()
    }
}

impl ChosenAttention {
    /// The shape with as many queries and tokens as `tokens` are.
    pub fn new(spec: &AttentionSpec, tokens: Tokens, shared: &Shared) -> ChosenAttention {
        let shape = Shape { queries: tokens.all(), tokens: tokens.all(), ..spec.shape };
        ChosenAttention { spec: AttentionSpec { shape, ..spec.clone() }, leading: tokens.leading, shared: shared.clone() }
    }
}

/// A ScaleBlock that computes what depends on the chosen patches.
#[derive(Debug, Clone)]
pub struct ChangedScaleBlock {
    pub spec: ScaleBlockSpec,
    /// Its input is 2^level times the grid of patches; of level 0, the rows of chosen patches.
    pub level: usize,
    pub shared: Shared,
}

#[derive(Debug)]
struct ChangedScaleBlockKernel {
    inner: ScaleBlockKernel,
    level: usize,
    shared: Shared,
}

impl Pack for ChangedScaleBlock {
    fn pack(&self, _shapes: &[&[usize]], engine: &Engine) -> TractResult<Arc<dyn Kernel>> {
        let inner = ScaleBlockKernel::pack(&self.spec, engine)?;
        Ok(Arc::new(ChangedScaleBlockKernel { inner, level: self.level, shared: self.shared.clone() }))
    }
}

impl Kernel for ChangedScaleBlockKernel {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn remembers(&self) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn run(&self, engine: &Engine, memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let selection = self.shared.read();
        let (block, grid, d) = (&self.inner.block, self.inner.grid, self.inner.block.channels());
        let tokens = &inputs[0][self.inner.start * d..];
        let (isa, row) = (engine.isa, 4 * grid.1 * d);
        let changed = Changed { grid, tokens: &selection.changed[self.level], pixels: &selection.changed[self.level + 1] };
        let place = |token: usize| match self.level {
            0 => selection.chosen.binary_search(&(token as u32)).expect("changed tokens of the first level are the chosen ones"),
            _ => token,
        };
        memory.values.resize(grid.0 * row, 0.0);
        engine.workers.rows(&mut memory.values, row, 1, usize::MAX, &|first, map| {
            let token = |token: usize| &tokens[place(token) * d..][..d];
            with_scratch(|scratch| block.enlarge_changed(isa, &changed, first * grid.1, token, map, &mut scratch.scale_changed));
        });
        engine.workers.rows(out, row, 1, usize::MAX, &|first, out| {
            with_scratch(|scratch| block.finish_changed(isa, &changed, first, &memory.values, out, &mut scratch.scale_changed));
        });
    }

    fn macs(&self) -> (usize, usize) {
        self.inner.macs()
    }
}
