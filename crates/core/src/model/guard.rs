//! Whether the fused network answers as a plain evaluation of the same file does.
//!
//! Plain: the graph as it was read, operator by operator, none of our rules and none of tract's; only products of f32 matrices are
//! lowered to tract's own, without which a real network would take minutes. The two share the reading of the file and nothing that
//! rewrites it, but for one thing: where the roundings of a statically quantized network are left out, they are left out of the plain
//! one, too, and what they change is measured on its own.
//!
//! Refuses: deciding which of the two is right.

use std::sync::Arc;

use tract_onnx::prelude::{
    IntoTensor, Tensor as TractTensor, TractResult, TypedModel, TypedModelPatch, TypedNode, TypedRunnableModel, TypedSimplePlan,
};
use tract_onnx::tract_core::internal::{IntoTValue, Rewriter, TypedOp};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::einsum::einsum_matmul::EinSumMatMul;

use super::contain::contained;
use super::load::{self, LoadOptions};
use super::reuse::Reuse;
use super::{Metadata, Model, ModelError, fuse};
use crate::data::{Logits, Tensor};

/// How far the two are from each other: of the inputs the worst, mean difference over mean magnitude.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Of the class logits.
    pub class: f64,
    /// Of the mask logits.
    pub masks: f64,
    /// What either may be.
    pub allowed: f64,
    /// Inputs that were compared.
    pub inputs: usize,
    /// What leaving the file's roundings of activations out changes, on the input on which that is the least.
    pub roundings: Option<f64>,
}

/// f32 in another order of summation; seen: below 1e-5.
const ALLOWED_F32: f64 = 1e-3;
/// Activations and weights of 8 bits, rounded in another way; seen: below 0.05 on random weights.
const ALLOWED_INT8: f64 = 0.15;
/// The same where attention reads masks: a mask logit near 0 decides whether a token is seen at all.
const ALLOWED_MASKED_INT8: f64 = 0.5;
/// What roundings may change on the input on which they change the least; seen: below 0.1. A network that lost more than roundings
/// differs on every input, by about 1.
const ALLOWED_ROUNDING: f64 = 0.3;

impl Model {
    /// Compares this network with a plain evaluation of `bytes`, the file that it was loaded from, on `inputs` inputs (at most two).
    ///
    /// # Errors
    /// [`ModelError::Differs`] when they are further apart than the file's precision explains, or an answer is not a number.
    pub fn check(&mut self, bytes: &[u8], inputs: usize, options: &LoadOptions) -> Result<Agreement, ModelError> {
        contained("evaluate", || self.compare(bytes, inputs, options))
    }

    fn compare(&mut self, bytes: &[u8], inputs: usize, options: &LoadOptions) -> Result<Agreement, ModelError> {
        let size = self.metadata.input_size;
        let inputs: Vec<Tensor> = [shapes(size), noise(size)].into_iter().take(inputs).collect();
        let left_out = self.origin.roundings > 0;
        let mut plain = Plain::new(bytes, &self.metadata, left_out, options)?;
        // two inputs are two frames of a clip for a network that carries something, and each side carries its own
        self.reset();
        let allowed = match (self.origin.int8 || self.origin.bf16, self.mask_cost) {
            (false, _) => ALLOWED_F32,
            (true, None) => ALLOWED_INT8,
            (true, Some(_)) => ALLOWED_MASKED_INT8,
        };
        let mut agreement = Agreement { class: 0.0, masks: 0.0, allowed, inputs: inputs.len(), roundings: None };
        for input in &inputs {
            let mut logits = Logits::default();
            self.reuse.iter_mut().for_each(Reuse::reset); // the two have nothing in common but a clip's state
            self.run(input, |class, kept| kept.extend(0..class.queries), &mut logits)?;
            let [class, masks] = differences(&[logits.class.values, logits.masks], &plain.run(input)?)?;
            agreement.class = agreement.class.max(class);
            agreement.masks = agreement.masks.max(masks);
        }
        self.reset();
        agreement.check_bound(allowed, [agreement.class, agreement.masks])?;
        if left_out {
            let mut exact = Plain::new(bytes, &self.metadata, false, options)?;
            plain.reset();
            let mut least = [f64::INFINITY; 2];
            for input in &inputs {
                let found = differences(&plain.run(input)?, &exact.run(input)?)?;
                least = std::array::from_fn(|index| least[index].min(found[index]));
            }
            agreement.check_bound(ALLOWED_ROUNDING, least)?;
            agreement.roundings = Some(least[0].max(least[1]));
        }
        Ok(agreement)
    }
}

impl Agreement {
    fn check_bound(&self, allowed: f64, errors: [f64; 2]) -> Result<(), ModelError> {
        for (output, error) in OUTPUTS.into_iter().zip(errors) {
            if error > allowed {
                return Err(ModelError::Differs { output, error, allowed });
            }
        }
        Ok(())
    }
}

const OUTPUTS: [&str; 2] = ["class logits", "masks"];

/// The output of a network for video that follows them.
const STATE: usize = OUTPUTS.len();

/// The file, operator by operator.
struct Plain {
    plan: Arc<TypedRunnableModel>,
    size: (usize, usize),
    /// Of a network for video.
    state: Option<TractTensor>,
}

