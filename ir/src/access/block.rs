//! A part of a loop nest, computed from parts of its operands: what one core does.
//!
//! [`evaluate`] gives, bit for bit, what [`interpret`](super::interpret) would give on a nest of
//! those iterations alone, and is fast enough for whole networks: sums of products run as packed
//! contractions (`super::contract`), everything else in chunks of points (`super::points`).

use std::ops::Range;

use super::{Access, Affine, Combine, DimKind, Outside, contract, points};
use crate::tensor::{Tensor, strides};
use crate::types::DType;

/// A box of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The index of the first element, per dim.
    pub start: Vec<i64>,
    /// The elements; its extents are those of the box.
    pub data: Tensor,
}

/// One range of indices per dim of a tensor.
pub type Bounds = Vec<Range<i64>>;

impl Block {
    /// A whole tensor.
    pub fn whole(data: Tensor) -> Self {
        Self {
            start: vec![0; data.rank()],
            data,
        }
    }

    /// Zeros in the given box.
    ///
    /// # Errors
    /// When the box is too large for memory.
    pub fn zeros(dtype: DType, bounds: &[Range<i64>]) -> Result<Self, String> {
        let (start, shape) = corner(bounds);
        let bytes = vec![0u8; byte_count(dtype, &shape)?];
        Ok(Self {
            start,
            data: from_bytes(dtype, &shape, bytes)?,
        })
    }

    /// The box.
    pub fn bounds(&self) -> Bounds {
        let ends = self.start.iter().zip(self.data.shape());
        ends.map(|(start, extent)| *start..start + *extent as i64)
            .collect()
    }

    /// The elements of a box, gathered from blocks; those that no block holds are zero. Where blocks
    /// overlap the last one counts.
    ///
    /// # Errors
    /// When the box is too large for memory.
    pub fn gather<'a>(
        dtype: DType,
        bounds: &[Range<i64>],
        parts: impl IntoIterator<Item = &'a Block>,
    ) -> Result<Self, String> {
        let (start, shape) = corner(bounds);
        let mut bytes = vec![0u8; byte_count(dtype, &shape)?];
        for part in parts {
            copy_box(part, bounds, &mut bytes);
        }
        Ok(Self {
            start,
            data: from_bytes(dtype, &shape, bytes)?,
        })
    }

    /// The elements of a box inside this one.
    ///
    /// # Errors
    /// When the box reaches outside.
    pub fn part(&self, bounds: &[Range<i64>]) -> Result<Self, String> {
        if bounds == self.bounds() {
            return Ok(self.clone());
        }
        if !covers(&self.bounds(), bounds) {
            return Err(format!(
                "the box {} is not within {}",
                show(bounds),
                show(&self.bounds())
            ));
        }
        Self::gather(self.data.dtype(), bounds, [self])
    }
}

/// A box in messages: `[0..4, 2..8]`.
pub fn show(bounds: &[Range<i64>]) -> String {
    let ranges: Vec<String> = bounds
        .iter()
        .map(|r| format!("{}..{}", r.start, r.end))
        .collect();
    format!("[{}]", ranges.join(", "))
}

/// The elements that two boxes share; `None` if there are none. The box of a scalar is empty of
/// ranges and not of elements.
pub fn intersect(a: &[Range<i64>], b: &[Range<i64>]) -> Option<Bounds> {
    let common = a.iter().zip(b).map(|(a, b)| {
        let range = a.start.max(b.start)..a.end.min(b.end);
        (!range.is_empty()).then_some(range)
    });
    common.collect()
}

/// Number of elements of a box.
pub fn volume(bounds: &[Range<i64>]) -> u128 {
    bounds
        .iter()
        .map(|r| u128::from(r.end.abs_diff(r.start)) * u128::from(!r.is_empty()))
        .product()
}

/// Whether all elements of the second box lie in the first.
pub fn covers(outer: &[Range<i64>], inner: &[Range<i64>]) -> bool {
    inner.iter().any(Range::is_empty)
        || outer
            .iter()
            .zip(inner)
            .all(|(o, i)| o.start <= i.start && i.end <= o.end)
}

/// The first index and the extents of a box.
fn corner(bounds: &[Range<i64>]) -> (Vec<i64>, Vec<u64>) {
    let extent = |r: &Range<i64>| {
        if r.is_empty() {
            0
        } else {
            r.end.abs_diff(r.start)
        }
    };
    (
        bounds.iter().map(|r| r.start).collect(),
        bounds.iter().map(extent).collect(),
    )
}

