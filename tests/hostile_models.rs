//! Models whose files say what cannot be: one sentence that names the file and the key, no panic, no abort.
//!
//! Every case is a whole model with one thing changed.

mod common;

use std::path::Path;

use eomt_edge_host::model_file::{self, Compute};
use prost::Message;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, type_proto};

use common::{Scratch, data, eomt_edge, shipped_model};
use serde_json::{Value, json};

fn read(path: &Path) -> ModelProto {
    ModelProto::decode(&std::fs::read(path).expect("readable")[..]).expect("an ONNX file")
}

fn prop(proto: &mut ModelProto, key: &str, value: &str) {
    proto.metadata_props.iter_mut().find(|entry| entry.key == key).expect("our file has it").value = value.to_owned();
}

fn graph(proto: &mut ModelProto) -> &mut GraphProto {
    proto.graph.as_mut().expect("a graph")
}

/// Changes what the graph itself says of its input.
fn declare(proto: &mut ModelProto, size: [i64; 2]) {
    let Some(type_proto::Value::TensorType(tensor)) = graph(proto).input[0].r#type.as_mut().and_then(|kind| kind.value.as_mut()) else {
        panic!("a tensor");
    };
    for (dim, side) in tensor.shape.as_mut().expect("a shape").dim[2..].iter_mut().zip(size) {
        dim.value = Some(DimValue::DimValue(side));
    }
}

/// The last operator that makes this output becomes `make`'s, of what the old one gave.
fn behind(proto: &mut ModelProto, output: &str, tensors: Vec<TensorProto>, make: NodeProto) {
    let graph = graph(proto);
    let old = graph.node.iter_mut().flat_map(|node| &mut node.output).find(|name| *name == output).expect("an operator gives it");
    *old = format!("{output}_before");
    let rest = tensors.iter().map(|tensor| tensor.name.clone());
    let input = [format!("{output}_before")].into_iter().chain(rest).collect();
    graph.node.push(NodeProto { name: format!("{output}_changed"), input, output: vec![output.to_owned()], ..make });
    graph.initializer.extend(tensors);
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { name: name.to_owned(), data_type: 7, dims: vec![values.len() as i64], raw_data, ..TensorProto::default() }
}

fn slice(from: &[i64], to: &[i64], axes: &[i64]) -> (Vec<TensorProto>, NodeProto) {
    let node = NodeProto { op_type: "Slice".to_owned(), ..NodeProto::default() };
    (vec![ints("starts", from), ints("ends", to), ints("axes", axes)], node)
}

fn cut(proto: &mut ModelProto, output: &str, axis: i64, to: i64) {
    let (tensors, node) = slice(&[0], &[to], &[axis]);
    let tensors = tensors.into_iter().map(|tensor| TensorProto { name: format!("{output}_{}", tensor.name), ..tensor }).collect();
    behind(proto, output, tensors, node);
}

const CLASS: &str = "class_queries_logits";
const MASKS: &str = "masks_queries_logits";

type Edit = fn(&mut ModelProto);

