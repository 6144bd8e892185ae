//! Segments in the form that workers run: views resolved, variables as slots of a frame, views that
//! do not depend on the run laid out.

use std::sync::Arc;

use dojoc_ir::entity::EntityId;
use dojoc_ir::program::instr::{Access, Ref};
use dojoc_ir::program::{
    Affine, DramId, Env, FamilyId, Instr, MAX_LOOP_DEPTH, MAX_VIEW_RANK, Packing, Program, Segment,
    Stmt, Var, ViewType,
};

use super::fault::{Fault, unverified};
use crate::compute::Layout;

/// The most operands of an instruction.
pub(super) const MAX_OPERANDS: usize = 8;

/// An affine expression over the slots of a frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Linear {
    constant: i64,
    terms: Box<[(u32, i64)]>,
}

impl Linear {
    #[inline]
    pub(super) fn eval(&self, frame: &[i64]) -> Result<i64, Fault> {
        let mut sum = self.constant;
        for (slot, coefficient) in &self.terms {
            let product = frame[*slot as usize].checked_mul(*coefficient);
            let Some(next) = product.and_then(|product| sum.checked_add(product)) else {
                return Err(unverified("an address or a count exceeds 64 bits"));
            };
            sum = next;
        }
        Ok(sum)
    }
}

/// The layout of an operand.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Known.
    Static(Arc<Layout>),
    /// Extents depend on the run.
    Dynamic(Box<DynamicShape>),
}

/// A layout whose extents are evaluated.
#[derive(Clone, Debug)]
pub(super) struct DynamicShape {
    pub extents: Vec<Linear>,
    /// With extents of zero.
    pub view: ViewType,
    /// Where workers remember the last layout.
    pub memo: u32,
}

/// An operand. Aligned like [`Compute`].
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Operand {
    /// The buffer, whose address a call knows.
    pub buffer: u32,
    /// The first element, from the start of the buffer.
    pub offset: Linear,
    pub shape: Shape,
}

/// A compute instruction. All workers read it all the time, so that it must not share a cache line
/// with what one of them writes.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Compute {
    pub instr: Instr,
    /// The operands that are written come first.
    pub operands: Vec<Operand>,
    pub targets: usize,
    /// For each target, whether all elements are written and none is read.
    pub overwrites: [bool; 2],
    pub scalars: Vec<Linear>,
    /// Layouts are checked where they are evaluated.
    pub dynamic: bool,
    /// Is a tile product.
    pub matmul: bool,
}

/// Bytes of an instance of a DRAM region.
#[derive(Clone, Debug)]
pub(super) struct DramOperand {
    pub dram: DramId,
    pub owner: Linear,
    pub offset: Linear,
    /// The same extents as the operand in SRAM, in the strides of the instance.
    pub shape: Shape,
    /// The operand in SRAM.
    pub sram: Operand,
}

/// The end of a channel.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub family: FamilyId,
    pub port: Linear,
}

/// A decoded statement.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Compute(Box<Compute>),
    Post(Box<(Channel, Operand)>),
    Send(Box<(Channel, Operand)>),
    Receive(Box<(Channel, Operand)>),
    Relay(Box<(Channel, Operand, Channel)>),
    Signal(u32),
    Wait(u32),
    DramBegin(DramId),
    DramCommit(DramId),
    DramAcquire(DramId, Box<Linear>),
    DramRelease(DramId, Box<Linear>),
    DramLoad(Box<DramOperand>),
    DramStore(Box<DramOperand>),
    /// Skips to `exit` if there is nothing to do.
    Loop {
        count: Box<Linear>,
        counter: u32,
        exit: u32,
    },
    /// Goes back to `body` unless the count is reached.
    Next {
        counter: u32,
        body: u32,
    },
    Count {
        register: u32,
        from: Box<Operand>,
        max: u64,
    },
}

/// A decoded stream.
#[derive(Clone, Debug)]
pub(super) struct Code {
    pub ops: Vec<Action>,
    /// The statement of each.
    pub places: Vec<u32>,
}

/// A buffer of a decoded segment.
#[derive(Clone, Debug)]
pub(super) struct BufferSlot {
    pub at: Linear,
    pub bytes: u32,
    /// Content is neither there at the start nor kept.
    pub scratch: bool,
    /// Content is kept.
    pub live_out: bool,
}

/// A decoded segment. The frame of a stream holds parameters, run parameters, loop counters, loop
/// counts, registers.
#[derive(Clone, Debug)]
pub(super) struct Decoded {
    pub streams: Vec<Code>,
    pub buffers: Vec<BufferSlot>,
    pub params: usize,
    pub frame: usize,
    pub tokens: usize,
}

