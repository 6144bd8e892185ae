//! Building a segment statement by statement.
//!
//! Statements are pushed in one order, whatever their units; the streams of the segment behave as if
//! they ran in that order. Where the unit changes, the builder makes the new stream wait for the old
//! one. What may run side by side is put into a scope of [`independent`](SegmentBuilder::independent)
//! statements.

mod price;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dojoc_ir::entity::{EntityId, PrimaryMap};
use dojoc_ir::program::instr::{Instr, Ref};
use dojoc_ir::program::{
    Affine, Buffer, BufferId, BufferRole, Inst, LocId, MAX_LOOP_DEPTH, Packing, Segment, Stmt,
    Stream, TokenId, Unit, Var, View, ViewId, dense_strides,
};
use dojoc_ir::types::DType;

use super::Unsupported;

/// A window of a buffer: a [`View`] without a name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte, from the start of the buffer.
    pub offset: Affine,
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<Affine>,
    /// Strides in bytes.
    pub strides: Vec<i64>,
    /// Packing.
    pub packing: Packing,
}

/// When a scratch buffer is needed, in positions of [`SegmentBuilder`]'s emission order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// The buffer.
    pub buffer: BufferId,
    /// Its size.
    pub bytes: u64,
    /// The first statement that uses it.
    pub first: usize,
    /// The last statement that uses it.
    pub last: usize,
}

/// A stream that grows.
#[derive(Default)]
struct Growing {
    code: Vec<Inst>,
    /// Views that can be referred to, one map per open body, outermost first.
    views: Vec<BTreeMap<Key, ViewId>>,
}

/// What makes two windows the same.
type Key = (BufferId, Affine, DType, Vec<Affine>, Vec<i64>, Packing);

/// A scope of statements without order between units.
struct Independent {
    /// Units that must have finished before, with the lengths of their streams then.
    before: Vec<(Unit, usize)>,
    /// Units that have begun.
    begun: BTreeSet<Unit>,
}

/// Statements that a buffer is used in all of if it is used in one: a loop, or an independent scope.
struct Span {
    start: usize,
    used: BTreeSet<BufferId>,
}

/// Builds a [`Segment`]. See the [module](self).
///
/// Mistakes of the caller (a unit that changes inside of a loop, loops nested too deep) and numbers
/// beyond 64 bits do not show at once: [`finish`](Self::finish) returns the first of them.
pub struct SegmentBuilder {
    name: Arc<str>,
    loc: Option<LocId>,
    names: BTreeSet<Arc<str>>,
    params: Vec<Arc<str>>,
    registers: Vec<Arc<str>>,
    buffers: PrimaryMap<BufferId, Buffer>,
    lives: Vec<Option<(usize, usize)>>,
    views: PrimaryMap<ViewId, View>,
    tokens: PrimaryMap<TokenId, Arc<str>>,
    between: BTreeMap<(Unit, Unit), TokenId>,
    streams: BTreeMap<Unit, Growing>,
    /// Units whose last statements come before the next one.
    frontier: Vec<Unit>,
    independent: Option<Independent>,
    spans: Vec<Span>,
    /// Unit of the open loops and their number.
    looping: Option<(Unit, usize)>,
    position: usize,
    rearranged: u64,
    fault: Option<Unsupported>,
}

impl SegmentBuilder {
    /// An empty segment.
    pub fn new(name: impl Into<Arc<str>>, loc: Option<LocId>) -> Self {
        Self {
            name: name.into(),
            loc,
            names: BTreeSet::new(),
            params: Vec::new(),
            registers: Vec::new(),
            buffers: PrimaryMap::new(),
            lives: Vec::new(),
            views: PrimaryMap::new(),
            tokens: PrimaryMap::new(),
            between: BTreeMap::new(),
            streams: BTreeMap::new(),
            frontier: Vec::new(),
            independent: None,
            spans: Vec::new(),
            looping: None,
            position: 0,
            rearranged: 128 << 10,
            fault: None,
        }
    }

    /// A name that nothing has yet: the wish itself or with a number behind it.
    fn unique(&mut self, wish: &str) -> Arc<str> {
        let mut name: Arc<str> = wish.into();
        let mut number = self.names.len();
        while !self.names.insert(name.clone()) {
            name = format!("{wish}_{number}").into();
            number += 1;
        }
        name
    }

    fn fail(&mut self, fault: Unsupported) {
        self.fault.get_or_insert(fault);
    }

