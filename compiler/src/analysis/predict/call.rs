//! What a call of a segment costs on one core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use dojoc_ir::entity::EntityId as _;
use dojoc_ir::machine::Machine;
use dojoc_ir::program::instr::{Cost, Ref, control, memory, network, sync};
use dojoc_ir::program::{
    Affine, Env, FamilyId, Inst, LocId, Program, Segment, SegmentId, Stmt, Var, ViewType,
};

/// Statements that are followed one by one in a call; a call of more is priced as if its streams ran
/// one after the other.
const FOLLOWED: u64 = 1 << 18;

/// What a call costs on a core that has one parameter row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CallCost {
    /// Cycles from start to end, without waiting for other cores.
    pub cycles: f64,
    /// Statements carried out, without view definitions and loops.
    pub instructions: u64,
    /// Messages sent, a multicast once per branch.
    pub messages: u64,
    /// Bytes of their elements.
    pub bytes: u64,
    /// Cycles of the statements that come from each op, whatever runs beside them.
    pub by_loc: BTreeMap<Option<LocId>, f64>,
}

/// What the cost of a segment depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Parameters that decide extents and counts, ascending.
    pub params: Vec<u16>,
    /// Families through which it receives.
    pub receives: BTreeSet<FamilyId>,
    /// Families through which it sends or receives.
    pub families: BTreeSet<FamilyId>,
    /// For each statement of each stream that is a loop: whether all its iterations cost the same and
    /// meet no other stream, so that one of them stands for all.
    even: Vec<Vec<bool>>,
}

/// The expressions that decide what a statement costs.
fn deciding<'s>(segment: &'s Segment, stmt: &'s Stmt) -> Vec<&'s Affine> {
    if let Stmt::Loop { count, .. } = stmt {
        return vec![count];
    }
    let views = stmt.operands().iter().copied().filter_map(|operand| {
        let Ref::View(view) = operand else {
            return None;
        };
        segment.views.get(view)
    });
    views.flat_map(|view| &view.shape).collect()
}

impl Facts {
    pub fn of(segment: &Segment) -> Self {
        let mut facts = Self::default();
        let mut params = BTreeSet::new();
        for stream in &segment.streams {
            for inst in &stream.code {
                for expr in deciding(segment, &inst.stmt) {
                    params.extend(expr.terms.iter().filter_map(|(var, _)| match var {
                        Var::Param(param) => Some(*param),
                        _ => None,
                    }));
                }
                match &inst.stmt {
                    Stmt::Send { family, .. } | Stmt::Post { family, .. } => {
                        facts.families.insert(*family);
                    }
                    Stmt::Receive { family, .. } => {
                        facts.families.insert(*family);
                        facts.receives.insert(*family);
                    }
                    Stmt::Relay { family, to, .. } => {
                        facts.families.extend([*family, *to]);
                        facts.receives.insert(*family);
                    }
                    _ => {}
                }
            }
            facts.even.push(even_loops(segment, &stream.code));
        }
        facts.params = params.into_iter().collect();
        facts
    }
}

fn even_loops(segment: &Segment, code: &[Inst]) -> Vec<bool> {
    let mut ends: Vec<usize> = vec![];
    let mut even = vec![false; code.len()];
    for (at, inst) in code.iter().enumerate() {
        while ends.last().is_some_and(|end| *end <= at) {
            ends.pop();
        }
        let Stmt::Loop { len, .. } = &inst.stmt else {
            continue;
        };
        let end = (at + 1).saturating_add(*len as usize).min(code.len());
        let counter = u8::try_from(ends.len()).map(Var::Loop);
        even[at] = code[at + 1..end].iter().all(|inner| {
            let meets = matches!(inner.stmt, Stmt::Signal(_) | Stmt::Wait(_));
            let varies = deciding(segment, &inner.stmt)
                .iter()
                .any(|expr| expr.terms.iter().any(|(var, _)| Ok(*var) == counter));
            !meets && !varies
        });
        ends.push(end);
    }
    even
}

