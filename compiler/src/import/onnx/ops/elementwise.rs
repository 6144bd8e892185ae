//! Functions of every element.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};

/// A handler that applies one function.
macro_rules! unary {
    ($f:ident) => {
        |cx| unary(cx, UnaryFn::$f)
    };
}
macro_rules! binary {
    ($f:ident) => {
        |cx| binary(cx, BinaryFn::$f)
    };
}
macro_rules! fold {
    ($f:ident) => {
        |cx| fold(cx, BinaryFn::$f)
    };
}

pub(super) const OPS: &[OpEntry] = &[
    onnx("Abs", &[(1, unary!(Abs))]),
    onnx("Neg", &[(1, unary!(Neg))]),
    onnx("Sign", &[(9, unary!(Sign))]),
    onnx("Floor", &[(1, unary!(Floor))]),
    onnx("Ceil", &[(1, unary!(Ceil))]),
    onnx("Round", &[(11, unary!(Round))]),
    onnx("Exp", &[(1, unary!(Exp))]),
    onnx("Log", &[(1, unary!(Log))]),
    onnx("Sqrt", &[(1, unary!(Sqrt))]),
    onnx("Reciprocal", &[(1, unary!(Recip))]),
    onnx("Sin", &[(7, unary!(Sin))]),
    onnx("Cos", &[(7, unary!(Cos))]),
    onnx("Tan", &[(7, unary!(Tan))]),
    onnx("Asin", &[(7, unary!(Asin))]),
    onnx("Acos", &[(7, unary!(Acos))]),
    onnx("Atan", &[(7, unary!(Atan))]),
    onnx("Sinh", &[(9, unary!(Sinh))]),
    onnx("Cosh", &[(9, unary!(Cosh))]),
    onnx("Tanh", &[(1, unary!(Tanh))]),
    onnx("Asinh", &[(9, unary!(Asinh))]),
    onnx("Acosh", &[(9, unary!(Acosh))]),
    onnx("Atanh", &[(9, unary!(Atanh))]),
    onnx("Erf", &[(9, unary!(Erf))]),
    onnx("Sigmoid", &[(1, unary!(Sigmoid))]),
    onnx("Not", &[(1, unary!(Not))]),
    onnx("BitwiseNot", &[(18, unary!(Not))]),
    onnx("IsNaN", &[(9, unary!(IsNan))]),
    onnx("Add", &[(1, binary!(Add))]),
    onnx("Sub", &[(1, binary!(Sub))]),
    onnx("Mul", &[(1, binary!(Mul))]),
    onnx("Div", &[(1, binary!(Div))]),
    onnx("And", &[(1, binary!(And))]),
    onnx("Or", &[(1, binary!(Or))]),
    onnx("Xor", &[(1, binary!(Xor))]),
    onnx("BitwiseAnd", &[(18, binary!(And))]),
    onnx("BitwiseOr", &[(18, binary!(Or))]),
    onnx("BitwiseXor", &[(18, binary!(Xor))]),
    onnx("Equal", &[(1, binary!(Eq))]),
    onnx("Less", &[(1, binary!(Lt))]),
    onnx("LessOrEqual", &[(12, binary!(Le))]),
    onnx("Greater", &[(1, binary!(Gt))]),
    onnx("GreaterOrEqual", &[(12, binary!(Ge))]),
    onnx("Pow", &[(1, pow)]),
    onnx("Mod", &[(10, modulo)]),
    onnx("BitShift", &[(11, bit_shift)]),
    onnx("Sum", &[(1, fold!(Add))]),
    onnx("Max", &[(1, fold!(Max))]),
    onnx("Min", &[(1, fold!(Min))]),
    onnx("Mean", &[(1, mean)]),
    onnx("Where", &[(9, select)]),
    onnx("Relu", &[(1, relu)]),
    onnx("LeakyRelu", &[(1, leaky_relu)]),
    onnx("PRelu", &[(1, prelu)]),
    onnx("Clip", &[(1, clip)]),
];

fn unary(cx: &mut NodeCx<'_, '_>, f: UnaryFn) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    cx.ignore_attrs(&["consumed_inputs"]);
    let x = cx.input(0)?;
    let y = cx.unary(f, x)?;
    cx.output(0, y);
    Ok(())
}

/// The two operands, the second shaped so that broadcasting from the end does what the attributes
/// `broadcast` and `axis` of operator sets before 7 say.
fn operands(cx: &mut NodeCx<'_, '_>) -> NodeResult<(ValueId, ValueId)> {
    cx.expect_inputs(2, 2)?;
    let (a, mut b) = (cx.input(0)?, cx.input(1)?);
    if cx.version < 7 {
        cx.ignore_attrs(&["consumed_inputs"]);
        let broadcast = cx.flag("broadcast", false)?;
        let axis = cx.int_opt("axis")?;
        if !broadcast && cx.dims(a) != cx.dims(b) {
            let message = "the shapes differ and `broadcast` is not set";
            return Err(NodeError::invalid(message));
        }
        if let (true, Some(axis)) = (broadcast, axis) {
            let axis = cx.axis(axis, cx.rank(a))?;
            let after = (cx.rank(a) - axis).checked_sub(cx.rank(b));
            let Some(after) = after else {
                let message = "the second operand has too many dims behind the axis";
                return Err(NodeError::invalid(message));
            };
            let mut dims = cx.dims(b);
            dims.extend(vec![Dim::Const(1); after]);
            b = cx.reshape(b, dims)?;
        }
    }
    Ok((a, b))
}

