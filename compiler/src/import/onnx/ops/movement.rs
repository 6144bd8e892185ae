//! Operators that move elements: shapes, slices, concatenation.

use dojoc_ir::dim::{Dim, Poly};
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Gather, Slice};

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::{dynamic_slice, slice_range};

pub(super) const OPS: &[OpEntry] = &[
    onnx("Reshape", &[(1, reshape)]),
    onnx("Flatten", &[(1, flatten)]),
    onnx("Squeeze", &[(1, squeeze)]),
    onnx("Unsqueeze", &[(1, unsqueeze)]),
    onnx("Transpose", &[(1, transpose)]),
    onnx("Concat", &[(1, concat)]),
    onnx("Split", &[(1, split)]),
    onnx("Slice", &[(1, slice)]),
    onnx("Expand", &[(8, expand)]),
    onnx("Gather", &[(1, gather)]),
];

/// A shape in which 0 copies the extent of the operand and one -1 stands for what remains.
fn reshape(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.ignore_attrs(&["consumed_inputs"]);
    let (target, keep_zero) = if cx.version < 5 {
        cx.expect_inputs(1, 1)?;
        let target = cx.ints("shape")?.unwrap_or_default();
        (target.into_iter().map(Poly::constant).collect(), false)
    } else {
        cx.expect_inputs(2, 2)?;
        let allow_zero = cx.flag("allowzero", false)?;
        (cx.require_dims(1, "the shape")?, allow_zero)
    };
    let x = cx.input(0)?;
    let from = cx.dims(x);
    let mut shape = vec![];
    let mut inferred = None;
    for (axis, extent) in target.into_iter().enumerate() {
        match extent.as_constant() {
            Some(-1) if inferred.is_some() => {
                return Err(NodeError::invalid("the shape has -1 twice"));
            }
            Some(-1) => {
                inferred = Some(axis);
                shape.push(Dim::Const(1));
            }
            Some(0) if !keep_zero => match from.get(axis) {
                Some(dim) => shape.push(dim.clone()),
                None => {
                    let message =
                        format!("entry {axis} of the shape is 0, but the operand has no such dim");
                    return Err(NodeError::invalid(message));
                }
            },
            _ => shape.push(Dim::from_poly(extent).ok_or_else(bad_extent)?),
        }
    }
    if let Some(axis) = inferred {
        shape[axis] = remaining(&from, &shape)?;
    }
    let y = cx.reshape(x, shape)?;
    cx.output(0, y);
    Ok(())
}

/// The extent that `shape`, which has a 1 there, lacks to have as many elements as `from`.
fn remaining(from: &[Dim], shape: &[Dim]) -> NodeResult<Dim> {
    let mut rest = shape.to_vec();
    // What is on both sides cancels, whatever it is.
    let mut left: Vec<Dim> = vec![];
    for dim in from {
        match rest.iter().position(|d| d == dim && !d.is(0)) {
            Some(position) => drop(rest.remove(position)),
            None => left.push(dim.clone()),
        }
    }
    let product = |dims: &[Dim]| {
        let product = dims.iter().try_fold(Dim::Const(1), |n, d| n.mul(d));
        product.ok_or_else(bad_extent)
    };
    let (total, known) = (product(&left)?, product(&rest)?);
    match (total.as_const(), known.as_const()) {
        (Some(0), Some(0)) => Ok(Dim::Const(0)),
        (Some(total), Some(known)) if known == 0 || total % known != 0 => Err(NodeError::invalid(
            format!("{total} elements do not divide by the {known} of the other dims"),
        )),
        _ => total.floor_div(&known).ok_or_else(bad_extent),
    }
}

fn flatten(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let axis = cx.int("axis", 1)?;
    let x = cx.input(0)?;
    let dims = cx.dims(x);
    // One behind the last dim is allowed too.
    let axis = match axis {
        axis if axis == dims.len() as i64 => dims.len(),
        axis => cx.axis(axis, dims.len())?,
    };
    let product = |dims: &[Dim]| {
        let product = dims.iter().try_fold(Dim::Const(1), |n, d| n.mul(d));
        product.ok_or_else(bad_extent)
    };
    let y = cx.reshape(x, vec![product(&dims[..axis])?, product(&dims[axis..])?])?;
    cx.output(0, y);
    Ok(())
}

/// Axes are an attribute before operator set 13, an operand after.
fn axes(cx: &mut NodeCx<'_, '_>) -> NodeResult<Option<Vec<i64>>> {
    if cx.version < 13 {
        cx.expect_inputs(1, 1)?;
        cx.ints("axes")
    } else {
        cx.expect_inputs(1, 2)?;
        cx.optional_ints(1, "the axes")
    }
}

fn squeeze(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let axes = axes(cx)?;
    let x = cx.input(0)?;
    let dims = cx.dims(x);
    let axes = match axes {
        Some(axes) => cx.axes(&axes, dims.len())?,
        None => (0..dims.len()).filter(|n| dims[*n].is(1)).collect(),
    };
    let y = cx.squeeze(x, &axes)?;
    cx.output(0, y);
    Ok(())
}

