//! What is known about a network that does not describe itself: from its graph and from the files beside it.
//!
//! ```text
//! graph ─▶ families (another network?) ─┐
//! config.json ─▶ size, classes, stuff ──┼─▶ Metadata
//! preprocessor_config.json, processor_config.json ─▶ processor ─┬─▶ normalization (inside of the graph or outside?)
//! graph ────────────────────────────────────────────────────────┘
//! ```
//!
//! Refuses: other networks, a configuration of another network or size, normalization that neither graph nor files tell. Each in one
//! sentence that says what to do.

mod config;
mod constants;
mod families;
mod normalization;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto, type_proto};

use super::bounds::{self, short};
use super::processor::{Processor, Texts};
use super::{Metadata, ModelError, Precision, Remarks};
use crate::data::Normalization;
use config::Config;
use normalization::Path;

/// The texts of the files beside a third-party export, where they exist.
#[derive(Debug, Clone, Copy, Default)]
pub struct Companions<'a> {
    /// `config.json`
    pub config: Option<&'a str>,
    /// `preprocessor_config.json` and `processor_config.json`.
    pub processor: Texts<'a>,
}

/// Metadata of `proto`, and what its user should hear.
///
/// # Errors
/// [`ModelError`]: one sentence.
pub fn describe(
    proto: &ModelProto,
    props: &BTreeMap<String, String>,
    companions: &Companions,
    asked: Normalization,
) -> Result<(Metadata, Remarks), ModelError> {
    let graph = proto.graph.as_ref().expect("checked by the caller");
    // a graph that cannot be EoMT deserves that answer, not a request for a configuration
    families::refuse_others(graph, props)?;
    let text = companions.config.ok_or_else(|| ModelError::NeedsConfig { reason: "there is none".to_owned() })?;
    let config = Config::parse(text)?;
    let input = families::inputs(graph).next().expect("there is one");
    check_input(input, config.input_size)?;
    config.check_patches(graph, &input.name)?;
    config.check_queries(graph)?;
    let processor = Processor::read(&companions.processor, config.input_size).map_err(ModelError::Processor)?;
    let bytes = element_type(input) == Some(DataType::Uint8);
    let decision = Path::trace(graph, &input.name, bytes)?.decide(asked, &processor)?;
    bounds::check_normalization(decision.mean, decision.std)
        .map_err(|reason| ModelError::Normalization { reason: format!("{reason} (image_mean, image_std, rescale_factor)") })?;
    let mut remarks = Remarks { warnings: processor.warnings.clone(), facts: vec![format!("normalization: {}", decision.reason)] };
    let (task, stuff_classes) = config.classes(&processor, &mut remarks);
    let metadata = Metadata {
        // readers of the ring know it by this name
        name: "foreign".to_owned(),
        task,
        labels: config.labels,
        stuff_classes,
        image_mean: decision.mean,
        image_std: decision.std,
        input_size: config.input_size,
        thresholds: processor.thresholds,
        precision: Precision::F32,
        state: None,
        licence: String::new(),
        source_sha256: String::new(),
        converter: String::new(),
    };
    Ok((metadata, remarks))
}

/// A dimension of an input or output as the file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dim {
    Fixed(i64),
    Named(String),
    Free,
}

fn dims(value: &ValueInfoProto) -> Option<Vec<Dim>> {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else { return None };
    let one = |value: &Option<DimValue>| match value {
        Some(DimValue::DimValue(size)) if *size > 0 => Dim::Fixed(*size),
        Some(DimValue::DimParam(name)) if !name.is_empty() => Dim::Named(short(name)),
        _ => Dim::Free,
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(|dim| one(&dim.value)).collect())
}

fn element_type(value: &ValueInfoProto) -> Option<DataType> {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref()?.value.as_ref() else { return None };
    DataType::try_from(tensor.elem_type).ok()
}

/// The file's input against the configuration's size.
fn check_input(input: &ValueInfoProto, (height, width): (usize, usize)) -> Result<(), ModelError> {
    let refuse = |reason: String| Err(ModelError::NotEomt { reason });
    let Some(dims) = dims(input) else { return Ok(()) };
    let [batch, channels, rows, columns] = &dims[..] else {
        return refuse(format!("its input has {} axes; pixel values have 4, [1, 3, height, width]", dims.len()));
    };
    if *columns == Dim::Fixed(3) && *channels != Dim::Fixed(3) {
        return refuse(
            "its input has channels last, [1, height, width, 3]; export the network with channels first, [1, 3, height, width]".to_owned(),
        );
    }
    if let Dim::Fixed(batch) = batch
        && *batch != 1
    {
        return refuse(format!("its input takes {batch} pictures at a time; export the network for one"));
    }
    if let Dim::Fixed(channels) = channels
        && *channels != 3
    {
        return refuse(format!("its input takes {channels} channels; pixel values have 3"));
    }
    let differs = |dim: &Dim, side: usize| matches!(dim, Dim::Fixed(size) if *size as usize != side);
    if differs(rows, height) || differs(columns, width) {
        let side = |dim: &Dim, other: usize| if let Dim::Fixed(size) = dim { *size as usize } else { other };
        let (rows, columns) = (side(rows, height), side(columns, width));
        return Err(ModelError::Companion {
            reason: format!(
                "config.json beside it says image_size {height}x{width}, but this file takes {rows}x{columns}: put the config.json of this \
                 export there, or set its image_size to [{rows}, {columns}]"
            ),
        });
    }
    Ok(())
}

/// The queries that the file's mask logits say, when they say it.
fn queries(graph: &GraphProto) -> Option<usize> {
    let masks = graph.output.iter().filter_map(dims).find(|dims| dims.len() == 4)?;
    match masks[1] {
        Dim::Fixed(queries) => usize::try_from(queries).ok(),
        _ => None,
    }
}
