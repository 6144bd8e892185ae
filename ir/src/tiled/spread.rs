//! From a whole tensor to the blocks of cores and back, by the positions of elements in row-major
//! order, which are the same under every view.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Grid, Layout, Pending};
use crate::access::Monoid;
use crate::access::block::show;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::DType;

/// The blocks of a value, one per core of its grid, with the extents of the core's box.
pub(crate) type Blocks = Vec<Tensor>;

/// A box of a tensor.
type Bounds = [Range<u64>];

/// A box as a key: ranges have no order.
pub(crate) fn key(bounds: &Bounds) -> Vec<(u64, u64)> {
    bounds.iter().map(|r| (r.start, r.end)).collect()
}

/// Extents of a box.
pub(crate) fn extents(bounds: &Bounds) -> Vec<u64> {
    bounds.iter().map(|r| r.end - r.start).collect()
}

/// A box as ranges of indices that may be negative.
pub(super) fn signed(bounds: &Bounds) -> Vec<Range<i64>> {
    bounds
        .iter()
        .map(|r| r.start as i64..r.end as i64)
        .collect()
}

/// Neighbouring elements that are neighbours in the tensor as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Position of the first one in the tensor.
    pub start: usize,
    /// Position of the first one in the box.
    pub offset: usize,
    /// Number of them.
    pub length: usize,
}

/// The elements of a box of a tensor of extents `view`, ascending.
pub(crate) fn runs(bounds: &Bounds, view: &[u64]) -> Vec<Run> {
    if bounds.iter().any(Range::is_empty) {
        return vec![];
    }
    // Dims behind the last one that is cut lie together.
    let cut = bounds
        .iter()
        .zip(view)
        .rposition(|(r, extent)| r.end - r.start != *extent)
        .unwrap_or(0);
    let inner: usize = view.iter().skip(cut + 1).map(|e| *e as usize).product();
    let along = bounds
        .get(cut)
        .map_or(0..1, |r| r.start as usize..r.end as usize);
    let length = (along.end - along.start) * inner;
    let mut starts = vec![0usize];
    for (range, extent) in bounds.iter().zip(view).take(cut) {
        starts = starts
            .iter()
            .flat_map(|s| {
                range
                    .clone()
                    .map(move |i| (s * *extent as usize) + i as usize)
            })
            .collect();
    }
    let step = view.get(cut).map_or(1, |e| *e as usize) * inner;
    let run = |(n, s): (usize, &usize)| Run {
        start: s * step + along.start * inner,
        offset: n * length,
        length,
    };
    starts.iter().enumerate().map(run).collect()
}

/// A tensor put together from blocks.
pub(super) struct Whole {
    bytes: Vec<u8>,
    held: Vec<bool>,
    dtype: DType,
}

/// Why blocks do not make a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// An element that no block holds.
    NotHeld(String),
    /// Two blocks hold different bits for one element.
    Differ(String),
    /// Our own mistake or too little memory.
    Other(String),
}

impl Whole {
    /// The elements that the blocks of some cores hold; where several do, they agree bit for bit.
    pub fn assemble(
        dtype: DType,
        layout: &Layout,
        grid: &Grid,
        blocks: &Blocks,
        cores: impl Iterator<Item = u64>,
    ) -> Result<Self, Fault> {
        let count: u64 = layout.view.iter().product();
        let size = dtype.bytes() as usize;
        let mut whole = Self {
            bytes: vec![0; count as usize * size],
            held: vec![false; count as usize],
            dtype,
        };
        let mut seen = BTreeMap::<Vec<(u64, u64)>, &Tensor>::new();
        for core in cores {
            let bounds = layout.block(grid, &grid.coordinates(core));
            let block = blocks
                .get(core as usize)
                .filter(|b| b.shape() == extents(&bounds) && b.dtype() == dtype)
                .ok_or_else(|| Fault::Other(format!("the block of core {core} is missing")))?;
            // Replicas of one block need not be looked at again if they are the same memory.
            match seen.insert(key(&bounds), block) {
                Some(other) if same(other, block) => continue,
                _ => {}
            }
            for run in runs(&bounds, &layout.view) {
                let bytes = &block.bytes()[run.offset * size..][..run.length * size];
                if let Some(at) = whole.put(run.start, bytes, size) {
                    let index = crate::tensor::unravel(at as u64, &layout.view);
                    return Err(Fault::Differ(format!(
                        "element {index:?} is another one on core {core}, which holds {}, than on a \
                         core before it",
                        show(&signed(&bounds))
                    )));
                }
            }
        }
        Ok(whole)
    }