    /// The entry of the parameter row with this name, a new one if there is none.
    pub fn param(&mut self, name: &str) -> Var {
        let known = self.params.iter().position(|param| &**param == name);
        let index = known.unwrap_or_else(|| {
            let name = self.unique(name);
            self.params.push(name);
            self.params.len() - 1
        });
        match u16::try_from(index) {
            Ok(index) => Var::Param(index),
            Err(_) => {
                self.fail(Unsupported::new(
                    "a segment has more than 65,536 parameters",
                ));
                Var::Param(u16::MAX)
            }
        }
    }

    /// The names of the parameter row so far.
    pub fn params(&self) -> &[Arc<str>] {
        &self.params
    }

    /// A new uniform register: its position for [`Stmt::Count`] and [`Var::Register`].
    pub fn register(&mut self, name: &str) -> u16 {
        let name = self.unique(name);
        self.registers.push(name);
        u16::try_from(self.registers.len() - 1).unwrap_or_else(|_| {
            self.fail(Unsupported::new("a segment has more than 65,536 registers"));
            u16::MAX
        })
    }

    /// A new buffer of these largest extents, without packing, at address 0 until
    /// [`set_address`](Self::set_address) or until a call places it. Its name gets a number if it is
    /// taken.
    pub fn buffer(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[u64],
        role: BufferRole,
        loc: Option<LocId>,
    ) -> BufferId {
        let name = self.unique(name);
        self.lives.push(None);
        self.buffers.push(Buffer {
            name,
            at: Affine::constant(0),
            dtype,
            shape: shape.to_vec(),
            packing: Packing::Strided,
            role,
            loc,
        })
    }

    /// A new scratch buffer. See [`buffer`](Self::buffer).
    pub fn scratch(&mut self, name: &str, dtype: DType, shape: &[u64]) -> BufferId {
        self.buffer(name, dtype, shape, BufferRole::Scratch, self.loc)
    }

    /// The buffers so far.
    pub fn buffers(&self) -> &PrimaryMap<BufferId, Buffer> {
        &self.buffers
    }

    /// Sets the address of a buffer's first byte.
    pub fn set_address(&mut self, buffer: BufferId, address: u64) {
        match i64::try_from(address) {
            Ok(address) => self.buffers[buffer].at = Affine::constant(address),
            Err(_) => self.fail(Unsupported::overflow()),
        }
    }

    /// Sets the packing of a buffer, which is [`Packing::Strided`] before.
    pub fn set_packing(&mut self, buffer: BufferId, packing: Packing) {
        self.buffers[buffer].packing = packing;
    }

    /// The scratch buffers that statements use, in order of their ids. Two of them may share bytes
    /// if one is last used before the other is first used.
    pub fn scratch_lives(&self) -> Vec<Life> {
        self.buffers
            .iter()
            .filter(|(_, buffer)| buffer.role == BufferRole::Scratch)
            .filter_map(|(id, buffer)| {
                let (first, last) = self.lives[id.index()]?;
                let bytes = buffer.bytes();
                Some(Life {
                    buffer: id,
                    bytes,
                    first,
                    last,
                })
            })
            .collect()
    }

    /// The most bytes of scratch buffers that are needed at once: what an allocator needs at least.
    pub fn scratch_peak(&self) -> u64 {
        let lives = self.scratch_lives();
        let at = |position: usize| {
            let alive = lives.iter();
            let alive = alive.filter(|life| (life.first..=life.last).contains(&position));
            alive.map(|life| life.bytes).fold(0, u64::saturating_add)
        };
        // The sum is largest where some life begins.
        lives.iter().map(|life| at(life.first)).max().unwrap_or(0)
    }

    /// Lets code rearrange operands of at most so many bytes each in scratch buffers, to read them
    /// faster; 128 KiB if nothing is said. With 0 there are no such buffers.
    pub fn limit_rearranged(&mut self, bytes: u64) {
        self.rearranged = bytes;
    }

    /// The limit, see [`limit_rearranged`](Self::limit_rearranged).
    pub fn rearranged(&self) -> u64 {
        self.rearranged
    }

    /// Number of statements pushed so far, tokens and views not counted: the position in
    /// [`scratch_lives`](Self::scratch_lives) that the next one will have.
    pub fn position(&self) -> usize {
        self.position
    }

