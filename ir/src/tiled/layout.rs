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

    /// Number of positions over which it is split.
    pub fn parts(&self, grid: &Grid) -> u64 {
        let axes = self.axes.iter().filter_map(|axis| grid.axes.get(*axis));
        axes.map(|axis| axis.size).product()
    }

    /// Number of positions over which it is split, and the position of the core at `coordinates`.
    pub fn position(&self, grid: &Grid, coordinates: &[u64]) -> (u64, u64) {
        position(&self.axes, grid, coordinates)
    }

    /// Iterations of position `at` of `count`.
    pub fn part(&self, count: u64, at: u64) -> BlockRange {
        balanced(self.extent, self.unit, count, at)
    }

    /// Iterations of the core at `coordinates`.
    pub fn iterations(&self, grid: &Grid, coordinates: &[u64]) -> BlockRange {
        let (count, at) = self.position(grid, coordinates);
        self.part(count, at)
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

impl Split {
    /// Whether its blocks are the elements of the dim, each once.
    pub fn is_plain(&self, extent: u64) -> bool {
        self.extent == extent && self.stride == 1 && self.low == 0 && self.high == 0
    }

    /// Whether every core holds the whole dim and nothing else.
    pub fn is_whole(&self, extent: u64) -> bool {
        self.axes.is_empty()
            && self.window_of(&(0..self.extent)) == (0..i64::try_from(extent).unwrap_or(i64::MAX))
    }
}

impl Layout {
    /// The same elements on the same cores, in the same order in memory, under another view of the
    /// same number of elements; `None` if the rule of balanced blocks cannot say it there.
    pub fn with_view(&self, view: &[u64]) -> Option<Self> {
        let product = |dims: &[u64]| dims.iter().map(|d| u128::from(*d)).product::<u128>();
        if *view == *self.view {
            return Some(self.clone());
        }
        if product(view) != product(&self.view) {
            return None;
        }
        let mut layout = Self {
            view: view.to_vec(),
            splits: view.iter().map(|e| Split::whole(*e)).collect(),
            ..self.clone()
        };
        let all_whole = self
            .splits
            .iter()
            .zip(&self.view)
            .all(|(s, e)| s.is_whole(*e));
        if all_whole {
            return Some(layout);
        }
        let real = |view: &[u64]| {
            (0..view.len())
                .filter(|d| view[*d] != 1)
                .collect::<Vec<_>>()
        };
        let (from, to) = (real(&self.view), real(view));
        if self.view.contains(&0)
            || self
                .splits
                .iter()
                .zip(&self.view)
                .any(|(s, e)| *e == 1 && !s.is_whole(1))
        {
            return None;
        }
        let (mut i, mut j) = (0, 0);
        while i < from.len() {
            // The shortest runs of dims on both sides with equal products.
            let (i0, j0) = (i, j);
            let (mut a, mut b) = (self.view[from[i]], *view.get(*to.get(j)?)?);
            (i, j) = (i + 1, j + 1);
            while a != b {
                if a < b {
                    a = a.checked_mul(self.view[*from.get(i)?])?;
                    i += 1;
                } else {
                    b = b.checked_mul(view[*to.get(j)?])?;
                    j += 1;
                }
            }
            let (run, target) = (&from[i0..i], &to[j0..j]);
            if run.iter().all(|d| self.splits[*d].is_whole(self.view[*d])) {
                continue;
            }
            let (first, rest) = run.split_first()?;
            let split = &self.splits[*first];
            if run.len() == 1 && target.len() == 1 {
                layout.splits[target[0]] = split.clone();
                continue;
            }
            let inner =
                |dims: &[usize], view: &[u64]| dims.iter().map(|d| view[*d]).product::<u64>();
            if !split.is_plain(self.view[*first])
                || rest
                    .iter()
                    .any(|d| !self.splits[*d].is_whole(self.view[*d]))
            {
                return None;
            }
            let unit = split.unit.checked_mul(inner(rest, &self.view))?;
            let width = inner(&target[1..], view);
            if unit % width != 0 {
                return None;
            }
            layout.splits[target[0]] =
                Split::over(split.axes.clone(), view[target[0]], unit / width);
        }
        Some(layout)
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
    use crate::entity::EntityId as _;

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
    fn a_layout_has_other_views() {
        let layout = |view: &[u64], dim: usize, unit: u64| {
            let mut layout = Layout::replicated(GridId::from_index(0), view);
            layout.splits[dim] = Split::over(vec![0], view[dim], unit);
            layout
        };
        let heads = layout(&[64, 8, 32], 1, 1);
        let merged = heads.with_view(&[64, 256]).unwrap();
        assert_eq!(merged, layout(&[64, 256], 1, 32));
        assert_eq!(
            merged.with_view(&[1, 64, 8, 32]),
            Some(layout(&[1, 64, 8, 32], 2, 1))
        );
        assert_eq!(heads.with_view(&[512, 32]), None);
        assert_eq!(layout(&[64, 256], 1, 16).with_view(&[64, 8, 32]), None);
        assert_eq!(
            layout(&[64, 256], 0, 2).with_view(&[16384]),
            Some(layout(&[16384], 0, 512))
        );
        assert_eq!(layout(&[6, 4], 0, 1).with_view(&[8, 3]), None);
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
