//! Attention of opset 23 and 24, as the two products and the softmax that the rules of [`crate::model::fuse`] recognize.
//!
//! Source: ONNX operator specification, "Attention". tract 0.23.9 reads it as one operator of its own that no rule sees, and takes a
//! mask of booleans for numbers. Refuses by name: caches of past keys, a soft cap, padded lengths.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::MultiBroadcastTo;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::logic::Iff;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{Softmax, SoftmaxKind};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

/// What is added to the score of a token that must not be seen: ONNX Runtime's value, which leaves a row without any token finite.
const UNSEEN: f32 = f32::MIN;

/// What the fourth output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scores {
    Products,
    Masked,
    Probabilities,
}

#[derive(Debug, Clone)]
struct Attention {
    /// Of a query and of keys and values, for inputs of three axes.
    heads: Option<(usize, usize)>,
    scale: Option<f32>,
    causal: bool,
    masked: bool,
    scores: Option<Scores>,
}

pub(super) fn attention(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let given = |names: &[String], slot: usize| names.get(slot).is_some_and(|name| !name.is_empty());
    ensure!((4..=6).all(|slot| !given(&node.input, slot)), "past keys, past values and padded lengths are not supported");
    ensure!((1..=2).all(|slot| !given(&node.output, slot)), "keys and values as outputs are not supported");
    ensure!(node.get_attr_opt::<f32>("softcap")?.unwrap_or(0.0) == 0.0, "softcap is not supported");
    let scores = match node.get_attr_opt::<i64>("qk_matmul_output_mode")?.unwrap_or(0) {
        _ if !given(&node.output, 3) => None,
        0 => Some(Scores::Products),
        // without a soft cap there is nothing between the two
        1 | 2 => Some(Scores::Masked),
        3 => Some(Scores::Probabilities),
        mode => bail!("qk_matmul_output_mode {mode} is not supported"),
    };
    let heads =
        |name: &str| node.get_attr_opt::<i64>(name).map(|heads| heads.and_then(|heads| usize::try_from(heads).ok()).filter(|n| *n > 0));
    let op = Attention {
        heads: heads("q_num_heads")?.zip(heads("kv_num_heads")?),
        scale: node.get_attr_opt("scale")?,
        causal: node.get_attr_opt::<i64>("is_causal")?.unwrap_or(0) != 0,
        masked: given(&node.input, 3),
        scores,
    };
    Ok((expand(op), vec![]))
}

impl Expansion for Attention {
    fn name(&self) -> StaticName {
        "Attention".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(1 + usize::from(self.scores.is_some()))
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 3 + usize::from(self.masked))?;
        check_output_arity(outputs, self.nboutputs()?)?;
        for output in outputs {
            solver.equals(&inputs[0].datum_type, &output.datum_type)?;
        }
        solver.equals(&inputs[0].rank, &outputs[0].rank)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let flat = model.outlet_fact(inputs[0])?.rank() == 3;
        let mut parts = [inputs[0], inputs[1], inputs[2]];
        if flat {
            let (q_heads, kv_heads) = self.heads.context("inputs of three axes need q_num_heads and kv_num_heads")?;
            for (part, (name, heads)) in parts.iter_mut().zip([("q", q_heads), ("k", kv_heads), ("v", kv_heads)]) {
                *part = split_heads(&format!("{prefix}.{name}"), model, *part, heads)?;
            }
        }
        let [q, k, v] = parts;
        let [_, heads, queries, head_dim] = sizes(model, q)?;
        let k = repeat_heads(&format!("{prefix}.k"), model, k, heads)?;
        let v = repeat_heads(&format!("{prefix}.v"), model, v, heads)?;
        let tokens = sizes(model, k)?[2];
        let k = model.wire_node(format!("{prefix}.k.transposed"), AxisOp::Move(3, 2), &[k])?[0];
        let product = |name: &str, model: &mut TypedModel, a: OutletId, b: OutletId| -> TractResult<OutletId> {
            let op = EinSum::new("abmk,abkn->abmn".parse()?, f32::datum_type());
            Ok(model.wire_node(format!("{prefix}.{name}"), op, &[a, b])?[0])
        };
        let products = product("qk", model, q, k)?;
        let scale = self.scale.unwrap_or_else(|| (head_dim as f32).sqrt().recip());
        let scale = model.add_const(format!("{prefix}.scale"), tensor0(scale))?;
        let scaled = wire_with_rank_broadcast(format!("{prefix}.scaled"), model, math::mul(), &[products, scale])?[0];
        let masked = match self.mask(prefix, model, inputs, [queries, tokens])? {
            Some(mask) => wire_with_rank_broadcast(format!("{prefix}.masked"), model, math::add(), &[scaled, mask])?[0],
            None => scaled,
        };
        let softmax = Softmax { axes: tvec![3], quant_output_dt: None, kind: SoftmaxKind::default() };
        let probabilities = model.wire_node(format!("{prefix}.softmax"), softmax, &[masked])?[0];
        let mut output = product("pv", model, probabilities, v)?;
        if flat {
            output = model.wire_node(format!("{prefix}.tokens"), AxisOp::Move(1, 2), &[output])?[0];
            let [_, _, _, dim] = sizes(model, output)?;
            let merge = AxisOp::Reshape(2, tvec![heads.to_dim(), dim.to_dim()], tvec![(heads * dim).to_dim()]);
            output = model.wire_node(format!("{prefix}.merged"), merge, &[output])?[0];
        }
        let scores = self.scores.map(|scores| match scores {
            Scores::Products => scaled,
            Scores::Masked => masked,
            Scores::Probabilities => probabilities,
        });
        Ok(std::iter::once(output).chain(scores).collect())
    }
}

