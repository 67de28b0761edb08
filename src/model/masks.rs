//! What attention through masks costs: a network whose mask annealing is not complete predicts masks inside of its last blocks, too.
//!
//! Counted on the plan itself: the multiply-accumulates of all operators, less those of the operators that are still needed when no
//! attention reads a mask.

use std::collections::HashSet;

use tract_onnx::prelude::TypedModel;

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
            "{blocks} through masks (attn_mask_probs is not 0): {} of {} million multiply-adds of an inference, {:.0} %, go into these masks; \
             a checkpoint whose masks were annealed to 0 in training does without",
            extra / 1_000_000,
            macs / 1_000_000,
            100.0 * extra as f64 / macs.max(1) as f64
        )
    }
}

/// Names of the attentions that read a mask, and at which input; asked before code generation, which keeps both.
pub fn masked(model: &TypedModel) -> Vec<(String, usize)> {
    let slot = |spec: &Spec| if let Spec::Attention(attention) = spec { attention.mask } else { None };
    let nodes = model.nodes().iter().filter_map(|node| Some((node.name.clone(), slot(&node.op_as::<Lifted>()?.spec)?)));
    nodes.collect()
}

/// `None` when no attention reads a mask.
pub fn cost(plan: &TypedModel, masked: &[(String, usize)]) -> Option<MaskCost> {
    let cuts: HashSet<(usize, usize)> = plan
        .nodes()
        .iter()
        .filter_map(|node| masked.iter().find(|(name, _)| *name == node.name).map(|(_, slot)| (node.id, *slot)))
        .filter(|(node, slot)| *slot < plan.node(*node).inputs.len())
        .collect();
    if cuts.is_empty() {
        return None;
    }
    let operators = operators(plan);
    let sum = |needed: HashSet<usize>| needed.into_iter().map(|node| operators[node].int8_macs + operators[node].f32_macs).sum::<u64>();
    let macs = sum(needed(plan, &HashSet::new()));
    let extra = macs - sum(needed(plan, &cuts));
    // a mask that is a constant costs nothing
    (extra > 0).then_some(MaskCost { blocks: cuts.len(), macs, extra })
}

/// The nodes that the outputs need when the inputs in `cuts` are not read.
fn needed(plan: &TypedModel, cuts: &HashSet<(usize, usize)>) -> HashSet<usize> {
    let mut waiting: Vec<usize> = plan.output_outlets().unwrap_or_default().iter().map(|outlet| outlet.node).collect();
    let mut found = HashSet::new();
    while let Some(id) = waiting.pop() {
        if found.insert(id) {
            let inputs = plan.node(id).inputs.iter().enumerate();
            waiting.extend(inputs.filter(|(slot, _)| !cuts.contains(&(id, *slot))).map(|(_, outlet)| outlet.node));
        }
    }
    found
}
