//! What a message type is: its fields in order, and what follows from them: bytes, the definition's text, the type's hash.
//!
//! Invariants: [`message!`] states each field once, so that bytes, text and hash cannot disagree.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::cdr::{CdrError, Reader, Writer};

/// A kind of value without count. The numbers of type_description_interfaces/msg/FieldType are in `Base::type_id`.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the names of .msg files
pub enum Base {
    Nested(&'static Definition),
    Uint8,
    Uint16,
    Int32,
    Uint32,
    Float32,
    Float64,
    Bool,
    Byte,
    String,
    /// A text of so many bytes at most.
    BoundedString(u32),
}

/// How many of them.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// One.
    One,
    /// Always so many.
    Array(usize),
    /// A count, then as many.
    Sequence,
}

/// A field's type.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Of what.
    pub base: Base,
    /// How many.
    pub shape: Shape,
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub struct FieldDefinition {
    /// As in the .msg file.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
}

/// A message type.
#[derive(Debug)]
pub struct Definition {
    /// `sensor_msgs/msg/Image`.
    pub name: &'static str,
    /// In the order in which they travel.
    pub fields: &'static [FieldDefinition],
}

/// A value that a field can have.
pub trait Field: Sized {
    /// Its type.
    const KIND: Kind;

    /// Appends it.
    fn write(&self, writer: &mut Writer);

    /// Takes it off.
    ///
    /// # Errors
    /// [`CdrError`].
    fn read(reader: &mut Reader) -> Result<Self, CdrError>;

    /// Appends several; bytes do it at once.
    fn write_all(values: &[Self], writer: &mut Writer) {
        values.iter().for_each(|value| value.write(writer));
    }

    /// Takes several off; bytes do it at once. It grows as it reads, so that a false count reserves nothing.
    ///
    /// # Errors
    /// [`CdrError`].
    fn read_all(count: usize, reader: &mut Reader) -> Result<Vec<Self>, CdrError> {
        (0..count).map(|_| Self::read(reader)).collect()
    }
}

/// A field's value that is a message of its own.
pub trait Message: Field + Default {
    /// Its fields.
    const DEFINITION: &'static Definition;
    /// `sensor_msgs/msg/Image`.
    const NAME: &'static str = Self::DEFINITION.name;

    /// The bytes that travel, with encapsulation header.
    fn to_cdr(&self) -> Vec<u8> {
        let mut writer = Writer::new(256);
        self.write(&mut writer);
        writer.finish()
    }

    /// From bytes that travelled.
    ///
    /// # Errors
    /// [`CdrError`], also when `sample` is longer than the fields.
    fn from_cdr(sample: &[u8]) -> Result<Self, CdrError> {
        let mut reader = Reader::new(sample)?;
        let message = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(message)
    }
}

impl Base {
    /// The number of a single value; a nested message's is 1.
    fn type_id(self) -> u32 {
        match self {
            Base::Nested(_) => 1,
            Base::Uint8 => 3,
            Base::Uint16 => 5,
            Base::Int32 => 6,
            Base::Uint32 => 7,
            Base::Float32 => 10,
            Base::Float64 => 11,
            Base::Bool => 15,
            Base::Byte => 16,
            Base::String => 17,
            Base::BoundedString(_) => 21,
        }
    }

    fn text(self) -> String {
        match self {
            Base::Nested(definition) => definition.name.replace("/msg/", "/"),
            Base::Uint8 => "uint8".into(),
            Base::Uint16 => "uint16".into(),
            Base::Int32 => "int32".into(),
            Base::Uint32 => "uint32".into(),
            Base::Float32 => "float32".into(),
            Base::Float64 => "float64".into(),
            Base::Bool => "bool".into(),
            Base::Byte => "byte".into(),
            Base::String => "string".into(),
            Base::BoundedString(most) => format!("string<={most}"),
        }
    }
}

impl Kind {
    /// One value of `base`.
    pub const fn one(base: Base) -> Kind {
        Kind { base, shape: Shape::One }
    }

    /// As the type description numbers arrays (48 more) and sequences (144 more).
    fn type_id(self) -> u32 {
        self.base.type_id()
            + match self.shape {
                Shape::One => 0,
                Shape::Array(_) => 48,
                Shape::Sequence => 144,
            }
    }

    fn text(self) -> String {
        let base = self.base.text();
        match self.shape {
            Shape::One => base,
            Shape::Array(count) => format!("{base}[{count}]"),
            Shape::Sequence => format!("{base}[]"),
        }
    }
}

/// The name under which DDS knows the type: `sensor_msgs::msg::dds_::Image_`.
pub fn dds_name(definition: &Definition) -> String {
    let (package, name) = definition.name.split_once("/msg/").expect("names have a package");
    format!("{package}::msg::dds_::{name}_")
}

/// The text of the type and of all types in it, as recordings carry it (`ros2msg`).
pub fn definition(definition: &Definition) -> String {
    let mut text = fields_text(definition);
    for nested in nested(definition).values() {
        let _ = write!(text, "{}\nMSG: {}\n{}", "=".repeat(80), nested.name.replace("/msg/", "/"), fields_text(nested));
    }
    text
}

fn fields_text(definition: &Definition) -> String {
    definition.fields.iter().map(|field| format!("{} {}\n", field.kind.text(), field.name)).collect()
}

