//! That exchanges carry out their reshards: what every core gets is its block, each element once, and
//! comes from cores that have it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use foldhash::{HashSet, HashSetExt as _};

use super::super::route::{Part, parts_of, storage_dims};
use super::super::{Exchange, Flow, MAX_PEERS, Schedule};
use super::{Entity, Verifier};
use crate::codes;
use crate::tiled::{Grid, Layout, Reshard, Stmt};

/// Boxes of one block under the view of an exchange.
const MAX_PARTS: usize = 1 << 20;

impl Verifier<'_> {
    pub(super) fn exchanges(&mut self, schedule: &Schedule) {
        let body = &self.function.bodies[self.function.body()];
        let mut seen = BTreeSet::new();
        // Reshards between the same layouts share their exchange, which is checked once.
        let mut sound = HashSet::new();
        for (number, (at, exchange)) in schedule.exchanges.iter().enumerate() {
            let entity = Entity::Exchange(self.id, number);
            let Some(Stmt::Reshard(reshard)) = body.stmts.get(*at) else {
                let message = format!("statement {at} is not a reshard");
                self.report(entity, codes::BAD_EXCHANGE, message);
                continue;
            };
            if !seen.insert(*at) {
                let message = format!("the reshard of statement {at} has an exchange already");
                self.report(entity, codes::BAD_EXCHANGE, message);
            }
            let [from, to] = [reshard.input, reshard.output].map(|v| &self.function.values[v]);
            let key = (Arc::as_ptr(exchange), &from.layout, &to.layout);
            if sound.contains(&key) {
                continue;
            }
            if let Err((code, message)) = self.exchange(schedule, reshard, exchange) {
                let message = format!("{} in statement {at}: {message}", self.name(reshard.output));
                self.report(entity, code, message);
            } else {
                sound.insert(key);
            }
        }
        for (at, stmt) in body.stmts.iter().enumerate() {
            if let (Stmt::Reshard(reshard), false) = (stmt, seen.contains(&at)) {
                let name = self.name(reshard.output);
                let message = format!("nothing brings {name} in statement {at}");
                self.report(Entity::Schedule(self.id), codes::BAD_EXCHANGE, message);
            }
        }
    }

    /// The first thing that is wrong with an exchange.
    fn exchange(
        &self,
        schedule: &Schedule,
        reshard: &Reshard,
        exchange: &Exchange,
    ) -> Result<(), (u16, String)> {
        let side = |v| {
            let layout = &self.function.values[v].layout;
            Side::new(
                layout,
                &self.module.tiled.grids[layout.grid],
                &exchange.view,
            )
        };
        let wrong = |message: &str| (codes::BAD_EXCHANGE, message.to_owned());
        let unfit = || wrong("its view does not refine those of the layouts");
        let from = side(reshard.input).ok_or_else(unfit)?;
        let to = side(reshard.output).ok_or_else(unfit)?;
        if !from.layout.pending.is_empty() {
            return Err(wrong(
                "contributions are to be combined, which moving them does not do",
            ));
        }
        let place = |core: u32| match schedule.places.get(core as usize) {
            Some(place) => format!("core {core} at {place}"),
            None => format!("core {core}"),
        };
        // What each core has got so far, and before the stage.
        let mut arrived = BTreeMap::<u32, Vec<&Flow>>::new();
        for (stage, flows) in exchange.stages.iter().enumerate() {
            peers(flows).map_err(|core| {
                let message = format!(
                    "stage {stage}: {} has more than {MAX_PEERS} peers",
                    place(core)
                );
                (codes::BAD_EXCHANGE, message)
            })?;
            for flow in flows {
                let wrong = |what: &str| {
                    let (start, size) = (&flow.start, &flow.size);
                    let ends = format!("{} to {}", place(flow.from), place(flow.to));
                    let message =
                        format!("stage {stage}, {ends}: the box at {start:?} of {size:?} {what}");
                    (codes::BAD_FLOW, message)
                };
                if !lies_in(flow, &exchange.view) {
                    return Err(wrong("does not lie in the tensor"));
                }
                let has = match flow.forwarded {
                    true => (arrived.get(&flow.from))
                        .is_some_and(|got| covered(flow, got.iter().map(|f| (&f.start, &f.size)))),
                    false => from.has(flow.from, flow),
                };
                if !has {
                    return Err(wrong("is not what the sender has"));
                }
                if !to.has(flow.to, flow) {
                    return Err(wrong("is not what the receiver needs"));
                }
            }
            for flow in flows {
                arrived.entry(flow.to).or_default().push(flow);
            }
        }
        for core in to.cores() {
            let got = arrived.get(&core).map_or(&[][..], Vec::as_slice);
            let needed = to.elements(core);
            let found = got
                .iter()
                .map(|f| f.elements())
                .fold(0, u64::saturating_add);
            let twice = overlap(got);
            if found == needed && twice.is_none() {
                continue;
            }
            let place = place(core);
            let message = match twice {
                Some(at) => format!("{place} gets the element {at:?} twice"),
                None => format!("{place} gets {found} of the {needed} elements of its block"),
            };
            return Err((codes::NOT_DELIVERED, message));
        }
        Ok(())
    }
}

