//! Exchanges as instructions.
//!
//! Each stage is a call of a segment of its own on all cores that take part: the transfers of a core
//! are its comm stream, all slots are posted first, then everything is sent, then received. Copies
//! inside the core, and numbers around the tensor, are written by the vector unit meanwhile.
//! A message that does not lie side by side where it belongs arrives in a staging buffer and is
//! copied from there. Every message has a channel of its own, so that a stage with more messages
//! than ports takes several calls.

mod loops;
pub(super) mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use dojoc_ir::attr::Number;
use dojoc_ir::entity::PrimaryMap;
use dojoc_ir::mesh::{Exchange, Storage};
use dojoc_ir::program::instr::{Ref, data, vector};
use dojoc_ir::program::{
    Affine, BufferId, BufferRole, Coordinate, FamilyId, IndexExpr, IndexNode, LocId, MAX_VIEW_RANK,
    Packing, RegionId, Stmt, Unit, dense_strides,
};
use dojoc_ir::tiled::{Grid, GridId, Layout};
use dojoc_ir::types::DType;

use super::Unsupported;
use super::builder::{SegmentBuilder, Window};
use super::fit::{fit_at, fit_some_at};
use super::program::{ProgramBuilder, Slot, Template};
use loops::{Body, Counted, Item, Rows, loops};
use plan::{End, Move, Round, joined_dims, rounds};

/// A value at one end of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Who holds what.
    pub layout: &'a Layout,
    /// Where it lies.
    pub storage: &'a Storage,
}

/// An exchange of a value between the places that it has under two layouts.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    /// The grids of the layouts.
    pub grids: &'a PrimaryMap<GridId, Grid>,
    /// The flows between the layouts.
    pub exchange: &'a Exchange,
    /// The value as it is.
    pub from: Side<'a>,
    /// The value as it shall be.
    pub to: Side<'a>,
    /// Type of the elements.
    pub dtype: DType,
}

/// What the calls of a [`Transfer`] do, wherever its sides lie.
#[derive(Debug)]
pub struct Planned {
    old: End,
    new: End,
    rounds: Vec<Round>,
}

impl Transfer<'_> {
    /// Which boxes move in which call.
    ///
    /// # Errors
    /// A packed layout, an exchange that is not of these layouts, addresses beyond 63 bits, and too many
    /// pieces.
    pub fn planned(&self) -> Result<Planned, Unsupported> {
        let end =
            |side: Side<'_>| End::new(self.grids, &self.exchange.view, side.layout, side.storage);
        let (old, new) = (end(self.from)?, end(self.to)?);
        let rounds = rounds(self.exchange, &old, &new, self.dtype.bytes())?;
        Ok(Planned { old, new, rounds })
    }
}

impl Planned {
    /// Bytes of scratch memory that the calls need on every core.
    pub fn scratch_bytes(&self) -> u64 {
        let staging = self.rounds.iter().map(|round| round.staging);
        staging.max().unwrap_or(0)
    }
}

/// What the calls of an exchange are made from; flows follow from the layouts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct ExchangeKey {
    layouts: [Layout; 2],
    /// Bytes and strides of both sides.
    storage: [(u64, Vec<i64>); 2],
    fill: Option<Number>,
    dtype: DType,
}

/// Adds the calls that carry out a transfer, as they are planned or to be planned here, with scratch
/// memory at `scratch` (see [`Planned::scratch_bytes`]). The two storages and the scratch memory must not
/// overlap, the flows must be those between the two layouts.
///
/// # Errors
/// Those of [`Transfer::planned`]; pieces with too many dims that do not lie side by side.
pub fn emit_exchange(
    cx: &mut ProgramBuilder,
    transfer: &Transfer<'_>,
    planned: Option<&Planned>,
    scratch: u64,
    loc: Option<LocId>,
) -> Result<(), Unsupported> {
    let (from, to) = (transfer.from, transfer.to);
    let key = ExchangeKey {
        layouts: [from, to].map(|side| side.layout.clone()),
        storage: [from, to].map(|side| (side.storage.bytes, side.storage.strides.clone())),
        fill: to.storage.fill,
        dtype: transfer.dtype,
    };
    let calls = match cx.exchanges.get(&key) {
        Some(known) => known.clone(),
        None => {
            let calls: Rc<[Template]> = match planned {
                Some(planned) => templates(cx, transfer, planned, loc)?.into(),
                None => templates(cx, transfer, &transfer.planned()?, loc)?.into(),
            };
            cx.exchanges.insert(key, calls.clone());
            calls
        }
    };
    let values = [from.storage.address, to.storage.address];
    (calls.iter()).try_for_each(|template| cx.call(template, &values, scratch, loc))
}

