//! A run of the plan under observation: which operator, and how many multiply-accumulates it does.
//!
//! This crate has no clock; the [`Observer`] brings its own.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use tract_onnx::prelude::{Datum, DatumType, TValue, TVec, TractResult, TypedModel, TypedSimpleState};
use tract_onnx::tract_core::internal::{AxisOp, Cost};
use tract_onnx::tract_core::plan::eval;

use super::ops::Fused;

/// One operator of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Unique in the network.
    pub name: String,
    /// What it does, e.g. `OptMatMul`.
    pub kind: String,
    /// Multiply-accumulates on integers, as the operator itself states them; 0 where it states none.
    pub int8_macs: u64,
    /// The same on floats.
    pub f32_macs: u64,
}

/// Is told before and after each operator of a run, in the order of execution.
pub trait Observer: Send {
    /// The next operator starts.
    fn before(&mut self);
    /// It has ended.
    fn after(&mut self, operator: &Operator);
}

/// Runs `work` between the observer's two calls.
pub(super) fn around<T>(observer: Option<&mut dyn Observer>, operator: impl FnOnce() -> Operator, work: impl FnOnce() -> T) -> T {
    let Some(observer) = observer else { return work() };
    observer.before();
    let result = work();
    observer.after(&operator());
    result
}

/// Every node of the plan, by its id.
pub(super) fn operators(model: &TypedModel) -> Vec<Operator> {
    let describe = |node: &tract_onnx::prelude::TypedNode| {
        let (mut int8_macs, mut f32_macs) = (0, 0);
        let facts = model.node_input_facts(node.id);
        let costs = facts.and_then(|facts| node.op.cost(&facts)).unwrap_or_default();
        for (cost, count) in costs {
            let Cost::FMA(datum) = cost else { continue };
            let count = count.to_i64().ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
            *(if is_integer(datum) { &mut int8_macs } else { &mut f32_macs }) += count;
        }
        let kind: Cow<str> = node.op.name();
        Operator { name: node.name.clone(), kind: kind.into_owned(), int8_macs, f32_macs }
    };
    model.nodes().iter().map(describe).collect()
}

/// Operators that compute and that none of our rules recognized.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfused {
    /// Kind and number, the most work first.
    pub kinds: Vec<(String, usize)>,
    /// Of all multiply-accumulates of the network, as the operators state them.
    pub share: f64,
}

impl std::fmt::Display for Unfused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let listed: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(f, "{} with {:.1} % of the network's multiply-adds", listed.join(", "), 100.0 * self.share)
    }
}

/// Kinds that only say where values lie.
const MOVES: [&str; 12] = [
    "Source",
    "Const",
    "Slice",
    "Concat",
    "MultiBroadcastTo",
    "Gather",
    "Cast",
    "Pad",
    "IntoShape",
    "MoveAxis",
    "OptMatMulPack",
    "Reshape",
];

/// What of the plan is not ours; `mask_macs` are those of the mask product outside of it.
pub(super) fn unfused(model: &TypedModel, mask_macs: u64) -> Option<Unfused> {
    let (mut kinds, mut own, mut other) = (BTreeMap::<String, (u64, usize)>::new(), mask_macs, 0);
    for (node, operator) in model.nodes().iter().zip(operators(model)) {
        let macs = operator.int8_macs + operator.f32_macs;
        if node.op_is::<Fused>() {
            own += macs;
        } else if !node.op_is::<AxisOp>() && !MOVES.contains(&operator.kind.as_str()) {
            other += macs;
            let (work, count) = kinds.entry(operator.kind).or_default();
            (*work, *count) = (*work + macs, *count + 1);
        }
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(kind, (work, count))| (Reverse(*work), Reverse(*count), kind.clone()));
    let share = other as f64 / (own + other).max(1) as f64;
    let kinds: Vec<_> = kinds.into_iter().map(|(kind, (_, count))| (kind, count)).collect();
    (!kinds.is_empty()).then_some(Unfused { kinds, share })
}

/// tract states an int8 product as multiply-accumulates of its i32 accumulator.
fn is_integer(datum: DatumType) -> bool {
    datum.is_integer() || datum.is_quantized() || datum == i8::datum_type()
}

/// One run of the plan; `operators` are those of [`operators`].
pub(super) fn run(
    state: &mut TypedSimpleState,
    inputs: TVec<TValue>,
    operators: &[Operator],
    observer: &mut dyn Observer,
) -> TractResult<TVec<TValue>> {
    state.run_plan_with_eval(inputs, |context, op_state, node, inputs| {
        observer.before();
        let result = eval(context, op_state, node, inputs);
        observer.after(&operators[node.id]);
        result
    })
}
