//! Graphs written by hand: what is known about them, and what is refused. Real exports are tried in `tests/foreign.rs`.

use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{AttributeProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto};

use super::*;
use crate::data::Task;
use crate::model::label_sets::{ADE20K_STUFF, LabelSet};
use crate::model::{IMAGENET_MEAN, IMAGENET_STD};

const CONFIG: &str = r#"{"model_type": "eomt", "image_size": [32, 64], "num_queries": 5}"#;
const FLOAT: i32 = DataType::Float as i32;

fn value(name: &str, kind: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = |size: &i64| {
        let value = if *size > 0 { dimension::Value::DimValue(*size) } else { dimension::Value::DimParam("n".into()) };
        Dimension { value: Some(value), ..Dimension::default() }
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: kind, shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}

fn node(kind: &str, inputs: &[&str], output: &str) -> NodeProto {
    let texts = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    NodeProto { op_type: kind.into(), input: texts(inputs), output: texts(&[output]), name: format!("/{kind}"), ..NodeProto::default() }
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto { name: name.into(), data_type: FLOAT, dims: dims.into(), float_data: values.into(), ..TensorProto::default() }
}

/// Nodes from `x` to `end`, which the patch embedding reads; the outputs have the shapes of EoMT.
fn network(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>, end: &str) -> ModelProto {
    let mut graph = GraphProto { node: nodes, initializer, ..GraphProto::default() };
    graph.node.push(node("Conv", &[end, "weight"], "tokens"));
    graph.input = vec![value("x", FLOAT, &[1, 3, 32, 64])];
    graph.output = vec![value("a", FLOAT, &[1, 5, 4]), value("b", FLOAT, &[1, 5, 8, 16])];
    ModelProto { graph: Some(graph), opset_import: vec![OperatorSetIdProto::default()], ..ModelProto::default() }
}

fn known(proto: &ModelProto, processor: &str, asked: Normalization) -> Result<Metadata, String> {
    let processor = Texts { preprocessor: Some(processor).filter(|text| !text.is_empty()), ..Texts::default() };
    let companions = Companions { config: Some(CONFIG), processor };
    describe(proto, &BTreeMap::new(), &companions, asked).map(|(metadata, _)| metadata).map_err(|error| error.to_string())
}

/// Mean and standard deviation with which `nodes` are fed by themselves.
fn fed(nodes: Vec<NodeProto>, tensors: Vec<TensorProto>, end: &str, processor: &str) -> Result<([f32; 3], f32), String> {
    known(&network(nodes, tensors, end), processor, Normalization::Auto).map(|metadata| (metadata.image_mean, metadata.image_std[0]))
}

const PLAIN: ([f32; 3], f32) = ([0.0; 3], 1.0);

fn imagenet() -> Vec<TensorProto> {
    vec![tensor("mean", &[1, 3, 1, 1], &IMAGENET_MEAN), tensor("std", &[3, 1, 1], &IMAGENET_STD)]
}

fn subtract_and_divide() -> Vec<NodeProto> {
    vec![node("Sub", &["x", "mean"], "y"), node("Div", &["y", "std"], "z")]
}

#[test]
fn normalization_by_other_means() {
    // 1x1 convolution per channel, with the constant half a network behind reshapes
    let depthwise = vec![
        tensor("w", &[3, 1, 1, 1], &IMAGENET_STD.map(f32::recip)),
        tensor("b", &[3], &std::array::from_fn::<f32, 3, _>(|channel| -IMAGENET_MEAN[channel] / IMAGENET_STD[channel])),
    ];
    assert_eq!(fed(vec![node("Conv", &["x", "w", "b"], "y")], depthwise, "y", ""), Ok(PLAIN));
    // (x * 2) - 1 and 2 x - 1 over levels
    let half = vec![tensor("two", &[], &[2.0]), tensor("one", &[1], &[1.0]), tensor("half", &[], &[127.5])];
    let nodes = vec![node("Mul", &["two", "x"], "y"), node("Sub", &["y", "one"], "z")];
    assert_eq!(fed(nodes, half.clone(), "z", ""), Ok(PLAIN));
    let nodes = vec![node("Div", &["x", "half"], "y"), node("Sub", &["y", "one"], "z")];
    assert_eq!(fed(nodes, half, "z", ""), Ok(([0.0; 3], 1.0 / 255.0)));
    // constants that are nodes, and 1 / std
    let constant = AttributeProto { name: "value".into(), t: Some(tensor("", &[3], &IMAGENET_STD)), ..AttributeProto::default() };
    let nodes = vec![
        NodeProto { attribute: vec![constant], ..node("Constant", &[], "flat") },
        node("Unsqueeze", &["flat", "axes"], "column"),
        node("Reciprocal", &["column"], "over"),
        node("Cast", &["x"], "y"),
        node("Sub", &["y", "mean"], "z"),
        node("Mul", &["over", "z"], "end"),
    ];
    assert_eq!(fed(nodes, imagenet(), "end", ""), Ok(PLAIN));
    // sizes are asked for on the side
    let nodes = [vec![node("Shape", &["x"], "sizes")], subtract_and_divide()].concat();
    assert_eq!(fed(nodes, imagenet(), "z", ""), Ok(PLAIN));
    assert_eq!(fed(Vec::new(), Vec::new(), "x", ""), Ok((IMAGENET_MEAN, IMAGENET_STD[0])));
}

#[test]
fn half_precision_constants_are_read() {
    let bits = |values: [u16; 3]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let half = |name: &str, values| TensorProto {
        data_type: DataType::Float16 as i32,
        float_data: vec![],
        raw_data: bits(values),
        ..tensor(name, &[1, 3, 1, 1], &[])
    };
    // 0.5 and 0.25
    let tensors = vec![half("mean", [0x3800; 3]), half("std", [0x3400; 3])];
    assert_eq!(fed(subtract_and_divide(), tensors, "z", ""), Ok(PLAIN));
}

#[test]
fn the_processor_and_the_graph_must_agree() {
    let own = |processor: &str| fed(subtract_and_divide(), imagenet(), "z", processor);
    let [mean, std] = [IMAGENET_MEAN, IMAGENET_STD].map(|values| format!("{values:?}"));
    // the file of the checkpoint beside an export that normalizes: not twice
    assert_eq!(own(&format!(r#"{{"image_mean": {mean}, "image_std": {std}}}"#)), Ok(PLAIN));
    assert_eq!(own(r#"{"do_normalize": false}"#), Ok(PLAIN));
    for (processor, word) in
        [(r#"{"image_mean": 0.5, "image_std": 0.5}"#, "0.5"), (r#"{"do_normalize": false, "do_rescale": false}"#, "0 to 255")]
    {
        let sentence = own(processor).unwrap_err();
        assert!(sentence.contains(word) && sentence.contains("--normalization"), "{sentence}");
    }
    // said by the user, it is done
    let proto = network(subtract_and_divide(), imagenet(), "z");
    let said = known(&proto, r#"{"image_mean": 0.5, "image_std": 0.5}"#, Normalization::Outside).unwrap();
    assert_eq!(said.image_mean, [0.5; 3]);
    // divided by 255 and no more: only a processor that feeds levels makes it clear
    let scaled = |processor: &str| fed(vec![node("Div", &["x", "k"], "y")], vec![tensor("k", &[], &[255.0])], "y", processor);
    assert!(scaled("").unwrap_err().contains("--normalization"));
    assert!(scaled(r#"{"do_rescale": false}"#).unwrap_err().contains("--normalization"));
    assert_eq!(scaled(r#"{"do_rescale": false, "do_normalize": false}"#), Ok(([0.0; 3], 1.0 / 255.0)));
    // blue, green, red
    let mut turned = IMAGENET_MEAN;
    turned.reverse();
    let tensors = vec![tensor("mean", &[1, 3, 1, 1], &turned), tensor("std", &[1], &[0.25])];
    assert!(fed(subtract_and_divide(), tensors, "z", "").unwrap_err().contains("blue, green, red"));
}

#[test]
fn what_is_unclear_asks() {
    for nodes in [
        vec![node("Resize", &["x", "", "scales"], "y")],
        vec![node("ReduceMean", &["x"], "m"), node("Slice", &["x"], "y")],
        vec![node("Sub", &["x", "network"], "y")],
    ] {
        let sentence = fed(nodes.clone(), Vec::new(), "y", "").unwrap_err();
        assert!(sentence.contains("--normalization") && !sentence.contains('\n'), "{sentence}");
        assert_eq!(known(&network(nodes, Vec::new(), "y"), "", Normalization::Inside).map(|metadata| metadata.image_mean), Ok([0.0; 3]));
    }
}

/// The answer about a file with these inputs, outputs and metadata.
fn refused(inputs: &[(&str, &[i64])], outputs: &[(&str, &[i64])], props: &[(&str, &str)], config: Option<&str>) -> String {
    let list = |values: &[(&str, &[i64])]| values.iter().map(|(name, dims)| value(name, FLOAT, dims)).collect();
    let graph = GraphProto { input: list(inputs), output: list(outputs), ..GraphProto::default() };
    let proto = ModelProto { graph: Some(graph), ..ModelProto::default() };
    let props = props.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let companions = Companions { config, ..Companions::default() };
    describe(&proto, &props, &companions, Normalization::Auto).unwrap_err().to_string()
}

#[test]
fn other_networks_are_named() {
    let image: &[(&str, &[i64])] = &[("images", &[1, 3, 640, 640])];
    let eomt: &[(&str, &[i64])] = &[("c", &[1, 5, 4]), ("m", &[1, 5, 8, 16])];
    let ultralytics = [("names", "{0: 'a'}"), ("stride", "32"), ("task", "segment"), ("imgsz", "[640, 640]")];
    let yolo: &[(&str, &[i64])] = &[("output0", &[1, 116, 8400]), ("output1", &[1, 32, 160, 160])];
    let boxes: &[(&str, &[i64])] = &[("logits", &[1, 100, 92]), ("pred_boxes", &[1, 100, 4])];
    let detector: &[(&str, &[i64])] = &[("dets", &[1, 300, 4]), ("labels", &[1, 300, 91]), ("masks", &[1, 300, 108, 108])];
    let three: &[(&str, &[i64])] = &[("1", &[1, 300, 4]), ("2", &[1, 300, 91]), ("3", &[1, 300, 108, 108])];
    let pixels: &[(&str, &[i64])] = &[("logits", &[1, 150, 128, 128])];
    let padded: &[(&str, &[i64])] = &[("pixel_values", &[1, 3, 8, 8]), ("pixel_mask", &[1, 8, 8])];
    let prompted: &[(&str, &[i64])] = &[("image", &[1, 3, 8, 8]), ("more", &[1, 2])];
    for (inputs, outputs, props, words) in [
        (image, yolo, &ultralytics[..], "Ultralytics"),
        (image, yolo, &[], "the same number of queries"),
        (image, boxes, &[], "DETR"),
        (image, detector, &[], "RF-DETR"),
        (image, three, &[], "'1' and '2'"),
        (image, pixels, &[], "[1, 150, 128, 128]"),
        (padded, eomt, &[], "pixel_mask"),
        (prompted, eomt, &[], "2 inputs"),
        (image, eomt, &[("model_type", "segformer")], "segformer"),
    ] {
        let sentence = refused(inputs, outputs, props, None);
        assert!(sentence.contains("not an EoMT network") && sentence.contains(words), "{sentence}");
    }
    assert!(refused(image, eomt, &[], None).contains("config.json"));
}

#[test]
fn a_configuration_of_something_else_is_named() {
    let outputs: &[(&str, &[i64])] = &[("c", &[1, 5, 4]), ("m", &[1, 5, 8, 16])];
    let said = |dims: &[i64], config: &str| refused(&[("x", dims)], outputs, &[], Some(config));
    let own: &[i64] = &[1, 3, 32, 64];
    for (dims, config, words) in [
        (own, r#"{"model_type": "eomt", "image_size": 640}"#, ["640x640", "32x64"]),
        (own, r#"{"model_type": "mask2former"}"#, ["model_type 'mask2former'", "not an EoMT"]),
        (own, r#"{"image_size": 32}"#, ["model_type", "config.json"]),
        (own, r#"{"model_type": "eomt", "image_size": [32, 64], "num_queries": 9}"#, ["num_queries is 9", "5 queries"]),
        (own, r#"{"model_type": "eomt", "image_size": "big"}"#, ["image_size", "config.json"]),
        (own, r#"{"model_type": "eomt", "image_size": [32, 64], "id2label": {"0": "a", "2": "b"}}"#, ["id2label", "numbered 1"]),
        (
            own,
            r#"{"model_type": "eomt", "image_size": [32, 64], "id2label": {"0": "a"}, "stuff_classes": [3]}"#,
            ["stuff_classes", "class 3"],
        ),
        (own, "[]", ["config.json", "object"]),
        (&[1, 32, 64, 3], r#"{"model_type": "eomt", "image_size": [32, 64]}"#, ["channels last", "[1, 3, height, width]"]),
        (&[2, 3, 32, 64], r#"{"model_type": "eomt", "image_size": [32, 64]}"#, ["2 pictures", "for one"]),
        (&[1, 1, 32, 64], r#"{"model_type": "eomt", "image_size": [32, 64]}"#, ["1 channels", "3"]),
    ] {
        let sentence = said(dims, config);
        assert!(words.iter().all(|word| sentence.contains(word)) && !sentence.contains('\n'), "{sentence}");
    }
    // free sizes are filled in by the configuration
    let mut proto = network(Vec::new(), Vec::new(), "x");
    proto.graph.as_mut().unwrap().input[0] = value("x", FLOAT, &[0, 3, 0, 0]);
    assert_eq!(known(&proto, "", Normalization::Auto).unwrap().input_size, (32, 64));
}

#[test]
fn known_classes_say_what_is_stuff() {
    let described = |labels: Vec<String>, more: &str, processor: &str| {
        let map: serde_json::Map<String, serde_json::Value> =
            labels.into_iter().enumerate().map(|(index, label)| (index.to_string(), label.into())).collect();
        let config = format!(r#"{{"model_type": "eomt", "image_size": [32, 64], "id2label": {}{more}}}"#, serde_json::Value::from(map));
        let texts = Texts { preprocessor: Some(processor), ..Texts::default() };
        let companions = Companions { config: Some(&config), processor: texts };
        let proto = network(Vec::new(), Vec::new(), "x");
        let (metadata, remarks) = describe(&proto, &BTreeMap::new(), &companions, Normalization::Auto).unwrap();
        (metadata.task, metadata.stuff_classes, remarks.warnings.len())
    };
    let owned = |labels: &[&str]| labels.iter().map(|label| label.to_string()).collect::<Vec<_>>();
    let coco = owned(LabelSet::Coco.labels(Task::Panoptic));
    assert_eq!(described(coco.clone(), "", "{}"), (Task::Panoptic, (80..133).collect(), 0));
    assert_eq!(described(coco[..80].to_vec(), "", "{}"), (Task::Instance, vec![], 0));
    assert_eq!(described(coco, r#", "stuff_classes": [9, 8, 9]"#, "{}"), (Task::Panoptic, vec![8, 9], 0));
    // some label files list synonyms
    let ade: Vec<String> = LabelSet::Ade20k.labels(Task::Panoptic).iter().map(|label| format!("{label}, other ")).collect();
    let stuff: Vec<u16> = ADE20K_STUFF.iter().map(|class| *class as u16).collect();
    assert_eq!(described(ade.clone(), "", "{}"), (Task::Panoptic, stuff, 0));
    // windows are for semantic segmentation, and said
    assert_eq!(described(ade, "", r#"{"do_split_image": true}"#), (Task::Semantic, (0..150).collect(), 1));
    assert_eq!(described(owned(LabelSet::Cityscapes.labels(Task::Semantic)), "", "{}").0, Task::Semantic);
    assert_eq!(described(owned(&["a", "b"]), "", "{}"), (Task::Panoptic, vec![], 1));
    assert_eq!(described(owned(&["a", "b"]), r#", "task": "instance""#, "{}"), (Task::Instance, vec![], 0));
}

#[test]
fn thresholds_of_the_processor_count() {
    let metadata =
        known(&network(Vec::new(), Vec::new(), "x"), r#"{"threshold": 0.4, "overlap_mask_area_threshold": 0.7}"#, Normalization::Auto);
    let thresholds = metadata.unwrap().thresholds;
    assert_eq!((thresholds.score, thresholds.mask, thresholds.overlap), (0.4, 0.5, 0.7));
}