/// The calls of a transfer without addresses; its values are the two sides.
fn templates(
    cx: &mut ProgramBuilder,
    transfer: &Transfer<'_>,
    planned: &Planned,
    loc: Option<LocId>,
) -> Result<Vec<Template>, Unsupported> {
    let Transfer {
        grids,
        from,
        to,
        dtype,
        ..
    } = *transfer;
    let cores = cores(grids, from.layout, to.layout)?;
    let borders = match to.storage.fill {
        Some(value) => Some((value, borders(grids, to, cores.start)?)),
        None => None,
    };
    let alone = [Round::default()];
    let rounds = match &borders {
        Some((_, list)) if planned.rounds.is_empty() && !list.is_empty() => &alone[..],
        _ => &planned.rounds,
    };
    let region = cx.region(cores.start, cores.len())?;
    let mut templates = vec![];
    for (number, round) in rounds.iter().enumerate() {
        let family = family(cx, round, region, &cores, loc);
        let mut builder = SegmentBuilder::new("exchange", loc);
        let staging = (round.staging > 0)
            .then(|| builder.scratch("staging", dtype, &[round.staging / dtype.bytes()]));
        let mut emitter = Emitter {
            rows: Rows::new(&mut cx.tables),
            cores: cores.clone(),
            dtype,
            sides: [(from, &planned.old, None), (to, &planned.new, None)],
            first: number == 0,
            staging,
            loc,
        };
        emitter.round(
            &mut builder,
            round,
            family,
            borders.as_ref().filter(|_| number == 0),
        )?;
        let Emitter {
            rows: Rows { row, names, .. },
            sides,
            ..
        } = emitter;
        for name in names {
            builder.param(&name);
        }
        let slot = |buffer| {
            let side = sides.iter().position(|(.., of)| *of == Some(buffer));
            side.map_or(Slot::Scratch(0), Slot::Value)
        };
        templates.push(cx.template(builder.finish()?, region, row, slot));
    }
    Ok(templates)
}

/// Logical cores of both layouts, and those in between.
fn cores(
    grids: &PrimaryMap<GridId, Grid>,
    from: &Layout,
    to: &Layout,
) -> Result<Range<usize>, Unsupported> {
    let bounds = [from, to].map(|layout| {
        let grid = grids.get(layout.grid)?;
        let end = grid.first.checked_add(grid.size())?;
        Some(usize::try_from(grid.first).ok()?..usize::try_from(end).ok()?)
    });
    match bounds {
        [Some(a), Some(b)] => Ok(a.start.min(b.start)..a.end.max(b.end)),
        _ => Err(Unsupported::new(
            "the grid of a layout does not exist or is too large",
        )),
    }
}

/// The channels of a round; `None` if there is no message.
fn family(
    cx: &mut ProgramBuilder,
    round: &Round,
    region: RegionId,
    cores: &Range<usize>,
    loc: Option<LocId>,
) -> Option<FamilyId> {
    let ports = round.messages.iter().map(|m| m.ports.0 + 1).max()?;
    let mut peers = vec![-1; cores.len() * ports];
    let mut peer_ports = vec![None; peers.len()];
    for message in &round.messages {
        let at = (message.from as usize - cores.start) * ports + message.ports.0;
        peers[at] = (message.to as usize - cores.start) as i64;
        peer_ports[at] = Some(message.ports.1 as i64);
    }
    let index = IndexExpr::coordinate(Coordinate::Index);
    let channel = if ports == 1 {
        index
    } else {
        let scale = IndexExpr::constant(ports as i64);
        let first = IndexExpr::binary(IndexNode::Mul, &index, &scale);
        let port = IndexExpr::coordinate(Coordinate::Port);
        IndexExpr::binary(IndexNode::Add, &first, &port)
    };
    let peer = fit_at(&peers, &channel, &mut cx.tables);
    let peer_port = fit_some_at(&peer_ports, &channel, &mut cx.tables);
    Some(cx.family(region, ports as u32, peer, peer_port, loc))
}

/// A box in dims of a layout, for the items of one loop.
type Borders = Vec<Vec<Item>>;

