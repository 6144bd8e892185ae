//! Channels: receiving ends with their slots.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use dojoc_ir::codes::{BAD_CHANNEL, BAD_OPERANDS, CHANNEL_BALANCE, STREAM_RACE};
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::machine::CoreAddress;
use dojoc_ir::program::{FamilyId, IndexEnv, Program};

use super::launch::{Progress, Run, StreamRef, Wait};
use super::memory::Access;
use super::operand::Operand;
use super::report::{conflict, fault, note};
use super::shadow::{Clock, Mark};
use super::{Where, memory::Memory};
use crate::host::core_name;

/// Position of a receiving end.
pub type EndId = usize;

/// A slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The view.
    pub operand: Operand,
    /// The `post`.
    pub post: Mark,
    /// The clock of its stream then.
    pub clock: Clock,
    /// The `send` that filled it, with its core.
    pub filled: Option<(CoreAddress, Mark)>,
}

/// The receiving end of a channel.
#[derive(Clone, Debug)]
pub struct End {
    /// The family.
    pub family: FamilyId,
    /// Who sends.
    pub sender: CoreAddress,
    /// Who receives.
    pub receiver: CoreAddress,
    /// Slots, the oldest first.
    pub slots: VecDeque<Slot>,
    /// The last `post`, receive and send, each with the number of its core's call.
    last: [Option<(u32, Mark)>; 3],
}

/// The operations of a channel, each of which happens in one order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Post,
    Receive,
    Send,
}

/// The channels of a family.
#[derive(Debug, Default)]
struct Links {
    /// Receiving ends of a channel, by index and port of the sender.
    outgoing: HashMap<(u64, u32), Rc<[EndId]>>,
    /// By index and port of the receiver.
    incoming: HashMap<(u64, u32), EndId>,
}

/// Channels of a run, made when they are first used.
#[derive(Debug, Default)]
pub struct Channels {
    families: HashMap<FamilyId, Rc<Links>>,
    /// All receiving ends.
    pub ends: Vec<End>,
}

impl Channels {
    fn links(
        &mut self,
        program: &Program,
        family: FamilyId,
        dims: &[i64],
    ) -> Result<Rc<Links>, Diagnostic> {
        if let Some(links) = self.families.get(&family) {
            return Ok(links.clone());
        }
        let links = Rc::new(self.connect(program, family, dims)?);
        self.families.insert(family, links.clone());
        Ok(links)
    }

    /// Evaluates the peers of a family.
    fn connect(
        &mut self,
        program: &Program,
        id: FamilyId,
        dims: &[i64],
    ) -> Result<Links, Diagnostic> {
        let family = &program.families[id];
        let (from, to) = (&program.regions[family.from], &program.regions[family.to]);
        let mut links = Links::default();
        for (index, sender) in (0u64..).zip(from.cores()) {
            let bad = |port: u32, what: &str| {
                let name = core_name(sender);
                let message = format!("channel @{}, port {port} of {name}: {what}", family.name);
                Diagnostic::input(BAD_CHANNEL, message)
            };
            for port in 0..family.ports {
                let mut ends = Vec::new();
                for branch in 0..family.branches.max(1) {
                    let env = IndexEnv {
                        index: index as i64,
                        chip: sender.chip.into(),
                        row: sender.row.into(),
                        column: sender.column.into(),
                        port: port.into(),
                        branch: branch.into(),
                        dims,
                        ..IndexEnv::default()
                    };
                    let peer = family.peer.eval(&env, &program.tables);
                    let peer = peer.ok_or_else(|| bad(port, "its peer cannot be computed"))?;
                    let Ok(peer) = u64::try_from(peer) else {
                        continue;
                    };
                    let receiver = to.get(peer);
                    let receiver = receiver.ok_or_else(|| bad(port, "there is no such peer"))?;
                    let peer_port = family.peer_port.eval(&env, &program.tables);
                    let peer_port = peer_port.and_then(|p| u32::try_from(p).ok());
                    let peer_port =
                        peer_port.ok_or_else(|| bad(port, "its peer's port is no port"))?;
                    let end = self.ends.len();
                    if links.incoming.insert((peer, peer_port), end).is_some() {
                        return Err(bad(port, "another channel leads to the same port"));
                    }
                    self.ends.push(End {
                        family: id,
                        sender,
                        receiver,
                        slots: VecDeque::new(),
                        last: [None; 3],
                    });
                    ends.push(end);
                }
                if !ends.is_empty() {
                    links.outgoing.insert((index, port), ends.into());
                }
            }
        }
        Ok(links)
    }
}

