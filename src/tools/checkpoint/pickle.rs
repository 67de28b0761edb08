//! A pickle read as data: protocols 2 to 5, and nothing but tensors, texts, numbers and their containers.
//!
//! ```text
//! {'network.q.weight': _rebuild_tensor_v2(storage, offset, size, stride, …), …}
//! ```
//!
//! Invariants: nothing is ever called or imported; a name outside [`Callable::named`] ends the reading with that name. Values
//! live in arenas and refer to each other by index, so neither depth nor cycles cost stack, and [`STEPS_MAX`] bounds memory.

use std::collections::HashMap;

use super::element::Element;
use super::error::quote;
use super::opcodes;

/// Why a pickle was refused.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// It names this function or class (`module.name`).
    Call(String),
    /// It is not what torch.save writes; reads on from "data.pkl ".
    Bad(String),
}

/// A tensor as a window on a storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// Name of the storage's member under `data/`.
    pub storage: String,
    pub element: Element,
    /// In elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements, one per dimension.
    pub strides: Vec<usize>,
}

/// Operations that one pickle may use, ten times what a giant with its optimizer takes; each costs at most 200 bytes.
pub(super) const STEPS_MAX: usize = 1_000_000;
const DIMS_MAX: usize = 8;

/// One value; containers are indices into the arenas of the [`Machine`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// None, floats, bytes and whatever else no tensor is made of.
    Opaque,
    Int(i64),
    Text(usize),
    /// A tuple, list or set.
    Sequence(usize),
    Dict(usize),
    Callable(Callable),
    Storage(usize),
    Tensor(usize),
}

/// The names a checkpoint may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Callable {
    Tensor,
    TypedTensor,
    Parameter,
    OrderedDict,
    Size,
    Device,
    /// `torch.FloatStorage` …: the kind of a storage, never called.
    Storage(Element),
    /// `torch.float32` …: an argument, never called.
    Element(Element),
}

impl Callable {
    /// Errors: [`Fault::Call`] for every other name.
    pub fn named(module: &str, name: &str) -> Result<Callable, Fault> {
        let other = |name, bytes| Element::Other(name, bytes);
        Ok(match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Callable::Tensor,
            ("torch._utils", "_rebuild_tensor_v3") => Callable::TypedTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Callable::Parameter,
            ("collections", "OrderedDict") => Callable::OrderedDict,
            ("torch", "Size") => Callable::Size,
            ("torch", "device") => Callable::Device,
            ("torch", "FloatStorage") => Callable::Storage(Element::F32),
            ("torch", "DoubleStorage") => Callable::Storage(Element::F64),
            ("torch", "HalfStorage") => Callable::Storage(Element::F16),
            ("torch", "BFloat16Storage") => Callable::Storage(Element::BF16),
            ("torch", "LongStorage") => Callable::Storage(other("I64", 8)),
            ("torch", "IntStorage") => Callable::Storage(other("I32", 4)),
            ("torch", "ShortStorage") => Callable::Storage(other("I16", 2)),
            ("torch", "CharStorage") => Callable::Storage(other("I8", 1)),
            ("torch", "ByteStorage") => Callable::Storage(other("U8", 1)),
            ("torch", "BoolStorage") => Callable::Storage(other("BOOL", 1)),
            ("torch" | "torch.storage", "UntypedStorage" | "TypedStorage") => Callable::Storage(other("U8", 1)),
            ("torch", "float32") => Callable::Element(Element::F32),
            ("torch", "float64") => Callable::Element(Element::F64),
            ("torch", "float16") => Callable::Element(Element::F16),
            ("torch", "bfloat16") => Callable::Element(Element::BF16),
            ("torch", "int64") => Callable::Element(other("I64", 8)),
            ("torch", "int32") => Callable::Element(other("I32", 4)),
            ("torch", "uint8") => Callable::Element(other("U8", 1)),
            ("torch", "bool") => Callable::Element(other("BOOL", 1)),
            _ => return Err(Fault::Call(format!("{module}.{name}"))),
        })
    }
}

pub(super) fn bad<T>(problem: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Bad(problem.into()))
}

/// The tensors of the pickled state dict, in its order: the dict itself, or its entry `state_dict`.
pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<(String, View)>, Fault> {
    let mut machine = Machine::default();
    let Value::Dict(mut dict) = opcodes::run(&mut machine, bytes)? else {
        return bad("does not describe a dictionary of tensors");
    };
    let nested = machine.dicts[dict].iter().find(|(key, _)| matches!(key, Value::Text(text) if machine.texts[*text] == "state_dict"));
    if let Some((_, value)) = nested {
        let Value::Dict(inner) = *value else { return bad("has a state_dict that is not a dictionary") };
        dict = inner;
    }
    let named = machine.dicts[dict].iter().filter_map(|pair| match *pair {
        (Value::Text(text), Value::Tensor(tensor)) => Some((machine.texts[text].clone(), machine.tensors[tensor].clone())),
        _ => None,
    });
    Ok(named.collect())
}

/// Everything a pickle has built so far.
#[derive(Default)]
pub(super) struct Machine {
    pub stack: Vec<Value>,
    /// Heights of the stack at each open mark.
    pub marks: Vec<usize>,
    pub memo: HashMap<u64, Value>,
    pub texts: Vec<String>,
    pub sequences: Vec<Vec<Value>>,
    pub dicts: Vec<Vec<(Value, Value)>>,
    pub storages: Vec<(String, Element)>,
    pub tensors: Vec<View>,
}

