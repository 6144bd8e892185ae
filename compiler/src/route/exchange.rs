//! From two layouts of a tensor to the flows between cores that change one into the other.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::mesh::{Exchange, MAX_PEERS};
use dojoc_ir::tiled::{AxisLevel, Grid, GridId, Layout, Split};

use super::parts::{Part, parts_of, refine};
use super::stages::{Group, Piece, stages};

/// Flows and boxes of one exchange.
const MAX_PARTS: usize = 1 << 20;

/// Why no exchange changes one layout into another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unroutable {
    /// The value is a combination of contributions: it must be reduced, not moved.
    Pending,
    /// The layouts are of tensors with different numbers of elements, or their fields disagree.
    Mismatch,
    /// A grid runs over more than one chip.
    Chips,
    /// A core needs elements that no core has.
    Missing,
    /// More boxes than an exchange may have.
    TooMany,
}

impl fmt::Display for Unroutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str(
                "the value has pending contributions: these are combined by a reduction, which an \
                 exchange is not",
            ),
            Self::Mismatch => f.write_str("the two layouts are not of one tensor"),
            Self::Chips => {
                f.write_str("a grid has axes over chips or tiles, which have no routes yet")
            }
            Self::Missing => f.write_str("the new layout needs elements that no core holds"),
            Self::TooMany => write!(
                f,
                "the new layout differs from the old one in more than {MAX_PARTS} boxes of \
                 elements; align their splits, or go over a layout in between"
            ),
        }
    }
}

impl std::error::Error for Unroutable {}

/// The flows of a reshard from one layout to another one of the same tensor.
///
/// What a core has in its old block is copied inside the core. A core that sends what several cores
/// have is chosen so that all send alike, near ones first. Where many cores need the same elements,
/// these go to one of them, from there to those that form a row with it, and from them along
/// columns, so that every element arrives once at each core and nobody sends to many. Stages in
/// which a core would have more than [`MAX_PEERS`] peers, senders and receivers together, are cut
/// into several.
///
/// # Errors
/// See [`Unroutable`].
pub fn exchange(
    grids: &PrimaryMap<GridId, Grid>,
    from: &Layout,
    to: &Layout,
) -> Result<Exchange, Unroutable> {
    if !from.pending.is_empty() || !to.pending.is_empty() {
        return Err(Unroutable::Pending);
    }
    let old = holders(grids, from)?;
    let new = holders(grids, to)?;
    let view = refine(&from.view, &to.view).ok_or(Unroutable::Mismatch)?;
    if view.contains(&0) {
        return Ok(Exchange {
            view,
            stages: vec![],
        });
    }
    let parts = |layout: &Layout, block: &[(u64, u64)]| {
        let block: Vec<Range<u64>> = block.iter().map(|(start, end)| *start..*end).collect();
        parts_of(&block, &layout.view, &view, MAX_PARTS).ok_or(Unroutable::TooMany)
    };
    let source = |(block, cores): (Vec<(u64, u64)>, Vec<u32>)| {
        let (parts, holders) = (parts(from, &block)?, cores.into());
        Ok(Source { parts, holders })
    };
    let sources = old.into_iter().map(source).collect::<Result<Vec<_>, _>>()?;
    let is_partition = from
        .splits
        .iter()
        .zip(&from.view)
        .all(|(s, extent)| is_plain(s, *extent));
    let mut groups = vec![];
    let mut count = 0usize;
    for (block, members) in new {
        let needed = parts(to, &block)?;
        let pieces = match is_partition {
            true => intersections(&needed, &sources),
            false => cells(needed, &sources)?,
        };
        count = count.saturating_add(pieces.len().saturating_mul(members.len()));
        if count > MAX_PARTS {
            return Err(Unroutable::TooMany);
        }
        groups.push(Group { members, pieces });
    }
    Ok(Exchange {
        view,
        stages: stages(groups),
    })
}

fn is_plain(split: &Split, extent: u64) -> bool {
    (split.extent, split.stride, split.low, split.high) == (extent, 1, 0, 0)
}

/// Blocks, as start and end in each dim, with the cores that hold them.
type Blocks = BTreeMap<Vec<(u64, u64)>, Vec<u32>>;

/// The blocks of a layout that are not empty, with the numbers of the cores that hold them.
fn holders(grids: &PrimaryMap<GridId, Grid>, layout: &Layout) -> Result<Blocks, Unroutable> {
    let grid = grids.get(layout.grid).ok_or(Unroutable::Mismatch)?;
    if layout.splits.len() != layout.view.len() {
        return Err(Unroutable::Mismatch);
    }
    if grid
        .axes
        .iter()
        .any(|axis| axis.level != AxisLevel::Core && axis.size > 1)
    {
        return Err(Unroutable::Chips);
    }
    let mut blocks = Blocks::new();
    for index in 0..grid.size() {
        let block = layout.block(grid, &grid.coordinates(index));
        if block.iter().any(Range::is_empty) {
            continue;
        }
        let core = grid
            .first
            .checked_add(index)
            .and_then(|core| u32::try_from(core).ok());
        let key = block.iter().map(|range| (range.start, range.end)).collect();
        blocks
            .entry(key)
            .or_default()
            .push(core.ok_or(Unroutable::TooMany)?);
    }
    Ok(blocks)
}

