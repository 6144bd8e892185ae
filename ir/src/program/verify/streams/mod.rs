//! Proves that the streams of every core are free of races, that slots have one owner, that nothing
//! is read that was never written, and that tokens and slots balance within each call.
//!
//! Each call is run abstractly once for each distinct row of the parameters that matter (the files
//! [`call`] and [`shadow`]), which yields the rules it breaks and a summary: the bytes that
//! must be defined when it starts, and those that it defines or destroys. Cores that run the same
//! calls with tensors at the same places form a class (file [`cores`]); for one core of each class
//! the summaries are strung together along the schedule (file [`memory`]).
//!
//! What the rules mean in detail:
//!
//! - A byte keeps what it holds until something writes it. A write through a buffer whose role is
//!   `out` or `inout` leaves it defined for later calls, one through another buffer destroys it.
//!   Bytes of a weight may not be written at all, bytes of a state only so that they are defined at
//!   the end of each call.
//! - All elements of an operand count as read or written; packed views touch whole blocks. What a
//!   scatter writes depends on data, so that it counts as reading what it keeps.
//! - Operations at one end of a channel (its posts, its receives with relays, its sends with relays)
//!   are ordered by tokens if they stand in different streams.
//! - `recv` names the bytes, extents and layout that were posted.
//! - Run parameters take all values from 1 to their maxima together, registers that control or
//!   addresses depend on all values up to theirs. What needs more than [`MAX_STEPS`] steps is
//!   [`codes::UNDECIDED`].
//!
//! DRAM is not followed here: an epoch orders the accesses of different cores.

mod call;
mod columns;
mod cores;
mod facts;
mod finding;
mod intervals;
mod memory;
mod order;
#[cfg(test)]
mod random;
mod ranges;
mod relocate;
mod report;
mod runs;
mod shadow;
mod summaries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Context, Violation, core_name};
use crate::codes;
use crate::machine::CoreAddress;
use crate::program::{
    Coordinate, Entry, EntryId, IndexEnv, IndexExpr, IndexNode, Place, Program, RegionId,
    SegmentId, Shard, Step, TensorId, TensorKind, ViewType,
};
use call::Summary;
use columns::{Column, Columns};
use cores::{Class, Cores, Partition, sram_shards};
use facts::Facts;
use memory::{Damage, Gap, Lasting, Memory, Who};
use order::At;
use relocate::Relocation;
use report::Names;
use runs::byte_runs;
use shadow::Need;
use summaries::{Resolved, Summaries, key};

/// Statements and intervals of bytes that the proof of a program may take.
const MAX_STEPS: u64 = 128_000_000;

/// Evaluations that the partition of cores into classes may take.
const MAX_EVALUATIONS: u64 = 1 << 28;

/// Combinations of values of run parameters that are checked.
const MAX_DIM_VALUES: u64 = 1 << 14;

/// Checks all entries. The program has passed the structural checks and those of regions, shards
/// and bounds.
pub(super) fn check(cx: &mut Context<'_>) {
    let mut check = Check {
        program: cx.program,
        facts: BTreeMap::new(),
        summaries: Summaries::default(),
        columns: Columns::default(),
        cores: Cores::default(),
        places: BTreeMap::new(),
        budget: MAX_STEPS,
        evaluations: MAX_EVALUATIONS,
        found: Vec::new(),
        seen: BTreeSet::new(),
    };
    for id in cx.program.entries.ids() {
        check.entry(id);
    }
    for violation in check.found {
        cx.report(violation);
    }
}

/// What makes two reports the same: rule, place, other statement.
type Known = (u16, Place, Option<(SegmentId, At)>);

struct Check<'p> {
    program: &'p Program,
    facts: BTreeMap<SegmentId, Arc<Facts>>,
    summaries: Summaries<'p>,
    columns: Columns<'p>,
    cores: Cores,
    /// The bytes of parts of tensors that lie at one place on all cores, by position of the part.
    places: BTreeMap<(TensorId, usize), Vec<(i64, i64)>>,
    budget: u64,
    evaluations: u64,
    found: Vec<Violation>,
    seen: BTreeSet<Known>,
}

/// A running repeat.
struct Frame {
    start: usize,
    end: usize,
    count: u64,
    /// What the memory was when this iteration began, where a repetition of it ends the loop.
    before: Option<Memory>,
}

