//! Resampling of images: one dim after the other, with indices and weights computed at import.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Gather, ReduceKind};
use dojoc_ir::scalar::{BinaryFn, Scalar};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::shared::{const_extent, limited, numbers, saturate, wide};

pub(super) const OPS: &[OpEntry] = &[
    onnx("Resize", &[(10, resize_scales), (11, resize)]),
    onnx("Upsample", &[(7, upsample)]),
];

/// Further away than any element.
const FAR: f64 = 1e15;

/// Where in the input an element of the output is.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    HalfPixelForNearest,
    CropAndResize,
}

/// Which neighbour is the nearest.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Nearest {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

/// How elements are interpolated.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Nearest(Nearest),
    Linear,
    /// With the coefficient of the kernel.
    Cubic(f64),
}

/// What applies to all dims.
#[derive(Clone, Copy, Debug)]
struct Resampling {
    mode: Mode,
    coordinates: Coordinates,
    antialias: bool,
    exclude_outside: bool,
    extrapolation: f64,
}

/// One dim.
#[derive(Clone, Copy, Debug)]
struct AxisPlan {
    input: u64,
    output: u64,
    scale: f64,
    /// Part of the input that is seen, from 0 to 1.
    roi: (f64, f64),
}

/// Indices and weights of the elements that make one element of the output, both
/// `[output, taps]`; which elements lie outside of the input and are not interpolated.
struct Taps {
    indices: Vec<i64>,
    weights: Vec<f64>,
    count: usize,
    outside: Vec<bool>,
}

impl Resampling {
    /// The position in the input.
    fn position(&self, plan: &AxisPlan, index: u64) -> f64 {
        let (x, scale) = (index as f64, plan.scale);
        let last = plan.input as f64 - 1.0;
        // The extent of the output before it was rounded.
        let exact = scale * plan.input as f64;
        match self.coordinates {
            Coordinates::HalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::HalfPixelForNearest => (x + 0.5) / scale,
            Coordinates::PytorchHalfPixel if plan.output == 1 => 0.0,
            Coordinates::PytorchHalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::Asymmetric => x / scale,
            Coordinates::AlignCorners if exact == 1.0 => 0.0,
            Coordinates::AlignCorners => x * last / (exact - 1.0),
            Coordinates::HalfPixelSymmetric => {
                let shift = plan.input as f64 / 2.0 * (1.0 - plan.output as f64 / exact);
                shift + (x + 0.5) / scale - 0.5
            }
            Coordinates::CropAndResize => {
                let (start, end) = plan.roi;
                let inside = if exact == 1.0 { 0.5 } else { x / (exact - 1.0) };
                start * last + inside * (end - start) * last
            }
        }
    }

    /// How far the kernel is stretched: only where the output is smaller.
    fn stretch(&self, plan: &AxisPlan) -> f64 {
        if self.antialias {
            plan.scale.min(1.0)
        } else {
            1.0
        }
    }

    /// The weight of an element at a distance.
    fn weight(&self, distance: f64) -> f64 {
        let x = distance.abs();
        match self.mode {
            Mode::Nearest(_) => 1.0,
            Mode::Linear => (1.0 - x).max(0.0),
            Mode::Cubic(a) if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Mode::Cubic(a) if x < 2.0 => ((x - 5.0) * x + 8.0) * x * a - 4.0 * a,
            Mode::Cubic(_) => 0.0,
        }
    }

