use std::collections::BTreeSet;

use dojoc_ir::entity::{EntityId, PrimaryMap};
use dojoc_ir::machine::Machine;
use dojoc_ir::mesh::{Exchange, MAX_PEERS};
use dojoc_ir::tiled::{Axis, AxisLevel, Grid, GridId, Layout, Pending, Split};

use super::*;

fn grid(first: u64, sizes: &[u64]) -> Grid {
    let axis = |(i, size): (usize, &u64)| Axis {
        name: format!("a{i}").into(),
        size: *size,
        level: AxisLevel::Core,
    };
    Grid {
        name: "g".into(),
        first,
        axes: sizes.iter().enumerate().map(axis).collect(),
    }
}

pub(crate) fn grids(list: &[(u64, &[u64])]) -> PrimaryMap<GridId, Grid> {
    let mut grids = PrimaryMap::new();
    for (first, sizes) in list {
        grids.push(grid(*first, sizes));
    }
    grids
}

/// A layout of a view with axes for each dim.
pub(crate) fn layout(grid: usize, view: &[u64], axes: &[&[usize]]) -> Layout {
    let mut layout = Layout::replicated(GridId::from_index(grid), view);
    for (d, axes) in axes.iter().enumerate() {
        layout.splits[d] = Split::over(axes.to_vec(), view[d], 1);
    }
    layout
}

/// Flat elements of a box.
fn elements(start: &[u64], size: &[u64], view: &[u64]) -> Vec<usize> {
    let mut all = vec![0];
    for (d, extent) in view.iter().enumerate() {
        let next = |at: &u64| {
            let at = at * extent + start[d];
            at..at + size[d]
        };
        all = all.iter().flat_map(next).collect();
    }
    all.into_iter().map(|at| at as usize).collect()
}

/// What each core has under a layout, by core and element.
fn held(grids: &PrimaryMap<GridId, Grid>, layout: &Layout, cores: usize) -> Vec<Vec<bool>> {
    let total = layout.view.iter().product::<u64>() as usize;
    let mut held = vec![vec![false; total]; cores];
    let grid = &grids[layout.grid];
    for index in 0..grid.size() {
        let block = layout.block(grid, &grid.coordinates(index));
        let start: Vec<u64> = block.iter().map(|r| r.start).collect();
        let size: Vec<u64> = block.iter().map(|r| r.end - r.start).collect();
        for at in elements(&start, &size, &layout.view) {
            held[(grid.first + index) as usize][at] = true;
        }
    }
    held
}

/// Makes the exchange and carries it out: it is complete, nothing arrives twice or without need,
/// senders have what they send, nobody has too many peers.
fn checked(grids: &PrimaryMap<GridId, Grid>, from: &Layout, to: &Layout) -> Exchange {
    let exchange = exchange(grids, from, to).unwrap();
    let cores = grids
        .values()
        .map(|g| (g.first + g.size()) as usize)
        .max()
        .unwrap();
    let old = held(grids, from, cores);
    let wanted = held(grids, to, cores);
    let mut new = vec![vec![false; wanted[0].len()]; cores];
    for stage in &exchange.stages {
        let mut arrived = vec![];
        let mut peers = vec![BTreeSet::new(); cores];
        for flow in stage {
            let (sender, receiver) = (flow.from as usize, flow.to as usize);
            let source = if flow.forwarded { &new } else { &old };
            for at in elements(&flow.start, &flow.size, &exchange.view) {
                assert!(
                    source[sender][at],
                    "core {sender} sends {at}, which it does not have"
                );
                assert!(
                    sender == receiver || !old[receiver][at],
                    "{receiver} has {at}"
                );
                arrived.push((receiver, at));
            }
            if sender != receiver {
                peers[sender].insert(receiver);
                peers[receiver].insert(sender);
            }
        }
        assert!(peers.iter().all(|p| p.len() <= MAX_PEERS));
        for (core, at) in arrived {
            assert!(!new[core][at], "{at} arrives at core {core} again");
            new[core][at] = true;
        }
    }
    assert!(new == wanted, "{from:?} to {to:?}");
    exchange
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    /// The same elements with neighbours merged at random.
    pub(crate) fn view(&mut self, extents: &[u64]) -> Vec<u64> {
        let mut view = vec![extents[0]];
        for extent in &extents[1..] {
            match view.last_mut() {
                Some(last) if self.below(3) == 0 => *last *= extent,
                _ => view.push(*extent),
            }
        }
        view
    }

    pub(crate) fn layout(&mut self, id: usize, grid: &Grid, view: &[u64], halo: bool) -> Layout {
        let mut axes = vec![vec![]; view.len() + 1];
        for axis in 0..grid.axes.len() {
            axes[self.below(view.len() as u64 + 1) as usize].push(axis);
        }
        let mut layout = Layout::replicated(GridId::from_index(id), view);
        for (d, extent) in view.iter().enumerate() {
            if self.below(2) == 0 {
                axes[d].reverse();
            }
            let mut split = Split::over(axes[d].clone(), *extent, 1 + self.below(3));
            if halo {
                (split.low, split.high) = (self.below(3) as i64, self.below(3) as i64);
            }
            layout.splits[d] = split;
        }
        layout
    }
}

