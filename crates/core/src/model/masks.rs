//! What attention through masks costs: a network whose mask annealing is not complete predicts masks inside of its last blocks, too.
//!
//! Counted on plans themselves: the multiply-accumulates of all operators, less those of the same network whose attentions read a
//! constant where they read a mask.

use std::collections::HashSet;

use tract_onnx::prelude::{DatumType, OutletId, Tensor, TractResult, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::{AxisOp, InletId, SpecialOps};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::nn::Softmax;

use super::observe::operators;
use super::ops::{Lifted, Spec};

/// The work that masks cause. Products of 16-bit and 8-bit numbers count like those of 32-bit ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskCost {
    /// Blocks whose attention reads a mask.
    pub blocks: usize,
    /// Multiply-accumulates of the plan.
    pub macs: u64,
    /// Those that only the masks need.
    pub extra: u64,
}

impl std::fmt::Display for MaskCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let MaskCost { blocks, macs, extra } = *self;
        let blocks = if blocks == 1 { "1 block attends".to_owned() } else { format!("{blocks} blocks attend") };
        write!(
            f,
            "{blocks} through masks (attn_mask_probs is not 0): {:.1} of {:.1} million multiply-adds of an inference, {:.0} %, go into these \
             masks; a checkpoint whose masks were annealed to 0 in training does without",
            extra as f64 / 1e6,
            macs as f64 / 1e6,
            100.0 * extra as f64 / macs.max(1) as f64
        )
    }
}

/// The same network without masks.
#[derive(Debug, Clone, Copy)]
pub struct Unmasked {
    blocks: usize,
    macs: u64,
}

/// Counts the network without masks; `None` when no attention reads one. `model` is lifted and not optimized yet.
pub fn unmasked(model: &TypedModel) -> TractResult<Option<Unmasked>> {
    let attention = |node: &TypedNode| Some((node.id, reads_mask(model, node)?));
    let found: Vec<(usize, Mask)> = model.nodes().iter().filter_map(attention).collect();
    if found.is_empty() {
        return Ok(None);
    }
    let mut model = model.clone();
    for (attention, Mask { node, slot, value }) in &found {
        let fact = model.outlet_fact(model.node(*node).inputs[*slot])?.clone();
        let Some(shape) = fact.shape.as_concrete() else { return Ok(None) };
        let mut constant = Tensor::zero_dt(fact.datum_type, shape)?;
        if *value && fact.datum_type == DatumType::Bool {
            constant.try_as_plain_ram_mut()?.as_slice_mut::<bool>()?.fill(true);
        }
        let constant = model.add_const(format!("no mask {attention}"), constant)?;
        model.add_edge(constant, InletId::new(*node, *slot))?;
    }
    let blocks = found.len();
    Ok(Some(Unmasked { blocks, macs: macs(&model.into_optimized()?) }))
}

/// `None` when the masks cost nothing, as constant ones do; `outside` is the work of the last ScaleBlock where it is not part of the plan.
pub fn cost(plan: &TypedModel, outside: u64, unmasked: Unmasked) -> Option<MaskCost> {
    let macs = macs(plan);
    let extra = macs.saturating_sub(unmasked.macs);
    (extra > 0).then_some(MaskCost { blocks: unmasked.blocks, macs: macs + outside, extra })
}

/// Where an attention reads its mask.
struct Mask {
    node: usize,
    slot: usize,
    /// What a boolean mask must be to let every score through.
    value: bool,
}

/// One of ours with a mask, or a softmax over scores into which something is added or selected that depends on the input.
fn reads_mask(model: &TypedModel, node: &TypedNode) -> Option<Mask> {
    if let Some(lifted) = node.op_as::<Lifted>() {
        let Spec::Attention(attention) = lifted.spec.as_ref() else { return None };
        // masks of queries that attend to other tokens alone are Mask2Former's, which does not do without
        if attention.shape.queries != attention.shape.tokens {
            return None;
        }
        return attention.mask.map(|slot| Mask { node: node.id, slot, value: true });
    }
    if !node.op_is::<Softmax>() {
        return None;
    }
    let mut node = model.node(node.inputs[0].node);
    while let Some(scores) = scores(model, node) {
        let others = (0..node.inputs.len()).filter(|slot| *slot != scores);
        let varies = |slot: &usize| model.outlet_fact(node.inputs[*slot]).is_ok_and(|fact| fact.konst.is_none());
        match (node.op.name().as_ref(), others.clone().find(varies)) {
            ("Add", Some(slot)) => return Some(Mask { node: node.id, slot, value: true }),
            ("Iff", Some(0)) => return Some(Mask { node: node.id, slot: 0, value: scores == 1 }),
            _ => node = model.node(node.inputs[scores].node),
        }
    }
    None
}

/// The input of `node` by which the product of queries and keys comes.
fn scores(model: &TypedModel, node: &TypedNode) -> Option<usize> {
    const ON_THE_WAY: [&str; 5] = ["Add", "Mul", "Div", "Iff", "Cast"];
    fn leads(model: &TypedModel, outlet: OutletId, depth: usize) -> bool {
        let node = model.node(outlet.node);
        let name = node.op.name();
        let passes = ON_THE_WAY.contains(&name.as_ref()) || node.op_is::<AxisOp>();
        node.op_is::<EinSum>() || (depth > 0 && passes && node.inputs.iter().any(|input| leads(model, *input, depth - 1)))
    }
    let passes = ON_THE_WAY.contains(&node.op.name().as_ref()) || node.op_is::<AxisOp>();
    if !passes {
        return None;
    }
    node.inputs.iter().position(|input| leads(model, *input, 6))
}

/// Multiply-accumulates of what the outputs need.
fn macs(plan: &TypedModel) -> u64 {
    let operators = operators(plan);
    let mut waiting: Vec<usize> = plan.output_outlets().unwrap_or_default().iter().map(|outlet| outlet.node).collect();
    let mut found = HashSet::new();
    while let Some(id) = waiting.pop() {
        if found.insert(id) {
            waiting.extend(plan.node(id).inputs.iter().map(|outlet| outlet.node));
        }
    }
    found.into_iter().map(|node| operators[node].int8_macs + operators[node].f32_macs).sum()
}