/// What one statement costs.
#[derive(Clone, Copy)]
struct Price {
    /// Cycles that it takes alone.
    cycles: f64,
    /// Cycles for which it occupies each unit of the core.
    units: [f64; 8],
    messages: u64,
    bytes: u64,
}

impl Price {
    fn of(cost: Cost, messages: u64, bytes: u64, machine: &Machine) -> Self {
        Self {
            cycles: cost.alone(machine),
            units: [
                cost.issue,
                cost.matrix,
                cost.simd,
                cost.scalar,
                cost.load,
                cost.store,
                cost.inject / f64::from(machine.noc.inject.value),
                cost.eject / f64::from(machine.noc.eject.value),
            ],
            messages,
            bytes,
        }
    }
}

/// A loop that a stream is in.
struct Frame {
    body: Range<usize>,
    /// Iterations after this one.
    left: i64,
    /// How much what surrounds the loop counts.
    weight: u64,
}

/// A stream on its way.
struct Walk<'p> {
    stream: usize,
    code: &'p [Inst],
    at: usize,
    frames: Vec<Frame>,
    counters: Vec<i64>,
    /// How many times a statement counts: iterations of even loops.
    weight: u64,
    clock: f64,
}

/// Follows the streams of a call.
struct Follower<'p> {
    program: &'p Program,
    segment: &'p Segment,
    facts: &'p Facts,
    machine: &'p Machine,
    params: &'p [i64],
    dims: &'p [i64],
    registers: Vec<i64>,
    /// Prices of statements that do not depend on counters of loops.
    known: Vec<Vec<Option<Price>>>,
    /// When each token was signalled; `None` where streams are taken one after the other.
    tokens: Option<Vec<VecDeque<f64>>>,
    units: [f64; 8],
    steps: u64,
    cost: CallCost,
}

/// The cost of a call with a parameter row, in which parameters that are not in
/// [`Facts::params`] do not matter. `None` on overflow.
pub(super) fn call_cost(
    program: &Program,
    segment: SegmentId,
    facts: &Facts,
    params: &[i64],
    dims: &[i64],
    machine: &Machine,
) -> Option<CallCost> {
    let segment = &program.segments[segment];
    // The largest value that a register may have stands for it.
    let mut registers = vec![0; segment.registers.len()];
    for inst in segment.streams.iter().flat_map(|stream| &stream.code) {
        if let Stmt::Count { register, max, .. } = &inst.stmt {
            let slot = registers.get_mut(usize::from(*register))?;
            *slot = i64::try_from(*max).ok()?.max(*slot);
        }
    }
    let new = |tokens| Follower {
        program,
        segment,
        facts,
        machine,
        params,
        dims,
        registers: registers.clone(),
        known: (segment.streams.iter())
            .map(|stream| vec![None; stream.code.len()])
            .collect(),
        tokens,
        units: [0.0; 8],
        steps: 0,
        cost: CallCost::default(),
    };
    let tokens = vec![VecDeque::new(); segment.tokens.len()];
    match new(Some(tokens)).together()? {
        Some(cost) => Some(cost),
        None => new(None).one_after_another(),
    }
}