impl Decoded {
    /// The values in the frame of a stream, of a program with so many run parameters.
    pub(super) fn env<'a>(&self, frame: &'a [i64], dims: usize) -> Env<'a> {
        let (params, rest) = frame.split_at(self.params.min(frame.len()));
        let (dims, rest) = rest.split_at(dims.min(rest.len()));
        let (loops, rest) = rest.split_at(MAX_LOOP_DEPTH.min(rest.len()));
        let (_, registers) = rest.split_at(MAX_LOOP_DEPTH.min(rest.len()));
        Env {
            params,
            dims,
            loops,
            registers,
        }
    }
}

/// Slots of a frame.
#[derive(Clone, Copy)]
struct Slots {
    params: usize,
    dims: usize,
    registers: usize,
}

impl Slots {
    fn loops(self) -> usize {
        self.params + self.dims
    }

    fn first_register(self) -> usize {
        self.loops() + 2 * MAX_LOOP_DEPTH
    }

    fn len(self) -> usize {
        self.first_register() + self.registers
    }
}

struct Decoder<'a> {
    segment: &'a Segment,
    slots: Slots,
    sram: u64,
    memos: &'a mut u32,
}

fn missing() -> Fault {
    unverified("a part of the program refers to what does not exist")
}

impl Decoder<'_> {
    fn linear(&self, affine: &Affine) -> Result<Linear, Fault> {
        let slots = self.slots;
        let term = |(var, coefficient): &(Var, i64)| {
            let (first, at, count) = match *var {
                Var::Param(at) => (0, usize::from(at), slots.params),
                Var::Dim(at) => (slots.params, usize::from(at), slots.dims),
                Var::Loop(at) => (slots.loops(), usize::from(at), MAX_LOOP_DEPTH),
                Var::Register(at) => (slots.first_register(), usize::from(at), slots.registers),
            };
            let slot = (at < count).then_some((first + at) as u32);
            slot.map(|slot| (slot, *coefficient)).ok_or_else(missing)
        };
        Ok(Linear {
            constant: affine.constant,
            terms: affine.terms.iter().map(term).collect::<Result<_, _>>()?,
        })
    }

    fn shape(&mut self, view: ViewType, extents: &[Affine]) -> Result<Shape, Fault> {
        let constant = |e: &Affine| u64::try_from(e.as_constant()?).ok();
        let known: Option<Vec<u64>> = extents.iter().map(constant).collect();
        if let Some(shape) = known {
            let layout = Layout::new(ViewType { shape, ..view });
            let layout = layout.ok_or_else(|| unverified("a view is too large"))?;
            return Ok(Shape::Static(Arc::new(layout)));
        }
        if extents.len() > MAX_VIEW_RANK || extents.len() != view.strides.len() {
            return Err(unverified("a view is malformed"));
        }
        let extents: Result<_, _> = extents.iter().map(|e| self.linear(e)).collect();
        *self.memos += 1;
        Ok(Shape::Dynamic(Box::new(DynamicShape {
            extents: extents?,
            view,
            memo: *self.memos - 1,
        })))
    }

    fn operand(&mut self, operand: Ref) -> Result<Operand, Fault> {
        let buffer = self.segment.buffer_of(operand).ok_or_else(missing)?;
        let declared = self.segment.buffers.get(buffer).ok_or_else(missing)?;
        let (offset, shape) = match operand {
            Ref::Buffer(_) => {
                let view = declared.view_type().and_then(Layout::new);
                let layout = view.ok_or_else(|| unverified("a buffer is too large"))?;
                (Linear::default(), Shape::Static(Arc::new(layout)))
            }
            Ref::View(view) => {
                let view = self.segment.views.get(view).ok_or_else(missing)?;
                let template = ViewType {
                    dtype: view.dtype,
                    shape: vec![0; view.shape.len()],
                    strides: view.strides.clone(),
                    packing: view.packing,
                };
                let shape = self.shape(template, &view.shape)?;
                (self.linear(&view.offset)?, shape)
            }
        };
        Ok(Operand {
            buffer: buffer.index() as u32,
            offset,
            shape,
        })
    }

    fn channel(&self, family: FamilyId, port: &Affine) -> Result<Channel, Fault> {
        let port = self.linear(port)?;
        Ok(Channel { family, port })
    }

    fn compute(
        &mut self,
        instr: &Instr,
        operands: &[Ref],
        scalars: &[Affine],
    ) -> Result<Action, Fault> {
        let operands = operands.iter().map(|o| self.operand(*o));
        let operands: Vec<Operand> = operands.collect::<Result<_, _>>()?;
        let roles = instr.roles();
        let targets = roles
            .iter()
            .take_while(|r| r.access != Access::Read)
            .count();
        let sources = roles.iter().skip(targets);
        let well_formed = roles.len() == operands.len()
            && roles.len() <= MAX_OPERANDS
            && (1..=2).contains(&targets)
            && sources.clone().all(|r| r.access == Access::Read)
            && scalars.len() == instr.scalars().len();
        if !well_formed {
            return Err(unverified(
                "an instruction has other operands than it takes",
            ));
        }
        let known: Option<Vec<ViewType>> = operands
            .iter()
            .map(|operand| match &operand.shape {
                Shape::Static(layout) => Some(layout.view.clone()),
                Shape::Dynamic(_) => None,
            })
            .collect();
        if let Some(types) = &known {
            instr.check(types).map_err(|what| unverified(&what))?;
        }
        let overwrites =
            |target: usize| roles.get(target).is_some_and(|r| r.access == Access::Write);
        Ok(Action::Compute(Box::new(Compute {
            overwrites: [overwrites(0), overwrites(1)],
            operands,
            targets,
            scalars: scalars
                .iter()
                .map(|s| self.linear(s))
                .collect::<Result<_, _>>()?,
            dynamic: known.is_none(),
            matmul: instr.needs_matrix(),
            instr: instr.clone(),
        })))
    }

    fn dram(
        &mut self,
        dram: DramId,
        owner: Linear,
        (offset, strides): (&Affine, &[i64]),
        sram: Ref,
    ) -> Result<Box<DramOperand>, Fault> {
        let operand = self.operand(sram)?;
        let (dtype, extents): (_, Vec<Affine>) = match (sram, &operand.shape) {
            (Ref::View(view), _) => {
                let view = self.segment.views.get(view).ok_or_else(missing)?;
                (view.dtype, view.shape.clone())
            }
            (_, Shape::Static(layout)) => {
                let extents = layout.view.shape.iter();
                let extents = extents.map(|e| Affine::constant(*e as i64)).collect();
                (layout.view.dtype, extents)
            }
            _ => return Err(missing()),
        };
        if strides.len() != extents.len() {
            return Err(unverified("a transfer has other strides than its view"));
        }
        let view = ViewType {
            dtype,
            shape: vec![0; extents.len()],
            strides: strides.to_vec(),
            packing: Packing::Strided,
        };
        Ok(Box::new(DramOperand {
            dram,
            owner,
            offset: self.linear(offset)?,
            shape: self.shape(view, &extents)?,
            sram: operand,
        }))
    }

    fn statement(&mut self, stmt: &Stmt) -> Result<Action, Fault> {
        Ok(match stmt {
            Stmt::Compute {
                instr,
                operands,
                scalars,
            } => self.compute(instr, operands, scalars)?,
            Stmt::Post { family, port, slot } => {
                let channel = self.channel(*family, port)?;
                Action::Post(Box::new((channel, self.operand(*slot)?)))
            }
            Stmt::Send { family, port, from } => {
                let channel = self.channel(*family, port)?;
                Action::Send(Box::new((channel, self.operand(*from)?)))
            }
            Stmt::Receive { family, port, slot } => {
                let channel = self.channel(*family, port)?;
                Action::Receive(Box::new((channel, self.operand(*slot)?)))
            }
            Stmt::Relay {
                family,
                port,
                slot,
                to,
                to_port,
            } => {
                let (from, to) = (self.channel(*family, port)?, self.channel(*to, to_port)?);
                Action::Relay(Box::new((from, self.operand(*slot)?, to)))
            }
            Stmt::Signal(token) | Stmt::Wait(token) => {
                self.segment.tokens.get(*token).ok_or_else(missing)?;
                let token_index = token.index() as u32;
                match stmt {
                    Stmt::Signal(_) => Action::Signal(token_index),
                    _ => Action::Wait(token_index),
                }
            }
            Stmt::DramBegin(dram) => Action::DramBegin(*dram),
            Stmt::DramCommit(dram) => Action::DramCommit(*dram),
            Stmt::DramAcquire { dram, owner } => {
                Action::DramAcquire(*dram, Box::new(self.linear(owner)?))
            }
            Stmt::DramRelease { dram, owner } => {
                Action::DramRelease(*dram, Box::new(self.linear(owner)?))
            }
            Stmt::DramLoad {
                dram,
                owner,
                offset,
                strides,
                to,
            } => {
                let owner = self.linear(owner)?;
                Action::DramLoad(self.dram(*dram, owner, (offset, strides), *to)?)
            }
            Stmt::DramStore {
                dram,
                offset,
                strides,
                from,
            } => {
                let none = Linear::default();
                Action::DramStore(self.dram(*dram, none, (offset, strides), *from)?)
            }
            Stmt::Count {
                register,
                from,
                max,
                ..
            } => {
                let register = usize::from(*register);
                if register >= self.slots.registers {
                    return Err(missing());
                }
                Action::Count {
                    register: (self.slots.first_register() + register) as u32,
                    from: Box::new(self.operand(*from)?),
                    max: *max,
                }
            }
            Stmt::View(_) | Stmt::Loop { .. } => return Err(missing()),
        })
    }

    fn stream(&mut self, code: &[dojoc_ir::program::Inst]) -> Result<Code, (u32, Fault)> {
        let mut ops = Vec::with_capacity(code.len());
        let mut places = Vec::with_capacity(code.len());
        // Of every open loop the op, and the position behind its body.
        let mut open: Vec<(usize, usize)> = Vec::new();
        for at in 0..=code.len() {
            let place = at as u32;
            while let Some((start, end)) = open.last().copied()
                && end <= at
            {
                open.pop();
                let counter = (self.slots.loops() + open.len()) as u32;
                let body = start as u32 + 1;
                ops.push(Action::Next { counter, body });
                places.push(places[start]);
                let exit_at = ops.len() as u32;
                if let Action::Loop { exit, .. } = &mut ops[start] {
                    *exit = exit_at;
                }
            }
            let Some(inst) = code.get(at) else {
                break;
            };
            let fail = |fault| (place, fault);
            let op = match &inst.stmt {
                Stmt::View(_) => continue,
                Stmt::Loop { count, len, .. } => {
                    let end = at + 1 + *len as usize;
                    let outer = open.last().map_or(code.len(), |(_, end)| *end);
                    if end > outer || open.len() >= MAX_LOOP_DEPTH {
                        return Err(fail(unverified("loops are not well nested")));
                    }
                    let counter = (self.slots.loops() + open.len()) as u32;
                    open.push((ops.len(), end));
                    Action::Loop {
                        count: Box::new(self.linear(count).map_err(fail)?),
                        counter,
                        exit: 0,
                    }
                }
                stmt => self.statement(stmt).map_err(fail)?,
            };
            ops.push(op);
            places.push(place);
        }
        Ok(Code { ops, places })
    }

    fn buffers(&self) -> Result<Vec<BufferSlot>, Fault> {
        let slot = |buffer: &dojoc_ir::program::Buffer| {
            let bytes = buffer.bytes();
            if bytes > self.sram {
                return Err(unverified("a buffer is larger than the SRAM"));
            }
            Ok(BufferSlot {
                at: self.linear(&buffer.at)?,
                bytes: bytes as u32,
                scratch: !buffer.role.live_in() && !buffer.role.live_out(),
                live_out: buffer.role.live_out(),
            })
        };
        self.segment.buffers.values().map(slot).collect()
    }
}

