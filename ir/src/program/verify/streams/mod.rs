//! Proves that the streams of every core are free of races, that slots have one owner, that nothing
//! is read that was never written, and that tokens and slots balance within each call.
//!
//! Each call is run abstractly once for each distinct row of the parameters that matter (the files
//! [`call`] and [`shadow`]), which yields the rules it breaks and a summary: the bytes that
//! must be defined when it starts, and those that it defines or destroys. Cores that run the same
//! calls with tensors at the same places form a class (file [`cores`]); for one core of each class
//! the summaries are strung together along the schedule (files [`walk`] and [`memory`]), in parallel
//! as long as nothing is wrong. Rounds of equal layers are followed until one leaves the memory as
//! it was (file [`repeats`]).
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
mod repeats;
mod report;
mod runs;
mod shadow;
mod summaries;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::Violation;
use crate::codes;
use crate::program::{
    Coordinate, Entry, EntryId, IndexExpr, IndexNode, Place, Program, SegmentId, Step, TensorId,
    TensorKind,
};
use columns::Columns;
use cores::{Class, Cores, Partition, sram_shards};
use facts::Facts;
use memory::Memory;
use order::At;
use summaries::Summaries;
use walk::{Flow, Row, Walk};

/// Statements and intervals of bytes that the proof of a program may take.
const MAX_STEPS: u64 = 128_000_000;

/// Evaluations that the partition of cores into classes may take.
const MAX_EVALUATIONS: u64 = 1 << 28;

/// Combinations of values of run parameters that are checked.
const MAX_DIM_VALUES: u64 = 1 << 14;

/// Checks all entries. The program has passed the structural checks and those of regions.
pub(super) fn check(program: &Program, cancel: &AtomicBool) -> Vec<Violation> {
    let mut check = Check {
        program,
        facts: BTreeMap::new(),
        summaries: Summaries::new(cancel),
        cancel,
        columns: Columns::default(),
        cores: Cores::default(),
        places: BTreeMap::new(),
        budget: MAX_STEPS,
        evaluations: MAX_EVALUATIONS,
        found: Vec::new(),
        seen: BTreeSet::new(),
    };
    for id in program.entries.ids() {
        check.entry(id);
    }
    check.found
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
    cancel: &'p AtomicBool,
    budget: u64,
    evaluations: u64,
    found: Vec<Violation>,
    seen: BTreeSet<Known>,
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
        let left = self.budget.checked_sub(steps);
        if let Some(left) = left.filter(|_| !self.cancel.load(Ordering::Relaxed)) {
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
        self.place(entry);
        let repetitions = repeats::find(&self.signs(entry, &calls), &calls);
        let start = |class: &Class, culprits| Walk {
            id,
            entry,
            calls: &calls,
            repetitions: &repetitions,
            class: *class,
            dims,
            memory: Memory::new(culprits),
            culprits,
            indices: BTreeMap::new(),
        };
        let starts = self.starts(entry, classes.iter().map(|class| start(class, false)));
        let sound = |class| self.sound(&mut start(class, false), &starts);
        let costs: Vec<Option<u64>> = classes.par_iter().map(sound).collect();
        for (class, cost) in classes.iter().zip(costs) {
            if let Some(cost) = cost {
                if !self.spend(cost, id) {
                    return false;
                }
                continue;
            }
            // The walk that knows who destroyed which bytes takes longer: only where it matters.
            for culprits in [false, true] {
                match self.walk(&mut start(class, culprits)) {
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
            self.summaries
                .prepare(program, &self.facts, &mut self.budget);
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
}