/// The type's hash (REP-2016): the SHA-256 of its description as JSON.
pub fn type_hash(definition: &Definition) -> String {
    let referenced: Vec<String> = nested(definition).values().map(|nested| description(nested)).collect();
    let json =
        format!("{{\"type_description\": {}, \"referenced_type_descriptions\": [{}]}}", description(definition), referenced.join(", "));
    let digest = Sha256::digest(json.as_bytes());
    digest.iter().fold("RIHS01_".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn description(definition: &Definition) -> String {
    let fields: Vec<String> = definition.fields.iter().map(field_description).collect();
    format!("{{\"type_name\": \"{}\", \"fields\": [{}]}}", definition.name, fields.join(", "))
}

fn field_description(field: &FieldDefinition) -> String {
    let capacity = if let Shape::Array(count) = field.kind.shape { count } else { 0 };
    let string_capacity = if let Base::BoundedString(most) = field.kind.base { most } else { 0 };
    let nested = if let Base::Nested(definition) = field.kind.base { definition.name } else { "" };
    format!(
        "{{\"name\": \"{}\", \"type\": {{\"type_id\": {}, \"capacity\": {capacity}, \"string_capacity\": {string_capacity}, \
         \"nested_type_name\": \"{nested}\"}}}}",
        field.name,
        field.kind.type_id()
    )
}

/// All types in it, by name.
fn nested(of: &Definition) -> BTreeMap<&'static str, &'static Definition> {
    let mut found = BTreeMap::new();
    for field in of.fields {
        if let Base::Nested(inner) = field.kind.base {
            found.insert(inner.name, inner);
            found.extend(nested(inner));
        }
    }
    found
}

macro_rules! number {
    ($type:ty, $base:ident) => {
        impl Field for $type {
            const KIND: Kind = Kind::one(Base::$base);

            fn write(&self, writer: &mut Writer) {
                writer.number(self.to_le_bytes());
            }

            fn read(reader: &mut Reader) -> Result<Self, CdrError> {
                Ok(<$type>::from_le_bytes(reader.number()?))
            }
        }
    };
}

number!(u16, Uint16);
number!(i32, Int32);
number!(u32, Uint32);
number!(f32, Float32);
number!(f64, Float64);

impl Field for u8 {
    const KIND: Kind = Kind::one(Base::Uint8);

    fn write(&self, writer: &mut Writer) {
        writer.raw(&[*self]);
    }

    fn read(reader: &mut Reader) -> Result<u8, CdrError> {
        Ok(reader.raw(1)?[0])
    }

    fn write_all(values: &[u8], writer: &mut Writer) {
        writer.raw(values);
    }

    fn read_all(count: usize, reader: &mut Reader) -> Result<Vec<u8>, CdrError> {
        Ok(reader.raw(count)?.to_vec())
    }
}

impl Field for bool {
    const KIND: Kind = Kind::one(Base::Bool);

    fn write(&self, writer: &mut Writer) {
        writer.raw(&[u8::from(*self)]);
    }

    fn read(reader: &mut Reader) -> Result<bool, CdrError> {
        let at = reader.at();
        match reader.raw(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CdrError::Truth(at)),
        }
    }
}

impl Field for String {
    const KIND: Kind = Kind::one(Base::String);

    fn write(&self, writer: &mut Writer) {
        writer.text(self);
    }

    fn read(reader: &mut Reader) -> Result<String, CdrError> {
        reader.text().map(str::to_owned)
    }
}

impl<T: Field> Field for Vec<T> {
    const KIND: Kind = Kind { base: T::KIND.base, shape: Shape::Sequence };

    fn write(&self, writer: &mut Writer) {
        writer.count(self.len());
        T::write_all(self, writer);
    }

    fn read(reader: &mut Reader) -> Result<Vec<T>, CdrError> {
        let count = reader.count()?;
        T::read_all(count, reader)
    }
}

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    const KIND: Kind = Kind { base: T::KIND.base, shape: Shape::Array(N) };

    fn write(&self, writer: &mut Writer) {
        T::write_all(self, writer);
    }

    fn read(reader: &mut Reader) -> Result<[T; N], CdrError> {
        let mut values = [T::default(); N];
        for value in &mut values {
            *value = T::read(reader)?;
        }
        Ok(values)
    }
}

/// A field's name as ROS knows it: `type`, which Rust must write as `r#type`.
pub(crate) const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Defines a message: `/// doc  Name = "package/msg/Name" { /// doc  field: Type, ... }`, in the order of the .msg file. A field whose .msg
/// type the Rust type does not tell has it in brackets: `level: u8 [Base::Byte]`.
macro_rules! message {
    ($($(#[$doc:meta])* $name:ident = $ros:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty $([$base:expr])?,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $crate::Field for $name {
            const KIND: $crate::Kind = $crate::Kind::one($crate::Base::Nested(<$name as $crate::Message>::DEFINITION));

            fn write(&self, writer: &mut $crate::cdr::Writer) {
                $(<$type as $crate::Field>::write(&self.$field, writer);)*
            }

            fn read(reader: &mut $crate::cdr::Reader) -> Result<Self, $crate::cdr::CdrError> {
                $(let $field = <$type as $crate::Field>::read(reader)?;)*
                Ok($name { $($field,)* })
            }
        }

        impl $crate::Message for $name {
            const DEFINITION: &'static $crate::Definition = &$crate::Definition {
                name: $ros,
                fields: &[$($crate::FieldDefinition {
                    name: $crate::message::plain(stringify!($field)),
                    kind: message!(@kind $type $(, $base)?),
                },)*],
            };
        }
    )*};
    (@kind $type:ty) => { <$type as $crate::Field>::KIND };
    (@kind $type:ty, $base:expr) => { $crate::Kind { base: $base, shape: <$type as $crate::Field>::KIND.shape } };
}
pub(crate) use message;