/// A block as boxes, and the cores that hold it.
struct Source {
    parts: Vec<Part>,
    holders: Rc<[u32]>,
}

/// What disjoint sources have of `needed`.
fn intersections(needed: &[Part], sources: &[Source]) -> Vec<Piece> {
    let mut pieces = vec![];
    for source in sources {
        for part in needed
            .iter()
            .flat_map(|n| source.parts.iter().map(move |s| n.intersection(s)))
        {
            pieces.extend(part.map(|part| Piece {
                part,
                holders: source.holders.clone(),
            }));
        }
    }
    pieces
}

/// As [`intersections`] for sources that overlap or leave gaps: boxes that each source has as a whole
/// or not at all.
fn cells(needed: Vec<Part>, sources: &[Source]) -> Result<Vec<Piece>, Unroutable> {
    let mut cells: Vec<(Part, Vec<u32>)> = needed.into_iter().map(|part| (part, vec![])).collect();
    for source in sources {
        for part in &source.parts {
            let mut next = Vec::with_capacity(cells.len());
            for (cell, mut holders) in cells {
                let Some(common) = cell.intersection(part) else {
                    next.push((cell, holders));
                    continue;
                };
                let rest = cell.without(&common).into_iter();
                next.extend(rest.map(|rest| (rest, holders.clone())));
                holders.extend(source.holders.iter());
                next.push((common, holders));
            }
            cells = next;
        }
        if cells.len() > MAX_PARTS {
            return Err(Unroutable::TooMany);
        }
    }
    let piece = |(part, mut holders): (Part, Vec<u32>)| {
        holders.sort_unstable();
        let holders: Rc<[u32]> = holders.into();
        (!holders.is_empty()).then_some(Piece { part, holders })
    };
    cells
        .into_iter()
        .map(piece)
        .collect::<Option<_>>()
        .ok_or(Unroutable::Missing)
}

/// A layout between two layouts of a tensor whose split moves from one dim to another one: both
/// dims are split, each over a part of the axes. So an exchange in which every core would send to
/// all others becomes two of about the square root of as many messages. `None` where every core has
/// few peers already, where nothing of this kind happens, or where no grid of these cores has two
/// axes.
pub fn factor(grids: &PrimaryMap<GridId, Grid>, from: &Layout, to: &Layout) -> Option<Layout> {
    let same_cores = |a: &Grid, b: &Grid| (a.first, a.size()) == (b.first, b.size());
    let (old, new) = (grids.get(from.grid)?, grids.get(to.grid)?);
    let pending = !from.pending.is_empty() || !to.pending.is_empty();
    if from.view != to.view || pending || !same_cores(old, new) || new.size() <= MAX_PEERS as u64 {
        return None;
    }
    let plain = |l: &Layout| l.splits.iter().zip(&l.view).all(|(s, e)| is_plain(s, *e));
    if !plain(from) || !plain(to) {
        return None;
    }
    let count = |split: &Split, grid: &Grid| -> u64 {
        split
            .axes
            .iter()
            .filter_map(|a| grid.axes.get(*a))
            .map(|a| a.size)
            .product()
    };
    let dims = || 0..from.view.len();
    let counts = |d: usize| (count(&from.splits[d], old), count(&to.splits[d], new));
    let mut changed = dims().filter(|d| counts(*d).0 != counts(*d).1);
    let (one, other) = (changed.next()?, changed.next()?);
    let (left, joined) = match (counts(one), counts(other)) {
        ((_, 1), (1, _)) => (one, other),
        ((1, _), (_, 1)) => (other, one),
        _ => return None,
    };
    // Other dims would need axes of their own.
    let others_split = dims().any(|d| d != left && d != joined && counts(d) != (1, 1));
    if changed.next().is_some() || others_split {
        return None;
    }
    // The cut of a grid's axes whose two products are closest to each other.
    let cuts = grids
        .iter()
        .filter(|(_, grid)| same_cores(grid, new))
        .flat_map(|(id, grid)| {
            (1..grid.axes.len()).map(move |cut| {
                let major: u64 = grid.axes[..cut].iter().map(|a| a.size).product();
                let minor: u64 = grid.axes[cut..].iter().map(|a| a.size).product();
                (major.max(minor), id, cut, grid.axes.len())
            })
        });
    let (most, grid, cut, axes) = cuts.min()?;
    if most > MAX_PEERS as u64 || most == new.size() {
        return None;
    }
    let mut between = Layout::replicated(grid, &from.view);
    between.packing = from.packing;
    between.micro_batch = from.micro_batch;
    // Coarse blocks of both dims, aligned with the fine ones as far as units allow.
    let split = |axes: Range<usize>, like: &Split| Split {
        axes: axes.collect(),
        ..like.clone()
    };
    between.splits[left] = split(0..cut, &from.splits[left]);
    between.splits[joined] = split(cut..axes, &to.splits[joined]);
    Some(between)
}
