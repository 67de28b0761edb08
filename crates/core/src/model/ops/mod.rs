//! Our own tract operators: thin adapters from tract's traits to [`crate::kernels`].
//!
//! An operator has two lives. The rules of [`super::fuse`] put a [`Lifted`] node into the graph: a description with the weights as
//! the file has them, which further rules may merge with its neighbours. When tract generates code, each becomes a [`Fused`] node:
//! weights packed for one instruction set, run by a [`Kernel`].
//!
//! Invariants: every value is f32 and row-major, channels last; outputs live in buffers that an [`Engine`] reuses from node to node
//! and from frame to frame.

mod attention;
mod concat;
mod deformable;
mod engine;
mod grid_sample;
mod linear;
mod norm;
mod offset;
mod patches;
mod scale_block;
#[cfg(test)]
pub(super) mod tests;
mod token_merging;

use std::fmt::Debug;
use std::sync::Arc;

use tract_onnx::prelude::{TVec, TractResult, TypedFact, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::*;

pub use attention::{AttentionSpec, KeyBias, Part};
pub use concat::ConcatSpec;
pub use deformable::{DeformableSpec, LEVELS_MAX};
pub use engine::{Engine, with_scratch};
pub use grid_sample::GridSampleSpec;
pub use linear::{Columns, LayerSpec, LinearSpec, Matrix};
pub use norm::{ActivationSpec, NormSpec};
pub use offset::OffsetSpec;
pub use patches::{PatchesKernel, PatchesSpec};
pub use scale_block::{ScaleBlockKernel, ScaleBlockSpec};
pub use token_merging::{Groups, GroupsSpec, MergeTokensSpec, UnmergeTokensSpec};

use crate::kernels::attention::Head;

/// What a [`Lifted`] node stands for.
#[derive(Debug, Clone)]
pub enum Spec {
    Concat(ConcatSpec),
    Offset(OffsetSpec),
    Norm(NormSpec),
    Activation(ActivationSpec),
    Linear(LinearSpec),
    Attention(AttentionSpec),
    Patches(PatchesSpec),
    ScaleBlock(ScaleBlockSpec),
    GridSample(GridSampleSpec),
    Deformable(DeformableSpec),
    Groups(GroupsSpec),
    MergeTokens(MergeTokensSpec),
    UnmergeTokens(UnmergeTokensSpec),
    /// One of another module, which packs itself.
    Other(Arc<dyn Pack>),
}

/// A description from which another module makes its kernel.
pub trait Pack: Debug + Send + Sync {
    /// Packs the weights; `shapes` are those of the inputs.
    fn pack(&self, shapes: &[&[usize]], engine: &Engine) -> TractResult<Arc<dyn Kernel>>;
}

impl Spec {
    /// Packs the weights; `shapes` are those of the inputs.
    pub fn pack(&self, shapes: &[&[usize]], engine: &Engine) -> TractResult<Arc<dyn Kernel>> {
        Ok(match self {
            Spec::Concat(spec) => Arc::new(spec.clone()),
            Spec::Offset(spec) => Arc::new(spec.clone()),
            Spec::Norm(spec) => Arc::new(spec.clone()),
            Spec::Activation(spec) => Arc::new(spec.clone()),
            Spec::Linear(spec) => Arc::new(linear::LinearKernel::pack(spec, shapes[0], engine)?),
            Spec::Attention(spec) => Arc::new(spec.clone()),
            Spec::Patches(spec) => Arc::new(PatchesKernel::pack(spec, engine)?),
            Spec::ScaleBlock(spec) => Arc::new(ScaleBlockKernel::pack(spec, engine)?),
            Spec::GridSample(spec) => Arc::new(spec.clone()),
            Spec::Deformable(spec) => Arc::new(spec.clone()),
            Spec::Groups(spec) => Arc::new(spec.clone()),
            Spec::MergeTokens(spec) => Arc::new(spec.clone()),
            Spec::UnmergeTokens(spec) => Arc::new(spec.clone()),
            Spec::Other(spec) => spec.pack(shapes, engine)?,
        })
    }
}

/// A recognized operator that is not packed yet; it has one f32 output of a fixed shape.
#[derive(Debug, Clone)]
pub struct Lifted {
    pub spec: Arc<Spec>,
    pub shape: TVec<usize>,
    pub engine: Engine,
}

impl Lifted {
    pub fn new(spec: Spec, shape: &[usize], engine: &Engine) -> Lifted {
        Lifted { spec: Arc::new(spec), shape: shape.into(), engine: engine.clone() }
    }
}

/// What one operator of one model keeps from frame to frame; empty in a model that was just loaded or reset.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Runs since then; at 0 there are no `values` yet.
    pub runs: u64,
    /// The operator's own business.
    pub values: Vec<f32>,
    /// Packed keys and values of an attention that keeps them.
    pub heads: Vec<Head>,
    /// The last output, of an operator that writes into it again ([`Kernel::keeps_output`]).
    output: Option<Arc<Tensor>>,
}

/// The arithmetic of a [`Fused`] node. Its inputs and its output are f32 and row-major.
///
/// How many rows there are is known at run time only, from the lengths of the inputs: the shapes in the graph are what was planned.
pub trait Kernel: Debug + Send + Sync {
    /// For people and `bench`.
    fn name(&self) -> &'static str;

    /// Values of the output for these inputs, a whole number of rows; `planned` is what the graph says.
    fn out_len(&self, planned: usize, inputs: &[&[f32]]) -> usize;

    /// Whether it keeps a [`Memory`]. One that does not gets an empty one.
    fn remembers(&self) -> bool {
        false
    }