fn binary(cx: &mut NodeCx<'_, '_>, f: BinaryFn) -> NodeResult {
    let (a, b) = operands(cx)?;
    let y = cx.binary(f, a, b)?;
    cx.output(0, y);
    Ok(())
}

/// The exponent may be of another type; the result is of that of the base.
fn pow(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let (a, b) = operands(cx)?;
    let (base, exponent) = (cx.dtype(a), cx.dtype(b));
    // An integer to a fractional power is computed in floats and truncated.
    let y = if base.is_int() && exponent.is_float() {
        let wide = cx.convert(a, DType::F64)?;
        let power = cx.convert(b, DType::F64)?;
        let y = cx.binary(BinaryFn::Pow, wide, power)?;
        cx.convert(y, base)?
    } else {
        let power = cx.convert(b, base)?;
        cx.binary(BinaryFn::Pow, a, power)?
    };
    cx.output(0, y);
    Ok(())
}

fn modulo(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let f = match cx.flag("fmod", false)? {
        true => BinaryFn::Rem,
        false => BinaryFn::Mod,
    };
    binary(cx, f)
}

fn bit_shift(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let f = match cx.string("direction", "")?.as_str() {
        "LEFT" => BinaryFn::Shl,
        "RIGHT" => BinaryFn::Shr,
        other => return Err(NodeError::invalid(format!("direction `{other}`"))),
    };
    binary(cx, f)
}

fn folded(cx: &mut NodeCx<'_, '_>, f: BinaryFn) -> NodeResult<(ValueId, usize)> {
    cx.ignore_attrs(&["consumed_inputs"]);
    let inputs = cx.all_inputs()?;
    let Some((first, rest)) = inputs.split_first() else {
        return Err(NodeError::invalid("expected at least one operand"));
    };
    let mut y = *first;
    for x in rest {
        y = cx.binary(f, y, *x)?;
    }
    Ok((y, inputs.len()))
}

fn fold(cx: &mut NodeCx<'_, '_>, f: BinaryFn) -> NodeResult {
    let (y, _) = folded(cx, f)?;
    cx.output(0, y);
    Ok(())
}

fn mean(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let (sum, count) = folded(cx, BinaryFn::Add)?;
    let y = cx.with_scalar(BinaryFn::Div, sum, count as f64)?;
    cx.output(0, y);
    Ok(())
}

fn select(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let (cond, a, b) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let y = cx.select(cond, a, b)?;
    cx.output(0, y);
    Ok(())
}

fn relu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    cx.ignore_attrs(&["consumed_inputs"]);
    let x = cx.input(0)?;
    let y = cx.with_scalar(BinaryFn::Max, x, 0.0)?;
    cx.output(0, y);
    Ok(())
}

/// `x < 0 ? slope * x : x`.
fn leaky(cx: &mut NodeCx<'_, '_>, x: ValueId, slope: ValueId) -> NodeResult {
    let negative = cx.with_scalar(BinaryFn::Lt, x, 0.0)?;
    let scaled = cx.binary(BinaryFn::Mul, x, slope)?;
    let y = cx.select(negative, scaled, x)?;
    cx.output(0, y);
    Ok(())
}

fn leaky_relu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    cx.ignore_attrs(&["consumed_inputs"]);
    let alpha = cx.float("alpha", 0.01)?;
    let x = cx.input(0)?;
    let slope = cx.scalar(cx.dtype(x), alpha)?;
    leaky(cx, x, slope)
}

fn prelu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    cx.ignore_attrs(&["consumed_inputs"]);
    let (x, mut slope) = (cx.input(0)?, cx.input(1)?);
    // Before operator set 7 a vector of slopes is per channel, not along the last dim.
    if cx.version < 7 && cx.rank(slope) == 1 && cx.rank(x) > 2 {
        let mut dims = cx.dims(slope);
        dims.extend(vec![Dim::Const(1); cx.rank(x) - 2]);
        slope = cx.reshape(slope, dims)?;
    }
    leaky(cx, x, slope)
}

/// Bounds are attributes before operator set 11, operands after; where they cross, the upper one
/// wins.
fn clip(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let x = cx.input(0)?;
    let dtype = cx.dtype(x);
    let bounds = if cx.version < 11 {
        cx.expect_inputs(1, 1)?;
        cx.ignore_attrs(&["consumed_inputs"]);
        let mut bounds = [None; 2];
        for (slot, name) in bounds.iter_mut().zip(["min", "max"]) {
            if let Some(bound) = cx.float_opt(name)? {
                *slot = Some(cx.scalar(dtype, bound)?);
            }
        }
        bounds
    } else {
        cx.expect_inputs(1, 3)?;
        [cx.optional(1)?, cx.optional(2)?]
    };
    let mut y = x;
    for (f, bound) in [BinaryFn::Max, BinaryFn::Min].into_iter().zip(bounds) {
        if let Some(bound) = bound {
            let bound = cx.reshape_to(bound, &[])?;
            y = cx.binary(f, y, bound)?;
        }
    }
    cx.output(0, y);
    Ok(())
}
