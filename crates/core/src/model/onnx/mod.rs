//! ONNX as other programs write it, where tract's reader would misread it, answer wrongly or be slow.
//!
//! ```text
//! file ─▶ domains (refuses operators of one engine only) ─▶ external (brings in weights of a second file) ─▶ tensors (each has as many
//! bytes as its shape says) ─▶ widen (half precision to f32) ─▶ tract's parser with our own readers of Attention, QuantizeLinear, DequantizeLinear, QLinearMatMul
//! ```
//!
//! tract looks operators up by their name alone, so an operator of another domain would be taken for the standard's of the same name.
//!
//! Refuses: operators of other domains, element types without arithmetic here, scales that the network computes while it quantizes.

mod attention;
mod domains;
mod external;
mod quantize;
mod tensors;
mod widen;

pub use external::ExternalData;
pub use quantize::Rounding;

use tract_onnx::Onnx;
use tract_onnx::pb::ModelProto;

use super::ModelError;

/// What was done to a file before it was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prepared {
    /// Tensors of float16 or bfloat16 that are f32 now.
    pub widened: usize,
}

/// Makes `proto` readable, or says why that fails. `data` reads tensors outside of the file.
///
/// # Errors
/// [`ModelError::Unsupported`] with the operators or the tensor by name.
pub fn prepare(proto: &mut ModelProto, data: Option<&dyn ExternalData>) -> Result<Prepared, ModelError> {
    domains::check(proto)?;
    let widened = match &mut proto.graph {
        Some(graph) => {
            external::bring_in(graph, data)?;
            tensors::check(graph)?;
            widen::widen(graph)?
        }
        None => 0,
    };
    Ok(Prepared { widened })
}

/// tract's parser with our readers.
pub fn parser() -> Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_output_types(true).with_ignore_value_info(true);
    onnx.op_register.insert("Attention", attention::attention);
    onnx.op_register.insert("QuantizeLinear", quantize::quantize_linear);
    onnx.op_register.insert("DequantizeLinear", quantize::dequantize_linear);
    onnx.op_register.insert("QLinearMatMul", quantize::qlinear_matmul);
    onnx
}
