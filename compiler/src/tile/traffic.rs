//! What a change of layout costs, estimated from the layouts alone: the search asks this very often.

use dojoc_ir::machine::{Boundary, Machine};
use dojoc_ir::tiled::{AxisLevel, Grid, Layout, Split};

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

/// The layout between its uses of a weight whose elements have so many bytes: split over the cores that
/// would hold the same part, if that part has more bytes than the limit.
pub(super) fn at_rest(mut layout: Layout, width: u64, limit: Option<u64>, grids: &Grids) -> Layout {
    let Some(limit) = limit else {
        return layout;
    };
    let grid = &grids[layout.grid];
    let windows = layout.largest_window(grid);
    let bytes = windows.iter().product::<u64>().saturating_mul(width);
    let axes = layout.replicated_axes(grid);
    if axes.is_empty() || bytes <= limit {
        return layout;
    }
    // The outermost dim that gives every core a part keeps parts contiguous.
    let parts: u64 = axes.iter().map(|a| grid.axes[*a].size).product();
    let plain = |t: &usize| layout.splits[*t].is_plain(layout.view[*t]);
    let wide = (0..layout.view.len())
        .filter(plain)
        .find(|t| windows[*t] >= parts);
    let largest = || {
        (0..layout.view.len())
            .filter(plain)
            .max_by_key(|t| windows[*t])
    };
    if let Some(t) = wide.or_else(largest) {
        layout.splits[t].axes.extend(axes);
        layout.splits[t].unit = 1;
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
    let crossing = crossing(have, need, width, grids, machine);
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
        return copy + 20.0 + crossing;
    }
    let received = needed * (1.0 - held) * width as f64 / beat;
    let crowd = (messages / 48.0).max(1.0);
    let diameter = f64::from(machine.noc.rows.value + machine.noc.columns.value);
    copy + received * crowd.min(2.0) + MESSAGE * messages + diameter * crowd + EXCHANGE + crossing
}

/// Cycles until a chip has what it needs of what other chips hold, all of which comes in over one of
/// its edges.
fn crossing(have: &Layout, need: &Layout, width: u64, grids: &Grids, machine: &Machine) -> f64 {
    let (from, to) = (&grids[have.grid], &grids[need.grid]);
    let upper = |grid: &Grid, axes: &[usize]| -> Vec<(AxisLevel, u64)> {
        let axes = axes.iter().map(|a| &grid.axes[*a]);
        let axes = axes.filter(|axis| axis.level != AxisLevel::Core);
        axes.map(|axis| (axis.level, axis.size)).collect()
    };
    let all = |grid: &Grid| upper(grid, &(0..grid.axes.len()).collect::<Vec<_>>());
    let levels = [all(from), all(to)].concat();
    if levels.is_empty() {
        return 0.0;
    }
    let chips = |axes: &[(AxisLevel, u64)]| axes.iter().map(|a| a.1 as f64).product::<f64>();
    let elements: f64 = need.view.iter().map(|e| *e as f64).product();
    let parts: f64 = (need.splits.iter())
        .map(|s| chips(&upper(to, &s.axes)))
        .product();
    let held: f64 = match have.with_view(&need.view) {
        // Some chip has nothing yet.
        _ if chips(&all(to)) > chips(&all(from)) => 0.0,
        None => 0.0,
        Some(have) => (have.splits.iter().zip(&need.splits))
            .map(|(a, b)| {
                let (a, b) = (upper(from, &a.axes), upper(to, &b.axes));
                if a == b { 1.0 } else { 1.0 / chips(&a) }
            })
            .product(),
    };
    if held >= 1.0 {
        return 0.0;
    }
    let boundary = match levels.iter().any(|(level, _)| *level == AxisLevel::Tile) {
        true => Boundary::Tile,
        false => Boundary::Chip,
    };
    let rate = machine.edge_beats(boundary) * f64::from(machine.noc.beat.value);
    let bytes = elements / parts * (1.0 - held) * width as f64;
    bytes / rate + f64::from(machine.crossing_cycles(boundary))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(edge: f64) -> Machine {
        let text = format!(
            r#"
            base = "mesh4x4"
            summary = "two chips"
            [sources]
            invented = "for tests"
            [chip]
            edge = {{ value = {edge:.1}, unit = "GB/s", source = "invented", confidence = "P" }}
            [tile]
            rows = {{ value = 2, unit = "chips", source = "invented", confidence = "P" }}
            columns = {{ value = 1, unit = "chips", source = "invented", confidence = "P" }}
            chip_edge = {{ value = 1.0, unit = "GB/s", source = "invented", confidence = "P" }}
            crossing = {{ value = 7, unit = "cycles", source = "invented", confidence = "P" }}
            power = {{ value = 50.0, unit = "W", source = "invented", confidence = "P" }}
            "#
        );
        Machine::parse(&text, "two").unwrap()
    }

    #[test]
    fn what_crosses_chips_goes_at_the_rate_of_their_edge() {
        let (fast, slow) = (machine(512.0), machine(128.0));
        let mut grids = Grids::new(&fast, None);
        let grid = grids.of(&[(AxisLevel::Chip, 2), (AxisLevel::Core, 4)]);
        let alone = grids.of(&[(AxisLevel::Core, 4)]);
        let on = |grid, axes: [&[usize]; 2]| {
            let mut layout = Layout::replicated(grid, &[64, 64]);
            for (split, axes) in layout.splits.iter_mut().zip(axes) {
                *split = Split::over(axes.to_vec(), 64, 1);
            }
            layout
        };
        let cost = |a: &Layout, b: &Layout, m: &Machine| crossing(a, b, 4, &grids, m);
        let rows = on(grid, [&[0, 1], &[]]);
        // Each chip lacks half of its half, or the half that the other one has.
        let columns = on(grid, [&[], &[0, 1]]);
        let whole = Layout::replicated(grid, &[64, 64]);
        let latency = f64::from(fast.chip.crossing.value);
        for (to, bytes) in [(&columns, 4096.0), (&whole, 8192.0)] {
            for m in [&fast, &slow] {
                let rate = m.chip.edge.value / m.core.clock.value;
                let expected = bytes / rate + latency;
                assert!((cost(&rows, to, m) - expected).abs() < 1e-9);
            }
        }
        // Nothing crosses between the cores of chips, from whole tensors, or on one chip.
        assert_eq!(cost(&rows, &on(grid, [&[0], &[1]]), &slow), 0.0);
        assert_eq!(cost(&whole, &columns, &slow), 0.0);
        let (a, b) = (on(alone, [&[0], &[]]), on(alone, [&[], &[0]]));
        assert_eq!(cost(&a, &b, &slow), 0.0);
        // A second chip has nothing of what one chip holds.
        assert!(cost(&a, &rows, &slow) > latency);
        // The estimate of a reshard contains it.
        let of = |m: &Machine| estimate(&rows, &columns, 4, &grids, m);
        let difference = cost(&rows, &columns, &slow) - cost(&rows, &columns, &fast);
        assert!((of(&slow) - of(&fast) - difference).abs() < 1e-9);
    }
}
