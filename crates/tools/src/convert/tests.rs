//! Preparing a network for int8 does not change what it computes.

mod token_merging;

use std::collections::BTreeMap;
use std::path::Path;

use eomt_edge_core::data::{Logits, Tensor};
use prost::Message;

use super::*;
use crate::checkpoint::Network;

/// Logits of `network` in `form`, for an input of 96 x 96.
fn logits(network: Network, form: Form, metadata: &Metadata) -> Logits {
    let size = metadata.input_size;
    let bytes = onnx::encode(graph::build(network, size, form).graph.finish("test", metadata.to_props()));
    let mut model = Model::load(&bytes, &LoadOptions::default()).expect("loads");
    let values = (0..3 * size.0 * size.1).map(|i| ((i * 7919 % 255) as f32 - 127.0) / 64.0).collect();
    let mut logits = Logits::default();
    model.run(&Tensor { height: size.0, width: size.1, values }, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
    logits
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Folded, means removed, smoothed, queries and keys balanced, channels last, and nothing quantized.
#[test]
fn preparations_change_no_logit() {
    for case in ["dinov2", "dinov2-swiglu", "dinov2-patch8", "dinov3", "dinov2-masked", "dinov3-masked"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data/reference").join(case);
        let mut checkpoint = checkpoint::read(&directory, &Options { hints: None, base: None }).expect("reads");
        let metadata = describe(&Subject::new(&checkpoint), &ConvertOptions::default(), &mut Vec::new()).expect("describes");
        let before = logits(checkpoint.network.clone(), Form::Float, &metadata);
        let original = checkpoint.network.clone();
        let (form, table) = prepare_int8(&mut checkpoint, metadata.input_size, &[]).expect("prepares");
        assert!(checkpoint.network != original);
        let after = logits(checkpoint.network.clone(), Form::Tokens { int8: BTreeMap::new() }, &metadata);
        // f32 rounding of weights and sums, on logits up to 15
        assert!(largest_difference(&before.class.values, &after.class.values) < 1e-3, "{case}");
        assert!(largest_difference(&before.masks, &after.masks) < 1e-3, "{case}");
        let Form::Tokens { int8 } = form else { panic!("{case}: int8 is written on tokens") };
        assert_eq!(int8.len(), table.iter().filter(|layer| layer.int8).count());
        for layer in &table {
            let Some(quantized) = int8.get(&layer.name) else { continue };
            assert!(quantized.weights.values.iter().all(|value| *value != i8::MIN), "{case} {}", layer.name);
            assert!(quantized.weights.scales.iter().all(|scale| *scale > 0.0), "{case} {}", layer.name);
            assert_eq!((quantized.weights.scales.len(), quantized.correction.len()), (layer.outputs, layer.outputs));
        }
    }
}

#[test]
fn a_network_that_overflows_is_refused() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data/reference/dinov2");
    let mut checkpoint = checkpoint::read(&directory, &Options { hints: None, base: None }).expect("reads");
    checkpoint.network.norm.scale.fill(f32::MAX);
    let error = prepare_int8(&mut checkpoint, (96, 96), &[]).expect_err("infinite tokens").to_string();
    assert!(error.contains("sees values that are not finite"), "{error}");
}

/// Fields of a protobuf message: number, wire type, and the content of those that have a length.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
    fn cut<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (content, rest) = bytes.split_at(length);
        *bytes = rest;
        content
    }
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = cut(bytes, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let content = match key & 7 {
            0 => {
                varint(&mut bytes);
                &[]
            }
            1 => cut(&mut bytes, 8),
            2 => {
                let length = varint(&mut bytes) as usize;
                cut(&mut bytes, length)
            }
            5 => cut(&mut bytes, 4),
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, key & 7, content));
    }
    found
}

/// Field `number` of all `messages`: wire type and content.
fn each<'a>(messages: &[(u64, &'a [u8])], number: u64) -> Vec<(u64, &'a [u8])> {
    let all = messages.iter().flat_map(|(_, message)| fields(message));
    all.filter(|(found, ..)| *found == number).map(|(_, kind, content)| (kind, content)).collect()
}

/// The wire types of the lists of integers in an ONNX file: `ints` of attributes, then `dims` of tensors.
fn wire_types_of_lists(file: &[u8]) -> [Vec<u64>; 2] {
    let graph = each(&[(2, file)], 7);
    let attributes = each(&each(&graph, 1), 5);
    [each(&attributes, 8), each(&each(&graph, 5), 1)].map(|lists| lists.iter().map(|(kind, _)| *kind).collect())
}

/// rten 0.27 refuses packed lists ("FieldTypeMismatch") where onnx.proto declares none.
#[test]
fn lists_of_integers_are_not_packed() {
    for case in ["dinov2", "dinov3-masked"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data/reference").join(case);
        let mut checkpoint = checkpoint::read(&directory, &Options { hints: None, base: None }).expect("reads");
        let metadata = describe(&Subject::new(&checkpoint), &ConvertOptions::default(), &mut Vec::new()).expect("describes");
        let original = checkpoint.network.clone();
        let (int8, _) = prepare_int8(&mut checkpoint, metadata.input_size, &[]).expect("prepares");
        for (network, form) in [(original, Form::Float), (checkpoint.network, int8)] {
            let proto = graph::build(network, metadata.input_size, form).graph.finish("test", metadata.to_props());
            let bytes = onnx::encode(proto.clone());
            let [ints, dims] = wire_types_of_lists(&bytes);
            assert!(ints.len() > 20 && ints.iter().all(|kind| *kind == 0), "{case}: attributes {ints:?}");
            assert!(dims.len() > 100 && dims.iter().all(|kind| *kind == 0), "{case}: tensors {dims:?}");
            // nothing else of the model changes, and what prost writes is what the test can see
            assert!(ModelProto::decode(&bytes[..]).expect("decodes") == proto, "{case}");
            let packed = wire_types_of_lists(&proto.encode_to_vec());
            assert!(packed.iter().flatten().all(|kind| *kind == 2), "{case}: prost packs");
        }
    }
}
