//! Operators that rearrange, repeat, pad and fold tensors.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{BitCast, ConvTranspose, Gather, Pad, Slice};
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::super::value::onnx_dtype;
use super::shared::{const_extent, limited, numbers};

pub(super) const OPS: &[OpEntry] = &[
    onnx("DepthToSpace", &[(1, depth_to_space)]),
    onnx("SpaceToDepth", &[(1, space_to_depth)]),
    onnx("Tile", &[(1, tile)]),
    onnx("Pad", &[(1, pad)]),
    onnx("CenterCropPad", &[(18, center_crop_pad)]),
    onnx("Col2Im", &[(18, col2im)]),
    onnx("BitCast", &[(26, bit_cast)]),
];

/// The four extents of an image, the block size, and whether depth is the slowest part of a block.
fn blocks(cx: &mut NodeCx<'_, '_>, x: ValueId) -> NodeResult<([Dim; 4], u64, bool)> {
    let size = cx.int_required("blocksize")?;
    let size = u64::try_from(size)
        .ok()
        .filter(|s| (1..1 << 16).contains(s));
    let size = size.ok_or_else(|| NodeError::invalid("`blocksize` is not positive"))?;
    let depth_first = match cx.string("mode", "DCR")?.as_str() {
        "DCR" => false,
        "CRD" => true,
        other => return Err(NodeError::invalid(format!("mode `{other}`"))),
    };
    let dims: Result<[Dim; 4], _> = cx.dims(x).try_into();
    let dims = dims.map_err(|_| NodeError::invalid(format!("{} is no image", cx.ty(x))))?;
    Ok((dims, size, depth_first))
}

/// The extent divided by a number that divides it.
fn divided(extent: &Dim, by: u64) -> NodeResult<Dim> {
    let quotient = extent.floor_div(&Dim::Const(by));
    let back = quotient.as_ref().and_then(|q| q.mul(&Dim::Const(by)));
    if extent.as_const().is_some() && back.as_ref() != Some(extent) {
        let message = format!("an extent of {extent} is not a multiple of {by}");
        return Err(NodeError::invalid(message));
    }
    quotient.ok_or_else(bad_extent)
}

fn multiplied(extent: &Dim, by: u64) -> NodeResult<Dim> {
    extent.mul(&Dim::Const(by)).ok_or_else(bad_extent)
}

fn depth_to_space(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let ([n, c, h, w], size, depth_first) = blocks(cx, x)?;
    let depth = divided(&c, size * size)?;
    let block = Dim::Const(size);
    let (split, perm) = if depth_first {
        let split = [&n, &depth, &block, &block, &h, &w];
        (split, [0, 1, 4, 2, 5, 3])
    } else {
        let split = [&n, &block, &block, &depth, &h, &w];
        (split, [0, 3, 4, 1, 5, 2])
    };
    let split = split.into_iter().cloned().collect();
    let y = cx.reshape(x, split)?;
    let y = cx.transpose(y, &perm)?;
    let shape = vec![n, depth, multiplied(&h, size)?, multiplied(&w, size)?];
    let y = cx.reshape(y, shape)?;
    cx.output(0, y);
    Ok(())
}

fn space_to_depth(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let x = cx.input(0)?;
    let ([n, c, h, w], size, depth_first) = blocks(cx, x)?;
    let (rows, columns) = (divided(&h, size)?, divided(&w, size)?);
    let block = Dim::Const(size);
    let split = [&n, &c, &rows, &block, &columns, &block];
    let split = split.into_iter().cloned().collect();
    let y = cx.reshape(x, split)?;
    let perm = match depth_first {
        true => [0, 1, 3, 5, 2, 4],
        false => [0, 3, 5, 1, 2, 4],
    };
    let y = cx.transpose(y, &perm)?;
    let depth = multiplied(&c, size * size)?;
    let y = cx.reshape(y, vec![n, depth, rows, columns])?;
    cx.output(0, y);
    Ok(())
}

