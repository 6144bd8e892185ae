//! Operators that choose elements by their values or positions.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{
    Compress, Cumulative, Gather, GatherElements, NonMaxSuppression, NonZero, ReduceKind, TopK,
    Unique,
};
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::types::DType;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::super::value::onnx_dtype;
use super::shared::along;

pub(super) const OPS: &[OpEntry] = &[
    onnx("TopK", &[(1, top_k)]),
    onnx("CumSum", &[(11, |cx| cumulative(cx, ReduceKind::Sum))]),
    onnx("CumProd", &[(26, |cx| cumulative(cx, ReduceKind::Prod))]),
    onnx("OneHot", &[(9, one_hot)]),
    onnx("Trilu", &[(14, trilu)]),
    onnx("EyeLike", &[(9, eye_like)]),
    onnx("ReverseSequence", &[(10, reverse_sequence)]),
    onnx("NonZero", &[(9, non_zero)]),
    onnx("Compress", &[(9, compress)]),
    onnx("Unique", &[(11, unique)]),
    onnx("NonMaxSuppression", &[(10, non_max_suppression)]),
];

/// The number of elements of a tensor at most.
fn most_elements(cx: &NodeCx<'_, '_>, x: ValueId) -> Option<u64> {
    cx.ty(x).shape.max_elements()
}

/// All elements in one dim.
fn flat(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<ValueId> {
    let count = cx.ty(x).shape.elements();
    let count = count.ok_or_else(super::super::build::bad_extent)?;
    cx.reshape(x, vec![count])
}

fn top_k(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let x = cx.input(0)?;
    let axis = cx.int("axis", -1)?;
    let axis = cx.axis(axis, cx.rank(x))?;
    let k = if cx.version < 10 {
        cx.expect_inputs(1, 1)?;
        let k = cx.int_required("k")?;
        Dim::Const(u64::try_from(k).map_err(|_| NodeError::invalid(format!("k is {k}")))?)
    } else {
        cx.expect_inputs(2, 2)?;
        let k = cx.require_extents(1, "k")?;
        match &k[..] {
            [k] => k.clone(),
            _ => return Err(NodeError::invalid("k is not one number")),
        }
    };
    let largest = cx.flag("largest", true)?;
    // Without `sorted` any order is right, this one too.
    cx.ignore_attrs(&["sorted"]);
    let results = cx.op_results(TopK { axis, k, largest }, &[x])?;
    for (index, value) in results.into_iter().enumerate() {
        cx.output(index, value);
    }
    Ok(())
}

fn cumulative(cx: &mut NodeCx<'_, '_>, kind: ReduceKind) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let x = cx.input(0)?;
    let axis = match cx.require_ints(1, "the axis")?[..] {
        [axis] => cx.axis(axis, cx.rank(x))?,
        _ => return Err(NodeError::invalid("the axis is not one number")),
    };
    let exclusive = cx.flag("exclusive", false)?;
    let reverse = cx.flag("reverse", false)?;
    let op = Cumulative {
        kind,
        axis,
        exclusive,
        reverse,
    };
    let y = cx.op(op, &[x])?;
    cx.output(0, y);
    Ok(())
}

