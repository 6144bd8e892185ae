//! DRAM regions: who may read and write an instance, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use foldhash::{HashMap, HashMapExt as _};

use super::super::instr::Ref;
use super::super::{Affine, DramId, DramRegion, EntryId, IndexEnv, Place, SegmentId, Step, Stmt};
use super::balance::{Uses, dim_values, follow};
use super::bounds::{Layout, reach};
use super::channels::Positions;
use super::trace::{End, Sequences, Subject};
use super::walk::{Site, sites};
use super::{Context, Scope, Violation, core_name};
use crate::codes;
use crate::machine::CoreAddress;

pub(super) fn check(cx: &mut Context<'_>) {
    let program = cx.program;
    if program.dram.is_empty() {
        return;
    }
    for (id, dram) in program.dram.iter() {
        instances(cx, id, dram);
    }
    let mut epochs = Epochs::default();
    for segment in program.segments.ids() {
        for stream in 0..program.segments[segment].streams.len() {
            epochs.stream(cx, segment, stream);
        }
        for site in sites(program, segment) {
            access(cx, &site);
        }
    }
    if cx.has(codes::BAD_DRAM) {
        return;
    }
    let mut positions = Positions::new();
    for (id, dram) in program.dram.iter() {
        let Some(_) = dram.owners else { continue };
        let uses = Uses::new(program, Subject::Dram(id), &|segment, stream, at| {
            epochs.guarded.contains(&(segment, stream, at))
        });
        for (entry, declared) in program.entries.iter() {
            for dims in dim_values(cx, Place::Dram(id), &uses.dims(program, declared)) {
                let mut count = Count {
                    cx,
                    positions: &mut positions,
                    entry,
                    dram: id,
                    uses: &uses,
                    dims: &dims,
                    commits: BTreeMap::new(),
                    readers: HashMap::new(),
                    classes: HashMap::new(),
                };
                let steps = declared.steps.len();
                if count.steps(0..steps, &mut Vec::new(), 1).is_none() || !count.compare() {
                    break;
                }
            }
        }
    }
}

/// The interface processors of instances exist and hold them.
fn instances(cx: &mut Context<'_>, id: DramId, dram: &DramRegion) {
    let program = cx.program;
    let place = Place::Dram(id);
    let dips = cx.machine.dips();
    let origin = CoreAddress {
        chip: 0,
        row: 0,
        column: 0,
    };
    let owners: Box<dyn Iterator<Item = CoreAddress>> = match dram.owners {
        Some(owners) => Box::new(program.regions[owners].cores()),
        None => Box::new(std::iter::once(origin)),
    };
    let capacity = (cx.machine.hbm_bytes()).checked_div(dips).unwrap_or(0);
    let mut bytes: BTreeMap<i64, u64> = BTreeMap::new();
    for (index, owner) in owners.enumerate() {
        let env = IndexEnv::of_core(index as u64, owner, &[], &[]);
        let dip = dram.dip.eval(&env, &program.tables);
        let Some(dip) = dip.filter(|dip| *dip >= 0 && dip.unsigned_abs() < dips) else {
            let message = match dip {
                _ if dips == 0 => "the machine has no interface processors".into(),
                Some(dip) => format!(
                    "the instance of {} is at interface processor {dip}, the machine has {dips}",
                    core_name(owner)
                ),
                None => format!(
                    "the interface processor of the instance of {} has no value",
                    core_name(owner)
                ),
            };
            cx.report(Violation::new(codes::BAD_DRAM, place, message));
            return;
        };
        let used = bytes.entry(dip).or_default();
        *used = used.saturating_add(dram.bytes);
        if *used > capacity {
            let message = format!(
                "instances at interface processor {dip} need {used} bytes, it has {capacity}"
            );
            cx.report(Violation::new(codes::BAD_DRAM, place, message));
            return;
        }
    }
}