/// Every dim repeated as a whole: a new dim before it is broadcast and merged.
fn tile(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let x = cx.input(0)?;
    let dims = cx.dims(x);
    let repeats = if cx.version < 6 {
        cx.expect_inputs(3, 3)?;
        let (tiles, axis) = (
            cx.require_ints(1, "tiles")?,
            cx.require_ints(2, "the axis")?,
        );
        let ([tiles], [axis]) = (&tiles[..], &axis[..]) else {
            return Err(NodeError::invalid("tiles and axis are not one number each"));
        };
        let mut repeats = vec![Dim::Const(1); dims.len()];
        let tiles = u64::try_from(*tiles).map_err(|_| bad_extent())?;
        repeats[cx.axis(*axis, dims.len())?] = Dim::Const(tiles);
        repeats
    } else {
        cx.expect_inputs(2, 2)?;
        cx.require_extents(1, "the repeats")?
    };
    if repeats.len() != dims.len() {
        let message = format!("{} repeats for {}", repeats.len(), cx.ty(x));
        return Err(NodeError::invalid(message));
    }
    let (mut split, mut repeated, mut merged) = (vec![], vec![], vec![]);
    for (extent, count) in dims.iter().zip(&repeats) {
        if !count.is(1) {
            split.push(Dim::Const(1));
            repeated.push(count.clone());
        }
        split.push(extent.clone());
        repeated.push(extent.clone());
        merged.push(extent.mul(count).ok_or_else(bad_extent)?);
    }
    let y = cx.reshape(x, split)?;
    let y = cx.broadcast(y, repeated)?;
    let y = cx.reshape(y, merged)?;
    cx.output(0, y);
    Ok(())
}

/// Elements before and after each dim, by the attributes or operands of all versions.
fn pads(cx: &mut NodeCx<'_, '_>, rank: usize) -> NodeResult<Vec<(i64, i64)>> {
    let mut axes: Vec<usize> = (0..rank).collect();
    let given = match cx.version {
        1 => cx.ints("paddings")?,
        ..11 => cx.ints("pads")?,
        _ => {
            if let Some(chosen) = cx.optional_ints(3, "the axes")? {
                axes = cx.axes(&chosen, rank)?;
            }
            Some(cx.require_ints(1, "the pads")?)
        }
    };
    let given = given.ok_or_else(|| NodeError::invalid("`pads` is missing"))?;
    if given.len() != 2 * axes.len() {
        let message = format!("{} pads for {} dims", given.len(), axes.len());
        return Err(NodeError::invalid(message));
    }
    if given.iter().any(|pad| !(-1 << 40..=1 << 40).contains(pad)) {
        return Err(bad_extent());
    }
    let (low, high) = given.split_at(axes.len());
    let mut pads = vec![(0, 0); rank];
    for (index, axis) in axes.into_iter().enumerate() {
        pads[axis] = (low[index], high[index]);
    }
    Ok(pads)
}

fn pad(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let x = cx.input(0)?;
    let (rank, dtype) = (cx.rank(x), cx.dtype(x));
    let mode = cx.string("mode", "constant")?;
    let pads = pads(cx, rank)?;
    let value = if cx.version < 11 {
        let value = cx.float("value", 0.0)?;
        cx.scalar(dtype, value)?
    } else {
        match cx.optional(2)? {
            Some(value) => cx.reshape_to(value, &[])?,
            None => cx.full(dtype, vec![], Scalar::zero(dtype))?,
        }
    };
    let mut y = x;
    match mode.as_str() {
        "constant" => {
            let op = Pad {
                low: pads.iter().map(|p| p.0).collect(),
                high: pads.iter().map(|p| p.1).collect(),
                interior: vec![0; rank],
            };
            y = cx.op(op, &[x, value])?;
        }
        "edge" | "reflect" | "wrap" => {
            for (axis, pads) in pads.into_iter().enumerate() {
                y = continued(cx, y, axis, pads, &mode)?;
            }
        }
        other => return Err(NodeError::invalid(format!("mode `{other}`"))),
    }
    cx.output(0, y);
    Ok(())
}

