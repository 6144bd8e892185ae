//! What exchanges cost.

use std::collections::BTreeMap;

use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::machine::{CoreAddress, Machine};
use dojoc_ir::mesh::{Exchange, Flow};
use dojoc_ir::program::Packing;
use dojoc_ir::program::ViewType;
use dojoc_ir::program::instr::network::{data_beats, post_cost, receive_cost, send_cost};
use dojoc_ir::program::instr::{Cost, Instr, data};
use dojoc_ir::tiled::{Grid, GridId, Layout, Split};
use dojoc_ir::types::DType;

/// Bytes that an exchange of elements of this size moves between cores.
pub fn bytes_moved(exchange: &Exchange, elem_bytes: u64) -> u64 {
    let elements: u64 = moved(exchange).map(Flow::elements).sum();
    elements.saturating_mul(elem_bytes)
}

/// Messages of an exchange.
pub fn messages(exchange: &Exchange) -> u64 {
    moved(exchange).count() as u64
}

fn moved(exchange: &Exchange) -> impl Iterator<Item = &Flow> {
    exchange
        .stages
        .iter()
        .flatten()
        .filter(|flow| flow.from != flow.to)
}

/// Cycles that an exchange takes, where logical core `n` is at `places[n]`. For each stage: what the
/// busiest core issues, injects, ejects or copies, or the busiest link carries on routes along rows
/// first, and the latency of one slot's request and its message over the longest way. Cores without
/// a place count as if they were at the first one.
pub fn cost(
    exchange: &Exchange,
    elem_bytes: u64,
    machine: &Machine,
    places: &[CoreAddress],
) -> u64 {
    let stages = exchange.stages.iter();
    stages
        .map(|stage| stage_cycles(stage, elem_bytes, machine, places))
        .sum::<f64>()
        .ceil() as u64
}

fn stage_cycles(stage: &[Flow], elem_bytes: u64, machine: &Machine, places: &[CoreAddress]) -> f64 {
    let mut cores: BTreeMap<u32, Cost> = BTreeMap::new();
    let mut links: BTreeMap<(Site, Site), u64> = BTreeMap::new();
    let mut latency = 0f64;
    let site = |core: u32| -> Site {
        let place = places.get(core as usize).or(places.first());
        place.map_or((0, 0), |place| (place.row, place.column))
    };
    for flow in stage {
        let bytes = flow.elements().saturating_mul(elem_bytes);
        if flow.from == flow.to {
            occupy(
                cores.entry(flow.to).or_default(),
                &copy_cost(bytes, machine),
            );
            continue;
        }
        let (send, receive) = (send_cost(bytes, 1, machine), receive_cost(bytes, machine));
        occupy(cores.entry(flow.from).or_default(), &send);
        occupy(cores.entry(flow.to).or_default(), &receive);
        occupy(cores.entry(flow.to).or_default(), &post_cost(machine));
        let (from, to) = (site(flow.from), site(flow.to));
        let beats = data_beats(bytes, machine) + u64::from(machine.noc.request_packet.value);
        let hops = route(from, to, |link| *links.entry(link).or_default() += beats);
        // The slot's request travels back, then the message forth.
        let way = 2.0 * f64::from(hops) * f64::from(machine.noc.hop.value);
        latency = latency.max(way + send.latency + receive.latency);
    }
    let busiest = cores
        .values()
        .map(|cost| cost.alone(machine))
        .fold(0.0, f64::max);
    let link = links.values().max().copied().unwrap_or(0) as f64 / link_beats(machine);
    busiest.max(link) + latency
}

/// Row and column.
type Site = (u32, u32);

/// Calls `link` for each link from a site to another one, along the row first; returns their
/// number.
fn route(from: Site, to: Site, mut link: impl FnMut((Site, Site))) -> u32 {
    let step = |at: u32, to: u32| if at < to { at + 1 } else { at - 1 };
    let (mut at, mut hops) = (from, 0);
    while at != to {
        let next = match at.1 == to.1 {
            true => (step(at.0, to.0), at.1),
            false => (at.0, step(at.1, to.1)),
        };
        link((at, next));
        (at, hops) = (next, hops + 1);
    }
    hops
}

/// Beats per cycle of a link.
fn link_beats(machine: &Machine) -> f64 {
    f64::from(machine.noc.link.value) / f64::from(machine.noc.beat.value)
}

/// Adds what something occupies, without its latency.
fn occupy(sum: &mut Cost, cost: &Cost) {
    sum.issue += cost.issue;
    sum.simd += cost.simd;
    sum.load += cost.load;
    sum.store += cost.store;
    sum.inject += cost.inject;
    sum.eject += cost.eject;
}

