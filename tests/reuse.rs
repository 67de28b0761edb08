//! Reuse over time: against its definition in plain loops, and by what must hold whatever the network.

mod common;
#[path = "reuse/naive.rs"]
mod naive;

use std::sync::Arc;

use eomt_edge_core::data::{ClassLogits, Logits, Tensor};
use eomt_edge_core::kernels::arch::Isa;
use eomt_edge_core::kernels::workers::Workers;
use eomt_edge_core::model::{LoadOptions, Model, Precision, ReuseConfig};
use eomt_edge_tools::convert::{ConvertOptions, convert};

use common::{Scratch, data, eomt_edge, fail, floats, shipped_model, succeed};
use naive::Naive;

fn converted(case: &str, precision: Precision, size: Option<(usize, usize)>) -> Vec<u8> {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default().replace("::", "-");
    let scratch = Scratch::new(&format!("reuse-{case}-{precision:?}-{name}-{size:?}"));
    let path = scratch.path("m.onnx");
    let options = ConvertOptions { precision, size, ..ConvertOptions::default() };
    convert(&data("reference").join(case), &path, &options).expect("converts");
    std::fs::read(path).expect("there")
}

fn load(bytes: &[u8], reuse: Option<&str>) -> Model {
    load_on(bytes, reuse, Isa::detect(), Workers::one())
}

fn load_on(bytes: &[u8], reuse: Option<&str>, isa: Isa, workers: Workers) -> Model {
    let reuse = reuse.map(|text| text.parse::<ReuseConfig>().expect("a setting"));
    Model::load(bytes, &LoadOptions { isa, workers, reuse, ..LoadOptions::default() }).expect("loads")
}