/// Boxes around the tensor in the windows of a value, by side.
fn borders(
    grids: &PrimaryMap<GridId, Grid>,
    to: Side<'_>,
    first: usize,
) -> Result<Borders, Unsupported> {
    let grid = &grids[to.layout.grid];
    let rank = to.layout.view.len();
    let mut sides = vec![vec![]; 2 * rank];
    for index in 0..grid.size() {
        let coordinates = grid.coordinates(index);
        let window = to.layout.window(grid, &coordinates);
        let block = to.layout.block(grid, &coordinates);
        if window.iter().any(Range::is_empty) {
            continue;
        }
        let is_outside = block.iter().any(Range::is_empty);
        let core = (grid.first + index) as usize - first;
        // Dims before `d` are within the tensor, those behind it anywhere in the window.
        let mut ranges = window.clone();
        for d in 0..rank {
            let inside = match is_outside {
                // All of the window is before an end that it does not reach.
                true => window[d].end..window[d].end,
                false => block[d].start as i64..block[d].end as i64,
            };
            for (side, range) in [
                (2 * d, window[d].start..inside.start),
                (2 * d + 1, inside.end..window[d].end),
            ] {
                if range.is_empty() {
                    continue;
                }
                ranges[d] = range;
                let mut places = ranges.iter().zip(&window).zip(&to.storage.strides);
                let offset = places.try_fold(0i64, |sum, ((r, w), stride)| {
                    sum.checked_add((r.start - w.start).checked_mul(*stride)?)
                });
                sides[side].push(Item {
                    core,
                    port: 0,
                    offsets: vec![offset.ok_or_else(Unsupported::overflow)?],
                    extents: ranges.iter().map(|r| r.start.abs_diff(r.end)).collect(),
                });
            }
            if is_outside {
                break;
            }
            ranges[d] = inside;
        }
    }
    sides.retain(|side| !side.is_empty());
    Ok(sides)
}

/// Items whose boxes are the same view but for numbers: those with the extents of the joined dims
/// `dims`, each of which ends with a dim whose stride it has.
struct Class {
    dims: Vec<Vec<usize>>,
    items: Vec<Item>,
}

/// Items by the dims of their views: the same for all, if a view can have so many, else those that
/// each box needs by itself.
fn classes(items: Vec<Item>, strides: &[&[i64]]) -> Vec<Class> {
    if items.is_empty() {
        return vec![];
    }
    let dims = joined_dims(items.iter().map(|item| &*item.extents), strides);
    if dims.len() <= MAX_VIEW_RANK {
        return vec![Class { dims, items }];
    }
    let mut classes: BTreeMap<Vec<Vec<usize>>, Vec<Item>> = BTreeMap::new();
    for item in items {
        let dims = joined_dims(std::iter::once(&*item.extents), strides);
        classes.entry(dims).or_default().push(item);
    }
    classes
        .into_iter()
        .map(|(dims, items)| Class { dims, items })
        .collect()
}

impl Class {
    /// The items with the extents of the joined dims.
    fn joined(self) -> Vec<Item> {
        let join = |item: Item| {
            let dims = self.dims.iter();
            let extents = dims.map(|dims| dims.iter().map(|d| item.extents[*d]).product());
            Item {
                extents: extents.collect(),
                ..item
            }
        };
        self.items.into_iter().map(join).collect()
    }

    /// The strides of the joined dims.
    fn strides(&self, strides: &[i64]) -> Vec<i64> {
        self.dims
            .iter()
            .filter_map(|dims| Some(strides[*dims.last()?]))
            .collect()
    }
}

/// Items whose boxes are views with these strides, cut along outer dims where they are not.
fn as_views(items: Vec<Item>, strides: &[i64]) -> Result<Vec<Item>, Unsupported> {
    let mut list = vec![];
    for item in items {
        let mut rows = vec![item];
        loop {
            let dims = joined_dims(std::iter::once(&*rows[0].extents), &[strides]);
            if dims.len() <= MAX_VIEW_RANK {
                break;
            }
            let d = dims[0][0];
            let mut next = vec![];
            for row in &rows {
                for at in 0..row.extents[d] as i64 {
                    let step = strides[d].checked_mul(at);
                    let offset = step.and_then(|step| row.offsets[0].checked_add(step));
                    let mut row = row.clone();
                    row.offsets[0] = offset.ok_or_else(Unsupported::overflow)?;
                    row.extents[d] = 1;
                    next.push(row);
                }
            }
            rows = next;
        }
        let number = |(port, row): (usize, Item)| Item {
            port: port as i64,
            ..row
        };
        list.extend(rows.into_iter().enumerate().map(number));
    }
    Ok(list)
}

/// Builds the segment of one round.
struct Emitter<'a, 't> {
    rows: Rows<'t>,
    cores: Range<usize>,
    dtype: DType,
    /// The old and the new value, with their buffers once they are used.
    sides: [(Side<'a>, &'a End, Option<BufferId>); 2],
    first: bool,
    staging: Option<BufferId>,
    loc: Option<LocId>,
}

