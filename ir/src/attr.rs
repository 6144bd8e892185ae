//! Attributes of ops: values, typed access, and the macro that declares an op's attributes once
//! and derives parsing, printing and the schema from the declaration.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dim::{Bindings, Dim};
use crate::scalar::Scalar;
use crate::types::{Class, DType};

/// A float that is compared and hashed by its total order, so that attributes can be keys.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct F64(pub f64);

impl PartialEq for F64 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for F64 {}
impl PartialOrd for F64 {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for F64 {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl std::hash::Hash for F64 {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Attr {
    /// A truth value.
    Bool(bool),
    /// An integer; wide enough for every integer element type.
    Int(i128),
    /// A float.
    Float(F64),
    /// A string.
    Str(Arc<str>),
    /// An element type.
    DType(DType),
    /// An extent that is not a constant (constants are [`Attr::Int`]).
    Dim(Dim),
    /// A list.
    List(Vec<Attr>),
}

impl Attr {
    /// The attribute with symbols in extents replaced by their values. An extent that is an unbound
    /// symbol stays as it is; `None` if an expression has no value.
    pub fn bind(&self, bindings: &Bindings) -> Option<Self> {
        Some(match self {
            Attr::Dim(dim) => match (dim.eval(bindings), dim) {
                (Some(extent), _) => Attr::Int(extent.into()),
                (None, Dim::Expr(poly)) if poly.as_symbol().is_some() => self.clone(),
                (None, _) => return None,
            },
            Attr::List(items) => Attr::List(
                items
                    .iter()
                    .map(|a| a.bind(bindings))
                    .collect::<Option<_>>()?,
            ),
            other => other.clone(),
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Attr::Bool(_) => "a bool",
            Attr::Int(_) => "an integer",
            Attr::Float(_) => "a float",
            Attr::Str(_) => "a string",
            Attr::DType(_) => "an element type",
            Attr::Dim(_) => "a symbolic extent",
            Attr::List(_) => "a list",
        }
    }
}

/// Prints a float so that it reads back as the same value and not as an integer.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        let canonical = value.to_bits() == f64::NAN.to_bits();
        return if canonical {
            "nan".into()
        } else {
            format!("0f{:016x}", value.to_bits())
        };
    }
    if value.is_infinite() {
        return if value > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let magnitude = value.abs();
    let text = if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        format!("{value:e}")
    } else {
        format!("{value}")
    };
    if text.contains(['.', 'e']) {
        text
    } else {
        text + ".0"
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Bool(b) => write!(f, "{b}"),
            Attr::Int(i) => write!(f, "{i}"),
            Attr::Float(x) => f.write_str(&format_float(x.0)),
            Attr::Str(s) => f.write_str(&dojoc_grammar::quote(s)),
            Attr::DType(d) => write!(f, "{d}"),
            Attr::Dim(d) => write!(f, "{d}"),
            Attr::List(items) => {
                write!(f, "[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
                }
                write!(f, "]")
            }
        }
    }
}

/// Named attributes in the order in which the op declares them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Attrs(pub Vec<(Arc<str>, Attr)>);

impl Attrs {
    /// The attribute of a name.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0
            .iter()
            .find(|(n, _)| &**n == name)
            .map(|(_, value)| value)
    }

    /// Adds an attribute.
    pub fn push(&mut self, name: &str, value: Attr) {
        self.0.push((name.into(), value));
    }

    /// All attributes with symbols in extents replaced, as [`Attr::bind`] does it.
    pub fn bind(&self, bindings: &Bindings) -> Option<Self> {
        self.0
            .iter()
            .map(|(name, value)| Some((name.clone(), value.bind(bindings)?)))
            .collect::<Option<_>>()
            .map(Attrs)
    }

    /// Calls `visit` with every extent that is not a constant.
    pub fn for_each_dim(&self, visit: &mut dyn FnMut(&Dim)) {
        fn walk(attr: &Attr, visit: &mut dyn FnMut(&Dim)) {
            match attr {
                Attr::Dim(dim) => visit(dim),
                Attr::List(items) => items.iter().for_each(|a| walk(a, visit)),
                _ => {}
            }
        }
        self.0.iter().for_each(|(_, value)| walk(value, visit));
    }
}

/// Why attributes do not make an op.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttrError {
    /// The attribute, empty if it is about the op as a whole.
    pub attr: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for AttrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AttrError {}

/// One line of an op's attribute schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttrSpec {
    /// Name.
    pub name: &'static str,
    /// Kind of value, for people.
    pub kind: String,
    /// What it means.
    pub doc: &'static str,
}