    /// A tensor of which everything is known.
    pub fn of(tensor: &Tensor) -> Self {
        Self {
            bytes: tensor.bytes().to_vec(),
            held: vec![true; tensor.len()],
            dtype: tensor.dtype(),
        }
    }

    /// Copies elements; gives the first one that was known to be another.
    fn put(&mut self, start: usize, bytes: &[u8], size: usize) -> Option<usize> {
        let length = bytes.len() / size;
        let target = &mut self.bytes[start * size..][..bytes.len()];
        let held = &mut self.held[start..start + length];
        if held.contains(&true) {
            let pairs = target.chunks(size).zip(bytes.chunks(size));
            let differs = |(n, (a, b)): (usize, (&[u8], &[u8]))| (held[n] && a != b).then_some(n);
            if let Some(at) = pairs.enumerate().find_map(differs) {
                return Some(start + at);
            }
        }
        target.copy_from_slice(bytes);
        held.fill(true);
        None
    }

    /// The elements of a box under the extents `view`.
    pub fn part(&self, bounds: &Bounds, view: &[u64]) -> Result<Tensor, Fault> {
        let size = self.dtype.bytes() as usize;
        let shape = extents(bounds);
        let mut bytes = Vec::with_capacity(shape.iter().product::<u64>() as usize * size);
        for run in runs(bounds, view) {
            let held = &self.held[run.start..run.start + run.length];
            if let Some(at) = held.iter().position(|h| !h) {
                let index = crate::tensor::unravel((run.start + at) as u64, view);
                return Err(Fault::NotHeld(format!(
                    "no core holds the element {index:?}"
                )));
            }
            bytes.extend_from_slice(&self.bytes[run.start * size..][..run.length * size]);
        }
        Tensor::from_bytes(self.dtype, &shape, bytes.into())
            .map_err(|e| Fault::Other(e.to_string()))
    }

    /// All of it as a tensor of the given extents.
    pub fn tensor(&self, shape: &[u64]) -> Result<Tensor, Fault> {
        let bounds: Vec<Range<u64>> = shape.iter().map(|e| 0..*e).collect();
        self.part(&bounds, shape)
    }

    /// The blocks of a layout; cores that hold the same box share its memory.
    pub fn cut(&self, layout: &Layout, grid: &Grid) -> Result<Blocks, Fault> {
        let mut known = BTreeMap::new();
        let cores = 0..grid.size();
        cores
            .map(|core| {
                self.block(
                    layout,
                    &layout.block(grid, &grid.coordinates(core)),
                    &mut known,
                )
            })
            .collect()
    }

    /// One block of a layout, or the same one as before.
    pub fn block(
        &self,
        layout: &Layout,
        bounds: &Bounds,
        known: &mut BTreeMap<Vec<(u64, u64)>, Tensor>,
    ) -> Result<Tensor, Fault> {
        if let Some(block) = known.get(&key(bounds)) {
            return Ok(block.clone());
        }
        let block = self.part(bounds, &layout.view)?;
        known.insert(key(bounds), block.clone());
        Ok(block)
    }
}

/// Whether two tensors are the same memory.
pub(super) fn same(a: &Tensor, b: &Tensor) -> bool {
    a.bytes().as_ptr() == b.bytes().as_ptr() && a.bytes().len() == b.bytes().len()
}

