//! Sampling on grids and in regions.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Dot, Gather, ReduceKind};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::conv::add_bias;
use super::sampling::{Beyond, Interpolation, Sampler};
use super::shared::{along, const_extent, limited, numbers, wide};
use super::window::{Windows, kernel_of};

pub(super) const OPS: &[OpEntry] = &[
    onnx("GridSample", &[(16, grid_sample)]),
    onnx("AffineGrid", &[(20, affine_grid)]),
    onnx("DeformConv", &[(19, deform_conv)]),
    onnx("RoiAlign", &[(10, roi_align)]),
];

/// The constant extents of all dims from the third on.
fn extents(cx: &NodeCx<'_, '_>, x: ValueId) -> NodeResult<Vec<u64>> {
    (2..cx.rank(x))
        .map(|axis| const_extent(cx, x, axis))
        .collect()
}

fn grid_sample(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let interpolation = match cx.string("mode", "linear")?.as_str() {
        "nearest" => Interpolation::Nearest,
        "linear" | "bilinear" => Interpolation::Linear,
        "cubic" | "bicubic" => Interpolation::Cubic,
        other => return Err(NodeError::invalid(format!("mode `{other}`"))),
    };
    let beyond = match cx.string("padding_mode", "zeros")?.as_str() {
        "zeros" => Beyond::Zeros,
        "border" => Beyond::Border,
        "reflection" => Beyond::Reflection,
        other => return Err(NodeError::invalid(format!("padding_mode `{other}`"))),
    };
    let sampler = Sampler {
        interpolation,
        beyond,
        align_corners: cx.flag("align_corners", false)?,
    };
    let extents = extents(cx, x)?;
    let (dims, places) = (cx.dims(x), cx.dims(grid));
    let count = extents.len();
    if count == 0 {
        return Err(NodeError::invalid(format!("{} is no image", cx.ty(x))));
    }
    if places.len() != count + 2 || !places[count + 1].is(count as u64) || places[0] != dims[0] {
        let message = format!("a grid {} for {}", cx.ty(grid), cx.ty(x));
        return Err(NodeError::invalid(message));
    }
    let points = places[1..=count]
        .iter()
        .try_fold(Dim::Const(1), |n, d| n.mul(d));
    let points = points.ok_or_else(bad_extent)?;
    let grid = cx.convert(grid, wide(cx.dtype(grid)))?;
    let mut positions = vec![];
    for (axis, extent) in extents.iter().enumerate() {
        // The grid names the last dim first.
        let position = cx.slice(grid, count + 1, (count - 1 - axis) as u64, 1)?;
        let position = cx.reshape(position, vec![dims[0].clone(), points.clone()])?;
        positions.push(sampler.denormalize(cx, position, *extent)?);
    }
    let y = sampler.sample(cx, x, &extents, &positions)?;
    let y = cx.transpose(y, &[0, 2, 1])?;
    let mut shape = dims[..2].to_vec();
    shape.extend_from_slice(&places[1..=count]);
    let y = cx.reshape(y, shape)?;
    cx.output(0, y);
    Ok(())
}

/// Centres of the elements of a dim, from -1 to 1.
fn centres(extent: u64, align_corners: bool) -> Vec<f64> {
    let count = extent as f64;
    let position = |n: u64| match align_corners {
        true if extent == 1 => 0.0,
        true => 2.0 * n as f64 / (count - 1.0) - 1.0,
        false => (2.0 * n as f64 + 1.0) / count - 1.0,
    };
    (0..extent).map(position).collect()
}

