//! What a network does to its pixel values before the patch embedding, and so what must be done to them before the network.
//!
//! ```text
//! input ─▶ Cast, Sub, Div, Mul, Add, BatchNormalization, 1x1 Conv … ─▶ Conv, MatMul, Reshape: the patch embedding
//!          └──────────── per channel: x * factor + offset ────────┘
//! ```
//!
//! Refuses, unless told where normalization happens: operators on the way that are no such map, a map that is no normalization, and one
//! that contradicts the image processor's configuration. Channels last are refused.

use tract_onnx::pb::{GraphProto, NodeProto};

use super::constants::Constants;
use crate::data::Normalization;
use crate::model::ModelError;
use crate::model::processor::Processor;

/// Chains of exporters are a few nodes long.
const STEPS_MAX: usize = 64;

/// Operators after which it is unclear what the network does to pixels: they pick channels, resize, or depend on the picture.
#[rustfmt::skip]
const UNCLEAR: [&str; 23] = [
    "Slice", "Gather", "GatherND", "GatherElements", "Split", "Concat", "Resize", "Upsample", "GridSample", "Clip", "Pow", "Sqrt", "Neg", "Abs",
    "Min", "Max", "Floor", "Mod", "Where", "ReduceMean", "InstanceNormalization", "MeanVarianceNormalization", "ScatterND",
];

/// Per channel `x * factor + offset` of the input's values, up to the patch embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    pub factor: [f64; 3],
    pub offset: [f64; 3],
    /// The input's values are unsigned bytes.
    pub bytes: bool,
    /// The operator at which it became unclear what happens, in words.
    pub unclear: Option<String>,
}

/// What the network must get: mean and standard deviation of pixel values in 0..=1, and why, in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub reason: String,
}

impl Path {
    /// Follows `input`, whose element type is `uint8` when `bytes`.
    ///
    /// # Errors
    /// [`ModelError::NotEomt`] for channels last.
    pub fn trace(graph: &GraphProto, input: &str, bytes: bool) -> Result<Path, ModelError> {
        let constants = Constants::of(graph);
        let mut path = Path { factor: [1.0; 3], offset: [0.0; 3], bytes, unclear: None };
        let mut value = input.to_owned();
        for _ in 0..STEPS_MAX {
            // sizes are asked for on the side
            let reads = |node: &&NodeProto| node.input.contains(&value) && !["Shape", "Size"].contains(&node.op_type.as_str());
            let readers: Vec<&NodeProto> = graph.node.iter().filter(reads).collect();
            let [node] = readers[..] else {
                if readers.len() > 1 && readers.iter().all(|node| UNCLEAR.contains(&node.op_type.as_str())) {
                    path.unclear = Some(format!("its input goes to {} nodes, of which one is {}", readers.len(), named(readers[0])));
                }
                return Ok(path);
            };
            match path.step(node, &value, &constants)? {
                true => value = node.output.first().cloned().unwrap_or_default(),
                false => return Ok(path),
            }
        }
        Ok(path)
    }

    /// Goes through `node`; false at the patch embedding, or where it is unclear.
    fn step(&mut self, node: &NodeProto, value: &str, constants: &Constants) -> Result<bool, ModelError> {
        match node.op_type.as_str() {
            "Cast" | "CastLike" | "Identity" | "Dropout" | "Pad" | "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" => {
                Ok(true)
            }
            "Sub" | "Add" | "Mul" | "Div" => Ok(self.arithmetic(node, value, constants)),
            "BatchNormalization" => Ok(self.batch_normalization(node, constants)),
            "Conv" => Ok(self.pointwise(node, constants)),
            "Transpose" if permutation(node) == [0, 3, 1, 2] => Err(ModelError::NotEomt {
                reason: "its input has channels last, [1, height, width, 3]; export the network with channels first, [1, 3, height, width]"
                    .to_owned(),
            }),
            other if UNCLEAR.contains(&other) => Ok(self.stop(node)),
            _ => Ok(false),
        }
    }

