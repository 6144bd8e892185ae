//! What ops that expand into other ops have in common.
//!
//! Their `eval` computes in f64 and rounds once at the end; their expansion computes in the
//! [`accumulator`] of the element type, with explicit conversions.

use super::dot::accumulator;
use super::{Convert, Full, Reduce, ReduceKind, TypeError};
use crate::access::Tiling;
use crate::attr::Number;
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, ValueId};
use crate::scalar::{BinaryFn, Scalar};
use crate::tensor::{Tensor, indices, strides};
use crate::types::{DType, Shape, Type, broadcast_shapes};

#[cfg(test)]
mod tests;

/// The function that `build` makes of inputs of the given types, as a tiling rule.
///
/// # Panics
/// When `build` makes nodes that do not type, which is a defect of the op.
pub(crate) fn expand(
    args: &[Type],
    build: impl FnOnce(&mut FunctionBuilder, &[ValueId]) -> Result<ValueId, TypeError>,
) -> Tiling {
    let mut b = FunctionBuilder::new("expansion");
    let inputs: Vec<ValueId> = args.iter().map(|ty| b.param(ty.clone(), None)).collect();
    let result = build(&mut b, &inputs)
        .expect("an expansion types for operands that the shape rule has accepted");
    Tiling::Expand(b.finish_unnamed(&[result]))
}

/// `x` converted to `to`, or itself if it is of that type.
pub(crate) fn cast(b: &mut FunctionBuilder, x: ValueId, to: DType) -> Result<ValueId, TypeError> {
    if b.ty(x).dtype == to {
        return Ok(x);
    }
    b.op(
        Convert {
            to,
            saturate: false,
        },
        &[x],
    )
}

/// `x` in the type in which its elements are accumulated.
pub(crate) fn widen(b: &mut FunctionBuilder, x: ValueId) -> Result<ValueId, TypeError> {
    let to = accumulator(b.ty(x).dtype);
    cast(b, x, to)
}

/// Reduces `axes`, which stay with extent 1.
pub(crate) fn reduce(
    b: &mut FunctionBuilder,
    kind: ReduceKind,
    x: ValueId,
    axes: &[usize],
) -> Result<ValueId, TypeError> {
    let op = Reduce {
        kind,
        axes: axes.to_vec(),
        keep: true,
    };
    b.op(op, &[x])
}

/// The extent as a scalar of `dtype`, counted at run time if it is symbolic.
pub(crate) fn extent(
    b: &mut FunctionBuilder,
    dim: &Dim,
    dtype: DType,
) -> Result<ValueId, TypeError> {
    if let Some(extent) = dim.as_const() {
        let value = Scalar::Int(extent.into()).convert(dtype);
        return Ok(b.full(dtype, &Shape::scalar(), value));
    }
    let ones = Full {
        dtype: DType::I64,
        shape: vec![dim.clone()],
        value: Number::Int(1),
    };
    let ones = b.op(ones, &[])?;
    let count = Reduce {
        kind: ReduceKind::Sum,
        axes: vec![0],
        keep: false,
    };
    let count = b.op(count, &[ones])?;
    cast(b, count, dtype)
}

/// The mean over `axes`, which stay with extent 1.
pub(crate) fn mean(
    b: &mut FunctionBuilder,
    x: ValueId,
    axes: &[usize],
) -> Result<ValueId, TypeError> {
    let ty = b.ty(x).clone();
    let mut mean = reduce(b, ReduceKind::Sum, x, axes)?;
    let known = axes
        .iter()
        .try_fold(1u64, |n, axis| n.checked_mul(ty.shape[*axis].as_const()?));
    if let Some(count) = known {
        let count = extent(b, &Dim::Const(count), ty.dtype)?;
        return b.op(BinaryFn::Div, &[mean, count]);
    }
    for axis in axes {
        let count = extent(b, &ty.shape[*axis], ty.dtype)?;
        mean = b.op(BinaryFn::Div, &[mean, count])?;
    }
    Ok(mean)
}

/// Checks that the elements are floats.
pub(crate) fn check_float(ty: &Type) -> Result<(), TypeError> {
    if !ty.dtype.is_float() {
        type_error!("expected floats, found {ty}");
    }
    Ok(())
}

/// Checks that `operand` is of the element type of `x` or of the type in which that accumulates.
pub(crate) fn check_dtype(operand: &Type, x: &Type) -> Result<(), TypeError> {
    if operand.dtype != x.dtype && operand.dtype != accumulator(x.dtype) {
        type_error!("expected elements of {}, found {operand}", x.dtype);
    }
    Ok(())
}

/// Checks that `operand` broadcasts to the shape of `x` and is a float that goes with it.
pub(crate) fn check_broadcasts(operand: &Type, x: &Type) -> Result<(), TypeError> {
    check_dtype(operand, x)?;
    if broadcast_shapes([&operand.shape, &x.shape]).as_ref() != Some(&x.shape) {
        type_error!("{operand} does not broadcast to the shape of {x}");
    }
    Ok(())
}

/// Checks what is added to a variance before the root is taken.
pub(crate) fn check_epsilon(epsilon: f64) -> Result<(), TypeError> {
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        type_error!("epsilon has to be finite and not negative, found {epsilon}");
    }
    Ok(())
}

/// Row-major positions of all indices of `dims` in a tensor of `shape`, the other indices being 0.
pub(crate) fn offsets(shape: &[u64], dims: &[usize]) -> Vec<usize> {
    let strides = strides(shape);
    let extents: Vec<u64> = dims.iter().map(|d| shape[*d]).collect();
    let at = |index: Vec<u64>| {
        let position: u64 = index.iter().zip(dims).map(|(i, d)| i * strides[*d]).sum();
        position as usize
    };
    indices(&extents).map(at).collect()
}

/// The dims that are not among `axes`.
pub(crate) fn others(rank: usize, axes: &[usize]) -> Vec<usize> {
    (0..rank).filter(|d| !axes.contains(d)).collect()
}

/// A tensor of computed values, each rounded once.
pub(crate) fn rounded(dtype: DType, shape: &[u64], values: Vec<f64>) -> Tensor {
    let values = values.into_iter().map(|v| Scalar::F64(v).convert(dtype));
    Tensor::from_scalars(dtype, shape, values)
}
