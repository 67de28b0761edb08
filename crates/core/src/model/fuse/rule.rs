//! What every rule of [`super`] works with: its context, the patch that it returns, and the patch that most of them want.

use std::sync::Arc;

use tract_onnx::prelude::{OutletId, Tensor, TractResult, TypedModel, TypedModelPatch};

use super::view::shape;
use crate::kernels::arch::Isa;
use crate::kernels::attention::ScorePrecision;
use crate::kernels::workers::Workers;
use crate::model::onnx::Rounding;
use crate::model::ops::{Engine, Lifted, Spec};

/// What a rule returns: a rewrite of the graph, or `None` where it recognizes nothing.
pub(super) type Patch = TractResult<Option<TypedModelPatch>>;

/// A weight matrix `[k, n]` or `[n, k]` of a statically quantized file.
#[derive(Debug, Clone)]
pub struct IntegerWeights {
    /// What the integers stand for.
    pub floats: Arc<Tensor>,
    /// i8 or u8, as in the file.
    pub integers: Arc<Tensor>,
    /// From one to the other.
    pub rounding: Rounding,
}

/// What rules know besides the graph.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// Goes into every operator that a rule makes.
    pub engine: Engine,
    /// Of all attentions.
    pub scores: ScorePrecision,
    /// Matrices of a statically quantized file that stay integers.
    pub weights: Arc<Vec<IntegerWeights>>,
}

// tract's rewriter starts from a default context, which no rule ever sees
impl Default for Context {
    fn default() -> Context {
        Context { engine: Engine::new(Isa::SCALAR, Workers::one()), scores: ScorePrecision::F32, weights: Arc::default() }
    }
}

/// A patch that computes `outlet` by `spec` from `inputs`.
pub(super) fn replace(
    context: &Context,
    model: &TypedModel,
    name: &str,
    spec: Spec,
    inputs: &[OutletId],
    outlet: OutletId,
) -> TractResult<Option<TypedModelPatch>> {
    let mut patch = TypedModelPatch::default();
    let inputs = patch.taps(model, inputs)?;
    let op = Lifted::new(spec, &shape(model, outlet), &context.engine);
    let output = patch.wire_node(name, op, &inputs)?;
    patch.shunt_outside(model, outlet, output[0])?;
    Ok(Some(patch))
}
