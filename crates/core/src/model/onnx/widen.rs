//! float16 and bfloat16 to f32: every tensor of the graph, and every operator that names a type.
//!
//! Exact: each value of either type is one of f32. What the file would round on the way is not rounded.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, TensorProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::f16;

use crate::model::ModelError;

const FLOAT: i32 = DataType::Float as i32;
const FLOAT16: i32 = DataType::Float16 as i32;
/// Not in tract's copy of the enumeration.
const BFLOAT16: i32 = 16;

/// Attributes that name an element type.
const TYPE_ATTRIBUTES: [&str; 4] = ["to", "dtype", "output_dtype", "stash_type"];

fn is_half(data_type: i32) -> bool {
    matches!(data_type, FLOAT16 | BFLOAT16)
}

/// Widens everything; returns how many tensors were.
///
/// # Errors
/// When a tensor has not as many values as its shape.
pub fn widen(graph: &mut GraphProto) -> Result<usize, ModelError> {
    let mut count = 0;
    for tensor in &mut graph.initializer {
        count += usize::from(widen_tensor(tensor)?);
    }
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            if let Some(tensor) = &mut attribute.t {
                count += usize::from(widen_tensor(tensor)?);
            }
            if TYPE_ATTRIBUTES.contains(&attribute.name.as_str()) && is_half(attribute.i as i32) {
                attribute.i = FLOAT.into();
            }
            if let Some(inner) = &mut attribute.g {
                count += widen(inner)?;
            }
        }
    }
    let declared = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    declared.for_each(widen_declaration);
    Ok(count)
}

fn widen_declaration(info: &mut ValueInfoProto) {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|r#type| r#type.value.as_mut()) else { return };
    if is_half(tensor.elem_type) {
        tensor.elem_type = FLOAT;
    }
}

fn widen_tensor(tensor: &mut TensorProto) -> Result<bool, ModelError> {
    if !is_half(tensor.data_type) {
        return Ok(false);
    }
    let refused = |reason: &str| ModelError::Unsupported { reason: format!("the tensor '{}' {reason}", tensor.name) };
    let bits: Vec<u16> =
        if tensor.raw_data.is_empty() { tensor.int32_data.iter().map(|&bits| bits as u16).collect() } else { pairs(&tensor.raw_data) };
    let expected: i64 = tensor.dims.iter().product();
    if bits.len() as i64 != expected {
        return Err(refused(&format!("has {} values and a shape for {expected}", bits.len())));
    }
    let value = |bits: u16| match tensor.data_type {
        FLOAT16 => f16::from_bits(bits).to_f32(),
        _ => f32::from_bits(u32::from(bits) << 16),
    };
    tensor.raw_data = bits.into_iter().flat_map(|bits| value(bits).to_le_bytes()).collect();
    tensor.int32_data.clear();
    tensor.data_type = FLOAT;
    Ok(true)
}

fn pairs(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_become_the_same_numbers() {
        // 1, -2, the smallest positive value, infinity, as IEEE 754 binary16 and as the upper halves of binary32
        let cases = [
            (FLOAT16, [0x3c00u16, 0xc000, 0x0001, 0x7c00], 2f32.powi(-24)),
            (BFLOAT16, [0x3f80, 0xc000, 0x0001, 0x7f80], f32::from_bits(1 << 16)),
        ];
        for (data_type, bits, smallest) in cases {
            let raw = TensorProto {
                data_type,
                dims: vec![4],
                raw_data: bits.iter().flat_map(|bits| bits.to_le_bytes()).collect(),
                ..TensorProto::default()
            };
            let listed = TensorProto { raw_data: Vec::new(), int32_data: bits.iter().map(|&bits| bits.into()).collect(), ..raw.clone() };
            for mut tensor in [raw, listed] {
                assert!(widen_tensor(&mut tensor).expect("readable"));
                let values: Vec<f32> = tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                assert_eq!(values, [1.0, -2.0, smallest, f32::INFINITY]);
                assert_eq!((tensor.data_type, tensor.int32_data.len()), (FLOAT, 0));
            }
        }
    }

    #[test]
    fn a_tensor_with_too_few_values_is_named() {
        let mut tensor =
            TensorProto { name: "weights".to_owned(), data_type: FLOAT16, dims: vec![2], raw_data: vec![0, 0], ..TensorProto::default() };
        let sentence = widen_tensor(&mut tensor).expect_err("refused").to_string();
        assert!(sentence.contains("'weights' has 1 values and a shape for 2"), "{sentence}");
    }
}
