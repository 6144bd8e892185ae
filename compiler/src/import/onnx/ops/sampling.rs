//! Interpolation at positions that are computed at run time.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{Convert, GatherNd, ReduceKind};
use dojoc_ir::scalar::{BinaryFn, UnaryFn};
use dojoc_ir::types::DType;

use super::super::build::bad_extent;
use super::super::node::NodeCx;
use super::super::problems::NodeResult;
use super::shared::numbers;

/// What is beyond the borders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beyond {
    Zeros,
    Border,
    Reflection,
}

/// How elements are interpolated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interpolation {
    Nearest,
    Linear,
    Cubic,
}

/// Coefficient of the cubic kernel.
const CUBIC: f64 = -0.75;

/// Interpolation of images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    pub(super) interpolation: Interpolation,
    pub(super) beyond: Beyond,
    /// Whether the borders are the centres of the outermost elements, not their outer edges.
    pub(super) align_corners: bool,
}

/// Neighbours along one dim: index (i64) and weight, both `[batch, points, taps]`.
struct Neighbours {
    index: ValueId,
    weight: Option<ValueId>,
    count: u64,
}

/// `x` between two numbers.
fn clamp(cx: &mut NodeCx<'_, '_>, x: ValueId, low: f64, high: f64) -> NodeResult<ValueId> {
    let x = cx.with_scalar(BinaryFn::Max, x, low)?;
    cx.with_scalar(BinaryFn::Min, x, high)
}

/// Whether `x` is within two numbers.
fn within(cx: &mut NodeCx<'_, '_>, x: ValueId, low: f64, high: f64) -> NodeResult<ValueId> {
    let above = cx.with_scalar(BinaryFn::Ge, x, low)?;
    let below = cx.with_scalar(BinaryFn::Le, x, high)?;
    cx.binary(BinaryFn::And, above, below)
}

/// `x` mirrored at two numbers as often as it takes.
fn reflect(cx: &mut NodeCx<'_, '_>, x: ValueId, low: f64, high: f64) -> NodeResult<ValueId> {
    let range = high - low;
    if range <= 0.0 {
        return clamp(cx, x, low, low);
    }
    let offset = cx.with_scalar(BinaryFn::Sub, x, low)?;
    let phase = cx.with_scalar(BinaryFn::Mod, offset, 2.0 * range)?;
    let end = cx.scalar(cx.dtype(x), 2.0 * range)?;
    let back = cx.binary(BinaryFn::Sub, end, phase)?;
    let phase = cx.binary(BinaryFn::Min, phase, back)?;
    cx.with_scalar(BinaryFn::Add, phase, low)
}

/// The polynomial with these coefficients, that of the highest power first.
fn polynomial(cx: &mut NodeCx<'_, '_>, x: ValueId, coefficients: [f64; 4]) -> NodeResult<ValueId> {
    let mut sum = cx.scalar(cx.dtype(x), coefficients[0])?;
    for coefficient in &coefficients[1..] {
        sum = cx.binary(BinaryFn::Mul, sum, x)?;
        sum = cx.with_scalar(BinaryFn::Add, sum, *coefficient)?;
    }
    Ok(sum)
}

/// The cubic convolution kernel at a distance below 2.
fn cubic(cx: &mut NodeCx<'_, '_>, distance: ValueId) -> NodeResult<ValueId> {
    let near = polynomial(cx, distance, [CUBIC + 2.0, -CUBIC - 3.0, 0.0, 1.0])?;
    let far = polynomial(
        cx,
        distance,
        [CUBIC, -5.0 * CUBIC, 8.0 * CUBIC, -4.0 * CUBIC],
    )?;
    let close = cx.with_scalar(BinaryFn::Le, distance, 1.0)?;
    cx.select(close, near, far)
}

impl Sampler {
    fn borders(&self, extent: u64) -> (f64, f64) {
        let last = extent as f64 - 1.0;
        match self.align_corners {
            true => (0.0, last),
            false => (-0.5, last + 0.5),
        }
    }

    /// Positions from -1 to 1 as positions in elements.
    pub(super) fn denormalize(
        &self,
        cx: &mut NodeCx<'_, '_>,
        x: ValueId,
        extent: u64,
    ) -> NodeResult<ValueId> {
        let x = cx.with_scalar(BinaryFn::Add, x, 1.0)?;
        if self.align_corners {
            return cx.with_scalar(BinaryFn::Mul, x, (extent as f64 - 1.0) / 2.0);
        }
        let x = cx.with_scalar(BinaryFn::Mul, x, extent as f64)?;
        let x = cx.with_scalar(BinaryFn::Sub, x, 1.0)?;
        cx.with_scalar(BinaryFn::Mul, x, 0.5)
    }

