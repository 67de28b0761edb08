//! Whether each tensor of a file has as many bytes as its shape says: tract's reader trusts it.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, TensorProto};

use crate::model::{ModelError, bounds};

/// # Errors
/// [`ModelError::Unsupported`] with the tensor by name, of `graph` or of the graphs in it.
pub fn check(graph: &GraphProto) -> Result<(), ModelError> {
    let mut tensors: Vec<&TensorProto> = graph.initializer.iter().collect();
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        tensors.extend(attribute.t.iter().chain(&attribute.tensors));
        attribute.g.iter().chain(&attribute.graphs).try_for_each(check)?;
    }
    for tensor in tensors {
        let name = bounds::short(&tensor.name);
        check_tensor(tensor).map_err(|reason| ModelError::Unsupported { reason: format!("the tensor '{name}' {reason}") })?;
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let expected = bounds::values(&tensor.dims)?;
    let found = if tensor.raw_data.is_empty() {
        listed(tensor)
    } else {
        let Some(size) = size(tensor.data_type) else { return Ok(()) }; // the parser refuses the type by name
        if !tensor.raw_data.len().is_multiple_of(size) {
            return Err(format!("has {} bytes, of which each value takes {size}", tensor.raw_data.len()));
        }
        Some(tensor.raw_data.len() / size)
    };
    match found {
        Some(found) if found != expected => Err(format!("has {found} values and a shape for {expected}, {:?}", tensor.dims)),
        _ => Ok(()),
    }
}

/// Bytes of a value in `raw_data`; `None`: less than one, or of a type that is not read here.
fn size(data_type: i32) -> Option<usize> {
    match data_type {
        2 | 3 | 9 => Some(1),
        4 | 5 | 10 | 16 => Some(2),
        1 | 6 | 12 => Some(4),
        7 | 11 | 13 => Some(8),
        _ => None,
    }
}

/// Number of values in the list that belongs to the type (onnx.proto, TensorProto).
fn listed(tensor: &TensorProto) -> Option<usize> {
    Some(match DataType::try_from(tensor.data_type).ok() {
        Some(DataType::Float) => tensor.float_data.len(),
        Some(DataType::Int64) => tensor.int64_data.len(),
        Some(DataType::Double) => tensor.double_data.len(),
        Some(DataType::Uint32 | DataType::Uint64) => tensor.uint64_data.len(),
        Some(DataType::String) => tensor.string_data.len(),
        Some(DataType::Undefined | DataType::Complex64 | DataType::Complex128) => return None,
        _ if matches!(tensor.data_type, 2..=6 | 9 | 10 | 16) => tensor.int32_data.len(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, NodeProto};

    use super::*;

    fn tensor(data_type: i32, dims: &[i64], bytes: usize) -> TensorProto {
        TensorProto { name: "w".to_owned(), data_type, dims: dims.to_vec(), raw_data: vec![0; bytes], ..TensorProto::default() }
    }

    #[test]
    fn bytes_and_shape_belong_together() {
        for fine in [tensor(1, &[2, 3], 24), tensor(7, &[], 8), tensor(1, &[0, 4], 0), tensor(10, &[3], 6)] {
            assert_eq!(check_tensor(&fine), Ok(()), "{fine:?}");
        }
        let listed = TensorProto { float_data: vec![0.0; 6], ..tensor(1, &[2, 3], 0) };
        assert_eq!(check_tensor(&listed), Ok(()));
        for (wrong, reason) in [
            (tensor(1, &[2, 3], 20), "has 5 values and a shape for 6"),
            (tensor(1, &[2, 3], 23), "has 23 bytes"),
            (tensor(1, &[2, 3], 0), "has 0 values"),
            (tensor(1, &[-2, 3], 24), "has the shape [-2, 3]"),
            (tensor(1, &[1 << 40, 1 << 40], 24), "has the shape"),
            (TensorProto { dims: vec![7], ..listed }, "has 6 values and a shape for 7"),
        ] {
            let sentence = check_tensor(&wrong).expect_err("refused");
            assert!(sentence.contains(reason), "{sentence}");
        }
    }

    #[test]
    fn tensors_in_attributes_and_inner_graphs_count() {
        let wrong = || tensor(1, &[2], 4);
        let inner = GraphProto { initializer: vec![wrong()], ..GraphProto::default() };
        for attribute in [
            AttributeProto { t: Some(wrong()), ..AttributeProto::default() },
            AttributeProto { tensors: vec![wrong()], ..AttributeProto::default() },
            AttributeProto { g: Some(inner.clone()), ..AttributeProto::default() },
            AttributeProto { graphs: vec![inner.clone()], ..AttributeProto::default() },
        ] {
            let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
            let sentence = check(&GraphProto { node: vec![node], ..GraphProto::default() }).expect_err("refused").to_string();
            assert!(sentence.contains("'w' has 1 values"), "{sentence}");
        }
    }
}
