//! What a change of layout costs, estimated from the layouts alone: the search asks this very often.

use dojoc_ir::machine::Machine;
use dojoc_ir::tiled::{Grid, Layout, Split};

use super::grids::Grids;

/// Cycles that a message costs a core beside its beats: a slot, a send, a receipt, and often a copy
/// to where it belongs.
const MESSAGE: f64 = 40.0;
/// Cycles that an exchange costs beside its messages: its call, and waiting for the slowest.
const EXCHANGE: f64 = 400.0;

/// Whether each core has in `have` all that it needs for `need`, both on one grid and under one view,
/// and `need` has no elements outside the tensor.
pub(super) fn covers(have: &Layout, need: &Layout, grids: &Grids) -> bool {
    have.grid == need.grid
        && have.view == need.view
        && have.pending.is_empty()
        && !pads(need, &grids[need.grid])
        && (have.splits.iter().zip(&need.splits).zip(&need.view))
            .all(|((a, b), extent)| a == b || a.is_whole(*extent))
}

/// Whether windows reach over the edge of the tensor, so that what is there must be filled in.
pub(super) fn pads(layout: &Layout, grid: &Grid) -> bool {
    layout
        .splits
        .iter()
        .zip(&layout.view)
        .any(|(split, extent)| {
            if split.is_plain(*extent) {
                return false;
            }
            let count: u64 = split.axes.iter().map(|a| grid.axes[*a].size).product();
            (0..count).any(|at| {
                let window = split.window_of(&split.part(count, at));
                window.start < 0 || u64::try_from(window.end).is_ok_and(|end| end > *extent)
            })
        })
}

/// The same without elements outside the tensor in dims that are not split.
pub(super) fn unpadded(layout: &Layout) -> Layout {
    let mut layout = layout.clone();
    for (split, extent) in layout.splits.iter_mut().zip(&layout.view) {
        if split.axes.is_empty() {
            *split = Split::whole(*extent);
        }
    }
    layout
}

/// Elements of the largest window.
pub(super) fn window_elements(layout: &Layout, grid: &Grid) -> f64 {
    layout
        .largest_window(grid)
        .iter()
        .map(|e| *e as f64)
        .product()
}

/// Cycles to change one layout into another, for elements of `width` bytes: beats that the core
/// that receives most takes in, and the start-up of its messages.
pub(super) fn estimate(
    have: &Layout,
    need: &Layout,
    width: u64,
    grids: &Grids,
    machine: &Machine,
) -> f64 {
    let grid = &grids[need.grid];
    let needed = window_elements(need, grid);
    let viewed = have.with_view(&need.view);
    let (held, messages) = match &viewed {
        Some(have) => shares(have, need, grids),
        None => {
            let block = window_elements(have, &grids[have.grid]).max(1.0);
            (0.0, 2.0 * (needed / block).ceil() + 1.0)
        }
    };
    let beat = f64::from(machine.noc.beat.value);
    let copy = needed * width as f64 / f64::from(machine.sram.load_port.value);
    if held >= 1.0 {
        return copy + 20.0;
    }
    let received = needed * (1.0 - held) * width as f64 / beat;
    let crowd = (messages / 48.0).max(1.0);
    let diameter = f64::from(machine.noc.rows.value + machine.noc.columns.value);
    copy + received * crowd.min(2.0) + MESSAGE * messages + diameter * crowd + EXCHANGE
}

/// The share of what a core needs that it holds, and the messages it gets.
fn shares(have: &Layout, need: &Layout, grids: &Grids) -> (f64, f64) {
    let same_grid = have.grid == need.grid;
    let (from, to) = (&grids[have.grid], &grids[need.grid]);
    let (mut held, mut messages) = (1.0, 1.0);
    let windows = need.largest_window(to);
    let blocks = have.largest_window(from);
    for (t, extent) in need.view.iter().enumerate() {
        let (a, b) = (&have.splits[t], &need.splits[t]);
        if a.is_whole(*extent) {
            continue;
        }
        let (window, block) = (windows[t] as f64, (blocks[t] as f64).max(1.0));
        if a.axes == b.axes && same_grid {
            let inside = (block / window.max(1.0)).min(1.0);
            held *= inside;
            messages *= 1.0 + ((window - block) / block).ceil().clamp(0.0, 64.0);
        } else {
            held *= (block / *extent as f64).min(1.0);
            messages *= (window / block).ceil() + if window > block { 0.0 } else { 0.5 };
        }
    }
    if !same_grid {
        // By chance a core has a part, which does not help the one that has none.
        held = held.min(0.0);
        if have
            .splits
            .iter()
            .zip(&have.view)
            .all(|(s, e)| s.is_whole(*e))
            && from.size() >= to.size()
        {
            held = 1.0;
        }
    }
    (held, messages)
}
