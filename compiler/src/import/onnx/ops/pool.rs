//! Pooling.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{ArgMaxWindow, AvgPool, ReduceKind, ReduceWindow};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::window::{Windows, spatial};

pub(super) const OPS: &[OpEntry] = &[
    onnx("MaxPool", &[(1, max_pool)]),
    onnx("AveragePool", &[(1, average_pool)]),
    onnx("LpPool", &[(2, lp_pool)]),
    onnx("GlobalMaxPool", &[(1, global_max)]),
    onnx("GlobalAveragePool", &[(1, global_average)]),
    onnx("GlobalLpPool", &[(2, global_lp)]),
];

/// The windows of the node, with padding resolved. `counted` is the padding before it was
/// lengthened to round the number of windows up.
struct Pooling {
    x: ValueId,
    windows: Windows,
    counted: Vec<(i64, i64)>,
}

fn pooling(cx: &mut NodeCx<'_, '_>) -> NodeResult<Pooling> {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let extents = spatial(cx, x)?;
    let mut windows = Windows::read(cx, extents.len(), None)?;
    windows.resolve_same(&extents)?;
    let counted = windows.pad.clone();
    if cx.flag("ceil_mode", false)? {
        windows.round_up(&extents)?;
    }
    Ok(Pooling {
        x,
        windows,
        counted,
    })
}

fn max_pool(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let Pooling { x, windows, .. } = pooling(cx)?;
    let column_major = cx.flag("storage_order", false)?;
    let (window, stride) = (windows.kernel, windows.stride);
    let (dilation, pad) = (windows.dilation, windows.pad);
    if !cx.wanted(1) {
        let kind = ReduceKind::Max;
        let op = ReduceWindow {
            kind,
            window,
            stride,
            dilation,
            pad,
        };
        let y = cx.op(op, &[x])?;
        cx.output(0, y);
        return Ok(());
    }
    let op = ArgMaxWindow {
        window,
        stride,
        dilation,
        pad,
    };
    let results = cx.op_results(op, &[x])?;
    let [values, positions] = results[..] else {
        return Err(NodeError::invalid("no positions"));
    };
    let indices = positions_in_tensor(cx, x, positions, column_major)?;
    cx.output(0, values);
    cx.output(1, indices);
    Ok(())
}

/// Positions in the whole tensor from positions in a plane.
fn positions_in_tensor(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    positions: ValueId,
    column_major: bool,
) -> NodeResult<ValueId> {
    let dims = cx.dims(x);
    let extents: Option<Vec<u64>> = dims[1..].iter().map(Dim::as_const).collect();
    let Some(extents) = extents else {
        return Err(
            NodeError::unsupported("indices in planes of symbolic extents")
                .help("bind the dims to extents"),
        );
    };
    let mut within = positions;
    if column_major {
        // The position is taken apart from its last dim on, and put together the other way.
        let mut rest = positions;
        let mut sum: Option<ValueId> = None;
        for (axis, extent) in extents.iter().enumerate().skip(1).rev() {
            let index = cx.with_scalar(BinaryFn::Mod, rest, *extent as f64)?;
            rest = cx.with_scalar(BinaryFn::Div, rest, *extent as f64)?;
            let distance: u64 = extents[1..axis].iter().product();
            let part = cx.with_scalar(BinaryFn::Mul, index, distance as f64)?;
            sum = Some(match sum {
                Some(sum) => cx.binary(BinaryFn::Add, sum, part)?,
                None => part,
            });
        }
        within = sum.unwrap_or(positions);
    }
    let plane: u64 = extents[1..].iter().product();
    let shape = cx.dims(positions);
    let mut offset = within;
    for (axis, distance) in [(1, plane), (0, plane.saturating_mul(extents[0]))] {
        let index = cx.iota(DType::I64, shape.clone(), axis)?;
        let part = cx.with_scalar(BinaryFn::Mul, index, distance as f64)?;
        offset = cx.binary(BinaryFn::Add, offset, part)?;
    }
    Ok(offset)
}

fn average_pool(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let Pooling {
        x,
        windows,
        counted,
    } = pooling(cx)?;
    let counted = match cx.flag("count_include_pad", false)? {
        true => counted,
        false => vec![(0, 0); counted.len()],
    };
    let op = AvgPool {
        window: windows.kernel,
        stride: windows.stride,
        dilation: windows.dilation,
        pad: windows.pad,
        counted,
    };
    let y = cx.op(op, &[x])?;
    cx.output(0, y);
    Ok(())
}

/// The exponent of a norm; a float in operator set 1.
fn exponent(cx: &mut NodeCx<'_, '_>) -> NodeResult<f64> {
    match cx.int("p", 2)? {
        p if p > 0 => Ok(p as f64),
        p => Err(NodeError::invalid(format!("`p` is {p}"))),
    }
}

/// `(sum of |x|^p) ^ (1/p)`, the sum being what `sum` makes.
fn lp(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    p: f64,
    sum: impl FnOnce(&mut NodeCx<'_, '_>, ValueId) -> NodeResult<ValueId>,
) -> NodeResult<ValueId> {
    let magnitude = cx.unary(UnaryFn::Abs, x)?;
    if p == 1.0 {
        return sum(cx, magnitude);
    }
    if p == 2.0 {
        let square = cx.binary(BinaryFn::Mul, magnitude, magnitude)?;
        let total = sum(cx, square)?;
        return cx.unary(UnaryFn::Sqrt, total);
    }
    let power = cx.with_scalar(BinaryFn::Pow, magnitude, p)?;
    let total = sum(cx, power)?;
    cx.with_scalar(BinaryFn::Pow, total, 1.0 / p)
}

fn lp_pool(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let Pooling { x, windows, .. } = pooling(cx)?;
    let p = exponent(cx)?;
    let op = ReduceWindow {
        kind: ReduceKind::Sum,
        window: windows.kernel,
        stride: windows.stride,
        dilation: windows.dilation,
        pad: windows.pad,
    };
    let y = lp(cx, x, p, |cx, x| cx.op(op, &[x]))?;
    cx.output(0, y);
    Ok(())
}

/// The operand and its spatial dims.
fn global(cx: &mut NodeCx<'_, '_>) -> NodeResult<(ValueId, Vec<usize>)> {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    spatial(cx, x)?;
    Ok((x, (2..cx.rank(x)).collect()))
}

fn global_max(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let (x, axes) = global(cx)?;
    let y = cx.reduce(ReduceKind::Max, x, &axes, true)?;
    cx.output(0, y);
    Ok(())
}

fn global_average(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let (x, axes) = global(cx)?;
    let y = cx.mean(x, &axes, true)?;
    cx.output(0, y);
    Ok(())
}

fn global_lp(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let (x, axes) = global(cx)?;
    let p = exponent(cx)?;
    let y = lp(cx, x, p, |cx, x| cx.reduce(ReduceKind::Sum, x, &axes, true))?;
    cx.output(0, y);
    Ok(())
}
