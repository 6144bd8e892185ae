//! Convolution and its transpose.

use dojoc_ir::dim::{Dim, Poly};
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Conv, ConvTranspose};
use dojoc_ir::scalar::BinaryFn;
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};
use super::super::table::{OpEntry, onnx};
use super::window::{AutoPad, Windows, kernel_of, spatial};

pub(super) const OPS: &[OpEntry] = &[
    onnx("Conv", &[(1, conv)]),
    onnx("ConvTranspose", &[(1, conv_transpose)]),
];

fn groups(cx: &mut NodeCx<'_, '_>) -> NodeResult<u64> {
    let group = cx.int("group", 1)?;
    match u64::try_from(group) {
        Ok(group) if group > 0 => Ok(group),
        _ => Err(NodeError::invalid(format!("`group` is {group}"))),
    }
}

/// Adds a value per channel.
pub(super) fn add_bias(
    cx: &mut NodeCx<'_, '_>,
    y: ValueId,
    bias: Option<ValueId>,
) -> NodeResult<ValueId> {
    let Some(bias) = bias else { return Ok(y) };
    let (dims, channels) = (cx.dims(bias), cx.dims(y));
    if dims.len() != 1 || dims[0] != channels[1] {
        let (bias, y) = (cx.ty(bias), cx.ty(y));
        return Err(NodeError::invalid(format!(
            "a bias {bias} for a result {y}"
        )));
    }
    let mut shape = dims;
    shape.resize(channels.len() - 1, Dim::Const(1));
    let bias = cx.reshape(bias, shape)?;
    cx.binary(BinaryFn::Add, y, bias)
}

/// The type in which contractions of 16-bit floats are summed.
pub(super) fn wide(dtype: DType) -> Option<DType> {
    matches!(dtype, DType::F16 | DType::Bf16).then_some(DType::F32)
}

/// The convolution that a node's attributes describe, of operands that need not be the node's.
pub(super) fn convolve(
    cx: &mut NodeCx<'_, '_>,
    x: ValueId,
    w: ValueId,
    out: Option<DType>,
) -> NodeResult<ValueId> {
    let extents = spatial(cx, x)?;
    let kernel = kernel_of(cx, w)?;
    if kernel.len() != extents.len() {
        let (x, w) = (cx.ty(x), cx.ty(w));
        return Err(NodeError::invalid(format!(
            "weights {w} for an operand {x}"
        )));
    }
    let mut windows = Windows::read(cx, extents.len(), Some(kernel))?;
    windows.resolve_same(&extents)?;
    let groups = groups(cx)?;
    let op = Conv {
        stride: windows.stride,
        pad: windows.pad,
        dilation: windows.dilation,
        groups,
        out,
    };
    cx.op(op, &[x, w])
}

fn conv(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 3)?;
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.optional(2)?);
    // With a bias 16-bit floats are rounded once, after it is added.
    let dtype = cx.dtype(x);
    let wide = bias.and_then(|_| wide(dtype));
    let y = convolve(cx, x, w, wide)?;
    let bias = match (bias, wide) {
        (Some(bias), Some(wide)) => Some(cx.convert(bias, wide)?),
        (bias, _) => bias,
    };
    let y = add_bias(cx, y, bias)?;
    let y = cx.convert(y, dtype)?;
    cx.output(0, y);
    Ok(())
}

fn conv_transpose(cx: &mut NodeCx<'_, '_>) -> NodeResult {
    cx.expect_inputs(2, 3)?;
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.optional(2)?);
    let extents = spatial(cx, x)?;
    let kernel = kernel_of(cx, w)?;
    let count = extents.len();
    if kernel.len() != count {
        let (x, w) = (cx.ty(x), cx.ty(w));
        return Err(NodeError::invalid(format!(
            "weights {w} for an operand {x}"
        )));
    }
    let mut windows = Windows::read(cx, count, Some(kernel))?;
    let groups = groups(cx)?;
    let list = |values: Option<Vec<i64>>, name: &str| match values {
        Some(values) if values.len() < count || values.iter().any(|v| *v < 0) => {
            Err(NodeError::invalid(format!("`{name}` is {values:?}")))
        }
        // Some writers put the batch and the channels before the spatial extents.
        Some(values) => Ok(Some(values[values.len() - count..].to_vec())),
        None => Ok(None),
    };
    let extra = list(cx.ints("output_padding")?, "output_padding")?.unwrap_or(vec![0; count]);
    let shape = list(cx.ints("output_shape")?, "output_shape")?;
    let mut size = vec![];
    for axis in 0..count {
        let stride = Poly::constant(windows.stride[axis] as i64);
        let extent = extents[axis].to_poly().ok_or_else(bad_extent)?;
        // What the kernels cover, before anything is cut.
        let covered = extent
            .sub(&Poly::constant(1))
            .and_then(|e| e.mul(&stride))
            .and_then(|e| e.add(&Poly::constant(windows.reach(axis))))
            .and_then(|e| e.add(&Poly::constant(extra[axis])))
            .ok_or_else(bad_extent)?;
        let wanted = match &shape {
            Some(shape) => Some(Poly::constant(shape[axis])),
            None if matches!(windows.auto, AutoPad::SameUpper | AutoPad::SameLower) => {
                Some(extent.mul(&stride).ok_or_else(bad_extent)?)
            }
            None => None,
        };
        let wanted = match wanted {
            Some(wanted) => {
                let total = covered.sub(&wanted).and_then(|t| t.as_constant());
                let Some(total) = total.map(|total| total.max(0)) else {
                    let message = format!("an output shape for a dim of extent {}", extents[axis]);
                    return Err(NodeError::unsupported(message)
                        .help("give `pads`, or bind the dim to an extent"));
                };
                let (less, more) = (total / 2, total - total / 2);
                windows.pad[axis] = match windows.auto {
                    AutoPad::SameUpper => (less, more),
                    _ => (more, less),
                };
                wanted
            }
            None => {
                let (low, high) = windows.pad[axis];
                covered
                    .sub(&Poly::constant(low + high))
                    .ok_or_else(bad_extent)?
            }
        };
        size.push(Dim::from_poly(wanted).ok_or_else(bad_extent)?);
    }
    let op = ConvTranspose {
        stride: windows.stride,
        pad: windows.pad,
        dilation: windows.dilation,
        groups,
        size,
    };
    let y = cx.op(op, &[x, w])?;
    let y = add_bias(cx, y, bias)?;
    cx.output(0, y);
    Ok(())
}