fn unsqueeze(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let axes = axes(cx)?.ok_or_else(|| NodeError::invalid("there are no axes"))?;
    let x = cx.input(0)?;
    let mut axes = cx.axes(&axes, cx.rank(x).saturating_add(axes.len()))?;
    axes.sort_unstable();
    let y = cx.unsqueeze(x, &axes)?;
    cx.output(0, y);
    Ok(())
}

fn transpose(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let perm = match cx.ints("perm")? {
        Some(perm) => cx.axes(&perm, rank)?,
        None => (0..rank).rev().collect(),
    };
    if perm.len() != rank {
        let message = format!("`perm` has {} entries for rank {rank}", perm.len());
        return Err(NodeError::invalid(message));
    }
    let y = cx.transpose(x, &perm)?;
    cx.output(0, y);
    Ok(())
}

fn concat(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let axis = match cx.version {
        ..4 => cx.int("axis", 1)?,
        _ => cx.int_required("axis")?,
    };
    let parts = cx.all_inputs()?;
    let Some(first) = parts.first() else {
        return Err(NodeError::invalid("expected at least one operand"));
    };
    let axis = cx.axis(axis, cx.rank(*first))?;
    let y = cx.concat(&parts, axis)?;
    cx.output(0, y);
    Ok(())
}

/// Sizes are an attribute, an operand from operator set 13 on, or equal but for the last.
fn split(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(
        1,
        if cx.version < 13 && cx.version != 1 {
            1
        } else {
            2
        },
    )?;
    let axis = cx.int("axis", 0)?;
    let given = match cx.ints("split")? {
        Some(sizes) => Some(sizes),
        None => cx.optional_ints(1, "the sizes")?,
    };
    let count = match cx.int_opt("num_outputs")? {
        Some(count) => count,
        None => cx.output_count() as i64,
    };
    if count != cx.output_count() as i64 || count == 0 {
        return Err(NodeError::invalid(format!(
            "{count} parts for {} results",
            cx.output_count()
        )));
    }
    let x = cx.input(0)?;
    let ty = cx.ty(x);
    let axis = cx.axis(axis, ty.rank())?;
    let extent = ty.shape[axis].clone();
    let sizes: Vec<Dim> = match given {
        Some(sizes) if sizes.len() as i64 != count => {
            return Err(NodeError::invalid(format!(
                "{} sizes for {count} results",
                sizes.len()
            )));
        }
        Some(sizes) => {
            let sizes = sizes.iter().map(|s| u64::try_from(*s).map(Dim::Const).ok());
            sizes.collect::<Option<_>>().ok_or_else(bad_extent)?
        }
        None => match extent.as_const() {
            Some(extent) => {
                let (count, each) = (count as u64, extent.div_ceil(count as u64));
                let size = |n: u64| extent.saturating_sub(n.saturating_mul(each)).min(each);
                (0..count).map(|n| Dim::Const(size(n))).collect()
            }
            None => {
                let each = extent
                    .floor_div(&Dim::Const(count as u64))
                    .ok_or_else(bad_extent)?;
                if each.mul(&Dim::Const(count as u64)) != Some(extent.clone()) {
                    let message = format!("a dim of extent {extent} in {count} parts");
                    return Err(NodeError::unsupported(message).help("give the sizes of the parts"));
                }
                vec![each; count as usize]
            }
        },
    };
    let mut start = Dim::Const(0);
    for (index, size) in sizes.into_iter().enumerate() {
        let next = start.add(&size).ok_or_else(bad_extent)?;
        let part = cx.op(Slice::along(&ty, axis, start, size), &[x])?;
        cx.output(index, part);
        start = next;
    }
    if start != extent {
        let message = format!("the parts have {start} elements of {extent}");
        return Err(NodeError::invalid(message));
    }
    Ok(())
}

/// What a Slice takes of one dim.
struct Cut {
    axis: i64,
    start: Poly,
    end: Poly,
    step: i64,
}

fn cuts(cx: &mut NodeCx<'_, '_>) -> NodeResult<Vec<Cut>> {
    let constants =
        |list: Vec<i64>| -> Vec<Poly> { list.into_iter().map(Poly::constant).collect() };
    let (starts, ends, axes, steps) = if cx.version < 10 {
        cx.expect_inputs(1, 1)?;
        let starts = constants(cx.ints("starts")?.unwrap_or_default());
        let ends = constants(cx.ints("ends")?.unwrap_or_default());
        (starts, ends, cx.ints("axes")?, None)
    } else {
        cx.expect_inputs(3, 5)?;
        let starts = cx.require_dims(1, "the starts")?;
        let ends = cx.require_dims(2, "the ends")?;
        let axes = cx.optional_ints(3, "the axes")?;
        (starts, ends, axes, cx.optional_ints(4, "the steps")?)
    };
    let count = starts.len();
    let axes = axes.unwrap_or_else(|| (0..count as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; count]);
    if ends.len() != count || axes.len() != count || steps.len() != count {
        return Err(NodeError::invalid(
            "starts, ends, axes and steps differ in length",
        ));
    }
    let bounds = starts
        .into_iter()
        .zip(ends)
        .zip(axes.into_iter().zip(steps));
    Ok(bounds
        .map(|((start, end), (axis, step))| Cut {
            axis,
            start,
            end,
            step,
        })
        .collect())
}