/// Name, what is changed, and words of the sentence.
const OURS: &[(&str, Edit, &[&str])] = &[
    ("huge", |proto| prop(proto, "input_size", "[65536, 65536]"), &["input_size", "65536x65536", "4096"]),
    (
        "huge-and-declared",
        |proto| {
            prop(proto, "input_size", "[65536, 65536]");
            declare(proto, [65536, 65536])
        },
        &["input_size", "4096"],
    ),
    ("one-pixel", |proto| prop(proto, "input_size", "[1, 1]"), &["input_size", "1x1"]),
    (
        "one-pixel-declared",
        |proto| {
            prop(proto, "input_size", "[1, 1]");
            declare(proto, [1, 1])
        },
        &["input_size", "1x1", "multiple"],
    ),
    ("no-height", |proto| prop(proto, "input_size", "[0, 64]"), &["input_size", "0x64"]),
    ("negative", |proto| prop(proto, "input_size", "[-16, 64]"), &["input_size"]),
    ("beyond-64-bits", |proto| prop(proto, "input_size", "[99999999999999999999, 64]"), &["input_size"]),
    ("one-side", |proto| prop(proto, "input_size", "[64]"), &["input_size"]),
    ("another-size", |proto| prop(proto, "input_size", "[64, 64]"), &["input_size", "64x64"]),
    (
        "no-multiple",
        |proto| {
            prop(proto, "input_size", "[193, 256]");
            declare(proto, [193, 256])
        },
        &["input_size", "193x256", "multiple"],
    ),
    (
        "other-multiple",
        |proto| {
            prop(proto, "input_size", "[32, 32]");
            declare(proto, [32, 32])
        },
        &[],
    ),
    ("no-labels", |proto| prop(proto, "labels", "[]"), &["labels"]),
    (
        "one-label-less",
        |proto| {
            prop(proto, "labels", r#"["a"]"#);
            prop(proto, "stuff_classes", "[]")
        },
        &["labels", "1"],
    ),
    ("labels-that-are-none", |proto| prop(proto, "labels", "[1, 2]"), &["labels"]),
    ("too-many-labels", |proto| prop(proto, "labels", &format!("[{}]", vec!["\"a\""; 70_000].join(","))), &["labels", "70000"]),
    ("too-long-labels", |proto| prop(proto, "labels", &format!("[\"{}\"]", "a".repeat(2 << 20))), &["labels", "bytes"]),
    ("stuff-twice", |proto| prop(proto, "stuff_classes", "[6, 6]"), &["stuff_classes"]),
    ("stuff-beyond", |proto| prop(proto, "stuff_classes", "[60000]"), &["stuff_classes", "60000"]),
    ("stuff-far-beyond", |proto| prop(proto, "stuff_classes", "[4294967296]"), &["stuff_classes"]),
    ("much-stuff", |proto| prop(proto, "stuff_classes", &format!("[{}6]", "6,".repeat(100_000))), &["stuff_classes"]),
    ("std-zero", |proto| prop(proto, "image_std", "[0, 1, 1]"), &["image_std"]),
    ("std-tiny", |proto| prop(proto, "image_std", "[1e-40, 1, 1]"), &["image_std"]),
    ("std-negative", |proto| prop(proto, "image_std", "[-1, 1, 1]"), &["image_std"]),
    ("std-infinite", |proto| prop(proto, "image_std", "[1e300, 1, 1]"), &["image_std"]),
    ("std-beyond", |proto| prop(proto, "image_std", "[1e999, 1, 1]"), &["image_std"]),
    ("std-nan", |proto| prop(proto, "image_std", "[NaN, 1, 1]"), &["image_std"]),
    ("mean-infinite", |proto| prop(proto, "image_mean", "[1e300, 0, 0]"), &["mean"]),
    ("two-channels", |proto| prop(proto, "image_mean", "[0, 0]"), &["image_mean"]),
    ("threshold-nan", |proto| prop(proto, "thresholds", r#"{"score": NaN, "mask": 0.5, "overlap": 0.5}"#), &["thresholds"]),
    ("threshold-beyond", |proto| prop(proto, "thresholds", r#"{"score": 1e999, "mask": 0.5, "overlap": 0.5}"#), &["thresholds"]),
    ("threshold-two", |proto| prop(proto, "thresholds", r#"{"score": 2, "mask": 0.5, "overlap": 0.5}"#), &["thresholds"]),
    ("task", |proto| prop(proto, "task", &"x".repeat(5000)), &["task"]),
    ("precision", |proto| prop(proto, "precision", &"x\u{1b}[2J".repeat(5000)), &["precision"]),
    ("name", |proto| prop(proto, "name", &"x".repeat(5000)), &["name"]),
    ("deep-json", |proto| prop(proto, "labels", &"[".repeat(1_000_000)), &["labels"]),
    (
        "no-queries",
        |proto| {
            cut(proto, CLASS, 1, 0);
            cut(proto, MASKS, 1, 0)
        },
        &["no queries"],
    ),
    ("fewer-queries", |proto| cut(proto, CLASS, 1, 1), &["queries"]),
    ("no-mask-rows", |proto| cut(proto, MASKS, 2, 0), &["0x"]),
    ("no-mask-columns", |proto| cut(proto, MASKS, 3, 0), &["x0"]),
    ("only-no-object", |proto| cut(proto, CLASS, 2, 1), &["1 classes"]),
    ("no-classes", |proto| cut(proto, CLASS, 2, 0), &["0 classes"]),
    (
        "masks-larger-than-the-input",
        |proto| {
            let node = NodeProto { op_type: "Tile".to_owned(), ..NodeProto::default() };
            behind(proto, MASKS, vec![ints("repeats", &[1, 1, 16, 16])], node);
        },
        &["masks are"],
    ),
    (
        "masks-beyond-memory",
        |proto| {
            let node = NodeProto { op_type: "Tile".to_owned(), ..NodeProto::default() };
            behind(proto, MASKS, vec![ints("repeats", &[1, 1, 1 << 30, 1 << 30])], node);
        },
        &["mask"],
    ),
    (
        "bytes-missing",
        |proto| {
            graph(proto).initializer[0].raw_data.pop();
        },
        &["tensor"],
    ),
    ("no-bytes", |proto| graph(proto).initializer[0].raw_data.clear(), &["tensor", "0 values"]),
    ("shape-too-large", |proto| graph(proto).initializer[0].dims[0] += 1, &["tensor", "shape"]),
    ("shape-negative", |proto| graph(proto).initializer[0].dims[0] = -1, &["tensor", "shape"]),
    ("shape-that-overflows", |proto| graph(proto).initializer[0].dims = vec![1 << 40, 1 << 40], &["tensor", "shape"]),
    ("no-operators", |proto| graph(proto).node.clear(), &[]),
    ("no-outputs", |proto| graph(proto).output.clear(), &[]),
    ("no-input", |proto| graph(proto).input.clear(), &["input"]),
    ("no-weights", |proto| graph(proto).initializer.clear(), &[]),
    (
        "outside",
        |proto| {
            let tensor = &mut graph(proto).initializer[0];
            tensor.raw_data.clear();
            tensor.data_location = Some(1);
            let entry = |key: &str, value: &str| tract_onnx::pb::StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
            tensor.external_data = vec![entry("location", "outside.onnx"), entry("offset", "0"), entry("length", "18446744073709551615")];
        },
        &["tensor", "outside.onnx"],
    ),
];

#[test]
fn what_our_own_files_may_not_say() {
    let scratch = Scratch::new("hostile-ours");
    let original = read(&shipped_model());
    for (name, edit, words) in OURS {
        let mut proto = original.clone();
        edit(&mut proto);
        let path = scratch.path(&format!("{name}.onnx"));
        std::fs::write(&path, proto.encode_to_vec()).expect("written");
        let sentence = match model_file::load(&path, &Compute::threads(2)) {
            Ok(_) => panic!("{name} was loaded"),
            Err(error) => error.to_string(),
        };
        assert!(sentence.contains(&format!("{name}.onnx")), "{sentence}");
        assert!(words.iter().all(|word| sentence.contains(word)), "{name}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(sentence.len() < 1000 && !sentence.contains('\u{1b}'), "{name}: {} bytes", sentence.len());
    }
}

/// What an export's files say, and words of the sentence.
#[test]
fn what_files_beside_an_export_may_not_say() {
    let scratch = Scratch::new("hostile-export");
    let model = scratch.path("export.onnx");
    std::fs::copy(data("foreign/dinov2-torchscript/model.onnx"), &model).expect("copied");
    let original = std::fs::read_to_string(data("foreign/dinov2-torchscript/config.json")).expect("readable");
    let original: serde_json::Map<String, Value> = serde_json::from_str(&original).expect("an object");
    let check = |file: &str, text: &str, words: &[&str]| {
        std::fs::write(scratch.path("config.json"), serde_json::to_string(&original).expect("JSON")).expect("written");
        std::fs::write(scratch.path(file), text).expect("written");
        let found = model_file::load(&model, &Compute::threads(2));
        let Err(error) = found else { panic!("{text} was loaded") };
        let sentence = error.to_string();
        assert!(sentence.contains("export.onnx") && words.iter().all(|word| sentence.contains(word)), "{text}: {sentence}");
        assert!(sentence.lines().count() == 1 && sentence.len() < 1000, "{sentence}");
        std::fs::remove_file(scratch.path(file)).expect("there");
    };
    let labels = |count: usize| Value::Object((0..count).map(|class| (class.to_string(), Value::from("a"))).collect());
    for (key, value, words) in [
        ("image_size", 65_536.into(), &["image_size", "65536x65536"][..]),
        ("image_size", 1.into(), &["image_size", "1x1"]),
        ("image_size", 0.into(), &["image_size", "0x0"]),
        ("image_size", json!([0, 96]), &["image_size", "0x96"]),
        ("image_size", (-96).into(), &["image_size"]),
        ("image_size", json!(96.5), &["image_size"]),
        ("image_size", json!(1e300), &["image_size"]),
        ("image_size", 97.into(), &["image_size", "97x97"]),
        ("num_queries", 0.into(), &["num_queries"]),
        ("num_queries", u64::MAX.into(), &["num_queries"]),
        ("id2label", labels(70_000), &["id2label", "70000"]),
        ("id2label", labels(2), &["stuff_classes"]),
        ("id2label", json!({"0": "a", "18446744073709551616": "b"}), &["id2label"]),
        ("id2label", json!({"0": "a".repeat(2 << 20)}), &["id2label", "bytes"]),
        ("stuff_classes", json!([70_000]), &["stuff_classes"]),
        ("stuff_classes", json!([60_000]), &["stuff_classes", "60000"]),
    ] {
        let mut changed = original.clone();
        changed.insert("stuff_classes".to_owned(), json!([6]));
        changed.insert(key.to_owned(), value);
        check("config.json", &serde_json::to_string(&changed).expect("JSON"), words);
    }
    for (text, words) in [
        (r#"{"image_std": [0, 1, 1]}"#, &["image_std"][..]),
        (r#"{"image_std": 1e-40}"#, &["image_std"]),
        (r#"{"image_mean": 1e39}"#, &["image_mean"]),
        (r#"{"image_mean": 1e999}"#, &["preprocessor_config.json"]),
        (r#"{"rescale_factor": 1e-38}"#, &["rescale_factor"]),
        (r#"{"rescale_factor": 0}"#, &["rescale_factor"]),
        (r#"{"threshold": 1e999}"#, &["preprocessor_config.json"]),
        (r#"{"threshold": NaN}"#, &["preprocessor_config.json"]),
        (r#"{"mask_threshold": 7}"#, &["mask_threshold"]),
    ] {
        check("preprocessor_config.json", text, words);
    }
}

/// Every command that takes a model ends with the sentence and exit code 1.
#[test]
fn commands_say_it_and_end() {
    let scratch = Scratch::new("hostile-commands");
    let path = scratch.path("huge.onnx");
    let mut proto = read(&shipped_model());
    prop(&mut proto, "input_size", "[65536, 65536]");
    std::fs::write(&path, proto.encode_to_vec()).expect("written");
    let picture = data("clip/000000.png");
    let pixels = data("reference/dinov2/expected.safetensors");
    let out = scratch.path("out");
    let commands = [
        vec!["run".into(), "--source".into(), "scenes".into(), "--model".into(), path.clone()],
        vec!["run".into(), "--check".into(), "--model".into(), path.clone()],
        vec!["segment".into(), picture, "-o".into(), out.clone(), "--model".into(), path.clone()],
        vec!["logits".into(), pixels, "-o".into(), out.clone(), "--model".into(), path.clone()],
        vec!["bench".into(), "--frames".into(), "1".into(), "--model".into(), path.clone()],
        vec!["doctor".into(), "--model".into(), path.clone()],
    ];
    for arguments in commands {
        let output = eomt_edge().args(&arguments).output().expect("starts");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("huge.onnx") && said.contains("input_size"), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        assert!(!out.exists(), "{arguments:?} left something");
    }
}