impl Plain {
    fn new(bytes: &[u8], metadata: &Metadata, without_roundings: bool, options: &LoadOptions) -> Result<Plain, ModelError> {
        let failed = ModelError::engine(EVALUATE);
        let mut model = load::plain(bytes, metadata, options)?;
        if without_roundings {
            fuse::without_roundings(&mut model).map_err(&failed)?;
        }
        lower_products(&mut model).map_err(&failed)?;
        let state = metadata.state.as_ref().map(|state| TractTensor::zero::<f32>(&state.shape)).transpose().map_err(&failed)?;
        Ok(Plain { plan: TypedSimplePlan::new(model).map_err(&failed)?, size: metadata.input_size, state })
    }

    /// Back to the first frame.
    fn reset(&mut self) {
        if let Some(state) = &mut self.state {
            *state = TractTensor::zero::<f32>(state.shape()).expect("there is one of this shape already");
        }
    }

    /// Class logits and masks.
    fn run(&mut self, input: &Tensor) -> Result<[Vec<f32>; 2], ModelError> {
        let failed = ModelError::engine(EVALUATE);
        let tensor = TractTensor::from_shape(&[1, 3, self.size.0, self.size.1], &input.values).map_err(&failed)?;
        let inputs = [Some(tensor), self.state.clone()].into_iter().flatten().map(IntoTValue::into_tvalue).collect();
        let outputs = self.plan.run(inputs).map_err(&failed)?;
        if let Some(state) = &mut self.state {
            *state = outputs[STATE].clone().into_tensor();
        }
        let values = |index: usize| outputs[index].try_as_plain_ram().and_then(|plain| Ok(plain.as_slice::<f32>()?.to_vec()));
        Ok([values(0).map_err(&failed)?, values(1).map_err(&failed)?])
    }
}

const EVALUATE: &str = "evaluate without rewriting";

fn differences(ours: &[Vec<f32>; 2], plain: &[Vec<f32>; 2]) -> Result<[f64; 2], ModelError> {
    Ok([difference(OUTPUTS[0], &ours[0], &plain[0])?, difference(OUTPUTS[1], &ours[1], &plain[1])?])
}

/// Mean difference over mean magnitude.
fn difference(output: &'static str, ours: &[f32], plain: &[f32]) -> Result<f64, ModelError> {
    if ours.len() != plain.len() || ours.iter().chain(plain).any(|value| !value.is_finite()) {
        return Err(ModelError::NotNumbers { output });
    }
    let sum = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value.abs())).sum::<f64>();
    let magnitude = sum(&mut plain.iter().copied());
    let difference = sum(&mut ours.iter().zip(plain).map(|(a, b)| a - b));
    Ok(if difference == 0.0 { 0.0 } else { difference / magnitude })
}

/// Products of f32 become tract's matrix products; everything else stays as it was read.
fn lower_products(model: &mut TypedModel) -> TractResult<()> {
    type Patch = TractResult<Option<TypedModelPatch>>;
    let product = |_: &(), model: &TypedModel, node: &TypedNode, _: &str, op: &EinSum| -> Patch {
        if op.q_params.is_some() { Ok(None) } else { op.codegen(model, node) }
    };
    let matrices = |_: &(), model: &TypedModel, node: &TypedNode, _: &str, op: &EinSumMatMul| -> Patch { op.codegen(model, node) };
    Rewriter::default().with_rule_for("product", product).with_rule_for("matrices", matrices).rewrite(&(), model)
}

/// Values of one input: normalized pixel values lie between about -2 and 2.6.
fn filled(height: usize, width: usize, value: impl Fn(usize, usize, usize) -> f32) -> Tensor {
    let mut tensor = Tensor::zeros(height, width);
    for (index, to) in tensor.values.iter_mut().enumerate() {
        *to = value(index / (height * width), index / width % height, index % width);
    }
    tensor
}

/// Every pixel for itself.
fn noise((height, width): (usize, usize)) -> Tensor {
    filled(height, width, |channel, y, x| {
        // a hash of the position (the finalizer of MurmurHash3)
        let mut bits = ((channel * height + y) * width + x) as u32;
        for (shift, factor) in [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)] {
            bits = (bits ^ (bits >> shift)).wrapping_mul(factor);
        }
        (bits >> 8) as f32 / (1 << 24) as f32 * 4.6 - 2.0
    })
}

/// A slope with a chequerboard over it.
fn shapes((height, width): (usize, usize)) -> Tensor {
    filled(height, width, |channel, y, x| {
        let board = if (x * 5 / width + y * 5 / height) % 2 == 0 { 0.6 } else { -0.6 };
        board + [2.0, -1.5, 1.0][channel] * (x as f32 / width as f32 - 0.5) + y as f32 / height as f32 - 0.5
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative() {
        assert_eq!(difference("masks", &[1.0, -3.0], &[2.0, -2.0]).expect("numbers"), 0.5);
        assert_eq!(difference("masks", &[0.0], &[0.0]).expect("numbers"), 0.0);
        assert!(difference("masks", &[1.0], &[0.0]).expect("numbers") > ALLOWED_ROUNDING);
        assert!(difference("masks", &[f32::NAN], &[1.0]).expect_err("refused").to_string().contains("masks"));
    }

    #[test]
    fn inputs_look_like_pixels() {
        for input in [noise((24, 40)), shapes((24, 40))] {
            assert!(input.values.iter().all(|value| (-2.7..=2.7).contains(value)));
            let mean = input.values.iter().sum::<f32>() / input.values.len() as f32;
            assert!(input.values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / input.values.len() as f32 > 0.2);
        }
    }
}
