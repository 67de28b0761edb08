//! Against `tests/data/video/make_vectors.py`, which computes the measures pixel by pixel.

use serde_json::Value;

use super::report::Outcome;
use super::*;
use crate::datasets::labels::PanopticSegment;

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

fn map(ids: &Value, table: &Value, (width, height): (u64, u64)) -> PanopticMap {
    let segment = |row: &Value| {
        let row = numbers(row);
        let crowd = row.get(2) == Some(&1);
        PanopticSegment { id: row[0] as u32, class: row[1] as usize, area: u64::MAX, crowd, score: None }
    };
    let segments = table.as_array().unwrap().iter().map(segment).collect();
    PanopticMap { width: width as u32, height: height as u32, ids: numbers(ids).iter().map(|id| *id as u32).collect(), segments }
}

#[test]
fn measures_are_those_of_their_definitions() {
    let document: Value = serde_json::from_str(include_str!("../../../../../tests/data/video/vectors.json")).unwrap();
    let size = (document["width"].as_u64().unwrap(), document["height"].as_u64().unwrap());
    let class = |(id, thing): (u64, &Value)| Class { id, name: format!("class {id}"), is_thing: thing.as_bool() };
    let classes: Vec<Class> = (0..).zip(document["is_thing"].as_array().unwrap()).map(class).collect();
    let cases = document["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    let mut switched = 0;
    for (number, case) in cases.iter().enumerate() {
        let (mut sums, mut outcome) = (Sums::new(&classes), Outcome::new(classes.clone()));
        for clip in case["clips"].as_array().unwrap() {
            let frame = |frame: &Value| {
                FrameOverlap::of(&map(&frame["gt"], &frame["gt_table"], size), &map(&frame["pred"], &frame["pred_table"], size))
            };
            let frames: Vec<FrameOverlap> = clip.as_array().unwrap().iter().map(frame).collect();
            sums.add(&frames, &classes);
        }
        outcome.finish(&sums);
        let found = outcome.json();
        let close = |found: &Value, expected: &Value, what: &str| {
            let (a, b) = (found.as_f64().unwrap_or(f64::NAN), expected.as_f64().unwrap());
            assert!((a - b).abs() < 1e-9, "case {number}, {what}: {a}, and the definition gives {b}");
        };
        for (k, expected) in (1..).zip(case["vpq"].as_array().unwrap()) {
            let found = &found["vpq"]["windows"][k.to_string()];
            for (group, expected) in ["all", "things", "stuff"].iter().zip(expected.as_array().into_iter().flatten()) {
                close(&found[group], expected, &format!("VPQ of {k}, {group}"));
            }
            assert_eq!(expected.is_null(), found["all"].is_null(), "case {number}, windows of {k}");
        }
        for (name, expected) in ["stq", "aq", "sq"].iter().zip(case["stq"].as_array().unwrap()) {
            close(&found[name], expected, name);
        }
        for (name, expected) in ["id_switches", "matched", "things"].iter().zip(case["switches"].as_array().unwrap()) {
            assert_eq!(&found[name], expected, "case {number}, {name}");
        }
        switched += found["id_switches"].as_u64().unwrap();
        assert!(!outcome.table().is_empty());
    }
    assert!(switched > 10, "the cases have switches");
}
