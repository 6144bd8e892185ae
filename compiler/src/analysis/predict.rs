//! How long a program takes, from the prices of its instructions.
//!
//! The model, simple and the same for every program:
//!
//! - The streams of a call run side by side, and a `wait` waits for its `signal`. Statements of a
//!   stream follow each other; each takes what it takes alone. A call takes as long as
//!   its last stream, and at least as long as all streams together occupy any one unit of the core.
//! - Every core has a clock. A call that neither sends nor receives begins when its core is free.
//! - A call with messages begins when all cores of its region, and all that send to them, are free, and
//!   takes as long as on the slowest of its cores; the way to the farthest peer and back is added
//!   once. Contention for links is not counted.
//! - A repeat whose steps are many is followed for a few iterations; the others take as long as the
//!   last of these.
//!
//! What runs elsewhere at the same time costs nothing: a step is charged with the cycles by which it
//! makes the latest clock later, and the ops of its slowest core share that.
//!
//! [`Cost::alone`]: dojoc_ir::program::instr::Cost::alone

mod call;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use dojoc_ir::codes::PROGRAM_MALFORMED;
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::machine::{Boundary, CoreAddress, Machine};
use dojoc_ir::program::{
    EntryId, FamilyId, Home, IndexEnv, IndexExpr, LocId, Program, RegionId, SegmentId, Shard, Step,
    TensorKind, Var, ViewType,
};
use dojoc_ir::types::DType;
use foldhash::{HashMap, HashMapExt as _};

use call::{CallCost, Facts, call_cost};

/// Iterations of a repeat that are followed.
const ITERATIONS: u64 = 4;

/// What an entry of a program is expected to take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Cycles from the first call to the end of the last.
    pub cycles: u64,
    /// The part of the cycles in which calls without messages were the last to end.
    pub compute: u64,
    /// The rest.
    pub communication: u64,
    /// The calls of the schedule in order, with the cycles that each adds.
    pub by_step: Vec<StepCycles>,
    /// Cycles that the ops of the model add, by their names, the largest first. What comes from no op
    /// is not among them.
    pub by_op: Vec<(Arc<str>, u64)>,
    /// Statements carried out by all cores, without view definitions and loops.
    pub instructions: u64,
    /// Messages sent, a multicast once per branch.
    pub messages: u64,
    /// Bytes of their elements.
    pub bytes_moved: u64,
    /// Cores that run anything.
    pub cores: u64,
    /// Segments of the program.
    pub segments: u64,
    /// The byte behind the last one that is used in the SRAM of any core.
    pub sram_high_water: u64,
}

/// What a call adds to the time of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct StepCycles {
    /// Position in the schedule.
    pub step: usize,
    /// Name of the segment.
    pub segment: Arc<str>,
    /// The op of the model that it comes from, if it is one.
    pub op: Option<Arc<str>>,
    /// Whether it has messages.
    pub communicates: bool,
    /// Cycles that it adds.
    pub cycles: u64,
}

/// Predicts an entry of a program that verifies. Run parameters have the values `dims`, in the order of
/// [`Program::dims`].
///
/// # Errors
/// A program whose expressions overflow, which the verifier refuses.
pub fn predict(
    program: &Program,
    entry: EntryId,
    dims: &[i64],
    machine: &Machine,
) -> Result<Prediction, Diagnostic> {
    let malformed = || Diagnostic::input(PROGRAM_MALFORMED, "expressions of the program overflow");
    run(program, entry, dims, machine).ok_or_else(malformed)
}

fn run(program: &Program, entry: EntryId, dims: &[i64], machine: &Machine) -> Option<Prediction> {
    let steps = &program.entries.get(entry)?.steps;
    let mut predictor = Predictor {
        program,
        machine,
        dims,
        steps,
        facts: HashMap::new(),
        costs: HashMap::new(),
        calls: HashMap::new(),
        regions: HashMap::new(),
        ways: HashMap::new(),
        called: BTreeSet::new(),
        high: 0,
        now: Totals {
            by_step: vec![0.0; steps.len()],
            ..Totals::default()
        },
    };
    for tensor in program.tensors.values() {
        // A probe lies where calls have its value.
        if matches!(tensor.kind, TensorKind::Probe) {
            continue;
        }
        for shard in &tensor.shards {
            predictor.shard(tensor.dtype, shard)?;
        }
    }
    predictor.steps(0..steps.len(), &mut vec![])?;
    Some(predictor.finish())
}

