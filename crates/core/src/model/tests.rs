//! A model whose network remembers: what [`Model::reset`] is for.

use tract_onnx::prelude::{DatumExt, SpecialOps, TypedModel, TypedSimplePlan};
use tract_onnx::tract_core::ops::array::Slice;
use tract_onnx::tract_core::ops::math::{add, square};

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
        state: None,
        licence: String::new(),
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
        carried: None,
        queries: 1,
        classes: 16,
        mask_size: (4, 4),
        mask_cost: None,
        merges_tokens: false,
        remarks: Remarks::default(),
        reuse: None,
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

/// `constant` of this shape, added to a `[1, 2, 3]` input or to what an operator makes of it: the kinds of the plan's operators.
fn kinds_of_a_sum(constant: &[usize], to_the_input: bool) -> Vec<String> {
    let mut graph = TypedModel::default();
    let mut outlet = graph.add_source("query_state", f32::fact([1, 2, 3])).expect("a source");
    if !to_the_input {
        outlet = graph.wire_node("square", square(), &[outlet]).expect("wires")[0];
    }
    let values: Vec<f32> = (0..constant.iter().product::<usize>()).map(|at| at as f32).collect();
    let learned =
        graph.add_const("queries", tract_onnx::prelude::Tensor::from_shape(constant, &values).expect("fits")).expect("a constant");
    let sum = graph.wire_node("sum", add(), &[outlet, learned]).expect("wires");
    graph.select_output_outlets(&sum).expect("an output");
    fuse::rewrite(&mut graph, &Engine::new(Isa::SCALAR, Workers::one())).expect("rewrites");
    let graph = graph.into_optimized().expect("optimizes");
    let kinds = graph.nodes().iter().map(|node| node.op.name().into_owned()).collect();
    let plan = TypedSimplePlan::new(graph).expect("a plan");
    let input = tract_onnx::prelude::Tensor::from_shape(&[1, 2, 3], &[4.0f32; 6]).expect("fits");
    let outputs = plan.run(tvec![input.into()]).expect("runs");
    let before = if to_the_input { 4.0 } else { 16.0 };
    let expected: Vec<f32> = (0..6).map(|at| before + (at % values.len()) as f32).collect();
    assert_eq!(outputs[0].try_as_plain_ram().expect("in memory").as_slice::<f32>().expect("f32"), expected);
    kinds
}

#[test]
fn learned_queries_are_an_offset_of_the_state_and_nothing_else_is() {
    let is_offset = |kinds: Vec<String>| kinds.iter().any(|kind| kind == "Offset");
    assert!(is_offset(kinds_of_a_sum(&[1, 2, 3], true)));
    assert!(!is_offset(kinds_of_a_sum(&[1, 2, 3], false)), "it is not the input");
    assert!(!is_offset(kinds_of_a_sum(&[1, 1, 3], true)), "the same for each row");
}

#[test]
fn class_logits_that_are_not_numbers_are_an_error() {
    let mut input = Tensor::zeros(4, 4);
    input.values[5] = f32::NAN;
    let error = summing().run(&input, |_, kept| kept.push(0), &mut Logits::default()).expect_err("not a frame without segments");
    assert!(error.to_string().contains("NaN"), "{error}");
}
