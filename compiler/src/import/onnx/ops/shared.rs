//! What handlers of several themes build.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::Convert;
use dojoc_ir::scalar::{Scalar, UnaryFn};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};

/// The element type in which a function of several steps is computed.
pub(super) fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::Bf16 => DType::F32,
        other => other,
    }
}

/// Builds a function of `x` with 16-bit floats computed in `f32` and rounded once.
pub(super) fn in_wide(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    build: impl FnOnce(&mut NodeCx<'_, '_>, ValueId) -> NodeResult<ValueId>,
) -> NodeResult<ValueId> {
    let dtype = cx.dtype(x);
    let x = cx.convert(x, wide(dtype))?;
    let y = build(cx, x)?;
    cx.convert(y, dtype)
}

/// A constant of numbers.
pub(super) fn numbers(
    cx: &mut NodeCx<'_, '_>,
    dtype: DType,
    shape: &[u64],
    values: impl IntoIterator<Item = f64>,
) -> ValueId {
    let scalars = values.into_iter().map(|v| Scalar::from_f64(v, dtype));
    cx.constant(Tensor::from_scalars(dtype, shape, scalars))
}

/// Largest number of elements of a constant that is computed at import.
pub(super) const MAX_CONSTANT: u64 = 1 << 26;

/// The product of extents, at most [`MAX_CONSTANT`].
pub(super) fn limited(extents: impl IntoIterator<Item = u64>) -> NodeResult<u64> {
    let mut product = 1u64;
    for extent in extents {
        product = product.saturating_mul(extent);
    }
    if product > MAX_CONSTANT {
        let message = format!("a constant of {product} elements would have to be computed");
        return Err(NodeError::unsupported(message).help(format!("at most {MAX_CONSTANT}")));
    }
    Ok(product)
}

/// The extent of a dim that must be a constant.
pub(super) fn const_extent(cx: &NodeCx<'_, '_>, x: ValueId, axis: usize) -> NodeResult<u64> {
    match cx.dims(x).get(axis) {
        Some(Dim::Const(extent)) => Ok(*extent),
        Some(extent) => Err(
            NodeError::unsupported(format!("dim {axis} is symbolic ({extent})"))
                .help("give the dimension a fixed extent: --dim NAME=N"),
        ),
        None => Err(NodeError::invalid(format!(
            "{} has no dim {axis}",
            cx.ty(x)
        ))),
    }
}

/// A vector as a tensor of `rank` dims that lies along one of them.
pub(super) fn along(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    axis: usize,
    rank: usize,
) -> NodeResult<ValueId> {
    let mut shape = vec![Dim::Const(1); rank];
    match (cx.dims(x).as_slice(), shape.get_mut(axis)) {
        ([extent], Some(place)) => *place = extent.clone(),
        ([_], None) => return Err(NodeError::invalid(format!("there is no dim {axis}"))),
        _ => {
            let message = format!("expected a vector, found {}", cx.ty(x));
            return Err(NodeError::invalid(message));
        }
    }
    cx.reshape(x, shape)
}

/// Numbers rounded to nearest, ties to even, and converted to an integer type whose ends they do
/// not pass.
pub(super) fn saturate(cx: &mut NodeCx<'_, '_>, x: ValueId, to: DType) -> NodeResult<ValueId> {
    let x = cx.unary(UnaryFn::Round, x)?;
    cx.op(Convert { to, saturate: true }, &[x])
}