/// The elements of a box under one view, from a block that holds a box under another.
pub(super) fn reviewed(
    held: &Tensor,
    held_bounds: &Bounds,
    held_view: &[u64],
    bounds: &Bounds,
    view: &[u64],
) -> Result<Tensor, Fault> {
    let size = held.dtype().bytes() as usize;
    let sources = runs(held_bounds, held_view);
    let shape = extents(bounds);
    let mut bytes = Vec::with_capacity(shape.iter().product::<u64>() as usize * size);
    for run in runs(bounds, view) {
        let (mut start, end) = (run.start, run.start + run.length);
        while start < end {
            let next = sources.partition_point(|r| r.start <= start);
            let source = next.checked_sub(1).map(|n| sources[n]);
            let Some(source) = source.filter(|r| start < r.start + r.length) else {
                let index = crate::tensor::unravel(start as u64, view);
                return Err(Fault::NotHeld(format!(
                    "the core does not hold the element {index:?}"
                )));
            };
            let length = (source.start + source.length).min(end) - start;
            let from = (source.offset + start - source.start) * size;
            bytes.extend_from_slice(&held.bytes()[from..from + length * size]);
            start += length;
        }
    }
    Tensor::from_bytes(held.dtype(), &shape, bytes.into()).map_err(|e| Fault::Other(e.to_string()))
}

/// Combines the contributions along one pending axis, in the order of its positions; afterwards all
/// cores along the axis hold the combination.
pub(super) fn combined(blocks: &Blocks, grid: &Grid, pending: Pending) -> Blocks {
    let stride: u64 = grid.axes[pending.axis + 1..]
        .iter()
        .map(|a| a.size)
        .product();
    let size = grid.axes[pending.axis].size;
    let mut results = blocks.clone();
    for core in 0..blocks.len() as u64 {
        if !(core / stride).is_multiple_of(size) {
            continue;
        }
        let along = || (0..size).map(|at| (core + at * stride) as usize);
        let sum = along()
            .map(|at| blocks[at].clone())
            .reduce(|left, right| combine(pending.monoid, &left, &right));
        if let Some(sum) = sum {
            along().for_each(|at| results[at] = sum.clone());
        }
    }
    results
}

/// Combines two tensors of one type element by element, in that type.
pub(super) fn combine(monoid: Monoid, left: &Tensor, right: &Tensor) -> Tensor {
    let dtype = left.dtype();
    if let (Monoid::Sum, DType::F32) = (monoid, dtype) {
        let (a, b) = (left.stored::<f32>(), right.stored::<f32>());
        let sums = a.iter().zip(b.iter()).map(|(a, b)| a + b).collect();
        return Tensor::from_vec::<f32>(left.shape(), sums);
    }
    let one = |(a, b): (Scalar, Scalar)| monoid.combine(dtype, &[a], &[b])[0];
    let pairs = left.scalars().zip(right.scalars());
    Tensor::from_scalars(dtype, left.shape(), pairs.map(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_elements_of_a_box() {
        let view = [2, 3, 4];
        for bounds in [
            vec![0..2, 0..3, 0..4],
            vec![0..1, 1..3, 0..4],
            vec![1..2, 0..3, 1..3],
            vec![0..2, 2..3, 0..4],
            vec![0..2, 1..1, 0..4],
        ] {
            let expected: Vec<usize> = crate::tensor::indices(&view)
                .enumerate()
                .filter(|(_, i)| i.iter().zip(&bounds).all(|(i, r)| r.contains(i)))
                .map(|(n, _)| n)
                .collect();
            let runs = runs(&bounds, &view);
            let found: Vec<usize> = runs
                .iter()
                .flat_map(|r| r.start..r.start + r.length)
                .collect();
            assert_eq!(found, expected, "{bounds:?}");
            let offsets: Vec<usize> = runs
                .iter()
                .flat_map(|r| r.offset..r.offset + r.length)
                .collect();
            assert!(offsets.iter().copied().eq(0..expected.len()), "{bounds:?}");
        }
        assert_eq!(runs(&[], &[]).len(), 1, "a scalar has one element");
    }

    #[test]
    fn a_block_is_read_under_another_view() {
        let whole = Tensor::from_vec(&[4, 6], (0..24).collect::<Vec<i32>>());
        let held = Whole::of(&whole).part(&[1..3, 0..6], &[4, 6]).ok();
        let held = held.unwrap();
        let found = reviewed(&held, &[1..3, 0..6], &[4, 6], &[2..5, 1..3], &[8, 3]);
        assert_eq!(found.unwrap().to_i64s(), [7, 8, 10, 11, 13, 14]);
        let missing = reviewed(&held, &[1..3, 0..6], &[4, 6], &[1..3, 0..3], &[8, 3]);
        assert!(matches!(missing, Err(Fault::NotHeld(_))));
    }
}