    fn stop(&mut self, node: &NodeProto) -> bool {
        self.unclear = Some(format!("the way from its input to the patch embedding goes through {}", named(node)));
        false
    }

    fn apply(&mut self, factor: [f64; 3], offset: [f64; 3]) -> bool {
        for channel in 0..3 {
            self.factor[channel] *= factor[channel];
            self.offset[channel] = self.offset[channel] * factor[channel] + offset[channel];
        }
        true
    }

    fn arithmetic(&mut self, node: &NodeProto, value: &str, constants: &Constants) -> bool {
        let [left, right] = &node.input[..] else { return self.stop(node) };
        let (other, first) = if left == value { (right, true) } else { (left, false) };
        let Some(other) = constants.channels(other) else { return self.stop(node) };
        match (node.op_type.as_str(), first) {
            ("Add", _) => self.apply([1.0; 3], other),
            ("Sub", true) => self.apply([1.0; 3], other.map(|value| -value)),
            ("Sub", false) => self.apply([-1.0; 3], other),
            ("Mul", _) => self.apply(other, [0.0; 3]),
            ("Div", true) => self.apply(other.map(|value| 1.0 / value), [0.0; 3]),
            _ => self.stop(node),
        }
    }

    fn batch_normalization(&mut self, node: &NodeProto, constants: &Constants) -> bool {
        let parts: Vec<[f64; 3]> = node.input.iter().skip(1).filter_map(|name| constants.channels(name)).collect();
        let [scale, shift, mean, variance] = parts[..] else { return self.stop(node) };
        let epsilon = node.attribute.iter().find(|attribute| attribute.name == "epsilon").map_or(1e-5, |attribute| f64::from(attribute.f));
        let factor = std::array::from_fn(|channel| scale[channel] / (variance[channel] + epsilon).sqrt());
        self.apply(factor, std::array::from_fn(|channel| shift[channel] - mean[channel] * factor[channel]))
    }

    /// A convolution of single pixels, three channels to three, that does not mix them; any other one is the patch embedding.
    fn pointwise(&mut self, node: &NodeProto, constants: &Constants) -> bool {
        let Some((dims, values)) = node.input.get(1).and_then(|name| constants.tensor(name)) else { return false };
        let factor = match dims[..] {
            [3, 1, 1, 1] if values.len() == 3 => [values[0], values[1], values[2]],
            [3, 3, 1, 1] if values.len() == 9 => {
                if (0..9).any(|index| index % 4 != 0 && values[index] != 0.0) {
                    return self.stop(node);
                }
                [values[0], values[4], values[8]]
            }
            _ => return false,
        };
        let offset = match node.input.get(2).filter(|name| !name.is_empty()) {
            None => Some([0.0; 3]),
            Some(name) => constants.channels(name),
        };
        match offset {
            Some(offset) => self.apply(factor, offset),
            None => self.stop(node),
        }
    }

    fn is_nothing(&self) -> bool {
        self.factor == [1.0; 3] && self.offset == [0.0; 3]
    }

    /// Mean and standard deviation as the network has them, in the unit of its input.
    fn statistics(&self) -> ([f64; 3], [f64; 3]) {
        (std::array::from_fn(|channel| -self.offset[channel] / self.factor[channel]), self.factor.map(|factor| 1.0 / factor))
    }

    /// Whether the input's values are 0 to 255, not 0 to 1: there is no picture whose mean is above 1.5 or whose deviation is above 20
    /// otherwise.
    fn takes_levels(&self) -> bool {
        let (mean, std) = self.statistics();
        self.bytes || mean.iter().any(|mean| mean.abs() > 1.5) || std.iter().any(|std| std.abs() > 20.0)
    }