/// Indices from `-depth` to `depth - 1` select an entry, others none.
fn one_hot(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let indices = cx.input(0)?;
    let indices = cx.convert(indices, DType::I64)?;
    let depth = match cx.const_floats(1) {
        Some(depth) if depth.len() == 1 && depth[0] >= 0.0 => Dim::Const(depth[0] as u64),
        _ => match &cx.require_extents(1, "the depth")?[..] {
            [depth] => depth.clone(),
            _ => return Err(NodeError::invalid("the depth is not one number")),
        },
    };
    let rank = cx.rank(indices) + 1;
    let axis = cx.int("axis", -1)?;
    let axis = cx.axis(axis, rank)?;
    let indices = cx.unsqueeze(indices, &[axis])?;
    let places = cx.iota(DType::I64, vec![depth.clone()], 0)?;
    let places = along(cx, places, axis, rank)?;
    let size = match depth.as_const() {
        Some(depth) => cx.scalar(DType::I64, depth as f64)?,
        None => cx.extent_product(places, &[axis])?,
    };
    let from_end = cx.binary(BinaryFn::Add, indices, size)?;
    let negative = cx.with_scalar(BinaryFn::Lt, indices, 0.0)?;
    let indices = cx.select(negative, from_end, indices)?;
    let here = cx.binary(BinaryFn::Eq, places, indices)?;
    let values = cx.input(2)?;
    let values = cx.reshape_to(values, &[2])?;
    let (off, on) = (cx.slice(values, 0, 0, 1)?, cx.slice(values, 0, 1, 1)?);
    let (off, on) = (cx.reshape_to(off, &[])?, cx.reshape_to(on, &[])?);
    let y = cx.select(here, on, off)?;
    cx.output(0, y);
    Ok(())
}

/// Column minus row for every element of matrices of these extents.
fn diagonals(cx: &mut NodeCx<'_, '_>, rows: Dim, columns: Dim) -> NodeResult<ValueId> {
    let row = cx.iota(DType::I64, vec![rows, Dim::Const(1)], 0)?;
    let column = cx.iota(DType::I64, vec![Dim::Const(1), columns], 1)?;
    cx.binary(BinaryFn::Sub, column, row)
}

fn trilu(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 2)?;
    let x = cx.input(0)?;
    let upper = cx.flag("upper", true)?;
    let dims = cx.dims(x);
    let [.., rows, columns] = &dims[..] else {
        return Err(NodeError::invalid(format!("{} is no matrix", cx.ty(x))));
    };
    let diagonal = diagonals(cx, rows.clone(), columns.clone())?;
    let k = match cx.optional(1)? {
        Some(k) => cx.reshape_to(k, &[])?,
        None => cx.scalar(DType::I64, 0.0)?,
    };
    let kept = match upper {
        true => cx.binary(BinaryFn::Ge, diagonal, k)?,
        false => cx.binary(BinaryFn::Le, diagonal, k)?,
    };
    let zero = cx.full(cx.dtype(x), vec![], Scalar::zero(cx.dtype(x)))?;
    let y = cx.select(kept, x, zero)?;
    cx.output(0, y);
    Ok(())
}

fn eye_like(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let ty = cx.required_type(0)?;
    let dtype = match cx.int_opt("dtype")? {
        Some(number) => onnx_dtype(i32::try_from(number).unwrap_or(-1))?,
        None => ty.dtype,
    };
    let k = cx.int("k", 0)?;
    let (rows, columns) = match ty.dims() {
        [extent] => (extent.clone(), extent.clone()),
        [rows, columns] => (rows.clone(), columns.clone()),
        _ => return Err(NodeError::invalid(format!("{ty} is no matrix"))),
    };
    let diagonal = diagonals(cx, rows, columns)?;
    let k = cx.scalar(DType::I64, k as f64)?;
    let ones = cx.binary(BinaryFn::Eq, diagonal, k)?;
    let y = cx.convert(ones, dtype)?;
    cx.output(0, y);
    Ok(())
}

/// The first elements of every sequence in reverse order, as many as the sequence is long.
fn reverse_sequence(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let (x, lengths) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x);
    let (batch, time) = (cx.int("batch_axis", 1)?, cx.int("time_axis", 0)?);
    let (batch, time) = (cx.axis(batch, rank)?, cx.axis(time, rank)?);
    if batch == time {
        return Err(NodeError::invalid("batch and time are the same dim"));
    }
    let dims = cx.dims(x);
    let lengths = cx.convert(lengths, DType::I64)?;
    let lengths = along(cx, lengths, batch, rank)?;
    let place = cx.iota(DType::I64, vec![dims[time].clone()], 0)?;
    let place = along(cx, place, time, rank)?;
    let last = cx.with_scalar(BinaryFn::Sub, lengths, 1.0)?;
    let mirrored = cx.binary(BinaryFn::Sub, last, place)?;
    let inside = cx.binary(BinaryFn::Lt, place, lengths)?;
    let index = cx.select(inside, mirrored, place)?;
    let index = cx.broadcast(index, dims)?;
    let y = cx.op(GatherElements { axis: time }, &[x, index])?;
    cx.output(0, y);
    Ok(())
}