impl Machine {
    pub fn pop(&mut self) -> Result<Value, Fault> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return bad("takes a value from an empty stack");
        }
        self.stack.pop().ok_or(Fault::Bad("takes a value from an empty stack".into()))
    }

    pub fn top(&self) -> Result<Value, Fault> {
        self.stack.last().copied().ok_or(Fault::Bad("looks at an empty stack".into()))
    }

    /// The values above the innermost mark, which goes too.
    pub fn pop_mark(&mut self) -> Result<Vec<Value>, Fault> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => bad("closes a mark that it did not set"),
        }
    }

    pub fn push_text(&mut self, text: String) {
        self.texts.push(text);
        self.stack.push(Value::Text(self.texts.len() - 1));
    }

    pub fn push_sequence(&mut self, items: Vec<Value>) {
        self.sequences.push(items);
        self.stack.push(Value::Sequence(self.sequences.len() - 1));
    }

    pub fn push_dict(&mut self, pairs: Vec<(Value, Value)>) {
        self.dicts.push(pairs);
        self.stack.push(Value::Dict(self.dicts.len() - 1));
    }

    pub fn extend_sequence(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        let Value::Sequence(at) = self.top()? else { return bad("appends to something that is not a list") };
        self.sequences[at].extend(items);
        Ok(())
    }

    pub fn extend_dict(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        let Value::Dict(at) = self.top()? else { return bad("adds keys to something that is not a dictionary") };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return bad("has a key without a value");
        }
        self.dicts[at].extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    /// `callable(*arguments)`, for the few callables there are.
    pub fn call(&mut self, callable: Value, arguments: Value) -> Result<(), Fault> {
        let (Value::Callable(callable), Value::Sequence(arguments)) = (callable, arguments) else {
            return bad("calls something that is not a tensor constructor");
        };
        // The longest list of arguments that torch.save writes has eight.
        let arguments: Vec<Value> = self.sequences[arguments].iter().take(16).copied().collect();
        match (callable, &arguments[..]) {
            (Callable::Tensor, [Value::Storage(storage), Value::Int(offset), size, stride, ..]) => {
                let element = self.storages[*storage].1;
                self.push_tensor(*storage, element, *offset, *size, *stride)
            }
            (
                Callable::TypedTensor,
                [Value::Storage(storage), Value::Int(offset), size, stride, _, _, Value::Callable(Callable::Element(element)), ..],
            ) => self.push_tensor(*storage, *element, *offset, *size, *stride),
            (Callable::Parameter, [tensor @ Value::Tensor(_), ..]) => {
                self.stack.push(*tensor);
                Ok(())
            }
            (Callable::OrderedDict, []) => {
                self.push_dict(vec![]);
                Ok(())
            }
            (Callable::Size, [size @ Value::Sequence(_)]) => {
                self.stack.push(*size);
                Ok(())
            }
            (Callable::Device, _) => {
                self.stack.push(Value::Opaque);
                Ok(())
            }
            _ => bad("builds a tensor from arguments that torch.save never writes"),
        }
    }

    fn push_tensor(&mut self, storage: usize, element: Element, offset: i64, size: Value, stride: Value) -> Result<(), Fault> {
        let (shape, strides) = (self.sizes(size)?, self.sizes(stride)?);
        let Ok(offset) = usize::try_from(offset) else { return bad("has a tensor with a negative offset") };
        if shape.len() != strides.len() || shape.len() > DIMS_MAX {
            return bad("has a tensor whose shape and strides do not fit each other");
        }
        self.tensors.push(View { storage: self.storages[storage].0.clone(), element, offset, shape, strides });
        self.stack.push(Value::Tensor(self.tensors.len() - 1));
        Ok(())
    }

    fn sizes(&self, value: Value) -> Result<Vec<usize>, Fault> {
        let Value::Sequence(at) = value else { return bad("has a tensor without a shape") };
        let sizes = self.sequences[at].iter().take(DIMS_MAX + 1).map(|item| match item {
            Value::Int(size) => usize::try_from(*size).or_else(|_| bad("has a tensor with a negative size or stride")),
            _ => bad("has a tensor whose shape is not made of numbers"),
        });
        sizes.collect()
    }

    /// `('storage', kind, key, location, elements)`: a reference to a member of the archive.
    pub fn push_persistent(&mut self, id: Value) -> Result<(), Fault> {
        let Value::Sequence(at) = id else { return bad("has a storage that is not described by a tuple") };
        match self.sequences[at][..] {
            [Value::Text(tag), Value::Callable(Callable::Storage(element)), Value::Text(key), _, Value::Int(_)]
                if self.texts[tag] == "storage" && self.texts[key].len() <= 64 =>
            {
                self.storages.push((self.texts[key].clone(), element));
                self.stack.push(Value::Storage(self.storages.len() - 1));
                Ok(())
            }
            _ => bad("has a storage that torch.save never writes"),
        }
    }

    /// `module` and `name` as texts on the stack or in the code.
    pub fn push_global(&mut self, module: &str, name: &str) -> Result<(), Fault> {
        self.stack.push(Value::Callable(Callable::named(&quote(module), &quote(name))?));
        Ok(())
    }
}