/// What adds up along a schedule.
#[derive(Clone, Default)]
struct Totals {
    /// When each core is free.
    clocks: Vec<f64>,
    by_step: Vec<f64>,
    by_loc: BTreeMap<Option<LocId>, f64>,
    end: f64,
    communication: f64,
    instructions: u64,
    messages: u64,
    bytes: u64,
}

impl Totals {
    /// Adds what happened since `before` so many more times.
    fn again(&mut self, before: &Self, times: u64) {
        let add = |now: &mut f64, then: f64| *now += (*now - then) * times as f64;
        let count = |now: &mut u64, then: u64| {
            *now = now.saturating_add(now.saturating_sub(then).saturating_mul(times));
        };
        let clocks = before.clocks.iter().copied();
        for (now, then) in self
            .clocks
            .iter_mut()
            .zip(clocks.chain(std::iter::repeat(0.0)))
        {
            add(now, then);
        }
        for (now, then) in self.by_step.iter_mut().zip(&before.by_step) {
            add(now, *then);
        }
        for (loc, now) in &mut self.by_loc {
            add(now, before.by_loc.get(loc).copied().unwrap_or(0.0));
        }
        add(&mut self.end, before.end);
        add(&mut self.communication, before.communication);
        count(&mut self.instructions, before.instructions);
        count(&mut self.messages, before.messages);
        count(&mut self.bytes, before.bytes);
    }
}

/// The cost of a call on every core of its region.
type Costs = Rc<Vec<Rc<CallCost>>>;

/// The cores of a region, with their positions among all clocks.
type Cores = Rc<Vec<(CoreAddress, usize)>>;

struct Predictor<'p> {
    program: &'p Program,
    machine: &'p Machine,
    dims: &'p [i64],
    steps: &'p [Step],
    facts: HashMap<SegmentId, Rc<Facts>>,
    /// By segment and the parameters that matter.
    costs: HashMap<(SegmentId, Vec<i64>), Rc<CallCost>>,
    /// Of calls outside of repeats on all cores, by the entries of their rows that matter.
    calls: HashMap<(SegmentId, RegionId, Vec<&'p IndexExpr>), Costs>,
    regions: HashMap<RegionId, Cores>,
    /// Cycles to the farthest peer of each family.
    ways: HashMap<FamilyId, f64>,
    /// Regions of calls so far.
    called: BTreeSet<RegionId>,
    high: u64,
    now: Totals,
}

impl<'p> Predictor<'p> {
    fn steps(&mut self, range: Range<usize>, repeats: &mut Vec<i64>) -> Option<()> {
        let mut at = range.start;
        while at < range.end {
            match &self.steps[at] {
                Step::Probe(_) => {}
                Step::Call {
                    segment, on, row, ..
                } => self.call(at, *segment, *on, row, repeats)?,
                Step::Repeat { count, len, .. } => {
                    let body = at + 1..(at + 1).checked_add(*len as usize)?.min(range.end);
                    for iteration in 0..(*count).min(ITERATIONS) {
                        let last = iteration + 1 == ITERATIONS && *count > ITERATIONS;
                        let before = last.then(|| self.now.clone());
                        repeats.push(i64::try_from(iteration).ok()?);
                        self.steps(body.clone(), repeats)?;
                        repeats.pop();
                        if let Some(before) = before {
                            self.now.again(&before, *count - ITERATIONS);
                        }
                    }
                    at = body.end;
                    continue;
                }
            }
            at += 1;
        }
        Some(())
    }

