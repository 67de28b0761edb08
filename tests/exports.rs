//! ONNX files as quantizers, exporters and optimizers leave them, against ONNX Runtime's answers on the same files.

mod common;

use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::model::{Companions, LoadOptions, Model, names};
use eomt_edge_host::model_file::{self, Compute};
use prost::Message;
use tract_onnx::pb::{ModelProto, NodeProto, TensorProto, type_proto};
use tract_onnx::prelude::f16;

use common::{Scratch, data, eomt_edge, floats, largest_difference};

const OUTPUTS: [&str; 2] = [names::CLASS_LOGITS, names::MASK_LOGITS];

fn open(file: &str) -> Model {
    model_file::load_checked(&data("foreign").join(file), &Compute::threads(1)).unwrap_or_else(|error| panic!("{error}"))
}

fn run(model: &mut Model, pixels: Vec<f32>) -> [Vec<f32>; 2] {
    let (height, width) = model.metadata().input_size;
    let mut logits = Logits::default();
    model.run(&Tensor { height, width, values: pixels }, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
    [logits.class.values, logits.masks]
}

fn relative_error(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).sum::<f32>() / theirs.iter().map(|b| b.abs()).sum::<f32>()
}

fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let dot = |x: &[f32], mx: f32, y: &[f32], my: f32| x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum::<f32>();
    dot(a, mean_a, b, mean_b) / (dot(a, mean_a, a, mean_a) * dot(b, mean_b, b, mean_b)).sqrt()
}

/// Every `NAME.onnx` of a directory beside the `NAME.safetensors` that ONNX Runtime answered: largest difference below `allowed`.
fn equal_onnx_runtime(directory: &str, allowed: f32) {
    let mut seen = 0;
    for entry in std::fs::read_dir(data("foreign").join(directory)).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        let answers = path.with_extension("safetensors");
        let mut model = open(&format!("{directory}/{}", path.file_name().expect("a name").to_string_lossy()));
        let ours = run(&mut model, floats(&answers, names::INPUT).1);
        for (name, ours) in OUTPUTS.into_iter().zip(ours) {
            let difference = largest_difference(&ours, &floats(&answers, name).1);
            assert!(difference < allowed, "{} {name}: {difference}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 8, "{directory} has only {seen} cases");
}

/// Softmax, Erf, Sigmoid and more between a DequantizeLinear and a QuantizeLinear; 8 and 16 bits; a scale for each channel; transposes
/// inside of a pair. A rounding that went the other way would differ by a whole step, of 1/65535 at least.
#[test]
fn quantized_graphs_equal_onnx_runtime() {
    equal_onnx_runtime("quantized", 1e-5);
}

/// Inputs of three and four axes, shared heads of keys, masks of booleans and of numbers, causal, scores as an output. Sums in another
/// order; seen: 5e-7.
#[test]
fn attention_of_opset_23_equals_onnx_runtime() {
    equal_onnx_runtime("attention", 1e-5);
}

#[test]
fn attention_of_opset_23_is_ours() {
    for case in ["flat", "groups", "heads", "causal", "seen", "added", "added-causal"] {
        let operators = open(&format!("attention/{case}.onnx")).operators();
        assert!(operators.iter().any(|(kind, _)| kind == "Attention"), "{case}: {operators:?}");
        assert!(!operators.iter().any(|(kind, _)| kind.contains("Softmax") || kind == "Sdpa"), "{case}: {operators:?}");
    }
    // whoever wants the scores gets them from a softmax of its own
    let operators = open("attention/probabilities.onnx").operators();
    assert!(operators.iter().any(|(kind, _)| kind.contains("Softmax")), "{operators:?}");
}

/// `quantize_static` with its defaults. ONNX Runtime's own answers are this far from the float file's: class 0.035, masks 0.072 (mean
/// error over mean magnitude; correlation 0.9993 and 0.997). Ours leave its roundings of activations out and are closer to the float
/// file: 0.019 and 0.038; from ONNX Runtime's they are 0.029 and 0.067.
#[test]
fn a_statically_quantized_network_is_right_and_fused() {
    let mut model = open("dinov2-static/model.onnx");
    assert_eq!(model.origin().roundings, 202);
    assert!(model.origin().int8, "the layers' weights stay integers");
    assert_eq!(model.unfused(), None);
    assert!(model.prunes_masks());
    let expected = data("reference/dinov2/expected.safetensors");
    let answers = data("foreign/dinov2-static/onnxruntime.safetensors");
    let ours = run(&mut model, floats(&expected, names::INPUT).1);
    for ((name, ours), allowed) in OUTPUTS.into_iter().zip(ours).zip([[0.035, 0.05], [0.072, 0.1]]) {
        let (float, theirs) = (floats(&expected, name).1, floats(&answers, name).1);
        assert!(relative_error(&ours, &float) < allowed[0], "{name}: {}", relative_error(&ours, &float));
        assert!(relative_error(&ours, &theirs) < allowed[1], "{name}: {}", relative_error(&ours, &theirs));
        assert!(correlation(&ours, &theirs) > 0.995, "{name}: {}", correlation(&ours, &theirs));
    }
}

fn torchscript() -> ModelProto {
    let bytes = std::fs::read(data("foreign/dinov2-torchscript/model.onnx")).expect("readable");
    ModelProto::decode(&bytes[..]).expect("an ONNX file")
}

fn load(proto: &ModelProto) -> Model {
    let config = std::fs::read_to_string(data("foreign/dinov2-torchscript/config.json")).expect("readable");
    Model::load(
        &proto.encode_to_vec(),
        &LoadOptions { companions: Companions { config: Some(&config), ..Companions::default() }, ..LoadOptions::default() },
    )
    .unwrap_or_else(|error| panic!("{error}"))
}

fn raw_floats(tensor: &TensorProto) -> Vec<f32> {
    tensor.raw_data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()
}

const FLOAT: i32 = 1;
const FLOAT16: i32 = 10;
const BFLOAT16: i32 = 16;

/// Every tensor, attribute and declared type of f32 becomes `data_type`.
fn halve(proto: &mut ModelProto, data_type: i32) {
    let half = |value: f32| if data_type == FLOAT16 { f16::from_f32(value).to_bits() } else { (value.to_bits() >> 16) as u16 };
    let narrow = |tensor: &mut TensorProto| {
        if tensor.data_type == FLOAT {
            tensor.raw_data = raw_floats(tensor).into_iter().flat_map(|value| half(value).to_le_bytes()).collect();
            tensor.data_type = data_type;
        }
    };
    let graph = proto.graph.as_mut().expect("a graph");
    graph.initializer.iter_mut().for_each(narrow);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().for_each(narrow);
        if attribute.name == "to" && attribute.i == i64::from(FLOAT) {
            attribute.i = data_type.into();
        }
    }
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|r#type| r#type.value.as_mut()) else { continue };
        tensor.elem_type = data_type;
    }
}

