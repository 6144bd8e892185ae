//! The instructions of a stream.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use dojoc_ir::entity::EntityId;
use dojoc_ir::program::{DramId, SegmentId};
use dojoc_ir::types::DType;

use super::channel::Peer;
use super::core::Active;
use super::decode::{Action, Channel, DramOperand, DynamicShape, Operand, Shape, count_slot};
use super::fault::{Fault, unverified};
use super::shared::Mail;
use super::sram::{Piece, Sram};
use super::worker::{View, Worker};
use crate::codes;
use crate::compute::Layout;
use crate::host::{ProbeSink, Statement, gather, scatter};

/// Why a stream does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    Ended,
    Blocked,
    /// Had its share of time.
    Yielded,
    Failed(Fault),
}

/// A layout, borrowed from the program or evaluated.
#[derive(Clone, Debug)]
pub(super) enum LayoutRef<'a> {
    Static(&'a Layout),
    Evaluated(Arc<Layout>),
}

impl Deref for LayoutRef<'_> {
    type Target = Layout;

    fn deref(&self) -> &Layout {
        match self {
            Self::Static(layout) => layout,
            Self::Evaluated(layout) => layout,
        }
    }
}

/// An operand in SRAM.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    /// Lowest byte.
    pub start: u32,
    /// Bytes from there on.
    pub len: u32,
    /// Interval of its buffer.
    pub home: (u32, u32),
    pub layout: LayoutRef<'a>,
}

/// What came of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Done {
    Yes,
    /// Must wait; will be tried again.
    No,
}

impl<'a> Worker<'a> {
    /// Runs a stream until it blocks or ends.
    pub(super) fn run_stream(&mut self, core: u32, active: &mut Active, stream: usize) -> Stop {
        let shared = self.shared;
        let segment = &shared.segments[active.segment as usize];
        let ops = &segment.streams[stream].ops;
        let frame = stream * segment.frame..(stream + 1) * segment.frame;
        let mut pc = active.streams[stream].pc as usize;
        let mut quantum = self.quantum();
        let followed = shared.followed(active.segment);
        let stop = loop {
            let Some(op) = ops.get(pc) else {
                break Stop::Ended;
            };
            let look = self.fuel == 0 || self.kit.pool.over;
            if quantum == 0 || look && self.refuel() {
                break Stop::Yielded;
            }
            quantum -= 1;
            match op {
                Action::Loop {
                    count,
                    counter,
                    exit,
                } => {
                    self.fuel -= 1;
                    let frame = &mut active.frames[frame.clone()];
                    match count.eval(frame) {
                        Ok(count) if count > 0 => {
                            frame[*counter as usize] = 0;
                            frame[count_slot(*counter)] = count;
                            pc += 1;
                        }
                        Ok(_) => pc = *exit as usize,
                        Err(fault) => break Stop::Failed(fault),
                    }
                    continue;
                }
                Action::Next { counter, body } => {
                    self.fuel -= 1;
                    let frame = &mut active.frames[frame.clone()];
                    let next = frame[*counter as usize] + 1;
                    frame[*counter as usize] = next;
                    if next < frame[count_slot(*counter)] {
                        pc = *body as usize;
                    } else {
                        pc += 1;
                    }
                    continue;
                }
                _ => {}
            }
            match self.instruction(op, (core, stream), active, frame.clone()) {
                Ok(Done::Yes) => {
                    self.fuel -= 1;
                    self.stats.instructions += 1;
                    if let Some(sink) = followed
                        && let Err(fault) = self.show(sink, core, active, (stream, pc))
                    {
                        break Stop::Failed(fault);
                    }
                    pc += 1;
                }
                Ok(Done::No) => break Stop::Blocked,
                Err(fault) => break Stop::Failed(fault),
            }
        };
        active.streams[stream].pc = pc as u32;
        stop
    }

    /// Shows a sink of probes what an instruction did.
    #[cold]
    fn show(
        &mut self,
        sink: &dyn ProbeSink,
        core: u32,
        active: &Active,
        (stream, pc): (usize, usize),
    ) -> Result<(), Fault> {
        let shared = self.shared;
        let segment = &shared.segments[active.segment as usize];
        let frame = &active.frames[stream * segment.frame..(stream + 1) * segment.frame];
        let env = segment.env(frame, shared.dims.len());
        let statement = Statement {
            segment: SegmentId::from_index(active.segment as usize),
            stream: stream as u32,
            at: segment.streams[stream].places[pc],
        };
        let view = View::new(self, core);
        let held = sink.done(statement, shared.map.address(core), &env, &view)?;
        self.charge(held);
        Ok(())
    }