fn byte_count(dtype: DType, shape: &[u64]) -> Result<usize, String> {
    shape
        .iter()
        .try_fold(dtype.bytes(), |size, extent| size.checked_mul(*extent))
        .and_then(|size| isize::try_from(size).ok())
        .map(isize::unsigned_abs)
        .ok_or_else(|| format!("a block of extents {shape:?} is too large"))
}

pub(super) fn from_bytes(dtype: DType, shape: &[u64], bytes: Vec<u8>) -> Result<Tensor, String> {
    Tensor::from_bytes(dtype, shape, bytes.into()).map_err(|e| e.to_string())
}

/// Copies what a block shares with the box `bounds` into the row-major bytes of that box.
fn copy_box(from: &Block, bounds: &[Range<i64>], bytes: &mut [u8]) {
    let Some(common) = intersect(&from.bounds(), bounds) else {
        return;
    };
    let size = from.data.dtype().bytes() as usize;
    let source = from.data.bytes();
    let (_, shape) = corner(bounds);
    let position = |index: &[i64], start: &dyn Fn(usize) -> i64, strides: &[u64]| -> usize {
        let at = index.iter().zip(strides).enumerate();
        at.map(|(d, (i, stride))| i.abs_diff(start(d)) as usize * *stride as usize)
            .sum()
    };
    let (from_strides, to_strides) = (strides(from.data.shape()), strides(&shape));
    let Some(last) = common.last() else {
        bytes.copy_from_slice(source);
        return;
    };
    let row = last.end.abs_diff(last.start) as usize * size;
    let mut index: Vec<i64> = common.iter().map(|r| r.start).collect();
    loop {
        let read = position(&index, &|d| from.start[d], &from_strides) * size;
        let write = position(&index, &|d| bounds[d].start, &to_strides) * size;
        bytes[write..write + row].copy_from_slice(&source[read..read + row]);
        let outer = common.len() - 1;
        if !advance(&mut index[..outer], &common[..outer]) {
            return;
        }
    }
}

/// The next index of a box in row-major order; `false` behind the last.
pub(super) fn advance(index: &mut [i64], bounds: &[Range<i64>]) -> bool {
    for (at, range) in index.iter_mut().zip(bounds).rev() {
        *at += 1;
        if *at < range.end {
            return true;
        }
        *at = range.start;
    }
    false
}

impl Affine {
    /// The indices between the least and the greatest whole one that iterations of `ranges` have;
    /// empty if a loop of the map is. `None` where the offset is symbolic or a number is too large.
    pub fn hull(&self, ranges: &[Range<u64>]) -> Option<Range<i64>> {
        let mut low = i128::from(self.offset.as_constant()?);
        let mut high = low;
        for (dim, coefficient) in &self.terms {
            let range = &ranges[*dim];
            if range.is_empty() {
                return Some(0..0);
            }
            let at = |i: u64| i128::from(*coefficient).checked_mul(i128::from(i));
            let (first, last) = (at(range.start)?, at(range.end - 1)?);
            low = low.checked_add(first.min(last))?;
            high = high.checked_add(first.max(last))?;
        }
        // Numerators are computed in 64 bits.
        i64::try_from(low).and(i64::try_from(high)).ok()?;
        let div = i128::from(self.div.max(1));
        let (first, end) = (-(-low).div_euclid(div), high.div_euclid(div) + 1);
        let first = i64::try_from(first).ok()?;
        Some(first..i64::try_from(end).ok()?.max(first))
    }
}

fn hulls(index: &[Affine], ranges: &[Range<u64>]) -> Option<Bounds> {
    index.iter().map(|affine| affine.hull(ranges)).collect()
}

/// The box of operand `operand` that the iterations `ranges` touch, not clipped to the tensor:
/// where it reaches outside, [`Outside`] says what is read. Empty if there are no iterations.
/// `None` where an offset is symbolic.
pub fn operand_box(access: &Access, operand: usize, ranges: &[Range<u64>]) -> Option<Bounds> {
    let index = &access.operands.get(operand)?.index;
    if ranges.iter().any(Range::is_empty) {
        return Some(vec![0..0; index.len()]);
    }
    hulls(index, ranges)
}

/// The box of result `result` that the iterations `ranges` reach, not clipped to the tensor. Loops
/// that do not occur in the map do not matter, so that an empty sum has a place. `None` where an
/// offset is symbolic.
pub fn result_box(access: &Access, result: usize, ranges: &[Range<u64>]) -> Option<Bounds> {
    hulls(&access.results.get(result)?.index, ranges)
}

/// The part of a box within a tensor of the given extents.
pub fn clip(bounds: &[Range<i64>], shape: &[u64]) -> Bounds {
    let clipped = bounds.iter().zip(shape).map(|(range, extent)| {
        let extent = i64::try_from(*extent).unwrap_or(i64::MAX);
        let start = range.start.clamp(0, extent);
        start..range.end.clamp(start, extent)
    });
    clipped.collect()
}

