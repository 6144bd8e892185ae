//! Ways to split one node.

use std::sync::Arc;

use dojoc_ir::access::Affine;
use dojoc_ir::machine::Machine;
use dojoc_ir::tiled::{AxisLevel, Coalesced, GridId, Layout, LoopSplit, StepRule};

use super::cost;
use super::grids::Grids;
use super::problem::{Rule, Rules};
use super::traffic;

/// A way to split a node.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The rule whose loops are split.
    pub rule: Arc<Rule>,
    /// The cores.
    pub grid: GridId,
    /// The splits, by ascending loop.
    pub split: Vec<LoopSplit>,
    /// Cycles of the largest block.
    pub cycles: f64,
    /// What each operand needs.
    pub needs: Vec<Layout>,
}

/// Candidates that a node has by itself, at most.
const OWN: usize = 8;

impl Candidate {
    pub(super) fn new(
        rules: &Rules,
        rule: &Arc<Rule>,
        grid: GridId,
        mut split: Vec<LoopSplit>,
        grids: &Grids,
        machine: &Machine,
    ) -> Self {
        split.sort_by_key(|s| s.dim);
        let extents = largest_block(&rule.rule, &split, grids, grid);
        let cycles = cost::block_cycles(&rule.rule, &rules.args, &extents, machine);
        let needs = (0..rules.args.len())
            .map(|n| rule.rule.operand_layout(grid, &split, n))
            .collect();
        Self {
            rule: rule.clone(),
            grid,
            split,
            cycles,
            needs,
        }
    }
}

/// Iterations of each loop in the largest block.
fn largest_block(rule: &Coalesced, split: &[LoopSplit], grids: &Grids, grid: GridId) -> Vec<u64> {
    let mut extents = rule.extents();
    for s in split {
        let count: u64 = s.axes.iter().map(|a| grids[grid].axes[*a].size).product();
        let units = extents[s.dim].div_ceil(s.unit).div_ceil(count);
        extents[s.dim] = extents[s.dim].min(units * s.unit);
    }
    extents
}

/// Iterations in which blocks of a loop are balanced: macro tiles for rows and columns of
/// products, vectors for the innermost dim of a result.
fn unit(rule: &Coalesced, dim: usize, machine: &Machine) -> u64 {
    let StepRule::Loop(access) = &rule.rule else {
        return 1;
    };
    let extent = rule.extents()[dim];
    let wanted = match cost::contraction(access) {
        Some(operands) => {
            let roles = cost::roles(access, operands);
            let alone = |dims: &[usize]| dims == [dim];
            if alone(&roles.rows) {
                u64::from(machine.matrix.rows.value)
            } else if alone(&roles.columns) {
                u64::from(machine.matrix.columns.value)
            } else {
                1
            }
        }
        None => {
            let last = access.results.first().and_then(|w| w.index.last());
            let inner = last.is_some_and(|a: &Affine| a.terms == [(dim, 1)]);
            if inner {
                u64::from(machine.simd.f32_lanes.value)
            } else {
                1
            }
        }
    };
    if extent >= 4 * wanted { wanted } else { 1 }
}

/// Useful numbers of parts of a loop: those that make blocks smaller, at most `cores`, thinned out.
fn parts(extent: u64, unit: u64, cores: u64) -> Vec<u64> {
    let units = extent.div_ceil(unit);
    let mut parts: Vec<u64> = vec![];
    let mut count = units.min(cores);
    while count > 1 {
        // The fewest parts with blocks of this size.
        let exact = units.div_ceil(units.div_ceil(count));
        if parts.last() != Some(&exact) {
            parts.push(exact);
        }
        count = (exact - 1).min(exact * 5 / 6);
    }
    parts.push(1);
    parts
}

