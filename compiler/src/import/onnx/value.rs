//! Values during import.

use std::sync::Arc;

use dojoc_ir::dim::Poly;
use dojoc_ir::graph::ValueId;
use dojoc_ir::types::DType;

use super::problems::{NodeError, NodeResult};
use super::wire::TensorProto;
use crate::io::onnx_tensor::raw_dtype;

/// An operand or result of a node of the model.
#[derive(Clone, Debug)]
pub enum Operand {
    /// A value of the function being built.
    Value(ValueId),
    /// Integers made of extents; no node computes them yet.
    Symbolic(Arc<Symbolic>),
}

impl From<ValueId> for Operand {
    fn from(value: ValueId) -> Self {
        Operand::Value(value)
    }
}

/// A scalar or vector of integers that are expressions over the extents of inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Symbolic {
    /// Element type, an integer type.
    pub dtype: DType,
    /// Whether it has no dimension (else one).
    pub scalar: bool,
    /// The elements; one if it is a scalar.
    pub values: Vec<Poly>,
}

/// What a name of the model stands for.
#[derive(Clone, Debug)]
pub(super) enum Slot<'m> {
    /// A value.
    Operand(Operand),
    /// A constant that nothing has used yet.
    Initializer(&'m TensorProto),
    /// A value that has no counterpart; the message says why, once it is used.
    Refused(Arc<NodeError>),
    /// The result of a node that failed.
    Poisoned,
    /// A parameter of a function that the call omits.
    Absent,
}

/// The IR's element type for a number of `TensorProto.DataType`.
///
/// # Errors
/// When dojoc cannot hold the type.
pub fn onnx_dtype(number: i32) -> NodeResult<DType> {
    match raw_dtype(number) {
        Ok(raw) => Ok(raw.into()),
        Err(error) => Err(NodeError::new(
            super::codes::UNSUPPORTED_TYPE,
            dojoc_ir::diag::Kind::Unsupported,
            error.message,
        )),
    }
}

/// A measure of the size of an expression: the number of symbols written out.
pub(super) fn poly_size(poly: &Poly) -> usize {
    let mut size = 1;
    poly.for_each_symbol(&mut |_, _| size += 1);
    size
}

/// Expressions larger than this are not followed: a model can make them grow without bound.
pub(super) const MAX_POLY: usize = 256;

/// The expression, unless it is too large to work with.
pub(super) fn limited(poly: Option<Poly>) -> Option<Poly> {
    poly.filter(|p| poly_size(p) <= MAX_POLY)
}

/// The product, unless it is too large to work with.
pub(super) fn limited_mul(a: &Poly, b: &Poly) -> Option<Poly> {
    if poly_size(a) * poly_size(b) > MAX_POLY * 4 {
        return None;
    }
    limited(a.mul(b))
}