    /// The neighbours of positions `[batch, points]` along a dim.
    fn neighbours(
        &self,
        cx: &mut NodeCx<'_, '_>,
        x: ValueId,
        extent: u64,
    ) -> NodeResult<Neighbours> {
        let dtype = cx.dtype(x);
        let (low, high) = self.borders(extent);
        let last = extent as f64 - 1.0;
        let mut x = cx.unsqueeze(x, &[2])?;
        if self.interpolation == Interpolation::Nearest {
            x = cx.unary(UnaryFn::Round, x)?;
        }
        let inside = within(cx, x, low, high)?;
        let moved = match self.beyond {
            Beyond::Zeros => x,
            Beyond::Border => clamp(cx, x, 0.0, last)?,
            Beyond::Reflection => reflect(cx, x, low, high)?,
        };
        x = cx.select(inside, x, moved)?;
        let (first, count) = match self.interpolation {
            Interpolation::Nearest => (0.0, 1),
            Interpolation::Linear => (0.0, 2),
            Interpolation::Cubic => (-1.0, 4),
        };
        let (mut place, mut weight) = (x, None);
        if self.interpolation != Interpolation::Nearest {
            let base = cx.unary(UnaryFn::Floor, x)?;
            let steps = (0..count).map(|n| first + n as f64);
            let steps = numbers(cx, dtype, &[1, 1, count], steps);
            place = cx.binary(BinaryFn::Add, base, steps)?;
            let distance = cx.binary(BinaryFn::Sub, x, place)?;
            let distance = cx.unary(UnaryFn::Abs, distance)?;
            weight = Some(match self.interpolation {
                Interpolation::Cubic => cubic(cx, distance)?,
                _ => {
                    let one = cx.scalar(dtype, 1.0)?;
                    cx.binary(BinaryFn::Sub, one, distance)?
                }
            });
        }
        match self.beyond {
            Beyond::Zeros => {
                let there = within(cx, place, 0.0, last)?;
                weight = Some(match weight {
                    Some(weight) => {
                        let zero = cx.scalar(dtype, 0.0)?;
                        cx.select(there, weight, zero)?
                    }
                    None => cx.convert(there, dtype)?,
                });
            }
            Beyond::Border => {}
            Beyond::Reflection => place = reflect(cx, place, low, high)?,
        }
        // Rounding errors and NaN must not lead out of the tensor.
        place = clamp(cx, place, 0.0, last)?;
        let index = cx.op(
            Convert {
                to: DType::I64,
                saturate: true,
            },
            &[place],
        )?;
        Ok(Neighbours {
            index,
            weight,
            count,
        })
    }

    /// Interpolates `x [batch, channels, extents..]` at positions `[batch, points]`, one tensor per
    /// spatial dim, to `[batch, points, channels]`.
    pub(super) fn sample(
        &self,
        cx: &mut NodeCx<'_, '_>,
        x: ValueId,
        extents: &[u64],
        positions: &[ValueId],
    ) -> NodeResult<ValueId> {
        let (mut index, mut weight, mut taps) = (None, None, 1);
        for (extent, position) in extents.iter().zip(positions) {
            let near = self.neighbours(cx, *position, *extent)?;
            // Outer products: [b, p, taps, 1] with [b, p, 1, count].
            let mut dims = cx.dims(near.index);
            dims[2] = Dim::Const(taps * near.count);
            let joined = |cx: &mut NodeCx<'_, '_>, f, slow, fast| {
                let slow = cx.unsqueeze(slow, &[3])?;
                let fast = cx.unsqueeze(fast, &[2])?;
                let both = cx.binary(f, slow, fast)?;
                cx.reshape(both, dims.clone())
            };
            index = Some(match index {
                Some(slow) => {
                    let slow = cx.with_scalar(BinaryFn::Mul, slow, *extent as f64)?;
                    joined(cx, BinaryFn::Add, slow, near.index)?
                }
                None => near.index,
            });
            weight = match (weight, near.weight) {
                (Some(slow), Some(fast)) => Some(joined(cx, BinaryFn::Mul, slow, fast)?),
                (_, fast) => fast,
            };
            taps *= near.count;
        }
        let index = index.ok_or_else(bad_extent)?;
        let [batch, channels, ..] = &cx.dims(x)[..] else {
            return Err(bad_extent());
        };
        let (batch, channels) = (batch.clone(), channels.clone());
        let size = extents
            .iter()
            .try_fold(1u64, |n, e| n.checked_mul(*e))
            .ok_or_else(bad_extent)?;
        let rows = cx.reshape(x, vec![batch.clone(), channels.clone(), Dim::Const(size)])?;
        let rows = cx.transpose(rows, &[0, 2, 1])?;
        let points = cx.dims(index)[1].clone();
        let all = points.mul(&Dim::Const(taps)).ok_or_else(bad_extent)?;
        let index = cx.reshape(index, vec![batch.clone(), all, Dim::Const(1)])?;
        let found = cx.op(GatherNd { batch: 1 }, &[rows, index])?;
        let found = cx.reshape(found, vec![batch, points, Dim::Const(taps), channels])?;
        let Some(weight) = weight else {
            return cx.squeeze(found, &[2]);
        };
        let dtype = cx.dtype(x);
        let weight = cx.unsqueeze(weight, &[3])?;
        if taps == 1 {
            // Weights of single elements are zero or one: any type can be chosen.
            let there = cx.with_scalar(BinaryFn::Ne, weight, 0.0)?;
            let zero = cx.scalar(dtype, 0.0)?;
            let kept = cx.select(there, found, zero)?;
            return cx.squeeze(kept, &[2]);
        }
        let found = cx.convert(found, cx.dtype(weight))?;
        let weighted = cx.binary(BinaryFn::Mul, found, weight)?;
        let sum = cx.reduce(ReduceKind::Sum, weighted, &[2], false)?;
        cx.convert(sum, dtype)
    }
}
