//! Preparing a network for int8 does not change what it computes.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::data::{Logits, Tensor};
use crate::tools::checkpoint::Network;

/// Logits of `network` in `form`, for an input of 96 x 96.
fn logits(network: Network, form: Form, metadata: &Metadata) -> Logits {
    let size = metadata.input_size;
    let bytes = graph::build(network, size, form).graph.finish("test", metadata.to_props()).encode_to_vec();
    let mut model = Model::load(&bytes, &LoadOptions::default()).expect("loads");
    let values = (0..3 * size.0 * size.1).map(|i| ((i * 7919 % 255) as f32 - 127.0) / 64.0).collect();
    let mut logits = Logits::default();
    model.run(&Tensor { height: size.0, width: size.1, values }, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
    logits
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Folded, centred, smoothed, balanced, channels last, and nothing quantized.
#[test]
fn preparations_change_no_logit() {
    for case in ["dinov2", "dinov2-swiglu", "dinov2-patch8", "dinov3", "dinov2-masked", "dinov3-masked"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reference").join(case);
        let mut checkpoint = checkpoint::read(&directory, &Options { hints: None, base: None }).expect("reads");
        let metadata = describe(&checkpoint, &ConvertOptions::default(), &mut Vec::new()).expect("describes");
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
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reference/dinov2");
    let mut checkpoint = checkpoint::read(&directory, &Options { hints: None, base: None }).expect("reads");
    checkpoint.network.norm.scale.fill(f32::MAX);
    let error = prepare_int8(&mut checkpoint, (96, 96), &[]).expect_err("infinite tokens").to_string();
    assert!(error.contains("sees values that are not finite"), "{error}");
}
