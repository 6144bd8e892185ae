//! What the ops that move elements share.

use super::EvalError;
use crate::dim::Dim;
use crate::scalar::Scalar;
use crate::tensor::Tensor;

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
    let count = shape.iter().product::<u64>() as usize;
    let mut positions = Vec::with_capacity(count);
    if count > 0 {
        walk(shape, base, steps, &mut positions);
    }
    x.select(shape, positions, Scalar::zero(x.dtype()))
}

fn walk(shape: &[u64], base: i64, steps: &[i64], positions: &mut Vec<Option<usize>>) {
    match shape.split_first() {
        None => positions.push(Some(base as usize)),
        Some((extent, rest)) => {
            let mut at = base;
            for _ in 0..*extent {
                walk(rest, at, &steps[1..], positions);
                at += steps[0];
            }
        }
    }
}
