//! Determinants, normalisation by near channels, and fused products.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{
    ArgKind, ArgReduce, GatherElements, ReduceKind, ReduceWindow, ScatterElements, ScatterKind,
};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx, other};
use super::matmul::product;
use super::shared::{const_extent, in_wide};

pub(super) const OPS: &[OpEntry] = &[
    onnx("Det", &[(11, det)]),
    onnx("LRN", &[(1, local_response_norm)]),
    other("com.microsoft", "FusedMatMul", &[(1, fused_matmul)]),
];

/// Largest matrix whose elimination is written out.
const MAX_ROWS: u64 = 32;

/// Gaussian elimination with the largest pivot, written out.
fn det(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let (rows, columns) = (cx.axis(-2, rank)?, cx.axis(-1, rank)?);
    let size = const_extent(cx, x, rows)?;
    if size != const_extent(cx, x, columns)? {
        return Err(NodeError::invalid(format!("{} is not square", cx.ty(x))));
    }
    if size > MAX_ROWS {
        let message = format!("the determinant of a matrix of {size} rows");
        return Err(NodeError::unsupported(message).help(format!("at most {MAX_ROWS} rows")));
    }
    let y = in_wide(cx, x, |cx, x| eliminate(cx, x, size, rows))?;
    cx.output(0, y);
    Ok(())
}

fn eliminate(
    cx: &mut NodeCx<'_, '_>,
    mut x: ValueId,
    size: u64,
    rows: usize,
) -> NodeResult<ValueId> {
    let (dtype, columns) = (cx.dtype(x), rows + 1);
    let mut result = cx.full(
        dtype,
        cx.dims(x)[..rows].to_vec(),
        dojoc_ir::scalar::Scalar::one(dtype),
    )?;
    for left in (1..=size).rev() {
        let first = cx.slice(x, columns, 0, 1)?;
        let magnitude = cx.unary(UnaryFn::Abs, first)?;
        let arg = ArgReduce {
            kind: ArgKind::Max,
            axis: rows,
            keep: true,
            last: false,
        };
        let place = cx.op(arg, &[magnitude])?;
        let mut row_shape = cx.dims(x);
        row_shape[rows] = Dim::Const(1);
        let places = cx.broadcast(place, row_shape)?;
        let row = cx.op(GatherElements { axis: rows }, &[x, places])?;
        let pivot = cx.slice(row, columns, 0, 1)?;
        // An exchange of rows changes the sign.
        let kept = cx.with_scalar(BinaryFn::Eq, place, 0.0)?;
        let negated = cx.unary(UnaryFn::Neg, pivot)?;
        let factor = cx.select(kept, pivot, negated)?;
        let factor = cx.squeeze(factor, &[rows, columns])?;
        result = cx.binary(BinaryFn::Mul, result, factor)?;
        if left == 1 {
            break;
        }
        let top = cx.slice(x, rows, 0, 1)?;
        let scatter = ScatterElements {
            axis: rows,
            combine: ScatterKind::Assign,
        };
        let exchanged = cx.op(scatter, &[x, places, top])?;
        let below = cx.slice(exchanged, rows, 1, left - 1)?;
        // A pivot of zero has made the result zero; nothing may be divided by it.
        let singular = cx.with_scalar(BinaryFn::Eq, pivot, 0.0)?;
        let one = cx.scalar(dtype, 1.0)?;
        let divisor = cx.select(singular, one, pivot)?;
        let row = cx.binary(BinaryFn::Div, row, divisor)?;
        let row = cx.slice(row, columns, 1, left - 1)?;
        let multiple = cx.slice(below, columns, 0, 1)?;
        let below = cx.slice(below, columns, 1, left - 1)?;
        let removed = cx.binary(BinaryFn::Mul, multiple, row)?;
        x = cx.binary(BinaryFn::Sub, below, removed)?;
    }
    Ok(result)
}

/// `x / (bias + alpha / size * sum of squares of near channels) ^ beta`.
fn local_response_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let (alpha, beta) = (cx.float("alpha", 1e-4)?, cx.float("beta", 0.75)?);
    let bias = cx.float("bias", 1.0)?;
    let size = cx.int_required("size")?;
    let rank = cx.rank(x);
    if rank < 2 || !(1..1 << 31).contains(&size) {
        return Err(NodeError::invalid(format!("size {size} for {}", cx.ty(x))));
    }
    let y = in_wide(cx, x, |cx, x| {
        let squares = cx.binary(BinaryFn::Mul, x, x)?;
        let ones = || vec![1u64; rank - 1];
        let mut op = ReduceWindow {
            kind: ReduceKind::Sum,
            window: ones(),
            stride: ones(),
            dilation: ones(),
            pad: vec![(0, 0); rank - 1],
        };
        op.window[0] = size as u64;
        op.pad[0] = ((size - 1) / 2, size / 2);
        let sum = cx.op(op, &[squares])?;
        let sum = cx.with_scalar(BinaryFn::Mul, sum, alpha / size as f64)?;
        let sum = cx.with_scalar(BinaryFn::Add, sum, bias)?;
        let divisor = cx.with_scalar(BinaryFn::Pow, sum, beta)?;
        cx.binary(BinaryFn::Div, x, divisor)
    })?;
    cx.output(0, y);
    Ok(())
}

/// A product of optionally transposed operands, scaled.
fn fused_matmul(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let mut args = cx.all_inputs()?;
    let alpha = cx.float("alpha", 1.0)?;
    for (arg, name) in args.iter_mut().zip(["transA", "transB"]) {
        let rank = cx.rank(*arg);
        if cx.flag(name, false)? && rank >= 2 {
            *arg = cx.swap_dims(*arg, rank - 2, rank - 1)?;
        }
    }
    for name in ["transBatchA", "transBatchB"] {
        if cx.flag(name, false)? {
            return Err(
                NodeError::unsupported(format!("`{name}`")).help("transpose the operand before")
            );
        }
    }
    let mut y = product(cx, args[0], args[1])?;
    if alpha != 1.0 {
        y = cx.with_scalar(BinaryFn::Mul, y, alpha)?;
    }
    cx.output(0, y);
    Ok(())
}
