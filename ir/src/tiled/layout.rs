//! Layouts: which core holds which elements.

use std::ops::Range;

use super::{Grid, GridId, ReshardKind};
use crate::access::Monoid;
use crate::program::Packing;

/// Which elements of a tensor each core of a grid holds. See the [module](super).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The cores.
    pub grid: GridId,
    /// Extents under which the elements are split: those of the tensor with neighbours merged, or
    /// dims cut into factors.
    pub view: Vec<u64>,
    /// How each view dim is split.
    pub splits: Vec<Split>,
    /// Axes along which cores hold contributions, by position, ascending.
    pub pending: Vec<Pending>,
    /// How the elements of a block lie in memory.
    pub packing: Packing,
    /// Which part of a batch that is worked on in turn; `None` for all of it.
    pub micro_batch: Option<u32>,
}

/// How one dim of a [`Layout`] is split.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Split {
    /// Axes of the grid, by position, major first; none if the dim is whole.
    pub axes: Vec<usize>,
    /// Number of iterations that are balanced; the view's extent for a plain split.
    pub extent: u64,
    /// Iterations of one unit, at least 1.
    pub unit: u64,
    /// Elements from one iteration to the next, at least 1.
    pub stride: u64,
    /// Halo: elements before the first one of a block; may be negative.
    pub low: i64,
    /// Halo: elements behind the last one of a block; may be negative.
    pub high: i64,
}

/// An axis along which a value is a combination of contributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// The axis, by position.
    pub axis: usize,
    /// How contributions combine.
    pub monoid: Monoid,
}

/// A range of iterations or elements.
pub type BlockRange = Range<u64>;

impl Split {
    /// A dim that every core holds whole.
    pub fn whole(extent: u64) -> Self {
        Self::over(vec![], extent, 1)
    }

    /// A dim split over axes in units.
    pub fn over(axes: Vec<usize>, extent: u64, unit: u64) -> Self {
        Self {
            axes,
            extent,
            unit,
            stride: 1,
            low: 0,
            high: 0,
        }
    }

    /// Number of positions over which it is split, and the position of the core at `coordinates`.
    pub fn position(&self, grid: &Grid, coordinates: &[u64]) -> (u64, u64) {
        position(&self.axes, grid, coordinates)
    }

    /// Iterations of the core at `coordinates`.
    pub fn iterations(&self, grid: &Grid, coordinates: &[u64]) -> BlockRange {
        let (count, at) = self.position(grid, coordinates);
        balanced(self.extent, self.unit, count, at)
    }

    /// Elements of the core at `coordinates`, of a dim of `extent` elements.
    pub fn elements(&self, extent: u64, grid: &Grid, coordinates: &[u64]) -> BlockRange {
        self.elements_of(extent, &self.iterations(grid, coordinates))
    }

    /// Elements for a range of iterations, of a dim of `extent` elements.
    pub fn elements_of(&self, extent: u64, iterations: &BlockRange) -> BlockRange {
        let window = self.window_of(iterations);
        let clip = |x: i64| u64::try_from(x).unwrap_or(0).min(extent);
        let (start, end) = (clip(window.start), clip(window.end));
        if start < end { start..end } else { 0..0 }
    }

    /// As [`elements_of`](Self::elements_of) without clipping: the *window*, which memory is laid
    /// out for, so that elements outside the tensor have a place too. Saturating.
    pub fn window_of(&self, iterations: &BlockRange) -> Range<i64> {
        if iterations.is_empty() {
            return 0..0;
        }
        let stride = i128::from(self.stride);
        let start = stride * i128::from(iterations.start) - i128::from(self.low);
        let end = stride * i128::from(iterations.end - 1) + 1 + i128::from(self.high);
        let narrow = |x: i128| x.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        narrow(start)..narrow(end.max(start))
    }
}

/// Number of positions of a group of axes, and which one a core has.
pub(super) fn position(axes: &[usize], grid: &Grid, coordinates: &[u64]) -> (u64, u64) {
    axes.iter().fold((1, 0), |(count, at), axis| {
        let size = grid.axes[*axis].size;
        (count * size, at * size + coordinates[*axis])
    })
}

/// The block of a position: `extent` iterations balanced in units over `count` positions.
pub(super) fn balanced(extent: u64, unit: u64, count: u64, at: u64) -> BlockRange {
    let units = u128::from(extent.div_ceil(unit));
    let start = |at: u64| {
        let unit_index = u128::from(at) * units / u128::from(count);
        (unit_index * u128::from(unit)).min(u128::from(extent)) as u64
    };
    start(at)..start(at + 1)
}