/// Positions in [`Emitter::sides`].
const OLD: usize = 0;
const NEW: usize = 1;

impl Emitter<'_, '_> {
    fn round(
        &mut self,
        b: &mut SegmentBuilder,
        round: &Round,
        family: Option<FamilyId>,
        borders: Option<&(Number, Borders)>,
    ) -> Result<(), Unsupported> {
        // The two units touch different bytes.
        b.independent(|b| {
            if let Some((value, sides)) = borders {
                sides
                    .iter()
                    .try_for_each(|items| self.fill(b, items.clone(), *value))?;
            }
            self.copies(b, &round.copies)?;
            let Some(family) = family else {
                return Ok(());
            };
            let slots = self.slots(b, &round.messages)?;
            self.each_slot(b, &slots, |port, slot| Stmt::Post { family, port, slot })?;
            self.sends(b, &round.messages, family)?;
            self.each_slot(b, &slots, |port, slot| Stmt::Receive { family, port, slot })
        })?;
        self.unpack(b, &round.messages)
    }

    /// The buffer of a side.
    fn buffer(&mut self, b: &mut SegmentBuilder, side: usize) -> BufferId {
        let (Side { storage, .. }, _, known) = self.sides[side];
        if let Some(known) = known {
            return known;
        }
        let (name, role) = match side {
            OLD => ("from", BufferRole::In),
            _ if self.first => ("to", BufferRole::Out),
            _ => ("to", BufferRole::InOut),
        };
        let elements = storage.bytes / self.dtype.bytes();
        let buffer = b.buffer(name, self.dtype, &[elements], role, self.loc);
        self.sides[side].2 = Some(buffer);
        buffer
    }

    fn strides(&self, side: usize) -> Vec<i64> {
        self.sides[side].1.strides.clone()
    }

    fn index(&self, core: u32) -> usize {
        core as usize - self.cores.start
    }

    /// A window of a buffer with these strides; a single element where there is no dim.
    fn window(&self, buffer: BufferId, offset: &Affine, body: &Body, strides: &[i64]) -> Window {
        let (mut shape, mut strides) = (body.extents.clone(), strides.to_vec());
        if shape.is_empty() {
            shape.push(Affine::constant(1));
            strides.push(self.dtype.bytes() as i64);
        }
        Window {
            buffer,
            offset: offset.clone(),
            dtype: self.dtype,
            shape,
            strides,
            packing: Packing::Strided,
        }
    }

    /// The loops of items with parameters.
    fn counted(&mut self, items: Vec<Item>) -> Result<Vec<Counted>, Unsupported> {
        let loops = loops(items, self.cores.len()).into_iter();
        loops.map(|it| self.rows.counted(it)).collect()
    }

    /// Writes numbers around the tensor.
    fn fill(
        &mut self,
        b: &mut SegmentBuilder,
        items: Vec<Item>,
        value: Number,
    ) -> Result<(), Unsupported> {
        let of_layout = self.sides[NEW].0.storage.strides.clone();
        let buffer = self.buffer(b, NEW);
        for class in classes(as_views(items, &of_layout)?, &[&of_layout]) {
            let strides = class.strides(&of_layout);
            for it in self.counted(class.joined())? {
                it.push(b, Unit::Vector, self.loc, |b, body| {
                    let window = self.window(buffer, &body.offsets[0], body, &strides);
                    b.compute(
                        Unit::Vector,
                        vector::Fill { value },
                        &[window],
                        vec![],
                        self.loc,
                    );
                })?;
            }
        }
        Ok(())
    }

