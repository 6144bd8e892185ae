//! What convolutions and poolings have in common: kernel, stride, dilation and padding.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;

use super::super::node::NodeCx;
use super::super::problems::{NodeError, NodeResult};

/// How padding is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AutoPad {
    /// By the attribute `pads`.
    Given,
    /// None.
    Valid,
    /// As many windows as `extent / stride`, rounded up; the odd element of padding at the end.
    SameUpper,
    /// The same with the odd element at the start.
    SameLower,
}

/// The attributes of a windowed operator, one entry per spatial dim.
pub(super) struct Windows {
    pub(super) kernel: Vec<u64>,
    pub(super) stride: Vec<u64>,
    pub(super) dilation: Vec<u64>,
    pub(super) pad: Vec<(i64, i64)>,
    pub(super) auto: AutoPad,
}

fn positive(values: Vec<i64>, name: &str, count: usize) -> NodeResult<Vec<u64>> {
    let fits =
        values.len() == count && values.iter().all(|v| (1..=i64::from(i32::MAX)).contains(v));
    if fits {
        return Ok(values.into_iter().map(|v| v as u64).collect());
    }
    Err(NodeError::invalid(format!(
        "`{name}` is {values:?}, expected {count} positive entries"
    )))
}

/// The spatial extents: all but the first two.
pub(super) fn spatial(cx: &NodeCx<'_, '_>, x: ValueId) -> NodeResult<Vec<Dim>> {
    match cx.dims(x).get(2..) {
        Some(dims) => Ok(dims.to_vec()),
        None => Err(NodeError::invalid(format!(
            "the operand is {}, expected a batch and a channel dim",
            cx.ty(x)
        ))),
    }
}

/// The extents of a kernel: all dims but the first two of the weights.
pub(super) fn kernel_of(cx: &NodeCx<'_, '_>, w: ValueId) -> NodeResult<Vec<u64>> {
    let dims = spatial(cx, w)?;
    let dims: Option<Vec<u64>> = dims.iter().map(Dim::as_const).collect();
    dims.ok_or_else(|| NodeError::unsupported("a kernel of symbolic extents"))
}

impl Windows {
    /// Reads the attributes. `kernel` are the extents of the weights, where there are any.
    pub(super) fn read(
        cx: &mut NodeCx<'_, '_>,
        count: usize,
        kernel: Option<Vec<u64>>,
    ) -> NodeResult<Self> {
        let shape = cx.ints("kernel_shape")?;
        let kernel = match (kernel, shape) {
            (None, None) => return Err(NodeError::invalid("`kernel_shape` is missing")),
            (None, Some(shape)) => positive(shape, "kernel_shape", count)?,
            (Some(kernel), shape) => {
                let kernel: Vec<i64> = kernel.iter().map(|k| *k as i64).collect();
                if shape.as_ref().is_some_and(|shape| *shape != kernel) {
                    let message = format!("`kernel_shape` is not that of the weights, {kernel:?}");
                    return Err(NodeError::invalid(message));
                }
                positive(kernel, "kernel", count)?
            }
        };
        let ones = || vec![1; count];
        let stride = cx.ints("strides")?.unwrap_or_else(ones);
        let dilation = cx.ints("dilations")?.unwrap_or_else(ones);
        let auto = match cx.string("auto_pad", "NOTSET")?.as_str() {
            "NOTSET" | "" => AutoPad::Given,
            "VALID" => AutoPad::Valid,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            other => return Err(NodeError::invalid(format!("`auto_pad` is `{other}`"))),
        };
        let pads = cx.ints("pads")?.filter(|_| auto == AutoPad::Given);
        let pads = pads.unwrap_or_else(|| vec![0; 2 * count]);
        let limit = i64::from(i32::MAX);
        if pads.len() != 2 * count || pads.iter().any(|p| !(-limit..=limit).contains(p)) {
            let message = format!("`pads` is {pads:?}, expected two entries for {count} dims");
            return Err(NodeError::invalid(message));
        }
        let (low, high) = pads.split_at(count);
        Ok(Self {
            kernel,
            stride: positive(stride, "strides", count)?,
            dilation: positive(dilation, "dilations", count)?,
            pad: low.iter().copied().zip(high.iter().copied()).collect(),
            auto,
        })
    }

    /// How far a kernel reaches along a dim. All factors are below 2^31.
    pub(super) fn reach(&self, axis: usize) -> i64 {
        ((self.kernel[axis] - 1) * self.dilation[axis] + 1) as i64
    }

    /// Sets the padding that `auto_pad` asks for.
    pub(super) fn resolve_same(&mut self, spatial: &[Dim]) -> NodeResult {
        if !matches!(self.auto, AutoPad::SameUpper | AutoPad::SameLower) {
            return Ok(());
        }
        for (axis, extent) in spatial.iter().enumerate() {
            let stride = self.stride[axis] as i64;
            let total = match extent.as_const().and_then(|e| i64::try_from(e).ok()) {
                Some(extent) => {
                    let last = (extent - 1).div_euclid(stride).saturating_mul(stride);
                    last.saturating_add(self.reach(axis))
                        .saturating_sub(extent)
                        .max(0)
                }
                None if stride == 1 => self.reach(axis) - 1,
                None => {
                    let message = format!("`auto_pad` with a stride for a dim of extent {extent}");
                    return Err(NodeError::unsupported(message)
                        .help("give `pads`, or bind the dim to an extent"));
                }
            };
            let (less, more) = (total / 2, total - total / 2);
            self.pad[axis] = match self.auto {
                AutoPad::SameUpper => (less, more),
                _ => (more, less),
            };
        }
        Ok(())
    }

    /// Lengthens the padding at the end so that the number of windows is rounded up. A window that
    /// would begin behind the padded input is not added.
    pub(super) fn round_up(&mut self, spatial: &[Dim]) -> NodeResult {
        for (axis, extent) in spatial.iter().enumerate() {
            let stride = self.stride[axis] as i64;
            if stride == 1 {
                continue;
            }
            let Some(extent) = extent.as_const().and_then(|e| i64::try_from(e).ok()) else {
                let message = format!("`ceil_mode` with a stride for a dim of extent {extent}");
                return Err(NodeError::unsupported(message).help("bind the dim to an extent"));
            };
            let (low, high) = self.pad[axis];
            let room = extent
                .saturating_add(low + high)
                .saturating_sub(self.reach(axis));
            if room < 0 {
                continue;
            }
            let mut last = (room + stride - 1) / stride;
            if last * stride >= extent.saturating_add(low) {
                last -= 1;
            }
            let end = (last * stride).saturating_add(self.reach(axis));
            self.pad[axis].1 = high.max(end.saturating_sub(extent).saturating_sub(low));
        }
        Ok(())
    }
}
