//! Activation functions.

use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Gelu, GeluKind};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx, other};
use super::shared::in_wide;

pub(super) const OPS: &[OpEntry] = &[
    onnx("Gelu", &[(20, gelu)]),
    onnx("Elu", &[(1, elu)]),
    onnx("Selu", &[(1, selu)]),
    onnx("Celu", &[(12, celu)]),
    onnx("HardSigmoid", &[(1, hard_sigmoid)]),
    onnx("HardSwish", &[(14, hard_swish)]),
    onnx("Swish", &[(24, swish)]),
    onnx("SwiGLU", &[(28, swiglu)]),
    onnx("Mish", &[(18, mish)]),
    onnx("Softplus", &[(1, softplus)]),
    onnx("Softsign", &[(1, softsign)]),
    onnx("Shrink", &[(9, shrink)]),
    onnx("ThresholdedRelu", &[(10, thresholded_relu)]),
    onnx("IsInf", &[(10, is_inf)]),
    other("com.microsoft", "Gelu", &[(1, erf_gelu)]),
    other("com.microsoft", "BiasGelu", &[(1, erf_gelu)]),
    other("com.microsoft", "FastGelu", &[(1, fast_gelu)]),
    other("com.microsoft", "QuickGelu", &[(1, quick_gelu)]),
];

/// A function of one operand, computed in at least 32 bits.
fn pointwise(
    cx: &mut NodeCx<'_, '_>,
    build: impl FnOnce(&mut NodeCx<'_, '_>, ValueId) -> NodeResult<ValueId>,
) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let y = in_wide(cx, x, build)?;
    cx.output(0, y);
    Ok(())
}

fn gelu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let approximate = match cx.string("approximate", "none")?.as_str() {
        "none" => GeluKind::Erf,
        "tanh" => GeluKind::Tanh,
        other => return Err(NodeError::invalid(format!("approximate `{other}`"))),
    };
    let x = cx.input(0)?;
    let y = cx.op(Gelu { approximate }, &[x])?;
    cx.output(0, y);
    Ok(())
}

/// The function of the sum of the operand and an optional bias.
fn biased_gelu(cx: &mut NodeCx<'_, '_>, approximate: GeluKind) -> NodeResult {
    cx.expect_inputs(1, 2)?;
    let mut x = cx.input(0)?;
    if let Some(bias) = cx.optional(1)? {
        x = cx.binary(BinaryFn::Add, x, bias)?;
    }
    let y = cx.op(Gelu { approximate }, &[x])?;
    cx.output(0, y);
    Ok(())
}

fn erf_gelu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    biased_gelu(cx, GeluKind::Erf)
}

fn fast_gelu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    biased_gelu(cx, GeluKind::Tanh)
}

/// `x * sigmoid(alpha * x)`.
fn gated(cx: &mut NodeCx<'_, '_>, x: ValueId, alpha: f64) -> NodeResult<ValueId> {
    let scaled = match alpha {
        1.0 => x,
        _ => cx.with_scalar(BinaryFn::Mul, x, alpha)?,
    };
    let gate = cx.unary(UnaryFn::Sigmoid, scaled)?;
    cx.binary(BinaryFn::Mul, x, gate)
}

fn quick_gelu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let alpha = cx.float("alpha", 1.702)?;
    pointwise(cx, |cx, x| gated(cx, x, alpha))
}

fn swish(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let alpha = cx.float("alpha", 1.0)?;
    pointwise(cx, |cx, x| gated(cx, x, alpha))
}

fn swiglu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let alpha = cx.float("alpha", 1.0)?;
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    if cx.ty(a) != cx.ty(b) {
        let message = format!("the operands differ: {} and {}", cx.ty(a), cx.ty(b));
        return Err(NodeError::invalid(message));
    }
    let y = in_wide(cx, a, |cx, a| {
        let gate = gated(cx, a, alpha)?;
        let b = cx.convert(b, cx.dtype(a))?;
        cx.binary(BinaryFn::Mul, gate, b)
    })?;
    cx.output(0, y);
    Ok(())
}

/// `x < 0 ? alpha * (exp(x / scale) - 1) : x`. The exponential only sees what is not positive, so
/// that it stays finite.
fn exponential_unit(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    alpha: f64,
    scale: f64,
) -> NodeResult<ValueId> {
    let mut low = cx.with_scalar(BinaryFn::Min, x, 0.0)?;
    if scale != 1.0 {
        low = cx.with_scalar(BinaryFn::Div, low, scale)?;
    }
    let low = cx.unary(UnaryFn::Expm1, low)?;
    let low = cx.with_scalar(BinaryFn::Mul, low, alpha)?;
    let negative = cx.with_scalar(BinaryFn::Lt, x, 0.0)?;
    cx.select(negative, low, x)
}

fn elu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.ignore_attrs(&["consumed_inputs"]);
    let alpha = cx.float("alpha", 1.0)?;
    pointwise(cx, |cx, x| exponential_unit(cx, x, alpha, 1.0))
}