    /// Copies inside of cores.
    fn copies(&mut self, b: &mut SegmentBuilder, moves: &[Move]) -> Result<(), Unsupported> {
        let (old, new) = (self.strides(OLD), self.strides(NEW));
        let mut items = vec![];
        for run in moves.chunk_by(|a, b| a.to == b.to) {
            items.extend(run.iter().enumerate().map(|(port, m)| Item {
                core: self.index(m.to),
                port: port as i64,
                offsets: vec![m.target, m.source],
                extents: m.size.clone(),
            }));
        }
        for class in classes(items, &[&new, &old]) {
            let (target, source) = (self.buffer(b, NEW), self.buffer(b, OLD));
            let (to, from) = (class.strides(&new), class.strides(&old));
            self.copy(b, class.joined(), (target, &to), (source, &from))?;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        b: &mut SegmentBuilder,
        items: Vec<Item>,
        (target, to): (BufferId, &[i64]),
        (source, from): (BufferId, &[i64]),
    ) -> Result<(), Unsupported> {
        for it in self.counted(items)? {
            it.push(b, Unit::Vector, self.loc, |b, body| {
                let windows = [
                    self.window(target, &body.offsets[0], body, to),
                    self.window(source, &body.offsets[1], body, from),
                ];
                b.compute(Unit::Vector, data::Copy {}, &windows, vec![], self.loc);
            })?;
        }
        Ok(())
    }

    /// The slots of all messages: those in the staging buffer, and those at their places.
    fn slots(
        &mut self,
        b: &mut SegmentBuilder,
        messages: &[Move],
    ) -> Result<Vec<(BufferId, Counted)>, Unsupported> {
        let mut slots = vec![];
        for staged in [true, false] {
            let of_kind = messages.iter().filter(|m| m.staged.is_some() == staged);
            let items: Vec<Item> = of_kind
                .map(|m| Item {
                    core: self.index(m.to),
                    port: m.ports.1 as i64,
                    offsets: vec![m.staged.unwrap_or(m.target)],
                    extents: vec![m.size.iter().product()],
                })
                .collect();
            if items.is_empty() {
                continue;
            }
            let staging = self.staging.filter(|_| staged);
            let buffer = staging.unwrap_or_else(|| self.buffer(b, NEW));
            slots.extend(self.counted(items)?.into_iter().map(|it| (buffer, it)));
        }
        Ok(slots)
    }

    fn each_slot(
        &self,
        b: &mut SegmentBuilder,
        slots: &[(BufferId, Counted)],
        stmt: impl Fn(Affine, Ref) -> Stmt,
    ) -> Result<(), Unsupported> {
        let dense = [self.dtype.bytes() as i64];
        for (buffer, it) in slots {
            it.push(b, Unit::Comm0, self.loc, |b, body| {
                let window = self.window(*buffer, &body.offsets[0], body, &dense);
                let slot = b.operand(Unit::Comm0, &window);
                b.push(Unit::Comm0, stmt(body.port.clone(), slot), self.loc);
            })?;
        }
        Ok(())
    }

    fn sends(
        &mut self,
        b: &mut SegmentBuilder,
        messages: &[Move],
        family: FamilyId,
    ) -> Result<(), Unsupported> {
        for (side, forwarded) in [(OLD, false), (NEW, true)] {
            let strides = self.strides(side);
            let of_side = messages.iter().filter(|m| m.forwarded == forwarded);
            let items: Vec<Item> = of_side
                .map(|m| Item {
                    core: self.index(m.from),
                    port: m.ports.0 as i64,
                    offsets: vec![m.source],
                    extents: m.size.clone(),
                })
                .collect();
            for class in classes(items, &[&strides]) {
                let buffer = self.buffer(b, side);
                let strides = class.strides(&strides);
                for it in self.counted(class.joined())? {
                    it.push(b, Unit::Comm0, self.loc, |b, body| {
                        let window = self.window(buffer, &body.offsets[0], body, &strides);
                        let (port, from) = (body.port.clone(), b.operand(Unit::Comm0, &window));
                        b.push(Unit::Comm0, Stmt::Send { family, port, from }, self.loc);
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Copies from the staging buffer. The strides there depend on all extents but the outermost, so
    /// that boxes that differ in them have loops of their own.
    fn unpack(&mut self, b: &mut SegmentBuilder, messages: &[Move]) -> Result<(), Unsupported> {
        let Some(staging) = self.staging else {
            return Ok(());
        };
        let strides = self.strides(NEW);
        let item = |m: &Move| {
            Some(Item {
                core: self.index(m.to),
                port: m.ports.1 as i64,
                offsets: vec![m.target, m.staged?],
                extents: m.size.clone(),
            })
        };
        for class in classes(messages.iter().filter_map(item).collect(), &[&strides]) {
            let to = class.strides(&strides);
            let target = self.buffer(b, NEW);
            let mut alike: BTreeMap<Vec<u64>, Vec<Item>> = BTreeMap::new();
            for item in class.joined() {
                let inner = item.extents.get(1..).unwrap_or_default().to_vec();
                alike.entry(inner).or_default().push(item);
            }
            for items in alike.into_values() {
                let dense = dense_strides(self.dtype, &items[0].extents, Packing::Strided);
                let dense = dense.ok_or_else(Unsupported::overflow)?;
                self.copy(b, items, (target, &to), (staging, &dense))?;
            }
        }
        Ok(())
    }
}
