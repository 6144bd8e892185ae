//! Normalisations.

use dojoc_ir::attr::F64;
use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{GroupNorm, LayerNorm, ReduceKind, RmsNorm};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx, other};
use super::super::value::onnx_dtype;
use super::shared::{in_wide, wide};

pub(super) const OPS: &[OpEntry] = &[
    onnx("LayerNormalization", &[(1, layer_norm)]),
    onnx("RMSNormalization", &[(23, rms_norm)]),
    onnx("SimplifiedLayerNormalization", &[(1, rms_norm)]),
    onnx("InstanceNormalization", &[(1, instance_norm)]),
    onnx("GroupNormalization", &[(18, group_norm)]),
    onnx("MeanVarianceNormalization", &[(9, mean_variance_norm)]),
    onnx("LpNormalization", &[(1, lp_norm)]),
    other(
        "com.microsoft",
        "SimplifiedLayerNormalization",
        &[(1, rms_norm)],
    ),
    other(
        "com.microsoft",
        "SkipLayerNormalization",
        &[(1, skip_layer_norm)],
    ),
    other(
        "com.microsoft",
        "SkipSimplifiedLayerNormalization",
        &[(1, skip_rms_norm)],
    ),
];

/// A scale or bias in a type that the whole op takes along with `x`.
fn parameter(cx: &mut NodeCx<'_, '_>, value: ValueId, x: DType) -> NodeResult<ValueId> {
    let own = cx.dtype(value);
    cx.convert(value, if own == wide(x) { own } else { x })
}

/// The dims from `axis` to the last.
fn trailing_axes(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<Vec<usize>> {
    let axis = cx.int("axis", -1)?;
    let axis = cx.axis(axis, cx.rank(x))?;
    Ok((axis..cx.rank(x)).collect())
}

/// The type in which statistics are given; they are always computed in at least 32 bits.
fn stash_type(cx: &mut NodeCx<'_, '_>) -> NodeResult<DType> {
    let number = cx.int("stash_type", 1)?;
    onnx_dtype(i32::try_from(number).unwrap_or(-1))
}

/// `x` without its mean, the mean, and `1 / sqrt(variance + epsilon)`, in the type of `x`.
fn statistics(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    axes: &[usize],
    epsilon: f64,
) -> NodeResult<(ValueId, ValueId)> {
    let mean = cx.mean(x, axes, true)?;
    let centred = cx.binary(BinaryFn::Sub, x, mean)?;
    let squares = cx.binary(BinaryFn::Mul, centred, centred)?;
    let variance = cx.mean(squares, axes, true)?;
    let sum = cx.with_scalar(BinaryFn::Add, variance, epsilon)?;
    Ok((mean, cx.unary(UnaryFn::Rsqrt, sum)?))
}

fn layer_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 3)?;
    let x = cx.input(0)?;
    let dtype = cx.dtype(x);
    let axes = trailing_axes(cx, x)?;
    let epsilon = cx.float("epsilon", 1e-5)?;
    let stash = stash_type(cx)?;
    let scale = cx.input(1)?;
    let scale = parameter(cx, scale, dtype)?;
    let bias = match cx.optional(2)? {
        Some(bias) => parameter(cx, bias, dtype)?,
        None => cx.scalar(dtype, 0.0)?,
    };
    if cx.wanted(1) || cx.wanted(2) {
        let precise = cx.convert(x, wide(dtype))?;
        let (mean, inverse) = statistics(cx, precise, &axes, epsilon)?;
        let (mean, inverse) = (cx.convert(mean, stash)?, cx.convert(inverse, stash)?);
        cx.output(1, mean);
        cx.output(2, inverse);
    }
    let epsilon = F64(epsilon);
    let y = cx.op(LayerNorm { axes, epsilon }, &[x, scale, bias])?;
    cx.output(0, y);
    Ok(())
}

fn rms_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let x = cx.input(0)?;
    let axes = trailing_axes(cx, x)?;
    let epsilon = F64(cx.float("epsilon", 1e-5)?);
    stash_type(cx)?;
    let scale = cx.input(1)?;
    let scale = parameter(cx, scale, cx.dtype(x))?;
    let y = cx.op(RmsNorm { axes, epsilon }, &[x, scale])?;
    cx.output(0, y);
    Ok(())
}

/// The sum of an operand, a residual and a bias, which is also given as result 3.
fn skip(cx: &mut NodeCx<'_, '_>, bias: usize) -> NodeResult<ValueId> {
    let (x, skip) = (cx.input(0)?, cx.input(1)?);
    let mut sum = cx.binary(BinaryFn::Add, x, skip)?;
    if let Some(bias) = cx.optional(bias)? {
        sum = cx.binary(BinaryFn::Add, sum, bias)?;
    }
    cx.output(3, sum);
    Ok(sum)
}

