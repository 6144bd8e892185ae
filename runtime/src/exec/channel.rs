//! Ends of channels.

use std::collections::VecDeque;

use dojoc_ir::entity::EntityId;
use dojoc_ir::program::{Family, FamilyId, IndexEnv, IndexExpr, Program};

use super::block::Pool;
use super::cores::CoreMap;
use super::fault::{Fault, unverified};
use super::sram::Piece;

/// The other end of a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub core: u32,
    pub port: u32,
    /// Position of the port among those of the core, if that is known.
    pub slot: u32,
    /// Slots that the receiver has posted and no message has taken.
    pub credits: u32,
}

/// A position that is not known.
pub(super) const UNKNOWN: u32 = u32::MAX;

/// The sending end of a channel.
#[derive(Debug)]
pub(super) struct OutPort {
    pub family: FamilyId,
    pub port: u32,
    pub first: Peer,
    /// Further receivers of a multicast.
    pub more: Vec<Peer>,
    /// Streams that wait for a slot.
    pub waiting: u8,
}

impl OutPort {
    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        std::iter::once(&self.first).chain(&self.more)
    }

    pub(super) fn peers_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        std::iter::once(&mut self.first).chain(&mut self.more)
    }

    /// Whether all receivers have a slot.
    pub(super) fn ready(&self) -> bool {
        self.first.credits > 0 && self.more.iter().all(|peer| peer.credits > 0)
    }
}

/// The receiving end of a channel.
#[derive(Debug)]
pub(super) struct InPort {
    pub family: FamilyId,
    pub port: u32,
    /// The sender; `None` until a slot is posted.
    pub sender: Option<Peer>,
    /// Streams that wait for a message.
    pub waiting: u8,
    /// Address and bytes of posted slots.
    pub posted: VecDeque<(u32, u32)>,
    /// Messages that arrived.
    pub messages: VecDeque<Piece>,
}

/// The ends of channels at a core that were used.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub outs: Vec<OutPort>,
    pub ins: Vec<InPort>,
}

impl Ports {
    /// Makes them as they were when they were opened, for the next run.
    pub(super) fn reset(&mut self, pool: &mut Pool) {
        for out in &mut self.outs {
            out.waiting = 0;
            out.peers_mut().for_each(|peer| peer.credits = 0);
        }
        for end in &mut self.ins {
            end.waiting = 0;
            end.posted.clear();
            for message in end.messages.drain(..) {
                pool.give(message.block);
            }
        }
    }

    pub(super) fn out(&self, family: FamilyId, port: u32) -> Option<usize> {
        self.outs
            .iter()
            .position(|out| out.family == family && out.port == port)
    }

    /// The receiving end, made unless it is there.
    pub(super) fn incoming(&mut self, family: FamilyId, port: u32) -> usize {
        let found = self
            .ins
            .iter()
            .position(|end| end.family == family && end.port == port);
        found.unwrap_or_else(|| {
            self.ins.push(InPort {
                family,
                port,
                sender: None,
                waiting: 0,
                posted: VecDeque::new(),
                messages: VecDeque::new(),
            });
            self.ins.len() - 1
        })
    }
}

fn eval(program: &Program, expr: &IndexExpr, env: &IndexEnv<'_>) -> Result<i64, Fault> {
    let value = expr.eval(env, &program.tables);
    value.ok_or_else(|| unverified("the peer of a channel cannot be computed"))
}

/// The receivers of a channel: core and port.
pub(super) fn receivers(
    program: &Program,
    map: &CoreMap,
    (id, dims): (FamilyId, &[i64]),
    sender: u32,
    port: u32,
) -> Result<Vec<(u32, u32)>, Fault> {
    let family = family_of(program, id)?;
    let index = map.index(program, family.from, sender);
    let index = index.ok_or_else(|| unverified("a core uses a channel that it does not have"))?;
    if port >= family.ports {
        return Err(unverified("a channel has no such port"));
    }
    let address = map.address(sender);
    let to = program.regions.get(family.to);
    let to = to.ok_or_else(|| unverified("a channel leads nowhere"))?;
    let mut receivers = Vec::new();
    for branch in 0..family.branches {
        let env = IndexEnv {
            index: index as i64,
            chip: i64::from(address.chip),
            row: i64::from(address.row),
            column: i64::from(address.column),
            port: i64::from(port),
            branch: i64::from(branch),
            repeats: &[],
            dims,
        };
        let Ok(peer) = u64::try_from(eval(program, &family.peer, &env)?) else {
            continue;
        };
        let number = to.get(peer).and_then(|core| map.number(core));
        let peer_port = u32::try_from(eval(program, &family.peer_port, &env)?);
        match (number, peer_port) {
            (Some(number), Ok(peer_port)) => receivers.push((number, peer_port)),
            _ => return Err(unverified("a channel leads to a core that does not exist")),
        }
    }
    Ok(receivers)
}

/// The sender of every channel of a family, by receiver and port.
#[derive(Debug)]
pub(super) struct Senders {
    /// Receiver, its port, sender, its port; ascending.
    channels: Vec<[u32; 4]>,
}

impl Senders {
    pub(super) fn new(
        program: &Program,
        map: &CoreMap,
        (id, dims): (FamilyId, &[i64]),
    ) -> Result<Self, Fault> {
        let family = family_of(program, id)?;
        let from = program.regions.get(family.from);
        let from = from.ok_or_else(|| unverified("a channel comes from nowhere"))?;
        let mut channels = Vec::new();
        for sender in from.cores().filter_map(|core| map.number(core)) {
            for port in 0..family.ports {
                for (core, peer_port) in receivers(program, map, (id, dims), sender, port)? {
                    channels.push([core, peer_port, sender, port]);
                }
            }
        }
        channels.sort_unstable();
        if channels.windows(2).any(|pair| pair[0][..2] == pair[1][..2]) {
            return Err(unverified(
                "two channels of a family have the same receiver and port",
            ));
        }
        Ok(Self { channels })
    }

    /// Sender and its port.
    pub(super) fn of(&self, receiver: u32, port: u32) -> Result<(u32, u32), Fault> {
        let at = self
            .channels
            .binary_search_by(|channel| channel[..2].cmp(&[receiver, port]));
        match at {
            Ok(at) => Ok((self.channels[at][2], self.channels[at][3])),
            Err(_) => Err(unverified(
                "a core receives from a channel that it does not have",
            )),
        }
    }
}

fn family_of(program: &Program, id: FamilyId) -> Result<&Family, Fault> {
    let family = program.families.get(id);
    family.ok_or_else(|| unverified(&format!("there is no channel family {}", id.index())))
}