fn non_zero(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    if let Some(tensor) = cx.const_of(x) {
        // Where the data are known, so is the extent.
        let count = tensor.scalars().filter(|v| v.to_bool()).count() as u64;
        let y = cx.op(
            NonZero {
                extent: Dim::Const(count),
            },
            &[x],
        )?;
        cx.output(0, y);
        return Ok(());
    }
    let extent = cx.data_extent(0, most_elements(cx, x))?;
    let y = cx.op(NonZero { extent }, &[x])?;
    cx.output(0, y);
    Ok(())
}

fn compress(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let mut x = cx.input(0)?;
    let axis = match cx.int_opt("axis")? {
        Some(axis) => cx.axis(axis, cx.rank(x))?,
        None => {
            x = flat(cx, x)?;
            0
        }
    };
    let cond = cx.input(1)?;
    if let Some(cond) = cx.const_of(cond) {
        let kept = (0i64..).zip(cond.scalars()).filter(|(_, v)| v.to_bool());
        let kept: Vec<i64> = kept.map(|(index, _)| index).collect();
        let index = cx.ints_constant(&kept);
        let y = cx.op(Gather { axis }, &[x, index])?;
        cx.output(0, y);
        return Ok(());
    }
    let along = cx.dims(x)[axis].max_extent();
    let most = most_elements(cx, cond).map_or(along, |n| n.min(along));
    let extent = cx.data_extent(0, Some(most))?;
    let y = cx.op(Compress { axis, extent }, &[x, cond])?;
    cx.output(0, y);
    Ok(())
}

fn unique(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let sorted = cx.flag("sorted", true)?;
    let axis = match cx.int_opt("axis")? {
        Some(axis) => Some(cx.axis(axis, cx.rank(x))?),
        None => None,
    };
    let most = match axis {
        Some(axis) => Some(cx.dims(x)[axis].max_extent()),
        None => most_elements(cx, x),
    };
    let extent = cx.data_extent(0, most)?;
    let op = Unique {
        axis,
        sorted,
        extent,
    };
    for (index, value) in cx.op_results(op, &[x])?.into_iter().enumerate() {
        cx.output(index, value);
    }
    Ok(())
}

fn non_max_suppression(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 5)?;
    let center_point = cx.flag("center_point_box", false)?;
    let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
    let mut natural = most_elements(cx, scores);
    // Without the operand nothing is selected.
    let most = cx.optional_ints(2, "the number of boxes").ok().flatten();
    if let (Some([most]), [batch, classes, _]) = (most.as_deref(), &cx.dims(scores)[..]) {
        let most = u64::try_from(*most).unwrap_or(0);
        let bound = batch.max_extent().checked_mul(classes.max_extent());
        let bound = bound.and_then(|pairs| pairs.checked_mul(most));
        natural = natural.min(bound).or(natural);
    }
    let mut args = vec![boxes, scores];
    let defaults = [
        (2, DType::I64, 0.0),
        (3, DType::F32, 0.0),
        (4, DType::F32, f64::NEG_INFINITY),
    ];
    for (operand, dtype, default) in defaults {
        args.push(match cx.optional(operand)? {
            Some(value) => cx.reshape_to(value, &[])?,
            None => cx.scalar(dtype, default)?,
        });
    }
    let extent = cx.data_extent(0, natural)?;
    let op = NonMaxSuppression {
        center_point,
        extent,
    };
    let y = cx.op(op, &args)?;
    cx.output(0, y);
    Ok(())
}