/// Positions `(.., y, x, 1)` of the elements of an image under an affine map.
fn affine_grid(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let theta = cx.input(0)?;
    let size = cx.require_ints(1, "the size")?;
    let align_corners = cx.flag("align_corners", false)?;
    let extents: Option<Vec<u64>> = size
        .iter()
        .skip(2)
        .map(|e| u64::try_from(*e).ok())
        .collect();
    let extents = extents.ok_or_else(bad_extent)?;
    let count = extents.len();
    let dims = cx.dims(theta);
    let fits = dims.len() == 3 && dims[1].is(count as u64) && dims[2].is(count as u64 + 1);
    if !fits || count == 0 {
        let message = format!("maps {} for the size {size:?}", cx.ty(theta));
        return Err(NodeError::invalid(message));
    }
    let points = limited(extents.iter().copied())?;
    let axes: Vec<Vec<f64>> = extents.iter().map(|e| centres(*e, align_corners)).collect();
    let mut values = vec![];
    for point in 0..points {
        let (mut rest, mut row) = (point, vec![]);
        for axis in axes.iter().rev() {
            row.push(axis[(rest % axis.len() as u64) as usize]);
            rest /= axis.len() as u64;
        }
        values.extend(row);
        values.push(1.0);
    }
    let grid = numbers(cx, cx.dtype(theta), &[points, count as u64 + 1], values);
    let dot = Dot {
        batch: vec![],
        contract: vec![(2, 1)],
        out: None,
    };
    let y = cx.op(dot, &[theta, grid])?;
    let y = cx.transpose(y, &[0, 2, 1])?;
    let mut shape = vec![dims[0].clone()];
    shape.extend(extents.into_iter().map(Dim::Const));
    shape.push(Dim::Const(count as u64));
    let y = cx.reshape(y, shape)?;
    cx.output(0, y);
    Ok(())
}

/// Where a kernel's elements lie in the image, without offsets: `[kernel.., out..]` flattened, for
/// one spatial dim.
fn kernel_places(windows: &Windows, out: &[u64], axis: usize) -> Vec<f64> {
    let loops: Vec<u64> = windows.kernel.iter().chain(out).copied().collect();
    let count: u64 = loops.iter().product();
    let spatial = windows.kernel.len();
    let place = |linear: u64| {
        let index = dojoc_ir::tensor::unravel(linear, &loops);
        let window = (index[spatial + axis] * windows.stride[axis]) as f64;
        let element = (index[axis] * windows.dilation[axis]) as f64;
        window + element - windows.pad[axis].0 as f64
    };
    (0..count).map(place).collect()
}

/// Convolution whose kernel elements are moved by offsets: the image is interpolated at every
/// place, and the columns are multiplied with the weights.
fn deform_conv(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 5)?;
    let (x, w, offset) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let dims = cx.dims(x);
    let (extents, kernel) = (extents(cx, x)?, kernel_of(cx, w)?);
    let count = extents.len();
    if kernel.len() != count || cx.rank(offset) != count + 2 {
        let message = format!("weights {} and offsets {}", cx.ty(w), cx.ty(offset));
        return Err(NodeError::invalid(message));
    }
    let windows = Windows::read(cx, count, Some(kernel))?;
    let positive = |value: i64| u64::try_from(value).ok().filter(|v| *v > 0);
    let groups = positive(cx.int("group", 1)?).ok_or_else(bad_extent)?;
    let parts = positive(cx.int("offset_group", 1)?).ok_or_else(bad_extent)?;
    let channels = const_extent(cx, x, 1)?;
    let features = const_extent(cx, w, 0)?;
    if channels % groups != 0 || channels % parts != 0 || features % groups != 0 {
        return Err(NodeError::invalid("the channels do not make equal groups"));
    }
    let out: Vec<u64> = (2..count + 2)
        .map(|axis| const_extent(cx, offset, axis))
        .collect::<NodeResult<_>>()?;
    let taps = limited(windows.kernel.iter().copied())?;
    let area = limited(out.iter().copied())?;
    limited([taps, area])?;
    // The batch and the groups of offsets together.
    let batch = dims[0].mul(&Dim::Const(parts)).ok_or_else(bad_extent)?;
    let split = |tail: &[u64]| {
        let tail = tail.iter().copied().map(Dim::Const);
        [batch.clone()]
            .into_iter()
            .chain(tail)
            .collect::<Vec<Dim>>()
    };
    let precise = wide(cx.dtype(offset));
    let offset = cx.convert(offset, precise)?;
    let offset = cx.reshape(offset, split(&[taps, count as u64, area]))?;
    let mut positions = vec![];
    for axis in 0..count {
        let moved = cx.slice(offset, 2, axis as u64, 1)?;
        let moved = cx.reshape(moved, split(&[taps * area]))?;
        let places = kernel_places(&windows, &out, axis);
        let places = numbers(cx, precise, &[1, taps * area], places);
        positions.push(cx.binary(BinaryFn::Add, places, moved)?);
    }
    let sampler = Sampler {
        interpolation: Interpolation::Linear,
        beyond: Beyond::Zeros,
        align_corners: true,
    };
    let mut shape = split(&[channels / parts]);
    shape.extend_from_slice(&dims[2..]);
    let images = cx.reshape(x, shape)?;
    let mut columns = sampler.sample(cx, images, &extents, &positions)?;
    if let Some(mask) = cx.optional(4)? {
        let mask = cx.reshape(mask, split(&[taps * area, 1]))?;
        columns = cx.binary(BinaryFn::Mul, columns, mask)?;
    }
    let columns = cx.transpose(columns, &[0, 2, 1])?;
    let deep = channels / groups * taps;
    let shape = vec![dims[0].clone(), groups.into(), deep.into(), area.into()];
    let columns = cx.reshape(columns, shape)?;
    let weights = cx.reshape_to(w, &[groups, features / groups, deep])?;
    let dot = Dot {
        batch: vec![(0, 1)],
        contract: vec![(2, 2)],
        out: None,
    };
    let y = cx.op(dot, &[weights, columns])?;
    let y = cx.transpose(y, &[2, 0, 1, 3])?;
    let mut shape = vec![dims[0].clone(), Dim::Const(features)];
    shape.extend(out.into_iter().map(Dim::Const));
    let y = cx.reshape(y, shape)?;
    let bias = cx.optional(3)?;
    let y = add_bias(cx, y, bias)?;
    cx.output(0, y);
    Ok(())
}