/// Owners in range, bytes inside the instance, kinds of access that the region allows.
fn access(cx: &mut Context<'_>, site: &Site<'_>) {
    let program = cx.program;
    let (id, owner, bytes) = match site.stmt {
        Stmt::DramBegin(dram) | Stmt::DramCommit(dram) => (*dram, None, None),
        Stmt::DramAcquire { dram, owner } | Stmt::DramRelease { dram, owner } => {
            (*dram, Some(owner), None)
        }
        Stmt::DramLoad {
            dram,
            owner,
            offset,
            strides,
            to,
        } => (*dram, Some(owner), Some((offset, strides, *to))),
        Stmt::DramStore {
            dram,
            offset,
            strides,
            from,
        } => (*dram, None, Some((offset, strides, *from))),
        _ => return,
    };
    let dram = &program.dram[id];
    let place = site.place();
    let loads = matches!(site.stmt, Stmt::DramLoad { .. });
    if dram.owners.is_none() && !loads {
        let message = format!("@{} has no owners: it can only be loaded from", dram.name);
        cx.report(Violation::new(codes::BAD_DRAM, place, message));
        return;
    }
    let owners = dram
        .owners
        .map_or(1, |owners| program.regions[owners].len());
    let segment = &program.segments[site.segment];
    let (size, shape): (u64, Vec<Affine>) = match bytes {
        None => (1, Vec::new()),
        Some((_, _, Ref::Buffer(buffer))) => {
            let buffer = &segment.buffers[buffer];
            let extent =
                |extent: &u64| Affine::constant(i64::try_from(*extent).unwrap_or(i64::MAX));
            (
                buffer.dtype.bytes(),
                buffer.shape.iter().map(extent).collect(),
            )
        }
        Some((_, _, Ref::View(view))) => {
            let view = &segment.views[view];
            (view.dtype.bytes(), view.shape.clone())
        }
    };
    let exprs = shape
        .iter()
        .chain(owner)
        .chain(bytes.map(|(offset, ..)| offset));
    let params = site.params(exprs);
    let mut judge = |scope: &Scope| {
        let mut scope = site.scope(scope.clone());
        if scope.is_dead() {
            return None;
        }
        if let Some(owner) = owner {
            match scope.bounds(owner) {
                Some((low, high)) if low >= 0 && high.unsigned_abs() < owners => {}
                _ => {
                    let message = format!("the owner is not always one of the {owners} owners");
                    return Some(Violation::new(codes::BAD_DRAM, place, message));
                }
            }
        }
        let (offset, strides, _) = bytes?;
        shape
            .iter()
            .for_each(|extent| scope.require_positive(extent));
        if scope.is_dead() {
            return None;
        }
        let layout = Layout {
            shape: &shape,
            strides,
            block: (1, 1),
            size,
        };
        match reach(&scope, offset, &layout) {
            Some((low, high)) if low >= 0 && high.unsigned_abs() <= dram.bytes => None,
            Some((low, high)) => {
                let message = format!(
                    "reaches bytes {low} to {high} of an instance of @{}, which has {}",
                    dram.name, dram.bytes
                );
                Some(Violation::new(codes::BAD_DRAM, place, message))
            }
            None => {
                let message = "reaches beyond 64 bits";
                Some(Violation::new(codes::BAD_DRAM, place, message))
            }
        }
    };
    cx.for_rows(site.segment, place, &params, &mut judge);
}

/// Which epochs are open.
#[derive(Clone, PartialEq, Eq, Default)]
struct Open {
    written: BTreeSet<DramId>,
    acquired: BTreeSet<(DramId, Affine)>,
}

/// Begin and commit, acquire and release alternate in each stream.
#[derive(Default)]
struct Epochs {
    /// Loads between acquire and release, or of regions that need none.
    guarded: BTreeSet<(SegmentId, u32, u32)>,
}

impl Epochs {
    fn stream(&mut self, cx: &mut Context<'_>, segment: SegmentId, stream: usize) {
        let program = cx.program;
        let code = &program.segments[segment].streams[stream].code;
        let place = |at: usize| Place::Inst(segment, stream as u32, at as u32);
        let mut open = Open::default();
        // Enclosing loops: where they begin and end, and what was open before.
        let mut loops: Vec<(usize, usize, Open)> = Vec::new();
        for at in 0..=code.len() {
            while let Some((start, end, before)) = loops.last() {
                if *end > at {
                    break;
                }
                if *before != open {
                    let message = "opens or closes an epoch of a dram region in its body";
                    cx.report(Violation::new(codes::BAD_DRAM, place(*start), message));
                    return;
                }
                loops.pop();
            }
            let Some(inst) = code.get(at) else { break };
            if let Stmt::Loop { len, .. } = &inst.stmt {
                loops.push((at, at + 1 + *len as usize, open.clone()));
                continue;
            }
            match self.statement(cx, &inst.stmt, &mut open) {
                Ok(true) => {
                    self.guarded.insert((segment, stream as u32, at as u32));
                }
                Ok(false) => {}
                Err(message) => {
                    cx.report(Violation::new(codes::BAD_DRAM, place(at), message));
                    return;
                }
            }
        }
        let written = open.written.first();
        let dram = written.or(open.acquired.first().map(|(dram, _)| dram));
        if let Some(dram) = dram {
            let message = format!(
                "a stream ends with an open epoch of @{}",
                program.dram[*dram].name
            );
            let violation = Violation::new(codes::BAD_DRAM, Place::Segment(segment), message);
            cx.report(violation.help("add `dram.commit` or `dram.release`"));
        }
    }