    fn taps(&self, plan: &AxisPlan) -> NodeResult<Taps> {
        let stretch = self.stretch(plan);
        // Elements before and after the neighbours on both sides of the position.
        let reach = match self.mode {
            Mode::Nearest(_) => 0.0,
            Mode::Linear => 1.0,
            Mode::Cubic(_) => 2.0,
        };
        let first = (-reach / stretch).floor() + 1.0;
        let last = i64::try_from(plan.input).unwrap_or(0) - 1;
        let count = match self.mode {
            Mode::Nearest(_) => 1,
            // Without a result there is no scale either.
            _ if plan.output == 0 => 1,
            _ => (2.0 - 2.0 * first) as u64,
        };
        limited([plan.output, count])?;
        if last < 0 {
            return Err(NodeError::invalid("there is nothing to interpolate"));
        }
        let (first, count) = (first as i64, count as i64);
        let mut taps = Taps {
            indices: vec![],
            weights: vec![],
            count: count as usize,
            outside: vec![],
        };
        for index in 0..plan.output {
            let x = self.position(plan, index);
            let crop = self.coordinates == Coordinates::CropAndResize;
            taps.outside.push(crop && !(0.0..=last as f64).contains(&x));
            if let Mode::Nearest(nearest) = self.mode {
                let chosen = match nearest {
                    Nearest::PreferFloor => (x - 0.5).ceil(),
                    Nearest::PreferCeil => (x + 0.5).floor(),
                    Nearest::Floor => x.floor(),
                    Nearest::Ceil => x.ceil(),
                };
                taps.indices.push((chosen as i64).clamp(0, last));
                continue;
            }
            // Beyond, all neighbours are the same element.
            let base = x.ceil().clamp(-FAR, FAR) as i64 - 1;
            let places: Vec<i64> = (base + first..base + first + count).collect();
            let mut weights: Vec<f64> = places
                .iter()
                .map(|p| self.weight((*p as f64 - x) * stretch))
                .collect();
            if self.exclude_outside {
                for (weight, place) in weights.iter_mut().zip(&places) {
                    if !(0..=last).contains(place) {
                        *weight = 0.0;
                    }
                }
            }
            if self.antialias || self.exclude_outside {
                let sum: f64 = weights.iter().sum();
                if sum != 0.0 {
                    weights.iter_mut().for_each(|w| *w /= sum);
                }
            }
            taps.weights.extend(weights);
            taps.indices
                .extend(places.into_iter().map(|p| p.clamp(0, last)));
        }
        Ok(taps)
    }

    /// Resamples one dim.
    fn apply(
        &self,
        cx: &mut NodeCx<'_, '_>,
        x: ValueId,
        axis: usize,
        plan: &AxisPlan,
    ) -> NodeResult<ValueId> {
        let taps = self.taps(plan)?;
        let (rank, dtype) = (cx.rank(x), cx.dtype(x));
        let y = if taps.weights.is_empty() {
            let indices = cx.ints_constant(&taps.indices);
            cx.op(Gather { axis }, &[x, indices])?
        } else {
            let shape = [plan.output, taps.count as u64];
            let indices = cx.constant(Tensor::from_vec(&shape, taps.indices));
            let gathered = cx.op(Gather { axis }, &[x, indices])?;
            let mut lying = vec![1; rank + 1];
            lying[axis] = shape[0];
            lying[axis + 1] = shape[1];
            let weights = numbers(cx, dtype, &lying, taps.weights);
            let weighted = cx.binary(BinaryFn::Mul, gathered, weights)?;
            cx.reduce(ReduceKind::Sum, weighted, &[axis + 1], false)?
        };
        if !taps.outside.contains(&true) {
            return Ok(y);
        }
        let mut lying = vec![1; rank];
        lying[axis] = plan.output;
        let outside = taps.outside.into_iter().map(Scalar::Bool);
        let outside = cx.constant(Tensor::from_scalars(DType::Bool, &lying, outside));
        let value = cx.scalar(dtype, self.extrapolation)?;
        cx.select(outside, value, y)
    }

    /// Resamples the given dims. Interpolation is in floats; integers are rounded at the end.
    fn run(
        &self,
        cx: &mut NodeCx<'_, '_>,
        x: ValueId,
        plans: &[(usize, AxisPlan)],
    ) -> NodeResult<ValueId> {
        let dtype = cx.dtype(x);
        let exact =
            matches!(self.mode, Mode::Nearest(_)) && self.coordinates != Coordinates::CropAndResize;
        let mut y = match dtype {
            _ if exact || plans.is_empty() => x,
            _ if dtype.is_float() => cx.convert(x, wide(dtype))?,
            _ => cx.convert(x, DType::F32)?,
        };
        for (axis, plan) in plans {
            y = self.apply(cx, y, *axis, plan)?;
        }
        match cx.dtype(y) == dtype {
            true => Ok(y),
            false if dtype.is_float() => cx.convert(y, dtype),
            false => saturate(cx, y, dtype),
        }
    }
}

