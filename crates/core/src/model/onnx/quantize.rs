//! Static quantization: QuantizeLinear and DequantizeLinear (ONNX operators, opset 10 to 25), computed as the standard says.
//!
//! Quantized values stay in f32 here, where every integer of up to 24 bits is exact, so that what lies between the two (transposes,
//! concatenations) needs no second form. tract 0.23.9 makes a lookup table of `DequantizeLinear -> f -> QuantizeLinear` whatever f is,
//! a softmax included, and multiplies by the inverse scale where the standard divides; an operator of ours it leaves alone.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `clamp(round(x / scale) + zero, low, high)`, halves to even.
    Quantize,
    /// `(x - zero) * scale`.
    Dequantize,
}

/// One of the two operators with constant scales: f32 (or integers) of any shape in, f32 of the same shape out.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounding {
    pub direction: Direction,
    /// One, or one for each index along `axis`.
    pub scale: Arc<Vec<f32>>,
    /// As many as scales.
    pub zero: Arc<Vec<f32>>,
    /// The integer type's limits.
    pub low: f32,
    pub high: f32,
    pub axis: usize,
}

// scales that are not numbers are refused when the file is read
impl Eq for Rounding {}

impl Rounding {
    /// Whether `self` undoes `other` but for the rounding.
    pub fn is_inverse_of(&self, other: &Rounding) -> bool {
        let same = self.scale == other.scale && self.zero == other.zero && (self.scale.len() == 1 || self.axis == other.axis);
        self.direction == Direction::Dequantize && other.direction == Direction::Quantize && same
    }

    /// Whether the integers have 8 bits.
    pub fn is_int8(&self) -> bool {
        self.high - self.low <= 255.0
    }

    /// The values of a constant.
    pub fn of(&self, constant: Arc<Tensor>) -> TractResult<Arc<Tensor>> {
        Ok(self.eval(&EvalContext::out_of_plan(), tvec![constant.into_tvalue()])?.remove(0).into_arc_tensor())
    }

    fn apply(&self, values: &mut [f32], scale: f32, zero: f32) {
        match self.direction {
            Direction::Quantize => {
                values.iter_mut().for_each(|x| *x = ((*x / scale).round_ties_even() + zero).clamp(self.low, self.high));
            }
            Direction::Dequantize => values.iter_mut().for_each(|x| *x = (*x - zero) * scale),
        }
    }
}

impl Op for Rounding {
    fn name(&self) -> StaticName {
        match self.direction {
            Direction::Quantize => "Quantize".into(),
            Direction::Dequantize => "Dequantize".into(),
        }
    }

    op_as_typed_op!();
}

impl EvalOp for Rounding {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = inputs[0].cast_to::<f32>()?.into_owned();
        let inner: usize = output.shape().iter().skip(self.axis + 1).product();
        let mut plain = output.try_as_plain_ram_mut()?;
        let values = plain.as_slice_mut::<f32>()?;
        if self.scale.len() == 1 {
            self.apply(values, self.scale[0], self.zero[0]);
        } else {
            for (index, values) in values.chunks_exact_mut(inner.max(1)).enumerate() {
                let index = index % self.scale.len();
                self.apply(values, self.scale[index], self.zero[index]);
            }
        }
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for Rounding {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![f32::fact(inputs[0].shape.clone())])
    }

    as_op!();
}

/// Either operator as the file has it.
#[derive(Debug, Clone)]
struct Linear {
    direction: Direction,
    axis: i64,
    /// Of the quantized values where no zero point says it.
    output_type: Option<DatumType>,
}

pub(super) fn quantize_linear(_: &ParsingContext, node: &NodeProto) -> Built {
    linear(node, Direction::Quantize)
}

pub(super) fn dequantize_linear(_: &ParsingContext, node: &NodeProto) -> Built {
    linear(node, Direction::Dequantize)
}

fn linear(node: &NodeProto, direction: Direction) -> Built {
    ensure!(node.get_attr_opt::<i64>("block_size")?.unwrap_or(0) == 0, "blocked quantization is not supported");
    let output_type = match (direction, node.get_attr_opt::<i64>("output_dtype")?.unwrap_or(0)) {
        (Direction::Dequantize, _) | (_, 0) => None,
        (_, 2) => Some(DatumType::U8),
        (_, 3) => Some(DatumType::I8),
        (_, 4) => Some(DatumType::U16),
        (_, 5) => Some(DatumType::I16),
        (_, other) => bail!("quantization to the element type {other} is not supported"),
    };
    Ok((expand(Linear { direction, axis: node.get_attr_opt("axis")?.unwrap_or(1), output_type }), vec![]))
}

