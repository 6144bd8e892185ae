//! Any serialisable value as a tree whose fields can be changed, and which postcard writes as it
//! would write the value itself.

use std::fmt;

use serde::ser::{self, Serialize, SerializeTuple as _, Serializer};

/// A value. Names are those of the types in the source.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Nothing at all.
    Unit,
    /// A truth value.
    Bool(bool),
    /// An integer: its width in bits, whether it is signed, the value (modulo 2^128).
    Int(u32, bool, i128),
    /// A float.
    Float(f64),
    /// A string.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An optional value.
    Option(Option<Box<Value>>),
    /// A list behind its length.
    List(Vec<Value>),
    /// A struct or tuple: name of the type and fields.
    Record(&'static str, Vec<Value>),
    /// A variant of an enum: name of the enum, position of the variant, its fields.
    Variant(&'static str, u32, Vec<Value>),
}

impl Value {
    /// The tree of a value; `None` for what the programs' data model does not use (maps, chars).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Option<Self> {
        value.serialize(Builder).ok()
    }

    /// Direct parts.
    pub fn parts(&self) -> &[Value] {
        match self {
            Self::List(items) | Self::Record(_, items) | Self::Variant(_, _, items) => items,
            Self::Option(Some(item)) => std::slice::from_ref(&**item),
            _ => &[],
        }
    }

    /// Direct parts, to be changed.
    pub fn parts_mut(&mut self) -> &mut [Value] {
        match self {
            Self::List(items) | Self::Record(_, items) | Self::Variant(_, _, items) => items,
            Self::Option(Some(item)) => std::slice::from_mut(&mut **item),
            _ => &mut [],
        }
    }

    /// How many values it is made of, itself included.
    pub fn count(&self) -> usize {
        1 + self.parts().iter().map(Value::count).sum::<usize>()
    }

    /// The value at a position of the preorder.
    pub fn get(&self, mut at: usize) -> Option<&Value> {
        if at == 0 {
            return Some(self);
        }
        at -= 1;
        for part in self.parts() {
            let count = part.count();
            if at < count {
                return part.get(at);
            }
            at -= count;
        }
        None
    }

    /// The value at a position of the preorder, to be changed.
    pub fn get_mut(&mut self, mut at: usize) -> Option<&mut Value> {
        if at == 0 {
            return Some(self);
        }
        at -= 1;
        for part in self.parts_mut() {
            let count = part.count();
            if at < count {
                return part.get_mut(at);
            }
            at -= count;
        }
        None
    }

    /// Whether the other value can stand where this one does.
    pub fn fits(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Int(bits, signed, _), Self::Int(b, s, _)) => (bits, signed) == (b, s),
            (Self::Record(name, _), Self::Record(other, _)) => name == other,
            (Self::Variant(name, ..), Self::Variant(other, ..)) => name == other,
            (Self::List(a), Self::List(b)) => match (a.first(), b.first()) {
                (Some(a), Some(b)) => a.fits(b),
                _ => true,
            },
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

fn tuple<S: Serializer>(serializer: S, items: &[Value]) -> Result<S::Ok, S::Error> {
    let mut tuple = serializer.serialize_tuple(items.len())?;
    for item in items {
        tuple.serialize_element(item)?;
    }
    tuple.end()
}

/// Fields one after the other, as postcard writes them.
struct Fields<'a>(&'a [Value]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        tuple(serializer, self.0)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unit => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Int(8, false, x) => serializer.serialize_u8(*x as u8),
            Self::Int(16, false, x) => serializer.serialize_u16(*x as u16),
            Self::Int(32, false, x) => serializer.serialize_u32(*x as u32),
            Self::Int(64, false, x) => serializer.serialize_u64(*x as u64),
            Self::Int(8, true, x) => serializer.serialize_i8(*x as i8),
            Self::Int(16, true, x) => serializer.serialize_i16(*x as i16),
            Self::Int(32, true, x) => serializer.serialize_i32(*x as i32),
            Self::Int(64, true, x) => serializer.serialize_i64(*x as i64),
            Self::Int(_, true, x) => serializer.serialize_i128(*x),
            Self::Int(_, false, x) => serializer.serialize_u128(*x as u128),
            Self::Float(x) => serializer.serialize_f64(*x),
            Self::Str(s) => serializer.serialize_str(s),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Option(None) => serializer.serialize_none(),
            Self::Option(Some(item)) => serializer.serialize_some(item),
            Self::List(items) => serializer.collect_seq(items),
            Self::Record(_, fields) => tuple(serializer, fields),
            Self::Variant(_, index, fields) => {
                serializer.serialize_newtype_variant("", *index, "", &Fields(fields))
            }
        }
    }
}

/// A type that the tree does not know.
#[derive(Debug)]
pub struct Unknown;

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a type that the tree does not know")
    }
}