/// A copy of neighbouring bytes inside a core.
fn copy_cost(bytes: u64, machine: &Machine) -> Cost {
    let Some(view) = ViewType::dense(DType::U8, &[bytes], Packing::Strided) else {
        return Cost::default();
    };
    Instr::from(data::Copy {}).cost(&[view.clone(), view], machine)
}

/// Roughly the cycles of an exchange from one layout to another one, in closed form: a bound on what
/// the core that gets most has to take, the messages that it takes part in, and how far they
/// travel. Meant for comparing layouts; [`cost`] of the [`exchange`](super::exchange()) says it
/// exactly. Pending contributions count as elements to be fetched.
pub fn estimate(
    grids: &PrimaryMap<GridId, Grid>,
    from: &Layout,
    to: &Layout,
    elem_bytes: u64,
    machine: &Machine,
) -> u64 {
    let (Some(old), Some(new)) = (grids.get(from.grid), grids.get(to.grid)) else {
        return u64::MAX;
    };
    let (needed, held, sources) = overlap(old, new, from, to);
    let contributions: u64 = from.pending.iter().map(|p| old.axes[p.axis].size).product();
    let fetched = (needed - held) * contributions as f64 + held * (contributions - 1) as f64;
    if fetched < 1.0 {
        return copy_cost((needed * elem_bytes as f64) as u64, machine).alone(machine) as u64;
    }
    let sources = sources.max(1.0) * contributions as f64;
    // Larger numbers of messages go by rows and columns.
    let messages = if sources > 64.0 {
        2.0 * sources.sqrt()
    } else {
        sources
    };
    let bytes = (fetched * elem_bytes as f64).ceil();
    let per_message = (bytes / messages).ceil() as u64;
    let mut core = Cost::default();
    let (send, receive) = (
        send_cost(per_message, 1, machine),
        receive_cost(per_message, machine),
    );
    for cost in [send, receive, post_cost(machine)] {
        occupy(&mut core, &cost);
    }
    let busiest = core.alone(machine) * messages;
    // Routes of random pairs in a square: two thirds of a side in all, over four links per core.
    let side = (old.size().max(new.size()) as f64).sqrt();
    let hops = 1.0 + side * 2.0 / 3.0;
    let beats = data_beats(bytes as u64, machine) as f64 + messages;
    let links = beats * hops / (4.0 * link_beats(machine));
    let latency = 2.0 * hops * f64::from(machine.noc.hop.value) + send.latency + receive.latency;
    (busiest.max(links) + latency).ceil() as u64
}

/// Elements of the largest block that is needed, how many of them a core holds already, and from
/// how many cores the rest comes.
fn overlap(old: &Grid, new: &Grid, from: &Layout, to: &Layout) -> (f64, f64, f64) {
    // Elements of a dim's largest block.
    let block = |split: &Split, extent: u64, grid: &Grid| -> f64 {
        let units = split
            .extent
            .div_ceil(split.unit)
            .div_ceil(split.parts(grid).max(1));
        let iterations = units.saturating_mul(split.unit).min(split.extent) as f64;
        let window = (iterations - 1.0) * split.stride as f64 + 1.0;
        (window + split.low as f64 + split.high as f64).clamp(0.0, extent as f64)
    };
    let blocks = |layout: &Layout, grid: &Grid| -> Vec<f64> {
        let dims = layout.splits.iter().zip(&layout.view);
        dims.map(|(split, extent)| block(split, *extent, grid))
            .collect()
    };
    let (had, wanted) = (blocks(from, old), blocks(to, new));
    let needed: f64 = wanted.iter().product();
    let total: f64 = to.view.iter().map(|e| *e as f64).product();
    let source: f64 = had.iter().product();
    if from.view != to.view || from.grid != to.grid {
        let held = needed * source / total.max(1.0);
        let is_whole = source >= total && (old.first..old.first + old.size()).contains(&new.first);
        return (
            needed,
            if is_whole { needed } else { held },
            (needed / source.max(1.0)).ceil(),
        );
    }
    let mut held = 1.0;
    let mut sources = 1.0;
    for (d, extent) in to.view.iter().enumerate() {
        let (a, b) = (&from.splits[d], &to.splits[d]);
        let extent = (*extent as f64).max(1.0);
        let aligned = a.axes.starts_with(&b.axes) || b.axes.starts_with(&a.axes);
        held *= match aligned {
            true => had[d].min(wanted[d]),
            false => had[d] * wanted[d] / extent,
        };
        let spans = (wanted[d] / had[d].max(1.0)).ceil();
        // A block that is a little larger than the old one reaches into neighbours on both sides.
        sources *= if a.axes == b.axes && wanted[d] > had[d] {
            spans + 1.0
        } else {
            spans
        };
    }
    (needed, held, (sources - 1.0).max(1.0))
}