/// The attributes of RoiAlign.
struct Regions {
    scale: f64,
    half_pixel: bool,
    samples: u64,
}

/// Neighbours of the samples of regions along one dim.
struct Edge {
    /// Lower and upper index, i64 `[regions, bins * samples, 2]`.
    index: ValueId,
    /// Their weights.
    weight: ValueId,
}

impl Regions {
    /// The samples between `start` and `end` (columns of `rois`) of regions, in `bins` bins.
    fn edge(
        &self,
        cx: &mut NodeCx<'_, '_>,
        rois: ValueId,
        columns: [u64; 2],
        bins: u64,
        extent: u64,
    ) -> NodeResult<Edge> {
        let dtype = cx.dtype(rois);
        let mut ends = vec![];
        for column in columns {
            let end = cx.slice(rois, 1, column, 1)?;
            let end = cx.with_scalar(BinaryFn::Mul, end, self.scale)?;
            let shift = if self.half_pixel { 0.5 } else { 0.0 };
            ends.push(cx.with_scalar(BinaryFn::Sub, end, shift)?);
        }
        let mut length = cx.binary(BinaryFn::Sub, ends[1], ends[0])?;
        if !self.half_pixel {
            length = cx.with_scalar(BinaryFn::Max, length, 1.0)?;
        }
        let count = limited([bins, self.samples])?;
        let parts = (0..count).map(|n| (n as f64 + 0.5) / count as f64);
        let parts = numbers(cx, dtype, &[1, count], parts);
        let steps = cx.binary(BinaryFn::Mul, length, parts)?;
        let place = cx.binary(BinaryFn::Add, ends[0], steps)?;
        let last = extent as f64 - 1.0;
        let above = cx.with_scalar(BinaryFn::Ge, place, -1.0)?;
        let below = cx.with_scalar(BinaryFn::Le, place, extent as f64)?;
        let inside = cx.binary(BinaryFn::And, above, below)?;
        let place = cx.with_scalar(BinaryFn::Max, place, 0.0)?;
        let place = cx.with_scalar(BinaryFn::Min, place, last)?;
        let low = cx.unary(UnaryFn::Floor, place)?;
        let high = cx.with_scalar(BinaryFn::Add, low, 1.0)?;
        let high = cx.with_scalar(BinaryFn::Min, high, last)?;
        let upper = cx.binary(BinaryFn::Sub, place, low)?;
        let one = cx.scalar(dtype, 1.0)?;
        let lower = cx.binary(BinaryFn::Sub, one, upper)?;
        let mut pairs = vec![];
        for pair in [[low, high], [lower, upper]] {
            let first = cx.unsqueeze(pair[0], &[2])?;
            let second = cx.unsqueeze(pair[1], &[2])?;
            pairs.push(cx.concat(&[first, second], 2)?);
        }
        let inside = cx.unsqueeze(inside, &[2])?;
        let zero = cx.scalar(dtype, 0.0)?;
        Ok(Edge {
            index: cx.convert(pairs[0], DType::I64)?,
            weight: cx.select(inside, pairs[1], zero)?,
        })
    }
}

