//! Reshards in two steps where one would be messages from every core to all others.

use std::ops::Range;

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::mesh::MAX_PEERS;
use dojoc_ir::tiled::{Grid, GridId, Layout, Split};

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
    let plain = |l: &Layout| l.splits.iter().zip(&l.view).all(|(s, e)| s.is_plain(*e));
    if !plain(from) || !plain(to) {
        return None;
    }
    let dims = || 0..from.view.len();
    let counts = |d: usize| (from.splits[d].parts(old), to.splits[d].parts(new));
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