    /// What the network must get.
    ///
    /// # Errors
    /// [`ModelError::Normalization`] when neither the graph nor the caller tells.
    pub fn decide(&self, asked: Normalization, processor: &Processor) -> Result<Decision, ModelError> {
        let unit = if self.takes_levels() { 255.0 } else { 1.0 };
        let plain =
            |reason: String| Decision { mean: [0.0; 3], std: [1.0 / unit as f32; 3], reason: format!("{reason}; it gets 0 to {unit}") };
        let outside = |reason: &str| {
            let from = processor.file.unwrap_or("no processor's file, so ImageNet's");
            let reason = format!("{reason}; before it, mean {:?} and std {:?} ({from})", processor.mean, processor.std);
            Decision { mean: processor.mean, std: processor.std, reason }
        };
        match asked {
            Normalization::Inside => return Ok(plain("the network normalizes, as was said".to_owned())),
            Normalization::Outside if self.bytes => {
                return Err(ModelError::Normalization { reason: "its input takes bytes, which cannot be normalized outside".to_owned() });
            }
            Normalization::Outside => return Ok(outside("the network does not normalize, as was said")),
            Normalization::Auto => {}
        }
        if let Some(unclear) = &self.unclear {
            return Err(ask(unclear.clone()));
        }
        if self.is_nothing() {
            return Ok(match self.bytes {
                true => plain("the network takes bytes".to_owned()),
                false => outside("the network does not normalize"),
            });
        }
        self.check_statistics(unit, processor)?;
        let (mean, std) = self.statistics();
        let shown = |values: [f64; 3]| values.map(|value| (value * 1e4).round() / 1e4);
        Ok(plain(format!("the network normalizes by itself, mean {:?} and std {:?}", shown(mean), shown(std))))
    }

    /// Errors: the map is no normalization, or another one than the processor's.
    fn check_statistics(&self, unit: f64, processor: &Processor) -> Result<(), ModelError> {
        let (mean, std) = self.statistics();
        let (mean, std) = (mean.map(|mean| (mean / unit) as f32), std.map(|std| (std / unit) as f32));
        let near = |a: &[f32; 3], b: &[f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-3 + 1e-2 * b.abs());
        let mut turned = processor.mean;
        turned.reverse();
        if near(&mean, &turned) && !near(&mean, &processor.mean) {
            let reason =
                format!("it subtracts the mean {mean:?}, which is for blue, green, red; frames are red, green, blue: export it for those");
            return Err(ModelError::NotEomt { reason });
        }
        // what the processor gives when it leaves normalization to the network
        let left_to_it = processor.file.is_some() && !processor.normalizes;
        let same_unit = (f64::from(processor.std[0]) * unit - 1.0).abs() < 1e-3;
        let file = processor.file.unwrap_or_default();
        if left_to_it && !same_unit {
            let given = (1000.0 / processor.std[0]).round() / 1000.0;
            return Err(ask(format!("its graph takes values of 0 to {unit}, but {file} gives it 0 to {given}")));
        }
        if !left_to_it && self.offset == [0.0; 3] {
            return Err(ask(format!(
                "its graph multiplies its input by {:?} and subtracts no mean",
                self.factor.map(|factor| factor as f32)
            )));
        }
        let likely = |mean: f32, std: f32| (0.0..=1.0).contains(&mean) && (0.02..=2.0).contains(&std);
        if !mean.iter().zip(std).all(|(mean, std)| likely(*mean, std)) {
            return Err(ask(format!("its graph multiplies its input by {:?} and adds {:?}", self.factor, self.offset)));
        }
        if processor.file.is_some() && processor.normalizes && !(near(&mean, &processor.mean) && near(&std, &processor.std)) {
            let other = format!("mean {:?} and std {:?}", processor.mean, processor.std);
            return Err(ask(format!("its graph normalizes with mean {mean:?} and std {std:?}, {file} says {other}")));
        }
        Ok(())
    }
}

fn ask(found: String) -> ModelError {
    ModelError::Normalization {
        reason: format!("{found}; say with --normalization (run: model.normalization) whether it is done inside or outside of the network"),
    }
}

fn named(node: &NodeProto) -> String {
    if node.name.is_empty() { format!("a node {}", node.op_type) } else { format!("{} ('{}')", node.op_type, super::short(&node.name)) }
}

fn permutation(node: &NodeProto) -> &[i64] {
    node.attribute.iter().find(|attribute| attribute.name == "perm").map_or(&[], |attribute| &attribute.ints)
}