    fn cores(&mut self, region: RegionId) -> Option<Cores> {
        if let Some(known) = self.regions.get(&region) {
            return Some(known.clone());
        }
        let sites = self.machine.sites_per_chip();
        let columns = u64::from(self.machine.noc.columns.value);
        let position = |core: CoreAddress| {
            let site = u64::from(core.row) * columns + u64::from(core.column);
            usize::try_from(u64::from(core.chip) * sites + site).ok()
        };
        let all = self.program.regions.get(region)?;
        if all.len() > self.machine.sites() {
            return None;
        }
        let cores: Option<Vec<_>> = all.cores().map(|c| Some((c, position(c)?))).collect();
        let cores = Rc::new(cores?);
        let needed = cores.iter().map(|(_, at)| at + 1).max().unwrap_or(0);
        if self.now.clocks.len() < needed {
            self.now.clocks.resize(needed, 0.0);
        }
        self.regions.insert(region, cores.clone());
        Some(cores)
    }

    fn eval(
        &self,
        expr: &IndexExpr,
        index: usize,
        core: CoreAddress,
        repeats: &[i64],
    ) -> Option<i64> {
        let env = IndexEnv::of_core(index as u64, core, repeats, self.dims);
        expr.eval(&env, &self.program.tables)
    }

    fn call(
        &mut self,
        step: usize,
        segment: SegmentId,
        on: RegionId,
        row: &'p [IndexExpr],
        repeats: &[i64],
    ) -> Option<()> {
        let cores = self.cores(on)?;
        let facts = match self.facts.get(&segment) {
            Some(known) => known.clone(),
            None => {
                let facts = Rc::new(Facts::of(self.program.segments.get(segment)?));
                self.facts.insert(segment, facts.clone());
                facts
            }
        };
        self.memory(segment, row, &cores, repeats)?;
        let params = facts.params.iter();
        let relevant = params.map(|param| row.get(usize::from(*param)));
        let key = (segment, on, relevant.collect::<Option<Vec<_>>>()?);
        let known = self.calls.get(&key).filter(|_| repeats.is_empty());
        let costs = match known {
            Some(known) => known.clone(),
            None => {
                let costs = Rc::new(self.costs(segment, &facts, row, &cores, repeats)?);
                if repeats.is_empty() {
                    self.calls.insert(key, costs.clone());
                }
                costs
            }
        };
        let slowest = costs
            .iter()
            .max_by(|a, b| a.cycles.total_cmp(&b.cycles))
            .cloned()
            .unwrap_or_default();
        let begun = self.now.end;
        if facts.families.is_empty() {
            for ((_, at), cost) in cores.iter().zip(costs.iter()) {
                self.now.clocks[*at] += cost.cycles;
                self.now.end = self.now.end.max(self.now.clocks[*at]);
            }
        } else {
            let mut start = 0.0f64;
            let mut way = 0.0f64;
            for family in &facts.families {
                way = way.max(self.way(*family)?);
                if facts.receives.contains(family) {
                    let senders = self.cores(self.program.families.get(*family)?.from)?;
                    start = self.latest(&senders, start);
                }
            }
            let end = self.latest(&cores, start) + slowest.cycles + 2.0 * way;
            for (_, at) in cores.iter() {
                self.now.clocks[*at] = end;
            }
            self.now.end = self.now.end.max(end);
        }
        for cost in costs.iter() {
            let now = &mut self.now;
            now.instructions = now.instructions.saturating_add(cost.instructions);
            now.messages = now.messages.saturating_add(cost.messages);
            now.bytes = now.bytes.saturating_add(cost.bytes);
        }
        self.called.insert(on);
        let added = self.now.end - begun;
        self.now.by_step[step] += added;
        if !facts.families.is_empty() {
            self.now.communication += added;
        }
        let all: f64 = slowest.by_loc.values().sum();
        for (loc, cycles) in &slowest.by_loc {
            if all > 0.0 {
                *self.now.by_loc.entry(*loc).or_default() += added * cycles / all;
            }
        }
        Some(())
    }

