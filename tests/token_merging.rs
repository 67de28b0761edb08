//! Token merging on whole files: what is off stays as it was, threads and instruction sets agree, and what cannot be merged is refused.

mod common;

use std::sync::Arc;

use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::kernels::arch::Isa;
use eomt_edge_core::kernels::workers::Workers;
use eomt_edge_core::model::{LoadOptions, Model, Precision};
use eomt_edge_tools::convert::{ConvertOptions, convert};

use common::{Scratch, data, eomt_edge, fail, shipped_model, succeed};

/// A reference checkpoint as a file of ours.
fn converted(case: &str, size: Option<(usize, usize)>, scratch: &Scratch) -> Vec<u8> {
    let path = scratch.path("m.onnx");
    let options = ConvertOptions { precision: Precision::F32, size, skip_check: true, ..ConvertOptions::default() };
    convert(&data("reference").join(case), &path, &options).expect("converts");
    std::fs::read(path).expect("there")
}

fn run(bytes: &[u8], merge: &str, isa: Isa, workers: Workers) -> Logits {
    let merging = merge.parse().expect("a ratio");
    let mut model = Model::load(bytes, &LoadOptions { isa, workers, merging, ..LoadOptions::default() }).expect("loads");
    let (height, width) = model.metadata().input_size;
    let values = (0..3 * height * width).map(|i| ((i * 7919 % 255) as f32 - 127.0) / 64.0).collect();
    let input = Tensor { height, width, values };
    let mut logits = Logits::default();
    for _ in 0..2 {
        model.run(&input, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
    }
    logits
}

#[test]
fn nothing_merged_is_the_same_bits() {
    let bytes = std::fs::read(shipped_model()).expect("the shipped model");
    let plain = run(&bytes, "0", Isa::detect(), Workers::one());
    // 100 patches: half of one is none
    for merge in ["0@2", "0.004@1"] {
        assert_eq!(run(&bytes, merge, Isa::detect(), Workers::one()), plain, "{merge}");
    }
    assert!(run(&bytes, "0.3", Isa::detect(), Workers::one()) != plain);
}

/// Grids of odd sides, and height and width that differ; one and several steps, down to the fewest tokens.
#[test]
fn instruction_sets_and_threads_agree_for_all_sizes() {
    let pool = || Workers::pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("starts")));
    for (size, merges) in [((80, 112), ["0.5", "0.94@1"]), ((144, 48), ["0.2@1,0.8@2", "0.9@2"]), ((16, 304), ["0.33@1", "0.6@2"])] {
        let scratch = Scratch::new(&format!("merging-{}", size.0));
        let bytes = converted("dinov2", Some(size), &scratch);
        for merge in merges {
            let scalar = run(&bytes, merge, Isa::SCALAR, Workers::one());
            assert!(scalar.class.values.iter().chain(&scalar.masks).all(|value| value.is_finite()));
            for isa in Isa::available() {
                assert_eq!(run(&bytes, merge, isa, Workers::one()), scalar, "{size:?} {merge} {}", isa.name());
            }
            assert_eq!(run(&bytes, merge, Isa::detect(), pool()), scalar, "{size:?} {merge}, two threads");
        }
    }
}

/// As many multiply-accumulates less as there are tokens less, and more of them the earlier they merge.
#[test]
fn work_becomes_less() {
    let bytes = std::fs::read(shipped_model()).expect("the shipped model");
    let macs = |merge: &str| {
        let merging = merge.parse().expect("a ratio");
        Model::load(&bytes, &LoadOptions { merging, ..LoadOptions::default() }).expect("loads").macs()
    };
    let [all, late, early, most] = ["0", "0.5@3", "0.5@1", "0.9@1"].map(macs);
    assert!(most < early && early < late && late < all, "{most} {early} {late} {all}");
}

#[test]
fn what_cannot_be_merged_is_refused_by_name() {
    let scratch = Scratch::new("merging-refused");
    let bench = || {
        let mut command = eomt_edge();
        command.args(["bench", "--frames", "1", "--model"]);
        command
    };
    for (merge, code, words) in
        [("0.96", 2, "RATIO@BLOCK"), ("0.5@0", 2, "from 1 on"), ("much", 2, "RATIO@BLOCK"), ("0.5@4", 1, "block 4 is not from 1 to 3")]
    {
        let sentence = fail(bench().arg(shipped_model()).args(["--merge", merge]), code);
        assert!(sentence.contains(words), "{merge}: {sentence}");
    }
    for (case, words) in [("dinov3", "rotary"), ("dinov2-masked", "attends through masks")] {
        converted(case, None, &scratch);
        let sentence = fail(bench().arg(scratch.path("m.onnx")).args(["--merge", "0.5"]), 1);
        assert!(sentence.contains("--merge") && sentence.contains(words), "{case}: {sentence}");
    }
    // exports of others: recognized or refused, whoever wrote them
    for (export, words) in
        [("dinov3-dynamo/model.onnx", "rotary"), ("attention/probabilities.onnx", "no attention"), ("attention/flat.onnx", "MLP")]
    {
        let sentence = fail(bench().arg(data("foreign").join(export)).args(["--merge", "0.5"]), 1);
        assert!(sentence.contains("blocks were not recognized") && sentence.contains(words), "{export}: {sentence}");
    }
    succeed(bench().arg(data("foreign/dinov2-dynamic-uint8/model.onnx")).args(["--merge", "0.5"]));
    let sentence =
        fail(eomt_edge().args(["run", "--frames", "1", "--source", "scenes", "--set", "model.merge=2", "--model"]).arg(shipped_model()), 2);
    assert!(sentence.contains("model.merge") && sentence.contains("RATIO@BLOCK"), "{sentence}");
}

/// One patch of 2x2 cannot lose more than three; a sentence says how many can.
#[test]
fn more_than_the_grid_has_is_refused() {
    let scratch = Scratch::new("merging-most");
    let bytes = converted("dinov2", Some((32, 32)), &scratch);
    let load = |merge: &str| Model::load(&bytes, &LoadOptions { merging: merge.parse().expect("a ratio"), ..LoadOptions::default() });
    load("0.75@1").expect("one token is left");
    let sentence = load("0.95@1").expect_err("none would be left").to_string();
    assert!(sentence.contains("2x2 patches") && sentence.contains("0.75 at most"), "{sentence}");
}