/// The row of a call, and its summaries unless they depend on repeats or run parameters.
struct Row<'p> {
    columns: Vec<Column<'p>>,
    resolved: Option<Resolved>,
}

/// One core of a class on its way through an entry.
struct Walk<'e> {
    id: EntryId,
    entry: &'e Entry,
    calls: &'e [Option<Row<'e>>],
    class: Class,
    dims: &'e [i64],
    memory: Memory,
    /// Whether the memory knows who destroyed bytes.
    culprits: bool,
    /// Indices of the core in regions.
    indices: BTreeMap<RegionId, Option<u64>>,
}

/// How a walk goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flow {
    Next,
    /// A call does not end, which is reported; nothing is known of what follows.
    Stuck,
    /// Something is wrong, which another walk has to explain.
    Again,
    /// The budget is used up, which is reported.
    Stop,
}

impl Walk<'_> {
    /// The index of the core in a region.
    fn index(&mut self, program: &Program, region: RegionId) -> Option<u64> {
        let core = self.class.core;
        let index = self.indices.entry(region);
        *index.or_insert_with(|| program.regions[region].position(core))
    }
}

/// The bytes of a part of a tensor on a core. Sizes that are negative or have no value are reported
/// with the tensor.
fn shard_bytes(
    program: &Program,
    tensor: TensorId,
    shard: &Shard,
    at: &IndexExpr,
    env: &IndexEnv<'_>,
) -> Vec<(i64, i64)> {
    let value = |expr: &IndexExpr| expr.eval(env, &program.tables);
    let size = |size: &IndexExpr| u64::try_from(value(size)?).ok();
    let Shard { slice, strides, .. } = shard;
    let shape: Option<Vec<u64>> = slice.iter().map(|(_, s)| size(s)).collect();
    let (Some(at), Some(shape)) = (value(at), shape) else {
        return Vec::new();
    };
    let view = ViewType {
        dtype: program.tensors[tensor].dtype,
        shape,
        strides: strides.clone(),
        packing: shard.packing,
    };
    let runs = byte_runs(&view).or_else(|| Some(vec![view.extent()?]));
    let shifted = runs
        .into_iter()
        .flatten()
        .filter_map(|(low, high)| Some((at.checked_add(low)?, at.checked_add(high)?)));
    shifted.collect()
}

impl<'p> Check<'p> {
    fn report(&mut self, other: Option<(SegmentId, At)>, violation: Violation) {
        if self.seen.insert((violation.code, violation.place, other)) {
            self.found.push(violation);
        }
    }

    fn facts(&mut self, segment: SegmentId) -> Arc<Facts> {
        let program = self.program;
        let new = || Arc::new(Facts::new(program, &program.segments[segment]));
        self.facts.entry(segment).or_insert_with(new).clone()
    }

    /// Takes steps from the budget; false, which is reported, if it is used up.
    fn spend(&mut self, steps: u64, entry: EntryId) -> bool {
        if let Some(left) = self.budget.checked_sub(steps) {
            self.budget = left;
            return true;
        }
        self.budget = 0;
        let message = format!("the proof of its memory takes more than {MAX_STEPS} steps");
        let violation = Violation::new(codes::UNDECIDED, Place::Entry(entry), message)
            .help("let more cores share parameter rows, or use fewer and longer calls");
        self.report(None, violation);
        false
    }

    fn entry(&mut self, id: EntryId) {
        let entry = &self.program.entries[id];
        let used = self.dims_of(entry);
        let values = self.program.dims.iter().zip(&used);
        let combinations = values
            .clone()
            .filter(|(_, used)| **used)
            .fold(1u64, |n, ((_, max), _)| n.saturating_mul(*max));
        if combinations > MAX_DIM_VALUES {
            let message = format!("there are {combinations} values of run parameters to check");
            let violation = Violation::new(codes::UNDECIDED, Place::Entry(id), message).help(
                "lower the maxima of run parameters that addresses, extents, loops or rows use",
            );
            self.report(None, violation);
            return;
        }
        let top: Vec<i64> = values.map(|((_, max), _)| *max as i64).collect();
        let mut dims = top.clone();
        loop {
            if !self.run(id, entry, &dims) {
                return;
            }
            // Counts down, so that the largest case is reported if several are wrong.
            let next = (0..dims.len()).rev().find(|d| used[*d] && dims[*d] > 1);
            let Some(next) = next else {
                return;
            };
            dims[next] -= 1;
            dims[next + 1..].copy_from_slice(&top[next + 1..]);
        }
    }