/// The slot of the count of a loop whose counter is in `counter`.
pub(super) fn count_slot(counter: u32) -> usize {
    counter as usize + MAX_LOOP_DEPTH
}

/// Decodes a segment for cores with `sram` bytes. `memos` counts the layouts that depend on the run.
///
/// # Errors
/// Stream, statement and reason.
pub(super) fn decode(
    program: &Program,
    segment: &Segment,
    sram: u64,
    memos: &mut u32,
) -> Result<Decoded, (u32, u32, Fault)> {
    let slots = Slots {
        params: segment.params.len(),
        dims: program.dims.len(),
        registers: segment.registers.len(),
    };
    let mut decoder = Decoder {
        segment,
        slots,
        sram,
        memos,
    };
    let buffers = decoder.buffers().map_err(|fault| (0, 0, fault))?;
    let mut streams = Vec::new();
    for (at, stream) in segment.streams.iter().enumerate() {
        let code = decoder.stream(&stream.code);
        streams.push(code.map_err(|(place, fault)| (at as u32, place, fault))?);
    }
    if streams.len() > 4 {
        return Err((4, 0, unverified("a segment has more than four streams")));
    }
    Ok(Decoded {
        streams,
        buffers,
        params: slots.params,
        frame: slots.len(),
        tokens: segment.tokens.len(),
    })
}
