//! What a network for video carries from one frame to the next: its queries (VidEoMT).
//!
//! ```text
//! frame t:  query tokens = learned queries + query_state            query_state is 0 at the first frame of a clip
//!           blocks, heads on query tokens and patch tokens
//!           next_query_state = query_updater(query tokens behind the last block)
//! ```
//!
//! The file has both as tensors `[1, Q, D]`, an input and an output, and its metadata names them ([`QueryState`]).
//!
//! Invariants: the state changes when a whole frame went well, and only then; all of its values are finite.
//! Refuses: a file whose metadata and graph disagree about the state.

use serde::{Deserialize, Serialize};
use tract_onnx::pb::{GraphProto, ValueInfoProto, tensor_shape_proto::dimension::Value as Dim, type_proto};
use tract_onnx::prelude::{TValue, TractResult};
use tract_onnx::tract_core::internal::bail;

use super::ops::Engine;
use super::{ModelError, bounds, names};

/// The metadata entry.
pub const KEY: &str = "query_state";

/// How a file says that its queries go on from frame to frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryState {
    /// Name of the input that takes the state.
    pub input: String,
    /// Name of the output that gives the state of the next frame.
    pub output: String,
    /// Of both: `[1, Q, D]`.
    pub shape: [usize; 3],
    /// The state of the first frame of a clip.
    pub first: FirstState,
}

/// What stands for the state when there is no frame before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstState {
    /// Every value is 0.
    Zeros,
}

impl QueryState {
    /// The state of `queries` query tokens of `width` values, under the names that `convert` gives.
    pub fn new(queries: usize, width: usize) -> QueryState {
        let (input, output) = (names::QUERY_STATE.to_owned(), names::NEXT_QUERY_STATE.to_owned());
        QueryState { input, output, shape: [1, queries, width], first: FirstState::Zeros }
    }

    /// Compares the entry with the graph.
    pub(super) fn check(&self, graph: &GraphProto) -> Result<(), ModelError> {
        let wrong = |reason: String| Err(ModelError::InvalidMetadata { key: KEY, reason });
        let shape = self.shape.map(|dim| i64::try_from(dim).unwrap_or(i64::MAX));
        if self.shape[0] != 1 || self.shape.contains(&0) || bounds::values(&shape).is_err() {
            return wrong(format!("{:?} is no shape of a state, [1, queries, width]", self.shape));
        }
        if graph.input.len() != 2 {
            return wrong(format!("pixel values and the state are two inputs, but the graph has {}", graph.input.len()));
        }
        for (what, name, values) in [("input", &self.input, &graph.input), ("output", &self.output, &graph.output)] {
            let short = bounds::short(name);
            let Some(value) = values.iter().find(|value| value.name == *name) else {
                return wrong(format!("the graph has no {what} '{short}'"));
            };
            if let Some(dims) = dims(value).filter(|dims| *dims != shape) {
                return wrong(format!("it says {shape:?}, but the {what} '{short}' of the graph has the shape {dims:?}"));
            }
        }
        let of_classes = graph.output.iter().find(|value| value.name == names::CLASS_LOGITS).and_then(dims);
        match of_classes {
            Some(dims) if dims.get(1).is_some_and(|queries| *queries >= 0 && *queries != shape[1]) => {
                wrong(format!("it says {shape:?}, but the class logits of the graph have the shape {dims:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// The shape that the file declares, -1 for what it leaves open; `None`: it declares none.
fn dims(value: &ValueInfoProto) -> Option<Vec<i64>> {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref()?.value.as_ref() else { return None };
    let size = |value: &Option<Dim>| if let Some(Dim::DimValue(size)) = value { *size } else { -1 };
    Some(tensor.shape.as_ref()?.dim.iter().map(|dim| size(&dim.value)).collect())
}

/// The state of one running network.
#[derive(Debug, Clone)]
pub(super) struct Carried {
    shape: [usize; 3],
    values: Vec<f32>,
}

impl Carried {
    /// That of the first frame.
    pub fn first(state: &QueryState) -> Carried {
        let FirstState::Zeros = state.first;
        Carried { shape: state.shape, values: vec![0.0; state.shape.iter().product()] }
    }

    /// Back to the first frame.
    pub fn reset(&mut self) {
        self.values.fill(0.0);
    }

    /// The state as an input of the network.
    pub fn feed(&self, engine: &Engine) -> TractResult<TValue> {
        engine.filled(&self.shape, &self.values)
    }

    /// Takes the network's output as the state of the next frame; keeps the old one when it fails.
    pub fn take(&mut self, output: &TValue) -> TractResult<()> {
        let plain = output.try_as_plain_ram()?;
        let next = plain.as_slice::<f32>()?;
        if next.len() != self.values.len() || next.iter().any(|value| !value.is_finite()) {
            bail!("the query state that it gives for the next frame is not {} numbers", self.values.len());
        }
        self.values.copy_from_slice(next);
        Ok(())
    }
}