/// A dim continued by its own elements.
fn continued(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    axis: usize,
    (low, high): (i64, i64),
    mode: &str,
) -> NodeResult<ValueId> {
    if (low, high) == (0, 0) {
        return Ok(x);
    }
    let Some(extent) = cx.dims(x)[axis].as_const() else {
        return continued_symbolic(cx, x, axis, (low, high), mode);
    };
    let last = i64::try_from(extent).map_err(|_| bad_extent())? - 1;
    if last < 0 {
        return Err(NodeError::invalid(format!(
            "dim {axis} has no elements to continue it by"
        )));
    }
    let index = |i: i64| match mode {
        "edge" => i.clamp(0, last),
        "wrap" => i.rem_euclid(last + 1),
        _ if last == 0 => 0,
        _ => {
            let phase = i.rem_euclid(2 * last);
            phase.min(2 * last - phase)
        }
    };
    let end = last.saturating_add(1).saturating_add(high);
    let count = end
        .checked_add(low)
        .and_then(|count| u64::try_from(count).ok());
    limited([count.ok_or_else(bad_extent)?])?;
    let places: Vec<i64> = (-low..end).map(index).collect();
    let places = cx.ints_constant(&places);
    cx.op(Gather { axis }, &[x, places])
}

/// The same for a dim whose extent is known at run time only: no pad may be longer than the dim.
fn continued_symbolic(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    axis: usize,
    (low, high): (i64, i64),
    mode: &str,
) -> NodeResult<ValueId> {
    let (Ok(before), Ok(after)) = (u64::try_from(low), u64::try_from(high)) else {
        return Err(NodeError::unsupported("negative pads of a symbolic dim")
            .help("give the dimension a fixed extent: --dim NAME=N"));
    };
    let ty = cx.ty(x);
    let extent = &ty.shape[axis];
    // First element of each part, counted from the front or (negative) from the end, and step.
    let (front, back, step) = match mode {
        "edge" => (0, -1, 1),
        "wrap" => (-low, 0, 1),
        _ => (low, -2, -1),
    };
    let mut parts = vec![];
    for (count, start) in [(before, front), (after, back)] {
        let from = if start < 0 {
            extent.offset(start)
        } else {
            Some(Dim::Const(start as u64))
        };
        let from = from.ok_or_else(bad_extent)?;
        let size = if mode == "edge" { 1 } else { count };
        let mut slice = Slice::along(&ty, axis, from, Dim::Const(size));
        slice.step[axis] = step;
        let part = cx.op(slice, &[x])?;
        let mut shape = cx.dims(part);
        shape[axis] = Dim::Const(count);
        parts.push(cx.broadcast(part, shape)?);
    }
    cx.concat(&[parts[0], x, parts[1]], axis)
}

/// Crops or pads evenly on both sides, with the odd element at the end.
fn center_crop_pad(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let x = cx.input(0)?;
    let (rank, dtype) = (cx.rank(x), cx.dtype(x));
    let wanted = cx.require_ints(1, "the shape")?;
    let axes = match cx.ints("axes")? {
        Some(axes) => cx.axes(&axes, rank)?,
        None => (0..rank).collect(),
    };
    if axes.len() != wanted.len() {
        let message = format!("{} extents for {} dims", wanted.len(), axes.len());
        return Err(NodeError::invalid(message));
    }
    let (mut low, mut high) = (vec![0; rank], vec![0; rank]);
    for (axis, wanted) in axes.into_iter().zip(wanted) {
        let extent = const_extent(cx, x, axis)?;
        let extent = i64::try_from(extent).map_err(|_| bad_extent())?;
        // Truncation makes the first part the smaller one, whichever sign it has.
        let more = wanted
            .checked_sub(extent)
            .filter(|_| wanted >= 0)
            .ok_or_else(bad_extent)?;
        low[axis] = more / 2;
        high[axis] = more - more / 2;
    }
    let zero = cx.full(dtype, vec![], Scalar::zero(dtype))?;
    let interior = vec![0; rank];
    let y = cx.op(
        Pad {
            low,
            high,
            interior,
        },
        &[x, zero],
    )?;
    cx.output(0, y);
    Ok(())
}

