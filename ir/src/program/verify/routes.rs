//! Routes of channels over the mesh.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Family, FamilyId, Place, RouteOverride, RouteRule};
use super::channels::Channels;
use super::{Context, Violation, core_name};
use crate::codes;
use crate::machine::{CoreAddress, DeadRouter, Machine};

pub(super) fn check(cx: &mut Context<'_>, all: &[Channels]) {
    let program = cx.program;
    let mut sites = Sites {
        machine: cx.machine,
        dead: BTreeMap::new(),
    };
    for ((id, family), channels) in program.families.iter().zip(all) {
        let place = Place::Family(id);
        let overrides = &family.route.overrides;
        let ascending = overrides
            .windows(2)
            .all(|pair| (pair[0].sender, pair[0].port) < (pair[1].sender, pair[1].port));
        if !ascending {
            let message = "route overrides are not in ascending order of sender and port, one each";
            cx.report(Violation::new(codes::BAD_ROUTE, place, message));
        }
        for route in overrides {
            if let Err(why) = explicit(cx, family, channels, route, &mut sites) {
                let message = format!(
                    "the route of port {} of sender {} {why}",
                    route.port, route.sender
                );
                cx.report(Violation::new(codes::BAD_ROUTE, place, message));
            }
        }
        if cx.machine.harvest.router.value == DeadRouter::Dead {
            by_rule(cx, id, family, channels, &mut sites);
        }
    }
}

struct Sites<'m> {
    machine: &'m Machine,
    dead: BTreeMap<u32, Option<BTreeSet<(u32, u32)>>>,
}

impl Sites<'_> {
    /// Whether there is a site with a router that passes messages.
    fn passes(&mut self, site: CoreAddress) -> bool {
        let machine = self.machine;
        let exists = site.row < machine.noc.rows.value
            && site.column < machine.noc.columns.value
            && u64::from(site.chip) < machine.chips();
        exists
            && (machine.harvest.router.value == DeadRouter::PassThrough || {
                let dead = self.dead.entry(site.chip);
                let dead = dead.or_insert_with(|| machine.dead_sites(site.chip));
                !dead
                    .as_ref()
                    .is_some_and(|dead| dead.contains(&(site.row, site.column)))
            })
    }

    /// Row and column over all chips.
    fn position(&self, site: CoreAddress) -> Option<(u64, u64)> {
        let (row, column) = self.machine.chip_position(site.chip)?;
        Some((
            row * u64::from(self.machine.noc.rows.value) + u64::from(site.row),
            column * u64::from(self.machine.noc.columns.value) + u64::from(site.column),
        ))
    }

    fn at(&self, (row, column): (u64, u64)) -> Option<CoreAddress> {
        let (rows, columns) = (
            u64::from(self.machine.noc.rows.value),
            u64::from(self.machine.noc.columns.value),
        );
        Some(CoreAddress {
            chip: self.machine.chip_at(row / rows, column / columns)?,
            row: (row % rows) as u32,
            column: (column % columns) as u32,
        })
    }

    fn plane(&self, site: CoreAddress) -> Option<u64> {
        let (row, _) = self.machine.chip_position(site.chip)?;
        Some(row / (self.machine.chip_grid().0 / self.machine.planes()))
    }

    fn neighbours(&self, a: CoreAddress, b: CoreAddress) -> bool {
        if a.chip != b.chip && self.machine.boundary(a.chip, b.chip).is_none() {
            return false;
        }
        match (self.position(a), self.position(b)) {
            (Some(a), Some(b)) => a.0.abs_diff(b.0) + a.1.abs_diff(b.1) == 1,
            _ => false,
        }
    }
}

fn explicit(
    cx: &Context<'_>,
    family: &Family,
    channels: &Channels,
    route: &RouteOverride,
    sites: &mut Sites<'_>,
) -> Result<(), String> {
    let program = cx.program;
    let sender = program.regions[family.from].get(route.sender);
    let Some(sender) = sender.filter(|_| route.port < family.ports) else {
        return Err("belongs to no channel of the family".into());
    };
    let mut receivers = channels.receivers(route.sender as usize, route.port as usize);
    let (Some((receiver, _)), None) = (receivers.next(), receivers.next()) else {
        return Err("is not that of one channel with one receiver".into());
    };
    let receiver = program.regions[family.to].get(receiver as u64);
    if route.sites.first() != Some(&sender) {
        return Err(format!(
            "does not begin at its sender {}",
            core_name(sender)
        ));
    }
    if route.sites.last() != receiver.as_ref() {
        let receiver = receiver.map(core_name).unwrap_or_default();
        return Err(format!("does not end at its receiver {receiver}"));
    }
    for pair in route.sites.windows(2) {
        if !sites.neighbours(pair[0], pair[1]) {
            return Err(format!(
                "goes from {} to {}, which are not neighbours on one mesh",
                core_name(pair[0]),
                core_name(pair[1])
            ));
        }
    }
    match route.sites.iter().find(|site| !sites.passes(**site)) {
        Some(site) => Err(format!(
            "passes {}, which has no live router",
            core_name(*site)
        )),
        None => Ok(()),
    }
}

/// Routes by rule on a machine whose dead sites do not pass messages.
fn by_rule(
    cx: &mut Context<'_>,
    id: FamilyId,
    family: &Family,
    channels: &Channels,
    sites: &mut Sites<'_>,
) {
    let program = cx.program;
    let place = Place::Family(id);
    let explicit: BTreeSet<(u64, u32)> = family
        .route
        .overrides
        .iter()
        .map(|route| (route.sender, route.port))
        .collect();
    let to = &program.regions[family.to];
    for (index, sender) in program.regions[family.from].cores().enumerate() {
        for port in 0..family.ports {
            if explicit.contains(&(index as u64, port)) {
                continue;
            }
            for (receiver, _) in channels.receivers(index, port as usize) {
                let Some(receiver) = to.get(receiver as u64) else {
                    continue;
                };
                // Between planes messages leave the mesh.
                if sites.plane(sender) != sites.plane(receiver) {
                    continue;
                }
                let (Some(a), Some(b)) = (sites.position(sender), sites.position(receiver)) else {
                    continue;
                };
                if !cx.spend(a.0.abs_diff(b.0) + a.1.abs_diff(b.1) + 1, place) {
                    return;
                }
                if let Some(site) = blocked(sites, a, b, family.route.rule) {
                    let message = format!(
                        "the route from core {} to core {} passes {}, which has no live router",
                        core_name(sender),
                        core_name(receiver),
                        core_name(site)
                    );
                    let help = "give this channel a route of its own in `overrides`";
                    cx.report(Violation::new(codes::BAD_ROUTE, place, message).help(help));
                    return;
                }
            }
        }
    }
}

/// The first site on the way without a live router.
fn blocked(
    sites: &mut Sites<'_>,
    from: (u64, u64),
    to: (u64, u64),
    rule: RouteRule,
) -> Option<CoreAddress> {
    let toward = |a: u64, b: u64| match a.cmp(&b) {
        std::cmp::Ordering::Less => a + 1,
        std::cmp::Ordering::Equal => a,
        std::cmp::Ordering::Greater => a - 1,
    };
    let mut at = from;
    while at != to {
        let columns_first = rule == RouteRule::Xy;
        let along_row = at.1 != to.1 && (columns_first || at.0 == to.0);
        if along_row {
            at.1 = toward(at.1, to.1);
        } else {
            at.0 = toward(at.0, to.0);
        }
        let site = sites.at(at)?;
        if !sites.passes(site) {
            return Some(site);
        }
    }
    None
}