    fn instruction(
        &mut self,
        op: &'a Action,
        (core, stream): (u32, usize),
        active: &mut Active,
        frame: std::ops::Range<usize>,
    ) -> Result<Done, Fault> {
        let bit = 1u8 << stream;
        match op {
            Action::Compute(compute) => {
                let start = self.shared.options.time_compute.then(Instant::now);
                self.compute(core, compute, &active.frames[frame], &active.buffers)?;
                if let Some(start) = start {
                    let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    self.stats.compute_nanos = self.stats.compute_nanos.saturating_add(nanos);
                }
            }
            Action::Signal(token) => {
                let (count, waiting) = &mut active.tokens[*token as usize];
                *count += 1;
                let streams = std::mem::take(waiting);
                self.core(core).ready |= streams;
            }
            Action::Wait(token) => {
                let (count, waiting) = &mut active.tokens[*token as usize];
                if *count == 0 {
                    *waiting |= bit;
                    return Ok(Done::No);
                }
                *count -= 1;
            }
            Action::Post(post) => {
                let (channel, slot) = &**post;
                let frame = &active.frames[frame];
                let port = port(channel, frame)?;
                let slot = self.place(slot, frame, &active.buffers)?;
                self.post(core, (channel, port), &slot)?;
            }
            Action::Send(send) => {
                let (channel, from) = &**send;
                let frame = &active.frames[frame];
                let port = port(channel, frame)?;
                let Some(out) = self.slot_free(core, (channel, port), bit)? else {
                    return Ok(Done::No);
                };
                let from = self.place(from, frame, &active.buffers)?;
                self.send(core, out, &from);
            }
            Action::Receive(receive) => {
                let (channel, slot) = &**receive;
                let frame = &active.frames[frame];
                let port = port(channel, frame)?;
                let slot = self.place(slot, frame, &active.buffers)?;
                return self.receive(core, (channel, port), &slot, bit);
            }
            Action::Relay(relay) => {
                let (from, slot, to) = &**relay;
                let values = &active.frames[frame];
                let slot = self.place(slot, values, &active.buffers)?;
                let to_port = port(to, values)?;
                if !active.streams[stream].received {
                    let port = port(from, values)?;
                    if self.receive(core, (from, port), &slot, bit)? == Done::No {
                        return Ok(Done::No);
                    }
                    active.streams[stream].received = true;
                }
                let Some(out) = self.slot_free(core, (to, to_port), bit)? else {
                    return Ok(Done::No);
                };
                active.streams[stream].received = false;
                self.send(core, out, &slot);
            }
            Action::DramBegin(_)
            | Action::DramCommit(_)
            | Action::DramAcquire(..)
            | Action::DramRelease(..)
            | Action::DramLoad(_)
            | Action::DramStore(_) => return self.dram(op, (core, bit), active, frame),
            Action::Count {
                register,
                from,
                max,
            } => {
                let place = self.place(from, &active.frames[frame.clone()], &active.buffers)?;
                let value = self.read_count(core, &place)?;
                if !u64::try_from(value).is_ok_and(|value| value <= *max) {
                    let message = format!("it read {value}, which is not between 0 and {max}");
                    return Err(Fault::new(codes::COUNT_RANGE, message));
                }
                active.frames[frame][*register as usize] = value;
            }
            // Done by the caller.
            Action::Loop { .. } | Action::Next { .. } => {}
        }
        Ok(Done::Yes)
    }

