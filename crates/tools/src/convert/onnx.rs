//! A small writer of ONNX graphs: nodes and initializers in, one `ModelProto` out.
//!
//! Only what the converter needs: nodes of the default domain, f32, i64 and i8 initializers stored as raw little-endian
//! bytes (ONNX IR specification, "TensorProto").

use std::collections::HashSet;
use std::io::{self, Write};
use std::mem::take;

use eomt_edge_core::kernels::arch::HalfFormat;
use eomt_edge_core::model::PRODUCER;
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataLocation, tensor_proto::DataType, tensor_shape_proto,
    type_proto,
};

/// LayerNormalization enters the standard at 17; nothing here needs more, and every runtime reads 17.
const OPSET: i64 = 17;
/// The IR version that goes with opset 17.
const IR_VERSION: i64 = 8;
/// Its number as a tensor's type, which tract's copy of the enumeration lacks.
const BFLOAT16: i32 = 16;

/// The name of a tensor in the graph under construction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Value(String);

impl Value {
    /// An optional input that is left out.
    pub fn absent() -> Value {
        Value(String::new())
    }
}

/// One attribute of a node.
pub(super) enum Attr<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Float(&'a str, f32),
    Text(&'a str, &'a str),
}

impl Attr<'_> {
    fn proto(&self) -> AttributeProto {
        let mut proto = AttributeProto::default();
        let (name, kind) = match *self {
            Attr::Int(name, value) => {
                proto.i = value;
                (name, AttributeType::Int)
            }
            Attr::Ints(name, values) => {
                proto.ints = values.to_vec();
                (name, AttributeType::Ints)
            }
            Attr::Float(name, value) => {
                proto.f = value;
                (name, AttributeType::Float)
            }
            Attr::Text(name, value) => {
                proto.s = value.as_bytes().to_vec();
                (name, AttributeType::String)
            }
        };
        proto.name = name.to_owned();
        proto.r#type = kind.into();
        proto
    }
}

/// Collects nodes in topological order.
#[derive(Default)]
pub(super) struct GraphBuilder {
    graph: GraphProto,
    /// Initializers so far.
    names: HashSet<String>,
}

impl GraphBuilder {
    /// A graph input of type f32.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> Value {
        self.graph.input.push(value_info(name, shape));
        Value(name.to_owned())
    }

    /// An f32 initializer; a name that exists already is shared, since it stands for the same weights.
    /// Panics when the data does not fill the shape: a bug of the caller.
    pub fn floats(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Value {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "initializer {name} {shape:?}");
        if self.names.contains(name) {
            return Value(name.to_owned());
        }
        let raw = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, shape, DataType::Float, raw)
    }

    /// An i8 initializer, shared as those of [`GraphBuilder::floats`] are.
    pub fn bytes(&mut self, name: &str, shape: &[usize], data: &[i8]) -> Value {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "initializer {name} {shape:?}");
        if self.names.contains(name) {
            return Value(name.to_owned());
        }
        let raw = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, shape, DataType::Int8, raw)
    }

    /// A one-dimensional i64 initializer.
    pub fn ints(&mut self, name: &str, data: &[i64]) -> Value {
        let raw = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, &[data.len()], DataType::Int64, raw)
    }

    fn initializer(&mut self, name: &str, shape: &[usize], kind: DataType, raw_data: Vec<u8>) -> Value {
        assert!(self.names.insert(name.to_owned()), "two initializers are called {name}");
        self.graph.initializer.push(TensorProto {
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type: kind.into(),
            name: name.to_owned(),
            raw_data,
            ..TensorProto::default()
        });
        Value(name.to_owned())
    }

    /// A node with one output, which carries the node's name.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&Value], attributes: &[Attr]) -> Value {
        self.graph.node.push(NodeProto {
            op_type: op.to_owned(),
            name: name.to_owned(),
            input: inputs.iter().map(|value| value.0.clone()).collect(),
            output: vec![name.to_owned()],
            attribute: attributes.iter().map(Attr::proto).collect(),
            ..NodeProto::default()
        });
        Value(name.to_owned())
    }

    /// u8 values, scale and zero point of `x`, found at run time from its range.
    pub fn quantize_dynamically(&mut self, x: &Value) -> [Value; 3] {
        let name = format!("{}.quantized", x.0);
        let outputs = ["", ".scale", ".zero_point"].map(|part| Value(format!("{name}{part}")));
        self.node("DynamicQuantizeLinear", &name, &[x], &[]);
        let node = self.graph.node.last_mut().expect("just added");
        node.output = outputs.iter().map(|output| output.0.clone()).collect();
        outputs
    }

    /// A Cast node to f32.
    pub fn cast_to_f32(&mut self, name: &str, x: &Value) -> Value {
        self.node("Cast", name, &[x], &[Attr::Int("to", DataType::Float as i64)])
    }

    /// Reshape to a constant shape.
    pub fn reshape(&mut self, name: &str, x: &Value, shape: &[usize]) -> Value {
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        let shape = self.ints(&format!("{name}.shape"), &shape);
        self.node("Reshape", name, &[x, &shape], &[])
    }

    /// A Transpose node.
    pub fn transpose(&mut self, name: &str, x: &Value, perm: &[i64]) -> Value {
        self.node("Transpose", name, &[x], &[Attr::Ints("perm", perm)])
    }

    /// `x[..., start..end, ...]` along `axis`.
    pub fn slice(&mut self, name: &str, x: &Value, axis: i64, start: usize, end: usize) -> Value {
        let starts = self.ints(&format!("{name}.starts"), &[start as i64]);
        let ends = self.ints(&format!("{name}.ends"), &[end as i64]);
        let axes = self.ints(&format!("{name}.axes"), &[axis]);
        self.node("Slice", name, &[x, &starts, &ends, &axes], &[])
    }

    /// Declares a graph output without a shape.
    pub fn tap(&mut self, value: &Value) {
        self.graph.output.push(ValueInfoProto { name: value.0.clone(), ..ValueInfoProto::default() });
    }

    /// Declares a graph output: the tensor must exist under that name.
    pub fn output(&mut self, value: &Value, shape: &[usize]) {
        self.graph.output.push(value_info(&value.0, shape));
    }

    /// Closes the graph into a model with `metadata_props`.
    pub fn finish(mut self, name: &str, metadata: Vec<(String, String)>) -> ModelProto {
        self.graph.name = name.to_owned();
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: PRODUCER.to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            metadata_props: metadata.into_iter().map(|(key, value)| StringStringEntryProto { key, value }).collect(),
            ..ModelProto::default()
        }
    }
}

