//! Rewrites of the decluttered graph before tract optimizes it.
//!
//! [`MaskProduct`] cuts the final product of query embeddings and pixel features out of the plan, so that only the masks of
//! surviving queries are computed. [`rewrite`] is the place of the rules that put the operators of [`super::ops`] into the plan.
//! A rule that does not fire says why at log level `debug`.

mod mask_product;

pub use mask_product::MaskProduct;

use tract_onnx::prelude::{TractResult, TypedModel};

/// Applies all fusion rules. There are none yet: the plan is stock tract.
pub fn rewrite(_model: &mut TypedModel) -> TractResult<()> {
    Ok(())
}
