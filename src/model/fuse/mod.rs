//! Rewrites of the graph before tract optimizes it.
//!
//! ```text
//! ONNX as tract types it ──lift──▶ our operators, one by one ──merge──▶ chains ──code generation──▶ packed
//! ```
//!
//! [`lift`] recognizes operators by their structure, whoever exported them, in f32 and in the dynamic int8 form of ONNX Runtime's
//! quantizer. [`merge`] joins neighbours: q, k and v; layer norm, layers, activation, residual. [`MaskProduct`] cuts the final
//! product of query embeddings and pixel features out of the plan, so that only the masks of surviving queries are computed.
//!
//! A rule looks at one node and its neighbours and returns a patch, or nothing. What no rule recognizes stays tract's. The rules
//! run before tract's own declutter, which would turn these patterns into others.

mod lift;
mod lift_attention;
mod lift_convolution;
mod lift_linear;
mod mask_product;
mod merge;
mod rounding;
mod view;

pub use mask_product::MaskProduct;

use tract_onnx::prelude::{TractResult, TypedModel};
use tract_onnx::tract_core::optim::Optimizer;

use super::ops::Engine;
use crate::kernels::arch::Isa;
use crate::kernels::attention::ScorePrecision;
use crate::kernels::workers::Workers;

/// What rules may ask for.
#[derive(Debug, Clone)]
struct Rules {
    pub engine: Engine,
    /// Of all attentions.
    pub scores: ScorePrecision,
}

// tract's rewriter starts from a default context, which no rule ever sees
impl Default for Rules {
    fn default() -> Rules {
        Rules { engine: Engine::new(Isa::SCALAR, Workers::one()), scores: ScorePrecision::F32 }
    }
}

/// What the rules made of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewritten {
    /// The file is quantized, and so half precision good enough for what is not.
    pub quantized: bool,
    /// Roundings of activations that are not computed.
    pub roundings: usize,
}

/// Applies all rules.
pub fn rewrite(model: &mut TypedModel, engine: &Engine) -> TractResult<Rewritten> {
    let quantized = model.nodes().iter().any(|node| node.op.name() == lift_linear::DYNAMIC_QUANTIZE);
    let scores = if quantized { ScorePrecision::Int8 } else { ScorePrecision::F32 };
    let rules = Rules { engine: engine.clone(), scores };
    fold_constants(model)?;
    let roundings = rounding::leave_out(&rules, model)?;
    lift::lift(&rules, model)?;
    merge::merge(&rules, model)?;
    Ok(Rewritten { quantized, roundings })
}

/// Evaluates what depends on constants only, and nothing else.
fn fold_constants(model: &mut TypedModel) -> TractResult<()> {
    let mut optimizer = Optimizer::declutter();
    optimizer.passes.retain(|pass| format!("{pass:?}").starts_with("PropConst"));
    optimizer.optimize(model)
}