fn nearest_mode(cx: &mut NodeCx<'_, '_>) -> NodeResult<Nearest> {
    Ok(
        match cx.string("nearest_mode", "round_prefer_floor")?.as_str() {
            "round_prefer_floor" => Nearest::PreferFloor,
            "round_prefer_ceil" => Nearest::PreferCeil,
            "floor" => Nearest::Floor,
            "ceil" => Nearest::Ceil,
            other => return Err(NodeError::invalid(format!("nearest_mode `{other}`"))),
        },
    )
}

fn resampling(cx: &mut NodeCx<'_, '_>) -> NodeResult<Resampling> {
    let nearest = nearest_mode(cx)?;
    let coefficient = cx.float("cubic_coeff_a", -0.75)?;
    let mode = match cx.string("mode", "nearest")?.as_str() {
        "nearest" => Mode::Nearest(nearest),
        "linear" => Mode::Linear,
        "cubic" => Mode::Cubic(coefficient),
        other => return Err(NodeError::invalid(format!("mode `{other}`"))),
    };
    let coordinates = match cx
        .string("coordinate_transformation_mode", "half_pixel")?
        .as_str()
    {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" => Coordinates::HalfPixelForNearest,
        "tf_crop_and_resize" => Coordinates::CropAndResize,
        other => {
            let message = format!("coordinate_transformation_mode `{other}`");
            return Err(NodeError::invalid(message));
        }
    };
    Ok(Resampling {
        mode,
        coordinates,
        antialias: cx.flag("antialias", false)?,
        exclude_outside: cx.flag("exclude_outside", false)?,
        extrapolation: cx.float("extrapolation_value", 0.0)?,
    })
}

/// Numbers of an operand that may be left out by being empty.
fn floats(cx: &mut NodeCx<'_, '_>, index: usize, what: &str) -> NodeResult<Option<Vec<f64>>> {
    if !cx.has(index) || cx.required_type(index)?.dims().iter().any(|d| d.is(0)) {
        return Ok(None);
    }
    match cx.const_floats(index) {
        Some(values) => Ok(Some(values)),
        None => Err(cx.needs_constant(index, what)),
    }
}

fn expect_count(found: usize, count: usize, what: &str) -> NodeResult {
    match found == count {
        true => Ok(()),
        false => Err(NodeError::invalid(format!(
            "{found} {what} for {count} dims"
        ))),
    }
}

/// The plan of a dim that is scaled; none if it stays as it is.
fn scaled_axis(
    cx: &NodeCx<'_, '_>,
    x: ValueId,
    axis: usize,
    scale: f64,
    roi: (f64, f64),
) -> NodeResult<Option<AxisPlan>> {
    if scale == 1.0 && roi == (0.0, 1.0) {
        return Ok(None);
    }
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(NodeError::invalid(format!("the scale {scale}")));
    }
    let input = const_extent(cx, x, axis)?;
    // In the precision in which scales are given, so that 1.4 times 5 is 7.
    let output = f64::from(input as f32 * scale as f32).floor();
    if output >= f64::from(u32::MAX) {
        return Err(bad_extent());
    }
    let output = output as u64;
    Ok(Some(AxisPlan {
        input,
        output,
        scale,
        roi,
    }))
}

