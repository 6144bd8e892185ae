//! Reductions.

use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{ArgKind, ArgReduce, ReduceKind};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};

use super::super::node::NodeCx;
use super::super::problems::NodeResult;
use super::super::table::{OpEntry, onnx};

pub(super) const OPS: &[OpEntry] = &[
    onnx("ReduceSum", &[(1, |cx| reduce(cx, 13, sum))]),
    onnx("ReduceProd", &[(1, |cx| reduce(cx, 18, prod))]),
    onnx("ReduceMax", &[(1, |cx| reduce(cx, 18, max))]),
    onnx("ReduceMin", &[(1, |cx| reduce(cx, 18, min))]),
    onnx("ReduceMean", &[(1, |cx| reduce(cx, 18, mean))]),
    onnx("ReduceL1", &[(1, |cx| reduce(cx, 18, l1))]),
    onnx("ReduceL2", &[(1, |cx| reduce(cx, 18, l2))]),
    onnx("ReduceSumSquare", &[(1, |cx| reduce(cx, 18, sum_square))]),
    onnx("ReduceLogSum", &[(1, |cx| reduce(cx, 18, log_sum))]),
    onnx("ReduceLogSumExp", &[(1, |cx| reduce(cx, 18, log_sum_exp))]),
    onnx("ArgMax", &[(1, |cx| arg(cx, ArgKind::Max))]),
    onnx("ArgMin", &[(1, |cx| arg(cx, ArgKind::Min))]),
];

/// What to do with the elements along dims: the operand, the dims, whether to keep them.
type Reduction = fn(&mut NodeCx<'_, '_>, ValueId, &[usize], bool) -> NodeResult<ValueId>;

/// Axes are an attribute before the version `operand_since` of the operator set, an operand after.
fn reduce(cx: &mut NodeCx<'_, '_>, operand_since: i64, f: Reduction) -> NodeResult {
    let keep = cx.flag("keepdims", true)?;
    let axes = if cx.version < operand_since {
        cx.expect_inputs(1, 1)?;
        cx.ints("axes")?
    } else {
        cx.expect_inputs(1, 2)?;
        cx.optional_ints(1, "the axes")?
    };
    let none_is_none = cx.flag("noop_with_empty_axes", false)?;
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let axes = match axes {
        Some(axes) if !axes.is_empty() => cx.axes(&axes, rank)?,
        // The sum of squares of one element is still its square: the elements are mapped.
        _ if none_is_none => vec![],
        _ => (0..rank).collect(),
    };
    let y = f(cx, x, &axes, keep)?;
    cx.output(0, y);
    Ok(())
}

fn sum(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
    cx.reduce(ReduceKind::Sum, x, axes, keep)
}

fn prod(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
    cx.reduce(ReduceKind::Prod, x, axes, keep)
}

fn max(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
    cx.reduce(ReduceKind::Max, x, axes, keep)
}

fn min(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
    cx.reduce(ReduceKind::Min, x, axes, keep)
}

fn mean(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
    cx.mean(x, axes, keep)
}

fn l1(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
    let x = cx.unary(UnaryFn::Abs, x)?;
    sum(cx, x, axes, keep)
}

fn sum_square(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    axes: &[usize],
    keep: bool,
) -> NodeResult<ValueId> {
    let x = cx.binary(BinaryFn::Mul, x, x)?;
    sum(cx, x, axes, keep)
}

fn l2(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
    let squares = sum_square(cx, x, axes, keep)?;
    root(cx, squares)
}

/// The square root, of integers by way of floats.
fn root(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
    let dtype = cx.dtype(x);
    if dtype.is_float() {
        return cx.unary(UnaryFn::Sqrt, x);
    }
    let wide = cx.convert(x, dojoc_ir::types::DType::F64)?;
    let y = cx.unary(UnaryFn::Sqrt, wide)?;
    cx.convert(y, dtype)
}

fn log_sum(cx: &mut NodeCx<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
    let total = sum(cx, x, axes, keep)?;
    cx.unary(UnaryFn::Log, total)
}

/// `m + log(sum of exp(x - m))` with the largest element m, so that nothing overflows.
fn log_sum_exp(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    axes: &[usize],
    keep: bool,
) -> NodeResult<ValueId> {
    let top = cx.reduce(ReduceKind::Max, x, axes, true)?;
    // An infinite maximum would give NaN; then nothing is subtracted.
    let infinite = cx.unary(UnaryFn::IsInf, top)?;
    let zero = cx.scalar(cx.dtype(x), 0.0)?;
    let top = cx.select(infinite, zero, top)?;
    let distance = cx.binary(BinaryFn::Sub, x, top)?;
    let exps = cx.unary(UnaryFn::Exp, distance)?;
    let total = cx.reduce(ReduceKind::Sum, exps, axes, true)?;
    let log = cx.unary(UnaryFn::Log, total)?;
    let y = cx.binary(BinaryFn::Add, log, top)?;
    if keep { Ok(y) } else { cx.squeeze(y, axes) }
}

fn arg(cx: &mut NodeCx<'_, '_>, kind: ArgKind) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let (axis, keep) = (cx.int("axis", 0)?, cx.flag("keepdims", true)?);
    let last = cx.flag("select_last_index", false)?;
    let x = cx.input(0)?;
    let axis = cx.axis(axis, cx.rank(x))?;
    let op = ArgReduce {
        kind,
        axis,
        keep,
        last,
    };
    let y = cx.op(op, &[x])?;
    cx.output(0, y);
    Ok(())
}