    /// Whether the statement is a load that needs no owner.
    fn statement(&self, cx: &Context<'_>, stmt: &Stmt, open: &mut Open) -> Result<bool, String> {
        let name = |dram: &DramId| &cx.program.dram[*dram].name;
        match stmt {
            Stmt::DramBegin(dram) if !open.written.insert(*dram) => {
                Err(format!("an epoch of @{} is open already", name(dram)))
            }
            Stmt::DramCommit(dram) if !open.written.remove(dram) => Err(format!(
                "no epoch of @{} is open in this stream",
                name(dram)
            )),
            Stmt::DramStore { dram, .. } if !open.written.contains(dram) => Err(format!(
                "stores to @{} outside of `dram.begin` and `dram.commit` of its stream",
                name(dram)
            )),
            Stmt::DramAcquire { dram, owner } if !open.acquired.insert((*dram, owner.clone())) => {
                Err(format!(
                    "this instance of @{} is acquired already",
                    name(dram)
                ))
            }
            Stmt::DramRelease { dram, owner } if !open.acquired.remove(&(*dram, owner.clone())) => {
                Err(format!(
                    "this instance of @{} is not acquired in this stream",
                    name(dram)
                ))
            }
            Stmt::DramLoad { dram, owner, .. } => Ok(cx.program.dram[*dram].owners.is_none()
                || open.acquired.contains(&(*dram, owner.clone()))),
            _ => Ok(false),
        }
    }
}

/// What cores do in a call, by segment and the parameters that matter.
type Classes = HashMap<(SegmentId, Vec<i64>), Option<Rc<Sequences>>>;

/// Epochs of all instances of a region over an entry.
struct Count<'c, 'p> {
    cx: &'c mut Context<'p>,
    positions: &'c mut Positions,
    entry: EntryId,
    dram: DramId,
    uses: &'c Uses<'p>,
    dims: &'c [i64],
    /// By owner.
    commits: BTreeMap<u64, u64>,
    /// By owner and core.
    readers: HashMap<(u64, CoreAddress), u64>,
    classes: Classes,
}

