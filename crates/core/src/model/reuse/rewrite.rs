//! Replaces the operators between patches and masks by those of [`super::kernels`].
//!
//! Follows the patches through the graph. What it finds at an outlet is one of three things: rows of tokens, of which some may be
//! missing; a map in which all pixels are there; or neither, as queries and what is made of them alone. Every operator that reads rows
//! must be one of ours that takes them one by one, joins them, attends to them, or enlarges them to a map.
//!
//! Refuses, by the node's name: anything else that reads rows.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::prelude::{OutletId, TractResult, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::AxisOp;

use super::kernels::{ChangedScaleBlock, ChosenAttention, ChosenPatches, ChosenRows, Tokens};
use super::selection::{Selection, Shared};
use crate::model::ops::{AttentionSpec, Lifted, LinearSpec, Pack, PatchesSpec, ScaleBlockSpec, Spec};

/// What an outlet holds, seen from the patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Rows(Tokens),
    /// 2^level times the grid, row by row.
    Map(usize),
}

/// What is to become of an operator, and what its output then holds.
type Found = Result<(Option<Arc<dyn Pack>>, Option<Held>), String>;

/// A plan whose operators share a selection.
pub struct Rewritten {
    pub shared: Shared,
    /// Pixels.
    pub patch: (usize, usize),
}

/// Rewrites `model`, lifted and not optimized yet. `Ok(Err(reason))`: it is left as it was.
pub fn rewrite(model: &mut TypedModel) -> TractResult<Result<Rewritten, String>> {
    let patches = match patch_embedding(model) {
        Ok(patches) => patches,
        Err(reason) => return Ok(Err(reason)),
    };
    let (grid, patch) = (patches.grid(), patches.patch);
    let levels = 1 + model.nodes().iter().filter(|node| matches!(spec(node), Some(Spec::ScaleBlock(_)))).count();
    let walk = Walk { grid, shared: Shared::new(Selection::new(grid, levels)) };
    let mut held = HashMap::new();
    let mut replacements = Vec::new();
    for id in model.eval_order()? {
        let (replacement, output) = match walk.follow(model, model.node(id), &held) {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        replacements.extend(replacement.map(|pack| (id, pack)));
        held.extend(output.map(|output| (OutletId::new(id, 0), output)));
    }
    if model.output_outlets()?.iter().any(|outlet| matches!(held.get(outlet), Some(Held::Rows(_)))) {
        return Ok(Err("it gives its tokens away".to_owned()));
    }
    for (id, pack) in replacements {
        let node = model.node_mut(id);
        let Some(Lifted { shape, engine, .. }) = node.op_as::<Lifted>() else { continue };
        node.op = Box::new(Lifted::new(Spec::Other(pack), &shape.clone(), &engine.clone()));
    }
    Ok(Ok(Rewritten { shared: walk.shared, patch }))
}

fn spec(node: &TypedNode) -> Option<&Spec> {
    node.op_as::<Lifted>().map(|lifted| lifted.spec.as_ref())
}

fn patch_embedding(model: &TypedModel) -> Result<&PatchesSpec, String> {
    let mut found = model.nodes().iter().filter_map(|node| match spec(node) {
        Some(Spec::Patches(patches)) => Some(patches),
        _ => None,
    });
    match (found.next(), found.next()) {
        (Some(patches), None) => Ok(patches),
        (None, _) => Err("its patch embedding is not recognized".to_owned()),
        (Some(_), Some(_)) => Err("it has more than one patch embedding".to_owned()),
    }
}

struct Walk {
    grid: (usize, usize),
    shared: Shared,
}

fn refuse(node: &TypedNode, reason: &str) -> Found {
    let kind = node.op_as::<Lifted>().map_or_else(|| node.op.name().into_owned(), |lifted| kind(&lifted.spec).to_owned());
    Err(format!("its node '{}' ({kind}) {reason}", crate::model::bounds::short(&node.name)))
}

fn kind(spec: &Spec) -> &'static str {
    match spec {
        Spec::Concat(_) => "Concat",
        Spec::Norm(_) => "LayerNorm",
        Spec::Activation(_) => "activation",
        Spec::Linear(_) => "linear layer",
        Spec::Attention(_) => "attention",
        Spec::Patches(_) => "patch embedding",
        Spec::ScaleBlock(_) => "ScaleBlock",
        Spec::GridSample(_) => "GridSample",
        Spec::Deformable(_) => "DeformableAttention",
        Spec::Offset(_) => "offset",
        Spec::Groups(_) | Spec::MergeTokens(_) | Spec::UnmergeTokens(_) => "token merging",
        Spec::Other(_) => "rewritten",
    }
}

/// Values of the outlet over values of a row.
fn rows_of(model: &TypedModel, outlet: OutletId) -> Option<(usize, usize)> {
    let shape = model.outlet_fact(outlet).ok()?.shape.as_concrete()?;
    let width = *shape.last()?;
    Some((shape.iter().product::<usize>() / width.max(1), width))
}