    /// An operand for statements of a unit that follow in the same body: the buffer itself if the
    /// window is all of it, else a view, which is defined here unless it is already.
    pub fn operand(&mut self, unit: Unit, window: &Window) -> Ref {
        if self.is_whole(window) {
            return Ref::Buffer(window.buffer);
        }
        let key: Key = (
            window.buffer,
            window.offset.clone(),
            window.dtype,
            window.shape.clone(),
            window.strides.clone(),
            window.packing,
        );
        let depth = self.looping.map_or(0, |(_, depth)| depth);
        let stream = self.streams.entry(unit).or_default();
        stream.views.resize_with(depth + 1, BTreeMap::new);
        // A register may have got another value since.
        let exprs = || window.shape.iter().chain([&window.offset]);
        let lasting = exprs().all(|expr| {
            let mut vars = expr.terms.iter().map(|(var, _)| var);
            vars.all(|var| !matches!(var, Var::Register(_)))
        });
        if lasting && let Some(view) = stream.views.iter().find_map(|body| body.get(&key)) {
            return Ref::View(*view);
        }
        let name = self.unique("v");
        let view = self.views.push(View {
            name,
            buffer: window.buffer,
            offset: window.offset.clone(),
            dtype: window.dtype,
            shape: window.shape.clone(),
            strides: window.strides.clone(),
            packing: window.packing,
        });
        let stream = self.streams.entry(unit).or_default();
        if let Some(body) = stream.views.last_mut() {
            body.insert(key, view);
        }
        let (stmt, loc) = (Stmt::View(view), None);
        stream.code.push(Inst { stmt, loc });
        Ref::View(view)
    }

    fn is_whole(&self, window: &Window) -> bool {
        let buffer = &self.buffers[window.buffer];
        let dense = dense_strides(buffer.dtype, &buffer.shape, buffer.packing);
        let shape = window.shape.iter().map(Affine::as_constant);
        let declared = buffer
            .shape
            .iter()
            .map(|extent| i64::try_from(*extent).ok());
        window.offset.as_constant() == Some(0)
            && window.dtype == buffer.dtype
            && window.packing == buffer.packing
            && shape.eq(declared)
            && dense.as_ref() == Some(&window.strides)
    }

    /// Adds a compute instruction with its operands as windows.
    pub fn compute(
        &mut self,
        unit: Unit,
        instr: impl Into<Instr>,
        operands: &[Window],
        scalars: Vec<Affine>,
        loc: Option<LocId>,
    ) {
        // A view in front of the wait would be as good, but reads worse.
        self.order(unit);
        let operands = operands.iter().map(|window| self.operand(unit, window));
        let operands = operands.collect();
        let instr = instr.into();
        let stmt = Stmt::Compute {
            instr,
            operands,
            scalars,
        };
        self.push(unit, stmt, loc);
    }

    /// Adds a statement behind all others; loops, views and tokens come by their own functions.
    pub fn push(&mut self, unit: Unit, stmt: Stmt, loc: Option<LocId>) {
        self.order(unit);
        for operand in stmt.operands() {
            self.used(*operand);
        }
        self.position += 1;
        let stream = self.streams.entry(unit).or_default();
        stream.code.push(Inst { stmt, loc });
    }

    fn used(&mut self, operand: Ref) {
        let buffer = match operand {
            Ref::Buffer(buffer) => buffer,
            Ref::View(view) => self.views[view].buffer,
        };
        self.lives_at(buffer, self.position, self.position);
        for span in &mut self.spans {
            span.used.insert(buffer);
        }
    }

    fn lives_at(&mut self, buffer: BufferId, first: usize, last: usize) {
        let life = &mut self.lives[buffer.index()];
        let (low, high) = life.unwrap_or((first, last));
        *life = Some((low.min(first), high.max(last)));
    }

    fn token(&mut self, from: Unit, to: Unit) -> TokenId {
        if let Some(token) = self.between.get(&(from, to)) {
            return *token;
        }
        let name = |unit: Unit| {
            Unit::ALL
                .iter()
                .find(|(u, _)| *u == unit)
                .map_or("", |(_, n)| n)
        };
        let name = self.unique(&format!("{}_to_{}", name(from), name(to)));
        let token = self.tokens.push(name);
        self.between.insert((from, to), token);
        token
    }

