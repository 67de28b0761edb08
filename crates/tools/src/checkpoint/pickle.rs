//! A pickle read as data: protocols 2 to 5, tensors, texts, numbers and their containers.
//!
//! ```text
//! {'network.q.weight': _rebuild_tensor_v2(storage, offset, size, stride, …), …}
//! ```
//!
//! Invariants: nothing is ever called or imported. A name outside of [`Callable::named`] builds a
//! [`Value::Object`]: its class and the attributes set on it, which [`super::state`] skips beside the state and refuses inside of it.
//! Values live in arenas and refer to each other by index, so neither depth nor cycles cost stack, and [`PICKLE_STEPS_MAX`](eomt_edge_host::bounds) bounds memory.

use std::collections::HashMap;

use super::element::Element;
use super::error::quote;

/// Why a pickle was refused.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// It needs this function or class (`module.name`).
    Call(String),
    /// It holds the state, but not as tensors; a whole sentence after the file's name.
    State(String),
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

const DIMS_MAX: usize = 8;

/// One value; containers are indices into the arenas of the [`Machine`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// None, bytes, and other values that no tensor depends on.
    Opaque,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(usize),
    /// A tuple, list or set.
    Sequence(usize),
    Dict(usize),
    Callable(Callable),
    /// The name (a text) of a function or class that is never called.
    Unknown(usize),
    /// The object that such a name would have built.
    Object(usize),
    Storage(usize),
    Tensor(usize),
}

/// An object of a class that this program does not know, as far as the pickle describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    /// `module.name`, a text.
    pub class: usize,
    /// Its items and attributes, a dict.
    pub dict: usize,
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
    /// `None` for every other name.
    fn named(module: &str, name: &str) -> Option<Callable> {
        let other = |name, bytes| Element::Other(name, bytes);
        Some(match (module, name) {
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
            _ => return None,
        })
    }
}

pub(super) fn bad<T>(problem: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Bad(problem.into()))
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
    pub objects: Vec<Object>,
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

    pub fn push_object(&mut self, class: String) {
        self.texts.push(class);
        self.object(self.texts.len() - 1);
    }

    fn object(&mut self, class: usize) {
        self.dicts.push(vec![]);
        self.objects.push(Object { class, dict: self.dicts.len() - 1 });
        self.stack.push(Value::Object(self.objects.len() - 1));
    }

    /// The pairs of a dictionary, or of an object as if it were one.
    pub fn pairs(&self, value: Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(at) => Some(&self.dicts[at]),
            Value::Object(at) => Some(&self.dicts[self.objects[at].dict]),
            _ => None,
        }
    }

    pub fn extend_sequence(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        match self.top()? {
            Value::Sequence(at) => self.sequences[at].extend(items),
            Value::Object(_) => {}
            _ => return bad("appends to something that is not a list"),
        }
        Ok(())
    }

    pub fn extend_dict(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        let at = match self.top()? {
            Value::Dict(at) => at,
            Value::Object(at) => self.objects[at].dict,
            _ => return bad("adds keys to something that is not a dictionary"),
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return bad("has a key without a value");
        }
        self.dicts[at].extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    /// BUILD: sets attributes. Those of an object become its items; no tensor or dictionary depends on its own
    /// (`_metadata` of a state dict).
    pub fn build(&mut self, attributes: Value) -> Result<(), Fault> {
        match (self.top()?, attributes) {
            (Value::Object(at), Value::Dict(from)) => {
                // A dictionary with attributes keeps its items. Nothing is copied, so a pickle cannot multiply its size.
                if self.dicts[self.objects[at].dict].is_empty() {
                    self.objects[at].dict = from;
                }
                Ok(())
            }
            (Value::Dict(_) | Value::Tensor(_) | Value::Object(_), _) => Ok(()),
            _ => bad("sets attributes of something that is not a tensor"),
        }
    }

    /// `callable(*arguments)` for the few known callables; others return an object.
    pub fn call(&mut self, callable: Value, arguments: Value) -> Result<(), Fault> {
        let callable = match callable {
            Value::Callable(callable) => callable,
            Value::Unknown(class) => {
                self.object(class);
                return Ok(());
            }
            Value::Object(at) => {
                self.object(self.objects[at].class);
                return Ok(());
            }
            _ => return bad("calls something that is not a function"),
        };
        let Value::Sequence(arguments) = arguments else { return bad("calls something without a list of arguments") };
        // The longest list of arguments that torch.save writes has eight.
        let arguments: Vec<Value> = self.sequences[arguments].iter().take(16).copied().collect();
        match (callable, &arguments[..]) {
            (Callable::Tensor, [Value::Storage(storage), Value::Int(offset), size, stride, ..]) => {
                let element = self.storages[*storage].1;
                self.push_tensor(*storage, element, *offset, *size, *stride)?;
            }
            (
                Callable::TypedTensor,
                [Value::Storage(storage), Value::Int(offset), size, stride, _, _, Value::Callable(Callable::Element(element)), ..],
            ) => self.push_tensor(*storage, *element, *offset, *size, *stride)?,
            (Callable::Parameter, [tensor @ Value::Tensor(_), ..]) => self.stack.push(*tensor),
            (Callable::OrderedDict, []) => self.push_dict(vec![]),
            (Callable::Size, [size @ Value::Sequence(_)]) => self.stack.push(*size),
            (Callable::Device | Callable::Element(_), _) => self.stack.push(Value::Opaque),
            _ => match arguments.iter().find_map(|value| self.unknown_class(*value)) {
                Some(class) => self.object(class),
                None => return bad("builds a tensor from arguments that torch.save never writes"),
            },
        }
        Ok(())
    }

    fn unknown_class(&self, value: Value) -> Option<usize> {
        match value {
            Value::Unknown(class) => Some(class),
            Value::Object(at) => Some(self.objects[at].class),
            _ => None,
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
            // A kind of storage without elements that we know: quantized, complex.
            [Value::Text(tag), Value::Unknown(kind), ..] if self.texts[tag] == "storage" => {
                self.object(kind);
                Ok(())
            }
            _ => bad("has a storage that torch.save never writes"),
        }
    }

    /// `module` and `name` as texts on the stack or in the code.
    pub fn push_global(&mut self, module: &str, name: &str) {
        let (module, name) = (quote(module), quote(name));
        match Callable::named(&module, &name) {
            Some(callable) => self.stack.push(Value::Callable(callable)),
            None => {
                self.texts.push(format!("{module}.{name}"));
                self.stack.push(Value::Unknown(self.texts.len() - 1));
            }
        }
    }
}