    /// The tensors that matter to an entry.
    fn tensors(&self, entry: &Entry) -> Vec<TensorId> {
        let lasting = self.program.tensors.iter().filter(|(_, tensor)| {
            matches!(tensor.kind, TensorKind::Weight(_) | TensorKind::State(_))
        });
        let probes = entry.steps.iter().filter_map(|step| match step {
            Step::Probe(probe) => Some(*probe),
            _ => None,
        });
        let mut all: Vec<TensorId> = lasting.map(|(id, _)| id).chain(probes).collect();
        all.extend(entry.inputs.iter().chain(&entry.outputs));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Which run parameters an entry's memory depends on.
    fn dims_of(&mut self, entry: &Entry) -> Vec<bool> {
        let mut used = vec![false; self.program.dims.len()];
        let mut mark = |expr: &IndexExpr| {
            for node in &expr.nodes {
                if let IndexNode::Coordinate(Coordinate::Dim(dim)) = node
                    && let Some(used) = used.get_mut(usize::from(*dim))
                {
                    *used = true;
                }
            }
        };
        for tensor in self.tensors(entry) {
            for (shard, _, at) in sram_shards(self.program, tensor) {
                mark(at);
                shard.slice.iter().for_each(|(_, size)| mark(size));
            }
        }
        let mut segments = BTreeSet::new();
        for step in &entry.steps {
            if let Step::Call { segment, row, .. } = step {
                segments.insert(*segment);
                let facts = self.facts(*segment);
                facts.relevant(row).for_each(&mut mark);
            }
        }
        for segment in segments {
            let facts = self.facts(segment);
            for (used, also) in used.iter_mut().zip(&facts.dims) {
                *used |= *also;
            }
        }
        used
    }

    /// Checks an entry for one choice of run parameters; false if the budget is used up.
    fn run(&mut self, id: EntryId, entry: &Entry, dims: &[i64]) -> bool {
        let calls = self.resolve(id, dims);
        let Some(classes) = self.classes(id, entry, &calls, dims) else {
            return false;
        };
        for class in classes {
            // The walk that knows who destroyed which bytes takes longer: only where it matters.
            for culprits in [false, true] {
                let mut walk = Walk {
                    id,
                    entry,
                    calls: &calls,
                    class,
                    dims,
                    memory: Memory::new(culprits),
                    culprits,
                    indices: BTreeMap::new(),
                };
                match self.walk(&mut walk) {
                    Flow::Stop => return false,
                    Flow::Again => {}
                    Flow::Next | Flow::Stuck => break,
                }
            }
        }
        true
    }

    /// The calls of an entry by step, with all their summaries.
    fn resolve(&mut self, id: EntryId, dims: &[i64]) -> Vec<Option<Row<'p>>> {
        let program = self.program;
        let mut calls = Vec::new();
        let mut spent = 0;
        for step in &program.entries[id].steps {
            let Step::Call {
                segment, on, row, ..
            } = step
            else {
                calls.push(None);
                continue;
            };
            if spent > self.evaluations {
                break;
            }
            let facts = self.facts(*segment);
            let columns = self.columns.of(program, *on, row, &facts, &mut spent);
            let place = (*segment, *on, &*facts);
            let known = &self.columns;
            let summaries = &mut self.summaries;
            let resolved = summaries.resolve(program, place, &columns, known, dims, &mut spent);
            calls.push(Some(Row { columns, resolved }));
        }
        self.evaluations = self.evaluations.saturating_sub(spent);
        if self.evaluations > 0 {
            self.summaries.prepare(program, &self.facts, self.budget);
        }
        calls
    }