/// float16 has 11 bits, bfloat16 8 (cut off here, not rounded): the weights differ by up to 2^-11 and 2^-7 of themselves.
#[test]
fn half_precision_is_widened_and_fuses() {
    let expected = data("reference/dinov2/expected.safetensors");
    for (data_type, allowed) in [(FLOAT16, 0.003), (BFLOAT16, 0.1)] {
        let mut proto = torchscript();
        halve(&mut proto, data_type);
        let mut model = load(&proto);
        assert_eq!(model.unfused(), None, "{data_type}");
        let ours = run(&mut model, floats(&expected, names::INPUT).1);
        for (name, ours) in OUTPUTS.into_iter().zip(ours) {
            let error = relative_error(&ours, &floats(&expected, name).1);
            assert!(error < allowed && error > 1e-5, "{data_type} {name}: {error}");
        }
    }
}

/// onnxsim multiplies the 0.5 of a GELU into the kernel of the convolution behind it.
#[test]
fn a_gelu_whose_factor_was_folded_still_fuses() {
    let mut proto = torchscript();
    let graph = proto.graph.as_mut().expect("a graph");
    let producer = |name: &str, nodes: &[NodeProto]| nodes.iter().find(|node| node.output.iter().any(|output| output == name)).cloned();
    let mut folded = 0;
    for index in 0..graph.node.len() {
        let node = graph.node[index].clone();
        let Some(half) = node.input.first().and_then(|input| producer(input, &graph.node)) else { continue };
        if node.op_type != "Conv" || half.op_type != "Mul" {
            continue;
        }
        let kernel = graph.initializer.iter_mut().find(|tensor| tensor.name == node.input[1]).expect("a kernel");
        kernel.raw_data = raw_floats(kernel).into_iter().flat_map(|value| (value * 0.5).to_le_bytes()).collect();
        graph.node[index].input[0].clone_from(&half.input[0]);
        folded += 1;
    }
    assert_eq!(folded, 2, "the two ScaleBlocks");
    let mut model = load(&proto);
    assert_eq!(model.unfused(), None);
    let expected = data("reference/dinov2/expected.safetensors");
    let ours = run(&mut model, floats(&expected, names::INPUT).1);
    for (name, ours) in OUTPUTS.into_iter().zip(ours) {
        assert!(largest_difference(&ours, &floats(&expected, name).1) < 1e-3, "{name}");
    }
}