/// The best ways to split a node by themselves. `moves` says which operands have to come from other
/// cores (weights do not).
pub(super) fn own(
    rules: &Rules,
    moves: &[bool],
    grids: &mut Grids,
    machine: &Machine,
) -> Vec<Candidate> {
    let rule = &rules.widest;
    let extents = rule.rule.extents();
    let reduces = |d: usize| match &rule.rule.rule {
        StepRule::Loop(access) => access.dims[d].kind != dojoc_ir::access::DimKind::Parallel,
        StepRule::Kernel(_) => false,
    };
    let dims: Vec<(usize, u64)> = (0..extents.len())
        .filter(|d| extents[*d] > 1 && !reduces(*d) && rule.rule.is_splittable(*d))
        .map(|d| (d, unit(&rule.rule, d, machine)))
        .collect();
    let mut found: Vec<(f64, Candidate)> = vec![];
    for upper in spread(&dims, &extents, grids) {
        // What is left of a loop for the cores of a chip.
        let within: Vec<Vec<u64>> = (dims.iter())
            .map(|(d, unit)| {
                let above: u64 = upper.iter().filter(|u| u.1 == *d).map(|u| u.2).product();
                parts(extents[*d].div_ceil(above), *unit, grids.cores())
            })
            .collect();
        let mut counts = vec![1u64; dims.len()];
        let cores = grids.cores();
        enumerate(&within, 0, cores, &mut counts, &mut |counts| {
            let above = upper.iter().map(|(level, _, size)| (*level, *size));
            let core = counts.iter().map(|count| (AxisLevel::Core, *count));
            let grid = grids.of(&above.chain(core).collect::<Vec<_>>());
            let mut axis = upper.len();
            let mut split = vec![];
            for ((dim, unit), count) in dims.iter().zip(counts) {
                let of_dim = upper.iter().enumerate().filter(|(_, u)| u.1 == *dim);
                let mut axes: Vec<usize> = of_dim.map(|(axis, _)| axis).collect();
                if *count > 1 {
                    axes.push(axis);
                    axis += 1;
                }
                if !axes.is_empty() {
                    split.push(LoopSplit {
                        dim: *dim,
                        axes,
                        unit: *unit,
                    });
                }
            }
            let candidate = Candidate::new(rules, rule, grid, split, grids, machine);
            let gathered: f64 = (candidate.needs.iter().zip(moves).zip(&rules.args))
                .map(|((need, moves), ty)| {
                    let bytes =
                        traffic::window_elements(need, &grids[grid]) * ty.dtype.bytes() as f64;
                    if *moves { bytes } else { bytes * 0.02 }
                })
                .sum();
            let cycles = candidate.cycles + gathered / f64::from(machine.noc.beat.value);
            found.push((cycles, candidate));
        });
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Not all of one kind: ways that split the same loops over the same levels are limited.
    let mut kept: Vec<Candidate> = vec![];
    for (_, candidate) in found {
        let kind = |c: &Candidate| {
            let upper = grids[c.grid].axes.iter();
            let upper = upper.filter(|a| a.level != AxisLevel::Core).count();
            (upper, c.split.iter().map(|s| s.dim).collect::<Vec<_>>())
        };
        let alike = kept.iter().filter(|k| kind(k) == kind(&candidate)).count();
        if alike < 3 {
            kept.push(candidate);
        }
        if kept.len() == OWN {
            break;
        }
    }
    kept
}

/// An axis above cores: its level, the loop that it splits, its size.
type Upper = (AxisLevel, usize, u64);

/// Ways to split loops over tiles and chips: not at all, one loop over all of a level, or two.
fn spread(dims: &[(usize, u64)], extents: &[u64], grids: &Grids) -> Vec<Vec<Upper>> {
    let mut ways: Vec<Vec<Upper>> = vec![vec![]];
    for (level, most) in grids.upper() {
        let before = ways.clone();
        let fits = |way: &[Upper], d: usize, unit: u64, size: u64| {
            let above: u64 = way.iter().filter(|u| u.1 == d).map(|u| u.2).product();
            size > 1 && extents[d].div_ceil(unit) >= above.saturating_mul(size)
        };
        let side = (1..=most.isqrt())
            .rev()
            .find(|s| most % s == 0)
            .unwrap_or(1);
        for way in before {
            for (d, unit) in dims {
                if fits(&way, *d, *unit, most) {
                    ways.push([way.clone(), vec![(level, *d, most)]].concat());
                }
                for (e, other) in dims.iter().filter(|(e, _)| e != d) {
                    let (rows, columns) = (most / side, side);
                    if fits(&way, *d, *unit, rows) && fits(&way, *e, *other, columns) {
                        let pair = vec![(level, *d, rows), (level, *e, columns)];
                        ways.push([way.clone(), pair].concat());
                    }
                }
            }
        }
    }
    ways
}

fn enumerate(
    dims: &[Vec<u64>],
    at: usize,
    cores: u64,
    counts: &mut Vec<u64>,
    visit: &mut dyn FnMut(&[u64]),
) {
    let Some(parts) = dims.get(at) else {
        visit(counts);
        return;
    };
    for part in parts.iter().filter(|p| **p <= cores) {
        counts[at] = *part;
        enumerate(dims, at + 1, cores / part, counts, visit);
    }
    counts[at] = 1;
}

/// Ways to split a node as one of its operands is split: no data of that operand move, as far as the
/// rule allows it.
pub(super) fn following(
    rules: &Rules,
    operand: usize,
    layout: &Layout,
    grids: &Grids,
    machine: &Machine,
) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = vec![];
    let adapted = rules.adapted(operand, &layout.view).map(Arc::new);
    let rules_in_order = [
        Some(rules.widest.clone()),
        adapted,
        Some(rules.finest.clone()),
    ];
    for rule in rules_in_order.into_iter().flatten() {
        let Some(viewed) = layout.with_view(&rule.rule.operands[operand]) else {
            continue;
        };
        let split = project(&rule.rule, operand, &viewed);
        let complete = split.len() == viewed.splits.iter().filter(|s| !s.axes.is_empty()).count();
        let grid = layout.grid;
        if found
            .iter()
            .all(|c| c.split != split || c.rule.loops != rule.loops)
        {
            found.push(Candidate::new(rules, &rule, grid, split, grids, machine));
        }
        if complete {
            break;
        }
    }
    found
}

/// The loops that walk the split dims of an operand, split in the same way.
fn project(rule: &Coalesced, operand: usize, layout: &Layout) -> Vec<LoopSplit> {
    let mut split: Vec<LoopSplit> = vec![];
    for (t, s) in layout.splits.iter().enumerate() {
        if s.axes.is_empty() {
            continue;
        }
        let dim = match &rule.rule {
            StepRule::Kernel(kernel) => kernel
                .dims
                .iter()
                .position(|d| d.operands[operand] == Some(t)),
            StepRule::Loop(access) => {
                let terms = &access.operands[operand].index[t].terms;
                let parallel =
                    |d: usize| access.dims[d].kind == dojoc_ir::access::DimKind::Parallel;
                terms
                    .iter()
                    .find(|(d, c)| *c > 0 && parallel(*d))
                    .map(|(d, _)| *d)
            }
        };
        if let Some(dim) = dim
            && rule.is_splittable(dim)
            && rule.extents()[dim] > 1
            && split.iter().all(|other| other.dim != dim)
        {
            split.push(LoopSplit {
                dim,
                axes: s.axes.clone(),
                unit: s.unit,
            });
        }
    }
    split
}