/// A core with too many peers in one direction.
fn peers(flows: &[Flow]) -> Result<(), u32> {
    let between = flows.iter().filter(|f| f.from != f.to);
    let pairs: BTreeSet<(u32, u32)> = between.map(|f| (f.from, f.to)).collect();
    let mut counts = BTreeMap::<(bool, u32), usize>::new();
    for (from, to) in pairs {
        for end in [(false, from), (true, to)] {
            let count = counts.entry(end).or_default();
            *count += 1;
            if *count > MAX_PEERS {
                return Err(end.1);
            }
        }
    }
    Ok(())
}

/// Whether the box of a flow is one of a view.
fn lies_in(flow: &Flow, view: &[u64]) -> bool {
    let mut dims = flow.start.iter().zip(&flow.size).zip(view);
    flow.start.len() == view.len()
        && flow.size.len() == view.len()
        && dims.all(|((start, size), extent)| {
            *size > 0 && start.checked_add(*size).is_some_and(|end| end <= *extent)
        })
}

/// Number of elements that a flow and a box have in common.
fn common(flow: &Flow, start: &[u64], size: &[u64]) -> u64 {
    let mut elements = 1;
    for d in 0..start.len() {
        let low = flow.start[d].max(start[d]);
        let high = (flow.start[d] + flow.size[d]).min(start[d] + size[d]);
        elements *= high.saturating_sub(low);
    }
    elements
}

/// Whether disjoint boxes have all of a flow.
fn covered<'b>(flow: &Flow, boxes: impl Iterator<Item = (&'b Vec<u64>, &'b Vec<u64>)>) -> bool {
    boxes
        .map(|(start, size)| common(flow, start, size))
        .sum::<u64>()
        == flow.elements()
}

/// An element that two of the flows have.
fn overlap(flows: &[&Flow]) -> Option<Vec<u64>> {
    let mut flows = flows.to_vec();
    flows.sort_by(|a, b| a.start.cmp(&b.start));
    for (n, a) in flows.iter().enumerate() {
        let end = a.start.first().map_or(1, |start| start + a.size[0]);
        let next = flows[n + 1..].iter();
        let mut next = next.take_while(|b| b.start.first().is_none_or(|start| *start < end));
        if let Some(b) = next.find(|b| common(a, &b.start, &b.size) > 0) {
            let pairs = a.start.iter().zip(&b.start);
            return Some(pairs.map(|(a, b)| *a.max(b)).collect());
        }
    }
    None
}

/// A layout under the view of an exchange.
struct Side<'a> {
    layout: &'a Layout,
    /// The boxes of each block, by its ranges.
    blocks: BTreeMap<Vec<(u64, u64)>, Vec<Part>>,
    /// The block of each core.
    of: BTreeMap<u32, Vec<(u64, u64)>>,
}

impl<'a> Side<'a> {
    /// `None` if the view does not refine that of the layout.
    fn new(layout: &'a Layout, grid: &Grid, view: &[u64]) -> Option<Self> {
        let mut side = Self {
            layout,
            blocks: BTreeMap::new(),
            of: BTreeMap::new(),
        };
        if layout.view.contains(&0) {
            return Some(side);
        }
        storage_dims(&layout.view, view)?;
        for index in 0..grid.size() {
            let block = layout.block(grid, &grid.coordinates(index));
            if block.iter().any(Range::is_empty) {
                continue;
            }
            let key: Vec<(u64, u64)> = block.iter().map(|r| (r.start, r.end)).collect();
            if !side.blocks.contains_key(&key) {
                let parts = parts_of(&block, &layout.view, view, MAX_PARTS)?;
                side.blocks.insert(key.clone(), parts);
            }
            let core = u32::try_from(grid.first.checked_add(index)?).ok()?;
            side.of.insert(core, key);
        }
        Some(side)
    }

    fn has(&self, core: u32, flow: &Flow) -> bool {
        let parts = self.of.get(&core).and_then(|key| self.blocks.get(key));
        parts.is_some_and(|parts| covered(flow, parts.iter().map(|p| (&p.start, &p.size))))
    }

    /// The cores that have elements.
    fn cores(&self) -> Vec<u32> {
        self.of.keys().copied().collect()
    }

    /// Number of elements of a core's block.
    fn elements(&self, core: u32) -> u64 {
        let block = self.of.get(&core).into_iter().flatten();
        block.map(|(start, end)| end - start).product()
    }
}
