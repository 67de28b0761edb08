//! `evaluate` against the reference implementations' scores on the same predictions (tests/data/evaluate/make_vectors.py), on real
//! pictures, and on input that contradicts itself.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Scratch, data, eomt_edge, shipped_model, succeed};
use serde_json::{Value, json};

/// What the scores may differ by: both sides compute in doubles, in another order.
const TOLERANCE: f64 = 1e-9;

fn evaluate(arguments: &[&str]) -> Command {
    let mut command = eomt_edge();
    command.arg("evaluate").args(arguments).current_dir(data("evaluate"));
    command
}

fn scores(arguments: &[&str]) -> Value {
    let output = succeed(evaluate(arguments).arg("--json"));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn expected(name: &str) -> Value {
    let text = std::fs::read_to_string(data("evaluate").join(name).join("expected.json")).expect("readable");
    serde_json::from_str(&text).expect("JSON")
}

/// Every number of `expected` stands in `found`; a null is an absent or null value there.
fn agree(found: &Value, expected: &Value, path: &str) {
    match expected {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| agree(&found[key], value, &format!("{path}/{key}"))),
        Value::Number(number) => {
            let (wanted, found) = (number.as_f64().unwrap(), found.as_f64().unwrap_or_else(|| panic!("{path} is missing")));
            assert!((wanted - found).abs() < TOLERANCE, "{path}: {found}, and the reference says {wanted}");
        }
        Value::Null => {
            let empty = found.is_null() || found.as_object().is_some_and(|fields| fields.values().all(Value::is_null));
            assert!(empty, "{path}: {found}, and the reference has nothing to score");
        }
        other => panic!("{path}: {other}"),
    }
}

const PANOPTIC: [&str; 8] = [
    "--panoptic-json",
    "panoptic/truth.json",
    "--panoptic-dir",
    "panoptic/truth",
    "--predictions",
    "panoptic/predicted",
    "--predictions-json",
    "panoptic/predicted.json",
];

#[test]
fn panoptic_quality_equals_the_definition() {
    let found = scores(&PANOPTIC);
    let mut wanted = expected("panoptic");
    let semantic = wanted.as_object_mut().unwrap().remove("semantic").unwrap();
    agree(&found, &wanted, "panoptic");
    assert_eq!((found["task"].as_str(), found["images"].as_u64()), (Some("panoptic"), Some(16)));
    // the same pixels as classes
    let found = scores(&[&PANOPTIC[..], &["--task", "semantic"]].concat());
    agree(&found["miou"], &semantic["miou"], "miou");
    for (class, iou) in semantic["per_class"].as_object().unwrap() {
        agree(&found["per_class"][class]["iou"], iou, class);
    }
}

#[test]
fn miou_equals_torchmetrics_under_both_conventions() {
    let wanted = expected("semantic");
    let ade = ["--class-maps", "semantic/ade", "--predictions", "semantic/ade_predicted", "--ignore-label", "0", "--label-offset", "1"];
    let cityscapes = ["--class-maps", "semantic/cityscapes", "--predictions", "semantic/cityscapes_predicted"];
    let listed = ["--class-maps", "semantic/ade", "--predictions", "semantic/ade_predicted", "--class-values", "1,2,3,4,5"];
    for arguments in [&ade[..], &cityscapes, &listed] {
        let found = scores(arguments);
        agree(&found["miou"], &wanted["miou"], "miou");
        agree(&found["pixel_accuracy"], &wanted["pixel_accuracy"], "pixel_accuracy");
        for (class, iou) in wanted["per_class"].as_object().unwrap() {
            agree(&found["per_class"][class]["iou"], iou, class);
        }
    }
}

#[test]
fn average_precision_equals_pycocotools() {
    let found = scores(&["--instances", "instances/truth.json", "--predictions", "instances/results.json"]);
    agree(&found, &expected("instances"), "instances");
}

#[test]
fn anomaly_scores_equal_scikit_learn() {
    let found = scores(&["--anomaly-dir", "anomalies/truth", "--predictions", "anomalies/scores"]);
    agree(&found, &expected("anomalies"), "anomalies");
}
