//! Element types, shapes and tensor types.

use std::fmt;
use std::sync::Arc;

use crate::dim::{Bindings, Dim};

/// The type of one tensor element.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
pub enum DType {
    /// Truth value, one byte.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// IEEE binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// Tesla's CFloat8 with 4 exponent and 3 mantissa bits; the exponent bias is a run-time scalar
    /// of conversions and matmuls, not part of the type.
    Cfp8E4M3,
    /// Tesla's CFloat8 with 5 exponent and 2 mantissa bits; bias as for [`DType::Cfp8E4M3`].
    Cfp8E5M2,
    /// Tesla's signed half precision: 1-5-10 with a configurable bias.
    Shp,
    /// Tesla's unsigned half precision: 0-6-10 with bias 31.
    Uhp,
}

/// How the values of a [`DType`] behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Truth values.
    Bool,
    /// Integers that wrap.
    Int {
        /// Whether negative values exist.
        signed: bool,
    },
    /// Floating point.
    Float,
    /// Codes whose value depends on a run-time exponent bias; only conversions read them.
    Configurable,
}

impl DType {
    /// Every element type with its name in the text form.
    pub const ALL: [(DType, &'static str); 17] = [
        (DType::Bool, "bool"),
        (DType::U8, "u8"),
        (DType::U16, "u16"),
        (DType::U32, "u32"),
        (DType::U64, "u64"),
        (DType::I8, "i8"),
        (DType::I16, "i16"),
        (DType::I32, "i32"),
        (DType::I64, "i64"),
        (DType::F16, "f16"),
        (DType::Bf16, "bf16"),
        (DType::F32, "f32"),
        (DType::F64, "f64"),
        (DType::Cfp8E4M3, "cfp8_143"),
        (DType::Cfp8E5M2, "cfp8_152"),
        (DType::Shp, "shp"),
        (DType::Uhp, "uhp"),
    ];

    /// The name in the text form.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(dtype, _)| *dtype == self)
            .map_or("", |(_, name)| name)
    }

    /// The type of a name in the text form.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, n)| *n == name)
            .map(|(dtype, _)| *dtype)
    }

    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            DType::Bool | DType::U8 | DType::I8 | DType::Cfp8E4M3 | DType::Cfp8E5M2 => 1,
            DType::U16 | DType::I16 | DType::F16 | DType::Bf16 | DType::Shp | DType::Uhp => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::U64 | DType::I64 | DType::F64 => 8,
        }
    }

    /// How the values behave.
    pub fn class(self) -> Class {
        match self {
            DType::Bool => Class::Bool,
            DType::U8 | DType::U16 | DType::U32 | DType::U64 => Class::Int { signed: false },
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => Class::Int { signed: true },
            DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => Class::Float,
            DType::Cfp8E4M3 | DType::Cfp8E5M2 | DType::Shp | DType::Uhp => Class::Configurable,
        }
    }

    /// Whether the values are floating point of fixed meaning.
    pub fn is_float(self) -> bool {
        self.class() == Class::Float
    }

    /// Whether the values are integers.
    pub fn is_int(self) -> bool {
        matches!(self.class(), Class::Int { .. })
    }

    /// Least and greatest value of an integer type.
    pub fn int_range(self) -> Option<(i128, i128)> {
        let bits = self.bytes() * 8;
        match self.class() {
            Class::Int { signed: false } => Some((0, (1i128 << bits) - 1)),
            Class::Int { signed: true } => {
                Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1))
            }
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The extents of a tensor, outermost first. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Shape(Arc<[Dim]>);

/// The largest rank a tensor may have.
pub const MAX_RANK: usize = 16;

impl Shape {
    /// A shape of the given extents.
    pub fn new(dims: impl IntoIterator<Item = Dim>) -> Self {
        Self(dims.into_iter().collect())
    }

    /// A shape of constant extents.
    pub fn of(dims: &[u64]) -> Self {
        Self::new(dims.iter().map(|&d| Dim::Const(d)))
    }

    /// The shape of a scalar.
    pub fn scalar() -> Self {
        Self::of(&[])
    }

    /// The extents.
    pub fn dims(&self) -> &[Dim] {
        &self.0
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The extents, if all are constants.
    pub fn as_const(&self) -> Option<Vec<u64>> {
        self.0.iter().map(Dim::as_const).collect()
    }

    /// The extents under `bindings`.
    pub fn eval(&self, bindings: &Bindings) -> Option<Vec<u64>> {
        self.0.iter().map(|d| d.eval(bindings)).collect()
    }

    /// Number of elements when every extent has its largest value; `None` above `u64::MAX`.
    pub fn max_elements(&self) -> Option<u64> {
        // A zero anywhere makes the product zero, whatever the others overflow to.
        if self.0.iter().any(|d| d.is(0)) {
            return Some(0);
        }
        self.0
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(d.max_extent()))
    }