fn slice(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let unknown = |index| cx.has(index) && cx.shape_values(index).is_none();
    if cx.version >= 10 && (unknown(1) || unknown(2)) {
        return dynamic_slice::slice(cx);
    }
    let cuts = cuts(cx)?;
    let x = cx.input(0)?;
    let ty = cx.ty(x);
    let mut op = Slice {
        start: vec![Dim::Const(0); ty.rank()],
        size: ty.dims().to_vec(),
        step: vec![1; ty.rank()],
    };
    let axes: Vec<i64> = cuts.iter().map(|cut| cut.axis).collect();
    for (axis, cut) in cx.axes(&axes, ty.rank())?.into_iter().zip(&cuts) {
        let (start, size) = cut_of(cut, &ty.shape[axis])?;
        op.start[axis] = start;
        op.size[axis] = size;
        op.step[axis] = cut.step;
    }
    let y = match op.size == ty.dims() && op.step.iter().all(|s| *s == 1) {
        true => x,
        false => cx.op(op, &[x])?,
    };
    cx.output(0, y);
    Ok(())
}

/// First element and number of elements, clamped as ONNX clamps.
fn cut_of(cut: &Cut, extent: &Dim) -> NodeResult<(Dim, Dim)> {
    let zero_step = || NodeError::invalid("a step is zero");
    if let (Some(start), Some(end), Some(extent)) = (
        cut.start.as_constant(),
        cut.end.as_constant(),
        extent.as_const(),
    ) {
        let (start, size) = slice_range(start, end, cut.step, extent).ok_or_else(zero_step)?;
        let start = u64::try_from(start).map_err(|_| bad_extent())?;
        return Ok((Dim::Const(start), Dim::Const(size)));
    }
    let extent = extent.to_poly().ok_or_else(bad_extent)?;
    let unsupported = || {
        NodeError::unsupported(format!(
            "elements {} to {} by {} of a dim of extent {extent}",
            cut.start, cut.end, cut.step
        ))
    };
    if cut.step == -1
        && cut.start.as_constant() == Some(-1)
        && cut.end.bounds().1 < -i64::from(i32::MAX)
    {
        let last = extent
            .sub(&Poly::constant(1))
            .and_then(Dim::from_poly)
            .ok_or_else(bad_extent)?;
        return Ok((last, Dim::from_poly(extent).ok_or_else(bad_extent)?));
    }
    if cut.step < 1 {
        return Err(if cut.step == 0 {
            zero_step()
        } else {
            unsupported()
        });
    }
    let clamp = |x: &Poly| -> NodeResult<Poly> {
        let (low, high) = x.bounds();
        let x = if high < 0 {
            x.add(&extent).ok_or_else(bad_extent)?
        } else if low >= 0 {
            x.clone()
        } else {
            return Err(unsupported());
        };
        let below = x.smaller(&extent);
        // What is at least zero for all extents needs no maximum.
        Ok(if below.bounds().0 >= 0 {
            below
        } else {
            below.larger(&Poly::constant(0))
        })
    };
    let (start, end) = (clamp(&cut.start)?, clamp(&cut.end)?);
    let span = end.sub(&start).ok_or_else(bad_extent)?;
    let span = if span.bounds().0 >= 0 {
        span
    } else {
        span.larger(&Poly::constant(0))
    };
    let size = span
        .add(&Poly::constant(cut.step - 1))
        .and_then(|s| s.floor_div(&Poly::constant(cut.step)))
        .and_then(Dim::from_poly)
        .ok_or_else(bad_extent)?;
    Ok((Dim::from_poly(start).ok_or_else(bad_extent)?, size))
}

/// Broadcasts both ways: an extent of 1 in the given shape keeps that of the operand.
fn expand(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let target = cx.require_extents(1, "the shape")?;
    let x = cx.input(0)?;
    let y = expand_to(cx, x, target)?;
    cx.output(0, y);
    Ok(())
}

fn expand_to(cx: &mut NodeCx<'_, '_>, x: ValueId, mut target: Vec<Dim>) -> NodeResult<ValueId> {
    let dims = cx.dims(x);
    while target.len() < dims.len() {
        target.insert(0, Dim::Const(1));
    }
    let skip = target.len() - dims.len();
    for (dim, out) in dims.iter().zip(&mut target[skip..]) {
        if out.is(1) {
            *out = dim.clone();
        } else if !dim.is(1) && dim != out {
            return Err(NodeError::invalid(format!(
                "a dim of extent {dim} does not broadcast to {out}"
            )));
        }
    }
    cx.broadcast(x, target)
}

fn gather(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let axis = cx.int("axis", 0)?;
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.axis(axis, cx.rank(x))?;
    let y = cx.op(Gather { axis }, &[x, indices])?;
    cx.output(0, y);
    Ok(())
}