impl Layout {
    /// Every core of a grid holds everything.
    pub fn replicated(grid: GridId, shape: &[u64]) -> Self {
        Self {
            grid,
            view: shape.to_vec(),
            splits: shape.iter().map(|e| Split::whole(*e)).collect(),
            pending: vec![],
            packing: Packing::Strided,
            micro_batch: None,
        }
    }

    /// The box of the view that the core at `coordinates` holds; one of its ranges is empty if it
    /// holds nothing.
    pub fn block(&self, grid: &Grid, coordinates: &[u64]) -> Vec<BlockRange> {
        self.splits
            .iter()
            .zip(&self.view)
            .map(|(split, extent)| split.elements(*extent, grid, coordinates))
            .collect()
    }

    /// The window of the core at `coordinates`, see [`Split::window_of`]; for plain splits the
    /// block. Memory of a core holds the window of its block, row-major.
    pub fn window(&self, grid: &Grid, coordinates: &[u64]) -> Vec<Range<i64>> {
        let window = |split: &Split| split.window_of(&split.iterations(grid, coordinates));
        self.splits.iter().map(window).collect()
    }

    /// The largest extents of a window.
    pub fn largest_window(&self, grid: &Grid) -> Vec<u64> {
        let largest = |split: &Split| {
            let count: u64 = split.axes.iter().map(|a| grid.axes[*a].size).product();
            let windows = (0..count).map(|at| {
                let window = split.window_of(&balanced(split.extent, split.unit, count, at));
                window.start.abs_diff(window.end)
            });
            windows.max().unwrap_or(0)
        };
        self.splits.iter().map(largest).collect()
    }

    /// Axes of the grid that neither split a dim nor are pending, ascending.
    pub fn replicated_axes(&self, grid: &Grid) -> Vec<usize> {
        let used = |axis: usize| {
            self.splits.iter().any(|s| s.axes.contains(&axis))
                || self.pending.iter().any(|p| p.axis == axis)
        };
        (0..grid.axes.len()).filter(|a| !used(*a)).collect()
    }

    /// Whether the elements are the same on the same cores, whatever their packing.
    pub fn same_places(&self, other: &Self) -> bool {
        (self.grid, &self.view, &self.splits, &self.pending)
            == (other.grid, &other.view, &other.splits, &other.pending)
    }
}

/// What changing one layout into another is as a collective.
pub(super) fn reshard_kind(from: &Layout, to: &Layout) -> ReshardKind {
    if !from.pending.is_empty() {
        let scatters = |l: &Layout| l.splits.iter().map(|s| s.axes.len()).sum::<usize>();
        return if scatters(to) > scatters(from) {
            ReshardKind::ReduceScatter
        } else {
            ReshardKind::AllReduce
        };
    }
    if from.grid != to.grid || from.view != to.view {
        return ReshardKind::Redistribute;
    }
    let pairs = || from.splits.iter().zip(&to.splits);
    let plain = |s: &Split| s.stride == 1 && s.low == 0 && s.high == 0;
    if pairs().all(|(a, b)| b.axes.starts_with(&a.axes) && plain(a))
        && pairs().all(|(_, b)| plain(b))
    {
        return ReshardKind::Slice;
    }
    if pairs().all(|(a, b)| a.axes == b.axes) {
        return ReshardKind::Halo;
    }
    if pairs().all(|(a, b)| a.axes.starts_with(&b.axes)) {
        return ReshardKind::AllGather;
    }
    ReshardKind::AllToAll
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_balanced_in_units() {
        for (extent, unit, count) in [(50, 8, 3), (3, 8, 4), (0, 1, 2), (64, 8, 8), (7, 1, 7)] {
            let blocks: Vec<_> = (0..count)
                .map(|at| balanced(extent, unit, count, at))
                .collect();
            assert_eq!(blocks[0].start, 0);
            assert_eq!(blocks[blocks.len() - 1].end, extent);
            assert!(blocks.windows(2).all(|w| w[0].end == w[1].start));
            let units: Vec<u64> = blocks
                .iter()
                .map(|b| (b.end - b.start).div_ceil(unit))
                .collect();
            let (low, high) = (units.iter().min(), units.iter().max());
            assert!(high.zip(low).is_some_and(|(high, low)| high - low <= 1));
        }
    }

    #[test]
    fn halos_are_clipped() {
        let split = Split {
            stride: 2,
            low: 1,
            high: 1,
            ..Split::over(vec![0], 4, 1)
        };
        assert_eq!(split.elements_of(8, &(0..2)), 0..4);
        assert_eq!(split.elements_of(8, &(2..4)), 3..8);
        assert_eq!(split.elements_of(8, &(2..2)), 0..0);
    }
}
