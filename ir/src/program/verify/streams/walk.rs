//! One core of a class on its way through an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::super::{Violation, core_name};
use super::Check;
use super::call::Summary;
use super::columns::Column;
use super::cores::{Class, sram_shards};
use super::memory::{Damage, Gap, Lasting, Memory, Who};
use super::order::At;
use super::ranges::Ranges;
use super::relocate::Relocation;
use super::repeats::Repetition;
use super::report::Names;
use super::runs::byte_runs;
use super::shadow::Need;
use super::summaries::{Resolved, key};
use crate::codes;
use crate::machine::CoreAddress;
use crate::program::{
    Coordinate, Entry, EntryId, IndexEnv, IndexExpr, IndexNode, Packing, Place, Program, RegionId,
    SegmentId, Shard, Step, TensorId, TensorKind, ViewType,
};
use crate::types::DType;

/// A running repeat.
struct Frame {
    start: usize,
    end: usize,
    count: u64,
    /// What the memory was when this iteration began, where a repetition of it ends the loop.
    before: Option<Memory>,
}

/// The row of a call, and its summaries unless they depend on repeats or run parameters.
pub(super) struct Row<'p> {
    pub(super) columns: Vec<Column<'p>>,
    pub(super) resolved: Option<Resolved>,
}

/// What a step does to the memory of a core.
#[derive(PartialEq, Eq, Hash)]
enum Sign<'c> {
    /// The summaries of a call by core, as the number of their table.
    Call(u32),
    /// The bytes that must be defined.
    Probe(DType, Vec<(RegionId, Part<'c>)>),
}

/// The bytes of a part of a tensor.
#[derive(PartialEq, Eq, Hash)]
enum Part<'c> {
    /// At one place on all cores.
    Fixed(&'c [(i64, i64)]),
    /// Where a formula says.
    Varying {
        at: &'c IndexExpr,
        sizes: Vec<&'c IndexExpr>,
        view: (&'c [i64], Packing),
    },
}

/// One core of a class on its way through an entry.
pub(super) struct Walk<'e> {
    pub(super) id: EntryId,
    pub(super) entry: &'e Entry,
    pub(super) calls: &'e [Option<Row<'e>>],
    /// Stretches of the entry that say the same again and again.
    pub(super) repetitions: &'e [Repetition],
    pub(super) class: Class,
    pub(super) dims: &'e [i64],
    pub(super) memory: Memory,
    /// Whether the memory knows who destroyed bytes.
    pub(super) culprits: bool,
    /// Indices of the core in regions.
    pub(super) indices: BTreeMap<RegionId, Option<u64>>,
}

/// What cores hold when an entry starts.
#[derive(Default)]
pub(super) struct Starts {
    /// Regions with parts of tensors.
    regions: BTreeSet<RegionId>,
    /// By which of the regions a core is in.
    known: BTreeMap<Vec<bool>, Memory>,
    /// Tensors that lie at one place on all cores of their regions.
    fixed: Vec<TensorId>,
    /// The others.
    varying: Vec<TensorId>,
}

impl Starts {
    fn key(&self, walk: &mut Walk<'_>, program: &Program) -> Vec<bool> {
        let regions = self.regions.iter();
        regions
            .map(|on| walk.index(program, *on).is_some())
            .collect()
    }
}

/// How a walk goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
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

