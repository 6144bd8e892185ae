//! The channels of families: who sends to whom.

use std::rc::Rc;

use foldhash::{HashMap, HashMapExt as _};

use super::super::instr::Stmt;
use super::super::{Family, FamilyId, IndexEnv, Place, RegionId};
use super::structure::MAX_PORTS;
use super::{Context, Violation, core_name};
use crate::codes;
use crate::machine::{CoreAddress, Multicast};

/// Channels of one family that the verifier enumerates.
const MAX_CHANNELS: u64 = 1 << 24;

/// Peers that a core may have open in one call, over all families.
const MAX_PEERS: usize = 64;

/// No channel.
const NONE: u32 = u32::MAX;

/// The channels of one family.
pub(super) struct Channels {
    ports: usize,
    branches: usize,
    /// Receiver and its port, by sender, port and branch; [`NONE`] where there is none.
    peers: Vec<(u32, u8)>,
    /// Ports with a channel by sender, a bit each.
    pub outgoing: Vec<u64>,
    /// Ports with a channel by receiver, a bit each.
    pub incoming: Vec<u64>,
}

impl Channels {
    /// Receivers of a channel with their ports, by index.
    pub fn receivers(&self, sender: usize, port: usize) -> impl Iterator<Item = (usize, usize)> {
        let at = (sender * self.ports + port) * self.branches;
        let list = self.peers.get(at..at + self.branches).unwrap_or_default();
        list.iter()
            .filter(|(peer, _)| *peer != NONE)
            .map(|(peer, port)| (*peer as usize, usize::from(*port)))
    }
}

/// The channels of all families; `None` if something is wrong with one of them.
pub(super) fn check(cx: &mut Context<'_>) -> Option<Vec<Channels>> {
    let program = cx.program;
    let all: Vec<Option<Channels>> = program
        .families
        .iter()
        .map(|(id, family)| channels(cx, id, family))
        .collect();
    let all = all.into_iter().collect::<Option<Vec<_>>>()?;
    open_peers(cx, &all);
    Some(all)
}

fn channels(cx: &mut Context<'_>, id: FamilyId, family: &Family) -> Option<Channels> {
    let program = cx.program;
    let place = Place::Family(id);
    let bad = |message: String| Violation::new(codes::BAD_CHANNEL, place, message);
    if family.branches > 1 && cx.machine.noc.multicast.value != Multicast::Tree {
        let message = "has several branches, but this machine's routers do not multicast";
        cx.report(bad(message.into()).help("relay: each receiver sends on to the next"));
        return None;
    }
    let (from, to) = (&program.regions[family.from], &program.regions[family.to]);
    let per_sender = u64::from(family.ports) * u64::from(family.branches);
    let count = from.len().saturating_mul(per_sender);
    if count > MAX_CHANNELS {
        let message =
            format!("has {count} channels, more than the {MAX_CHANNELS} that are checked");
        cx.report(Violation::new(codes::UNDECIDED, place, message).help("split the family"));
        return None;
    }
    if !cx.spend(count, place) {
        return None;
    }
    let mut channels = Channels {
        ports: family.ports as usize,
        branches: family.branches as usize,
        peers: Vec::with_capacity(count as usize),
        outgoing: vec![0; from.len() as usize],
        incoming: vec![0; to.len() as usize],
    };
    for (sender, core) in from.cores().enumerate() {
        for port in 0..family.ports {
            for branch in 0..family.branches {
                let env = IndexEnv {
                    index: sender as i64,
                    chip: core.chip.into(),
                    row: core.row.into(),
                    column: core.column.into(),
                    port: port.into(),
                    branch: branch.into(),
                    ..IndexEnv::default()
                };
                let at = || format!("port {port} of core {}", core_name(core));
                let Some(peer) = family.peer.eval(&env, &program.tables) else {
                    cx.report(bad(format!("the peer of {} has no value", at())));
                    return None;
                };
                if peer < 0 {
                    channels.peers.push((NONE, 0));
                    continue;
                }
                if peer as u64 >= to.len() {
                    let message = format!(
                        "{} leads to core {peer} of @{}, which has {}",
                        at(),
                        to.name,
                        to.len()
                    );
                    cx.report(bad(message).help("a negative peer means that there is no channel"));
                    return None;
                }
                let peer_port = family.peer_port.eval(&env, &program.tables);
                let Some(peer_port) = peer_port.filter(|p| (0..i64::from(MAX_PORTS)).contains(p))
                else {
                    let limit = MAX_PORTS - 1;
                    cx.report(bad(format!(
                        "{} leads to a port outside 0 to {limit}",
                        at()
                    )));
                    return None;
                };
                let (peer, bit) = (peer as usize, 1u64 << peer_port);
                if channels.incoming[peer] & bit != 0 {
                    let receiver = to.get(peer as u64).map(core_name).unwrap_or_default();
                    cx.report(bad(format!(
                        "two channels lead to port {peer_port} of core {receiver}, one of them \
                         from {}",
                        at()
                    )));
                    return None;
                }
                channels.incoming[peer] |= bit;
                channels.outgoing[sender] |= 1 << port;
                channels.peers.push((peer as u32, peer_port as u8));
            }
        }
    }
    Some(channels)
}

