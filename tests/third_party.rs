//! EoMT exports made by `torch.onnx`, not by us: with names and opset of the exporter, described by the `config.json` beside them.

mod common;

use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::model::names;
use eomt_edge_host::model_file::Compute;

use common::{Scratch, data, eomt_edge, floats, largest_difference};

/// `torch.onnx.export` of a reference network in `tests/data/foreign`, against the same expected logits.
fn check(export: &str, reference: &str) {
    let mut model =
        eomt_edge_host::model_file::load(&data("foreign").join(export).join("model.onnx"), &Compute::threads(1)).expect("loads");
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

fn dynamic(export: &str) -> eomt_edge_core::model::Model {
    eomt_edge_host::model_file::load(&data("foreign").join(export).join("model.onnx"), &Compute::threads(1)).expect("loads")
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

/// A copy of the tiny exports' folder with these files beside them.
fn beside(name: &str, export: &str, files: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new(name);
    let source = data("foreign/normalization");
    for (from, to) in [(format!("{export}.onnx"), "model.onnx"), ("config.json".to_owned(), "config.json")] {
        std::fs::copy(source.join(from), scratch.path(to)).expect("copied");
    }
    for (file, text) in files {
        std::fs::write(scratch.path(file), text).expect("written");
    }
    scratch
}

/// Largest difference of both outputs from what transformers computes from the same picture.
fn difference(export: &str, expected: &str) -> f32 {
    let mut model = eomt_edge_host::model_file::load(&data("foreign/normalization").join(format!("{export}.onnx")), &Compute::threads(1))
        .expect("loads");
    let expected = data("foreign/normalization").join(expected);
    let (_, levels) = floats(&expected, "levels");
    let metadata = model.metadata();
    let normalize = |(index, level): (usize, &f32)| (level / 255.0 - metadata.image_mean[index / 1024]) / metadata.image_std[index / 1024];
    let values = levels.iter().enumerate().map(normalize).collect();
    let mut logits = Logits::default();
    model.run(&Tensor { height: 32, width: 32, values }, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
    let class = largest_difference(&logits.class.values, &floats(&expected, names::CLASS_LOGITS).1);
    let scale = floats(&expected, names::MASK_LOGITS).1.iter().fold(1.0, |max: f32, value| max.max(value.abs()));
    class.max(largest_difference(&logits.masks, &floats(&expected, names::MASK_LOGITS).1) / scale)
}

/// Exports of one network that normalize in different places; the same picture gives the same logits. f32 sums in another order, and
/// class logits of up to 60: 2e-3.
#[test]
fn pixels_are_normalized_once() {
    for export in ["outside", "inside", "inside-dynamo", "multiplied", "levels", "bytes", "batchnorm"] {
        let worst = difference(export, "expected.safetensors");
        assert!(worst < 2e-3, "{export}: {worst}");
    }
}

#[test]
fn segments_are_the_same_wherever_it_normalizes() {
    let picture = data("reference/processing/pre-0.png");
    let segments = |export: &str, more: &[&str]| {
        let scratch = Scratch::new(&format!("segments-{export}-{}", more.len()));
        let mut command = eomt_edge();
        command.args(["segment", "--threshold", "0.3", "--overlap-threshold", "0.1", "--model"]);
        command
            .arg(data("foreign/normalization").join(format!("{export}.onnx")))
            .args(more)
            .arg(&picture)
            .arg("-o")
            .arg(scratch.path("out"));
        common::succeed(&mut command);
        let read = |name: &str| std::fs::read(scratch.path("out").join(name)).expect("written");
        (read("pre-0.panoptic.png"), read("pre-0.json"))
    };
    let outside = segments("outside", &[]);
    assert!(outside.1.windows(8).any(|part| part == b"\"score\":"), "the picture has segments");
    for export in ["inside", "inside-dynamo", "levels", "bytes"] {
        assert!(segments(export, &[]) == outside, "{export}");
    }
    // said wrongly, it is another picture: the switch does something
    assert!(segments("inside", &["--normalization", "outside"]) != outside);
    assert!(segments("inside", &["--normalization", "inside"]) == outside);
}

/// Runs `segment` on the model in `scratch`; nothing is left behind when it fails.
fn segment(scratch: &Scratch, more: &[&str]) -> (Option<i32>, String) {
    let mut command = eomt_edge();
    command.arg("segment").args(more).arg("--model").arg(scratch.path("model.onnx")).arg(data("reference/processing/pre-0.png"));
    let output = command.arg("-o").arg(scratch.path("out")).output().expect("starts");
    let code = output.status.code();
    assert!(code == Some(0) || !scratch.path("out").exists(), "nothing is left behind");
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_cannot_be_told_is_asked() {
    for (export, words) in [("last", "channels last"), ("turned", "Gather"), ("scaled", "subtracts no mean")] {
        let (code, sentence) = segment(&beside("asked", export, &[]), &[]);
        assert!(code == Some(1) && sentence.contains(words) && sentence.lines().count() == 1, "{export}: {sentence}");
    }
    let levels = [("preprocessor_config.json", r#"{"do_rescale": false, "do_normalize": false}"#)];
    assert_eq!(segment(&beside("told", "scaled", &levels), &[]).0, Some(0));
    assert_eq!(segment(&beside("told", "turned", &[]), &["--normalization", "inside"]).0, Some(0));
    let (code, sentence) = segment(&beside("told", "outside", &[]), &["--normalization", "sideways"]);
    assert!(code == Some(2) && sentence.contains("sideways"), "{sentence}");
    let mut own = eomt_edge();
    own.args(["segment", "--normalization", "inside", "--model"]).arg(common::shipped_model());
    let sentence = common::fail(own.arg(data("reference/processing/pre-0.png")).args(["-o", "nowhere"]), 1);
    assert!(sentence.contains("third-party exports only"), "{sentence}");
}

/// Settings, whether they are refused, and a word of the sentence; the same for a checkpoint and for an export.
const SETTINGS: [(&str, &str, bool, &str); 20] = [
    ("preprocessor_config.json", r#"{"size": {"height": 32, "width": 32}}"#, false, "'size'"),
    ("preprocessor_config.json", r#"{"size": [32, 32]}"#, false, "stretches"),
    ("preprocessor_config.json", r#"{"size": 32}"#, false, "'size'"),
    ("preprocessor_config.json", r#"{"size": {"shortest_edge": 800, "longest_edge": 1333}}"#, false, "800"),
    ("preprocessor_config.json", r#"{"do_pad": false}"#, false, "'do_pad'"),
    ("preprocessor_config.json", r#"{"do_resize": false}"#, false, "'do_resize'"),
    ("preprocessor_config.json", r#"{"do_split_image": true}"#, false, "--windows"),
    ("preprocessor_config.json", r#"{"resample": 3}"#, false, "bicubic"),
    ("preprocessor_config.json", r#"{"do_center_crop": true}"#, false, "'do_center_crop'"),
    ("preprocessor_config.json", r#"{"do_sharpen": true}"#, false, "'do_sharpen'"),
    ("processor_config.json", r#"{"image_processor": {"do_pad": false}}"#, false, "processor_config.json: 'do_pad'"),
    ("preprocessor_config.json", r#"{"do_flip_channel_order": true}"#, true, "'do_flip_channel_order'"),
    ("preprocessor_config.json", r#"{"channel_order": "BGR"}"#, true, "blue, green, red"),
    ("preprocessor_config.json", r#"{"image_std": [0.2, 0, 0.2]}"#, true, "'image_std'"),
    ("preprocessor_config.json", r#"{"image_mean": [0.2, 0.1]}"#, true, "'image_mean'"),
    ("preprocessor_config.json", r#"{"rescale_factor": 0}"#, true, "'rescale_factor'"),
    ("preprocessor_config.json", r#"{"image_processor_type": "ViTImageProcessor"}"#, true, "ViTImageProcessor"),
    ("preprocessor_config.json", r#"{"do_normalize": "no"}"#, true, "'do_normalize'"),
    ("preprocessor_config.json", "{", true, "preprocessor_config.json"),
    ("processor_config.json", r#"{"image_processor": 3}"#, true, "'image_processor'"),
];

#[test]
fn settings_of_the_processor_are_named() {
    for (file, text, refused, word) in SETTINGS {
        let (code, sentence) = segment(&beside("setting", "outside", &[(file, text)]), &[]);
        let fine = code == Some(i32::from(refused))
            && sentence.contains(word)
            && sentence.contains("config.json")
            && !sentence.contains("panicked");
        assert!(fine, "an export with {file} {text}: {code:?} {sentence}");
        let scratch = Scratch::new("setting-checkpoint");
        for part in ["config.json", "model.safetensors"] {
            std::fs::copy(data("reference/dinov2").join(part), scratch.path(part)).expect("copied");
        }
        std::fs::write(scratch.path(file), text).expect("written");
        let output = eomt_edge().arg("convert").arg(scratch.path("")).arg("-o").arg(scratch.path("m.onnx")).output().expect("starts");
        let (code, sentence) = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(code == Some(i32::from(refused)) && sentence.contains(word), "a checkpoint with {file} {text}: {code:?} {sentence}");
        assert_eq!(scratch.path("m.onnx").exists(), !refused);
    }
}

/// What every published EoMT says is not worth a word.
#[test]
fn ordinary_settings_are_silent() {
    let ordinary = r#"{"do_normalize": true, "do_pad": true, "do_rescale": true, "do_resize": true, "do_split_image": false, "ignore_index": null,
        "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "EomtImageProcessorFast", "image_std": [0.229, 0.224, 0.225],
        "resample": 2, "rescale_factor": 0.00392156862745098, "size": {"longest_edge": 32, "shortest_edge": 32}, "data_format": "channels_first"}"#;
    let config = std::fs::read_to_string(data("foreign/normalization/config.json")).expect("read");
    let config = config.replacen('{', r#"{"stuff_classes": [2],"#, 1);
    let scratch = beside("ordinary", "outside", &[("preprocessor_config.json", ordinary), ("config.json", &config)]);
    assert_eq!(segment(&scratch, &[]), (Some(0), String::new()));
}

/// `processors.json`: what EomtImageProcessor of transformers 5.24 makes of levels.
#[test]
fn processors_normalize_as_in_transformers() {
    use eomt_edge_core::model::processor::{Processor, Texts};
    let text = std::fs::read_to_string(data("foreign/processors.json")).expect("read");
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    assert!(cases.len() >= 9);
    for case in cases {
        let text = case["text"].as_str();
        let texts = match case["file"].as_str() {
            Some("processor_config.json") => Texts { processor: text, ..Texts::default() },
            _ => Texts { preprocessor: text, ..Texts::default() },
        };
        let processor = Processor::read(&texts, (2, 2)).expect("reads");
        assert!(processor.warnings.is_empty(), "{:?}", processor.warnings);
        let pixels = |key: &str| serde_json::from_value::<Vec<[f32; 3]>>(case[key].clone()).expect("pixels");
        for (level, expected) in
            pixels("levels").iter().flatten().zip(pixels("values").iter().flatten()).enumerate().map(|(index, (a, b))| ((index % 3, a), b))
        {
            let (channel, level) = level;
            let ours = (level / 255.0 - processor.mean[channel]) / processor.std[channel];
            // f32 in another order of operations
            assert!((ours - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{text:?}: {ours} {expected}");
        }
    }
}

/// Masks inside of blocks are work that a network with annealed masks does not have; an export and a checkpoint say so.
#[test]
fn masks_that_are_still_needed_are_told_with_their_cost() {
    // class logits of up to 60
    assert!(difference("masked", "expected-masked.safetensors") < 2e-3);
    let load = |name: &str| {
        let path = data("foreign/normalization").join(name);
        eomt_edge_host::model_file::load(&path, &Compute::threads(1)).expect("loads")
    };
    assert_eq!(load("outside.onnx").mask_cost(), None);
    let cost = load("masked.onnx").mask_cost().expect("it masks");
    assert_eq!(cost.blocks, 1);
    // naively, with width 8, 6 queries, 4x4 patches and one upscale step: the mask head on queries, the scale block (a 2x2 step and a 3x3
    // filter per channel) on patches, and the product of both
    let (width, queries, patches) = (8, 6, 16);
    let naive = 3 * queries * width * width + patches * width * width * 4 + 4 * patches * width * 9 + queries * width * 4 * patches;
    assert_eq!(cost.extra, naive);
    let (code, sentence) = segment(&beside("masked", "masked", &[]), &[]);
    assert!(code == Some(0) && sentence.contains("attn_mask_probs") && sentence.contains("1 block attends"), "{sentence}");
    let scratch = Scratch::new("masked-checkpoint");
    let convert = |checkpoint: &str| {
        let mut command = eomt_edge();
        let output = common::succeed(command.arg("convert").arg(data(checkpoint)).arg("-o").arg(scratch.path("m.onnx")));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let sentence = convert("reference/dinov2-masked");
    assert!(
        sentence.contains("2 blocks attend through masks (attn_mask_probs") && sentence.contains("million multiply-adds"),
        "{sentence}"
    );
    assert!(!convert("reference/dinov2").contains("attn_mask_probs"));
}
