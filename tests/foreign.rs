//! EoMT exports made by `torch.onnx`, not by us: with names and opset of the exporter, described by the `config.json` beside them.

mod common;

use common::{Scratch, data, eomt_edge, floats, largest_difference};
use eomt_edge::data::{Logits, Tensor};
use eomt_edge::model::names;
use eomt_edge::model_file::Compute;

/// `torch.onnx.export` of a reference network in `tests/data/foreign`, against the same expected logits.
fn check(export: &str, reference: &str) {
    let (mut model, _) =
        eomt_edge::model_file::load(&data("foreign").join(export).join("model.onnx"), &Compute::threads(1)).expect("loads");
    assert!(model.prunes_masks(), "the mask product is recognized in the exporter's form");
    assert_eq!(model.metadata().labels.len(), 7);
    let expected = data("reference").join(reference).join("expected.safetensors");
    let (_, values) = floats(&expected, "pixel_values");
    let mut logits = Logits::default();
    let input = Tensor { height: 96, width: 96, values };
    model.run(&input, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
    // f32 sums in another order; seen: 2e-5
    assert!(largest_difference(&logits.class.values, &floats(&expected, names::CLASS_LOGITS).1) < 1e-3);
    assert!(largest_difference(&logits.masks, &floats(&expected, names::MASK_LOGITS).1) < 1e-3);
}

/// Opset 17, outputs without names.
#[test]
fn torchscript_exporter() {
    check("dinov2-torchscript", "dinov2");
}

/// Opset 20, the exporter's own decompositions.
#[test]
fn dynamo_exporter() {
    check("dinov3-dynamo", "dinov3");
}

#[test]
fn an_export_alone_asks_for_its_configuration() {
    let scratch = Scratch::new("foreign");
    let alone = scratch.path("alone.onnx");
    std::fs::copy(data("foreign/dinov3-dynamo/model.onnx"), &alone).expect("copied");
    let output = eomt_edge().args(["bench", "--model"]).arg(&alone).output().expect("starts");
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(sentence.contains("alone.onnx") && sentence.contains("config.json"), "{sentence}");
    std::fs::write(scratch.path("config.json"), r#"{"model_type": "bert", "image_size": 96}"#).expect("written");
    let output = eomt_edge().args(["bench", "--model"]).arg(&alone).output().expect("starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("model_type 'bert'"));
}

/// What ONNX Runtime's quantizer makes of the torchscript export; see `tests/data/foreign/README.md`.
const DYNAMIC: [&str; 2] = ["dinov2-dynamic-int8", "dinov2-dynamic-uint8"];

fn dynamic(export: &str) -> eomt_edge::model::Model {
    eomt_edge::model_file::load(&data("foreign").join(export).join("model.onnx"), &Compute::threads(1)).expect("loads").0
}

/// Mean error over mean magnitude, against transformers in f32. Seen, and what ONNX Runtime 1.32 has on the same file:
///
/// | weights | class logits  | masks         |
/// |---------|---------------|---------------|
/// | i8      | 0.0147 0.0148 | 0.0299 0.0311 |
/// | u8      | 0.0175 0.0164 | 0.0279 0.0316 |
///
/// The tolerances leave room for other instruction sets.
#[test]
fn dynamically_quantized() {
    let expected = data("reference/dinov2/expected.safetensors");
    let (_, values) = floats(&expected, "pixel_values");
    let input = Tensor { height: 96, width: 96, values };
    for export in DYNAMIC {
        let mut model = dynamic(export);
        assert!(model.prunes_masks(), "the mask product is recognized");
        let mut logits = Logits::default();
        model.run(&input, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
        let outputs = [(names::CLASS_LOGITS, &logits.class.values, 0.03), (names::MASK_LOGITS, &logits.masks, 0.06)];
        for (name, ours, tolerance) in outputs {
            let reference = floats(&expected, name).1;
            assert_eq!(ours.len(), reference.len());
            let difference: f32 = ours.iter().zip(&reference).map(|(a, b)| (a - b).abs()).sum();
            let error = difference / reference.iter().map(|b| b.abs()).sum::<f32>();
            assert!(error < tolerance, "{export} {name}: {error}");
        }
    }
}

#[test]
fn dynamically_quantized_products_are_ours() {
    for export in DYNAMIC {
        let operators = dynamic(export).operators();
        let stock = ["EinSum", "MatMul", "Softmax", "Conv", "Deconv", "DynamicQuantize"];
        let left = operators.iter().any(|(kind, _)| stock.iter().any(|name| kind.contains(name)));
        assert!(!left, "{export}: {operators:?}");
    }
}
