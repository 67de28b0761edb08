//! Networks that are not EoMT and that people hand in all the same: which one, in one sentence.

use std::collections::BTreeMap;

use tract_onnx::pb::{GraphProto, ValueInfoProto};

use super::{Dim, dims};
use crate::model::{ModelError, names};

/// What to do instead.
const INSTEAD: &str = "this program runs EoMT only: give it an EoMT export, or a file that 'convert' made of an EoMT checkpoint";

/// Parts of the names of outputs, and whose they are.
const OUTPUTS: [(&str, &str); 8] = [
    ("pred_boxes", "a detector of DETR's family"),
    ("dets", "a detector such as RF-DETR"),
    ("boxes", "a detector with boxes"),
    ("bbox", "a detector with boxes"),
    ("iou_predictions", "Segment Anything"),
    ("iou_scores", "Segment Anything"),
    ("image_embeddings", "an encoder of Segment Anything"),
    ("num_dets", "a detector with boxes"),
];

/// Parts of the names of inputs.
const INPUTS: [(&str, &str); 4] = [
    ("point_coords", "a decoder of Segment Anything"),
    ("image_embeddings", "a decoder of Segment Anything"),
    ("pixel_mask", "a network of DETR's family, which takes a mask of the padding"),
    ("input_ids", "a language model"),
];

/// Errors: [`ModelError::NotEomt`] when metadata, inputs or outputs are those of another network.
pub fn refuse_others(graph: &GraphProto, props: &BTreeMap<String, String>) -> Result<(), ModelError> {
    let refuse = |what: String| Err(ModelError::NotEomt { reason: format!("{what}; {INSTEAD}") });
    let says = |key: &str| props.get(key).map(|text| super::short(text));
    if props.contains_key("names") && (props.contains_key("stride") || props.contains_key("imgsz")) {
        let task = says("task").map_or(String::new(), |task| format!(" for the task '{task}'"));
        return refuse(format!("its metadata (names, imgsz, stride) is that of an Ultralytics model{task}"));
    }
    if let Some(kind) = says("model_type").or_else(|| says("architecture")).filter(|kind| !kind.to_ascii_lowercase().contains("eomt")) {
        return refuse(format!("its metadata says that it is '{kind}'"));
    }
    let inputs: Vec<&ValueInfoProto> = inputs(graph).collect();
    for (values, table, side) in
        [(&inputs[..], &INPUTS[..], "input"), (&graph.output.iter().collect::<Vec<_>>()[..], &OUTPUTS[..], "output")]
    {
        for value in values {
            let name = value.name.to_ascii_lowercase();
            if let Some((_, whose)) = table.iter().find(|(part, _)| name == *part || name.split(['.', '/', ':']).any(|word| word == *part))
            {
                return refuse(format!("its {side} '{}' is that of {whose}", super::short(&value.name)));
            }
        }
    }
    if inputs.len() != 1 {
        let names: Vec<String> = inputs.iter().take(6).map(|input| super::short(&input.name)).collect();
        return refuse(format!("it has {} inputs ({}); pixel values are one", inputs.len(), names.join(", ")));
    }
    refuse_shapes(graph)
}

/// What the caller feeds: older files list their initializers among the inputs.
pub fn inputs(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    graph.input.iter().filter(|input| graph.initializer.iter().all(|tensor| tensor.name != input.name))
}

/// Class logits `[1, Q, C + 1]` and mask logits `[1, Q, h, w]`, as far as the file says shapes.
fn refuse_shapes(graph: &GraphProto) -> Result<(), ModelError> {
    let refuse = |what: String| Err(ModelError::NotEomt { reason: format!("{what}; {INSTEAD}") });
    let outputs: Vec<(&str, Option<Vec<Dim>>)> = graph.output.iter().map(|output| (output.name.as_str(), dims(output))).collect();
    if let [(name, shape)] = &outputs[..] {
        let shape = shape.as_ref().map_or(String::new(), |shape| format!(", '{}' {}", super::short(name), shown(shape)));
        return refuse(format!(
            "it has 1 output{shape}, as networks that give each pixel a class have; class logits and mask logits are two"
        ));
    }
    if outputs.iter().any(|(name, _)| [names::CLASS_LOGITS, names::MASK_LOGITS].contains(name)) {
        return Ok(()); // the analysis of the graph checks their shapes
    }
    let ranked = |rank: usize| outputs.iter().filter(move |(_, dims)| dims.as_ref().is_some_and(|dims| dims.len() == rank));
    let known = outputs.iter().all(|(_, dims)| dims.is_some());
    let all = || {
        outputs.iter().map(|(name, dims)| format!("'{}' {}", super::short(name), shown(dims.as_deref().unwrap_or(&[])))).collect::<Vec<_>>()
    };
    if known && outputs.len() >= 2 && (ranked(4).count() == 0 || ranked(3).count() == 0) {
        let needed = "[1, queries, classes] and [1, queries, height, width]";
        return refuse(format!("its outputs are {}, not {needed}", all().join(", ")));
    }
    let Some((_, Some(masks))) = ranked(4).next() else { return Ok(()) };
    let same = |dims: &[Dim]| matches!((&dims[1], &masks[1]), (Dim::Fixed(a), Dim::Fixed(b)) if a == b) || dims[1] == masks[1];
    let unknown = |dims: &[Dim]| dims[1] == Dim::Free || masks[1] == Dim::Free;
    let mut candidates = ranked(3).filter(|(_, dims)| dims.as_ref().is_some_and(|dims| same(dims) || unknown(dims)));
    match (candidates.next(), candidates.next()) {
        (None, _) if known => refuse(format!("its outputs {} do not have the same number of queries", all().join(", "))),
        (Some((a, _)), Some((b, _))) => refuse(format!(
            "both outputs '{}' and '{}' could be class logits; name the right one {}",
            super::short(a),
            super::short(b),
            names::CLASS_LOGITS
        )),
        _ => Ok(()),
    }
}

fn shown(dims: &[Dim]) -> String {
    let one = |dim: &Dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Free => "?".to_owned(),
    };
    format!("[{}]", dims.iter().map(one).collect::<Vec<_>>().join(", "))
}