/// A Rust type that can be the value of an attribute.
pub trait AttrField: Sized {
    /// Kind of value, for people.
    fn kind() -> String;
    /// The value as an attribute; `None` leaves it out of the text.
    fn to_attr(&self) -> Option<Attr>;
    /// The value of an attribute, `None` if it is not there.
    ///
    /// # Errors
    /// What was expected.
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String>;
    /// Calls `visit` with every extent that is not a constant. Only types that hold extents have one.
    fn for_each_dim(&self, _visit: &mut dyn FnMut(&Dim)) {}
}

fn expected<T: AttrField>(attr: Option<&Attr>) -> String {
    match attr {
        Some(attr) => format!("expected {}, found {} `{attr}`", T::kind(), attr.kind()),
        None => format!("expected {}, but the attribute is missing", T::kind()),
    }
}

macro_rules! simple_field {
    ($($ty:ty, $kind:literal, $v:ident => $to:expr, $($pattern:pat => $from:expr),+;)+) => {$(
        impl AttrField for $ty {
            fn kind() -> String {
                $kind.into()
            }
            fn to_attr(&self) -> Option<Attr> {
                let $v = self;
                Some($to)
            }
            fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
                let result: Option<Self> = match attr {
                    $(Some($pattern) => $from,)+
                    _ => None,
                };
                result.ok_or_else(|| expected::<Self>(attr))
            }
        }
    )+};
}
simple_field! {
    bool, "a bool", v => Attr::Bool(*v), Attr::Bool(b) => Some(*b);
    i64, "an integer", v => Attr::Int((*v).into()), Attr::Int(i) => i64::try_from(*i).ok();
    u64, "a non-negative integer", v => Attr::Int((*v).into()), Attr::Int(i) => u64::try_from(*i).ok();
    usize, "a small non-negative integer", v => Attr::Int(*v as i128),
        Attr::Int(i) => u32::try_from(*i).ok().map(|i| i as usize);
    F64, "a number", v => Attr::Float(*v), Attr::Float(x) => Some(*x), Attr::Int(i) => Some(F64(*i as f64));
    Arc<str>, "a string", v => Attr::Str(v.clone()), Attr::Str(s) => Some(s.clone());
    DType, "an element type", v => Attr::DType(*v), Attr::DType(d) => Some(*d);
}

impl AttrField for Dim {
    fn kind() -> String {
        "an extent".into()
    }
    fn to_attr(&self) -> Option<Attr> {
        Some(match self {
            Dim::Const(c) => Attr::Int((*c).into()),
            expr => Attr::Dim(expr.clone()),
        })
    }
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        let dim = match attr {
            Some(Attr::Dim(d)) => Some(d.clone()),
            Some(Attr::Int(i)) => u64::try_from(*i).ok().map(Dim::Const),
            _ => None,
        };
        dim.ok_or_else(|| expected::<Self>(attr))
    }
    fn for_each_dim(&self, visit: &mut dyn FnMut(&Dim)) {
        if self.as_const().is_none() {
            visit(self);
        }
    }
}

/// A truth value that is left out of the text where it is false.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Flag(pub bool);

impl std::ops::Deref for Flag {
    type Target = bool;
    fn deref(&self) -> &bool {
        &self.0
    }
}

impl AttrField for Flag {
    fn kind() -> String {
        "a bool, optional".into()
    }
    fn to_attr(&self) -> Option<Attr> {
        self.0.then_some(Attr::Bool(true))
    }
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        attr.map_or(Ok(false), |attr| bool::from_attr(Some(attr)))
            .map(Self)
    }
}

impl<T: AttrField> AttrField for Vec<T> {
    fn kind() -> String {
        format!("a list of items, each {}", T::kind())
    }
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::List(self.iter().filter_map(T::to_attr).collect()))
    }
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::List(items)) => items.iter().map(|a| T::from_attr(Some(a))).collect(),
            _ => Err(expected::<Self>(attr)),
        }
    }
    fn for_each_dim(&self, visit: &mut dyn FnMut(&Dim)) {
        self.iter().for_each(|item| item.for_each_dim(visit));
    }
}

impl<T: AttrField> AttrField for (T, T) {
    fn kind() -> String {
        format!("a pair, each {}", T::kind())
    }
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::List(
            [&self.0, &self.1]
                .into_iter()
                .filter_map(T::to_attr)
                .collect(),
        ))
    }
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::List(items)) if items.len() == 2 => Ok((
                T::from_attr(Some(&items[0]))?,
                T::from_attr(Some(&items[1]))?,
            )),
            _ => Err(expected::<Self>(attr)),
        }
    }
    fn for_each_dim(&self, visit: &mut dyn FnMut(&Dim)) {
        self.0.for_each_dim(visit);
        self.1.for_each_dim(visit);
    }
}

