//! Token merging as a rewrite of a fused graph: one file serves every ratio.
//!
//! ```text
//! block 0 .. block b-1 ──x──┬──────────────────────────────────────▶ before ┐
//!      └─ its keys ─▶ TokenGroups ──┐                                        │
//!                           └─▶ MergeTokens ─▶ blocks b .. last ─▶ UnmergeTokens ─▶ heads, ScaleBlocks
//! ```
//!
//! Nothing but the number of rows changes in the blocks between, and the scores of their attention, to which the logarithm of each
//! token's size is added. Class token, registers and queries stay as they are: patches are the last rows, before and after the queries
//! join.
//!
//! Refuses, by name: whatever is not a chain of pre-norm blocks that were all fused, queries that join in another way, attention through
//! masks, and rotary position embeddings, which turn a token's keys by its one position in every block.

use std::sync::Arc;

use tract_onnx::prelude::{DatumExt, OutletId, SpecialOps, TVec, TractResult, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::InletId;

use super::ModelError;
use super::ops::{AttentionSpec, Engine, Groups, GroupsSpec, Lifted, LinearSpec, MergeTokensSpec, Spec, UnmergeTokensSpec};
use crate::data::{MergeStep, TokenMerging};
use crate::kernels::token_merging::Grid;

/// One encoder block, by its nodes: `x + out(attention(qkv(x)))`, then `x + mlp(x)`.
#[derive(Debug, Clone, Copy)]
struct Block {
    qkv: usize,
    attention: usize,
    out: usize,
    mlp: usize,
}

/// Where tokens become fewer, and more again.
struct Encoder {
    blocks: Vec<Block>,
    /// The block that is the first with queries, and the node that puts them before the other tokens.
    joins: Option<(usize, usize)>,
    /// The patches are the last rows of the tokens.
    grid: Grid,
}

/// Rewrites `model`, which is fused and not optimized yet; a remark on what merges, if anything does.
pub(super) fn merge_tokens(model: &mut TypedModel, merging: TokenMerging, engine: &Engine) -> Result<Option<String>, ModelError> {
    if merging.is_off() {
        return Ok(None);
    }
    let refuse = |reason: String| ModelError::TokenMerging { reason };
    let encoder = Encoder::find(model).map_err(|reason| refuse(format!("this network's blocks were not recognized: {reason}")))?;
    let patches = encoder.grid.len();
    let (mut steps, mut tokens) = (Vec::new(), patches);
    for step in merging.steps() {
        let first = encoder.first(step).map_err(refuse)?;
        let count = encoder.count(step.ratio).map_err(refuse)?;
        if count < tokens {
            steps.push(Step { first, groups: Groups { grid: encoder.grid, tokens, count } });
            tokens = count;
        }
    }
    encoder.rewrite(model, &steps, engine).map_err(ModelError::engine("optimize"))?;
    let told: Vec<String> = steps.iter().map(|step| format!("{} before block {}", step.groups.count, step.first)).collect();
    Ok((!told.is_empty()).then(|| format!("its {patches} patch tokens become {}", told.join(", "))))
}

/// Where tokens merge, and how many.
struct Step {
    /// The block before which they do.
    first: usize,
    groups: Groups,
}

/// What a step has put into the graph.
struct Merged {
    groups: Groups,
    plan: OutletId,
    /// Tokens before.
    before: OutletId,
    /// Tokens after.
    after: OutletId,
}

/// The recognized operator of `node`.
fn spec(node: &TypedNode) -> Option<&Spec> {
    node.op_as::<Lifted>().map(|lifted| lifted.spec.as_ref())
}

/// Layers on all rows.
fn layers(node: &TypedNode, residual: bool) -> Option<&LinearSpec> {
    match spec(node)? {
        Spec::Linear(linear) if linear.start == 0 && linear.rows.is_none() && linear.residual == residual => Some(linear),
        _ => None,
    }
}

fn attention(node: &TypedNode) -> Option<&AttentionSpec> {
    match spec(node)? {
        Spec::Attention(attention) => Some(attention),
        _ => None,
    }
}

/// The only consumer of a node's output.
fn consumer(model: &TypedModel, node: usize) -> Option<&TypedNode> {
    model.single_succ(node).ok().flatten()
}

fn rows(model: &TypedModel, node: usize) -> Option<usize> {
    let shape = &model.node(node).op_as::<Lifted>()?.shape;
    (shape.len() >= 2).then(|| shape[..shape.len() - 1].iter().product())
}

impl Block {
    /// The block around an attention; number `index`.
    fn around(model: &TypedModel, node: &TypedNode, index: usize) -> Result<Block, String> {
        let attention = attention(node).expect("the caller looked");
        if attention.mask.is_some() {
            return Err(format!(
                "block {index} attends through masks (train with mask annealing, or on a checkpoint whose masks are annealed)"
            ));
        }
        let [q, k, v] = [attention.q, attention.k, attention.v].map(|part| node.inputs[part.slot]);
        let qkv = model.node(q.node);
        if q != k || k != v || layers(qkv, false).is_none() {
            return Err(format!(
                "the queries and keys of block {index} are changed after their projection, as rotary position embeddings do, and a merged \
                 token has no single position"
            ));
        }
        let found = || {
            let x = *qkv.inputs.first()?;
            let out = consumer(model, node.id)?;
            (layers(out, true).is_some() && out.inputs[..] == [OutletId::new(node.id, 0), x]).then_some(())?;
            let sum = OutletId::new(out.id, 0);
            let mlp = consumer_twice(model, out.id)?;
            (layers(mlp, true).is_some() && mlp.inputs[..] == [sum, sum]).then_some(())?;
            (consumer(model, qkv.id)?.id == node.id).then_some(Block { qkv: qkv.id, attention: node.id, out: out.id, mlp: mlp.id })
        };
        found().ok_or_else(|| format!("what follows the attention of block {index} is no projection and MLP with residuals"))
    }

    fn nodes(self) -> [usize; 4] {
        [self.qkv, self.attention, self.out, self.mlp]
    }
}

/// The one node that reads an output as its first and its second input.
fn consumer_twice(model: &TypedModel, node: usize) -> Option<&TypedNode> {
    match model.outlet_successors(OutletId::new(node, 0)) {
        [a, b] if a.node == b.node => Some(model.node(a.node)),
        _ => None,
    }
}

impl Encoder {
    fn find(model: &TypedModel) -> Result<Encoder, String> {
        let order = model.eval_order().map_err(|error| error.to_string())?;
        let attentions = order.into_iter().map(|id| model.node(id)).filter(|node| attention(node).is_some());
        let blocks = attentions.enumerate().map(|(index, node)| Block::around(model, node, index)).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = blocks.last() else { return Err("it has no attention that is computed as one operator".to_owned()) };
        let mut joins = None;
        for (index, pair) in blocks.windows(2).enumerate() {
            let input = model.node(pair[1].qkv).inputs[0];
            if input.node == pair[0].mlp {
                continue;
            }
            let concat = model.node(input.node);
            let joined = matches!(spec(concat), Some(Spec::Concat(_))) && concat.inputs.len() == 2 && concat.inputs[1].node == pair[0].mlp;
            if !joined || joins.is_some() {
                return Err(format!("block {} does not read what block {index} gives, with queries before it or without", index + 1));
            }
            joins = Some((index + 1, concat.id));
        }
        let queries = Encoder::rows_between(model, &blocks).ok_or("the number of its tokens is not fixed")?;
        let (grid, start) = patches(model, last.mlp).ok_or("no ScaleBlock reads the patches of its last block")?;
        let all = rows(model, last.mlp).unwrap_or(0);
        if start + grid.len() != all || grid.len() + queries > all {
            return Err("the patches are not the last of its tokens".to_owned());
        }
        Ok(Encoder { blocks, joins, grid })
    }

    /// How many tokens join on the way.
    fn rows_between(model: &TypedModel, blocks: &[Block]) -> Option<usize> {
        rows(model, blocks.last()?.mlp)?.checked_sub(rows(model, blocks.first()?.mlp)?)
    }

    /// The block before which tokens merge.
    fn first(&self, step: MergeStep) -> Result<usize, String> {
        let last = self.joins.map_or(self.blocks.len() - 1, |(joins, _)| joins);
        let first = step.block.unwrap_or_else(|| default_block(last));
        if first == 0 || first > last {
            return Err(format!(
                "block {first} is not from 1 to {last}: tokens merge by the keys of the block before, and before the queries join"
            ));
        }
        Ok(first)
    }

    /// Tokens that are left of all patches.
    fn count(&self, ratio: f64) -> Result<usize, String> {
        let (patches, fewest) = (self.grid.len(), self.grid.groups_min());
        let count = patches - (ratio * patches as f64).round() as usize;
        if count < fewest {
            let Grid { height, width } = self.grid;
            let most = ((patches - fewest) as f64 / patches as f64 * 1000.0).floor() / 1000.0;
            return Err(format!("of {height}x{width} patches at least {fewest} stay, so the ratio is {most} at most"));
        }
        Ok(count)
    }

    fn rewrite(&self, model: &mut TypedModel, steps: &[Step], engine: &Engine) -> TractResult<()> {
        let Some(last) = self.blocks.last().filter(|_| !steps.is_empty()) else { return Ok(()) };
        let end = OutletId::new(last.mlp, 0);
        let readers = model.outlet_successors(end).to_vec();
        let mut done: Vec<Merged> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let until = steps.get(index + 1).map_or(self.blocks.len(), |next| next.first);
            let merged = self.merge(model, step, until, done.last(), engine)?;
            done.push(merged);
        }
        let (mut outlet, mut shape) = (end, planned(model, last.mlp));
        let rows = shape.len() - 2;
        for (index, Merged { groups, plan, before, after }) in done.into_iter().enumerate().rev() {
            shape[rows] += groups.tokens - groups.count;
            let spec = Spec::UnmergeTokens(UnmergeTokensSpec { groups, dim: shape[rows + 1] });
            let op = Lifted::new(spec, &shape, engine);
            outlet = model.wire_node(format!("token_merging.unmerge.{index}"), op, &[outlet, plan, before, after])?[0];
        }
        readers.into_iter().try_for_each(|reader| model.add_edge(outlet, reader))
    }

    /// Merges tokens before a block; `until` the next step, their sizes count in attention.
    fn merge(&self, model: &mut TypedModel, step: &Step, until: usize, last: Option<&Merged>, engine: &Engine) -> TractResult<Merged> {
        let Step { first, groups } = *step;
        let source = self.blocks[first - 1];
        let before = OutletId::new(source.mlp, 0);
        let (readers, mut shape) = (model.outlet_successors(before).to_vec(), planned(model, source.mlp));
        let rows = shape.len() - 2;
        let dim = shape[rows + 1];
        let spec = GroupsSpec::new(groups, attention(model.node(source.attention)).expect("recognized"));
        let name = |what: &str| format!("token_merging.{first}.{what}");
        let earlier = last.map(|last| last.plan);
        let op = Lifted::new(Spec::Groups(spec), &[1, groups.values()], engine);
        let inputs: Vec<OutletId> = [OutletId::new(source.qkv, 0)].into_iter().chain(earlier).collect();
        let plan = model.wire_node(name("groups"), op, &inputs)?[0];
        let removed = groups.tokens - groups.count;
        shape[rows] -= removed;
        let op = Lifted::new(Spec::MergeTokens(MergeTokensSpec { groups, dim }), &shape, engine);
        let inputs: Vec<OutletId> = [before, plan].into_iter().chain(earlier).collect();
        let after = model.wire_node(name("merge"), op, &inputs)?[0];
        readers.into_iter().try_for_each(|reader| model.add_edge(after, reader))?;
        for block in &self.blocks[first..] {
            block.nodes().into_iter().try_for_each(|node| shrink(model, node, removed))?;
        }
        for block in &self.blocks[first..until] {
            bias(model, block.attention, plan, groups)?;
        }
        if let Some((_, concat)) = self.joins {
            shrink(model, concat, removed)?;
        }
        Ok(Merged { groups, plan, before, after })
    }
}

