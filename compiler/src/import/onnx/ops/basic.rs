//! Constants, types and shapes.

use dojoc_ir::dim::{Dim, Poly};
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::super::value::onnx_dtype;
use super::super::wire::DataType;
use crate::io::onnx_tensor::tensor_raw;

pub(super) const OPS: &[OpEntry] = &[
    onnx("Identity", &[(1, identity)]),
    onnx("Constant", &[(1, constant)]),
    onnx("Cast", &[(1, cast)]),
    onnx("CastLike", &[(15, cast_like)]),
    onnx("Shape", &[(1, shape)]),
    onnx("Size", &[(1, size)]),
    onnx("ConstantOfShape", &[(9, constant_of_shape)]),
    onnx("Range", &[(11, range)]),
];

fn identity(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    cx.output(0, x);
    Ok(())
}

fn constant(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(0, 0)?;
    let value = if let Some(tensor) = cx.tensor("value")? {
        cx.tensor_constant(tensor)?
    } else if let Some(value) = cx.float_opt("value_float")? {
        cx.constant(Tensor::from_vec(&[], vec![value as f32]))
    } else if let Some(value) = cx.int_opt("value_int")? {
        cx.constant(Tensor::from_vec(&[], vec![value]))
    } else if let Some(values) = cx.floats("value_floats")? {
        let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
        cx.constant(Tensor::from_vec(&[values.len() as u64], values))
    } else if let Some(values) = cx.ints("value_ints")? {
        cx.ints_constant(&values)
    } else if cx.has_attr("sparse_value") {
        return Err(NodeError::unsupported("a sparse constant").help("store it as a dense tensor"));
    } else if cx.has_attr("value_string") || cx.has_attr("value_strings") {
        return Err(NodeError::unsupported("a constant of strings"));
    } else {
        return Err(NodeError::invalid("there is no value"));
    };
    cx.output(0, value);
    Ok(())
}

/// Converts as ONNX does: floats to integers truncate.
fn cast(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    // They say how to convert to 8-bit floats, which are no element types here.
    cx.ignore_attrs(&["saturate", "round_mode"]);
    let to = if cx.version < 6 {
        let name = cx.string("to", "")?;
        // Numbers below 32 are all that ONNX has defined so far.
        let mut types = (0..32).filter_map(|n| DataType::try_from(n).ok());
        types
            .find(|ty| ty.onnx_name() == name)
            .ok_or_else(|| NodeError::invalid(format!("there is no element type `{name}`")))?
            as i32
    } else {
        i32::try_from(cx.int_required("to")?).unwrap_or(-1)
    };
    let to = onnx_dtype(to)?;
    let x = cx.input(0)?;
    let y = cx.convert(x, to)?;
    cx.output(0, y);
    Ok(())
}

fn cast_like(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    cx.ignore_attrs(&["saturate", "round_mode"]);
    let (x, like) = (cx.input(0)?, cx.input(1)?);
    let y = cx.convert(x, cx.dtype(like))?;
    cx.output(0, y);
    Ok(())
}