impl Attention {
    /// What is added to the scores.
    fn mask(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
        [queries, tokens]: [usize; 2],
    ) -> TractResult<Option<OutletId>> {
        let mut given = None;
        if self.masked {
            let mut mask = inputs[3];
            let last = model.outlet_fact(mask)?.shape.last().and_then(|dim| dim.to_usize().ok());
            ensure!(last.is_some_and(|last| last == tokens || last == 1), "the mask does not cover all {tokens} tokens");
            for step in model.outlet_fact(mask)?.rank()..4 {
                mask = model.wire_node(format!("{prefix}.mask.{step}"), AxisOp::Add(0), &[mask])?[0];
            }
            if model.outlet_fact(mask)?.datum_type == bool::datum_type() {
                let one = |value: f32| tensor0(value).broadcast_into_rank(4);
                let seen = model.add_const(format!("{prefix}.mask.seen"), one(0.0)?)?;
                let unseen = model.add_const(format!("{prefix}.mask.unseen"), one(UNSEEN)?)?;
                mask = model.wire_node(format!("{prefix}.mask.values"), Iff, &[mask, seen, unseen])?[0];
            }
            given = Some(mask);
        }
        if !self.causal {
            return Ok(given);
        }
        let below: Vec<f32> = (0..queries).flat_map(|q| (0..tokens).map(move |t| if t <= q { 0.0 } else { UNSEEN })).collect();
        let causal = model.add_const(format!("{prefix}.causal"), Tensor::from_shape(&[1, 1, queries, tokens], &below)?)?;
        Ok(Some(match given {
            Some(mask) => wire_with_rank_broadcast(format!("{prefix}.mask.causal"), model, math::add(), &[mask, causal])?[0],
            None => causal,
        }))
    }
}

/// Of a tensor of four axes.
fn sizes(model: &TypedModel, outlet: OutletId) -> TractResult<[usize; 4]> {
    let shape = model.outlet_fact(outlet)?.shape.as_concrete().context("shapes are fixed")?;
    shape.try_into().with_context(|| format!("{shape:?} has not four axes"))
}

/// `[B, T, H * D]` to `[B, H, T, D]`.
fn split_heads(prefix: &str, model: &mut TypedModel, x: OutletId, heads: usize) -> TractResult<OutletId> {
    let width = model.outlet_fact(x)?.shape.last().context("three axes")?.to_usize()?;
    ensure!(width.is_multiple_of(heads), "{heads} heads do not divide {width} values");
    let split = AxisOp::Reshape(2, tvec![width.to_dim()], tvec![heads.to_dim(), (width / heads).to_dim()]);
    let split = model.wire_node(format!("{prefix}.heads"), split, &[x])?[0];
    Ok(model.wire_node(format!("{prefix}.by_head"), AxisOp::Move(2, 1), &[split])?[0])
}

/// Groups of queries' heads share a head of keys or values: each is repeated for its group.
fn repeat_heads(prefix: &str, model: &mut TypedModel, x: OutletId, heads: usize) -> TractResult<OutletId> {
    let [batch, own, tokens, dim] = sizes(model, x)?;
    if own == heads {
        return Ok(x);
    }
    ensure!(heads.is_multiple_of(own), "{own} heads of keys do not divide {heads} of queries");
    let dims = |sizes: &[usize]| sizes.iter().map(|size| size.to_dim()).collect::<TVec<TDim>>();
    let grouped = model.wire_node(format!("{prefix}.group"), AxisOp::Add(2), &[x])?[0];
    let shape = ShapeFact::from_dims(dims(&[batch, own, heads / own, tokens, dim]));
    let repeated = model.wire_node(format!("{prefix}.repeated"), MultiBroadcastTo { shape }, &[grouped])?[0];
    let merge = AxisOp::Reshape(1, dims(&[own, heads / own]), dims(&[heads]));
    Ok(model.wire_node(format!("{prefix}.all_heads"), merge, &[repeated])?[0])
}