/// The planned shape of a recognized node.
fn planned(model: &TypedModel, node: usize) -> TVec<usize> {
    model.node(node).op_as::<Lifted>().expect("recognized").shape.clone()
}

/// Where tokens merge unless something else is asked for, when queries join before block `last`.
fn default_block(last: usize) -> usize {
    last.min(1)
}

/// The grid of patches that the ScaleBlocks read, and the row at which it starts.
fn patches(model: &TypedModel, last: usize) -> Option<(Grid, usize)> {
    let mut waiting: Vec<InletId> = model.outlet_successors(OutletId::new(last, 0)).to_vec();
    while let Some(inlet) = waiting.pop() {
        let node = model.node(inlet.node);
        match spec(node) {
            Some(Spec::ScaleBlock(block)) => return Some((Grid { height: block.grid.0, width: block.grid.1 }, block.start)),
            Some(Spec::Norm(_)) => waiting.extend_from_slice(model.outlet_successors(OutletId::new(node.id, 0))),
            _ => {}
        }
    }
    None
}

/// Plans `removed` rows less for a node.
fn shrink(model: &mut TypedModel, node: usize, removed: usize) -> TractResult<()> {
    let mut lifted = model.node(node).op_as::<Lifted>().expect("recognized").clone();
    let rank = lifted.shape.len();
    lifted.shape[rank - 2] -= removed;
    if let Spec::Attention(attention) = lifted.spec.as_ref() {
        let mut attention = attention.clone();
        attention.shape.queries -= removed;
        attention.shape.tokens -= removed;
        lifted.spec = Arc::new(Spec::Attention(attention));
    }
    let fact = f32::fact(&lifted.shape);
    model.node_mut(node).op = Box::new(lifted);
    model.set_outlet_fact(OutletId::new(node, 0), fact)
}

/// Adds the logarithms of the tokens' sizes to the scores of an attention.
fn bias(model: &mut TypedModel, node: usize, plan: OutletId, groups: Groups) -> TractResult<()> {
    let slot = model.node(node).inputs.len();
    let mut lifted = model.node(node).op_as::<Lifted>().expect("recognized").clone();
    let mut spec = attention(model.node(node)).expect("recognized").clone();
    spec.bias = Some(groups.bias(slot));
    lifted.spec = Arc::new(Spec::Attention(spec));
    model.node_mut(node).op = Box::new(lifted);
    model.add_edge(plan, InletId::new(node, slot))
}