#[test]
fn what_does_not_fuse_is_told_with_its_cost() {
    let mut proto = torchscript();
    // a softmax over another axis is none that attention knows
    let graph = proto.graph.as_mut().expect("a graph");
    let softmax = graph.node.iter_mut().find(|node| node.op_type == "Softmax").expect("an attention");
    softmax.attribute[0].i = 1;
    let unfused = load(&proto).unfused().expect("something is left");
    assert!(unfused.share > 0.01 && unfused.share < 0.5, "{unfused}");
    let products: usize = unfused.kinds.iter().filter(|(kind, _)| kind.contains("MatMul")).map(|(_, count)| count).sum();
    assert_eq!(products, 2, "{unfused}");
    assert!(unfused.kinds.iter().any(|(kind, count)| kind.contains("Softmax") && *count == 1), "{unfused}");
}

#[test]
fn operators_of_one_engine_are_refused_by_name() {
    let scratch = Scratch::new("engines");
    std::fs::copy(data("foreign/dinov2-torchscript/config.json"), scratch.path("config.json")).expect("copied");
    for (domain, operator, advice) in [
        ("com.microsoft", "FusedMatMul", "ORT_ENABLE_BASIC"),
        ("com.microsoft", "QLinearAdd", "QuantFormat.QDQ"),
        // the standard has an operator of this name, which means something else
        ("com.microsoft", "Attention", "ORT_ENABLE_BASIC"),
        ("pkg.example", "MatMul", "standard operators"),
    ] {
        let mut proto = torchscript();
        let node = proto.graph.as_mut().expect("a graph").node.iter_mut().find(|node| node.op_type == "MatMul").expect("a product");
        (node.op_type, node.domain) = (operator.to_owned(), domain.to_owned());
        let path = scratch.path("model.onnx");
        std::fs::write(&path, proto.encode_to_vec()).expect("written");
        let output = eomt_edge().args(["run", "--check", "--model"]).arg(&path).output().expect("starts");
        let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{sentence}");
        let told = [domain, operator, advice, "model.onnx"].iter().all(|word| sentence.contains(word));
        assert!(told && sentence.trim_end().lines().count() == 1, "{sentence}");
    }
}

#[test]
fn check_says_what_it_compared() {
    for model in
        [data("foreign/dinov2-static/model.onnx"), data("foreign/dinov3-dynamo/model.onnx"), data("foreign/dinov2-dynamic-int8/model.onnx")]
    {
        let output = eomt_edge().args(["run", "--check", "--model"]).arg(&model).output().expect("starts");
        let (found, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{errors}");
        assert!(found.contains("on 2 inputs") && found.contains("relative error"), "{found}");
        assert_eq!(errors.contains("202 roundings"), model.parent().expect("a directory").ends_with("dinov2-static"), "{errors}");
    }
}

/// Another file's weights stand for a network that is computed wrongly.
#[test]
fn a_difference_is_refused() {
    let mut model = load(&torchscript());
    let mut proto = torchscript();
    let weights = proto.graph.as_mut().expect("a graph").initializer.iter_mut().filter(|tensor| tensor.dims.len() == 2);
    weights.for_each(|tensor| tensor.raw_data = raw_floats(tensor).into_iter().flat_map(|value| (value * 1.05).to_le_bytes()).collect());
    let options = LoadOptions::default();
    let sentence = model.check(&proto.encode_to_vec(), 2, &options).expect_err("refused").to_string();
    assert!(sentence.contains("plain evaluation"), "{sentence}");
    assert_eq!(model.check(&torchscript().encode_to_vec(), 2, &options).expect("agrees").inputs, 2);
}
