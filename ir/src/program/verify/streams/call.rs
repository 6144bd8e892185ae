//! The abstract run of one call.
//!
//! Control and addresses of a call depend on nothing but its parameter row, run parameters and
//! registers, and streams meet only at tokens and slots, whose pairing is fixed: the n-th `wait`
//! takes the n-th `signal`, the n-th `recv` of a port the n-th `post`. So the order between any two
//! events is the same in every execution, and one execution in any legal order, with vector clocks,
//! shows it. A `recv` is behind its `post`, because no message arrives in a slot that is not there.
//!
//! Operations at one end of a port, such as its posts, must be ordered as accesses to one byte are;
//! then their sequence, hence the pairing, is the same in every execution too.
//!
//! A register's value comes from data. Reads of the same bytes, written by the same event, give the
//! same value; apart from that, all combinations of values up to the registers' maxima are run.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::facts::Facts;
use super::finding::{Findings, Problem};
use super::intervals::Intervals;
use super::order::{At, Clock, Event, MAX_STREAMS, is_before, learn};
use super::runs::byte_runs;
use super::shadow::{Actor, After, Left, Need, Shadow, Version, Write, either};
use crate::entity::EntityId;
use crate::program::instr::{Access, Ref};
use crate::program::{Affine, BufferId, Env, FamilyId, Segment, Stmt, TokenId, ViewType};

/// What a call does to the memory of a core, and the rules it breaks.
#[derive(Default)]
pub(super) struct Summary {
    /// Broken rules.
    pub(super) findings: Findings,
    /// Whether the call ends; if not, the rest is not known.
    pub(super) ends: bool,
    /// Bytes that must be defined when it starts.
    pub(super) needs: Vec<(i64, i64, Need)>,
    /// Bytes that it writes, neighbours that hold the same together.
    pub(super) left: Vec<(i64, i64, After)>,
    /// The last write of these bytes.
    writers: Vec<(i64, i64, At)>,
    /// Statements and intervals of bytes that the run took.
    pub(super) steps: u64,
}

impl Summary {
    /// The last write of a byte that it writes.
    pub(super) fn writer(&self, byte: i64) -> Option<At> {
        let next = self.writers.partition_point(|(low, ..)| *low <= byte);
        let (_, high, at) = self.writers.get(next.checked_sub(1)?)?;
        (byte < *high).then_some(*at)
    }

    fn leave(&mut self, left: &Intervals<Left>) {
        for (low, high, left) in left.iter().filter(|x| x.2.after != After::Unchanged) {
            match self.left.last_mut() {
                Some((_, end, after)) if *end == low && *after == left.after => *end = high,
                _ => self.left.push((low, high, left.after)),
            }
            match self.writers.last_mut() {
                Some((_, end, at)) if *end == low && *at == left.at => *end = high,
                _ => self.writers.push((low, high, left.at)),
            }
        }
    }
}

/// What is run.
pub(super) struct Call<'a> {
    /// The segment.
    pub(super) segment: &'a Segment,
    /// Its facts.
    pub(super) facts: &'a Facts,
    /// The parameter row.
    pub(super) params: &'a [i64],
    /// Run parameters.
    pub(super) dims: &'a [i64],
    /// Set from outside to stop.
    pub(super) cancel: &'a AtomicBool,
}

/// Runs a call with all values of its registers. `budget` counts statements and intervals of bytes.
pub(super) fn summarise(call: &Call<'_>, budget: &mut u64) -> Summary {
    let before = *budget;
    let mut summary = Summary {
        findings: call.facts.findings.clone(),
        ..Summary::default()
    };
    // Without one signaller and one waiter the pairing is not defined.
    if !summary.findings.all.is_empty() {
        return summary;
    }
    let mut choices = Choices::default();
    let mut runs = RunCache::default();
    let mut needs: Intervals<Need> = Intervals::default();
    let mut left: Option<Intervals<Left>> = None;
    loop {
        let mut run = Run::new(call, budget, &mut summary.findings, &mut choices, &mut runs);
        let halted = run.run();
        let (shadow, ends) = (run.shadow, matches!(halted, Ok(true)));
        for (low, high, need) in shadow.needs.iter() {
            needs.visit(low, high, need, |_, _, _| ());
        }
        if let Err(Halt::Undecided(at, problem)) = halted {
            summary.findings.add(at, None, problem);
            break;
        }
        if matches!(halted, Ok(false)) {
            break;
        }
        if ends {
            let now = shadow.left(call.segment);
            left = Some(match left {
                None => now,
                Some(before) => either(&before, &now),
            });
        }
        if !choices.advance() {
            summary.ends = true;
            break;
        }
    }
    needs.join();
    summary.needs = needs.iter().map(|(a, b, need)| (a, b, *need)).collect();
    summary.steps = before - *budget;
    summary.leave(&left.unwrap_or_default());
    summary
}