/// The extents of an operand from `start` to `end`, constants or expressions.
fn shape(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let ty = cx.required_type(0)?;
    let rank = ty.rank() as i64;
    let clamp = |i: i64| (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize;
    let start = clamp(cx.int("start", 0)?);
    let end = clamp(cx.int("end", i64::MAX)?);
    let dims = ty.dims().get(start..end).unwrap_or_default();
    extents(cx, dims, false)
}

fn size(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let ty = cx.required_type(0)?;
    let count = ty.shape.elements().ok_or_else(bad_extent)?;
    extents(cx, &[count], true)
}

/// Gives extents as the result.
fn extents(cx: &mut NodeCx<'_, '_>, dims: &[Dim], scalar: bool) -> NodeResult {
    let polys: Option<Vec<Poly>> = dims.iter().map(Dim::to_poly).collect();
    let polys = polys.ok_or_else(bad_extent)?;
    let constants: Option<Vec<i64>> = polys.iter().map(Poly::as_constant).collect();
    match constants {
        Some(values) => {
            let shape = if scalar {
                vec![]
            } else {
                vec![values.len() as u64]
            };
            let value = cx.constant(Tensor::from_vec(&shape, values));
            cx.output(0, value);
        }
        None => cx.output_extents(0, DType::I64, scalar, polys),
    }
    Ok(())
}

fn constant_of_shape(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let dims = cx.require_extents(0, "the shape")?;
    let (dtype, value) = match cx.tensor("value")? {
        Some(tensor) => {
            let raw = tensor_raw(tensor, cx.imp.files)?;
            let data = raw.load()?;
            let dtype = DType::from(raw.dtype);
            let tensor = Tensor::from_bytes(dtype, &raw.shape, data.data)
                .map_err(|error| NodeError::invalid(error.to_string()))?;
            if tensor.len() != 1 {
                return Err(NodeError::invalid("the value is not one element"));
            }
            (dtype, tensor.get(0))
        }
        None => (DType::F32, Scalar::F32(0.0)),
    };
    let y = cx.full(dtype, dims, value)?;
    cx.output(0, y);
    Ok(())
}

/// `start, start + delta, ...` before `limit`.
fn range(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let dtype = cx.required_type(0)?.dtype;
    let extent = range_extent(cx, dtype)?;
    let (start, delta) = (cx.input(0)?, cx.input(2)?);
    let (start, delta) = (cx.reshape_to(start, &[])?, cx.reshape_to(delta, &[])?);
    let steps = cx.iota(DType::I64, vec![extent], 0)?;
    let steps = cx.convert(steps, dtype)?;
    let offsets = cx.binary(BinaryFn::Mul, steps, delta)?;
    let y = cx.binary(BinaryFn::Add, offsets, start)?;
    cx.output(0, y);
    Ok(())
}

fn range_extent(cx: &mut NodeCx<'_, '_>, dtype: DType) -> NodeResult<Dim> {
    if dtype.is_float() {
        let mut bounds = [0.0; 3];
        for (index, what) in ["the start", "the limit", "the step"].iter().enumerate() {
            let tensor = cx.require_const(index, what)?;
            if tensor.len() != 1 {
                return Err(NodeError::invalid(format!("{what} is not one element")));
            }
            bounds[index] = tensor.get(0).to_f64();
        }
        let count = ((bounds[1] - bounds[0]) / bounds[2]).ceil();
        if !count.is_finite() {
            return Err(NodeError::invalid("the range is infinite or has no step"));
        }
        return Ok(Dim::Const(count.max(0.0) as u64));
    }
    let known = (cx.shape_values(0), cx.shape_values(1), cx.shape_values(2));
    let (Some(start), Some(limit), Some(delta)) = known else {
        return Err(cx.needs_constant(1, "a bound of the range"));
    };
    let ([start], [limit], [delta]) = (&start[..], &limit[..], &delta[..]) else {
        return Err(NodeError::invalid(
            "the bounds of the range are not scalars",
        ));
    };
    let Some(delta) = delta.as_constant().filter(|d| *d != 0) else {
        return Err(NodeError::invalid(
            "the step of the range is zero or not a constant",
        ));
    };
    let span = if delta > 0 {
        limit.sub(start)
    } else {
        start.sub(limit)
    };
    let step = delta.checked_abs().ok_or_else(bad_extent)?;
    let count = span
        .and_then(|span| span.add(&Poly::constant(step - 1)))
        .and_then(|span| span.floor_div(&Poly::constant(step)))
        .ok_or_else(bad_extent)?;
    let count = match count.bounds().0 < 0 {
        true => count.larger(&Poly::constant(0)),
        false => count,
    };
    Dim::from_poly(count).ok_or_else(bad_extent)
}