fn run(model: &mut Model, input: &Tensor) -> Logits {
    let mut logits = Logits::default();
    model.run(input, |class: &ClassLogits, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
    logits
}

fn bits(logits: &Logits) -> Vec<u32> {
    logits.class.values.iter().chain(&logits.masks).map(|value| value.to_bits()).collect()
}

/// Mean error over mean magnitude, of masks.
fn error(ours: &Logits, reference: &Logits) -> f32 {
    let difference: f32 = ours.masks.iter().zip(&reference.masks).map(|(a, b)| (a - b).abs()).sum();
    difference / reference.masks.iter().map(|b| b.abs()).sum::<f32>()
}

/// The reference picture, or one made up of another size.
fn picture(model: &Model) -> Tensor {
    let (height, width) = model.metadata().input_size;
    if (height, width) == (96, 96) {
        let (_, values) = floats(&data("reference/dinov2/expected.safetensors"), "pixel_values");
        return Tensor { height, width, values };
    }
    let mut tensor = Tensor::zeros(height, width);
    tensor.values.iter_mut().enumerate().for_each(|(at, value)| *value = ((at * 7919 % 1009) as f32 / 504.5 - 1.0) * 2.0);
    tensor
}

/// Adds so many levels of 8 bits to a square, all channels.
fn paint(tensor: &mut Tensor, (top, left, side): (usize, usize, usize), levels: f32) {
    let Tensor { height, width, .. } = *tensor;
    for (c, y, x) in (0..3).flat_map(|c| (top..top + side).flat_map(move |y| (left..left + side).map(move |x| (c, y, x)))) {
        tensor.values[(c * height + y) * width + x] += levels / 255.0 / [0.229, 0.224, 0.225][c];
    }
}

/// A square that moves down a still picture, and something dim that moves beside it.
fn clip(model: &Model, frames: usize) -> Vec<Tensor> {
    let still = picture(model);
    let frame = |t: usize| {
        let mut frame = still.clone();
        paint(&mut frame, (5 * t % 40, 6, 20), 120.0);
        paint(&mut frame, (3 * t % 50, 34, 9), -3.0);
        frame
    };
    (0..frames).map(frame).collect()
}

/// Frame by frame: what changes, what is too dim to count until it adds up, what is due, and what is beyond the budget.
#[test]
fn equals_the_definition() {
    let bytes = converted("dinov2", Precision::F32, None);
    let (threshold, budget, refresh) = (6.0, 0.6, 7);
    let mut model = load(&bytes, Some("6,0.6,7"));
    let mut anew = load(&bytes, None);
    let mut naive = Naive::open(&data("reference/dinov2/model.safetensors"));
    let mut still = picture(&model);
    let (mut partial, mut stale, mut computed) = (0, 0, 0);
    for t in 0..10 {
        match t {
            1 => paint(&mut still, (20, 20, 9), 90.0),
            3 => paint(&mut still, (50, 70, 12), -4.0), // too dim to count
            4 => paint(&mut still, (50, 70, 12), -4.0), // together it counts
            5 => paint(&mut still, (3, 3, 1), 40.0),    // one pixel: not eight times the threshold, nor a mean
            6 => paint(&mut still, (3, 3, 1), 40.0),
            7 => paint(&mut still, (0, 0, 90), 30.0), // beyond the budget
            9 => paint(&mut still, (60, 10, 30), -60.0),
            _ => {}
        }
        let ours = run(&mut model, &still);
        let (expected, count) = naive.run(&still.values, threshold, budget, refresh);
        for (what, ours, expected) in [("class", &ours.class.values, &expected.class), ("mask", &ours.masks, &expected.masks)] {
            assert_eq!(ours.len(), expected.len());
            for (at, (a, b)) in ours.iter().zip(expected).enumerate() {
                // f32 through 4 layers, logits up to 13
                assert!((f64::from(*a) - b).abs() < 1e-4, "frame {t}, {what} {at}: {a}, not {b}");
            }
        }
        computed += count as u64;
        assert_eq!(model.reuse_counts().expect("reuse is on").computed, computed, "frame {t}");
        partial += usize::from(count < 36);
        stale += usize::from(error(&ours, &run(&mut anew, &still)) > 1e-4);
    }
    // the definition is not that of the network without reuse
    assert!(partial >= 6 && stale >= 3, "{partial} frames are computed in part, {stale} differ from whole ones");
}

/// The sizes and precisions of the properties below.
fn cases() -> Vec<(String, Vec<u8>)> {
    let mut cases = vec![("shipped".to_owned(), std::fs::read(shipped_model()).expect("the shipped model"))];
    for (case, precision, size) in [
        ("dinov2", Precision::F32, None),
        ("dinov2", Precision::Int8, None),
        ("dinov2", Precision::F32, Some((80, 112))),
        ("dinov2-swiglu", Precision::Int8, Some((112, 48))),
        ("dinov2-patch8", Precision::F32, Some((56, 72))),
    ] {
        cases.push((format!("{case} {precision:?} {size:?}"), converted(case, precision, size)));
    }
    cases
}

#[test]
fn whole_frames_and_still_scenes_are_those_of_the_network_without_reuse() {
    for (name, bytes) in cases() {
        let (mut anew, mut beyond) = (load(&bytes, None), load(&bytes, Some("0,0,0")));
        for (t, frame) in clip(&anew, 3).iter().enumerate() {
            assert!(bits(&run(&mut beyond, frame)) == bits(&run(&mut anew, frame)), "{name}: frame {t} beyond the budget");
        }
        // a still scene: nothing is chosen, or what is due
        let frame = &clip(&anew, 1)[0];
        let expected = bits(&run(&mut anew, frame));
        for setting in ["0,1,0", "0,1,3", "9,0.5,16"] {
            let mut model = load(&bytes, Some(setting));
            for t in 0..5 {
                assert!(bits(&run(&mut model, frame)) == expected, "{name} {setting}: frame {t} of a still scene");
            }
            let counts = model.reuse_counts().expect("reuse is on");
            assert!(counts.full == 1 && counts.share() < 0.5, "{name} {setting}: {counts:?}");
        }
    }
}

/// What was computed for another scene is gone.
#[test]
fn after_a_reset_it_is_a_fresh_model() {
    for (name, bytes) in cases() {
        let (mut fresh, mut used) = (load(&bytes, Some("6,1,5")), load(&bytes, Some("6,1,5")));
        let frames = clip(&fresh, 5);
        frames.iter().for_each(|frame| drop(run(&mut used, frame)));
        used.reset();
        for (t, frame) in frames.iter().rev().enumerate() {
            assert!(bits(&run(&mut used, frame)) == bits(&run(&mut fresh, frame)), "{name}: frame {t} after a reset");
        }
        assert_eq!(used.reuse_counts(), fresh.reuse_counts(), "{name}");
        assert!(used.reuse_counts().expect("reuse is on").full < 5, "{name}");
    }
}

/// When the scene stands still again, each round of the refresh makes one more layer of every patch right.
#[test]
fn the_refresh_ends_the_drift() {
    const REFRESH: usize = 5;
    let bytes = converted("dinov2", Precision::F32, None);
    let (mut anew, mut model, mut without) = (load(&bytes, None), load(&bytes, Some("6,1,5")), load(&bytes, Some("6,1,0")));
    let frames = clip(&anew, 6);
    for frame in &frames {
        run(&mut model, frame);
        run(&mut without, frame);
    }
    let last = &frames[5];
    let expected = run(&mut anew, last);
    let mut errors = Vec::new();
    for _ in 0..=4 * REFRESH {
        errors.push(error(&run(&mut model, last), &expected));
    }
    assert!(errors[0] > 1e-3, "there is drift to end: {errors:?}");
    assert!(errors[REFRESH] < errors[0] && errors[2 * REFRESH] < errors[REFRESH], "{errors:?}");
    assert_eq!(errors[4 * REFRESH], 0.0, "4 layers, 4 rounds: {errors:?}");
    assert!(error(&run(&mut without, last), &expected) > 1e-3, "without a refresh it stays");
}

/// The same patches and, where the kernels agree, the same bits.
#[test]
fn threads_and_instruction_sets_change_nothing() {
    for precision in [Precision::F32, Precision::Int8] {
        let bytes = converted("dinov2", precision, None);
        let scalar = load_on(&bytes, None, Isa::SCALAR, Workers::one());
        let frames = clip(&scalar, 5);
        let all = |isa: Isa, workers: Workers| {
            let mut model = load_on(&bytes, Some("6,0.9,9"), isa, workers);
            let answers: Vec<Vec<u32>> = frames.iter().map(|frame| bits(&run(&mut model, frame))).collect();
            (answers, model.reuse_counts())
        };
        let expected = all(Isa::SCALAR, Workers::one());
        assert!(expected.1.is_some_and(|counts| counts.full == 1 && counts.share() < 0.7), "{:?}", expected.1);
        for isa in Isa::available() {
            let alone = all(isa, Workers::one());
            // half-precision products round otherwise (tests/engine.rs)
            let agrees = precision == Precision::F32 || isa.half_tile().is_none();
            assert!(alone.1 == expected.1 && (!agrees || alone.0 == expected.0), "{precision:?} {}", isa.name());
        }
        let alone = all(Isa::detect(), Workers::one());
        for threads in [2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("starts");
            assert!(all(Isa::detect(), Workers::pool(Arc::new(pool))) == alone, "{precision:?} {threads} threads");
        }
    }
}

#[test]
fn networks_that_read_patches_in_another_way_are_refused_by_name() {
    for (case, word) in [("dinov2-masked", "attends through masks"), ("dinov3-masked", "its node")] {
        let bytes = converted(case, Precision::F32, None);
        let options = LoadOptions { reuse: Some(ReuseConfig::default()), ..LoadOptions::default() };
        let refusal = Model::load(&bytes, &options).expect_err(case).to_string();
        assert!(refusal.contains("reuse over time cannot be applied") && refusal.contains(word), "{case}: {refusal}");
        Model::load(&bytes, &LoadOptions::default()).expect("without it, it runs");
    }
}

#[test]
fn the_commands_take_it() {
    let (model, clip) = (shipped_model(), data("clip"));
    let mut bench = eomt_edge();
    bench.args(["bench", "--frames", "8", "--json", "--reuse", "6,1,8", "--model"]).arg(&model).arg("--image").arg(&clip);
    let out = succeed(&mut bench);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert!(report["reuse"]["share"].as_f64().is_some_and(|share| share > 0.0 && share < 1.0), "{report}");
    assert_eq!(report["reuse"]["full_frames"], 1);
    let out = succeed(eomt_edge().args(["bench", "--frames", "1", "--json", "--model"]).arg(&model));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert!(report.get("reuse").is_none(), "off by default");
    for (setting, word) in [("6,2", "budget"), ("-1", "threshold"), ("six", "THRESHOLD"), ("6,1,1,1", "THRESHOLD")] {
        let sentence = fail(eomt_edge().arg("bench").arg(format!("--reuse={setting}")).arg("--model").arg(&model), 2);
        assert!(sentence.contains(word), "{setting}: {sentence}");
        let sentence = fail(eomt_edge().args(["run", "--frames", "1", "--set"]).arg(format!("model.reuse={setting}")), 2);
        assert!(sentence.contains(word), "{setting}: {sentence}");
    }
}

#[test]
fn evaluation_takes_frames_in_order() {
    let scratch = Scratch::new("reuse-evaluate");
    succeed(eomt_edge().arg("scenes").arg(scratch.root()).args(["--count", "3", "--size", "96"]));
    let evaluate = |more: &[&str]| {
        let mut command = eomt_edge();
        command.args(["evaluate", "--json", "--model"]).arg(shipped_model());
        command.arg("--images").arg(scratch.path("images")).arg("--panoptic-json").arg(scratch.path("panoptic.json"));
        command.arg("--panoptic-dir").arg(scratch.path("panoptic")).args(more);
        command
    };
    // each scene is another: beyond every budget but one
    let alone = succeed(&mut evaluate(&[])).stdout;
    assert!(succeed(&mut evaluate(&["--reuse", "0,0,0"])).stdout == alone);
    assert!(succeed(&mut evaluate(&["--reuse", "255,1,0"])).stdout != alone, "nothing counts as a change");
    for option in [&["--windows", "--task", "semantic"][..], &["--report", "r"]] {
        let sentence = fail(evaluate(option).arg("--reuse"), 2);
        assert!(sentence.contains("--reuse") && sentence.contains(option[0]), "{sentence}");
    }
}