impl<T: AttrField> AttrField for Option<T> {
    fn kind() -> String {
        format!("{}, optional", T::kind())
    }
    fn to_attr(&self) -> Option<Attr> {
        self.as_ref().and_then(T::to_attr)
    }
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        attr.map(|a| T::from_attr(Some(a))).transpose()
    }
    fn for_each_dim(&self, visit: &mut dyn FnMut(&Dim)) {
        self.iter().for_each(|item| item.for_each_dim(visit));
    }
}

/// A number whose kind follows an element type: the value of `full`, the bounds of a range...
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Number {
    /// For integers and bool.
    Int(i128),
    /// For floats.
    Float(F64),
}

impl Number {
    /// The number as an element of `dtype`.
    pub fn to_scalar(self, dtype: DType) -> Scalar {
        match self {
            Number::Int(i) => Scalar::Int(i).convert(dtype),
            Number::Float(x) => Scalar::F64(x.0).convert(dtype),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(i) => write!(f, "{i}"),
            Number::Float(x) => f.write_str(&format_float(x.0)),
        }
    }
}

impl From<Scalar> for Number {
    fn from(value: Scalar) -> Self {
        match value {
            Scalar::Bool(_) | Scalar::Int(_) => Number::Int(value.to_int()),
            Scalar::F32(_) | Scalar::F64(_) => Number::Float(F64(value.to_f64())),
        }
    }
}

impl AttrField for Number {
    fn kind() -> String {
        "a number".into()
    }
    fn to_attr(&self) -> Option<Attr> {
        Some(match self {
            Number::Int(i) => Attr::Int(*i),
            Number::Float(x) => Attr::Float(*x),
        })
    }
    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Int(i)) => Ok(Number::Int(*i)),
            Some(Attr::Float(x)) => Ok(Number::Float(*x)),
            Some(Attr::Bool(b)) => Ok(Number::Int((*b).into())),
            _ => Err(expected::<Self>(attr)),
        }
    }
}

/// Whether `number` can be an element of `dtype` without losing its kind.
pub fn number_fits(number: Number, dtype: DType) -> bool {
    match (number, dtype.class()) {
        (Number::Int(i), Class::Bool) => (0..=1).contains(&i),
        (Number::Int(i), Class::Int { .. }) => dtype
            .int_range()
            .is_some_and(|(low, high)| low <= i && i <= high),
        (_, Class::Float) => true,
        _ => false,
    }
}