    /// The number of elements as an extent; `None` on overflow.
    pub fn elements(&self) -> Option<Dim> {
        if self.0.iter().any(|d| d.is(0)) {
            return Some(Dim::Const(0));
        }
        if let Some(dims) = self.as_const() {
            return dims
                .iter()
                .try_fold(1u64, |n, d| n.checked_mul(*d))
                .map(Dim::Const);
        }
        self.0.iter().try_fold(Dim::Const(1), |n, d| n.mul(d))
    }
}

impl std::ops::Index<usize> for Shape {
    type Output = Dim;
    fn index(&self, index: usize) -> &Dim {
        &self.0[index]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (index, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if index > 0 { ", " } else { "" })?;
        }
        write!(f, "]")
    }
}

/// The type of a tensor value: element type and shape.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
}

impl Type {
    /// A tensor type.
    pub fn new(dtype: DType, shape: Shape) -> Self {
        Self { dtype, shape }
    }

    /// A tensor type of constant extents.
    pub fn of(dtype: DType, dims: &[u64]) -> Self {
        Self::new(dtype, Shape::of(dims))
    }

    /// The type of a scalar.
    pub fn scalar(dtype: DType) -> Self {
        Self::of(dtype, &[])
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// The extents.
    pub fn dims(&self) -> &[Dim] {
        self.shape.dims()
    }

    /// The same shape with another element type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self {
            dtype,
            shape: self.shape.clone(),
        }
    }

    /// Bytes when every extent has its largest value; `None` above `u64::MAX`.
    pub fn max_bytes(&self) -> Option<u64> {
        self.shape.max_elements()?.checked_mul(self.dtype.bytes())
    }

    /// Whether positions and sizes fit 63 bits, even if extents of zero were one: then no product
    /// of extents and element size overflows.
    pub fn addressable(&self) -> bool {
        let mut extents = self.dims().iter().map(|d| d.max_extent().max(1));
        let bytes = extents.try_fold(self.dtype.bytes(), u64::checked_mul);
        self.rank() <= MAX_RANK && bytes.is_some_and(|bytes| bytes <= i64::MAX as u64)
    }

    /// The type with every symbol replaced by its value; `None` if a symbol is unbound.
    pub fn bind(&self, bindings: &Bindings) -> Option<Self> {
        if self.shape.as_const().is_some() {
            return Some(self.clone());
        }
        Some(Self::of(self.dtype, &self.shape.eval(bindings)?))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// The shape that operands of the given shapes broadcast to: aligned at the last dimension, an
/// extent of 1 stretches. `None` where two extents disagree.
pub fn broadcast_shapes<'a>(shapes: impl IntoIterator<Item = &'a Shape>) -> Option<Shape> {
    let shapes: Vec<&Shape> = shapes.into_iter().collect();
    let rank = shapes.iter().map(|s| s.rank()).max().unwrap_or(0);
    let mut dims = vec![Dim::Const(1); rank];
    for shape in shapes {
        for (dim, out) in shape.dims().iter().zip(&mut dims[rank - shape.rank()..]) {
            if out.is(1) {
                *out = dim.clone();
            } else if !dim.is(1) && dim != out {
                return None;
            }
        }
    }
    Some(Shape::new(dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting() {
        let b = |a: &[u64], b: &[u64]| broadcast_shapes([&Shape::of(a), &Shape::of(b)]);
        assert_eq!(b(&[2, 1, 3], &[4, 1]), Some(Shape::of(&[2, 4, 3])));
        assert_eq!(b(&[], &[0]), Some(Shape::of(&[0])));
        assert_eq!(b(&[1], &[0]), Some(Shape::of(&[0])));
        assert_eq!(b(&[2], &[3]), None);
    }

    #[test]
    fn sizes_do_not_wrap() {
        assert_eq!(Shape::of(&[1 << 40, 1 << 40]).max_elements(), None);
        assert_eq!(Shape::of(&[1 << 40, 1 << 40, 0]).max_elements(), Some(0));
        assert_eq!(Type::of(DType::F64, &[1 << 62]).max_bytes(), None);
        assert!(!Type::of(DType::U8, &[1 << 40, 0, 1 << 40]).addressable());
        assert!(Type::of(DType::U8, &[1 << 40, 0, 1 << 20]).addressable());
        assert!(!Type::of(DType::U8, &[1; 17]).addressable());
    }

    #[test]
    fn names_round_trip() {
        for (dtype, name) in DType::ALL {
            assert_eq!(DType::parse(name), Some(dtype));
            assert_eq!(dtype.name(), name);
        }
    }
}