fn celu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let alpha = cx.float("alpha", 1.0)?;
    pointwise(cx, |cx, x| exponential_unit(cx, x, alpha, alpha))
}

fn selu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.ignore_attrs(&["consumed_inputs"]);
    // Operator sets before 6 have the same numbers with fewer digits.
    let (alpha, gamma) = match cx.version < 6 {
        true => (1.6732, 1.0507),
        false => (1.673_263_2, 1.050_701),
    };
    let (alpha, gamma) = (cx.float("alpha", alpha)?, cx.float("gamma", gamma)?);
    pointwise(cx, |cx, x| {
        let y = exponential_unit(cx, x, alpha, 1.0)?;
        cx.with_scalar(BinaryFn::Mul, y, gamma)
    })
}

/// `alpha * x + beta` between 0 and 1.
fn ramp(cx: &mut NodeCx<'_, '_>, x: ValueId, alpha: f64, beta: f64) -> NodeResult<ValueId> {
    let y = cx.with_scalar(BinaryFn::Mul, x, alpha)?;
    let y = cx.with_scalar(BinaryFn::Add, y, beta)?;
    let y = cx.with_scalar(BinaryFn::Max, y, 0.0)?;
    cx.with_scalar(BinaryFn::Min, y, 1.0)
}

fn hard_sigmoid(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.ignore_attrs(&["consumed_inputs"]);
    let (alpha, beta) = (cx.float("alpha", 0.2)?, cx.float("beta", 0.5)?);
    pointwise(cx, |cx, x| ramp(cx, x, alpha, beta))
}

fn hard_swish(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    pointwise(cx, |cx, x| {
        let gate = ramp(cx, x, 1.0 / 6.0, 0.5)?;
        cx.binary(BinaryFn::Mul, x, gate)
    })
}

/// `log(1 + exp(x))`, as `max(x, 0) + log(1 + exp(-|x|))`, which does not overflow.
fn log_one_plus_exp(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
    let magnitude = cx.unary(UnaryFn::Abs, x)?;
    let below = cx.unary(UnaryFn::Neg, magnitude)?;
    let small = cx.unary(UnaryFn::Exp, below)?;
    let rest = cx.unary(UnaryFn::Log1p, small)?;
    let positive = cx.with_scalar(BinaryFn::Max, x, 0.0)?;
    cx.binary(BinaryFn::Add, positive, rest)
}

fn softplus(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    pointwise(cx, log_one_plus_exp)
}

fn mish(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    pointwise(cx, |cx, x| {
        let inner = log_one_plus_exp(cx, x)?;
        let gate = cx.unary(UnaryFn::Tanh, inner)?;
        cx.binary(BinaryFn::Mul, x, gate)
    })
}

fn softsign(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    pointwise(cx, |cx, x| {
        let magnitude = cx.unary(UnaryFn::Abs, x)?;
        let divisor = cx.with_scalar(BinaryFn::Add, magnitude, 1.0)?;
        cx.binary(BinaryFn::Div, x, divisor)
    })
}

/// Moves everything towards zero by `bias`, and what is within `lambd` to zero. Integers are
/// compared as the numbers they are, not with a threshold that is truncated.
fn shrink(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let (bias, threshold) = (cx.float("bias", 0.0)?, cx.float("lambd", 0.5)?);
    let x = cx.input(0)?;
    let dtype = cx.dtype(x);
    let x = if dtype.is_int() {
        cx.convert(x, DType::F64)?
    } else {
        x
    };
    let y = in_wide(cx, x, |cx, x| {
        let zero = cx.scalar(cx.dtype(x), 0.0)?;
        let below = cx.with_scalar(BinaryFn::Lt, x, -threshold)?;
        let above = cx.with_scalar(BinaryFn::Gt, x, threshold)?;
        let raised = cx.with_scalar(BinaryFn::Add, x, bias)?;
        let lowered = cx.with_scalar(BinaryFn::Sub, x, bias)?;
        let upper = cx.select(above, lowered, zero)?;
        cx.select(below, raised, upper)
    })?;
    let y = cx.convert(y, dtype)?;
    cx.output(0, y);
    Ok(())
}

fn thresholded_relu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let alpha = cx.float("alpha", 1.0)?;
    pointwise(cx, |cx, x| {
        let above = cx.with_scalar(BinaryFn::Gt, x, alpha)?;
        let zero = cx.scalar(cx.dtype(x), 0.0)?;
        cx.select(above, x, zero)
    })
}

fn is_inf(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let negative = cx.flag("detect_negative", true)?;
    let positive = cx.flag("detect_positive", true)?;
    let x = cx.input(0)?;
    let y = match (negative, positive) {
        (true, true) => cx.unary(UnaryFn::IsInf, x)?,
        (true, false) => cx.with_scalar(BinaryFn::Eq, x, f64::NEG_INFINITY)?,
        (false, true) => cx.with_scalar(BinaryFn::Eq, x, f64::INFINITY)?,
        (false, false) => cx.full(DType::Bool, cx.dims(x), Scalar::Bool(false))?,
    };
    cx.output(0, y);
    Ok(())
}
