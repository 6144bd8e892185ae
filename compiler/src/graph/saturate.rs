//! Equality saturation: replaces regions by equal forms that cost less.
//!
//! Notation: a *region* here is a run of 50 to 400 nodes, or a layer that recurs; regions of
//! control-flow ops are cut into such runs of their own. The rules of [`crate::rewrite::rules`] are
//! applied to a region everywhere and again until nothing new is found or a limit is reached, all
//! forms being kept. The cheapest by bounds of single ops, on the target or on D1 where there is none
//! yet, are proposed, if they save a thousandth; the search of the mapper plans them and the region as
//! it is, and takes the best ([`Planner`]), so that nothing becomes worse by its prices. Regions that are equal but for the values of their weights are done
//! once. Rules may compute with weights: what depends on weights alone becomes a weight, at most
//! `saturate_bytes` large, `saturate_total_bytes` together.
//!
//! Before: verified. After: the same values, within the roundings that ops declare; nodes that were
//! replaced are left to `dead-code`. Cost: limited by counts of e-nodes and rounds, never by time, so
//! the result depends on the input alone.

use std::borrow::Cow;

use dojoc_ir::diag::{Diagnostic, Diagnostics, Kind};
use dojoc_ir::graph::Module;
use dojoc_ir::machine::Machine;

use super::edit::rewrite;
use crate::pass::{Effect, Extraction, PASS_FAILED, Pass, PassCx};
use crate::rewrite::cost::{NodeCost, Roofline};
use crate::rewrite::rule::Limits;
use crate::rewrite::stitch::{Bounds, PlanError, Plans, Stitch};
use crate::rewrite::{Offline, RegionStats};
use crate::tile::Planner;

/// Replaces regions by equal, cheaper forms.
pub const PASS: Pass<Module> = Pass {
    name: "saturate",
    doc: "Replaces regions by the cheapest of the equal forms that rules find.",
    effect: Effect::Bounded,
    run,
};

/// Points of the loops of one node that is computed when compiling, at most.
const OFFLINE_POINTS: u64 = 1 << 25;

/// The limits that users decided.
fn bounds(cx: &PassCx<'_>) -> Bounds {
    Bounds {
        offline: Offline {
            bytes: cx.options.saturate_bytes,
            points: OFFLINE_POINTS,
        },
        limits: Limits {
            nodes: cx.options.saturate_nodes,
            rounds: cx.options.saturate_rounds,
        },
    }
}

/// The machine whose prices decide.
fn machine<'m>(cx: &PassCx<'m>) -> Result<Cow<'m, Machine>, Diagnostics> {
    if let Some(machine) = cx.machine {
        return Ok(Cow::Borrowed(machine));
    }
    let text = Machine::builtin("d1").unwrap_or_default();
    let parsed = Machine::parse(text, "d1");
    parsed
        .map(Cow::Owned)
        .map_err(|_| bug("the machine d1 can not be read"))
}

fn bug(message: impl Into<String>) -> Diagnostics {
    Diagnostic::new(PASS_FAILED, Kind::Bug, message).into()
}

fn plans(module: &Module, cx: &PassCx<'_>) -> Result<Plans, Diagnostics> {
    let machine = machine(cx)?;
    let (bounds_only, planner) = (Roofline::new(&machine), Planner::new(&machine));
    let prices: &dyn NodeCost = match cx.options.extraction {
        Extraction::Bounds => &bounds_only,
        Extraction::Planned | Extraction::Keep => &planner,
    };
    let plans = Plans::new(module, prices, bounds(cx), &|| cx.check_cancelled());
    plans.map_err(|error| match error {
        PlanError::Rule(message) => bug(message),
        PlanError::Cancelled(diagnostics) => diagnostics,
    })
}

/// What the pass would do: for every distinct region, in order, what saturation found, and how many
/// regions are equal to it.
///
/// # Errors
/// As for the pass.
pub fn survey(module: &Module, cx: &PassCx<'_>) -> Result<Vec<(RegionStats, usize)>, Diagnostics> {
    Ok(plans(module, cx)?.stats)
}

fn run(module: Module, cx: &mut PassCx<'_>) -> Result<Module, Diagnostics> {
    if cx.options.extraction == Extraction::Keep {
        return Ok(module);
    }
    let bounds = bounds(cx);
    let plans = plans(&module, cx)?;
    let mut stitch = Stitch::new(&plans, bounds.offline, cx.options.saturate_total_bytes);
    rewrite(module, cx, &mut |e, node, cx| {
        stitch.visit(e, node, &mut || cx.spend())
    })
}