/// A statement that is being carried out: who, and how messages refer to it.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// The stream.
    pub stream: StreamRef,
    /// Its core.
    pub core: CoreAddress,
    /// The statement.
    pub mark: Mark,
}

impl Run<'_> {
    /// The receiving end at this core.
    pub fn incoming(
        &mut self,
        here: &Here,
        family: FamilyId,
        port: Option<i64>,
    ) -> Result<EndId, Diagnostic> {
        let links = self.channels.links(self.program, family, self.dims)?;
        let region = &self.program.regions[self.program.families[family].to];
        let index = region.position(here.core);
        let port = port.and_then(|port| u32::try_from(port).ok());
        let end = index.zip(port).and_then(|key| links.incoming.get(&key));
        end.copied()
            .ok_or_else(|| self.no_channel(here, family, "leads to this port of the core"))
    }

    /// The receiving ends of the channel that begins at this core.
    pub fn outgoing(
        &mut self,
        here: &Here,
        family: FamilyId,
        port: Option<i64>,
    ) -> Result<Rc<[EndId]>, Diagnostic> {
        let links = self.channels.links(self.program, family, self.dims)?;
        let region = &self.program.regions[self.program.families[family].from];
        let index = region.position(here.core);
        let port = port.and_then(|port| u32::try_from(port).ok());
        let ends = index.zip(port).and_then(|key| links.outgoing.get(&key));
        ends.cloned()
            .ok_or_else(|| self.no_channel(here, family, "begins at this port of the core"))
    }

    fn no_channel(&self, here: &Here, family: FamilyId, what: &str) -> Diagnostic {
        let name = &self.program.families[family].name;
        let what = format!("no channel of @{name} {what}");
        fault(self.program, here.core, &here.mark, BAD_CHANNEL, &what)
    }

    /// Checks that a core's operations of one kind on a channel are ordered by tokens.
    fn in_order(
        &mut self,
        here: &Here,
        end: EndId,
        operation: Operation,
        access: &Access,
    ) -> Result<(), Diagnostic> {
        let last = &mut self.channels.ends[end].last[operation as usize];
        let before = last.replace((access.call, here.mark));
        match before {
            Some((call, other))
                if call == access.call && !other.before(here.mark.stream, &access.clock) =>
            {
                let what = "no token orders this after another operation on the channel";
                let found = fault(self.program, here.core, &here.mark, STREAM_RACE, what);
                Err(found.note(note(self.program, here.core, &other, "the other:")))
            }
            _ => Ok(()),
        }
    }

    /// `post`
    pub fn post(
        &mut self,
        here: &Here,
        end: EndId,
        slot: Operand,
        access: &Access,
    ) -> Result<Progress, Diagnostic> {
        if !slot.layout.dense {
            let what = format!("slot {} is not dense", slot.name);
            let found = fault(self.program, here.core, &here.mark, BAD_OPERANDS, &what);
            return Err(found);
        }
        let found = self
            .sram(here.core, &slot)?
            .post(slot.at, &slot.layout, access);
        found.map_err(|found| {
            let place = Where::Sram(here.core);
            conflict(
                self.program,
                here.core,
                &here.mark,
                &slot.name,
                place,
                found,
            )
        })?;
        self.in_order(here, end, Operation::Post, access)?;
        self.call_mut(here.stream.core).slots.push((end, here.mark));
        self.channels.ends[end].slots.push_back(Slot {
            operand: slot,
            post: here.mark,
            clock: access.clock,
            filled: None,
        });
        self.wake(Wait::Slot(end));
        Ok(Progress::Done)
    }

    /// `send` of a view that was checked for reading once all slots are there.
    pub fn send(
        &mut self,
        here: &Here,
        ends: &[EndId],
        from: &Operand,
        access: &Access,
    ) -> Result<Progress, Diagnostic> {
        let full = |end: &&EndId| {
            let slots = &self.channels.ends[**end].slots;
            slots.iter().all(|slot| slot.filled.is_some())
        };
        if let Some(end) = ends.iter().find(full) {
            return Ok(Progress::Waits(Wait::Slot(*end)));
        }
        self.check_read(here, from, access)?;
        let message = self.sram(here.core, from)?.dense(from.at, &from.layout);
        for end in ends {
            self.in_order(here, *end, Operation::Send, access)?;
            self.deliver(here, *end, &message)?;
        }
        Ok(Progress::Done)
    }

    /// Fills the oldest empty slot.
    fn deliver(&mut self, here: &Here, end: EndId, message: &[u8]) -> Result<(), Diagnostic> {
        let program = self.program;
        let End {
            receiver, slots, ..
        } = &mut self.channels.ends[end];
        let receiver = *receiver;
        let Some(slot) = slots.iter_mut().find(|slot| slot.filled.is_none()) else {
            return Ok(());
        };
        let operand = slot.operand.clone();
        let room = operand.layout.elements * operand.layout.view.dtype.bytes() as usize;
        if room != message.len() {
            let what = format!("a message of {} bytes for a slot of {room}", message.len());
            let found = fault(program, here.core, &here.mark, CHANNEL_BALANCE, &what);
            return Err(found.note(note(program, receiver, &slot.post, "posted by")));
        }
        slot.filled = Some((here.core, here.mark));
        let memory = self.sram(receiver, &operand)?;
        memory.set_dense(operand.at, &operand.layout, message);
        self.stats.messages += 1;
        self.stats.message_bytes += message.len() as u64;
        self.wake(Wait::Message(end));
        Ok(())
    }

    /// `recv`
    pub fn receive(
        &mut self,
        here: &Here,
        end: EndId,
        slot: &Operand,
        access: &Access,
    ) -> Result<Progress, Diagnostic> {
        let Some(oldest) = self.channels.ends[end].slots.front() else {
            return Ok(Progress::Waits(Wait::Message(end)));
        };
        if oldest.operand.at != slot.at || oldest.operand.layout != slot.layout {
            let what = format!("{} is not the oldest slot of the channel", slot.name);
            let found = fault(self.program, here.core, &here.mark, CHANNEL_BALANCE, &what);
            let post = note(self.program, here.core, &oldest.post, "that was posted by");
            return Err(found.note(post));
        }
        if oldest.filled.is_none() {
            return Ok(Progress::Waits(Wait::Message(end)));
        }
        let (post, clock) = (oldest.post, oldest.clock);
        self.in_order(here, end, Operation::Receive, access)?;
        self.channels.ends[end].slots.pop_front();
        let slots = &mut self.call_mut(here.stream.core).slots;
        if let Some(at) = slots.iter().position(|open| *open == (end, post)) {
            slots.remove(at);
        }
        // The message came after the post, and this is after the message.
        let own = &mut self.thread(here.stream).clock;
        for (own, seen) in own.iter_mut().zip(clock) {
            *own = (*own).max(seen);
        }
        self.sram(here.core, slot)?
            .receive(slot.at, &slot.layout, access);
        Ok(Progress::Done)
    }

    /// A core's memory, with the bytes of an operand allocated.
    pub fn sram(
        &mut self,
        core: CoreAddress,
        operand: &Operand,
    ) -> Result<&mut Memory, Diagnostic> {
        let end = Memory::needed(operand.at, &operand.layout);
        self.image.grown(Where::Sram(core), end, self.max_bytes)
    }

    /// Checks and records that a statement reads an operand.
    pub fn check_read(
        &mut self,
        here: &Here,
        operand: &Operand,
        access: &Access,
    ) -> Result<(), Diagnostic> {
        let access = access.through(operand);
        let found = self
            .sram(here.core, operand)?
            .read(operand.at, &operand.layout, &access);
        self.explain(here, operand, found)
    }

    /// Checks and records that a statement writes an operand.
    pub fn check_write(
        &mut self,
        here: &Here,
        operand: &Operand,
        access: &Access,
    ) -> Result<(), Diagnostic> {
        let access = access.through(operand);
        let found = self
            .sram(here.core, operand)?
            .write(operand.at, &operand.layout, &access);
        self.explain(here, operand, found)
    }

    fn explain(
        &self,
        here: &Here,
        operand: &Operand,
        found: Result<(), super::memory::Found>,
    ) -> Result<(), Diagnostic> {
        found.map_err(|found| {
            let place = Where::Sram(here.core);
            conflict(
                self.program,
                here.core,
                &here.mark,
                &operand.name,
                place,
                found,
            )
        })
    }
}
