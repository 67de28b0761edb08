//! Before and after the network, against transformers' EomtImageProcessor.

mod common;

use serde_json::Value;

use common::{Scratch, data, eomt_edge, floats, integers, succeed};

fn cases(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(data("reference/processing").join(file)).expect("there");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn pixel_values_equal_the_reference() {
    let scratch = Scratch::new("pre");
    for case in cases("pre.json") {
        let image = data("reference/processing").join(case["image"].as_str().unwrap());
        let expected = data("reference/processing").join(case["expected"].as_str().unwrap());
        let output = scratch.path("x.safetensors");
        succeed(eomt_edge().arg("preprocess").arg(&image).args(["--size", &case["input_size"].to_string()]).arg("-o").arg(&output));
        let ((shape, ours), (expected_shape, reference)) = (floats(&output, "pixel_values"), floats(&expected, "pixel_values"));
        assert_eq!(shape, expected_shape);
        let difference: Vec<f32> = ours.iter().zip(&reference).map(|(a, b)| (a - b).abs()).collect();
        // one 8-bit level is 0.0175; a few halves round differently (seen: 0.1 % of the values)
        assert!(difference.iter().all(|d| *d < 0.02), "{}", image.display());
        let off = difference.iter().filter(|d| **d > 1e-3).count() as f32 / difference.len() as f32;
        assert!(off < 0.005, "{}: {off} of the values", image.display());
    }
}

struct Outcome {
    ids: Vec<i32>,
    segments: Vec<Value>,
}

/// `postprocess` of one case, ids as in the reference (-1 = none).
fn postprocess(case: &Value, task: &str, parameters: &Value) -> Outcome {
    let scratch = Scratch::new(&format!("post-{task}-{}", case["file"].as_str().unwrap()));
    let mut command = eomt_edge();
    command.args(["postprocess", "--task", task, "--input"]).arg(data("reference/processing").join(case["file"].as_str().unwrap()));
    for (option, value) in [("--width", &case["width"]), ("--height", &case["height"]), ("--input-size", &case["input_size"])] {
        command.args([option, &value.to_string()]);
    }
    let stuff: Vec<String> = case["stuff_classes"].as_array().unwrap().iter().map(Value::to_string).collect();
    command.args(["--stuff", &stuff.join(",")]);
    let thresholds =
        [("--threshold", "threshold"), ("--mask-threshold", "mask_threshold"), ("--overlap-threshold", "overlap_mask_area_threshold")];
    for (option, key) in thresholds {
        if let Some(value) = parameters.get(key) {
            command.args([option, &value.to_string()]);
        }
    }
    succeed(command.arg("-o").arg(scratch.root()));
    let image = image::open(scratch.path("ids.png")).expect("PNG").into_luma16();
    let ids = image.into_raw().into_iter().map(|id| if id == u16::MAX { -1 } else { i32::from(id) }).collect();
    let text = std::fs::read_to_string(scratch.path("segments.json")).expect("there");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    Outcome { ids, segments: document["segments"].as_array().unwrap().clone() }
}

fn share_equal(a: &[i32], b: &[i32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

/// Pixels may differ where two candidates tie up to rounding.
const SHARE: f64 = 0.999;

#[test]
fn panoptic_and_instance_equal_the_reference() {
    for case in cases("post.json") {
        for (key, task) in [("panoptic", "panoptic"), ("panoptic_low", "panoptic"), ("instance", "instance")] {
            let outcome = postprocess(&case, task, &case[key]);
            let reference = integers(&data("reference/processing").join(case["file"].as_str().unwrap()), key);
            let share = share_equal(&outcome.ids, &reference);
            assert!(share >= SHARE, "{} {key}: {share}", case["file"]);
            let expected = case[key]["segments"].as_array().unwrap();
            assert_eq!(outcome.segments.len(), expected.len(), "{} {key}", case["file"]);
            for (ours, theirs) in outcome.segments.iter().zip(expected) {
                assert_eq!((&ours["id"], &ours["category_id"]), (&theirs["id"], &theirs["label_id"]));
                let difference = ours["score"].as_f64().unwrap() - theirs["score"].as_f64().unwrap();
                assert!(difference.abs() < 1e-4, "{} {key}: {ours} {theirs}", case["file"]); // f32 softmax and mean
            }
        }
    }
}

#[test]
fn semantic_equals_the_reference() {
    let mut ties = 0;
    for case in cases("post.json") {
        let file = data("reference/processing").join(case["file"].as_str().unwrap());
        let outcome = postprocess(&case, "semantic", &Value::Null);
        let (shape, class_logits) = floats(&file, "class_queries_logits");
        let all_classes_tie = class_logits.chunks(shape[2]).all(|row| row[..shape[2] - 1].iter().all(|v| *v == row[0]));
        if all_classes_tie {
            // every class has the same score at every pixel: the reference shows the rounding of its matrix product
            assert_eq!(outcome.segments.len(), 1);
            ties += 1;
            continue;
        }
        let share = share_equal(&outcome.ids, &integers(&file, "semantic"));
        assert!(share >= SHARE, "{}: {share}", case["file"]);
    }
    assert_eq!(ties, 1, "one case detects nothing");
}

/// Whole masks of overlapping instances: each decodes to its area and box, and the id map shows the later one on top.
#[test]
fn instance_masks_are_complete() {
    let case = &cases("post.json")[1];
    let outcome = postprocess(case, "instance", &case["instance"]);
    let (width, height) = (case["width"].as_u64().unwrap() as usize, case["height"].as_u64().unwrap() as usize);
    let mut painted = vec![-1; width * height];
    for segment in &outcome.segments {
        let counts = segment["segmentation"]["counts"].as_array().unwrap();
        assert_eq!(segment["segmentation"]["size"], serde_json::json!([height, width]));
        let (mut position, mut inside, mut area) = (0, false, 0);
        for count in counts {
            let count = count.as_u64().unwrap() as usize;
            if inside {
                area += count;
                for at in position..position + count {
                    painted[at % height * width + at / height] = segment["id"].as_i64().unwrap() as i32; // column-major
                }
            }
            position += count;
            inside = !inside;
        }
        assert_eq!(position, width * height);
        assert_eq!(segment["area"].as_u64().unwrap() as usize, area);
    }
    assert_eq!(painted, outcome.ids);
}

/// The whole way from picture to segments with a small trained model, against transformers with the same checkpoint
/// (image processor, network, panoptic post-processing at threshold 0.5).
#[test]
fn pictures_are_segmented_as_transformers_does() {
    let scratch = Scratch::new("end-to-end");
    let text = std::fs::read_to_string(data("clip-expected/segments.json")).expect("there");
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    let mut command = eomt_edge();
    command.args(["segment", "--model"]).arg(common::pytorch_model(&scratch)).arg("-o").arg(scratch.path("results"));
    succeed(command.args(expected.keys().map(|name| data(&format!("clip/{name}.png")))));
    for (name, segments) in &expected {
        let text = std::fs::read_to_string(scratch.path(&format!("results/{name}.json"))).expect("written");
        let ours: Value = serde_json::from_str(&text).expect("JSON");
        let (ours, theirs) = (ours["segments"].as_array().unwrap(), segments.as_array().unwrap());
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours["category_id"], theirs["label_id"], "{name}");
            let difference = ours["score"].as_f64().unwrap() - theirs["score"].as_f64().unwrap();
            assert!(difference.abs() < 1e-4, "{name}: {ours} {theirs}"); // f32 sums in another order
        }
        let ids = image::open(scratch.path(&format!("results/{name}.panoptic.png"))).expect("PNG").into_rgb8();
        let ids: Vec<i32> = ids.pixels().map(|pixel| i32::from(pixel[0])).collect();
        let reference = image::open(data(&format!("clip-expected/{name}.png"))).expect("PNG").into_luma8();
        let reference: Vec<i32> = reference.into_raw().into_iter().map(i32::from).collect();
        assert!(share_equal(&ids, &reference) >= SHARE, "{name}");
    }
}