    fn latest(&self, cores: &Cores, start: f64) -> f64 {
        let clocks = cores.iter().map(|(_, at)| self.now.clocks[*at]);
        clocks.fold(start, f64::max)
    }

    /// The cost of a call on every core of its region.
    fn costs(
        &mut self,
        segment: SegmentId,
        facts: &Facts,
        row: &[IndexExpr],
        cores: &Cores,
        repeats: &[i64],
    ) -> Option<Vec<Rc<CallCost>>> {
        // Parameters that are the same on all cores are evaluated once.
        let Some((first, _)) = cores.first() else {
            return Some(vec![]);
        };
        let mut params = vec![0; self.program.segments[segment].params.len()];
        let mut varying = vec![];
        for param in &facts.params {
            let expr = row.get(usize::from(*param))?;
            match expr.depends_on_core() {
                true => varying.push((usize::from(*param), expr)),
                false => params[usize::from(*param)] = self.eval(expr, 0, *first, repeats)?,
            }
        }
        let mut costs: Vec<Rc<CallCost>> = Vec::with_capacity(cores.len());
        for (index, (core, _)) in cores.iter().enumerate() {
            let mut same = index > 0;
            for (param, expr) in &varying {
                let value = self.eval(expr, index, *core, repeats)?;
                same &= params[*param] == value;
                params[*param] = value;
            }
            let cost = match costs.last().filter(|_| same) {
                Some(last) => last.clone(),
                None => self.cost(segment, facts, &params)?,
            };
            costs.push(cost);
        }
        Some(costs)
    }

    fn cost(&mut self, segment: SegmentId, facts: &Facts, params: &[i64]) -> Option<Rc<CallCost>> {
        let key = (segment, params.to_vec());
        if let Some(known) = self.costs.get(&key) {
            return Some(known.clone());
        }
        let (program, machine) = (self.program, self.machine);
        let cost = call_cost(program, segment, facts, params, self.dims, machine)?;
        let cost = Rc::new(cost);
        self.costs.insert(key, cost.clone());
        Some(cost)
    }

    /// Cycles of a message of a family to the farthest receiver.
    fn way(&mut self, id: FamilyId) -> Option<f64> {
        if let Some(known) = self.ways.get(&id) {
            return Some(*known);
        }
        let family = self.program.families.get(id)?;
        let (senders, receivers) = (self.cores(family.from)?, self.cores(family.to)?);
        let mut farthest = 0.0f64;
        for (index, (core, _)) in senders.iter().enumerate() {
            for port in 0..family.ports {
                for branch in 0..family.branches {
                    let env = IndexEnv {
                        port: port.into(),
                        branch: branch.into(),
                        ..IndexEnv::of_core(index as u64, *core, &[], self.dims)
                    };
                    let peer = family.peer.eval(&env, &self.program.tables)?;
                    let peer = usize::try_from(peer).ok().and_then(|p| receivers.get(p));
                    if let Some((peer, _)) = peer {
                        farthest = farthest.max(self.distance(*core, *peer)?);
                    }
                }
            }
        }
        self.ways.insert(id, farthest);
        Some(farthest)
    }

    /// Cycles from core to core along rows and columns.
    fn distance(&self, a: CoreAddress, b: CoreAddress) -> Option<f64> {
        let noc = &self.machine.noc;
        let (rows, columns) = (u64::from(noc.rows.value), u64::from(noc.columns.value));
        let chips = (
            self.machine.chip_position(a.chip)?,
            self.machine.chip_position(b.chip)?,
        );
        let site = |(row, column): (u64, u64), core: CoreAddress| {
            (
                row * rows + u64::from(core.row),
                column * columns + u64::from(core.column),
            )
        };
        let apart = |a: (u64, u64), b: (u64, u64)| a.0.abs_diff(b.0) + a.1.abs_diff(b.1);
        let hops = apart(site(chips.0, a), site(chips.1, b)) as f64;
        let crossings = apart(chips.0, chips.1) as f64;
        let crossing = f64::from(self.machine.crossing_cycles(Boundary::Chip));
        Some(hops * f64::from(noc.hop.value) + crossings * crossing)
    }