fn skip_layer_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 5)?;
    let epsilon = cx.float("epsilon", 1e-5)?;
    let x = skip(cx, 4)?;
    let dtype = cx.dtype(x);
    let scale = cx.input(2)?;
    let bias = match cx.optional(3)? {
        Some(bias) => bias,
        None => cx.scalar(dtype, 0.0)?,
    };
    let axes = vec![cx.axis(-1, cx.rank(x))?];
    if cx.wanted(1) || cx.wanted(2) {
        let precise = cx.convert(x, wide(dtype))?;
        let (mean, inverse) = statistics(cx, precise, &axes, epsilon)?;
        cx.output(1, mean);
        cx.output(2, inverse);
    }
    let epsilon = F64(epsilon);
    let y = cx.op(LayerNorm { axes, epsilon }, &[x, scale, bias])?;
    cx.output(0, y);
    Ok(())
}

fn skip_rms_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 4)?;
    if cx.wanted(1) || cx.wanted(2) {
        return Err(
            NodeError::unsupported("the results `mean` and `inv_std_var`")
                .help("leave them out, they are for training"),
        );
    }
    let epsilon = F64(cx.float("epsilon", 1e-5)?);
    let x = skip(cx, 3)?;
    let scale = cx.input(2)?;
    let axes = vec![cx.axis(-1, cx.rank(x))?];
    let y = cx.op(RmsNorm { axes, epsilon }, &[x, scale])?;
    cx.output(0, y);
    Ok(())
}

fn channels(cx: &NodeCx<'_, '_>, x: ValueId) -> NodeResult<u64> {
    match cx.dims(x).get(1) {
        Some(Dim::Const(channels)) => Ok(*channels),
        Some(_) => Err(NodeError::unsupported("a symbolic number of channels")
            .help("give the dimension a fixed extent: --dim NAME=N")),
        None => Err(NodeError::invalid("the first operand has no channels")),
    }
}

fn instance_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    cx.ignore_attrs(&["consumed_inputs"]);
    let x = cx.input(0)?;
    let epsilon = F64(cx.float("epsilon", 1e-5)?);
    let groups = channels(cx, x)?;
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    let y = cx.op(GroupNorm { groups, epsilon }, &[x, scale, bias])?;
    cx.output(0, y);
    Ok(())
}

/// Before operator set 21, scale and bias are per group.
fn group_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let x = cx.input(0)?;
    let dtype = cx.dtype(x);
    let epsilon = F64(cx.float("epsilon", 1e-5)?);
    let groups = u64::try_from(cx.int_required("num_groups")?).unwrap_or(0);
    if cx.version >= 21 {
        stash_type(cx)?;
    }
    let channels = channels(cx, x)?;
    let Some(inside) = channels
        .checked_div(groups)
        .filter(|n| n * groups == channels)
    else {
        let message = format!("{channels} channels do not make {groups} groups");
        return Err(NodeError::invalid(message));
    };
    let mut args = vec![x];
    for operand in [1, 2] {
        let mut value = cx.input(operand)?;
        if cx.version < 21 {
            value = cx.reshape_to(value, &[groups, 1])?;
            value = cx.broadcast(value, vec![Dim::Const(groups), Dim::Const(inside)])?;
            value = cx.reshape_to(value, &[channels])?;
        }
        args.push(parameter(cx, value, dtype)?);
    }
    let y = cx.op(GroupNorm { groups, epsilon }, &args)?;
    cx.output(0, y);
    Ok(())
}

/// `(x - mean) / (deviation + 1e-9)`.
fn mean_variance_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let axes = cx.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let axes = cx.axes(&axes, cx.rank(x))?;
    let y = in_wide(cx, x, |cx, x| {
        let mean = cx.mean(x, &axes, true)?;
        let centred = cx.binary(BinaryFn::Sub, x, mean)?;
        let squares = cx.binary(BinaryFn::Mul, centred, centred)?;
        let variance = cx.mean(squares, &axes, true)?;
        let deviation = cx.unary(UnaryFn::Sqrt, variance)?;
        let divisor = cx.with_scalar(BinaryFn::Add, deviation, 1e-9)?;
        cx.binary(BinaryFn::Div, centred, divisor)
    })?;
    cx.output(0, y);
    Ok(())
}

/// Zero where the norm is zero.
fn lp_norm(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let axis = cx.int("axis", -1)?;
    let axis = cx.axis(axis, cx.rank(x))?;
    let p = cx.int("p", 2)?;
    let y = in_wide(cx, x, |cx, x| {
        let norm = match p {
            1 => {
                let magnitude = cx.unary(UnaryFn::Abs, x)?;
                cx.reduce(ReduceKind::Sum, magnitude, &[axis], true)?
            }
            2 => {
                let squares = cx.binary(BinaryFn::Mul, x, x)?;
                let sum = cx.reduce(ReduceKind::Sum, squares, &[axis], true)?;
                cx.unary(UnaryFn::Sqrt, sum)?
            }
            _ => return Err(NodeError::invalid(format!("p = {p}, expected 1 or 2"))),
        };
        let zero = cx.with_scalar(BinaryFn::Eq, norm, 0.0)?;
        let one = cx.scalar(cx.dtype(x), 1.0)?;
        let divisor = cx.select(zero, one, norm)?;
        cx.binary(BinaryFn::Div, x, divisor)
    })?;
    cx.output(0, y);
    Ok(())
}