impl Expansion for Linear {
    fn name(&self) -> StaticName {
        "QuantizeOrDequantizeLinear".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(matches!(inputs.len(), 2 | 3), "it takes 2 or 3 inputs, not {}", inputs.len());
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    // tract would fold weights while it reads the file, and the integers would be lost
    fn runs_out_of_plan(&self) -> bool {
        false
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let known = |outlet: &OutletId| Ok::<_, TractError>(model.outlet_fact(*outlet)?.konst.clone());
        let scale = known(&inputs[1])?;
        let zero = inputs.get(2).map(known).transpose()?;
        match (scale, zero) {
            (Some(scale), None) => rounding(self, prefix, model, inputs[0], &scale, None),
            (Some(scale), Some(Some(zero))) => rounding(self, prefix, model, inputs[0], &scale, Some(&zero)),
            _ if self.direction == Direction::Dequantize => computed(prefix, model, inputs),
            _ => bail!("the network computes the scale of this quantization; only constants are supported"),
        }
    }
}

fn rounding(
    op: &Linear,
    prefix: &str,
    model: &mut TypedModel,
    x: OutletId,
    scale: &Tensor,
    zero: Option<&Tensor>,
) -> TractResult<TVec<OutletId>> {
    let op = parameters(op.direction, op.axis, model.outlet_fact(x)?.rank(), scale, zero, op.output_type)?;
    model.wire_node(prefix, op, &[x])
}

fn parameters(
    direction: Direction,
    axis: i64,
    rank: usize,
    scale: &Tensor,
    zero: Option<&Tensor>,
    output_type: Option<DatumType>,
) -> TractResult<Rounding> {
    let floats =
        |tensor: &Tensor| -> TractResult<Vec<f32>> { Ok(tensor.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()) };
    let scale_values = floats(scale)?;
    let zero_values = zero.map_or_else(|| Ok(vec![0.0; scale_values.len()]), floats)?;
    ensure!(scale.rank() <= 1 && scale_values.len() == zero_values.len(), "{} scales and {} zero points", scale.len(), zero_values.len());
    ensure!(scale_values.iter().all(|scale| scale.is_finite() && *scale > 0.0), "a scale is not a positive number");
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    ensure!(scale_values.len() == 1 || (0..rank as i64).contains(&axis), "the axis {axis} of the scales is not one of {rank}");
    let (low, high) = match zero.map(Tensor::datum_type).or(output_type).unwrap_or(DatumType::U8) {
        _ if direction == Direction::Dequantize => (f32::NEG_INFINITY, f32::INFINITY),
        DatumType::U8 => (0.0, 255.0),
        DatumType::I8 => (-128.0, 127.0),
        DatumType::U16 => (0.0, 65535.0),
        DatumType::I16 => (-32768.0, 32767.0),
        other => bail!("quantization to {other:?} is not supported"),
    };
    Ok(Rounding { direction, scale: Arc::new(scale_values), zero: Arc::new(zero_values), low, high, axis: axis.max(0) as usize })
}

/// DequantizeLinear by a scale that the network computes, as after DynamicQuantizeLinear.
fn computed(prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
    let float = |model: &mut TypedModel, what: &str, outlet: OutletId| -> TractResult<OutletId> {
        Ok(model.wire_node(format!("{prefix}.{what}"), cast(f32::datum_type()), &[outlet])?[0])
    };
    ensure!(model.outlet_fact(inputs[1])?.shape.volume().is_one(), "a computed scale for each channel is not supported");
    let mut x = float(model, "x", inputs[0])?;
    if let Some(zero) = inputs.get(2) {
        let zero = float(model, "zero", *zero)?;
        x = wire_with_rank_broadcast(format!("{prefix}.centred"), model, math::sub(), &[x, zero])?[0];
    }
    wire_with_rank_broadcast(prefix, model, math::mul(), &[x, inputs[1]])
}

/// QLinearMatMul: the product of two dequantized matrices, quantized.
#[derive(Debug, Clone)]
struct QLinearMatMul;

pub(super) fn qlinear_matmul(_: &ParsingContext, _: &NodeProto) -> Built {
    Ok((expand(QLinearMatMul), vec![]))
}

impl Expansion for QLinearMatMul {
    fn name(&self) -> StaticName {
        "QLinearMatMul".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 8)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.given_2(&inputs[0].shape, &inputs[3].shape, move |solver, a, b| {
            let (rank_a, rank_b) = (a.len(), b.len());
            ensure!(rank_a >= 2 && rank_b >= 2, "QLinearMatMul of vectors is not supported");
            let (lead_a, lead_b) = (&a[..rank_a - 2], &b[..rank_b - 2]);
            let mut shape = tract_core::broadcast::multi_broadcast(&[lead_a, lead_b])?;
            shape.extend([a[rank_a - 2].clone(), b[rank_b - 1].clone()]);
            solver.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let constant = |model: &TypedModel, slot: usize| model.outlet_fact(inputs[slot])?.konst.clone().context("scales are constants");
        let mut factors = tvec![];
        for (slot, axis) in [(0, -2), (3, -1)] {
            let (scale, zero) = (constant(model, slot + 1)?, constant(model, slot + 2)?);
            let rank = model.outlet_fact(inputs[slot])?.rank();
            let op = parameters(Direction::Dequantize, axis, rank, &scale, Some(&zero), None)?;
            factors.push(model.wire_node(format!("{prefix}.{slot}"), op, &[inputs[slot]])?[0]);
        }
        let rank =
            factors.iter().map(|f| Ok(model.outlet_fact(*f)?.rank())).collect::<TractResult<TVec<usize>>>()?.into_iter().max().unwrap_or(2);
        for (index, factor) in factors.iter_mut().enumerate() {
            for step in model.outlet_fact(*factor)?.rank()..rank {
                *factor = model.wire_node(format!("{prefix}.{index}.rank.{step}"), AxisOp::Add(0), &[*factor])?[0];
            }
        }
        let batch: String = ('a'..='z').filter(|c| !"kmn".contains(*c)).take(rank - 2).collect();
        let axes: AxesMapping = format!("{batch}mk,{batch}kn->{batch}mn").parse()?;
        let product = model.wire_node(format!("{prefix}.product"), EinSum::new(axes, f32::datum_type()), &factors)?[0];
        let (scale, zero) = (constant(model, 6)?, constant(model, 7)?);
        let op = parameters(Direction::Quantize, -2, rank, &scale, Some(&zero), None)?;
        model.wire_node(prefix, op, &[product])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &Rounding, shape: &[usize], values: &[f32]) -> Vec<f32> {
        let input = Tensor::from_shape(shape, values).expect("fits");
        let output = op.eval(&EvalContext::out_of_plan(), tvec![input.into_tvalue()]).expect("runs");
        output[0].try_as_plain_ram().expect("plain").as_slice::<f32>().expect("f32").to_vec()
    }

    fn op(direction: Direction, scales: &[f32], zero: &Tensor, axis: i64) -> Rounding {
        parameters(direction, axis, 2, &tensor1(scales), Some(zero), None).expect("valid")
    }

    #[test]
    fn halves_go_to_even_and_limits_saturate() {
        let quantize = op(Direction::Quantize, &[0.5], &tensor1(&[3u8]), 1);
        // 0.25 / 0.5 and 0.75 / 0.5 are halves
        assert_eq!(run(&quantize, &[1, 5], &[0.25, 0.75, -0.25, -9.0, 900.0]), [3.0, 5.0, 3.0, 0.0, 255.0]);
        let signed = op(Direction::Quantize, &[1.0], &tensor1(&[0i16]), 1);
        assert_eq!(run(&signed, &[1, 2], &[-1e9, 1e9]), [-32768.0, 32767.0]);
    }

    #[test]
    fn each_index_of_the_axis_has_its_scale() {
        let zeros = tensor1(&[0i8, 1]);
        assert_eq!(
            run(&op(Direction::Dequantize, &[1.0, 10.0], &zeros, 0), &[2, 3], &[1.0, 2.0, 3.0, 1.0, 2.0, 3.0]),
            [1.0, 2.0, 3.0, 0.0, 10.0, 20.0]
        );
        assert_eq!(
            run(&op(Direction::Dequantize, &[1.0, 10.0], &zeros, -1), &[3, 2], &[1.0, 2.0, 3.0, 1.0, 2.0, 3.0]),
            [1.0, 10.0, 3.0, 0.0, 2.0, 20.0]
        );
    }

    #[test]
    fn only_the_same_scale_undoes_a_rounding() {
        let quantize = op(Direction::Quantize, &[0.5], &tensor1(&[3u8]), 1);
        assert!(op(Direction::Dequantize, &[0.5], &tensor1(&[3u8]), 1).is_inverse_of(&quantize));
        assert!(!op(Direction::Dequantize, &[0.25], &tensor1(&[3u8]), 1).is_inverse_of(&quantize));
        assert!(!quantize.is_inverse_of(&quantize));
    }
}