/// Why a run ended early.
enum Halt {
    /// It cannot happen: a register exceeds its maximum, which ends the real run.
    Impossible,
    /// It is too much.
    Undecided(At, Problem),
}

/// Values of registers, as digits that count down from their maxima.
#[derive(Default)]
struct Choices {
    /// Values; their maxima follow from the run.
    digits: Vec<u64>,
    /// How many of them this run has used.
    used: usize,
}

impl Choices {
    fn next(&mut self, max: u64) -> u64 {
        if self.used == self.digits.len() {
            self.digits.push(max);
        }
        self.used += 1;
        self.digits[self.used - 1]
    }

    /// Steps to the next combination; false behind the last.
    fn advance(&mut self) -> bool {
        self.digits.truncate(self.used);
        self.used = 0;
        while let Some(last) = self.digits.pop() {
            if last > 0 {
                self.digits.push(last - 1);
                return true;
            }
        }
        false
    }
}

type ByteRuns = Option<Rc<[(i64, i64)]>>;

/// Byte intervals of views by their extents.
#[derive(Default)]
struct RunCache {
    known: BTreeMap<(Ref, Vec<u64>), ByteRuns>,
}

impl RunCache {
    fn get(&mut self, operand: Ref, view: &ViewType) -> ByteRuns {
        let key = (operand, view.shape.clone());
        self.known
            .entry(key)
            .or_insert_with(|| byte_runs(view).map(Into::into))
            .clone()
    }
}

/// A running loop.
struct Frame {
    start: usize,
    end: usize,
    count: i64,
}

#[derive(Default)]
struct Thread {
    pc: usize,
    frames: Vec<Frame>,
    counters: Vec<i64>,
    time: u32,
    blocked: Option<At>,
}

/// A slot in the network.
struct Posted {
    event: Event,
    clock: Clock,
    buffer: BufferId,
    at: i64,
    view: ViewType,
}

/// The ends of the channels of a port: the last operation of each kind, and the slots.
#[derive(Default)]
struct Port {
    slots: VecDeque<Posted>,
    post: Option<Event>,
    receive: Option<Event>,
    send: Option<Event>,
}

#[derive(Default)]
struct Token {
    pending: VecDeque<Clock>,
    signals: u64,
    waits: u64,
    /// The last signal.
    last: Option<At>,
}

/// A resolved operand.
struct Operand {
    buffer: BufferId,
    at: i64,
    view: ViewType,
    runs: Rc<[(i64, i64)]>,
}

struct Run<'a, 'b> {
    call: &'a Call<'a>,
    budget: &'b mut u64,
    findings: &'b mut Findings,
    choices: &'b mut Choices,
    runs: &'b mut RunCache,
    threads: Vec<Thread>,
    clocks: [Clock; MAX_STREAMS],
    registers: Vec<i64>,
    values: BTreeMap<Version, u64>,
    tokens: Vec<Token>,
    ports: BTreeMap<(FamilyId, i64), Port>,
    shadow: Shadow,
}

impl<'a, 'b> Run<'a, 'b> {
    fn new(
        call: &'a Call<'a>,
        budget: &'b mut u64,
        findings: &'b mut Findings,
        choices: &'b mut Choices,
        runs: &'b mut RunCache,
    ) -> Self {
        let segment = call.segment;
        Self {
            call,
            budget,
            findings,
            choices,
            runs,
            threads: segment.streams.iter().map(|_| Thread::default()).collect(),
            clocks: [[0; MAX_STREAMS]; MAX_STREAMS],
            registers: vec![0; segment.registers.len()],
            values: BTreeMap::new(),
            tokens: segment.tokens.iter().map(|_| Token::default()).collect(),
            ports: BTreeMap::new(),
            shadow: Shadow::default(),
        }
    }