fn roi_align(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(3, 3)?;
    let (x, rois, batch) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let default = if cx.version < 16 {
        "output_half_pixel"
    } else {
        "half_pixel"
    };
    let half_pixel = match cx
        .string("coordinate_transformation_mode", default)?
        .as_str()
    {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => {
            let message = format!("coordinate_transformation_mode `{other}`");
            return Err(NodeError::invalid(message));
        }
    };
    let kind = match cx.string("mode", "avg")?.as_str() {
        "avg" => ReduceKind::Sum,
        "max" => ReduceKind::Max,
        other => return Err(NodeError::invalid(format!("mode `{other}`"))),
    };
    let positive = |value: i64| {
        u64::try_from(value)
            .ok()
            .filter(|v| (1..1 << 16).contains(v))
    };
    let rows = positive(cx.int("output_height", 1)?).ok_or_else(bad_extent)?;
    let columns = positive(cx.int("output_width", 1)?).ok_or_else(bad_extent)?;
    let Some(samples) = positive(cx.int("sampling_ratio", 0)?) else {
        return Err(
            NodeError::unsupported("a number of samples that depends on the region")
                .help("give a positive `sampling_ratio`"),
        );
    };
    let regions = Regions {
        scale: cx.float("spatial_scale", 1.0)?,
        half_pixel,
        samples,
    };
    let (dims, extents) = (cx.dims(x), extents(cx, x)?);
    let [height, width] = extents[..] else {
        return Err(NodeError::invalid(format!("{} is no image", cx.ty(x))));
    };
    let dtype = cx.dtype(x);
    let rois = cx.convert(rois, wide(dtype))?;
    let y = regions.edge(cx, rois, [1, 3], rows, height)?;
    let x_edge = regions.edge(cx, rois, [0, 2], columns, width)?;
    // Dims: region, row bin, sample, neighbour, column bin, sample, neighbour, channel.
    let count = cx.dims(rois)[0].clone();
    let vertical = [rows, samples, 2, 1, 1, 1].map(Dim::Const);
    let horizontal = [1, 1, 1, columns, samples, 2].map(Dim::Const);
    let lying = |dims: &[Dim; 6]| [vec![count.clone()], dims.to_vec()].concat();
    let batch = cx.convert(batch, DType::I64)?;
    let batch = along(cx, batch, 0, 7)?;
    let row = cx.reshape(y.index, lying(&vertical))?;
    let column = cx.reshape(x_edge.index, lying(&horizontal))?;
    let image = cx.with_scalar(BinaryFn::Mul, batch, height as f64)?;
    let line = cx.binary(BinaryFn::Add, image, row)?;
    let line = cx.with_scalar(BinaryFn::Mul, line, width as f64)?;
    let index = cx.binary(BinaryFn::Add, line, column)?;
    let pixels = dims[0]
        .mul(&Dim::Const(height))
        .and_then(|n| n.mul(&Dim::Const(width)));
    let pixels = pixels.ok_or_else(bad_extent)?;
    let table = cx.transpose(x, &[0, 2, 3, 1])?;
    let table = cx.reshape(table, vec![pixels, dims[1].clone()])?;
    let found = cx.op(Gather { axis: 0 }, &[table, index])?;
    let found = cx.convert(found, wide(dtype))?;
    let row = cx.reshape(y.weight, lying(&vertical))?;
    let column = cx.reshape(x_edge.weight, lying(&horizontal))?;
    let weight = cx.binary(BinaryFn::Mul, row, column)?;
    let weight = cx.unsqueeze(weight, &[7])?;
    let weighted = cx.binary(BinaryFn::Mul, found, weight)?;
    let mut result = cx.reduce(kind, weighted, &[2, 3, 5, 6], false)?;
    if kind == ReduceKind::Sum {
        result = cx.with_scalar(BinaryFn::Div, result, (samples * samples) as f64)?;
    }
    let result = cx.convert(result, dtype)?;
    let result = cx.transpose(result, &[0, 3, 1, 2])?;
    cx.output(0, result);
    Ok(())
}