    /// Makes the next statement of a unit come behind all that it must come behind.
    fn order(&mut self, unit: Unit) {
        if let Some((of_loop, _)) = self.looping {
            if of_loop != unit {
                self.fail(Unsupported::new("the unit changes inside of a loop"));
            }
            return;
        }
        if let Some(scope) = &mut self.independent {
            if !scope.begun.insert(unit) {
                return;
            }
            let before = scope.before.clone();
            for (from, at) in before {
                self.wait(from, Some(at), unit);
            }
            return;
        }
        for from in std::mem::replace(&mut self.frontier, vec![unit]) {
            self.wait(from, None, unit);
        }
    }

    /// Makes `to` wait for what `from` has done up to a position of its stream, or so far.
    fn wait(&mut self, from: Unit, at: Option<usize>, to: Unit) {
        if from == to {
            return;
        }
        let token = self.token(from, to);
        let inst = |stmt| Inst { stmt, loc: None };
        let code = &mut self.streams.entry(from).or_default().code;
        let at = at.map_or(code.len(), |at| at.min(code.len()));
        code.insert(at, inst(Stmt::Signal(token)));
        let stream = self.streams.entry(to).or_default();
        stream.code.push(inst(Stmt::Wait(token)));
    }

    /// Adds what `body` pushes as statements without an order between units: each unit waits for all
    /// that came before, and what comes behind waits for all of them. Streams of one unit keep their
    /// order. Inside of another such scope, or of a loop, it makes no difference.
    pub fn independent<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        if self.independent.is_some() || self.looping.is_some() {
            return body(self);
        }
        let length = |unit: &Unit| self.streams.get(unit).map_or(0, |stream| stream.code.len());
        let before = self
            .frontier
            .iter()
            .map(|unit| (*unit, length(unit)))
            .collect();
        let begun = BTreeSet::new();
        self.independent = Some(Independent { before, begun });
        self.open_span();
        let result = body(self);
        self.close_span();
        if let Some(scope) = self.independent.take()
            && !scope.begun.is_empty()
        {
            self.frontier = scope.begun.into_iter().collect();
        }
        result
    }

    fn open_span(&mut self) {
        let start = self.position;
        let used = BTreeSet::new();
        self.spans.push(Span { start, used });
    }

    fn close_span(&mut self) {
        if let Some(span) = self.spans.pop() {
            let last = self.position.saturating_sub(1).max(span.start);
            for buffer in span.used {
                self.lives_at(buffer, span.start, last);
            }
        }
    }

    /// Adds a loop of `count` iterations of what `body` pushes, all of it for one unit. `body` gets
    /// the counter. Without a statement in the body there is no loop.
    pub fn repeat<T>(
        &mut self,
        unit: Unit,
        count: Affine,
        loc: Option<LocId>,
        body: impl FnOnce(&mut Self, Var) -> T,
    ) -> T {
        self.order(unit);
        let outer = self.looping;
        let depth = outer.map_or(0, |(_, depth)| depth);
        if depth >= MAX_LOOP_DEPTH {
            let message = format!("loops are nested more than {MAX_LOOP_DEPTH} deep");
            self.fail(Unsupported::new(message));
        }
        let name = self.unique("i");
        let stream = self.streams.entry(unit).or_default();
        let at = stream.code.len();
        let stmt = Stmt::Loop {
            name: name.clone(),
            count: count.clone(),
            len: 0,
        };
        stream.code.push(Inst { stmt, loc });
        self.looping = Some((unit, depth + 1));
        self.open_span();
        let counter = Var::Loop(u8::try_from(depth).unwrap_or(u8::MAX));
        let result = body(self, counter);
        self.close_span();
        self.looping = outer;
        let stream = self.streams.entry(unit).or_default();
        stream.views.truncate(depth + 1);
        match u32::try_from(stream.code.len() - at - 1) {
            Ok(0) => {
                stream.code.pop();
            }
            Ok(len) => stream.code[at].stmt = Stmt::Loop { name, count, len },
            Err(_) => self.fail(Unsupported::new("a loop has more than 2^32 statements")),
        }
        result
    }

    /// The segment.
    ///
    /// # Errors
    /// The first mistake, see [`SegmentBuilder`].
    pub fn finish(self) -> Result<Segment, Unsupported> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let streams = self.streams.into_iter();
        let streams = streams.map(|(unit, stream)| Stream {
            unit,
            code: stream.code,
        });
        Ok(Segment {
            name: self.name,
            params: self.params,
            buffers: self.buffers,
            views: self.views,
            tokens: self.tokens,
            registers: self.registers,
            streams: streams.filter(|stream| !stream.code.is_empty()).collect(),
            loc: self.loc,
        })
    }
}
