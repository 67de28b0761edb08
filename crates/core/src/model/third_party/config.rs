//! The part of a transformers `config.json` that a third-party export needs.

use serde_json::{Map, Value};

use tract_onnx::pb::GraphProto;

use crate::data::Task;
use crate::model::label_sets::LabelSet;
use crate::model::processor::Processor;
use crate::model::{ModelError, Remarks, bounds};

pub struct Config {
    pub input_size: (usize, usize),
    /// Empty: the file names no classes.
    pub labels: Vec<String>,
    stuff_classes: Option<Vec<u16>>,
    task: Option<Task>,
    queries: Option<usize>,
}

fn companion(reason: impl Into<String>) -> ModelError {
    ModelError::Companion { reason: format!("config.json beside it: {}", reason.into()) }
}

impl Config {
    /// # Errors
    /// [`ModelError::NotEomt`] for the configuration of another network, [`ModelError::Companion`] for one that cannot be used.
    pub fn parse(text: &str) -> Result<Config, ModelError> {
        let value: Value =
            serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| companion(format!("it is no JSON ({error})")))?;
        let Value::Object(map) = value else { return Err(companion("it is not a JSON object")) };
        let text = |key: &str| map.get(key).and_then(Value::as_str);
        match text("model_type") {
            Some(kind) if kind == "eomt" || kind.starts_with("eomt_") => {}
            Some(kind) => {
                let kind = super::short(kind);
                let reason =
                    format!("its config.json says model_type '{kind}', not eomt or eomt_dinov3; put the config.json of this export there");
                return Err(ModelError::NotEomt { reason });
            }
            None => return Err(companion("it has no 'model_type', which is 'eomt' or 'eomt_dinov3' for this program's networks")),
        }
        let task = match text("task") {
            None => None,
            Some(task) => Some(task.parse().map_err(|reason| companion(format!("'task': {reason}")))?),
        };
        let config = Config {
            input_size: input_size(map.get("image_size"))?,
            labels: labels(map.get("id2label"))?,
            stuff_classes: stuff_classes(&map)?,
            task,
            queries: map.get("num_queries").and_then(Value::as_u64).map(|queries| queries as usize),
        };
        if let (Some(stuff), false) = (&config.stuff_classes, config.labels.is_empty())
            && let Some(class) = stuff.iter().find(|class| usize::from(**class) >= config.labels.len())
        {
            return Err(companion(format!("'stuff_classes' names class {class}, but id2label has {} (from 0)", config.labels.len())));
        }
        Ok(config)
    }

    /// Errors: a size that the network's patches do not divide.
    pub fn check_patches(&self, graph: &GraphProto, input: &str) -> Result<(), ModelError> {
        bounds::check_graph(graph, input, self.input_size).map_err(|reason| companion(format!("'image_size': {reason}")))
    }

    /// Errors: another number of queries than the file's, so it is another network's.
    pub fn check_queries(&self, graph: &GraphProto) -> Result<(), ModelError> {
        match (self.queries, super::queries(graph)) {
            (Some(said), Some(found)) if said != found => Err(companion(format!(
                "num_queries is {said}, but this file has {found} queries: put the config.json of this export there"
            ))),
            _ => Ok(()),
        }
    }

    /// The task, and the stuff classes: as the file says, else as datasets have them whose classes these are.
    pub fn classes(&self, processor: &Processor, remarks: &mut Remarks) -> (Task, Vec<u16>) {
        let label_set = LabelSet::of(&self.labels);
        let task = self.task.or(label_set.and_then(|(_, task)| task)).or(processor.task).unwrap_or_default();
        let stuff = match (&self.stuff_classes, label_set) {
            (Some(stuff), _) => stuff.clone(),
            (None, Some((set, _))) => {
                remarks.facts.push(format!("classes: those of {set:?}, whose stuff is known"));
                set.stuff(task).into_iter().filter(|class| *class < self.labels.len()).map(|class| class as u16).collect()
            }
            (None, None) => {
                if task == Task::Panoptic {
                    let advice = "nothing says which classes are stuff, so all count as things; write \"stuff_classes\": [6, 7] (their numbers) into its \
                                  config.json";
                    remarks.warnings.push(advice.to_owned());
                }
                Vec::new()
            }
        };
        (task, stuff)
    }
}

/// One side, or height and width. Left out, it is the default of transformers' EomtConfig.
fn input_size(value: Option<&Value>) -> Result<(usize, usize), ModelError> {
    let side = |value: &Value| value.as_u64().and_then(|side| usize::try_from(side).ok());
    let size = match value {
        None | Some(Value::Null) => Some((640, 640)),
        Some(Value::Array(sides)) if sides.len() == 2 => side(&sides[0]).zip(side(&sides[1])),
        Some(value) => side(value).map(|side| (side, side)),
    };
    let size = size.ok_or_else(|| companion("'image_size' is neither a size nor a pair of them"))?;
    bounds::check_input(size).map_err(|reason| companion(format!("'image_size': {reason}")))?;
    Ok(size)
}

/// Class names by number, 0, 1, … without a gap.
fn labels(value: Option<&Value>) -> Result<Vec<String>, ModelError> {
    let empty = Map::new();
    let map = match value {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(map)) => map,
        Some(_) => return Err(companion("'id2label' is not an object")),
    };
    let mut labels: Vec<(usize, String)> = Vec::new();
    for (key, label) in map {
        let key_wrong = || companion(format!("'id2label' has the key '{}', which is no number", super::short(key)));
        let label = label.as_str().ok_or_else(|| companion(format!("'id2label' names class {} with no text", super::short(key))))?;
        labels.push((key.parse().map_err(|_| key_wrong())?, label.to_owned()));
    }
    labels.sort();
    if let Some((gap, (number, _))) = labels.iter().enumerate().find(|(index, (number, _))| index != number) {
        return Err(companion(format!("'id2label' numbers a class {number}, but none is numbered {gap}")));
    }
    let labels: Vec<String> = labels.into_iter().map(|(_, label)| label).collect();
    bounds::check_labels(&labels).map_err(|reason| companion(format!("'id2label': {reason}")))?;
    Ok(labels)
}

fn stuff_classes(map: &Map<String, Value>) -> Result<Option<Vec<u16>>, ModelError> {
    let Some(value) = map.get("stuff_classes").filter(|value| !value.is_null()) else { return Ok(None) };
    let number = |item: &Value| item.as_u64().and_then(|class| u16::try_from(class).ok());
    let classes: Option<Vec<u16>> = value.as_array().and_then(|items| items.iter().map(number).collect());
    let mut classes = classes.ok_or_else(|| companion("'stuff_classes' is not a list of class numbers"))?;
    classes.sort_unstable();
    classes.dedup();
    Ok(Some(classes))
}