/// The checked parts of a call of [`evaluate`].
pub(super) struct Job<'a> {
    pub access: &'a Access,
    pub ranges: &'a [Range<u64>],
    pub operands: &'a [Block],
    /// Extents of the whole operands.
    pub shapes: &'a [Vec<u64>],
    /// What is read of each operand, not clipped.
    pub reads: Vec<Bounds>,
    /// What is written of each result, clipped.
    pub writes: Vec<Bounds>,
}

/// Computes the iterations `ranges` (a range of each loop) of a nest from blocks of the operands,
/// which must hold what those iterations read ([`operand_box`], clipped to the tensor). `shapes` are
/// the extents of the whole operands: reads beyond them are [`Outside`].
///
/// Gives a block per result: its [`result_box`], clipped to the tensor. Of a reduction that is
/// computed in part that is the part's combination, converted to the result's element type; an
/// element that the part does not reach is the identity. Sums are computed in the element type and
/// order of the rule, so results equal those of [`interpret`](super::interpret) bit for bit.
///
/// # Errors
/// Ranges, blocks or shapes that do not fit the rule; a loop with a carried state that does not
/// start at its beginning; what `interpret` refuses.
pub fn evaluate(
    access: &Access,
    ranges: &[Range<u64>],
    operands: &[Block],
    shapes: &[Vec<u64>],
) -> Result<Vec<Block>, String> {
    let job = prepare(access, ranges, operands, shapes)?;
    match contract::evaluate(&job)? {
        Some(blocks) => Ok(blocks),
        None => points::evaluate(&job),
    }
}

fn prepare<'a>(
    access: &'a Access,
    ranges: &'a [Range<u64>],
    operands: &'a [Block],
    shapes: &'a [Vec<u64>],
) -> Result<Job<'a>, String> {
    check_ranges(access, ranges)?;
    let count = access.operands.len();
    if operands.len() != count || shapes.len() != count {
        return Err(format!(
            "{count} maps for {} operands of {} shapes",
            operands.len(),
            shapes.len()
        ));
    }
    let unknown = |what: &str, n: usize| format!("{what} {n} has no constant index");
    let mut reads = vec![];
    for (number, ((read, block), shape)) in
        access.operands.iter().zip(operands).zip(shapes).enumerate()
    {
        let rank = read.index.len();
        if shape.len() != rank || block.start.len() != rank || block.data.rank() != rank {
            return Err(format!("operand {number} is not of rank {rank}"));
        }
        let touched =
            operand_box(access, number, ranges).ok_or_else(|| unknown("operand", number))?;
        let inside = clip(&touched, shape);
        if read.outside == Outside::Never && !covers(&inside, &touched) {
            let bounds = show(&touched);
            return Err(format!("operand {number} is read outside, at {bounds}"));
        }
        if !covers(&block.bounds(), &inside) {
            return Err(format!(
                "operand {number} is read at {}, the block holds {}",
                show(&inside),
                show(&block.bounds())
            ));
        }
        reads.push(touched);
    }
    let mut writes = vec![];
    for (number, write) in access.results.iter().enumerate() {
        let shape = write.shape.as_const();
        let shape = shape.ok_or_else(|| format!("result shape {} is symbolic", write.shape))?;
        let reached =
            result_box(access, number, ranges).ok_or_else(|| unknown("result", number))?;
        let bounds = clip(&reached, &shape);
        byte_count(DType::F64, &corner(&bounds).1)?;
        writes.push(bounds);
    }
    Ok(Job {
        access,
        ranges,
        operands,
        shapes,
        reads,
        writes,
    })
}

fn check_ranges(access: &Access, ranges: &[Range<u64>]) -> Result<(), String> {
    if ranges.len() != access.dims.len() {
        return Err(format!(
            "{} ranges for {} loops",
            ranges.len(),
            access.dims.len()
        ));
    }
    let scan = matches!(access.combine, Combine::Scan { .. });
    for (dim, range) in access.dims.iter().zip(ranges) {
        let name = &dim.name;
        let extent = dim.extent.as_const();
        let extent = extent.ok_or_else(|| format!("loop `{name}` has no constant extent"))?;
        if range.start > range.end || range.end > extent || i64::try_from(extent).is_err() {
            return Err(format!("loop `{name}` has no iterations {range:?}"));
        }
        if scan && dim.kind == DimKind::Sequential && range.start > 0 {
            return Err(format!("loop `{name}` carries a state and starts at 0"));
        }
    }
    Ok(())
}