/// `model` as the bytes of a file. Each number of a list is a field of its own (`dims` of tensors, `ints` of attributes), as onnx.proto
/// declares them and as other writers write them: prost packs them, and rten 0.27 cannot read that.
pub(super) fn encode(model: ModelProto) -> Vec<u8> {
    let ModelProto { graph, opset_import, metadata_props, .. } = model;
    let mut bytes = ModelProto { graph: None, opset_import: Vec::new(), metadata_props: Vec::new(), ..model }.encode_to_vec();
    if let Some(graph) = graph {
        push_message(7, &encode_graph(graph), &mut bytes);
    }
    bytes.extend(ModelProto { opset_import, metadata_props, ..ModelProto::default() }.encode_to_vec());
    bytes
}

fn encode_graph(mut graph: GraphProto) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut node in take(&mut graph.node) {
        let attributes = take(&mut node.attribute);
        let mut inside = node.encode_to_vec();
        for mut attribute in attributes {
            let ints = take(&mut attribute.ints);
            let mut innermost = attribute.encode_to_vec();
            push_ints(8, &ints, &mut innermost);
            push_message(5, &innermost, &mut inside);
        }
        push_message(1, &inside, &mut bytes);
    }
    for mut tensor in take(&mut graph.initializer) {
        let dims = take(&mut tensor.dims);
        let mut inside = tensor.encode_to_vec();
        push_ints(1, &dims, &mut inside);
        push_message(5, &inside, &mut bytes);
    }
    bytes.extend(graph.encode_to_vec());
    bytes
}

/// Appends field `number`, a message (protobuf, "Encoding": wire type 2).
fn push_message(number: u64, message: &[u8], to: &mut Vec<u8>) {
    push_varint(number << 3 | 2, to);
    push_varint(message.len() as u64, to);
    to.extend_from_slice(message);
}

/// Appends field `number` once for each value (wire type 0).
fn push_ints(number: u64, values: &[i64], to: &mut Vec<u8>) {
    for value in values {
        push_varint(number << 3, to);
        push_varint(*value as u64, to);
    }
}

/// Seven bits to a byte, the lowest first; the eighth marks that more follow.
fn push_varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Stores matrices of f32 as bfloat16, half of the size, with a Cast behind each; vectors and short ones stay as they are.
pub(super) fn store_in_bf16(model: &mut ModelProto) {
    const SHORT: usize = 1024; // values
    let Some(graph) = &mut model.graph else { return };
    let mut casts = Vec::new();
    for tensor in &mut graph.initializer {
        if tensor.data_type != DataType::Float as i32 || tensor.dims.len() < 2 || tensor.raw_data.len() < 4 * SHORT {
            continue;
        }
        let values = tensor.raw_data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        tensor.raw_data = values.flat_map(|value| HalfFormat::Bf16.round(value).to_le_bytes()).collect();
        tensor.data_type = BFLOAT16;
        let name = take(&mut tensor.name);
        tensor.name = format!("{name}.bf16");
        casts.push(NodeProto {
            op_type: "Cast".to_owned(),
            name: name.clone(),
            input: vec![tensor.name.clone()],
            output: vec![name],
            attribute: vec![Attr::Int("to", DataType::Float as i64).proto()],
            ..NodeProto::default()
        });
    }
    graph.node.splice(0..0, casts);
}

/// Bytes of all weights inside `model`.
pub(super) fn weight_bytes(model: &ModelProto) -> usize {
    model.graph.iter().flat_map(|graph| &graph.initializer).map(|tensor| tensor.raw_data.len()).sum()
}

/// Moves large weights out of `model` into `data`, which will lie beside it as `file_name` (ONNX, "External Data").
pub(super) fn externalize(model: &mut ModelProto, file_name: &str, data: &mut impl Write) -> io::Result<()> {
    const SMALL: usize = 1024; // shapes and scalars stay inside
    let mut offset = 0usize;
    for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if tensor.raw_data.len() <= SMALL {
            continue;
        }
        let padding = offset.next_multiple_of(64) - offset;
        data.write_all(&[0; 64][..padding])?;
        offset += padding;
        let bytes = take(&mut tensor.raw_data);
        data.write_all(&bytes)?;
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        tensor.external_data =
            vec![entry("location", file_name.to_owned()), entry("offset", offset.to_string()), entry("length", bytes.len().to_string())];
        tensor.data_location = Some(DataLocation::External.into());
        offset += bytes.len();
    }
    Ok(())
}

fn value_info(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = |&d: &usize| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(d as i64)),
        ..Default::default()
    };
    let tensor =
        type_proto::Tensor { elem_type: DataType::Float.into(), shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}