impl std::error::Error for Unknown {}

impl ser::Error for Unknown {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

struct Builder;

/// Collects parts; the function makes the value of them.
struct Parts<F>(Vec<Value>, F);

type Make = Box<dyn FnOnce(Vec<Value>) -> Value>;

fn parts(make: impl FnOnce(Vec<Value>) -> Value + 'static) -> Parts<Make> {
    Parts(vec![], Box::new(make))
}

impl Parts<Make> {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
        self.0.push(value.serialize(Builder)?);
        Ok(())
    }

    fn finish(self) -> Result<Value, Unknown> {
        Ok((self.1)(self.0))
    }
}

macro_rules! collect {
    ($($name:ident :: $add:ident,)+) => {$(
        impl ser::$name for Parts<Make> {
            type Ok = Value;
            type Error = Unknown;
            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
                self.push(value)
            }
            fn end(self) -> Result<Value, Unknown> {
                self.finish()
            }
        }
    )+};
}

collect! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! collect_named {
    ($($name:ident,)+) => {$(
        impl ser::$name for Parts<Make> {
            type Ok = Value;
            type Error = Unknown;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _key: &'static str,
                value: &T,
            ) -> Result<(), Unknown> {
                self.push(value)
            }
            fn end(self) -> Result<Value, Unknown> {
                self.finish()
            }
        }
    )+};
}

collect_named! { SerializeStruct, SerializeStructVariant, }

macro_rules! integers {
    ($($name:ident $ty:ident $signed:literal,)+) => {$(
        fn $name(self, x: $ty) -> Result<Value, Unknown> {
            Ok(Value::Int($ty::BITS, $signed, x.into()))
        }
    )+};
}

impl Serializer for Builder {
    type Ok = Value;
    type Error = Unknown;
    type SerializeSeq = Parts<Make>;
    type SerializeTuple = Parts<Make>;
    type SerializeTupleStruct = Parts<Make>;
    type SerializeTupleVariant = Parts<Make>;
    type SerializeMap = ser::Impossible<Value, Unknown>;
    type SerializeStruct = Parts<Make>;
    type SerializeStructVariant = Parts<Make>;

    integers! {
        serialize_u8 u8 false,
        serialize_u16 u16 false,
        serialize_u32 u32 false,
        serialize_u64 u64 false,
        serialize_i8 i8 true,
        serialize_i16 i16 true,
        serialize_i32 i32 true,
        serialize_i64 i64 true,
        serialize_i128 i128 true,
    }

    fn serialize_u128(self, x: u128) -> Result<Value, Unknown> {
        Ok(Value::Int(128, false, x as i128))
    }

    fn serialize_bool(self, b: bool) -> Result<Value, Unknown> {
        Ok(Value::Bool(b))
    }

    fn serialize_f32(self, _x: f32) -> Result<Value, Unknown> {
        Err(Unknown)
    }

    fn serialize_f64(self, x: f64) -> Result<Value, Unknown> {
        Ok(Value::Float(x))
    }

    fn serialize_char(self, _c: char) -> Result<Value, Unknown> {
        Err(Unknown)
    }

    fn serialize_str(self, s: &str) -> Result<Value, Unknown> {
        Ok(Value::Str(s.into()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, Unknown> {
        Ok(Value::Bytes(bytes.into()))
    }

    fn serialize_none(self) -> Result<Value, Unknown> {
        Ok(Value::Option(None))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Unknown> {
        Ok(Value::Option(Some(Box::new(value.serialize(Self)?))))
    }

    fn serialize_unit(self) -> Result<Value, Unknown> {
        Ok(Value::Unit)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, Unknown> {
        Ok(Value::Unit)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        _variant: &'static str,
    ) -> Result<Value, Unknown> {
        Ok(Value::Variant(name, index, vec![]))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, Unknown> {
        Ok(Value::Record(name, vec![value.serialize(Self)?]))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<Value, Unknown> {
        Ok(Value::Variant(name, index, vec![value.serialize(Self)?]))
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Parts<Make>, Unknown> {
        Ok(parts(Value::List))
    }

    fn serialize_tuple(self, _length: usize) -> Result<Parts<Make>, Unknown> {
        Ok(parts(|items| Value::Record("", items)))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _length: usize,
    ) -> Result<Parts<Make>, Unknown> {
        Ok(parts(move |items| Value::Record(name, items)))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Parts<Make>, Unknown> {
        Ok(parts(move |items| Value::Variant(name, index, items)))
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Self::SerializeMap, Unknown> {
        Err(Unknown)
    }

    fn serialize_struct(self, name: &'static str, _length: usize) -> Result<Parts<Make>, Unknown> {
        Ok(parts(move |items| Value::Record(name, items)))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Parts<Make>, Unknown> {
        Ok(parts(move |items| Value::Variant(name, index, items)))
    }
}