#[test]
fn random_layouts_are_exchanged() {
    let shapes: [&[u64]; 8] = [
        &[18, 19],
        &[354],
        &[4, 4],
        &[6, 59],
        &[2, 3, 5],
        &[3, 1, 40],
        &[17],
        &[1],
    ];
    let mut random = Random(7);
    for round in 0..150 {
        let extents: Vec<u64> = (0..1 + random.below(4))
            .map(|_| 1 + random.below(7))
            .collect();
        let (a, b) = (random.view(&extents), random.view(&extents));
        let mut pick = || {
            let shape = shapes[random.below(shapes.len() as u64) as usize];
            (random.below(3) * 2, shape)
        };
        let (first, second) = (pick(), pick());
        let second = if round % 2 == 0 { first } else { second };
        let grids = grids(&[first, second]);
        let id = usize::from(round % 4 == 1);
        let from = random.layout(0, &grids[GridId::from_index(0)], &a, round % 5 == 0);
        let to = random.layout(id, &grids[GridId::from_index(id)], &b, round % 3 == 0);
        checked(&grids, &from, &to);
    }
}

#[test]
fn views_without_refinement_are_exchanged() {
    let grids = grids(&[(0, &[6, 8])]);
    let from = layout(0, &[5, 6, 4], &[&[], &[0], &[]]);
    let to = layout(0, &[5, 8, 3], &[&[], &[1], &[]]);
    let exchange = checked(&grids, &from, &to);
    assert_eq!(exchange.view, [5, 24]);
}

#[test]
fn same_blocks_stay_where_they_are() {
    let grids = grids(&[(0, &[18, 19])]);
    let split = layout(0, &[100, 64], &[&[0], &[1]]);
    let slice = layout(0, &[100, 64], &[&[0], &[]]);
    for exchange in [
        checked(&grids, &split, &split),
        checked(&grids, &slice, &split),
    ] {
        assert_eq!((exchange.stages.len(), messages(&exchange)), (1, 0));
    }
}

#[test]
fn all_gather_goes_by_rows_and_columns() {
    let grids = grids(&[(0, &[354])]);
    let from = layout(0, &[354 * 4], &[&[0]]);
    let to = layout(0, &[354 * 4], &[&[]]);
    let exchange = checked(&grids, &from, &to);
    assert_eq!(exchange.stages.len(), 2);
    assert_eq!(bytes_moved(&exchange, 2), 354 * 353 * 4 * 2);
    // Rows have 19 or 20 cores; a column's message may come in two boxes.
    let most = |core: u32| {
        let of_core = |f: &&dojoc_ir::mesh::Flow| f.from == core && f.to != core;
        exchange.stages.iter().flatten().filter(of_core).count()
    };
    assert!(
        (0..354).all(|core| most(core) <= 19 + 2 * 18),
        "{}",
        messages(&exchange)
    );
}

#[test]
fn broadcast_is_cut_and_passed_on() {
    let grids = grids(&[(0, &[354]), (5, &[1])]);
    let from = layout(1, &[64, 128], &[]);
    let to = layout(0, &[64, 128], &[]);
    let exchange = checked(&grids, &from, &to);
    assert_eq!(exchange.stages.len(), 3);
    assert_eq!(bytes_moved(&exchange, 1), 353 * 64 * 128);
    // No core sends more than a few times the whole.
    for core in 0..354 {
        let sent = exchange
            .stages
            .iter()
            .flatten()
            .filter(|f| f.from == core && f.to != core);
        let sent: u64 = sent.map(|f| f.elements()).sum();
        assert!(sent <= 3 * 64 * 128, "core {core} sends {sent}");
    }
}

