//! Whether all operators are the ONNX standard's.

use std::collections::BTreeMap;

use tract_onnx::pb::{GraphProto, ModelProto};

use crate::model::ModelError;

/// Operators that ONNX Runtime keeps in its own domain below opset 21 and that mean what the standard's later do.
const SAME_AS_STANDARD: [&str; 2] = ["QuantizeLinear", "DequantizeLinear"];
/// Element types that have no arithmetic here: 8-bit floats and what packs several values into a byte (onnx.proto,
/// `TensorProto.DataType`).
const ELEMENT_TYPES: [(i32, &str); 10] = [
    (14, "complex64"),
    (15, "complex128"),
    (17, "float8e4m3fn"),
    (18, "float8e4m3fnuz"),
    (19, "float8e5m2"),
    (20, "float8e5m2fnuz"),
    (21, "uint4"),
    (22, "int4"),
    (23, "float4e2m1"),
    (24, "float8e8m0"),
];

/// # Errors
/// One sentence with the operators of other domains, how many there are of each, and what to do.
pub fn check(proto: &ModelProto) -> Result<(), ModelError> {
    let Some(graph) = &proto.graph else { return Ok(()) };
    let unsupported = |reason: String| Err(ModelError::Unsupported { reason });
    for tensor in &graph.initializer {
        if let Some((_, name)) = ELEMENT_TYPES.iter().find(|(code, _)| *code == tensor.data_type) {
            return unsupported(format!("the tensor '{}' is {name}; export the network in float32 or quantize it to int8", tensor.name));
        }
    }
    let mut others: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for node in &graph.node {
        let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
        if !standard && !SAME_AS_STANDARD.contains(&node.op_type.as_str()) {
            *others.entry(&node.domain).or_default().entry(&node.op_type).or_default() += 1;
        }
    }
    let Some((domain, operators)) = others.iter().next() else { return qlinear(graph) };
    let listed: Vec<String> = operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let listed = listed.join(", ");
    let quantized = operators.keys().any(|name| name.starts_with('Q') || name.contains("Quantize") || name.contains("NBits"));
    unsupported(match () {
        () if domain.starts_with("com.m") && quantized => format!(
            "it holds operators that only ONNX Runtime has ({domain}: {listed}); quantize the float file with \
             quant_format=QuantFormat.QDQ or with quantize_dynamic, and do not save an optimized copy"
        ),
        () if domain.starts_with("com.m") => format!(
            "it was optimized for ONNX Runtime and holds operators that only ONNX Runtime has ({domain}: {listed}); give the file from \
             before that, or save it with graph_optimization_level = ORT_ENABLE_BASIC"
        ),
        () => format!("it holds operators outside of the ONNX standard ({domain}: {listed}); export it with standard operators only"),
    })
}

/// The older form of static quantization, of which one operator is read.
fn qlinear(graph: &GraphProto) -> Result<(), ModelError> {
    let Some(node) = graph.node.iter().find(|node| node.op_type.starts_with("QLinear") && node.op_type != "QLinearMatMul") else {
        return Ok(());
    };
    let name = if node.name.is_empty() { node.output.first().unwrap_or(&node.op_type) } else { &node.name };
    Err(ModelError::Unsupported {
        reason: format!(
            "the node '{name}' is a {}, the older form of static quantization; quantize with quant_format=QuantFormat.QDQ",
            node.op_type
        ),
    })
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::NodeProto;

    use super::*;

    fn sentence(domain: &str, operators: &[&str]) -> Option<String> {
        let node = |name: &&str| NodeProto { op_type: (*name).to_owned(), domain: domain.to_owned(), ..NodeProto::default() };
        let graph = GraphProto { node: operators.iter().map(node).collect(), ..GraphProto::default() };
        check(&ModelProto { graph: Some(graph), ..ModelProto::default() }).err().map(|error| error.to_string())
    }

    #[test]
    fn each_kind_is_told_what_to_do() {
        assert_eq!(sentence("", &["MatMul", "Attention"]), None);
        assert_eq!(sentence("com.microsoft", &["QuantizeLinear", "DequantizeLinear"]), None);
        let fused = sentence("com.microsoft", &["BiasGelu", "FusedMatMul", "BiasGelu"]).expect("refused");
        assert!(fused.contains("BiasGelu 2, FusedMatMul 1") && fused.contains("ORT_ENABLE_BASIC"), "{fused}");
        let quantized = sentence("com.microsoft", &["QAttention"]).expect("refused");
        assert!(quantized.contains("QuantFormat.QDQ"), "{quantized}");
        assert!(sentence("com.microsoft.nchwc", &["Conv"]).expect("refused").contains("com.microsoft.nchwc: Conv 1"));
        assert!(sentence("org.example", &["MatMul"]).expect("refused").contains("org.example"));
        assert!(sentence("", &["QLinearConv"]).expect("refused").contains("QLinearConv"));
    }
}
