//! Small constants of an ONNX graph, as numbers: initializers, and what exporters compute from them without changing a value.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

/// More than any statistic of three channels has; what is larger is no business of ours.
const VALUES_MAX: usize = 64;
/// Nodes between an initializer and its use.
const STEPS_MAX: usize = 16;

pub struct Constants<'a> {
    tensors: HashMap<&'a str, &'a TensorProto>,
    producers: HashMap<&'a str, &'a NodeProto>,
}

impl<'a> Constants<'a> {
    pub fn of(graph: &'a GraphProto) -> Constants<'a> {
        let tensors = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let outputs = |node: &'a NodeProto| node.output.iter().map(move |output| (output.as_str(), node));
        Constants { tensors, producers: graph.node.iter().flat_map(outputs).collect() }
    }

    /// One number for all channels, or one for each.
    pub fn channels(&self, name: &str) -> Option<[f64; 3]> {
        match self.tensor(name)?.1[..] {
            [one] => Some([one; 3]),
            [a, b, c] => Some([a, b, c]),
            _ => None,
        }
    }

    /// Shape and values. Behind reshapes the shape is the initializer's.
    pub fn tensor(&self, name: &str) -> Option<(Vec<i64>, Vec<f64>)> {
        let (mut name, mut reciprocal) = (name.to_owned(), false);
        for _ in 0..STEPS_MAX {
            let found = match self.tensors.get(name.as_str()) {
                Some(tensor) => Some(numbers(tensor)?),
                None => {
                    let node = self.producers.get(name.as_str())?;
                    match node.op_type.as_str() {
                        "Constant" => Some(of_attribute(node)?),
                        "Identity" | "Cast" | "CastLike" | "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten" => None,
                        "Reciprocal" => {
                            reciprocal = !reciprocal;
                            None
                        }
                        _ => return None,
                    }
                }
            };
            match found {
                Some((dims, values)) => {
                    return Some((dims, if reciprocal { values.into_iter().map(f64::recip).collect() } else { values }));
                }
                None => name = self.producers.get(name.as_str())?.input.first()?.clone(),
            }
        }
        None
    }
}

fn of_attribute(node: &NodeProto) -> Option<(Vec<i64>, Vec<f64>)> {
    let attribute = node.attribute.first()?;
    match attribute.name.as_str() {
        "value" => numbers(attribute.t.as_ref()?),
        "value_float" => Some((vec![], vec![f64::from(attribute.f)])),
        "value_int" => Some((vec![], vec![attribute.i as f64])),
        "value_floats" => {
            Some((vec![attribute.floats.len() as i64], attribute.floats.iter().take(VALUES_MAX).map(|f| f64::from(*f)).collect()))
        }
        _ => None,
    }
}

/// The values of a small tensor inside of the file.
fn numbers(tensor: &TensorProto) -> Option<(Vec<i64>, Vec<f64>)> {
    let count = tensor.dims.iter().try_fold(1usize, |product, dim| product.checked_mul(usize::try_from(*dim).ok()?))?;
    if count > VALUES_MAX || tensor.data_location == Some(DataLocation::External as i32) {
        return None;
    }
    let raw = &tensor.raw_data;
    let values: Vec<f64> = match DataType::try_from(tensor.data_type).ok()? {
        DataType::Float if raw.is_empty() => tensor.float_data.iter().map(|value| f64::from(*value)).collect(),
        DataType::Float => raw.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        DataType::Double if raw.is_empty() => tensor.double_data.clone(),
        DataType::Double => raw.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        DataType::Float16 if raw.is_empty() => tensor.int32_data.iter().map(|bits| half(*bits as u16)).collect(),
        DataType::Float16 => raw.as_chunks().0.iter().map(|bytes| half(u16::from_le_bytes(*bytes))).collect(),
        DataType::Bfloat16 if raw.is_empty() => tensor.int32_data.iter().map(|bits| bfloat(*bits as u16)).collect(),
        DataType::Bfloat16 => raw.as_chunks().0.iter().map(|bytes| bfloat(u16::from_le_bytes(*bytes))).collect(),
        DataType::Uint8 if raw.is_empty() => tensor.int32_data.iter().map(|value| f64::from(*value)).collect(),
        DataType::Uint8 => raw.iter().map(|byte| f64::from(*byte)).collect(),
        DataType::Int32 if raw.is_empty() => tensor.int32_data.iter().map(|value| f64::from(*value)).collect(),
        DataType::Int32 => raw.as_chunks().0.iter().map(|bytes| f64::from(i32::from_le_bytes(*bytes))).collect(),
        DataType::Int64 if raw.is_empty() => tensor.int64_data.iter().map(|value| *value as f64).collect(),
        DataType::Int64 => raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f64).collect(),
        _ => return None,
    };
    (values.len() == count).then(|| (tensor.dims.clone(), values))
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
    let size = match exponent {
        0 => fraction * 2f64.powi(-14),
        31 => f64::NAN, // neither infinity nor NaN normalizes
        _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// The upper half of a binary32.
fn bfloat(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}