    #[inline(always)]
    fn layout(&mut self, shape: &'a Shape, frame: &[i64]) -> Result<LayoutRef<'a>, Fault> {
        match shape {
            Shape::Static(layout) => Ok(LayoutRef::Static(layout)),
            Shape::Dynamic(shape) => Ok(LayoutRef::Evaluated(self.evaluate(shape, frame)?)),
        }
    }

    fn evaluate(&mut self, shape: &DynamicShape, frame: &[i64]) -> Result<Arc<Layout>, Fault> {
        let mut extents = [0i64; 5];
        for (extent, linear) in extents.iter_mut().zip(&shape.extents) {
            *extent = linear.eval(frame)?;
        }
        let memo = &mut self.memos[shape.memo as usize];
        if let Some(layout) = memo.get(&extents) {
            return Ok(layout);
        }
        let mut view = shape.view.clone();
        for (to, extent) in view.shape.iter_mut().zip(extents) {
            *to = u64::try_from(extent).map_err(|_| unverified("an extent is negative"))?;
        }
        let layout = Layout::new(view).ok_or_else(|| unverified("a view is too large"))?;
        let layout = Arc::new(layout);
        memo.put(extents, layout.clone());
        Ok(layout)
    }

    /// Where an operand lies; within the SRAM and aligned. Inlined so that a place is not written by
    /// one function and read back by another, which stalls.
    #[inline(always)]
    pub(super) fn place(
        &mut self,
        operand: &'a Operand,
        frame: &[i64],
        buffers: &[(u32, u32)],
    ) -> Result<Place<'a>, Fault> {
        let layout = self.layout(&operand.shape, frame)?;
        let offset = operand.offset.eval(frame)?;
        let home = buffers[operand.buffer as usize];
        let first = offset.checked_add(i64::from(home.0));
        let start = first.and_then(|first| first.checked_add(layout.low));
        let end = start.and_then(|start| start.checked_add_unsigned(layout.span as u64));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(unverified("a view leaves the SRAM"));
        };
        if start < 0 || end > i64::from(self.shared.sram_bytes) {
            return Err(unverified("a view leaves the SRAM"));
        }
        if !(start as u64).is_multiple_of(layout.view.dtype.bytes()) {
            return Err(unverified("a view is not aligned to its element size"));
        }
        Ok(Place {
            start: start as u32,
            len: layout.span as u32,
            home,
            layout,
        })
    }

    fn post(
        &mut self,
        core: u32,
        (channel, port): (&Channel, u32),
        slot: &Place<'_>,
    ) -> Result<(), Fault> {
        let family = channel.family;
        let ports = self.core(core).ports.get_or_insert_default();
        let at = ports.incoming(family, port);
        let end = &mut ports.ins[at];
        end.posted.push_back((slot.start, slot.len));
        let sender = match end.sender {
            Some(sender) => sender,
            None => {
                let (sender, sender_port) = self.shared.senders(family)?.of(core, port)?;
                let mut peer = Peer {
                    core: sender,
                    port: sender_port,
                    slot: super::channel::UNKNOWN,
                    credits: 0,
                };
                if self.owner(sender) == self.me {
                    peer.slot = self.open(sender, (family, sender_port))?;
                }
                let ports = self.core(core).ports.get_or_insert_default();
                ports.ins[at].sender = Some(peer);
                peer
            }
        };
        if self.owner(sender.core) == self.me {
            self.credit(sender.core, (family, sender.port), Some(sender.slot), core)?;
        } else {
            let mail = Mail::Credit {
                to: sender.core,
                family,
                port: sender.port,
                from: core,
            };
            self.mail(sender.core, mail);
        }
        Ok(())
    }

    /// The port for sending to which a slot is free; `None` if the stream must wait.
    fn slot_free(
        &mut self,
        core: u32,
        (channel, port): (&Channel, u32),
        bit: u8,
    ) -> Result<Option<usize>, Fault> {
        let at = self.open(core, (channel.family, port))? as usize;
        let ports = self.core(core).ports.get_or_insert_default();
        let out = &mut ports.outs[at];
        if !out.ready() {
            out.waiting |= bit;
            return Ok(None);
        }
        Ok(Some(at))
    }

    fn send(&mut self, core: u32, out: usize, from: &Place<'_>) {
        let piece = self.message(core, from);
        let ports = self.core(core).ports.get_or_insert_default();
        let end = &mut ports.outs[out];
        let family = end.family;
        let count = 1 + end.more.len();
        end.peers_mut().for_each(|peer| peer.credits -= 1);
        self.stats.messages += count as u64;
        self.stats.message_bytes += count as u64 * u64::from(piece.len);
        for branch in 0..count {
            let ports = self.core(core).ports.get_or_insert_default();
            let end = &ports.outs[out];
            let peer = match branch.checked_sub(1) {
                None => end.first,
                Some(branch) => end.more[branch],
            };
            let (to, port) = (peer.core, peer.port);
            let piece = piece.clone();
            if self.owner(to) == self.me {
                let slot = Some(peer.slot).filter(|slot| *slot != super::channel::UNKNOWN);
                let slot = self.deliver(to, (family, port), slot, piece);
                let ports = self.core(core).ports.get_or_insert_default();
                if let Some(peer) = ports.outs[out].peers_mut().nth(branch) {
                    peer.slot = slot;
                }
            } else {
                let mail = Mail::Message {
                    to,
                    family,
                    port,
                    piece,
                };
                self.mail(to, mail);
            }
        }
    }

    /// The elements of a view as a message.
    fn message(&mut self, core: u32, from: &Place<'_>) -> Piece {
        let state = &self.cores[(core - self.first) as usize];
        let layout = &*from.layout;
        let bytes = layout.elements * layout.view.dtype.bytes() as usize;
        if layout.dense
            && bytes > 0
            && let Some(piece) = state.sram.share(from.start, from.len)
        {
            return piece;
        }
        let mut block = self.kit.pool.take(bytes);
        if let Some(block) = Arc::get_mut(&mut block) {
            let image = state.sram.read(from.start, from.len, &mut self.kit.bytes);
            gather(layout, image, &mut block.bytes_mut()[..bytes]);
        }
        Piece {
            block,
            at: 0,
            len: bytes as u32,
        }
    }

    fn receive(
        &mut self,
        core: u32,
        (channel, port): (&Channel, u32),
        slot: &Place<'_>,
        bit: u8,
    ) -> Result<Done, Fault> {
        let state = &mut self.cores[(core - self.first) as usize];
        let ports = state.ports.get_or_insert_default();
        let at = ports.incoming(channel.family, port);
        let end = &mut ports.ins[at];
        let Some(piece) = end.messages.pop_front() else {
            end.waiting |= bit;
            return Ok(Done::No);
        };
        let layout = &*slot.layout;
        let bytes = layout.elements as u64 * layout.view.dtype.bytes();
        let posted = end.posted.pop_front();
        if posted != Some((slot.start, slot.len)) {
            return Err(unverified("it takes back another slot than the oldest"));
        }
        if u64::from(piece.len) != bytes {
            let message = format!(
                "it has a slot of {bytes} bytes, but the message has {}",
                piece.len
            );
            self.kit.pool.give(piece.block);
            return Err(Fault::new(codes::MESSAGE_SIZE, message));
        }
        let (sram, pool) = (&mut state.sram, &mut self.kit.pool);
        if bytes == 0 {
            pool.give(piece.block);
        } else if layout.dense
            && Sram::fits(slot.start, &piece)
            && sram.bindable(slot.start, slot.len)
        {
            sram.replace(slot.start, piece, pool);
        } else {
            let home = (slot.start, slot.len);
            scatter(layout, piece.bytes(), sram.write(home, home, pool));
            pool.give(piece.block);
        }
        Ok(Done::Yes)
    }

    /// Puts a message into a port of one of the worker's cores. Gives the position of the port.
    pub(super) fn deliver(
        &mut self,
        to: u32,
        (family, port): (dojoc_ir::program::FamilyId, u32),
        slot: Option<u32>,
        piece: Piece,
    ) -> u32 {
        let ports = self.core(to).ports.get_or_insert_default();
        let slot = slot.unwrap_or_else(|| ports.incoming(family, port) as u32);
        let end = &mut ports.ins[slot as usize];
        end.messages.push_back(piece);
        let streams = std::mem::take(&mut end.waiting);
        self.wake(to, streams);
        slot
    }

    /// Gives a slot of `from` to a sending port of one of the worker's cores.
    pub(super) fn credit(
        &mut self,
        to: u32,
        (family, port): (dojoc_ir::program::FamilyId, u32),
        slot: Option<u32>,
        from: u32,
    ) -> Result<(), Fault> {
        let slot = match slot {
            Some(slot) => slot,
            None => self.open(to, (family, port))?,
        };
        let ports = self.core(to).ports.get_or_insert_default();
        let end = &mut ports.outs[slot as usize];
        if let Some(peer) = end.peers_mut().find(|peer| peer.core == from) {
            peer.credits += 1;
        }
        if end.ready() {
            let streams = std::mem::take(&mut end.waiting);
            self.wake(to, streams);
        }
        Ok(())
    }

    /// The position of a sending port of one of the worker's cores.
    fn open(
        &mut self,
        core: u32,
        (family, port): (dojoc_ir::program::FamilyId, u32),
    ) -> Result<u32, Fault> {
        let shared = self.shared;
        let ports = self.core(core).ports.get_or_insert_default();
        if let Some(at) = ports.out(family, port) {
            return Ok(at as u32);
        }
        let channel = (family, shared.dims);
        let receivers = super::channel::receivers(shared.program, shared.map, channel, core, port)?;
        let mut peers = receivers.into_iter().map(|(core, port)| Peer {
            core,
            port,
            slot: super::channel::UNKNOWN,
            credits: 0,
        });
        let Some(first) = peers.next() else {
            return Err(unverified("it sends through a channel that does not exist"));
        };
        let ports = self.core(core).ports.get_or_insert_default();
        ports.outs.push(super::channel::OutPort {
            family,
            port,
            first,
            more: peers.collect(),
            waiting: 0,
        });
        Ok(ports.outs.len() as u32 - 1)
    }

    fn read_count(&mut self, core: u32, place: &Place<'_>) -> Result<i64, Fault> {
        let state = &self.cores[(core - self.first) as usize];
        let bytes = state.sram.read(place.start, place.len, &mut self.kit.bytes);
        match (place.layout.view.dtype, bytes) {
            (DType::I32, &[a, b, c, d]) => Ok(i64::from(i32::from_le_bytes([a, b, c, d]))),
            (DType::I64, &[a, b, c, d, e, f, g, h]) => {
                Ok(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
            }
            _ => Err(unverified(
                "a count is read from something else than one integer",
            )),
        }
    }

    /// Wakes streams that wait for an instance.
    fn wake_all(&mut self, waiting: Vec<(u32, u8)>) {
        for (to, streams) in waiting {
            if self.owner(to) == self.me {
                self.wake(to, streams);
            } else {
                self.mail(to, Mail::Wake { to, streams });
            }
        }
    }

    fn dram(
        &mut self,
        op: &'a Action,
        (core, bit): (u32, u8),
        active: &mut Active,
        frame: std::ops::Range<usize>,
    ) -> Result<Done, Fault> {
        let shared = self.shared;
        let values = &active.frames[frame];
        match op {
            Action::DramBegin(dram) => {
                let own = self.own_instance(core, *dram)?;
                let readers = shared.program.dram[*dram].readers;
                let mut bank = shared.dram.bank(*dram, own, (0, 0))?;
                if bank.committed > 0 && bank.released < readers {
                    bank.waiting.push((core, bit));
                    return Ok(Done::No);
                }
                bank.open = true;
                bank.released = 0;
            }
            Action::DramCommit(dram) => {
                let own = self.own_instance(core, *dram)?;
                let mut bank = shared.dram.bank(*dram, own, (0, 0))?;
                if !std::mem::replace(&mut bank.open, false) {
                    return Err(unverified("it commits what it has not begun"));
                }
                bank.committed += 1;
                let waiting = std::mem::take(&mut bank.waiting);
                drop(bank);
                self.wake_all(waiting);
            }
            Action::DramAcquire(dram, owner) => {
                let instance = instance(owner.eval(values)?)?;
                let mut bank = shared.dram.bank(*dram, instance, (0, 0))?;
                let mine = (*dram, instance);
                let at = active
                    .acquired
                    .iter()
                    .position(|(d, i, _)| (*d, *i) == mine);
                let have = at.map_or(0, |at| active.acquired[at].2);
                if bank.committed <= have {
                    bank.waiting.push((core, bit));
                    return Ok(Done::No);
                }
                match at {
                    Some(at) => active.acquired[at].2 += 1,
                    None => active.acquired.push((*dram, instance, 1)),
                }
            }
            Action::DramRelease(dram, owner) => {
                let instance = instance(owner.eval(values)?)?;
                let mut bank = shared.dram.bank(*dram, instance, (0, 0))?;
                bank.released += 1;
                let waiting = std::mem::take(&mut bank.waiting);
                drop(bank);
                self.wake_all(waiting);
            }
            Action::DramLoad(load) => {
                let instance = instance(load.owner.eval(values)?)?;
                self.load(core, load, instance, values, &active.buffers)?;
            }
            Action::DramStore(store) => {
                let own = self.own_instance(core, store.dram)?;
                self.store(core, store, own, values, &active.buffers)?;
            }
            _ => return Err(unverified("a statement is malformed")),
        }
        Ok(Done::Yes)
    }

    fn own_instance(&self, core: u32, dram: DramId) -> Result<u64, Fault> {
        let shared = self.shared;
        let region = shared.program.dram.get(dram);
        let owners = region.and_then(|region| region.owners);
        let index = owners.and_then(|owners| shared.map.index(shared.program, owners, core));
        index.ok_or_else(|| unverified("the core owns no instance of the DRAM region"))
    }

    /// First byte in the instance, layout there, operand in SRAM.
    fn transfer(
        &mut self,
        operand: &'a DramOperand,
        frame: &[i64],
        buffers: &[(u32, u32)],
    ) -> Result<(u64, LayoutRef<'a>, Place<'a>), Fault> {
        let place = self.place(&operand.sram, frame, buffers)?;
        let layout = self.layout(&operand.shape, frame)?;
        let offset = operand.offset.eval(frame)?;
        let lowest = offset.checked_add(layout.low);
        let lowest = lowest.and_then(|lowest| u64::try_from(lowest).ok());
        let lowest = lowest.ok_or_else(|| unverified("a transfer leaves its DRAM region"))?;
        Ok((lowest, layout, place))
    }

    fn load(
        &mut self,
        core: u32,
        operand: &'a DramOperand,
        instance: u64,
        frame: &[i64],
        buffers: &[(u32, u32)],
    ) -> Result<(), Fault> {
        let (lowest, layout, place) = self.transfer(operand, frame, buffers)?;
        let bytes = layout.elements * layout.view.dtype.bytes() as usize;
        if bytes == 0 {
            return Ok(());
        }
        self.kit.bytes.resize(layout.span, 0);
        let interval = (lowest, layout.span as u64);
        let bank = self.shared.dram.bank(operand.dram, instance, interval)?;
        bank.read(lowest, &mut self.kit.bytes);
        drop(bank);
        let mut dense = std::mem::take(&mut self.kit.copies[0]);
        dense.resize(bytes.div_ceil(8), 0);
        let image: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut dense)[..bytes];
        gather(&layout, &self.kit.bytes, image);
        let state = &mut self.cores[(core - self.first) as usize];
        let interval = (place.start, place.len);
        let to = state.sram.write(interval, place.home, &mut self.kit.pool);
        scatter(&place.layout, image, to);
        self.kit.copies[0] = dense;
        self.stats.dram_bytes += bytes as u64;
        Ok(())
    }

    fn store(
        &mut self,
        core: u32,
        operand: &'a DramOperand,
        instance: u64,
        frame: &[i64],
        buffers: &[(u32, u32)],
    ) -> Result<(), Fault> {
        let (lowest, layout, place) = self.transfer(operand, frame, buffers)?;
        let bytes = layout.elements * layout.view.dtype.bytes() as usize;
        if bytes == 0 {
            return Ok(());
        }
        let mut dense = std::mem::take(&mut self.kit.copies[0]);
        dense.resize(bytes.div_ceil(8), 0);
        let image: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut dense)[..bytes];
        let state = &self.cores[(core - self.first) as usize];
        let from = state.sram.read(place.start, place.len, &mut self.kit.bytes);
        gather(&place.layout, from, image);
        let interval = (lowest, layout.span as u64);
        let shared = self.shared;
        let mut bank = shared.dram.bank(operand.dram, instance, interval)?;
        if !bank.open {
            return Err(unverified("it stores without having begun an epoch"));
        }
        // What lies between the elements stays.
        self.kit.bytes.resize(layout.span, 0);
        bank.read(lowest, &mut self.kit.bytes);
        scatter(&layout, image, &mut self.kit.bytes);
        bank.write(lowest, &self.kit.bytes, shared.account);
        drop(bank);
        self.kit.copies[0] = dense;
        self.stats.dram_bytes += bytes as u64;
        Ok(())
    }
}

fn port(channel: &Channel, frame: &[i64]) -> Result<u32, Fault> {
    let port = channel.port.eval(frame)?;
    u32::try_from(port).map_err(|_| unverified("a port is negative"))
}

fn instance(owner: i64) -> Result<u64, Fault> {
    u64::try_from(owner).map_err(|_| unverified("the owner of a DRAM instance is negative"))
}