/// Sums columns into the image they were taken from: a transposed convolution of every channel in
/// which element k of a block has the kernel that is one at k.
fn col2im(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let x = cx.input(0)?;
    let dtype = cx.dtype(x);
    let image = cx.require_ints(1, "the image shape")?;
    let block = cx.require_ints(2, "the block shape")?;
    let count = image.len();
    let ones = || vec![1; count];
    let strides = cx.ints("strides")?.unwrap_or_else(ones);
    let dilations = cx.ints("dilations")?.unwrap_or_else(ones);
    let pads = cx.ints("pads")?.unwrap_or_else(|| vec![0; 2 * count]);
    let lists = [&image, &block, &strides, &dilations];
    let small = |list: &Vec<i64>| list.iter().all(|v| (1..1 << 31).contains(v));
    let fits = lists.iter().all(|list| list.len() == count && small(list));
    let dims = cx.dims(x);
    let [n, columns, _] = &dims[..] else {
        return Err(NodeError::invalid(format!(
            "{} has not three dims",
            cx.ty(x)
        )));
    };
    if !fits || pads.len() != 2 * count || pads.iter().any(|p| !(0..1 << 31).contains(p)) {
        return Err(NodeError::invalid(
            "the attributes do not fit the image shape",
        ));
    }
    let elements = block
        .iter()
        .try_fold(1i64, |n, b| n.checked_mul(*b))
        .ok_or_else(bad_extent)?;
    let elements = elements as u64;
    let channels = divided(columns, elements)?;
    let Some(channels) = channels.as_const() else {
        return Err(NodeError::unsupported("a symbolic number of channels")
            .help("give the dimension a fixed extent: --dim NAME=N"));
    };
    if elements > 1 << 12 {
        return Err(NodeError::unsupported(format!(
            "blocks of {elements} elements"
        )));
    }
    let mut shape = vec![n.clone(), columns.clone()];
    for axis in 0..count {
        let reach = dilations[axis] * (block[axis] - 1) + 1;
        let room = image[axis] + pads[axis] + pads[count + axis] - reach;
        let blocks = u64::try_from(room.div_euclid(strides[axis]) + 1).map_err(|_| bad_extent())?;
        shape.push(Dim::Const(blocks));
    }
    let dy = cx.reshape(x, shape)?;
    // One at (k, k), the same for every channel.
    let unit = (0..elements * elements).map(|i| f64::from(i % (elements + 1) == 0));
    let unit = numbers(cx, dtype, &[1, elements, elements], unit);
    let kernels = [channels, elements, elements].map(Dim::Const).to_vec();
    let kernels = cx.broadcast(unit, kernels)?;
    let mut kernel_shape = vec![channels * elements, 1];
    kernel_shape.extend(block.iter().map(|b| *b as u64));
    let kernels = cx.reshape_to(kernels, &kernel_shape)?;
    let unsigned = |list: &[i64]| list.iter().map(|v| *v as u64).collect::<Vec<u64>>();
    let op = ConvTranspose {
        stride: unsigned(&strides),
        pad: (0..count).map(|d| (pads[d], pads[count + d])).collect(),
        dilation: unsigned(&dilations),
        groups: channels,
        size: unsigned(&image).into_iter().map(Dim::Const).collect(),
    };
    let y = cx.op(op, &[dy, kernels])?;
    cx.output(0, y);
    Ok(())
}

fn bit_cast(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 1)?;
    let to = i32::try_from(cx.int_required("to")?).unwrap_or(-1);
    let to = onnx_dtype(to)?;
    let x = cx.input(0)?;
    let from = cx.dtype(x);
    let y = match (from, to) {
        _ if from == to => x,
        // A truth value is stored as a byte of 0 or 1.
        (DType::Bool, DType::U8 | DType::I8) => cx.convert(x, to)?,
        (DType::U8 | DType::I8, DType::Bool) => cx.with_scalar(BinaryFn::Ne, x, 0.0)?,
        _ => cx.op(BitCast { to }, &[x])?,
    };
    cx.output(0, y);
    Ok(())
}