/// Declares an enum whose values are attribute strings: `attr_enum! { /// doc  Mode { /// doc
/// Constant "constant", } }`.
#[macro_export]
macro_rules! attr_enum {
    ($(#[$meta:meta])* $enum:ident { $($(#[$vmeta:meta])* $variant:ident $name:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug,
            serde::Serialize, serde::Deserialize,
        )]
        pub enum $enum { $($(#[$vmeta])* $variant,)+ }

        impl $crate::attr::AttrField for $enum {
            fn kind() -> String {
                concat!("one of" $(, " \"", $name, "\"")+).into()
            }
            fn to_attr(&self) -> Option<$crate::attr::Attr> {
                let name = match self { $($enum::$variant => $name,)+ };
                Some($crate::attr::Attr::Str(name.into()))
            }
            fn from_attr(attr: Option<&$crate::attr::Attr>) -> Result<Self, String> {
                match attr {
                    $(Some($crate::attr::Attr::Str(s)) if &**s == $name => Ok($enum::$variant),)+
                    Some(other) => Err(format!("expected {}, found `{other}`", Self::kind())),
                    None => Err(format!("expected {}, but the attribute is missing", Self::kind())),
                }
            }
        }
    };
}

/// Declares the struct of an op: its documentation, its attributes and their meaning. Derives
/// [`OpFields`](crate::attr::OpFields) from the declaration.
#[macro_export]
macro_rules! op_struct {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $fdoc:literal])+ $field:ident : $ty:ty),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name { $($(#[doc = $fdoc])+ pub $field: $ty,)* }

        impl $crate::attr::OpFields for $name {
            fn doc(_name: &str) -> String {
                concat!($($doc, "\n",)*).replace("\n ", "\n").trim().to_owned()
            }

            fn schema() -> Vec<$crate::attr::AttrSpec> {
                vec![$($crate::attr::AttrSpec {
                    name: stringify!($field),
                    kind: <$ty as $crate::attr::AttrField>::kind(),
                    doc: concat!($($fdoc, " ",)+).trim_ascii(),
                },)*]
            }

            fn parse_fields(
                _name: &str,
                attrs: &$crate::attr::Attrs,
            ) -> Result<Self, $crate::attr::AttrError> {
                let known: &[&str] = &[$(stringify!($field)),*];
                $crate::attr::refuse_unknown(attrs, known)?;
                Ok(Self { $($field: $crate::attr::read_field(attrs, stringify!($field))?,)* })
            }

            fn to_attrs(&self) -> $crate::attr::Attrs {
                $crate::attr::Attrs(
                    [$((stringify!($field), $crate::attr::AttrField::to_attr(&self.$field)),)*]
                        .into_iter()
                        .filter_map(|(name, value): (&str, Option<$crate::attr::Attr>)| {
                            Some((name.into(), value?))
                        })
                        .collect(),
                )
            }

            fn for_each_dim(&self, _visit: &mut dyn FnMut(&$crate::dim::Dim)) {
                $($crate::attr::AttrField::for_each_dim(&self.$field, _visit);)*
            }
        }
    };
}

/// What an op's declaration gives for its text form. [`op_struct!`](crate::op_struct) derives it;
/// families of ops that share a struct implement it by hand.
pub trait OpFields: Sized {
    /// The documentation of the op of this name.
    fn doc(name: &str) -> String;
    /// The attributes with their kinds and meanings.
    fn schema() -> Vec<AttrSpec>;
    /// The op of a mnemonic and attributes; unknown attributes are errors.
    ///
    /// # Errors
    /// The first attribute that is missing, unknown or of another kind.
    fn parse_fields(name: &str, attrs: &Attrs) -> Result<Self, AttrError>;
    /// The attributes in order of declaration.
    fn to_attrs(&self) -> Attrs;
    /// Calls `visit` with every extent among the attributes that is not a constant.
    fn for_each_dim(&self, visit: &mut dyn FnMut(&Dim)) {
        self.to_attrs().for_each_dim(visit);
    }
}

/// Refuses attributes that are not in `known`.
///
/// # Errors
/// Names the first unknown attribute and the known ones.
pub fn refuse_unknown(attrs: &Attrs, known: &[&str]) -> Result<(), AttrError> {
    for (name, _) in &attrs.0 {
        if !known.contains(&&**name) {
            let list = if known.is_empty() {
                "it has none".into()
            } else {
                format!("it has {}", known.join(", "))
            };
            return Err(AttrError {
                attr: name.to_string(),
                message: format!("the op has no attribute `{name}`: {list}"),
            });
        }
    }
    Ok(())
}

/// Reads one attribute.
///
/// # Errors
/// When it is missing or of another kind.
pub fn read_field<T: AttrField>(attrs: &Attrs, name: &str) -> Result<T, AttrError> {
    T::from_attr(attrs.get(name)).map_err(|message| AttrError {
        attr: name.into(),
        message: format!("attribute `{name}`: {message}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    op_struct! {
        /// An op for this test.
        Probe {
            /// Pairs.
            pads: Vec<(i64, i64)>,
            /// Maybe.
            to: Option<DType>,
        }
    }

    #[test]
    fn fields_round_trip_and_refuse() {
        let probe = Probe {
            pads: vec![(1, -2)],
            to: None,
        };
        let attrs = probe.to_attrs();
        assert_eq!(attrs.0.len(), 1);
        assert_eq!(attrs.0[0].1.to_string(), "[[1, -2]]");
        assert_eq!(Probe::parse_fields("probe", &attrs), Ok(probe));
        let mut unknown = attrs.clone();
        unknown.push("pad", Attr::Bool(true));
        let message = Probe::parse_fields("probe", &unknown).unwrap_err().message;
        assert_eq!(message, "the op has no attribute `pad`: it has pads, to");
        let missing = Probe::parse_fields("probe", &Attrs::default()).unwrap_err();
        assert_eq!(missing.attr, "pads");
        assert_eq!(Probe::schema()[1].doc, "Maybe.");
    }

    #[test]
    fn floats_print_as_floats() {
        for value in [0.0, -0.0, 1.0, 1e-5, 1e300, 0.1, 123456789.0, f64::INFINITY] {
            let text = format_float(value);
            assert_eq!(
                text.parse::<f64>().unwrap().to_bits(),
                value.to_bits(),
                "{text}"
            );
            assert!(text.contains(['.', 'e', 'i']), "{text}");
        }
    }
}