/// The plans of dims that get the given extents.
fn sized_axes(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    axes: &[usize],
    sizes: &[Dim],
    roi: impl Fn(usize) -> (f64, f64),
) -> NodeResult<Vec<(usize, AxisPlan)>> {
    let policy = cx.string("keep_aspect_ratio_policy", "stretch")?;
    let dims = cx.dims(x);
    let mut plans = vec![];
    for (index, axis) in axes.iter().enumerate() {
        let roi = roi(index);
        if sizes[index] == dims[*axis] && roi == (0.0, 1.0) && policy == "stretch" {
            continue;
        }
        let input = const_extent(cx, x, *axis)?;
        let Some(output) = sizes[index].as_const().filter(|size| *size < 1 << 32) else {
            let message = format!("dim {axis} gets the extent {}", sizes[index]);
            return Err(NodeError::unsupported(message)
                .help("give the dimensions fixed extents: --dim NAME=N"));
        };
        let scale = output as f64 / input as f64;
        let plan = AxisPlan {
            input,
            output,
            scale,
            roi,
        };
        plans.push((*axis, plan));
    }
    let scales = plans.iter().map(|(_, plan)| plan.scale);
    let common = match policy.as_str() {
        "stretch" => return Ok(plans),
        "not_larger" => scales.fold(f64::INFINITY, f64::min),
        "not_smaller" => scales.fold(0.0, f64::max),
        other => {
            let message = format!("keep_aspect_ratio_policy `{other}`");
            return Err(NodeError::invalid(message));
        }
    };
    for (_, plan) in &mut plans {
        plan.scale = common;
        plan.output = (common * plan.input as f64 + 0.5).floor() as u64;
    }
    Ok(plans)
}

fn resize(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(1, 4)?;
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let resampling = resampling(cx)?;
    let axes = match cx.ints("axes")? {
        Some(axes) => cx.axes(&axes, rank)?,
        None => (0..rank).collect(),
    };
    let count = axes.len();
    let crop = resampling.coordinates == Coordinates::CropAndResize;
    let roi = if crop {
        floats(cx, 1, "the region of interest")?
    } else {
        None
    };
    if let Some(roi) = &roi {
        expect_count(roi.len(), 2 * count, "ends of regions")?;
    }
    let roi = |index: usize| match &roi {
        Some(roi) => (roi[index], roi[count + index]),
        None => (0.0, 1.0),
    };
    let plans = match floats(cx, 2, "the scales")? {
        Some(scales) => {
            expect_count(scales.len(), count, "scales")?;
            cx.ignore_attrs(&["keep_aspect_ratio_policy"]);
            let mut plans = vec![];
            for (index, axis) in axes.into_iter().enumerate() {
                let plan = scaled_axis(cx, x, axis, scales[index], roi(index))?;
                plans.extend(plan.map(|plan| (axis, plan)));
            }
            plans
        }
        None => {
            let sizes = cx.require_extents(3, "the sizes")?;
            expect_count(sizes.len(), count, "sizes")?;
            sized_axes(cx, x, &axes, &sizes, roi)?
        }
    };
    let y = resampling.run(cx, x, &plans)?;
    cx.output(0, y);
    Ok(())
}

/// The simple form of early operator sets: by scales from the first element on.
fn simple(cx: &mut NodeCx<'_, '_>, scales: &[f64]) -> NodeResult {
    let x = cx.input(0)?;
    let mode = match cx.string("mode", "nearest")?.as_str() {
        "nearest" => Mode::Nearest(Nearest::Floor),
        "linear" | "bilinear" => Mode::Linear,
        other => return Err(NodeError::invalid(format!("mode `{other}`"))),
    };
    expect_count(scales.len(), cx.rank(x), "scales")?;
    let resampling = Resampling {
        mode,
        coordinates: Coordinates::Asymmetric,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
    };
    let mut plans = vec![];
    for (axis, scale) in scales.iter().enumerate() {
        let plan = scaled_axis(cx, x, axis, *scale, (0.0, 1.0))?;
        plans.extend(plan.map(|plan| (axis, plan)));
    }
    let y = resampling.run(cx, x, &plans)?;
    cx.output(0, y);
    Ok(())
}

fn resize_scales(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 2)?;
    let scales = floats(cx, 1, "the scales")?.unwrap_or_default();
    simple(cx, &scales)
}

fn upsample(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    let scales = if cx.version < 9 {
        cx.expect_inputs(1, 1)?;
        cx.floats("scales")?.unwrap_or_default()
    } else {
        cx.expect_inputs(2, 2)?;
        floats(cx, 1, "the scales")?.unwrap_or_default()
    };
    simple(cx, &scales)
}