/// Families that statements of a segment send on and receive from.
fn families_of(cx: &Context<'_>, segment: super::SegmentId) -> (Vec<FamilyId>, Vec<FamilyId>) {
    let (mut sends, mut receives) = (Vec::new(), Vec::new());
    let streams = &cx.program.segments[segment].streams;
    for inst in streams.iter().flat_map(|stream| &stream.code) {
        match &inst.stmt {
            Stmt::Send { family, .. } => sends.push(*family),
            Stmt::Receive { family, .. } | Stmt::Post { family, .. } => receives.push(*family),
            Stmt::Relay { family, to, .. } => {
                receives.push(*family);
                sends.push(*to);
            }
            _ => {}
        }
    }
    for list in [&mut sends, &mut receives] {
        list.sort_unstable();
        list.dedup();
    }
    (sends, receives)
}

/// At most [`MAX_PEERS`] different cores in one call.
fn open_peers(cx: &mut Context<'_>, all: &[Channels]) {
    let mut checked = std::collections::BTreeSet::new();
    for call in cx.rows.calls().to_vec() {
        if !checked.insert((call.segment, call.on)) {
            continue;
        }
        let (sends, receives) = families_of(cx, call.segment);
        let of = |id: &FamilyId| &all[crate::entity::EntityId::index(*id)];
        let most = |masks: &[u64]| masks.iter().map(|m| m.count_ones()).max().unwrap_or(0) as usize;
        let bound: usize = sends
            .iter()
            .map(|id| most(&of(id).outgoing) * of(id).branches)
            .chain(receives.iter().map(|id| most(&of(id).incoming)))
            .sum();
        if bound <= MAX_PEERS {
            continue;
        }
        let place = Place::Step(call.entry, call.step);
        let mut pairs: Vec<(CoreAddress, CoreAddress)> = Vec::new();
        for (list, outward) in [(&sends, true), (&receives, false)] {
            for id in list {
                let family = &cx.program.families[*id];
                let (from, to) = (
                    &cx.program.regions[family.from],
                    &cx.program.regions[family.to],
                );
                if !cx.spend(of(id).peers.len() as u64, place) {
                    return;
                }
                for (at, (receiver, _)) in of(id).peers.iter().enumerate() {
                    let sender = from.get((at / of(id).branches / of(id).ports) as u64);
                    let receiver = to.get((*receiver).into());
                    if let (Some(sender), Some(receiver)) = (sender, receiver) {
                        pairs.push(if outward {
                            (sender, receiver)
                        } else {
                            (receiver, sender)
                        });
                    }
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let on = &cx.program.regions[call.on];
        let crowded = pairs
            .chunk_by(|a, b| a.0 == b.0)
            .find(|run| run.len() > MAX_PEERS && on.position(run[0].0).is_some());
        if let Some(run) = crowded {
            let message = format!(
                "core {} has {} open peers in segment @{}, at most {MAX_PEERS} are allowed",
                core_name(run[0].0),
                run.len(),
                cx.program.segments[call.segment].name
            );
            let help = "factor the exchange by rows, columns and chips, in several calls";
            cx.report(Violation::new(codes::BAD_CHANNEL, place, message).help(help));
        }
    }
}

/// Indices of cores in a region.
pub(super) struct Positions {
    regions: HashMap<(RegionId, RegionId), Rc<Vec<u32>>>,
}

impl Positions {
    pub fn new() -> Self {
        Self {
            regions: HashMap::new(),
        }
    }

    /// For each core of `of`, its index in `among`, [`u32::MAX`] if it is not there.
    pub fn of(&mut self, cx: &Context<'_>, of: RegionId, among: RegionId) -> Rc<Vec<u32>> {
        if let Some(known) = self.regions.get(&(of, among)) {
            return known.clone();
        }
        let (own, other) = (&cx.program.regions[of], &cx.program.regions[among]);
        let list: Vec<u32> = if of == among {
            (0..own.len() as u32).collect()
        } else if other.boxes.len() <= 4 {
            let position = |core| other.position(core).map_or(NONE, |p| p as u32);
            own.cores().map(position).collect()
        } else {
            let index: HashMap<CoreAddress, u32> = other.cores().zip(0..).collect();
            let position = |core| index.get(&core).copied().unwrap_or(NONE);
            own.cores().map(position).collect()
        };
        let list = Rc::new(list);
        self.regions.insert((of, among), list.clone());
        list
    }
}
