//! Quantised operators, as arithmetic on the integers and scales.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::ReduceKind;
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::super::value::onnx_dtype;
use super::conv::{add_bias, convolve};
use super::matmul::product;
use super::shared::{along, saturate};

pub(super) const OPS: &[OpEntry] = &[
    onnx("QuantizeLinear", &[(10, quantize_linear)]),
    onnx("DequantizeLinear", &[(10, dequantize_linear)]),
    onnx("DynamicQuantizeLinear", &[(11, dynamic_quantize_linear)]),
    onnx("QLinearMatMul", &[(10, qlinear_matmul)]),
    onnx("QLinearConv", &[(10, qlinear_conv)]),
    onnx("MatMulInteger", &[(10, matmul_integer)]),
    onnx("ConvInteger", &[(10, conv_integer)]),
];

/// An element type named by an attribute; 0 means that it is not named.
fn named_type(cx: &mut NodeCx<'_, '_>, name: &str) -> NodeResult<Option<DType>> {
    match cx.int(name, 0)? {
        0 => Ok(None),
        number => onnx_dtype(i32::try_from(number).unwrap_or(-1)).map(Some),
    }
}

/// Whether a tensor has one element for all.
fn is_single(cx: &NodeCx<'_, '_>, x: ValueId) -> bool {
    cx.dims(x).iter().all(|d| d.is(1))
}

/// How scales and zero points lie along the tensor that they are for.
struct Granularity {
    axis: i64,
    block: u64,
}

impl Granularity {
    fn read(cx: &mut NodeCx<'_, '_>) -> NodeResult<Self> {
        let axis = match cx.version {
            ..13 => 0,
            _ => cx.int("axis", 1)?,
        };
        let block = match cx.version {
            ..21 => 0,
            _ => cx.int("block_size", 0)?,
        };
        let block = u64::try_from(block)
            .map_err(|_| NodeError::invalid(format!("`block_size` is {block}")))?;
        Ok(Self { axis, block })
    }

    /// A scale or zero point so that it broadcasts to `x`: one for all, one per index of a dim, or
    /// one per block of a dim.
    fn spread(&self, cx: &mut NodeCx<'_, '_>, value: ValueId, x: ValueId) -> NodeResult<ValueId> {
        if is_single(cx, value) {
            return cx.reshape_to(value, &[]);
        }
        let dims = cx.dims(x);
        let axis = cx.axis(self.axis, dims.len())?;
        if self.block == 0 {
            return along(cx, value, axis, dims.len());
        }
        let mut split = cx.dims(value);
        if split.len() != dims.len() {
            let message = format!("blocks of {} do not fit {}", cx.ty(value), cx.ty(x));
            return Err(NodeError::invalid(message));
        }
        let block = Dim::Const(self.block);
        let covered = split[axis].mul(&block).ok_or_else(bad_extent)?;
        let mut merged = split.clone();
        merged[axis] = covered;
        split.insert(axis + 1, Dim::Const(1));
        let value = cx.reshape(value, split.clone())?;
        split[axis + 1] = block;
        let value = cx.broadcast(value, split)?;
        let value = cx.reshape(value, merged.clone())?;
        if merged[axis] == dims[axis] {
            return Ok(value);
        }
        match dims[axis].as_const() {
            Some(extent) => cx.slice(value, axis, 0, extent),
            None => Err(NodeError::unsupported("blocks along a symbolic dim")
                .help("give the dimension a fixed extent: --dim NAME=N")),
        }
    }
}

/// `round(x) + zero_point` within the range of the integer type `to`; the sum is exact in `f32`
/// wherever it is in the range.
fn requantize(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    zero_point: Option<ValueId>,
    to: DType,
) -> NodeResult<ValueId> {
    let mut y = cx.unary(UnaryFn::Round, x)?;
    y = cx.convert(y, DType::F32)?;
    if let Some(zero_point) = zero_point {
        let zero_point = cx.convert(zero_point, DType::F32)?;
        y = cx.binary(BinaryFn::Add, y, zero_point)?;
    }
    saturate(cx, y, to)
}