#[test]
fn replicas_share_the_sending() {
    // Every row of cores has all; new blocks are over both axes.
    let grids = grids(&[(0, &[8, 8]), (64, &[64])]);
    let from = layout(0, &[640], &[&[1]]);
    let to = layout(1, &[640], &[&[0]]);
    let exchange = checked(&grids, &from, &to);
    for core in 0..64 {
        let sent = exchange.stages.iter().flatten().filter(|f| f.from == core);
        assert_eq!(sent.map(|f| f.elements()).sum::<u64>(), 10, "core {core}");
    }
}

#[test]
fn all_to_all_has_a_layout_in_between() {
    let grids = grids(&[(0, &[18, 19]), (0, &[342])]);
    let from = layout(1, &[684, 400], &[&[0], &[]]);
    let to = layout(1, &[684, 400], &[&[], &[0]]);
    let direct = exchange(&grids, &from, &to).unwrap();
    let between = factor(&grids, &from, &to).unwrap();
    assert_eq!(between, layout(0, &[684, 400], &[&[0], &[1]]));
    let (first, second) = (
        exchange(&grids, &from, &between).unwrap(),
        exchange(&grids, &between, &to).unwrap(),
    );
    assert!(messages(&first) + messages(&second) < messages(&direct) / 5);
    assert!(
        bytes_moved(&first, 1) + bytes_moved(&second, 1) < 2 * bytes_moved(&direct, 1) + 684 * 400
    );
    assert_eq!(factor(&grids, &from, &from), None);
    assert_eq!(
        factor(&grids, &from, &layout(1, &[684, 400], &[&[], &[]])),
        None
    );
}

#[test]
fn what_cannot_be_routed_is_told() {
    let grids = grids(&[(0, &[4])]);
    let whole = layout(0, &[12], &[]);
    let mut pending = whole.clone();
    pending.pending.push(Pending {
        axis: 0,
        monoid: dojoc_ir::access::Monoid::Sum,
    });
    assert_eq!(exchange(&grids, &pending, &whole), Err(Unroutable::Pending));
    assert_eq!(
        exchange(&grids, &whole, &layout(0, &[13], &[])),
        Err(Unroutable::Mismatch)
    );
    let mut gap = layout(0, &[12], &[&[0]]);
    gap.splits[0].high = -1;
    assert_eq!(exchange(&grids, &gap, &whole), Err(Unroutable::Missing));
}

#[test]
fn estimates_rank_as_costs_do() {
    let machine = Machine::parse(Machine::builtin("d1").unwrap(), "d1").unwrap();
    let places = machine.live_cores(0).unwrap();
    let grids = grids(&[(0, &[6, 59])]);
    let view = [1416, 708];
    let rows = layout(0, &view, &[&[0, 1], &[]]);
    let coarse = layout(0, &view, &[&[0], &[]]);
    let both = layout(0, &view, &[&[0], &[1]]);
    let whole = layout(0, &view, &[&[], &[]]);
    let mut halo = rows.clone();
    (halo.splits[0].low, halo.splits[0].high) = (1, 1);
    // From cheap to dear.
    let pairs = [
        (&rows, &rows),
        (&rows, &halo),
        (&rows, &both),
        (&rows, &coarse),
        (&rows, &whole),
    ];
    let costs = pairs.map(|(a, b)| cost(&exchange(&grids, a, b).unwrap(), 2, &machine, &places));
    let estimates = pairs.map(|(a, b)| estimate(&grids, a, b, 2, &machine));
    for (list, name) in [(costs, "cost"), (estimates, "estimate")] {
        assert!(list.is_sorted(), "{name}: {list:?}");
    }
    for (cost, estimate) in costs.iter().zip(estimates) {
        let ratio = *cost as f64 / estimate as f64;
        assert!((0.2..5.0).contains(&ratio), "{costs:?} {estimates:?}");
    }
}
