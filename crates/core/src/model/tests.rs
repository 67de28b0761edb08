//! A model whose network remembers: what [`Model::reset`] is for.

use tract_onnx::prelude::{DatumExt, SpecialOps, TypedModel, TypedSimplePlan};
use tract_onnx::tract_core::ops::array::Slice;

use super::ops::Fused;
use super::*;
use crate::data::{Task, Thresholds};
use crate::kernels::workers::Workers;

/// `[1, 3, 4, 4]` pixel values, summed over time; of the sums, 12 are the class logits of 4 queries, 48 the masks `[1, 3, 4, 4]`.
fn summing() -> Model {
    let engine = Engine::new(Isa::SCALAR, Workers::one());
    let mut graph = TypedModel::default();
    let source = graph.add_source("pixel_values", f32::fact([1, 3, 4, 4])).expect("a source");
    let sums = graph.wire_node("sums", Fused::sum(&[1, 3, 4, 4], &engine), &[source]).expect("wires")[0];
    let some = Slice { axis: 1, start: 0.into(), end: 1.into() };
    let class = graph.wire_node("class", some, &[sums]).expect("wires")[0];
    graph.select_output_outlets(&[class, sums]).expect("outputs");
    let plan = TypedSimplePlan::new(graph).expect("a plan");
    let metadata = Metadata {
        name: String::new(),
        task: Task::Panoptic,
        labels: vec![String::new(); 15],
        stuff_classes: vec![],
        image_mean: [0.0; 3],
        image_std: [1.0; 3],
        input_size: (4, 4),
        thresholds: Thresholds::default(),
        precision: Precision::F32,
        source_sha256: String::new(),
        converter: String::new(),
    };
    Model {
        metadata,
        origin: Origin::default(),
        state: plan.spawn().expect("a state"),
        plan,
        masks: MaskOutput::Dense,
        engine,
        queries: 1,
        classes: 16,
        mask_size: (4, 4),
        mask_cost: None,
        merges_tokens: false,
        remarks: Remarks::default(),
    }
}

#[test]
fn reset_forgets_earlier_frames() {
    let mut model = summing();
    let run = |model: &mut Model, value: f32| {
        let mut input = Tensor::zeros(4, 4);
        input.values.fill(value);
        let mut logits = Logits::default();
        model.run(&input, |_, kept| kept.push(0), &mut logits).expect("runs");
        assert!(logits.masks.iter().chain(&logits.class.values).all(|value| *value == logits.masks[0]));
        logits.masks[0]
    };
    assert_eq!([1.0, 2.0, 4.0].map(|value| run(&mut model, value)), [1.0, 3.0, 7.0]);
    model.reset();
    assert_eq!([1.0, 2.0].map(|value| run(&mut model, value)), [1.0, 3.0]);
    // another model of the same kind has its own memory
    assert_eq!(run(&mut summing(), 5.0), 5.0);
}

#[test]
fn class_logits_that_are_not_numbers_are_an_error() {
    let mut input = Tensor::zeros(4, 4);
    input.values[5] = f32::NAN;
    let error = summing().run(&input, |_, kept| kept.push(0), &mut Logits::default()).expect_err("not a frame without segments");
    assert!(error.to_string().contains("NaN"), "{error}");
}
