//! Every reference checkpoint: `convert`, then `logits`, against what transformers and the authors' code computed.

mod common;

use std::path::Path;
use std::sync::Arc;

use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::kernels::workers::Workers;
use eomt_edge_core::model::{LoadOptions, Model, names};
use eomt_edge_host::model_file::Compute;

use common::{Scratch, data, eomt_edge, floats, largest_difference, succeed};

/// f32 sums in another order; seen: 2e-5 on logits of up to 15.
const TOLERANCE: f32 = 1e-3;

/// `pixel_values` of a case, normalized here when the reference took 0..=255.
fn pixel_values(expected: &Path, authors: bool) -> (Vec<usize>, Vec<f32>) {
    if !authors {
        return floats(expected, "pixel_values");
    }
    let (shape, mut values) = floats(expected, "image_rgb_u8_as_f32");
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let plane = shape[2] * shape[3];
    values.iter_mut().enumerate().for_each(|(i, value)| *value = (*value / 255.0 - mean[i / plane % 3]) / std[i / plane % 3]);
    (shape, values)
}

fn check(case: &str) {
    let scratch = Scratch::new(&case.replace('/', "-"));
    let directory = data(case);
    let expected = directory.join("expected.safetensors");
    let (onnx, input, output) = (scratch.path("m.onnx"), scratch.path("in.safetensors"), scratch.path("out.safetensors"));
    let mut convert = eomt_edge();
    convert.arg("convert").args(["-o".as_ref(), onnx.as_os_str()]);
    let hints = directory.join("hints.json");
    let weights = ["pytorch_model.bin", "epoch=3.ckpt"].map(|name| directory.join(name)).into_iter().find(|path| path.exists());
    // A folder is enough where it holds one file.
    convert.arg(weights.as_ref().unwrap_or(&directory));
    if hints.exists() {
        convert.arg("--hints").arg(hints);
    }
    if directory.join("base").exists() {
        convert.arg("--base").arg(directory.join("base"));
    }
    succeed(&mut convert);

    let raw_rgb = std::fs::read(&expected).expect("there");
    let authors = safetensors::SafeTensors::deserialize(&raw_rgb).expect("safetensors").tensor("pixel_values").is_err();
    let (shape, values) = pixel_values(&expected, authors);
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes).expect("shape");
    std::fs::write(&input, safetensors::serialize([("pixel_values", view)], None).expect("serializes")).expect("writable");
    succeed(eomt_edge().arg("logits").arg("--model").arg(&onnx).arg(&input).arg("-o").arg(&output));
    for name in [names::CLASS_LOGITS, names::MASK_LOGITS] {
        let ((shape, ours), (expected_shape, reference)) = (floats(&output, name), floats(&expected, name));
        assert_eq!(shape, expected_shape, "{case} {name}");
        let difference = largest_difference(&ours, &reference);
        assert!(difference < TOLERANCE, "{case} {name}: {difference}");
    }
}

