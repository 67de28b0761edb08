//! The dynamic int8 form of ONNX Runtime's quantizer (`quantize_dynamic`), as far as several rules read it.

use tract_onnx::prelude::{OutletId, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::AxisOp;

use super::view::{binary, konst_floats, only_successor, split_inputs};

/// tract's name of ONNX's DynamicQuantizeLinear.
pub(super) const DYNAMIC_QUANTIZE: &str = "DynamicQuantizeLinearU8";

/// The node that multiplies the cast product by `quantize`'s scale times constants, and the constants.
pub(super) fn rescaled(model: &TypedModel, cast: &TypedNode, quantize: &TypedNode) -> Option<(usize, Vec<f32>)> {
    let product = only_successor(model, cast).filter(|next| binary(model, next.id, "Mul").is_some())?;
    let (_, scale) = split_inputs(product, |input| input.node == cast.id)?;
    let behind = |outlet: OutletId| {
        let mut outlet = outlet;
        while model.node(outlet.node).op_is::<AxisOp>() {
            outlet = model.node(outlet.node).inputs[0];
        }
        outlet
    };
    let scale = binary(model, behind(scale).node, "Mul")?;
    let (_, constants) = split_inputs(scale, |input| behind(input) == OutletId::new(quantize.id, 1))?;
    Some((product.id, konst_floats(model, constants)?))
}