impl Walk {
    fn patches(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    fn follow(&self, model: &TypedModel, node: &TypedNode, held: &HashMap<OutletId, Held>) -> Found {
        let inputs: Vec<Option<Held>> = node.inputs.iter().map(|outlet| held.get(outlet).copied()).collect();
        let rows: Vec<Option<Tokens>> = inputs.iter().map(|held| held.and_then(Held::rows)).collect();
        let spec = spec(node);
        if let Some(Spec::Patches(patches)) = spec {
            let pack = ChosenPatches { spec: patches.clone(), shared: self.shared.clone() };
            return Ok((Some(Arc::new(pack)), Some(Held::Rows(Tokens { leading: 0, patches: self.patches() }))));
        }
        if let (Some(Spec::ScaleBlock(block)), Some(Some(input))) = (spec, inputs.first()) {
            return self.scale_block(node, block, *input);
        }
        if rows.iter().all(Option::is_none) {
            // maps are whole, so that anything may read them
            let map = inputs.first().copied().flatten().filter(|_| keeps_rows(model, node));
            return Ok((None, map));
        }
        match spec {
            None if keeps_rows(model, node) => Ok((None, inputs[0])),
            Some(Spec::Norm(_) | Spec::Activation(_)) => self.by_rows(node, &rows, rows[0]),
            Some(Spec::Linear(layers)) => self.linear(node, layers, &rows),
            Some(Spec::Concat(_)) => self.concat(model, node, &rows),
            Some(Spec::Attention(attention)) => self.attention(node, attention, &rows),
            _ => refuse(node, "reads the tokens of patches and is none of the operators that can do with some of them"),
        }
    }

    fn by_rows(&self, node: &TypedNode, inputs: &[Option<Tokens>], output: Option<Tokens>) -> Found {
        let (Some(lifted), Some(output)) = (node.op_as::<Lifted>(), output) else { return refuse(node, "reads tokens in an unknown way") };
        let (spec, inputs, shared) = (Arc::clone(&lifted.spec), inputs.to_vec(), self.shared.clone());
        Ok((Some(Arc::new(ChosenRows { spec, inputs, output, shared })), Some(Held::Rows(output))))
    }

    fn linear(&self, node: &TypedNode, layers: &LinearSpec, inputs: &[Option<Tokens>]) -> Found {
        let Some(tokens) = inputs[0] else { return refuse(node, "adds the tokens of patches to something else") };
        let residual = inputs.get(1).copied().flatten();
        let (start, end) = (layers.start, layers.rows.map_or(tokens.all(), |rows| layers.start + rows));
        if end <= tokens.leading && residual.is_none() {
            return Ok((None, None));
        }
        let output = Tokens { leading: tokens.leading.saturating_sub(start), ..tokens };
        let fits = start <= tokens.leading && end >= tokens.all() && (!layers.residual || residual == Some(output));
        if fits { self.by_rows(node, inputs, Some(output)) } else { refuse(node, "reads a part of the patches only") }
    }

    fn concat(&self, model: &TypedModel, node: &TypedNode, inputs: &[Option<Tokens>]) -> Found {
        let (Some(Some(last)), before) = (inputs.last(), &inputs[..inputs.len() - 1]) else {
            return refuse(node, "puts other tokens behind those of patches");
        };
        if before.iter().any(Option::is_some) {
            return refuse(node, "joins the tokens of patches more than once");
        }
        let rows = node.inputs[..before.len()].iter().map(|outlet| rows_of(model, *outlet).map(|(rows, _)| rows)).sum::<Option<usize>>();
        let Some(rows) = rows else { return refuse(node, "has no fixed shape") };
        self.by_rows(node, inputs, Some(Tokens { leading: last.leading + rows, ..*last }))
    }

    fn attention(&self, node: &TypedNode, attention: &AttentionSpec, inputs: &[Option<Tokens>]) -> Found {
        if attention.mask.is_some() {
            return refuse(node, "attends through masks, which change from frame to frame for every token");
        }
        let parts = [attention.q, attention.k, attention.v].map(|part| inputs[part.slot]);
        let Some(tokens) = parts[0].filter(|_| parts.iter().all(|part| *part == parts[0])) else {
            return refuse(node, "attends between different sets of tokens");
        };
        Ok((Some(Arc::new(ChosenAttention::new(attention, tokens, &self.shared))), Some(Held::Rows(tokens))))
    }

    fn scale_block(&self, node: &TypedNode, block: &ScaleBlockSpec, input: Held) -> Found {
        let (level, start) = match input {
            Held::Rows(tokens) => (0, tokens.leading),
            Held::Map(level) => (level, 0),
        };
        if block.start != start || block.grid != (self.grid.0 << level, self.grid.1 << level) {
            return refuse(node, "does not read the grid of patches");
        }
        let pack = ChangedScaleBlock { spec: block.clone(), level, shared: self.shared.clone() };
        Ok((Some(Arc::new(pack)), Some(Held::Map(level + 1))))
    }
}

impl Held {
    fn rows(self) -> Option<Tokens> {
        match self {
            Held::Rows(tokens) => Some(tokens),
            Held::Map(_) => None,
        }
    }
}

/// A reshape after which the same rows follow each other.
fn keeps_rows(model: &TypedModel, node: &TypedNode) -> bool {
    let Some(AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..)) = node.op_as::<AxisOp>() else { return false };
    rows_of(model, node.inputs[0]).is_some_and(|before| rows_of(model, node.id.into()) == Some(before))
}
