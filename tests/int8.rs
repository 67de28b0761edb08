//! `convert --precision int8`: the reference checkpoints, against what transformers computed in f32.

mod common;

use std::path::Path;

use eomt_edge_core::model::{LoadOptions, Model, Precision, names};

use common::{Scratch, data, eomt_edge, floats, succeed};

/// Mean relative error, `sum |a - b| / sum |b|`.
fn relative_error(ours: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(ours.len(), reference.len());
    let difference: f32 = ours.iter().zip(reference).map(|(a, b)| (a - b).abs()).sum();
    difference / reference.iter().map(|b| b.abs()).sum::<f32>()
}

fn convert(case: &str, output: &Path, more: &[&str]) -> String {
    let mut command = eomt_edge();
    command.arg("convert").arg(data(case)).arg("-o").arg(output).args(["--precision", "int8"]).args(more);
    String::from_utf8(succeed(&mut command).stdout).expect("UTF-8")
}

fn check(case: &str, tolerance: f32) {
    let scratch = Scratch::new(&format!("int8-{}", case.replace('/', "-")));
    let (onnx, output) = (scratch.path("m.onnx"), scratch.path("out.safetensors"));
    let table = convert(case, &onnx, &[]);
    assert!(
        table.lines().any(|line| line.starts_with("block.0.attention.q ") && line.contains(" int8 ") && line.ends_with(" dB")),
        "{table}"
    );
    assert!(table.lines().any(|line| line.starts_with("patch_embed ") && line.contains(" f32 ")), "{table}");
    assert!(table.trim_end().lines().last().is_some_and(|line| line.contains("m.onnx: ")), "{table}");
    let expected = data(case).join("expected.safetensors");
    succeed(eomt_edge().arg("logits").arg("--model").arg(&onnx).arg(&expected).arg("-o").arg(&output));
    for name in [names::CLASS_LOGITS, names::MASK_LOGITS] {
        let error = relative_error(&floats(&output, name).1, &floats(&expected, name).1);
        assert!(error < tolerance, "{case} {name}: {error}");
    }
}

macro_rules! cases {
    ($($test:ident: $case:literal, $tolerance:literal;)*) => { $( #[test] fn $test() { check($case, $tolerance); } )* };
}

// Twice what was seen with avx2, avx512bf16 and amx, mask logits 0.012 to 0.022, class logits below. The tokens are 48 wide, so a product
// averages over few roundings.
cases! {
    dinov2: "reference/dinov2", 0.035;
    dinov2_swiglu: "reference/dinov2-swiglu", 0.045;
    dinov2_patch8: "reference/dinov2-patch8", 0.027;
    dinov3: "reference/dinov3", 0.028;
    // more, as a mask logit near 0 opens or closes the view of a patch
    dinov2_masked: "reference/dinov2-masked", 0.05;
    dinov3_masked: "reference/dinov3-masked", 0.05;
}

/// The file says what it is and is smaller; the same command gives the same bytes.
#[test]
fn the_file_describes_itself() {
    let scratch = Scratch::new("int8-file");
    let (first, second, f32_file) = (scratch.path("first.onnx"), scratch.path("second.onnx"), scratch.path("f32.onnx"));
    convert("reference/dinov2", &first, &[]);
    convert("reference/dinov2", &second, &[]);
    succeed(eomt_edge().arg("convert").arg(data("reference/dinov2")).arg("-o").arg(&f32_file));
    let bytes = std::fs::read(&first).expect("there");
    assert!(bytes == std::fs::read(&second).expect("there"), "bit for bit");
    assert!(bytes.len() < std::fs::metadata(&f32_file).expect("there").len() as usize);
    let model = Model::load(&bytes, &LoadOptions::default()).expect("loads");
    assert_eq!(model.metadata().precision, Precision::Int8);
}

/// Pictures of the user, another size, weights in a second file.
#[test]
fn calibration_pictures_and_other_sizes() {
    use eomt_edge_tools::convert::{ConvertOptions, convert};
    let scratch = Scratch::new("int8-pictures");
    let base =
        ConvertOptions { precision: Precision::Int8, calibrate: Some(data("clip")), size: Some((64, 128)), ..ConvertOptions::default() };
    for (name, weights_inside_max) in [("inside.onnx", usize::MAX), ("beside.onnx", 1000)] {
        let path = scratch.path(name);
        convert(&data("reference/dinov2"), &path, &ConvertOptions { weights_inside_max, ..base.clone() }).expect("converts");
        let model = eomt_edge_host::model_file::load(&path, &eomt_edge_host::model_file::Compute::threads(1)).expect("loads");
        assert_eq!(model.metadata().input_size, (64, 128));
    }
}
