//! The rule of exchanges: from two layouts of a tensor to the flows between cores that change one
//! into the other.

mod parts;
mod stages;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

pub use parts::{Part, parts_of, refine, storage_dims};
use stages::{Group, Piece, stages};

use super::Exchange;
use crate::entity::PrimaryMap;
use crate::tiled::{AxisLevel, Grid, GridId, Layout};

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
/// which a core would have more than [`MAX_PEERS`](super::MAX_PEERS) peers, senders and receivers
/// together, are cut into several.
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
    check(grids, from)?;
    check(grids, to)?;
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
        .all(|(s, extent)| s.is_plain(*extent));
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

/// That the blocks of a layout can be asked for.
fn check(grids: &PrimaryMap<GridId, Grid>, layout: &Layout) -> Result<(), Unroutable> {
    fn product(mut list: impl Iterator<Item = u64>) -> Option<u64> {
        list.try_fold(1, u64::checked_mul)
    }
    let grid = grids.get(layout.grid).ok_or(Unroutable::Mismatch)?;
    let cores = product(grid.axes.iter().map(|a| a.size)).ok_or(Unroutable::TooMany)?;
    if cores > MAX_PARTS as u64 {
        return Err(Unroutable::TooMany);
    }
    let mut used = vec![];
    let splits = layout.splits.iter();
    let plausible = splits.clone().all(|s| s.unit > 0 && s.stride > 0)
        && (splits.flat_map(|s| &s.axes)).all(|axis| {
            let is_new = *axis < grid.axes.len() && !used.contains(axis);
            used.push(*axis);
            is_new
        });
    let elements = product(layout.view.iter().copied());
    let countable = elements.is_some_and(|n| i64::try_from(n).is_ok());
    let fits = layout.splits.len() == layout.view.len();
    match plausible && countable && fits && cores > 0 {
        true => Ok(()),
        false => Err(Unroutable::Mismatch),
    }
}

/// Blocks, as start and end in each dim, with the cores that hold them.
type Blocks = BTreeMap<Vec<(u64, u64)>, Vec<u32>>;

/// The blocks of a layout that are not empty, with the numbers of the cores that hold them.
fn holders(grids: &PrimaryMap<GridId, Grid>, layout: &Layout) -> Result<Blocks, Unroutable> {
    let grid = grids.get(layout.grid).ok_or(Unroutable::Mismatch)?;
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
