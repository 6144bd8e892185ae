//! Regions: every core exists, is alive and occurs once. And: is this the machine of the program?

use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashSet, HashSetExt as _};

use super::super::{CoreBox, Place, RegionId, Span};
use super::{Context, Violation, core_name};
use crate::codes;
use crate::machine::CoreAddress;

pub(super) fn check(cx: &mut Context<'_>) {
    machine(cx);
    // Boxes share chips, and drawing a chip's mask is not free.
    let mut dead = BTreeMap::new();
    for (id, _) in cx.program.regions.iter() {
        region(cx, id, &mut dead);
    }
}

fn machine(cx: &mut Context<'_>) {
    let (wanted, machine) = (&cx.program.machine, cx.machine);
    let help = "compile or assemble for this machine, or give the other one's description";
    if *wanted.name != *machine.name {
        let message = format!(
            "the program is made for machine \"{}\", this is \"{}\"",
            wanted.name, machine.name
        );
        let violation = Violation::new(codes::MACHINE_MISMATCH, Place::Program, message).help(help);
        cx.report(violation);
    } else if wanted.fingerprint != 0 && wanted.fingerprint != machine.fingerprint() {
        let message = format!(
            "the program is made for machine \"{}\" with fingerprint {:032x}, this one has {:032x}",
            wanted.name,
            wanted.fingerprint,
            machine.fingerprint()
        );
        let violation = Violation::new(codes::MACHINE_MISMATCH, Place::Program, message).help(help);
        cx.report(violation);
    }
}

/// Dead sites by chip; `None` where there is no such chip.
type Dead = BTreeMap<u32, Option<BTreeSet<(u32, u32)>>>;

fn region(cx: &mut Context<'_>, id: RegionId, dead: &mut Dead) {
    let region = &cx.program.regions[id];
    let place = Place::Region(id);
    let bad = |message: String| Violation::new(codes::BAD_REGION, place, message);
    if region.is_empty() {
        cx.report(bad("has no cores".into()));
        return;
    }
    if region.len() > cx.machine.sites() {
        let (cores, sites) = (region.len(), cx.machine.sites());
        cx.report(bad(format!(
            "has {cores} cores, the machine has {sites} sites"
        )));
        return;
    }
    let mut sound = true;
    for (at, b) in region.boxes.iter().enumerate() {
        if b.is_empty() {
            cx.report(bad(format!("box {at} has no cores")));
            sound = false;
        } else if let Some(message) = outside(cx, b) {
            cx.report(bad(format!("box {at}: {message}")));
            sound = false;
        }
    }
    if !sound {
        return;
    }
    let machine = cx.machine;
    let (mut holes, mut example) = (0u64, None);
    for b in &region.boxes {
        for chip in (0..b.chips.count).filter_map(|p| b.chips.get(p)) {
            let sites = dead.entry(chip).or_insert_with(|| machine.dead_sites(chip));
            for (row, column) in sites.iter().flatten() {
                let inside =
                    b.rows.position(*row).is_some() && b.columns.position(*column).is_some();
                if inside {
                    holes += 1;
                    let (row, column) = (*row, *column);
                    example.get_or_insert(CoreAddress { chip, row, column });
                }
            }
        }
    }
    if let Some(core) = example {
        let more = match holes {
            1 => String::new(),
            _ => format!(" ({holes} such sites)"),
        };
        let message = format!("there is no live core at {}{more}", core_name(core));
        let help = "split the box around the holes; `dojoc machine` lists them";
        cx.report(bad(message).help(help));
    }
    if let Some(core) = repeated(&region.boxes) {
        cx.report(bad(format!("core {} occurs twice", core_name(core))));
    }
}

/// How a box leaves the machine.
fn outside(cx: &Context<'_>, b: &CoreBox) -> Option<String> {
    let (rows, columns) = (cx.machine.noc.rows.value, cx.machine.noc.columns.value);
    let spans = [
        ("chips", &b.chips, cx.machine.chips()),
        ("rows", &b.rows, rows.into()),
        ("columns", &b.columns, columns.into()),
    ];
    for (what, span, limit) in spans {
        if span.step == 0 && span.count > 1 {
            return Some(format!("{what} have a step of 0"));
        }
        let last = i64::from(span.start) + (i64::from(span.count) - 1) * i64::from(span.step);
        for end in [i64::from(span.start), last] {
            if end < 0 || end.unsigned_abs() >= limit {
                return Some(format!(
                    "{what} reach {end}, the machine has 0 to {}",
                    limit - 1
                ));
            }
        }
    }
    None
}

/// Whether the ranges that two spans lie in have something in common.
fn hulls_meet(a: &Span, b: &Span) -> bool {
    let hull = |s: &Span| {
        let last = i64::from(s.start) + (i64::from(s.count) - 1) * i64::from(s.step);
        (i64::from(s.start).min(last), i64::from(s.start).max(last))
    };
    let (a, b) = (hull(a), hull(b));
    a.0 <= b.1 && b.0 <= a.1
}

/// A core that two boxes share. A box alone has each core once, as no step is 0.
fn repeated(boxes: &[CoreBox]) -> Option<CoreAddress> {
    // Sorted by first chip row, most pairs of boxes are told apart at once; boxes whose hulls
    // meet are compared core by core.
    let mut suspects = BTreeSet::new();
    let hull = |b: &CoreBox| {
        let last =
            i64::from(b.chips.start) + (i64::from(b.chips.count) - 1) * i64::from(b.chips.step);
        let start = i64::from(b.chips.start);
        (start.min(last), start.max(last))
    };
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by_key(|at| hull(&boxes[*at]));
    let mut open: Vec<usize> = Vec::new();
    // All-pairs work is bounded: beyond that, every box is a suspect.
    let mut budget = 1u64 << 22;
    for at in order {
        let start = hull(&boxes[at]).0;
        open.retain(|other| hull(&boxes[*other]).1 >= start);
        budget = budget.saturating_sub(open.len() as u64);
        if budget == 0 {
            suspects.extend(0..boxes.len());
            break;
        }
        for other in &open {
            let (a, b) = (&boxes[at], &boxes[*other]);
            if hulls_meet(&a.chips, &b.chips)
                && hulls_meet(&a.rows, &b.rows)
                && hulls_meet(&a.columns, &b.columns)
            {
                suspects.extend([at, *other]);
            }
        }
        open.push(at);
    }
    let mut seen = HashSet::new();
    suspects
        .into_iter()
        .flat_map(|at| (0..boxes[at].len()).filter_map(move |position| boxes[at].get(position)))
        .find(|core| !seen.insert(*core))
}