macro_rules! cases {
    ($($test:ident: $case:literal),* $(,)?) => { $( #[test] fn $test() { check($case); } )* };
}

cases! {
    dinov2: "reference/dinov2",
    dinov2_masked: "reference/dinov2-masked",
    dinov2_swiglu: "reference/dinov2-swiglu",
    dinov2_patch8: "reference/dinov2-patch8",
    dinov3: "reference/dinov3",
    dinov3_masked: "reference/dinov3-masked",
    authors_layout: "reference/upstream-layout",
    hf_bf16: "checkpoint/hf-bf16",
    hf_dinov3_gated: "checkpoint/hf-dinov3-gated",
    hf_f16: "checkpoint/hf-f16",
    hf_mixed_masking_01: "checkpoint/hf-mixed-masking-01",
    hf_mixed_masking_10: "checkpoint/hf-mixed-masking-10",
    upstream_cls_posembed: "checkpoint/upstream-cls-posembed",
    upstream_dinov3_delta: "checkpoint/upstream-dinov3-delta",
    upstream_dinov3_whole: "checkpoint/upstream-dinov3-whole",
    upstream_giant: "checkpoint/upstream-giant",
    upstream_giant_reg: "checkpoint/upstream-giant-reg",
    upstream_masked: "checkpoint/upstream-masked",
    upstream_reg_posembed: "checkpoint/upstream-reg-posembed",
    upstream_strided: "checkpoint/upstream-strided",
    lightly_dinov2: "checkpoint/lightly-dinov2",
    lightly_dinov2_noreg: "checkpoint/lightly-dinov2-noreg",
    lightly_dinov3: "checkpoint/lightly-dinov3",
    lightly_dinov3_gated: "checkpoint/lightly-dinov3-gated",
    libreyolo: "checkpoint/libreyolo",
    attr_eomt: "checkpoint/attr-eomt",
    lightning: "checkpoint/lightning",
}

/// Only the kept queries' masks, and the same bits as when all are computed.
#[test]
fn kept_masks_are_those_of_all_queries() {
    let scratch = Scratch::new("kept");
    let onnx = scratch.path("m.onnx");
    succeed(eomt_edge().arg("convert").arg(data("reference/dinov2")).arg("-o").arg(&onnx));
    let bytes = std::fs::read(&onnx).expect("there");
    let (_, values) = floats(&data("reference/dinov2/expected.safetensors"), "pixel_values");
    let input = Tensor { height: 96, width: 96, values };
    let run = |prune_masks: bool, kept: &[usize]| {
        let mut model = Model::load(&bytes, &LoadOptions { prune_masks, ..LoadOptions::default() }).expect("loads");
        assert_eq!(model.prunes_masks(), prune_masks);
        let mut logits = Logits::default();
        model.run(&input, |_, list| list.extend_from_slice(kept), &mut logits).expect("runs");
        logits
    };
    let all = run(true, &(0..10).collect::<Vec<_>>());
    let dense = run(false, &(0..10).collect::<Vec<_>>());
    for kept in [vec![], vec![3], vec![0, 4, 9]] {
        let some = run(true, &kept);
        assert_eq!(some.masks.len(), kept.len() * 24 * 24);
        for (index, &query) in kept.iter().enumerate() {
            assert_eq!(some.mask(index), all.mask(query), "query {query}, bit for bit");
        }
    }
    // two orders of summation over 48 channels, logits up to 13
    assert!(largest_difference(&all.masks, &dense.masks) < 1e-4);
}

/// Networks of more than 2 GiB keep their weights in a second file; here a small one is made to.
#[test]
fn weights_beside_the_file_give_the_same_answer() {
    use eomt_edge_tools::convert::{ConvertOptions, convert};
    let scratch = Scratch::new("beside");
    let (_, values) = floats(&data("reference/dinov2/expected.safetensors"), "pixel_values");
    let input = Tensor { height: 96, width: 96, values };
    let mut results = Vec::new();
    for (name, weights_inside_max) in [("inside.onnx", usize::MAX), ("beside.onnx", 1000)] {
        let path = scratch.path(name);
        convert(&data("reference/dinov2"), &path, &ConvertOptions { weights_inside_max, ..ConvertOptions::default() }).expect("converts");
        let mut model = eomt_edge_host::model_file::load(&path, &Compute::threads(1)).expect("loads");
        let mut logits = Logits::default();
        model.run(&input, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
        results.push(logits);
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(scratch.names(), ["beside.onnx", "beside.onnx.data", "inside.onnx"]);
}

/// Results do not depend on the number of threads, nor on the run.
#[test]
fn threads_do_not_change_the_answer() {
    let bytes = std::fs::read(common::shipped_model()).expect("the shipped model");
    let values = (0..3 * 160 * 160).map(|i| ((i * 7919 % 255) as f32 - 127.0) / 64.0).collect();
    let input = Tensor { height: 160, width: 160, values };
    let mut results = Vec::new();
    for threads in [1, 2, 1] {
        let workers = Workers::pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("starts")));
        let mut model = Model::load(&bytes, &LoadOptions { workers, ..LoadOptions::default() }).expect("loads");
        let mut logits = Logits::default();
        model.run(&input, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
        results.push(logits);
    }
    assert_eq!(results[0], results[2]);
    assert_eq!(results[0], results[1]);
}