    /// Takes note of the memory of a call's buffers.
    fn memory(
        &mut self,
        segment: SegmentId,
        row: &[IndexExpr],
        cores: &Cores,
        repeats: &[i64],
    ) -> Option<()> {
        let segment = &self.program.segments[segment];
        let mut ranges: BTreeMap<u16, (i64, i64)> = BTreeMap::new();
        for buffer in segment.buffers.values() {
            for (var, _) in &buffer.at.terms {
                let Var::Param(param) = var else { continue };
                if ranges.contains_key(param) {
                    continue;
                }
                let expr = row.get(usize::from(*param))?;
                let count = if expr.depends_on_core() {
                    cores.len()
                } else {
                    1
                };
                let mut range = (i64::MAX, i64::MIN);
                for (index, (core, _)) in cores.iter().take(count).enumerate() {
                    let value = self.eval(expr, index, *core, repeats)?;
                    range = (range.0.min(value), range.1.max(value));
                }
                ranges.insert(*param, range);
            }
            let (_, at) = buffer.at.bounds(|var| match var {
                Var::Param(param) => ranges.get(&param).copied(),
                _ => None,
            })?;
            self.high = self
                .high
                .max(u64::try_from(at).ok()?.checked_add(buffer.bytes())?);
        }
        Some(())
    }

    /// Takes note of the memory of a tensor's part.
    fn shard(&mut self, dtype: DType, shard: &Shard) -> Option<()> {
        let Home::Sram { on, at } = &shard.home else {
            return Some(());
        };
        for (index, (core, _)) in self.cores(*on)?.iter().enumerate() {
            let shape: Option<Vec<u64>> = (shard.slice.iter())
                .map(|(_, size)| u64::try_from(self.eval(size, index, *core, &[])?).ok())
                .collect();
            let view = ViewType {
                dtype,
                shape: shape?,
                strides: shard.strides.clone(),
                packing: shard.packing,
            };
            let (low, end) = view.extent()?;
            if low < end {
                let start = self.eval(at, index, *core, &[])?;
                self.high = self.high.max(u64::try_from(start.checked_add(end)?).ok()?);
            }
        }
        Some(())
    }

    fn finish(self) -> Prediction {
        let now = self.now;
        let called = self.called.iter().filter_map(|on| self.regions.get(on));
        let used: BTreeSet<usize> = called.flat_map(|c| c.iter().map(|(_, at)| *at)).collect();
        let whole = |cycles: f64| cycles.round() as u64;
        let cycles = now.end.ceil() as u64;
        let communication = whole(now.communication).min(cycles);
        let name = |loc: LocId| self.program.locs.get(loc).map(|loc| loc.name.clone());
        let calls = self.steps.iter().enumerate().zip(&now.by_step);
        let by_step = calls.filter_map(|((at, step), cycles)| match step {
            Step::Call { segment, loc, .. } => Some(StepCycles {
                step: at,
                segment: self.program.segments[*segment].name.clone(),
                op: loc.and_then(name),
                communicates: self
                    .facts
                    .get(segment)
                    .is_some_and(|facts| !facts.families.is_empty()),
                cycles: whole(*cycles),
            }),
            _ => None,
        });
        let mut by_op: BTreeMap<Arc<str>, f64> = BTreeMap::new();
        for (loc, cycles) in &now.by_loc {
            if let Some(name) = loc.and_then(name) {
                *by_op.entry(name).or_default() += cycles;
            }
        }
        let mut by_op: Vec<_> = by_op.into_iter().map(|(op, c)| (op, whole(c))).collect();
        by_op.sort_by(|(a, x), (b, y)| (y, a).cmp(&(x, b)));
        Prediction {
            cycles,
            compute: cycles - communication,
            communication,
            by_step: by_step.collect(),
            by_op,
            instructions: now.instructions,
            messages: now.messages,
            bytes_moved: now.bytes,
            cores: used.len() as u64,
            segments: self.program.segments.len() as u64,
            sram_high_water: self.high,
        }
    }
}