impl<'p> Follower<'p> {
    fn walks(&self) -> Vec<Walk<'p>> {
        let streams = self.segment.streams.iter().enumerate();
        let walk = |(stream, declared): (usize, &'p dojoc_ir::program::Stream)| Walk {
            stream,
            code: &declared.code,
            at: 0,
            frames: vec![],
            counters: vec![],
            weight: 1,
            clock: 0.0,
        };
        streams.map(walk).collect()
    }

    /// Streams side by side, each waiting for tokens of others; the inner `None` if that takes too
    /// many steps.
    fn together(mut self) -> Option<Option<CallCost>> {
        let mut walks = self.walks();
        loop {
            let before = self.steps;
            for walk in &mut walks {
                self.advance(walk)?;
            }
            if self.steps > FOLLOWED {
                return Some(None);
            }
            // All are done, or none can go on (which the verifier refuses).
            if self.steps == before {
                break;
            }
        }
        let ends = walks.iter().map(|walk| walk.clock);
        let busiest = self.units.iter().copied().fold(0.0, f64::max);
        self.cost.cycles = ends.fold(busiest, f64::max);
        Some(Some(self.cost))
    }

    fn one_after_another(mut self) -> Option<CallCost> {
        for mut walk in self.walks() {
            self.advance(&mut walk)?;
            self.cost.cycles += walk.clock;
        }
        Some(self.cost)
    }

    fn eval(&self, expr: &Affine, counters: &[i64]) -> Option<i64> {
        expr.eval(&self.env(counters))
    }

    fn env<'e>(&'e self, counters: &'e [i64]) -> Env<'e> {
        Env {
            params: self.params,
            dims: self.dims,
            loops: counters,
            registers: &self.registers,
        }
    }

    /// Runs a stream until it ends or waits.
    fn advance(&mut self, walk: &mut Walk<'p>) -> Option<()> {
        loop {
            while let Some(frame) = walk.frames.last_mut()
                && walk.at >= frame.body.end
            {
                if frame.left > 0 {
                    frame.left -= 1;
                    walk.at = frame.body.start;
                    if let Some(counter) = walk.counters.last_mut() {
                        *counter += 1;
                    }
                    self.charge(walk, None, self.iteration());
                } else {
                    walk.weight = frame.weight;
                    walk.frames.pop();
                    walk.counters.pop();
                }
            }
            let Some(inst) = walk.code.get(walk.at) else {
                return Some(());
            };
            if self.tokens.is_some() && self.steps > FOLLOWED {
                return Some(());
            }
            match &inst.stmt {
                Stmt::View(_) => {}
                Stmt::Loop { count, len, .. } => {
                    self.enter(walk, count, *len as usize)?;
                    continue;
                }
                Stmt::Wait(token) => {
                    if let Some(tokens) = &mut self.tokens {
                        let signalled = tokens.get_mut(token.index())?;
                        let Some(time) = signalled.pop_front() else {
                            return Some(());
                        };
                        walk.clock = walk.clock.max(time);
                    }
                    self.statement(walk, inst)?;
                }
                Stmt::Signal(token) => {
                    self.statement(walk, inst)?;
                    if let Some(tokens) = &mut self.tokens {
                        tokens.get_mut(token.index())?.push_back(walk.clock);
                    }
                }
                _ => self.statement(walk, inst)?,
            }
            walk.at += 1;
        }
    }

    fn iteration(&self) -> Price {
        Price::of(control::iteration_cost(self.machine), 0, 0, self.machine)
    }

    /// Begins a loop, or goes past one without iterations.
    fn enter(&mut self, walk: &mut Walk<'p>, count: &Affine, len: usize) -> Option<()> {
        let count = self.eval(count, &walk.counters)?;
        let even = self.tokens.is_none() || *self.facts.even.get(walk.stream)?.get(walk.at)?;
        let body = walk.at + 1..(walk.at + 1).checked_add(len)?.min(walk.code.len());
        if count <= 0 {
            walk.at = body.end;
            return Some(());
        }
        walk.at = body.start;
        let weight = walk.weight;
        let left = if even {
            walk.weight = weight.saturating_mul(count as u64);
            0
        } else {
            count - 1
        };
        walk.frames.push(Frame { body, left, weight });
        walk.counters.push(0);
        self.charge(walk, None, self.iteration());
        Some(())
    }

    fn statement(&mut self, walk: &mut Walk<'p>, inst: &Inst) -> Option<()> {
        let price = match self.known[walk.stream][walk.at] {
            Some(price) => price,
            None => {
                let price = self.price(&inst.stmt, &walk.counters)?;
                let depends = |expr: &&Affine| {
                    let mut vars = expr.terms.iter().map(|(var, _)| var);
                    vars.any(|var| matches!(var, Var::Loop(_)))
                };
                if !deciding(self.segment, &inst.stmt).iter().any(depends) {
                    self.known[walk.stream][walk.at] = Some(price);
                }
                price
            }
        };
        let cost = &mut self.cost;
        cost.instructions = cost.instructions.saturating_add(walk.weight);
        let times = |n: u64| n.saturating_mul(walk.weight);
        cost.messages = cost.messages.saturating_add(times(price.messages));
        cost.bytes = cost.bytes.saturating_add(times(price.bytes));
        self.charge(walk, inst.loc, price);
        Some(())
    }

    fn charge(&mut self, walk: &mut Walk<'p>, loc: Option<LocId>, price: Price) {
        self.steps += 1;
        let weight = walk.weight as f64;
        let cycles = weight * price.cycles;
        walk.clock += cycles;
        *self.cost.by_loc.entry(loc).or_default() += cycles;
        for (sum, unit) in self.units.iter_mut().zip(price.units) {
            *sum += weight * unit;
        }
    }

    fn view(&self, operand: Ref, counters: &[i64]) -> Option<ViewType> {
        match operand {
            Ref::Buffer(buffer) => self.segment.buffers.get(buffer)?.view_type(),
            Ref::View(view) => {
                let view = self.segment.views.get(view)?;
                view.view_type(&self.env(counters))
            }
        }
    }

    fn price(&self, stmt: &Stmt, counters: &[i64]) -> Option<Price> {
        let machine = self.machine;
        let view = |operand: &Ref| self.view(*operand, counters);
        let branches = |family: &FamilyId| Some(self.program.families.get(*family)?.branches);
        let readers = |dram| Some(self.program.dram.get(dram)?.readers);
        let (mut messages, mut bytes) = (0, 0);
        let mut sent = |size: u64, receivers: u32| {
            messages = u64::from(receivers);
            bytes = size.saturating_mul(messages);
        };
        let cost = match stmt {
            Stmt::View(_) | Stmt::Loop { .. } => Cost::default(),
            Stmt::Compute {
                instr, operands, ..
            } => {
                let types: Option<Vec<ViewType>> = operands.iter().map(view).collect();
                instr.cost(&types?, machine)
            }
            Stmt::Post { .. } => network::post_cost(machine),
            Stmt::Send { family, from, .. } => {
                let (size, receivers) = (view(from)?.bytes(), branches(family)?);
                sent(size, receivers);
                network::send_cost(size, receivers, machine)
            }
            Stmt::Receive { slot, .. } => network::receive_cost(view(slot)?.bytes(), machine),
            Stmt::Relay { slot, to, .. } => {
                let (size, receivers) = (view(slot)?.bytes(), branches(to)?);
                sent(size, receivers);
                network::relay_cost(size, receivers, machine)
            }
            Stmt::Signal(_) | Stmt::Wait(_) => sync::token_cost(machine),
            Stmt::DramBegin(dram) => memory::begin_cost(readers(*dram)?, machine),
            Stmt::DramCommit(dram) => memory::commit_cost(readers(*dram)?, machine),
            Stmt::DramAcquire { .. } => memory::acquire_cost(machine),
            Stmt::DramRelease { .. } => memory::release_cost(machine),
            Stmt::DramLoad { strides, to, .. } => memory::load_cost(&view(to)?, strides, machine),
            Stmt::DramStore { strides, from, .. } => {
                memory::store_cost(&view(from)?, strides, machine)
            }
            Stmt::Count { from, .. } => control::count_cost(view(from)?.bytes(), machine),
        };
        Some(Price::of(cost, messages, bytes, machine))
    }
}