fn quantize_linear(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 3)?;
    // It says how to convert to 8-bit floats, which are no element types here.
    cx.ignore_attrs(&["saturate"]);
    let granularity = Granularity::read(cx)?;
    let named = named_type(cx, "output_dtype")?;
    let precision = named_type(cx, "precision")?;
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let precision = precision.unwrap_or(match cx.dtype(scale) {
        dtype if dtype.is_float() => dtype,
        _ => DType::F32,
    });
    let mut zero_point = cx.optional(2)?;
    let to = match (zero_point, named) {
        (Some(zero_point), _) => cx.dtype(zero_point),
        (None, Some(named)) => named,
        (None, None) => DType::U8,
    };
    if !to.is_int() {
        return Err(NodeError::invalid(format!("{to} is no quantised type")));
    }
    let scale = cx.convert(scale, precision)?;
    let scale = granularity.spread(cx, scale, x)?;
    if let Some(value) = &mut zero_point {
        *value = granularity.spread(cx, *value, x)?;
    }
    let x = cx.convert(x, precision)?;
    let quotient = cx.binary(BinaryFn::Div, x, scale)?;
    let y = requantize(cx, quotient, zero_point, to)?;
    cx.output(0, y);
    Ok(())
}

fn dequantize_linear(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 3)?;
    let granularity = Granularity::read(cx)?;
    let named = named_type(cx, "output_dtype")?;
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let to = named.unwrap_or(cx.dtype(scale));
    let difference = match cx.optional(2)? {
        Some(zero_point) => {
            let zero_point = granularity.spread(cx, zero_point, x)?;
            centred(cx, x, Some(zero_point))?
        }
        None => x,
    };
    let difference = cx.convert(difference, DType::F32)?;
    let scale = granularity.spread(cx, scale, x)?;
    let scale = cx.convert(scale, DType::F32)?;
    let y = cx.binary(BinaryFn::Mul, difference, scale)?;
    let y = cx.convert(y, to)?;
    cx.output(0, y);
    Ok(())
}

/// Scale and zero point from the range of the data, which is taken to contain zero.
fn dynamic_quantize_linear(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let axes: Vec<usize> = (0..cx.rank(x)).collect();
    let most = cx.reduce(ReduceKind::Max, x, &axes, false)?;
    let most = cx.with_scalar(BinaryFn::Max, most, 0.0)?;
    let least = cx.reduce(ReduceKind::Min, x, &axes, false)?;
    let least = cx.with_scalar(BinaryFn::Min, least, 0.0)?;
    let range = cx.binary(BinaryFn::Sub, most, least)?;
    let empty = cx.with_scalar(BinaryFn::Eq, range, 0.0)?;
    let one = cx.scalar(cx.dtype(x), 1.0)?;
    let range = cx.select(empty, one, range)?;
    let scale = cx.with_scalar(BinaryFn::Div, range, 255.0)?;
    let zero_point = cx.binary(BinaryFn::Div, least, scale)?;
    let zero_point = cx.unary(UnaryFn::Neg, zero_point)?;
    let zero_point = saturate(cx, zero_point, DType::U8)?;
    let quotient = cx.binary(BinaryFn::Div, x, scale)?;
    let y = requantize(cx, quotient, Some(zero_point), DType::U8)?;
    cx.output(0, y);
    cx.output(1, scale);
    cx.output(2, zero_point);
    Ok(())
}

/// The integers without their zero point, as `i32`.
fn centred(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    zero_point: Option<ValueId>,
) -> NodeResult<ValueId> {
    let x = cx.convert(x, DType::I32)?;
    match zero_point {
        Some(zero_point) => {
            let zero_point = cx.convert(zero_point, DType::I32)?;
            cx.binary(BinaryFn::Sub, x, zero_point)
        }
        None => Ok(x),
    }
}

/// A parameter of a matrix: one for all, one per row (of the left matrix) or column (of the right),
/// or of the full rank already.
fn of_matrix(cx: &mut NodeCx<'_, '_>, value: ValueId, rows: bool) -> NodeResult<ValueId> {
    if is_single(cx, value) {
        return cx.reshape_to(value, &[]);
    }
    match (rows, cx.rank(value)) {
        (true, 1) => along(cx, value, 0, 2),
        _ => Ok(value),
    }
}