    /// Runs each stream until it blocks or ends, as long as one of them moves. Returns whether all
    /// ended.
    fn run(&mut self) -> Result<bool, Halt> {
        loop {
            let mut moved = false;
            for stream in 0..self.threads.len() {
                while self.step(stream)? {
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        if self.threads.iter().any(|thread| thread.blocked.is_some()) {
            self.blocked();
            return Ok(false);
        }
        self.ended();
        Ok(true)
    }

    fn env(&self, stream: usize) -> Env<'_> {
        Env {
            params: self.call.params,
            dims: self.call.dims,
            loops: &self.threads[stream].counters,
            registers: &self.registers,
        }
    }

    /// The value of an expression; 0 where it has none, which other checks report.
    fn eval(&self, expr: &Affine, stream: usize) -> i64 {
        expr.eval(&self.env(stream)).unwrap_or(0)
    }

    fn spend(&mut self, steps: u64, at: At) -> Result<(), Halt> {
        let left = self.budget.checked_sub(steps);
        match left.filter(|_| !self.call.cancel.load(Ordering::Relaxed)) {
            Some(left) => {
                *self.budget = left;
                Ok(())
            }
            None => {
                *self.budget = 0;
                Err(Halt::Undecided(at, Problem::Budget))
            }
        }
    }

    /// Executes one statement; false if the stream has ended or is blocked.
    fn step(&mut self, stream: usize) -> Result<bool, Halt> {
        let segment = self.call.segment;
        let code = &segment.streams[stream].code;
        let thread = &mut self.threads[stream];
        while let Some(frame) = thread.frames.last()
            && thread.pc >= frame.end
        {
            let counter = thread.counters.last_mut();
            let again = counter.is_some_and(|counter| {
                *counter += 1;
                *counter < frame.count
            });
            if again {
                thread.pc = frame.start;
            } else {
                thread.frames.pop();
                thread.counters.pop();
            }
        }
        let Some(inst) = code.get(thread.pc) else {
            return Ok(false);
        };
        let at = At {
            stream: stream as u8,
            inst: thread.pc as u32,
        };
        self.spend(1, at)?;
        let (pc, time) = (self.threads[stream].pc, self.threads[stream].time + 1);
        let event = Event { at, time };
        if !self.is_ready(&inst.stmt, stream) {
            self.threads[stream].blocked = Some(at);
            return Ok(false);
        }
        let thread = &mut self.threads[stream];
        thread.blocked = None;
        thread.time = time;
        self.clocks[stream][stream] = time;
        let mut next = pc + 1;
        if let Stmt::Loop { count, len, .. } = &inst.stmt {
            let (start, end) = (pc + 1, pc + 1 + *len as usize);
            let count = self.eval(count, stream);
            if count > 0 && *len > 0 {
                let thread = &mut self.threads[stream];
                thread.frames.push(Frame { start, end, count });
                thread.counters.push(0);
            } else {
                next = end;
            }
        } else {
            self.execute(&inst.stmt, event, stream)?;
        }
        self.threads[stream].pc = next;
        Ok(true)
    }

    /// Whether a statement need not wait for another stream.
    fn is_ready(&self, stmt: &Stmt, stream: usize) -> bool {
        match stmt {
            Stmt::Wait(token) => !self.tokens[token.index()].pending.is_empty(),
            Stmt::Receive { family, port, .. } | Stmt::Relay { family, port, .. } => {
                let port = self.eval(port, stream);
                let port = self.ports.get(&(*family, port));
                port.is_some_and(|port| !port.slots.is_empty())
            }
            _ => true,
        }
    }

    fn execute(&mut self, stmt: &Stmt, event: Event, stream: usize) -> Result<(), Halt> {
        match stmt {
            Stmt::Signal(token) => {
                let clock = self.clocks[stream];
                let token = &mut self.tokens[token.index()];
                token.pending.push_back(clock);
                token.signals += 1;
                token.last = Some(event.at);
            }
            Stmt::Wait(token) => {
                let token = &mut self.tokens[token.index()];
                token.waits += 1;
                if let Some(clock) = token.pending.pop_front() {
                    learn(&mut self.clocks[stream], &clock);
                }
            }
            Stmt::Post { family, port, slot } => {
                let port = self.eval(port, stream);
                self.post(*family, port, *slot, event, stream)?;
            }
            Stmt::Receive { family, port, slot } => {
                let port = self.eval(port, stream);
                self.receive(*family, port, *slot, event, stream)?;
            }
            Stmt::Relay {
                family,
                port,
                slot,
                to,
                to_port,
            } => {
                let (port, to_port) = (self.eval(port, stream), self.eval(to_port, stream));
                self.receive(*family, port, *slot, event, stream)?;
                self.send(*to, to_port, event, stream);
                self.access(*slot, Access::Read, event, stream)?;
            }
            Stmt::Send { family, port, .. } => {
                let port = self.eval(port, stream);
                self.send(*family, port, event, stream);
                self.accesses(event, stream)?;
            }
            Stmt::Count {
                register,
                from,
                max,
                ..
            } => {
                self.accesses(event, stream)?;
                self.count(*register, *from, *max, event, stream)?;
            }
            _ => self.accesses(event, stream)?,
        }
        Ok(())
    }

    /// All reads, then all writes of a statement.
    fn accesses(&mut self, event: Event, stream: usize) -> Result<(), Halt> {
        let facts = self.call.facts;
        let list = &facts.accesses[stream][event.at.inst as usize];
        for (operand, access) in list {
            if *access != Access::Write {
                self.access(*operand, Access::Read, event, stream)?;
            }
        }
        for (operand, access) in list {
            if *access != Access::Read {
                self.access(*operand, Access::Write, event, stream)?;
            }
        }
        Ok(())
    }

    /// An operand with its bytes; `None` for what other checks report.
    fn operand(&mut self, of: Ref, at: At, stream: usize) -> Result<Option<Operand>, Halt> {
        let segment = self.call.segment;
        let resolved = segment.resolve(of, &self.env(stream));
        let (Some((start, view)), Some(buffer)) = (resolved, segment.buffer_of(of)) else {
            return Ok(None);
        };
        let runs = self.runs.get(of, &view);
        let Some(runs) = runs else {
            return Err(Halt::Undecided(at, Problem::TooManyRuns));
        };
        // Other checks report views that leave the address space.
        let ends = [runs.first().map(|run| run.0), runs.last().map(|run| run.1)];
        let fits = |end: &i64| start.checked_add(*end).is_some();
        Ok(ends.iter().flatten().all(fits).then_some(Operand {
            buffer,
            at: start,
            view,
            runs,
        }))
    }

    fn access(&mut self, of: Ref, access: Access, event: Event, stream: usize) -> Result<(), Halt> {
        let Some(operand) = self.operand(of, event.at, stream)? else {
            return Ok(());
        };
        if access == Access::Read {
            let role = self.call.segment.buffers[operand.buffer].role;
            let actor = Actor {
                event,
                clock: &self.clocks[stream],
                buffer: operand.buffer,
            };
            let mut steps = 0;
            for (low, high) in operand.runs.iter() {
                let bytes = (operand.at + low, operand.at + high);
                steps += self.shadow.read(bytes, role, &actor, self.findings);
            }
            self.spend(steps, event.at)
        } else {
            self.write(&operand, Write::Value, event, stream)
        }
    }

    fn write(
        &mut self,
        operand: &Operand,
        write: Write,
        event: Event,
        stream: usize,
    ) -> Result<(), Halt> {
        let actor = Actor {
            event,
            clock: &self.clocks[stream],
            buffer: operand.buffer,
        };
        let mut steps = 0;
        for (low, high) in operand.runs.iter() {
            let bytes = (operand.at + low, operand.at + high);
            steps += self.shadow.write(bytes, write, &actor, self.findings);
        }
        self.spend(steps, event.at)
    }

    fn post(
        &mut self,
        family: FamilyId,
        number: i64,
        slot: Ref,
        event: Event,
        stream: usize,
    ) -> Result<(), Halt> {
        let Some(operand) = self.operand(slot, event.at, stream)? else {
            return Ok(());
        };
        let clock = self.clocks[stream];
        let port = self.ports.entry((family, number)).or_default();
        let last = port.post.replace(event);
        port.slots.push_back(Posted {
            event,
            clock,
            buffer: operand.buffer,
            at: operand.at,
            view: operand.view.clone(),
        });
        self.end_of_channel(last, (family, number), event, stream);
        self.write(&operand, Write::Post, event, stream)
    }

    fn receive(
        &mut self,
        family: FamilyId,
        number: i64,
        slot: Ref,
        event: Event,
        stream: usize,
    ) -> Result<(), Halt> {
        let port = self.ports.entry((family, number)).or_default();
        let last = port.receive.replace(event);
        let Some(posted) = port.slots.pop_front() else {
            return Ok(());
        };
        self.end_of_channel(last, (family, number), event, stream);
        learn(&mut self.clocks[stream], &posted.clock);
        let named = self.operand(slot, event.at, stream)?;
        let same = named.as_ref().is_some_and(|named| {
            (named.buffer, named.at) == (posted.buffer, posted.at) && named.view == posted.view
        });
        if !same && named.is_some() {
            let port = number;
            let problem = Problem::OtherSlot { family, port };
            self.findings.add(event.at, Some(posted.event.at), problem);
        }
        // What was posted comes back, whatever the statement names.
        let Some(runs) = byte_runs(&posted.view) else {
            return Ok(());
        };
        let operand = Operand {
            buffer: posted.buffer,
            at: posted.at,
            view: posted.view,
            runs: runs.into(),
        };
        self.write(&operand, Write::Receive, event, stream)
    }

    fn send(&mut self, family: FamilyId, number: i64, event: Event, stream: usize) {
        let port = self.ports.entry((family, number)).or_default();
        let last = port.send.replace(event);
        self.end_of_channel(last, (family, number), event, stream);
    }

    fn end_of_channel(
        &mut self,
        last: Option<Event>,
        (family, port): (FamilyId, i64),
        event: Event,
        stream: usize,
    ) {
        if let Some(last) = last.filter(|last| !is_before(*last, &self.clocks[stream])) {
            let problem = Problem::EndRace { family, port };
            self.findings.add(event.at, Some(last.at), problem);
        }
    }

    /// Chooses the value of a register, unless these bytes were read before.
    fn count(
        &mut self,
        register: u16,
        from: Ref,
        max: u64,
        event: Event,
        stream: usize,
    ) -> Result<(), Halt> {
        let index = usize::from(register);
        if !self.call.facts.registers[index] {
            return Ok(());
        }
        if max > MAX_VALUES {
            return Err(Halt::Undecided(event.at, Problem::TooManyValues { max }));
        }
        let mut version = Version::new();
        if let Some(operand) = self.operand(from, event.at, stream)? {
            for (low, high) in operand.runs.iter() {
                let bytes = (operand.at + low, operand.at + high);
                self.shadow.version(bytes, &mut version);
            }
        }
        let choices = &mut *self.choices;
        let value = *self
            .values
            .entry(version)
            .or_insert_with(|| choices.next(max));
        if value > max {
            return Err(Halt::Impossible);
        }
        self.registers[index] = value as i64;
        Ok(())
    }

    /// Reports streams that wait for ever.
    fn blocked(&mut self) {
        let blocked: Vec<At> = self.threads.iter().filter_map(|t| t.blocked).collect();
        for at in &blocked {
            let stream = usize::from(at.stream);
            let stmt = &self.call.segment.streams[stream].code[at.inst as usize].stmt;
            let problem = match stmt {
                Stmt::Receive { family, port, .. } | Stmt::Relay { family, port, .. } => {
                    Problem::NoSlot {
                        family: *family,
                        port: self.eval(port, stream),
                    }
                }
                Stmt::Wait(token) => Problem::Blocked {
                    token: *token,
                    signals: self.tokens[token.index()].signals,
                    others: blocked.iter().filter(|b| *b != at).copied().collect(),
                },
                _ => continue,
            };
            self.findings.add(*at, None, problem);
        }
    }

    /// Reports what is left when all streams have ended.
    fn ended(&mut self) {
        for (index, token) in self.tokens.iter().enumerate() {
            let (signals, waits) = (token.signals, token.waits);
            if let Some(at) = token.last.filter(|_| signals != waits) {
                let token = TokenId::from_index(index);
                let problem = Problem::TokenLeft {
                    token,
                    signals,
                    waits,
                };
                self.findings.add(at, None, problem);
            }
        }
        for ((family, number), port) in &self.ports {
            if let Some(slot) = port.slots.front() {
                let problem = Problem::NotReceived {
                    family: *family,
                    port: *number,
                    count: port.slots.len(),
                };
                self.findings.add(slot.event.at, None, problem);
            }
        }
    }
}

/// The greatest maximum of a register that control depends on.
const MAX_VALUES: u64 = 1 << 16;