    /// Whether `out` holds the last output from the second run on, so that parts of it may stay. Such a kernel [remembers](Self::remembers),
    /// and its output has the planned shape.
    fn keeps_output(&self) -> bool {
        false
    }

    /// From `inputs` to `out`, which has [`Kernel::out_len`] values, holds old ones and must be overwritten.
    fn run(&self, engine: &Engine, memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]);

    /// Multiply-accumulates of one run as planned: in int8, and in f32 or half precision.
    fn macs(&self) -> (usize, usize);
}

/// A packed operator.
#[derive(Debug, Clone)]
pub struct Fused {
    kernel: Arc<dyn Kernel>,
    /// As planned; the axis before the last one follows the inputs.
    shape: TVec<usize>,
    engine: Engine,
}

/// The memory of a [`Fused`] node: tract makes one for each state that it spawns from a plan.
#[derive(Debug, Clone, Default)]
struct FusedState(Memory);

/// At most so many inputs.
pub const INPUTS_MAX: usize = 6;

// Two operators are the same when they share their weights: tract merges equal nodes with equal inputs.
impl PartialEq for Lifted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.spec, &other.spec)
    }
}
impl Eq for Lifted {}

impl PartialEq for Fused {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
    }
}
impl Eq for Fused {}

impl Op for Lifted {
    fn name(&self) -> StaticName {
        "Lifted".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Lifted {
    not_out_of_plan!();
}

impl TypedOp for Lifted {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![f32::fact(&self.shape)])
    }

    fn codegen(&self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
        let shapes: Vec<&[usize]> = model
            .node_input_facts(node.id)?
            .into_iter()
            .map(|fact| fact.shape.as_concrete().context("shapes are fixed"))
            .collect::<TractResult<_>>()?;
        let kernel = self.spec.pack(&shapes, &self.engine)?;
        let fused = Fused { kernel, shape: self.shape.clone(), engine: self.engine.clone() };
        Ok(Some(TypedModelPatch::replace_single_op(model, node, &node.inputs, fused)?))
    }

    as_op!();
}

impl Op for Fused {
    fn name(&self) -> StaticName {
        self.kernel.name().into()
    }

    op_as_typed_op!();
}

impl Fused {
    fn compute(&self, memory: &mut Memory, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        ensure!(inputs.len() <= INPUTS_MAX, "{} takes at most {INPUTS_MAX} inputs", self.kernel.name());
        let mut slices: [&[f32]; INPUTS_MAX] = [&[]; INPUTS_MAX];
        for (slice, input) in slices.iter_mut().zip(inputs) {
            *slice = input.try_as_plain_ram()?.as_slice::<f32>()?;
        }
        let slices = &slices[..inputs.len()];
        let planned = self.shape.iter().product();
        let len = self.kernel.out_len(planned, slices);
        let mut out = match memory.output.take() {
            Some(kept) => self.unshared(kept)?,
            None if len == planned => self.engine.take(&self.shape)?,
            None => self.engine.take(&self.shape_of(len)?)?,
        };
        let values = Arc::get_mut(&mut out).context("a buffer that was taken has no other owner")?;
        self.kernel.run(&self.engine, memory, slices, values.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        memory.runs += 1;
        if self.kernel.keeps_output() {
            memory.output = Some(Arc::clone(&out));
            return Ok(tvec![out.into_tvalue()]);
        }
        Ok(tvec![self.engine.keep(out)])
    }

    /// The same values in a tensor without another owner: `kept` itself, unless the caller still holds the last output.
    fn unshared(&self, mut kept: Arc<Tensor>) -> TractResult<Arc<Tensor>> {
        if Arc::get_mut(&mut kept).is_some() {
            return Ok(kept);
        }
        let mut copy = self.engine.take(&self.shape)?;
        let values = Arc::get_mut(&mut copy).context("a buffer that was taken has no other owner")?;
        values.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.copy_from_slice(kept.try_as_plain_ram()?.as_slice::<f32>()?);
        Ok(copy)
    }

    /// The planned shape with as many rows as `len` values are.
    fn shape_of(&self, len: usize) -> TractResult<TVec<usize>> {
        let mut shape = self.shape.clone();
        let rank = shape.len();
        ensure!(rank >= 2, "{} has no axis of rows", self.kernel.name());
        shape[rank - 2] = 1;
        let row = shape.iter().product::<usize>();
        ensure!(len.is_multiple_of(row), "{len} values are no rows of {row}");
        shape[rank - 2] = len / row;
        Ok(shape)
    }
}

impl EvalOp for Fused {
    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.compute(&mut Memory::default(), &inputs)
    }

    fn state(&self, _context: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        Ok(self.kernel.remembers().then(|| Box::new(FusedState::default()) as Box<dyn OpState>))
    }

    not_out_of_plan!();
}

impl OpState for FusedState {
    fn eval(&mut self, _context: &EvalContext, op: &dyn Op, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let fused = op.downcast_ref::<Fused>().context("the state of a fused operator")?;
        fused.compute(&mut self.0, &inputs)
    }

    fn reset_lanes(&mut self, _lanes: &[LaneId]) -> TractResult<()> {
        self.0 = Memory::default();
        Ok(())
    }
}

impl TypedOp for Fused {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![f32::fact(&self.shape)])
    }

    fn cost(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let (int8, float) = self.kernel.macs();
        Ok(tvec![(Cost::FMA(i8::datum_type()), int8.to_dim()), (Cost::FMA(f32::datum_type()), float.to_dim())])
    }

    as_op!();
}
