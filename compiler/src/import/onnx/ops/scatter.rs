//! Operators that read or write at places given by indices.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{GatherElements, GatherNd, Pad, ScatterElements, ScatterKind, ScatterNd};
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::shared::along;

pub(super) const OPS: &[OpEntry] = &[
    onnx("ScatterElements", &[(11, scatter_elements)]),
    onnx("Scatter", &[(9, scatter_elements)]),
    onnx("ScatterND", &[(11, scatter_nd)]),
    onnx("TensorScatter", &[(24, tensor_scatter)]),
    onnx("GatherElements", &[(11, gather_elements)]),
    onnx("GatherND", &[(11, gather_nd)]),
    onnx("MaxUnpool", &[(9, max_unpool)]),
];

fn combination(cx: &mut NodeCx<'_, '_>) -> NodeResult<ScatterKind> {
    Ok(match cx.string("reduction", "none")?.as_str() {
        "none" => ScatterKind::Assign,
        "add" => ScatterKind::Add,
        "mul" => ScatterKind::Mul,
        "max" => ScatterKind::Max,
        "min" => ScatterKind::Min,
        other => return Err(NodeError::invalid(format!("reduction `{other}`"))),
    })
}

fn scatter_elements(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let args = cx.all_inputs()?;
    let axis = cx.int("axis", 0)?;
    let axis = cx.axis(axis, cx.rank(args[0]))?;
    let combine = combination(cx)?;
    let y = cx.op(ScatterElements { axis, combine }, &args)?;
    cx.output(0, y);
    Ok(())
}

fn scatter_nd(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let args = cx.all_inputs()?;
    let combine = combination(cx)?;
    let y = cx.op(ScatterNd { combine }, &args)?;
    cx.output(0, y);
    Ok(())
}

fn gather_elements(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let args = cx.all_inputs()?;
    let axis = cx.int("axis", 0)?;
    let axis = cx.axis(axis, cx.rank(args[0]))?;
    let y = cx.op(GatherElements { axis }, &args)?;
    cx.output(0, y);
    Ok(())
}

fn gather_nd(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let args = cx.all_inputs()?;
    let batch = cx.int("batch_dims", 0)?;
    let batch = usize::try_from(batch)
        .map_err(|_| NodeError::invalid(format!("`batch_dims` is {batch}")))?;
    let y = cx.op(GatherNd { batch }, &args)?;
    cx.output(0, y);
    Ok(())
}

/// Writes a sequence into a cache, for every element of the batch from another place on.
fn tensor_scatter(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 3)?;
    let (cache, update) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(cache);
    let axis = cx.int("axis", -2)?;
    let axis = cx.axis(axis, rank)?;
    let circular = match cx.string("mode", "linear")?.as_str() {
        "linear" => false,
        "circular" => true,
        other => return Err(NodeError::invalid(format!("mode `{other}`"))),
    };
    let dims = cx.dims(update);
    if axis == 0 || dims.len() != rank {
        let message = format!("an update {} of a cache {}", cx.ty(update), cx.ty(cache));
        return Err(NodeError::invalid(message));
    }
    let mut index = cx.iota(DType::I64, vec![dims[axis].clone()], 0)?;
    index = along(cx, index, axis, rank)?;
    if let Some(start) = cx.optional(2)? {
        let start = cx.convert(start, DType::I64)?;
        let start = along(cx, start, 0, rank)?;
        index = cx.binary(BinaryFn::Add, index, start)?;
    }
    if circular {
        let size = cx.extent_product(cache, &[axis])?;
        let size = cx.convert(size, DType::I64)?;
        index = cx.binary(BinaryFn::Mod, index, size)?;
    }
    let index = cx.broadcast(index, dims)?;
    let combine = ScatterKind::Assign;
    let y = cx.op(ScatterElements { axis, combine }, &[cache, index, update])?;
    cx.output(0, y);
    Ok(())
}

/// Zeros with the elements of `values` at flat `places`, in a shape.
fn placed(
    cx: &mut NodeCx<'_, '_>,
    values: ValueId,
    places: ValueId,
    shape: Vec<Dim>,
) -> NodeResult<ValueId> {
    let count = shape.iter().try_fold(Dim::Const(1), |n, d| n.mul(d));
    let count = count.ok_or_else(bad_extent)?;
    let elements = cx.ty(values).shape.elements().ok_or_else(bad_extent)?;
    let dtype = cx.dtype(values);
    let zeros = cx.full(dtype, vec![count], Scalar::zero(dtype))?;
    let values = cx.reshape(values, vec![elements.clone()])?;
    let places = cx.reshape(places, vec![elements])?;
    let op = ScatterElements {
        axis: 0,
        combine: ScatterKind::Assign,
    };
    let y = cx.op(op, &[zeros, places, values])?;
    cx.reshape(y, shape)
}

/// The indices are positions in the whole result that kernel, strides and pads imply; where another
/// shape is asked for, that result is its first part.
fn max_unpool(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 3)?;
    let (x, places) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.dims(x);
    let Some(kernel) = cx.ints("kernel_shape")? else {
        return Err(NodeError::invalid("`kernel_shape` is missing"));
    };
    let count = kernel.len();
    let strides = cx.ints("strides")?.unwrap_or_else(|| vec![1; count]);
    let pads = cx.ints("pads")?.unwrap_or_else(|| vec![0; 2 * count]);
    if dims.len() != count + 2 || strides.len() != count || pads.len() != 2 * count {
        return Err(NodeError::invalid("the attributes do not fit the operand"));
    }
    let mut shape = dims[..2].to_vec();
    for axis in 0..count {
        let covered = dims[axis + 2].offset(-1).and_then(|d| {
            let stride = Dim::Const(u64::try_from(strides[axis]).ok()?);
            let extra = kernel[axis]
                .checked_sub(pads[axis])?
                .checked_sub(pads[count + axis])?;
            d.mul(&stride)?.offset(extra)
        });
        shape.push(covered.ok_or_else(bad_extent)?);
    }
    let mut y = placed(cx, x, places, shape.clone())?;
    if cx.has(2) {
        let wanted = cx.require_extents(2, "the output shape")?;
        let mut high = vec![];
        for (wanted, inferred) in wanted.iter().zip(&shape) {
            let more = wanted.to_poly().zip(inferred.to_poly());
            let more = more.and_then(|(a, b)| a.sub(&b)?.as_constant());
            let Some(more) = more else {
                return Err(NodeError::unsupported("a symbolic difference of shapes")
                    .help("give the dimensions fixed extents: --dim NAME=N"));
            };
            high.push(more);
        }
        if high.len() != shape.len() {
            return Err(NodeError::invalid("the output shape has another rank"));
        }
        if high.iter().any(|more| *more != 0) {
            let dtype = cx.dtype(x);
            let zero = cx.full(dtype, vec![], Scalar::zero(dtype))?;
            let low = vec![0; high.len()];
            let interior = vec![0; high.len()];
            y = cx.op(
                Pad {
                    low,
                    high,
                    interior,
                },
                &[y, zero],
            )?;
        }
    }
    cx.output(0, y);
    Ok(())
}