impl Check<'_> {
    /// What cores hold when an entry starts of what depends on regions alone.
    pub(super) fn starts<'w>(
        &self,
        entry: &Entry,
        walks: impl Iterator<Item = Walk<'w>>,
    ) -> Starts {
        let mut starts = Starts::default();
        for id in self.tensors(entry) {
            let mut parts = sram_shards(self.program, id).enumerate();
            if parts.all(|(number, _)| self.places.contains_key(&(id, number))) {
                let on = sram_shards(self.program, id).map(|(_, on, _)| on);
                starts.regions.extend(on);
                starts.fixed.push(id);
            } else {
                starts.varying.push(id);
            }
        }
        for mut walk in walks {
            let key = starts.key(&mut walk, self.program);
            starts.known.entry(key).or_insert_with(|| {
                self.start(&mut walk, &starts.fixed);
                walk.memory
            });
        }
        starts
    }

    /// The steps that following a core takes, if nothing is wrong; `None` where that needs a closer
    /// look, and for repeats.
    pub(super) fn sound(&self, walk: &mut Walk<'_>, starts: &Starts) -> Option<u64> {
        let mut cost = self.program.tensors.len();
        match starts.known.get(&starts.key(walk, self.program)) {
            Some(memory) => walk.memory = memory.clone(),
            None => self.start(walk, &starts.fixed),
        }
        self.start(walk, &starts.varying);
        let mut repetitions = walk.repetitions.iter().peekable();
        let mut before: Option<Ranges> = None;
        let mut at = 0;
        while let (Some(step), Some(call)) = (walk.entry.steps.get(at), walk.calls.get(at)) {
            if repetitions.next_if(|r| r.end() <= at).is_some() {
                before = None;
            }
            // Rounds after one that changes nothing change nothing either.
            if let Some(repetition) = repetitions.peek()
                && let Some(round) = repetition.round(at)
            {
                let same = before.as_ref() == Some(walk.memory.defined());
                if same && self.moved_are_sound(walk, (repetition, at), &mut cost) {
                    at = repetition.end();
                    continue;
                }
                before =
                    (!same && round + 1 < repetition.count).then(|| walk.memory.defined().clone());
            }
            let who_at = at as u32;
            at += 1;
            cost += 1;
            let on = match step {
                Step::Repeat { .. } => return None,
                Step::Probe(tensor) => match self.gap(walk, *tensor) {
                    Some(_) => return None,
                    None => continue,
                },
                Step::Call { on, .. } => *on,
            };
            let Some(index) = walk.index(self.program, on) else {
                continue;
            };
            let resolved = call.as_ref()?.resolved.as_ref()?;
            let Some((number, there)) = self.summaries.on_core(resolved, index) else {
                continue;
            };
            let summary = self.summaries.sound(number)?;
            cost += summary.needs.len() + summary.left.len();
            let who = Who {
                step: who_at,
                segment: self.summaries.key(number).0,
                summary: number,
                shift: 0,
            };
            let memory = &mut walk.memory;
            if memory.missing(&summary.needs, there).is_some()
                || memory.apply(&summary.left, there, who).is_some()
            {
                return None;
            }
        }
        let ends = self.ends(walk.entry);
        let whole = ends.iter().all(|tensor| self.gap(walk, *tensor).is_none());
        whole.then_some(cost as u64)
    }

    /// What each step does to the memory of a core, but for the places of a call's buffers: steps with
    /// the same number do the same. `None` for what nothing is known of.
    pub(super) fn signs(&self, entry: &Entry, calls: &[Option<Row<'_>>]) -> Vec<Option<u32>> {
        let mut known: HashMap<Sign<'_>, u32> = HashMap::new();
        let mut sign = |step: &Step, call: &Option<Row<'_>>| {
            let sign = match step {
                Step::Repeat { .. } => return None,
                Step::Call { .. } => Sign::Call(call.as_ref()?.resolved.as_ref()?.table),
                Step::Probe(tensor) => {
                    let parts = sram_shards(self.program, *tensor).enumerate();
                    let parts = parts.map(|(number, (shard, on, at))| {
                        let sizes = shard.slice.iter().map(|(_, size)| size);
                        let bytes = match self.places.get(&(*tensor, number)) {
                            Some(runs) => Part::Fixed(runs),
                            None => Part::Varying {
                                at,
                                sizes: sizes.collect(),
                                view: (&shard.strides, shard.packing),
                            },
                        };
                        (on, bytes)
                    });
                    let dtype = self.program.tensors[*tensor].dtype;
                    Sign::Probe(dtype, parts.collect())
                }
            };
            let next = known.len() as u32;
            Some(*known.entry(sign).or_insert(next))
        };
        let steps = entry.steps.iter().zip(calls);
        steps.map(|(step, call)| sign(step, call)).collect()
    }

    /// Whether the calls of a repetition from the round that begins here on read what they have
    /// elsewhere than one round before from bytes that outlive the run, and do not write it.
    fn moved_are_sound(
        &self,
        walk: &mut Walk<'_>,
        (repetition, from): (&Repetition, usize),
        cost: &mut usize,
    ) -> bool {
        let first = repetition.moved.partition_point(|(step, _)| *step < from);
        repetition.moved[first..].iter().all(|(step, groups)| {
            let Step::Call { on, .. } = &walk.entry.steps[*step] else {
                return false;
            };
            let Some(index) = walk.index(self.program, *on) else {
                return true;
            };
            let resolved = walk.calls[*step]
                .as_ref()
                .and_then(|call| call.resolved.as_ref());
            let Some((number, there)) = resolved.and_then(|r| self.summaries.on_core(r, index))
            else {
                return true;
            };
            let Some(summary) = self.summaries.sound(number) else {
                return false;
            };
            *cost += summary.needs.len() + summary.left.len();
            let moved = |low: i64| Relocation::group(low).is_none_or(|g| groups.contains(&g));
            let mut needs = summary.needs.iter().filter(|(low, ..)| moved(*low));
            !summary.left.iter().any(|(low, ..)| moved(*low))
                && needs.all(|(low, high, _)| {
                    let (low, high) = there.actual((*low, *high));
                    walk.memory.lasts(low, high)
                })
        })
    }

    /// Follows one core through the schedule.
    pub(super) fn walk(&mut self, walk: &mut Walk<'_>) -> Flow {
        let steps = &walk.entry.steps;
        if !self.spend(self.program.tensors.len() as u64, walk.id) {
            return Flow::Stop;
        }
        self.start(walk, &self.tensors(walk.entry));
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

    /// Puts those of some tensors that are weights, states or inputs into the memory of the core.
    fn start(&self, walk: &mut Walk<'_>, tensors: &[TensorId]) {
        for id in tensors.iter().copied() {
            let tensor = &self.program.tensors[id];
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

    /// What outlives a run, and what the host reads after it.
    fn ends(&self, entry: &Entry) -> Vec<TensorId> {
        let states = self.program.tensors.iter();
        let states = states.filter(|(_, tensor)| matches!(tensor.kind, TensorKind::State(_)));
        let outputs = entry.outputs.iter().copied();
        outputs.chain(states.map(|(id, _)| id)).collect()
    }

    /// Checks what outlives the run and what the host reads.
    fn finish(&mut self, walk: &mut Walk<'_>) -> Flow {
        for tensor in self.ends(walk.entry) {
            let name = &walk.entry.name;
            let when = format!("at the end of entry @{name}");
            let flow = self.defined(walk, tensor, Place::Tensor(tensor), &when);
            if flow != Flow::Next {
                return flow;
            }
        }
        Flow::Next
    }

    /// Finds the bytes of parts of tensors that lie at one place on all cores, as most do.
    pub(super) fn place(&mut self, entry: &Entry) {
        let program = self.program;
        for tensor in self.tensors(entry) {
            for (number, (shard, _, at)) in sram_shards(program, tensor).enumerate() {
                let mut exprs = shard.slice.iter().map(|(_, size)| size).chain([at]);
                let known = self.places.contains_key(&(tensor, number));
                if !known && exprs.all(|expr| expr.as_constant().is_some()) {
                    let env = IndexEnv::default();
                    let runs = shard_bytes(program, tensor, shard, at, &env);
                    self.places.insert((tensor, number), runs);
                }
            }
        }
    }

    /// The bytes of a tensor on the core.
    fn bytes(&self, walk: &mut Walk<'_>, tensor: TensorId) -> Vec<(i64, i64)> {
        let program = self.program;
        let mut all = Vec::new();
        for (number, (shard, on, at)) in sram_shards(program, tensor).enumerate() {
            let Some(index) = walk.index(program, on) else {
                continue;
            };
            match self.places.get(&(tensor, number)) {
                Some(runs) => all.extend(runs),
                None => {
                    let env = IndexEnv::of_core(index, walk.class.core, &[], walk.dims);
                    all.extend(shard_bytes(program, tensor, shard, at, &env));
                }
            }
        }
        all
    }

    /// Bytes of a tensor on the core that are not defined.
    fn gap(&self, walk: &mut Walk<'_>, tensor: TensorId) -> Option<Gap> {
        let bytes = self.bytes(walk, tensor);
        bytes.iter().find_map(|run| walk.memory.gap(run.0, run.1))
    }

    /// Reports bytes of a tensor that are not defined.
    fn defined(&mut self, walk: &mut Walk<'_>, tensor: TensorId, place: Place, when: &str) -> Flow {
        let Some(gap) = self.gap(walk, tensor) else {
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