    /// Cores for which an entry does the same; `None`, which is reported, if that takes too long.
    fn classes(
        &mut self,
        id: EntryId,
        entry: &Entry,
        calls: &[Option<Row<'p>>],
        dims: &[i64],
    ) -> Option<Vec<Class>> {
        let program = self.program;
        let mut partition = Partition::new(program, dims);
        let mut cores = std::mem::take(&mut self.cores);
        let tensors = self.tensors(entry).into_iter();
        for shard in tensors.flat_map(|tensor| &program.tensors[tensor].shards) {
            if self.evaluations == 0 {
                break;
            }
            let steps = partition.refine_by_shard(&mut cores, shard);
            self.evaluations = self.evaluations.saturating_sub(steps);
        }
        for (step, call) in entry.steps.iter().zip(calls) {
            if let Step::Call {
                segment, on, row, ..
            } = step
                && self.evaluations > 0
            {
                let steps = match call.as_ref().and_then(|call| call.resolved.as_ref()) {
                    Some(call) => partition.refine_by_call(&mut cores, *on, call, &self.summaries),
                    None => {
                        let facts = self.facts(*segment);
                        partition.refine(&mut cores, *on, facts.relevant(row))
                    }
                };
                self.evaluations = self.evaluations.saturating_sub(steps);
            }
        }
        let classes = partition.classes(&cores);
        self.cores = cores;
        if self.evaluations == 0 {
            let message = format!("rows and shards take more than {MAX_EVALUATIONS} evaluations");
            let violation = Violation::new(codes::UNDECIDED, Place::Entry(id), message)
                .help("use expressions that do not depend on the core where it is possible");
            self.report(None, violation);
            return None;
        }
        Some(classes)
    }

    /// Follows one core through the schedule.
    fn walk(&mut self, walk: &mut Walk<'_>) -> Flow {
        let steps = &walk.entry.steps;
        if !self.spend(self.program.tensors.len() as u64, walk.id) {
            return Flow::Stop;
        }
        self.start(walk);
        let mut open: Vec<Frame> = Vec::new();
        let mut counters: Vec<i64> = Vec::new();
        let mut pc = 0;
        loop {
            while let Some(frame) = open.last_mut()
                && pc >= frame.end
            {
                let counter = counters.last_mut();
                let again = counter.is_some_and(|counter| {
                    *counter += 1;
                    counter.unsigned_abs() < frame.count
                });
                let repeats = frame.before.as_ref() == Some(&walk.memory);
                if again && !repeats {
                    pc = frame.start;
                    if frame.before.is_some() {
                        frame.before = Some(walk.memory.clone());
                    }
                } else {
                    open.pop();
                    counters.pop();
                }
            }
            let Some(step) = steps.get(pc) else {
                break;
            };
            if !self.spend(1, walk.id) {
                return Flow::Stop;
            }
            let at = pc as u32;
            pc += 1;
            match step {
                Step::Repeat { count, len, .. } => {
                    let (start, end) = (pc, pc + *len as usize);
                    if *count == 0 {
                        pc = end;
                        continue;
                    }
                    let varies = self.varies(&steps[start..end.min(steps.len())], counters.len());
                    open.push(Frame {
                        start,
                        end,
                        count: *count,
                        before: (!varies).then(|| walk.memory.clone()),
                    });
                    counters.push(0);
                }
                Step::Call { segment, on, .. } => {
                    let flow = self.call(walk, at, (*segment, *on), &counters);
                    if flow != Flow::Next {
                        return flow;
                    }
                }
                Step::Probe(tensor) => {
                    let flow = self.defined(walk, *tensor, Place::Step(walk.id, at), "here");
                    if flow != Flow::Next {
                        return flow;
                    }
                }
            }
        }
        self.finish(walk)
    }

    /// Whether calls of a body differ from one repetition at this depth to the next.
    fn varies(&mut self, body: &[Step], depth: usize) -> bool {
        body.iter().any(|step| match step {
            Step::Call { segment, row, .. } => {
                let facts = self.facts(*segment);
                facts.relevant(row).any(|expr| {
                    expr.nodes.iter().any(|node| {
                        matches!(node, IndexNode::Coordinate(Coordinate::Repeat(d))
                            if usize::from(*d) == depth)
                    })
                })
            }
            _ => false,
        })
    }

    /// Puts weights, states and inputs into the memory of the core.
    fn start(&mut self, walk: &mut Walk<'_>) {
        for (id, tensor) in self.program.tensors.iter() {
            let weight = matches!(tensor.kind, TensorKind::Weight(_));
            let lasting = weight || matches!(tensor.kind, TensorKind::State(_));
            if !lasting && !walk.entry.inputs.contains(&id) {
                continue;
            }
            for (low, high) in self.bytes(walk, id) {
                if lasting {
                    let of = Lasting { tensor: id, weight };
                    walk.memory.last(low, high, of);
                } else {
                    walk.memory.define(low, high);
                }
            }
        }
    }

    /// Checks what outlives the run and what the host reads.
    fn finish(&mut self, walk: &mut Walk<'_>) -> Flow {
        let states = self.program.tensors.iter();
        let states = states.filter(|(_, tensor)| matches!(tensor.kind, TensorKind::State(_)));
        let states: Vec<TensorId> = states.map(|(id, _)| id).collect();
        for tensor in walk.entry.outputs.iter().copied().chain(states) {
            let name = &walk.entry.name;
            let when = format!("at the end of entry @{name}");
            let flow = self.defined(walk, tensor, Place::Tensor(tensor), &when);
            if flow != Flow::Next {
                return flow;
            }
        }
        Flow::Next
    }

    /// The bytes of a tensor on the core.
    fn bytes(&mut self, walk: &mut Walk<'_>, tensor: TensorId) -> Vec<(i64, i64)> {
        let program = self.program;
        let mut all = Vec::new();
        for (number, (shard, on, at)) in sram_shards(program, tensor).enumerate() {
            let Some(index) = walk.index(program, on) else {
                continue;
            };
            // Most tensors lie at one place on all cores.
            if let Some(runs) = self.places.get(&(tensor, number)) {
                all.extend(runs);
                continue;
            }
            let env = IndexEnv::of_core(index, walk.class.core, &[], walk.dims);
            let runs = shard_bytes(program, tensor, shard, at, &env);
            let mut exprs = shard.slice.iter().map(|(_, size)| size).chain([at]);
            if exprs.all(|expr| expr.as_constant().is_some()) {
                self.places.insert((tensor, number), runs.clone());
            }
            all.extend(runs);
        }
        all
    }

    /// Reports bytes of a tensor that are not defined.
    fn defined(&mut self, walk: &mut Walk<'_>, tensor: TensorId, place: Place, when: &str) -> Flow {
        let bytes = self.bytes(walk, tensor);
        let gap = bytes.iter().find_map(|run| walk.memory.gap(run.0, run.1));
        let Some(gap) = gap else {
            return Flow::Next;
        };
        if !walk.culprits {
            return Flow::Again;
        }
        let message = format!(
            "bytes {}..{} of SRAM, which hold a part of @{}, are not defined {when} on core {}",
            gap.bytes.0,
            gap.bytes.1,
            self.program.tensors[tensor].name,
            core_name(walk.class.core)
        );
        let violation = Violation::new(codes::UNINITIALISED, place, message);
        let violation = self.with_cause(walk, violation, gap);
        self.report(None, violation);
        Flow::Next
    }

    /// The statement of a call that was the last to write the first of these bytes.
    fn writer(&self, who: Who, bytes: (i64, i64)) -> Option<At> {
        let summary = self.summaries.get(who.summary)?;
        summary.writer(bytes.0 - who.shift)
    }

    /// Adds who destroyed the bytes.
    fn with_cause(&self, walk: &Walk<'_>, violation: Violation, gap: Gap) -> Violation {
        let Some((who, at)) = gap
            .by
            .and_then(|who| Some((who, self.writer(who, gap.bytes)?)))
        else {
            return violation.note("nothing has written them");
        };
        let names = Names {
            program: self.program,
            segment: who.segment,
        };
        violation
            .note(format!(
                "the last write there is {}, called by step {} of entry @{}, through a buffer that \
                 is not kept",
                names.stmt(at),
                who.step,
                walk.entry.name
            ))
            .help("give that buffer the role `out` or `inout`, or another address")
    }

    /// A call on the core, if it takes part.
    fn call(
        &mut self,
        walk: &mut Walk<'_>,
        step: u32,
        (segment, on): (SegmentId, RegionId),
        counters: &[i64],
    ) -> Flow {
        let program = self.program;
        let core = walk.class.core;
        let Some(index) = walk.index(program, on) else {
            return Flow::Next;
        };
        // Rows without value are reported with the schedule.
        let Some(Some(row)) = walk.calls.get(step as usize) else {
            return Flow::Next;
        };
        let (number, there) = match &row.resolved {
            Some(call) => match self.summaries.on_core(call, index) {
                Some((number, there)) => (number, there.clone()),
                None => return Flow::Next,
            },
            None => {
                let facts = self.facts(segment);
                let env = IndexEnv::of_core(index, core, counters, walk.dims);
                let columns = row.columns.iter();
                let values = columns.map(|column| self.columns.value(*column, program, &env));
                let Some((key, there)) = key(segment, &facts, values, walk.dims) else {
                    return Flow::Next;
                };
                (self.summaries.number(key), there)
            }
        };
        let summary = match self.summaries.get(number) {
            Some(summary) => summary.clone(),
            None => self.summary(number, &there, core, walk.dims),
        };
        if !summary.ends {
            return if self.budget > 0 {
                Flow::Stuck
            } else {
                Flow::Stop
            };
        }
        let cost = summary.needs.len() + summary.left.len();
        if !self.spend(cost as u64, walk.id) {
            return Flow::Stop;
        }
        if let Some((gap, need)) = walk.memory.missing(&summary.needs, &there) {
            if !walk.culprits {
                return Flow::Again;
            }
            self.missing(walk, segment, step, gap, need);
        }
        let who = Who {
            step,
            segment,
            summary: number,
            shift: 0,
        };
        if let Some(damage) = walk.memory.apply(&summary.left, &there, who) {
            if !walk.culprits {
                return Flow::Again;
            }
            self.damaged(walk, damage);
        }
        Flow::Next
    }

    /// A summary that nothing has asked for yet, whose problems are reported.
    fn summary(
        &mut self,
        number: u32,
        there: &Relocation,
        core: CoreAddress,
        dims: &[i64],
    ) -> Arc<Summary> {
        let program = self.program;
        let segment = self.summaries.key(number).0;
        let (code, facts) = (&program.segments[segment], self.facts(segment));
        let budget = &mut self.budget;
        let summary = self.summaries.make(program, &facts, number, budget);
        let names = Names { program, segment };
        for ((_, at, other), problem) in &summary.findings.all {
            let problem = &problem.moved(there);
            let mut note = format!("on core {}", core_name(core));
            let params = &self.summaries.key(number).1;
            for (at, (name, value)) in code.params.iter().zip(params).enumerate() {
                let value = facts.address(at, *value, there);
                note.push_str(&format!(", %{name} = {value}"));
            }
            for ((name, _), value) in program.dims.iter().zip(dims) {
                note.push_str(&format!(", {name} = {value}"));
            }
            let violation = names.violation(*at, *other, problem).note(note);
            self.report(other.map(|other| (segment, other)), violation);
        }
        summary
    }

    fn missing(&mut self, walk: &Walk<'_>, segment: SegmentId, step: u32, gap: Gap, need: Need) {
        let names = Names {
            program: self.program,
            segment,
        };
        let message = format!(
            "reads bytes {}..{} of SRAM through %{}, which are not defined when step {step} of entry \
             @{} starts on core {}",
            gap.bytes.0,
            gap.bytes.1,
            names.buffer(need.buffer),
            walk.entry.name,
            core_name(walk.class.core)
        );
        let violation = Violation::new(codes::UNINITIALISED, names.place(need.at), message);
        let violation = self.with_cause(walk, violation, gap);
        let by = gap
            .by
            .and_then(|who| Some((who.segment, self.writer(who, gap.bytes)?)));
        self.report(by, violation);
    }

    fn damaged(&mut self, walk: &Walk<'_>, damage: Damage) {
        let who = damage.by;
        let names = Names {
            program: self.program,
            segment: who.segment,
        };
        let writer = self.writer(who, damage.bytes);
        let place = writer.map_or(Place::Segment(who.segment), |at| names.place(at));
        let name = &self.program.tensors[damage.of.tensor].name;
        let (what, help) = if damage.of.weight {
            (
                "the weight",
                "weights are never written; use another address",
            )
        } else {
            (
                "the state",
                "give the buffer the role `out` or `inout`, or another address",
            )
        };
        let message = format!(
            "writes bytes {}..{} of SRAM, which hold {what} @{name} on core {}",
            damage.bytes.0,
            damage.bytes.1,
            core_name(walk.class.core)
        );
        let violation = Violation::new(codes::SLOT_REUSED, place, message);
        self.report(None, violation.help(help));
    }
}