impl Count<'_, '_> {
    fn steps(
        &mut self,
        range: std::ops::Range<usize>,
        counters: &mut Vec<i64>,
        factor: u64,
    ) -> Option<()> {
        let program = self.cx.program;
        let steps = &program.entries[self.entry].steps;
        let mut at = range.start;
        while at < range.end {
            match &steps[at] {
                Step::Call { segment, .. } if self.uses.segments.contains_key(segment) => {
                    self.call(at, counters, factor)?;
                }
                Step::Repeat { count, len, .. } => {
                    let body = at + 1..at + 1 + *len as usize;
                    at = body.end - 1;
                    let depth = counters.len() as u8;
                    let varies = steps[body.clone()].iter().any(|step| match step {
                        Step::Call { segment, row, .. } => {
                            let used = self.uses.segments.get(segment);
                            used.is_some_and(|used| {
                                let params = used.params.iter();
                                params
                                    .into_iter()
                                    .any(|p| row[usize::from(*p)].uses_repeat(depth))
                            })
                        }
                        _ => false,
                    });
                    let (times, factor) = if varies {
                        (*count, factor)
                    } else {
                        ((*count).min(1), factor.saturating_mul(*count))
                    };
                    for counter in 0..times {
                        if !self.cx.spend(1, Place::Step(self.entry, at as u32)) {
                            return None;
                        }
                        counters.push(counter as i64);
                        self.steps(body.clone(), counters, factor)?;
                        counters.pop();
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Some(())
    }

    fn call(&mut self, at: usize, counters: &[i64], factor: u64) -> Option<()> {
        let program = self.cx.program;
        let Step::Call {
            segment, on, row, ..
        } = &program.entries[self.entry].steps[at]
        else {
            return Some(());
        };
        let place = Place::Step(self.entry, at as u32);
        let dram = &program.dram[self.dram];
        let owners = self.positions.of(self.cx, *on, dram.owners?);
        let params = &self.uses.segments[segment].params;
        for (index, core) in program.regions[*on].cores().enumerate() {
            let env = IndexEnv::of_core(index as u64, core, counters, self.dims);
            let values: Option<Vec<i64>> = params
                .iter()
                .map(|param| row[usize::from(*param)].eval(&env, &program.tables))
                .collect();
            let Some(values) = values else {
                self.cx.rows_of(*segment, params);
                return None;
            };
            let key = (*segment, values);
            let class = match self.classes.get(&key) {
                Some(known) => known.clone(),
                None => {
                    let used = &self.uses.segments[segment];
                    let what = (*segment, params.as_slice(), key.1.as_slice(), self.dims);
                    let class = follow(self.cx, used, what, place).map(Rc::new);
                    self.classes.insert(key, class.clone());
                    class
                }
            }?;
            let own = u64::from(owners[index]);
            if !self.cx.spend(1 + class.len() as u64, place) {
                return None;
            }
            for ((end, owner), seq) in class.iter() {
                let owner = owner.unsigned_abs();
                let times = seq.messages.saturating_mul(factor);
                let wrong = match end {
                    End::Begin | End::Commit | End::Store if owners[index] == u32::MAX => {
                        Some("writes to it, but is not an owner")
                    }
                    End::Acquire | End::Release if owner == own => {
                        Some("acquires or releases its own instance, which needs no `dram.acquire`")
                    }
                    End::LoadOwn if owner != own => {
                        Some("loads from another core's instance without `dram.acquire`")
                    }
                    _ => None,
                };
                if let Some(wrong) = wrong {
                    let message = format!(
                        "core {} runs segment @{} and {wrong}",
                        core_name(core),
                        program.segments[*segment].name
                    );
                    let violation =
                        Violation::new(codes::BAD_DRAM, Place::Dram(self.dram), message);
                    self.cx.report(violation);
                    return None;
                }
                match end {
                    End::Commit => {
                        let count = self.commits.entry(own).or_default();
                        *count = count.saturating_add(times);
                    }
                    End::Release => {
                        let count = self.readers.entry((owner, core)).or_default();
                        *count = count.saturating_add(times);
                    }
                    _ => {}
                }
            }
        }
        Some(())
    }

    fn compare(&mut self) -> bool {
        let program = self.cx.program;
        let dram = &program.dram[self.dram];
        let entry = &program.entries[self.entry].name;
        let owner_name = |owner: u64| {
            let owners = dram.owners.map(|owners| &program.regions[owners]);
            owners
                .and_then(|owners| owners.get(owner))
                .map(core_name)
                .unwrap_or_default()
        };
        let mut readers: BTreeMap<u64, u32> = BTreeMap::new();
        let mut wrong: Option<(u64, CoreAddress, u64)> = None;
        for ((owner, core), times) in &self.readers {
            *readers.entry(*owner).or_default() += 1;
            let commits = self.commits.get(owner).copied().unwrap_or(0);
            if *times != commits {
                let found = (*owner, *core, *times);
                wrong = Some(wrong.map_or(found, |first| first.min(found)));
            }
        }
        let message = if let Some((owner, core, times)) = wrong {
            let commits = self.commits.get(&owner).copied().unwrap_or(0);
            format!(
                "in entry @{entry}, core {} reads {times} epochs of the instance of {}, which \
                 commits {commits}",
                core_name(core),
                owner_name(owner)
            )
        } else {
            let differs = self
                .commits
                .iter()
                .filter(|(_, commits)| **commits > 0)
                .map(|(owner, _)| (*owner, readers.get(owner).copied().unwrap_or(0)))
                .find(|(_, count)| *count != dram.readers);
            let Some((owner, count)) = differs else {
                return true;
            };
            format!(
                "in entry @{entry}, {count} cores read the instance of {}, but `readers` is {}",
                owner_name(owner),
                dram.readers
            )
        };
        self.cx.report(Violation::new(
            codes::BAD_DRAM,
            Place::Dram(self.dram),
            message,
        ));
        false
    }
}