/// An optional operand as a parameter of a matrix.
fn matrix_parameter(
    cx: &mut NodeCx<'_, '_>,
    operand: usize,
    rows: bool,
) -> NodeResult<Option<ValueId>> {
    match cx.optional(operand)? {
        Some(value) => of_matrix(cx, value, rows).map(Some),
        None => Ok(None),
    }
}

fn matmul_integer(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 4)?;
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let zero_point = matrix_parameter(cx, 2, true)?;
    let a = centred(cx, a, zero_point)?;
    let zero_point = matrix_parameter(cx, 3, false)?;
    let b = centred(cx, b, zero_point)?;
    let y = product(cx, a, b)?;
    cx.output(0, y);
    Ok(())
}

/// `sums * (scale_a * scale_b / scale_y)`, rounded into the range of the result.
fn rescale(
    cx: &mut NodeCx<'_, '_>,
    sums: ValueId,
    [a, b, y]: [ValueId; 3],
    zero_point: ValueId,
) -> NodeResult<ValueId> {
    let mut scales = [a, b, y];
    for scale in &mut scales {
        *scale = cx.convert(*scale, DType::F32)?;
    }
    let factor = cx.binary(BinaryFn::Mul, scales[0], scales[1])?;
    let factor = cx.binary(BinaryFn::Div, factor, scales[2])?;
    let sums = cx.convert(sums, DType::F32)?;
    let scaled = cx.binary(BinaryFn::Mul, sums, factor)?;
    requantize(cx, scaled, Some(zero_point), cx.dtype(zero_point))
}

fn qlinear_matmul(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(8, 8)?;
    let args = cx.all_inputs()?;
    let mut parameters = vec![];
    for operand in [1, 2, 4, 5, 6, 7] {
        // Scale and zero point of the result are per row.
        let rows = !matches!(operand, 4 | 5);
        parameters.push(of_matrix(cx, args[operand], rows)?);
    }
    let a = centred(cx, args[0], Some(parameters[1]))?;
    let b = centred(cx, args[3], Some(parameters[3]))?;
    let sums = product(cx, a, b)?;
    let scales = [parameters[0], parameters[2], parameters[4]];
    let y = rescale(cx, sums, scales, parameters[5])?;
    cx.output(0, y);
    Ok(())
}

/// A parameter of weights, one for all or one per output channel, along `axis` of `rank` dims.
fn per_channel(
    cx: &mut NodeCx<'_, '_>,
    value: ValueId,
    axis: usize,
    rank: usize,
) -> NodeResult<ValueId> {
    if is_single(cx, value) {
        return cx.reshape_to(value, &[]);
    }
    along(cx, value, axis, rank)
}

fn conv_integer(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 4)?;
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(w);
    let mut zero_points = [cx.optional(2)?, cx.optional(3)?];
    for zero_point in zero_points.iter_mut().flatten() {
        *zero_point = per_channel(cx, *zero_point, 0, rank)?;
    }
    let x = centred(cx, x, zero_points[0])?;
    let w = centred(cx, w, zero_points[1])?;
    let y = convolve(cx, x, w, None)?;
    cx.output(0, y);
    Ok(())
}

fn qlinear_conv(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(8, 9)?;
    let bias = cx.optional(8)?;
    let mut args = vec![];
    for operand in 0..8 {
        args.push(cx.input(operand)?);
    }
    let rank = cx.rank(args[3]);
    for operand in [1, 2, 6, 7] {
        args[operand] = cx.reshape_to(args[operand], &[])?;
    }
    args[4] = per_channel(cx, args[4], 1, rank)?;
    args[5] = per_channel(cx, args[5], 0, rank)?;
    let x = centred(cx, args[0], Some(args[2]))?;
    let w = centred(cx, args[3], Some(args[5]))?;
    let sums = convolve(cx, x, w, None)?;
    let sums = add_bias(cx, sums, bias)?;
    let y = rescale(cx, sums, [args[1], args[4], args[6]], args[7])?;
    cx.output(0, y);
    Ok(())
}
