//! What the ops that move elements share.

use std::cmp::Ordering;

use super::{EvalError, TypeError};
use crate::access::SplitDim;
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, ValueId};
use crate::scalar::Scalar;
use crate::tensor::{Element, Tensor};
use crate::types::{DType, Type};
use crate::with_element;

/// Whether two extents can be equal for some values of the symbols. Constants are compared; what
/// symbols make of the rest is checked when they have values.
pub(crate) fn may_equal(a: &Dim, b: &Dim) -> bool {
    a == b || (may_reach(a, b) && may_reach(b, a))
}

/// Whether `a <= b` can hold for some values of the symbols.
pub(crate) fn may_reach(a: &Dim, b: &Dim) -> bool {
    match (a.as_const(), b.as_const(), a.to_poly(), b.to_poly()) {
        (Some(a), Some(b), ..) => a <= b,
        (_, _, Some(a), Some(b)) => b.sub(&a).is_none_or(|room| room.bounds().1 >= 0),
        _ => false,
    }
}

/// The constant extents of an attribute.
///
/// # Errors
/// When a symbol has no value.
pub(crate) fn constants(dims: &[Dim]) -> Result<Vec<u64>, EvalError> {
    let extents: Option<Vec<u64>> = dims.iter().map(Dim::as_const).collect();
    extents.ok_or_else(|| EvalError::value("an extent in the attributes has no value"))
}

/// The tensor of `shape` whose element at an index is that of `x` at row-major position
/// `base + sum of step * index`.
pub(crate) fn strided(x: &Tensor, shape: &[u64], base: i64, steps: &[i64]) -> Tensor {
    with_element!(x.dtype(), T => {
        let mut data = Vec::with_capacity(shape.iter().product::<u64>() as usize);
        if !shape.contains(&0) {
            walk(&x.stored::<T>(), shape, base, steps, &mut data);
        }
        Tensor::from_stored(x.dtype(), shape, data)
    })
}

fn walk<T: Element>(source: &[T], shape: &[u64], base: i64, steps: &[i64], data: &mut Vec<T>) {
    match (shape, steps) {
        ([extent], [1]) => data.extend_from_slice(&source[base as usize..][..*extent as usize]),
        ([extent], [step]) => {
            let positions = (0..*extent as i64).map(|i| base + i * step);
            data.extend(positions.map(|p| source[p as usize]));
        }
        ([extent, rest @ ..], [step, steps @ ..]) => {
            for i in 0..*extent as i64 {
                walk(source, rest, base + i * step, steps, data);
            }
        }
        _ => data.push(source[base as usize]),
    }
}

/// The runs of `length` elements of `x` that begin at the given positions, one after the other, as
/// a tensor of `shape`.
pub(crate) fn runs(
    x: &Tensor,
    shape: &[u64],
    starts: impl Iterator<Item = u64>,
    length: u64,
) -> Tensor {
    with_element!(x.dtype(), T => {
        let source = x.stored::<T>();
        let mut data: Vec<T> = Vec::with_capacity(shape.iter().product::<u64>() as usize);
        for start in starts {
            data.extend_from_slice(&source[start as usize..][..length as usize]);
        }
        Tensor::from_stored(x.dtype(), shape, data)
    })
}

/// The slices of `x` at the given indices of a dim, which `dims` replace in the shape.
pub(crate) fn take(x: &Tensor, axis: usize, chosen: &[u64], dims: &[u64]) -> Tensor {
    let (before, rest) = x.shape().split_at(axis);
    let (extent, after) = (rest[0], &rest[1..]);
    let (outer, length) = (
        before.iter().product::<u64>(),
        after.iter().product::<u64>(),
    );
    let starts = (0..outer).flat_map(|row| {
        let slices = chosen.iter();
        slices.map(move |index| (row * extent + index) * length)
    });
    runs(x, &[before, dims, after].concat(), starts, length)
}

/// The index that an element of an index tensor means: negative ones count from the end.
///
/// # Errors
/// An index out of range.
pub(crate) fn resolve_index(index: Scalar, extent: u64) -> Result<u64, EvalError> {
    let index = index.to_int();
    let from_start = if index < 0 {
        index + i128::from(extent)
    } else {
        index
    };
    match u64::try_from(from_start) {
        Ok(at) if at < extent => Ok(at),
        _ => Err(EvalError::value(format!(
            "index {index} is out of range for an extent of {extent}"
        ))),
    }
}

/// A tensor of zeros of a value's type.
pub(crate) fn zeros_like(b: &mut FunctionBuilder, value: ValueId) -> ValueId {
    let ty = b.ty(value).clone();
    b.full(ty.dtype, &ty.shape, Scalar::zero(ty.dtype))
}

/// Checks that `ty` holds indices.
///
/// # Errors
/// When its elements are neither `i32` nor `i64`.
pub(crate) fn check_index(ty: &Type) -> Result<(), TypeError> {
    if !matches!(ty.dtype, DType::I32 | DType::I64) {
        type_error!("indices are i32 or i64, found {}", ty.dtype);
    }
    Ok(())
}

/// The order of elements: NaNs are equal to each other and greater than every number, zeros of
/// different sign are equal.
pub(crate) fn compare(a: Scalar, b: Scalar) -> Ordering {
    match (a, b) {
        (Scalar::Int(a), Scalar::Int(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.to_f64(), b.to_f64());
            let numbers = a.partial_cmp(&b);
            numbers.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
    }
}

/// A splittable dim of a kernel.
pub(crate) fn split(name: String, operands: &[Option<usize>], results: &[usize]) -> SplitDim {
    SplitDim {
        name,
        operands: operands.to_vec(),
        results: results.to_vec(),
    }
}
